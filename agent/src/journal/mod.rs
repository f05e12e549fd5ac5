//! A task's journal: what a successor must know of a task whose process is gone, safe on disk before it matters.
//!
//! ```text
//! STATE/tasks/TASK.journal     one line a record: CRC-32 in hex, a space, JSON, a line feed
//!
//!   opened    task, names for people, engine, places          before anything is made
//!   state     Preparing, Running, …  verdict when it is known   before the side effects of that state
//!   standing  running / kept until T / adoptable until T        before marks and containers say so
//!   owner     another process has taken over                    after its mark
//!
//!   Task ─▶ Journal ─▶ Writer ─▶ file (locked, synced)       Reading ◀─ read(bytes) ◀─ reaper, ps, successor
//! ```
//!
//! Synced at every record, and there is one for each move of a task, never for a step. No secret and no text of a job's
//! output stands in it. It goes when the task is done and nothing of it is left.

mod read;
mod record;
mod write;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use navvy_job::id::TaskId;
use tokio::sync::watch;

pub use read::{Ending, Known, Reading, read};
pub use record::{Entry, HeldStep, Opening, Record, Standing, VerdictKind};
use write::Writer;

use crate::environment::owner::Owner;
use crate::plain_file;

/// Ending of a journal's name.
const ENDING: &str = ".journal";
/// Some hundred records; whatever is longer is no journal.
const LONGEST: u64 = 1 << 20;

#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    #[error("could not write the task's journal {path}; is the disk full?", path = path.display())]
    Write { path: PathBuf, source: Arc<io::Error> },
    #[error("could not read the task's journal {path}", path = path.display())]
    Read { path: PathBuf, source: Arc<io::Error> },
    #[error("the task's journal {path} is damaged from byte {at} on", path = path.display())]
    Damaged { path: PathBuf, at: u64 },
    #[error(
        "the task's journal {path} was written by a newer version of Navvy (version {version}, this one reads up to {known}): \
         use that one",
        path = path.display(),
        known = Opening::VERSION
    )]
    Newer { path: PathBuf, version: u32 },
    #[error("another process is at work on the task of {path}", path = path.display())]
    Busy { path: PathBuf },
}

/// Where journals are, below Navvy's own state.
pub fn directory(state: &Path) -> PathBuf {
    state.join("tasks")
}

pub fn path(state: &Path, task: &TaskId) -> PathBuf {
    directory(state).join(format!("{task}{ENDING}"))
}

/// Tasks that have a journal.
pub fn tasks(state: &Path) -> Vec<TaskId> {
    let entries = fs::read_dir(directory(state)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(ENDING)?.parse().ok()).collect()
}

/// What a journal says. Missing is an error of kind `NotFound`.
pub fn load(path: &Path) -> io::Result<Reading> {
    Ok(read(&plain_file::read(path, LONGEST)?))
}

/// Is a process at work on this task? It holds the journal's lock as long as it lives.
pub fn is_held(path: &Path) -> bool {
    let Ok(file) = plain_file::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}

/// Removes a journal. Missing is fine; needs no free byte.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A live task's journal. Cheap to clone; the file is written on blocking threads, one record at a time.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

struct Shared {
    path: PathBuf,
    writer: Mutex<Option<Writer>>,
    /// `None` while the first records are on their way to the disk.
    opened: watch::Receiver<Option<Result<(), JournalError>>>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Journal").field(&self.0.path).finish()
    }
}

impl Journal {
    /// Starts to write a new journal, beside whatever the caller does next; [`Self::opened`] tells when it is safe.
    /// Within a Tokio runtime only.
    pub fn begin(state: &Path, opening: Opening, further: Vec<Entry>) -> Self {
        let path = path(state, &opening.task);
        let (sender, opened) = watch::channel(None);
        let shared = Arc::new(Shared { path, writer: Mutex::new(None), opened });
        let there = Arc::clone(&shared);
        tokio::task::spawn_blocking(move || {
            let owner = opening.owner.clone();
            let entries = std::iter::once(Entry::Opened(Box::new(opening))).chain(further);
            let made = Writer::create(&there.path, &owner, entries);
            let result = made.map(|writer| *lock(&there.writer) = Some(writer)).map_err(|e| there.write_error(e));
            sender.send_replace(Some(result));
        });
        Self(shared)
    }

    /// Opens the journal of a task that another process has left, to go on with it. A torn tail is cut off.
    pub fn resume(path: &Path) -> Result<(Self, Reading), JournalError> {
        let (writer, reading) = Writer::resume(path)?;
        let (_, opened) = watch::channel(Some(Ok(())));
        let shared = Shared { path: path.to_owned(), writer: Mutex::new(Some(writer)), opened };
        Ok((Self(Arc::new(shared)), reading))
    }

    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Waits until the first records are on disk.
    pub async fn opened(&self) -> Result<(), JournalError> {
        let mut opened = self.0.opened.clone();
        let seen = opened.wait_for(Option::is_some).await.map(|seen| (*seen).clone());
        seen.ok().flatten().unwrap_or_else(|| Err(self.0.write_error(io::Error::other("its writer ended early"))))
    }

    /// Appends a record; it is on disk when this returns.
    pub async fn record(&self, entry: Entry) -> Result<(), JournalError> {
        self.opened().await?;
        let shared = Arc::clone(&self.0);
        let written = tokio::task::spawn_blocking(move || match lock(&shared.writer).as_mut() {
            Some(writer) => writer.append(entry).map_err(|e| shared.write_error(e)),
            // Removed: there is nothing more to say about the task.
            None => Ok(()),
        });
        written.await.unwrap_or_else(|e| Err(self.0.write_error(io::Error::other(e))))
    }

    /// Removes the file: the task is over and nothing of it is left.
    pub async fn remove(&self) -> Result<(), JournalError> {
        // One that was never made is removed all the same.
        let _made_or_not = self.opened().await;
        *lock(&self.0.writer) = None;
        remove(&self.0.path).map_err(|e| self.0.write_error(e))
    }
}

impl Shared {
    fn write_error(&self, source: io::Error) -> JournalError {
        JournalError::Write { path: self.path.clone(), source: Arc::new(source) }
    }
}

fn lock(writer: &Mutex<Option<Writer>>) -> std::sync::MutexGuard<'_, Option<Writer>> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests;
