//! A pipeline's walk, as its happenings made it.
//!
//! ```text
//! what it compiled to ─▶ Walk ──begin──▶ effects
//!                         ▲
//! happening 1, 2, 3 … ────┘  each is handled once when it comes, and again whenever the walk is built anew
//! ```
//!
//! So the happenings are the state: a processor that starts, or another one that takes over, replays them.

use std::collections::{BTreeMap, BTreeSet};

use navvy_job::compiled::Job;
use navvy_job::event::{JobEnd, JobRef};
use navvy_job::outcome::{CancelReason, JobStatus};
use navvy_job::pipeline::{WorkflowJob, WorkflowJobKind};
use navvy_job::selection::Chosen;
use navvy_job::walk::{Effect, Happening, JobKey, Part, TaskEnd, TaskKey, Terms, Walk};
use navvy_protocol::api::Submit;
use navvy_protocol::supervisor::Continuation;
use serde::{Deserialize, Serialize};

use super::compile::{Compiled, Facts};
use super::fitting;

/// A task's key, as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Which workflow, in the order in which they joined.
    pub workflow: usize,
    /// Which of its jobs.
    pub job: usize,
    /// Which of the job's nodes.
    pub node: u32,
}

impl From<TaskKey> for Key {
    fn from(key: TaskKey) -> Self {
        Self { workflow: key.job.workflow, job: key.job.job, node: key.node }
    }
}

impl From<Key> for TaskKey {
    fn from(key: Key) -> Self {
        Self { job: JobKey { workflow: key.workflow, job: key.job }, node: key.node }
    }
}

/// Something that happened to a pipeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "happening", rename_all = "snake_case")]
pub enum Recorded {
    /// A task has its end.
    TaskEnded {
        /// Which.
        task: Key,
        /// How.
        end: Box<TaskEnd>,
        /// What its job continued the pipeline with.
        #[serde(default)]
        continuation: Option<Continuation>,
        /// What differs from the real service.
        #[serde(default)]
        fidelity: Vec<String>,
        /// Warnings for the pipeline's report.
        #[serde(default)]
        warnings: Vec<String>,
    },
    /// A person answered an approval.
    Answered {
        /// Its workflow's name.
        workflow: String,
        /// Its name.
        job: String,
        /// `false` holds it.
        approved: bool,
    },
    /// The continuation of this task joined.
    Continued {
        /// Which.
        task: Key,
        /// What it compiled to.
        compiled: Box<Compiled>,
    },
    /// The continuation of this task could not be carried out.
    NotContinued {
        /// Which.
        task: Key,
        /// In words.
        why: String,
    },
    /// The pipeline is to end.
    Stop {
        /// Who wants it.
        reason: CancelReason,
        /// Tasks that agents had by then: they end by themselves.
        started: Vec<Key>,
    },
}

/// A pipeline as it stands.
pub struct Standing {
    /// Decides.
    pub walk: Walk,
    /// As it came.
    pub submit: Submit,
    /// Of the pipeline.
    pub facts: Facts,
    /// All workflows, those of the continuation behind the first ones.
    pub workflows: Vec<Chosen>,
    /// Workflows from this one on are the continuation's.
    pub second: Option<usize>,
    /// `setup: true`.
    pub setup: bool,
    /// Of the walk's jobs, by workflow.
    pub names: Vec<Vec<JobRef>>,
    /// Jobs that have ended.
    pub ends: BTreeMap<JobRef, JobEnd>,
    /// Approvals that were asked for and not answered.
    pub asked: BTreeSet<JobRef>,
    /// Of all tasks that have ended.
    pub fidelity: Vec<String>,
    /// Of all tasks that have ended.
    pub warnings: Vec<String>,
    /// The config's mistake that kept the pipeline from going on.
    pub not_continued: Option<String>,
    continuations: BTreeMap<TaskKey, Continuation>,
    /// How many happenings made it.
    pub happenings: u64,
}

impl Standing {
    /// A pipeline to which nothing has happened yet, and what is to be done first.
    pub fn begin(submit: Submit, facts: Facts, compiled: Compiled, assumed: BTreeSet<String>) -> (Self, Vec<Effect>) {
        let terms = Terms { is_asked: true, assume_passed: assumed, ..Terms::default() };
        let parts: Vec<Part> = compiled.workflows.iter().map(part).collect();
        let names = parts.iter().map(Part::references).collect();
        let mut standing = Self {
            walk: Walk::new(terms, parts),
            submit,
            facts,
            workflows: compiled.workflows,
            second: None,
            setup: compiled.setup,
            names,
            ends: BTreeMap::new(),
            asked: BTreeSet::new(),
            fidelity: Vec::new(),
            warnings: Vec::new(),
            not_continued: None,
            continuations: BTreeMap::new(),
            happenings: 0,
        };
        let effects = standing.walk.begin();
        standing.keep(&effects);
        (standing, effects)
    }

