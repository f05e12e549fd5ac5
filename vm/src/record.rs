//! The record of a machine: everything that a successor needs to find it and to end it, safe on disk before it matters.
//!
//! ```text
//! STATE/machines/ID/record      one line an entry: CRC-32 in hex, a space, JSON, a line feed
//!
//!   planned   machine, task, owner, provider, image            before anything is made
//!   fact      what is about to be made, or has just been made     a name before it is used, a process when it is known
//!   state     Provisioned, Launched, …                            before the side effects of that state
//!   owner     another process has taken over
//!   given     a pool's machine: it was given to this process, and to no other
//!   taken     its taker has made it a task's
//!
//! Record (locked, synced) ─▶ file ◀─ load ◀─ reaper, successor
//! ```
//!
//! Synced at every write. No secret stands in it. It goes last of all that the machine has on this host. Who holds its lock looks
//! after the machine.

mod error;
mod known;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use navvy_journal::owner::Owner;
use navvy_plain_file as plain_file;
use navvy_plain_file::claim::claim;
use serde::{Deserialize, Serialize};

use crate::machine_id::MachineId;
use crate::state::State;
pub use error::RecordError;
use known::Illegal;
pub use known::{Entry, Fact, Known, Planned, Taken};

/// A record's name in its machine's directory.
const FILE: &str = "record";
/// Bytes of some hundred entries; a longer file is no record.
const LONGEST: u64 = 1 << 20;
/// Hex digits of a line's checksum.
const DIGITS: usize = 8;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    seq: u64,
    at_ms: u64,
    entry: Entry,
}

/// Where the machines of a state directory are.
pub fn machines(state: &Path) -> PathBuf {
    state.join("machines")
}

/// A machine's directory.
pub fn directory(state: &Path, machine: &MachineId) -> PathBuf {
    machines(state).join(machine.as_str())
}

/// Machines that have a directory.
///
/// # Errors
/// There may be some, and they cannot be listed.
pub fn all(state: &Path) -> Result<Vec<MachineId>, RecordError> {
    let path = machines(state);
    let entries =
        plain_file::directory::entries(&path).map_err(|source| RecordError::List { path, source: Arc::new(source) })?;
    Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// What a machine's record says.
///
/// # Errors
/// There is none, or it cannot be believed.
pub fn load(directory: &Path) -> Result<Known, RecordError> {
    let path = directory.join(FILE);
    let bytes = plain_file::read(&path, LONGEST);
    let bytes = bytes.map_err(|e| RecordError::Read { path: path.clone(), source: Arc::new(e) })?;
    read(&path, &bytes).map(|(known, _, _)| known)
}

/// Does a process look after this machine? It holds the record's lock as long as it lives.
pub fn is_held(directory: &Path) -> bool {
    plain_file::claim::is_held(&directory.join(FILE)).unwrap_or(true)
}

/// A machine's record, open and locked. Cheap to clone; entries are written on blocking threads, one write at a time.
#[derive(Clone)]
pub struct Record(Arc<Shared>);

struct Shared {
    directory: PathBuf,
    writer: Mutex<Writer>,
}

struct Writer {
    file: File,
    known: Known,
    next: u64,
    /// Bytes of whole entries.
    length: u64,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Record").field(&self.0.directory).finish()
    }
}

impl Record {
    /// Makes the machine's directory with a record of one entry.
    ///
    /// # Errors
    /// It cannot be made safe on disk.
    pub async fn create(state: &Path, planned: Planned) -> Result<Self, RecordError> {
        let directory = directory(state, &planned.machine);
        blocking(move || Self::create_now(directory, planned)).await
    }

    fn create_now(directory: PathBuf, planned: Planned) -> Result<Self, RecordError> {
        let path = directory.join(FILE);
        let failed = |source| RecordError::Write { path: path.clone(), source: Arc::new(source) };
        let parent = directory.parent().unwrap_or(Path::new("/")).to_owned();
        DirBuilder::new().recursive(true).mode(0o700).create(&parent).map_err(failed)?;
        // A directory without a record is none of a machine's: who comes upon one may remove it.
        let unfinished = parent.join(planned.owner.unfinished(planned.machine.as_str()));
        let made = Self::begin(&unfinished, planned).and_then(|writer| {
            fs::rename(&unfinished, &directory)?;
            for place in [&directory, &parent] {
                File::open(place)?.sync_all()?;
            }
            Ok(writer)
        });
        if made.is_err() {
            // Nothing of the machine exists: it needs no record.
            for place in [&unfinished, &directory] {
                let _not_there = fs::remove_dir_all(place);
            }
        }
        let writer = made.map_err(failed)?;
        Ok(Self(Arc::new(Shared { directory, writer: Mutex::new(writer) })))
    }

    fn begin(unfinished: &Path, planned: Planned) -> io::Result<Writer> {
        DirBuilder::new().mode(0o700).create(unfinished)?;
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(unfinished.join(FILE))?;
        file.lock()?;
        let known = Known::new(planned.clone());
        let mut writer = Writer { file, known, next: 0, length: 0 };
        writer.append(&[Entry::Planned(Box::new(planned))])?;
        Ok(writer)
    }

    /// Opens the record of a machine that another process has left. A torn tail is cut off.
    ///
    /// # Errors
    /// [`RecordError::Busy`]: somebody looks after it.
    pub async fn resume(directory: PathBuf) -> Result<Self, RecordError> {
        blocking(move || Self::resume_now(directory)).await
    }

