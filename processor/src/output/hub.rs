//! Output while it is written, in memory of a bounded size, for those who look on. Nothing here is durable, and nothing of it
//! is needed: what is dropped is read from the segments a little later.
//!
//! ```text
//! agent ── chunk ──▶ ring of the log ──▶ readers, each at its own cursor
//!                      │ full: its oldest bytes go
//!                      │ durable, and nobody looks: those bytes go
//!                      └ all rings full: the ring that was used least recently goes
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use navvy_protocol::processor::v1;
use tokio::sync::watch;

use super::ring::Ring;
use super::{LogName, OutputError, segment};

pub use navvy_protocol::processor::MAX_CHUNK;
/// Bytes of a log that are kept for whoever may come to look.
const UNSEEN: usize = 256 << 10;
/// Bytes of a log that are kept while somebody looks: a fifth of a second at 20 MB/s. A reader that is slower waits for segments.
const SEEN: usize = 4 << 20;
/// What a ring costs beside its bytes.
const AROUND: usize = 512;

/// The rings of all logs.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    /// Bytes that all rings may take.
    most: usize,
    held: usize,
    /// Counts uses.
    now: u64,
    /// The logs whose rings hold something, by their last use.
    by_use: BTreeMap<u64, (Arc<str>, LogName)>,
    tasks: HashMap<Arc<str>, Task>,
    /// Tasks when those that nobody uses were removed last.
    tidied: usize,
}

struct Task {
    id: Arc<str>,
    /// How many look at any of its logs.
    readers: watch::Sender<u32>,
    logs: HashMap<LogName, Log>,
}

#[derive(Default)]
struct Log {
    ring: Ring,
    /// When it was used last; 0: its ring holds nothing.
    used: u64,
    durable: u64,
    readers: usize,
    changed: watch::Sender<Change>,
}

/// What a reader is told beside new bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Grows when the index has changed.
    pub index: u64,
    /// Grows when the log has begun anew.
    pub anew: u64,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("held", &self.held()).finish_non_exhaustive()
    }
}

impl Hub {
    /// A hub that holds at most so many bytes.
    pub fn new(most: usize) -> Self {
        let inner = Inner { most, held: 0, now: 0, by_use: BTreeMap::new(), tasks: HashMap::new(), tidied: 0 };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a chunk. What is known already is passed over; a chunk behind a gap is taken, and readers get the bytes between
    /// from the index.
    ///
    /// # Errors
    /// It is not of the form that `agents.proto` says.
    pub fn push(&self, task: &str, chunk: &v1::Chunk) -> Result<(), OutputError> {
        let log = segment::check_chunk(chunk)?;
        let mut inner = self.inner();
        inner.task(task);
        inner.change(task, log, |log| {
            let most = if log.readers > 0 { SEEN } else { UNSEEN };
            log.ring.push(chunk.offset, &chunk.bytes, most);
            if log.readers == 0 {
                log.ring.let_go(log.durable);
            }
            log.changed.send_modify(|_| {});
        });
        inner.make_room();
        Ok(())
    }

    /// How many look at the task's output, now and whenever that changes.
    pub fn readers(&self, task: &str) -> watch::Receiver<u32> {
        self.inner().task(task).readers.subscribe()
    }

    /// The log is durable up to `durable`.
    pub fn durable(&self, task: &str, log: LogName, durable: u64) {
        self.inner().change(task, log, |log| {
            log.durable = log.durable.max(durable);
            if log.readers == 0 {
                log.ring.let_go(log.durable);
            }
            log.changed.send_modify(|change| change.index += 1);
        });
    }

    /// Something else of the task's index has changed: the ends of its logs, or the task's own.
    pub fn index_changed(&self, task: &str) {
        if let Some(task) = self.inner().tasks.get(task) {
            task.logs.values().for_each(|log| log.changed.send_modify(|change| change.index += 1));
        }
    }

    /// The task has ended: nothing more is kept of it than for those who look on now.
    pub fn ended(&self, task: &str) {
        let mut inner = self.inner();
        for log in inner.logs(task) {
            inner.change(task, log, |log| {
                if log.readers == 0 {
                    log.ring.let_go(u64::MAX);
                }
                log.changed.send_modify(|change| change.index += 1);
            });
        }
    }

    /// The task's output begins anew: what is held of it is dropped, and its readers are told.
    pub fn begin_anew(&self, task: &str) {
        let mut inner = self.inner();
        for log in inner.logs(task) {
            inner.change(task, log, |log| {
                log.ring.let_go(u64::MAX);
                log.durable = 0;
                log.changed.send_modify(|change| change.anew += 1);
            });
        }
    }

    /// Begins to look at a log.
    pub(super) fn attach(&self, task: &str, log: LogName) -> Attached {
        let mut inner = self.inner();
        let held = inner.task(task);
        held.readers.send_modify(|readers| *readers += 1);
        let id = Arc::clone(&held.id);
        let entry = held.logs.entry(log).or_default();
        entry.readers += 1;
        let changed = entry.changed.subscribe();
        Attached { hub: self.clone(), task: id, log, changed }
    }

    /// Memory that the rings take.
    pub fn held(&self) -> usize {
        self.inner().held
    }

    /// Tasks that something is known of.
    #[cfg(test)]
    pub(super) fn tasks(&self) -> usize {
        self.inner().tasks.len()
    }
}

impl Inner {
    fn task(&mut self, task: &str) -> &mut Task {
        // An agent that left keeps no place: its receiver is gone.
        if self.tasks.len() >= 2 * self.tidied + 64 && !self.tasks.contains_key(task) {
            self.tasks.retain(|_, task| !task.is_idle());
            self.tidied = self.tasks.len();
        }
        self.tasks.entry(task.into()).or_insert_with_key(|id| Task {
            id: Arc::clone(id),
            readers: watch::Sender::new(0),
            logs: HashMap::new(),
        })
    }

