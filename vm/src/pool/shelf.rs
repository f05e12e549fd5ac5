//! A pool's records on disk: a file each, whole or not there, and one process that writes them.
//!
//! ```text
//! POOL/lock               held by the pool's process, which touches it as long as it lives
//! POOL/machines/ID.json   the record: written beside its place, synced, renamed, and the directory synced
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use navvy_plain_file as plain_file;
use navvy_plain_file::claim::claim;

use super::record::Record;
use crate::machine_id::MachineId;

/// A pool that was stopped or killed comes back within this, or not at all.
const AWAY: Duration = Duration::from_secs(3600);
/// Bytes of the longest record.
const LONGEST: u64 = 64 << 10;

/// Where a pool's records are.
#[derive(Debug)]
pub struct Shelf {
    machines: PathBuf,
    directory: File,
    lock: File,
}

/// Why records cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// Another process has this pool.
    #[error("another process looks after the pool in {path}; a pool has one", path = path.display())]
    Taken {
        /// The pool's directory.
        path: PathBuf,
    },
    /// The disk does not do it.
    #[error("could not {what} {path}", path = path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A record is not as it was written.
    #[error(
        "the record {path} is damaged ({why}); once it is removed, its machine is found and removed, whoever uses it",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A record is of a newer version.
    #[error("the record {path} was written by a newer version of Navvy ({version}): use that one", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
}

impl Shelf {
    /// Opens a pool's directory, and makes it where there is none; its records come with it.
    ///
    /// # Errors
    /// Another process has it, or a record cannot be believed: then nothing is begun, for a machine could be lost.
    pub fn open(pool: &Path) -> Result<(Self, Vec<Record>), ShelfError> {
        let machines = pool.join("machines");
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| ShelfError::Disk { what, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&machines).map_err(failed("make", &machines))?;
        let path = pool.join("lock");
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = options.map_err(failed("open", &path))?;
        match claim(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ShelfError::Taken { path: pool.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(ShelfError::Disk { what: "lock", path, source }),
        }
        let directory = File::open(&machines).map_err(failed("open", &machines))?;
        let shelf = Self { machines, directory, lock };
        shelf.touch();
        let records = shelf.load()?;
        Ok((shelf, records))
    }

    /// Says that the pool lives.
    pub fn touch(&self) {
        // Where that cannot be said, its machines are somebody's who is away: they are removed the sooner.
        let _removed_sooner = self.lock.set_modified(SystemTime::now());
    }

    fn load(&self) -> Result<Vec<Record>, ShelfError> {
        let failed = |source| ShelfError::Disk { what: "read", path: self.machines.clone(), source };
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.machines).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(id) = name.strip_suffix(".json") else {
                // Half of a record that never counted.
                fs::remove_file(&path).ok();
                continue;
            };
            records.push(read(&path, id)?);
        }
        Ok(records)
    }

    fn path(&self, id: &MachineId) -> PathBuf {
        path_in(&self.machines, id)
    }

    /// Puts a record in its place; on disk when this returns.
    ///
    /// # Errors
    /// It is not, and what stood there before stands there yet.
    pub fn write(&self, record: &Record) -> Result<(), ShelfError> {
        let path = self.path(&record.id);
        let new = path.with_extension("new");
        let written = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            self.directory.sync_all()
        };
        written().map_err(|source| ShelfError::Disk { what: "write", path, source })
    }

    /// Takes a record away.
    ///
    /// # Errors
    /// It may be there yet.
    pub fn erase(&self, id: &MachineId) -> Result<(), ShelfError> {
        let path = self.path(id);
        match fs::remove_file(&path).and_then(|()| self.directory.sync_all()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ShelfError::Disk { what: "remove", path, source: error })
            }
            _ => Ok(()),
        }
    }
}

fn path_in(machines: &Path, id: &MachineId) -> PathBuf {
    machines.join(format!("{id}.json"))
}

