//! A task in a machine that outlives its process, and the process that takes it over.
//!
//! ```text
//! keep   journal (durable, names the step) ─▶ mark                       any prefix of this spares the machine
//! adopt  journal locked ─▶ journal ─▶ machine's record ─▶ mark            any prefix of this spares it, too
//! ```
//!
//! Journal, record and mark are all this user's own; nothing of a machine is to be seen by another user's reaper.

use navvy_environment::HostPaths;
use navvy_environment::run_dir;
use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use navvy_journal::standing::Mark;
use navvy_journal::{self as journal, Entry, HeldStep, Journal, Known, Standing};

use crate::error::HoldError;
use crate::machines::{Machines, find};
use crate::record::{self, Record};

/// A task that is this process's now.
#[derive(Debug)]
pub struct Adopted {
    /// Locked: no other process can take the task over while this lives.
    pub journal: Journal,
    /// As it was before.
    pub known: Known,
    /// Names of the task's machines.
    pub names: Vec<String>,
}

impl Machines {
    /// Leaves a task to itself until `until` (seconds since 1970): from here on no reaper of this machine touches it before
    /// then. On failure the caller still owns the task, and removes it.
    ///
    /// # Errors
    /// It could not be written down.
    pub async fn keep_task(
        &self,
        journal: &Journal,
        task: &TaskId,
        until: u64,
        step: Option<HeldStep>,
        owner: &Owner,
        host: &HostPaths,
    ) -> Result<(), HoldError> {
        journal.record(Entry::Standing(Standing::Kept { until, step })).await?;
        run_dir::mark(&place(task, host), &Mark::Kept(until, owner.clone()))?;
        Ok(())
    }

    /// Makes `here` the owner of a task that another process has left, kept, adoptable or dead.
    ///
    /// # Errors
    /// Another process is at it, or it has no machine any more.
    pub async fn adopt_task(
        &self,
        task: &TaskId,
        until: u64,
        step: HeldStep,
        here: &Owner,
        host: &HostPaths,
    ) -> Result<Adopted, HoldError> {
        let (journal, reading) = Journal::resume(&journal::path(&host.state, task))?;
        let known = reading.known().ok_or_else(|| HoldError::Empty { task: task.clone() })?;
        journal.record(Entry::Owner { owner: here.clone() }).await?;
        journal.record(Entry::Standing(Standing::Kept { until, step: Some(step) })).await?;
        run_dir::mark(&place(task, host), &Mark::Kept(until, here.clone()))?;
        let names = self.own(task, here, host).await?;
        Ok(Adopted { journal, known, names })
    }

    /// Makes `here` the owner of a task that runs and whose agent was killed. Should this process die, too, another may take it over
    /// until `until`. Returns the names of its machines. `journal`: the task's, locked by this process.
    ///
    /// # Errors
    /// It has no machine any more, or it could not be written down.
    pub async fn take_over(
        &self,
        journal: &Journal,
        task: &TaskId,
        until: u64,
        here: &Owner,
        host: &HostPaths,
    ) -> Result<Vec<String>, HoldError> {
        journal.record(Entry::Owner { owner: here.clone() }).await?;
        run_dir::mark(&place(task, host), &Mark::Adoptable(until, here.clone()))?;
        self.own(task, here, host).await
    }

    /// Writes the new owner into the record of the machine in which the task's steps run.
    async fn own(&self, task: &TaskId, here: &Owner, host: &HostPaths) -> Result<Vec<String>, HoldError> {
        let gone = |why: &str| HoldError::NoMachine { task: task.clone(), why: why.to_owned() };
        let (directory, known) = find(&host.state, task, true).ok_or_else(|| gone("it was removed"))?;
        if known.process().is_some_and(|process| process.is_dead(here)) {
            return Err(gone("its process has ended"));
        }
        let record = Record::resume(directory).await?;
        record.write(vec![record::Entry::Owner(here.clone())]).await?;
        Ok(vec![known.planned.machine.host_name()])
    }
}

fn place(task: &TaskId, host: &HostPaths) -> std::path::PathBuf {
    run_dir::place(host.runtime.as_deref(), run_dir::uid(), task)
}
