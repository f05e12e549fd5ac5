//! What can go wrong, with what it concerns.

use std::io;

use crate::entry::Shown;

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The receiver of the archive's bytes refused them.
    #[error("failed to write the archive")]
    Sink(#[source] io::Error),
    /// The system has no room for a thread.
    #[error("failed to start a thread")]
    Thread(#[source] io::Error),
    /// The archive would have more frames than the format allows.
    #[error("more than {} frames: the files are too large for one archive", crate::format::FRAMES_CAP)]
    TooLarge,
    /// A mistake in this crate.
    #[error("a thread that packs has panicked")]
    Bug,
}

/// Why an archive could not be read, verified or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source of the archive's bytes failed.
    #[error("failed to read the archive")]
    Source(#[source] io::Error),
    /// The archive is not what a packer wrote: it was cut, changed on its way, or made to do harm.
    #[error("the archive is broken: {what}, at byte {offset}")]
    Broken {
        /// What is wrong.
        what: String,
        /// Where, in the archive's bytes.
        offset: u64,
    },
    /// An entry that no archive may hold.
    #[error("the archive is broken: entry {}: {why}", Shown(path))]
    Entry {
        /// Path of the entry.
        path: Vec<u8>,
        /// What is wrong with it.
        why: String,
    },
    /// A digest does not fit the bytes.
    #[error("the archive is damaged: {what} does not match its digest")]
    Damaged {
        /// Part of the archive, in words.
        what: String,
    },
    /// The archive is larger than the caller allows.
    #[error("the archive holds more than {limit} {of}")]
    Quota {
        /// So many are allowed.
        limit: u64,
        /// What is counted: `bytes` or `entries`.
        of: &'static str,
    },
    /// A file could not be made, written or changed.
    #[error("failed to unpack {}: {what}", Shown(path))]
    Place {
        /// Path of its entry.
        path: Vec<u8>,
        /// What was tried, in words.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The system has no room for a thread.
    #[error("failed to start a thread")]
    Thread(#[source] io::Error),
    /// A mistake in this crate.
    #[error("a thread that unpacks has panicked")]
    Bug,
}

impl ReadError {
    pub(crate) fn entry(path: &[u8], why: impl Into<String>) -> Self {
        Self::Entry { path: path.to_vec(), why: why.into() }
    }

    pub(crate) fn place(path: &[u8], what: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Place { path: path.to_vec(), what, source: source.into() }
    }
}
