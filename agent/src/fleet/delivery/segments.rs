//! Logs on their way into the store, segment by segment.
//!
//! ```text
//! bell, news, time ─▶ look: which log is to be cut? ─▶ seal ─▶ grant ─▶ PUT ─┐  up to three at a time, again on failure
//!                      ▲───────────── cut smaller ◀── too slow ◀────────────┤
//!                                                                            ▼
//!                      durable ◀──────────────── CommitSegments ◀── all that has arrived meanwhile
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use navvy_job::event::LogEnd;
use navvy_protocol::processor::MAX_SEGMENT;
use navvy_protocol::processor::v1::{CommitSegmentsRequest, Segment, SegmentRequest};
use navvy_storage::Transport;
use object_store::client::{HttpErrorKind, HttpRequest, HttpService as _};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::codegen::http;

use super::cuts::{Cuts, Next, SEGMENT};
use super::seal::{Sealed, aside, drop_range, seal};
use super::sizes::Sizes;
use super::{Logs, Progress, name_of};
use crate::fleet::connection::{Session, unary};
use crate::fleet::persist::{Halt, Loss, Pauses, lost, persist};
use crate::fleet::record::LogNews;
use crate::spool::Spool;

/// Segments of one commit.
const BATCH: usize = 100;
/// Between two looks at logs that are being written to.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at logs whose step has ended.
const SELDOM: Duration = Duration::from_secs(1);

const _: () = assert!(SEGMENT as usize <= MAX_SEGMENT, "a processor takes no longer segments");

/// What is delivered, and to whom.
pub struct SegmentDelivery {
    pub session: Session,
    pub loss: Loss,
    pub transport: Transport,
    pub spool: Spool,
    /// Bytes on disk from which on durable ones are dropped.
    pub keep: u64,
    pub logs: Logs,
    pub news: mpsc::UnboundedReceiver<LogNews>,
    /// How far logs are durable already, by name.
    pub marks: BTreeMap<String, u64>,
    pub progress: Progress,
}

#[derive(Debug, Default)]
struct Log {
    cuts: Cuts,
    /// As it was seen last.
    length: u64,
    /// Its step has ended.
    quiet: bool,
    /// All before is gone from the disk.
    dropped: u64,
}

/// What came of a piece of work.
enum Done {
    /// And how long its last attempt took.
    Arrived(Segment, Duration),
    /// The store takes so little that this range of a log is to go in smaller segments.
    TooSlow(String, Range<u64>),
    Committed(Vec<Segment>),
}

struct State {
    parts: SegmentDelivery,
    logs: BTreeMap<String, Log>,
    /// Nothing is written any more.
    over: bool,
    ends: Vec<LogEnd>,
    working: JoinSet<Result<Done, Halt>>,
    sizes: Sizes,
    /// Ranges that were cut before, and go again in smaller segments.
    again: VecDeque<(String, Range<u64>)>,
    on_their_way: usize,
    /// One segment is sealed at a time: more would take the step's processors, and one is faster than most networks.
    sealing: Arc<Semaphore>,
    /// In the store, and not in the index.
    arrived: Vec<Segment>,
    is_committing: bool,
    looked_at_all: Instant,
    /// The disk does not take holes, or no more of them.
    keeps_all: bool,
}

impl SegmentDelivery {
    /// Until all logs are durable. Returns their ends.
    ///
    /// # Errors
    /// The task is lost, the processor refuses a segment, or a log cannot be read.
    pub async fn deliver(self) -> Result<Vec<LogEnd>, Halt> {
        let mut bell = self.spool.bell();
        let mut loss = self.loss.clone();
        let mut state = State {
            parts: self,
            logs: BTreeMap::new(),
            over: false,
            ends: Vec::new(),
            working: JoinSet::new(),
            sizes: Sizes::default(),
            again: VecDeque::new(),
            on_their_way: 0,
            sealing: Arc::new(Semaphore::new(1)),
            arrived: Vec::new(),
            is_committing: false,
            looked_at_all: Instant::now(),
            keeps_all: false,
        };
        loop {
            let wake = state.look();
            state.commit();
            if state.is_done() {
                return Ok(state.ends);
            }
            let over = state.over;
            tokio::select! {
                biased;
                () = lost(&mut loss) => return Err(Halt::Lost),
                Some(news) = state.parts.news.recv(), if !over => state.hear(news),
                Some(done) = state.working.join_next() => {
                    let ended = || Halt::Spool("a thread of the agent ended unexpectedly".to_owned());
                    state.take(done.map_err(|_| ended())??);
                }
                // Whatever else happens meanwhile leads to a look, too.
                () = rung(&mut bell), if !over => {}
                () = tokio::time::sleep_until(wake.unwrap_or_else(|| Instant::now() + SELDOM)) => {}
            }
        }
    }
}

/// Rings not so often that looking would be all that is done.
async fn rung(bell: &mut tokio::sync::watch::Receiver<u64>) {
    if bell.changed().await.is_err() {
        std::future::pending().await
    }
    tokio::time::sleep(PAUSE).await;
}

