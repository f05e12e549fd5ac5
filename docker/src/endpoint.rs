//! Which Docker engine to talk to, found as the docker CLI finds it: an explicit flag, `DOCKER_HOST`,
//! `DOCKER_CONTEXT`, the current context of `~/.docker/config.json`, the usual socket, the rootless one.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// A context of this name means "no context".
const DEFAULT_CONTEXT: &str = "default";

/// An engine's address and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where the engine listens.
    pub address: Address,
    /// What named the address.
    pub source: Source,
}

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket on this machine.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp {
        /// Host and port; a bare IPv6 address is in brackets.
        authority: String,
        /// `None` is a connection in the clear.
        tls: Option<Tls>,
    },
}

/// Files for a TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificate of the authority that signed the engine's.
    pub ca: PathBuf,
    /// This client's certificate.
    pub cert: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
}

/// Where an address came from: shown in errors, since a forgotten variable is the usual cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `--docker` with an address.
    Flag,
    /// The variable `DOCKER_HOST`.
    DockerHost,
    /// A context of the docker CLI: by `--docker`, `DOCKER_CONTEXT`, or its config file.
    Context {
        /// The context's name.
        name: String,
    },
    /// Nothing was said: the socket of a rootful engine.
    DefaultSocket,
    /// Nothing was said: the socket of this user's rootless engine.
    RootlessSocket,
}

/// Why no address could be found.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address is of a kind that is not spoken.
    #[error("docker address {address:?} (from {origin}) has scheme {scheme:?}; unix:// and tcp:// are understood")]
    Scheme {
        /// The address as given.
        address: String,
        /// What is before `://`.
        scheme: String,
        /// What named it.
        origin: Source,
    },
    /// The address stops after its scheme.
    #[error("docker address {address:?} (from {origin}) lacks a path or a host")]
    Empty {
        /// The address as given.
        address: String,
        /// What named it.
        origin: Source,
    },
    /// Said with the way out, since it is one command.
    #[error(
        "docker over ssh ({address}, from {origin}) is not supported directly: run `ssh -nNT -L \
         /tmp/docker.sock:/var/run/docker.sock {host}` and set DOCKER_HOST=unix:///tmp/docker.sock"
    )]
    Ssh {
        /// The address as given.
        address: String,
        /// What `ssh` is to be called with.
        host: String,
        /// What named it.
        origin: Source,
    },
    /// The docker CLI has no context of this name.
    #[error("docker context {name:?} does not exist ({path})", path = path.display())]
    NoContext {
        /// The name that was asked for.
        name: String,
        /// The file in which it would be described.
        path: PathBuf,
    },
    /// The context is there, but is for something other than docker.
    #[error("docker context {name:?} names no docker endpoint")]
    NoEndpoint {
        /// Its name.
        name: String,
    },
    /// A connection to an unverified machine would hand it everything the jobs have.
    #[error("docker context {name:?} asks to skip TLS verification, which is not supported")]
    Unverified {
        /// The context's name.
        name: String,
    },
    /// A file of the docker CLI could not be read.
    #[error("failed to read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A file of the docker CLI is not JSON of the expected shape.
    #[error("{path} is not valid", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        source: serde_json::Error,
    },
}

/// What the search looks at.
pub struct Inputs<'a> {
    /// Value of `--docker`: an address, or the name of a context.
    pub flag: Option<&'a str>,
    /// This process's variables.
    pub environment: &'a BTreeMap<String, String>,
    /// The user's home directory, where the docker CLI has its files.
    pub home: Option<&'a Path>,
    /// The file system.
    pub files: &'a dyn Files,
}

/// The few questions that the search asks the file system.
pub trait Files {
    /// The whole of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Is anything there?
    fn exists(&self, path: &Path) -> bool;
}

/// Bytes of the longest file of the docker CLI: its contexts, with their certificates.
const LONGEST: u64 = 4 << 20;

/// The real file system.
pub struct RealFiles;

