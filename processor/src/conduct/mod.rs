//! Pipelines: taken, walked, ended. What `navvy run` does in memory is done here in a database, by the same walk.
//!
//! ```text
//! submit ─────────▶ pipeline ─ begin ─┐
//! a task's end ───▶ happening ────────┼─▶ Walk ─▶ effects: tasks queued, events, what ends  ─▶ one transaction
//! answer, cancel ─▶ happening ────────┘
//! ```
//!
//! A happening and all that follows from it are one transaction, in which the pipeline's row is locked: several processors may
//! conduct one pipeline. The walk is kept in memory while it is used, and replayed from its happenings otherwise ([`walk`]).

pub mod compile;
pub mod fitting;
mod queueing;
mod telling;
pub mod walk;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use navvy_job::chain::chain;
use navvy_job::event::JobRef;
use navvy_job::outcome::{CancelReason, RunEnd, Verdict};
use navvy_job::walk::{Effect, Finish, JobKey, TaskEnd, TaskKey};
use navvy_protocol::api::{Submit, Submitted};
use sqlx::{Any, AnyConnection, Row as _, Transaction};
use tokio::sync::{Mutex, Notify, broadcast};

use crate::audit::Entry;
use crate::settings::Classes;
use crate::state::{Dialect, State, StateError, int, now_ms, uint};
use crate::telemetry::{otlp::QUEUE, trace_of};
pub(crate) use queueing::key;
pub use queueing::{Canceling, derived};
pub(crate) use telling::append;

use compile::{CompileError, Compiled, Facts};
use walk::{Recorded, Standing};

/// Pipelines whose walks are kept in memory.
const KEPT: usize = 256;
/// Longer names of projects are nobody's.
const LONGEST_SLUG: usize = 200;

/// Why something cannot be done with a pipeline.
#[derive(Debug, thiserror::Error)]
pub enum ConductError {
    /// The database.
    #[error(transparent)]
    State(#[from] StateError),
    /// The config.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// No such pipeline.
    #[error("there is no pipeline {0}")]
    NoPipeline(String),
    /// It is over.
    #[error("pipeline {0} is over: it ended {1}")]
    Over(String, String),
    /// No approval of this name is waiting.
    #[error("no approval `{job}` waits for an answer in this pipeline; waiting are: {waiting}")]
    NoApproval {
        /// What was asked for.
        job: String,
        /// Those that wait.
        waiting: String,
    },
    /// Several approvals of this name are waiting.
    #[error("several approvals `{job}` wait for an answer in this pipeline: {waiting}")]
    WhichApproval {
        /// What was asked for.
        job: String,
        /// Those that are meant by it, each by a name that means it alone.
        waiting: String,
    },
    /// The compiler panicked.
    #[error("a bug of ours: the config could not be compiled: {0}")]
    Bug(String),
    /// The slug is none.
    #[error("{0:?} is no project; a project is called VCS/OWNER/NAME, as in gh/acme/shop")]
    Slug(String),
}

impl From<sqlx::Error> for ConductError {
    fn from(error: sqlx::Error) -> Self {
        Self::State(error.into())
    }
}

/// Short for what this module returns.
pub type Result<T, E = ConductError> = std::result::Result<T, E>;

/// Something of these changed; who waits looks again.
#[derive(Debug, Clone)]
pub struct Signals {
    /// A task was queued.
    pub queued: Arc<Notify>,
    /// An event was written.
    pub events: Arc<Notify>,
    /// A task is to be canceled.
    pub cancels: Arc<Notify>,
    /// Pipelines that end, as told before that is committed: who hears of one looks whether it is so.
    pub ended: broadcast::Sender<String>,
}

impl Default for Signals {
    fn default() -> Self {
        let (queued, events, cancels) = Default::default();
        Self { queued, events, cancels, ended: broadcast::Sender::new(QUEUE) }
    }
}

/// A pipeline's walk, if it is in memory; whoever has it locked is the one who moves it.
type Slot = Arc<Mutex<Option<Standing>>>;

/// Conducts pipelines. Cheap to clone.
#[derive(Clone)]
pub struct Conductor {
    state: State,
    /// Where people find a pipeline: `http://host:8080`.
    public_url: Arc<str>,
    kept: Arc<Mutex<HashMap<String, Slot>>>,
    /// Classes whose agents a scheduler starts, if there is one.
    launched: Option<Arc<Classes>>,
    /// Who waits for what.
    pub signals: Signals,
}

/// A pipeline's row.
struct PipelineRow {
    project: String,
    slug: String,
    number: u64,
    scope: String,
    workspace_of: String,
    created_ms: i64,
    state: String,
    happenings: u64,
}

/// What a rerun takes from another pipeline.
#[derive(Debug, Clone, Default)]
pub struct RerunOf {
    /// Jobs that count as passed.
    pub assumed: BTreeSet<String>,
    /// The pipeline whose workspaces it sees.
    pub workspace_of: Option<String>,
}

impl Conductor {
    /// A conductor on this database.
    pub fn new(state: State, public_url: &str) -> Self {
        Self { state, public_url: public_url.into(), kept: Arc::default(), launched: None, signals: Signals::default() }
    }

