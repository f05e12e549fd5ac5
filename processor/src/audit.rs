//! Who did what: a line of JSON for every change, claim and grant, in object storage.
//!
//! ```text
//! change ─┬─▶ the database ─▶ (one transaction) ─▶ flush: some lines, one object ─▶ audit-logs/audit_log/v1/DAY/TIME-ID.jsonl
//!         └─▶ its line ──────┘                      then the lines are removed from the database
//! ```
//!
//! So no change of a pipeline, a task or a secret is without its line; a token or a tree is made known, or revoked, only once
//! its line is written. A line is in the store at least once: who counts goes by `id`. Grants are many, and go another way:
//! [`grants`].

pub mod grants;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use navvy_job::chain::chain;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{AnyConnection, Row as _};

use crate::conduct::{rfc3339, to_json};
use crate::state::{State, now_ms};

/// Between two flushes.
const EVERY: Duration = Duration::from_secs(10);
/// Lines of one object.
const AT_ONCE: i64 = 1000;
/// Version of the lines' form.
const VERSION: u32 = 1;

/// A line. The fields are those of the operators' manual.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    id: String,
    version: u32,
    /// `context.env_var.store`, `task.claim`, …
    action: &'static str,
    /// Who did it.
    actor: Value,
    /// With what it was done.
    target: Value,
    /// More about it; never a secret.
    payload: Value,
    occurred_at: String,
    /// Where it counts: the project, or everywhere.
    scope: Value,
    success: bool,
    /// How it came.
    request: Value,
    metadata: Value,
}

impl Entry {
    /// Something that was done just now.
    pub fn new(action: &'static str, actor: &str, kind: &str, target: &str) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            version: VERSION,
            action,
            actor: json!({"type": "token", "name": actor}),
            target: json!({"type": kind, "id": target}),
            payload: json!({}),
            occurred_at: rfc3339(now_ms()),
            scope: json!({"type": "processor"}),
            success: true,
            request: json!({}),
            metadata: json!({}),
        }
    }

    /// By an agent.
    #[must_use]
    pub fn by_agent(mut self) -> Self {
        self.actor["type"] = json!("agent");
        self
    }

    /// It counts in this project.
    #[must_use]
    pub fn in_project(mut self, project: &str) -> Self {
        self.scope = json!({"type": "project", "id": project});
        self
    }

    /// More about it.
    #[must_use]
    pub fn with(mut self, payload: Value) -> Self {
        self.payload = payload;
        self
    }

    /// Writes the line down with the change that it is about.
    ///
    /// # Errors
    /// The database did not take it: then neither did it take the change.
    pub async fn write(&self, tx: &mut AnyConnection) -> Result<(), sqlx::Error> {
        let insert = "INSERT INTO audit (id, at_ms, body) VALUES ($1, $2, $3)";
        sqlx::query(insert).bind(&self.id).bind(now_ms()).bind(to_json(self)).execute(tx).await?;
        Ok(())
    }
}

/// Where lines go.
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Writes an object of this name beneath `audit-logs/audit_log/v1/`.
    async fn put(&self, name: &str, lines: Bytes) -> Result<(), navvy_storage::StorageError>;
}

#[async_trait]
impl AuditStore for navvy_storage::Objects {
    async fn put(&self, name: &str, lines: Bytes) -> Result<(), navvy_storage::StorageError> {
        self.put_audit(name, lines).await
    }
}

/// Carries lines to the store, as long as it is polled.
pub async fn flush(state: State, store: impl AuditStore) {
    loop {
        match flush_some(&state, &store).await {
            // There may be more.
            Ok(AT_ONCE) => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!("The audit log waits in the database: {error}."),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// How many lines.
async fn flush_some(state: &State, store: &impl AuditStore) -> Result<i64, String> {
    let failed = |error: sqlx::Error| chain(&error);
    let select = "SELECT id, body FROM audit ORDER BY at_ms, id LIMIT $1";
    let rows = sqlx::query(select).bind(AT_ONCE).fetch_all(state.pool()).await.map_err(failed)?;
    if rows.is_empty() {
        return Ok(0);
    }
    let (mut ids, mut lines) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        ids.push(row.try_get::<String, _>(0).map_err(failed)?);
        lines.extend(row.try_get::<String, _>(1).map_err(failed)?.into_bytes());
        lines.push(b'\n');
    }
    let (day, time) = day_and_time(now_ms());
    let name = format!("{day}/{time}-{}.jsonl", uuid::Uuid::new_v4().simple());
    store.put(&name, lines.into()).await.map_err(|error| chain(&error))?;
    let mut tx = state.pool().begin().await.map_err(failed)?;
    for id in &ids {
        sqlx::query("DELETE FROM audit WHERE id = $1").bind(id).execute(&mut *tx).await.map_err(failed)?;
    }
    tx.commit().await.map_err(failed)?;
    Ok(i64::try_from(ids.len()).unwrap_or(AT_ONCE))
}

/// As they stand in an object's name.
fn day_and_time(at_ms: i64) -> (String, String) {
    let time = rfc3339(at_ms).replace([':', '.'], "-");
    let (day, time) = time.split_once('T').unwrap_or(("unknown", &time));
    (day.to_owned(), time.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::state::tests::sqlite;

    #[derive(Default)]
    struct Kept {
        objects: Mutex<Vec<(String, Bytes)>>,
        fails: Mutex<bool>,
    }

    #[async_trait]
    impl AuditStore for &Kept {
        async fn put(&self, name: &str, lines: Bytes) -> Result<(), navvy_storage::StorageError> {
            if *self.fails.lock().unwrap() {
                return Err(navvy_storage::StorageError::IgnoresConditions { store: "broken".to_owned() });
            }
            self.objects.lock().unwrap().push((name.to_owned(), lines));
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_wait_in_the_database_until_the_store_has_them() {
        let (_directory, state) = sqlite().await;
        let mut connection = state.pool().acquire().await.unwrap();
        Entry::new("task.claim", "one", "task", "t1").by_agent().in_project("p").write(&mut connection).await.unwrap();
        Entry::new("pipeline.cancel", "me", "pipeline", "p1").write(&mut connection).await.unwrap();
        drop(connection);
        let kept = Kept::default();
        *kept.fails.lock().unwrap() = true;
        assert!(flush_some(&state, &&kept).await.is_err());
        *kept.fails.lock().unwrap() = false;
        assert_eq!(flush_some(&state, &&kept).await, Ok(2));
        assert_eq!(flush_some(&state, &&kept).await, Ok(0));
        let objects = kept.objects.lock().unwrap();
        let lines: Vec<Value> = objects[0]
            .1
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!((objects.len(), lines.len()), (1, 2));
        for field in [
            "id",
            "version",
            "action",
            "actor",
            "target",
            "payload",
            "occurred_at",
            "scope",
            "success",
            "request",
            "metadata",
        ] {
            assert!(lines.iter().all(|line| line.get(field).is_some()), "{field}");
        }
    }
}