impl Files for RealFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        navvy_plain_file::read(path, LONGEST)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

#[derive(Deserialize)]
struct CliConfig {
    #[serde(default, rename = "currentContext")]
    current_context: String,
}

#[derive(Deserialize)]
struct ContextMeta {
    #[serde(default, rename = "Endpoints")]
    endpoints: BTreeMap<String, ContextEndpoint>,
}

#[derive(Deserialize)]
struct ContextEndpoint {
    #[serde(default, rename = "Host")]
    host: String,
    #[serde(default, rename = "SkipTLSVerify")]
    skip_tls_verify: bool,
}

/// Finds the engine's address.
pub fn find(inputs: &Inputs<'_>) -> Result<Endpoint, EndpointError> {
    if let Some(flag) = inputs.flag {
        return if flag.contains("://") { inputs.by_address(flag, Source::Flag) } else { inputs.by_context(flag) };
    }
    if let Some(host) = inputs.variable("DOCKER_HOST") {
        return inputs.by_address(host, Source::DockerHost);
    }
    match inputs.chosen_context()? {
        Some(name) => inputs.by_context(&name),
        None => Ok(inputs.by_default()),
    }
}

impl Inputs<'_> {
    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn config_directory(&self) -> Option<PathBuf> {
        self.variable("DOCKER_CONFIG").map(PathBuf::from).or_else(|| self.home.map(|home| home.join(".docker")))
    }

    /// The context that variable or config file name, unless it is the default one.
    fn chosen_context(&self) -> Result<Option<String>, EndpointError> {
        let name = match self.variable("DOCKER_CONTEXT") {
            Some(name) => Some(name.to_owned()),
            None => self.current_context()?,
        };
        Ok(name.filter(|name| !name.is_empty() && name != DEFAULT_CONTEXT))
    }

    fn current_context(&self) -> Result<Option<String>, EndpointError> {
        let Some(directory) = self.config_directory() else { return Ok(None) };
        let path = directory.join("config.json");
        match self.files.read(&path) {
            Ok(bytes) => Ok(Some(parse::<CliConfig>(&path, &bytes)?.current_context)),
            // Another user's home, under sudo for example: then there is nothing to respect there.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
            Err(source) => Err(EndpointError::Read { path, source }),
        }
    }

    fn by_context(&self, name: &str) -> Result<Endpoint, EndpointError> {
        if name == DEFAULT_CONTEXT {
            return Ok(self.by_default());
        }
        let contexts = self.config_directory().unwrap_or_default().join("contexts");
        let digest = hex(&Sha256::digest(name.as_bytes()));
        let path = contexts.join("meta").join(&digest).join("meta.json");
        let bytes = self.files.read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => EndpointError::NoContext { name: name.to_owned(), path: path.clone() },
            _ => EndpointError::Read { path: path.clone(), source },
        })?;
        let meta = parse::<ContextMeta>(&path, &bytes)?;
        let endpoint = meta.endpoints.get("docker").filter(|endpoint| !endpoint.host.is_empty());
        let endpoint = endpoint.ok_or_else(|| EndpointError::NoEndpoint { name: name.to_owned() })?;
        if endpoint.skip_tls_verify {
            return Err(EndpointError::Unverified { name: name.to_owned() });
        }
        let tls = contexts.join("tls").join(&digest).join("docker");
        let tls = self.files.exists(&tls).then(|| Tls::below(&tls));
        let address = parse_address(&endpoint.host, tls, &Source::Context { name: name.to_owned() })?;
        Ok(Endpoint { address, source: Source::Context { name: name.to_owned() } })
    }

    fn by_address(&self, text: &str, source: Source) -> Result<Endpoint, EndpointError> {
        let wanted = self.variable("DOCKER_TLS_VERIFY").is_some() || self.variable("DOCKER_TLS").is_some();
        let directory = self.variable("DOCKER_CERT_PATH").map(PathBuf::from).or_else(|| self.config_directory());
        let tls = directory.filter(|_| wanted).map(|directory| Tls::below(&directory));
        let address = parse_address(text, tls, &source)?;
        Ok(Endpoint { address, source })
    }

    fn by_default(&self) -> Endpoint {
        let rootless = self.variable("XDG_RUNTIME_DIR").map(|runtime| Path::new(runtime).join("docker.sock"));
        match rootless.filter(|path| !self.files.exists(Path::new(DEFAULT_SOCKET)) && self.files.exists(path)) {
            Some(path) => Endpoint { address: Address::Unix(path), source: Source::RootlessSocket },
            None => Endpoint { address: Address::Unix(DEFAULT_SOCKET.into()), source: Source::DefaultSocket },
        }
    }
}

