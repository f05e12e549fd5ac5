//! What stands in a journal.

use std::path::PathBuf;

use navvy_job::id::TaskId;
use navvy_job::outcome::Verdict;
use navvy_job::state::TaskState;
use serde::{Deserialize, Serialize};

use crate::owner::Owner;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counted from 0.
    pub seq: u64,
    /// Milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// What the record says.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What one record says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Entry {
    /// The first, and only the first.
    Opened(Box<Opening>),
    /// The task is about to do what this state means.
    State {
        /// State that the task is about to enter.
        state: TaskState,
        /// `None` until it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verdict: Option<VerdictKind>,
    },
    /// From here on another process looks after the task.
    Owner {
        /// The process that has taken over.
        owner: Owner,
    },
    /// Who looks after the task from here on.
    Standing(Standing),
    /// A record that a later version knows.
    #[serde(other)]
    Unknown,
}

/// Everything a successor needs to find the task's objects and to name it for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    /// Form of the journal: [`Self::VERSION`] of the program that wrote it.
    pub version: u32,
    /// Id of the task.
    pub task: TaskId,
    /// Name of its workflow.
    pub workflow: String,
    /// Name of its job in the workflow.
    pub job: String,
    /// Which of the job's nodes, from 0.
    pub node_index: u32,
    /// Number of nodes that the job has.
    pub node_total: u32,
    /// The process that made the task.
    pub owner: Owner,
    /// Address of the engine, as `--docker` takes it.
    pub engine: String,
    /// The task's log directory.
    pub logs: PathBuf,
    /// Directory of the supervisor's sockets; the task's mark lies beside it.
    pub run_directory: PathBuf,
    /// Every container's name starts so.
    pub containers: String,
    /// Path of its cgroup, below each hierarchy's root.
    pub cgroup: String,
}

impl Opening {
    /// The version this code writes.
    pub const VERSION: u32 = 1;
}

/// Who looks after a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum Standing {
    /// Its owner, as long as that lives.
    Running,
    /// No process; it stays until then for a person to look at.
    Kept {
        /// Seconds since 1970.
        until: u64,
        /// Step at which the task was held; `None` where it is not known.
        step: Option<HeldStep>,
    },
    /// No process for the moment; a successor is expected until then.
    Adoptable {
        /// Seconds since 1970.
        until: u64,
    },
}

/// The step at which a task is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStep {
    /// Number of the step, from 1; 0 is "Spin up environment".
    pub number: usize,
    /// Already masked.
    pub name: String,
}

/// A verdict without its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// Every significant step passed.
    Passed,
    /// A significant step failed.
    Failed,
    /// The task was stopped before its end.
    Canceled,
    /// The task exceeded its time limit.
    TimedOut,
    /// The fault is ours or the machine's, not the job's.
    Infra,
}

impl From<&Verdict> for VerdictKind {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Passed => Self::Passed,
            Verdict::Failed { .. } => Self::Failed,
            Verdict::Canceled { .. } => Self::Canceled,
            Verdict::TimedOut { .. } => Self::TimedOut,
            Verdict::Infra { .. } => Self::Infra,
        }
    }
}
