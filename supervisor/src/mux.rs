//! The supervisor's side of a multiplexed stream: its channels, each joined with one connection.
//!
//! Nothing blocks. Queues are bounded: while what goes out is full no connection is read; while a channel's queue is full
//! nothing more is taken from the stream. A channel whose queue has not moved for [`STUCK`] is reset, so that one step that
//! never reads its input cannot hold up the rest for ever.

use std::collections::HashMap;
use std::io::{self, Read as _, Write};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use navvy_protocol::mux::{HEADER_LENGTH, Header, MAX_DATA, MuxError, Op};

use crate::sys::{self, PollFd};

const STUCK: Duration = Duration::from_secs(30);
/// Bytes for one connection that it has not taken yet.
const QUEUE_CAP: usize = 256 << 10;
/// Bytes that go out beyond which no connection is read.
const OUT_CAP: usize = 256 << 10;
/// Far above what one agent opens at once.
const CHANNELS_CAP: usize = 256;

/// Where a new channel's connection comes from.
pub type Connect<'a> = &'a mut dyn FnMut() -> io::Result<UnixStream>;

/// All channels of a stream, and what waits to be written to it.
#[derive(Default)]
pub struct Channels {
    /// Read from the stream, not yet a whole message.
    received: Vec<u8>,
    pub out: Queue,
    channels: HashMap<u32, Channel>,
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
pub struct Queue {
    bytes: Vec<u8>,
    done: usize,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.bytes.len() - self.done
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes what the other side takes. True when something went.
    pub fn write_to(&mut self, mut writer: impl Write) -> io::Result<bool> {
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

impl Channels {
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// A channel's queue is full: what was received must wait.
    pub fn is_stuck(&self) -> bool {
        self.channels.values().any(|channel| channel.queue.len() >= QUEUE_CAP)
    }

    /// Bytes that were received and not taken yet.
    pub fn waiting(&self) -> usize {
        self.received.len()
    }

    /// Whoever spoke here is gone, and with it every reader of an answer. What goes out stays.
    pub fn drop_all(&mut self) {
        self.channels.clear();
        self.received.clear();
    }

    /// What poll is to wait for, beside the stream itself, and whose each entry is.
    pub fn poll_entries(&self) -> (Vec<u32>, Vec<PollFd>) {
        let full = self.out.len() >= OUT_CAP;
        let entry = |(number, channel): (&u32, &Channel)| {
            let reads = if channel.speaks && !full { libc::POLLIN } else { 0 };
            let writes = if channel.queue.len() > 0 { libc::POLLOUT } else { 0 };
            (*number, sys::poll_entry(Some(channel.stream.as_fd()), reads | writes, reads | writes != 0))
        };
        self.channels.iter().map(entry).unzip()
    }

    /// Moves what can be moved, after a poll.
    pub fn serve_all(&mut self, numbers: &[u32], entries: &[PollFd]) {
        for (number, entry) in numbers.iter().zip(entries) {
            self.serve(*number, entry.revents);
        }
    }

    // ---- from the agent ----

    pub fn push_received(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Carries out every whole message that was received.
    pub fn take_messages(&mut self, connect: Connect<'_>) -> Result<(), MuxError> {
        let received = std::mem::take(&mut self.received);
        let mut rest = received.as_slice();
        while let Some(start) = rest.first_chunk::<HEADER_LENGTH>() {
            let header = Header::parse(*start)?;
            let Some(payload) = rest.get(HEADER_LENGTH..HEADER_LENGTH + header.length) else { break };
            self.take(header, payload, connect);
            rest = &rest[HEADER_LENGTH + header.length..];
        }
        self.received = rest.to_vec();
        Ok(())
    }

    fn take(&mut self, header: Header, payload: &[u8], connect: Connect<'_>) {
        match header.op {
            Op::Open => self.open_channel(header.channel, connect),
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

    fn open_channel(&mut self, number: u32, connect: Connect<'_>) {
        if self.channels.len() >= CHANNELS_CAP || self.channels.contains_key(&number) {
            return self.tell(number, Op::Reset, &[]);
        }
        let connected = connect();
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
