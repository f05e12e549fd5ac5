//! Streams that go on where they were, whatever breaks between.
//!
//! ```text
//! open(after) ─▶ pieces ─▶ cursor moves on ─▶ pieces …
//!      ▲                       │ cut, silent, refused for now
//!      └─── a pause that grows ◀┘         what was refused for good, or for too long, is an error
//! ```
//!
//! Nothing is given twice and nothing is left out: the cursor is what was given, and not what was asked for.

use std::time::Duration;

use bytes::Bytes;
use navvy_job::event::Received;
use navvy_protocol::api::NumberedEvent;
use serde::Deserialize as _;
use tokio::time::Instant;

use super::client::{Client, Incoming};
use super::error::RemoteError;

/// No event is longer: those of agents come in messages of 4 MiB.
const LONGEST_LINE: usize = 8 << 20;
/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A processor that has been away for so long is given up.
const AWAY: Duration = Duration::from_secs(300);

/// When to try again, and for how long.
#[derive(Debug)]
struct Patience {
    /// Once it was there: what cannot be reached at all is an error at once.
    met: bool,
    since: Option<Instant>,
    pause: Duration,
}

impl Patience {
    fn new(met: bool) -> Self {
        Self { met, since: None, pause: PAUSES.0 }
    }

    /// Something came.
    fn went_well(&mut self) {
        *self = Self::new(true);
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// There is none.
    async fn bear(&mut self, error: RemoteError) -> Result<(), RemoteError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !self.met || !error.is_transient() || since.elapsed() > AWAY {
            return Err(error);
        }
        self.rest().await;
        Ok(())
    }

    async fn rest(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
    }
}

/// What is heard of a pipeline.
#[derive(Debug)]
pub enum Heard {
    /// Its next event.
    Event {
        /// Its number.
        number: u64,
        /// What happened.
        event: Box<Received>,
    },
    /// The connection is lost, and another one is tried; said once.
    Lost(String),
    /// Events that the processor does not have, although it gave their numbers.
    Missing {
        /// The first number.
        from: u64,
        /// The last one.
        to: u64,
    },
}

/// The events of a pipeline, from the first to the last.
#[derive(Debug)]
pub struct Events {
    client: Client,
    pipeline: String,
    /// The number of the last event that was given.
    after: u64,
    lines: Option<Lines>,
    patience: Patience,
    told: bool,
    /// A number that is missing was asked for again, on a new connection.
    asked_again: Option<u64>,
    /// The processor's clock, at the last connection.
    date: Option<String>,
}

impl Events {
    /// Opens no connection yet. `met`: the processor was reached a moment ago.
    pub fn new(client: Client, pipeline: &str, met: bool) -> Self {
        Self {
            client,
            pipeline: pipeline.to_owned(),
            after: 0,
            lines: None,
            patience: Patience::new(met),
            told: false,
            asked_again: None,
            date: None,
        }
    }

    /// The processor's clock as it last answered.
    pub fn date(&self) -> Option<&str> {
        self.date.as_deref()
    }

    /// Waits for what comes next. May be dropped and asked again.
    ///
    /// # Errors
    /// The processor is away for good, or refuses.
    pub async fn next(&mut self) -> Result<Heard, RemoteError> {
        loop {
            let error = match self.line().await {
                Ok(Some(line)) => match self.take(&line)? {
                    Some(heard) => return Ok(heard),
                    None => continue,
                },
                // The pipeline is not over, or its last event would have come.
                Ok(None) => {
                    self.lines = None;
                    self.patience.rest().await;
                    continue;
                }
                Err(error) => error,
            };
            self.lines = None;
            if !self.told && self.patience.met && error.is_transient() {
                self.told = true;
                return Ok(Heard::Lost(error.to_string()));
            }
            self.patience.bear(error).await?;
        }
    }

    async fn line(&mut self) -> Result<Option<Vec<u8>>, RemoteError> {
        let lines = match &mut self.lines {
            Some(lines) => lines,
            None => {
                let query = [("after", self.after.to_string()), ("follow", "true".to_owned())];
                let incoming = self.client.open(&["pipeline", &self.pipeline, "events"], &query).await?;
                self.date = incoming.date().map(str::to_owned);
                self.patience.met = true;
                self.lines.insert(Lines { incoming, buffer: Vec::new(), seen: 0, at: self.client.at() })
            }
        };
        lines.next().await
    }

