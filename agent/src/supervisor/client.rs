//! One activity, one connection.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use navvy_protocol::frame::{self, FrameError, FrameKind, MAX_LENGTH};
use navvy_protocol::supervisor::{
    Control, Failure, FailureKind, Hello, NOTE_CAP, OLDEST_VERSION, Probe, Reply, Request, Sample, VERSION,
};

use super::Connect;

/// A short activity that does not answer within this is given up.
const REPLY_LIMIT: Duration = Duration::from_secs(30);
/// Cut for what is sent as `Data`.
const DATA_CHUNK: usize = 256 << 10;

/// Why an activity came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("could not reach the supervisor")]
    Unreachable { source: io::Error },
    #[error("the supervisor did not answer within {limit:?}")]
    TimedOut { limit: Duration },
    #[error("the supervisor speaks version {found}; this agent understands {OLDEST_VERSION} to {VERSION}")]
    Version { found: u32 },
    #[error("the supervisor closed the connection before the end of the activity")]
    Closed,
    #[error("the supervisor sent something that is not understood")]
    Protocol { source: FrameError },
    #[error("the supervisor answered with something else than was asked")]
    WrongReply,
    /// Carried out and failed: the job's affair more often than ours.
    #[error("{0}")]
    Failed(Failure),
    /// What was to be sent could not be read.
    #[error("could not read what was to be sent")]
    Source { source: io::Error },
}

impl ClientError {
    pub(super) fn from_frame(error: FrameError, limit: Duration) -> Self {
        match error {
            FrameError::Io(error) if is_timeout(&error) => Self::TimedOut { limit },
            FrameError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            FrameError::Io(source) => Self::Unreachable { source },
            source => Self::Protocol { source },
        }
    }

    /// What the supervisor itself said, if it said anything.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    /// The connection is at fault, not the request: another one may do.
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Closed | Self::TimedOut { .. })
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A supervisor that can be asked. Cheap to clone; every call is a connection of its own.
#[derive(Clone)]
pub struct Client {
    connect: Arc<dyn Connect>,
}

impl Client {
    pub fn new(connect: Arc<dyn Connect>) -> Self {
        Self { connect }
    }

    pub fn probe(&self, user: Option<String>, programs: &[&str]) -> Result<Probe, ClientError> {
        let programs = programs.iter().map(|program| (*program).to_owned()).collect();
        match self.ask(&Request::Probe { user, programs })? {
            Reply::Probe(probe) => Ok(probe),
            other => Err(unexpected(other)),
        }
    }

    pub fn make_directory(&self, path: &str, user: Option<String>) -> Result<(), ClientError> {
        done(self.ask(&Request::MakeDirectory { path: path.to_owned(), user })?)
    }

    pub fn sample(&self) -> Result<Sample, ClientError> {
        match self.ask(&Request::Sample)? {
            Reply::Sample(sample) => Ok(sample),
            other => Err(unexpected(other)),
        }
    }

    /// Ends an exec and everything it started. Takes up to `grace` and a moment more.
    pub fn stop(&self, exec: &str, grace: Duration) -> Result<(), ClientError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Stop { exec: exec.to_owned(), grace_ms };
        done(self.ask_within(&request, grace + REPLY_LIMIT)?)
    }

    pub fn write(&self, path: &str, user: Option<String>, mode: u32, bytes: &[u8]) -> Result<(), ClientError> {
        let mut conversation = self.open(&Request::Write { path: path.to_owned(), user, mode })?;
        conversation.send_bytes(bytes)?;
        conversation.end_stream()?;
        done(conversation.reply()?)
    }

    /// Holds the environment for this long, with a note for whoever goes on; nothing ends the holding.
    pub fn keep(&self, limit: Duration, note: &[u8]) -> Result<(), ClientError> {
        let for_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let mut conversation = self.open(&Request::Keep { for_ms })?;
        conversation.send_bytes(note)?;
        conversation.end_stream()?;
        done(conversation.reply()?)
    }

    /// The note of an environment that is held.
    pub fn recall(&self) -> Result<Vec<u8>, ClientError> {
        let mut conversation = self.open(&Request::Recall)?;
        let note = conversation.receive_stream(NOTE_CAP)?;
        done(conversation.reply()?)?;
        Ok(note)
    }

    /// Matching paths below `root`, relative to it, as bytes.
    pub fn glob(&self, root: &str, patterns: &[&str], user: Option<String>) -> Result<Vec<Vec<u8>>, ClientError> {
        let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let mut conversation = self.open(&Request::Glob { root: root.to_owned(), patterns, user })?;
        let bytes = conversation.receive_stream(16 << 20)?;
        done(conversation.reply()?)?;
        Ok(bytes.split(|b| *b == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect())
    }

    /// Unpacks the tar that `produce` writes. Returns entries and bytes.
    pub fn unpack<E>(
        &self,
        root: &str,
        user: Option<String>,
        produce: impl FnOnce(&mut dyn io::Write) -> Result<(), E>,
    ) -> Result<Result<(u64, u64), E>, ClientError> {
        let mut conversation = self.open(&Request::Unpack { root: root.to_owned(), user })?;
        let mut writer = io::BufWriter::with_capacity(DATA_CHUNK, DataWriter { stream: &conversation.stream });
        let produced = produce(&mut writer).map(|()| writer.flush());
        drop(writer);
        match produced {
            // The other side hung up: its own words tell why, if it left any.
            Ok(Err(source)) => Err(conversation.reply().map_or_else(
                |_| ClientError::Unreachable { source },
                |reply| match reply {
                    Reply::Failed(failure) => ClientError::Failed(failure),
                    _ => ClientError::WrongReply,
                },
            )),
            Ok(Ok(())) => {
                conversation.end_stream()?;
                match conversation.reply()? {
                    Reply::Unpacked { entries, bytes } => Ok(Ok((entries, bytes))),
                    other => Err(unexpected(other)),
                }
            }
            Err(error) => {
                // A failure of the supervisor's makes the producer's writes fail first.
                conversation.stream.set_read_timeout(Some(Duration::from_secs(1))).ok();
                match conversation.reply() {
                    Err(ClientError::Failed(failure)) => Err(ClientError::Failed(failure)),
                    _ => Ok(Err(error)),
                }
            }
        }
    }

    /// One question, one answer.
    fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        self.ask_within(request, REPLY_LIMIT)
    }

    fn ask_within(&self, request: &Request, limit: Duration) -> Result<Reply, ClientError> {
        self.open_within(request, Some(limit))?.reply()
    }

    fn open(&self, request: &Request) -> Result<Conversation, ClientError> {
        self.open_within(request, Some(REPLY_LIMIT))
    }

    /// Connects, greets, and sends the request; `limit` bounds every later read.
    pub(super) fn open_within(&self, request: &Request, limit: Option<Duration>) -> Result<Conversation, ClientError> {
        let mut stream = self.connect.connect().map_err(|source| ClientError::Unreachable { source })?;
        let hello = Hello::new(self.connect.secret().map(str::to_owned));
        let mut frames = Vec::with_capacity(512);
        let encoded = frame::encode_message(&mut frames, FrameKind::Hello, &hello)
            .and_then(|()| frame::encode_message(&mut frames, FrameKind::Request, request));
        encoded.map_err(|error| {
            ClientError::Failed(Failure::new(FailureKind::Invalid, format!("the request is too large: {error}")))
        })?;
        stream.set_read_timeout(Some(REPLY_LIMIT)).map_err(|source| ClientError::Unreachable { source })?;
        stream.write_all(&frames).map_err(|source| ClientError::Unreachable { source })?;
        let mut conversation = Conversation { stream, buffer: Vec::new(), limit: REPLY_LIMIT };
        conversation.expect_hello()?;
        conversation.stream.set_read_timeout(limit).map_err(|source| ClientError::Unreachable { source })?;
        conversation.limit = limit.unwrap_or(Duration::MAX);
        Ok(conversation)
    }
}

