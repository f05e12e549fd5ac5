//! A task from the queue to an agent.

use navvy_job::claim::{CONTINUATION_KEY, Claim};
use navvy_job::executor::{ExecutorKind, ExecutorKinds};
use navvy_job::resource::Size;
use navvy_protocol::api::Submit;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row as _, Transaction};

use super::secrets::Given;
use super::{COLUMNS, Claims, Result, TaskRow};
use crate::audit::Entry;
use crate::conduct::compile::config_name;
use crate::conduct::from_json;
use crate::figures;
use crate::state::{Dialect, Scope, hash, int, now_ms, random_text};
use crate::telemetry::trace_of;

/// What an agent has for a task.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// What the task may take.
    pub size: Size,
    /// What it may run in.
    pub executors: ExecutorKinds,
    /// What of that counts for a task that needs a virtual machine.
    pub machines: MachineRoom,
}

/// What a task that needs a virtual machine may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineRoom {
    /// As much as any other.
    Shared,
    /// The agent's machines are not of its host: whatever it wants.
    Elsewhere,
    /// None of them is to be handed out now.
    NoneNow,
}

impl Room {
    /// Whatever it is.
    pub const ANY: Self = Self { size: Self::LARGEST, executors: ExecutorKinds::ALL, machines: MachineRoom::Shared };
    /// No task is larger.
    pub const LARGEST: Size = Size { millicpus: i64::MAX as u64, memory: i64::MAX as u64 };

    /// As a list of SQL. The words are ours; `NULL` is none of them.
    fn executors(self) -> String {
        let is_for_now = |kind: &ExecutorKind| self.machines != MachineRoom::NoneNow || !is_machine(*kind);
        list(self.executors.iter().filter(is_for_now))
    }

    /// The same of those whose size is not looked at.
    fn elsewhere(self) -> String {
        let is_elsewhere = |kind: &ExecutorKind| self.machines == MachineRoom::Elsewhere && is_machine(*kind);
        list(self.executors.iter().filter(is_elsewhere))
    }
}

fn is_machine(kind: ExecutorKind) -> bool {
    matches!(kind, ExecutorKind::Machine | ExecutorKind::MachineArm)
}

fn list(kinds: impl Iterator<Item = ExecutorKind>) -> String {
    let words: Vec<String> = kinds.map(|kind| format!("'{kind}'")).collect();
    if words.is_empty() { "NULL".to_owned() } else { words.join(", ") }
}

/// Jobs of a serial group run one at a time, the oldest first. Nodes of one job are one. Task `t` may be taken.
pub(crate) const FREE: &str = "(t.serial IS NULL OR NOT EXISTS (SELECT 1 FROM tasks o WHERE o.serial = t.serial
     AND (o.pipeline <> t.pipeline OR o.workflow <> t.workflow OR o.job <> t.job)
     AND (o.state = 'claimed' OR (o.state = 'queued' AND (o.queued_ms < t.queued_ms
          OR (o.queued_ms = t.queued_ms AND o.id < t.id))))))";

/// What came of a launch token. Only a task that was taken uses it up.
pub enum Launched {
    /// The task is the agent's.
    Taken(Box<Taken>),
    /// Another job of its serial group comes first.
    Waits,
    /// The token was used before, or the task is not in the queue.
    Refused,
}

/// A task that an agent has now.
pub struct Taken {
    /// What it carries out.
    pub claim: Claim,
    /// What it is given beside.
    pub given: Given,
    /// The token for everything else.
    pub token: String,
    /// Name of its workflow.
    pub workflow: String,
    /// Its resource class.
    pub class: String,
    /// The working tree that was sent with the pipeline.
    pub tree: Option<String>,
    /// The config's file name.
    pub config_name: String,
    /// W3C `traceparent` of the task's span.
    pub traceparent: String,
}

