//! Where a run's logs are.
//!
//! ```text
//! STATE/runs/RUN/events.jsonl               every event but output
//! STATE/runs/RUN/TASK/000-1.log             "Spin up environment"
//! STATE/runs/RUN/TASK/NNN-A.log             step NNN, attempt A: exactly its bytes
//! STATE/runs/RUN/TASK/NNN-A.seg             their index: crcs, streams and times
//! STATE/runs/RUN/TASK/service-K.log, .seg   service container K
//! STATE/latest                              link to the newest run
//! ```
//!
//! No name of a config ever becomes part of a path.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Zoned;
use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use rustix::fs::Access;

/// Runs that are always kept, however old.
const KEEP_RUNS: usize = 50;
/// Runs younger than this are always kept, however many.
const KEEP_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A directory that logs need cannot be made, or not be written into.
#[derive(Debug, thiserror::Error)]
#[error("could not make the log directory {}", path.display())]
pub struct RunDirectoryError {
    path: PathBuf,
    source: io::Error,
}

impl RunDirectoryError {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The directory of one run. Exists.
#[derive(Debug, Clone)]
pub struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// Makes a new one below `state`, readable by its owner alone.
    pub fn create(state: &Path, random: u32) -> Result<Self, RunDirectoryError> {
        let name = format!("{}-{random:08x}", Zoned::now().strftime("%Y%m%d-%H%M%S"));
        let path = state.join("runs").join(name);
        make(&path)?;
        point_latest(state, &path);
        Ok(Self { path })
    }

    /// Could one be made below `state`? For callers that would otherwise find out too late.
    ///
    /// # Errors
    /// The place for runs cannot be made, or not be written into.
    pub fn check(state: &Path) -> Result<(), RunDirectoryError> {
        let path = state.join("runs");
        make(&path)?;
        let allowed = rustix::fs::access(&path, Access::WRITE_OK | Access::EXEC_OK);
        allowed.map_err(|source| RunDirectoryError { path, source: source.into() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn events(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    pub fn task(&self, task: &TaskId) -> Result<PathBuf, RunDirectoryError> {
        let path = self.path.join(task.as_str());
        make(&path)?;
        Ok(path)
    }
}

/// Removes runs that are both old and many. Trouble is not the run's: the next one tries again.
pub fn retain(state: &Path) {
    let Ok(entries) = fs::read_dir(state.join("runs")) else { return };
    let mut runs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    runs.sort();
    let surplus = runs.len().saturating_sub(KEEP_RUNS);
    for run in runs.iter().take(surplus).filter(|run| is_old(run)) {
        if let Err(error) = fs::remove_dir_all(run) {
            tracing::warn!(run = %run.display(), %error, "An old run could not be removed.");
        }
    }
}

fn is_old(run: &Path) -> bool {
    let modified = fs::metadata(run).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > KEEP_AGE))
}

fn make(path: &Path) -> Result<(), RunDirectoryError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| RunDirectoryError { path: path.to_owned(), source })
}

/// A convenience for people; a run goes on without it.
fn point_latest(state: &Path, run: &Path) {
    let latest = state.join("latest");
    let Ok(here) = Owner::this_process() else { return };
    let new = state.join(here.unfinished("latest"));
    if symlink(run, &new).is_ok() && fs::rename(&new, &latest).is_err() {
        fs::remove_file(&new).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_its_place_and_latest_points_there() {
        let state = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(state.path(), 7).unwrap();
        assert!(run.path().is_dir());
        assert_eq!(fs::read_link(state.path().join("latest")).unwrap(), run.path());
    }

    #[test]
    fn young_runs_are_kept_however_many() {
        let state = tempfile::tempdir().unwrap();
        for number in 0..KEEP_RUNS as u32 + 5 {
            RunDirectory::create(state.path(), number).unwrap();
        }
        retain(state.path());
        assert_eq!(fs::read_dir(state.path().join("runs")).unwrap().count(), KEEP_RUNS + 5);
    }
}
