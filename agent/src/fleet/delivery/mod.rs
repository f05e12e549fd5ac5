//! What a task left on disk, on its way to where it is durable. Steps never wait for it, unless the spool is full.
//!
//! ```text
//! events.jsonl ── lines, numbered ───────────────────────▶ Record
//! logs ─┬─ segments: sealed, compressed ─▶ GrantSegment ─▶ PUT ─▶ CommitSegments ─▶ durable: the spool may drop it
//!       └─ live: the newest bytes ───────────────────────▶ Live; dropped when the way is slow
//! ```
//!
//! Everything is read back from disk: what was on its way when a connection broke goes again.

mod cuts;
mod events;
mod live;
mod seal;
mod segments;
mod sizes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use navvy_job::event::LogEnd;
use navvy_storage::Transport;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use self::events::EventDelivery;
use self::live::Live;
use self::segments::SegmentDelivery;
use super::connection::Session;
use super::persist::{Halt, Loss};
use super::record::{LogNews, Recorded};
use crate::spool::Spool;
use crate::step::bounded::Stop;

/// A delivery that gets nothing done for so long at its end is given up.
const PATIENCE: Duration = Duration::from_secs(600);
/// The same, of a task that was asked to stop: somebody waits for its end.
const PATIENCE_OF_STOPPED: Duration = Duration::from_secs(15);

/// The thread that writes events down ends with the task.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// Counts what was acknowledged. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Progress(Arc<watch::Sender<u64>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Progress {
    fn made(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}

/// The task's directory of logs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Logs {
    directory: PathBuf,
    /// Those that may have bytes which nobody was shown; whether their writer is done.
    shown: Arc<Mutex<BTreeMap<String, bool>>>,
}

impl Logs {
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, shown: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// A log that does not exist yet is empty.
    fn length(&self, name: &str) -> u64 {
        std::fs::metadata(self.path(name)).map_or(0, |metadata| metadata.len())
    }

    fn may_be_there(&self, name: &str) -> bool {
        !matches!(std::fs::metadata(self.path(name)), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
    }

    /// Something is written there from now on, or nothing any more.
    fn note_writer(&self, name: &str, is_done: bool) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match shown.get_mut(name) {
            Some(done) => *done = is_done,
            None if !is_done => drop(shown.insert(name.to_owned(), false)),
            None => {}
        }
    }

    /// Logs that are to be shown now. One whose writer is done comes for the last time.
    fn to_show(&self) -> Vec<String> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let names = shown.keys().cloned().collect();
        shown.retain(|_, is_done| !*is_done);
        names
    }
}

/// The name of a log, as it crosses the wire.
pub fn name_of(log: &std::path::Path) -> Option<String> {
    let name = log.file_name()?.to_str()?;
    navvy_job::event::LogOf::of_name(name)?;
    name.strip_suffix(".log").map(str::to_owned)
}

/// What a delivery is given.
pub struct Parts {
    pub session: Session,
    pub loss: Loss,
    pub transport: Transport,
    pub spool: Spool,
    /// Bytes on disk from which on durable ones are dropped.
    pub keep: u64,
    pub logs: Logs,
    pub events: PathBuf,
    pub recorded: watch::Receiver<Recorded>,
    pub news: mpsc::UnboundedReceiver<LogNews>,
    pub readers: watch::Sender<u32>,
    pub left: Left,
}

/// What another agent of the task has left.
#[derive(Debug, Default)]
pub struct Left {
    /// Lines of events.
    pub lines: u64,
    /// How far logs are durable, by name.
    pub marks: BTreeMap<String, u64>,
}

/// A delivery on its way. Ends when dropped.
pub struct Delivery {
    events: Ending<Result<u64, Halt>>,
    segments: Ending<Result<Vec<LogEnd>, Halt>>,
    _live: Ending<()>,
    progress: Progress,
    recorded: watch::Receiver<Recorded>,
}

/// What came of it.
#[derive(Debug)]
pub struct Delivered {
    /// How many events there were.
    pub events: u64,
    /// All logs that there are.
    pub logs: Vec<LogEnd>,
    /// Why not all is durable.
    pub trouble: Vec<String>,
    /// The task is not ours any more.
    pub lost: bool,
}

