//! Who calls at the two ports inside the job, and where the calls lead.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use navvy_environment::supervisor::{Caller, Client, Relay};
use navvy_protocol::supervisor::Place;
use rustls::server::ServerConfig;
use socket2::Socket;

use super::tunnel;

/// A thread that waits for callers, or copies, needs little.
const STACK: usize = 128 << 10;
/// TLS needs more, in a build that is not optimised above all.
const TLS_STACK: usize = 1 << 20;
/// The machine's Docker engine.
const ENGINE: &str = "/run/docker.sock";
/// An engine that starts is asked again so soon.
const BETWEEN_PINGS: Duration = Duration::from_millis(100);
/// One that takes a call and says nothing for so long is not well.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// The machine's ssh server.
const SSH: u16 = 22;

/// Callers that show this job's certificate reach the engine of `guest`. Returns at once.
///
/// # Errors
/// No thread could be started.
pub fn engine(relay: Relay, guest: Client, server: Arc<ServerConfig>) -> io::Result<()> {
    serve(relay, move |caller| {
        let (ours, theirs) = UnixStream::pair()?;
        let (server, guest) = (Arc::clone(&server), guest.clone());
        let dial = move || forward(&guest, Place::Unix { path: ENGINE.to_owned() });
        let ending = thread(TLS_STACK, move || tunnel::carry(theirs, server, dial))?;
        let joined = caller.join(&Socket::from(ours));
        let carried =
            ending.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the agent ended unexpectedly")));
        carried.and(joined)
    })
}

/// Callers reach the ssh server of `guest`, which knows them by their key. Returns at once.
///
/// # Errors
/// No thread could be started.
pub fn ssh(relay: Relay, guest: Client) -> io::Result<()> {
    serve(relay, move |caller| caller.join(&Socket::from(forward(&guest, Place::Tcp { port: SSH })?)))
}

/// Waits until the engine of a machine answers, on this thread.
///
/// # Errors
/// It has not within `limit`: why not.
pub fn await_engine(guest: &Client, limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    loop {
        match ping(guest) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(format!("the machine's Docker engine does not answer within {limit:?}: {error}"));
            }
            Err(_) => std::thread::sleep(BETWEEN_PINGS),
        }
    }
}

fn ping(guest: &Client) -> io::Result<()> {
    let mut engine = forward(guest, Place::Unix { path: ENGINE.to_owned() })?;
    engine.set_read_timeout(Some(PING_LIMIT))?;
    engine.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = [0; 64];
    let count = engine.read(&mut answer)?;
    match answer[..count].split(|byte| *byte == b' ').nth(1) {
        Some(b"200") => Ok(()),
        _ => Err(io::Error::other("it does not say that it is well")),
    }
}

fn serve(relay: Relay, meet: impl Fn(Caller) -> io::Result<()> + Send + Clone + 'static) -> io::Result<()> {
    let met = move |caller: Caller| {
        if let Err(error) = meet(caller) {
            tracing::debug!(%error, "A job's connection to its remote Docker machine ended badly.");
        }
    };
    thread(STACK, move || relay.serve(met)).map(drop)
}

/// The near end of a connection into the machine.
fn forward(guest: &Client, to: Place) -> io::Result<UnixStream> {
    let forwarded = guest.forward(to).map_err(|error| io::Error::other(navvy_job::chain::chain(&error)))?;
    let (near, far) = UnixStream::pair()?;
    thread(STACK, move || {
        if let Err(error) = forwarded.join(&Socket::from(far)) {
            tracing::debug!(%error, "A connection into a remote Docker machine ended badly.");
        }
    })?;
    Ok(near)
}

fn thread<T: Send + 'static>(
    stack: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<std::thread::JoinHandle<T>> {
    std::thread::Builder::new().name("remote-docker".to_owned()).stack_size(stack).spawn(work)
}
