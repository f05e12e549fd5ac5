//! TLS of both ports: one certificate, read again when the operator says so.
//!
//! ```text
//! files ─▶ read: all that is wrong, each with its file ─▶ Certificates ─▶ agents: HTTP/2, their certificates if there is a client_ca
//!            ▲                                              │           └▶ people: HTTP/1.1
//!            └── SIGHUP: what is wrong leaves all as it was ┘
//!
//! connection ─▶ Wire: handshake, and the first byte of a request, within one deadline ─▶ the protocol
//! ```
//!
//! A connection keeps what it was greeted with; the next one gets what was read last.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};

use navvy_plain_file as plain_file;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::signal::unix::Signal;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tonic::transport::server::Connected;

/// Longer files hold no certificates.
const LONGEST_FILE: u64 = 4 << 20;
/// No word of the file: it may be a key.
const DAMAGED: &str = "is damaged: a part of it is no PEM";

/// Where the certificates are.
#[derive(Debug, Clone)]
pub struct Files {
    /// The chain that is shown (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// The authority whose certificates agents must show (PEM).
    pub client_ca: Option<PathBuf>,
}

/// Whose port it is.
#[derive(Debug, Clone, Copy)]
pub enum For {
    /// gRPC.
    Agents,
    /// HTTP and JSON.
    People,
}

/// Which of the files is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// The chain.
    Certificate,
    /// Its key.
    Key,
    /// The agents' authority.
    ClientCa,
}

/// A file of which nothing can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Which.
    pub file: File,
    /// Why; never what is in it.
    pub why: String,
}

/// The certificates as they were read last.
pub struct Certificates {
    files: Files,
    current: RwLock<Current>,
}

#[derive(Clone)]
struct Current {
    agents: Arc<ServerConfig>,
    people: Arc<ServerConfig>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads them.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn read(files: Files) -> Result<Self, Vec<Wrong>> {
        let current = RwLock::new(Current::read(&files)?);
        Ok(Self { files, current })
    }

    /// Reads them again; what is wrong leaves everything as it was.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn read_again(&self) -> Result<(), Vec<Wrong>> {
        let current = Current::read(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }

    /// What a connection is greeted with now.
    fn config(&self, port: For) -> Arc<ServerConfig> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        match port {
            For::Agents => Arc::clone(&current.agents),
            For::People => Arc::clone(&current.people),
        }
    }

    /// The file's path.
    fn path(&self, file: File) -> &Path {
        match file {
            File::Certificate => &self.files.certificate,
            File::Key => &self.files.key,
            File::ClientCa => self.files.client_ca.as_deref().unwrap_or(Path::new("")),
        }
    }
}

impl Current {
    fn read(files: &Files) -> Result<Self, Vec<Wrong>> {
        let chain = certificates(File::Certificate, &files.certificate);
        let key = key(&files.key);
        let roots = files.client_ca.as_deref().map(roots).transpose();
        let mut wrong = Vec::new();
        let mut keep = |errors: Option<&Wrong>| wrong.extend(errors.cloned());
        keep(chain.as_ref().err());
        keep(key.as_ref().err());
        keep(roots.as_ref().err());
        let (Ok(chain), Ok(key), Ok(roots)) = (chain, key, roots) else { return Err(wrong) };
        let made = |roots, protocol: &[u8]| -> Result<Arc<ServerConfig>, Vec<Wrong>> {
            let mut config = config(chain.clone(), key.clone_key(), roots).map_err(|error| vec![error])?;
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok(Arc::new(config))
        };
        Ok(Self { agents: made(roots, b"h2")?, people: made(None, b"http/1.1")? })
    }
}

fn wrong(file: File, why: impl Into<String>) -> Wrong {
    Wrong { file, why: why.into() }
}

fn pem(file: File, path: &Path) -> Result<Vec<u8>, Wrong> {
    plain_file::read(path, LONGEST_FILE).map_err(|error| wrong(file, format!("cannot be read: {error}")))
}

