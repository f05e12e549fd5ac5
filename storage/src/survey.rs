//! What lies in a store and one scope does not see: explains why nothing was found.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use navvy_job::claim::TrustScope;

use super::bucket::{Bucket, Object};
use super::error::Result;
use super::layout;
use super::record::{Quarantined, Record};
use super::seen::Seen;

const PARALLEL: usize = 16;

/// An entry that was put aside, and why. It is there until a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutAside {
    /// The entry's record.
    pub record: Record,
    /// Why it was put aside.
    pub why: String,
    /// When it was put aside, by the store's clock.
    pub at: Timestamp,
}

impl Bucket {
    /// The scopes in which this project has caches. Lists all caches of the store, and reads one of each namespace.
    ///
    /// # Errors
    /// The store's.
    pub async fn scopes(&self, project: &str) -> Result<Vec<TrustScope>> {
        let mut beneath: BTreeMap<String, Vec<Object>> = BTreeMap::new();
        for object in self.list("v1/cache/").await? {
            let namespace = object.path.split('/').nth(2).unwrap_or_default().to_owned();
            beneath.entry(namespace).or_default().push(object);
        }
        let records: Vec<Option<Record>> = futures_util::stream::iter(beneath.into_values())
            .map(|objects| self.first_record(objects))
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let of_project = records.into_iter().flatten().filter(|record| record.project == project);
        Ok(of_project.filter_map(|record| record.scope.parse().ok()).collect())
    }

    /// The first that can be read: one that is damaged must not hide all others.
    async fn first_record(&self, objects: Vec<Object>) -> Result<Option<Record>> {
        for object in objects {
            if let Seen::Entry(entry) = self.see(&object.path, Some(object.modified)).await? {
                return Ok(Some(entry.record));
            }
        }
        Ok(None)
    }

    /// This project's entries that were put aside.
    ///
    /// # Errors
    /// The store's.
    pub async fn put_aside(&self, project: &str) -> Result<Vec<PutAside>> {
        let objects = self.list(&format!("{}/", layout::QUARANTINE)).await?;
        let found = self.read_all::<Quarantined>(objects).await?.into_iter();
        // An entry whose index object could not be read does not say which project it belongs to.
        let aside =
            found.filter_map(|(Quarantined { why, record, .. }, at)| Some(PutAside { record: record?, why, at }));
        Ok(aside.filter(|aside| aside.record.project == project).collect())
    }

    /// What is gone, or not for this version to understand, is left out.
    async fn read_all<T: serde::de::DeserializeOwned>(&self, objects: Vec<Object>) -> Result<Vec<(T, Timestamp)>> {
        let read = async |object: Object| -> Result<Option<(T, Timestamp)>> {
            let Some((bytes, _)) = self.read(&object.path).await? else { return Ok(None) };
            Ok(serde_json::from_slice(&bytes).ok().map(|read| (read, object.modified)))
        };
        let reads: Vec<_> = objects.into_iter().map(read).collect();
        let read: Vec<Option<_>> = futures_util::stream::iter(reads).buffered(PARALLEL).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }
}
