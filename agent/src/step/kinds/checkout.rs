//! `checkout`: a copy of the working tree, or the clone that a shell of the job makes.

use std::io::Write as _;
use std::sync::Arc;

use navvy_checkout::{CheckoutSource, SentTree, WorkingTree, clone_script};
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
        CheckoutSource::WorkingTree(tree) => Tree::Here(Arc::clone(tree)),
        CheckoutSource::Sent(tree) => Tree::Sent(Arc::clone(tree)),
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
fn copy(client: &Client, user: Option<String>, target: &str, tree: &Tree) -> Result<Vec<String>, StepFault> {
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
    let mut told = Vec::new();
    let unpacked = client.unpack(target, user, |sink| {
        let mut buffered = std::io::BufWriter::with_capacity(256 << 10, sink);
        told = tree.stream(&mut buffered)?;
        buffered.flush().map_err(|error| error.to_string())
    });
    match unpacked {
        Ok(Ok((entries, bytes))) => {
            let mib = bytes as f64 / f64::from(1 << 20);
            let what = tree.words();
            let first = format!("Copied the working tree {what} to {target}: {entries} entries, {mib:.1} MiB");
            Ok(std::iter::once(first).chain(told).collect())
        }
        Ok(Err(reason)) => Err(StepFault::from(format!("checkout: {reason}"))),
        Err(error) => Err(StepFault::of_client(&format!("checkout into {target}: "), &error)),
    }
}

/// A working tree, wherever it is.
enum Tree {
    Here(Arc<WorkingTree>),
    Sent(Arc<dyn SentTree>),
}

impl Tree {
    /// What there is to tell of it.
    fn stream(&self, into: &mut impl std::io::Write) -> Result<Vec<String>, String> {
        match self {
            Self::Here(tree) => Ok(tree.stream(into).map_err(|error| chain(&error))?.lines()),
            Self::Sent(tree) => tree.stream(into).map(|()| Vec::new()),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Here(tree) => tree.root().display().to_string(),
            Self::Sent(_) => "that was submitted".to_owned(),
        }
    }
}
