//! All activities over one `docker exec` of `navvy-supervisor dial`: for an engine that sees none of our files.
//!
//! ```text
//!  caller ── UnixStream pair ── reader ─▶ outgoing ─▶ stdin  of dial
//!                               writer ◀─ incoming ◀─ stdout of dial
//! ```
//!
//! The pump owns the exec and the table of channels. When the exec is lost, every channel closes, which callers see
//! as any lost connection; the next `connect` dials again.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError, mpsc as std_mpsc};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use navvy_environment::supervisor::Connect;
use navvy_protocol::mux::{HEADER_LENGTH, Header, MAGIC, MAX_DATA, Op};
use navvy_protocol::place::{RUN_DIR, SUPERVISOR};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::engine::Engine;
use super::fault;

/// From asking for an exec to the first bytes of `dial`.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// How often one `connect` dials before it gives up, and how long it waits in between.
const ATTEMPTS: u32 = 3;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(200);
/// Chunks that wait for a slow reader before it holds up the others: 64 of at most 64 KiB.
const CHANNEL_QUEUE: usize = 64;

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// Where new channels are handed to a pump.
type Openings = mpsc::UnboundedSender<StdStream>;

/// The way to a supervisor through `docker exec`.
pub struct DialLink {
    engine: Engine,
    container: String,
    secret: String,
    runtime: Handle,
    /// The pump that carries new channels; locked only while one is handed over or made.
    pump: Mutex<Option<Openings>>,
}

impl DialLink {
    /// Dials at once, so that a failure shows here and not at the first step.
    pub(super) async fn open(engine: &Engine, container: &str, secret: String) -> io::Result<Self> {
        let exec = dial(engine, container).await?;
        let (openings, receiver) = mpsc::unbounded_channel();
        tokio::spawn(pump(exec, receiver));
        Ok(Self {
            engine: engine.clone(),
            container: container.to_owned(),
            secret,
            runtime: Handle::current(),
            pump: Mutex::new(Some(openings)),
        })
    }

    /// Blocks until a new pump runs.
    fn redial(&self) -> io::Result<Openings> {
        let (engine, container) = (self.engine.clone(), self.container.clone());
        let (answer, wait) = std_mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let dialled = dial(&engine, &container).await;
            let (openings, receiver) = mpsc::unbounded_channel();
            let exec = match dialled {
                Ok(exec) => exec,
                Err(error) => return drop(answer.send(Err(error))),
            };
            if answer.send(Ok(openings)).is_ok() {
                pump(exec, receiver).await;
            }
        });
        wait.recv_timeout(DIAL_LIMIT * 2).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

impl Connect for DialLink {
    fn connect(&self) -> io::Result<StdStream> {
        let mut pump = self.pump.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = io::Error::from(io::ErrorKind::NotConnected);
        for attempt in 0..ATTEMPTS {
            let (ours, theirs) = StdStream::pair()?;
            theirs.set_nonblocking(true)?;
            // A pump that has ended gives the stream back by refusing it.
            if pump.as_ref().is_some_and(|openings| openings.send(theirs).is_ok()) {
                return Ok(ours);
            }
            if attempt > 0 {
                std::thread::sleep(BETWEEN_ATTEMPTS);
            }
            match self.redial() {
                Ok(openings) => *pump = Some(openings),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn secret(&self) -> Option<&str> {
        Some(&self.secret)
    }
}

/// A running `dial` that has proved to be one.
struct Exec {
    output: Output,
    input: Input,
    /// What came behind the magic.
    rest: BytesMut,
}

async fn dial(engine: &Engine, container: &str) -> io::Result<Exec> {
    tokio::time::timeout(DIAL_LIMIT, start(engine, container)).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{SUPERVISOR} dial did not answer within {DIAL_LIMIT:?}")))
    })
}

async fn start(engine: &Engine, container: &str) -> io::Result<Exec> {
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        user: Some("0:0"),
        working_dir: Some("/"),
        cmd: Some(vec![SUPERVISOR, "dial", "--run-dir", RUN_DIR]),
        ..CreateExecOptions::default()
    };
    let failed = |e: bollard::errors::Error| io::Error::new(io::ErrorKind::NotConnected, fault::describe(&e));
    let exec = engine.docker().create_exec(container, options).await.map_err(failed)?;
    let options = StartExecOptions { output_capacity: Some(2 * MAX_DATA), ..StartExecOptions::default() };
    match engine.docker().start_exec(&exec.id, Some(options)).await.map_err(failed)? {
        StartExecResults::Attached { output, input } => expect_magic(output, input).await,
        StartExecResults::Detached => Err(io::Error::other("the engine detached the exec")),
    }
}

