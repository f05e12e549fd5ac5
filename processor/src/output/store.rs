//! What output needs of the store: whole objects by path, nothing more.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

/// A store has failed that does not answer within this time.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why the store did not do what it was asked. Its text holds no URL.
#[derive(Debug, thiserror::Error)]
#[error("the store failed to {verb}")]
pub struct StoreError {
    /// What it was asked, in words.
    pub verb: &'static str,
    /// What it answered.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path from the store's root.
    pub path: String,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

/// A store of whole objects. Every path that it is given begins with `v1/log/` and is of our own making.
#[async_trait]
pub trait SegmentStore: fmt::Debug + Send + Sync {
    /// A URL where `stored` bytes may be PUT as this object, for some minutes.
    async fn put_url(&self, path: &str, stored: u64) -> Result<String, StoreError>;

    /// The object's bytes; `None`: there is none. One that is larger than `most` is an error, and is not read.
    async fn get(&self, path: &str, most: u64) -> Result<Option<Bytes>, StoreError>;

    /// The object's length; `None`: there is none.
    async fn size(&self, path: &str) -> Result<Option<u64>, StoreError>;

    /// Removes the object, if there is one.
    async fn remove(&self, path: &str) -> Result<(), StoreError>;

    /// All objects beneath a path, those of one directory after each other.
    fn list<'a>(&'a self, beneath: &'a str) -> BoxStream<'a, Result<Listed, StoreError>>;

    /// The store's own time.
    async fn now(&self) -> Result<Timestamp, StoreError>;
}

/// Waits for the store, but not for ever.
pub(super) async fn within<T>(
    verb: &'static str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(StoreError { verb, source: elapsed.into() }),
    }
}
