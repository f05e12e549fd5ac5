//! Steps that the agent carries out itself: what they say, and how long they are waited for.

use std::future::Future;

use navvy_job::event::{Event, TaskRef};
use navvy_job::outcome::StepOutcome;
use navvy_output::{LogDigest, StepLog, mask};
use navvy_protocol::supervisor::FailureKind;
use navvy_storage::Store;

use super::attempt::{Attempted, Place};
use super::bounded::GivenUp;
use super::decide::Lost;
use super::{Stop, Task};
use crate::bus::Bus;
use crate::environment::docker::DockerEnvironment;

/// A step's output, line by line, masked: into its log and to the views.
pub(super) struct Told {
    bus: Bus,
    task: TaskRef,
    step: usize,
    log: StepLog,
}

impl Told {
    pub fn line(&mut self, line: &str) {
        let place = || mask::Place::of_job(&self.task.job.job, format!("output of step {}", self.step));
        let bytes = format!("{}\n", self.bus.masks().text(place, line)).into_bytes();
        if let Err(error) = self.log.append_now(&bytes) {
            tracing::warn!(%error, "A line of the agent's own could not be written to a step's log.");
        }
        let (task, stream) = (self.task.clone(), "stdout".to_owned());
        self.bus.send(Event::Output { task, step: self.step, stream, bytes });
    }

    pub fn digest(&self) -> LogDigest {
        self.log.digest()
    }
}

/// Why a step came to nothing.
#[derive(Debug)]
pub(super) struct Trouble {
    pub reason: String,
    /// The supervisor, if it was not the job's affair.
    pub lost: Option<Lost>,
    /// What the supervisor called it.
    pub kind: Option<FailureKind>,
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self { reason, lost: None, kind: None }
    }
}

impl Task {
    /// Tells of the step's start and makes its log.
    pub(super) fn begin_own(&self, place: Place<'_>) -> Result<Told, Box<Attempted>> {
        let path = StepLog::path_for(&self.context.directory, place.number, place.attempt);
        self.context.bus.send(Event::StepStarted {
            task: self.reference.clone(),
            step: place.number,
            attempt: place.attempt,
            name: place.step.name.clone(),
            kind: place.step.kind.key().to_owned(),
            background: false,
            header: None,
            log: path.clone(),
        });
        match StepLog::create(&self.context.directory, place.number, place.attempt) {
            Ok(log) => {
                Ok(Told { bus: self.context.bus.clone(), task: self.reference.clone(), step: place.number, log })
            }
            Err(error) => {
                Err(Box::new(Attempted::not_started(path, format!("the step's log could not be made: {error}"))))
            }
        }
    }

    /// The same for a step that needs the store.
    pub(super) fn begin_stored(&self, place: Place<'_>) -> Result<(Told, Store), Box<Attempted>> {
        let told = self.begin_own(place)?;
        match self.store() {
            Ok(store) => Ok((told, store)),
            Err(why) => Err(Box::new(self.own_ended(place, &told, Ok(Err(Trouble::from(why)))))),
        }
    }

    pub(super) fn own_ended(
        &self,
        place: Place<'_>,
        told: &Told,
        end: Result<Result<(), Trouble>, GivenUp>,
    ) -> Attempted {
        let path = StepLog::path_for(&self.context.directory, place.number, place.attempt);
        match end {
            Ok(Ok(())) => Attempted::failed(path, told.digest(), StepOutcome::Success, None),
            Ok(Err(Trouble { reason, lost, .. })) => {
                Attempted::failed(path, told.digest(), StepOutcome::Error { reason }, lost)
            }
            Err(why) => Attempted::given_up(path, told.digest(), why),
        }
    }

    /// Waits for `work` as long as there is any sense in it; then it is dropped.
    pub(super) async fn while_sensible<T>(
        &self,
        environment: &DockerEnvironment,
        work: impl Future<Output = T>,
    ) -> Result<T, GivenUp> {
        let mut stop = self.context.stop.clone();
        tokio::select! {
            biased;
            done = work => Ok(done),
            died = environment.primary_died() => Err(GivenUp::Died(died)),
            Ok(_) = stop.wait_for(|stop| *stop != Stop::No) => Err(GivenUp::Stopped),
            () = tokio::time::sleep_until(self.deadline().into()) => Err(GivenUp::JobLimit(self.claim.limits.job)),
        }
    }
}
