//! Is a task's output whole? What its agent says at the end, against the index, and against the bytes themselves.
//!
//! ```text
//! ends ─▶ index ─▶ lengths: a gap, or a log that nobody ended? ─▶ incomplete
//!                     │ none
//!                     ▼
//!                  bytes, segment by segment ─▶ SHA-256 of each whole log ─▶ complete, or which log differs
//!                     └ not through within the caller's patience ─▶ checking: the next call goes on there
//! ```
//!
//! The index has a digest of each segment, and no digest of a whole follows from those: it takes the bytes. They are read
//! from the store again, one segment at a time for the whole processor, so that a log of gigabytes neither fills its memory nor
//! keeps its other tasks waiting: checks take turns. Lengths alone would find a lost segment, and not one that was cut wrongly
//! or stored damaged; so nothing is called complete by lengths alone, and what is not checked yet is called that.
//! How far a check came is kept in memory: a processor that starts again checks again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use navvy_protocol::processor::{FormError, v1};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex as Turn, Semaphore};
use tokio::time::timeout;

use super::{LogName, MOST_OFFSET, Output, OutputError, segment};
use crate::auth::TaskAccess;
use crate::state::{Holder, LogState};

/// Ranges of one log that are named.
const MOST_RANGES: usize = 8;
/// Words that are said of one task.
const MOST_WORDS: usize = 64;
/// Logs whose checks are remembered.
const MOST_CHECKS: usize = 4096;

/// Whether a task's output is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// Index, bytes and digests agree.
    Complete,
    /// What is missing or differs, in words.
    Incomplete(Vec<String>),
    /// The index is whole, and the digests are not all compared yet: call again.
    Checking {
        /// Bytes that were read.
        checked: u64,
        /// Bytes of all logs.
        bytes: u64,
    },
}

/// Checks that have begun.
#[derive(Debug)]
pub(super) struct Checks {
    /// By task and log.
    begun: Mutex<HashMap<(String, String), Begun>>,
    /// Whose segment is read now.
    turn: Semaphore,
}

type Begun = Arc<Turn<Check>>;

/// How far the digest of a log came.
#[derive(Debug, Default)]
struct Check {
    at: u64,
    sha256: Sha256,
}

impl Default for Checks {
    fn default() -> Self {
        Self { begun: Mutex::default(), turn: Semaphore::new(1) }
    }
}

impl Checks {
    fn of(&self, task: &str, log: &str) -> Begun {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.len() >= MOST_CHECKS {
            // Those that nobody is at: they would begin again.
            begun.retain(|_, check| Arc::strong_count(check) > 1);
        }
        Arc::clone(begun.entry((task.to_owned(), log.to_owned())).or_default())
    }

    fn checked(&self, task: &str, log: &str) -> u64 {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let check = begun.get(&(task.to_owned(), log.to_owned()));
        check.and_then(|check| Some(check.try_lock().ok()?.at)).unwrap_or(0)
    }

    fn forget(&self, task: &str) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| of != task);
    }
}

impl Output {
    /// Writes down how the logs of a task end, and checks them: see [`Output::check`].
    ///
    /// # Errors
    /// An end is not of the form that `agents.proto` says, or another than before, or the database or store does not answer.
    pub async fn finish(
        &self,
        of: &TaskAccess,
        said: &[v1::LogEnd],
        patience: Duration,
    ) -> Result<Finished, OutputError> {
        let mut ends = BTreeMap::new();
        for end in said {
            let (log, end) = read_end(end)?;
            if ends.insert(log.to_string(), end).is_some() {
                return Err(FormError(format!("log {log} is ended twice in one call")).into());
            }
        }
        self.state.end_logs(Holder { task: &of.task, fence: of.fence }, &ends).await?;
        self.hub.index_changed(&of.task);
        self.check(&of.task, patience).await
    }

