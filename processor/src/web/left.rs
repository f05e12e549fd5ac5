//! What the jobs of a pipeline left in the store. Whose it is follows from the tasks' rows: an entry is believed only where it
//! names a task, which the processor itself wrote into it.

use axum::http::StatusCode;
use navvy_job::chain::chain;
use navvy_storage::{Entry, Shape, Slot, StorageError, Store};
use serde::Deserialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Refusal, Web};
use crate::state::{int, uint};

/// A reader holds two such parts.
const SHAPE: Shape = Shape { part: 1 << 20, parallel: 1 };

/// Which of them, and from where on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wanted {
    #[serde(default)]
    job: Option<String>,
    #[serde(default)]
    node: Option<u32>,
    #[serde(default)]
    page_token: Option<String>,
}

/// Where one set of things stands among those of its pipeline: number of the job, node, step.
pub(super) type Key = (u64, u32, u32);

impl Wanted {
    /// The set that the page begins in, and where in it.
    pub(super) fn from(&self) -> Result<(Key, u64), Refusal> {
        let Some(token) = self.page_token.as_deref() else { return Ok(((0, 0, 0), 0)) };
        let mut numbers = token.split('.').map(|number| number.parse::<u64>().ok());
        let mut read = || {
            let (job, node, step, from) = (numbers.next()??, numbers.next()??, numbers.next()??, numbers.next()??);
            let key = (job, u32::try_from(node).ok()?, u32::try_from(step).ok()?);
            numbers.next().is_none().then_some((key, from))
        };
        read().ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "the page token is none that this API gave out"))
    }
}

/// For [`Wanted::from`].
pub(super) fn token(((job, node, step), from): (Key, u64)) -> String {
    format!("{job}.{node}.{step}.{from}")
}

/// A task that may have left something.
#[derive(Debug)]
pub(super) struct Of {
    pub id: String,
    pub workflow: String,
    pub job: String,
    pub number: u64,
    pub node: u32,
    pub pipeline: String,
    project: String,
    scope: String,
}

const SELECT: &str =
    "SELECT t.id, t.workflow_name, t.job_name, t.number, t.node, t.pipeline, t.project, t.scope FROM tasks t";

impl Of {
    fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get(0)?,
            workflow: row.try_get(1)?,
            job: row.try_get(2)?,
            number: uint(row.try_get(3)?),
            node: u32::try_from(row.try_get::<i64, _>(4)?).unwrap_or(u32::MAX),
            pipeline: row.try_get(5)?,
            project: row.try_get(6)?,
            scope: row.try_get(7)?,
        })
    }

    /// The store as this task saw it.
    pub(super) fn store(&self, web: &Web) -> Result<Store, Refusal> {
        let unknown = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the task's trust scope is not understood");
        let scope = self.scope.parse().map_err(unknown)?;
        Ok(Store::direct(web.objects.bucket().clone(), &self.project, scope, SHAPE))
    }

    /// By its id.
    pub(super) async fn task(web: &Web, id: &str) -> Result<Self, Refusal> {
        let select = format!("{SELECT} WHERE t.id = $1");
        let query = sqlx::query(sqlx::AssertSqlSafe(select)).bind(id);
        let row = query.fetch_optional(web.claims.conductor().state().pool()).await?;
        let row = row.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("there is no task {id}")))?;
        Ok(Self::read(&row)?)
    }
}

/// The tasks of a pipeline, or of one job.
pub(super) struct Left(Vec<Of>);

impl Left {
    pub(super) async fn of_pipeline(web: &Web, id: &str) -> Result<Self, Refusal> {
        let pool = web.claims.conductor().state().pool();
        if sqlx::query("SELECT 1 FROM pipelines WHERE id = $1").bind(id).fetch_optional(pool).await?.is_none() {
            return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no pipeline {id}")));
        }
        let select = format!("{SELECT} WHERE t.pipeline = $1");
        let rows = sqlx::query(sqlx::AssertSqlSafe(select)).bind(id).fetch_all(pool).await?;
        Ok(Self(rows.iter().map(Of::read).collect::<Result<_, _>>()?))
    }

