//! The control socket over stdin and stdout, for an agent that cannot reach it: many connections, one stream.
//!
//! ```text
//! stdin  ─▶ header, payload ─▶ channel's queue ─▶ its connection to control.sock
//! stdout ◀─ header, payload ◀─ (only while stdout keeps up) ◀────┘
//! ```
//!
//! One thread, one poll, nothing blocks. Queues are bounded: while stdout is full no connection is read; while a
//! channel's queue is full stdin is not read. A channel whose queue has not moved for [`STUCK`] is reset, so that one
//! step that never reads its input cannot hold up the rest for ever.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use navvy_protocol::mux::{HEADER_LENGTH, Header, MAGIC, MAX_DATA, Op};
use navvy_protocol::place;

use crate::{cli, failure, sys};

const STUCK: Duration = Duration::from_secs(30);
/// Bytes for one connection that it has not taken yet.
const QUEUE_CAP: usize = 256 << 10;
/// Bytes for stdout beyond which no connection is read.
const OUT_CAP: usize = 256 << 10;
/// Far above what one agent opens at once.
const CHANNELS_CAP: usize = 256;

pub fn main(arguments: &[String]) -> ExitCode {
    let run_dir = match arguments {
        [] => place::RUN_DIR,
        [name, value] if name == "--run-dir" => value,
        [one] if one.starts_with("--run-dir=") => &one["--run-dir=".len()..],
        _ => return cli::complain(cli::USAGE, "usage: navvy-supervisor dial [--run-dir DIR]"),
    };
    // The task's secret passes through here.
    sys::close_to_others();
    sys::limit_heap();
    match Dial::open(Path::new(run_dir)).and_then(Dial::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::complain(1, &format!("navvy-supervisor dial: {}", failure::text(&error))),
    }
}

struct Dial {
    socket: PathBuf,
    /// The socket's inode, which stays the same if its name is changed; only uid 0 can reach it through `/proc`.
    held: Option<OwnedFd>,
    stdin: File,
    stdout: File,
    /// Read from stdin, not yet a whole message.
    received: Vec<u8>,
    out: Queue,
    channels: HashMap<u32, Channel>,
    stdin_open: bool,
}

struct Channel {
    stream: UnixStream,
    queue: Queue,
    /// When the queue was last seen to move.
    moved: Instant,
    /// The agent has no more for it: the connection learns that when the queue is empty.
    ends: bool,
    /// Nothing can be written to it any more; what comes for it is dropped.
    refuses: bool,
    /// The connection may still say something.
    speaks: bool,
}

/// Bytes that wait to be written.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    done: usize,
}

