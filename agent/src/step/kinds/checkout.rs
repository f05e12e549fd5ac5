//! `checkout`: a copy of the working tree, or the clone that a shell of the job makes.

use std::io::Write as _;
use std::sync::Arc;

use navvy_checkout::{CheckoutSource, WorkingTree, clone_script};
use navvy_environment::supervisor::{Client, ClientError};
use navvy_job::chain::chain;
use navvy_job::claim::RunFacts;
use navvy_job::compiled::{Checkout, Run};

use crate::step::cx::StepCx;
use crate::step::own::{StepError, StepFault, StepOutput};
use crate::step::{Frame, absolute};

/// Clones as the real service does, in a shell of the job.
pub fn clone(checkout: &Checkout, run: &RunFacts) -> Run {
    let mut clone = Run::new(clone_script(checkout, run));
    clone.shell = Some("/bin/sh -e".to_owned());
    clone
}

/// Gives the job a private copy of the working tree, as one stream into its environment.
pub async fn checkout(cx: &StepCx<'_>, output: &mut StepOutput, checkout: &Checkout) -> Result<(), StepError> {
    let tree = match cx.checkout {
        CheckoutSource::WorkingTree(tree) => Arc::clone(tree),
        CheckoutSource::Git => return Err("checkout: a clone runs in a shell of the job".to_owned().into()),
        CheckoutSource::Unavailable(why) => return Err(why.clone().into()),
    };
    let target = target_of(cx.frame, checkout);
    let (client, user) = (cx.client.clone(), cx.frame.user.clone());
    let lines = cx.bounds.bounded(move || copy(&client, user, &target, &tree)).await??;
    lines.iter().for_each(|line| output.line(line));
    Ok(())
}

/// Where the files go: absolute.
fn target_of(frame: &Frame, checkout: &Checkout) -> String {
    absolute(&frame.directory(checkout.path.as_deref()), &frame.home)
}

/// Returns what to tell of it, or why it failed.
fn copy(client: &Client, user: Option<String>, target: &str, tree: &WorkingTree) -> Result<Vec<String>, StepFault> {
    let failed = |error: ClientError| StepFault::of_client("", &error);
    client.make_directory(target, user.clone()).map_err(failed)?;
    let present = client.glob(target, &["*", ".*"], user.clone()).map_err(failed)?.paths;
    let is_repository = present.iter().any(|name| name == b".git");
    if !present.is_empty() && !is_repository {
        return Err(StepFault::from(format!(
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
        Ok(Err(reason)) => Err(StepFault::from(format!("checkout: {reason}"))),
        Err(error) => Err(StepFault::of_client(&format!("checkout into {target}: "), &error)),
    }
}

fn told(tree: &WorkingTree, target: &str, entries: u64, bytes: u64, more: Vec<String>) -> Vec<String> {
    let mib = bytes as f64 / f64::from(1 << 20);
    let mut lines =
        vec![format!("Copied the working tree {} to {target}: {entries} entries, {mib:.1} MiB", tree.root().display())];
    lines.extend(more);
    lines
}
