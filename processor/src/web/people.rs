//! Who may do what; and tokens for agents.

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use navvy_protocol::api::Message;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Refusal, Web};
use crate::audit::Entry;
use crate::claims::is_task;
use crate::state::Scope;

/// Somebody who may change things.
pub struct Admin {
    /// The token's name, for the audit log.
    pub actor: String,
}

/// Somebody who may look: an admin may, too.
pub struct Viewer;

impl FromRequestParts<Web> for Admin {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Refusal> {
        match scope(parts, web).await? {
            (Scope::Admin, actor) => Ok(Self { actor }),
            _ => Err(Refusal::new(StatusCode::FORBIDDEN, "this token may not change anything")
                .hint("An admin's token is needed.")),
        }
    }
}

impl FromRequestParts<Web> for Viewer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Refusal> {
        match scope(parts, web).await? {
            (Scope::Admin | Scope::Viewer, _) => Ok(Self),
            _ => Err(Refusal::new(StatusCode::FORBIDDEN, "this token is an agent's")
                .hint("An admin's or a viewer's token is needed.")),
        }
    }
}

async fn scope(parts: &Parts, web: &Web) -> Result<(Scope, String), Refusal> {
    let hint = "`navvy login URL` keeps one; the processor prints the first one when it starts for the first time.";
    let text = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let token = text.and_then(|text| text.strip_prefix("Bearer ")).filter(|text| text.len() <= 256);
    let Some(token) = token else {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "this request has no token").hint(hint));
    };
    let scope = web.claims.conductor().state().named_token(token).await?;
    scope.ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, "this token is unknown, or was revoked").hint(hint))
}

/// Writes a line of the audit log.
pub(super) async fn note(web: &Web, entry: &Entry) -> Result<(), Refusal> {
    let mut connection = web.claims.conductor().state().pool().acquire().await?;
    Ok(entry.write(&mut connection).await?)
}

/// A token, shown once.
#[derive(Serialize, ToSchema)]
pub struct NewToken {
    /// It is kept nowhere.
    token: String,
}

/// A token with which runners take tasks of a class; `*`: of any.
pub async fn new_runner_token(
    by: Admin,
    State(web): State<Web>,
    Path(class): Path<String>,
) -> Result<Json<NewToken>, Refusal> {
    if class.is_empty() || class.len() > 200 || class.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("{class:?} is no resource class")));
    }
    let token = web.claims.conductor().state().new_token(&Scope::Class(class.clone()), "runner").await?;
    note(&web, &Entry::new("runner.token.create", &by.actor, "class", &class)).await?;
    Ok(Json(NewToken { token }))
}

/// Ends all tokens of a class.
pub async fn revoke_runner_tokens(
    by: Admin,
    State(web): State<Web>,
    Path(class): Path<String>,
) -> Result<Json<Message>, Refusal> {
    note(&web, &Entry::new("runner.token.revoke", &by.actor, "class", &class)).await?;
    let revoked = web.claims.conductor().state().revoke(&Scope::Class(class.clone())).await?;
    match revoked {
        0 => Err(Refusal::new(StatusCode::NOT_FOUND, format!("class {class} has no token"))),
        count => Ok(Json(Message { message: format!("{count} tokens of class {class} were revoked") })),
    }
}

/// A token with which an agent that is started for it takes this task.
pub async fn launch_token(
    by: Admin,
    State(web): State<Web>,
    Path(task): Path<String>,
) -> Result<Json<NewToken>, Refusal> {
    if !is_task(&task) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("{task:?} is no task's id")));
    }
    note(&web, &Entry::new("task.launch", &by.actor, "task", &task)).await?;
    Ok(Json(NewToken { token: web.claims.launch_token(&task).await? }))
}