impl Queue {
    fn len(&self) -> usize {
        self.bytes.len() - self.done
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes what the other side takes. True when something went.
    fn write_to(&mut self, mut writer: impl Write) -> io::Result<bool> {
        let before = self.done;
        while self.len() > 0 {
            match writer.write(&self.bytes[self.done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.done += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let moved = self.done > before;
        // Moving the rest up costs a copy; half empty is often enough to make that cheap.
        if self.done * 2 >= self.bytes.len() {
            self.bytes.drain(..self.done);
            self.done = 0;
        }
        Ok(moved)
    }
}

impl Dial {
    fn open(run_dir: &Path) -> io::Result<Self> {
        // Own descriptions would be better, but not every user can reopen a pipe's; the process that shares them with us
        // (a daemon that carries stdio) does not read or write them itself.
        let duplicate = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
        let (stdin, stdout) = (duplicate(io::stdin().as_fd())?, duplicate(io::stdout().as_fd())?);
        sys::set_nonblocking(&stdin)?;
        sys::set_nonblocking(&stdout)?;
        let socket = run_dir.join(place::CONTROL_SOCKET);
        let mut dial = Self {
            held: sys::hold(&socket).ok().filter(|_| sys::uid() == 0),
            socket,
            stdin,
            stdout,
            received: Vec::new(),
            out: Queue::default(),
            channels: HashMap::new(),
            stdin_open: true,
        };
        dial.out.push(MAGIC);
        Ok(dial)
    }

    /// Until the agent has closed stdin and every channel has ended, or stdout is gone.
    fn run(mut self) -> io::Result<()> {
        self.out.write_to(&self.stdout)?;
        while self.stdin_open || !self.channels.is_empty() || self.out.len() > 0 {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let full = self.out.len() >= OUT_CAP;
        let stuck = self.channels.values().any(|channel| channel.queue.len() >= QUEUE_CAP);
        let mut entries = vec![
            sys::poll_entry(Some(self.stdin.as_fd()), libc::POLLIN, self.stdin_open && !stuck),
            sys::poll_entry(Some(self.stdout.as_fd()), libc::POLLOUT, self.out.len() > 0),
        ];
        let numbers: Vec<u32> = self.channels.keys().copied().collect();
        entries.extend(numbers.iter().filter_map(|number| self.channels.get(number)).map(|channel| {
            let reads = if channel.speaks && !full { libc::POLLIN } else { 0 };
            let writes = if channel.queue.len() > 0 { libc::POLLOUT } else { 0 };
            sys::poll_entry(Some(channel.stream.as_fd()), reads | writes, reads | writes != 0)
        }));
        sys::poll(&mut entries, stuck.then_some(Duration::from_secs(1)));
        if entries[0].revents != 0 {
            self.read_stdin()?;
        }
        for (number, entry) in numbers.into_iter().zip(&entries[2..]) {
            self.serve(number, entry.revents);
        }
        self.out.write_to(&self.stdout).map(drop)
    }

    // ---- from the agent ----

    fn read_stdin(&mut self) -> io::Result<()> {
        let before = self.received.len();
        self.received.resize(before + MAX_DATA, 0);
        let result = (&self.stdin).read(&mut self.received[before..]);
        self.received.truncate(before + result.as_ref().copied().unwrap_or(0));
        match result {
            Ok(0) => self.hang_up(),
            Ok(_) => return self.take_messages(),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The agent is gone, and with it every reader of an answer.
    fn hang_up(&mut self) {
        self.stdin_open = false;
        self.channels.clear();
    }

    fn take_messages(&mut self) -> io::Result<()> {
        let received = std::mem::take(&mut self.received);
        let mut rest = received.as_slice();
        while let Some(start) = rest.first_chunk::<HEADER_LENGTH>() {
            let header = Header::parse(*start).map_err(io::Error::other)?;
            let Some(payload) = rest.get(HEADER_LENGTH..HEADER_LENGTH + header.length) else { break };
            self.take(header, payload);
            rest = &rest[HEADER_LENGTH + header.length..];
        }
        self.received = rest.to_vec();
        Ok(())
    }

    fn take(&mut self, header: Header, payload: &[u8]) {
        match header.op {
            Op::Open => self.open_channel(header.channel),
            Op::Reset => drop(self.channels.remove(&header.channel)),
            Op::Data | Op::Close => {
                // Of a channel that has just ended; the agent will hear of it.
                let Some(channel) = self.channels.get_mut(&header.channel) else { return };
                channel.ends |= header.op == Op::Close;
                if channel.queue.len() == 0 {
                    channel.moved = Instant::now();
                }
                channel.queue.push(payload);
                self.serve(header.channel, libc::POLLOUT);
            }
        }
    }

    /// Connects, to the supervisor alone: uid 0 in the job can put a socket of its own under the name at any moment, and
    /// would be told the task's secret.
    fn connect(&self) -> io::Result<UnixStream> {
        let held = self.held.as_ref().map(|held| PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())));
        let stream = UnixStream::connect(held.as_ref().unwrap_or(&self.socket))?;
        if self.socket.starts_with(place::RUN_DIR) && sys::peer_pid(&stream)? != 1 {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(stream)
    }

    fn open_channel(&mut self, number: u32) {
        if self.channels.len() >= CHANNELS_CAP || self.channels.contains_key(&number) {
            return self.tell(number, Op::Reset, &[]);
        }
        let connected = self.connect();
        match connected.and_then(|stream| stream.set_nonblocking(true).map(|()| stream)) {
            Ok(stream) => {
                let channel = Channel {
                    stream,
                    queue: Queue::default(),
                    moved: Instant::now(),
                    ends: false,
                    refuses: false,
                    speaks: true,
                };
                self.channels.insert(number, channel);
            }
            Err(_) => self.tell(number, Op::Reset, &[]),
        }
    }

    // ---- from the supervisor ----

    fn serve(&mut self, number: u32, events: libc::c_short) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        channel.write();
        let mut failed = channel.is_stuck();
        let mut buffer = Vec::new();
        if events & (libc::POLLIN | libc::POLLHUP) != 0 && channel.speaks && !failed {
            buffer.resize(MAX_DATA, 0);
            match channel.stream.read(&mut buffer) {
                Ok(count) => {
                    channel.speaks = count > 0;
                    buffer.truncate(count);
                    let op = if count > 0 { Op::Data } else { Op::Close };
                    self.tell(number, op, &buffer);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => failed = true,
            }
        }
        self.retire(number, failed);
    }

    fn retire(&mut self, number: u32, failed: bool) {
        // The supervisor never half-closes: when it has said all, the conversation is over.
        if failed || self.channels.get(&number).is_some_and(|channel| !channel.speaks) {
            self.channels.remove(&number);
        }
        if failed {
            self.tell(number, Op::Reset, &[]);
        }
    }

    fn tell(&mut self, channel: u32, op: Op, payload: &[u8]) {
        self.out.push(&Header { channel, op, length: payload.len() }.to_bytes());
        self.out.push(payload);
    }
}

impl Channel {
    /// A connection that takes no more may still have said why; it is read to its end.
    fn write(&mut self) {
        match self.queue.write_to(&self.stream) {
            Ok(true) => self.moved = Instant::now(),
            Ok(false) => {}
            Err(_) => self.refuses = true,
        }
        if self.refuses {
            self.queue = Queue::default();
        }
        if self.ends && !self.refuses && self.queue.len() == 0 {
            self.refuses = true;
            // It has ended by itself then.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    fn is_stuck(&self) -> bool {
        self.queue.len() >= QUEUE_CAP && self.moved.elapsed() >= STUCK
    }
}
