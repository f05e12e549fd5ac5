//! From a job whose turn has come to tasks in the queue.

use navvy_checkout::variables::{INTERNAL_TASK_DATA, TaskNumbers, built_in, run_facts};
use navvy_job::claim::{self, Claim, Limits, ReportTo, TrustScope};
use navvy_job::id::TaskId;
use navvy_job::outcome::{CancelReason, Verdict};
use navvy_job::upstream::upstream;
use navvy_job::walk::{JobKey, TaskEnd, TaskKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::fitting::{Fitting, fitting};
use super::walk::{Key, Standing};
use super::{Conductor, PipelineRow, Result, to_json};
use crate::state::{int, now_ms, uint};

/// The longest that a job runs, as the service has it.
const JOB_LIMIT: std::time::Duration = std::time::Duration::from_secs(5 * 3600);

/// A wish to cancel, as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canceling {
    /// Who wants it.
    pub reason: CancelReason,
    /// Without grace.
    pub at_once: bool,
}

impl Conductor {
    /// `false`: the job is not to be found in its workflow.
    pub(super) async fn queue(
        &self,
        tx: &mut AnyConnection,
        row: &PipelineRow,
        standing: &Standing,
        job: JobKey,
        total: u32,
    ) -> Result<bool> {
        let Some((workflow_job, build)) = standing.build(job) else { return Ok(false) };
        let Ok(fitting) = fitting(build) else { return Ok(false) };
        let serial = workflow_job.serial_group.as_ref().map(|group| format!("{}:{group}", organization(&row.slug)));
        // The nodes of a job are one job.
        let number = next_job(tx, &row.project).await?;
        for node in 0..total {
            let claim = self.claim(row, standing, TaskKey { job, node }, total, number, &fitting);
            let contexts: Vec<&String> = workflow_job.contexts.iter().chain(&standing.submit.contexts).collect();
            let insert = "INSERT INTO tasks
                (id, pipeline, workflow, job, node, number, workflow_name, job_name, project, scope, workspace,
                 class, millicpus, memory, serial, claim, contexts, executor, beside, notes, state, queued_ms, handed, begun, beats,
                 events)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, '[]',
                        'queued', $20, 0, 0, 0, 0)";
            let key = Key::from(TaskKey { job, node });
            let query = sqlx::query(insert).bind(claim.task.as_str()).bind(&standing.facts.id);
            let query = query.bind(int(key.workflow as u64)).bind(int(key.job as u64)).bind(i64::from(node));
            let workflow = standing.reference(job).map(|job| job.workflow.clone()).unwrap_or_default();
            let query = query.bind(int(number)).bind(workflow).bind(&claim.job_name).bind(&row.project);
            let query = query.bind(&row.scope).bind(&claim.run.workspace).bind(&fitting.class);
            let query = query.bind(int(fitting.size.millicpus)).bind(int(fitting.size.memory)).bind(serial.as_deref());
            let query = query.bind(to_json(&claim)).bind(to_json(&contexts));
            let query = query.bind(fitting.executor.word()).bind(i64::from(fitting.has_machine)).bind(now_ms());
            query.execute(&mut *tx).await?;
        }
        Ok(true)
    }

    fn claim(
        &self,
        row: &PipelineRow,
        standing: &Standing,
        key: TaskKey,
        total: u32,
        number: u64,
        fitting: &Fitting,
    ) -> Claim {
        let Some((workflow_job, build)) = standing.build(key.job) else { unreachable!("asked before") };
        let workflow = standing.reference(key.job).map(|job| job.workflow.clone()).unwrap_or_default();
        let (facts, workflow_index) = (&standing.facts, key.job.workflow);
        let workflow_id = derived(&facts.id, &format!("workflow {workflow_index}"));
        let workspace = derived(&row.workspace_of, &format!("workspace {workflow_index} {workflow}"));
        let job_id = |job: &str| derived(&facts.id, &format!("job {workflow_index} {job}"));
        let upstream_ids: Vec<String> = workflow_job.requires.iter().map(|it| job_id(&it.job)).collect();
        let mut run = run_facts(&facts.git, &facts.id, &workspace, number);
        // The project is the one that it was submitted to: what a repository says of itself is a stranger's word.
        run.project.clone_from(&row.project);
        let task = TaskId::from_uuid(uuid::Uuid::new_v4().into_bytes());
        let build_url = format!("{}/api/v2/pipeline/{}", self.public_url, facts.id);
        let numbers = TaskNumbers {
            run: &run,
            workflow_id: &workflow_id,
            job_id: &job_id(&workflow_job.name),
            job_name: &workflow_job.name,
            node_index: key.node,
            node_total: total,
            working_directory: &build.working_directory,
            upstream_job_ids: &upstream_ids,
            build_url: &build_url,
            user: None,
            internal_task_data: INTERNAL_TASK_DATA,
        };
        let builtin_variables = built_in(&facts.git, &numbers);
        Claim {
            version: claim::VERSION,
            task,
            job_name: workflow_job.name.clone(),
            job: build.clone(),
            node_index: key.node,
            node_total: total,
            attempt: 1,
            limits: Limits::new(fitting.size, JOB_LIMIT),
            trust: row.scope.parse().unwrap_or_else(|_| TrustScope::Fork("unknown".to_owned())),
            run,
            builtin_variables,
            report_to: ReportTo::Processor { address: self.public_url.to_string() },
            may_continue: standing.setup && standing.second.is_none_or(|second| workflow_index < second),
            upstream: upstream(&standing.workflows[workflow_index].workflow.jobs, &workflow_job.name),
        }
    }
}

