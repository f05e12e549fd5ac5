//! What can go wrong, with what it concerns.

use std::io;

use crate::entry::Shown;

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("failed to write the archive")]
    Sink(#[source] io::Error),
    #[error("failed to start a thread")]
    Thread(#[source] io::Error),
    #[error("more than {} frames: the files are too large for one archive", crate::format::FRAMES_CAP)]
    TooLarge,
    #[error("a thread that packs has panicked")]
    Bug,
}

/// Why an archive could not be read, verified or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("failed to read the archive")]
    Source(#[source] io::Error),
    /// It is not what a packer wrote: cut, changed on its way, or made by somebody to do harm.
    #[error("the archive is broken: {what}, at byte {offset}")]
    Broken { what: String, offset: u64 },
    /// An entry that no archive may hold.
    #[error("the archive is broken: entry {}: {why}", Shown(path))]
    Entry { path: Vec<u8>, why: String },
    /// A digest does not fit the bytes.
    #[error("the archive is damaged: {what} does not match its digest")]
    Damaged { what: String },
    #[error("the archive holds more than {limit} {of}")]
    Quota { limit: u64, of: &'static str },
    #[error("failed to unpack {}: {what}", Shown(path))]
    Place { path: Vec<u8>, what: &'static str, source: io::Error },
    #[error("failed to start a thread")]
    Thread(#[source] io::Error),
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