    /// What a line says, if it is new.
    fn take(&mut self, line: &[u8]) -> Result<Option<Heard>, RemoteError> {
        // Empty lines keep a connection alive.
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let answer = |why: String| RemoteError::Answer { at: self.client.at(), why };
        let NumberedEvent { number, event } =
            serde_json::from_slice(line).map_err(|error| answer(error.to_string()))?;
        if number <= self.after {
            return Ok(None);
        }
        let wanted = self.after + 1;
        if number > wanted && self.asked_again != Some(wanted) {
            self.asked_again = Some(wanted);
            self.lines = None;
            return Ok(None);
        }
        if number > wanted {
            self.after = number - 1;
            // The event itself comes again with the next connection.
            self.lines = None;
            return Ok(Some(Heard::Missing { from: wanted, to: number - 1 }));
        }
        let event = Received::deserialize(event).map_err(|error| answer(format!("event {number}: {error}")))?;
        self.after = number;
        self.told = false;
        self.patience.went_well();
        Ok(Some(Heard::Event { number, event: Box::new(event) }))
    }
}

/// Whole lines of a stream.
#[derive(Debug)]
struct Lines {
    incoming: Incoming,
    buffer: Vec<u8>,
    /// So many bytes of the buffer hold no end of a line.
    seen: usize,
    at: String,
}

impl Lines {
    /// The next line, without its end; `None` after the last one.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, RemoteError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.seen..]) {
                let rest = self.buffer.split_off(self.seen + end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.seen = 0;
                line.pop();
                return Ok(Some(line));
            }
            self.seen = self.buffer.len();
            if self.buffer.len() > LONGEST_LINE {
                let why = format!("a line of it is longer than {} MiB", LONGEST_LINE >> 20);
                return Err(RemoteError::Answer { at: self.at.clone(), why });
            }
            match self.incoming.next().await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    let why = "it ends in the middle of a line".to_owned();
                    return Err(RemoteError::Cut { at: self.at.clone(), why });
                }
            }
        }
    }
}

/// The bytes of a log, from an offset on.
#[derive(Debug)]
pub struct LogStream {
    client: Client,
    task: String,
    /// `log` or `artifact`, and which one.
    kind: &'static str,
    name: String,
    /// Where the next byte stands that was not given yet.
    offset: u64,
    /// What is not written yet is waited for.
    follows: bool,
    incoming: Option<Incoming>,
    patience: Patience,
}

impl LogStream {
    /// Opens no connection yet.
    pub fn new(client: Client, task: &str, log: &str, offset: u64) -> Self {
        let (task, name) = (task.to_owned(), log.to_owned());
        Self { client, task, kind: "log", name, offset, follows: true, incoming: None, patience: Patience::new(true) }
    }

    /// All bytes before this one were given.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, as soon as there are any; for as long as the log may grow, there is no end. May be dropped and asked
    /// again.
    ///
    /// # Errors
    /// The processor is away for good, or refuses.
    pub async fn next(&mut self) -> Result<Bytes, RemoteError> {
        loop {
            match self.piece().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => {
                    self.offset += bytes.len() as u64;
                    self.patience.went_well();
                    return Ok(bytes);
                }
                Ok(None) => {
                    self.incoming = None;
                    self.patience.rest().await;
                }
                // Nothing of it has come to the processor yet; or it was begun anew, and what it had seen live is not durable yet.
                Err(error) if error.is_absent() => {
                    self.incoming = None;
                    self.patience.rest().await;
                }
                Err(error) => {
                    self.incoming = None;
                    self.patience.bear(error).await?;
                }
            }
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, RemoteError> {
        let incoming = match &mut self.incoming {
            Some(incoming) => incoming,
            None => {
                let query = [("offset", self.offset.to_string()), ("follow", self.follows.to_string())];
                // What is no log does not grow.
                let query = if self.kind == "log" { &query[..] } else { &query[..1] };
                let opened = self.client.open(&["task", &self.task, self.kind, &self.name], query).await?;
                self.incoming.insert(opened)
            }
        };
        incoming.next().await
    }
}

/// The bytes of a log as far as it goes now, or of an artifact.
#[derive(Debug)]
pub struct Whole {
    stream: LogStream,
}

impl Whole {
    /// Opens no connection yet.
    pub fn new(client: Client, task: &str, log: &str) -> Self {
        let mut stream = LogStream::new(client, task, log, 0);
        stream.follows = false;
        stream.patience.met = false;
        Self { stream }
    }

    /// The same of an artifact.
    pub fn artifact(client: Client, task: &str, artifact: &str) -> Self {
        let mut whole = Self::new(client, task, artifact);
        whole.stream.kind = "artifact";
        whole
    }

    /// So many bytes were given.
    pub fn offset(&self) -> u64 {
        self.stream.offset
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// The processor is away for good, or refuses.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RemoteError> {
        loop {
            match self.stream.piece().await {
                Ok(piece) => {
                    self.stream.offset += piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
                    self.stream.patience.went_well();
                    return Ok(piece);
                }
                Err(error) => {
                    self.stream.incoming = None;
                    self.stream.patience.bear(error).await?;
                }
            }
        }
    }
}
