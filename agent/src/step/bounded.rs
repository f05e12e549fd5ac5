//! Work of the agent's own that nothing in the job may hold up: what ends the waiting for it.
//!
//! A thread that still works then ends with its connection, which ends with the environment.

use std::future::Future;
use std::time::Duration;

use navvy_environment::request::Died;
use navvy_job::outcome::Cancel;
use navvy_protocol::supervisor::ABANDONED;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::environment::Environment;

/// What the engine says of a main process that SIGKILL ended.
const KILLED: i64 = 137;

/// What it says of a supervisor that this process has not called for too long.
const LEFT_ALONE: i64 = ABANDONED as i64;

/// The end of an environment breaks its connections first, and is heard of from the engine behind that.
const END_HEARD_WITHIN: Duration = Duration::from_secs(5);

/// The wish to stop, as those hear it who obey it.
pub type Stop = watch::Receiver<Option<Cancel>>;

/// Why it was not waited for any longer.
#[derive(Debug)]
pub enum GivenUp {
    Stopped,
    JobLimit(Duration),
    Died(Died),
    /// A bug of ours.
    Panicked,
}

/// What is gone, so that no further step can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The primary container ended: the job's own doing.
    Container,
    /// The supervisor, or the engine: ours or the machine's.
    Supervisor,
}

/// What a task's work waits for no longer than.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    pub environment: &'a Environment,
    pub stop: &'a Stop,
    /// When the job's time is over.
    pub deadline: Instant,
    /// The job's time.
    pub limit: Duration,
}

impl Bounds<'_> {
    /// Waits for `work` until it is done, the task is stopped, the job's time is over or the environment is gone; then `work`
    /// is dropped.
    pub async fn while_sensible<T>(self, work: impl Future<Output = T>) -> Result<T, GivenUp> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            done = work => Ok(done),
            died = self.environment.died() => Err(GivenUp::Died(died)),
            Ok(_) = stop.wait_for(Option::is_some) => Err(GivenUp::Stopped),
            () = tokio::time::sleep_until(self.deadline) => Err(GivenUp::JobLimit(self.limit)),
        }
    }

    /// The same for work on a blocking thread.
    pub async fn bounded<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, GivenUp> {
        let done = self.while_sensible(tokio::task::spawn_blocking(work)).await?;
        done.map_err(|_| GivenUp::Panicked)
    }

    /// Why the supervisor was lost, where that is the end of its environment.
    pub async fn end_behind_loss(self) -> Option<Died> {
        self.while_sensible(tokio::time::sleep(END_HEARD_WITHIN)).await.err().and_then(|why| match why {
            GivenUp::Died(died) => Some(died),
            _ => None,
        })
    }
}

/// What the end of the primary container means for the steps behind.
pub fn lost_with(died: &Died) -> Lost {
    match died {
        // No process of the job can kill the main process of its pid namespace, nor keep us from calling it.
        Died::Exited { code: KILLED | LEFT_ALONE, out_of_memory: false, .. } => Lost::Supervisor,
        Died::Exited { .. } | Died::DiskFloor { .. } | Died::MachineEnded { from_inside: true, .. } => Lost::Container,
        Died::EngineLost { .. } | Died::MachineEnded { from_inside: false, .. } => Lost::Supervisor,
    }
}

/// The end of the primary container, for a person.
pub fn in_words(died: &Died, when: &str) -> String {
    match died {
        Died::Exited { code: LEFT_ALONE, .. } => {
            format!(
                "the environment ended by itself {when}: Navvy had not called it for minutes, as if it were stopped"
            )
        }
        Died::Exited { code, out_of_memory, last_words } => {
            let why = if *out_of_memory { " (the kernel killed it for want of memory)" } else { "" };
            let words = last_words.trim();
            let said = if words.is_empty() { String::new() } else { format!("; its last words: {words}") };
            format!("the primary container ended with code {code}{why} {when}{said}")
        }
        Died::MachineEnded { message, .. } => format!("the job's virtual machine ended {when}: {message}"),
        Died::DiskFloor { message } => format!("the job was ended {when}: {message}"),
        Died::EngineLost { message } => format!("the Docker engine was lost {when}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i64) -> Died {
        Died::Exited { code, out_of_memory: false, last_words: String::new() }
    }

    #[test]
    fn an_environment_that_was_left_alone_is_no_fault_of_the_job() {
        assert_eq!(lost_with(&exited(i64::from(ABANDONED))), Lost::Supervisor);
        assert_eq!(lost_with(&exited(0)), Lost::Container);
        let words = in_words(&exited(i64::from(ABANDONED)), "while the step ran");
        assert!(words.contains("by itself while the step ran: Navvy had not called it"), "{words}");
    }
}
