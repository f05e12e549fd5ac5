//! Pipelines: submitted, listed, shown, canceled, run again, approved.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use navvy_job::event::{JobEnd, JobRef};
use navvy_job::outcome::{CancelReason, JobStatus};
use navvy_protocol::api::{
    Approve, CancelPipeline, Job, Message, Page, Pipeline, PipelineDetail, Rerun, Submit, Submitted, Task, Workflow,
};
use serde::Deserialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::left::failed;
use super::people::{Admin, Viewer};
use super::sent::{Asked, Sent};
use super::{Refusal, Web};
use crate::claims::Offers;
use crate::conduct::walk::Standing;
use crate::conduct::{Conductor, RerunOf, derived, from_json, rfc3339};
use crate::grants::tree_path;
use crate::state::{now_ms, uint};

/// Pipelines of one page.
const PAGE: i64 = 50;

/// `POST /api/v2/project/{slug}/pipeline`
pub async fn submit(
    by: Admin,
    State(web): State<Web>,
    Path(slug): Path<String>,
    Sent(submit): Sent<Submit>,
) -> Result<Json<Submitted>, Refusal> {
    Ok(Json(web.claims.conductor().submit(&slug, submit, RerunOf::default(), &by.actor).await?))
}

/// Which pipelines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Which {
    #[serde(default)]
    project: Option<String>,
    /// The time of the last one that was seen, and its id.
    #[serde(default)]
    page_token: Option<String>,
}

/// `GET /api/v2/pipeline`: the newest first.
pub async fn list(
    _: Viewer,
    State(web): State<Web>,
    Asked(which): Asked<Which>,
) -> Result<Json<Page<Pipeline>>, Refusal> {
    let (before, id) = match which.page_token.as_deref() {
        None => (i64::MAX, String::new()),
        Some(token) => token
            .split_once('-')
            .and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())))
            .ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "the page token is none that this API gave out"))?,
    };
    let select = "SELECT p.id, p.number, j.slug, p.state, p.created_ms, p.submit FROM pipelines p
                  JOIN projects j ON j.id = p.project WHERE ($1 = '' OR j.slug = $1)
                  AND (p.created_ms < $2 OR (p.created_ms = $2 AND p.id < $3))
                  ORDER BY p.created_ms DESC, p.id DESC LIMIT $4";
    let query = sqlx::query(select).bind(which.project.unwrap_or_default()).bind(before).bind(id).bind(PAGE);
    let rows = query.fetch_all(web.claims.conductor().state().pool()).await?;
    let items = rows.iter().map(pipeline).collect::<Result<Vec<_>, Refusal>>()?;
    let last = rows.last().filter(|_| rows.len() == usize::try_from(PAGE).unwrap_or(0));
    let next =
        last.map(|row| Ok::<_, sqlx::Error>(format!("{}-{}", row.try_get::<i64, _>(4)?, row.try_get::<String, _>(0)?)));
    Ok(Json(Page { items, next_page_token: next.transpose()? }))
}

fn pipeline(row: &AnyRow) -> Result<Pipeline, Refusal> {
    let submit: Submit = from_json("a submission", &row.try_get::<String, _>(5)?)?;
    Ok(Pipeline {
        id: row.try_get(0)?,
        number: uint(row.try_get(1)?),
        project_slug: row.try_get(2)?,
        state: row.try_get(3)?,
        created_at: rfc3339(row.try_get(4)?),
        vcs: submit.vcs,
    })
}

/// `GET /api/v2/pipeline/{id}`
pub async fn show(_: Viewer, State(web): State<Web>, Path(id): Path<String>) -> Result<Json<PipelineDetail>, Refusal> {
    detail(web.claims.conductor(), &id).await.map(Json)
}

/// A pipeline with its jobs.
pub(crate) async fn detail(conductor: &Conductor, id: &str) -> Result<PipelineDetail, Refusal> {
    let select = "SELECT p.id, p.number, j.slug, p.state, p.created_ms, p.submit FROM pipelines p
                  JOIN projects j ON j.id = p.project WHERE p.id = $1";
    let row = sqlx::query(select).bind(id).fetch_optional(conductor.state().pool()).await?;
    let row = row.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("there is no pipeline {id}")))?;
    let pipeline = pipeline(&row)?;
    let tasks = tasks(conductor, id).await?;
    let workflows = conductor.look(id, |standing| workflows(standing, &tasks)).await?;
    Ok(PipelineDetail { pipeline, workflows })
}

