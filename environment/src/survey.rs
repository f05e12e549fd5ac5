//! What tasks there are on this host, by their marks and journals, and by what an environment's engine lists of them.
//!
//! ```text
//! objects of environments (labels, names) ┐
//! marks (runtime directory)               ├─▶ Evidence a task ─▶ judge (pure) ─▶ Running │ Kept │ Adoptable │ Foreign │ Dead
//! journals (state directory)              ┘
//! ```
//!
//! Reading needs no free byte of disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use navvy_journal::standing::{Condition, Evidence, Mark};
use navvy_journal::{self as journal, Ending, Known, Standing};

use crate::{HostPaths, run_dir};

/// A task of which something is on this host.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The task.
    pub task: TaskId,
    /// What may be done with it.
    pub condition: Condition,
    /// By its mark, journal, or label.
    pub owner: Option<Owner>,
    /// Names of its containers.
    pub containers: Vec<String>,
    /// Names of its volumes.
    pub volumes: Vec<String>,
    /// It is held, and its primary container has ended (or was killed): there is nothing to enter any more.
    pub has_ended: bool,
    /// What its journal says, if it has one that can be read.
    pub known: Option<Known>,
    /// Its journal is in this state directory, readable or not: this user has made it.
    pub has_journal: bool,
    /// The directory of the supervisor's sockets, if it exists.
    pub run_directory: Option<PathBuf>,
}

impl Seen {
    /// It is of this user and this state directory.
    pub fn is_own(&self) -> bool {
        self.has_journal
    }
}

/// Everything that is to be seen.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// By id.
    pub tasks: Vec<Seen>,
    /// What could not be looked at.
    pub troubles: Vec<String>,
}

/// What a reaper has done.
#[derive(Debug, Clone, Default)]
pub struct Reaped {
    /// Tasks of which nothing is left.
    pub removed: Vec<Seen>,
    /// What could not be removed, or not be looked at.
    pub left: Vec<String>,
}

/// Removes these tasks with everything that carries their id, all at once. `remove` removes one and returns what is left of it, by name.
/// Journals go last.
pub async fn remove_all<F: Future<Output = Vec<String>>>(
    tasks: Vec<Seen>,
    host: &HostPaths,
    remove: impl Fn(TaskId) -> F,
) -> Reaped {
    let removals = tasks.into_iter().map(|seen| (remove(seen.task.clone()), seen)).map(async |(removal, seen)| {
        let mut left = removal.await;
        if left.is_empty() {
            let journal = journal::path(&host.state, &seen.task);
            left.extend(journal::remove(&journal).err().map(|e| format!("journal {} ({e})", journal.display())));
        }
        (seen, left)
    });
    let mut reaped = Reaped::default();
    for (seen, left) in join_all(removals).await {
        if left.is_empty() {
            reaped.removed.push(seen);
        }
        reaped.left.extend(left);
    }
    reaped
}

/// Evidence as it comes together.
#[derive(Default)]
pub struct Gathered {
    /// What speaks for its owner being alive, gone, or elsewhere.
    pub evidence: Evidence,
    /// Names of its containers; some may stand twice.
    pub containers: Vec<String>,
    /// Names of its volumes; some may stand twice.
    pub volumes: Vec<String>,
    /// Its primary container has ended.
    pub has_ended: bool,
    known: Option<Known>,
    has_journal: bool,
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What marks and journals alone tell: all there is while no engine answers.
pub fn survey_files(here: &Owner, host: &HostPaths) -> Survey {
    let mut gathered = BTreeMap::new();
    gather_files(&mut gathered, host);
    finish(gathered, here, host, Vec::new())
}

/// Files that a dead process had begun and never put in their place.
pub fn sweep(here: &Owner, host: &HostPaths) {
    let runtime = run_dir::parent(host.runtime.as_deref(), run_dir::uid());
    for directory in
        [host.state.clone(), host.state.join("bin"), host.state.join("ca"), journal::directory(&host.state), runtime]
    {
        journal::sweep(&directory, here);
    }
}

/// Adds what marks and journals tell.
pub fn gather_files(gathered: &mut BTreeMap<TaskId, Gathered>, host: &HostPaths) {
    for (task, mark) in run_dir::marked(host.runtime.as_deref(), run_dir::uid()) {
        let is_visited = run_dir::is_visited(host.runtime.as_deref(), &task);
        let evidence = &mut gathered.entry(task).or_default().evidence;
        (evidence.mark, evidence.is_visited) = (Some(mark), is_visited);
    }
    for task in journal::tasks(&host.state) {
        let path = journal::path(&host.state, &task);
        let Ok(reading) = journal::load(&path) else { continue };
        let entry = gathered.entry(task).or_default();
        entry.has_journal = true;
        entry.known = reading.known();
        entry.evidence.journal = entry.known.as_ref().map(said);
        if matches!(reading.ending, Ending::Newer { .. }) {
            // Only a newer version knows what it says: with no mark that we can read, the task is not ours to judge.
            entry.evidence.mark.get_or_insert(None);
        }
        entry.evidence.is_held = journal::is_held(&path);
    }
}

/// A journal's standing as a mark says it.
fn said(known: &Known) -> Mark {
    let owner = known.owner.clone();
    match known.standing {
        Standing::Running => Mark::Running(owner),
        Standing::Kept { until, .. } => Mark::Kept(until, owner),
        Standing::Adoptable { until } => Mark::Adoptable(until, owner),
    }
}

/// Judges what was gathered. `troubles`: what could not be looked at.
pub fn finish(gathered: BTreeMap<TaskId, Gathered>, here: &Owner, host: &HostPaths, troubles: Vec<String>) -> Survey {
    let now = now();
    let tasks = gathered.into_iter().map(|(task, gathered)| {
        let evidence = gathered.evidence;
        let run_directory = run_dir::place(host.runtime.as_deref(), run_dir::uid(), &task);
        let by_mark = evidence.mark.iter().flatten().chain(&evidence.journal).map(|mark| mark.owner().clone()).next();
        let condition = evidence.judge(here, now);
        let is_held = matches!(condition, Condition::Kept(_) | Condition::Adoptable(_));
        Seen {
            task,
            condition,
            owner: by_mark.or_else(|| evidence.labels.iter().flatten().next().cloned()),
            containers: distinct(gathered.containers),
            volumes: distinct(gathered.volumes),
            has_ended: is_held && gathered.has_ended,
            known: gathered.known,
            has_journal: gathered.has_journal,
            run_directory: is_there(&run_directory).then_some(run_directory),
        }
    });
    Survey { tasks: tasks.collect(), troubles }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn distinct(names: Vec<String>) -> Vec<String> {
    names.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}
