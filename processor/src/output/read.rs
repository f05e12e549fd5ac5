//! Readers: the whole history, then the live end, from one cursor.
//!
//! ```text
//!            ┌──────────────────────────── cursor ◀───────────────────────────┐
//!            ▼                                                                │
//!   ring has it? ─ yes ─▶ pass it on ─────────────────────────────────────────┤
//!            │ no                                                             │
//!   a segment covers it? ─ yes ─▶ room for it ─▶ get ─▶ unpack ─▶ pass it on ─┘   (slow reader: room is given back, and
//!            │ no                                                                  the segment fetched again at the cursor)
//!   the log's end? ─▶ end      the task has ended? ─▶ error: bytes are missing
//!            │ neither
//!   wait: a chunk, a change of the index, a second
//! ```
//!
//! Each reader is one task of the runtime, which ends with its [`LogStream`].

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::hub::{Attached, Change};
use super::store::within;
use super::{LogName, Output, OutputError, segment};
use crate::state::{LogState, Segment};

/// Bytes that are passed on at once.
const PIECE: usize = 64 << 10;
/// Rows of the index that are read at once.
const ROWS: u32 = 64;
/// A reader that does not take a segment within this time does not keep others from theirs.
const HOLD: Duration = Duration::from_secs(2);
/// How often a database or a store is asked that does not answer; the waits between add up to half a minute.
const TRIES: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// A log's bytes in order. Ends at the end of the log; without `follow`, at the end of what there was at its beginning.
pub struct LogStream {
    pieces: mpsc::Receiver<Result<Bytes, OutputError>>,
    _reader: JoinSet<()>,
}

impl Stream for LogStream {
    type Item = Result<Bytes, OutputError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_recv(context)
    }
}

/// A segment in memory, and the room that it takes there.
pub(super) struct Unpacked {
    pub bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl Output {
    /// A log's bytes from `offset` on. `follow`: until the log ends.
    ///
    /// # Errors
    /// There is no such log, or it is shorter.
    pub async fn read(&self, task: &str, log: &str, offset: u64, follow: bool) -> Result<LogStream, OutputError> {
        let name = LogName::read(log)?;
        let live = self.hub.attach(task, name);
        let (task, log) = (task.to_owned(), log.to_owned());
        let (ended, state) = self.look(&task, &log).await?;
        let durable = state.as_ref().map_or(0, |state| state.durable);
        if let Some((bytes, _)) = state.as_ref().and_then(|state| state.end.as_ref())
            && offset > *bytes
        {
            return Err(OutputError::Beyond { log, offset, bytes: *bytes });
        }
        let known = live.range();
        if state.is_none() && (ended || (!follow && known.is_empty())) {
            return Err(OutputError::NoLog { task, log });
        }
        let until = (!follow && !ended).then_some(known.end.max(durable));
        let (output, seen) = (self.clone(), Change::default());
        let mut reader =
            Reader { output, live, task, log, cursor: offset, until, durable, ahead: VecDeque::new(), seen };
        reader.seen = reader.live.seen();
        let (pieces, receiver) = mpsc::channel(2);
        let mut readers = JoinSet::new();
        readers.spawn(reader.run(pieces));
        Ok(LogStream { pieces: receiver, _reader: readers })
    }

    /// Has the task ended; and what the index knows of the log.
    async fn look(&self, task: &str, log: &str) -> Result<(bool, Option<LogState>), OutputError> {
        let found = self.state.look_at_log(task, log).await?;
        found.ok_or_else(|| OutputError::NoTask { task: task.to_owned() })
    }

    /// A segment's bytes, which are those that the index names.
    pub(super) async fn fetch(&self, segment: &Segment) -> Result<Unpacked, OutputError> {
        let mut patience = Patience::new();
        loop {
            match self.fetch_once(segment).await {
                Ok(unpacked) => return Ok(unpacked),
                Err(error) => patience.wait(error).await?,
            }
        }
    }

    async fn fetch_once(&self, segment: &Segment) -> Result<Unpacked, OutputError> {
        let kib = |bytes: u64| u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1);
        let room = kib(segment.length).saturating_add(kib(segment.stored)).min(super::SEGMENTS as u32);
        let damaged = |why| {
            let (log, start, end) = (segment.log.clone(), segment.start, segment.end());
            OutputError::Damaged { log, start, end, why }
        };
        // Nobody closes it.
        let Ok(mut room) = self.segments.clone().acquire_many_owned(room).await else {
            return Err(damaged("the processor is going down"));
        };
        let object = within("get an object", self.store.get(&segment.object, segment.stored)).await?;
        let object = object.ok_or_else(|| damaged("their object is not in the store"))?;
        let (length, sha256) = (segment.length, segment.sha256.clone());
        // Some ten milliseconds of work for a large one: others shall not wait for it.
        let unpacked = tokio::task::spawn_blocking(move || segment::unpack(&object, length, &sha256)).await;
        let bytes = unpacked.unwrap_or(Err("they could not be unpacked")).map_err(damaged)?;
        drop(room.split(kib(segment.stored) as usize));
        Ok(Unpacked { bytes, _room: room })
    }
}

/// Waits for what passes: a database or a store that does not answer.
pub(super) struct Patience {
    left: u32,
    wait: Duration,
}

impl Patience {
    pub fn new() -> Self {
        Self { left: TRIES, wait: FIRST_WAIT }
    }

