//! Who asks, and what for. Every call of every service goes through one of these functions.

use navvy_job::claim::TrustScope;
use sqlx::Row as _;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::state::{Scope, State, StateError};

/// A task that a token speaks for, as the database knows it. Nothing in it comes from the agent.
#[derive(Debug, Clone)]
pub struct TaskAccess {
    /// The task's id.
    pub task: String,
    /// How often it had been handed out when the token was made.
    pub fence: u64,
    /// Its pipeline's id.
    pub pipeline: String,
    /// Its project's id.
    pub project: String,
    /// Whose caches it may read and write.
    pub scope: TrustScope,
    /// Its workspace's id.
    pub workspace: String,
}

/// The token of a gRPC call.
///
/// # Errors
/// There is none.
pub fn bearer(metadata: &MetadataMap) -> Result<&str, Status> {
    let text = metadata.get("authorization").and_then(|value| value.to_str().ok());
    text.and_then(|text| text.strip_prefix("Bearer "))
        .filter(|text| text.len() <= 256)
        .ok_or_else(|| Status::unauthenticated("this call needs a token: metadata `authorization: Bearer TOKEN`"))
}

/// What a token is good for.
///
/// # Errors
/// It is good for nothing, or the database does not answer.
pub async fn scope(state: &State, token: &str) -> Result<Scope, Status> {
    let scope = state.token(token).await.map_err(|error| failed(&error))?;
    scope.ok_or_else(|| Status::unauthenticated("the token is unknown, was used up, or has ended with what it was for"))
}

/// The task that a call speaks for. A token is dead with its task.
///
/// # Errors
/// The token is for no task, or the task was handed to another agent since, or it has ended.
pub async fn task(state: &State, metadata: &MetadataMap) -> Result<TaskAccess, Status> {
    let (access, stands) = task_with_state(state, metadata).await?;
    match stands.as_str() {
        "claimed" => Ok(access),
        _ => Err(Status::failed_precondition("the task has ended, or waits for another agent: its lease is lost")),
    }
}

/// The same for the report of a task's end, whose answer may have been lost: it may be repeated.
///
/// # Errors
/// The token is for no task, or the task was handed to another agent since.
pub async fn task_or_ended(state: &State, metadata: &MetadataMap) -> Result<(TaskAccess, bool), Status> {
    let (access, stands) = task_with_state(state, metadata).await?;
    Ok((access, stands == "ended"))
}

async fn task_with_state(state: &State, metadata: &MetadataMap) -> Result<(TaskAccess, String), Status> {
    let Scope::Task { task, fence } = scope(state, bearer(metadata)?).await? else {
        return Err(Status::permission_denied("this call needs the token of a task"));
    };
    let select = "SELECT pipeline, project, scope, workspace, handed, state FROM tasks WHERE id = $1";
    let row = sqlx::query(select).bind(&task).fetch_optional(state.pool()).await;
    let read = || -> Result<Option<(TaskAccess, String)>, sqlx::Error> {
        let Some(row) = row? else { return Ok(None) };
        if row.try_get::<i64, _>(4)? != i64::try_from(fence).unwrap_or(i64::MAX) {
            return Ok(None);
        }
        let scope: String = row.try_get(2)?;
        let scope = scope.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let (pipeline, project, workspace) = (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
        let access = TaskAccess { task: task.clone(), fence, pipeline, project, scope, workspace };
        Ok(Some((access, row.try_get(5)?)))
    };
    let access = read().map_err(|error| failed(&StateError::Database(error)))?;
    access.ok_or_else(|| {
        Status::failed_precondition("the task was handed to another agent, or is gone: its lease is lost")
    })
}

/// An error of ours as an agent sees it: it may try again.
pub fn failed(error: &StateError) -> Status {
    if error.is_text() {
        return Status::invalid_argument("a text has a NUL character, which the database does not take");
    }
    crate::figures::ERRORS.count();
    tracing::error!("{}.", navvy_job::chain::chain(error));
    Status::unavailable("the processor's database does not answer; try again")
}
