//! Contexts and project variables: their names are shown, their values never.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use navvy_protocol::api::{DeployKey, Message, Named, Page, Value};
use sqlx::Row as _;

use super::people::{Admin, Viewer};
use super::sent::Sent;
use super::{Refusal, Web};
use crate::audit::Entry;
use crate::claims::{context_owner, keys_owner, project_owner};
use crate::conduct::rfc3339;

/// As jobs' environments take them.
fn check_name(name: &str) -> Result<(), Refusal> {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    match first && name.len() <= 300 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        true => Ok(()),
        false => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("{name:?} is no name of a variable"))
            .hint("Letters, digits and underscores make one; it does not begin with a digit.")),
    }
}

fn check_context(name: &str) -> Result<(), Refusal> {
    match !name.is_empty() && name.len() <= 200 && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("{name:?} is no name of a context"))),
    }
}

/// `GET /api/v2/context`
pub async fn contexts(_: Viewer, State(web): State<Web>) -> Result<Json<Page<Named>>, Refusal> {
    let mut connection = web.claims.conductor().state().pool().acquire().await?;
    let owners = web.secrets.owners(&mut connection, "context:").await?;
    Ok(page(owners))
}

/// `GET /api/v2/context/{name}/environment-variable`
pub async fn of_context(
    _: Viewer,
    State(web): State<Web>,
    Path(name): Path<String>,
) -> Result<Json<Page<Named>>, Refusal> {
    list(&web, &context_owner(&name), || format!("there is no context {name:?}, or nothing is in it")).await
}

/// `PUT /api/v2/context/{name}/environment-variable/{variable}`
pub async fn set_in_context(
    by: Admin,
    State(web): State<Web>,
    Path((name, variable)): Path<(String, String)>,
    Sent(value): Sent<Value>,
) -> Result<Json<Message>, Refusal> {
    check_context(&name)?;
    set(&web, &by, &context_owner(&name), &variable, &value).await
}

/// `DELETE /api/v2/context/{name}/environment-variable/{variable}`
pub async fn remove_from_context(
    by: Admin,
    State(web): State<Web>,
    Path((name, variable)): Path<(String, String)>,
) -> Result<Json<Message>, Refusal> {
    remove(&web, &by, &context_owner(&name), &variable).await
}

/// `DELETE /api/v2/context/{name}`: with all that is in it.
pub async fn remove_context(
    by: Admin,
    State(web): State<Web>,
    Path(name): Path<String>,
) -> Result<Json<Message>, Refusal> {
    let owner = context_owner(&name);
    let mut tx = web.claims.conductor().state().pool().begin().await?;
    let variables = web.secrets.names(&mut tx, &owner).await?;
    for (variable, _) in &variables {
        web.secrets.remove(&mut tx, &owner, variable).await?;
    }
    Entry::new("context.remove", &by.actor, "context", &name).write(&mut tx).await?;
    tx.commit().await?;
    match variables.is_empty() {
        true => Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no context {name:?}"))),
        false => {
            Ok(Json(Message { message: format!("context {name} was removed, with {} variables", variables.len()) }))
        }
    }
}

/// `GET /api/v2/project/{slug}/envvar`
pub async fn of_project(
    _: Viewer,
    State(web): State<Web>,
    Path(slug): Path<String>,
) -> Result<Json<Page<Named>>, Refusal> {
    let owner = project(&web, &slug).await?;
    list(&web, &owner, || format!("project {slug} has no variables")).await
}

/// `PUT /api/v2/project/{slug}/envvar/{variable}`
pub async fn set_in_project(
    by: Admin,
    State(web): State<Web>,
    Path((slug, variable)): Path<(String, String)>,
    Sent(value): Sent<Value>,
) -> Result<Json<Message>, Refusal> {
    let owner = project(&web, &slug).await?;
    set(&web, &by, &owner, &variable, &value).await
}

