//! The second home: no credentials, only URLs that somebody else has signed, each for one object and one verb.
//!
//! ```text
//! agent ──verbs──▶ grantor (has the credentials)      names: everything that Ledger does
//!   └──PUT, GET──▶ store                              bytes: one URL for a small body, one for each part, one to read
//! ```
//!
//! That is how a fleet's agent works: the processor is its grantor. A URL is as good as a password: none of them is ever part
//! of a message.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService as _};
use object_store::{MultipartUpload, PutPayload, PutResult};

use super::error::{Result, StorageError};
use super::http::Transport;
use super::ledger::Ledger;
use super::patience::Patience;
use super::record::BodyId;
use super::settings::Retries;
use super::transfer::Bodies;

/// Who has the credentials. A URL is asked for when it is about to be used: it need not live long.
#[async_trait]
pub trait Grantor: Ledger {
    /// To PUT a whole body.
    async fn put_url(&self, id: BodyId) -> Result<String>;
    /// To GET a body, or ranges of it.
    async fn get_url(&self, id: BodyId) -> Result<String>;
    /// Begins an upload in parts; its id.
    async fn begin(&self, id: BodyId) -> Result<String>;
    /// To PUT a part; parts count from 0.
    async fn part_url(&self, id: BodyId, upload: &str, part: usize) -> Result<String>;
    /// Ends an upload. `tags`: what the store said of each part, in their order.
    async fn complete(&self, id: BodyId, upload: &str, tags: Vec<String>) -> Result<()>;
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
    pub fn new(grantor: Arc<dyn Grantor>, transport: Transport, retries: Retries) -> Self {
        Self { grantor, http: Arc::new(Urls { transport, retries }) }
    }
}

/// Why a request by URL failed. Holds no URL.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    #[error("the store answered {status}: {text}")]
    Status { status: u16, text: String },
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("{0}")]
    Grant(String),
    #[error("the store's answer has no {0}")]
    NoHeader(&'static str),
}

impl UrlError {
    /// Whether another attempt may go better. All our requests mean the same when made twice.
    fn is_passing(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Http(error) => !matches!(error.kind(), HttpErrorKind::Decode | HttpErrorKind::Unknown),
            Self::Grant(_) | Self::NoHeader(_) => false,
        }
    }

    pub fn into_store(self) -> object_store::Error {
        object_store::Error::Generic { store: "granted", source: Box::new(self) }
    }
}

/// Requests by URL, with retries.
pub struct Urls {
    pub transport: Transport,
    pub retries: Retries,
}

impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Urls").finish_non_exhaustive()
    }
}

impl Urls {
    /// PUTs `bytes`; `url` makes a fresh URL for each attempt. The store's tag of what it took.
    async fn put<F>(&self, bytes: PutPayload, url: impl Fn() -> F) -> Result<Option<String>, UrlError>
    where
        F: Future<Output = Result<String>>,
    {
        let mut patience = Patience::new(self.retries);
        loop {
            let attempt = async {
                let length = bytes.content_length().to_string();
                let request = request("PUT", &grant(url()).await?, ("content-length", &length), bytes.clone())?;
                let response = accepted(self.transport.call(request).await?).await?;
                Ok(response.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned))
            };
            match attempt.await {
                Err(error) if UrlError::is_passing(&error) && patience.wait().await => {}
                ended => return ended,
            }
        }
    }

    /// GETs all that there is.
    pub async fn get_whole<F>(&self, url: impl Fn() -> F) -> Result<Bytes, UrlError>
    where
        F: Future<Output = Result<String>>,
    {
        let mut patience = Patience::new(self.retries);
        loop {
            let attempt = async {
                let request = request("GET", &grant(url()).await?, ("accept", "*/*"), PutPayload::new())?;
                let response = accepted(self.transport.call(request).await?).await?;
                Ok(response.into_body().bytes().await?)
            };
            match attempt.await {
                Err(error) if UrlError::is_passing(&error) && patience.wait().await => {}
                ended => return ended,
            }
        }
    }

    /// GETs a range, each attempt from where the one before ended. `None`: there is no such object.
    async fn get<F>(&self, range: Range<u64>, url: impl Fn() -> F) -> Result<Option<Bytes>, UrlError>
    where
        F: Future<Output = Result<String>>,
    {
        let mut got = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        let mut patience = Patience::new(self.retries);
        loop {
            match self.get_more(&range, &mut got, &url).await {
                Ok(()) => return Ok(Some(got.into())),
                Err(UrlError::Status { status: 404, .. }) => return Ok(None),
                Err(error) if error.is_passing() && patience.wait().await => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn get_more<F>(&self, range: &Range<u64>, got: &mut Vec<u8>, url: impl Fn() -> F) -> Result<(), UrlError>
    where
        F: Future<Output = Result<String>>,
    {
        let from = range.start + got.len() as u64;
        if from >= range.end {
            return Ok(());
        }
        let bytes = format!("bytes={from}-{}", range.end - 1);
        let request = request("GET", &grant(url()).await?, ("range", &bytes), PutPayload::new())?;
        let response = accepted(self.transport.call(request).await?).await?;
        let starts = response.headers().get("content-range").and_then(|value| value.to_str().ok());
        if !starts.is_some_and(|starts| starts.starts_with(&format!("bytes {from}-"))) {
            return Err(UrlError::NoHeader("Content-Range that was asked for"));
        }
        let mut body = response.into_body().bytes_stream();
        while let Some(bytes) = body.try_next().await? {
            got.extend_from_slice(&bytes);
        }
        // A store that ends early without an error has a shorter object; the caller compares lengths.
        Ok(())
    }
}

async fn grant(url: impl Future<Output = Result<String>>) -> Result<String, UrlError> {
    url.await.map_err(|error| UrlError::Grant(error.to_string()))
}

fn request(verb: &str, url: &str, header: (&str, &str), body: PutPayload) -> Result<HttpRequest, UrlError> {
    let built = hyper::Request::builder().method(verb).uri(url).header(header.0, header.1).body(body.into());
    built.map_err(|_| UrlError::Grant("what was granted is no URL".into()))
}

async fn accepted(response: HttpResponse) -> Result<HttpResponse, UrlError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = response.into_body().bytes().await.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).chars().take(300).collect();
    Err(UrlError::Status { status: status.as_u16(), text })
}

#[async_trait]
impl Bodies for Granted {
    async fn put(&self, id: BodyId, bytes: Bytes) -> Result<()> {
        let put = self.http.put(bytes.into(), || self.grantor.put_url(id)).await;
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

/// An upload in parts, by one URL each.
#[derive(Debug)]
struct GrantedUpload {
    next: usize,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    id: BodyId,
    upload: String,
    home: Granted,
    /// By part.
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
            let url = || state.home.grantor.part_url(state.id, &state.upload, part);
            let tag = state.home.http.put(data, url).await.map_err(UrlError::into_store)?;
            state.tag(part, tag.ok_or(UrlError::NoHeader("ETag")).map_err(UrlError::into_store)?);
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
