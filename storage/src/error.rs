//! What can go wrong between a step and its store.

use std::io;

use navvy_job::chain::chain;

use super::record::BodyId;

/// Why a verb failed. None of them names a credential.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// After all its retries.
    #[error("store {store}: failed to {verb}")]
    Store {
        store: String,
        verb: &'static str,
        #[source]
        source: object_store::Error,
    },
    /// S3 takes no request that is signed more than 15 minutes off.
    #[error(
        "store {store} refuses requests because its clock and this machine's differ{by}. Set this machine's clock, or the \
         store's"
    )]
    Clock { store: String, by: String },
    /// What was to be stored could not be read.
    #[error("failed to read what was to be stored")]
    Source(#[source] io::Error),
    #[error("body {id} is not in store {store}: it was removed, or an upload of it never ended")]
    Missing { store: String, id: BodyId },
    #[error("body {id} is not what was stored: SHA-256 {found} in place of {expected}")]
    WrongDigest { id: BodyId, expected: String, found: String },
    #[error("body {id} has {found} bytes in place of {expected}")]
    WrongSize { id: BodyId, expected: u64, found: u64 },
    #[error("body {id} has fewer than {expected} bytes")]
    TooShort { id: BodyId, expected: u64 },
    #[error("body is larger than {most} bytes, the most that {parts} parts hold")]
    TooLarge { most: u64, parts: u64 },
    #[error(
        "store {store} ignores conditional writes (If-None-Match): two writers of one key would both win, so nothing is \
         saved there. Use a store that honours them"
    )]
    IgnoresConditions { store: String },
    #[error("reservation {id} is {hours} h old: a sweep may have removed its body")]
    Expired { id: BodyId, hours: u64 },
    #[error("a key must have at least one character")]
    EmptyKey,
    #[error("object {path} in store {store} is not what this version writes: {why}")]
    Foreign { store: String, path: String, why: String },
    #[error("store {0}: its own path is too long, no key would have room beneath it")]
    NoRoom(String),
    #[error(transparent)]
    Transport(#[from] super::http::TransportError),
    /// A grantor said no, or could not be reached.
    #[error("failed to {verb}: {why}")]
    Grant { verb: &'static str, why: String },
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

    /// The body is gone or damaged: whoever wanted it has a miss, and [`super::Store::quarantine`] puts it aside.
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

/// Both times, where the store tells them: `: it is … there and … here`.
fn times(said: &str) -> String {
    let told = |name: &str| Some(said.split_once(&format!("<{name}>"))?.1.split_once('<')?.0.to_owned());
    match told("ServerTime").zip(told("RequestTime")) {
        Some((theirs, ours)) => format!(": it is {theirs} there and {ours} here"),
        None => String::new(),
    }
}

pub type Result<T, E = StorageError> = std::result::Result<T, E>;
