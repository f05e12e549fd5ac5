//! One connection of the control socket: frames in, frames out, blocking or not.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use navvy_protocol::frame::{self, FrameError, FrameKind, HEADER_LENGTH};
use navvy_protocol::supervisor::{Failure, Reply};
use serde::Serialize;

use super::presence::Presence;

const READ_BYTES: usize = 4 << 10;
/// A buffer that has grown past this for one large frame is given back.
const LARGE: usize = 32 << 10;

/// A caller that neither sends nor hangs up for this long is not worth the thread.
const LINGER: Duration = Duration::from_secs(5);

pub struct Connection {
    stream: UnixStream,
    /// Received, not yet taken.
    received: Vec<u8>,
    taken: usize,
    /// Small frames that wait to be sent.
    outbox: Vec<u8>,
    presence: Presence,
}

/// What a look at the socket brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Bytes,
    Nothing,
    End,
}

impl Connection {
    pub fn new(stream: UnixStream, presence: Presence) -> Self {
        Self { stream, received: Vec::new(), taken: 0, outbox: Vec::new(), presence }
    }

    /// It is one of the agent's, and counts as one from here on.
    pub fn admit(&mut self, presence: Presence) {
        self.presence = presence;
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads once.
    pub fn receive(&mut self) -> io::Result<Arrival> {
        self.received.drain(..self.taken);
        self.taken = 0;
        if self.received.is_empty() && self.received.capacity() > LARGE {
            self.received = Vec::new();
        }
        let before = self.received.len();
        let missing = self.frame_length().ok().flatten().map_or(0, |length| length.saturating_sub(before));
        self.received.resize(before + missing.max(READ_BYTES), 0);
        let result = self.stream.read(&mut self.received[before..]);
        self.received.truncate(before + result.as_ref().copied().unwrap_or(0));
        match result {
            Ok(0) => Ok(Arrival::End),
            Ok(_) => Ok(Arrival::Bytes),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(Arrival::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    fn frame_length(&self) -> Result<Option<usize>, FrameError> {
        let Some(header) = self.received[self.taken..].first_chunk::<HEADER_LENGTH>() else { return Ok(None) };
        frame::parse_header(*header).map(|(_, length)| Some(HEADER_LENGTH + length))
    }

    /// The next whole frame among the received bytes: its kind and where its payload is.
    pub fn next_frame(&mut self) -> Result<Option<(FrameKind, Range<usize>)>, FrameError> {
        let Some(header) = self.received[self.taken..].first_chunk::<HEADER_LENGTH>() else { return Ok(None) };
        let (kind, length) = frame::parse_header(*header)?;
        let start = self.taken + HEADER_LENGTH;
        if self.received.len() < start + length {
            return Ok(None);
        }
        self.taken = start + length;
        Ok(Some((kind, start..start + length)))
    }

    pub fn payload(&self, place: Range<usize>) -> &[u8] {
        &self.received[place]
    }

    /// Waits for a frame; what waits to be sent goes out first. `None` at the end of the stream.
    pub fn wait_frame(&mut self) -> Result<Option<(FrameKind, Range<usize>)>, FrameError> {
        loop {
            if let Some(frame) = self.next_frame()? {
                return Ok(Some(frame));
            }
            self.flush()?;
            match self.receive()? {
                Arrival::Bytes => {}
                Arrival::Nothing => return Err(FrameError::Io(io::ErrorKind::TimedOut.into())),
                Arrival::End => return Ok(None),
            }
        }
    }

    pub fn push(&mut self, kind: FrameKind, message: &impl Serialize) {
        if frame::encode_message(&mut self.outbox, kind, message).is_err() {
            let failure = Failure::new(
                navvy_protocol::supervisor::FailureKind::Other,
                "the answer is larger than a frame may be",
            );
            // This one is short.
            let _ = frame::encode_message(&mut self.outbox, kind, &Reply::Failed(failure));
        }
    }

    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.outbox.extend_from_slice(bytes);
    }

    pub fn has_outbox(&self) -> bool {
        !self.outbox.is_empty()
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.outbox)?;
        self.outbox.clear();
        Ok(())
    }

    /// Sends the outbox and then these slices, as far as the socket takes them. How many bytes of the slices went.
    pub fn send_with(&mut self, slices: [IoSlice<'_>; 2]) -> io::Result<usize> {
        let ours = self.outbox.len();
        let sent = self.stream.write_vectored(&[IoSlice::new(&self.outbox), slices[0], slices[1]])?;
        self.outbox.drain(..sent.min(ours));
        Ok(sent.saturating_sub(ours))
    }

    /// Sends the reply and ends the conversation.
    pub fn answer(mut self, reply: &Reply) {
        self.push(FrameKind::Reply, reply);
        // If the caller has gone, an error concerns no one.
        let _ = self.flush();
    }

    /// As [`Connection::answer`], to a caller that may be in the midst of sending a stream: what it still sends is read
    /// and dropped, so that it gets to the answer instead of a broken pipe.
    pub fn answer_and_listen(mut self, reply: &Reply) {
        self.push(FrameKind::Reply, reply);
        let _ = self.flush();
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        let _ = self.stream.set_read_timeout(Some(LINGER));
        self.received.resize(LARGE, 0);
        while self.stream.read(&mut self.received).is_ok_and(|count| count > 0) {}
    }

    /// What was received and not taken, for a child that reads on from the stream itself.
    pub fn take_received(&mut self) -> Vec<u8> {
        let rest = self.received.split_off(self.taken);
        self.received = Vec::new();
        self.taken = 0;
        rest
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
