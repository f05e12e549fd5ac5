//! A Docker engine that answers.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use navvy_environment::HostPaths;
use navvy_environment::supervisor_binary::{Chosen, SupervisorError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OnceCell;

use super::create::Creating;
use super::disk::Culprit;
use super::image::Pulls;
use super::walls::Walls;
use crate::endpoint::{Address, Endpoint};

/// An engine that does not answer its ping within this is not there.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// Any request: until the first byte of its answer.
const REQUEST_LIMIT_S: u64 = 120;
/// Docker 19.03, the first with everything that a container plan uses.
const OLDEST_API: (usize, usize) = (1, 40);
/// A ping's answer is a few hundred bytes; a server that sends more is not Docker.
const PING_ANSWER_LIMIT: u64 = 8 << 10;

/// Why there is no engine to work with. A run without one ends with [`NO_DOCKER`](navvy_job::exit_code::NO_DOCKER).
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing is at the socket's path.
    #[error("no Docker engine at {endpoint} (from {origin}): the socket does not exist; is dockerd running?", origin = endpoint.source)]
    SocketMissing {
        /// The address that was tried.
        endpoint: Endpoint,
    },
    /// This user may not open the socket.
    #[error(
        "not allowed to use the Docker engine at {endpoint}: join the group that owns the socket \
         (usermod -aG docker $USER, then log in again)"
    )]
    Denied {
        /// The address that was tried.
        endpoint: Endpoint,
    },
    /// The socket or port is there, and no process accepts connections.
    #[error("no Docker engine at {endpoint} (from {origin}): nothing listens there; is dockerd running?", origin = endpoint.source)]
    Refused {
        /// The address that was tried.
        endpoint: Endpoint,
    },
    /// A connection was made, and nothing came over it.
    #[error("the Docker engine at {endpoint} did not answer within {limit:?}")]
    TimedOut {
        /// The address that was tried.
        endpoint: Endpoint,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The answer to a ping does not name an API version.
    #[error("what listens at {endpoint} (from {origin}) is not a Docker engine: {found}", origin = endpoint.source)]
    NotDocker {
        /// The address that was tried.
        endpoint: Endpoint,
        /// The beginning of that answer.
        found: String,
    },
    /// The connection failed in another way.
    #[error("failed to connect to the Docker engine at {endpoint} (from {origin})", origin = endpoint.source)]
    Connect {
        /// The address that was tried.
        endpoint: Endpoint,
        /// What the system answered.
        source: io::Error,
    },
    /// The engine lacks what containers here are made with.
    #[error("the Docker engine at {endpoint} speaks API {found}; at least {}.{} (Docker 19.03) is needed", OLDEST_API.0, OLDEST_API.1)]
    TooOld {
        /// The address that was tried.
        endpoint: Endpoint,
        /// The newest version of the API that it speaks, `1.39`.
        found: String,
    },
    /// The certificates do not fit, or cannot be read.
    #[error("failed to set up TLS for the Docker engine at {endpoint} (certificates: {ca})", ca = ca.display())]
    Tls {
        /// The address that was tried.
        endpoint: Endpoint,
        /// The file of the authority's certificate.
        ca: PathBuf,
        /// What the TLS library or the engine said.
        source: BollardError,
    },
    /// The engine answers pings, and not this.
    #[error("the Docker engine at {endpoint} failed to describe itself")]
    Info {
        /// Its address.
        endpoint: Endpoint,
        /// What it said instead.
        source: BollardError,
    },
}

/// An engine's own error, kept as a cause without its type leaving this module.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BollardError(pub(super) String);

impl From<bollard::errors::Error> for BollardError {
    fn from(error: bollard::errors::Error) -> Self {
        Self(super::fault::describe(&error))
    }
}

