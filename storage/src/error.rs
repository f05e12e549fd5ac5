//! What can go wrong between a step and its store.

use std::io;

use navvy_job::chain::chain;

use super::record::BodyId;

/// Why a verb failed. None of them names a credential.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The store failed, after all retries.
    #[error("store {store}: failed to {verb}")]
    Store {
        /// The store, for people.
        store: String,
        /// What was asked of it, in words.
        verb: &'static str,
        /// Its last answer.
        #[source]
        source: object_store::Error,
    },
    /// S3 takes no request that is signed more than 15 minutes off.
    #[error(
        "store {store} refuses requests because its clock and this machine's differ{by}. Set this machine's clock, or the \
         store's"
    )]
    Clock {
        /// The store, for people.
        store: String,
        /// Both times, if the store gave them, else empty.
        by: String,
    },
    /// What was to be stored could not be read.
    #[error("failed to read what was to be stored")]
    Source(#[source] io::Error),
    /// The index names a body that the store does not have.
    #[error("body {id} is not in store {store}: it was removed, or its upload never ended")]
    Missing {
        /// The store, for people.
        store: String,
        /// The body.
        id: BodyId,
    },
    /// The body has the right length and other bytes.
    #[error("body {id} is not what was stored: SHA-256 {found} in place of {expected}")]
    WrongDigest {
        /// The body.
        id: BodyId,
        /// SHA-256 by its entry, in hexadecimal.
        expected: String,
        /// SHA-256 of what was read, in hexadecimal.
        found: String,
    },
    /// The body has another length than its entry says.
    #[error("body {id} has {found} bytes in place of {expected}")]
    WrongSize {
        /// The body.
        id: BodyId,
        /// Bytes that its entry or the request names.
        expected: u64,
        /// Bytes in the store.
        found: u64,
    },
    /// The body ends before the range that was asked for.
    #[error("body {id} has fewer than {expected} bytes")]
    TooShort {
        /// The body.
        id: BodyId,
        /// Bytes up to the end of that range.
        expected: u64,
    },
    /// The upload was stopped because no store takes so much.
    #[error("body is larger than {most} bytes, the most that {parts} parts hold")]
    TooLarge {
        /// Largest body, in bytes.
        most: u64,
        /// Number of parts that an upload may have.
        parts: u64,
    },
    /// Nothing can be committed: it would not be known who was first.
    #[error(
        "store {store} ignores conditional writes (If-None-Match): two writers of one key would both win, so nothing is \
         saved there. Use a store that honours them"
    )]
    IgnoresConditions {
        /// The store, for people.
        store: String,
    },
    /// The reservation is too old to be committed.
    #[error("reservation {id} is {hours} h old: a sweep may have removed its body")]
    Expired {
        /// The body that was reserved.
        id: BodyId,
        /// Age of the reservation.
        hours: u64,
    },
    /// A cache was to be saved or looked for without a key.
    #[error("a key must have at least one character")]
    EmptyKey,
    /// An object of the index cannot be believed.
    #[error("object {path} in store {store} is not what this version writes: {why}")]
    Foreign {
        /// The store, for people.
        store: String,
        /// The object, from the store's root.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store's directory leaves too little room for a file's path; the text is the directory.
    #[error("store {0}: its own path is too long, no key would have room beneath it")]
    NoRoom(String),
    /// An object is larger than whoever reads or writes it may take.
    #[error("object {path} is larger than {most} bytes, the most that is taken")]
    TooLong {
        /// The object, from the store's root.
        path: String,
        /// Bytes.
        most: u64,
    },
    /// A request carries another number of bytes than it was granted for.
    #[error("the request has {found} bytes (or more) in place of the {expected} that it was granted for")]
    Length {
        /// Bytes that were granted.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// A range begins behind the object's end.
    #[error("the object has {size} bytes, and the range begins behind them")]
    Range {
        /// Bytes of the object.
        size: u64,
    },
    /// A part or the end of an upload that is not open.
    #[error("no upload to {path} is open: it has ended, or was given up")]
    NoUpload {
        /// The object, from the store's root.
        path: String,
    },
    /// Another call is at it, whose answer was not waited for.
    #[error("the parts of {path} are being joined; ask again")]
    Busy {
        /// The object, from the store's root.
        path: String,
    },
    /// This kind of store cannot take an upload in parts from somebody without its credentials.
    #[error("store {store} takes no uploads in parts by URLs")]
    TakesNoParts {
        /// The store, for people.
        store: String,
    },
    /// No connection to the store can be made.
    #[error(transparent)]
    Transport(#[from] super::http::TransportError),
    /// A grantor refused, or could not be reached.
    #[error("failed to {verb}: {why}")]
    Grant {
        /// What was asked of it, in words.
        verb: &'static str,
        /// Its reason.
        why: String,
    },
}

impl StorageError {
    /// What a store's own error means.
    pub(super) fn of(store: String, verb: &'static str, source: object_store::Error) -> Self {
        let said = chain(&source);
        match said.contains("<Code>RequestTimeTooSkewed</Code>") {
            true => Self::Clock { store, by: times(&said) },
            false => Self::Store { store, verb, source },
        }
    }

    /// The body is gone or damaged: for its reader that is a miss, and [`super::Store::quarantine`] puts the entry aside.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::WrongDigest { .. } | Self::WrongSize { .. } | Self::TooShort { .. })
    }

    /// Trying again changes nothing.
    pub(super) fn is_final(&self) -> bool {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        match self {
            Self::Store { source, .. } => matches!(source, PermissionDenied { .. } | Unauthenticated { .. }),
            _ => true,
        }
    }
}

/// Both times, where the store names them: `: it is … there and … here`.
fn times(said: &str) -> String {
    let named = |name: &str| Some(said.split_once(&format!("<{name}>"))?.1.split_once('<')?.0.to_owned());
    match named("ServerTime").zip(named("RequestTime")) {
        Some((theirs, ours)) => format!(": it is {theirs} there and {ours} here"),
        None => String::new(),
    }
}

/// Result of a store's verb.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;
