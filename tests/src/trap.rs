//! A unix socket in front of an engine's, which kills its client at a chosen request, or holds requests back.
//!
//! ```text
//! navvy ─▶ Trap ─▶ engine      Before: the engine never hears of it    During: it does, the client never sees an answer
//!            └ SIGKILL         After: the answer is there, the client dies instead of reading it
//! ```

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::sys::{self, Signal};

/// An engine that is asked to make or remove a container answers within this.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    During,
    After,
}

/// Which request is the last.
#[derive(Debug, Clone)]
pub enum Last {
    /// None: they are only counted.
    Never,
    /// The one of that number, from 1.
    Number(usize, When),
    /// The first whose line holds this text.
    Holding(&'static str, When),
    /// None: those whose lines begin with this text do not reach the engine before [`Trap::let_go`].
    HeldBack(&'static str),
}

/// Ends with its directory when dropped.
#[derive(Debug)]
pub struct Trap {
    directory: TempDir,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: PathBuf,
    last: Last,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    victim: Option<u32>,
    /// Request lines, in the order of their arrival.
    requests: Vec<String>,
    unanswered: usize,
    /// The request at which the client was killed.
    sprung: Option<String>,
    let_go: bool,
    over: bool,
}

impl Trap {
    #[track_caller]
    pub fn before(engine: &Path, last: Last) -> Self {
        let directory = tempfile::Builder::new().prefix("navvy-trap-").tempdir().expect("a directory can be made");
        let listener = UnixListener::bind(directory.path().join("sock")).expect("a socket can be made");
        let (state, news) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { engine: engine.to_owned(), last, state, news });
        let there = Arc::clone(&shared);
        // Nobody is to be killed: nothing waits for the victim's name.
        there.lock().victim = matches!(there.last, Last::HeldBack(_)).then_some(0);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if there.lock().over {
                    return;
                }
                carry(near, &there);
            }
        });
        Self { directory, shared }
    }

    /// `unix:///…`
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    /// Whom to kill. Requests wait until this is known.
    pub fn arm(&self, pid: u32) {
        self.shared.lock().victim = Some(pid);
        self.shared.news.notify_all();
    }

    /// From now on no request is held back, and those that are go on.
    pub fn let_go(&self) {
        self.shared.lock().let_go = true;
        self.shared.news.notify_all();
    }

    /// Request lines so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.clone()
    }

    /// The request at which its client was killed, if it was.
    pub fn line_of_death(&self) -> Option<String> {
        self.shared.lock().sprung.clone()
    }

    /// Waits until the engine has answered whatever it was asked: what comes of it is there now.
    #[track_caller]
    pub fn settle(&self) {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let mut state = self.shared.lock();
        while state.unanswered > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the engine does not answer: {:?}", state.requests);
            state = self.shared.news.wait_timeout(state, left).expect("nobody panics here").0;
        }
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.let_go();
        // Wakes the thread that accepts.
        UnixStream::connect(self.socket()).ok();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics here")
    }

    /// Notes a request; says when its client is to die.
    fn asked(&self, line: String) -> Option<When> {
        let mut state = self.lock();
        while state.victim.is_none() {
            state = self.news.wait(state).expect("nobody panics here");
        }
        state.requests.push(line.clone());
        if let Last::HeldBack(start) = self.last
            && line.starts_with(start)
        {
            while !state.let_go {
                state = self.news.wait(state).expect("nobody panics here");
            }
        }
        match &self.last {
            _ if state.sprung.is_some() => None,
            Last::Number(number, when) if *number == state.requests.len() => Some(*when),
            Last::Holding(text, when) if line.contains(text) => Some(*when),
            _ => None,
        }
    }

    fn kill(&self, line: &str) {
        let mut state = self.lock();
        if let (None, Some(pid)) = (&state.sprung, state.victim) {
            sys::signal(pid, Signal::Kill);
            state.sprung = Some(line.to_owned());
        }
    }

    fn pending(&self, change: impl FnOnce(&mut usize)) {
        change(&mut self.lock().unanswered);
        self.news.notify_all();
    }
}

/// What the two directions of a connection know of each other.
#[derive(Default)]
struct Exchange {
    /// The request that is not yet answered.
    waits_for: Option<String>,
    dies_with_answer: bool,
}

fn carry(near: UnixStream, shared: &Arc<Shared>) {
    let Ok(far) = UnixStream::connect(&shared.engine) else { return };
    let exchange = Arc::new(Mutex::new(Exchange::default()));
    let streams = near.try_clone().and_then(|near| far.try_clone().map(|far| (near, far)));
    let (near_out, far_in) = streams.expect("a descriptor is free");
    let (there, both) = (Arc::clone(shared), Arc::clone(&exchange));
    thread::spawn(move || carry_requests(near, far, &there, &both));
    let there = Arc::clone(shared);
    thread::spawn(move || carry_answers(far_in, near_out, &there, &exchange));
}

fn carry_requests(mut near: UnixStream, mut far: UnixStream, shared: &Shared, exchange: &Mutex<Exchange>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = near.read(&mut buffer) {
        let bytes = &buffer[..length];
        let line = request_line(bytes);
        let when = line.as_ref().and_then(|line| shared.asked(line.clone()));
        match (&line, when) {
            (Some(line), Some(When::Before)) => {
                shared.kill(line);
                break;
            }
            (Some(line), when) => {
                shared.pending(|n| *n += 1);
                *exchange.lock().expect("nobody panics here") =
                    Exchange { waits_for: Some(line.clone()), dies_with_answer: when == Some(When::After) };
            }
            (None, _) => {}
        }
        if far.write_all(bytes).is_err() {
            break;
        }
        if let (Some(line), Some(When::During)) = (&line, when) {
            shared.kill(line);
        }
    }
    far.shutdown(Shutdown::Write).ok();
}

fn carry_answers(mut far: UnixStream, mut near: UnixStream, shared: &Shared, exchange: &Mutex<Exchange>) {
    let mut buffer = vec![0; 64 << 10];
    let mut is_read = true;
    loop {
        let length = far.read(&mut buffer).unwrap_or(0);
        let now = std::mem::take(&mut *exchange.lock().expect("nobody panics here"));
        if let Some(line) = now.waits_for {
            if now.dies_with_answer {
                shared.kill(&line);
            }
            shared.pending(|n| *n -= 1);
        }
        if length == 0 {
            break;
        }
        // Nobody reads any more, but the engine goes on to its end.
        is_read = is_read && near.write_all(&buffer[..length]).is_ok();
    }
    near.shutdown(Shutdown::Write).ok();
}

/// `POST /v1.41/containers/create?name=…`, if this begins a request.
fn request_line(bytes: &[u8]) -> Option<String> {
    let line = bytes.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_suffix(" HTTP/1.1")?;
    let is_request = ["GET /", "POST /", "DELETE /", "HEAD /", "PUT /"].iter().any(|start| line.starts_with(start));
    is_request.then(|| line.to_owned())
}