/// A task that nobody has taken ends without having run. One that was taken meanwhile ends by itself.
pub(super) async fn give_up(tx: &mut AnyConnection, pipeline: &str, task: TaskKey) -> Result<()> {
    let end = TaskEnd::new(Verdict::Canceled { reason: CancelReason::User });
    let update = "UPDATE tasks SET state = 'ended', ended = $1, output = 'complete'
                  WHERE pipeline = $2 AND workflow = $3 AND job = $4 AND node = $5 AND state = 'queued'";
    let key = Key::from(task);
    let query = sqlx::query(update).bind(to_json(&end)).bind(pipeline);
    let query = query.bind(int(key.workflow as u64)).bind(int(key.job as u64)).bind(i64::from(key.node));
    query.execute(tx).await?;
    Ok(())
}

/// Agents hear of it with the next word.
pub(super) async fn cancel_claimed(
    tx: &mut AnyConnection,
    pipeline: &str,
    reason: CancelReason,
    at_once: bool,
) -> Result<()> {
    let update = "UPDATE tasks SET cancel = $1 WHERE pipeline = $2 AND state = 'claimed'";
    sqlx::query(update).bind(to_json(&Canceling { reason, at_once })).bind(pipeline).execute(tx).await?;
    Ok(())
}

/// The key in the first three columns.
pub(crate) fn key(row: &AnyRow) -> Result<Key, sqlx::Error> {
    let number = |column| Ok::<u64, sqlx::Error>(uint(row.try_get(column)?));
    Ok(Key {
        workflow: usize::try_from(number(0)?).unwrap_or(usize::MAX),
        job: usize::try_from(number(1)?).unwrap_or(usize::MAX),
        node: u32::try_from(number(2)?).unwrap_or(u32::MAX),
    })
}

async fn next_job(tx: &mut AnyConnection, project: &str) -> Result<u64> {
    let update = "UPDATE projects SET jobs = jobs + 1 WHERE id = $1 RETURNING jobs";
    Ok(uint(sqlx::query(update).bind(project).fetch_one(tx).await?.try_get(0)?))
}

/// `gh/acme` of `gh/acme/shop`.
fn organization(slug: &str) -> &str {
    slug.rsplit_once('/').map_or(slug, |(organization, _)| organization)
}

/// A UUID that is the same whenever it is asked for.
pub fn derived(pipeline: &str, what: &str) -> String {
    let digest = Sha256::digest(format!("navvy {pipeline} {what}").as_bytes());
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
