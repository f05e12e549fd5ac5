//! Work of the agent's own, on a blocking thread, that nothing in the job may hold up.
//!
//! The thread itself ends with its connection, which ends with the environment.

use std::time::Duration;

use super::Task;
use crate::environment::docker::{Died, DockerEnvironment};

/// Why it was not waited for any longer.
#[derive(Debug)]
pub(super) enum GivenUp {
    Stopped,
    JobLimit(Duration),
    Died(Died),
    /// A bug of ours.
    Panicked,
}

impl Task {
    /// Waits for `work` as long as there is any sense in it.
    pub(super) async fn bounded<T: Send + 'static>(
        &self,
        environment: &DockerEnvironment,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, GivenUp> {
        let done = self.while_sensible(environment, tokio::task::spawn_blocking(work)).await?;
        done.map_err(|_| GivenUp::Panicked)
    }
}
