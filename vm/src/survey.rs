//! What machines there are on this host, and the removal of the dead ones.
//!
//! ```text
//! records (state directory)          ┐
//! marks, journals                    ├─▶ Evidence a task ─▶ judge (pure) ─▶ Running │ Kept │ Adoptable │ Foreign
//! processes in machines' directories ┘                                      Dead ─▶ reap: process, network, files, record, journal
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::survey::{Gathered, Reaped, Seen, Survey, finish, gather_files, sweep};
use navvy_job::chain::chain;
use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use navvy_journal::standing::Condition;
use navvy_journal::{self as journal};

use crate::machines::Machines;
use crate::pool::shelf;
use crate::record::{self, RecordError};

/// Adds what the records of machines tell, to what an engine's containers, marks and journals tell. Returns what could not be read.
pub fn gather(gathered: &mut BTreeMap<TaskId, Gathered>, here: &Owner, host: &HostPaths) -> Vec<String> {
    let mut troubles = Vec::new();
    let machines = record::all(&host.state).unwrap_or_else(|error| {
        troubles.push(chain(&error));
        Vec::new()
    });
    for machine in machines {
        let directory = record::directory(&host.state, &machine);
        let known = match record::load(&directory) {
            Ok(known) => known,
            // Removed meanwhile.
            Err(RecordError::Read { .. }) if !directory.exists() => continue,
            Err(error) => {
                troubles.push(error.to_string());
                continue;
            }
        };
        let Some(task) = known.planned.task.clone() else { continue };
        let is_alive = known.may_live(here);
        let entry = gathered.entry(task).or_default();
        entry.evidence.labels.push(Some(known.owner.clone()));
        entry.evidence.is_held |= record::is_held(&directory);
        entry.evidence.is_alive |= is_alive && known.planned.has_steps;
        entry.has_ended |= known.planned.has_steps && !is_alive;
        entry.containers.push(machine.host_name());
    }
    troubles
}

impl Machines {
    /// Looks at every task that has a mark, a journal or a machine.
    pub fn survey(&self, here: &Owner, host: &HostPaths) -> Survey {
        let mut gathered = BTreeMap::new();
        let mut troubles = gather(&mut gathered, here, host);
        troubles.extend(gather_files(&mut gathered, host));
        finish(gathered, here, host, troubles)
    }

    /// Removes the machines of owners that are no more. Of tasks whose steps run elsewhere it removes the machine alone.
    pub async fn reap(&self, here: &Owner, host: &HostPaths, limit: Duration) -> Reaped {
        let survey = self.survey(here, host);
        sweep(here, host);
        journal::sweep(&record::machines(&host.state), here);
        for provider in self.providers() {
            provider.sweep(&self.settings.images, here, host);
        }
        let mut reaped = Reaped { left: survey.troubles, ..Reaped::default() };
        reaped.left.extend(self.reap_nobodys(here, host, limit).await);
        reaped.left.extend(self.reap_unknown(host, limit).await);
        for seen in survey.tasks {
            if seen.condition == Condition::Dead && self.has(&seen.task, host) {
                self.reap_task(seen, host, limit, &mut reaped).await;
            }
        }
        reaped
    }

    /// Ends the machines of clouds that carry this state directory's name, that no record knows, and that are old enough. Returns what is
    /// left.
    pub async fn reap_unknown(&self, host: &HostPaths, limit: Duration) -> Vec<String> {
        let mut left = Vec::new();
        for provider in self.providers() {
            left.extend(provider.reap_unknown(host, limit).await);
        }
        left
    }

    pub(crate) async fn reap_task(&self, seen: Seen, host: &HostPaths, limit: Duration, reaped: &mut Reaped) {
        let runs_in_machine = match crate::machines::find(&host.state, &seen.task, true) {
            Ok(found) => found.is_some(),
            Err(error) => return reaped.left.push(chain(&error)),
        };
        let mut left = match runs_in_machine {
            true => self.remove_task(&seen.task, host, limit).await,
            false => self.remove_machines(&seen.task, host, limit).await,
        };
        if left.is_empty() && runs_in_machine {
            let journal = journal::path(&host.state, &seen.task);
            left.extend(journal::remove(&journal).err().map(|e| format!("journal {} ({e})", journal.display())));
        }
        if left.is_empty() {
            reaped.removed.push(seen);
        }
        reaped.left.extend(left);
    }

    /// Machines that are no task's yet (snapshots on their way) go with their owner. What a pool keeps ready waits for it to start again,
    /// for a while.
    async fn reap_nobodys(&self, here: &Owner, host: &HostPaths, limit: Duration) -> Vec<String> {
        let mut left = Vec::new();
        // Where they cannot be listed, the survey has said so.
        for machine in record::all(&host.state).unwrap_or_default() {
            let directory = record::directory(&host.state, &machine);
            let Ok(known) = record::load(&directory) else { continue };
            let is_nobodys = known.planned.task.is_none();
            let is_its_pools = known.is_pooled() || known.planned.is_lent;
            let is_kept = is_its_pools && known.planned.pool.as_deref().is_some_and(shelf::is_recent);
            if is_nobodys && known.owner.is_dead(here) && !is_kept && !record::is_held(&directory) {
                left.extend(self.remove_directory(directory, host, limit).await);
            }
        }
        left
    }
}