impl Claims {
    /// The oldest task of this class (`*`: of any) that fits, and that the agent can carry out.
    ///
    /// # Errors
    /// The database does not answer, or the job's secrets cannot be read.
    pub async fn take(&self, class: &str, room: Room, agent: &str) -> Result<Option<Taken>> {
        // Each way has an index of its own order: a long queue costs no more than a short one.
        let of_class = if class == "*" { "$2 = '*'" } else { "t.class = $2" };
        let (executors, elsewhere) = (room.executors(), room.elsewhere());
        let lock = if self.dialect() == Dialect::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
        let update = format!(
            "UPDATE tasks SET state = 'claimed', handed = handed + 1, beats = 0, agent = $1
             WHERE state = 'queued' AND id = (SELECT t.id FROM tasks t WHERE t.state = 'queued' AND {of_class}
                 AND ((t.millicpus <= $3 AND t.memory <= $4) OR t.executor IN ({elsewhere}))
                 AND t.executor IN ({executors}) AND {FREE} ORDER BY t.queued_ms, t.id LIMIT 1 {lock})
             RETURNING {COLUMNS}, {SUBMIT}"
        );
        let mut tx = self.pool().begin().await?;
        let query = sqlx::query(AssertSqlSafe(update)).bind(agent).bind(class);
        let query = query.bind(int(room.size.millicpus)).bind(int(room.size.memory));
        let Some(row) = query.fetch_optional(&mut *tx).await? else { return Ok(None) };
        let taking = Taking::read(&row)?;
        if !self.is_alone(&mut tx, &taking.row).await? {
            // At once: a transaction that is dropped has its rows locked until somebody needs its connection.
            tx.rollback().await?;
            return Ok(None);
        }
        self.hand_over(tx, taking).await.map(Some)
    }

    /// The task that a launch token is for; the token is used up by it.
    ///
    /// # Errors
    /// As for [`Self::take`].
    pub async fn take_launched(&self, task: &str, token: &str, agent: &str) -> Result<Launched> {
        let mut tx = self.pool().begin().await?;
        let use_it = "UPDATE tokens SET used_ms = $1 WHERE hash = $2 AND kind = 'launch' AND subject = $3
                      AND used_ms IS NULL AND revoked_ms IS NULL";
        let used = sqlx::query(use_it).bind(now_ms()).bind(hash(token)).bind(task).execute(&mut *tx).await?;
        if used.rows_affected() != 1 {
            return Ok(Launched::Refused);
        }
        let lock = if self.dialect() == Dialect::Postgres { "FOR UPDATE" } else { "" };
        let update = format!(
            "UPDATE tasks SET state = 'claimed', handed = handed + 1, beats = 0, agent = $1
             WHERE state = 'queued' AND id = (SELECT t.id FROM tasks t WHERE t.state = 'queued' AND t.id = $2
                 AND {FREE} {lock})
             RETURNING {COLUMNS}, {SUBMIT}"
        );
        let query = sqlx::query(AssertSqlSafe(update)).bind(agent).bind(task);
        let Some(row) = query.fetch_optional(&mut *tx).await? else {
            let queued = sqlx::query("SELECT 1 FROM tasks WHERE id = $1 AND state = 'queued'").bind(task);
            let waits = queued.fetch_optional(&mut *tx).await?.is_some();
            return Ok(if waits { Launched::Waits } else { Launched::Refused });
        };
        let taking = Taking::read(&row)?;
        if !self.is_alone(&mut tx, &taking.row).await? {
            tx.rollback().await?;
            return Ok(Launched::Waits);
        }
        Ok(Launched::Taken(Box::new(self.hand_over(tx, taking).await?)))
    }

    /// Commits the taking. That the task has started is told by its agent, whose events are masked.
    async fn hand_over(&self, mut tx: Transaction<'_, Any>, taking: Taking) -> Result<Taken> {
        let row = &taking.row;
        let agent = row.agent.clone().unwrap_or_default();
        let entry = Entry::new("task.claim", &agent, "task", &row.id).by_agent().in_project(&row.project);
        let taken = self.handed(&mut tx, taking).await?;
        entry.write(&mut tx).await?;
        tx.commit().await?;
        figures::CLAIMS.count();
        Ok(taken)
    }

