//! A task's end on this machine, from whatever half-made state it is in.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use futures_util::future::join_all;
use navvy_job::id::TaskId;
use tokio::time::Instant;

use super::engine::Engine;
use super::plan::{LABEL_OWNER, LABEL_TASK};
use super::{cgroup, fault, run_dir};
use crate::environment::HostPaths;
use crate::environment::owner::Owner;

/// Between two tries at what could not be removed: another removal on its way, a busy device.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Longer than any task is without a container while it has a cgroup.
const ABANDONED_AFTER: Duration = Duration::from_secs(300);

impl Engine {
    /// Removes everything that carries the task's id, within `limit`. Returns what is left, by name.
    ///
    /// Needs no knowledge of how far its preparation came; doing it twice is fine.
    pub async fn remove_task(&self, task: &TaskId, host: &HostPaths, limit: Duration) -> Vec<String> {
        let deadline = Instant::now() + limit;
        let mut left = self.remove_labelled(task, deadline).await;
        left.extend(remove_files(task, host).await);
        left
    }

    /// The same for containers that are known by name.
    pub(super) async fn remove_named(
        &self,
        task: &TaskId,
        names: &[String],
        host: &HostPaths,
        limit: Duration,
    ) -> Vec<String> {
        let deadline = Instant::now() + limit;
        let mut left = self.remove_all(names, deadline).await;
        left.extend(remove_files(task, host).await);
        left
    }

    /// Removes the tasks of owners that are no more, and only those of this machine. Returns what is left, by name.
    pub async fn reap(&self, here: &Owner, host: &HostPaths, limit: Duration) -> Vec<String> {
        let (mut owners, mut left) = match self.owners().await {
            Ok(owners) => (owners, Vec::new()),
            Err(words) => (Vec::new(), vec![words]),
        };
        // One that died between its mark and its first container has no label anywhere.
        owners.extend(run_dir::marked(host.runtime.as_deref(), run_dir::uid()));
        // A cgroup carries no owner: one that nobody has named for long, with nothing in it, has none.
        let idle =
            cgroup::idle(ABANDONED_AFTER).into_iter().filter(|task| !owners.iter().any(|(known, _)| known == task));
        let mut tasks: BTreeSet<TaskId> = if left.is_empty() { idle.collect() } else { BTreeSet::new() };
        let dead = owners.iter().filter(|(_, owner)| owner.is_dead(here)).map(|(task, _)| task.clone());
        tasks.extend(dead);
        left.extend(join_all(tasks.iter().map(|task| self.remove_task(task, host, limit))).await.concat());
        left
    }

    /// Every task that has a container, with who made it.
    async fn owners(&self) -> Result<Vec<(TaskId, Owner)>, String> {
        let containers = self.labelled(LABEL_TASK.to_owned()).await?;
        let owners = containers.into_iter().filter_map(|(_, labels)| {
            Some((labels.get(LABEL_TASK)?.parse().ok()?, Owner::from_label(labels.get(LABEL_OWNER)?)?))
        });
        Ok(owners.collect())
    }

    async fn remove_labelled(&self, task: &TaskId, deadline: Instant) -> Vec<String> {
        // A create that is still on its way would otherwise come after the list.
        let settled = tokio::time::timeout_at(deadline, self.shared.creating.settle(task)).await;
        let mut left = Vec::new();
        if settled.is_err() {
            left.push(format!("container {} (the engine is still creating it)", task.primary_name()));
        }
        match self.labelled(format!("{LABEL_TASK}={task}")).await {
            Ok(containers) => {
                let names: Vec<_> = containers.into_iter().map(|(name, _)| name).collect();
                left.extend(self.remove_all(&names, deadline).await);
            }
            Err(words) => left.push(words),
        }
        left
    }

    /// Containers with a label: names and all their labels.
    async fn labelled(&self, label: String) -> Result<Vec<(String, HashMap<String, String>)>, String> {
        let filters = HashMap::from([("label".to_owned(), vec![label])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = self.docker().list_containers(Some(options)).await;
        let listed = listed.map_err(|e| format!("containers (could not be listed: {})", fault::describe(&e)))?;
        let name = |names: Option<Vec<String>>| Some(names?.first()?.trim_start_matches('/').to_owned());
        let named = listed.into_iter().filter_map(|c| Some((name(c.names).or(c.id)?, c.labels.unwrap_or_default())));
        Ok(named.collect())
    }

    pub(super) async fn remove_all(&self, names: &[String], deadline: Instant) -> Vec<String> {
        let removals = names.iter().map(|name| self.remove_one(name, deadline));
        join_all(removals).await.into_iter().flatten().collect()
    }

    /// Kills and removes a container with its volumes; `Some` is what is left.
    async fn remove_one(&self, name: &str, deadline: Instant) -> Option<String> {
        let mut last = "not in time".to_owned();
        while Instant::now() < deadline {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            let removal = self.docker().remove_container(name, Some(options));
            match tokio::time::timeout_at(deadline, removal).await {
                Ok(Ok(())) => return None,
                Ok(Err(e)) if fault::is_missing(&e) => return None,
                Ok(Err(e)) => last = fault::describe(&e),
                Err(_) => break,
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        Some(format!("container {name} ({last})"))
    }
}

/// The task's files and cgroup on this machine.
async fn remove_files(task: &TaskId, host: &HostPaths) -> Vec<String> {
    let run = run_dir::place(host.runtime.as_deref(), run_dir::uid(), task);
    let task = task.clone();
    // A cgroup may take a moment of waiting: not on the runtime's own thread.
    let work = tokio::task::spawn_blocking(move || {
        let directory = run_dir::remove(&run).map_err(|e| format!("directory {} ({e})", run.display()));
        let group = cgroup::remove(&task).map_err(|(path, e)| format!("cgroup {} ({e})", path.display()));
        let left: Vec<_> = [directory, group].into_iter().filter_map(Result::err).collect();
        // What is left keeps its mark, so that a reaper finds it.
        if left.is_empty()
            && let Err(e) = run_dir::unmark(&run)
        {
            return vec![format!("mark of {} ({e})", run.display())];
        }
        left
    });
    work.await.unwrap_or_else(|e| vec![format!("files of the task ({e})")])
}
