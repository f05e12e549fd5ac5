//! Steps that the agent carries out itself: what they write, and why they fail.

use std::io;
use std::path::Path;

use navvy_environment::supervisor::ClientError;
use navvy_job::chain::chain;
use navvy_job::event::Event;
use navvy_output::{DiskFloorReached, LogDigest, StepLog, mask};
use navvy_protocol::supervisor::FailureKind;
use navvy_storage::StorageError;

use super::bounded::{GivenUp, Lost};
use super::voice::{StepRef, Voice};
use crate::run_store::RunStoreError;

/// A step's output, line by line, masked: into its log and to the views.
pub struct StepOutput {
    voice: Voice,
    /// The step, from 1.
    pub number: usize,
    pub attempt: u32,
    log: StepLog,
}

impl StepOutput {
    /// `directory`: of the task's logs.
    pub fn create(voice: &Voice, directory: &Path, at: &StepRef) -> io::Result<Self> {
        let log = StepLog::create(directory, at.number, at.attempt)?;
        Ok(Self { voice: voice.clone(), number: at.number, attempt: at.attempt, log })
    }

    pub fn line(&mut self, line: &str) {
        let Voice { bus, task, .. } = &self.voice;
        let place = || mask::MaskedIn::of_job(&task.job.job, format!("output of step {}", self.number));
        let bytes = format!("{}\n", bus.masks().text(place, line)).into_bytes();
        match self.log.append_now(&bytes) {
            Ok(()) => self.voice.spool.appended(bytes.len()),
            Err(error) => tracing::warn!(%error, "A line of the agent's own could not be written to a step's log."),
        }
        bus.send(Event::Output { task: task.clone(), step: self.number, stream: "stdout".to_owned(), bytes });
    }

    pub fn digest(&self) -> LogDigest {
        self.log.digest()
    }
}

/// Why a step failed.
#[derive(Debug)]
pub struct StepFault {
    pub reason: String,
    /// The supervisor, if it was not the job's affair.
    pub lost: Option<Lost>,
    /// What the supervisor called it.
    pub kind: Option<FailureKind>,
}

impl StepFault {
    /// A bug of ours.
    pub fn thread_ended() -> Self {
        Self::from("a thread of the agent ended unexpectedly".to_owned())
    }

    /// Why the supervisor did not do what a step needed; `what` stands before it.
    pub fn of_client(what: &str, error: &ClientError) -> Self {
        let lost = error.failure().is_none().then_some(Lost::Supervisor);
        Self { reason: format!("{what}{}", chain(error)), lost, kind: error.failure().map(|failure| failure.kind) }
    }
}

impl From<String> for StepFault {
    fn from(reason: String) -> Self {
        Self { reason, lost: None, kind: None }
    }
}

impl From<StorageError> for StepFault {
    fn from(error: StorageError) -> Self {
        Self::from(chain(&error))
    }
}

/// Why a step of the agent's own has not done its work.
#[derive(Debug)]
pub enum StepError {
    Fault(StepFault),
    GivenUp(GivenUp),
}

impl From<StepFault> for StepError {
    fn from(fault: StepFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<GivenUp> for StepError {
    fn from(why: GivenUp) -> Self {
        Self::GivenUp(why)
    }
}

impl From<RunStoreError> for StepError {
    fn from(error: RunStoreError) -> Self {
        Self::from(chain(&error))
    }
}

impl From<String> for StepError {
    fn from(reason: String) -> Self {
        Self::Fault(StepFault::from(reason))
    }
}

/// Why a log takes no more, with advice.
pub fn log_trouble(error: &io::Error) -> String {
    if let Some(reached) = DiskFloorReached::of(error) {
        return reached.to_string();
    }
    if error.raw_os_error() == Some(libc::ENOSPC) || error.kind() == io::ErrorKind::StorageFull {
        return "the step's log could not be written: no space is left on the disk of the logs. What was written \
                before is whole. Free some space, or name another place with XDG_STATE_HOME"
            .to_owned();
    }
    format!("the step's log could not be written: {error}")
}