    /// A scheduler starts agents for tasks of these classes.
    #[must_use]
    pub fn with_launched(self, classes: Option<Classes>) -> Self {
        Self { launched: classes.map(Arc::new), ..self }
    }

    /// Does a scheduler start the agents of this class? Then no runner is waited for.
    pub(crate) fn is_launched(&self, class: &str) -> bool {
        self.launched.as_ref().is_some_and(|classes| classes.has(class))
    }

    /// The database.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes a config: compiles it, numbers it, and starts what may start.
    ///
    /// # Errors
    /// The config has mistakes (then nothing is left of it), or the database does not answer.
    pub async fn submit(&self, slug: &str, submit: Submit, rerun: RerunOf, by: &str) -> Result<Submitted> {
        check_slug(slug)?;
        let id = uuid::Uuid::new_v4().to_string();
        let trace = trace_of(submit.traceparent.as_deref());
        let submit = Submit { traceparent: Some(trace.to_string()), ..submit };
        // A config with mistakes uses up no number: it is compiled once before it has one.
        let mut facts = compile::facts(&submit, slug, &id, 1)?;
        compiled(&submit, &facts).await?;
        let mut tx = self.state.pool().begin().await?;
        let (project, number) = self.next_pipeline(&mut tx, slug, &submit).await?;
        facts.number = number;
        let compiled = compiled(&submit, &facts).await?;
        let warnings = compiled.warnings.clone().into_iter().collect();
        let created_ms = now_ms();
        let row = PipelineRow {
            project,
            slug: slug.to_owned(),
            number,
            scope: scope_of(&submit),
            workspace_of: rerun.workspace_of.clone().unwrap_or_else(|| id.clone()),
            created_ms,
            state: "running".to_owned(),
            happenings: 0,
        };
        insert_pipeline(&mut tx, &id, &row, (&submit, &compiled), &rerun).await?;
        let (mut standing, effects) = Standing::begin(submit, facts, compiled, rerun.assumed);
        self.tell_started(&mut tx, &row, &standing).await?;
        self.carry_out(&mut tx, &row, &mut standing, effects).await?;
        let entry = Entry::new("pipeline.submit", by, "pipeline", &id).in_project(&row.project);
        entry.write(&mut tx).await?;
        tx.commit().await?;
        self.keep(&id, standing).await;
        crate::figures::PIPELINES.count();
        self.wake();
        tracing::info!(trace_id = trace.trace_id(), pipeline = id, "Pipeline {number} of {slug} was submitted.");
        Ok(Submitted { id, number, state: "created".to_owned(), created_at: rfc3339(created_ms), warnings })
    }

    /// Writes down what happened, and does what follows from it, within a transaction of the caller's, who commits by what is
    /// returned. Nothing follows where a pipeline is over.
    ///
    /// # Errors
    /// There is no such pipeline, or the database does not answer: then nothing has happened.
    pub async fn happen_in(&self, tx: &mut Transaction<'_, Any>, pipeline: &str, recorded: Recorded) -> Result<Done> {
        let slot = self.slot(pipeline).await;
        let mut kept = slot.lock_owned().await;
        let row = self.pipeline_row(tx, pipeline).await?;
        if is_over(&row.state) {
            return Ok(Done { slot: kept, committed: false });
        }
        // Dropped where something fails: what is in memory is never ahead of what is written.
        let mut standing = match kept.take().filter(|standing| standing.happenings == row.happenings) {
            Some(standing) => standing,
            None => self.replay(tx, pipeline, &row).await?,
        };
        let recorded = self.completed(tx, pipeline, recorded).await?;
        let effects = self.record(tx, pipeline, &mut standing, recorded).await?;
        self.carry_out(tx, &row, &mut standing, effects).await?;
        *kept = Some(standing);
        Ok(Done { slot: kept, committed: false })
    }