/// `DELETE /api/v2/project/{slug}/envvar/{variable}`
pub async fn remove_from_project(
    by: Admin,
    State(web): State<Web>,
    Path((slug, variable)): Path<(String, String)>,
) -> Result<Json<Message>, Refusal> {
    let owner = project(&web, &slug).await?;
    remove(&web, &by, &owner, &variable).await
}

/// `PUT /api/v2/project/{slug}/deploy-key`: one of the same fingerprint is replaced.
pub async fn set_deploy_key(
    by: Admin,
    State(web): State<Web>,
    Path(slug): Path<String>,
    Sent(key): Sent<DeployKey>,
) -> Result<Json<Message>, Refusal> {
    let owner = keys_owner(&project_id(&web, &slug).await?);
    if !key.sha256.starts_with("SHA256:") || key.sha256.len() > 100 || key.sha256.chars().any(char::is_control) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the key's fingerprint is none: SHA256:…"));
    }
    let json = serde_json::json!({"host": key.host, "text": key.text, "md5": key.md5, "sha256": key.sha256});
    let mut tx = web.claims.conductor().state().pool().begin().await?;
    web.secrets.set(&mut tx, &owner, &key.sha256, &json.to_string()).await?;
    Entry::new("project.deploy_key.store", &by.actor, "key", &key.sha256).in_project(&owner).write(&mut tx).await?;
    tx.commit().await?;
    Ok(Json(Message { message: format!("key {} is kept", key.sha256) }))
}

async fn project(web: &Web, slug: &str) -> Result<String, Refusal> {
    Ok(project_owner(&project_id(web, slug).await?))
}

async fn project_id(web: &Web, slug: &str) -> Result<String, Refusal> {
    let query = sqlx::query("SELECT id FROM projects WHERE slug = $1").bind(slug);
    let row = query.fetch_optional(web.claims.conductor().state().pool()).await?;
    let row = row.ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, format!("there is no project {slug:?}"))
            .hint("A project comes into being with its first pipeline.")
    })?;
    Ok(row.try_get(0)?)
}

fn note(action: &'static str, by: &Admin, owner: &str, variable: &str) -> Entry {
    Entry::new(action, &by.actor, "variable", variable).with(serde_json::json!({"owner": owner}))
}

async fn list(web: &Web, owner: &str, none: impl Fn() -> String) -> Result<Json<Page<Named>>, Refusal> {
    let mut connection = web.claims.conductor().state().pool().acquire().await?;
    let names = web.secrets.names(&mut connection, owner).await?;
    match names.is_empty() {
        true => Err(Refusal::new(StatusCode::NOT_FOUND, none())),
        false => Ok(page(names)),
    }
}

fn page(names: Vec<(String, i64)>) -> Json<Page<Named>> {
    let items = names.into_iter().map(|(name, at)| Named { name, created_at: rfc3339(at) }).collect();
    Json(Page { items, next_page_token: None })
}

async fn set(web: &Web, by: &Admin, owner: &str, variable: &str, value: &Value) -> Result<Json<Message>, Refusal> {
    check_name(variable)?;
    let mut tx = web.claims.conductor().state().pool().begin().await?;
    web.secrets.set(&mut tx, owner, variable, &value.value).await?;
    note("env_var.store", by, owner, variable).write(&mut tx).await?;
    tx.commit().await?;
    Ok(Json(Message { message: format!("{variable} is set") }))
}

async fn remove(web: &Web, by: &Admin, owner: &str, variable: &str) -> Result<Json<Message>, Refusal> {
    let mut tx = web.claims.conductor().state().pool().begin().await?;
    let was_there = web.secrets.remove(&mut tx, owner, variable).await?;
    note("env_var.remove", by, owner, variable).write(&mut tx).await?;
    tx.commit().await?;
    match was_there {
        true => Ok(Json(Message { message: format!("{variable} was removed") })),
        false => Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no variable {variable:?}"))),
    }
}
