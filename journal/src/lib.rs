//! What is known of a task on this machine, for a process that comes after the task's own.
//!
//! | module | what it holds |
//! |---|---|
//! | [`owner`] | who made an object on this host, so that a reaper can tell living from dead |
//! | [`standing`] | who looks after a task, and what a reaper concludes (pure) |
//! | `files` | where journals are |
//! | `record`, `read`, `write` | one record; bytes to what is known; records to a file, synced |
//!
//! A task's journal says what a successor must know of a task whose process is gone, safe on disk before it matters.
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
//! output stands in it. It goes when the task is done and none of its objects is left.

#![warn(missing_docs)]

mod files;
pub mod owner;
mod read;
mod record;
pub mod standing;
mod write;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

pub use files::{JournalError, directory, is_held, load, path, remove, sweep, tasks};
pub use read::{Ending, Known, Reading, read};
pub use record::{Entry, HeldStep, Opening, Record, Standing, VerdictKind};
use write::Writer;

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
    /// Starts to write a new journal while the caller continues; [`Self::opened`] says when it is safe on disk. Needs a Tokio
    /// runtime.
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

    /// Opens the journal of a task that another process has left, to continue it. A torn tail is cut off.
    pub fn resume(path: &Path) -> Result<(Self, Reading), JournalError> {
        let (writer, reading) = Writer::resume(path)?;
        let (_, opened) = watch::channel(Some(Ok(())));
        let shared = Shared { path: path.to_owned(), writer: Mutex::new(Some(writer)), opened };
        Ok((Self(Arc::new(shared)), reading))
    }

    /// The same from a runtime's thread: a lock that somebody has is waited for a moment.
    ///
    /// # Errors
    /// [`JournalError::Busy`]: somebody means to have it. Else it cannot be read.
    pub async fn take(path: &Path) -> Result<(Self, Reading), JournalError> {
        let path = path.to_owned();
        let resuming = {
            let path = path.clone();
            move || Self::resume(&path)
        };
        let failed = |error| JournalError::Read { path, source: Arc::new(io::Error::other(error)) };
        tokio::task::spawn_blocking(resuming).await.unwrap_or_else(|error| Err(failed(error)))
    }

    /// Where the journal is.
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

    /// Removes the file: the task is over and none of its objects is left.
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

#[cfg(test)]
mod tests;
