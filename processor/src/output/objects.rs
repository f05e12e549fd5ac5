//! The store's objects as output needs them.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use navvy_storage::{ObjectPath, Objects, StorageError, Verb};

use super::store::{Listed, SegmentStore, StoreError};

fn failed(verb: &'static str) -> impl FnOnce(StorageError) -> StoreError {
    move |error| StoreError { verb, source: Box::new(error) }
}

/// Paths are made of checked names alone: one that is none is a fault of ours.
fn path(text: &str) -> Result<ObjectPath, StoreError> {
    let none = || StoreError { verb: "name an object", source: format!("{text:?} is no path of the store").into() };
    ObjectPath::read(text).ok_or_else(none)
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
            let now = SegmentStore::now(self).await;
            let (now, objects) = match (now, Objects::list(self, beneath).await.map_err(failed("list objects"))) {
                (Ok(now), Ok(objects)) => (now, objects),
                (Err(error), _) | (_, Err(error)) => return vec![Err(error)],
            };
            let modified = |age| now.checked_sub(jiff::SignedDuration::try_from(age).unwrap_or_default()).unwrap_or(now);
            objects.into_iter().map(|it| Ok(Listed { path: it.path.to_string(), modified: modified(it.age) })).collect()
        };
        stream::once(listed).flat_map(stream::iter).boxed()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Objects::now(self).await.map_err(failed("tell its time"))
    }
}
