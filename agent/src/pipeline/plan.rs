//! What a run carries out, and how.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use navvy_job::claim::{CONTINUATION_KEY, RunFacts, SshKey, TrustScope};
use navvy_job::compiled::{Job, Variables};
use navvy_job::event::JobRef;
use navvy_job::resource::Size;
use navvy_job::selection::Chosen;
use navvy_job::walk::{Part, Terms};
use tokio::sync::mpsc;

use super::availability::{Replacements, localise};
use super::contexts::Contexts;
use super::given::Given;
use crate::settings::overcommit::Overcommit;

/// Which approvals are given, and by whom the others are asked for.
#[derive(Debug, Default)]
pub struct Approvals {
    pub all: bool,
    pub given: BTreeSet<String>,
    /// Answers of a person: `true` gives the oldest approval that was asked for, `false` holds it.
    pub answers: Option<mpsc::UnboundedReceiver<bool>>,
}

/// What a run needs to know about one job's task to make its built-in variables.
#[derive(Debug, Clone)]
pub struct TaskFacts<'a> {
    pub job: &'a JobRef,
    /// Counted from 1 in the order of starting.
    pub build_number: u64,
    pub node_index: u32,
    pub node_total: u32,
    pub working_directory: &'a str,
    /// Jobs this one requires.
    pub upstream: Vec<String>,
    pub logs: &'a Path,
}

/// Makes what a task's claim says of its run, and its `CIRCLE_*` variables out of that.
pub type Builtins = Arc<dyn Fn(&TaskFacts<'_>) -> (RunFacts, Variables) + Send + Sync>;

/// What is run, and how.
pub struct Plan {
    pub workflows: Vec<Chosen>,
    pub replacements: Replacements,
    pub approvals: Approvals,
    /// Jobs that count as passed without being run.
    pub assume_passed: BTreeSet<String>,
    /// Cap on `parallelism`.
    pub node_cap: Option<u32>,
    /// 0 is no cap but the machine.
    pub max_parallel: usize,
    pub machine: Size,
    pub overcommit: Overcommit,
    pub job_limit: Duration,
    /// How far the jobs are trusted; they never see it.
    pub scope: TrustScope,
    pub given: Given,
    pub contexts: Contexts,
    pub builtins: Builtins,
    /// `--ssh-key`: for every job that asks for keys.
    pub ssh_keys: Vec<SshKey>,
    /// The secret with which the jobs of a setup pipeline continue it.
    pub continuation_key: Option<String>,
}

impl Plan {
    /// All values that must not be seen, of all jobs: one job's secret may come out of another one's. Then the names of what was
    /// given and cannot be a secret.
    pub fn masked(&self) -> (Variables, Vec<String>) {
        let (given, public) = self.given.sorted(&self.contexts);
        let keys = self.ssh_keys.iter().map(|key| (format!("SSH key {}", key.md5), key.text.clone()));
        (given.into_iter().chain(self.continuation_secret()).chain(keys).collect(), public)
    }

    pub(super) fn continuation_secret(&self) -> Option<(String, String)> {
        self.continuation_key.clone().map(|key| (CONTINUATION_KEY.to_owned(), key))
    }

    /// What the walk needs to know in advance.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            approve_all: self.approvals.all,
            approved: self.approvals.given.clone(),
            is_asked: self.approvals.answers.is_some(),
            assume_passed: self.assume_passed.clone(),
        }
    }

    /// A workflow as the walk sees it.
    pub(super) fn part(&self, chosen: &Chosen) -> Part {
        Part::new(chosen, |job| localise(job, &self.replacements).map(|local| self.nodes(&local.job)))
    }

    /// Tasks that a job becomes.
    fn nodes(&self, job: &Job) -> u32 {
        self.node_cap.map_or(job.parallelism, |cap| job.parallelism.min(cap.max(1)))
    }
}