    fn resume_now(directory: PathBuf) -> Result<Self, RecordError> {
        let path = directory.join(FILE);
        let unread = |source| RecordError::Read { path: path.clone(), source: Arc::new(source) };
        let file = OpenOptions::new().read(true).append(true).open(&path).map_err(unread)?;
        match claim(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RecordError::Busy { path }),
            Err(TryLockError::Error(source)) => return Err(unread(source)),
        }
        let bytes = plain_file::rest(file.try_clone().map_err(unread)?, LONGEST).map_err(unread)?;
        let (known, next, length) = read(&path, &bytes)?;
        if length < bytes.len() as u64 {
            file.set_len(length).map_err(unread)?;
        }
        let writer = Writer { file, known, next, length };
        Ok(Self(Arc::new(Shared { directory, writer: Mutex::new(writer) })))
    }

    /// The machine's directory.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// What it says now.
    pub fn known(&self) -> Known {
        self.0.lock().known.clone()
    }

    /// The machine.
    pub fn machine(&self) -> MachineId {
        self.0.lock().known.planned.machine.clone()
    }

    /// Where the machine stands.
    pub fn state(&self) -> State {
        self.0.lock().known.state
    }

    /// Writes down that the machine is about to enter a state; on disk when this returns.
    ///
    /// # Errors
    /// The move is not legal, or could not be written.
    pub async fn enter(&self, next: State) -> Result<(), RecordError> {
        self.write(vec![Entry::State(next)]).await
    }

    /// Removes the machine's directory with all that is in it, at once for everybody who looks.
    ///
    /// # Errors
    /// Something of it could not be removed.
    pub async fn remove(&self) -> io::Result<()> {
        let directory = self.0.directory.clone();
        let name = self.machine();
        let work = move || {
            let gone = directory.with_file_name(Owner::this_process()?.unfinished(name.as_str()));
            match fs::rename(&directory, &gone) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            }
            fs::remove_dir_all(gone)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }

    /// Writes down a fact; on disk when this returns.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn note(&self, fact: Fact) -> Result<(), RecordError> {
        self.write(vec![Entry::Fact(fact)]).await
    }

    /// Writes entries, all or none of them; on disk when this returns.
    ///
    /// # Errors
    /// One of them is not legal, or they could not be written.
    pub async fn write(&self, entries: Vec<Entry>) -> Result<(), RecordError> {
        let shared = Arc::clone(&self.0);
        blocking(move || shared.write(entries)).await
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, entries: Vec<Entry>) -> Result<(), RecordError> {
        let mut writer = self.lock();
        let path = || self.directory.join(FILE);
        let mut known = writer.known.clone();
        for entry in &entries {
            let (from, to) = (known.state, if let Entry::State(to) = entry { *to } else { known.state });
            known.take(entry.clone()).map_err(|Illegal| RecordError::Move { path: path(), from, to })?;
        }
        writer.append(&entries).map_err(|e| RecordError::Write { path: path(), source: Arc::new(e) })?;
        writer.known = known;
        Ok(())
    }
}

impl Writer {
    fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let mut text = Vec::new();
        for (seq, entry) in (self.next..).zip(entries) {
            text.extend(line(&Line { seq, at_ms, entry: entry.clone() })?);
        }
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // Half a line must not stand in front of a later one.
            let _torn_tails_are_cut_off_when_read = self.file.set_len(self.length);
            return written;
        }
        self.next += entries.len() as u64;
        self.length += text.len() as u64;
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RecordError> + Send + 'static,
) -> Result<T, RecordError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| {
        Err(RecordError::Write { path: PathBuf::from(FILE), source: Arc::new(io::Error::other(e)) })
    })
}

fn line(line: &Line) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(line)?;
    let mut bytes = format!("{:08x} ", crc32fast::hash(&text)).into_bytes();
    bytes.extend(text);
    bytes.push(b'\n');
    Ok(bytes)
}

/// What a record says, the number of its next entry, and the length of its whole entries.
fn read(path: &Path, bytes: &[u8]) -> Result<(Known, u64, u64), RecordError> {
    let mut known: Option<Known> = None;
    let (mut next, mut at) = (0, 0);
    let damaged = |at: usize| RecordError::Damaged { path: path.to_owned(), at: at as u64 };
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let Some(text) = end.and_then(|end| payload(&rest[..end])) else {
            // A torn tail never counted; something whole behind it means that it is no tail.
            match end {
                None => break,
                Some(end) if rest[end + 1..].is_empty() => break,
                Some(_) => return Err(damaged(at)),
            }
        };
        if next == 0
            && let Some(version) = version(text).filter(|version| *version > Planned::VERSION)
        {
            return Err(RecordError::Newer { path: path.to_owned(), version });
        }
        let line: Line = serde_json::from_slice(text).map_err(|_| damaged(at))?;
        if line.seq != next {
            return Err(damaged(at));
        }
        match (&mut known, line.entry) {
            (None, Entry::Planned(planned)) => {
                known = Some(Known::new(*planned));
            }
            (None, _) => return Err(damaged(at)),
            (Some(known), entry) => known.take(entry).map_err(|Illegal| damaged(at))?,
        }
        next += 1;
        at += end.unwrap_or_default() + 1;
    }
    let known = known.ok_or_else(|| RecordError::Empty { path: path.to_owned() })?;
    Ok((known, next, at as u64))
}

/// The version in the first entry. No other field is read: it may mean something else in another version.
fn version(text: &[u8]) -> Option<u32> {
    let line: serde_json::Value = serde_json::from_slice(text).ok()?;
    line.pointer("/entry/planned/version")?.as_u64().and_then(|version| u32::try_from(version).ok())
}

/// The JSON of a line whose checksum is right.
fn payload(line: &[u8]) -> Option<&[u8]> {
    let (digits, rest) = line.split_at_checked(DIGITS)?;
    let text = rest.strip_prefix(b" ")?;
    let all_hex = digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let sum = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (all_hex && sum == crc32fast::hash(text)).then_some(text)
}

#[cfg(test)]
mod tests;
