//! A client of the program `navvy-supervisor`: the agent's side of its socket. The program itself is the crate of that name.
//!
//! Blocking code on plain unix sockets: an activity is one connection and one thread, and a step's bytes go from the
//! socket to its log without an executor in between. However the supervisor is reached, a connection is a
//! `UnixStream`: behind `dial` it is one end of a socket pair.

mod archives;
mod client;
mod follow;
#[cfg(test)]
mod hostile;
mod read;
mod relay;
mod session;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub use archives::Fed;
pub use client::{Client, ClientError, Found};
pub use follow::{Abandon, FollowEnd, Sink, follow, follow_on};
pub use relay::{Caller, Listening, Relay};
pub use session::{Session, WayIn};

/// A way to the supervisor, found by trying.
pub trait Connect: Send + Sync + 'static {
    /// Opens a connection for one activity. Times out by itself.
    fn connect(&self) -> io::Result<UnixStream>;

    /// The task's secret, where the supervisor cannot see that the caller is outside.
    fn secret(&self) -> Option<&str>;

    /// How long a way that has broken is tried again before the supervisor behind it counts as gone.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }
}
