//! A way into a machine that runs, for other processes of its owner's: only its agent can speak at its port.
//!
//! ```text
//! `navvy shell` ── RUN/TASK/visitors.sock ──▶ agent ── a channel of the port for each visitor ──▶ supervisor
//! ```
//!
//! The directory is closed to everybody else, and nothing of the job reaches it. When the agent ends, so do the visits; what is left of
//! the socket goes with the task's files.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use navvy_environment::supervisor::Connect;
use navvy_environment::{HostPaths, run_dir};
use navvy_job::id::TaskId;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

const SOCKET: &str = "visitors.sock";
/// Connections of visitors at a time: each visit has a few.
const MOST: usize = 64;

fn directory(task: &TaskId, host: &HostPaths) -> PathBuf {
    run_dir::place(host.runtime.as_deref(), run_dir::uid(), task)
}

/// Begins to listen for visitors of this task. Within a Tokio runtime only.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn listen(task: &TaskId, host: &HostPaths) -> io::Result<UnixListener> {
    let directory = directory(task, host);
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    listen_in(&directory)
}

fn listen_in(directory: &Path) -> io::Result<UnixListener> {
    let path = directory.join(SOCKET);
    // An agent that was killed has left it.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Lets visitors in for as long as it is polled.
pub(crate) async fn let_in(listener: UnixListener, link: Arc<dyn Connect>) {
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            visitor = listener.accept(), if visits.len() < MOST => match visitor {
                Ok((visitor, _)) => drop(visits.spawn(join(visitor, Arc::clone(&link)))),
                // Too many files are open: some will be closed.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            },
            Some(_) = visits.join_next() => {}
        }
    }
}

/// One connection of a visitor's. Whatever ends it, both sides see that it has ended.
async fn join(mut visitor: UnixStream, link: Arc<dyn Connect>) {
    let Ok(Ok(inside)) = tokio::task::spawn_blocking(move || link.connect()).await else { return };
    let inside = inside.set_nonblocking(true).and_then(|()| UnixStream::from_std(inside));
    if let Ok(mut inside) = inside {
        tokio::io::copy_bidirectional(&mut visitor, &mut inside).await.ok();
    }
}

/// The way into a machine by its agent.
#[derive(Debug)]
pub(crate) struct Visit {
    path: PathBuf,
}

impl Visit {
    /// # Errors
    /// Nobody lets visitors in: its agent has none to let in yet, or has gone.
    pub(crate) fn of(task: &TaskId, host: &HostPaths) -> io::Result<Self> {
        let visit = Self { path: directory(task, host).join(SOCKET) };
        visit.connect().map(|_| visit)
    }
}

impl Connect for Visit {
    fn connect(&self) -> io::Result<StdStream> {
        StdStream::connect(&self.path)
    }

    fn secret(&self) -> Option<&str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;

    /// A supervisor that says back what it hears.
    struct Echo(PathBuf);

    impl Connect for Echo {
        fn connect(&self) -> io::Result<StdStream> {
            StdStream::connect(&self.0)
        }

        fn secret(&self) -> Option<&str> {
            None
        }
    }

    fn echo(path: PathBuf) -> Arc<dyn Connect> {
        let listener = StdListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        Arc::new(Echo(path))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn visitors_come_in_side_by_side_and_no_longer_than_the_agent_lives() {
        let scratch = tempfile::tempdir().unwrap();
        let link = echo(scratch.path().join("supervisor.sock"));
        // Of an agent that was killed.
        drop(StdListener::bind(scratch.path().join(SOCKET)).unwrap());
        let letting_in = tokio::spawn(let_in(listen_in(scratch.path()).unwrap(), link));
        let visit = Visit { path: scratch.path().join(SOCKET) };
        let said = tokio::task::spawn_blocking(move || {
            let (mut one, mut other) = (visit.connect().unwrap(), visit.connect().unwrap());
            let mut heard = [0; 4];
            other.write_all(b"more").unwrap();
            one.write_all(b"some").unwrap();
            one.read_exact(&mut heard).unwrap();
            let first = heard;
            other.read_exact(&mut heard).unwrap();
            (first, heard, one, visit)
        });
        let (first, second, mut one, visit) = said.await.unwrap();
        assert_eq!((&first, &second), (b"some", b"more"));
        letting_in.abort();
        drop(letting_in.await);
        let ended = tokio::task::spawn_blocking(move || one.read(&mut [0; 1]).unwrap_or(0)).await.unwrap();
        assert_eq!(ended, 0, "a visit ends with the agent");
        assert!(visit.connect().is_err());
    }
}
