//! A pipeline's events and output, from a processor onto the bus: what the views of `navvy run` are fed with.
//!
//! ```text
//! cursor::Events ─▶ Relay ─────────────────────────────────▶ bus       in the order in which things happened:
//!                    ├ step started: a reader ─▶ its output ──▶ bus       a step's end waits for the last of its output
//!                    ├ step ended: the reader reads to its length
//!                    └ task's logs are final: what came later is fetched, too
//! ```
//!
//! The views that show tails only are given tails only: of a step that has ended well, nothing is fetched.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use navvy_job::event::{Event, JobRef, LogOf, Received, Stamped, TaskRef};
use navvy_job::id::TaskId;
use navvy_job::outcome::StepOutcome;
use tokio::sync::watch;
use tokio::time::Instant;

use super::client::Client;
use super::cursor::{Events, Heard, LogStream};
use super::error::RemoteError;
use super::reading::{Clock, Reader, Reading, Source, Start, TAIL};
use crate::bus::Bus;
use crate::task::Feed;

/// What happened so long ago is history: its end has probably come, too.
const HISTORY_MS: i64 = 10_000;

/// How people find a log again that lies with a processor: a command.
#[derive(Debug, Clone)]
pub struct Commands {
    /// `navvy logs --remote`.
    pub logs: String,
    /// The pipeline.
    pub pipeline: String,
}

/// A pipeline that is being followed.
pub struct Relay {
    client: Client,
    events: Events,
    bus: Bus,
    feed: Feed,
    /// `None`: paths are passed on as they are.
    commands: Option<Commands>,
    /// Approvals that wait for an answer, the oldest first.
    approvals: Option<watch::Sender<Vec<JobRef>>>,
    clock: Clock,
    /// That what runs is to stop was told; and if at once.
    stop_told: Option<bool>,
    readers: HashMap<(TaskId, String), Reader>,
    /// How much of each log of a running task was passed on.
    passed: HashMap<(TaskId, String), u64>,
    /// The command for each log, by the path that its agent knows.
    known: HashMap<PathBuf, PathBuf>,
}

