//! What people see of a pipeline: events, numbered, in the form of docs/events.md.

use navvy_job::event::{Event, JobSummary, Stamped, Summary};
use navvy_job::outcome::RunEnd;
use navvy_job::walk::Effect;
use sqlx::{AnyConnection, Row as _};

use super::walk::{Recorded, Standing};
use super::{Conductor, PipelineRow, Result, compile, now_ms, rfc3339, to_json};
use crate::state::{int, uint};

impl Conductor {
    pub(super) async fn tell_started(
        &self,
        tx: &mut AnyConnection,
        row: &PipelineRow,
        standing: &Standing,
    ) -> Result<()> {
        let config = compile::config_name(&standing.submit);
        let event = Event::RunStarted {
            logs: self.pipeline_url(&standing.facts.id).into(),
            config: config.into(),
            jobs: standing.names.iter().flatten().cloned().collect(),
        };
        self.send(tx, &standing.facts.id, row.created_ms, event).await
    }

    /// An effect that is only told.
    pub(super) async fn tell(
        &self,
        tx: &mut AnyConnection,
        row: &PipelineRow,
        standing: &Standing,
        effect: Effect,
    ) -> Result<()> {
        let event = match effect {
            Effect::Ask { job, holds } => match standing.reference(job).cloned() {
                Some(job) => Event::ApprovalAsked { job, holds },
                None => return Ok(()),
            },
            Effect::Tell { job, end } => Event::JobEnded { job, end },
            Effect::ContinuedBefore { job } => {
                let job = standing.reference(job).map(|job| job.job.clone()).unwrap_or_default();
                let message = format!(
                    "{job} continues the pipeline, which was continued before: only the first continuation counts"
                );
                Event::Warning { task: None, message }
            }
            _ => return Ok(()),
        };
        self.send(tx, &standing.facts.id, row.created_ms, event).await
    }

    pub(super) async fn tell_continued(
        &self,
        tx: &mut AnyConnection,
        row: &PipelineRow,
        standing: &Standing,
        recorded: &Recorded,
    ) -> Result<()> {
        let event = match recorded {
            Recorded::Continued { compiled, .. } => {
                let jobs = compiled.workflows.iter().flat_map(super::walk::references).collect();
                Event::PipelineContinued { config: compile::CONTINUATION.into(), jobs }
            }
            Recorded::NotContinued { why, .. } => {
                Event::Warning { task: None, message: format!("the pipeline cannot continue: {why}") }
            }
            _ => return Ok(()),
        };
        self.send(tx, &standing.facts.id, row.created_ms, event).await
    }

    pub(super) async fn tell_finished(
        &self,
        tx: &mut AnyConnection,
        row: &PipelineRow,
        standing: &Standing,
        jobs: Vec<JobSummary>,
        end: RunEnd,
    ) -> Result<()> {
        let duration = now_ms().saturating_sub(row.created_ms);
        let summary = Summary {
            exit_code: end.exit_code(),
            duration_ms: uint(duration),
            jobs,
            logs: self.pipeline_url(&standing.facts.id).into(),
            fidelity: standing.fidelity.clone(),
            warnings: standing.warnings.clone(),
            leftovers: Vec::new(),
            contexts_given: Vec::new(),
            env_files_given: Vec::new(),
            secrets: None,
        };
        self.send(tx, &standing.facts.id, row.created_ms, Event::RunEnded(Box::new(summary))).await
    }

    /// Writes an event down, as the pipeline's next.
    async fn send(&self, tx: &mut AnyConnection, pipeline: &str, created_ms: i64, event: Event) -> Result<()> {
        let now = now_ms();
        let stamped = Stamped { at_ms: uint(now.saturating_sub(created_ms)), time: rfc3339(now), event };
        append(tx, pipeline, &[to_json(&stamped)]).await
    }

    fn pipeline_url(&self, id: &str) -> String {
        format!("{}/api/v2/pipeline/{id}", self.public_url)
    }
}

/// Writes events down, behind those that the pipeline has.
pub(crate) async fn append(tx: &mut AnyConnection, pipeline: &str, bodies: &[String]) -> Result<()> {
    if bodies.is_empty() {
        return Ok(());
    }
    let update = "UPDATE pipelines SET events = events + $1 WHERE id = $2 RETURNING events";
    let row = sqlx::query(update).bind(int(bodies.len() as u64)).bind(pipeline).fetch_one(&mut *tx).await?;
    let last: i64 = row.try_get(0)?;
    let first = last - int(bodies.len() as u64) + 1;
    for (number, body) in (first..).zip(bodies) {
        let insert = "INSERT INTO events (pipeline, number, body) VALUES ($1, $2, $3)";
        sqlx::query(insert).bind(pipeline).bind(number).bind(body).execute(&mut *tx).await?;
    }
    Ok(())
}
