//! A far machine becomes the task's: entered by its pinned key, seeded through its socket of uid 0.
//!
//! ```text
//! connect ─▶ the seed's socket by forwarding ──────────────────────────▶ seed ─▶ supervisor's socket by forwarding
//!   ▲            │ refused, and yet the socket is there: twice
//!   │            ├─▶ supervisor uploaded ─▶ `dial --seed` ─────────────▶ seed ─▶ `dial --guest`
//!   │            │ the socket is not there
//!   └────────────┴─ its supervisor starts yet
//! ```

use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::mux_link::MuxLink;
use navvy_environment::supervisor::Connect as _;
use navvy_protocol::guest::{SEED_SOCKET, Seed};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::dial::{OverSsh, upload};
use super::way::Forwarding;
use crate::error::Fault;
use crate::ssh::{Connection, SshFault, Target, greet};

/// One answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Between two tries while the supervisor starts.
const BETWEEN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_secs(15);

/// Enters a machine and gives it its seed. Returns how its supervisor is reached from now on.
///
/// # Errors
/// It did not become reachable within the limit, is not the one that was made, or does not take the seed.
pub async fn seed(target: &Target, seed: Seed, host: &HostPaths, limit: Duration) -> Result<Forwarding, Fault> {
    let end = Instant::now() + limit;
    let mut connection = Connection::open(target, limit).await?;
    let mut refusals = 0;
    loop {
        let refused = match connection.to_socket(SEED_SOCKET).await {
            Ok(channel) => {
                told(connection.at(), channel.into_stream(), seed).await?;
                return Ok(Forwarding::Sockets);
            }
            Err(refused) => refused,
        };
        let left = end.saturating_duration_since(Instant::now());
        if connection.is_closed() {
            // A server that gets its keys while it boots starts once more.
            connection = Connection::open(target, left).await?;
            continue;
        }
        let looked = connection.run(&format!("test -S {SEED_SOCKET}"), b"", LOOK).await?;
        refusals = if looked.status == Some(0) { refusals + 1 } else { 0 };
        if refusals > 1 {
            let program = upload(&connection, host).await?;
            seed_by_dial(target, &program, seed).await?;
            return Ok(Forwarding::Dial { program });
        }
        if left <= BETWEEN {
            return Err(no_supervisor(refused, refusals).into());
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// The socket is not there, and the server's own words say nothing of it.
fn no_supervisor(refused: SshFault, refusals: u32) -> SshFault {
    match refused {
        SshFault::Channel { at, what, .. } if refusals == 0 => {
            let why = "it is not there: no navvy-supervisor waits for a seed (was the host reset? does its image start \
                       `navvy-supervisor guest`?)";
            SshFault::Channel { at, what, why: why.to_owned() }
        }
        refused => refused,
    }
}

async fn seed_by_dial(target: &Target, program: &str, seed: Seed) -> Result<(), Fault> {
    let at = format!("{}:{}", target.address, target.port);
    let failed = |why: String| SshFault::Seed { at: at.clone(), why };
    let link = MuxLink::open(OverSsh::to_seed(target.clone(), program), None).await;
    let link = Arc::new(link.map_err(|error| failed(error.to_string()))?);
    let caller = Arc::clone(&link);
    let stream = tokio::task::spawn_blocking(move || {
        let stream = caller.connect()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    });
    let stream = stream.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let stream = stream.and_then(UnixStream::from_std).map_err(|error| failed(error.to_string()))?;
    Ok(told(&at, stream, seed).await?)
}

async fn told(at: &str, stream: impl AsyncRead + AsyncWrite + Unpin, seed: Seed) -> Result<(), SshFault> {
    let failed = |why: String| SshFault::Seed { at: at.to_owned(), why };
    let told = tokio::time::timeout(ANSWER, greet(stream, seed)).await;
    told.map_err(|_| failed(format!("no answer within {} s", ANSWER.as_secs())))?.map_err(failed)?;
    Ok(())
}
