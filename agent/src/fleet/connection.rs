//! The way to a processor: one connection, made when it is needed and again whenever it broke.
//!
//! ```text
//! Address (flags) ─▶ Processor (channel) ─▶ Session (channel + a task's token) ─▶ calls, each with its deadline
//! ```
//!
//! No error holds a token.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_protocol::processor::v1::agents_client::AgentsClient;
use navvy_protocol::processor::{CALL_DEADLINE, KEEP_ALIVE, MAX_MESSAGE, PORT};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

/// To a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// A connection that does not answer a ping for so long is broken.
const PING_ANSWER: Duration = Duration::from_secs(10);
/// A certificate or a key is never larger.
const MAX_PEM: u64 = 1 << 20;

/// Where a processor is, and who vouches for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// `https://HOST:PORT`, or `http://…`.
    pub url: String,
    /// `http://` is allowed to other hosts than this one, too.
    pub plaintext: bool,
    /// File of certificates that vouch for the processor in place of the system's.
    pub ca: Option<PathBuf>,
    /// Files of the certificate and the key by which the processor knows us.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why there is no way to a processor.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("{url:?} is not the address of a processor: {why}; write https://HOST:{PORT}")]
    Address { url: String, why: &'static str },
    #[error(
        "{url} would carry the task's secrets in plain text: use https://, or allow it with --plaintext on a network that you trust"
    )]
    Plaintext { url: String },
    #[error("failed to read {what} {path}", path = path.display())]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the token is not one: it has characters that no token has")]
    Token,
    #[error("failed to set up TLS for {url}; --ca, --cert and --key name PEM files")]
    Tls { url: String, source: tonic::transport::Error },
}

/// A processor. Cheap to clone; clones share a connection.
#[derive(Debug, Clone)]
pub struct Processor {
    channel: Channel,
    url: String,
}

/// A processor, in the name of one task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Session {
    pub processor: Processor,
    pub bearer: Bearer,
}

/// Calls in the name of one token.
pub type Agents = AgentsClient<InterceptedService<Channel, Bearer>>;

/// A token, put before each call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

/// Why a call was not answered as it should be, in words, with the processor's address.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the processor at {url} {what}")]
pub struct CallError {
    pub url: String,
    pub what: String,
    pub code: Code,
}

impl Address {
    /// # Errors
    /// It leads to no processor, or not as safely as it must.
    fn endpoint(&self) -> Result<Endpoint, ConnectionError> {
        let wrong = |why| ConnectionError::Address { url: shown(&self.url), why };
        let endpoint = Endpoint::from_shared(self.url.clone()).map_err(|_| wrong("it is no URL"))?;
        let uri = endpoint.uri();
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err(wrong("nothing may stand behind the port"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("a name or a password does not belong there: tokens come from a file"));
        }
        match uri.scheme_str() {
            Some("https") => self.with_tls(endpoint),
            Some("http") if self.plaintext || is_loopback(host) => Ok(endpoint),
            Some("http") => Err(ConnectionError::Plaintext { url: self.url.clone() }),
            _ => Err(wrong("it begins with neither https:// nor http://")),
        }
    }

    fn with_tls(&self, endpoint: Endpoint) -> Result<Endpoint, ConnectionError> {
        let mut tls = ClientTlsConfig::new().timeout(CONNECT);
        match &self.ca {
            Some(ca) => tls = tls.ca_certificate(Certificate::from_pem(pem("the certificate", ca)?)),
            None => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                tls = tls.trust_anchors(roots.roots);
            }
        }
        if let Some((certificate, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(pem("the certificate", certificate)?, pem("the key", key)?));
        }
        endpoint.tls_config(tls).map_err(|source| ConnectionError::Tls { url: self.url.clone(), source })
    }
}

impl Processor {
    /// Connects with the first call. Within a Tokio runtime only.
    ///
    /// # Errors
    /// The address leads to no processor, or a file that it names cannot be read.
    pub fn new(address: &Address) -> Result<Self, ConnectionError> {
        let endpoint = address.endpoint()?;
        let channel = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(PING_ANSWER)
            .keep_alive_while_idle(true)
            .connect_lazy();
        Ok(Self { channel, url: address.url.trim_end_matches('/').to_owned() })
    }

    /// Its address, as it was named.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The connection, for services beside `Agents`.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Calls in the name of `token`.
    pub fn agents(&self, token: &Bearer) -> Agents {
        AgentsClient::with_interceptor(self.channel.clone(), token.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// What a status means, for people.
    pub fn explain(&self, status: &Status) -> CallError {
        CallError { url: self.url.clone(), what: in_words(status), code: status.code() }
    }
}

impl Session {
    pub fn agents(&self) -> Agents {
        self.processor.agents(&self.bearer)
    }
}

impl Bearer {
    /// As metadata has it. It is marked as one that is not shown.
    pub fn value(&self) -> MetadataValue<Ascii> {
        self.0.clone()
    }

    /// # Errors
    /// It has characters that no token has.
    pub fn new(token: &str) -> Result<Self, ConnectionError> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| ConnectionError::Token)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer")
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A call that is answered within `limit`, or has failed.
pub async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answered) => answered,
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs()))),
    }
}

