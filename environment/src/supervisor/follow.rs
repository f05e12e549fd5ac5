//! Following one exec from its start to the end of the last thing it left running.
//!
//! ```text
//!            cut                        cut
//! Exec ──────────▶ Attach(offset) ◀──────────┐
//!   │ Started          │                     │
//!   ▼                  ▼                     │
//! output … ─▶ Exited ─▶ late output … ─▶ Ended
//! ```
//!
//! A lost connection neither ends nor repeats the step: the supervisor keeps what was not acknowledged, and refuses
//! to start the same id twice. A step that is silent may have nothing to say, or a supervisor that was stopped: then a
//! second connection asks whether anybody is there. Bytes go to the [`Sink`] in order, each exactly once; only then are they
//! acknowledged.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use navvy_protocol::frame::{FrameKind, OutputHeader};
use navvy_protocol::supervisor::{Control, Exec, Exited, FailureKind, Reply, Request};

use super::client::{Client, ClientError, Conversation};

/// Between two calls.
const REATTACH_PAUSE: Duration = Duration::from_millis(100);
/// A connection that held this long was no mere greeting, even if nothing new came over it.
const STEADY: Duration = Duration::from_secs(1);
/// Acknowledge at least this often, so that the supervisor's buffer never fills while we keep up.
const ACK_EVERY: u64 = 128 << 10;

/// Takes what an exec produces, in order.
pub trait Sink: Send {
    /// The exec's process runs. Called once, before any output.
    fn started(&mut self);
    /// Must have put the bytes away when it returns.
    fn output(&mut self, header: OutputHeader, bytes: &[u8]) -> io::Result<()>;
    /// The exec's own process ended; everything it had written by then came before.
    fn exited(&mut self, exited: Exited);
    /// What another process must know to go on exactly behind the bytes that came so far. The supervisor keeps it with each
    /// acknowledgement.
    fn note(&self) -> Option<String> {
        None
    }
}

/// How following ended.
#[derive(Debug)]
pub enum FollowEnd {
    /// Nothing of it runs any more and all output came.
    Ended,
    /// The caller has given it up, by [`Abandon::set`].
    Abandoned,
    /// It could not be started: the supervisor says why.
    Refused(navvy_protocol::supervisor::Failure),
    /// The supervisor is gone or talks nonsense.
    Lost(ClientError),
    /// Its output could not be put away.
    Sink(io::Error),
}

/// Lets a caller give a follower up.
#[derive(Clone, Default)]
pub struct Abandon(Arc<AtomicBool>);

impl Abandon {
    /// Lets the follower end with [`FollowEnd::Abandoned`], within the time of one silence.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Has [`Self::set`] been called?
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Starts `exec` and stays with it. Blocks its thread until the end.
pub fn follow(client: &Client, exec: Exec, sink: &mut dyn Sink, abandon: &Abandon) -> FollowEnd {
    let follower = Follower::new(client, &exec, 0, sink, abandon);
    let start = Request::Exec(exec);
    follower.stay(&start, |follower, start| follower.converse(start))
}

/// Goes on with an exec that another process has followed up to `offset`, or had not started yet: then it is started. The
/// supervisor starts it once, whoever asks. Blocks its thread until the end.
pub fn follow_on(client: &Client, exec: Exec, offset: u64, sink: &mut dyn Sink, abandon: &Abandon) -> FollowEnd {
    let follower = Follower::new(client, &exec, offset, sink, abandon);
    let start = Request::Exec(exec);
    follower.stay(&start, |follower, start| match follower.call_again(start) {
        // What the other process had asked for came in between.
        Pass::End(FollowEnd::Refused(failure)) if failure.kind == FailureKind::Duplicate => follower.call_again(start),
        other => other,
    })
}

struct Follower<'a> {
    client: &'a Client,
    id: String,
    /// Bytes that the sink has.
    offset: u64,
    acked: u64,
    started: bool,
    exited: bool,
    sink: &'a mut dyn Sink,
    abandon: &'a Abandon,
}

/// How one connection ended.
enum Pass {
    End(FollowEnd),
    /// `alive`: it brought something new, or held for a while. A greeting alone proves nothing: who only ever greets
    /// and hangs up must not keep us for ever.
    Broken {
        error: ClientError,
        alive: bool,
    },
}

impl<'a> Follower<'a> {
    fn new(client: &'a Client, exec: &Exec, offset: u64, sink: &'a mut dyn Sink, abandon: &'a Abandon) -> Self {
        let id = exec.id.clone();
        Self { client, id, offset, acked: offset, started: false, exited: false, sink, abandon }
    }

    fn stay(mut self, start: &Request, first: impl FnOnce(&mut Self, &Request) -> Pass) -> FollowEnd {
        let mut outcome = first(&mut self, start);
        let mut lost_at = Instant::now();
        loop {
            let (error, alive) = match outcome {
                Pass::End(end) => return end,
                Pass::Broken { error, alive } => (error, alive),
            };
            if alive {
                lost_at = Instant::now();
            }
            if self.abandon.is_set() {
                return FollowEnd::Abandoned;
            }
            if lost_at.elapsed() > self.client.patience() {
                return FollowEnd::Lost(error);
            }
            if !alive {
                std::thread::sleep(REATTACH_PAUSE);
            }
            outcome = self.call_again(start);
        }
    }