impl State {
    fn hear(&mut self, news: LogNews) {
        match news {
            LogNews::Begins(name) => {
                self.parts.logs.note_writer(&name, false);
                let durable = self.parts.marks.get(&name).copied().unwrap_or(0);
                self.logs.entry(name).or_insert_with(|| Log { cuts: Cuts::from(durable), ..Log::default() });
            }
            LogNews::Pauses(name) => {
                self.parts.logs.note_writer(&name, true);
                if let Some(log) = self.logs.get_mut(&name) {
                    log.length = self.parts.logs.length(&name);
                    log.quiet = true;
                    log.cuts.hurry();
                }
            }
            LogNews::Over(ends) => self.end(ends),
        }
    }

    fn end(&mut self, ends: Vec<LogEnd>) {
        self.over = true;
        let mut known = std::mem::take(&mut self.logs);
        for end in &ends {
            let Some(name) = name_of(&end.log) else { continue };
            self.parts.logs.note_writer(&name, true);
            let mut log = known.remove(&name).unwrap_or_default();
            log.length = end.bytes;
            log.cuts.ends(end.bytes);
            self.logs.insert(name, log);
        }
        for (name, mut log) in known {
            self.parts.logs.note_writer(&name, true);
            // One that nobody says the end of, and that was made all the same, is delivered as far as it goes. Others were never made.
            if self.parts.logs.may_be_there(&name) {
                log.length = self.parts.logs.length(&name);
                log.cuts.ends(log.length);
                self.logs.insert(name, log);
            }
        }
        self.ends = ends;
    }

    /// Starts what can be started. Returns when it is time to look again.
    fn look(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let all = now >= self.looked_at_all + SELDOM;
        if all {
            self.looked_at_all = now;
        }
        if !self.over {
            for (name, log) in self.logs.iter_mut().filter(|(_, log)| all || !log.quiet) {
                log.length = self.parts.logs.length(name);
            }
        }
        let presses = self.parts.spool.waiting() >= self.parts.spool.limit() / 8;
        for log in self.logs.values_mut() {
            log.cuts.press(presses);
            log.cuts.limit(self.sizes.whole());
        }
        self.send_again();
        let mut wake = None;
        while self.on_their_way < self.sizes.at_once() {
            let mut due: Option<(Option<Instant>, String, Range<u64>)> = None;
            wake = None;
            for (name, log) in &mut self.logs {
                match log.cuts.next(log.length, now) {
                    Next::Cut(range) => {
                        let since = log.cuts.since();
                        if due.as_ref().is_none_or(|(oldest, ..)| since < *oldest) {
                            due = Some((since, name.clone(), range));
                        }
                    }
                    Next::At(moment) => wake = Some(wake.map_or(moment, |known: Instant| known.min(moment))),
                    Next::Nothing => {}
                }
            }
            let Some((_, name, range)) = due else { break };
            if let Some(log) = self.logs.get_mut(&name) {
                log.cuts.make(&range);
            }
            self.send(&name, range);
        }
        wake
    }

    /// What was too slow goes before what comes behind it.
    fn send_again(&mut self) {
        while self.on_their_way < self.sizes.at_once() {
            let Some((name, range)) = self.again.pop_front() else { return };
            let end = range.end.min(range.start + self.sizes.whole());
            if end < range.end {
                self.again.push_front((name.clone(), end..range.end));
            }
            self.send(&name, range.start..end);
        }
    }

    fn send(&mut self, name: &str, range: Range<u64>) {
        self.on_their_way += 1;
        let SegmentDelivery { session, loss, transport, logs, .. } = &self.parts;
        let sending = Sending {
            session: session.clone(),
            loss: loss.clone(),
            transport: transport.clone(),
            log: name.to_owned(),
            path: logs.path(name),
            range,
            sealing: Arc::clone(&self.sealing),
        };
        self.working.spawn(sending.carry_out());
    }

    fn commit(&mut self) {
        if self.is_committing || self.arrived.is_empty() {
            return;
        }
        let segments = self.next_in_order();
        if segments.is_empty() {
            return;
        }
        self.is_committing = true;
        let (session, loss) = (self.parts.session.clone(), self.parts.loss.clone());
        self.working.spawn(async move {
            let call = || {
                let (mut agents, request) = (session.agents(), CommitSegmentsRequest { segments: segments.clone() });
                async move { unary(agents.commit_segments(request)).await }
            };
            persist(&session, &loss, call).await?;
            Ok(Done::Committed(segments))
        });
    }