/// The tasks of a job.
#[derive(Default)]
struct OfJob {
    number: u64,
    tasks: Vec<Task>,
    /// Why one of them waits.
    waits: Option<String>,
}

type Tasks = BTreeMap<JobRef, OfJob>;

async fn tasks(conductor: &Conductor, pipeline: &str) -> Result<Tasks, Refusal> {
    let select = "SELECT t.workflow_name, t.job_name, t.number, t.id, t.node, t.state, t.agent, t.output,
                  (SELECT MAX(l.note) FROM launches l WHERE l.task = t.id AND l.fence = t.handed + 1 AND l.closed = 0),
                  t.class, t.executor FROM tasks t WHERE t.pipeline = $1 ORDER BY t.node DESC";
    let rows = sqlx::query(select).bind(pipeline).fetch_all(conductor.state().pool()).await?;
    let offers = Offers::now(conductor).await?;
    let mut tasks = Tasks::new();
    for row in &rows {
        let job = JobRef { workflow: row.try_get(0)?, job: row.try_get(1)? };
        let of_job = tasks.entry(job).or_default();
        of_job.number = uint(row.try_get(2)?);
        let node = u32::try_from(row.try_get::<i64, _>(4)?).unwrap_or(u32::MAX);
        let (id, agent, output) = (row.try_get(3)?, row.try_get(6)?, row.try_get(7)?);
        let state: String = row.try_get(5)?;
        if state == "queued" {
            let (class, executor): (String, String) = (row.try_get(9)?, row.try_get(10)?);
            let nobody = || if conductor.is_launched(&class) { None } else { offers.why_not(&class, &executor) };
            of_job.waits = row.try_get::<Option<String>, _>(8)?.or_else(nobody).or(of_job.waits.take());
        }
        of_job.tasks.insert(0, Task { id, node, state, agent, output });
    }
    Ok(tasks)
}

fn workflows(standing: &Standing, tasks: &Tasks) -> Vec<Workflow> {
    let workflow = |(index, names): (usize, &Vec<JobRef>)| Workflow {
        id: derived(&standing.facts.id, &format!("workflow {index}")),
        name: standing.workflows.get(index).map(|chosen| chosen.workflow.name.clone()).unwrap_or_default(),
        jobs: names.iter().map(|job| self::job(standing, tasks, index, job)).collect(),
    };
    standing.names.iter().enumerate().map(workflow).collect()
}

fn job(standing: &Standing, tasks: &Tasks, workflow: usize, job: &JobRef) -> Job {
    let of_job = tasks.get(job);
    let (status, why) = status(standing, of_job, job);
    Job {
        id: derived(&standing.facts.id, &format!("job {workflow} {}", job.job)),
        name: job.job.clone(),
        job_number: of_job.map(|of_job| of_job.number),
        status: status.to_owned(),
        why,
        tasks: of_job.map(|of_job| of_job.tasks.clone()).unwrap_or_default(),
    }
}

fn status(standing: &Standing, of_job: Option<&OfJob>, job: &JobRef) -> (&'static str, Option<String>) {
    let tasks = of_job.map_or(&[][..], |of_job| &of_job.tasks);
    let waits = of_job.and_then(|of_job| of_job.waits.clone());
    match standing.ends.get(job) {
        Some(JobEnd::Ran { infra: Some(fault), .. }) => ("infrastructure_fail", Some(fault.clone())),
        Some(JobEnd::Ran { status, failed_step, .. }) => {
            let word = match status {
                JobStatus::Success => "success",
                JobStatus::Canceled => "canceled",
                _ => "failed",
            };
            (word, failed_step.clone())
        }
        Some(JobEnd::Passed { how }) => ("success", Some(how.clone())),
        Some(JobEnd::NotAvailable { needs }) => ("not_run", Some(format!("it needs {needs}, which is not available"))),
        Some(JobEnd::NotRun { why }) => ("not_run", Some(why.clone())),
        Some(JobEnd::Unapproved { approval }) => ("not_run", Some(format!("{approval} was not approved"))),
        Some(JobEnd::Held { before }) => ("on_hold", Some(format!("held before {before}"))),
        None if standing.asked.contains(job) => ("on_hold", Some("it waits for an approval".to_owned())),
        None if tasks.iter().any(|task| task.state != "queued") => {
            ("running", waits.map(|why| format!("one of its tasks waits: {why}")))
        }
        None if !tasks.is_empty() => ("queued", waits),
        None => ("blocked", None),
    }
}

