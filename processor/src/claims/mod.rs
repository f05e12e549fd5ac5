//! Tasks handed out: taken by one agent at a time, kept by a lease, ended once.
//!
//! ```text
//! queued ──claim (compare and swap, fence + 1)──▶ claimed ──finish──▶ ended
//!   ▲                                               │ │
//!   └── lease lost before its steps began, ≤ 3 ─────┘ └── lease lost after: an infra fault, never begun again
//! ```
//!
//! A lease is not a time of day but a count: each heartbeat raises `beats`, and a processor that sees the same number for longer
//! than a lease, by its own monotonic clock, takes the task for lost. So no clock that is set, and no restart, ends a task.

mod ending;
mod launching;
mod leases;
mod offers;
mod recording;
#[cfg(test)]
mod reruns;
mod secrets;
#[cfg(test)]
mod sharing;
mod taking;
#[cfg(test)]
pub(crate) mod tests;
mod waiting;

use navvy_job::id::TaskId;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use std::time::Duration;

use crate::conduct::walk::Key;
use crate::conduct::{ConductError, Conductor, from_json};
use crate::output::Hub;
use crate::state::{StateError, uint};
use navvy_job::claim::Claim;

pub use ending::{Ending, Finished};
pub use leases::{Beaten, watch};
pub(crate) use offers::Offers;
pub use secrets::{Given, SecretSource, context_owner, keys_owner, project_owner};
pub(crate) use taking::FREE;
pub use taking::{Launched, MachineRoom, Room, Taken};
pub use waiting::tell_of_waiting;

/// An agent that is not heard of for so long has lost its task; it ends the job by itself before that. Unless an operator sets
/// another length.
pub const LEASE: Duration = Duration::from_secs(30);
/// A task that was handed out this often and never began is not handed out again.
pub const MOST_HANDED: u64 = 3;

/// Why a task cannot be taken, kept or ended.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The database.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its pipeline.
    #[error(transparent)]
    Conduct(#[from] ConductError),
    /// Another agent has the task, or it has ended.
    #[error(
        "task {0} is not this agent's any more: its lease was lost, and it was handed to another agent or has ended"
    )]
    Lost(String),
    /// A secret cannot be read.
    #[error("the secrets of the job cannot be read: {0}")]
    Secrets(String),
    /// What an agent sent is not understood.
    #[error("{what} that the agent sent is not understood: {why}")]
    Sent {
        /// Which part.
        what: &'static str,
        /// Why.
        why: String,
    },
}

impl From<sqlx::Error> for ClaimError {
    fn from(error: sqlx::Error) -> Self {
        Self::State(error.into())
    }
}

/// Short for what this module returns.
pub type Result<T, E = ClaimError> = std::result::Result<T, E>;

/// A task's row, as far as most need it.
#[derive(Debug, Clone)]
pub(crate) struct TaskRow {
    pub id: String,
    pub pipeline: String,
    pub key: Key,
    pub workflow: String,
    pub job: String,
    pub class: String,
    pub claim: Claim,
    pub contexts: Vec<String>,
    pub project: String,
    pub handed: u64,
    pub begun: bool,
    pub agent: Option<String>,
    pub state: String,
    /// Whether it is in a serial group.
    pub serial: bool,
}

/// In the order of [`TaskRow::read`].
const COLUMNS: &str = "workflow, job, node, id, pipeline, workflow_name, job_name, class, claim, contexts, project, \
                       handed, begun, agent, state, serial";

impl TaskRow {
    fn read(row: &AnyRow) -> Result<Self> {
        let key = crate::conduct::key(row)?;
        Ok(Self {
            key,
            id: row.try_get(3)?,
            pipeline: row.try_get(4)?,
            workflow: row.try_get(5)?,
            job: row.try_get(6)?,
            class: row.try_get(7)?,
            claim: from_json("a claim", &row.try_get::<String, _>(8)?)?,
            contexts: from_json("the contexts of a task", &row.try_get::<String, _>(9)?)?,
            project: row.try_get(10)?,
            handed: uint(row.try_get(11)?),
            begun: row.try_get::<i64, _>(12)? != 0,
            agent: row.try_get(13)?,
            state: row.try_get(14)?,
            serial: row.try_get::<Option<String>, _>(15)?.is_some(),
        })
    }
}

/// Hands tasks out. Cheap to clone.
#[derive(Clone)]
pub struct Claims {
    conductor: Conductor,
    secrets: SecretSource,
    /// Live output of tasks that begin anew or end.
    hub: Hub,
    lease: Duration,
    /// What runners asked for, as far as it is written down.
    written: offers::Written,
}

impl Claims {
    /// On the conductor's database. `hub`: readers of output hear there of tasks that begin anew or end.
    pub fn new(conductor: Conductor, secrets: SecretSource, hub: Hub) -> Self {
        Self { conductor, secrets, hub, lease: LEASE, written: offers::Written::default() }
    }

    /// With leases of another length.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// How long an agent has its task without a word.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// What is waited beyond a lease: the agent's word may be on its way.
    fn patience(&self) -> Duration {
        self.lease / 3
    }

    /// What opens secrets.
    pub(crate) fn secrets(&self) -> &SecretSource {
        &self.secrets
    }

    /// Who conducts the pipelines of the tasks.
    pub fn conductor(&self) -> &Conductor {
        &self.conductor
    }
}

/// Is this the id of a task?
pub fn is_task(text: &str) -> bool {
    text.parse::<TaskId>().is_ok()
}