    pub(super) async fn of_job(web: &Web, slug: &str, number: &str) -> Result<Self, Refusal> {
        let none = || Refusal::new(StatusCode::NOT_FOUND, format!("project {slug:?} has no job {number:?}"));
        let wanted: u64 = number.parse().map_err(|_| none())?;
        let select = format!("{SELECT} JOIN projects p ON p.id = t.project WHERE p.slug = $1 AND t.number = $2");
        let query = sqlx::query(sqlx::AssertSqlSafe(select)).bind(slug).bind(int(wanted));
        let rows = query.fetch_all(web.claims.conductor().state().pool()).await?;
        let tasks = rows.iter().map(Of::read).collect::<Result<Vec<_>, _>>()?;
        if tasks.is_empty() { Err(none()) } else { Ok(Self(tasks)) }
    }

    /// Only what is wanted. A job that is not there is an error, not an empty list.
    pub(super) fn narrowed(self, wanted: &Wanted) -> Result<Self, Refusal> {
        let Self(tasks) = self;
        if let Some(job) = wanted.job.as_deref().filter(|job| !tasks.iter().any(|of| of.job == **job)) {
            return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no task of a job {job:?} there")));
        }
        let is_wanted = |of: &Of| {
            wanted.job.as_ref().is_none_or(|job| *job == of.job) && wanted.node.is_none_or(|node| node == of.node)
        };
        Ok(Self(tasks.into_iter().filter(is_wanted).collect()))
    }

    /// Any of them: all are of one pipeline, project and scope.
    pub(super) fn any(&self) -> Option<&Of> {
        self.0.first()
    }

    /// Names of the jobs, each once.
    pub(super) fn jobs(&self) -> Vec<&str> {
        let mut jobs: Vec<&str> = self.0.iter().map(|of| of.job.as_str()).collect();
        jobs.sort_unstable();
        jobs.dedup();
        jobs
    }

    /// Entries with whose they are, in order. Those of other tasks are left out.
    pub(super) fn sorted(&self, entries: Vec<Entry>) -> Vec<(Key, &Of, Entry)> {
        let whose = |entry: Entry| {
            let of = self.0.iter().find(|of| of.id == entry.record.producer.task)?;
            let Slot::Piece(piece) = &entry.record.place else { return None };
            Some(((of.number, of.node, piece.step), of, entry))
        };
        let mut sorted: Vec<_> = entries.into_iter().filter_map(whose).collect();
        sorted.sort_by_key(|(key, ..)| *key);
        sorted
    }
}

/// An error of the store. What is damaged or gone is said of what.
pub(super) fn failed(what: &str, error: &StorageError) -> Refusal {
    match error {
        StorageError::Missing { .. } => {
            Refusal::new(StatusCode::NOT_FOUND, format!("{what}: the store does not have it any more"))
        }
        StorageError::Foreign { .. } => {
            Refusal::new(StatusCode::CONFLICT, format!("{what}: what the store has is damaged"))
                .hint("The queries `job` and `node` choose others.")
        }
        error if error.is_damage() => {
            Refusal::new(StatusCode::CONFLICT, format!("{what}: what the store has is damaged"))
        }
        error => {
            tracing::error!("{}.", chain(error));
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer")
                .hint("Try again; the processor's log says more.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_ours_or_none() {
        let from = |token: &str| Wanted { page_token: Some(token.to_owned()), ..Wanted::default() }.from().ok();
        assert_eq!(from(&token(((7, 1, 3), 4096))), Some(((7, 1, 3), 4096)));
        for wrong in ["", "1", "1.2.3", "1.2.3.4.5", "1.2.3.x", "-1.2.3.4", "1.99999999999.3.4"] {
            assert_eq!(from(wrong), None, "{wrong}");
        }
    }
}
