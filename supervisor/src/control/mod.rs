//! The two sockets: who may speak, and how a connection is served.
//!
//! ```text
//! control.sock ─▶ one of a few waiting threads: Hello, may it? ─▶ Request ─▶ [`request`] ─▶ Reply
//! machine port ─▶ one of as many others, and the caller is the agent                     [`crate::guest::port`]
//! job.sock     ─▶ accept ─▶ thread: one line, one answer                                    [`job`]
//! ```
//!
//! A thread that takes a connection first makes sure that others wait, and waits again when it is done: a step costs no new
//! thread, and where the environment has as many processes as it may, `Stop` still gets through.
//!
//! A caller from outside our pid namespace shows as pid 0 and is let in; any other must bring the task's secret.

pub mod connection;
mod job;
pub mod presence;
mod request;

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use navvy_protocol::frame::{self, FrameKind};
use navvy_protocol::place;
use navvy_protocol::supervisor::{ABANDONED, Failure, FailureKind, Hello, OLDEST_VERSION, Reply, Request};

use crate::init::Init;
use crate::secret::is_same;
use crate::sys::THREAD_STACK;
use crate::{failure, lock, proc, sys};

use connection::Connection;
use presence::{Presence, Presences};

/// A caller that says nothing for this long is not an agent.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Open control connections: a few for every step that may run at once.
const CONNECTIONS_CAP: usize = 512;
/// Connections of processes of the job that have not said yet who they are. The agent's own come from outside, and with
/// the task's secret only one process of it, `dial`, calls from inside: what a job opens takes nothing of theirs.
const STRANGERS_CAP: usize = 32;
/// Open in-job connections; each lives for moments.
const QUESTIONS_CAP: usize = 32;
/// Threads that wait for a control connection when all is quiet.
const WAITING: usize = 3;

/// Binds both sockets and serves them from a thread.
pub fn listen(init: &Arc<Init>, run_dir: &Path, idle_limit: Option<Duration>) -> io::Result<()> {
    std::fs::create_dir_all(run_dir)?;
    // A directory of the agent's, mounted here, may not be ours to change.
    let _ = std::fs::set_permissions(run_dir, PermissionsExt::from_mode(0o755));
    let job = bind(&run_dir.join(place::JOB_SOCKET), 0o666)?;
    job.set_nonblocking(true)?;
    let listener = bind(&run_dir.join(place::CONTROL_SOCKET), 0o600)?;
    Desk::open(init, Source::Socket(listener))?;
    let init = Arc::clone(init);
    spawn(move || serve_jobs(&init, &job, idle_limit))
}

/// Serves connections of the agent's that come another way than through the control socket: each that is sent here.
pub fn take_from_the_agent(init: &Arc<Init>) -> io::Result<mpsc::Sender<UnixStream>> {
    let (sender, receiver) = mpsc::channel();
    Desk::open(init, Source::Agent(Mutex::new(receiver)))?;
    Ok(sender)
}

fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().stack_size(THREAD_STACK).spawn(body).map(drop)
}

/// Whoever sees the name finds a socket that takes calls, with its owner and mode.
fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = path.with_file_name(format!(".{name}"));
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&unfinished)?;
    std::fs::set_permissions(&unfinished, PermissionsExt::from_mode(mode))?;
    give_to_owner_of_directory(&unfinished);
    std::fs::rename(&unfinished, path)?;
    Ok(listener)
}

/// An agent that is not root made the directory: its sockets are its own. The peer's pid stays the guard.
fn give_to_owner_of_directory(path: &Path) {
    let owner = path.parent().and_then(|directory| std::fs::metadata(directory).ok());
    if let Some(owner) = owner.filter(|owner| owner.uid() != 0) {
        // Where that is not allowed, the agent finds another way in.
        let _ = std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()));
    }
}

/// Where control connections are taken.
struct Desk {
    init: Arc<Init>,
    source: Source,
    waiting: AtomicUsize,
    /// Connections from outside of the job that have not been greeted yet.
    callers: Arc<Presences>,
    /// The same of the job's own processes.
    strangers: Arc<Presences>,
}

