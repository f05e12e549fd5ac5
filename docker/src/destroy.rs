//! A task's end on this machine, from any half-made state.

use std::time::Duration;

use bollard::errors::Error;
use bollard::models::ContainerStateStatusEnum;
use bollard::query_parameters::{RemoveContainerOptionsBuilder, RemoveVolumeOptions};
use futures_util::future::join_all;
use navvy_environment::HostPaths;
use navvy_environment::plan::LABEL_TASK;
use navvy_environment::{cgroup, run_dir};
use navvy_job::id::TaskId;
use navvy_journal as journal;
use tokio::time::Instant;

use super::engine::{BollardError, Engine};
use super::fault;
use super::survey::Listed;

/// Between two tries at what could not be removed: another removal on its way, a busy device.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// What an engine may take for removing files, beyond the time that it has to begin with it.
const GOING_LIMIT: Duration = Duration::from_secs(120);

impl Engine {
    /// Removes everything that carries the task's id, within `limit`. Returns what is left, by name.
    ///
    /// Needs no knowledge of how far its preparation came; doing it twice is fine.
    pub async fn remove_task(&self, task: &TaskId, host: &HostPaths, limit: Duration) -> Vec<String> {
        let deadline = Instant::now() + limit;
        let mut left = self.remove_labelled(task, deadline).await;
        left.extend(remove_and_unmark(task, host, left.is_empty()).await);
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
        let removal = self.remove_all(names, deadline).await;
        // A container that is gone may have been renamed; an engine that died midway may have left its volumes.
        let mut left = if removal.smoothly { removal.left } else { self.remove_labelled(task, deadline).await };
        left.extend(remove_and_unmark(task, host, left.is_empty()).await);
        left
    }

    pub(super) async fn remove_labelled(&self, task: &TaskId, deadline: Instant) -> Vec<String> {
        // A create that is still on its way would otherwise come after the list.
        let settled = tokio::time::timeout_at(deadline, self.shared.creating.settle(task)).await;
        let mut left = Vec::new();
        if settled.is_err() {
            left.push(format!("container {} (the engine is still creating it)", task.primary_name()));
        }
        let label = format!("{LABEL_TASK}={task}");
        match self.labelled_containers(&label).await {
            Ok(containers) => {
                let names: Vec<_> = containers.into_iter().map(|container| container.name).collect();
                left.extend(self.remove_all(&names, deadline).await.left);
            }
            Err(words) => left.push(words),
        }
        // They go with their containers, unless an engine died between the two.
        match self.labelled_volumes(&label).await {
            Ok(volumes) => left.extend(self.remove_volumes(volumes, deadline).await),
            Err(words) => left.push(words),
        }
        left
    }

    async fn remove_volumes(&self, volumes: Vec<Listed>, deadline: Instant) -> Vec<String> {
        let remove = async |volume: Listed| {
            let name = volume.name.as_str();
            let request = || self.docker().remove_volume(name, None::<RemoveVolumeOptions>);
            persist(deadline, request).await.err().map(|last| format!("volume {name} ({last})"))
        };
        join_all(volumes.into_iter().map(remove)).await.into_iter().flatten().collect()
    }

    pub(super) async fn remove_all(&self, names: &[String], deadline: Instant) -> Removal {
        let mut removal = Removal::default();
        for (name, removed) in
            names.iter().zip(join_all(names.iter().map(|name| self.remove_one(name, deadline))).await)
        {
            match removed {
                Ok(smoothly) => removal.smoothly &= smoothly,
                Err(last) => removal.left.push(format!("container {name} ({last})")),
            }
        }
        removal
    }

    /// Kills and removes a container with its volumes.
    async fn remove_one(&self, name: &str, deadline: Instant) -> Result<bool, StillThere> {
        let options = || RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match persist(deadline, || self.docker().remove_container(name, Some(options()))).await {
            // A hundred thousand files take a slow disk minutes: who is at it is not given up.
            Err(last) => see_it_go(|| self.presence(name)).await.unwrap_or(Err(last)),
            removed => removed,
        }
    }

    async fn presence(&self, name: &str) -> Presence {
        let look = self.docker().inspect_container(name, None);
        // An engine that says nothing has taken its time already.
        let Ok(found) = tokio::time::timeout(LOOK_LIMIT, look).await else { return Presence::There };
        match found.map(|found| found.state.and_then(|state| state.status)) {
            Ok(Some(ContainerStateStatusEnum::REMOVING)) => Presence::Going,
            Err(error) if fault::is_missing(&error) => Presence::Gone,
            _ => Presence::There,
        }
    }
}

/// What an engine says of a container that shall go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    There,
    Going,
    Gone,
}

