//! What tasks there are on this host, and the removal of the dead ones.
//!
//! ```text
//! containers, volumes (labels, names) ┐
//! marks (runtime directory)           ├─▶ Evidence a task ─▶ judge (pure) ─▶ Running │ Kept │ Adoptable │ Foreign
//! journals (state directory)          │                                      Dead ─▶ reap: containers, volumes,
//! idle cgroups                        ┘                                              files, cgroup, mark, journal
//! ```
//!
//! Reading and removing need no free byte of disk.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use bollard::models::{ContainerSummaryStateEnum, Volume};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListVolumesOptionsBuilder};
use futures_util::future::join_all;
use navvy_environment::HostPaths;
use navvy_environment::cgroup;
use navvy_environment::plan::{LABEL_ADOPTABLE, LABEL_OWNER, LABEL_TASK};
use navvy_environment::survey::{Gathered, Reaped, Seen, Survey, finish, gather_files, remove_all, sweep};
use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use navvy_journal::standing::{Condition, NameSays};

use super::engine::Engine;
use super::{destroy, fault};

/// In a primary container's name.
const PRIMARY_ROLE: &str = "primary";
/// Longer than any task is without a container while it has a cgroup.
const ABANDONED_AFTER: Duration = Duration::from_secs(300);

/// A container or volume as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub name: String,
    pub labels: HashMap<String, String>,
    /// The container runs.
    pub runs: bool,
}

impl Engine {
    /// Looks at everything.
    pub async fn survey(&self, here: &Owner, host: &HostPaths) -> Survey {
        self.survey_with(here, host, |_| Vec::new()).await
    }

    /// The same, beside what `others` adds, which is no engine's. It returns what it could not look at.
    pub async fn survey_with(
        &self,
        here: &Owner,
        host: &HostPaths,
        others: impl FnOnce(&mut BTreeMap<TaskId, Gathered>) -> Vec<String>,
    ) -> Survey {
        let mut gathered = BTreeMap::new();
        let mut troubles = Vec::new();
        // First, for it takes longest: what is listed is to be judged at once.
        let idle = tokio::task::spawn_blocking(|| cgroup::idle(ABANDONED_AFTER)).await;
        let idle = idle.unwrap_or_else(|e| Err(io::Error::other(e)));
        // Files last: a task that ends between two looks has no mark any more, and then its label counts, which is that
        // of a living process.
        let (containers, volumes) =
            tokio::join!(self.labelled_containers(LABEL_TASK), self.labelled_volumes(LABEL_TASK));
        match (containers, volumes) {
            (Ok(containers), Ok(volumes)) => gather_objects(&mut gathered, containers, volumes),
            (containers, volumes) => troubles.extend([containers.err(), volumes.err()].into_iter().flatten()),
        }
        let of_others = others(&mut gathered);
        troubles.extend(gather_files(&mut gathered, host));
        match idle {
            Ok(idle) if troubles.is_empty() => {
                // A cgroup carries no owner: an old and empty one that nothing else names is left over.
                for task in idle {
                    gathered.entry(task).or_default();
                }
            }
            Ok(_) => {}
            Err(error) => troubles.push(format!("cgroups (could not be listed: {error})")),
        }
        troubles.extend(of_others);
        finish(gathered, here, host, troubles)
    }

    /// Removes the tasks of owners that are no more, and only those of this machine.
    pub async fn reap(&self, here: &Owner, host: &HostPaths, limit: Duration) -> Reaped {
        let survey = self.survey(here, host).await;
        sweep(here, host);
        let mut dead: Vec<Seen> = survey.tasks.into_iter().filter(|seen| seen.condition == Condition::Dead).collect();
        if dead.iter().any(|seen| !seen.is_own()) {
            // A stranger's, whose process ended behind the listing, may have been left to a person before: its name says so by now.
            let again = self.survey(here, host).await.tasks;
            let is_dead =
                |task: &TaskId| again.iter().any(|seen| seen.task == *task && seen.condition == Condition::Dead);
            dead.retain(|seen| seen.is_own() || is_dead(&seen.task));
        }
        let mut reaped = remove_all(dead, host, |task| async move { self.remove_task(&task, host, limit).await }).await;
        reaped.left.splice(0..0, survey.troubles);
        reaped
    }

    /// Containers with a label, or with a label's value.
    pub(super) async fn labelled_containers(&self, label: &str) -> Result<Vec<Listed>, String> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = self.docker().list_containers(Some(options)).await;
        let listed = listed.map_err(|e| format!("containers (could not be listed: {})", fault::describe(&e)))?;
        let name = |names: Option<Vec<String>>| Some(names?.first()?.trim_start_matches('/').to_owned());
        let named = listed.into_iter().filter_map(|container| {
            let name = name(container.names).or(container.id)?;
            let runs = container.state == Some(ContainerSummaryStateEnum::RUNNING);
            Some(Listed { name, labels: container.labels.unwrap_or_default(), runs })
        });
        Ok(named.collect())
    }

    /// Volumes with a label, or with a label's value.
    pub(super) async fn labelled_volumes(&self, label: &str) -> Result<Vec<Listed>, String> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let listed = self.docker().list_volumes(Some(options)).await;
        let listed = listed.map_err(|e| format!("volumes (could not be listed: {})", fault::describe(&e)))?;
        let volumes = listed.volumes.unwrap_or_default();
        let named = |volume: Volume| Listed { name: volume.name, labels: volume.labels, runs: false };
        Ok(volumes.into_iter().map(named).collect())
    }
}

/// Removes the files of dead tasks while no engine answers; marks and journals stay, so that a later reaper finds their
/// containers. Returns what is left.
pub async fn remove_files_only(tasks: &[Seen], host: &HostPaths) -> Vec<String> {
    let removals = tasks.iter().map(|seen| destroy::remove_files(&seen.task, host));
    join_all(removals).await.concat()
}

fn gather_objects(gathered: &mut BTreeMap<TaskId, Gathered>, containers: Vec<Listed>, volumes: Vec<Listed>) {
    let owner = |listed: &Listed| listed.labels.get(LABEL_OWNER).and_then(|label| Owner::from_label(label));
    let task = |listed: &Listed| listed.labels.get(LABEL_TASK)?.parse::<TaskId>().ok();
    for container in containers {
        let Some(task) = task(&container) else { continue };
        let (says, role) = NameSays::parse(&task, &container.name).unwrap_or((NameSays::Nothing, ""));
        let has_ended = role == PRIMARY_ROLE && !container.runs;
        let entry = gathered.entry(task).or_default();
        entry.has_ended |= has_ended;
        entry.evidence.is_alive |= role == PRIMARY_ROLE && container.runs;
        entry.evidence.is_adoptable |= container.labels.contains_key(LABEL_ADOPTABLE);
        entry.evidence.labels.push(owner(&container));
        entry.evidence.names.push(says);
        entry.containers.push(container.name);
    }
    for volume in volumes {
        let Some(task) = task(&volume) else { continue };
        let entry = gathered.entry(task).or_default();
        entry.evidence.labels.push(owner(&volume));
        entry.volumes.push(volume.name);
    }
}
