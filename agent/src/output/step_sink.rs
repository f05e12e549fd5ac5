//! Puts a step's bytes where they belong and tells the task what happened.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use navvy_protocol::frame::OutputHeader;
use navvy_protocol::supervisor::Exited;
use tokio::sync::mpsc::UnboundedSender;

use super::step_log::{LogDigest, StepLog, name};
use crate::bus::Bus;
use crate::event::{Event, TaskRef};
use crate::supervisor::{FollowEnd, Sink};

/// How much of a step's output the view gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Every byte.
    All,
    /// The newest bytes, a few times a second: enough for a live line and for a failing step's last lines.
    Tail,
    Nothing,
}

/// Bytes of the tail, and the pause between two of them.
const TAIL_BYTES: usize = 8 << 10;
const TAIL_PAUSE: Duration = Duration::from_millis(100);

/// What a task hears of a running exec.
#[derive(Debug)]
pub enum StepSignal {
    Started,
    /// Its process ended; the digest is of what it had written by then.
    Exited {
        exited: Exited,
        digest: LogDigest,
    },
    /// Following it is over; the digest is of everything it ever wrote.
    Over {
        end: FollowEnd,
        digest: LogDigest,
    },
}

/// When a step last wrote something.
#[derive(Clone)]
pub struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last: Arc<AtomicU64>,
}

impl Default for Activity {
    fn default() -> Self {
        Self { start: Instant::now(), last: Arc::new(AtomicU64::new(0)) }
    }
}

impl Activity {
    pub fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    fn touch(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }
}

/// Who looks on.
pub struct Watch {
    pub bus: Bus,
    pub task: TaskRef,
    pub step: usize,
    pub feed: Feed,
}

pub struct StepSink {
    log: StepLog,
    watch: Watch,
    activity: Activity,
    signals: UnboundedSender<StepSignal>,
    tail: Vec<u8>,
    tail_stream: &'static str,
    tail_sent: Instant,
}

impl StepSink {
    pub fn new(log: StepLog, watch: Watch, activity: Activity, signals: UnboundedSender<StepSignal>) -> Self {
        Self { log, watch, activity, signals, tail: Vec::new(), tail_stream: "stdout", tail_sent: Instant::now() }
    }

    /// Following is over.
    pub fn over(mut self, end: FollowEnd) {
        self.send_tail();
        if let Err(error) = self.log.seal() {
            tracing::warn!(log = %self.log.path().display(), %error, "A log could not be sealed.");
        }
        self.signals.send(StepSignal::Over { end, digest: self.log.digest() }).ok();
    }

    fn show(&mut self, stream: &'static str, bytes: &[u8]) {
        match self.watch.feed {
            Feed::Nothing => {}
            Feed::All => self.send_output(stream, bytes.to_vec()),
            Feed::Tail => self.keep_tail(stream, bytes),
        }
    }

    fn keep_tail(&mut self, stream: &'static str, bytes: &[u8]) {
        let newest = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (self.tail.len() + newest.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus.min(self.tail.len()));
        self.tail.extend_from_slice(newest);
        self.tail_stream = stream;
        if self.tail_sent.elapsed() >= TAIL_PAUSE {
            self.send_tail();
        }
    }

    fn send_tail(&mut self) {
        self.tail_sent = Instant::now();
        if !self.tail.is_empty() {
            let bytes = std::mem::take(&mut self.tail);
            self.send_output(self.tail_stream, bytes);
        }
    }

    fn send_output(&self, stream: &str, bytes: Vec<u8>) {
        let Watch { bus, task, step, .. } = &self.watch;
        bus.send(Event::Output { task: task.clone(), step: *step, stream: stream.to_owned(), bytes });
    }
}

impl Sink for StepSink {
    fn started(&mut self) {
        self.signals.send(StepSignal::Started).ok();
    }

    fn output(&mut self, header: OutputHeader, bytes: &[u8]) -> io::Result<()> {
        self.activity.touch();
        self.log.append(header.stream, header.nanoseconds, bytes)?;
        self.show(name(header.stream), bytes);
        Ok(())
    }

    fn exited(&mut self, exited: Exited) {
        self.send_tail();
        // The log itself is unbuffered and already written; a record that does not fit stays for the seal.
        self.log.flush().ok();
        self.signals.send(StepSignal::Exited { exited, digest: self.log.digest() }).ok();
    }
}
