//! Every request to a store goes through here: whose certificates count, which proxy, and what "stalled" means.
//!
//! A connection that carries fewer bytes a second than [`Pace::floor`] over [`Pace::window`] is given up, whichever way the
//! bytes go; the caller tries again on a new one, a read from where it was.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;

/// Bodies are handed on in pieces of this size, so that one that is not taken is seen.
const PIECE: usize = 64 << 10;
/// Longest time to connect to a store.
const CONNECT: Duration = Duration::from_secs(10);

/// When a transfer counts as stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// A transfer is measured over this time.
    pub window: Duration,
    /// Bytes a second of one connection.
    pub floor: u64,
    /// Longest time from the last byte of a request to the first of its answer.
    pub answer: Duration,
}

impl Default for Pace {
    /// Four connections at the floor are half a megabit a second: a slower transfer is of no use.
    fn default() -> Self {
        Self { window: Duration::from_secs(10), floor: 16 << 10, answer: Duration::from_secs(120) }
    }
}

impl Pace {
    fn least(&self) -> u64 {
        (self.floor as f64 * self.window.as_secs_f64()) as u64
    }
}

/// Proxies, as the usual variables name them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// URL of the proxy for `http://`; `None` goes there directly.
    pub http: Option<String>,
    /// URL of the proxy for `https://`; `None` goes there directly.
    pub https: Option<String>,
    /// Hosts that are reached without a proxy, as `NO_PROXY` lists them.
    pub except: Option<String>,
}

impl Proxies {
    /// Reads a process's variables: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`.
    pub fn of(variables: &BTreeMap<String, String>) -> Self {
        // Small letters first, as everybody does it.
        let get = |name: &str| {
            let small = variables.get(&name.to_ascii_lowercase()).or_else(|| variables.get(name));
            small.filter(|value| !value.is_empty()).cloned()
        };
        let all = get("ALL_PROXY");
        Self { http: get("HTTP_PROXY").or(all.clone()), https: get("HTTPS_PROXY").or(all), except: get("NO_PROXY") }
    }
}

/// A proxy's URL may hold a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("except", &self.except)
            .finish()
    }
}

/// Why no connection to a store can be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The file with a further authority's certificate cannot be used.
    #[error("certificate file {path}: {why}", path = path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A variable that names a proxy holds something else.
    #[error("{0} is not the URL of a proxy")]
    Proxy(&'static str),
    /// The HTTP library refuses the settings; the text says why.
    #[error("failed to make an HTTP client: {0}")]
    Client(String),
}

/// A client that watches its transfers.
#[derive(Debug, Clone)]
pub struct Transport {
    client: reqwest::Client,
    pace: Pace,
}

impl Transport {
    /// `ca`: one more authority to trust, as a PEM file.
    ///
    /// # Errors
    /// A certificate or a proxy that cannot be read.
    pub fn new(ca: Option<&Path>, proxies: &Proxies, pace: Pace) -> Result<Self, TransportError> {
        Ok(Self { client: client(ca, proxies)?, pace })
    }

    async fn execute(&self, request: HttpRequest) -> Result<reqwest::Response, HttpError> {
        let (parts, body) = request.into_parts();
        let url =
            parts.uri.to_string().parse().map_err(|error| HttpError::new(HttpErrorKind::Unknown, Plain(error)))?;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        let progress = Arc::new(Progress::default());
        *request.body_mut() = Some(outgoing(body, &progress));
        let answered = self.client.execute(request);
        tokio::select! {
            answer = answered => answer.map_err(from_reqwest),
            stall = self.watch(&progress) => Err(stall),
        }
    }

    /// Ends when a request stalls.
    async fn watch(&self, progress: &Progress) -> HttpError {
        let mut before = 0;
        loop {
            let sending = !progress.all.load(Ordering::Relaxed);
            tokio::time::sleep(if sending { self.pace.window } else { self.pace.answer }).await;
            let now = progress.bytes.load(Ordering::Relaxed);
            if !sending {
                return stalled(format!("no answer within {:?}", self.pace.answer));
            }
            if now - before < self.pace.least() && !progress.all.load(Ordering::Relaxed) {
                return stalled(format!("took {} bytes in {:?}", now - before, self.pace.window));
            }
            before = now;
        }
    }
}

