//! What goes into a walk and what comes out of it.

use std::collections::BTreeSet;

use super::TaskEnd;
use crate::compiled::Job;
use crate::event::{JobEnd, JobRef, JobSummary};
use crate::outcome::{CancelReason, RunEnd};
use crate::pipeline::{WorkflowJob, WorkflowJobKind};
use crate::selection::Chosen;
use crate::workflow::Graph;

/// Names a job of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// Which workflow, in the order in which they joined.
    pub workflow: usize,
    /// Which of its jobs that take part, in the order of the file.
    pub job: usize,
}

/// Names a task of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    /// Its job.
    pub job: JobKey,
    /// Which of the job's nodes, from 0.
    pub node: u32,
}

/// What was said in advance about jobs, by their names in any workflow.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Every approval is given.
    pub approve_all: bool,
    /// These approvals are given.
    pub approved: BTreeSet<String>,
    /// There is a person who answers for the others. Without one they are held.
    pub is_asked: bool,
    /// Jobs that count as passed without being run.
    pub assume_passed: BTreeSet<String>,
}

/// What a job of a walk does when its turn comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Runs as this many tasks; 0 counts as 1.
    Tasks(u32),
    /// Waits for a person.
    Approval,
    /// Passes at once.
    Nothing,
    /// Cannot run here.
    Unavailable {
        /// What it would need.
        needs: String,
    },
}

/// A workflow that takes part in a walk.
#[derive(Debug, Clone)]
pub struct Part {
    pub(super) name: String,
    pub(super) graph: Graph,
    /// What each job of the graph does, in the same order.
    pub(super) work: Vec<Work>,
}

impl Part {
    /// `tasks` tells how many tasks a job becomes here, or what it would need.
    pub fn new(chosen: &Chosen, tasks: impl Fn(&Job) -> Result<u32, String>) -> Self {
        let graph = Graph::new(&chosen.workflow, chosen.only.as_ref());
        let work = |job: &WorkflowJob| match &job.kind {
            WorkflowJobKind::NoOp => Work::Nothing,
            WorkflowJobKind::Approval => Work::Approval,
            WorkflowJobKind::Unavailable { what } => Work::Unavailable { needs: what.clone() },
            WorkflowJobKind::Build { job } => tasks(job).map_or_else(|needs| Work::Unavailable { needs }, Work::Tasks),
        };
        let jobs = chosen.workflow.jobs.iter().filter(|job| graph.progress(&job.name).is_some());
        Self { name: chosen.workflow.name.clone(), work: jobs.map(work).collect(), graph }
    }

    pub(super) fn reference(&self, job: usize) -> JobRef {
        JobRef { workflow: self.name.clone(), job: self.graph.names()[job].clone() }
    }

    /// Its jobs, in the order of the file.
    pub fn references(&self) -> Vec<JobRef> {
        (0..self.work.len()).map(|job| self.reference(job)).collect()
    }

    /// The key of a job of this part, which is the walk's `workflow`-th.
    pub(super) fn key(&self, workflow: usize, name: &str) -> Option<JobKey> {
        let job = self.graph.names().iter().position(|known| known == name)?;
        Some(JobKey { workflow, job })
    }
}

/// Something that the caller reports to a walk.
#[derive(Debug, Clone)]
pub enum Happening {
    /// A task runs, or is on its way: it will end with a verdict of its own, also after a stop.
    TaskStarted {
        /// Which.
        task: TaskKey,
    },
    /// A task has its verdict. One that never started may have one, too.
    TaskEnded {
        /// Which.
        task: TaskKey,
        /// How it ended.
        end: Box<TaskEnd>,
    },
    /// A person has answered. Answers may come in any order.
    Answered {
        /// The approval.
        job: JobKey,
        /// `false` holds it.
        approved: bool,
    },
    /// No more answers come: approvals that are not given are held.
    AnswersOver,
    /// The continuation of [`Effect::Continue`] was understood: these workflows take part from now on, too.
    Continued {
        /// Empty: the continued pipeline has nothing more to do.
        parts: Vec<Part>,
    },
    /// The continuation of [`Effect::Continue`] cannot be carried out.
    NotContinued,
    /// The run is to end: nothing starts any more.
    Stop {
        /// Becomes the verdict of tasks that have not started.
        reason: CancelReason,
    },
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Tasks of a job, nodes from 0, may start as soon as there is room. The caller reports when they have started, and how
    /// they ended.
    Start {
        /// The job.
        job: JobKey,
        /// At least 1.
        tasks: u32,
    },
    /// A task that has not started must not any more: it has its end already.
    GiveUp {
        /// Which.
        task: TaskKey,
    },
    /// An approval asks a person. If no person can be asked, its end follows.
    Ask {
        /// The approval.
        job: JobKey,
        /// Jobs that wait behind it.
        holds: Vec<String>,
    },
    /// A job has ended, or will never run.
    Tell {
        /// How people know it.
        job: JobRef,
        /// How it ended.
        end: JobEnd,
    },
    /// A task continued the pipeline: the caller answers with [`Happening::Continued`] or [`Happening::NotContinued`].
    Continue {
        /// Which.
        task: TaskKey,
    },
    /// A job continued the pipeline, which had been continued before: this continuation is ignored.
    ContinuedBefore {
        /// The job.
        job: JobKey,
    },
    /// Everything is over.
    Finish(Finish),
}

/// What came of a walk.
#[derive(Debug, Clone)]
pub struct Finish {
    /// How the run ended, as far as its jobs tell.
    pub end: RunEnd,
    /// Every job, in the order of the file.
    pub jobs: Vec<JobSummary>,
}
