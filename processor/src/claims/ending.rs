//! The end of a task, as its agent reports it or as the processor has to say it.

use navvy_job::outcome::Verdict;
use navvy_job::walk::TaskEnd;
use navvy_protocol::supervisor::Continuation;
use sqlx::Row as _;

use super::{COLUMNS, ClaimError, Claims, MOST_HANDED, Result, TaskRow};
use crate::audit::Entry;
use crate::conduct::to_json;
use crate::conduct::walk::Recorded;
use crate::figures;
use crate::state::{forget_logs_in, int, uint};

/// What an agent says at the end of its task.
#[derive(Debug, Clone)]
pub struct Ending {
    /// How it ended.
    pub end: TaskEnd,
    /// What its job continued the pipeline with.
    pub continuation: Option<Continuation>,
    /// What differs from the real service.
    pub fidelity: Vec<String>,
    /// Warnings for the pipeline's report.
    pub warnings: Vec<String>,
    /// `complete`, or `incomplete: …`.
    pub output: String,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It is written down.
    Now,
    /// It was written down before: this is the report again.
    Before,
}

impl Claims {
    /// Ends a task. The first report counts; the same agent may repeat it.
    ///
    /// # Errors
    /// The task is another agent's by now, or the database does not answer.
    pub async fn finish(&self, task: &str, fence: u64, ending: Ending) -> Result<Finished> {
        let mut tx = self.pool().begin().await?;
        let row = self.row(&mut tx, task).await?;
        if row.handed != fence {
            return Err(ClaimError::Lost(task.to_owned()));
        }
        match row.state.as_str() {
            "claimed" => {}
            "ended" => return Ok(Finished::Before),
            _ => return Err(ClaimError::Lost(task.to_owned())),
        }
        let Ending { end, continuation, fidelity, warnings, output } = ending;
        let ended = to_json(&end);
        // Only a job of a setup pipeline may continue it.
        let continuation = continuation.filter(|_| row.claim.may_continue);
        let end = Box::new(TaskEnd { continues: continuation.is_some(), ..end });
        let recorded = Recorded::TaskEnded { task: row.key, end, continuation, fidelity, warnings };
        // The pipeline's row comes before its tasks' rows: everybody who needs both takes them in this order.
        let done = self.conductor.happen_in(&mut tx, &row.pipeline, recorded).await?;
        let update = "UPDATE tasks SET state = 'ended', ended = $1, output = $2
                      WHERE id = $3 AND handed = $4 AND state = 'claimed'";
        let query = sqlx::query(update).bind(ended).bind(output).bind(task).bind(int(fence));
        if query.execute(&mut *tx).await?.rows_affected() != 1 {
            return Err(ClaimError::Lost(task.to_owned()));
        }
        let agent = row.agent.clone().unwrap_or_default();
        let entry = Entry::new("task.end", &agent, "task", task).by_agent().in_project(&row.project);
        entry.write(&mut tx).await?;
        done.commit(tx, &self.conductor).await?;
        self.hub.ended(task);
        figures::ENDS.count();
        Ok(Finished::Now)
    }

    /// Decides about a task whose agent is not heard of any more: it waits again if its steps cannot have begun. `fence`, `beats`:
    /// which agent that is, and what was last heard of it. `why`: how that is known, if not by a silence.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn lose(&self, task: &str, fence: u64, beats: i64, why: Option<&str>) -> Result<()> {
        let requeue = "UPDATE tasks SET state = 'queued', agent = NULL
                       WHERE id = $1 AND beats = $2 AND state = 'claimed' AND begun = 0 AND handed < $3 AND cancel IS NULL
                       AND handed = $4";
        let mut tx = self.pool().begin().await?;
        let query = sqlx::query(requeue).bind(task).bind(beats).bind(int(MOST_HANDED)).bind(int(fence));
        if query.execute(&mut *tx).await?.rows_affected() == 1 {
            // What was prepared is prepared again, with logs of the same names.
            forget_logs_in(&mut tx, task).await?;
            sqlx::query("UPDATE tasks SET events = 0 WHERE id = $1").bind(task).execute(&mut *tx).await?;
            tx.commit().await?;
            self.hub.begin_anew(task);
            figures::LOST.count();
            tracing::warn!(
                task,
                "The agent of a task was not heard of any more before its first step: it is handed out again."
            );
            self.conductor.signals.queued.notify_waiters();
            return Ok(());
        }
        // An update that changes nothing may have locked the task's row all the same, and the pipeline's row comes first.
        tx.rollback().await?;
        let mut tx = self.pool().begin().await?;
        let row = self.row(&mut tx, task).await?;
        if row.state != "claimed" || row.handed != fence {
            return Ok(());
        }
        let durable = self.durable(&mut tx, task).await?;
        let fault = lost_text(&row, &durable, why);
        let end = TaskEnd::new(Verdict::Infra { fault: fault.clone() });
        let (recorded_end, ended) = (Box::new(end.clone()), to_json(&end));
        let recorded = Recorded::TaskEnded {
            task: row.key,
            end: recorded_end,
            continuation: None,
            fidelity: Vec::new(),
            warnings: Vec::new(),
        };
        let done = self.conductor.happen_in(&mut tx, &row.pipeline, recorded).await?;
        let update = "UPDATE tasks SET state = 'ended', ended = $1, output = $2
                      WHERE id = $3 AND beats = $4 AND handed = $5 AND state = 'claimed'";
        let query = sqlx::query(update).bind(ended).bind(format!("incomplete: {fault}")).bind(task).bind(beats);
        let query = query.bind(int(fence));
        if query.execute(&mut *tx).await?.rows_affected() != 1 {
            // It was heard of meanwhile.
            return Ok(());
        }
        done.commit(tx, &self.conductor).await?;
        self.hub.ended(task);
        figures::LOST.count();
        tracing::warn!(task, "{fault}.");
        Ok(())
    }

    /// The last log that has durable bytes, and how many.
    async fn durable(&self, tx: &mut sqlx::AnyConnection, task: &str) -> Result<Option<(String, u64)>> {
        let select = "SELECT log, durable FROM logs WHERE task = $1 AND durable > 0 ORDER BY log DESC LIMIT 1";
        let row = sqlx::query(select).bind(task).fetch_optional(tx).await?;
        row.map(|row| Ok((row.try_get(0)?, uint(row.try_get(1)?)))).transpose()
    }

    pub(super) async fn row(&self, tx: &mut sqlx::AnyConnection, task: &str) -> Result<TaskRow> {
        let select = format!("SELECT {COLUMNS} FROM tasks WHERE id = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(select)).bind(task).fetch_optional(tx).await?;
        TaskRow::read(&row.ok_or_else(|| ClaimError::Lost(task.to_owned()))?)
    }
}

fn lost_text(row: &TaskRow, durable: &Option<(String, u64)>, why: Option<&str>) -> String {
    let agent = row.agent.as_deref().unwrap_or("unknown");
    let at = crate::conduct::rfc3339(crate::state::now_ms());
    let last = match durable {
        Some((log, bytes)) => format!("the last durable byte is {bytes} of log {log}"),
        None => "none of its output is durable".to_owned(),
    };
    let how = why.map(|why| format!(" ({why})")).unwrap_or_default();
    match row.begun {
        true => format!("agent {agent} was lost at {at}{how}; {last}"),
        false => {
            let handed =
                format!("the task was handed to {MOST_HANDED} agents, and each was lost before its first step");
            format!("{handed}{how}; {last}")
        }
    }
}