    /// Is what the index has of a task's logs all that its agent wrote? Reads for as long as `patience`.
    ///
    /// # Errors
    /// The database or the store does not answer.
    pub async fn check(&self, task: &str, patience: Duration) -> Result<Finished, OutputError> {
        let logs = self.state.logs(task).await?;
        let mut words = Vec::new();
        for log in &logs {
            self.compare_lengths(task, log, &mut words).await?;
        }
        if !words.is_empty() {
            return Ok(incomplete(words));
        }
        let compare = async {
            let mut words = Vec::new();
            for log in &logs {
                words.extend(self.compare_digest(task, log).await?);
            }
            Ok::<_, OutputError>(words)
        };
        let Ok(compared) = timeout(patience, compare).await else {
            let bytes = logs.iter().map(|log| log.durable).sum();
            let checked = logs.iter().map(|log| self.checks.checked(task, &log.log)).sum();
            return Ok(Finished::Checking { checked, bytes });
        };
        let words = compared?;
        self.checks.forget(task);
        Ok(if words.is_empty() { Finished::Complete } else { incomplete(words) })
    }

    async fn compare_lengths(&self, task: &str, log: &LogState, words: &mut Vec<String>) -> Result<(), OutputError> {
        let name = &log.log;
        let Some((bytes, _)) = &log.end else {
            words
                .push(format!("log {name}: {} bytes are stored, and its agent did not say where it ends", log.durable));
            return Ok(());
        };
        let extent = self.state.extent(task, name).await?;
        if extent > *bytes {
            words.push(format!("log {name}: {extent} bytes are stored, and its agent says that it has {bytes}"));
        } else if log.durable < *bytes {
            let gaps = self.state.gaps(task, name, *bytes, MOST_RANGES + 1).await?;
            let mut ranges: Vec<_> = gaps.iter().map(|gap| format!("{} to {}", gap.start, gap.end)).collect();
            if ranges.len() > MOST_RANGES {
                ranges.truncate(MOST_RANGES);
                ranges.push("more".into());
            }
            words.push(format!("log {name}: bytes {} are missing", ranges.join(", ")));
        }
        Ok(())
    }

    /// What is wrong with the bytes of a log whose segments are all there, if anything.
    async fn compare_digest(&self, task: &str, log: &LogState) -> Result<Option<String>, OutputError> {
        let Some((bytes, sha256)) = &log.end else { return Ok(None) };
        let check = self.checks.of(task, &log.log);
        let mut check = check.lock().await;
        while check.at < *bytes {
            let segments = self.state.segments_from(task, &log.log, check.at, 64).await?;
            let before = check.at;
            for segment in segments.iter().take_while(|segment| segment.end() <= *bytes) {
                if segment.start != check.at {
                    break;
                }
                // It is only kept from ending by whoever has the turn; nobody closes it.
                let _turn = self.checks.turn.acquire().await;
                let unpacked = match self.fetch(segment).await {
                    Err(error @ OutputError::Damaged { .. }) => return Ok(Some(error.to_string())),
                    unpacked => unpacked?,
                };
                // A copy: whoever loses patience here leaves the check as it was.
                let mut digest = check.sha256.clone();
                let digested = tokio::task::spawn_blocking(move || {
                    digest.update(&unpacked.bytes);
                    digest
                });
                let Ok(digest) = digested.await else { return Ok(Some(format!("log {}: it cannot be read", log.log))) };
                *check = Check { at: segment.end(), sha256: digest };
            }
            if check.at == before {
                return Ok(Some(format!("log {}: bytes {before} to {bytes} are missing", log.log)));
            }
        }
        let found = segment::hex(&check.sha256.clone().finalize());
        let differs = format!("log {}: its SHA-256 is {found}, and its agent says {sha256}", log.log);
        Ok((found != *sha256).then_some(differs))
    }
}

fn read_end(end: &v1::LogEnd) -> Result<(LogName, (u64, String)), OutputError> {
    let log = LogName::read(&end.log)?;
    if end.bytes > MOST_OFFSET {
        return Err(FormError(format!("log {log} cannot have {} bytes", end.bytes)).into());
    }
    let Ok(sha256) = <[u8; 32]>::try_from(&end.sha256[..]) else {
        return Err(FormError(format!("log {log}: a SHA-256 has 32 bytes, and not {}", end.sha256.len())).into());
    };
    Ok((log, (end.bytes, segment::hex(&sha256))))
}

fn incomplete(mut words: Vec<String>) -> Finished {
    if words.len() > MOST_WORDS {
        let more = words.len() - MOST_WORDS;
        words.truncate(MOST_WORDS);
        words.push(format!("and {more} more logs"));
    }
    Finished::Incomplete(words)
}
