//! A store that cannot sign, served by URLs of our own (`sign`).
//!
//! ```text
//! PUT  whole or part   as long as the URL says, Content-Length needed   all of it is stored, or nothing
//! GET  whole or range  `Range: bytes=A-B`                              pieces, as they are taken
//! ```
//!
//! The path is compared as it was sent and never decoded. What is not signed by us, for this object and verb, and lately, is
//! answered with 403, whatever is wrong with it: who guesses learns nothing.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::any;
use futures_util::{Stream, StreamExt as _};
use navvy_job::chain::chain;
use navvy_storage::{ObjectPath, Objects, StorageError, Verb};
use tokio::time::Instant;

use super::UrlKey;

/// Who sends fewer bytes than this in this time is given up, and tries again: half a KiB a second, as slow as an agent is with a
/// small object. With larger ones agents are stricter.
const WINDOW: Duration = Duration::from_secs(30);
const FLOOR: usize = 16 << 10;

/// Serves `/store/…` for URLs of `key`.
pub fn router(objects: Objects, key: Arc<UrlKey>) -> Router {
    Router::new().route("/store/{*object}", any(serve)).with_state((objects, key))
}

async fn serve(State((objects, key)): State<(Objects, Arc<UrlKey>)>, request: Request) -> Response<Body> {
    let uri = request.uri();
    let path = uri.path().strip_prefix("/store/").unwrap_or_default();
    let Some((path, verb)) = key.read(request.method(), path, uri.query()) else {
        return refused(StatusCode::FORBIDDEN, "this URL is not good, or not any more: ask for another one");
    };
    match verb {
        Verb::Get => get(&objects, &path, request.headers()).await,
        Verb::Put { length } | Verb::Part { length, .. } => put(&objects, &path, &verb, length, request).await,
    }
}

fn refused(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{why}\n")));
    *response.status_mut() = status;
    response
}

fn failed(error: &StorageError) -> Response<Body> {
    let status = match error {
        StorageError::NoUpload { .. } => StatusCode::NOT_FOUND,
        StorageError::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        StorageError::Length { .. } => StatusCode::BAD_REQUEST,
        // The sender broke off, or was too slow: it may come again.
        StorageError::Source(_) => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let why = chain(error);
    if status.is_server_error() {
        tracing::error!("{why}.");
    }
    refused(status, &why)
}

async fn put(objects: &Objects, path: &ObjectPath, verb: &Verb, length: u64, request: Request) -> Response<Body> {
    let said = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match said {
        None => return refused(StatusCode::LENGTH_REQUIRED, "a Content-Length is needed"),
        Some(said) if said > length => {
            return refused(StatusCode::PAYLOAD_TOO_LARGE, "this URL is for fewer bytes");
        }
        Some(said) if said < length => return refused(StatusCode::BAD_REQUEST, "this URL is for more bytes"),
        Some(_) => {}
    }
    let body = request.into_body().into_data_stream().map(|bytes| bytes.map_err(io::Error::other));
    match objects.receive(path, verb, paced(body)).await {
        Ok(tag) => {
            let response = Response::builder().header(ETAG, tag).body(Body::empty());
            response.unwrap_or_else(|_| refused(StatusCode::INTERNAL_SERVER_ERROR, "the store gave a tag that is none"))
        }
        Err(error) => failed(&error),
    }
}

/// Passes a body on. One that hardly moves ends with an error.
fn paced<S>(body: S) -> impl Stream<Item = io::Result<Bytes>> + Send
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
{
    let state = (body, Instant::now() + WINDOW, 0);
    futures_util::stream::try_unfold(state, |(mut body, mut until, mut moved)| async move {
        if Instant::now() >= until {
            if moved < FLOOR {
                return Err(io::ErrorKind::TimedOut.into());
            }
            (until, moved) = (Instant::now() + WINDOW, 0);
        }
        match tokio::time::timeout_at(until, body.next()).await {
            Err(_) if moved < FLOOR => Err(io::ErrorKind::TimedOut.into()),
            // Enough for this window; the next one begins.
            Err(_) => Ok(Some((Bytes::new(), (body, Instant::now() + WINDOW, 0)))),
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => {
                let bytes = bytes?;
                moved += bytes.len();
                Ok(Some((bytes, (body, until, moved))))
            }
        }
    })
}

async fn get(objects: &Objects, path: &ObjectPath, headers: &HeaderMap) -> Response<Body> {
    let range = match headers.get(RANGE).map(|value| value.to_str().ok().and_then(range)) {
        Some(None) => return refused(StatusCode::BAD_REQUEST, "only `Range: bytes=FIRST-LAST` is known here"),
        range => range.flatten(),
    };
    let partly = range.is_some();
    let sent = match objects.send(path, range).await {
        Ok(Some(sent)) => sent,
        Ok(None) => return refused(StatusCode::NOT_FOUND, "there is no such object"),
        Err(StorageError::Range { size }) => {
            let mut response = refused(StatusCode::RANGE_NOT_SATISFIABLE, "the range begins behind the end");
            if let Ok(value) = format!("bytes */{size}").parse() {
                response.headers_mut().insert(CONTENT_RANGE, value);
            }
            return response;
        }
        Err(error) => return failed(&error),
    };
    let (range, size) = (sent.range.clone(), sent.size);
    let mut response = Response::builder()
        .header(CONTENT_LENGTH, range.end - range.start)
        .header(ACCEPT_RANGES, "bytes")
        // What a job has written is nothing for a browser to interpret, or for a proxy to keep.
        .header(CONTENT_TYPE, "application/octet-stream")
        .header("x-content-type-options", "nosniff")
        .header(CACHE_CONTROL, "no-store");
    if partly {
        let span = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        response = response.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, span);
    }
    let response = response.body(Body::from_stream(sent.bytes));
    response.unwrap_or_else(|_| refused(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made"))
}

/// `bytes=FIRST-LAST` or `bytes=FIRST-`, one range.
fn range(text: &str) -> Option<Range<u64>> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let first = number(first)?;
    let end = if last.is_empty() { u64::MAX } else { number(last)?.checked_add(1)? };
    (first < end).then_some(first..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_understood() {
        assert_eq!(range("bytes=0-0"), Some(0..1));
        assert_eq!(range("bytes=5-9"), Some(5..10));
        assert_eq!(range("bytes=5-"), Some(5..u64::MAX));
        for bad in [
            "",
            "bytes=",
            "bytes=-5",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "bytes=+1-2",
            "bytes=0-18446744073709551615",
            "b=1-2",
        ] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_hardly_anything_is_given_up_and_who_is_slow_is_not() {
        let trickle = |bytes: usize| {
            futures_util::stream::repeat(()).then(move |()| async move {
                tokio::time::sleep(Duration::from_secs(10)).await;
                Ok(Bytes::from(vec![0; bytes]))
            })
        };
        let begun = Instant::now();
        let mut nothing = Box::pin(paced(Box::pin(trickle(10))));
        let ended = loop {
            if let Err(error) = nothing.next().await.unwrap() {
                break error;
            }
        };
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() <= WINDOW + Duration::from_secs(10));
        let slow = Box::pin(paced(Box::pin(trickle(FLOOR)))).take(100).collect::<Vec<_>>().await;
        assert!(slow.iter().all(Result::is_ok));
    }
}
