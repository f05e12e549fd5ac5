//! One activity, one connection.
//!
//! The supervisor lives among hostile processes: it may be stopped, or be no supervisor at all. So every wait has an
//! end, however the bytes trickle, and nothing is taken that is larger than what was asked for.

use std::cell::Cell;
use std::io::{self, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use navvy_protocol::frame::{self, FrameError, FrameKind, MAX_LENGTH};
use navvy_protocol::supervisor::{
    CONTINUATION_CAP, Continuation, Control, ExecStatus, Failure, FailureKind, Hello, NOTE_CAP, OLDEST_VERSION, Probe,
    Reply, Request, Sample, VERSION,
};

use super::Connect;

/// Cut for what is sent as `Data`.
pub(super) const DATA_CHUNK: usize = 256 << 10;
/// Names of files below one directory; far above what is looked for.
const GLOB_CAP: usize = 16 << 20;

/// How long the supervisor is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For an answer, whole.
    pub reply: Duration,
    /// Sending makes no headway at all for this long.
    pub send: Duration,
    /// A step that writes nothing is as silent as a supervisor that is gone: after this long the client asks for life.
    pub silence: Duration,
    /// For an answer to that. Where memory or processors are short, seconds pass; a stopped process never answers.
    pub proof: Duration,
    /// No single wait in the kernel is longer, so that the others can be kept.
    pub slice: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reply: Duration::from_secs(30),
            send: Duration::from_secs(60),
            silence: Duration::from_secs(5),
            proof: Duration::from_secs(20),
            slice: Duration::from_secs(1),
        }
    }
}

/// What a supervisor that has just failed us may still want to say about it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why an activity failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it broke in the midst.
    #[error("could not reach the supervisor")]
    Unreachable {
        /// What the system said.
        source: io::Error,
    },
    /// The supervisor is stopped, or the machine is very busy.
    #[error("the supervisor did not answer within {limit:?}")]
    TimedOut {
        /// How long it was waited for.
        limit: Duration,
    },
    /// The supervisor is too old for this agent.
    #[error("the supervisor speaks version {found}; this agent understands {OLDEST_VERSION} to {VERSION}")]
    Version {
        /// Its version of the protocol.
        found: u32,
    },
    /// The supervisor ended, or hung up.
    #[error("the supervisor closed the connection before the end of the activity")]
    Closed,
    /// A frame or message that the protocol does not have.
    #[error("the supervisor sent something that is not understood")]
    Protocol {
        /// What is wrong with it.
        source: FrameError,
    },
    /// A well-formed message, at the wrong time.
    #[error("the supervisor's answer does not fit what it was asked")]
    WrongReply,
    /// Carried out and failed: the job's affair more often than ours.
    #[error("{0}")]
    Failed(Failure),
    /// What was to be sent could not be read.
    #[error("could not read what was to be sent")]
    Source {
        /// Why it could not be read.
        source: io::Error,
    },
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
    limits: Limits,
}

impl Client {
    /// A client that reaches its supervisor by `connect`. Connects to nothing yet.
    pub fn new(connect: Arc<dyn Connect>) -> Self {
        Self { connect, limits: Limits::default() }
    }

    #[cfg(test)]
    pub(super) fn with_limits(connect: Arc<dyn Connect>, limits: Limits) -> Self {
        Self { connect, limits }
    }

    /// How long a lost supervisor is called before it counts as gone.
    pub(super) fn patience(&self) -> Duration {
        self.connect.patience()
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Greets and nothing more: proof that the supervisor is there and alive.
    pub fn ask_for_life(&self) -> Result<(), ClientError> {
        self.greet(&[], self.limits.proof).map(drop)
    }

    /// Asks what steps will find: the user's home and shell, and which of `programs` are on its path.
    pub fn probe(&self, user: Option<String>, programs: &[&str]) -> Result<Probe, ClientError> {
        let programs = programs.iter().map(|program| (*program).to_owned()).collect();
        match self.ask(&Request::Probe { user, programs })? {
            Reply::Probe(probe) => Ok(probe),
            other => Err(unexpected(other)),
        }
    }

    /// Makes a directory and its parents, owned by `user` (`None` is uid 0).
    pub fn make_directory(&self, path: &str, user: Option<String>) -> Result<(), ClientError> {
        done(self.ask(&Request::MakeDirectory { path: path.to_owned(), user })?)
    }

    /// What the environment uses at this moment.
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
        done(self.ask_within(&request, grace + self.limits.reply)?)
    }