    /// A stop is written down with the tasks that agents have.
    async fn completed(&self, tx: &mut AnyConnection, pipeline: &str, recorded: Recorded) -> Result<Recorded> {
        let Recorded::Stop { reason, .. } = recorded else { return Ok(recorded) };
        let select = match self.state.dialect() {
            Dialect::Sqlite => "SELECT workflow, job, node FROM tasks WHERE pipeline = $1 AND state = 'claimed'",
            // Nobody may take one of them while the stop is being decided.
            Dialect::Postgres => {
                "SELECT workflow, job, node FROM tasks WHERE pipeline = $1 AND state = 'claimed' FOR UPDATE"
            }
        };
        if self.state.dialect() == Dialect::Postgres {
            let lock = "SELECT id FROM tasks WHERE pipeline = $1 AND state = 'queued' FOR UPDATE";
            sqlx::query(lock).bind(pipeline).fetch_all(&mut *tx).await?;
        }
        let rows = sqlx::query(select).bind(pipeline).fetch_all(tx).await?;
        let started = rows.iter().map(queueing::key).collect::<Result<_, _>>()?;
        Ok(Recorded::Stop { reason, started })
    }

    /// Stops a pipeline: what waits never starts, what runs is canceled.
    ///
    /// # Errors
    /// There is no such pipeline, it is over, or the database does not answer.
    pub async fn cancel(&self, pipeline: &str, reason: CancelReason, at_once: bool, by: &str) -> Result<()> {
        let mut tx = self.state.pool().begin().await?;
        // Without its lock: whoever has the pipeline's row locked must not wait for its walk, which `happen_in` locks first.
        let select = "SELECT state FROM pipelines WHERE id = $1";
        let row = sqlx::query(select).bind(pipeline).fetch_optional(&mut *tx).await?;
        let state: String = row.ok_or_else(|| ConductError::NoPipeline(pipeline.to_owned()))?.try_get(0)?;
        if is_over(&state) {
            return Err(ConductError::Over(pipeline.to_owned(), state));
        }
        let done = self.happen_in(&mut tx, pipeline, Recorded::Stop { reason, started: Vec::new() }).await?;
        queueing::cancel_claimed(&mut tx, pipeline, reason, at_once).await?;
        Entry::new("pipeline.cancel", by, "pipeline", pipeline).write(&mut tx).await?;
        done.commit(tx, self).await
    }

    /// Answers an approval, by its id or by its name.
    ///
    /// # Errors
    /// No such approval waits.
    pub async fn approve(&self, pipeline: &str, job: &str, approved: bool, by: &str) -> Result<()> {
        let asked: Vec<(JobRef, String)> = self.look(pipeline, asked).await?;
        let found = which_approval(&asked, job)?;
        let (workflow, job) = (found.workflow.clone(), found.job.clone());
        let entry = Entry::new("approval.answer", by, "pipeline", pipeline);
        let entry = entry.with(serde_json::json!({"workflow": workflow, "job": job, "approved": approved}));
        let mut tx = self.state.pool().begin().await?;
        let done = self.happen_in(&mut tx, pipeline, Recorded::Answered { workflow, job, approved }).await?;
        entry.write(&mut tx).await?;
        done.commit(tx, self).await
    }

    /// Where people find the processor.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// Looks at a pipeline as it stands.
    ///
    /// # Errors
    /// There is none, or the database does not answer.
    pub async fn look<T>(&self, pipeline: &str, look: impl FnOnce(&Standing) -> T) -> Result<T> {
        let mut tx = self.state.pool().begin().await?;
        let slot = self.slot(pipeline).await;
        let mut kept = slot.lock_owned().await;
        let row = self.pipeline_row(&mut tx, pipeline).await?;
        let standing = match kept.take().filter(|standing| standing.happenings == row.happenings) {
            Some(standing) => standing,
            None => self.replay(&mut tx, pipeline, &row).await?,
        };
        let seen = look(&standing);
        *kept = Some(standing);
        Ok(seen)
    }

