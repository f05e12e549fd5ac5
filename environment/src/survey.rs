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
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use navvy_job::chain::chain;
use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use navvy_journal::standing::{Condition, Evidence, Mark};
use navvy_journal::{self as journal, Ending, Known, Reading, Standing};

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
    let troubles = gather_files(&mut gathered, host);
    finish(gathered, here, host, troubles)
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

/// Adds what marks and journals tell, to all that was gathered elsewhere. Returns what could not be read: of the tasks that it may be
/// about, nothing is known for certain.
pub fn gather_files(gathered: &mut BTreeMap<TaskId, Gathered>, host: &HostPaths) -> Vec<String> {
    let mut troubles = Vec::new();
    match run_dir::marked(host.runtime.as_deref(), run_dir::uid()) {
        Ok(marked) => marked.into_iter().for_each(|(task, mark)| {
            let is_visited = run_dir::is_visited(host.runtime.as_deref(), &task);
            let evidence = &mut gathered.entry(task).or_default().evidence;
            (evidence.mark, evidence.is_visited) = (Some(mark), is_visited);
        }),
        Err(error) => troubles.push(chain(&error)),
    }
    let tasks = journal::tasks(&host.state).unwrap_or_else(|error| {
        troubles
            .push(format!("journals in {} (could not be listed: {error})", journal::directory(&host.state).display()));
        Vec::new()
    });
    if !troubles.is_empty() {
        gathered.values_mut().for_each(|entry| entry.evidence.is_unread = true);
    }
    for task in tasks {
        let path = journal::path(&host.state, &task);
        match journal::load(&path).and_then(|reading| Ok((reading, journal::is_held(&path)?))) {
            Ok((reading, is_held)) => gather_journal(gathered.entry(task).or_default(), &reading, is_held),
            // Its task ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // It is another user's who has the same state directory, and no trouble of this one's.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                gathered.entry(task).or_default().evidence.is_unread = true;
            }
            Err(error) => {
                let entry = gathered.entry(task).or_default();
                (entry.has_journal, entry.evidence.is_unread) = (true, true);
                troubles.push(format!("journal {} (could not be read: {error})", path.display()));
            }
        }
    }
    troubles
}

fn gather_journal(entry: &mut Gathered, reading: &Reading, is_held: bool) {
    entry.has_journal = true;
    entry.known = reading.known();
    entry.evidence.journal = entry.known.as_ref().map(said);
    if matches!(reading.ending, Ending::Newer { .. }) {
        // Only a newer version knows what it says: with no mark that we can read, the task is not ours to judge.
        entry.evidence.mark.get_or_insert(None);
    }
    entry.evidence.is_held = is_held;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(of: &Path) -> HostPaths {
        let (state, runtime) = (of.join("state"), Some(of.join("runtime")));
        HostPaths { state, runtime, docker_config: None, search_path: String::new(), supervisor: None }
    }

    /// As where an engine lists a container of an owner that is no more.
    fn judged(host: &HostPaths, task: &TaskId) -> (Condition, Vec<String>) {
        let here = Owner::this_process().unwrap();
        let mut listed = Gathered::default();
        listed.evidence.labels.push(Some(Owner { start_time: 0, ..here.clone() }));
        let mut gathered = BTreeMap::from([(task.clone(), listed)]);
        let troubles = gather_files(&mut gathered, host);
        let survey = finish(gathered, &here, host, troubles);
        (survey.tasks[0].condition.clone(), survey.troubles)
    }

    #[test]
    fn nobody_is_dead_whose_journal_or_mark_cannot_be_read() {
        let (scratch, task) = (tempfile::tempdir().unwrap(), TaskId::from_random([7; 8]));
        let host = paths(scratch.path());
        assert_eq!(judged(&host, &task), (Condition::Dead, Vec::new()), "nothing speaks for it");
        let journals = journal::directory(&host.state);
        std::fs::create_dir_all(&host.state).unwrap();
        std::fs::write(&journals, "").unwrap();
        let (condition, troubles) = judged(&host, &task);
        assert_eq!((condition, troubles.len()), (Condition::Foreign, 1), "{troubles:?}");
        assert!(troubles[0].starts_with("journals in "), "{troubles:?}");
        std::fs::remove_file(&journals).unwrap();
        // A directory in a journal's place cannot be read as one.
        std::fs::create_dir_all(journal::path(&host.state, &task)).unwrap();
        let (condition, troubles) = judged(&host, &task);
        assert_eq!((condition, troubles.len()), (Condition::Foreign, 1), "{troubles:?}");
        assert!(troubles[0].starts_with("journal ") && troubles[0].contains("could not be read"), "{troubles:?}");
        std::fs::remove_dir_all(&journals).unwrap();
        let marks = run_dir::parent(host.runtime.as_deref(), run_dir::uid());
        std::fs::create_dir_all(marks.parent().unwrap()).unwrap();
        std::fs::write(&marks, "").unwrap();
        let (condition, troubles) = judged(&host, &task);
        assert_eq!((condition, troubles.len()), (Condition::Foreign, 1), "{troubles:?}");
    }
}
