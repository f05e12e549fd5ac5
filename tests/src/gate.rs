//! Stands before an object store: knows each request, decides its fate, and may send a signal to a run right there.
//!
//! ```text
//! run ──request──▶ gate ──▶ store          Before: nobody passes it on     During: half of it is passed on
//!     ◀──answer────     ◀──                After: the store has done it, the run has not heard of it
//! ```

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::{self, Signal};
use crate::trap::When;

/// A store on loopback answers within this.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// Between two pieces of what trickles.
const BEAT: Duration = Duration::from_millis(100);

/// A request's head, as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub target: String,
    /// Of its body.
    pub length: usize,
}

impl Asked {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }

    /// What it is for, whichever body, part or upload it is about.
    pub fn purpose(&self) -> String {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let names: Vec<&str> = query.split('&').map(|pair| pair.split('=').next().unwrap_or("")).collect();
        let ours = path.split_once("/v1/").map_or(path, |(_, ours)| ours);
        let plain = |name: &str| name.len() < 30;
        let path: Vec<&str> = ours.split('/').filter(|name| plain(name)).collect();
        let names: Vec<&str> = names.into_iter().filter(|name| !name.starts_with("X-Amz-")).collect();
        format!("{} {} {}", self.method, path.join("/"), names.join("&")).trim_end().to_owned()
    }
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Fate {
    Pass,
    /// The store hears nothing of it; its client gets this status and body.
    Answer(u16, String),
    /// So many bytes of its body are taken, then the connection ends.
    RequestEnds(usize),
    /// So many bytes of its body are taken each second, and it is never answered.
    RequestTrickles(usize),
    /// So many bytes of its body are taken each second, and then the store does it.
    RequestDawdles(usize),
    /// So many bytes of the answer are given, then the connection ends.
    AnswerEnds(usize),
    /// So many bytes of the answer are given each second.
    AnswerTrickles(usize),
    /// The store does it, and this changes its answer.
    Changed(fn(String) -> String),
    /// The run gets a signal. Only SIGKILL keeps the request (its answer) from where it goes.
    Signal(Signal, When),
}

type Rule = Box<dyn FnMut(&Asked) -> Fate + Send>;

/// It serves for as long as this lives.
#[derive(Debug)]
pub struct Gate {
    endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    store: String,
    state: Mutex<State>,
    news: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("store", &self.store).finish_non_exhaustive()
    }
}

struct State {
    rule: Rule,
    victim: Option<u32>,
    asked: Vec<Asked>,
    at_store: usize,
    signalled: Option<Asked>,
    over: bool,
}

impl Gate {
    /// `store`: `http://127.0.0.1:PORT`. Everything passes until there is another rule.
    #[track_caller]
    pub fn before(store: &str) -> Self {
        let store = store.strip_prefix("http://").expect("a store on loopback").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("a listener has an address"));
        let state = State {
            rule: Box::new(|_| Fate::Pass),
            victim: None,
            asked: Vec::new(),
            at_store: 0,
            signalled: None,
            over: false,
        };
        let shared = Arc::new(Shared { store, state: Mutex::new(state), news: Condvar::new() });
        let there = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if there.lock().over {
                    return;
                }
                let there = Arc::clone(&there);
                // One request a connection; whatever fails in it is the client's to notice.
                thread::spawn(move || one_request(client, &there).ok());
            }
        });
        Self { endpoint, shared }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// From now on; what was asked before is forgotten.
    pub fn rule(&self, rule: impl FnMut(&Asked) -> Fate + Send + 'static) {
        let mut state = self.shared.lock();
        state.rule = Box::new(rule);
        (state.victim, state.signalled) = (None, None);
        state.asked.clear();
    }

    /// Whom signals are for. Requests at which one is due wait until this is known.
    pub fn arm(&self, pid: u32) {
        self.shared.lock().victim = Some(pid);
        self.shared.news.notify_all();
    }

    /// What was asked since the last rule.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.lock().asked.clone()
    }

    /// The request at which the signal was sent, if it was.
    pub fn signalled(&self) -> Option<Asked> {
        self.shared.lock().signalled.clone()
    }

    /// Waits until the store has answered whatever it was asked: what comes of it is there now.
    #[track_caller]
    pub fn settle(&self) {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let mut state = self.shared.lock();
        while state.at_store > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the store does not answer: {:?}", state.asked);
            state = self.shared.news.wait_timeout(state, left).expect("nobody panics here").0;
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        // Wakes the thread that accepts.
        TcpStream::connect(self.endpoint.trim_start_matches("http://")).ok();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics here")
    }

    fn fate_of(&self, asked: &Asked) -> Fate {
        let mut state = self.lock();
        state.asked.push(asked.clone());
        (state.rule)(asked)
    }

    /// Once, and not before the victim is known.
    fn signal(&self, signal: Signal, asked: &Asked) {
        let mut state = self.lock();
        while state.victim.is_none() {
            state = self.news.wait(state).expect("nobody panics here");
        }
        if let (None, Some(pid)) = (&state.signalled, state.victim) {
            sys::signal(pid, signal);
            state.signalled = Some(asked.clone());
        }
    }

    /// The store's whole answer to this request.
    fn ask_store(&self, head: &[u8], body: &[u8]) -> io::Result<Vec<u8>> {
        self.lock().at_store += 1;
        let mut answer = Vec::new();
        let asked = TcpStream::connect(&self.store).and_then(|mut store| {
            store.write_all(head)?;
            store.write_all(body)?;
            store.read_to_end(&mut answer)
        });
        self.lock().at_store -= 1;
        self.news.notify_all();
        asked.map(|_| answer)
    }

    /// As from a client that died meanwhile.
    fn ask_half(&self, head: &[u8], body: &[u8]) -> io::Result<()> {
        self.lock().at_store += 1;
        let asked = TcpStream::connect(&self.store).and_then(|mut store| {
            store.write_all(head)?;
            store.write_all(&body[..body.len() / 2])?;
            store.shutdown(Shutdown::Write)?;
            // Until it hangs up itself: then it has seen the end.
            store.read_to_end(&mut Vec::new())
        });
        self.lock().at_store -= 1;
        self.news.notify_all();
        asked.map(drop)
    }
}