async fn expect_magic(mut output: Output, input: Input) -> io::Result<Exec> {
    let mut rest = BytesMut::new();
    let mut words = String::new();
    while rest.len() < MAGIC.len() {
        match output.next().await {
            Some(Ok(LogOutput::StdErr { message })) => words.push_str(&String::from_utf8_lossy(&message)),
            Some(Ok(chunk)) => rest.extend_from_slice(chunk.as_ref()),
            Some(Err(error)) => return Err(io::Error::other(fault::describe(&error))),
            None => return Err(not_dial(&rest, &words)),
        }
    }
    if !rest.starts_with(MAGIC) {
        return Err(not_dial(&rest, &words));
    }
    rest.advance(MAGIC.len());
    Ok(Exec { output, input, rest })
}

fn not_dial(bytes: &[u8], words: &str) -> io::Error {
    let said = if words.trim().is_empty() { String::from_utf8_lossy(bytes).into_owned() } else { words.to_owned() };
    let said: String = said.trim().chars().filter(|c| !c.is_control()).take(300).collect();
    io::Error::new(io::ErrorKind::ConnectionRefused, format!("{SUPERVISOR} dial said: {said}"))
}

/// What channels want to send, in order.
struct Outgoing {
    header: Header,
    payload: Bytes,
}

/// Carries channels until the exec ends, or all have closed and no caller can open another.
async fn pump(exec: Exec, mut openings: mpsc::UnboundedReceiver<StdStream>) {
    let Exec { output, input, rest } = exec;
    let (outgoing, queue) = mpsc::channel::<Outgoing>(CHANNEL_QUEUE);
    let mut channels = Channels { table: HashMap::new(), next: 1, outgoing, readers: JoinSet::new() };
    let mut incoming = Incoming { output, buffer: rest };
    // A task of its own: it must go on while a slow caller holds up `deliver`.
    let mut sender = JoinSet::new();
    sender.spawn(send_all(input, queue));
    loop {
        tokio::select! {
            opening = openings.recv() => match opening {
                Some(stream) => channels.open(stream),
                None => break,
            },
            frame = incoming.frame() => match frame {
                Some((header, payload)) => channels.deliver(header, payload).await,
                None => break,
            },
            // It ends only when stdin is gone.
            _ = sender.join_next() => break,
        }
    }
}

async fn send_all(mut input: Input, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(Outgoing { header, payload }) = queue.recv().await {
        let mut bytes = BytesMut::with_capacity(HEADER_LENGTH + payload.len());
        bytes.extend_from_slice(&header.to_bytes());
        bytes.extend_from_slice(&payload);
        if input.write_all(&bytes).await.is_err() || input.flush().await.is_err() {
            return;
        }
    }
}

struct Channels {
    /// Where a channel's incoming data goes; dropping it ends that direction.
    table: HashMap<u32, mpsc::Sender<Bytes>>,
    next: u32,
    outgoing: mpsc::Sender<Outgoing>,
    /// Both halves of every channel; aborted with the pump, which closes the callers' ends.
    readers: JoinSet<()>,
}

