//! A task that outlives its process, and the process that takes it over.
//!
//! ```text
//! keep   journal (durable, names the step) ─▶ mark ─▶ containers renamed    any prefix of this spares the task
//! adopt  journal locked ─▶ journal ─▶ mark ─▶ containers renamed              any prefix of this spares it, too
//! ```
//!
//! Journal and mark are this user's; a container's name is what every user of the engine can see.

use std::sync::Arc;

use bollard::query_parameters::RenameContainerOptionsBuilder;
use futures_util::future::try_join_all;
use navvy_environment::HostPaths;
use navvy_environment::hold::{self, Adopted};
use navvy_environment::link::shared_link;
use navvy_environment::plan::LABEL_TASK;
use navvy_environment::run_dir;
use navvy_environment::supervisor::Connect;
use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use navvy_journal::standing::NameSays;
use navvy_journal::{HeldStep, Journal};

use super::engine::Engine;
use super::fault;

/// Why a task could not be held, or not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Its journal or its mark could not be read, locked or written.
    #[error(transparent)]
    Written(#[from] hold::HoldError),
    /// The engine refused a container's new name.
    #[error("failed to rename container {container} to {to}: {message}")]
    Rename {
        /// The name it has.
        container: String,
        /// The name it was to have.
        to: String,
        /// The engine's words.
        message: String,
    },
    /// The engine did not list the task's containers.
    #[error("failed to look for containers of task {task}: {message}")]
    List {
        /// The task.
        task: TaskId,
        /// The engine's words.
        message: String,
    },
    /// Containers of the task were removed by hand, or by another engine's user.
    #[error("task {task} has no containers any more; `navvy rm {task}` removes the rest")]
    NoContainers {
        /// The task.
        task: TaskId,
    },
}

impl Engine {
    /// Leaves a task to itself until `until` (seconds since 1970): from here on no reaper of this machine touches it before
    /// then, whichever user runs it. On failure the caller still owns the task, and removes it.
    ///
    /// The journal's lock goes with the last clone of `journal`.
    pub async fn keep_task(
        &self,
        journal: &Journal,
        task: &TaskId,
        until: u64,
        step: Option<HeldStep>,
        owner: &Owner,
        host: &HostPaths,
    ) -> Result<(), HoldError> {
        hold::keep(journal, task, until, step, owner, host).await?;
        self.rename_task(task, &NameSays::KeptUntil(until)).await?;
        Ok(())
    }

    /// Makes `here` the owner of a task that another process has left, kept, adoptable or dead.
    ///
    /// Two processes cannot both succeed; the later one gets `JournalError::Busy`. On failure the task stays as it was
    /// known to be, for another try. The journal's lock says that it is looked after; should this process die, the task
    /// is kept until `until`, as if it had been left to itself.
    pub async fn adopt_task(
        &self,
        task: &TaskId,
        until: u64,
        step: HeldStep,
        here: &Owner,
        host: &HostPaths,
    ) -> Result<Adopted, HoldError> {
        let adopted = hold::adopt(task, until, step, here, host).await?;
        let containers = self.rename_task(task, &NameSays::KeptUntil(until)).await?;
        if containers.is_empty() {
            return Err(HoldError::NoContainers { task: task.clone() });
        }
        Ok(Adopted { names: containers, ..adopted })
    }

    /// Makes `here` the owner of a task that runs and whose agent was killed: its containers keep their names. Should this
    /// process die, too, another may take it over until `until`. Returns the containers, the primary first.
    ///
    /// `journal`: the task's, locked by this process.
    pub async fn take_over(
        &self,
        journal: &Journal,
        task: &TaskId,
        until: u64,
        here: &Owner,
        host: &HostPaths,
    ) -> Result<Vec<String>, HoldError> {
        hold::take_over(journal, task, until, here, host).await?;
        let containers = self.rename_task(task, &NameSays::Nothing).await?;
        if containers.is_empty() {
            return Err(HoldError::NoContainers { task: task.clone() });
        }
        Ok(containers)
    }

    /// The way to the supervisor of a task whose agent was killed.
    pub async fn link_of_left(&self, task: &TaskId, host: &HostPaths) -> std::io::Result<Arc<dyn Connect>> {
        match run_dir::kept_secret(host.runtime.as_deref(), task) {
            None => shared_link(task, host),
            Some(secret) => self.dialled_link(&task.primary_name(), secret).await,
        }
    }

    /// Gives all containers of a task names that say this. Returns them, the primary first.
    async fn rename_task(&self, task: &TaskId, says: &NameSays) -> Result<Vec<String>, HoldError> {
        let listed = self.labelled_containers(&format!("{LABEL_TASK}={task}")).await;
        let listed = listed.map_err(|message| HoldError::List { task: task.clone(), message })?;
        let mut renames: Vec<(String, String)> = listed
            .into_iter()
            .filter_map(|container| {
                let (_, role) = NameSays::parse(task, &container.name)?;
                let to = says.name(task, role);
                Some((container.name, to))
            })
            .collect();
        // `primary` comes before `service-K`, and shorter numbers before longer ones.
        renames.sort_by_key(|(_, to)| (to.len() > says.name(task, "primary").len(), to.len(), to.clone()));
        try_join_all(renames.iter().map(|(from, to)| self.rename(from, to))).await?;
        Ok(renames.into_iter().map(|(_, to)| to).collect())
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), HoldError> {
        if from == to {
            return Ok(());
        }
        let options = RenameContainerOptionsBuilder::new().name(to).build();
        let renamed = self.docker().rename_container(from, options).await;
        renamed.map_err(|e| {
            let message = fault::describe(&e);
            HoldError::Rename { container: from.to_owned(), to: to.to_owned(), message }
        })
    }
}
