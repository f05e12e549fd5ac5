//! A try whether jobs can run here at all: an environment of an image that holds nothing but the supervisor.
//!
//! ```text
//! supervisor's binary ─▶ import ─▶ navvy-trial:TASK ─▶ prepare ─▶ it answers ─▶ one exec ─▶ all of it is removed
//! ```
//!
//! It goes the way of any job, so whatever would fail a job's start fails it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::body_full;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::TryStreamExt as _;
use navvy_environment::HostPaths;
use navvy_environment::request::{Prepare, PrepareEvent};
use navvy_environment::supervisor::{Client, Connect};
use navvy_environment::supervisor_binary::{self, NAME};
use navvy_environment::survey::now;
use navvy_job::chain::chain;
use navvy_protocol::supervisor::{Exec, Exit, Terminal};

use super::engine::{BollardError, Engine};
use super::upload;

/// For everything that was made.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);
/// A trial takes seconds.
const OLD_S: i64 = 600;
/// Repository of the image, which is local and short-lived.
const REPOSITORY: &str = "navvy-trial";

/// What a job's start would have failed with.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// No image could be made of the supervisor.
    #[error("failed to import an image that holds the supervisor alone: {0}")]
    Import(String),
    /// No environment could be made of it.
    #[error("failed to start a container with the supervisor: {0}")]
    Prepare(String),
    /// The supervisor answers, and starts nothing.
    #[error("the supervisor's container runs, and nothing can be started in it: {0}")]
    Exec(String),
    /// Something of it is still there.
    #[error("what was tried could not be removed: {0}")]
    Left(String),
}

impl Engine {
    /// The name of the image for a trial.
    pub fn trial_image(task: &navvy_job::id::TaskId) -> String {
        format!("{REPOSITORY}:{task}")
    }

    /// Tries it with this request, whose one container has the image [`Self::trial_image`]. Nothing is left, or it says what.
    ///
    /// # Errors
    /// What did not work.
    pub async fn trial(&self, request: Prepare, host: &HostPaths) -> Result<(), TrialError> {
        let task = request.task.clone();
        self.remove_old_trials().await;
        let tried = match self.import_supervisor(&task, host).await {
            Ok(()) => self.tried(request, host).await,
            Err(error) => Err(error),
        };
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        let removed = self.docker().remove_image(&Self::trial_image(&task), Some(options), None).await;
        match removed {
            Err(error) if !super::fault::is_missing(&error) => {
                tried.and(Err(TrialError::Left(format!("image {REPOSITORY}:{task} ({})", BollardError::from(error)))))
            }
            _ => tried,
        }
    }

    /// Images of trials that were killed. Trouble with them is no answer to the question.
    async fn remove_old_trials(&self) {
        let filters = HashMap::from([("reference".to_owned(), vec![REPOSITORY.to_owned()])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let images = self.docker().list_images(Some(options)).await.unwrap_or_default();
        let now = i64::try_from(now()).unwrap_or(i64::MAX);
        let old = images.into_iter().filter(|image| now.saturating_sub(image.created) > OLD_S);
        for name in old.flat_map(|image| image.repo_tags).filter(|name| name.starts_with(&format!("{REPOSITORY}:"))) {
            let options = RemoveImageOptionsBuilder::new().force(true).build();
            self.docker().remove_image(&name, Some(options), None).await.ok();
        }
    }

    async fn import_supervisor(&self, task: &navvy_job::id::TaskId, host: &HostPaths) -> Result<(), TrialError> {
        let archive = || -> Result<Vec<u8>, String> {
            let binary = supervisor_binary::find(host.supervisor.as_deref()).map_err(|error| chain(&error))?;
            let bytes = supervisor_binary::read_static(Path::new(&binary)).map_err(|error| chain(&error))?;
            upload::one_program(&format!("/{NAME}"), &bytes).map_err(|error| error.to_string())
        };
        let archive = archive().map_err(TrialError::Import)?;
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(REPOSITORY).tag(task.as_str()).build();
        let messages = self.docker().create_image(Some(options), Some(body_full(archive.into())), None);
        let imported = messages.try_for_each(|_| std::future::ready(Ok(()))).await;
        imported.map_err(|error| TrialError::Import(BollardError::from(error).to_string()))
    }

    async fn tried(&self, request: Prepare, host: &HostPaths) -> Result<(), TrialError> {
        let unheard = |_: PrepareEvent| {};
        let prepared = self.prepare(request, host, &unheard).await;
        let environment = prepared.map_err(|error| TrialError::Prepare(chain(&error)))?;
        let link = environment.link();
        let ran = tokio::task::spawn_blocking(move || run(link)).await;
        let ran = ran.unwrap_or_else(|error| Err(error.to_string())).map_err(TrialError::Exec);
        match environment.destroy(REMOVAL_LIMIT).await {
            left if left.is_empty() => ran,
            left => ran.and(Err(TrialError::Left(left.join(", ")))),
        }
    }
}

/// Starts the only program that there is.
fn run(link: Arc<dyn Connect>) -> Result<(), String> {
    let exec = Exec {
        id: "trial".to_owned(),
        argv: vec![format!("/{NAME}"), "--version".to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: None,
        terminal: Terminal::Pipes,
        input: false,
        watch_memory: false,
    };
    let session = Client::new(link).session(exec).map_err(|error| chain(&error))?;
    let exited = session.run(|_, _| Ok(())).map_err(|error| chain(&error))?;
    match exited.exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => Err(format!("it exited with {code}")),
        Exit::Signal(signal) => Err(format!("it was ended by signal {signal}")),
    }
}
