//! Steps that the agent itself carries out.

use std::io::Write as _;
use std::sync::Arc;

use navvy_job::chain::chain;
use navvy_job::compiled::{Checkout, Run};

use super::attempt::{Attempted, Place};
use super::own::Trouble;
use super::prepare::Ready;
use super::{CheckoutSource, Task, trees};
use crate::checkout::{WorkingTree, clone_script};
use crate::step::{Frame, absolute};
use crate::supervisor::{Client, ClientError};

impl Task {
    pub(super) async fn checkout(&mut self, ready: &mut Ready, place: Place<'_>, checkout: &Checkout) -> Attempted {
        match self.context.checkout.clone() {
            CheckoutSource::WorkingTree(tree) => self.copy_tree(ready, place, checkout, tree).await,
            CheckoutSource::Git => self.clone_repository(ready, place, checkout).await,
            CheckoutSource::Unavailable(why) => match self.begin_own(place) {
                Ok(told) => self.own_ended(place, &told, Ok(Err(Trouble::from(why)))),
                Err(attempted) => *attempted,
            },
        }
    }

    /// Clones as the real service does, in a shell of the job.
    async fn clone_repository(&mut self, ready: &mut Ready, place: Place<'_>, checkout: &Checkout) -> Attempted {
        let mut run = Run::new(clone_script(checkout, &self.claim.run));
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
        let mut told = match self.begin_own(place) {
            Ok(told) => told,
            Err(attempted) => return *attempted,
        };
        let target = target_of(&ready.frame, checkout);
        let (client, user) = (ready.client.clone(), ready.frame.user.clone());
        let copied = self.bounded(&ready.environment, move || copy(&client, user, &target, &tree)).await;
        let end = copied.map(|copied| copied.map(|lines| lines.iter().for_each(|line| told.line(line))));
        self.own_ended(place, &told, end)
    }
}

/// Where the files go: absolute.
fn target_of(frame: &Frame, checkout: &Checkout) -> String {
    absolute(&frame.directory(checkout.path.as_deref()), &frame.home)
}

/// Why the supervisor did not do what a step needed.
pub(super) fn of_client(what: &str, error: &ClientError) -> Trouble {
    let trouble = trees::of_client(error);
    Trouble { reason: format!("{what}{}", trouble.reason), ..trouble }
}

/// Returns what to tell of it, or why it failed.
fn copy(client: &Client, user: Option<String>, target: &str, tree: &WorkingTree) -> Result<Vec<String>, Trouble> {
    let failed = |error: ClientError| of_client("", &error);
    client.make_directory(target, user.clone()).map_err(failed)?;
    let present = client.glob(target, &["*", ".*"], user.clone()).map_err(failed)?.paths;
    let is_repository = present.iter().any(|name| name == b".git");
    if !present.is_empty() && !is_repository {
        return Err(Trouble::from(format!(
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
        Ok(Err(reason)) => Err(Trouble::from(format!("checkout: {reason}"))),
        Err(error) => Err(of_client(&format!("checkout into {target}: "), &error)),
    }
}

fn told(tree: &WorkingTree, target: &str, entries: u64, bytes: u64, more: Vec<String>) -> Vec<String> {
    let mib = bytes as f64 / f64::from(1 << 20);
    let mut lines =
        vec![format!("Copied the working tree {} to {target}: {entries} entries, {mib:.1} MiB", tree.root().display())];
    lines.extend(more);
    lines
}
