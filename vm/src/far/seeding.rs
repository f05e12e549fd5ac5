//! A far machine becomes the task's: entered by its pinned key, seeded through its socket of uid 0. A pool's is heard to wait, and seeded
//! later by whoever takes it.
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
use russh::Channel;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::dial::{OverSsh, upload};
use super::way::{Forwarding, Way};
use crate::error::Fault;
use crate::ssh::{Connection, SshFault, Target, greet, hear_ready};

/// One answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Between two tries while the supervisor starts.
const BETWEEN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_secs(15);

/// The seed's socket of a machine, open.
struct Opened {
    forwarding: Forwarding,
    at: String,
    stream: Box<dyn Stream>,
    /// What the stream goes over.
    _over: Over,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

enum Over {
    Connection(#[expect(dead_code, reason = "held, never asked")] Connection),
    Link(#[expect(dead_code, reason = "held, never asked")] Arc<MuxLink<OverSsh>>),
}

/// Enters a machine and gives it its seed. Returns how its supervisor is reached from now on.
///
/// # Errors
/// It did not become reachable within the limit, is not the one that was made, or does not take the seed.
pub async fn seed(target: &Target, seed: Seed, host: &HostPaths, limit: Duration) -> Result<Forwarding, Fault> {
    told(open(target, host, limit).await?, seed).await
}

/// Enters a machine and hears that it waits for its seed, which it is not given. Returns how it is reached.
///
/// # Errors
/// As of [`seed`].
pub async fn wait(target: &Target, host: &HostPaths, limit: Duration) -> Result<Forwarding, Fault> {
    heard(open(target, host, limit).await?).await
}

/// Gives a machine its seed that has been heard to wait for it.
///
/// # Errors
/// It does not answer within the limit, as one that was there before does, or does not take the seed.
pub async fn seed_waiting(way: &Way, target: &Target, seed: Seed, limit: Duration) -> Result<Forwarding, Fault> {
    told(open_again(way, target, limit).await?, seed).await
}

/// Does a machine that has been heard to wait for its seed wait for it yet?
///
/// # Errors
/// It does not, or does not answer within the limit.
pub async fn still_waits(way: &Way, limit: Duration) -> Result<(), Fault> {
    let target = way.target().map_err(Fault::host("read the machine's key"))?;
    heard(open_again(way, &target, limit).await?).await.map(drop)
}

async fn open(target: &Target, host: &HostPaths, limit: Duration) -> Result<Opened, Fault> {
    let end = Instant::now() + limit;
    let mut connection = Connection::open(target, limit).await?;
    let mut refusals = 0;
    loop {
        let refused = match connection.to_socket(SEED_SOCKET).await {
            Ok(channel) => return Ok(forwarded(connection, channel)),
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
            return dialled(target, program).await;
        }
        if left <= BETWEEN {
            return Err(no_supervisor(refused, refusals).into());
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// The same of a machine whose way is known. Nothing starts there any more, so nothing is tried twice.
async fn open_again(way: &Way, target: &Target, limit: Duration) -> Result<Opened, Fault> {
    let opening = async {
        match &way.forwarding {
            Forwarding::Dial { program } => dialled(target, program.clone()).await,
            Forwarding::Sockets => {
                let connection = Connection::open(target, limit).await?;
                let channel = connection.to_socket(SEED_SOCKET).await?;
                Ok(forwarded(connection, channel))
            }
        }
    };
    let opened = tokio::time::timeout(limit, opening).await;
    opened.unwrap_or(Err(Fault::NoAnswer { limit, doing: "waiting for its seed" }))
}

fn forwarded(connection: Connection, channel: Channel<Msg>) -> Opened {
    Opened {
        forwarding: Forwarding::Sockets,
        at: connection.at().to_owned(),
        stream: Box::new(channel.into_stream()),
        _over: Over::Connection(connection),
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

async fn dialled(target: &Target, program: String) -> Result<Opened, Fault> {
    let at = format!("{}:{}", target.address, target.port);
    let failed = |why: String| SshFault::Seed { at: at.clone(), why };
    let link = MuxLink::open(OverSsh::to_seed(target.clone(), &program), None).await;
    let link = Arc::new(link.map_err(|error| failed(error.to_string()))?);
    let caller = Arc::clone(&link);
    let stream = tokio::task::spawn_blocking(move || {
        let stream = caller.connect()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    });
    let stream = stream.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let stream = stream.and_then(UnixStream::from_std).map_err(|error| failed(error.to_string()))?;
    Ok(Opened { forwarding: Forwarding::Dial { program }, at, stream: Box::new(stream), _over: Over::Link(link) })
}

async fn told(opened: Opened, seed: Seed) -> Result<Forwarding, Fault> {
    let Opened { forwarding, at, stream, _over } = opened;
    within_answer(&at, greet(stream, seed)).await?;
    Ok(forwarding)
}

async fn heard(opened: Opened) -> Result<Forwarding, Fault> {
    let Opened { forwarding, at, stream, _over } = opened;
    within_answer(&at, hear_ready(stream)).await?;
    Ok(forwarding)
}

async fn within_answer<T>(at: &str, said: impl Future<Output = Result<T, String>>) -> Result<T, SshFault> {
    let failed = |why: String| SshFault::Seed { at: at.to_owned(), why };
    let said = tokio::time::timeout(ANSWER, said).await;
    said.map_err(|_| failed(format!("no answer within {} s", ANSWER.as_secs())))?.map_err(failed)
}
