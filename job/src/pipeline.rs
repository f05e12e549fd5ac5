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
    pub name: String,
    /// `Err` tells why a push of this branch or tag would not start it.
    pub selected: Selection,
    /// In the order of the file, matrices expanded; names are unique.
    pub jobs: Vec<WorkflowJob>,
    /// When it runs; with one, it runs on no push.
    #[serde(default)]
    pub schedules: Vec<Schedule>,
    /// 0 to 5.
    pub max_auto_reruns: u32,
    /// There are mistakes in it, told as warnings because its own condition leaves it out: its jobs and what they
    /// require are not whole, and nothing of it can run.
    #[serde(default)]
    pub flawed: bool,
    pub origin: Origin,
}

/// A trigger of a workflow by the clock, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Minute, hour, day of the month, month, day of the week, each checked.
    pub cron: String,
    /// Branches, as written: names, or regular expressions between slashes.
    pub only: Vec<String>,
    pub ignore: Vec<String>,
}

/// Is something part of this pipeline, and if not, why not?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    Selected,
    /// In words for a person: "its branch filter does not match branch `main`".
    Left {
        reason: String,
    },
}

impl Selection {
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
    pub kind: WorkflowJobKind,
    /// Values of the matrix by parameter, as text; empty without a matrix.
    pub matrix: BTreeMap<String, String>,
    /// `matrix.alias`, as written: a name for all that the matrix became.
    #[serde(default)]
    pub alias: Option<String>,
    /// All must be met. Jobs left out by filters are already dropped.
    pub requires: Vec<Requirement>,
    pub selected: Selection,
    /// In the order of the config: later ones win over equal variables.
    pub contexts: Vec<String>,
    pub serial_group: Option<String>,
    pub origin: Origin,
}

/// What happens when a node's turn comes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WorkflowJobKind {
    Build {
        job: Box<Job>,
    },
    /// Waits for a person.
    Approval,
    /// Succeeds at once.
    NoOp,
    /// A kind that Navvy knows and does not carry out (`release`, `lock`, `unlock`), or a job of a missing orb.
    Unavailable {
        what: String,
    },
}

/// `job` must have ended in one of `statuses`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Requirement {
    pub job: String,
    pub statuses: BTreeSet<JobStatus>,
}