/// A client that trusts whom a [`Transport`] trusts, takes the same ways and follows no redirect, for other services than
/// stores: its user watches the transfers.
///
/// # Errors
/// A certificate or a proxy that cannot be read.
pub fn client(ca: Option<&Path>, proxies: &Proxies) -> Result<reqwest::Client, TransportError> {
    client_as(ca, None, proxies)
}

/// Files (PEM) by which a client says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and what stands between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The same for a service that wants to see a certificate.
///
/// # Errors
/// A certificate, a key or a proxy that cannot be read.
pub fn client_as(
    ca: Option<&Path>,
    identity: Option<&Identity>,
    proxies: &Proxies,
) -> Result<reqwest::Client, TransportError> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(ca, identity)?)
        .user_agent(concat!("navvy/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    for proxy in proxies_of(proxies)? {
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|source| TransportError::Client(source.without_url().to_string()))
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response: hyper::Response<reqwest::Body> = self.execute(request).await?.into();
        let (parts, body) = response.into_parts();
        // Its reader may poll again after the end.
        let frames = paced(body.into_data_stream(), self.pace).fuse().map(|bytes| bytes.map(Frame::data));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(StreamBody::new(frames))))
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// How far a request is.
#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    all: AtomicBool,
}

fn outgoing(body: HttpRequestBody, progress: &Arc<Progress>) -> reqwest::Body {
    let left = body.content_length() as u64;
    if left <= PIECE as u64 {
        progress.all.store(true, Ordering::Relaxed);
        if let Some(bytes) = body.as_bytes() {
            return bytes.clone().into();
        }
    }
    reqwest::Body::wrap(Outgoing { pieces: pieces(body), left, progress: progress.clone() })
}

/// A body's buffers, none above [`PIECE`]. Nothing is copied.
fn pieces(body: HttpRequestBody) -> VecDeque<Bytes> {
    let mut body = Box::pin(body);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut pieces = VecDeque::new();
    // It is in memory: it never waits.
    while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) {
        let Ok(mut bytes) = frame.into_data() else { continue };
        while !bytes.is_empty() {
            pieces.push_back(bytes.split_to(bytes.len().min(PIECE)));
        }
    }
    pieces
}