/// What an engine says about itself and its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineInfo {
    /// The engine's version, `20.10.24`.
    pub version: String,
    /// Version of the API that both sides speak, `1.41`.
    pub api: String,
    /// How it stores layers, `overlay2`.
    pub storage_driver: String,
    /// File system below the storage driver; `None` if the driver does not say.
    pub backing_filesystem: Option<String>,
    /// Who makes cgroups: `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// Release of the kernel, as `uname -r` writes it.
    pub kernel: String,
    /// Name of the distribution, for people.
    pub operating_system: String,
    /// `linux`, or what images for another system would need.
    pub os_type: String,
    /// As `uname -m` writes it.
    pub architecture: String,
    /// Processors of its machine.
    pub cpus: u64,
    /// Bytes.
    pub memory: u64,
    /// It runs without root's rights.
    pub rootless: bool,
    /// Names of what is switched on: `seccomp`, `apparmor`, `userns`.
    pub security_options: Vec<String>,
    /// Where it keeps everything, on its machine; `None` if it does not say.
    pub root_directory: Option<PathBuf>,
    /// Version of runc; `None` if it does not say.
    pub runc: Option<String>,
}

/// A Docker engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub docker: Docker,
    pub endpoint: Endpoint,
    api: String,
    info: OnceCell<EngineInfo>,
    /// One pull of an image serves all tasks of this process that want it.
    pub pulls: Pulls,
    /// Creates on their way, so that a cancelled prepare cannot leave a container behind.
    pub creating: Creating,
    pub network: OnceCell<Walls>,
    /// Who has written most, when the engine's disk was found to be nearly full.
    pub culprit: Culprit,
    /// The engine has shown that it sees none of our files: do not try again.
    needs_upload: AtomicBool,
    supervisor: Chosen,
}

