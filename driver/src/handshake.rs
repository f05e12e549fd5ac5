//! How a Nomad agent and its plugin find each other.
//!
//! ```text
//! Nomad agent                                    navvy-driver
//!   exec, NOMAD_PLUGIN_MAGIC_COOKIE=… ─────────▶ cookie? ─no─▶ a sentence for people, exit 1
//!   PLUGIN_PROTOCOL_VERSIONS=2                     │
//!                       1|2|unix|/PATH|grpc| ◀──── listen, then one line on stdout
//!   dials /PATH, HTTP/2 without TLS
//! ```
//!
//! The socket's path is kept by Nomad for as long as the plugin lives, over restarts of the Nomad agent: it lies where no
//! cleaner of temporary files looks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

const COOKIE: (&str, &str) =
    ("NOMAD_PLUGIN_MAGIC_COOKIE", "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255");
/// go-plugin's own version, and the one of Nomad's plugins.
const CORE_PROTOCOL: u32 = 1;
const PROTOCOL: u32 = 2;
const STABLE: &str = "/run/navvy-driver";
/// A unix socket's path is no longer, its end included.
const LONGEST_PATH: usize = 107;

/// Why there is no plugin.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// A person started it.
    #[error(
        "navvy-driver is a plugin of HashiCorp Nomad, and a Nomad agent starts it. Put it into the agent's plugin_dir, and name it \
         in the agent's configuration: plugin \"navvy-driver\" {{ config {{ … }} }}. `navvy host nomad-config` prints one."
    )]
    NoHost,
    /// The host wants TLS, which no Nomad does.
    #[error(
        "the plugin's host wants TLS between itself and the plugin (PLUGIN_CLIENT_CERT is set); Nomad does not, and neither does this plugin"
    )]
    Tls,
    /// No socket.
    #[error("no socket could be made in {directory}: {source}", directory = directory.display())]
    Socket {
        /// Where.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody to tell the path.
    #[error("the plugin's address could not be told to its host: {0}")]
    Told(io::Error),
}

/// A socket that is listened on; its file goes with it.
pub struct Bound {
    /// Where Nomad dials.
    pub listener: UnixListener,
    path: PathBuf,
}

impl Bound {
    /// The socket's file.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Gone already: somebody cleaned up.
        let _gone = fs::remove_file(&self.path);
    }
}

/// Is it a Nomad agent that started this process?
///
/// # Errors
/// It is somebody else.
pub fn check(variables: &BTreeMap<String, String>) -> Result<(), HandshakeError> {
    if variables.get(COOKIE.0).is_none_or(|value| value != COOKIE.1) {
        return Err(HandshakeError::NoHost);
    }
    match variables.get("PLUGIN_CLIENT_CERT").is_some_and(|certificate| !certificate.is_empty()) {
        true => Err(HandshakeError::Tls),
        false => Ok(()),
    }
}

/// Listens.
///
/// # Errors
/// No socket could be made.
pub fn bind(variables: &BTreeMap<String, String>) -> Result<Bound, HandshakeError> {
    let mut last = None;
    for directory in directories(variables) {
        match bind_in(&directory) {
            Ok(bound) => return Ok(bound),
            Err(source) => last = Some(HandshakeError::Socket { directory, source }),
        }
    }
    Err(last.unwrap_or(HandshakeError::NoHost))
}

/// Where a host wants it; else a place that lasts; else the place of temporary files.
fn directories(variables: &BTreeMap<String, String>) -> Vec<PathBuf> {
    if let Some(wanted) = variables.get("PLUGIN_UNIX_SOCKET_DIR").filter(|path| !path.is_empty()) {
        return vec![PathBuf::from(wanted)];
    }
    let uid = rustix::process::getuid().as_raw();
    let temporary = variables.get("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    vec![PathBuf::from(STABLE), temporary.join(format!("navvy-driver-{uid}"))]
}

fn bind_in(directory: &Path) -> io::Result<Bound> {
    make_own(directory)?;
    remove_of_the_dead(directory);
    let path = directory.join(format!("{}.sock", std::process::id()));
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(io::Error::other(format!("the socket's path would be longer than {LONGEST_PATH} bytes")));
    }
    // Of an earlier process with this number, which is dead.
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    Ok(Bound { listener, path })
}

/// A directory that is this user's alone. What another user made under this name is not used: who can replace the socket talks as
/// Nomad.
fn make_own(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(directory)?;
    let is_own = found.is_dir() && found.uid() == rustix::process::getuid().as_raw();
    // A directory that a host named may be readable by others; writable it must not be.
    match is_own && found.mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err(io::Error::other("it is no directory that only this user can write to")),
    }
}

/// Sockets of plugins that were killed. One that lives keeps its own, also while another one starts.
fn remove_of_the_dead(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_suffix(".sock")?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _gone = fs::remove_file(entry.path());
        }
    }
}

/// Tells the host where to dial. Nothing else is ever written to stdout.
///
/// # Errors
/// Nobody reads it.
pub fn tell(bound: &Bound, variables: &BTreeMap<String, String>) -> Result<(), HandshakeError> {
    let line = line(&bound.path, variables.get("PLUGIN_MULTIPLEX_GRPC").is_some_and(|value| !value.is_empty()));
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(HandshakeError::Told)
}

fn line(path: &Path, says_multiplexing: bool) -> String {
    let multiplexing = if says_multiplexing { "|false" } else { "" };
    format!("{CORE_PROTOCOL}|{PROTOCOL}|unix|{}|grpc|{multiplexing}\n", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn variables(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_person_is_told_what_this_is() {
        assert!(check(&variables(&[])).unwrap_err().to_string().contains("a Nomad agent starts it"));
        assert!(check(&variables(&[(COOKIE.0, "x")])).is_err());
        assert!(check(&variables(&[COOKIE])).is_ok());
        assert!(check(&variables(&[COOKIE, ("PLUGIN_CLIENT_CERT", "PEM")])).unwrap_err().to_string().contains("TLS"));
    }

    #[test]
    fn the_line_has_the_fields_that_a_host_splits() {
        assert_eq!(line(Path::new("/run/x/7.sock"), false), "1|2|unix|/run/x/7.sock|grpc|\n");
        assert_eq!(line(Path::new("/run/x/7.sock"), true), "1|2|unix|/run/x/7.sock|grpc||false\n");
    }

    #[test]
    fn a_socket_of_the_dead_is_removed_and_one_of_the_living_stays() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("sockets");
        drop(bind_in(&place).unwrap());
        let (dead, alive) = (place.join("4294967.sock"), place.join("1.sock"));
        for path in [&dead, &alive] {
            fs::write(path, "").unwrap();
        }
        let bound = bind_in(&place).unwrap();
        assert!(!dead.exists() && alive.exists() && bound.path.exists());
        let path = bound.path.clone();
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("open");
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(bind_in(&place).is_err());
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        assert!(bind_in(&link).is_err());
    }
}
