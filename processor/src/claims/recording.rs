//! Events of a task, from its agent to its pipeline's readers.
//!
//! An agent is believed in what it says of its own task, and in nothing else: every event is of a kind that tasks have, and names
//! the task that the token stands for.

use serde_json::Value;
use sqlx::Row as _;

use super::{ClaimError, Claims, Result, TaskRow};
use crate::conduct::append;
use crate::state::{int, uint};

/// A longer event is refused.
const LONGEST: usize = 1 << 20;
/// Most events of one task: beyond it an agent is broken, or hostile.
const MOST: u64 = 1_000_000;
/// What a task's agent may say.
const KINDS: [&str; 13] = [
    "task_started",
    "task_state",
    "report",
    "service_started",
    "step_started",
    "step_ended",
    "step_skipped",
    "warning",
    "task_kept",
    "task_logs",
    "task_ended",
    "task_removed",
    "stop_asked",
];

impl Claims {
    /// Takes events, of which the first is the task's `first`-th, from 0. The number of the one that is wanted next.
    ///
    /// # Errors
    /// An event is not one of this task, a gap is in front of them, or the database does not answer.
    pub async fn record(&self, task: &str, fence: u64, first: u64, events: &[Vec<u8>]) -> Result<u64> {
        let mut tx = self.pool().begin().await?;
        let row = self.row(&mut tx, task).await?;
        if row.handed != fence || row.state != "claimed" {
            return Err(ClaimError::Lost(task.to_owned()));
        }
        let select = "SELECT events FROM tasks WHERE id = $1";
        let known = uint(sqlx::query(select).bind(task).fetch_one(&mut *tx).await?.try_get(0)?);
        if first > known {
            let why = format!("it begins with number {first}, and number {known} is wanted next");
            return Err(ClaimError::Sent { what: "a run of events", why });
        }
        let known_of_these = usize::try_from(known - first).unwrap_or(usize::MAX);
        let new = events.get(known_of_these.min(events.len())..).unwrap_or_default();
        let next = known + new.len() as u64;
        if new.is_empty() {
            return Ok(known);
        }
        if next > MOST {
            return Err(ClaimError::Sent { what: "an event", why: format!("a task has at most {MOST}") });
        }
        let checked: Vec<String> = new.iter().map(|event| checked(event, &row)).collect::<Result<_>>()?;
        // The pipeline's row comes before its tasks' rows.
        append(&mut tx, &row.pipeline, &checked).await?;
        let update = "UPDATE tasks SET events = $1 WHERE id = $2 AND events = $3 AND handed = $4";
        let query = sqlx::query(update).bind(int(next)).bind(task).bind(int(known)).bind(int(fence));
        if query.execute(&mut *tx).await?.rows_affected() != 1 {
            return Err(ClaimError::Lost(task.to_owned()));
        }
        tx.commit().await?;
        self.conductor.signals.events.notify_waiters();
        Ok(next)
    }

    /// The number of the event that is wanted next.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn next_event(&self, task: &str) -> Result<u64> {
        let row = sqlx::query("SELECT events FROM tasks WHERE id = $1").bind(task).fetch_one(self.pool()).await?;
        Ok(uint(row.try_get(0)?))
    }
}

fn checked(event: &[u8], row: &TaskRow) -> Result<String> {
    let wrong = |why: String| ClaimError::Sent { what: "an event", why };
    if event.len() > LONGEST {
        return Err(wrong(format!("it has {} bytes, and {LONGEST} at most are taken", event.len())));
    }
    let value: Value = serde_json::from_slice(event).map_err(|error| wrong(error.to_string()))?;
    let kind = value.get("event").and_then(Value::as_str).unwrap_or_default();
    if !KINDS.contains(&kind) {
        return Err(wrong(format!("a task has no event {kind:?}")));
    }
    // A warning's task stands in an object of its own.
    let named = match value.get("task") {
        Some(Value::Object(task)) => task,
        _ => value.as_object().ok_or_else(|| wrong("it is no object".to_owned()))?,
    };
    let says = |field: &str| named.get(field).and_then(Value::as_str);
    let is_own =
        says("task") == Some(&row.id) && says("job") == Some(&row.job) && says("workflow") == Some(&row.workflow);
    let of_nobody = matches!(kind, "warning" | "stop_asked") && value.get("task").is_none();
    if !is_own && !of_nobody {
        return Err(wrong(format!("it is about another task than {}", row.id)));
    }
    // Written again: what is stored is what was understood, on one line.
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::Room;
    use super::super::tests::{TWO_JOBS, claims, events, submit};
    use super::*;
    use crate::conduct::RerunOf;
    use crate::state::tests::databases;

    fn event(task: &str, kind: &str) -> Vec<u8> {
        let text = format!(
            r#"{{"at_ms":1,"time":"t","event":"{kind}","task":"{task}","workflow":"main","job":"unit","line":"x"}}"#
        );
        text.into_bytes()
    }

    #[tokio::test]
    async fn events_are_taken_once_in_order_and_only_of_the_own_task() {
        for state in databases().await {
            let claims = claims(&state);
            claims.conductor().submit("gh/acme/shop", submit(TWO_JOBS), RerunOf::default(), "me").await.unwrap();
            let taken = claims.take("*", Room::ANY, "one").await.unwrap().unwrap();
            let task = taken.claim.task.as_str();
            let [one, two] = [event(task, "report"), event(task, "report")];
            assert_eq!(claims.record(task, 1, 0, &[one.clone(), two.clone()]).await.unwrap(), 2);
            assert_eq!(claims.record(task, 1, 0, &[one.clone(), two]).await.unwrap(), 2, "the answer was lost");
            let again = [one.clone(), event(task, "step_started")];
            assert_eq!(claims.record(task, 1, 1, &again).await.unwrap(), 3);
            for (first, refused) in [
                (4, one.clone()),
                (3, event("0123456789abcdef", "report")),
                (3, event(task, "run_ended")),
                (3, b"{".to_vec()),
                (3, b"[]".to_vec()),
                (3, vec![b' '; LONGEST + 1]),
            ] {
                assert!(claims.record(task, 1, first, &[refused]).await.is_err());
            }
            assert!(claims.record(task, 2, 3, &[one]).await.is_err(), "another agent's token");
            assert_eq!(claims.next_event(task).await.unwrap(), 3);
            let pipeline = &taken.claim.run.pipeline;
            let told = events(&state, pipeline).await;
            assert_eq!(told, ["run_started", "report", "report", "step_started"]);
        }
    }
}