impl Engine {
    /// Connects, or says precisely why not.
    pub async fn connect(endpoint: Endpoint) -> Result<Self, EngineError> {
        let docker = Box::pin(open(&endpoint)).await?;
        let api = docker.client_version().to_string();
        let needs_upload = AtomicBool::new(!endpoint.looks_local());
        let shared = Shared {
            docker,
            endpoint,
            api,
            info: OnceCell::new(),
            pulls: Pulls::default(),
            creating: Creating::default(),
            network: OnceCell::new(),
            culprit: Culprit::default(),
            needs_upload,
            supervisor: Chosen::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The address it was reached at.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// The version of the API that both sides speak.
    pub fn api_version(&self) -> &str {
        &self.shared.api
    }

    /// Asked once; kept for this engine's life.
    pub async fn info(&self) -> Result<&EngineInfo, EngineError> {
        self.shared.info.get_or_try_init(|| self.ask_info()).await
    }

    async fn ask_info(&self) -> Result<EngineInfo, EngineError> {
        let answer = self.shared.docker.info().await;
        let info = answer
            .map_err(|e| EngineError::Info { endpoint: self.shared.endpoint.clone(), source: BollardError::from(e) })?;
        Ok(summarise(info, &self.shared.api))
    }

    /// Where the supervisor is that every job of this process gets. A run asks when it begins, so that its first job gets the
    /// version that belongs to this program.
    pub fn supervisor(&self, host: &HostPaths) -> Result<PathBuf, SupervisorError> {
        self.shared.supervisor.directory(host.supervisor.as_deref(), &host.state)
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.shared.docker
    }

    pub(super) fn needs_upload(&self) -> bool {
        self.shared.needs_upload.load(Ordering::Relaxed)
    }

    pub(super) fn remember_upload(&self) {
        self.shared.needs_upload.store(true, Ordering::Relaxed);
    }
}

fn summarise(info: bollard::models::SystemInfo, api: &str) -> EngineInfo {
    let text = |value: Option<String>| value.unwrap_or_default();
    let number = |value: Option<i64>| value.and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
    let security_options = info.security_options.unwrap_or_default();
    EngineInfo {
        version: text(info.server_version),
        api: api.to_owned(),
        storage_driver: text(info.driver),
        backing_filesystem: info.driver_status.unwrap_or_default().into_iter().find_map(|pair| match &pair[..] {
            [name, value] if name == "Backing Filesystem" => Some(value.clone()),
            _ => None,
        }),
        cgroup_driver: info.cgroup_driver.map(|driver| driver.to_string()).unwrap_or_default(),
        cgroup_version: info.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
        kernel: text(info.kernel_version),
        operating_system: text(info.operating_system),
        os_type: text(info.os_type),
        architecture: text(info.architecture),
        cpus: number(info.ncpu),
        memory: number(info.mem_total),
        rootless: security_options.iter().any(|option| option.contains("name=rootless")),
        security_options,
        root_directory: info.docker_root_dir.map(PathBuf::from),
        runc: info.runc_commit.and_then(|commit| commit.id),
    }
}

/// A client that speaks the engine's version. A ping of our own tells more about a failure than the client would, and
/// costs a tenth of asking for the version (for which the engine starts runc).
async fn open(endpoint: &Endpoint) -> Result<Docker, EngineError> {
    let refused = |source: io::Error| connect_error(endpoint, source);
    match &endpoint.address {
        Address::Unix(path) => {
            let version = pinged(endpoint, async { ping(UnixStream::connect(path).await?).await }).await?;
            let text = path.to_string_lossy();
            Docker::connect_with_unix(&text, REQUEST_LIMIT_S, &version).map_err(|e| refused(io::Error::other(e)))
        }
        Address::Tcp { authority, tls: None } => {
            let version = pinged(endpoint, async { ping(TcpStream::connect(authority).await?).await }).await?;
            Docker::connect_with_http(&format!("tcp://{authority}"), REQUEST_LIMIT_S, &version)
                .map_err(|e| refused(io::Error::other(e)))
        }
        Address::Tcp { authority, tls: Some(tls) } => open_tls(endpoint, authority, tls).await,
    }
}

async fn open_tls(endpoint: &Endpoint, authority: &str, tls: &crate::endpoint::Tls) -> Result<Docker, EngineError> {
    let fail = |error: bollard::errors::Error| EngineError::Tls {
        endpoint: endpoint.clone(),
        ca: tls.ca.clone(),
        source: BollardError::from(error),
    };
    let address = format!("tcp://{authority}");
    let client = Docker::connect_with_ssl(&address, &tls.key, &tls.cert, &tls.ca, REQUEST_LIMIT_S, API_DEFAULT_VERSION)
        .map_err(fail)?;
    tokio::time::timeout(PING_LIMIT, client.negotiate_version())
        .await
        .map_err(|_| EngineError::TimedOut { endpoint: endpoint.clone(), limit: PING_LIMIT })?
        .map_err(fail)
}

/// What came back from a ping.
struct Pong {
    head: String,
}

/// Sends a ping and reads its answer's head.
async fn ping(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Pong> {
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(PING_ANSWER_LIMIT).read_to_end(&mut answer).await?;
    Ok(Pong { head: String::from_utf8_lossy(&answer).into_owned() })
}

/// The API version to speak, from a ping's answer.
async fn pinged(
    endpoint: &Endpoint,
    pong: impl Future<Output = io::Result<Pong>>,
) -> Result<ClientVersion, EngineError> {
    let pong = tokio::time::timeout(PING_LIMIT, pong)
        .await
        .map_err(|_| EngineError::TimedOut { endpoint: endpoint.clone(), limit: PING_LIMIT })?
        .map_err(|source| connect_error(endpoint, source))?;
    let Some((major, minor)) = api_version(&pong.head) else {
        let found = pong.head.lines().next().unwrap_or("it closed the connection").chars().take(80).collect();
        return Err(EngineError::NotDocker { endpoint: endpoint.clone(), found });
    };
    if (major, minor) < OLDEST_API {
        return Err(EngineError::TooOld { endpoint: endpoint.clone(), found: format!("{major}.{minor}") });
    }
    let (major, minor) = (major, minor).min((API_DEFAULT_VERSION.major_version, API_DEFAULT_VERSION.minor_version));
    Ok(ClientVersion { major_version: major, minor_version: minor })
}

fn api_version(head: &str) -> Option<(usize, usize)> {
    let mut lines = head.split("\r\n").take_while(|line| !line.is_empty());
    if !lines.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let value =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("api-version"));
    let (major, minor) = value?.1.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn connect_error(endpoint: &Endpoint, source: io::Error) -> EngineError {
    let endpoint = endpoint.clone();
    match source.kind() {
        io::ErrorKind::NotFound => EngineError::SocketMissing { endpoint },
        io::ErrorKind::PermissionDenied => EngineError::Denied { endpoint },
        io::ErrorKind::ConnectionRefused => EngineError::Refused { endpoint },
        _ => EngineError::Connect { endpoint, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_tells_the_api_version() {
        let head = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\nOK";
        assert_eq!(api_version(head), Some((1, 41)));
        assert_eq!(api_version("SSH-2.0-OpenSSH_9.2\r\n"), None);
        assert_eq!(api_version("HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\nApi-Version: 1.41"), None);
    }
}
