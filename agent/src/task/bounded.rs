//! Work of the agent's own, on a blocking thread, that nothing in the job may hold up.
//!
//! The thread itself ends with its connection, which ends with the environment.

use std::time::Duration;

use super::prepare::Ready;
use super::{Stop, Task};
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
        &mut self,
        environment: &DockerEnvironment,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, GivenUp> {
        let mut stop = self.context.stop.clone();
        tokio::select! {
            biased;
            done = tokio::task::spawn_blocking(work) => done.map_err(|_| GivenUp::Panicked),
            died = environment.primary_died() => Err(GivenUp::Died(died)),
            Ok(_) = stop.wait_for(|stop| *stop != Stop::No) => Err(GivenUp::Stopped),
            () = tokio::time::sleep_until(self.deadline().into()) => Err(GivenUp::JobLimit(self.claim.limits.job)),
        }
    }

    /// The same for what needs no thread: the store's affairs.
    pub(super) async fn bounded_future<T>(
        &mut self,
        ready: &Ready,
        work: impl Future<Output = T>,
    ) -> Result<T, GivenUp> {
        let mut stop = self.context.stop.clone();
        tokio::select! {
            biased;
            done = work => Ok(done),
            died = ready.environment.primary_died() => Err(GivenUp::Died(died)),
            Ok(_) = stop.wait_for(|stop| *stop != Stop::No) => Err(GivenUp::Stopped),
            () = tokio::time::sleep_until(self.deadline().into()) => Err(GivenUp::JobLimit(self.claim.limits.job)),
        }
    }
}