    /// Those that follow each other from where their log is durable: an agent that goes on with another's spool may cut what
    /// is behind in another way.
    fn next_in_order(&mut self) -> Vec<Segment> {
        self.arrived.sort_by(|a, b| (&a.log, a.offset).cmp(&(&b.log, b.offset)));
        let mut ends: BTreeMap<String, u64> = BTreeMap::new();
        let (mut next, mut later) = (Vec::new(), Vec::new());
        for segment in std::mem::take(&mut self.arrived) {
            let durable = || self.logs.get(&segment.log).map_or(0, |log| log.cuts.durable());
            let end = ends.entry(segment.log.clone()).or_insert_with(durable);
            if next.len() < BATCH && segment.offset == *end {
                *end += u64::from(segment.length);
                next.push(segment);
            } else {
                later.push(segment);
            }
        }
        self.arrived = later;
        next
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Arrived(segment, took) => {
                self.on_their_way -= 1;
                self.sizes.arrived(segment.length.into(), took);
                self.arrived.push(segment);
            }
            Done::TooSlow(log, range) => {
                self.on_their_way -= 1;
                self.sizes.too_slow(range.end - range.start);
                let whole = self.sizes.whole();
                tracing::debug!(log, "The store is slow: segments have at most {whole} bytes now.");
                self.again.push_back((log, range));
            }
            Done::Committed(segments) => {
                self.is_committing = false;
                for segment in segments {
                    if let Some(log) = self.logs.get_mut(&segment.log) {
                        let range = segment.offset..segment.offset + u64::from(segment.length);
                        self.parts.spool.durable(log.cuts.committed(range));
                    }
                }
                self.parts.progress.made();
                self.make_room();
            }
        }
    }

    /// Drops what is durable from a disk that holds much.
    fn make_room(&mut self) {
        let on_disk: u64 = self.logs.values().map(|log| log.length.saturating_sub(log.dropped)).sum();
        if on_disk <= self.parts.keep || self.keeps_all {
            return;
        }
        for (name, log) in &mut self.logs {
            let range = log.dropped..log.cuts.durable();
            match drop_range(&self.parts.logs.path(name), range) {
                Ok(dropped) => log.dropped = dropped,
                Err(error) => {
                    tracing::warn!(%error, "What is durable of a task's logs stays on the disk, which makes no holes in files.");
                    self.keeps_all = true;
                    return;
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        self.over
            && self.working.is_empty()
            && self.arrived.is_empty()
            && self.logs.values().all(|log| log.cuts.is_done())
    }
}

/// What came of one attempt.
enum Put {
    /// As this object.
    Stored(String),
    /// It was given up, since so little of it moved.
    Slow,
    /// Why not, without the URL.
    Failed(String),
}

/// One segment on its way.
struct Sending {
    session: Session,
    loss: Loss,
    transport: Transport,
    log: String,
    path: std::path::PathBuf,
    range: Range<u64>,
    sealing: Arc<Semaphore>,
}

impl Sending {
    async fn carry_out(mut self) -> Result<Done, Halt> {
        let (path, range) = (self.path.clone(), self.range.clone());
        let turn = Arc::clone(&self.sealing).acquire_owned().await;
        let sealed = aside(move || seal(&path, &range)).await;
        drop(turn);
        let unreadable = |why: String| Halt::Spool(format!("log {} cannot be read back from disk: {why}", self.log));
        let sealed = sealed.map_err(|error| unreadable(error.to_string()))?;
        let segment = Segment {
            log: self.log.clone(),
            offset: self.range.start,
            length: u32::try_from(self.range.end - self.range.start).unwrap_or(u32::MAX),
            stored: u32::try_from(sealed.object.len()).unwrap_or(u32::MAX),
            sha256: sealed.sha256.to_vec(),
            object: String::new(),
        };
        let mut pauses = Pauses::default();
        loop {
            let begun = Instant::now();
            match self.put(&segment, &sealed).await? {
                Put::Stored(object) => return Ok(Done::Arrived(Segment { object, ..segment }, begun.elapsed())),
                Put::Slow if Sizes::can_shrink(segment.length.into()) => {
                    return Ok(Done::TooSlow(segment.log, self.range));
                }
                Put::Slow => tracing::debug!(log = %segment.log, "A segment is sent again: the store hardly takes it."),
                // For as long as the lease holds: the store may be away for a while.
                Put::Failed(why) => tracing::debug!(log = %segment.log, "A segment is sent again: {why}."),
            }
            tokio::select! {
                () = lost(&mut self.loss) => return Err(Halt::Lost),
                () = tokio::time::sleep(pauses.another()) => {}
            }
        }
    }

    /// One attempt, with a grant of its own.
    async fn put(&mut self, segment: &Segment, sealed: &Sealed) -> Result<Put, Halt> {
        let call = || {
            let (mut agents, request) = (self.session.agents(), SegmentRequest { segment: Some(segment.clone()) });
            async move { unary(agents.grant_segment(request)).await }
        };
        let grant = persist(&self.session, &self.loss, call).await?;
        let request: Result<HttpRequest, _> = http::Request::builder()
            .method(http::Method::PUT)
            .uri(grant.url)
            .header(http::header::CONTENT_LENGTH, sealed.object.len())
            .body(sealed.object.clone().into());
        let Ok(request) = request else { return Ok(Put::Failed("the granted address is no URL".to_owned())) };
        let answered = tokio::select! {
            () = lost(&mut self.loss) => return Err(Halt::Lost),
            answered = self.transport.call(request) => answered,
        };
        Ok(match answered {
            Ok(response) if response.status().is_success() => Put::Stored(grant.object),
            Ok(response) => Put::Failed(format!("the store answered {}", response.status())),
            Err(error) if error.kind() == HttpErrorKind::Timeout => Put::Slow,
            Err(error) => Put::Failed(error.to_string()),
        })
    }
}
