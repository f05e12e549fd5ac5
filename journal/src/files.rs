//! Where journals are, and operations that need only a journal's path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use navvy_job::id::TaskId;
use navvy_plain_file as plain_file;

use crate::owner::Owner;
use crate::read::{Reading, read};
use crate::record::Opening;

/// Ending of a journal's name.
const ENDING: &str = ".journal";
/// Bytes of some hundred records; a longer file is not a journal.
pub(crate) const LONGEST: u64 = 1 << 20;

/// Why a journal could not be kept or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// A record could not be made safe on disk.
    #[error("could not write the task's journal {path}; is the disk full?", path = path.display())]
    Write {
        /// The journal.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// The journal's bytes could not be read.
    #[error("could not read the task's journal {path}", path = path.display())]
    Read {
        /// The journal.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// The journal is not as it was written, so its task cannot be judged.
    #[error("the task's journal {path} is damaged from byte {at} on", path = path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Where the damage begins, in bytes.
        at: u64,
    },
    /// The journal's first record has a version that this program does not know.
    #[error(
        "the task's journal {path} was written by a newer version of Navvy (version {version}, this one reads up to {known}): \
         use that one",
        path = path.display(),
        known = Opening::VERSION
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Version in the record.
        version: u32,
    },
    /// Its lock is held, so its task has an owner already.
    #[error("another process is at work on the task of {path}", path = path.display())]
    Busy {
        /// The journal.
        path: PathBuf,
    },
}

/// Where journals are, below Navvy's own state.
pub fn directory(state: &Path) -> PathBuf {
    state.join("tasks")
}

/// Where this task's journal is.
pub fn path(state: &Path, task: &TaskId) -> PathBuf {
    directory(state).join(format!("{task}{ENDING}"))
}

/// Tasks that have a journal. Without a directory there is none.
///
/// # Errors
/// The directory cannot be listed.
pub fn tasks(state: &Path) -> io::Result<Vec<TaskId>> {
    let entries = plain_file::directory::entries(&directory(state))?;
    Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.strip_suffix(ENDING)?.parse().ok()).collect())
}

/// What a journal says. Missing is an error of kind `NotFound`.
pub fn load(path: &Path) -> io::Result<Reading> {
    Ok(read(&plain_file::read(path, LONGEST)?))
}

/// Is a process at work on this task? It holds the journal's lock as long as it lives.
///
/// # Errors
/// The journal is there and cannot be asked.
pub fn is_held(path: &Path) -> io::Result<bool> {
    plain_file::claim::is_held(path)
}

/// Removes a journal. Missing is fine; needs no free byte.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes files that a process of this machine had begun and did not live to put in their place.
pub fn sweep(directory: &Path, here: &Owner) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let owner = entry.file_name().to_str().and_then(Owner::of_unfinished);
        if owner.is_some_and(|owner| owner.is_dead(here)) {
            let path = entry.path();
            // Another reaper may be at it.
            let _gone = match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
        }
    }
}
