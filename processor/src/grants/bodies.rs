//! Which bodies a task may write, and which ones it may read. Both are rows of the database, so that a processor that was
//! started anew, or another one, goes on.

use std::time::Duration;

use navvy_storage::{BodyId, Slot};
use sqlx::Row as _;

use crate::state::{Result, State, StateError, now_ms};

/// The most bodies that one task may have reserved and not committed: what it leaves open is a sweep's.
pub(super) const MOST_OPEN: i64 = 1000;
/// Rows of one statement.
const AT_ONCE: usize = 100;

/// How far a reservation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its body may be written.
    Open,
    /// It is being committed, or was: its body is not written any more.
    Sealed,
    /// It was given up.
    Abandoned,
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "sealed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// A body that a task may upload.
#[derive(Debug)]
pub(super) struct Reserved {
    /// The place that it was reserved for.
    pub slot: Slot,
    pub stage: Stage,
    /// By this machine's clock. A clock that was set by less than 12 h since does no harm: a reservation counts for 12 h, and
    /// a sweep spares what is younger than 24 h by the store's clock. One from the future counts as too old.
    pub age: Duration,
}

/// How many bodies the task has reserved and neither committed nor given up.
pub(super) async fn open(state: &State, task: &str) -> Result<i64> {
    let select = "SELECT COUNT(*) FROM reservations WHERE task = $1 AND stage = 'open'";
    Ok(sqlx::query(select).bind(task).fetch_one(state.pool()).await?.try_get(0)?)
}

pub(super) async fn reserve(state: &State, task: &str, body: BodyId, slot: &Slot) -> Result<()> {
    let slot = serde_json::to_string(slot).map_err(|source| form("a place of the store", source))?;
    let insert = "INSERT INTO reservations (body, task, slot, reserved_ms, stage) VALUES ($1, $2, $3, $4, 'open')";
    let query = sqlx::query(insert).bind(body.to_string()).bind(task).bind(slot).bind(now_ms());
    query.execute(state.pool()).await?;
    Ok(())
}

/// The reservation of a body, if it is this task's.
pub(super) async fn reserved(state: &State, task: &str, body: BodyId) -> Result<Option<Reserved>> {
    let select = "SELECT slot, stage, reserved_ms FROM reservations WHERE body = $1 AND task = $2";
    let row = sqlx::query(select).bind(body.to_string()).bind(task).fetch_optional(state.pool()).await?;
    let Some(row) = row else { return Ok(None) };
    let (slot, word): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let slot = serde_json::from_str(&slot).map_err(|source| form("a place of the store", source))?;
    // What a newer version may have written there is not for writing.
    let stages = [Stage::Open, Stage::Sealed, Stage::Abandoned];
    let stage = stages.into_iter().find(|stage| stage.word() == word).unwrap_or(Stage::Abandoned);
    let age = now_ms().saturating_sub(row.try_get(2)?);
    let age = u64::try_from(age).map_or(Duration::MAX, Duration::from_millis);
    Ok(Some(Reserved { slot, stage, age }))
}

/// Moves an open reservation on. `false`: it was not open any more, or is at that stage already.
pub(super) async fn close(state: &State, body: BodyId, stage: Stage) -> Result<bool> {
    let update = "UPDATE reservations SET stage = $1 WHERE body = $2 AND stage = 'open'";
    let done = sqlx::query(update).bind(stage.word()).bind(body.to_string()).execute(state.pool()).await?;
    Ok(done.rows_affected() == 1)
}

/// The task was shown entries that name these bodies: it may read them.
pub(super) async fn show(state: &State, task: &str, bodies: &[BodyId]) -> Result<()> {
    for some in bodies.chunks(AT_ONCE) {
        // The task is the first value of all: the two kinds of databases agree on numbered places alone.
        let rows: Vec<String> = (2..).take(some.len()).map(|nth| format!("($1, ${nth})")).collect();
        let insert =
            format!("INSERT INTO shown (task, body) VALUES {} ON CONFLICT (task, body) DO NOTHING", rows.join(", "));
        let query = sqlx::query(sqlx::AssertSqlSafe(insert)).bind(task);
        some.iter().fold(query, |query, body| query.bind(body.to_string())).execute(state.pool()).await?;
    }
    Ok(())
}

/// May the task read this body?
pub(super) async fn is_shown(state: &State, task: &str, body: BodyId) -> Result<bool> {
    let select = "SELECT COUNT(*) FROM shown WHERE task = $1 AND body = $2";
    let row = sqlx::query(select).bind(task).bind(body.to_string()).fetch_one(state.pool()).await?;
    Ok(row.try_get::<i64, _>(0)? > 0)
}

/// Removes what is kept of tasks that have ended or are gone: nobody has their tokens any more. How many rows there were.
///
/// # Errors
/// The database does not do it.
pub async fn forget_ended(state: &State) -> Result<u64> {
    let mut rows = 0;
    for table in ["reservations", "shown"] {
        let delete = format!("DELETE FROM {table} WHERE task NOT IN (SELECT id FROM tasks WHERE state <> 'ended')");
        rows += sqlx::query(sqlx::AssertSqlSafe(delete)).execute(state.pool()).await?.rows_affected();
    }
    Ok(rows)
}

fn form(what: &str, source: serde_json::Error) -> StateError {
    StateError::Form { what: what.to_owned(), source }
}
