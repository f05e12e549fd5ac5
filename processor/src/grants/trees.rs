//! Working trees that were sent, and that no pipeline checks out any more.
//!
//! ```text
//! sent more than a day ago, and no pipeline names it                                  ─▶ goes: its config had mistakes, say
//! every pipeline that names it (the first, and its reruns) is over and 90 days old    ─▶ goes, as their logs do
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use navvy_storage::{Objects, SWEEP_AFTER, StorageError};
use sqlx::Row as _;

use crate::state::State;

/// As long as logs.
const KEPT_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// Why trees could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum TreesError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StorageError),
    /// The database.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Removes them. How many.
///
/// # Errors
/// The store or the database does not answer. What was not removed is for a later sweep.
pub async fn sweep(state: &State, objects: &Objects) -> Result<u64, TreesError> {
    let now = objects.now().await?;
    let (unnamed, old) = (before(now, SWEEP_AFTER), before(now, KEPT_FOR));
    let mut removed = 0;
    for tree in objects.list("v1/tree/").await?.into_iter().filter(|tree| tree.modified <= unnamed) {
        let name = tree.path.as_str().rsplit('/').next().unwrap_or_default();
        if !is_needed(state, name, old.as_millisecond()).await? {
            objects.remove(&tree.path).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Does a pipeline name it that runs, or is not that old?
async fn is_needed(state: &State, tree: &str, old_ms: i64) -> Result<bool, sqlx::Error> {
    let select =
        "SELECT COUNT(*) FROM pipelines WHERE tree = $1 AND (state IN ('running', 'on_hold') OR created_ms > $2)";
    let row = sqlx::query(select).bind(tree).bind(old_ms).fetch_one(state.pool()).await?;
    Ok(row.try_get::<i64, _>(0)? > 0)
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
    now.checked_sub(age).unwrap_or(Timestamp::MIN)
}
