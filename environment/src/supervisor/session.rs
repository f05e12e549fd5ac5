//! A person's exec: input goes in, output comes out as it is, and its end is the session's.
//!
//! Nothing of it is kept: output is acknowledged as soon as it is handed over, and a lost connection ends the session.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use navvy_protocol::frame::{self, FrameKind, OutputHeader, Stream};
use navvy_protocol::supervisor::{Control, Exec, Exited, Reply, Request};

use super::client::{Client, ClientError, Conversation};

/// Cut for what is typed or piped in.
const INPUT_CHUNK: usize = 64 << 10;

/// A started exec, to be followed by [`Session::run`].
pub struct Session {
    client: Client,
    conversation: Conversation,
    way_in: WayIn,
}

/// Where input and changes of the terminal's size go. Cheap to clone.
#[derive(Clone)]
pub struct WayIn(Arc<Mutex<UnixStream>>);

impl Client {
    /// Starts `exec` for a person.
    pub fn session(&self, exec: Exec) -> Result<Session, ClientError> {
        let conversation = self.open(&Request::Exec(exec))?;
        let way_in = conversation.way_out().map_err(|source| ClientError::Unreachable { source })?;
        Ok(Session { client: self.clone(), conversation, way_in: WayIn(Arc::new(Mutex::new(way_in))) })
    }
}

impl WayIn {
    /// Sends what was typed or piped in.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.chunks(INPUT_CHUNK).try_for_each(|chunk| frame::write(&mut *stream, FrameKind::Data, chunk))
    }

    /// There is no more input.
    pub fn end(&self) -> io::Result<()> {
        frame::write(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), FrameKind::Data, &[])
    }

    /// Tells the exec's terminal its new size, in characters.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        self.control(&Control::Resize { columns, rows })
    }

    fn control(&self, control: &Control) -> io::Result<()> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frame::write_message(&mut *stream, FrameKind::Control, control)
    }
}

impl Session {
    /// The way in for another thread, while this one runs the session.
    pub fn way_in(&self) -> WayIn {
        self.way_in.clone()
    }

    /// Hands all output to `show` until the exec's own process ends.
    pub fn run(mut self, mut show: impl FnMut(Stream, &[u8]) -> io::Result<()>) -> Result<Exited, ClientError> {
        loop {
            let silence = self.client.limits().silence;
            let Some(kind) = self.conversation.receive_unless_silent(silence)? else {
                // A person may think for as long as they like; a supervisor that does not answer has gone.
                self.client.ask_for_life()?;
                continue;
            };
            match kind {
                FrameKind::Output => self.output(&mut show)?,
                FrameKind::Reply => match self.conversation.message(FrameKind::Reply)? {
                    Reply::Started { .. } => {}
                    Reply::Exited(exited) => return Ok(exited),
                    Reply::Failed(failure) => return Err(ClientError::Failed(failure)),
                    _ => return Err(ClientError::WrongReply),
                },
                _ => return Err(ClientError::WrongReply),
            }
        }
    }

    fn output(&mut self, show: &mut impl FnMut(Stream, &[u8]) -> io::Result<()>) -> Result<(), ClientError> {
        let (header, bytes) =
            OutputHeader::split(&self.conversation.buffer).map_err(|source| ClientError::Protocol { source })?;
        let offset = header.offset.checked_add(bytes.len() as u64).ok_or(ClientError::WrongReply)?;
        // The person who watched may have gone; the exec continues to its end.
        show(header.stream, bytes).ok();
        self.way_in.control(&Control::Ack { offset, note: None }).map_err(|source| ClientError::Unreachable { source })
    }
}