struct Outgoing {
    pieces: VecDeque<Bytes>,
    left: u64,
    progress: Arc<Progress>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Some(piece) = self.pieces.pop_front() else { return Poll::Ready(None) };
        self.left -= piece.len() as u64;
        self.progress.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        if self.left == 0 {
            self.progress.all.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Passes an answer's bytes on. Only time spent waiting for the store counts: a slow reader is not a stall.
fn paced<S>(body: S, pace: Pace) -> impl Stream<Item = Result<Bytes, HttpError>>
where
    S: Stream<Item = reqwest::Result<Bytes>> + Unpin,
{
    let state = (body, Duration::ZERO, 0_u64, false);
    futures_util::stream::unfold(state, move |(mut body, mut waited, mut moved, ended)| async move {
        if ended {
            return None;
        }
        loop {
            let since = Instant::now();
            let next = tokio::time::timeout(pace.window.saturating_sub(waited), body.next()).await;
            waited += since.elapsed();
            if let Ok(next) = &next {
                moved += next.as_ref().map_or(0, |bytes| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64));
            }
            if waited >= pace.window {
                if moved < pace.least() && !matches!(next, Ok(None)) {
                    let error = stalled(format!("gave {moved} bytes in {:?}", pace.window));
                    return Some((Err(error), (body, waited, moved, true)));
                }
                (waited, moved) = (Duration::ZERO, 0);
            }
            match next {
                Err(_) => {}
                Ok(None) => return None,
                Ok(Some(Ok(bytes))) => return Some((Ok(bytes), (body, waited, moved, false))),
                Ok(Some(Err(error))) => return Some((Err(from_reqwest(error)), (body, waited, moved, true))),
            }
        }
    })
}

fn stalled(what: String) -> HttpError {
    HttpError::new(HttpErrorKind::Timeout, Plain(format!("stalled: the store {what}")))
}

/// An error that is only text. Never a URL: those may carry a signature.
#[derive(Debug)]
struct Plain<T>(T);

impl<T: fmt::Display> fmt::Display for Plain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: fmt::Display + fmt::Debug> Error for Plain<T> {}

/// What kind of failure it is decides whether it is tried again.
fn from_reqwest(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else {
        sources(&error).find_map(kind_of_source).unwrap_or(HttpErrorKind::Interrupted)
    };
    HttpError::new(kind, error.without_url())
}

fn kind_of_source(source: &(dyn Error + 'static)) -> Option<HttpErrorKind> {
    if let Some(error) = source.downcast_ref::<hyper::Error>() {
        // The store closed a connection that had been kept for us: it has not seen this request.
        let unseen = error.is_closed() || error.is_incomplete_message() || error.is_canceled();
        return unseen.then_some(HttpErrorKind::Request);
    }
    source.downcast_ref::<std::io::Error>().map(|_| HttpErrorKind::Interrupted)
}

fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// The machine's certificates and the one that the settings name.
fn tls(ca: Option<&Path>, identity: Option<&Identity>) -> Result<ClientConfig, TransportError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let failed = |why: String| TransportError::Ca { path: path.to_owned(), why };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
        let mut added = 0;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            added += 1;
        }
        if added == 0 {
            return Err(failed("no certificate in it".into()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TransportError::Client(error.to_string()))?;
    let config = config.with_root_certificates(roots);
    let Some(Identity { certificate, key }) = identity else { return Ok(config.with_no_client_auth()) };
    let failed = |path: &Path, why: String| TransportError::Ca { path: path.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| failed(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(failed(certificate, "no certificate in it".into()));
    }
    // The library's text of an error never shows the key.
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, error.to_string()))?;
    config.with_client_auth_cert(chain, private).map_err(|error| failed(certificate, error.to_string()))
}

fn proxies_of(settings: &Proxies) -> Result<Vec<reqwest::Proxy>, TransportError> {
    let except = settings.except.as_deref().and_then(reqwest::NoProxy::from_string);
    let mut proxies = Vec::new();
    let mut add = |name, proxy: Option<reqwest::Result<reqwest::Proxy>>| {
        // The text of the error would show the URL, and with it a password.
        let proxy = proxy.transpose().map_err(|_| TransportError::Proxy(name))?;
        proxies.extend(proxy.map(|proxy| proxy.no_proxy(except.clone())));
        Ok(())
    };
    add("HTTP_PROXY", settings.http.as_deref().map(reqwest::Proxy::http))?;
    add("HTTPS_PROXY", settings.https.as_deref().map(reqwest::Proxy::https))?;
    Ok(proxies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_as_everybody_does_and_their_passwords_not_shown() {
        let proxies = |variables: &[(&str, &str)]| {
            Proxies::of(&variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
        };
        let proxy = "http://u:hunter2@p:1";
        let read =
            proxies(&[("HTTPS_PROXY", "http://x"), ("https_proxy", proxy), ("no_proxy", "a,b"), ("http_proxy", "")]);
        assert_eq!(
            (read.https.as_deref(), read.http.as_deref(), read.except.as_deref()),
            (Some(proxy), None, Some("a,b"))
        );
        assert!(!format!("{read:?}").contains("hunter2"));
        assert_eq!(proxies(&[("ALL_PROXY", proxy)]).http.as_deref(), Some(proxy));
        let broken = Proxies { http: Some("http://u:hunter2@:bad:port".into()), ..Proxies::default() };
        let error = Transport::new(None, &broken, Pace::default()).unwrap_err();
        assert!(error.to_string().contains("HTTP_PROXY") && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_certificate_file_that_holds_none_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let opened = || {
            let transport = Transport::new(Some(&path), &Proxies::default(), Pace::default());
            transport.map(drop).map_err(|error| error.to_string())
        };
        assert!(opened().unwrap_err().contains("ca.pem"));
        std::fs::write(&path, "no certificate").unwrap();
        assert!(opened().unwrap_err().contains("no certificate in it"));
    }
}