    /// What is to be done now. The same happenings in the same order always give the same.
    ///
    pub fn step(&mut self, recorded: &Recorded) -> Vec<Effect> {
        self.happenings += 1;
        let effects = match recorded {
            Recorded::TaskEnded { task, end, continuation, fidelity, warnings } => {
                let task = TaskKey::from(*task);
                let job = self.reference(task.job).map(|job| job.job.clone()).unwrap_or_default();
                self.fidelity.extend(fidelity.iter().map(|note| format!("{job}: {note}")));
                self.warnings.extend(warnings.iter().cloned());
                self.continuations.extend(continuation.clone().map(|it| (task, it)));
                self.walk.handle(Happening::TaskEnded { task, end: end.clone() })
            }
            Recorded::Answered { workflow, job, approved } => match self.key(workflow, job) {
                Some(key) => self.walk.handle(Happening::Answered { job: key, approved: *approved }),
                None => Vec::new(),
            },
            Recorded::Continued { compiled, .. } => self.join(compiled),
            Recorded::NotContinued { why, .. } => {
                self.not_continued = Some(why.clone());
                self.walk.handle(Happening::NotContinued)
            }
            Recorded::Stop { reason, started } => {
                let mut effects = Vec::new();
                for task in started {
                    effects.extend(self.walk.handle(Happening::TaskStarted { task: (*task).into() }));
                }
                effects.extend(self.walk.handle(Happening::Stop { reason: *reason }));
                effects
            }
        };
        self.keep(&effects);
        effects
    }

    /// What a task continued the pipeline with.
    pub fn continuation(&self, task: TaskKey) -> Option<&Continuation> {
        self.continuations.get(&task)
    }

    fn join(&mut self, compiled: &Compiled) -> Vec<Effect> {
        let parts: Vec<Part> = compiled.workflows.iter().map(part).collect();
        self.second.get_or_insert(self.workflows.len());
        self.names.extend(parts.iter().map(Part::references));
        self.workflows.extend(compiled.workflows.iter().cloned());
        self.walk.handle(Happening::Continued { parts })
    }

    fn keep(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Ask { job, .. } => {
                    let asked = self.reference(*job).cloned();
                    self.asked.extend(asked);
                }
                Effect::Tell { job, end } => {
                    self.asked.remove(job);
                    self.ends.insert(job.clone(), end.clone());
                }
                _ => {}
            }
        }
    }

    /// Names of the jobs that a rerun from the failed ones passes over.
    ///
    /// The walk knows them by name alone, so a name counts where every job of that name has passed. Jobs of a setup config run
    /// again: without them nothing continues the pipeline.
    pub fn passed(&self) -> BTreeSet<String> {
        let first = if self.setup { self.second.unwrap_or(self.names.len()) } else { 0 };
        let (again, rest) = self.names.split_at(first.min(self.names.len()));
        let has_passed = |job: &&JobRef| self.ends.get(job).is_some_and(has_passed);
        let (passed, failed): (Vec<&JobRef>, Vec<&JobRef>) = rest.iter().flatten().partition(has_passed);
        let runs_again: BTreeSet<&String> = again.iter().flatten().chain(failed).map(|job| &job.job).collect();
        passed.into_iter().map(|job| &job.job).filter(|name| !runs_again.contains(name)).cloned().collect()
    }

    /// How people know a job.
    pub fn reference(&self, job: JobKey) -> Option<&JobRef> {
        self.names.get(job.workflow)?.get(job.job)
    }

    /// The walk's key of a job.
    pub fn key(&self, workflow: &str, job: &str) -> Option<JobKey> {
        let of = |(index, names): (usize, &Vec<JobRef>)| {
            let position = names.iter().position(|it| it.workflow == workflow && it.job == job)?;
            Some(JobKey { workflow: index, job: position })
        };
        self.names.iter().enumerate().find_map(of)
    }

    /// What a job is, if it has steps.
    pub fn build(&self, job: JobKey) -> Option<(&WorkflowJob, &Job)> {
        let name = &self.reference(job)?.job;
        let job = self.workflows.get(job.workflow)?.workflow.jobs.iter().find(|job| job.name == *name)?;
        match &job.kind {
            WorkflowJobKind::Build { job: build } => Some((job, build)),
            _ => None,
        }
    }
}

fn has_passed(end: &JobEnd) -> bool {
    match end {
        JobEnd::Passed { .. } => true,
        JobEnd::Ran { status, .. } => *status == JobStatus::Success,
        _ => false,
    }
}

/// The jobs of a workflow that take part.
pub(super) fn references(chosen: &Chosen) -> Vec<JobRef> {
    part(chosen).references()
}

fn part(chosen: &Chosen) -> Part {
    Part::new(chosen, |job| fitting::fitting(job).map(|_| job.parallelism))
}
