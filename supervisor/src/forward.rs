//! A connection of the agent's that is joined with what listens inside the environment: the Docker engine of a machine, say.
//!
//! Whatever the job has put there answers: to the agent these are bytes of the job's.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use navvy_protocol::frame::FrameKind;
use navvy_protocol::supervisor::{Failure, Place, Reply};

use crate::control::connection::Connection;
use crate::{failure, relay, sys};

/// What listens here accepts at once, or it hangs.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

pub fn forward(mut connection: Connection, to: &Place) {
    let other = match connect(to) {
        Ok(other) => other,
        Err(failure) => return connection.answer(&Reply::Failed(failure)),
    };
    connection.push(FrameKind::Reply, &Reply::Done);
    if connection.flush().is_ok() {
        relay::join(&other, &mut connection);
    }
    // One that has hung up itself is as good.
    let _ = other.shutdown(Shutdown::Both);
}

fn connect(to: &Place) -> Result<UnixStream, Failure> {
    match to {
        Place::Unix { path } if !path.starts_with('/') => {
            Err(failure::invalid(format!("{path:?} is not an absolute path")))
        }
        Place::Unix { path } => {
            connect_unix(path).map_err(|error| failure::of(&error, format_args!("connect to {path:?}")))
        }
        Place::Tcp { port } => {
            connect_tcp(*port).map_err(|error| failure::of(&error, format_args!("connect to 127.0.0.1:{port}")))
        }
    }
}

fn connect_unix(path: &str) -> io::Result<UnixStream> {
    match sys::connect_unix(path, CONNECT_LIMIT) {
        // Its queue of callers has been full all the time.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
        connected => connected,
    }
}

fn connect_tcp(port: u16) -> io::Result<UnixStream> {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), CONNECT_LIMIT).map(relay::plain)
}