impl Channels {
    fn open(&mut self, stream: StdStream) {
        // Only a full table of descriptors makes this fail; the caller then sees its end closed.
        let Ok(stream) = UnixStream::from_std(stream) else { return };
        let channel = self.next;
        self.next += 1;
        let (read, write) = stream.into_split();
        let (incoming, queue) = mpsc::channel(CHANNEL_QUEUE);
        self.table.insert(channel, incoming);
        self.readers.spawn(read_caller(channel, read, self.outgoing.clone()));
        self.readers.spawn(write_caller(write, queue));
        // What has ended need not be kept.
        while self.readers.try_join_next().is_some() {}
    }

    async fn deliver(&mut self, header: Header, payload: Bytes) {
        match header.op {
            Op::Data => {
                if let Some(queue) = self.table.get(&header.channel) {
                    // A caller that has hung up does not want it any more.
                    let _unwanted = queue.send(payload).await;
                }
            }
            Op::Close | Op::Reset => drop(self.table.remove(&header.channel)),
            // Only this side opens.
            Op::Open => {}
        }
    }
}

async fn read_caller(channel: u32, mut read: OwnedReadHalf, outgoing: mpsc::Sender<Outgoing>) {
    let send = |op, payload: Bytes| {
        let header = Header { channel, op, length: payload.len() };
        outgoing.send(Outgoing { header, payload })
    };
    if send(Op::Open, Bytes::new()).await.is_err() {
        return;
    }
    let mut buffer = BytesMut::with_capacity(MAX_DATA);
    loop {
        buffer.reserve(MAX_DATA);
        let end = match (&mut read).take(MAX_DATA as u64).read_buf(&mut buffer).await {
            Ok(0) => Op::Close,
            Err(_) => Op::Reset,
            Ok(_) => {
                if send(Op::Data, buffer.split().freeze()).await.is_err() {
                    return;
                }
                continue;
            }
        };
        // Nothing is left to tell when the pump itself has ended.
        let _pump_ended = send(end, Bytes::new()).await;
        return;
    }
}

async fn write_caller(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = queue.recv().await {
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // The other side closed this direction; dropping the half would do so only with the other one.
    let _hung_up = write.shutdown().await;
}

struct Incoming {
    output: Output,
    buffer: BytesMut,
}

impl Incoming {
    /// The next frame; `None` when the stream ended or makes no sense. Dropping the future loses nothing.
    async fn frame(&mut self) -> Option<(Header, Bytes)> {
        loop {
            if let Some(frame) = take_frame(&mut self.buffer)? {
                return Some(frame);
            }
            match self.output.next().await?.ok()? {
                LogOutput::StdErr { .. } => {}
                chunk => self.buffer.extend_from_slice(chunk.as_ref()),
            }
        }
    }
}

/// `None`: not a frame. `Some(None)`: not yet a whole one.
#[expect(clippy::option_option, reason = "the caller takes the two levels apart at once")]
fn take_frame(buffer: &mut BytesMut) -> Option<Option<(Header, Bytes)>> {
    let Some(bytes) = buffer.first_chunk::<HEADER_LENGTH>() else { return Some(None) };
    let header = Header::parse(*bytes).ok()?;
    if buffer.len() < HEADER_LENGTH + header.length {
        return Some(None);
    }
    buffer.advance(HEADER_LENGTH);
    Some(Some((header, buffer.split_to(header.length).freeze())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole() {
        let header = Header { channel: 7, op: Op::Data, length: 3 };
        let wire = [&header.to_bytes()[..], b"abcX"].concat();
        let mut buffer = BytesMut::from(&wire[..10]);
        assert!(take_frame(&mut buffer).unwrap().is_none());
        buffer.extend_from_slice(&wire[10..]);
        let (taken, payload) = take_frame(&mut buffer).unwrap().unwrap();
        assert_eq!((taken, &payload[..], &buffer[..]), (header, &b"abc"[..], &b"X"[..]));
        buffer.extend_from_slice(&[9; 20]);
        assert!(take_frame(&mut buffer).is_none());
    }
}
