//! Working trees that were sent, and that no pipeline checks out any more.
//!
//! ```text
//! sent more than a day ago, and no pipeline names it                         ─▶ goes: its config had mistakes, say
//! every pipeline that names it (the first, and its reruns) is over and old   ─▶ goes
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use navvy_storage::{Objects, SWEEP_AFTER, StorageError};
use sqlx::Row as _;

use crate::state::State;

/// Where working trees are.
const TREES: &str = "v1/tree/";

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

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Working trees.
    pub trees: u64,
    /// Uploads of trees that were begun and never ended.
    pub uploads: u64,
}

/// Removes them. `keep`: how long a tree outlives its pipelines' beginnings; `None`: for ever.
///
/// # Errors
/// The store or the database does not answer. What was not removed is for a later sweep.
pub async fn sweep(state: &State, objects: &Objects, keep: Option<Duration>) -> Result<Swept, TreesError> {
    let (mut swept, all) = (Swept::default(), objects.list(TREES).await?);
    if all.is_empty() {
        return Ok(swept);
    }
    let now = objects.now().await?;
    let (unnamed, old) = (before(now, SWEEP_AFTER), keep.map(|keep| before(now, keep)));
    let (marks, trees): (Vec<_>, Vec<_>) = all.into_iter().partition(|stored| stored.path.as_mark().is_some());
    for mark in marks.iter().filter(|mark| mark.modified <= unnamed) {
        swept.uploads += objects.take_back(&mark.path, unnamed).await?;
    }
    for tree in trees.iter().filter(|tree| tree.modified <= old.map_or(unnamed, |old| old.max(unnamed))) {
        let name = tree.path.as_str().rsplit('/').next().unwrap_or_default();
        let goes = match wanted(state, name, old).await? {
            Wanted::ByNobody => tree.modified <= unnamed,
            Wanted::NoMore => true,
            Wanted::Still => false,
        };
        if goes {
            objects.remove(&tree.path).await?;
            swept.trees += 1;
        }
    }
    Ok(swept)
}

enum Wanted {
    ByNobody,
    NoMore,
    Still,
}

/// Does a pipeline name the tree that runs, or began later than `old`?
async fn wanted(state: &State, tree: &str, old: Option<Timestamp>) -> Result<Wanted, sqlx::Error> {
    let select = "SELECT COUNT(*), COUNT(CASE WHEN state IN ('running', 'on_hold') OR created_ms > $2 THEN 1 END)
                  FROM pipelines WHERE tree = $1";
    let old = old.map_or(i64::MIN, Timestamp::as_millisecond);
    let row = sqlx::query(select).bind(tree).bind(old).fetch_one(state.pool()).await?;
    Ok(match (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?) {
        (0, _) => Wanted::ByNobody,
        (_, 0) => Wanted::NoMore,
        _ => Wanted::Still,
    })
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
    now.checked_sub(age).unwrap_or(Timestamp::MIN)
}