fn certificates(file: File, path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let pem = pem(file, path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match read {
        Ok(chain) if chain.is_empty() => {
            Err(wrong(file, "holds no certificate in PEM: no -----BEGIN CERTIFICATE-----"))
        }
        Ok(chain) => Ok(chain),
        Err(_) => Err(wrong(file, DAMAGED)),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
    PrivateKeyDer::from_pem_slice(&pem(File::Key, path)?).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            wrong(File::Key, "holds no private key in PEM without a passphrase: no -----BEGIN PRIVATE KEY-----")
        }
        _ => wrong(File::Key, DAMAGED),
    })
}

fn roots(path: &Path) -> Result<RootCertStore, Wrong> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(File::ClientCa, path)? {
        roots.add(certificate).map_err(|error| wrong(File::ClientCa, format!("holds no authority: {error}")))?;
    }
    Ok(roots)
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Option<RootCertStore>,
) -> Result<ServerConfig, Wrong> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let of_chain = |error: rustls::Error| match error {
        rustls::Error::InconsistentKeys(_) => wrong(File::Key, "is not the key of the certificate"),
        error => wrong(File::Certificate, format!("cannot be served: {error}")),
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(of_chain)?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| wrong(File::ClientCa, error.to_string()))?)
        }
    };
    builder.with_single_cert(chain, key).map_err(of_chain)
}

/// Reads the certificates again with each hangup, as long as it is polled.
pub async fn follow(certificates: Arc<Certificates>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        match certificates.read_again() {
            Ok(()) => tracing::info!("The certificates were read again: new connections get them."),
            Err(wrong) => {
                for Wrong { file, why } in wrong {
                    let path = certificates.path(file).display().to_string();
                    tracing::error!(path, "The certificates stay as they were: {path} {why}.");
                }
            }
        }
    }
}

/// How a port greets its connections.
#[derive(Debug, Clone)]
pub struct Greeting {
    certificates: Arc<Certificates>,
    port: For,
}

impl Greeting {
    /// With these certificates.
    pub fn new(certificates: Arc<Certificates>, port: For) -> Self {
        Self { certificates, port }
    }
}

/// A connection, with TLS or without. Its handshake is carried on by whoever reads or writes first.
pub enum Wire<S> {
    /// Without.
    Plain(S),
    /// In its handshake.
    Greeted(Box<Accept<S>>),
    /// With.
    Safe(Box<TlsStream<S>>),
    /// Its handshake has failed.
    Failed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Nothing is read or written yet.
    pub fn new(stream: S, greeting: Option<&Greeting>) -> Self {
        match greeting {
            None => Self::Plain(stream),
            Some(Greeting { certificates, port }) => {
                Self::Greeted(Box::new(TlsAcceptor::from(certificates.config(*port)).accept(stream)))
            }
        }
    }

    /// Goes on as soon as the handshake is over.
    fn poll_greeted(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Greeted(accept) = self else { return Poll::Ready(Ok(())) };
        let greeted = ready!(Pin::new(accept).poll(context));
        // A handshake that is over must not be polled again.
        *self = Self::Failed;
        *self = Self::Safe(Box::new(greeted?));
        Poll::Ready(Ok(()))
    }
}

/// Hands a call on to the stream, once there is one.
macro_rules! once_greeted {
    ($wire:expr, $context:expr, $call:ident $(, $argument:expr)*) => {{
        let wire = $wire.get_mut();
        ready!(wire.poll_greeted($context))?;
        match wire {
            Wire::Plain(stream) => Pin::new(stream).$call($context $(, $argument)*),
            Wire::Safe(stream) => Pin::new(stream).$call($context $(, $argument)*),
            Wire::Greeted(_) | Wire::Failed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }};
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        once_greeted!(self, context, poll_read, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        once_greeted!(self, context, poll_write, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        once_greeted!(self, context, poll_write_vectored, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            // rustls takes all slices at once.
            Self::Greeted(_) | Self::Safe(_) | Self::Failed => true,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        once_greeted!(self, context, poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        once_greeted!(self, context, poll_shutdown)
    }
}

impl<S: Connected> Connected for Wire<S> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

#[cfg(test)]
pub(crate) mod tests;