/// `POST /api/v2/pipeline/{id}/cancel`
pub async fn cancel(
    by: Admin,
    State(web): State<Web>,
    Path(id): Path<String>,
    Sent(asked): Sent<CancelPipeline>,
) -> Result<Json<Message>, Refusal> {
    web.claims.conductor().cancel(&id, CancelReason::User, asked.at_once, &by.actor).await?;
    Ok(Json(Message { message: format!("pipeline {id} is being canceled") }))
}

/// `POST /api/v2/pipeline/{id}/rerun`
pub async fn rerun(
    by: Admin,
    State(web): State<Web>,
    Path(id): Path<String>,
    Sent(asked): Sent<Rerun>,
) -> Result<Json<Submitted>, Refusal> {
    let conductor = web.claims.conductor();
    let select = "SELECT p.submit, j.slug, p.workspace_of, p.state FROM pipelines p
                  JOIN projects j ON j.id = p.project WHERE p.id = $1";
    let row = sqlx::query(select).bind(&id).fetch_optional(conductor.state().pool()).await?;
    let row = row.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("there is no pipeline {id}")))?;
    let submit: Submit = from_json("a submission", &row.try_get::<String, _>(0)?)?;
    // What runs again is another trace.
    let submit = Submit { traceparent: None, ..submit };
    let (slug, workspace_of, state): (String, String, String) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    has_tree(&web, &id, &submit).await?;
    if !asked.from_failed {
        return Ok(Json(conductor.submit(&slug, submit, RerunOf::default(), &by.actor).await?));
    }
    if matches!(state.as_str(), "running" | "on_hold") {
        return Err(Refusal::new(StatusCode::CONFLICT, format!("pipeline {id} is not over yet"))
            .hint("Cancel it, or wait for its end."));
    }
    let assumed = conductor.look(&id, Standing::passed).await?;
    if state == "success" {
        return Err(Refusal::new(StatusCode::CONFLICT, format!("nothing of pipeline {id} failed")));
    }
    has_workspaces(&web, &id, &workspace_of).await?;
    let rerun = RerunOf { assumed, workspace_of: Some(workspace_of) };
    Ok(Json(conductor.submit(&slug, submit, rerun, &by.actor).await?))
}

/// A working tree that was sent is not kept for ever.
async fn has_tree(web: &Web, id: &str, submit: &Submit) -> Result<(), Refusal> {
    let Some(path) = submit.tree.as_deref().and_then(tree_path) else { return Ok(()) };
    match web.objects.size(&path).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => {
            Err(Refusal::new(StatusCode::CONFLICT, format!("the working tree of pipeline {id} is not kept any more"))
                .hint("Submit it anew: `navvy submit --tree`."))
        }
        Err(error) => Err(failed("the working tree", &error)),
    }
}

/// Without their layers, jobs would see another workspace than those that passed had left.
async fn has_workspaces(web: &Web, id: &str, workspace_of: &str) -> Result<(), Refusal> {
    let Some(keep) = web.keep.workspaces else { return Ok(()) };
    let select = sqlx::query("SELECT created_ms FROM pipelines WHERE id = $1").bind(workspace_of);
    let row = select.fetch_optional(web.claims.conductor().state().pool()).await?;
    let created: i64 = row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
    let age = uint(now_ms().saturating_sub(created));
    match u128::from(age) < keep.as_millis() {
        true => Ok(()),
        false => {
            Err(Refusal::new(StatusCode::CONFLICT, format!("the workspaces of pipeline {id} are not kept any more"))
                .hint("Run all of it again: `navvy pipelines rerun` without --from-failed."))
        }
    }
}

/// `POST /api/v2/pipeline/{id}/approve/{job}`
pub async fn approve(
    by: Admin,
    State(web): State<Web>,
    Path((id, job)): Path<(String, String)>,
    Sent(asked): Sent<Approve>,
) -> Result<Json<Message>, Refusal> {
    web.claims.conductor().approve(&id, &job, asked.approved, &by.actor).await?;
    let done = if asked.approved { "approved" } else { "held" };
    Ok(Json(Message { message: format!("{job} is {done}") }))
}
