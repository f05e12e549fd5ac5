//! How much of a task's output waits on disk for its delivery, and the brake on what writes it.
//!
//! ```text
//! writers ── room? ─▶ log ── appended ─▶ Spool ── rung ─▶ delivery looks at the logs
//!    ▲                                    │ ▲
//!    └── full: they wait ─────────────────┘ └── durable ── delivery
//! ```
//!
//! `navvy run` delivers nothing: its spool is the default one, which counts nothing and never brakes. Whoever delivers opens the
//! spool when the task is to stop: from then on nothing waits any more.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// A writer that waits says so often that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Shared by those who write and the one who delivers. Cheap to clone.
#[derive(Clone, Default)]
pub struct Spool(Option<Arc<Inner>>);

struct Inner {
    limit: u64,
    state: Mutex<State>,
    /// For writers: there is room again.
    room: Condvar,
    /// For the delivery: bytes that were ever appended.
    rung: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Bytes that are on disk and not durable.
    waiting: u64,
    /// Nobody waits any more.
    open: bool,
    /// Bytes that were taken back from a log: as many are written again, and were counted.
    again: u64,
    /// That it is full was said, and it has had no room since.
    told: bool,
}

impl Spool {
    /// A spool that holds this many bytes; what writes more waits.
    pub fn new(limit: u64) -> Self {
        let inner = Inner { limit, state: Mutex::default(), room: Condvar::new(), rung: watch::Sender::new(0) };
        Self(Some(Arc::new(inner)))
    }

    /// Waits on this thread until there is room. `full`: told once each time that there is none, with the bytes that wait;
    /// `waits`: called now and then meanwhile.
    pub fn wait_for_room(&self, full: impl FnOnce(u64), waits: impl Fn()) {
        let Some(inner) = &self.0 else { return };
        let mut state = inner.lock();
        if !state.is_full(inner.limit) {
            return;
        }
        if !std::mem::replace(&mut state.told, true) {
            let waiting = state.waiting;
            drop(state);
            full(waiting);
            state = inner.lock();
        }
        while state.is_full(inner.limit) {
            waits();
            state = inner.room.wait_timeout(state, SIGN_OF_LIFE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// These bytes are in a log now.
    pub fn appended(&self, bytes: usize) {
        let Some(inner) = &self.0 else { return };
        let mut state = inner.lock();
        let again = state.again.min(bytes as u64);
        state.again -= again;
        state.waiting += bytes as u64 - again;
        drop(state);
        inner.rung.send_modify(|all| *all += bytes as u64);
    }

    /// Another process left these: `waiting` are on disk and not durable; `again` of all were taken back, and are written
    /// again.
    pub fn take_up(&self, waiting: u64, again: u64) {
        let Some(inner) = &self.0 else { return };
        let mut state = inner.lock();
        (state.waiting, state.again) = (waiting, again);
    }

    /// These bytes are durable.
    pub fn durable(&self, bytes: u64) {
        let Some(inner) = &self.0 else { return };
        let mut state = inner.lock();
        state.waiting = state.waiting.saturating_sub(bytes);
        if !state.is_full(inner.limit) {
            state.told = false;
            inner.room.notify_all();
        }
    }

    /// From now on nothing waits.
    pub fn open(&self) {
        let Some(inner) = &self.0 else { return };
        inner.lock().open = true;
        inner.room.notify_all();
    }

    /// Bytes that are on disk and not durable.
    pub fn waiting(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.lock().waiting)
    }

    /// Bytes that may wait.
    pub fn limit(&self) -> u64 {
        self.0.as_ref().map_or(u64::MAX, |inner| inner.limit)
    }

    /// Rings whenever something was appended; holds the number of all bytes. A spool that nobody delivers never rings.
    pub fn bell(&self) -> watch::Receiver<u64> {
        match &self.0 {
            Some(inner) => inner.rung.subscribe(),
            None => watch::channel(0).1,
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full(&self, limit: u64) -> bool {
        !self.open && self.waiting >= limit
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A writer that finds no room. What it says: `full N`, then `goes on`.
    fn writer(spool: &Spool) -> mpsc::Receiver<String> {
        let (tell, told) = mpsc::channel();
        let spool = spool.clone();
        std::thread::spawn(move || {
            spool.wait_for_room(|waiting| tell.send(format!("full {waiting}")).unwrap(), || {});
            tell.send("goes on".to_owned())
        });
        told
    }

    #[test]
    fn a_full_spool_holds_its_writer_up_until_enough_is_durable() {
        let spool = Spool::new(10);
        spool.appended(12);
        let told = writer(&spool);
        assert_eq!(told.recv().unwrap(), "full 12");
        spool.durable(2);
        assert!(told.try_recv().is_err());
        spool.durable(1);
        assert_eq!(told.recv().unwrap(), "goes on");
        assert_eq!((spool.waiting(), *spool.bell().borrow()), (9, 12));
    }

    #[test]
    fn what_another_process_left_is_counted_once() {
        let spool = Spool::new(100);
        spool.take_up(30, 20);
        spool.appended(15);
        assert_eq!(spool.waiting(), 30);
        spool.appended(15);
        assert_eq!((spool.waiting(), *spool.bell().borrow()), (40, 30));
    }

    #[test]
    fn an_open_spool_and_one_that_nobody_delivers_hold_nobody_up() {
        let spool = Spool::new(10);
        spool.appended(10);
        let told = writer(&spool);
        assert_eq!(told.recv().unwrap(), "full 10");
        spool.open();
        assert_eq!(told.recv().unwrap(), "goes on");
        let none = Spool::default();
        none.appended(usize::MAX);
        none.wait_for_room(|_| panic!("it is full"), || {});
    }
}
