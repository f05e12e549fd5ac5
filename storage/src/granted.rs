//! The second home: no credentials, only URLs that a grantor has signed, each for one object and one verb.
//!
//! ```text
//! agent ──verbs──▶ grantor (has the credentials)      names: everything that Ledger does
//!   └──PUT, GET──▶ store                              bytes: one URL for a small body, one for each part, one to read
//! ```
//!
//! That is how a fleet's agent works: the processor is its grantor. A URL is as good as a password, so no message ever
//! contains one.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use object_store::{MultipartUpload, PutPayload, PutResult};

use super::error::{Result, StorageError};
use super::http::Transport;
use super::ledger::Ledger;
use super::patience::Retries;
use super::record::BodyId;
use super::transfer::Bodies;
use super::urls::{UrlError, Urls};

/// A process that has the credentials. A URL is asked for when it is about to be used: it need not live long.
#[async_trait]
pub trait Grantor: Ledger {
    /// URL to PUT a whole body of this length.
    async fn put_url(&self, id: BodyId, length: u64) -> Result<String>;
    /// URL to GET a body, or a range.
    async fn get_url(&self, id: BodyId) -> Result<String>;
    /// Begins an upload in parts, and returns its id.
    async fn begin(&self, id: BodyId) -> Result<String>;
    /// URL to PUT a part of this length; parts count from 0.
    async fn part_url(&self, id: BodyId, upload: &str, part: u32, length: u64) -> Result<String>;
    /// Ends an upload. `tags`: what the store said of each part, in their order.
    async fn complete(&self, id: BodyId, upload: &str, tags: Vec<String>) -> Result<()>;
    /// Gives an upload up; its parts are removed.
    async fn abort(&self, id: BodyId, upload: &str) -> Result<()>;
    /// The store's name, for people.
    fn store_name(&self) -> &str;
}

/// A store's bodies, by URLs.
#[derive(Debug, Clone)]
pub struct Granted {
    grantor: Arc<dyn Grantor>,
    http: Arc<Urls>,
}

impl Granted {
    /// Asks `grantor` for every URL, and goes there by `transport`.
    pub fn new(grantor: Arc<dyn Grantor>, transport: Transport, retries: Retries) -> Self {
        Self { grantor, http: Arc::new(Urls { transport, retries }) }
    }
}

#[async_trait]
impl Bodies for Granted {
    async fn put(&self, id: BodyId, bytes: Bytes) -> Result<()> {
        let put = self.http.put(bytes.into(), |length| self.grantor.put_url(id, length)).await;
        put.map_err(|error| self.failed("upload", error))?;
        Ok(())
    }

    async fn begin(&self, id: BodyId) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.grantor.begin(id).await?;
        let state = State { id, upload, home: self.clone(), tags: Mutex::default() };
        Ok(Box::new(GrantedUpload { next: 0, state: Arc::new(state) }))
    }

    async fn tidy(&self, _: BodyId) -> Result<()> {
        // `Grantor::complete` did it.
        Ok(())
    }

    async fn range(&self, id: BodyId, range: Range<u64>) -> Result<Bytes> {
        let got = self.http.get(range.clone(), || self.grantor.get_url(id)).await;
        let got = got.map_err(|error| match error {
            // The range begins behind the end.
            UrlError::Status { status: 416, .. } => StorageError::TooShort { id, expected: range.end },
            error => self.failed("read a range", error),
        })?;
        got.ok_or_else(|| StorageError::Missing { store: self.grantor.store_name().to_owned(), id })
    }

    fn name(&self) -> &str {
        self.grantor.store_name()
    }
}

impl Granted {
    fn failed(&self, verb: &'static str, error: UrlError) -> StorageError {
        StorageError::of(self.grantor.store_name().to_owned(), verb, error.into_store())
    }
}

/// An object that is read piece by piece by granted URLs, whatever its length.
#[derive(Debug)]
pub struct GrantedReader {
    http: Urls,
    at: u64,
}

/// Bytes of one piece.
const PIECE: u64 = 8 << 20;

impl GrantedReader {
    /// From the object's first byte on.
    pub fn new(transport: Transport, retries: Retries) -> Self {
        Self { http: Urls { transport, retries }, at: 0 }
    }

    /// The next piece; `None` behind the last. `url` makes a fresh URL for each attempt.
    ///
    /// # Errors
    /// There is no such object, or it cannot be read, after all retries.
    pub async fn next<F>(&mut self, url: impl Fn() -> F) -> Result<Option<Bytes>>
    where
        F: Future<Output = Result<String>>,
    {
        let failed = |why: String| StorageError::Grant { verb: "read an object", why };
        let piece = match self.http.get(self.at..self.at + PIECE, url).await {
            Ok(Some(piece)) => piece,
            Ok(None) => return Err(failed("there is no such object".to_owned())),
            // It ends exactly here.
            Err(UrlError::Status { status: 416, .. }) => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        self.at += piece.len() as u64;
        Ok((!piece.is_empty()).then_some(piece))
    }
}

/// An upload in parts, by one URL each.
#[derive(Debug)]
struct GrantedUpload {
    next: u32,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    id: BodyId,
    upload: String,
    home: Granted,
    /// The store's tag of each part.
    tags: Mutex<Vec<String>>,
}

impl State {
    fn tag(&self, part: usize, tag: String) {
        let mut tags = self.tags.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if tags.len() <= part {
            tags.resize(part + 1, String::new());
        }
        tags[part] = tag;
    }
}

#[async_trait]
impl MultipartUpload for GrantedUpload {
    fn put_part(&mut self, data: PutPayload) -> BoxFuture<'static, object_store::Result<()>> {
        let part = self.next;
        self.next += 1;
        let state = self.state.clone();
        Box::pin(async move {
            let url = |length| state.home.grantor.part_url(state.id, &state.upload, part, length);
            let tag = state.home.http.put(data, url).await.map_err(UrlError::into_store)?;
            state.tag(part as usize, tag.ok_or(UrlError::NoHeader("ETag")).map_err(UrlError::into_store)?);
            Ok(())
        })
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let State { id, upload, home, tags } = &*self.state;
        let tags = std::mem::take(&mut *tags.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let completed = home.grantor.complete(*id, upload, tags).await;
        completed.map_err(|error| UrlError::Grant(error.to_string()).into_store())?;
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        let State { id, upload, home, .. } = &*self.state;
        let aborted = home.grantor.abort(*id, upload).await;
        aborted.map_err(|error| UrlError::Grant(error.to_string()).into_store())
    }
}
