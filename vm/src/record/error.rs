//! Why a record could not be kept or read.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Planned;
use crate::state::State;

/// Why a record could not be kept or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordError {
    /// An entry could not be made safe on disk.
    #[error("could not write the record of a machine, {path}; is the disk full?", path = path.display())]
    Write {
        /// The record.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// Which records there are could not be read.
    #[error("could not list the records of machines in {path}", path = path.display())]
    List {
        /// Their directory.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// Its bytes could not be read.
    #[error("could not read the record of a machine, {path}", path = path.display())]
    Read {
        /// The record.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// It is not as it was written, so its machine cannot be judged.
    #[error("the record of a machine, {path}, is damaged from byte {at} on", path = path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// Where the damage begins, in bytes.
        at: u64,
    },
    /// It was written by a newer version.
    #[error(
        "the record of a machine, {path}, was written by a newer version of Navvy (version {version}, this one reads {known}): use \
         that one",
        path = path.display(),
        known = Planned::VERSION
    )]
    Newer {
        /// The record.
        path: PathBuf,
        /// Version in the record.
        version: u32,
    },
    /// Its maker ended before the first entry was on disk: nothing of the machine was made.
    #[error("the record of a machine, {path}, has no first entry", path = path.display())]
    Empty {
        /// The record.
        path: PathBuf,
    },
    /// Its lock is held.
    #[error("another process looks after the machine of {path}", path = path.display())]
    Busy {
        /// The record.
        path: PathBuf,
    },
    /// A move that the table of states does not have.
    #[error("the machine of {path} cannot go from {from:?} to {to:?}", path = path.display())]
    Move {
        /// The record.
        path: PathBuf,
        /// Where it stands.
        from: State,
        /// Where it was to go.
        to: State,
    },
}