    /// Writes a file with these permissions, as `user` (`None` is uid 0). One that is there is replaced.
    pub fn write(&self, path: &str, user: Option<String>, mode: u32, bytes: &[u8]) -> Result<(), ClientError> {
        let mut conversation = self.open(&Request::Write { path: path.to_owned(), user, mode })?;
        conversation.send_bytes(bytes)?;
        conversation.end_stream()?;
        done(conversation.reply()?)
    }

    /// Every exec of the environment.
    pub fn list(&self) -> Result<Vec<ExecStatus>, ClientError> {
        match self.ask(&Request::List)? {
            Reply::Execs { execs } => Ok(execs),
            other => Err(unexpected(other)),
        }
    }

    /// Holds the environment for this long, with a note for the agent that continues the task. A zero limit ends the hold.
    pub fn keep(&self, limit: Duration, note: &[u8]) -> Result<(), ClientError> {
        let for_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let mut conversation = self.open(&Request::Keep { for_ms })?;
        conversation.send_bytes(note)?;
        conversation.end_stream()?;
        done(conversation.reply()?)
    }

    /// Leaves a note with the supervisor for the agent that goes on with the task, should this one die. Holds nothing.
    pub fn remember(&self, note: &[u8]) -> Result<(), ClientError> {
        let mut conversation = self.open(&Request::Remember)?;
        conversation.send_bytes(note)?;
        conversation.end_stream()?;
        done(conversation.reply()?)
    }

    /// Has the environment take the call that continues a setup pipeline. The port on its loopback.
    pub fn offer_continuation(&self, key: &str) -> Result<u16, ClientError> {
        match self.ask(&Request::OfferContinuation { key: key.to_owned() })? {
            Reply::Listening { port } => Ok(port),
            other => Err(unexpected(other)),
        }
    }

    /// What that call brought, if it came.
    pub fn continuation(&self) -> Result<Option<Continuation>, ClientError> {
        let mut conversation = self.open(&Request::Continuation)?;
        let bytes = conversation.receive_stream(CONTINUATION_CAP)?;
        done(conversation.reply()?)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let parsed = frame::parse_message(FrameKind::Data, &bytes);
        parsed.map(Some).map_err(|source| ClientError::Protocol { source })
    }

    /// The note of an environment that is held, or that an agent has left behind.
    pub fn recall(&self) -> Result<Vec<u8>, ClientError> {
        let mut conversation = self.open(&Request::Recall)?;
        let note = conversation.receive_stream(NOTE_CAP)?;
        done(conversation.reply()?)?;
        Ok(note)
    }

