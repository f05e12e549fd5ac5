//! Sockets inside the environment behind which the agent answers: what a job connects to leads out of its environment,
//! over the agent's own connections, to nothing but what the agent joins it with.
//!
//! ```text
//! Relay{path, user} ─┬▶ listen ── a job's connect ─▶ Called{caller} ─▶ the agent ─▶ Take{caller}
//! RelayTcp{port}    ─┘   │                                                           │
//!                        └─ the agent hangs up: closed, and all its callers          └─ bytes both ways, each way
//!                                                                                       ended by itself
//! ```
//!
//! A unix socket is the user's alone, and lies where uid 0 put it. Its name stays behind: then a connection is refused.
//! A TCP port is open to whatever runs in the environment, and to nothing outside of it.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use navvy_protocol::frame::{self, FrameKind, HEADER_LENGTH};
use navvy_protocol::supervisor::{Failure, Reply};

use crate::control::connection::Connection;
use crate::files::data::{END, Receiver};
use crate::sys::THREAD_STACK;
use crate::users::{self, User};
use crate::{failure, lock, sys};

/// Open callers of one socket; beyond them a caller sees a closed connection.
const CALLERS_CAP: usize = 64;
/// Read at once of what goes either way.
const CHUNK: usize = 64 << 10;

/// Callers of all relays, by number.
#[derive(Default)]
pub struct Desk(Mutex<Callers>);

#[derive(Default)]
struct Callers {
    next: u64,
    open: HashMap<u64, Caller>,
}

struct Caller {
    /// The number of its relay.
    relay: u64,
    stream: Arc<UnixStream>,
    is_taken: bool,
}

impl Desk {
    fn number(&self) -> u64 {
        let mut callers = lock(&self.0);
        callers.next += 1;
        callers.next
    }

    /// Its number, or `None` when there are too many.
    fn enter(&self, relay: u64, stream: UnixStream) -> Option<u64> {
        let number = self.number();
        let open = &mut lock(&self.0).open;
        let has_room = open.values().filter(|caller| caller.relay == relay).count() < CALLERS_CAP;
        has_room.then(|| {
            open.insert(number, Caller { relay, stream: Arc::new(stream), is_taken: false });
            number
        })
    }

    fn take(&self, number: u64) -> Option<Arc<UnixStream>> {
        let mut callers = lock(&self.0);
        let caller = callers.open.get_mut(&number).filter(|caller| !caller.is_taken)?;
        caller.is_taken = true;
        Some(Arc::clone(&caller.stream))
    }

    fn leave(&self, number: u64) {
        lock(&self.0).open.remove(&number);
    }

    /// Hangs up on every caller of this relay.
    fn close(&self, relay: u64) {
        lock(&self.0).open.retain(|_, caller| {
            let is_other = caller.relay != relay;
            if !is_other {
                // One that has hung up itself is as good.
                let _ = caller.stream.shutdown(Shutdown::Both);
            }
            is_other
        });
    }
}