impl Tls {
    fn below(directory: &Path) -> Self {
        Self { ca: directory.join("ca.pem"), cert: directory.join("cert.pem"), key: directory.join("key.pem") }
    }
}

fn parse_address(text: &str, tls: Option<Tls>, origin: &Source) -> Result<Address, EndpointError> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    let rest = if scheme == "unix" { rest } else { rest.trim_end_matches('/') };
    if rest.is_empty() {
        return Err(EndpointError::Empty { address: text.to_owned(), origin: origin.clone() });
    }
    match scheme {
        "unix" => Ok(Address::Unix(rest.into())),
        "tcp" | "http" => Ok(Address::Tcp { authority: with_port(rest, tls.is_some()), tls }),
        "ssh" => Err(EndpointError::Ssh { address: text.to_owned(), host: rest.to_owned(), origin: origin.clone() }),
        _ => Err(EndpointError::Scheme { address: text.to_owned(), scheme: scheme.to_owned(), origin: origin.clone() }),
    }
}

/// Docker's own default ports.
fn with_port(authority: &str, tls: bool) -> String {
    let behind_brackets = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    if behind_brackets.contains(':') {
        authority.to_owned()
    } else {
        format!("{authority}:{}", if tls { 2376 } else { 2375 })
    }
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, bytes: &[u8]) -> Result<T, EndpointError> {
    serde_json::from_slice(bytes).map_err(|source| EndpointError::Parse { path: path.to_owned(), source })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Endpoint {
    /// Can a path of this machine mean the same to the engine?
    pub fn looks_local(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp { authority, .. } => write!(f, "tcp://{authority}"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("the command line"),
            Self::DockerHost => f.write_str("DOCKER_HOST"),
            Self::Context { name } => write!(f, "docker context {name:?}"),
            Self::DefaultSocket => f.write_str("the default"),
            Self::RootlessSocket => f.write_str("the rootless engine's default"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Fake(BTreeMap<PathBuf, String>);

    impl Fake {
        fn with(mut self, path: &str, text: &str) -> Self {
            self.0.insert(path.into(), text.into());
            self
        }

        fn with_context(self, name: &str, meta: &str) -> Self {
            let digest = hex(&Sha256::digest(name.as_bytes()));
            self.with(&format!("/home/u/.docker/contexts/meta/{digest}/meta.json"), meta)
        }
    }

    impl Files for Fake {
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            self.0.get(path).map(|text| text.clone().into_bytes()).ok_or(io::ErrorKind::NotFound.into())
        }

        fn exists(&self, path: &Path) -> bool {
            self.0.keys().any(|known| known.starts_with(path))
        }
    }

    fn search(flag: Option<&str>, variables: &[(&str, &str)], files: &Fake) -> Result<String, String> {
        let environment = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let inputs = Inputs { flag, environment: &environment, home: Some(Path::new("/home/u")), files };
        find(&inputs).map(|found| format!("{found} by {}", found.source)).map_err(|e| e.to_string())
    }

    const REMOTE: &str = r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2375"}}}"#;

    #[test]
    fn the_order_is_the_docker_clis() {
        let files = Fake::default()
            .with("/home/u/.docker/config.json", r#"{"currentContext":"far","auths":{}}"#)
            .with_context("far", REMOTE)
            .with_context("near", r#"{"Endpoints":{"docker":{"Host":"unix:///near.sock"}}}"#);
        assert_eq!(search(None, &[], &files).unwrap(), r#"tcp://far:2375 by docker context "far""#);
        let context = ("DOCKER_CONTEXT", "near");
        assert_eq!(search(None, &[context], &files).unwrap(), r#"unix:///near.sock by docker context "near""#);
        let host = ("DOCKER_HOST", "tcp://10.0.0.1");
        assert_eq!(search(None, &[context, host], &files).unwrap(), "tcp://10.0.0.1:2375 by DOCKER_HOST");
        let by_flag = search(Some("unix:///flag.sock"), &[context, host], &files).unwrap();
        assert_eq!(by_flag, "unix:///flag.sock by the command line");
        assert_eq!(search(Some("default"), &[context], &files).unwrap(), "unix:///var/run/docker.sock by the default");
    }

    #[test]
    fn without_any_word_it_is_the_usual_socket_then_the_rootless_one() {
        let runtime = [("XDG_RUNTIME_DIR", "/run/user/7")];
        let rootless = Fake::default().with("/run/user/7/docker.sock", "");
        assert_eq!(
            search(None, &runtime, &rootless).unwrap(),
            "unix:///run/user/7/docker.sock by the rootless engine's default"
        );
        let both = rootless.with("/var/run/docker.sock", "");
        assert_eq!(search(None, &runtime, &both).unwrap(), "unix:///var/run/docker.sock by the default");
        assert_eq!(search(None, &[], &Fake::default()).unwrap(), "unix:///var/run/docker.sock by the default");
    }

    #[test]
    fn docker_config_moves_the_directory() {
        let files = Fake::default().with("/etc/d/config.json", r#"{"currentContext":"default"}"#);
        let found = search(None, &[("DOCKER_CONFIG", "/etc/d")], &files).unwrap();
        assert_eq!(found, "unix:///var/run/docker.sock by the default");
    }

    #[test]
    fn tls_comes_with_its_files() {
        let environment = BTreeMap::from(
            [("DOCKER_HOST", "tcp://h"), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/c")]
                .map(|(n, v)| (n.to_owned(), v.to_owned())),
        );
        let files = Fake::default();
        let found = find(&Inputs { flag: None, environment: &environment, home: None, files: &files }).unwrap();
        let tls = Tls { ca: "/c/ca.pem".into(), cert: "/c/cert.pem".into(), key: "/c/key.pem".into() };
        assert_eq!(found.address, Address::Tcp { authority: "h:2376".into(), tls: Some(tls) });
    }

    #[test]
    fn what_cannot_be_used_is_said_with_its_source() {
        let files = Fake::default().with_context("odd", r#"{"Endpoints":{}}"#).with_context("bad", "{");
        let failed = |flag: Option<&str>, variables: &[(&str, &str)]| search(flag, variables, &files).unwrap_err();
        assert!(failed(None, &[("DOCKER_HOST", "ssh://me@box")]).contains("ssh -nNT -L"));
        assert!(failed(None, &[("DOCKER_HOST", "npipe://x")]).contains("(from DOCKER_HOST) has scheme \"npipe\""));
        assert!(failed(None, &[("DOCKER_HOST", "unix://")]).contains("lacks a path"));
        assert!(failed(Some("missing"), &[]).contains("context \"missing\" does not exist"));
        assert!(failed(Some("odd"), &[]).contains("names no docker endpoint"));
        assert!(failed(Some("bad"), &[]).contains("meta.json is not valid"));
    }

    #[test]
    fn ports_are_added_where_none_is_given() {
        assert_eq!(with_port("h", false), "h:2375");
        assert_eq!(with_port("[::1]", true), "[::1]:2376");
        assert_eq!(with_port("[::1]:99", true), "[::1]:99");
    }
}