impl Relay {
    /// `met`: the processor was reached a moment ago.
    pub fn new(client: &Client, pipeline: &str, met: bool, bus: Bus, feed: Feed) -> Self {
        Self {
            client: client.clone(),
            events: Events::new(client.clone(), pipeline, met),
            bus,
            feed,
            commands: None,
            approvals: None,
            clock: Clock::default(),
            stop_told: None,
            readers: HashMap::new(),
            passed: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// For people: in place of paths on other machines there are commands.
    #[must_use]
    pub fn with_commands(mut self, commands: Commands) -> Self {
        self.commands = Some(commands);
        self
    }

    /// Approvals that wait for an answer are told here.
    #[must_use]
    pub fn with_approvals(mut self, approvals: watch::Sender<Vec<JobRef>>) -> Self {
        self.approvals = Some(approvals);
        self
    }

    /// Passes everything on, to the end of the pipeline; returns its exit code.
    ///
    /// # Errors
    /// The processor is away for good, or refuses.
    pub async fn run(mut self) -> Result<u8, RemoteError> {
        loop {
            match self.events.next().await? {
                Heard::Event { number, event } => match *event {
                    Received::Known(stamped) => {
                        if let Some(code) = self.take(*stamped).await {
                            return Ok(code);
                        }
                    }
                    Received::Unknown { event } if event == "run_ended" => {
                        let why = "its last event is not what this version knows: this program is older".to_owned();
                        return Err(RemoteError::Answer { at: self.client.at(), why });
                    }
                    Received::Unknown { event } => {
                        tracing::debug!(number, event, "An event is not known here, and passed over.");
                    }
                },
                Heard::Lost(why) => self.warn(None, format!("{why}; trying again")),
                Heard::Missing { from, to } => {
                    self.warn(None, format!("the processor has lost the events {from} to {to} of this pipeline"));
                }
            }
        }
    }

    /// The exit code, of the last event.
    async fn take(&mut self, mut stamped: Stamped) -> Option<u8> {
        let age = self.stamp(&mut stamped);
        match &stamped.event {
            // It comes from the logs alone, or it would come twice.
            Event::Output { .. } => return None,
            Event::StepStarted { task, step, attempt, log, .. } => {
                let source = Source::step(task, *step, *attempt);
                self.remember(&source, log);
                self.put(stamped);
                // What "Spin up environment" writes comes as events, line by line.
                if source.step > 0 {
                    self.open(source, age > HISTORY_MS);
                }
                return None;
            }
            Event::ServiceStarted { task, service, name, log } => {
                let source = Source::service(task, *service, name);
                self.remember(&source, log);
                self.put(stamped);
                // A view of tails has no place for them.
                if self.feed == Feed::All {
                    self.open(source, age > HISTORY_MS);
                }
                return None;
            }
            Event::StepEnded { task, step, attempt, outcome, bytes, .. } => {
                let is_shown = !matches!(outcome, StepOutcome::Success | StepOutcome::Canceled);
                self.finish(Source::step(task, *step, *attempt), *bytes, is_shown).await;
            }
            Event::TaskLogs { task, logs } => {
                let (task, logs) = (task.clone(), logs.clone());
                for end in logs {
                    self.complete(&task, &end.of, end.bytes).await;
                }
            }
            // Each agent hears the same wish.
            Event::StopAsked { at_once, .. } => {
                if self.stop_told >= Some(*at_once) {
                    return None;
                }
                self.stop_told = Some(*at_once);
            }
            Event::TaskEnded { task, .. } => self.forget(&task.task),
            Event::ApprovalAsked { job, .. } => {
                if let Some(approvals) = &self.approvals {
                    approvals.send_modify(|waiting| waiting.push(job.clone()));
                }
            }
            Event::JobEnded { job, .. } => {
                if let Some(approvals) = &self.approvals {
                    approvals.send_modify(|waiting| waiting.retain(|it| it != job));
                }
            }
            Event::RunEnded(summary) => {
                let code = summary.exit_code;
                self.readers.clear();
                self.put(stamped);
                return Some(code);
            }
            _ => {}
        }
        self.put(stamped);
        None
    }

    /// The event on one clock with all others. Returns its age in milliseconds.
    fn stamp(&mut self, stamped: &mut Stamped) -> i64 {
        let Ok(time) = stamped.time.parse::<Timestamp>() else { return 0 };
        if self.clock.begun.is_none() {
            let date = self.events.date().and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
            let here = Timestamp::now().as_millisecond();
            // Whole seconds: less than that is no difference.
            let ahead = date.map_or(0, |date| date.timestamp().as_millisecond().saturating_sub(here));
            self.clock =
                Clock { begun: Some(time.as_millisecond()), ahead: if ahead.abs() < 2000 { 0 } else { ahead } };
            self.bus.begun_before(self.clock.since(self.clock.now()));
        }
        stamped.at_ms = self.clock.since(time);
        self.clock.now().as_millisecond().saturating_sub(time.as_millisecond())
    }

    fn put(&self, mut stamped: Stamped) {
        if let Some(commands) = &self.commands {
            rename(&mut stamped.event, commands, &self.known);
        }
        self.bus.pass(stamped);
    }

    fn warn(&self, task: Option<TaskRef>, message: String) {
        self.bus.pass(self.clock.stamp(Event::Warning { task, message }));
    }

    fn remember(&mut self, source: &Source, log: &Path) {
        if let Some(commands) = &self.commands {
            let command = format!("{} {} {}", commands.logs, source.task.task, source.word);
            self.known.insert(log.to_owned(), command.into());
        }
    }

    /// Begins to pass a log on.
    fn open(&mut self, source: Source, is_history: bool) {
        match self.feed {
            Feed::Nothing => {}
            Feed::All => self.start(source, 0, Start::Now),
            Feed::Tail => self.start(source, 0, if is_history { Start::AtTail } else { Start::Now }),
        }
    }

    fn start(&mut self, source: Source, offset: u64, start: Start) {
        let stream = LogStream::new(self.client.clone(), source.task.task.as_str(), &source.log, offset);
        let (goal, watched) = watch::channel(None);
        let passed = Arc::new(AtomicU64::new(offset));
        let key = source.key();
        let reading = Reading {
            client: self.client.clone(),
            source,
            stream,
            start,
            goal: watched,
            passed: Arc::clone(&passed),
            pending: Vec::new(),
            taken: offset,
            flushed: Instant::now(),
            tails: self.feed == Feed::Tail,
            bus: self.bus.clone(),
            clock: self.clock,
        };
        self.readers.insert(key, Reader { goal, passed, reading: tokio::spawn(reading.run()) });
    }

    /// The step has ended, and has written so much until then.
    async fn finish(&mut self, source: Source, bytes: u64, is_shown: bool) {
        let key = source.key();
        let Some(reader) = self.readers.remove(&key) else { return };
        if self.feed == Feed::All {
            let passed = self.to_its_end(&source, reader, bytes).await;
            self.passed.insert(key, passed);
        } else if is_shown {
            let passed = reader.passed.load(Ordering::Relaxed);
            drop(reader);
            self.start(source.clone(), passed.max(bytes.saturating_sub(TAIL)), Start::Now);
            if let Some(reader) = self.readers.remove(&key) {
                self.to_its_end(&source, reader, bytes).await;
            }
        }
    }

    /// The log is final: what was written after the step's end comes now.
    async fn complete(&mut self, task: &TaskRef, of: &LogOf, bytes: u64) {
        let source = Source::of(task, of);
        let key = source.key();
        if self.feed != Feed::All {
            self.readers.remove(&key);
            return;
        }
        if !self.readers.contains_key(&key) {
            // Of "Spin up environment" there are events, and no reader.
            let Some(passed) = self.passed.get(&key).copied().filter(|passed| *passed < bytes) else { return };
            self.start(source.clone(), passed, Start::Now);
        }
        if let Some(reader) = self.readers.remove(&key) {
            let passed = self.to_its_end(&source, reader, bytes).await;
            self.passed.insert(key, passed);
        }
    }

    /// Waits until so much of the log was passed on. Returns how much it was.
    async fn to_its_end(&self, source: &Source, mut reader: Reader, bytes: u64) -> u64 {
        reader.goal.send_replace(Some(bytes));
        let trouble = (&mut reader.reading).await.unwrap_or_else(|error| Some(error.to_string()));
        let passed = reader.passed.load(Ordering::Relaxed);
        if let Some(trouble) = trouble.filter(|_| passed < bytes) {
            let what = format!("of its log {} only {passed} of {bytes} bytes came: {trouble}", source.word);
            self.warn(Some(source.task.clone()), what);
        }
        passed
    }

    fn forget(&mut self, task: &TaskId) {
        self.readers.retain(|(of, _), _| of != task);
        self.passed.retain(|(of, _), _| of != task);
    }
}

/// Paths on other machines become commands.
fn rename(event: &mut Event, commands: &Commands, known: &HashMap<PathBuf, PathBuf>) {
    let all = || PathBuf::from(format!("{} --run {}", commands.logs, commands.pipeline));
    match event {
        Event::RunStarted { logs, .. } => *logs = all(),
        Event::StepStarted { log, .. } => {
            if let Some(command) = known.get(log) {
                log.clone_from(command);
            }
        }
        Event::RunEnded(summary) => {
            summary.logs = all();
            for job in &mut summary.jobs {
                job.log = job.log.take().and_then(|log| known.get(&log).cloned());
                job.other_logs = job.other_logs.iter().filter_map(|log| known.get(log).cloned()).collect();
            }
        }
        _ => {}
    }
}