fn one_request(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let (head, asked, begun) = read_head(&mut client)?;
    let fate = shared.fate_of(&asked);
    match fate {
        Fate::RequestEnds(bytes) => {
            return read_body(&mut client, begun, bytes.min(asked.length)).map(drop);
        }
        Fate::RequestTrickles(a_second) => return swallow_slowly(&mut client, a_second),
        _ => {}
    }
    let body = match fate {
        Fate::RequestDawdles(a_second) => read_slowly(&mut client, begun, asked.length, a_second)?,
        _ => read_body(&mut client, begun, asked.length)?,
    };
    match fate {
        Fate::Answer(status, text) => return client.write_all(&answer(status, &text)),
        Fate::Signal(signal @ Signal::Kill, When::Before) => {
            shared.signal(signal, &asked);
            return Ok(());
        }
        Fate::Signal(signal @ Signal::Kill, When::During) if asked.length > 1 => {
            let asked_half = shared.ask_half(&head, &body);
            shared.signal(signal, &asked);
            return asked_half;
        }
        Fate::Signal(signal, When::Before) => shared.signal(signal, &asked),
        _ => {}
    }
    let mut answer = shared.ask_store(&head, &body)?;
    match fate {
        Fate::AnswerEnds(bytes) => answer.truncate(bytes),
        Fate::AnswerTrickles(a_second) => return give_slowly(&mut client, &answer, a_second),
        Fate::Changed(change) => answer = changed(&answer, change),
        Fate::Signal(signal, When::During) => {
            // Of a request without a body it is the answer that is halved.
            client.write_all(&answer[..answer.len() / 2])?;
            shared.signal(signal, &asked);
            answer.drain(..answer.len() / 2);
        }
        Fate::Signal(signal, When::After) => shared.signal(signal, &asked),
        _ => {}
    }
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Write)
}

fn answer(status: u16, text: &str) -> Vec<u8> {
    let length = text.len();
    format!("HTTP/1.1 {status} Bad Day\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}")
        .into_bytes()
}

/// With another body, and its length.
fn changed(answer: &[u8], change: fn(String) -> String) -> Vec<u8> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return answer.to_vec() };
    let body = change(body.to_owned());
    let kept = head.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
    let head: Vec<&str> = kept.collect();
    format!("{}\r\nContent-Length: {}\r\n\r\n{body}", head.join("\r\n"), body.len()).into_bytes()
}

/// The pauses here are the fault itself, a slow store; nobody waits for something by them.
fn swallow_slowly(client: &mut TcpStream, a_second: usize) -> io::Result<()> {
    let mut buffer = vec![0; (a_second / 10).max(1)];
    while client.read(&mut buffer)? > 0 {
        thread::sleep(BEAT);
    }
    Ok(())
}

fn read_slowly(client: &mut TcpStream, mut body: Vec<u8>, length: usize, a_second: usize) -> io::Result<Vec<u8>> {
    while body.len() < length {
        let some = length.min(body.len() + (a_second / 10).max(1));
        body = read_body(client, body, some)?;
        thread::sleep(BEAT);
    }
    Ok(body)
}

fn give_slowly(client: &mut TcpStream, answer: &[u8], a_second: usize) -> io::Result<()> {
    for piece in answer.chunks((a_second / 10).max(1)) {
        client.write_all(piece)?;
        thread::sleep(BEAT);
    }
    client.shutdown(Shutdown::Write)
}

/// The head with `Connection: close` added, what it says, and what came of the body with it.
fn read_head(client: &mut TcpStream) -> io::Result<(Vec<u8>, Asked, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let begun = bytes.split_off(end + 4);
            bytes.truncate(end + 2);
            let asked = parse(&String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(b"Connection: close\r\n\r\n");
            return Ok((bytes, asked, begun));
        }
        match client.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => bytes.extend_from_slice(&buffer[..length]),
        }
    }
}

fn parse(head: &str) -> Asked {
    let mut first = head.lines().next().unwrap_or("").split(' ').map(str::to_owned);
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Asked {
        method: first.next().unwrap_or_default(),
        target: first.next().unwrap_or_default(),
        length: length.unwrap_or(0),
    }
}

fn read_body(client: &mut TcpStream, mut body: Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    let left = length.saturating_sub(body.len()) as u64;
    if client.take(left).read_to_end(&mut body)? < left as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    body.truncate(length);
    Ok(body)
}
