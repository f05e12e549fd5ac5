//! The ways to the supervisor: a socket that this machine and the container share, or `navvy-supervisor dial`.
//!
//! ```text
//! directory (opened once) ─▶ control.sock: no link followed, a socket or nothing ─▶ its inode, held open
//!                                                              every connection ─▶ /proc/self/fd/N: that inode
//! ```
//!
//! uid 0 in the container can replace what lies under the name, at any moment. The inode stays the supervisor's own: it
//! cannot be bound a second time, and it stays reachable when its name is gone.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use navvy_job::id::TaskId;
use navvy_protocol::place::CONTROL_SOCKET;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::net::sockopt::socket_peercred;
use rustix::process::Pid;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::supervisor::Connect;
use crate::{HostPaths, run_dir};

/// Connecting takes microseconds; only a supervisor that hangs lets it wait.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Where the supervisor's socket will be, on this machine.
#[derive(Debug)]
pub struct SocketPlace {
    directory: OwnedFd,
    path: PathBuf,
}

impl SocketPlace {
    /// Opens the directory that the container shares; nothing of the job runs yet.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(CWD, directory, flags, Mode::empty())?;
        Ok(Self { directory: opened, path: directory.join(CONTROL_SOCKET) })
    }

    /// The socket's path, for texts. Connections go through [`Self::take_hold`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes hold of the socket, once the supervisor answers there.
    pub fn take_hold(&self) -> io::Result<SocketLink> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let socket = openat(self.directory.as_fd(), CONTROL_SOCKET, flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&socket)?.st_mode) != FileType::Socket {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is not a socket", self.path.display()),
            ));
        }
        let link = SocketLink { socket };
        link.connect()?;
        Ok(link)
    }
}

/// The supervisor's own socket, held open.
#[derive(Debug)]
pub struct SocketLink {
    socket: OwnedFd,
}

impl Connect for SocketLink {
    fn connect(&self) -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // On a unix socket this bounds connecting, too.
        socket.set_write_timeout(Some(CONNECT_LIMIT))?;
        socket.connect(&SockAddr::unix(format!("/proc/self/fd/{}", self.socket.as_raw_fd()))?)?;
        socket.set_write_timeout(None)?;
        Ok(socket.into())
    }

    fn secret(&self) -> Option<&str> {
        // The supervisor sees that the caller is outside its pid namespace.
        None
    }
}

/// The way to the supervisor of a task that another process has made, where this machine shares its socket.
pub fn shared_link(task: &TaskId, host: &HostPaths) -> io::Result<Arc<dyn Connect>> {
    let directory = run_dir::shared(&run_dir::place(host.runtime.as_deref(), run_dir::uid(), task));
    let link = SocketPlace::open(&directory)?.take_hold()?;
    // Steps have run in there since: uid 0 inside could have put a socket of its own in the place of the supervisor's.
    let peer = socket_peercred(link.connect()?)?;
    if !is_init(peer.pid) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what listens at its socket is not its supervisor"));
    }
    Ok(Arc::new(link))
}

/// Is this the first process of a pid namespace, seen from ours? Nothing that a step starts is.
fn is_init(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| {
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        numbers.len() > 1 && numbers.last() == Some(&"1")
    })
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use socket2::SockRef;

    use super::*;

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let scratch = tempfile::tempdir().unwrap();
        let socket = scratch.path().join(CONTROL_SOCKET);
        (scratch, socket)
    }

    #[test]
    fn links_files_and_fifos_are_neither_followed_nor_waited_for() {
        let (scratch, socket) = scratch();
        let place = SocketPlace::open(scratch.path()).unwrap();
        assert_eq!(place.take_hold().unwrap_err().kind(), io::ErrorKind::NotFound);
        let real = scratch.path().join("real.sock");
        let _listener = UnixListener::bind(&real).unwrap();
        symlink(&real, &socket).unwrap();
        assert_eq!(place.take_hold().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        std::fs::remove_file(&socket).unwrap();
        std::fs::write(&socket, "").unwrap();
        assert_eq!(place.take_hold().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        std::fs::remove_file(&socket).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&socket).status().unwrap().success());
        assert_eq!(place.take_hold().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        std::fs::remove_file(&socket).unwrap();
        std::fs::rename(&real, &socket).unwrap();
        place.take_hold().unwrap();
        symlink(scratch.path(), scratch.path().join("link")).unwrap();
        assert!(SocketPlace::open(&scratch.path().join("link")).is_err());
    }

    #[test]
    fn what_takes_the_name_later_never_gets_a_connection() {
        let (scratch, socket) = scratch();
        let listener = UnixListener::bind(&socket).unwrap();
        let link = SocketPlace::open(scratch.path()).unwrap().take_hold().unwrap();
        listener.accept().unwrap();
        std::fs::remove_file(&socket).unwrap();
        let impostor = UnixListener::bind(&socket).unwrap();
        impostor.set_nonblocking(true).unwrap();
        link.connect().unwrap();
        listener.accept().unwrap();
        assert_eq!(impostor.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // Not by dropping it: a process that another test is just starting holds a copy until its exec.
        SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
        assert_eq!(link.connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(impostor.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
