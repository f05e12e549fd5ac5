//! The store's objects as output needs them.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use navvy_storage::{ObjectPath, Objects, StorageError, Stored, Verb};

use super::store::{Listed, SegmentStore, StoreError};

fn failed(verb: &'static str) -> impl FnOnce(StorageError) -> StoreError {
    move |error| StoreError { verb, source: Box::new(error) }
}

/// Paths are made of checked names alone: one that is none is a fault of ours.
fn path(text: &str) -> Result<ObjectPath, StoreError> {
    let none = || StoreError { verb: "name an object", source: format!("{text:?} is no path of the store").into() };
    ObjectPath::read(text).ok_or_else(none)
}

fn listed(stored: Stored) -> Listed {
    Listed { path: stored.path.to_string(), modified: stored.modified }
}

#[async_trait]
impl SegmentStore for Objects {
    async fn put_url(&self, path: &str, stored: u64) -> Result<String, StoreError> {
        self.url(&self::path(path)?, &Verb::Put { length: stored }).await.map_err(failed("sign a URL"))
    }

    async fn get(&self, path: &str, most: u64) -> Result<Option<Bytes>, StoreError> {
        Objects::get(self, &self::path(path)?, most).await.map_err(failed("read an object"))
    }

    async fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        Objects::size(self, &self::path(path)?).await.map_err(failed("look for an object"))
    }

    async fn remove(&self, path: &str) -> Result<(), StoreError> {
        Objects::remove(self, &self::path(path)?).await.map_err(failed("remove an object"))
    }

    fn list<'a>(&'a self, beneath: &'a str) -> BoxStream<'a, Result<Listed, StoreError>> {
        let listed = async move {
            match Objects::list(self, beneath).await.map_err(failed("list objects")) {
                Ok(objects) => objects.into_iter().map(|it| Ok(listed(it))).collect(),
                Err(error) => vec![Err(error)],
            }
        };
        stream::once(listed).flat_map(stream::iter).boxed()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Objects::now(self).await.map_err(failed("tell its time"))
    }
}
