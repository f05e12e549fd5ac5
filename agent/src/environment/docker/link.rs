//! The ways to the supervisor: a socket that this machine and the container share, or `navvy-supervisor dial`.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::supervisor::Connect;

pub use super::dial::DialLink;

/// Connecting takes microseconds; only a supervisor that hangs lets it wait.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The supervisor's own socket, at its path on this machine.
#[derive(Debug)]
pub struct SocketLink {
    path: PathBuf,
}

impl SocketLink {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Connect for SocketLink {
    fn connect(&self) -> io::Result<UnixStream> {
        connect(&self.path)
    }

    fn secret(&self) -> Option<&str> {
        // The supervisor sees that the caller is outside its pid namespace.
        None
    }
}

/// Connects to a socket in a directory that the job can write to: what is opened is looked at before it is used, so
/// no link of the job's making leads the agent to another socket of this machine.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no socket", path.display())));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // On a unix socket this bounds connecting, too.
    socket.set_write_timeout(Some(CONNECT_LIMIT))?;
    socket.connect(&SockAddr::unix(format!("/proc/self/fd/{}", file.as_raw_fd()))?)?;
    socket.set_write_timeout(None)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn links_and_files_are_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let real = scratch.path().join("real.sock");
        let _listener = UnixListener::bind(&real).unwrap();
        let link = scratch.path().join("control.sock");
        symlink(&real, &link).unwrap();
        assert!(connect(&real).is_ok());
        assert!(connect(&link).is_err());
        let file = scratch.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(connect(&file).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
