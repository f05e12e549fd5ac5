//! JSON over HTTP, for people and their programs. Types and words: `navvy_protocol::api`.
//!
//! ```text
//! request ─▶ token (admin or viewer) ─▶ one file a subject: pipelines, events and logs, secrets ─▶ JSON, or a stream
//!                                                                   └─ an error: Problem, with the status that HTTP has for it
//! ```

mod people;
mod pipelines;
mod problem;
mod secrets;
mod streams;
mod trees;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post, put};

use navvy_storage::Objects;

use crate::claims::{Claims, SecretSource};
use crate::output::Output;
use crate::probes;

pub use problem::Refusal;

/// A config of 8 MiB and its orbs.
const MOST_BODY: usize = 32 << 20;

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct Web {
    claims: Claims,
    output: Output,
    secrets: SecretSource,
    health: Arc<probes::Health>,
    objects: Objects,
}

impl Web {
    /// On these parts.
    pub fn new(claims: Claims, output: Output, secrets: SecretSource, health: Arc<probes::Health>) -> Self {
        let objects = health.objects.clone();
        Self { claims, output, secrets, health, objects }
    }

    /// All routes.
    pub fn router(self) -> Router {
        let variable = "/api/v2/context/{name}/environment-variable/{variable}";
        let of_project = "/api/v2/project/{slug}/envvar/{variable}";
        Router::new()
            .route("/api/v2/project/{slug}/pipeline", post(pipelines::submit))
            .route("/api/v2/pipeline", get(pipelines::list))
            .route("/api/v2/pipeline/{id}", get(pipelines::show))
            .route("/api/v2/pipeline/{id}/cancel", post(pipelines::cancel))
            .route("/api/v2/pipeline/{id}/rerun", post(pipelines::rerun))
            .route("/api/v2/pipeline/{id}/approve/{job}", post(pipelines::approve))
            .route("/api/v2/pipeline/{id}/events", get(streams::events))
            .route("/api/v2/task/{id}/logs", get(streams::logs))
            .route("/api/v2/task/{id}/log/{log}", get(streams::log))
            .route("/api/v2/context", get(secrets::contexts))
            .route("/api/v2/context/{name}", delete(secrets::remove_context))
            .route("/api/v2/context/{name}/environment-variable", get(secrets::of_context))
            .route(variable, put(secrets::set_in_context))
            .route(variable, delete(secrets::remove_from_context))
            .route("/api/v2/project/{slug}/envvar", get(secrets::of_project))
            .route(of_project, put(secrets::set_in_project))
            .route(of_project, delete(secrets::remove_from_project))
            // As large as a working tree is; it is streamed into the store.
            .route("/api/v2/tree", post(trees::send).layer(DefaultBodyLimit::disable()))
            .route("/api/v2/project/{slug}/deploy-key", put(secrets::set_deploy_key))
            .route("/api/v2/runner/token/{class}", post(people::new_runner_token))
            .route("/api/v2/runner/token/{class}", delete(people::revoke_runner_tokens))
            .route("/api/v2/task/{id}/launch", post(people::launch_token))
            .route("/healthz", get(probes::alive))
            .route("/readyz", get(probes::ready))
            .route("/metrics", get(probes::metrics))
            .fallback(problem::no_such_path)
            .layer(DefaultBodyLimit::max(MOST_BODY))
            .with_state(self)
    }
}

impl axum::extract::FromRef<Web> for Arc<probes::Health> {
    fn from_ref(web: &Web) -> Self {
        Arc::clone(&web.health)
    }
}