    async fn carry_out(
        &self,
        tx: &mut AnyConnection,
        row: &PipelineRow,
        standing: &mut Standing,
        effects: Vec<Effect>,
    ) -> Result<()> {
        let id = standing.facts.id.clone();
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Start { job, tasks } => {
                    if !self.queue(tx, row, standing, job, tasks).await? {
                        effects.extend(self.lose(tx, standing, job, tasks).await?);
                    }
                }
                Effect::GiveUp { task } => queueing::give_up(tx, &id, task).await?,
                Effect::Continue { task } => effects.extend(self.go_on(tx, row, standing, task).await?),
                Effect::Finish(finish) => self.finish(tx, row, standing, finish).await?,
                told => self.tell(tx, row, standing, told).await?,
            }
        }
        self.set_state(tx, standing, &id).await
    }

    /// A job that the walk starts and that is not in its workflow ends as a fault of ours: nobody waits for it.
    async fn lose(
        &self,
        tx: &mut AnyConnection,
        standing: &mut Standing,
        job: JobKey,
        tasks: u32,
    ) -> Result<Vec<Effect>> {
        let id = standing.facts.id.clone();
        tracing::error!(pipeline = id, ?job, "A job of the walk is not in its workflow.");
        let mut effects = Vec::new();
        for node in 0..tasks {
            let fault = "it is not to be found in its workflow any more".to_owned();
            let recorded = Recorded::TaskEnded {
                task: TaskKey { job, node }.into(),
                end: Box::new(TaskEnd::new(Verdict::Infra { fault })),
                continuation: None,
                fidelity: Vec::new(),
                warnings: Vec::new(),
            };
            effects.extend(self.record(tx, &id, standing, recorded).await?);
        }
        Ok(effects)
    }

    /// The workflows of a task's continuation join, or it is said why they do not.
    async fn go_on(
        &self,
        tx: &mut AnyConnection,
        row: &PipelineRow,
        standing: &mut Standing,
        task: TaskKey,
    ) -> Result<Vec<Effect>> {
        let id = standing.facts.id.clone();
        let refused = |why| Recorded::NotContinued { task: task.into(), why };
        let recorded = match standing.continuation(task).cloned() {
            None => refused("what it continues with is lost".to_owned()),
            Some(continuation) => {
                let (submit, facts) = (standing.submit.clone(), standing.facts.clone());
                match beside(move || compile::compile_continuation(&submit, &facts, &continuation)).await? {
                    Ok(compiled) => Recorded::Continued { task: task.into(), compiled: Box::new(compiled) },
                    Err(CompileError::Diagnostics { rendered }) => {
                        refused(format!("the continuation has mistakes:\n{rendered}"))
                    }
                    Err(error) => refused(chain(&error)),
                }
            }
        };
        self.tell_continued(tx, row, standing, &recorded).await?;
        self.record(tx, &id, standing, recorded).await
    }

    async fn record(
        &self,
        tx: &mut AnyConnection,
        pipeline: &str,
        standing: &mut Standing,
        recorded: Recorded,
    ) -> Result<Vec<Effect>> {
        let effects = standing.step(&recorded);
        let body = to_json(&recorded);
        let insert = "INSERT INTO happenings (pipeline, number, body) VALUES ($1, $2, $3)";
        sqlx::query(insert).bind(pipeline).bind(int(standing.happenings)).bind(body).execute(&mut *tx).await?;
        let update = "UPDATE pipelines SET happenings = $1 WHERE id = $2";
        sqlx::query(update).bind(int(standing.happenings)).bind(pipeline).execute(tx).await?;
        Ok(effects)
    }

    async fn replay(&self, tx: &mut AnyConnection, pipeline: &str, row: &PipelineRow) -> Result<Standing> {
        let select = "SELECT submit, assumed, compiled FROM pipelines WHERE id = $1";
        let found = sqlx::query(select).bind(pipeline).fetch_one(&mut *tx).await?;
        let submit: Submit = from_json("a submission", &found.try_get::<String, _>(0)?)?;
        let assumed = from_json("a rerun", &found.try_get::<String, _>(1)?)?;
        let facts: Facts = compile::facts(&submit, &row.slug, pipeline, row.number)?;
        let compiled = from_json("a compiled pipeline", &found.try_get::<String, _>(2)?)?;
        let (mut standing, _) = Standing::begin(submit, facts, compiled, assumed);
        let select = "SELECT body FROM happenings WHERE pipeline = $1 ORDER BY number";
        for found in sqlx::query(select).bind(pipeline).fetch_all(tx).await? {
            let recorded = from_json("a happening", &found.try_get::<String, _>(0)?)?;
            standing.step(&recorded);
        }
        Ok(standing)
    }

    async fn pipeline_row(&self, tx: &mut AnyConnection, pipeline: &str) -> Result<PipelineRow> {
        let select = match self.state.dialect() {
            Dialect::Sqlite => {
                "SELECT p.project, p.number, p.scope, p.workspace_of, p.created_ms, p.state, p.happenings, j.slug
                 FROM pipelines p JOIN projects j ON j.id = p.project WHERE p.id = $1"
            }
            Dialect::Postgres => {
                "SELECT p.project, p.number, p.scope, p.workspace_of, p.created_ms, p.state, p.happenings, j.slug
                 FROM pipelines p JOIN projects j ON j.id = p.project WHERE p.id = $1 FOR UPDATE OF p"
            }
        };
        let row = sqlx::query(select).bind(pipeline).fetch_optional(tx).await?;
        let row = row.ok_or_else(|| ConductError::NoPipeline(pipeline.to_owned()))?;
        Ok(PipelineRow {
            project: row.try_get(0)?,
            number: uint(row.try_get(1)?),
            scope: row.try_get(2)?,
            workspace_of: row.try_get(3)?,
            created_ms: row.try_get(4)?,
            state: row.try_get(5)?,
            happenings: uint(row.try_get(6)?),
            slug: row.try_get(7)?,
        })
    }

    /// The project's id, and the pipeline's number in it.
    async fn next_pipeline(&self, tx: &mut AnyConnection, slug: &str, submit: &Submit) -> Result<(String, u64)> {
        let insert = "INSERT INTO projects (id, slug, repository, created_ms, pipelines, jobs)
                      VALUES ($1, $2, $3, $4, 0, 0) ON CONFLICT (slug) DO NOTHING";
        let repository = submit.vcs.origin_repository_url.clone().unwrap_or_default();
        let query = sqlx::query(insert).bind(uuid::Uuid::new_v4().to_string()).bind(slug).bind(repository);
        query.bind(now_ms()).execute(&mut *tx).await?;
        let update = "UPDATE projects SET pipelines = pipelines + 1 WHERE slug = $1 RETURNING id, pipelines";
        let row = sqlx::query(update).bind(slug).fetch_one(tx).await?;
        Ok((row.try_get(0)?, uint(row.try_get(1)?)))
    }

    async fn set_state(&self, tx: &mut AnyConnection, standing: &Standing, id: &str) -> Result<()> {
        let state = if standing.asked.is_empty() { "running" } else { "on_hold" };
        let update = "UPDATE pipelines SET state = $1 WHERE id = $2 AND state IN ('running', 'on_hold')";
        sqlx::query(update).bind(state).bind(id).execute(tx).await?;
        Ok(())
    }

    async fn slot(&self, pipeline: &str) -> Slot {
        let mut kept = self.kept.lock().await;
        if kept.len() > KEPT {
            // Those that somebody has in hand stay.
            kept.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(kept.entry(pipeline.to_owned()).or_default())
    }

    async fn keep(&self, pipeline: &str, standing: Standing) {
        *self.slot(pipeline).await.lock().await = Some(standing);
    }

    fn wake(&self) {
        self.signals.queued.notify_waiters();
        self.signals.events.notify_waiters();
        self.signals.cancels.notify_waiters();
    }
}

