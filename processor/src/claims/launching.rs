//! What a scheduler knows of tasks whose agents it starts, where it changes how they end.

use navvy_job::outcome::Verdict;
use navvy_job::walk::TaskEnd;
use sqlx::Row as _;

use super::{Claims, Result};
use crate::conduct::to_json;
use crate::conduct::walk::Recorded;
use crate::state::int;

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
