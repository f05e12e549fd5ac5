//! Requests by URL, tried again as often as makes sense.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::PutPayload;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService as _};

use super::error::Result;
use super::http::Transport;
use super::patience::{Patience, Retries};

/// Fresh URLs that are asked for after a refusal.
const MOST_REFUSALS: u32 = 2;

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

    /// A URL may have expired on its way, or its signer's key have gone with its process: a fresh one is asked for, and that
    /// settles whether it is refused.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Status { status: 403, .. })
    }

    pub fn into_store(self) -> object_store::Error {
        object_store::Error::Generic { store: "granted", source: Box::new(self) }
    }
}

/// The retries of one request by URL.
struct Attempts {
    patience: Patience,
    refusals: u32,
}

impl Attempts {
    fn new(retries: Retries) -> Self {
        Self { patience: Patience::new(retries), refusals: 0 }
    }

    /// Waits before the next attempt. `false`: there shall be none.
    async fn go_on_after(&mut self, error: &UrlError) -> bool {
        self.refusals += u32::from(error.is_refusal());
        let may_pass = error.is_passing() || (error.is_refusal() && self.refusals <= MOST_REFUSALS);
        may_pass && self.patience.wait().await
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
    /// PUTs `bytes`; `url` makes a fresh URL, for so many bytes, for each attempt. The store's tag of what it took.
    pub async fn put<F>(&self, bytes: PutPayload, url: impl Fn(u64) -> F) -> Result<Option<String>, UrlError>
    where
        F: Future<Output = Result<String>>,
    {
        let mut attempts = Attempts::new(self.retries);
        loop {
            let attempt = async {
                let length = bytes.content_length();
                let url = grant(url(length as u64)).await?;
                let request = request("PUT", &url, ("content-length", &length.to_string()), bytes.clone())?;
                let response = accepted(self.transport.call(request).await?).await?;
                Ok(response.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned))
            };
            match attempt.await {
                Err(error) if attempts.go_on_after(&error).await => {}
                ended => return ended,
            }
        }
    }

    /// GETs all that there is.
    pub async fn get_whole<F>(&self, url: impl Fn() -> F) -> Result<Bytes, UrlError>
    where
        F: Future<Output = Result<String>>,
    {
        let mut attempts = Attempts::new(self.retries);
        loop {
            let attempt = async {
                let request = request("GET", &grant(url()).await?, ("accept", "*/*"), PutPayload::new())?;
                let response = accepted(self.transport.call(request).await?).await?;
                Ok(response.into_body().bytes().await?)
            };
            match attempt.await {
                Err(error) if attempts.go_on_after(&error).await => {}
                ended => return ended,
            }
        }
    }

    /// GETs a range, each attempt from where the one before ended. `None`: there is no such object.
    pub async fn get<F>(&self, range: Range<u64>, url: impl Fn() -> F) -> Result<Option<Bytes>, UrlError>
    where
        F: Future<Output = Result<String>>,
    {
        let mut got = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        let mut attempts = Attempts::new(self.retries);
        loop {
            match self.get_more(&range, &mut got, &url).await {
                Ok(()) => return Ok(Some(got.into())),
                Err(UrlError::Status { status: 404, .. }) => return Ok(None),
                Err(error) if attempts.go_on_after(&error).await => {}
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
    built.map_err(|_| UrlError::Grant("the granted address is not a URL".into()))
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