/// Where control connections come from.
enum Source {
    /// Whoever calls has to show that it is the agent.
    Socket(UnixListener),
    /// Nobody else can be there. One waiter at a time waits for the lock's contents, the others for the lock.
    Agent(Mutex<mpsc::Receiver<UnixStream>>),
}

impl Source {
    fn accept(&self) -> io::Result<UnixStream> {
        match self {
            Self::Socket(listener) => listener.accept().map(|(stream, _)| stream),
            Self::Agent(receiver) => lock(receiver).recv().map_err(|_| io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn is_agents(&self) -> bool {
        matches!(self, Self::Agent(_))
    }
}

impl Desk {
    fn open(init: &Arc<Init>, source: Source) -> io::Result<()> {
        let desk = Arc::new(Self {
            init: Arc::clone(init),
            source,
            waiting: AtomicUsize::new(0),
            callers: Arc::new(Presences::new()),
            strangers: Arc::new(Presences::new()),
        });
        (0..WAITING).try_for_each(|_| desk.add_waiter())
    }

    fn add_waiter(self: &Arc<Self>) -> io::Result<()> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let desk = Arc::clone(self);
        spawn(move || desk.wait()).inspect_err(|_| {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
        })
    }

    /// A waiter's life: take a connection, make sure that another thread waits, serve it, wait again unless enough do.
    fn wait(self: Arc<Self>) {
        loop {
            let accepted = self.source.accept();
            let others = self.waiting.fetch_sub(1, Ordering::AcqRel) - 1;
            let is_last = others == 0 && self.add_waiter().is_err();
            match accepted {
                Ok(stream) => self.serve(stream, is_last),
                // Out of descriptors, say: a pause, so that we do not spin.
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
            if self.waiting.fetch_add(1, Ordering::AcqRel) >= WAITING {
                self.waiting.fetch_sub(1, Ordering::AcqRel);
                return;
            }
        }
    }

    fn serve(&self, stream: UnixStream, is_last: bool) {
        let is_agents = self.source.is_agents();
        let door = match is_agents || is_from_outside(&self.init, &stream) {
            true => self.callers.enter(CONNECTIONS_CAP),
            false => self.strangers.enter(STRANGERS_CAP),
        };
        match door {
            Some(presence) => converse(&self.init, Connection::new(stream, presence), is_agents, is_last),
            None => Connection::new(stream, Presence::uncounted()).answer(&Reply::Failed(too_many())),
        }
    }
}

fn too_many() -> Failure {
    Failure::new(FailureKind::Other, "the supervisor has too many open connections")
}

/// Has no process of the job opened this connection? Not who may speak: only whose limit it counts against.
///
/// A process that the engine starts in here, as it does `dial`, has a parent outside of our pid namespace, which shows as
/// 0; a process that loses its parent inside becomes our child.
fn is_from_outside(init: &Init, stream: &UnixStream) -> bool {
    init.is_first
        && sys::peer_pid(stream)
            .is_ok_and(|pid| pid == 0 || (pid != 1 && proc::read(pid).is_some_and(|process| process.parent == 0)))
}

/// The in-job socket, and the limit on being left alone.
fn serve_jobs(init: &Arc<Init>, job: &UnixListener, idle_limit: Option<Duration>) {
    let questions = Arc::new(Presences::new());
    loop {
        let mut entries = [
            sys::poll_entry(Some(job.as_fd()), libc::POLLIN, true),
            sys::poll_entry(Some(init.hold.changed.as_fd()), libc::POLLIN, true),
        ];
        sys::poll(&mut entries, patience(init, idle_limit));
        init.hold.changed.clear();
        while let Some(stream) = next(job) {
            job::start(init, stream, questions.enter(QUESTIONS_CAP));
        }
        if let Some(code) = why_over(init, idle_limit) {
            return crate::init::shut_down(init, Duration::from_secs(10), code);
        }
    }
}

/// Until the environment could be abandoned.
fn patience(init: &Init, idle_limit: Option<Duration>) -> Option<Duration> {
    let left = match init.hold.until() {
        // A person may still be here when the time is up: then it ends soon after they have gone.
        Some(until) => until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1)),
        None => idle_limit?.saturating_sub(init.presences.idle().unwrap_or_default()),
    };
    Some(left.max(Duration::from_millis(1)))
}

/// The exit code, once no agent has called for too long, or the time of the hold is up.
fn why_over(init: &Init, idle_limit: Option<Duration>) -> Option<u8> {
    let idle = init.presences.idle()?;
    match init.hold.until() {
        Some(until) => (Instant::now() >= until).then_some(0),
        None => idle_limit.is_some_and(|limit| idle >= limit).then_some(ABANDONED),
    }
}

fn next(listener: &UnixListener) -> Option<UnixStream> {
    match listener.accept() {
        Ok((stream, _)) => Some(stream),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        // Out of descriptors, say: a pause, so that we do not spin.
        Err(_) => {
            std::thread::sleep(Duration::from_millis(10));
            None
        }
    }
}

/// `is_agents`: nobody else can be the caller. `is_last`: no other thread waits for connections, so this must not take long.
fn converse(init: &Arc<Init>, mut connection: Connection, is_agents: bool, is_last: bool) {
    // Without a limit a silent caller costs a thread until it goes away.
    let _ = connection.stream().set_read_timeout(Some(HANDSHAKE));
    let _ = connection.stream().set_write_timeout(Some(HANDSHAKE));
    match greet(init, &mut connection, is_agents) {
        Ok(Some(Request::Exec(_))) if is_last => {
            connection.answer(&Reply::Failed(failure::no_process(&io::Error::from_raw_os_error(libc::EAGAIN))));
        }
        Ok(Some(request)) => {
            let _ = connection.stream().set_read_timeout(None);
            let _ = connection.stream().set_write_timeout(None);
            request::carry_out(init, request, connection);
        }
        Ok(None) => {}
        Err(failure) => connection.answer(&Reply::Failed(failure)),
    }
}

/// Takes the caller's `Hello` and its request. `None` when it went away.
fn greet(init: &Init, connection: &mut Connection, is_agents: bool) -> Result<Option<Request>, Failure> {
    let Some(hello) = expect::<Hello>(connection, FrameKind::Hello)? else { return Ok(None) };
    if hello.version < OLDEST_VERSION {
        return Err(refused(format!("version {} is too old; {OLDEST_VERSION} is the least", hello.version)));
    }
    if !is_agents && !is_allowed(init, connection.stream(), hello.secret.as_deref()) {
        return Err(refused("this socket is for the agent: the caller is inside the job and brings no secret"));
    }
    connection.admit(init.presences.enter(CONNECTIONS_CAP).ok_or_else(too_many)?);
    connection.push(FrameKind::Hello, &Hello::new(None));
    expect(connection, FrameKind::Request)
}

fn refused(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Refused, message)
}

fn expect<T: serde::de::DeserializeOwned>(connection: &mut Connection, due: FrameKind) -> Result<Option<T>, Failure> {
    match connection.wait_frame() {
        Ok(Some((kind, place))) if kind == due => frame::parse_message(kind, connection.payload(place))
            .map(Some)
            .map_err(|error| failure::invalid(format!("the {due:?} is not understood: {error:?}"))),
        Ok(Some((kind, _))) => Err(failure::invalid(format!("{kind:?} came where {due:?} was due"))),
        Ok(None) => Ok(None),
        Err(error) if error.is_disconnect() => Ok(None),
        Err(error) => Err(failure::invalid(format!("{due:?} was due: {error}"))),
    }
}

fn is_allowed(init: &Init, stream: &UnixStream, secret: Option<&str>) -> bool {
    let is_outside = init.is_first && sys::peer_pid(stream).is_ok_and(|pid| pid == 0);
    is_outside || matches!((init.secret.get(), secret), (Some(ours), Some(theirs)) if is_same(ours, theirs))
}
