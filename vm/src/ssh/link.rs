//! The supervisor of a far machine: a channel of one ssh connection for each activity.
//!
//! ```text
//! caller ── UnixStream pair ── copy in both directions ── channel ── supervisor's socket, there
//! ```

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use navvy_environment::supervisor::Connect;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::connection::{Connection, SshFault, Target};

/// A connection that was lost is opened anew within this, or the caller tries again.
const RECONNECT: Duration = Duration::from_secs(15);
/// What a `connect` waits at most.
const PATIENCE: Duration = Duration::from_secs(40);

/// The way to a far machine's supervisor.
pub struct SshLink {
    shared: Arc<Shared>,
    secret: String,
    runtime: Handle,
}

struct Shared {
    target: Target,
    /// The supervisor's socket, there.
    socket: String,
    /// Held while a channel is being opened.
    connection: Mutex<Option<Connection>>,
}

impl std::fmt::Debug for SshLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SshLink").field(&self.shared.target.address).finish()
    }
}

impl SshLink {
    /// A link over a connection that is open; it is called from within a runtime, whose tasks carry the bytes.
    pub fn over(connection: Connection, target: Target, socket: &str, secret: String) -> Self {
        let shared = Shared { target, socket: socket.to_owned(), connection: Mutex::new(Some(connection)) };
        Self { shared: Arc::new(shared), secret, runtime: Handle::current() }
    }

    /// A link to a machine that is there already: a first channel proves it.
    ///
    /// # Errors
    /// It cannot be entered, or no supervisor is there.
    pub async fn open(target: Target, socket: &str, secret: String, limit: Duration) -> Result<Self, SshFault> {
        let connection = Connection::open(&target, limit).await?;
        drop(connection.to_socket(socket).await?);
        Ok(Self::over(connection, target, socket, secret))
    }
}

impl Connect for SshLink {
    fn connect(&self) -> io::Result<StdStream> {
        let (ours, theirs) = StdStream::pair()?;
        theirs.set_nonblocking(true)?;
        let (answer, wait) = mpsc::sync_channel(1);
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            let opened = async { Ok((shared.channel().await?, UnixStream::from_std(theirs)?)) };
            match opened.await {
                Ok((channel, mut stream)) => {
                    if answer.send(Ok(())).is_ok() {
                        // Whatever ends it, both sides see a connection that has ended.
                        let _ended = tokio::io::copy_bidirectional(&mut stream, &mut channel.into_stream()).await;
                    }
                }
                Err(error) => drop(answer.send(Err::<(), io::Error>(error))),
            }
        });
        wait.recv_timeout(PATIENCE).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(ours)
    }

    fn secret(&self) -> Option<&str> {
        Some(&self.secret)
    }
}

impl Shared {
    /// A new channel, over a new connection where the old one is gone.
    async fn channel(&self) -> io::Result<russh::Channel<russh::client::Msg>> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = held.as_ref().filter(|connection| !connection.is_closed()) {
            match connection.to_socket(&self.socket).await {
                Ok(channel) => return Ok(channel),
                // The machine itself says no; another connection would hear the same.
                Err(fault) if !connection.is_closed() => return Err(not_connected(&fault)),
                Err(_) => {}
            }
        }
        *held = None;
        let connection = Connection::open(&self.target, RECONNECT).await.map_err(|fault| not_connected(&fault))?;
        let channel = connection.to_socket(&self.socket).await.map_err(|fault| not_connected(&fault))?;
        *held = Some(connection);
        Ok(channel)
    }
}

fn not_connected(fault: &SshFault) -> io::Error {
    let kind = if fault.is_final() { io::ErrorKind::PermissionDenied } else { io::ErrorKind::NotConnected };
    io::Error::new(kind, fault.to_string())
}
