//! What a step of the agent's own sees of its task: borrowed, and no more than it needs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use navvy_checkout::CheckoutSource;
use navvy_docker::endpoint::Endpoint;
use navvy_environment::HostPaths;
use navvy_environment::cgroup::Parent;
use navvy_environment::egress::Egress;
use navvy_environment::supervisor::Client;
use navvy_job::claim::{Claim, Secrets};
use navvy_journal::owner::Owner;
use navvy_protocol::supervisor::Packed;
use navvy_results::Timings;
use navvy_storage::{Producer, Store};

use super::Frame;
use super::bounded::Bounds;
use super::handing::{HandedOut, Handing, RemoteDocker};
use crate::artifacts::guard;
use crate::environment::Providers;
use crate::run_store::{RunStore, RunStoreError};
use crate::step::voice::Voice;

/// What a machine beside the job is made with.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    pub providers: &'a Providers,
    /// The job's steps run in a machine themselves.
    pub is_machine: bool,
    /// What a remote Docker is here, or why there is none.
    pub remote: &'a Result<RemoteDocker, String>,
    pub paths: &'a HostPaths,
    pub owner: &'a Owner,
    pub egress: &'a Arc<Egress>,
    pub cgroup: Option<&'a Parent>,
    pub idle_limit: Duration,
    pub disk_floor: u64,
    pub is_adoptable: bool,
}

/// A task around its step.
#[derive(Clone, Copy)]
pub struct StepCx<'a> {
    pub claim: &'a Claim,
    pub secrets: &'a Secrets,
    pub voice: &'a Voice,
    /// The task's own log directory.
    pub directory: &'a Path,
    pub checkout: &'a CheckoutSource,
    pub store: &'a RunStore,
    /// What becomes of artifacts and test results that hold a secret.
    pub secrets_in_artifacts: guard::SecretPolicy,
    pub timings: &'a Timings,
    /// What may be handed to the job.
    pub handing: &'a Handing,
    /// The Docker engine that its environment is made with, if it is.
    pub engine: Option<&'a Endpoint>,
    pub ground: Ground<'a>,
    pub bounds: Bounds<'a>,
    pub client: &'a Client,
    pub frame: &'a Frame,
    /// What the job has been handed.
    pub handed: &'a HandedOut,
}

impl StepCx<'_> {
    /// The store of the claim's project, in the claim's scope.
    pub fn open_store(&self) -> Result<Store, RunStoreError> {
        open_store(self.store, self.claim)
    }

    /// Who makes what this task stores.
    pub fn producer(&self) -> Producer {
        Producer {
            pipeline: Some(self.claim.run.pipeline.clone()),
            job: self.claim.job_name.clone(),
            task: self.claim.task.to_string(),
            build_num: Some(self.claim.run.build_number),
        }
    }

    /// The job's name, as people read it.
    pub fn job(&self) -> &str {
        &self.voice.task.job.job
    }

    /// Who counts on an archive must hear what is not in it, though the step passes.
    pub fn tell_unreadable(&self, step: usize, archive: &str, packed: &Packed) {
        let Some(first) = &packed.first_unreadable else { return };
        let more = match packed.unreadable.saturating_sub(1) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        self.voice.warn_in_report(format!(
            "step {step}: what the job's user cannot read is missing in {archive}: {first}{more}"
        ));
    }
}

/// The claim's facts decide whose store it is, and no variable.
fn open_store(store: &RunStore, claim: &Claim) -> Result<Store, RunStoreError> {
    store.open(&claim.run.project, &claim.trust)
}

#[cfg(test)]
mod tests {
    use navvy_job::claim::{self, Limits, ReportTo, RunFacts, TrustScope};
    use navvy_job::compiled::{Executor, Job};
    use navvy_job::resource::Size;

    use super::*;
    use navvy_storage::{About, Slot, StorageSettings};

    /// A claim of the project `mine`, whose every variable says that it is `another`.
    fn claim() -> Claim {
        let variables = vec![("CIRCLE_PROJECT_ID".to_owned(), "another".to_owned())];
        let job = Job {
            executor: Executor::Macos { xcode: None },
            environment: variables.clone(),
            shell: None,
            working_directory: "~".to_owned(),
            parallelism: 1,
            resource_class: None,
            steps: vec![],
        };
        let run = RunFacts { project: "mine".to_owned(), ..RunFacts::default() };
        Claim {
            version: claim::VERSION,
            task: "0123456789abcdef".parse().unwrap(),
            job_name: "build".to_owned(),
            job,
            node_index: 0,
            node_total: 1,
            attempt: 1,
            limits: Limits { job: Duration::ZERO, size: Size::new(1, 1), grace: Duration::ZERO, pids: 1 },
            trust: TrustScope::Local,
            run,
            builtin_variables: variables,
            report_to: ReportTo::Local,
            may_continue: false,
            upstream: vec![],
        }
    }

    #[tokio::test]
    async fn the_claims_facts_decide_whose_store_is_opened_and_no_variable() {
        let directory = tempfile::tempdir().unwrap();
        let stores = RunStore::new(Ok(StorageSettings::directory(directory.path())));
        let claim = claim();
        let opened = open_store(&stores, &claim).unwrap();
        let place = Slot::Cache { key: "key".to_owned() };
        let reservation = opened.reserve(place.clone()).await.unwrap();
        let pieces = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"body"))]);
        let body = opened.put(&reservation, Box::pin(pieces)).await.unwrap();
        opened.commit(&reservation, &body, About::default()).await.unwrap();
        let finds = async |project| stores.open(project, &claim.trust).unwrap().find(&place).await.unwrap().is_some();
        assert!(finds("mine").await && !finds("another").await);
    }
}
