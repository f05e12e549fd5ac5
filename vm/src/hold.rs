//! A task in a machine that outlives its process, and the process that takes it over.
//!
//! ```text
//! keep   journal (durable, names the step) ─▶ mark                       any prefix of this spares the machine
//! adopt  journal locked ─▶ journal ─▶ machine's record ─▶ mark            any prefix of this spares it, too
//! ```
//!
//! Journal, record and mark are all this user's own; nothing of a machine is to be seen by another user's reaper.

use navvy_environment::HostPaths;
use navvy_environment::hold::{self, Adopted};
use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use navvy_journal::{HeldStep, Journal};

use crate::error::HoldError;
use crate::machines::{Machines, find};
use crate::record::{self, Record};

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
        Ok(hold::keep(journal, task, until, step, owner, host).await?)
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
        let adopted = hold::adopt(task, until, step, here, host).await?;
        let names = self.own(task, here, host).await?;
        Ok(Adopted { names, ..adopted })
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
        hold::take_over(journal, task, until, here, host).await?;
        self.own(task, here, host).await
    }

    /// Writes the new owner into the record of the machine in which the task's steps run.
    async fn own(&self, task: &TaskId, here: &Owner, host: &HostPaths) -> Result<Vec<String>, HoldError> {
        let gone = |why: &str| HoldError::NoMachine { task: task.clone(), why: why.to_owned() };
        let (directory, known) = find(&host.state, task, true)?.ok_or_else(|| gone("it was removed"))?;
        if known.process().is_some_and(|process| process.is_dead(here)) {
            return Err(gone("its process has ended"));
        }
        let record = Record::resume(directory).await?;
        record.write(vec![record::Entry::Owner(here.clone())]).await?;
        Ok(vec![known.planned.machine.host_name()])
    }
}