/// Waits while the engine is removing it. `None`: it is not at it.
async fn see_it_go<F: Future<Output = Presence>>(look: impl Fn() -> F) -> Option<Result<bool, StillThere>> {
    let deadline = Instant::now() + GOING_LIMIT;
    loop {
        match look().await {
            Presence::Gone => return Some(Ok(false)),
            Presence::There => return None,
            Presence::Going if Instant::now() >= deadline => {
                return Some(Err(StillThere::Going));
            }
            Presence::Going => tokio::time::sleep(BETWEEN_TRIES).await,
        }
    }
}

/// Why something of a task could not be removed.
#[derive(Debug, thiserror::Error)]
enum StillThere {
    #[error("not in time")]
    NoTime,
    /// What the engine said last.
    #[error(transparent)]
    Refused(#[from] BollardError),
    #[error("the engine is still removing it")]
    Going,
}

/// What came of removing containers.
pub(super) struct Removal {
    /// Each was there, and went at the first try.
    pub smoothly: bool,
    /// What is left, by name.
    pub left: Vec<String>,
}

impl Default for Removal {
    fn default() -> Self {
        Self { smoothly: true, left: Vec::new() }
    }
}

/// Asks until the thing is gone: `true` if it went at the first try. An error is what the engine said last.
async fn persist<F: Future<Output = Result<(), Error>>>(
    deadline: Instant,
    request: impl Fn() -> F,
) -> Result<bool, StillThere> {
    let mut last = StillThere::NoTime;
    let mut tries = 0;
    while Instant::now() < deadline {
        tries += 1;
        match tokio::time::timeout_at(deadline, request()).await {
            Ok(Ok(())) => return Ok(tries == 1),
            Ok(Err(e)) if fault::is_missing(&e) => return Ok(false),
            Ok(Err(e)) => last = StillThere::Refused(e.into()),
            Err(_) => break,
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
    Err(last)
}

/// The task's files and cgroup; then, if nothing is left at all, its mark, by which a reaper would find it.
async fn remove_and_unmark(task: &TaskId, host: &HostPaths, is_all_else_gone: bool) -> Vec<String> {
    let mut left = remove_files(task, host).await;
    if is_all_else_gone && left.is_empty() {
        let run = run_dir::place(host.runtime.as_deref(), run_dir::uid(), task);
        left.extend(run_dir::unmark(&run).err().map(|e| format!("mark of {} ({e})", run.display())));
    }
    left
}

/// The task's run directory, cgroup and firewall rules on this machine.
pub(super) async fn remove_files(task: &TaskId, host: &HostPaths) -> Vec<String> {
    let run = run_dir::place(host.runtime.as_deref(), run_dir::uid(), task);
    let rules = super::allow::take_back(task, host).await.err();
    let (task, journal) = (task.clone(), journal::path(&host.state, task));
    // A cgroup may take a moment of waiting: not on the runtime's own thread.
    let work = tokio::task::spawn_blocking(move || {
        // A cgroup is made after the journal says where.
        let known = journal::load(&journal).ok().and_then(|reading| reading.known());
        let places = match known {
            Some(known) => vec![cgroup::Place::read(&task, &known.opening.cgroup)],
            None => cgroup::Place::find(&task),
        };
        let directory = run_dir::remove(&run).map_err(|e| format!("directory {} ({e})", run.display()));
        let groups = places.iter().map(cgroup::remove);
        let groups = groups.map(|gone| gone.map_err(|(path, e)| format!("cgroup {} ({e})", path.display())));
        std::iter::once(directory).chain(groups).filter_map(Result::err).collect()
    });
    let left: Vec<String> = work.await.unwrap_or_else(|e| vec![format!("files of the task ({e})")]);
    rules.into_iter().chain(left).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn seen(presences: &[Presence]) -> (Option<Result<bool, StillThere>>, Duration) {
        let (next, begun) = (Cell::new(0), Instant::now());
        let look = || {
            let at = next.replace(next.get() + 1);
            std::future::ready(presences[at.min(presences.len() - 1)])
        };
        (see_it_go(look).await, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_is_going_is_waited_for_and_no_other() {
        assert!(matches!(seen(&[Presence::There]).await, (None, Duration::ZERO)));
        assert!(matches!(seen(&[Presence::Gone]).await, (Some(Ok(false)), Duration::ZERO)));
        let (went, took) = seen(&[Presence::Going, Presence::Going, Presence::Gone]).await;
        assert!(matches!(went, Some(Ok(false))) && took == 2 * BETWEEN_TRIES);
        // A removal that failed.
        assert!(seen(&[Presence::Going, Presence::There]).await.0.is_none());
        let (went, took) = seen(&[Presence::Going]).await;
        assert!(matches!(went, Some(Err(StillThere::Going))));
        assert!(took >= GOING_LIMIT && took < GOING_LIMIT + Duration::from_secs(1), "{took:?}");
    }
}
