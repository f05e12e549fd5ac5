//! JSON over HTTP, for people and their programs. Types and words: `navvy_protocol::api`.
//!
//! ```text
//! request ─▶ token (admin or viewer) ─▶ one file a subject: pipelines, events and logs, artifacts, … ─▶ JSON, or a stream
//!                                                                   └─ an error: Problem, with the status that HTTP has for it
//! ```

mod artifacts;
#[cfg(test)]
mod attacks;
mod left;
mod openapi;
mod people;
pub(crate) mod pipelines;
mod problem;
#[cfg(test)]
mod recorded;
mod results;
mod routes;
mod secrets;
mod sent;
mod streams;
#[cfg(test)]
mod tests;
mod trees;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{map_request, map_response};
use axum::response::Response;

use navvy_storage::Objects;
use tokio::sync::Semaphore;

use crate::claims::{Claims, SecretSource};
use crate::keep::Keep;
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
    keep: Keep,
    /// A permit for each artifact that is being read.
    reads: Arc<Semaphore>,
    /// A permit for each document of test results.
    documents: Arc<Semaphore>,
}

impl Web {
    /// On these parts.
    pub fn new(claims: Claims, output: Output, secrets: SecretSource, health: Arc<probes::Health>) -> Self {
        let objects = health.objects.clone();
        let (reads, documents) = (Arc::new(Semaphore::new(artifacts::AT_ONCE)), Arc::new(Semaphore::new(1)));
        Self { claims, output, secrets, health, objects, keep: Keep::default(), reads, documents }
    }

    /// With other rules of how long things are kept.
    #[must_use]
    pub fn keeping(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }

    /// All routes.
    pub fn router(self) -> Router {
        let add = |router: Router<Self>, route: routes::Route| router.route(route.path, route.handler);
        routes::routes()
            .into_iter()
            .fold(Router::new(), add)
            .fallback(problem::no_such_path)
            .layer(DefaultBodyLimit::max(MOST_BODY))
            .layer(map_request(no_nul))
            .layer(map_response(no_sniffing))
            .with_state(self)
    }
}

/// No name of ours has one, and PostgreSQL takes none in a text: it would look as if the database did not answer.
async fn no_nul(request: Request) -> Result<Request, Refusal> {
    match request.uri().path_and_query().is_some_and(|path| path.as_str().contains("%00")) {
        true => Err(Refusal::new(StatusCode::BAD_REQUEST, "no name in a URL has a NUL byte (%00)")),
        false => Ok(request),
    }
}

/// Much of what is answered are words of strangers: no browser is to take them for a page.
async fn no_sniffing(mut response: Response) -> Response {
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl axum::extract::FromRef<Web> for Arc<probes::Health> {
    fn from_ref(web: &Web) -> Self {
        Arc::clone(&web.health)
    }
}
