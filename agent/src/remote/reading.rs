//! One log of a task on its way from a processor to the views.
//!
//! ```text
//! LogStream ─▶ Reading ─▶ pieces, or a tail some times a second ─▶ bus
//!                 ▲
//!                 └─ goal: whatever comes ─▶ so many bytes, and no more: the step has ended
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use navvy_job::event::{Event, LogOf, Stamped, TaskRef};
use navvy_job::id::TaskId;
use navvy_protocol::api;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::client::Client;
use super::cursor::LogStream;
use crate::bus::Bus;

/// Bytes of a tail, and the pause between two of them.
pub(super) const TAIL: u64 = 8 << 10;
const PAUSE: Duration = Duration::from_millis(100);
/// Output that is promised and does not come is waited for so long.
const PROMISED: Duration = Duration::from_secs(60);
/// So long an end in the history has time to arrive before output is asked for.
const SETTLE: Duration = Duration::from_millis(200);

/// The processor's time on this machine.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    /// When the pipeline began, in milliseconds since 1970.
    pub(super) begun: Option<i64>,
    /// How far the processor's clock is ahead of ours.
    pub(super) ahead: i64,
}

impl Clock {
    pub(super) fn now(self) -> Timestamp {
        let now = Timestamp::now().as_millisecond().saturating_add(self.ahead);
        Timestamp::from_millisecond(now).unwrap_or_default()
    }

    /// Milliseconds since the pipeline began.
    pub(super) fn since(self, time: Timestamp) -> u64 {
        let begun = self.begun.unwrap_or_else(|| time.as_millisecond());
        u64::try_from(time.as_millisecond().saturating_sub(begun)).unwrap_or(0)
    }

    /// An event of our own.
    pub(super) fn stamp(self, event: Event) -> Stamped {
        let now = self.now();
        Stamped { at_ms: self.since(now), time: now.to_string(), event }
    }
}

/// Whose output it is.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) task: TaskRef,
    /// 0 for what does not belong to a step.
    pub(super) step: usize,
    pub(super) stream: String,
    /// As the processor names it.
    pub(super) log: String,
    /// As `navvy logs` names it.
    pub(super) word: String,
}

impl Source {
    pub(super) fn step(task: &TaskRef, step: usize, attempt: u32) -> Self {
        let (log, word) = (format!("{step:03}-{attempt}"), format!("{step}-{attempt}"));
        Self { task: task.clone(), step, stream: "stdout".to_owned(), log, word }
    }

    pub(super) fn service(task: &TaskRef, service: usize, name: &str) -> Self {
        let log = format!("service-{service}");
        Self { task: task.clone(), step: 0, stream: format!("service:{name}"), word: log.clone(), log }
    }

    pub(super) fn of(task: &TaskRef, of: &LogOf) -> Self {
        match of {
            LogOf::Step { step, attempt } => Self::step(task, *step, *attempt),
            LogOf::Service { service } => Self::service(task, *service, &service.to_string()),
        }
    }

    pub(super) fn key(&self) -> (TaskId, String) {
        (self.task.task.clone(), self.log.clone())
    }
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Now,
    /// Close to the newest byte, if the step still runs in a moment.
    AtTail,
}

/// The other end of a [`Reading`], which ends with it.
pub(super) struct Reader {
    pub(super) goal: watch::Sender<Option<u64>>,
    pub(super) passed: Arc<AtomicU64>,
    pub(super) reading: JoinHandle<Option<String>>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// One log on its way.
pub(super) struct Reading {
    pub(super) client: Client,
    pub(super) source: Source,
    pub(super) stream: LogStream,
    pub(super) start: Start,
    /// So much is to be passed on; `None`: whatever comes.
    pub(super) goal: watch::Receiver<Option<u64>>,
    pub(super) passed: Arc<AtomicU64>,
    /// Of a tail: what was not passed on yet, where it ends, and when the last of it was.
    pub(super) pending: Vec<u8>,
    pub(super) taken: u64,
    pub(super) flushed: Instant,
    pub(super) tails: bool,
    pub(super) bus: Bus,
    pub(super) clock: Clock,
}

impl Reading {
    /// Returns why it has ended before its goal.
    pub(super) async fn run(mut self) -> Option<String> {
        if self.start == Start::AtTail {
            tokio::time::sleep(SETTLE).await;
            let from = self.durable().await.saturating_sub(TAIL);
            let task = self.source.task.task.to_string();
            self.stream = LogStream::new(self.client.clone(), &task, &self.source.log, from);
        }
        loop {
            let goal = *self.goal.borrow_and_update();
            if goal.is_some_and(|end| self.stream.offset() >= end) {
                self.flush().await;
                return None;
            }
            tokio::select! {
                changed = self.goal.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
                piece = self.stream.next() => match piece {
                    Ok(bytes) => self.take(&bytes, goal).await,
                    Err(error) => return Some(error.to_string()),
                },
                () = tokio::time::sleep(PAUSE), if !self.pending.is_empty() => self.flush().await,
                () = tokio::time::sleep(PROMISED), if goal.is_some() => {
                    return Some(format!("nothing came for {} seconds", PROMISED.as_secs()));
                }
            }
        }
    }

    /// How far the log is durable, as far as anybody knows.
    async fn durable(&self) -> u64 {
        let task = self.source.task.task.as_str();
        let logs = self.client.get::<api::Page<api::Log>>(&["task", task, "logs"], &[]).await;
        let mine = logs.ok().and_then(|logs| logs.items.into_iter().find(|log| log.log == self.source.log));
        mine.map_or(0, |log| log.durable)
    }

    /// What lies behind the goal was written after the step's end, and is fetched again then.
    async fn take(&mut self, bytes: &[u8], goal: Option<u64>) {
        let surplus = goal.map_or(0, |end| self.stream.offset().saturating_sub(end));
        let bytes = &bytes[..bytes.len().saturating_sub(usize::try_from(surplus).unwrap_or(usize::MAX))];
        self.pending.extend_from_slice(bytes);
        self.taken = self.stream.offset() - surplus;
        if self.tails {
            let surplus = self.pending.len().saturating_sub(TAIL as usize);
            self.pending.drain(..surplus);
        }
        if !self.tails || self.flushed.elapsed() >= PAUSE {
            self.flush().await;
        }
    }

    /// Waits where the view is slow, on another thread: Ctrl-C is heard meanwhile.
    async fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let Source { task, step, stream, .. } = self.source.clone();
        let event = Event::Output { task, step, stream, bytes: std::mem::take(&mut self.pending) };
        let (bus, stamped) = (self.bus.clone(), self.clock.stamp(event));
        self.passed.store(self.taken, Ordering::Relaxed);
        // It fails at the end of the program alone.
        tokio::task::spawn_blocking(move || bus.pass(stamped)).await.ok();
        self.flushed = Instant::now();
    }
}
