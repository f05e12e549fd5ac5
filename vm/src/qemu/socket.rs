//! Sockets in a machine's directory, however long its path is.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Connecting takes microseconds; a socket with another client answers when that one has gone.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);

/// Connects to a socket of this directory that may be about to be listened at.
///
/// # Errors
/// There is none, or nobody listens there in time.
pub async fn connect(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        match connect_now(directory, name).await {
            // A socket has its name a moment before it takes calls.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                tokio::time::sleep(LOOK).await;
            }
            other => return other,
        }
    }
}

/// Connects to a socket of this directory.
///
/// # Errors
/// There is none, or nobody listens there.
async fn connect_now(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, directory, flags, Mode::empty())?;
    // The kernel takes 107 bytes of a socket's path, and a state directory may be anywhere.
    let path = format!("/proc/self/fd/{}/{name}", opened.as_raw_fd());
    let connected = tokio::time::timeout(CONNECT_LIMIT, UnixStream::connect(path)).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