    /// Returns when the same may be tried again.
    ///
    /// # Errors
    /// The same error, if it does not pass, or was seen too often.
    pub async fn wait(&mut self, error: OutputError) -> Result<(), OutputError> {
        self.left = self.left.saturating_sub(1);
        if !error.is_passing() || self.left == 0 {
            return Err(error);
        }
        tracing::warn!("{}.", navvy_job::chain::chain(&error));
        sleep(self.wait).await;
        self.wait *= 2;
        Ok(())
    }
}

struct Reader {
    output: Output,
    live: Attached,
    task: String,
    log: String,
    /// Everything before it was passed on.
    cursor: u64,
    /// Where a reader that does not follow ends.
    until: Option<u64>,
    /// How far the log was durable when it was looked at last.
    durable: u64,
    /// Rows of the index that follow the cursor.
    ahead: VecDeque<Segment>,
    seen: Change,
}

/// What the index says of a cursor.
enum Next {
    Segment(Segment),
    End,
    Nothing,
}

/// Whether a reader goes on.
enum Passed {
    On,
    /// Nobody reads any more.
    Gone,
}

type Pieces = mpsc::Sender<Result<Bytes, OutputError>>;

impl Reader {
    async fn run(mut self, pieces: Pieces) {
        if let Err(error) = self.copy(&pieces).await {
            // Nobody may be there to hear it.
            let _gone = pieces.send(Err(error)).await;
        }
    }

    async fn copy(&mut self, pieces: &Pieces) -> Result<(), OutputError> {
        let mut looked: Option<Instant> = None;
        while self.until.is_none_or(|until| self.cursor < until) {
            let told = self.live.seen();
            if told.anew != self.seen.anew {
                return Err(OutputError::BeganAnew { log: self.log.clone() });
            }
            if told.index != self.seen.index || looked.is_some_and(|looked| looked.elapsed() >= self.output.look_again)
            {
                looked = None;
            }
            self.seen = told;
            if let Some(bytes) = self.live.from(self.cursor, PIECE) {
                self.cursor += bytes.len() as u64;
                if pieces.send(Ok(bytes)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            let Some(at) = looked else {
                looked = Some(Instant::now());
                match self.next().await? {
                    Next::End => return Ok(()),
                    Next::Nothing if self.until.is_some() => return Ok(()),
                    Next::Nothing => {}
                    Next::Segment(segment) => {
                        looked = None;
                        if let Passed::Gone = self.pass_on(&segment, pieces).await? {
                            return Ok(());
                        }
                    }
                }
                continue;
            };
            tokio::select! {
                () = self.live.told() => {}
                () = sleep_until(at + self.output.look_again) => {}
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Next, OutputError> {
        let covers = |segment: &Segment, cursor| segment.start <= cursor && cursor < segment.end();
        while let Some(segment) = self.ahead.pop_front() {
            if covers(&segment, self.cursor) {
                return Ok(Next::Segment(segment));
            }
        }
        let mut patience = Patience::new();
        let (ended, state, rows) = loop {
            match self.look().await {
                Ok(found) => break found,
                Err(error) => patience.wait(error).await?,
            }
        };
        let durable = state.as_ref().map_or(0, |state| state.durable);
        if durable < self.durable {
            return Err(OutputError::BeganAnew { log: self.log.clone() });
        }
        self.durable = durable;
        self.ahead = rows.into();
        if self.ahead.front().is_some_and(|segment| covers(segment, self.cursor)) {
            return Ok(self.ahead.pop_front().map_or(Next::Nothing, Next::Segment));
        }
        match state.and_then(|state| state.end) {
            Some((bytes, _)) if self.cursor >= bytes => Ok(Next::End),
            end if ended => {
                let to = end.map(|(bytes, _)| bytes);
                Err(OutputError::Missing { log: self.log.clone(), from: self.cursor, to })
            }
            _ => Ok(Next::Nothing),
        }
    }

    /// In this order: of a task that had ended, nothing can have come in between.
    async fn look(&self) -> Result<(bool, Option<LogState>, Vec<Segment>), OutputError> {
        let (ended, state) = self.output.look(&self.task, &self.log).await?;
        let rows = self.output.state.segments_from(&self.task, &self.log, self.cursor, ROWS).await?;
        Ok((ended, state, rows))
    }

    async fn pass_on(&mut self, segment: &Segment, pieces: &Pieces) -> Result<Passed, OutputError> {
        let unpacked = self.output.fetch(segment).await?;
        let by = Instant::now() + HOLD;
        let at = usize::try_from(self.cursor.saturating_sub(segment.start)).unwrap_or(usize::MAX);
        for piece in unpacked.bytes.get(at..).unwrap_or_default().chunks(PIECE) {
            match timeout_at(by, pieces.reserve()).await {
                // A copy: a slice would keep the whole segment.
                Ok(Ok(place)) => place.send(Ok(Bytes::copy_from_slice(piece))),
                Ok(Err(_)) => return Ok(Passed::Gone),
                Err(_) => {
                    drop(unpacked);
                    self.ahead.clear();
                    let gone = pieces.reserve().await.is_err();
                    return Ok(if gone { Passed::Gone } else { Passed::On });
                }
            }
            self.cursor += piece.len() as u64;
        }
        Ok(Passed::On)
    }
}
