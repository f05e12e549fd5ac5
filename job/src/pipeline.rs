//! What a config text compiles to: a pipeline, its workflows, their jobs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::compiled::{Job, Origin};
use crate::outcome::JobStatus;

/// One run of a config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pipeline {
    /// `setup: true`: its only purpose is to make the config of another.
    pub setup: bool,
    /// In the order of the file; those that do not run included.
    pub workflows: Vec<Workflow>,
}

/// A graph of jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// Key below `workflows:`.
    pub name: String,
    /// Whether a push of this branch or tag would start it, and if not, why.
    pub selected: Selection,
    /// In the order of the file, matrices expanded; names are unique.
    pub jobs: Vec<WorkflowJob>,
    /// When it runs; with one, it runs on no push.
    #[serde(default)]
    pub schedules: Vec<Schedule>,
    /// 0 to 5.
    pub max_auto_reruns: u32,
    /// It has mistakes, reported as warnings because its own condition leaves it out: its jobs and their requirements are
    /// incomplete, so that none of them can run.
    #[serde(default)]
    pub flawed: bool,
    /// Where the config has the workflow.
    pub origin: Origin,
}

/// A trigger of a workflow by the clock, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Minute, hour, day of the month, month, day of the week, each checked.
    pub cron: String,
    /// Branches, as written: names, or regular expressions between slashes.
    pub only: Vec<String>,
    /// Branches that are left out, written in the same way.
    pub ignore: Vec<String>,
}

/// Whether a workflow or job is part of this pipeline, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// It takes part.
    Selected,
    /// It is left out: "its branch filter does not match branch `main`".
    Left {
        /// Sentence for a person, without a full stop.
        reason: String,
    },
}

impl Selection {
    /// Does it take part?
    pub fn is_selected(&self) -> bool {
        matches!(self, Self::Selected)
    }
}

/// One node of a workflow's graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkflowJob {
    /// Unique in its workflow; shown to people, and `CIRCLE_JOB`.
    pub name: String,
    /// Key below `jobs:` that it was made from; for an approval its own name.
    pub definition: String,
    /// What happens when its turn comes.
    pub kind: WorkflowJobKind,
    /// Values of the matrix by parameter, as text; empty without a matrix.
    pub matrix: BTreeMap<String, String>,
    /// `matrix.alias`, as written: a name for all that the matrix became.
    #[serde(default)]
    pub alias: Option<String>,
    /// All must be met. Jobs left out by filters are already dropped.
    pub requires: Vec<Requirement>,
    /// Whether a push of this branch or tag would run it.
    pub selected: Selection,
    /// In the order of the config: later ones win over equal variables.
    pub contexts: Vec<String>,
    /// `serial-group`, as written; `None`: the job is not part of a serial group.
    pub serial_group: Option<String>,
    /// Where the config has the job.
    pub origin: Origin,
}

/// What happens when a node's turn comes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WorkflowJobKind {
    /// A job with steps.
    Build {
        /// The compiled job.
        job: Box<Job>,
    },
    /// Waits for a person.
    Approval,
    /// Succeeds at once.
    NoOp,
    /// A kind that Navvy knows and does not carry out (`release`, `lock`, `unlock`), or a job of a missing orb.
    Unavailable {
        /// What is missing, in words.
        what: String,
    },
}

/// `job` must have ended in one of `statuses`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Requirement {
    /// Name of the job in the same workflow.
    pub job: String,
    /// Any of them will do.
    pub statuses: BTreeSet<JobStatus>,
}
