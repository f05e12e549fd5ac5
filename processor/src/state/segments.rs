//! The index of logs: which bytes of which log lie in the store, and how each log ends.
//!
//! ```text
//! log    ├─ segment ─┼─ segment ─┤ … gap … ├─ segment ─┤          ┆ bytes, sha256: what the agent says at the end
//!        0                       └ durable: the end of the prefix without a gap
//! ```
//!
//! Segments of a log never overlap, and may be entered in any order. One that is there already is passed over if it is the
//! same. Whoever enters something holds the log's row, so that two processors that enter at once see each other's segments.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{Dialect, Result, State, StateError, int, uint};

/// Logs of one task, at most: what one answer can list.
const MOST_LOGS: i64 = 10_000;
/// No segment is longer, so one that covers an offset begins at most this far before it.
const LONGEST: u64 = navvy_protocol::processor::MAX_SEGMENT as u64;
/// Rows that are read at once.
const ROWS: i64 = 256;

/// A segment: `length` bytes of a log from `start` on, compressed as one object of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The log's name.
    pub log: String,
    /// Offset of its first byte.
    pub start: u64,
    /// Bytes before compression.
    pub length: u64,
    /// Bytes of the object.
    pub stored: u64,
    /// SHA-256 of the bytes before compression, in hexadecimal.
    pub sha256: String,
    /// The object's path in the store.
    pub object: String,
}

impl Segment {
    /// Offset behind its last byte.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }

    fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let (log, sha256, object) = (row.try_get("log")?, row.try_get("sha256")?, row.try_get("object")?);
        let number = |column| Ok::<_, sqlx::Error>(uint(row.try_get(column)?));
        Ok(Self { log, sha256, object, start: number("start")?, length: number("length")?, stored: number("stored")? })
    }

    /// The same bytes at the same place, wherever they are stored.
    fn is_as(&self, other: &Self) -> bool {
        self.start == other.start && self.length == other.length && self.sha256 == other.sha256
    }
}

/// What the index knows of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// The log's name.
    pub log: String,
    /// All bytes before this one are durable.
    pub durable: u64,
    /// Its length and its SHA-256 in hexadecimal, once its agent has said how it ends.
    pub end: Option<(u64, String)>,
}

impl LogState {
    fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let bytes: Option<i64> = row.try_get("bytes")?;
        let sha256: Option<String> = row.try_get("sha256")?;
        Ok(Self { log: row.try_get("log")?, durable: uint(row.try_get("durable")?), end: bytes.map(uint).zip(sha256) })
    }
}

/// Whose logs are written to: the task, and how often it had been handed out when its agent was given it.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The task's id.
    pub task: &'a str,
    /// See [`super::Scope::Task`].
    pub fence: u64,
}

/// Why something was not entered into the index. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum SegmentsError {
    /// Another agent has the task, or it has ended.
    #[error("the task was handed to another agent, or has ended: its lease is lost")]
    LeaseLost,
    /// Some of the bytes are in the index already, cut otherwise.
    #[error("bytes {} to {} of log {log} overlap with bytes {} to {}, which are durable", new.start, new.end, old.start, old.end)]
    Overlap {
        /// The log.
        log: String,
        /// The bytes that came.
        new: Range<u64>,
        /// The bytes that are there.
        old: Range<u64>,
    },
    /// These bytes are in the index already, with another digest.
    #[error("bytes {} to {} of log {log} are durable with another SHA-256", at.start, at.end)]
    Differs {
        /// The log.
        log: String,
        /// The bytes.
        at: Range<u64>,
    },
    /// The log's end was told before, and is another one.
    #[error("log {log} ends at byte {bytes}, as its agent has said before, with the SHA-256 that it said then")]
    OtherEnd {
        /// The log.
        log: String,
        /// Its length, as it was first.
        bytes: u64,
    },
    /// The task would have more logs than can be listed.
    #[error("a task has no more than {MOST_LOGS} logs")]
    TooManyLogs,
    /// The database failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<sqlx::Error> for SegmentsError {
    fn from(error: sqlx::Error) -> Self {
        Self::State(error.into())
    }
}

