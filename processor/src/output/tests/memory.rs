//! A store in memory, that can be made to fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::super::store::{Listed, SegmentStore, StoreError};

#[derive(Debug, Default)]
pub struct Memory {
    objects: Mutex<BTreeMap<String, (Bytes, Timestamp)>>,
    clock: Mutex<Timestamp>,
    /// So many calls fail from now on.
    pub failing: AtomicU32,
    /// So many removals fail from now on.
    pub failing_removals: AtomicU32,
    /// Objects that were read.
    pub gets: AtomicU64,
    /// Whoever wants to read takes one, where there is such a bound.
    held: Mutex<Option<Arc<Semaphore>>>,
}

impl Memory {
    /// What an agent does with a URL.
    pub fn put(&self, url: &str, object: Vec<u8>) {
        let path = url.strip_prefix("memory:").unwrap().to_owned();
        self.objects.lock().unwrap().insert(path, (object.into(), *self.clock.lock().unwrap()));
    }

    pub fn paths(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    pub fn change(&self, path: &str, change: impl FnOnce(Bytes) -> Bytes) {
        let mut objects = self.objects.lock().unwrap();
        let (bytes, _) = objects.get_mut(path).unwrap();
        *bytes = change(bytes.clone());
    }

    pub fn set_clock(&self, now: Timestamp) {
        *self.clock.lock().unwrap() = now;
    }

    /// After so many more objects, reading waits.
    pub fn hold_after(&self, gets: usize) {
        *self.held.lock().unwrap() = Some(Arc::new(Semaphore::new(gets)));
    }

    pub fn let_go(&self) {
        *self.held.lock().unwrap() = None;
    }

    fn fail(&self) -> Result<(), StoreError> {
        fail(&self.failing)
    }
}

fn fail(left: &AtomicU32) -> Result<(), StoreError> {
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
        Ok(_) => Err(StoreError { verb: "do anything", source: "503 as the test wants it".into() }),
        Err(_) => Ok(()),
    }
}

#[async_trait]
impl SegmentStore for Memory {
    async fn put_url(&self, path: &str, _: u64) -> Result<String, StoreError> {
        self.fail()?;
        Ok(format!("memory:{path}"))
    }

    async fn get(&self, path: &str, most: u64) -> Result<Option<Bytes>, StoreError> {
        self.fail()?;
        let held = self.held.lock().unwrap().clone();
        if let Some(held) = held {
            held.acquire().await.unwrap().forget();
        }
        self.gets.fetch_add(1, Ordering::SeqCst);
        let bytes = self.objects.lock().unwrap().get(path).map(|(bytes, _)| bytes.clone());
        match bytes {
            Some(bytes) if bytes.len() as u64 > most => {
                Err(StoreError { verb: "get an object", source: "it is too large".into() })
            }
            bytes => Ok(bytes),
        }
    }

    async fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        self.fail()?;
        Ok(self.objects.lock().unwrap().get(path).map(|(bytes, _)| bytes.len() as u64))
    }

    async fn remove(&self, path: &str) -> Result<(), StoreError> {
        fail(&self.failing_removals)?;
        self.objects.lock().unwrap().remove(path);
        Ok(())
    }

    fn list<'a>(&'a self, beneath: &'a str) -> BoxStream<'a, Result<Listed, StoreError>> {
        let objects = self.objects.lock().unwrap();
        let listed = objects.iter().filter(|(path, _)| path.starts_with(beneath));
        let listed = listed.map(|(path, (_, modified))| Ok(Listed { path: path.clone(), modified: *modified }));
        let listed: Vec<_> = listed.collect();
        futures_util::stream::iter(listed).boxed()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.fail()?;
        Ok(*self.clock.lock().unwrap())
    }
}