/// The same within the time that every unary call has.
pub async fn unary<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    within(CALL_DEADLINE, call).await.map(tonic::Response::into_inner)
}

/// Might the same call go well in a moment? Only what says that the call itself is wrong is final.
pub fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unknown
            | Code::Cancelled
    )
}

/// Is the task no longer ours? Its token dies with it.
pub fn is_loss(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::Unauthenticated | Code::PermissionDenied)
}

fn in_words(status: &Status) -> String {
    let said: String = status.message().chars().filter(|c| !c.is_control()).take(300).collect();
    match status.code() {
        Code::Unavailable => {
            format!("cannot be reached: {}. Is it running, and is the address right?", causes(status, &said))
        }
        Code::DeadlineExceeded => format!("did not answer in time: {said}"),
        Code::Unauthenticated => format!("does not know the token: {said}"),
        Code::PermissionDenied => format!("refuses this token: {said}"),
        Code::Unimplemented => {
            format!("does not know this call: its version is too far from {}", env!("CARGO_PKG_VERSION"))
        }
        code => format!("answered {code:?}: {said}"),
    }
}

/// The transport says little itself; its causes say what happened.
fn causes(status: &Status, said: &str) -> String {
    let first = std::error::Error::source(status);
    let last = std::iter::successors(first, |error| error.source()).last();
    last.map_or_else(|| said.to_owned(), ToString::to_string)
}

fn pem(what: &'static str, path: &Path) -> Result<Vec<u8>, ConnectionError> {
    let read = navvy_plain_file::read(path, MAX_PEM);
    read.map_err(|source| ConnectionError::File { what, path: path.to_owned(), source })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What stands before an `@` may be a password.
fn shown(url: &str) -> String {
    let rest = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
    rest.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Processor::new(&Address { url: url.to_owned(), ..Address::default() }).unwrap_err().to_string()
    }

    #[tokio::test]
    async fn an_address_that_leads_to_no_processor_says_what_to_write() {
        for (url, why) in [
            ("processor:8585", "neither https:// nor http://"),
            ("", "https://HOST:8585"),
            ("https://h/x", "behind the port"),
            ("ftp://h", "neither https:// nor http://"),
        ] {
            assert!(refused(url).contains(why), "{url}: {}", refused(url));
        }
        let with_password = refused("https://me:hunter2@h");
        assert!(
            !with_password.contains("hunter2") && with_password.contains("tokens come from a file"),
            "{with_password}"
        );
    }

    #[tokio::test]
    async fn plain_text_stays_on_this_host_unless_it_is_allowed() {
        for url in ["http://127.0.0.1:8585", "http://[::1]:8585", "http://localhost:8585/"] {
            assert!(Processor::new(&Address { url: url.to_owned(), ..Address::default() }).is_ok(), "{url}");
        }
        for url in ["http://10.0.0.1:8585", "http://localhost.evil.example:8585", "http://127.0.0.1.evil.example"] {
            assert!(refused(url).contains("--plaintext"), "{}", refused(url));
        }
        let allowed = Address { url: "http://10.0.0.1:8585".to_owned(), plaintext: true, ..Address::default() };
        assert!(Processor::new(&allowed).is_ok());
    }

    #[tokio::test]
    async fn certificates_come_from_files_that_are_named_when_they_are_missing() {
        let url = "https://processor.example:8585".to_owned();
        assert!(Processor::new(&Address { url: url.clone(), ..Address::default() }).is_ok());
        let missing = Address { url, ca: Some("/no/such.pem".into()), ..Address::default() };
        assert!(Processor::new(&missing).unwrap_err().to_string().contains("/no/such.pem"));
    }

    #[tokio::test]
    async fn a_processor_that_is_not_there_is_told_with_its_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let processor = Processor::new(&Address { url: url.clone(), ..Address::default() }).unwrap();
        let mut agents = processor.agents(&Bearer::new("hunter2").unwrap());
        let status = unary(agents.get_marks(navvy_protocol::processor::v1::GetMarksRequest {})).await.unwrap_err();
        let told = processor.explain(&status).to_string();
        assert!(told.contains(&url) && told.contains("refused") && !told.contains("hunter2"), "{told}");
        assert!(is_passing(&status));
    }

    #[test]
    fn a_token_is_shown_nowhere() {
        let bearer = Bearer::new("hunter2").unwrap();
        assert!(!format!("{bearer:?} {:?}", bearer.0).contains("hunter2"));
        assert!(Bearer::new("a\nb").is_err());
    }
}