/// What is to be committed; until then nobody else looks at the pipeline's walk.
pub struct Done {
    slot: tokio::sync::OwnedMutexGuard<Option<Standing>>,
    committed: bool,
}

impl Done {
    /// Makes it last.
    ///
    /// # Errors
    /// It did not: then nothing has happened.
    pub async fn commit(mut self, tx: Transaction<'_, Any>, conductor: &Conductor) -> Result<()> {
        tx.commit().await?;
        self.committed = true;
        conductor.wake();
        Ok(())
    }
}

impl Drop for Done {
    /// What was not written has not happened: the walk is replayed from what was.
    fn drop(&mut self) {
        if !self.committed {
            *self.slot = None;
        }
    }
}

async fn insert_pipeline(
    tx: &mut AnyConnection,
    id: &str,
    row: &PipelineRow,
    (submit, compiled): (&Submit, &Compiled),
    rerun: &RerunOf,
) -> Result<()> {
    let insert = "INSERT INTO pipelines
        (id, project, number, created_ms, submit, compiled, scope, assumed, workspace_of, state, tree, happenings, events)
        VALUES ($1, $2, $3, $4, $5, $10, $6, $7, $8, $9, $11, 0, 0)";
    let query = sqlx::query(insert).bind(id).bind(&row.project).bind(int(row.number)).bind(row.created_ms);
    let query = query.bind(to_json(submit)).bind(&row.scope).bind(to_json(&rerun.assumed));
    let query = query.bind(&row.workspace_of).bind(&row.state).bind(to_json(compiled)).bind(&submit.tree);
    query.execute(tx).await?;
    Ok(())
}