/// Has the pool in this directory a record of this machine?
///
/// # Errors
/// That cannot be seen: it may have one.
pub fn has(pool: &Path, id: &MachineId) -> Result<bool, ShelfError> {
    let path = path_in(&pool.join("machines"), id);
    path.try_exists().map_err(|source| ShelfError::Disk { what: "look at", path, source })
}

/// Has a pool lived here of late? What it keeps ready waits for it to start again.
pub fn is_recent(pool: &Path) -> bool {
    let touched = pool.join("lock").symlink_metadata().and_then(|found| found.modified());
    // A clock that was set back counts as now.
    touched.is_ok_and(|at| at.elapsed().is_ok_and(|since| since < AWAY) || at > SystemTime::now())
}

fn read(path: &Path, id: &str) -> Result<Record, ShelfError> {
    let damaged = |why: String| ShelfError::Damaged { path: path.to_owned(), why };
    let bytes = plain_file::read(path, LONGEST).map_err(|error| damaged(error.to_string()))?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    let version = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or_default();
    if version > u64::from(Record::VERSION) {
        return Err(ShelfError::Newer { path: path.to_owned(), version });
    }
    let record: Record = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
    if record.id.as_str() != id {
        return Err(damaged(format!("it speaks of machine {}", record.id)));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::super::record::{Stage, Why};
    use super::super::rules::Kind;
    use super::*;

    fn record() -> Record {
        let kind = Kind { class: "medium".to_owned(), image: "debian-12-docker".to_owned() };
        Record { version: Record::VERSION, id: MachineId::random(), kind, born_s: 7, stage: Stage::Making }
    }

    #[test]
    fn what_was_written_is_there_for_the_next_process_and_for_no_other_at_once() {
        let pool = tempfile::tempdir().unwrap();
        let (shelf, records) = Shelf::open(pool.path()).unwrap();
        assert!(records.is_empty());
        assert!(matches!(Shelf::open(pool.path()).unwrap_err(), ShelfError::Taken { .. }));
        let (mut one, two) = (record(), record());
        shelf.write(&one).unwrap();
        shelf.write(&two).unwrap();
        one.stage = Stage::Removing { why: Why::Used };
        shelf.write(&one).unwrap();
        shelf.erase(&two.id).unwrap();
        shelf.erase(&two.id).unwrap();
        assert!(has(pool.path(), &one.id).unwrap() && !has(pool.path(), &two.id).unwrap());
        fs::write(shelf.machines.join("half.new"), "{").unwrap();
        drop(shelf);
        let (shelf, records) = Shelf::open(pool.path()).unwrap();
        assert_eq!(records, [one]);
        assert_eq!(fs::read_dir(&shelf.machines).unwrap().count(), 1);
    }

    #[test]
    fn a_pool_that_is_away_for_long_is_none() {
        let pool = tempfile::tempdir().unwrap();
        assert!(!is_recent(pool.path()), "there never was one");
        let (shelf, _) = Shelf::open(pool.path()).unwrap();
        shelf.lock.set_modified(SystemTime::now() - 2 * AWAY).unwrap();
        assert!(!is_recent(pool.path()));
        shelf.touch();
        assert!(is_recent(pool.path()));
        drop(shelf);
        assert!(is_recent(pool.path()), "it was stopped just now");
    }

    #[test]
    fn what_cannot_be_believed_is_named_and_nothing_is_begun() {
        let pool = tempfile::tempdir().unwrap();
        let (shelf, _) = Shelf::open(pool.path()).unwrap();
        let record = record();
        shelf.write(&record).unwrap();
        let path = shelf.path(&record.id);
        drop(shelf);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(Shelf::open(pool.path()).unwrap_err(), ShelfError::Damaged { .. }));
        fs::write(&path, r#"{"version": 2, "stage": "sold"}"#).unwrap();
        assert!(matches!(Shelf::open(pool.path()).unwrap_err(), ShelfError::Newer { version: 2, .. }));
        fs::write(&path, &whole).unwrap();
        fs::rename(&path, path.with_file_name(format!("{}.json", MachineId::random()))).unwrap();
        assert!(matches!(Shelf::open(pool.path()).unwrap_err(), ShelfError::Damaged { .. }));
    }
}