    async fn handed(&self, tx: &mut AnyConnection, taking: Taking) -> Result<Taken> {
        let Taking { row, submit } = taking;
        let mut given = self.secrets.given(tx, &row.project, &row.contexts).await?;
        if row.claim.may_continue {
            given.variables.push((CONTINUATION_KEY.to_owned(), random_text()));
        }
        let token = random_text();
        let insert =
            "INSERT INTO tokens (hash, name, kind, subject, fence, created_ms) VALUES ($1, $2, $3, $4, $5, $6)";
        let query = sqlx::query(insert).bind(hash(&token)).bind("agent").bind("task").bind(&row.id);
        query.bind(int(row.handed)).bind(now_ms()).execute(&mut *tx).await?;
        let config_name = config_name(&submit).to_owned();
        let (workflow, class) = (row.workflow, row.class);
        let trace = trace_of(submit.traceparent.as_deref()).pipeline(&row.pipeline).task(&row.id);
        let agent = row.agent.unwrap_or_default();
        tracing::info!(trace_id = trace.trace_id(), task = row.id, "A task of job {} is given to {agent}.", row.job);
        let (tree, traceparent) = (submit.tree, trace.to_string());
        Ok(Taken { claim: row.claim, given, token, workflow, class, tree, config_name, traceparent })
    }

    /// A token with which an agent that is started for it takes this task.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn launch_token(&self, task: &str) -> Result<String> {
        Ok(self.conductor.state().new_token(&Scope::Launch(task.to_owned()), "launch").await?)
    }

    /// Two that take at the same time do not see each other's task: in a serial group one of them waits here for the other, and
    /// then looks again. SQLite lets one take at a time.
    async fn is_alone(&self, tx: &mut AnyConnection, row: &TaskRow) -> Result<bool> {
        if self.dialect() == Dialect::Postgres && row.serial { is_alone(tx, &row.id).await } else { Ok(true) }
    }

    fn dialect(&self) -> Dialect {
        self.conductor.state().dialect()
    }

    pub(super) fn pool(&self) -> &sqlx::AnyPool {
        self.conductor.state().pool()
    }
}

/// A task's row, and what it was submitted with: read at once, since a claim waits for each question.
struct Taking {
    row: TaskRow,
    submit: Submit,
}

/// Behind the columns of [`TaskRow`].
const SUBMIT: &str = "(SELECT p.submit FROM pipelines p WHERE p.id = tasks.pipeline) AS submit";

impl Taking {
    fn read(row: &AnyRow) -> Result<Self> {
        let submit = from_json("a submission", &row.try_get::<String, _>("submit")?)?;
        Ok(Self { row: TaskRow::read(row)?, submit })
    }
}

/// `false`: another job of the task's serial group runs.
async fn is_alone(tx: &mut AnyConnection, task: &str) -> Result<bool> {
    if sqlx::query(LOCK_SERIAL).bind(task).fetch_optional(&mut *tx).await?.is_none() {
        return Ok(true);
    }
    let select = "SELECT 1 FROM tasks t JOIN tasks o ON o.serial = t.serial AND o.state = 'claimed'
                  AND (o.pipeline <> t.pipeline OR o.workflow <> t.workflow OR o.job <> t.job) WHERE t.id = $1 LIMIT 1";
    Ok(sqlx::query(select).bind(task).fetch_optional(tx).await?.is_none())
}

/// Until the transaction ends, nobody else takes of the task's serial group. No row: it is in none.
pub(super) const LOCK_SERIAL: &str = "SELECT 1 FROM tasks WHERE id = $1 AND serial IS NOT NULL
    AND pg_advisory_xact_lock(hashtextextended(serial, 0))::text = ''";
