//! Why there is no environment, and whose fault that is.

use std::io;
use std::path::PathBuf;

use navvy_environment::plan::{ContainerPlan, PlanError, Role};
use navvy_environment::run_dir::RunDirError;
use navvy_environment::supervisor_binary::SupervisorError;
use navvy_job::outcome::Blame;
use navvy_journal::JournalError;

use super::super::engine::EngineError;
use super::super::fault;
use super::super::image::{ImageError, PullFaultKind};
use super::super::network::NetworkError;

/// Why there is no environment.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct PrepareError {
    #[source]
    pub(crate) kind: PrepareErrorKind,
    /// Objects that could not be removed again.
    pub leftovers: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum PrepareErrorKind {
    #[error(transparent)]
    Engine(Box<EngineError>),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    #[error(transparent)]
    RunDirectory(#[from] RunDirError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("failed to {doing} container {container} (image {image}): {message}")]
    Container { doing: &'static str, container: String, image: String, message: String, blame: Blame },
    #[error("{0}")]
    NoSpace(String),
    #[error("the CA bundle in {path} cannot be read", path = path.display())]
    Authorities { path: PathBuf, source: io::Error },
    #[error("failed to let the job reach what --allow-host names: {message}")]
    Allow { message: String },
    #[error("the supervisor in image {image} did not answer: {message}")]
    NoAnswer { image: String, message: String },
}

impl From<EngineError> for PrepareErrorKind {
    fn from(error: EngineError) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl PrepareError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match &self.kind {
            PrepareErrorKind::Engine(_) => Blame::Engine,
            PrepareErrorKind::Plan(_) => Blame::Job,
            PrepareErrorKind::Image(error) => blame_image(error),
            PrepareErrorKind::Network(NetworkError::Inspect { disconnected: true, .. }) => Blame::Engine,
            PrepareErrorKind::Container { blame, .. } => *blame,
            PrepareErrorKind::Network(_)
            | PrepareErrorKind::Supervisor(_)
            | PrepareErrorKind::RunDirectory(_)
            | PrepareErrorKind::Journal(_)
            | PrepareErrorKind::Authorities { .. }
            | PrepareErrorKind::Allow { .. }
            | PrepareErrorKind::NoSpace(_)
            | PrepareErrorKind::NoAnswer { .. } => Blame::Infra,
        }
    }
}

fn blame_image(error: &ImageError) -> Blame {
    match error {
        ImageError::Name(_) | ImageError::NotHere { .. } => Blame::Job,
        ImageError::Engine { disconnected: true, .. } => Blame::Engine,
        ImageError::Engine { .. } => Blame::Infra,
        ImageError::Pull { fault, .. } => match fault.kind {
            PullFaultKind::NotFound | PullFaultKind::Denied | PullFaultKind::Architecture => Blame::Job,
            _ => Blame::Infra,
        },
    }
}

/// Why containers could not be started with one kind of entry.
pub(super) enum StartError {
    /// The engine may not see our files: the other kind may do.
    NotShared {
        why: String,
        /// It says so itself, or its container runs and its socket is not ours: later tasks need not try. Anything else
        /// may lie in the image.
        is_certain: bool,
    },
    Final(PrepareErrorKind),
}

impl StartError {
    pub(super) fn unshared(why: String) -> Self {
        Self::NotShared { why, is_certain: true }
    }
}

impl From<PrepareErrorKind> for StartError {
    fn from(kind: PrepareErrorKind) -> Self {
        Self::Final(kind)
    }
}

pub(super) fn container_error(
    doing: &'static str,
    container: &ContainerPlan,
    error: &bollard::errors::Error,
) -> PrepareErrorKind {
    let message = fault::describe(error);
    let blame = match container.role {
        _ if fault::is_disconnect(error) => Blame::Engine,
        Role::Primary if fault::is_images(&message) => Blame::Job,
        // A command that is not there, a user that does not exist.
        Role::Service => Blame::Job,
        Role::Primary => Blame::Infra,
    };
    PrepareErrorKind::Container {
        doing,
        container: container.name.clone(),
        image: container.image.clone(),
        message,
        blame,
    }
}

/// A failure of a primary with our files mounted: most often the engine does not see them.
pub(super) fn not_shared(kind: PrepareErrorKind) -> StartError {
    match kind {
        PrepareErrorKind::Container { blame: Blame::Engine, .. } => StartError::Final(kind),
        other => {
            let why = other.to_string();
            let is_certain = fault::lacks_our_files(&why);
            StartError::NotShared { why, is_certain }
        }
    }
}
