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
use std::time::Duration;

use navvy_environment::supervisor::Connect;
use navvy_environment::{HostPaths, run_dir};
use navvy_job::id::TaskId;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::far::keys;
use crate::machines::find;

const SOCKET: &str = "visitors.sock";
/// The socket before it has its name: there is always one to be called under that, the old or the new.
const UNNAMED: &str = "visitors.new";
/// Connections of visitors at a time: each visit has a few.
const MOST: usize = 64;
/// An agent that goes on with a killed one's task asks the processor, takes up its logs and reaches its machine before it opens the door.
const OPENS_WITHIN: Duration = Duration::from_secs(20);
const BETWEEN_CALLS: Duration = Duration::from_millis(100);

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
    let path = directory.join(UNNAMED);
    // An agent that was killed has left it.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::rename(&path, directory.join(SOCKET))?;
    Ok(listener)
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
pub(crate) struct Visit {
    path: PathBuf,
    secret: Option<String>,
}

impl std::fmt::Debug for Visit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Visit {
    /// # Errors
    /// Nobody lets visitors in: its agent has none to let in yet, or has gone and no other goes on with the task.
    pub(crate) async fn of(task: &TaskId, host: &HostPaths) -> io::Result<Self> {
        // A machine that is elsewhere asks its callers for it; the agent in between only joins the two.
        let its = find(&host.state, task, true).map_err(io::Error::other)?;
        let secret = its.and_then(|(directory, _)| keys::read(&directory, keys::SECRET).ok());
        Self::at(directory(task, host).join(SOCKET), secret).await
    }

    /// A door that nobody stands behind is a killed agent's: whoever goes on with the task opens another there.
    async fn at(path: PathBuf, secret: Option<String>) -> io::Result<Self> {
        let visit = Self { path, secret };
        let until = Instant::now() + OPENS_WITHIN;
        loop {
            match visit.connect() {
                Ok(_) => return Ok(visit),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < until => {
                    tokio::time::sleep(BETWEEN_CALLS).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Connect for Visit {
    fn connect(&self) -> io::Result<StdStream> {
        StdStream::connect(&self.path)
    }

    fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
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

    #[tokio::test(start_paused = true)]
    async fn a_visitor_waits_for_the_agent_that_goes_on_and_not_for_ever() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(SOCKET);
        assert_eq!(Visit::at(path.clone(), None).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(StdListener::bind(&path).unwrap());
        assert_eq!(Visit::at(path.clone(), None).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let opens = async {
            tokio::time::sleep(OPENS_WITHIN / 2).await;
            listen_in(scratch.path()).unwrap()
        };
        let (visit, _listener) = tokio::join!(Visit::at(path.clone(), None), opens);
        visit.unwrap();
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1, "one door");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn visitors_come_in_side_by_side_and_no_longer_than_the_agent_lives() {
        let scratch = tempfile::tempdir().unwrap();
        let link = echo(scratch.path().join("supervisor.sock"));
        // Of an agent that was killed.
        drop(StdListener::bind(scratch.path().join(SOCKET)).unwrap());
        let letting_in = tokio::spawn(let_in(listen_in(scratch.path()).unwrap(), link));
        let visit = Visit { path: scratch.path().join(SOCKET), secret: None };
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
