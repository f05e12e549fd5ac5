//! What a scheduler knows of tasks whose agents it starts, where it changes how they end.

use navvy_job::event::{Event, JobRef, Stamped};
use navvy_job::outcome::Verdict;
use navvy_job::walk::TaskEnd;
use sqlx::{AnyConnection, Row as _};

use super::{Claims, Result};
use crate::conduct::walk::Recorded;
use crate::conduct::{append, rfc3339, to_json};
use crate::state::{int, now_ms, uint};

impl Claims {
    /// Ends a task that no agent has taken: its agent could not be started, or is not to be. `handed`: how often it had been handed
    /// out when that was decided. `false`: an agent has it by now, or it has ended.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn end_unstarted(&self, task: &str, handed: u64, verdict: Verdict, why: &str) -> Result<bool> {
        let mut tx = self.pool().begin().await?;
        let row = self.row(&mut tx, task).await?;
        if row.state != "queued" || row.handed != handed {
            return Ok(false);
        }
        // A verdict of that kind has no words of its own.
        let warnings = match &verdict {
            Verdict::Canceled { .. } => vec![format!("{} was canceled: {why}", row.job)],
            _ => Vec::new(),
        };
        let end = TaskEnd::new(verdict);
        let ended = to_json(&end);
        let recorded = Recorded::TaskEnded {
            task: row.key,
            end: Box::new(end),
            continuation: None,
            fidelity: Vec::new(),
            warnings,
        };
        // The pipeline's row comes before its tasks' rows.
        let done = self.conductor.happen_in(&mut tx, &row.pipeline, recorded).await?;
        let update = "UPDATE tasks SET state = 'ended', ended = $1, output = $2
                      WHERE id = $3 AND handed = $4 AND state = 'queued'";
        let query = sqlx::query(update).bind(ended).bind("complete").bind(task).bind(int(handed));
        if query.execute(&mut *tx).await?.rows_affected() != 1 {
            return Ok(false);
        }
        done.commit(tx, &self.conductor).await?;
        self.hub.ended(task);
        Ok(true)
    }

    /// Tells the pipeline's readers why a task that is still in the queue waits there.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn tell_waiting(&self, task: &str, why: &str) -> Result<()> {
        let mut tx = self.pool().begin().await?;
        let select = "SELECT pipeline, workflow_name, job_name FROM tasks WHERE id = $1 AND state = 'queued'";
        let Some(row) = sqlx::query(select).bind(task).fetch_optional(&mut *tx).await? else { return Ok(()) };
        let (pipeline, job): (String, _) =
            (row.try_get(0)?, JobRef { workflow: row.try_get(1)?, job: row.try_get(2)? });
        self.append_waiting(&mut tx, &pipeline, job, why).await?;
        tx.commit().await?;
        self.conductor.signals.events.notify_waiters();
        Ok(())
    }

    /// Why a job of this pipeline waits, for its readers: who commits tells them.
    pub(super) async fn append_waiting(
        &self,
        tx: &mut AnyConnection,
        pipeline: &str,
        job: JobRef,
        why: &str,
    ) -> Result<()> {
        let select = "SELECT created_ms FROM pipelines WHERE id = $1";
        let created_ms = sqlx::query(select).bind(pipeline).fetch_one(&mut *tx).await?.try_get::<i64, _>(0)?;
        let now = now_ms();
        let event = Event::JobWaiting { job, why: why.to_owned() };
        let stamped = Stamped { at_ms: uint(now.saturating_sub(created_ms)), time: rfc3339(now), event };
        Ok(append(tx, pipeline, &[to_json(&stamped)]).await?)
    }

    /// Was the client that this agent is on seen to be drained?
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn was_drained(&self, task: &str, fence: u64) -> Result<bool> {
        let select = "SELECT drained FROM launches WHERE task = $1 AND fence = $2 ORDER BY attempt DESC LIMIT 1";
        let row = sqlx::query(select).bind(task).bind(int(fence)).fetch_optional(self.pool()).await?;
        Ok(row.map(|row| row.try_get::<i64, _>(0)).transpose()?.unwrap_or(0) != 0)
    }
}
