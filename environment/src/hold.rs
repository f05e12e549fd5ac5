//! A task that outlives its process, and the process that takes it over: what is the same whatever the task runs in.
//!
//! ```text
//! keep   journal (durable, names the step) ─▶ mark                     ─▶ … what the environment adds
//! adopt  journal locked ─▶ journal ─▶ mark                              ─▶ … the same
//! ```
//!
//! Any prefix of this spares the task. Journal and mark are this user's.

use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use navvy_journal::standing::Mark;
use navvy_journal::{self as journal, Entry, HeldStep, Journal, JournalError, Known, Standing};

use crate::HostPaths;
use crate::run_dir::{self, RunDirError};

/// Why a task could not be left to itself, or not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Its journal could not be read, locked or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Its mark could not be written.
    #[error(transparent)]
    Mark(#[from] RunDirError),
    /// The agent that made the task ended before it wrote anything down.
    #[error("the journal of task {task} has no first record: nothing is known about it")]
    Empty {
        /// The task.
        task: TaskId,
    },
}

impl HoldError {
    /// Another process holds the task's journal.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Journal(JournalError::Busy { .. }))
    }
}

/// A task that is this process's now.
#[derive(Debug)]
pub struct Adopted {
    /// Locked: no other process can take the task over while this lives.
    pub journal: Journal,
    /// As it was before.
    pub known: Known,
    /// Names of its containers as they are now, the primary first; or of its machine.
    pub names: Vec<String>,
}

/// Writes down that a task is left to itself until `until` (seconds since 1970): from here on no reaper of this machine touches it
/// before then. The journal's lock goes with the last clone of `journal`.
///
/// # Errors
/// It could not be written down: the caller still owns the task.
pub async fn keep(
    journal: &Journal,
    task: &TaskId,
    until: u64,
    step: Option<HeldStep>,
    owner: &Owner,
    host: &HostPaths,
) -> Result<(), HoldError> {
    journal.record(Entry::Standing(Standing::Kept { until, step })).await?;
    Ok(mark(task, &Mark::Kept(until, owner.clone()), host)?)
}

/// Makes `here` the owner of a task that another process has left, kept, adoptable or dead. Two processes cannot both succeed; the
/// later one gets [`JournalError::Busy`]. On failure the task stays as it was known to be, for another try. Should this process die, the
/// task is kept until `until`, as if it had been left to itself. The environment adds the names.
///
/// # Errors
/// Another process is at it, nothing is known of it, or it could not be written down.
pub async fn adopt(
    task: &TaskId,
    until: u64,
    step: HeldStep,
    here: &Owner,
    host: &HostPaths,
) -> Result<Adopted, HoldError> {
    let (journal, reading) = Journal::take(&journal::path(&host.state, task)).await?;
    let known = reading.known().ok_or_else(|| HoldError::Empty { task: task.clone() })?;
    journal.record(Entry::Owner { owner: here.clone() }).await?;
    keep(&journal, task, until, Some(step), here, host).await?;
    Ok(Adopted { journal, known, names: Vec::new() })
}

/// Makes `here` the owner of a task that runs and whose agent was killed. Should this process die, too, another may take it over until
/// `until`. `journal`: the task's, locked by this process.
///
/// # Errors
/// It could not be written down.
pub async fn take_over(
    journal: &Journal,
    task: &TaskId,
    until: u64,
    here: &Owner,
    host: &HostPaths,
) -> Result<(), HoldError> {
    journal.record(Entry::Owner { owner: here.clone() }).await?;
    Ok(mark(task, &Mark::Adoptable(until, here.clone()), host)?)
}

fn mark(task: &TaskId, mark: &Mark, host: &HostPaths) -> Result<(), RunDirError> {
    run_dir::mark(&run_dir::place(host.runtime.as_deref(), run_dir::uid(), task), mark)
}