/// Where callers come.
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    fn accept(&self) -> io::Result<UnixStream> {
        match self {
            Self::Unix(listener) => listener.accept().map(|(stream, _)| stream),
            Self::Tcp(listener) => listener.accept().map(|(stream, _)| plain(stream)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// A stream of either family under one type: reading, writing and shutting down are the same calls.
pub fn plain(stream: TcpStream) -> UnixStream {
    // Without it small messages wait for each other; they arrive all the same.
    let _ = stream.set_nodelay(true);
    OwnedFd::from(stream).into()
}

/// Listens on a unix socket until the agent hangs up.
pub fn listen(desk: &Desk, connection: Connection, path: &str, user: Option<&str>) {
    let bound = users::look_up(user).and_then(|user| {
        bind(Path::new(path), &user).map_err(|error| failure::of(&error, format_args!("listen on {path:?}")))
    });
    serve(desk, connection, bound.map(|listener| (Listener::Unix(listener), Reply::Done)));
}

/// Listens on a TCP port until the agent hangs up.
pub fn listen_tcp(desk: &Desk, connection: Connection, port: u16) {
    let bound = bind_tcp(port).map_err(|error| failure::of(&error, format_args!("listen on 127.0.0.1:{port}")));
    serve(desk, connection, bound.map(|(listener, port)| (Listener::Tcp(listener), Reply::Listening { port })));
}

fn bind_tcp(port: u16) -> io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

fn serve(desk: &Desk, mut connection: Connection, bound: Result<(Listener, Reply), Failure>) {
    let (listener, reply) = match bound {
        Ok(bound) => bound,
        Err(failure) => return connection.answer(&Reply::Failed(failure)),
    };
    connection.push(FrameKind::Reply, &reply);
    let relay = desk.number();
    // The agent hung up, whichever way it shows.
    let _ = connection.flush().and_then(|()| tell_of_callers(desk, &mut connection, &listener, relay));
    drop(listener);
    desk.close(relay);
}

fn tell_of_callers(desk: &Desk, connection: &mut Connection, listener: &Listener, relay: u64) -> io::Result<()> {
    loop {
        let mut entries = [
            sys::poll_entry(Some(listener.as_fd()), libc::POLLIN, true),
            // The agent has nothing more to say here: an event means that it hangs up.
            sys::poll_entry(Some(connection.as_fd()), libc::POLLIN, true),
        ];
        sys::poll(&mut entries, None);
        if entries[1].revents != 0 {
            return Ok(());
        }
        if entries[0].revents == 0 {
            continue;
        }
        match listener.accept() {
            Ok(stream) => {
                if let Some(caller) = desk.enter(relay, stream) {
                    connection.push(FrameKind::Reply, &Reply::Called { caller });
                    connection.flush()?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Out of descriptors, say: a pause, so that we do not spin.
            Err(_) => thread::sleep(std::time::Duration::from_millis(10)),
        }
    }
}

fn bind(path: &Path, user: &User) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_forsaken(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    listener.set_nonblocking(true)?;
    // By what was made, not by its name: that may be another's by now. Until here only uid 0 can connect.
    let made = File::from(sys::hold(path)?);
    if !made.metadata()?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "another file took its place"));
    }
    let held = format!("/proc/self/fd/{}", made.as_raw_fd());
    fs::set_permissions(&held, PermissionsExt::from_mode(0o600))?;
    if user.uid != sys::uid() {
        chown(&held, Some(user.uid), Some(user.gid))?;
    }
    Ok(listener)
}

/// Is it a socket on which no process listens any more?
fn is_forsaken(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Joins the agent with a caller.
pub fn take(desk: &Desk, mut connection: Connection, number: u64) {
    let Some(caller) = desk.take(number) else {
        let failure: Failure = failure::invalid("no such caller, or it was taken already");
        return connection.answer(&Reply::Failed(failure));
    };
    if connection.flush().is_ok() {
        join(&caller, &mut connection);
    }
    // First, so that a caller that sees the end finds room again.
    desk.leave(number);
    let _ = caller.shutdown(Shutdown::Both);
}

/// Copies both ways until both have ended.
pub fn join(caller: &UnixStream, connection: &mut Connection) {
    let early = connection.take_received();
    let agent = connection.stream();
    // A way that breaks takes the other one with it; a way that ends leaves it.
    let both = |done: io::Result<()>| {
        if done.is_err() {
            let _ = caller.shutdown(Shutdown::Both);
            let _ = agent.shutdown(Shutdown::Both);
        }
    };
    thread::scope(|scope| {
        let way_out = || both(to_agent(caller, agent));
        match thread::Builder::new().stack_size(THREAD_STACK).spawn_scoped(scope, way_out) {
            Ok(_) => both(to_caller(Receiver::new(&early, agent), caller)),
            Err(error) => both(Err(error)),
        }
    });
}

fn to_agent(mut caller: &UnixStream, mut agent: &UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; HEADER_LENGTH + CHUNK];
    loop {
        match caller.read(&mut buffer[HEADER_LENGTH..]) {
            Ok(0) => return agent.write_all(&END),
            Ok(count) => {
                buffer[..HEADER_LENGTH].copy_from_slice(&frame::header(FrameKind::Data, count));
                agent.write_all(&buffer[..HEADER_LENGTH + count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn to_caller(mut agent: Receiver<'_>, mut caller: &UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match agent.read(&mut buffer) {
            // The caller may have gone.
            Ok(0) => return caller.shutdown(Shutdown::Write).or(Ok(())),
            Ok(count) => caller.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
