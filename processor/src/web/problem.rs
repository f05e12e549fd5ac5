//! Errors as HTTP has them.

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use navvy_job::chain::chain;
use navvy_protocol::api::Problem;

use crate::claims::ClaimError;
use crate::conduct::ConductError;
use crate::conduct::compile::CompileError;
use crate::output::OutputError;
use crate::state::StateError;

/// PostgreSQL says so itself where it comes to that.
const NUL: &str = "a text has a NUL character, which the database does not take";

/// Why a request was not carried out.
#[derive(Debug)]
pub struct Refusal {
    /// The status that HTTP has for it.
    pub status: StatusCode,
    /// In words.
    pub problem: Problem,
}

impl Refusal {
    /// With this message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, problem: Problem { message: message.into(), hint: None, diagnostics: None } }
    }

    /// And what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.problem)).into_response()
    }
}

impl From<StateError> for Refusal {
    fn from(error: StateError) -> Self {
        if error.is_text() {
            return Self::new(StatusCode::BAD_REQUEST, NUL);
        }
        tracing::error!("{}.", chain(&error));
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the processor's database does not answer")
            .hint("Try again; the processor's log says more.")
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        StateError::from(error).into()
    }
}

impl From<ConductError> for Refusal {
    fn from(error: ConductError) -> Self {
        match error {
            ConductError::State(error) => error.into(),
            ConductError::Compile(CompileError::Diagnostics { rendered }) => {
                let mut refusal =
                    Self::new(StatusCode::UNPROCESSABLE_ENTITY, "the config has mistakes; nothing was run");
                refusal.problem.diagnostics = Some(rendered);
                refusal
            }
            ConductError::Compile(error) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, chain(&error)),
            ConductError::NoPipeline(_) | ConductError::NoApproval { .. } => {
                Self::new(StatusCode::NOT_FOUND, error.to_string())
            }
            ConductError::WhichApproval { .. } => {
                Self::new(StatusCode::CONFLICT, error.to_string()).hint("Name it with its workflow: WORKFLOW/JOB.")
            }
            ConductError::Over(..) => Self::new(StatusCode::CONFLICT, error.to_string()),
            ConductError::Bug(_) => {
                tracing::error!("{error}.");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
                    .hint("Please report it with the config, if it may be shown.")
            }
            ConductError::Slug(_) => Self::new(StatusCode::BAD_REQUEST, error.to_string()),
        }
    }
}

impl From<OutputError> for Refusal {
    fn from(error: OutputError) -> Self {
        if error.is_passing() {
            tracing::error!("{}.", chain(&error));
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "the processor's database or store does not answer")
                .hint("Try again; the processor's log says more.");
        }
        let status = match error {
            OutputError::NoTask { .. } | OutputError::NoLog { .. } => StatusCode::NOT_FOUND,
            OutputError::Beyond { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            OutputError::Form(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ClaimError> for Refusal {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::State(error) => error.into(),
            ClaimError::Conduct(error) => error.into(),
            ClaimError::Lost(_) | ClaimError::Sent { .. } => Self::new(StatusCode::CONFLICT, error.to_string()),
            ClaimError::Secrets(_) => {
                tracing::error!("{}.", chain(&error));
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the processor cannot read its secrets")
                    .hint("The processor's log says which key is missing.")
            }
        }
    }
}

/// For every other path.
pub async fn no_such_path(request: Request) -> Refusal {
    let (method, path) = (request.method(), request.uri().path());
    let path: String = path.chars().take(200).collect();
    Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {method} {path}"))
}
