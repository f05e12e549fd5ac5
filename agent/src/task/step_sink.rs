//! Puts a step's bytes where they belong and tells the task what happened.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use navvy_environment::supervisor::{FollowEnd, Sink};
use navvy_job::event::{Event, TaskRef};
use navvy_job::figures;
use navvy_output::mask::{MaskStream, MaskedIn};
use navvy_output::{LogDigest, StepLog, stream_name};
use navvy_protocol::frame::{OutputHeader, Stream};
use navvy_protocol::supervisor::Exited;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::daemon_hint::{DaemonHint, DaemonScan};
use super::left::Place;
use crate::bus::Bus;
use crate::spool::Spool;

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

/// When a step last wrote something, and how much it has written, as far as it came here.
#[derive(Clone)]
pub struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Activity {
    /// `bytes`: what had come before.
    pub fn after(bytes: u64) -> Self {
        Self { start: Instant::now(), last: Arc::new(AtomicU64::new(0)), bytes: Arc::new(AtomicU64::new(bytes)) }
    }

    /// Bytes of both streams together.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// So many bytes have come.
    pub fn came(&self, bytes: usize) {
        self.touch();
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn touch(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }
}

/// Who looks on.
pub struct Watch {
    pub bus: Bus,
    pub spool: Spool,
    pub task: TaskRef,
    pub step: usize,
    pub feed: Feed,
    /// Looked for, if it says anything.
    pub daemon: Option<DaemonHint>,
    /// Another process could go on behind each acknowledgement.
    pub notes: bool,
}

/// ```text
/// bytes ─▶ masks, one for each stream ─▶ log ─▶ view
/// ```
pub struct StepSink {
    stdout: Masking,
    stderr: Masking,
    out: Out,
}

/// One stream on its way to where nothing secret may be.
struct Masking {
    stream: Stream,
    masks: MaskStream,
    /// When its newest bytes were read.
    nanoseconds: u64,
}

/// Behind the masks.
struct Out {
    log: StepLog,
    watch: Watch,
    activity: Activity,
    signals: UnboundedSender<StepSignal>,
    tail: Vec<u8>,
    tail_stream: &'static str,
    tail_sent: Instant,
    daemon: Option<DaemonScan>,
}

impl StepSink {
    pub fn new(log: StepLog, watch: Watch, activity: Activity, signals: UnboundedSender<StepSignal>) -> Self {
        let place = MaskedIn::of_job(&watch.task.job.job, format!("output of step {}", watch.step));
        let masking = |stream| Masking { stream, masks: watch.bus.masks().stream(place.clone()), nanoseconds: 0 };
        let (stdout, stderr) = (masking(Stream::Stdout), masking(Stream::Stderr));
        let (tail, tail_stream, tail_sent) = (Vec::new(), "stdout", Instant::now());
        let daemon = watch.daemon.clone().map(DaemonScan::new);
        Self { stdout, stderr, out: Out { log, watch, activity, signals, tail, tail_stream, tail_sent, daemon } }
    }

    /// What another process had held back of each stream, and how much of that belongs to a match that it has written.
    pub fn take_up(&mut self, held: &[(Stream, Vec<u8>, usize)]) {
        for (stream, bytes, covered) in held {
            match stream {
                Stream::Stdout => self.stdout.masks.take_up(bytes, *covered),
                Stream::Stderr => self.stderr.masks.take_up(bytes, *covered),
            }
        }
    }

    /// Following is over.
    pub fn over(mut self, end: FollowEnd) {
        let released = self.release();
        let Out { log, signals, .. } = &mut self.out;
        if let Err(error) = log.seal() {
            tracing::warn!(log = %log.path().display(), %error, "A log could not be sealed.");
        }
        // A log that cannot take the held bytes could not take the ones before them either: that end tells more.
        let end = match (end, released) {
            (end @ (FollowEnd::Ended | FollowEnd::Abandoned), Err(error)) => {
                tracing::debug!(?end, "The last bytes of a step could not be written.");
                FollowEnd::Sink(error)
            }
            (end, _) => end,
        };
        signals.send(StepSignal::Over { end, digest: log.digest() }).ok();
    }

    /// Writes what the masks hold: nothing more comes that could make a secret of it.
    fn release(&mut self) -> io::Result<()> {
        let released = self.stdout.finish(&mut self.out).and(self.stderr.finish(&mut self.out));
        self.out.send_tail();
        released
    }
}

impl Masking {
    fn push(&mut self, nanoseconds: u64, bytes: &[u8], out: &mut Out) -> io::Result<()> {
        self.nanoseconds = nanoseconds;
        let (stream, mut done) = (self.stream, Ok(()));
        self.masks.push(bytes, &mut |masked| done = out.put(stream, nanoseconds, masked));
        done
    }

    fn finish(&mut self, out: &mut Out) -> io::Result<()> {
        let (stream, nanoseconds, mut done) = (self.stream, self.nanoseconds, Ok(()));
        self.masks.finish(&mut |masked| done = out.put(stream, nanoseconds, masked));
        done
    }
}

impl Out {
    fn put(&mut self, stream: Stream, nanoseconds: u64, masked: &[u8]) -> io::Result<()> {
        self.wait_for_room();
        self.log.append(stream, nanoseconds, masked)?;
        self.watch.spool.appended(masked.len());
        if let Some(daemon) = &mut self.daemon {
            daemon.look_at(stream, masked);
        }
        self.show(stream_name(stream), masked);
        Ok(())
    }

    /// As long as the spool is full the step waits: that is no silence of its own.
    fn wait_for_room(&self) {
        let Watch { bus, spool, task, step, .. } = &self.watch;
        let full = |waiting: u64| {
            let message = format!(
                "step {step} waits: {} of output are spooled and not delivered yet, and the spool takes no more",
                figures::bytes(waiting)
            );
            bus.send(Event::Warning { task: Some(task.clone()), message });
        };
        spool.wait_for_room(full, || self.activity.touch());
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
        self.out.signals.send(StepSignal::Started).ok();
    }

    fn output(&mut self, header: OutputHeader, bytes: &[u8]) -> io::Result<()> {
        self.out.activity.came(bytes.len());
        let masking = match header.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        masking.push(header.nanoseconds, bytes, &mut self.out)
    }

    fn note(&self) -> Option<String> {
        if !self.out.watch.notes {
            return None;
        }
        let held = [(Stream::Stdout, self.stdout.masks.waiting()), (Stream::Stderr, self.stderr.masks.waiting())];
        let place = Place::new(&self.out.log.point(), held)?;
        serde_json::to_string(&place).ok()
    }

    fn exited(&mut self, exited: Exited) {
        // What it left running may write the rest of a secret: then the masks hold on until that is over, too.
        if exited.left_running == 0
            && let Err(error) = self.release()
        {
            tracing::warn!(%error, "The last bytes of a step could not be written to its log.");
        }
        self.out.send_tail();
        // The log itself is unbuffered and already written; a record that does not fit stays for the seal.
        self.out.log.flush().ok();
        let digest = self.out.log.digest();
        self.out.signals.send(StepSignal::Exited { exited, digest }).ok();
    }
}