    /// Matching paths below `root`. A root that cannot be read is an error.
    pub fn glob(&self, root: &str, patterns: &[&str], user: Option<String>) -> Result<Found, ClientError> {
        let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let mut conversation = self.open(&Request::Glob { root: root.to_owned(), patterns, user })?;
        let bytes = conversation.receive_stream(GLOB_CAP)?;
        let (unread, more_unread) = match conversation.reply()? {
            Reply::Found { unread, more_unread } => (unread, more_unread),
            other => return Err(unexpected(other)),
        };
        let paths = bytes.split(|b| *b == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect();
        Ok(Found { paths, unread, more_unread })
    }

    /// Unpacks the tar that `produce` writes. Returns entries and bytes.
    pub fn unpack<E>(
        &self,
        root: &str,
        user: Option<String>,
        produce: impl FnOnce(&mut dyn io::Write) -> Result<(), E>,
    ) -> Result<Result<(u64, u64), E>, ClientError> {
        let mut conversation = self.open(&Request::Unpack { root: root.to_owned(), user })?;
        let stalled = Cell::new(false);
        let data = DataWriter { stream: &conversation.stream, stalled: &stalled };
        let mut writer = io::BufWriter::with_capacity(DATA_CHUNK, data);
        let produced = produce(&mut writer).map(|()| writer.flush());
        drop(writer);
        if stalled.get() {
            return Err(ClientError::TimedOut { limit: self.limits.send });
        }
        match produced {
            // The other side hung up: its own words tell why, if it left any.
            Ok(Err(source)) => Err(conversation.last_words().unwrap_or(ClientError::Unreachable { source })),
            Ok(Ok(())) => {
                conversation.end_stream()?;
                match conversation.reply()? {
                    Reply::Unpacked { entries, bytes } => Ok(Ok((entries, bytes))),
                    other => Err(unexpected(other)),
                }
            }
            // A failure of the supervisor's makes the producer's writes fail first.
            Err(error) => match conversation.last_words() {
                Some(failed @ ClientError::Failed(_)) => Err(failed),
                _ => Ok(Err(error)),
            },
        }
    }

    /// One question, one answer.
    fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        self.ask_within(request, self.limits.reply)
    }

    fn ask_within(&self, request: &Request, limit: Duration) -> Result<Reply, ClientError> {
        let mut conversation = self.open(request)?;
        conversation.limit = limit;
        conversation.reply()
    }

    /// Connects, greets, and sends the request.
    pub(super) fn open(&self, request: &Request) -> Result<Conversation, ClientError> {
        let mut frame = Vec::with_capacity(512);
        frame::encode_message(&mut frame, FrameKind::Request, request).map_err(|error| {
            ClientError::Failed(Failure::new(FailureKind::Invalid, format!("the request is too large: {error}")))
        })?;
        self.greet(&frame, self.limits.reply)
    }

    /// Connects and greets; `more` goes out with the greeting.
    fn greet(&self, more: &[u8], limit: Duration) -> Result<Conversation, ClientError> {
        let unreachable = |source: io::Error| match is_timeout(&source) {
            true => ClientError::TimedOut { limit },
            false => ClientError::Unreachable { source },
        };
        let mut stream = self.connect.connect().map_err(unreachable)?;
        let hello = Hello::new(self.connect.secret().map(str::to_owned));
        let mut frames = Vec::with_capacity(256 + more.len());
        frame::encode_message(&mut frames, FrameKind::Hello, &hello).map_err(unreachable)?;
        frames.extend_from_slice(more);
        stream.set_read_timeout(Some(self.limits.slice)).map_err(unreachable)?;
        stream.set_write_timeout(Some(self.limits.send)).map_err(unreachable)?;
        stream.write_all(&frames).map_err(unreachable)?;
        let mut conversation = Conversation { stream, buffer: Vec::new(), limit };
        conversation.expect_hello()?;
        Ok(conversation)
    }
}

/// What a search in an environment has found.
#[derive(Debug, Default)]
pub struct Found {
    /// Relative to the root, as bytes.
    pub paths: Vec<Vec<u8>>,
    /// What could not be looked at, relative to the root: `PATH: why`.
    pub unread: Vec<String>,
    /// Further ones.
    pub more_unread: u64,
}

/// An open connection after the greeting.
pub(super) struct Conversation {
    pub(super) stream: UnixStream,
    pub(super) buffer: Vec<u8>,
    /// Time limit of the next wait.
    pub(super) limit: Duration,
}

impl Conversation {
    /// A second handle, for a thread that sends while another receives.
    pub(super) fn way_out(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

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
        self.receive_before(Instant::now() + self.limit)
    }

    fn receive_before(&mut self, deadline: Instant) -> Result<FrameKind, ClientError> {
        let limit = self.limit;
        frame::read(&mut Timed { stream: &self.stream, deadline }, &mut self.buffer)
            .map_err(|error| ClientError::from_frame(error, limit))?
            .ok_or(ClientError::Closed)
    }

