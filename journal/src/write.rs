//! Records to a file: whole, in order, on disk.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use navvy_plain_file::claim::claim;

use crate::owner::Owner;

use super::files::{JournalError, load};
use super::read::{Ending, Reading, line};
use super::record::{Entry, Record};

/// An open journal. It is locked as long as it lives, so that no other process continues the task.
pub(super) struct Writer {
    file: File,
    next: u64,
    /// Bytes of whole records.
    length: u64,
}

impl Writer {
    /// Makes a journal with its first records: another process sees no journal, or all of them, safe on disk.
    pub fn create(path: &Path, owner: &Owner, entries: impl Iterator<Item = Entry>) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = directory.join(owner.unfinished(&name));
        let made = Self::begin(&unfinished, entries).and_then(|writer| {
            fs::rename(&unfinished, path)?;
            File::open(directory)?.sync_all()?;
            Ok(writer)
        });
        if made.is_err() {
            // It never counted; a reaper knows it by its name.
            let _unwritten = fs::remove_file(&unfinished);
        }
        made
    }

    fn begin(path: &Path, entries: impl Iterator<Item = Entry>) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        file.lock()?;
        let mut writer = Self { file, next: 0, length: 0 };
        let mut text = Vec::new();
        for entry in entries {
            text.extend(writer.line(entry)?);
        }
        writer.write(&text)?;
        Ok(writer)
    }

    /// Opens a journal to add records.
    pub fn resume(path: &Path) -> Result<(Self, Reading), JournalError> {
        let failed = |source| JournalError::Read { path: path.to_owned(), source: Arc::new(source) };
        // Without waiting, if it is not a file but, say, a pipe.
        let file = OpenOptions::new().append(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        match claim(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Busy { path: path.to_owned() }),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        // Whoever held it may have removed it, and another may be in its place.
        if !navvy_plain_file::is_at(&file, path).map_err(failed)? {
            return Err(JournalError::Busy { path: path.to_owned() });
        }
        let reading = load(path).map_err(failed)?;
        let length = match reading.ending {
            Ending::Damaged { at } => return Err(JournalError::Damaged { path: path.to_owned(), at }),
            Ending::Newer { version } => return Err(JournalError::Newer { path: path.to_owned(), version }),
            Ending::Torn { at } => at,
            Ending::Whole => file.metadata().map_err(failed)?.len(),
        };
        file.set_len(length).map_err(failed)?;
        Ok((Self { file, next: reading.records.len() as u64, length }, reading))
    }

    /// The record is on disk when this returns. On failure the file ends with the record before it.
    pub fn append(&mut self, entry: Entry) -> io::Result<()> {
        let next = self.next;
        let written = self.line(entry).and_then(|line| self.write(&line));
        if written.is_err() {
            self.next = next;
        }
        written
    }

    fn line(&mut self, entry: Entry) -> io::Result<Vec<u8>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = Record { seq: self.next, at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX), entry };
        self.next += 1;
        line(&record).map_err(io::Error::other)
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(text).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.length += text.len() as u64,
            // Half a line would make everything behind it look damaged.
            Err(_) => self.file.set_len(self.length)?,
        }
        written
    }
}