impl Delivery {
    pub fn start(parts: Parts) -> Self {
        let Parts { session, loss, transport, spool, keep, logs, events, recorded, news, readers, left } = parts;
        let progress = Progress::default();
        let event_delivery = EventDelivery {
            session: session.clone(),
            loss: loss.clone(),
            path: events,
            recorded: recorded.clone(),
            left: left.lines,
            progress: progress.clone(),
        };
        let live = Live { session: session.clone(), logs: logs.clone(), bell: spool.bell(), readers };
        let brake = spool.clone();
        let segments = SegmentDelivery {
            session,
            loss,
            transport,
            spool,
            keep,
            logs,
            news,
            marks: left.marks,
            progress: progress.clone(),
        };
        Self {
            events: Ending(tokio::spawn(event_delivery.deliver().in_current_span())),
            segments: Ending(tokio::spawn(
                async move {
                    let ended = segments.deliver().await;
                    // Nobody makes room any more.
                    brake.open();
                    ended
                }
                .in_current_span(),
            )),
            _live: Ending(tokio::spawn(live.deliver().in_current_span())),
            progress,
            recorded,
        }
    }

    /// The flush barrier: waits until all is durable, or until nothing more becomes so. `stop`: the wish that the task ends.
    pub async fn flush(mut self, stop: Stop) -> Delivered {
        let (mut events, mut logs) = (None, None);
        let mut delivered = self.wait(&mut events, &mut logs, stop).await;
        if events.is_none() || logs.is_none() {
            // What there is, whatever became of it: the processor sees what is missing.
            let ended = tokio::time::timeout(CLOSED_WITHIN, self.recorded.wait_for(|recorded| recorded.closed)).await;
            drop(ended);
        }
        let recorded = self.recorded.borrow();
        delivered.events = events.unwrap_or(recorded.lines);
        delivered.logs = logs.unwrap_or_else(|| recorded.logs.clone());
        delivered
    }

    /// Until both are over, or nothing moves any more. What was not delivered stays `None`.
    async fn wait(&mut self, events: &mut Option<u64>, logs: &mut Option<Vec<LogEnd>>, mut stop: Stop) -> Delivered {
        let mut delivered = Delivered { events: 0, logs: Vec::new(), trouble: Vec::new(), lost: false };
        let (mut events_over, mut segments_over) = (false, false);
        let mut progress = self.progress.0.subscribe();
        while !(events_over && segments_over) {
            let patience = if stop.borrow_and_update().is_some() { PATIENCE_OF_STOPPED } else { PATIENCE };
            tokio::select! {
                ended = &mut self.events.0, if !events_over => {
                    events_over = true;
                    match ended.unwrap_or_else(|_| Err(Halt::Spool("the delivery of events ended unexpectedly".to_owned()))) {
                        Ok(count) => *events = Some(count),
                        Err(halt) => delivered.failed(&halt),
                    }
                }
                ended = &mut self.segments.0, if !segments_over => {
                    segments_over = true;
                    let ended = ended.unwrap_or_else(|_| Err(Halt::Spool("the delivery of logs ended unexpectedly".to_owned())));
                    match ended {
                        Ok(ends) => *logs = Some(ends),
                        Err(halt) => delivered.failed(&halt),
                    }
                }
                // Another patience.
                Ok(()) = stop.changed() => {}
                waited = tokio::time::timeout(patience, progress.changed()) => {
                    if waited.is_err() {
                        delivered.trouble.push(format!("nothing became durable for {} s", patience.as_secs()));
                        return delivered;
                    }
                }
            }
        }
        delivered
    }
}

impl Delivered {
    fn failed(&mut self, halt: &Halt) {
        self.lost |= matches!(halt, Halt::Lost);
        self.trouble.push(halt.to_string());
    }
}

/// A task of the runtime's that ends with its owner.
pub struct Ending<T>(pub JoinHandle<T>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use navvy_output::StepLog;

    use super::*;

    #[test]
    fn logs_have_the_names_of_the_wire_and_other_files_none() {
        let name = |text: &str| name_of(std::path::Path::new(text));
        assert_eq!(name("/s/000-1.log").as_deref(), Some("000-1"));
        assert_eq!(name("/s/service-2.log").as_deref(), Some("service-2"));
        assert_eq!((name("/s/000-1.seg"), name("/s/evil.log")), (None, None));
        assert_eq!(StepLog::path_for(std::path::Path::new("/s"), 7, 2), Logs::new("/s".into()).path("007-2"));
    }
}