    /// As `receive`, or `None` when not even the beginning of a frame came within `patience`.
    pub(super) fn receive_unless_silent(&mut self, patience: Duration) -> Result<Option<FrameKind>, ClientError> {
        let limit = self.limit;
        let mut start = [0; frame::HEADER_LENGTH];
        let mut waiting = Timed { stream: &self.stream, deadline: Instant::now() + patience };
        let count = match waiting.read(&mut start) {
            Ok(0) => return Err(ClientError::Closed),
            Ok(count) => count,
            Err(error) if is_timeout(&error) => return Ok(None),
            Err(error) => return Err(ClientError::from_frame(error.into(), limit)),
        };
        // Most headers come whole: what follows must not look at the clock for each of them.
        let rest = Timed { stream: &self.stream, deadline: Instant::now() + limit };
        frame::read(&mut start[..count].chain(rest), &mut self.buffer)
            .map_err(|error| ClientError::from_frame(error, limit))
    }

    pub(super) fn message<T: serde::de::DeserializeOwned>(&self, kind: FrameKind) -> Result<T, ClientError> {
        frame::parse_message(kind, &self.buffer).map_err(|source| ClientError::Protocol { source })
    }

    pub(super) fn reply(&mut self) -> Result<Reply, ClientError> {
        match self.receive()? {
            FrameKind::Reply => match self.message(FrameKind::Reply)? {
                Reply::Failed(failure) => Err(ClientError::Failed(failure)),
                reply => Ok(reply),
            },
            _ => Err(ClientError::WrongReply),
        }
    }

    /// What it says after it hung up in the midst of ours, if anything.
    pub(super) fn last_words(&mut self) -> Option<ClientError> {
        self.limit = LAST_WORDS;
        match self.reply() {
            Ok(_) => Some(ClientError::WrongReply),
            Err(failed @ ClientError::Failed(_)) => Some(failed),
            Err(_) => None,
        }
    }

    /// All bytes up to the empty `Data` frame, `cap` at most, within one limit.
    pub(super) fn receive_stream(&mut self, cap: usize) -> Result<Vec<u8>, ClientError> {
        let deadline = Instant::now() + self.limit;
        let mut bytes = Vec::new();
        loop {
            match self.receive_before(deadline)? {
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

    pub(super) fn end_stream(&mut self) -> Result<(), ClientError> {
        self.send(FrameKind::Data, &[])
    }

    fn send(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), ClientError> {
        let limit = self.limit;
        frame::write(&mut self.stream, kind, payload).map_err(|error| ClientError::from_frame(error.into(), limit))
    }

    pub(super) fn control(&mut self, control: &Control) -> Result<(), ClientError> {
        let limit = self.limit;
        frame::write_message(&mut self.stream, FrameKind::Control, control)
            .map_err(|error| ClientError::from_frame(error.into(), limit))
    }
}

/// Reads until a moment: bytes that come one by one do not move it.
struct Timed<'a> {
    stream: &'a UnixStream,
    deadline: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&mut &*self.stream).read(buffer) {
                Err(error) if is_timeout(&error) && Instant::now() < self.deadline => {}
                Ok(count) if count < buffer.len() && Instant::now() >= self.deadline => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                other => return other,
            }
        }
    }
}

/// Sends what is written as `Data` frames.
pub(super) struct DataWriter<'a> {
    pub(super) stream: &'a UnixStream,
    /// The other side takes nothing any more.
    pub(super) stalled: &'a Cell<bool>,
}

impl io::Write for DataWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = &bytes[..bytes.len().min(MAX_LENGTH - 1)];
        if !chunk.is_empty() {
            let sent = frame::write(&mut self.stream, FrameKind::Data, chunk);
            self.stalled.set(sent.as_ref().is_err_and(is_timeout));
            sent?;
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

pub(super) fn unexpected(reply: Reply) -> ClientError {
    match reply {
        Reply::Failed(failure) => ClientError::Failed(failure),
        _ => ClientError::WrongReply,
    }
}