impl State {
    /// Enters segments that lie in the store: all, or none. How far the logs that they belong to are durable now.
    ///
    /// # Errors
    /// See [`SegmentsError`].
    pub async fn commit_segments(&self, of: Holder<'_>, segments: &[Segment]) -> Result<Vec<LogState>, SegmentsError> {
        // Everybody takes logs in the same order: nobody waits in a circle.
        let mut logs: BTreeMap<&str, Vec<&Segment>> = BTreeMap::new();
        for segment in segments {
            logs.entry(&segment.log).or_default().push(segment);
        }
        let mut transaction = self.pool().begin().await?;
        if !self.holds(&mut transaction, of, "claimed").await? {
            return Err(SegmentsError::LeaseLost);
        }
        let mut states = Vec::with_capacity(logs.len());
        for (log, segments) in logs {
            let durable = take_log(&mut transaction, of.task, log).await?;
            for segment in segments {
                enter(&mut transaction, of.task, segment).await?;
            }
            states.push(advance(&mut transaction, of.task, log, durable).await?);
        }
        transaction.commit().await?;
        Ok(states)
    }

    /// Writes down how logs end. What was written down first stays.
    ///
    /// # Errors
    /// See [`SegmentsError`].
    pub async fn end_logs(&self, of: Holder<'_>, ends: &BTreeMap<String, (u64, String)>) -> Result<(), SegmentsError> {
        let mut transaction = self.pool().begin().await?;
        if !self.holds(&mut transaction, of, "").await? {
            return Err(SegmentsError::LeaseLost);
        }
        for (log, (bytes, sha256)) in ends {
            take_log(&mut transaction, of.task, log).await?;
            let update = "UPDATE logs SET bytes = $1, sha256 = $2 WHERE task = $3 AND log = $4 AND (bytes IS NULL OR (bytes = $1 AND sha256 = $2))";
            let query = sqlx::query(update).bind(int(*bytes)).bind(sha256).bind(of.task).bind(log);
            if query.execute(&mut *transaction).await?.rows_affected() == 0 {
                let first = one_log(&mut transaction, of.task, log).await?.and_then(|state| state.end);
                let bytes = first.map_or(0, |(bytes, _)| bytes);
                return Err(SegmentsError::OtherEnd { log: log.clone(), bytes });
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Whether the task is still this agent's, and will be until the transaction ends; `state`: and in this state, if any.
    async fn holds(&self, connection: &mut AnyConnection, of: Holder<'_>, state: &str) -> Result<bool, sqlx::Error> {
        // SQLite has no locks on rows, and needs none: its transactions do not run side by side.
        let select = match self.dialect() {
            Dialect::Sqlite => "SELECT handed, state FROM tasks WHERE id = $1",
            Dialect::Postgres => "SELECT handed, state FROM tasks WHERE id = $1 FOR SHARE",
        };
        let Some(row) = sqlx::query(select).bind(of.task).fetch_optional(connection).await? else { return Ok(false) };
        let (handed, stands): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        Ok(uint(handed) == of.fence && (state.is_empty() || state == stands))
    }

    /// All logs of a task, by name.
    pub async fn logs(&self, task: &str) -> Result<Vec<LogState>> {
        let select = "SELECT log, durable, bytes, sha256 FROM logs WHERE task = $1 ORDER BY log";
        let rows = sqlx::query(select).bind(task).fetch_all(self.pool()).await?;
        Ok(rows.iter().map(LogState::read).collect::<Result<_, _>>()?)
    }

    /// What is known of one log. `None`: the index has none of this name.
    pub async fn log(&self, task: &str, log: &str) -> Result<Option<LogState>> {
        let mut connection = self.pool().acquire().await.map_err(StateError::Database)?;
        Ok(one_log(&mut connection, task, log).await?)
    }

    /// Whether a task has ended, and what is known of one of its logs. `None`: there is no such task.
    pub async fn look_at_log(&self, task: &str, log: &str) -> Result<Option<(bool, Option<LogState>)>> {
        let select = "SELECT tasks.state, logs.log, durable, bytes, sha256 FROM tasks \
            LEFT JOIN logs ON logs.task = tasks.id AND logs.log = $2 WHERE tasks.id = $1";
        let row = sqlx::query(select).bind(task).bind(log).fetch_optional(self.pool()).await?;
        let Some(row) = row else { return Ok(None) };
        let state: String = row.try_get(0)?;
        let log: Option<String> = row.try_get(1)?;
        let log = log.map(|_| LogState::read(&row)).transpose()?;
        Ok(Some((state == "ended", log)))
    }

    /// The segments that have bytes at `offset` or behind it, in their order: at most `most`.
    pub async fn segments_from(&self, task: &str, log: &str, offset: u64, most: u32) -> Result<Vec<Segment>> {
        let select = "SELECT log, start, length, stored, sha256, object FROM segments \
            WHERE task = $1 AND log = $2 AND start > $3 AND start + length > $4 ORDER BY start LIMIT $5";
        let earliest = int(offset).saturating_sub(int(LONGEST));
        let query = sqlx::query(select).bind(task).bind(log).bind(earliest).bind(int(offset)).bind(i64::from(most));
        Ok(query.fetch_all(self.pool()).await?.iter().map(Segment::read).collect::<Result<_, _>>()?)
    }

    /// Is this very segment in the index?
    pub async fn has_segment(&self, task: &str, segment: &Segment) -> Result<bool> {
        let found = self.segments_from(task, &segment.log, segment.start, 1).await?;
        Ok(found.first().is_some_and(|there| there.is_as(segment)))
    }

    /// Which bytes before `bytes` no segment covers: the first `most` ranges.
    pub async fn gaps(&self, task: &str, log: &str, bytes: u64, most: usize) -> Result<Vec<Range<u64>>> {
        let mut at = self.log(task, log).await?.map_or(0, |state| state.durable);
        let mut gaps = Vec::new();
        while at < bytes && gaps.len() < most {
            let segments = self.segments_from(task, log, at, 64).await?;
            for segment in &segments {
                if segment.start.min(bytes) > at {
                    gaps.push(at..segment.start.min(bytes));
                }
                at = at.max(segment.end());
            }
            if segments.is_empty() {
                gaps.push(at..bytes);
                break;
            }
        }
        gaps.truncate(most);
        Ok(gaps)
    }

    /// Where the last segment of a log ends.
    pub async fn extent(&self, task: &str, log: &str) -> Result<u64> {
        let select = "SELECT start + length FROM segments WHERE task = $1 AND log = $2 ORDER BY start DESC LIMIT 1";
        let row = sqlx::query(select).bind(task).bind(log).fetch_optional(self.pool()).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.map_or(0, uint))
    }

    /// Those of a log's objects that the index names, among the segments that begin within `starts`.
    pub async fn objects(&self, task: &str, log: &str, starts: Range<u64>) -> Result<BTreeSet<String>> {
        let select = "SELECT object FROM segments WHERE task = $1 AND log = $2 AND start >= $3 AND start < $4";
        let query = sqlx::query(select).bind(task).bind(log).bind(int(starts.start)).bind(int(starts.end));
        let rows = query.fetch_all(self.pool()).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Ended tasks that came before this time, in milliseconds since 1970, and have logs still: at most `most`.
    pub async fn old_tasks_with_logs(&self, before_ms: i64, most: u32) -> Result<Vec<String>> {
        let select = "SELECT id FROM tasks WHERE state = 'ended' AND queued_ms < $1 \
            AND EXISTS (SELECT 1 FROM logs WHERE logs.task = tasks.id) ORDER BY queued_ms LIMIT $2";
        let rows = sqlx::query(select).bind(before_ms).bind(i64::from(most)).fetch_all(self.pool()).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Some segments of a task.
    pub async fn some_segments(&self, task: &str) -> Result<Vec<Segment>> {
        let select = "SELECT log, start, length, stored, sha256, object FROM segments WHERE task = $1 LIMIT $2";
        let rows = sqlx::query(select).bind(task).bind(ROWS).fetch_all(self.pool()).await?;
        Ok(rows.iter().map(Segment::read).collect::<Result<_, _>>()?)
    }

    /// Takes a segment out of the index, whose object is gone.
    pub async fn forget_segment(&self, task: &str, segment: &Segment) -> Result<()> {
        let delete = "DELETE FROM segments WHERE task = $1 AND log = $2 AND start = $3";
        let query = sqlx::query(delete).bind(task).bind(&segment.log).bind(int(segment.start));
        query.execute(self.pool()).await?;
        Ok(())
    }

    /// Takes all logs of a task out of the index.
    pub async fn forget_logs(&self, task: &str) -> Result<()> {
        let mut transaction = self.pool().begin().await?;
        forget_logs_in(&mut transaction, task).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// Takes all logs of a task out of the index, in a transaction of the caller's: for a task that is handed out again, whose
/// output begins anew. The caller holds the task's row by then.
pub async fn forget_logs_in(connection: &mut AnyConnection, task: &str) -> Result<()> {
    for delete in ["DELETE FROM segments WHERE task = $1", "DELETE FROM logs WHERE task = $1"] {
        sqlx::query(delete).bind(task).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn one_log(connection: &mut AnyConnection, task: &str, log: &str) -> Result<Option<LogState>, sqlx::Error> {
    let select = "SELECT log, durable, bytes, sha256 FROM logs WHERE task = $1 AND log = $2";
    let row = sqlx::query(select).bind(task).bind(log).fetch_optional(connection).await?;
    row.as_ref().map(LogState::read).transpose()
}

/// Makes the log's row, or holds the one that there is until the transaction ends. How far the log is durable.
async fn take_log(connection: &mut AnyConnection, task: &str, log: &str) -> Result<u64, SegmentsError> {
    let insert = "INSERT INTO logs (task, log, durable) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING";
    let made = sqlx::query(insert).bind(task).bind(log).execute(&mut *connection).await?.rows_affected();
    if made == 1 {
        let row = sqlx::query("SELECT COUNT(*) FROM logs WHERE task = $1").bind(task).fetch_one(connection).await?;
        return if row.try_get::<i64, _>(0)? > MOST_LOGS { Err(SegmentsError::TooManyLogs) } else { Ok(0) };
    }
    let hold = "UPDATE logs SET durable = durable WHERE task = $1 AND log = $2";
    sqlx::query(hold).bind(task).bind(log).execute(&mut *connection).await?;
    Ok(one_log(connection, task, log).await?.map_or(0, |state| state.durable))
}

/// Enters one segment into a log that is held.
async fn enter(connection: &mut AnyConnection, task: &str, segment: &Segment) -> Result<(), SegmentsError> {
    let select = "SELECT log, start, length, stored, sha256, object FROM segments \
        WHERE task = $1 AND log = $2 AND start < $3 ORDER BY start DESC LIMIT 1";
    let query = sqlx::query(select).bind(task).bind(&segment.log).bind(int(segment.end()));
    if let Some(row) = query.fetch_optional(&mut *connection).await? {
        let last = Segment::read(&row)?;
        let (log, new, old) = (segment.log.clone(), segment.start..segment.end(), last.start..last.end());
        if last.is_as(segment) {
            return Ok(());
        } else if new == old {
            return Err(SegmentsError::Differs { log, at: new });
        } else if old.end > new.start {
            return Err(SegmentsError::Overlap { log, new, old });
        }
    }
    let insert = "INSERT INTO segments (task, log, start, length, stored, sha256, object) \
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let query = sqlx::query(insert).bind(task).bind(&segment.log).bind(int(segment.start)).bind(int(segment.length));
    query.bind(int(segment.stored)).bind(&segment.sha256).bind(&segment.object).execute(connection).await?;
    Ok(())
}

/// Moves the durable mark of a log that is held over all segments that follow it without a gap.
async fn advance(connection: &mut AnyConnection, task: &str, log: &str, from: u64) -> Result<LogState, sqlx::Error> {
    let select =
        "SELECT start, length FROM segments WHERE task = $1 AND log = $2 AND start >= $3 ORDER BY start LIMIT $4";
    let mut durable = from;
    loop {
        let query = sqlx::query(select).bind(task).bind(log).bind(int(durable)).bind(ROWS);
        let rows = query.fetch_all(&mut *connection).await?;
        let before = durable;
        for row in &rows {
            let (start, length) = (uint(row.try_get(0)?), uint(row.try_get(1)?));
            if start != durable {
                break;
            }
            durable = durable.saturating_add(length);
        }
        if durable == before {
            break;
        }
    }
    let update = "UPDATE logs SET durable = $1 WHERE task = $2 AND log = $3";
    sqlx::query(update).bind(int(durable)).bind(task).bind(log).execute(&mut *connection).await?;
    let state = one_log(connection, task, log).await?;
    Ok(state.unwrap_or_else(|| LogState { log: log.to_owned(), durable, end: None }))
}
