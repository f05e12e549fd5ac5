//! A connection of agents' port whose first call brings no token of ours is told so before anything of the call's body is read.
//!
//! ```text
//! call ─▶ was this connection known before? ─ yes ─▶ the service, which checks the token of each call
//!            │ no
//!            ▼
//!         is its token one that was ever given out? ─ no ─▶ UNAUTHENTICATED; the body is not read
//!            │ yes
//!            └──▶ known from now on
//! ```
//!
//! A service looks at a token once it has the whole message: without this, strangers could leave messages of many MiB half sent,
//! hundreds on each connection. What a token is good for is not asked here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Request, State as Extract};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::auth;
use crate::state::{State, hash};

/// Whether a connection has brought a token. Clones are of the same one.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<AtomicBool>);

/// Stands before all services of the agents' port.
pub async fn check(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let known = request.extensions().get::<Known>().cloned().unwrap_or_default();
    if !known.0.load(Ordering::Relaxed) {
        if let Err(status) = was_given_out(&state, request.headers()).await {
            return status.into_http();
        }
        known.0.store(true, Ordering::Relaxed);
    }
    next.run(request).await
}

async fn was_given_out(state: &State, headers: &HeaderMap) -> Result<(), Status> {
    let metadata = MetadataMap::from_headers(headers.clone());
    let select = "SELECT 1 FROM tokens WHERE hash = $1";
    let row = sqlx::query(select).bind(hash(auth::bearer(&metadata)?)).fetch_optional(state.pool()).await;
    match row.map_err(|error| auth::failed(&error.into()))? {
        Some(_) => Ok(()),
        None => Err(Status::unauthenticated("the token is unknown, or was revoked")),
    }
}