/// Beside the threads that serve: a large config takes its time.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ConductError::Bug(error.to_string()))
}

async fn compiled(submit: &Submit, facts: &Facts) -> Result<Compiled> {
    let (submit, facts) = (submit.clone(), facts.clone());
    Ok(beside(move || compile::compile(&submit, &facts)).await??)
}

/// The approvals that wait, with their ids.
fn asked(standing: &Standing) -> Vec<(JobRef, String)> {
    let id = |job: &JobRef| {
        let workflow = standing.key(&job.workflow, &job.job)?.workflow;
        Some((job.clone(), derived(&standing.facts.id, &format!("job {workflow} {}", job.job))))
    };
    standing.asked.iter().filter_map(id).collect()
}

/// By the job's id, by its name where one of that name waits, or by WORKFLOW/JOB.
fn which_approval<'a>(asked: &'a [(JobRef, String)], wanted: &str) -> Result<&'a JobRef> {
    let full = |job: &JobRef| format!("{}/{}", job.workflow, job.job);
    let exactly = asked.iter().find(|(job, id)| id == wanted || full(job) == wanted);
    let named: Vec<&JobRef> = asked.iter().map(|(job, _)| job).filter(|job| job.job == wanted).collect();
    let names = |jobs: &mut dyn Iterator<Item = &JobRef>| jobs.map(full).collect::<Vec<_>>().join(", ");
    match (exactly, named.as_slice()) {
        (Some((job, _)), _) => Ok(job),
        (None, [job]) => Ok(job),
        (None, []) => {
            let waiting = names(&mut asked.iter().map(|(job, _)| job));
            let waiting = if waiting.is_empty() { "none".to_owned() } else { waiting };
            Err(ConductError::NoApproval { job: wanted.to_owned(), waiting })
        }
        (None, several) => {
            let waiting = names(&mut several.iter().copied());
            Err(ConductError::WhichApproval { job: wanted.to_owned(), waiting })
        }
    }
}

/// What was not committed anywhere writes no cache that the project's own branches read.
fn scope_of(submit: &Submit) -> String {
    let scope = match submit.tree {
        Some(_) => navvy_job::claim::TrustScope::Fork("tree".to_owned()),
        None => navvy_job::claim::TrustScope::Trusted,
    };
    scope.to_string()
}

/// `VCS/OWNER/NAME`.
fn check_slug(slug: &str) -> Result<()> {
    let parts: Vec<&str> = slug.split('/').collect();
    let plain =
        |part: &&str| !matches!(*part, "" | "." | "..") && !part.chars().any(|c| c.is_control() || c.is_whitespace());
    match parts.len() >= 3 && parts.iter().all(plain) && slug.len() <= LONGEST_SLUG {
        true => Ok(()),
        false => Err(ConductError::Slug(slug.chars().take(LONGEST_SLUG).collect())),
    }
}

fn is_over(state: &str) -> bool {
    !matches!(state, "running" | "on_hold")
}

/// The word for a pipeline's end.
fn end_word(end: RunEnd) -> &'static str {
    match end {
        RunEnd::Passed => "success",
        RunEnd::Incomplete => "incomplete",
        RunEnd::Infra | RunEnd::BadConfig => "error",
        RunEnd::JobFailed => "failed",
        RunEnd::Canceled => "canceled",
    }
}

impl Conductor {
    async fn finish(
        &self,
        tx: &mut AnyConnection,
        row: &PipelineRow,
        standing: &Standing,
        finish: Finish,
    ) -> Result<()> {
        let end = if standing.not_continued.is_some() { finish.end.max(RunEnd::BadConfig) } else { finish.end };
        self.tell_finished(tx, row, standing, finish.jobs, end).await?;
        let update = "UPDATE pipelines SET state = $1 WHERE id = $2";
        sqlx::query(update).bind(end_word(end)).bind(&standing.facts.id).execute(tx).await?;
        let trace_id = trace_of(standing.submit.traceparent.as_deref()).trace_id();
        tracing::info!(trace_id, pipeline = standing.facts.id, "A pipeline ends: {}.", end_word(end));
        // Nobody may be listening.
        self.signals.ended.send(standing.facts.id.clone()).ok();
        Ok(())
    }
}

/// What is written to the database always can be.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// What is read from the database was written by this version or an older one.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, StateError> {
    serde_json::from_str(text).map_err(|source| StateError::Form { what: what.to_owned(), source })
}

/// As people read it.
pub(crate) fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |time| time.to_string())
}