    fn logs(&self, task: &str) -> Vec<LogName> {
        self.tasks.get(task).into_iter().flat_map(|task| task.logs.keys()).copied().collect()
    }

    /// Changes a log of a task that is known, and keeps the sums: what is held, and who was used when.
    fn change<T>(&mut self, task: &str, log: LogName, change: impl FnOnce(&mut Log) -> T) -> Option<T> {
        let held = self.tasks.get_mut(task)?;
        let entry = held.logs.entry(log).or_default();
        let before = entry.cost();
        let result = change(entry);
        let after = entry.cost();
        self.held = self.held + after - before;
        if entry.used != 0 {
            self.by_use.remove(&entry.used);
        }
        self.now += 1;
        entry.used = if after > 0 { self.now } else { 0 };
        if after > 0 {
            self.by_use.insert(self.now, (Arc::clone(&held.id), log));
        } else if entry.readers == 0 {
            held.logs.remove(&log);
        }
        if held.is_idle() {
            self.tasks.remove(task);
        }
        Some(result)
    }

    /// Drops the rings that were used least recently, until all are within the bound.
    fn make_room(&mut self) {
        while self.held > self.most {
            let Some((task, log)) = self.by_use.first_key_value().map(|(_, of)| of.clone()) else { break };
            self.change(&task, log, |log| log.ring.let_go(u64::MAX));
        }
    }
}

impl Task {
    /// Nobody would miss it.
    fn is_idle(&self) -> bool {
        self.logs.is_empty() && self.readers.receiver_count() == 0
    }
}

impl Log {
    fn cost(&self) -> usize {
        if self.ring.range().is_empty() { 0 } else { self.ring.capacity() + AROUND }
    }
}

/// Looks at one log, and counts as a reader until it is dropped.
pub(super) struct Attached {
    hub: Hub,
    task: Arc<str>,
    log: LogName,
    changed: watch::Receiver<Change>,
}

impl Attached {
    /// Bytes from exactly `cursor` on, at most `most`; `None`: the ring does not have them.
    pub fn from(&self, cursor: u64, most: usize) -> Option<Bytes> {
        let mut inner = self.hub.inner();
        let ring = &inner.tasks.get(&self.task)?.logs.get(&self.log)?.ring;
        let bytes = ring.from(cursor, most)?;
        inner.change(&self.task, self.log, |_| ());
        Some(bytes)
    }

    /// The bytes that the ring has.
    pub fn range(&self) -> Range<u64> {
        let inner = self.hub.inner();
        let log = inner.tasks.get(&self.task).and_then(|task| task.logs.get(&self.log));
        log.map_or(0..0, |log| log.ring.range())
    }

    /// What the reader was told so far. From now on, [`Attached::told`] waits for more.
    pub fn seen(&mut self) -> Change {
        *self.changed.borrow_and_update()
    }

    /// Waits until there is something new: bytes, or of the index.
    pub async fn told(&mut self) {
        // The sender lives as long as the log has a reader: this one.
        if self.changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut inner = self.hub.inner();
        if let Some(task) = inner.tasks.get(&self.task) {
            task.readers.send_modify(|readers| *readers = readers.saturating_sub(1));
        }
        inner.change(&self.task, self.log, |log| {
            log.readers = log.readers.saturating_sub(1);
            if log.readers == 0 {
                log.ring.let_go(log.durable);
                log.ring.shorten(UNSEEN);
            }
        });
    }
}