/// An open connection after the greeting.
pub(super) struct Conversation {
    pub(super) stream: UnixStream,
    pub(super) buffer: Vec<u8>,
    limit: Duration,
}

impl Conversation {
    fn expect_hello(&mut self) -> Result<(), ClientError> {
        match self.receive()? {
            FrameKind::Hello => {
                let hello: Hello = self.message(FrameKind::Hello)?;
                if hello.version < OLDEST_VERSION {
                    return Err(ClientError::Version { found: hello.version });
                }
                Ok(())
            }
            FrameKind::Reply => Err(unexpected(self.message(FrameKind::Reply)?)),
            _ => Err(ClientError::WrongReply),
        }
    }

    /// Receives one frame; its payload is in `buffer`.
    pub(super) fn receive(&mut self) -> Result<FrameKind, ClientError> {
        let limit = self.limit;
        frame::read(&mut self.stream, &mut self.buffer)
            .map_err(|error| ClientError::from_frame(error, limit))?
            .ok_or(ClientError::Closed)
    }

    pub(super) fn message<T: serde::de::DeserializeOwned>(&self, kind: FrameKind) -> Result<T, ClientError> {
        frame::parse_message(kind, &self.buffer).map_err(|source| ClientError::Protocol { source })
    }

    fn reply(&mut self) -> Result<Reply, ClientError> {
        match self.receive()? {
            FrameKind::Reply => match self.message(FrameKind::Reply)? {
                Reply::Failed(failure) => Err(ClientError::Failed(failure)),
                reply => Ok(reply),
            },
            _ => Err(ClientError::WrongReply),
        }
    }

    /// All bytes up to the empty `Data` frame, `cap` at most.
    fn receive_stream(&mut self, cap: usize) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        loop {
            match self.receive()? {
                FrameKind::Data if self.buffer.is_empty() => return Ok(bytes),
                FrameKind::Data if bytes.len() + self.buffer.len() > cap => return Err(ClientError::WrongReply),
                FrameKind::Data => bytes.extend_from_slice(&self.buffer),
                FrameKind::Reply => return Err(unexpected(self.message(FrameKind::Reply)?)),
                _ => return Err(ClientError::WrongReply),
            }
        }
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        for chunk in bytes.chunks(DATA_CHUNK) {
            self.send(FrameKind::Data, chunk)?;
        }
        Ok(())
    }

    fn end_stream(&mut self) -> Result<(), ClientError> {
        self.send(FrameKind::Data, &[])
    }

    fn send(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), ClientError> {
        frame::write(&mut self.stream, kind, payload).map_err(|source| ClientError::Unreachable { source })
    }

    pub(super) fn control(&mut self, control: &Control) -> Result<(), ClientError> {
        frame::write_message(&mut self.stream, FrameKind::Control, control)
            .map_err(|source| ClientError::Unreachable { source })
    }
}

/// Sends what is written as `Data` frames.
struct DataWriter<'a> {
    stream: &'a UnixStream,
}

impl io::Write for DataWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = &bytes[..bytes.len().min(MAX_LENGTH - 1)];
        if !chunk.is_empty() {
            frame::write(&mut self.stream, FrameKind::Data, chunk)?;
        }
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn done(reply: Reply) -> Result<(), ClientError> {
    match reply {
        Reply::Done => Ok(()),
        other => Err(unexpected(other)),
    }
}

fn unexpected(reply: Reply) -> ClientError {
    match reply {
        Reply::Failed(failure) => ClientError::Failed(failure),
        _ => ClientError::WrongReply,
    }
}
