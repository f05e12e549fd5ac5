//! Events on their way from tasks to the view and the run's record.
//!
//! ```text
//! tasks, step threads ──send, masks──▶ queue ──▶ one consumer thread: record (events.jsonl) and view
//! ```
//!
//! Control events never block. Output waits while more than [`OUTPUT_ROOM`] bytes of it are queued, so a terminal that
//! is slow, or stopped, slows the job down instead of filling memory; [`Bus::close_output`] lifts that when
//! the run is being ended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use navvy_job::event::{Event, Stamped};
use navvy_output::mask::Masks;

use crate::masking::mask;

/// Bytes of output that may be queued.
const OUTPUT_ROOM: usize = 4 << 20;

/// Where events are sent. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    sender: Sender<Stamped>,
    room: Arc<Room>,
    clock: Clock,
    masks: Masks,
}

/// Where they come out.
pub struct Events {
    receiver: Receiver<Stamped>,
    room: Arc<Room>,
    clock: Clock,
}

/// Milliseconds since the run started.
#[derive(Clone)]
struct Clock {
    here: Instant,
    /// The run had begun before, elsewhere.
    ahead_ms: Arc<AtomicU64>,
}

impl Clock {
    fn now_ms(&self) -> u64 {
        millis(self.here.elapsed()).saturating_add(self.ahead_ms.load(Ordering::Relaxed))
    }
}

#[derive(Default)]
struct Room {
    used: Mutex<Used>,
    freed: Condvar,
}

#[derive(Default)]
struct Used {
    bytes: usize,
    open_ended: bool,
}

/// A new bus; its clock starts now. Secrets of `masks` are masked in every event except `Output`, whose sender has
/// masked it.
pub fn channel(masks: Masks) -> (Bus, Events) {
    let (sender, receiver) = mpsc::channel();
    let room = Arc::new(Room::default());
    let clock = Clock { here: Instant::now(), ahead_ms: Arc::default() };
    (Bus { sender, room: Arc::clone(&room), clock: clock.clone(), masks }, Events { receiver, room, clock })
}

impl Bus {
    /// Sends an event. After the consumer has gone, events go nowhere: the record's writer said so already.
    pub fn send(&self, mut event: Event) {
        mask(&mut event, &self.masks);
        if let Event::Output { bytes, .. } = &event {
            self.room.take(bytes.len());
        }
        self.put(Stamped { at_ms: self.clock.now_ms(), time: now(), event });
    }

    /// Passes on an event that was stamped, and masked, elsewhere. Output waits for room, as it does in [`Bus::send`].
    pub fn pass(&self, stamped: Stamped) {
        if let Event::Output { bytes, .. } = &stamped.event {
            self.room.take(bytes.len());
        }
        self.put(stamped);
    }

    /// The run that is told of has begun elsewhere, so long ago.
    pub fn begun_before(&self, ms: u64) {
        self.clock.ahead_ms.store(ms.saturating_sub(millis(self.clock.here.elapsed())), Ordering::Relaxed);
    }

    fn put(&self, stamped: Stamped) {
        if let Err(mpsc::SendError(Stamped { event: Event::Output { bytes, .. }, .. })) = self.sender.send(stamped) {
            self.room.give_back(bytes.len());
        }
    }

    /// The run's secrets.
    pub fn masks(&self) -> &Masks {
        &self.masks
    }

    /// From now on output never waits.
    pub fn close_output(&self) {
        let mut used = self.room.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.open_ended = true;
        self.room.freed.notify_all();
    }
}

impl Events {
    /// The next event, or `None` when none came within `limit`. `Err` when every sender is gone.
    pub fn next(&self, limit: Duration) -> Result<Option<Stamped>, mpsc::RecvError> {
        match self.receiver.recv_timeout(limit) {
            Ok(stamped) => {
                if let Event::Output { bytes, .. } = &stamped.event {
                    self.room.give_back(bytes.len());
                }
                Ok(Some(stamped))
            }
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(mpsc::RecvError),
        }
    }

    /// Milliseconds since the run started.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
}

impl Room {
    fn take(&self, bytes: usize) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while used.bytes > OUTPUT_ROOM && !used.open_ended {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        used.bytes += bytes;
    }

    fn give_back(&self, bytes: usize) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.bytes = used.bytes.saturating_sub(bytes);
        self.freed.notify_all();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now() -> String {
    let now = Timestamp::now();
    now.round(jiff::Unit::Millisecond).unwrap_or(now).to_string()
}
