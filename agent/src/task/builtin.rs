//! Steps that the agent itself carries out.

use std::io::Write as _;
use std::sync::Arc;

use navvy_job::compiled::{Checkout, Run};
use navvy_job::outcome::StepOutcome;

use super::attempt::{Attempted, Place};
use super::decide::Lost;
use super::prepare::Ready;
use super::{CheckoutSource, Task};
use crate::chain::chain;
use crate::checkout::{WorkingTree, clone_script};
use crate::event::Event;
use crate::output::StepLog;
use crate::output::mask;
use crate::step::{Frame, absolute};
use crate::supervisor::{Client, ClientError};

impl Task {
    pub(super) async fn checkout(&mut self, ready: &mut Ready, place: Place<'_>, checkout: &Checkout) -> Attempted {
        match self.context.checkout.clone() {
            CheckoutSource::WorkingTree(tree) => self.copy_tree(ready, place, checkout, tree).await,
            CheckoutSource::Git => self.clone_repository(ready, place, checkout).await,
            CheckoutSource::Unavailable(why) => {
                self.own_step_started(place);
                Attempted::not_started(StepLog::path_for(&self.context.directory, place.number, place.attempt), why)
            }
        }
    }

    /// Clones as the real service does, in a shell of the job.
    async fn clone_repository(&mut self, ready: &mut Ready, place: Place<'_>, checkout: &Checkout) -> Attempted {
        let mut run = Run::new(clone_script(checkout, &self.claim.builtin_variables));
        run.shell = Some("/bin/sh -e".to_owned());
        self.attempt(ready, place, &run).await
    }

    /// Gives the job a private copy of the working tree, as one stream into its environment.
    async fn copy_tree(
        &mut self,
        ready: &mut Ready,
        place: Place<'_>,
        checkout: &Checkout,
        tree: Arc<WorkingTree>,
    ) -> Attempted {
        self.own_step_started(place);
        let path = StepLog::path_for(&self.context.directory, place.number, place.attempt);
        let mut log = match StepLog::create(&self.context.directory, place.number, place.attempt) {
            Ok(log) => log,
            Err(error) => return Attempted::not_started(path, format!("the step's log could not be made: {error}")),
        };
        let target = target_of(&ready.frame, checkout);
        let (client, user) = (ready.client.clone(), ready.frame.user.clone());
        let copying = self.bounded(&ready.environment, move || copy(&client, user, &target, &tree));
        let (lines, outcome, lost) = match copying.await {
            Ok(Ok(lines)) => (lines, StepOutcome::Success, None),
            Ok(Err(CopyError { reason, lost })) => (vec![], StepOutcome::Error { reason }, lost),
            Err(why) => return Attempted::given_up(path, log.digest(), why),
        };
        for line in lines {
            self.own_line(place.number, &mut log, &line);
        }
        Attempted::failed(path, log.digest(), outcome, lost)
    }

    pub(super) fn own_step_started(&self, place: Place<'_>) {
        self.context.bus.send(Event::StepStarted {
            task: self.reference.clone(),
            step: place.number,
            attempt: place.attempt,
            name: place.step.name.clone(),
            kind: place.step.kind.key().to_owned(),
            background: false,
            header: None,
            log: StepLog::path_for(&self.context.directory, place.number, place.attempt),
        });
    }

    /// A line that the agent writes into a step's output.
    pub(super) fn own_line(&self, number: usize, log: &mut StepLog, line: &str) {
        let place = || mask::Place::of_job(&self.reference.job.job, format!("output of step {number}"));
        let bytes = format!("{}\n", self.context.bus.masks().text(place, line)).into_bytes();
        if let Err(error) = log.append_now(&bytes) {
            tracing::warn!(%error, "A line of the agent's own could not be written to a step's log.");
        }
        self.context.bus.send(Event::Output {
            task: self.reference.clone(),
            step: number,
            stream: "stdout".to_owned(),
            bytes,
        });
    }
}

/// Where the files go: absolute.
fn target_of(frame: &Frame, checkout: &Checkout) -> String {
    absolute(&frame.directory(checkout.path.as_deref()), &frame.account.home)
}

/// Why there is no copy.
struct CopyError {
    reason: String,
    /// The supervisor, if it was not the job's affair.
    lost: Option<Lost>,
}

impl From<String> for CopyError {
    fn from(reason: String) -> Self {
        Self { reason, lost: None }
    }
}

impl CopyError {
    fn of_client(what: &str, error: &ClientError) -> Self {
        let lost = error.failure().is_none().then_some(Lost::Supervisor);
        Self { reason: format!("{what}{}", chain(error)), lost }
    }
}

/// Returns what to tell of it, or why it failed.
fn copy(client: &Client, user: Option<String>, target: &str, tree: &WorkingTree) -> Result<Vec<String>, CopyError> {
    let failed = |error: ClientError| CopyError::of_client("", &error);
    client.make_directory(target, user.clone()).map_err(failed)?;
    let present = client.glob(target, &["*", ".*"], user.clone()).map_err(failed)?;
    let is_repository = present.iter().any(|name| name == b".git");
    if !present.is_empty() && !is_repository {
        return Err(CopyError::from(format!(
            "checkout: {target} is not empty and is not a git repository; give `checkout` another `path:`, or the job \
             another working_directory"
        )));
    }
    let mut report = None;
    let unpacked = client.unpack(target, user, |sink| {
        let mut buffered = std::io::BufWriter::with_capacity(256 << 10, sink);
        report = Some(tree.stream(&mut buffered).map_err(|error| chain(&error))?);
        buffered.flush().map_err(|error| error.to_string())
    });
    match unpacked {
        Ok(Ok((entries, bytes))) => {
            Ok(told(tree, target, entries, bytes, report.map(|r| r.lines()).unwrap_or_default()))
        }
        Ok(Err(reason)) => Err(CopyError::from(format!("checkout: {reason}"))),
        Err(error) => Err(CopyError::of_client(&format!("checkout into {target}: "), &error)),
    }
}

fn told(tree: &WorkingTree, target: &str, entries: u64, bytes: u64, more: Vec<String>) -> Vec<String> {
    let mib = bytes as f64 / f64::from(1 << 20);
    let mut lines =
        vec![format!("Copied the working tree {} to {target}: {entries} entries, {mib:.1} MiB", tree.root().display())];
    lines.extend(more);
    lines
}