    fn call_again(&mut self, start: &Request) -> Pass {
        let attach = Request::Attach { exec: self.id.clone(), offset: self.offset, note: self.sink.note() };
        match self.converse(&attach) {
            // The first request never arrived: it is safe to send it again, the id is started once at most.
            Pass::End(FollowEnd::Refused(failure)) if failure.kind == FailureKind::NoSuchExec && !self.started => {
                self.converse(start)
            }
            other => other,
        }
    }

    fn converse(&mut self, request: &Request) -> Pass {
        let mut conversation = match self.client.open(request) {
            Ok(conversation) => conversation,
            Err(ClientError::Failed(failure)) => return Pass::End(FollowEnd::Refused(failure)),
            Err(error) if error.is_connection() => return Pass::Broken { error, alive: false },
            Err(error) => return Pass::End(FollowEnd::Lost(error)),
        };
        let (opened, before) = (Instant::now(), self.news());
        loop {
            match self.one_frame(&mut conversation) {
                Ok(None) if self.abandon.is_set() => return Pass::End(FollowEnd::Abandoned),
                Ok(None) => {}
                Ok(Some(end)) => return Pass::End(end),
                Err(error) if error.is_connection() => {
                    let held = opened.elapsed() >= STEADY && !matches!(error, ClientError::TimedOut { .. });
                    let alive = held || self.news() != before;
                    return Pass::Broken { error, alive };
                }
                Err(error) => return Pass::End(FollowEnd::Lost(error)),
            }
        }
    }

    /// Changes whenever the supervisor has sent something new.
    fn news(&self) -> (u64, bool, bool) {
        (self.offset, self.started, self.exited)
    }

    fn one_frame(&mut self, conversation: &mut Conversation) -> Result<Option<FollowEnd>, ClientError> {
        match conversation.receive_unless_silent(self.client.limits().silence)? {
            None => Ok(self.ask_for_life()),
            Some(FrameKind::Output) => match self.output(conversation)? {
                Ok(()) => Ok(None),
                Err(error) => Ok(Some(FollowEnd::Sink(error))),
            },
            Some(FrameKind::Reply) => {
                let reply = conversation.message(FrameKind::Reply)?;
                self.reply(reply, conversation)
            }
            Some(_) => Err(ClientError::WrongReply),
        }
    }

    /// The end, if the supervisor is not there.
    fn ask_for_life(&self) -> Option<FollowEnd> {
        if self.abandon.is_set() {
            // The answer no longer matters.
            return Some(FollowEnd::Abandoned);
        }
        match self.client.ask_for_life() {
            Ok(()) | Err(ClientError::Failed(_)) => None,
            // The way to it is broken: then our own connection breaks, too, or it lives.
            Err(ClientError::Unreachable { .. } | ClientError::Closed) => None,
            Err(error) => Some(FollowEnd::Lost(error)),
        }
    }

    fn output(&mut self, conversation: &mut Conversation) -> Result<io::Result<()>, ClientError> {
        let (mut header, mut bytes) =
            OutputHeader::split(&conversation.buffer).map_err(|source| ClientError::Protocol { source })?;
        // What came twice around a cut is dropped; a gap would be a lost byte, and so a broken promise.
        if header.offset > self.offset {
            return Err(ClientError::WrongReply);
        }
        let known = usize::try_from(self.offset - header.offset).unwrap_or(usize::MAX);
        bytes = bytes.get(known..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(Ok(()));
        }
        header.offset = self.offset;
        if let Err(error) = self.sink.output(header, bytes) {
            return Ok(Err(error));
        }
        self.offset += bytes.len() as u64;
        if self.offset - self.acked >= ACK_EVERY {
            self.acknowledge(conversation)?;
        }
        Ok(Ok(()))
    }

    fn reply(&mut self, reply: Reply, conversation: &mut Conversation) -> Result<Option<FollowEnd>, ClientError> {
        match reply {
            Reply::Started { .. } => {
                if !self.started {
                    self.started = true;
                    self.sink.started();
                }
                Ok(None)
            }
            Reply::Exited(exited) => {
                self.acknowledge(conversation)?;
                if !self.exited {
                    self.exited = true;
                    self.sink.exited(exited);
                }
                Ok(None)
            }
            Reply::Ended { output } if output <= self.offset => {
                // The ending may race with the supervisor's; what counts is that we have everything.
                self.acknowledge(conversation).ok();
                Ok(Some(FollowEnd::Ended))
            }
            Reply::Failed(failure) => Ok(Some(FollowEnd::Refused(failure))),
            _ => Err(ClientError::WrongReply),
        }
    }

    fn acknowledge(&mut self, conversation: &mut Conversation) -> Result<(), ClientError> {
        if self.acked < self.offset {
            conversation.control(&Control::Ack { offset: self.offset, note: self.sink.note() })?;
            self.acked = self.offset;
        }
        Ok(())
    }
}
