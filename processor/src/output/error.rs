//! What can go wrong with output. No text of it holds a URL or a token.

use tonic::Status;

use navvy_protocol::processor::FormError;

use super::store::StoreError;
use crate::state::{SegmentsError, StateError};

/// Why output was not taken, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// What came is not of the form that `agents.proto` says.
    #[error(transparent)]
    Form(#[from] FormError),
    /// A segment was to be entered into the index, and is not in the store.
    #[error(
        "bytes {start} to {end} of log {log} are not in the store as they should be: the object has {} instead of {stored} \
         bytes; put it there and commit it again",
        found.map_or_else(|| "no".to_owned(), |found| found.to_string())
    )]
    NotStored {
        /// The log.
        log: String,
        /// Offset of the segment's first byte.
        start: u64,
        /// Offset behind its last byte.
        end: u64,
        /// The object's length, as the agent said.
        stored: u64,
        /// The object's length; `None`: there is no such object.
        found: Option<u64>,
    },
    /// The index does not take it.
    #[error(transparent)]
    Index(#[from] SegmentsError),
    /// There is no such task.
    #[error("there is no task {task}")]
    NoTask {
        /// Its id, as it was asked for.
        task: String,
    },
    /// There is no such log.
    #[error("task {task} has no log {log}: it wrote none, or its logs were removed by age")]
    NoLog {
        /// The task.
        task: String,
        /// The log.
        log: String,
    },
    /// The log is shorter than the offset that was asked for.
    #[error("log {log} has {bytes} bytes: there is nothing at byte {offset}")]
    Beyond {
        /// The log.
        log: String,
        /// Where reading was to begin.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
    /// The task has ended, and bytes of the log never came.
    #[error(
        "log {log} is incomplete: {}",
        match to {
            Some(to) => format!("bytes {from} to {to} were never stored"),
            None => format!("its agent was lost, and what it wrote from byte {from} on was never stored"),
        }
    )]
    Missing {
        /// The log.
        log: String,
        /// The first byte that is missing.
        from: u64,
        /// The log's length, if its agent has told it.
        to: Option<u64>,
    },
    /// What is in the store is not what was committed.
    #[error("bytes {start} to {end} of log {log} are not what was stored: {why}")]
    Damaged {
        /// The log.
        log: String,
        /// Offset of the segment's first byte.
        start: u64,
        /// Offset behind its last byte.
        end: u64,
        /// What differs.
        why: &'static str,
    },
    /// The task was handed out again before any of its steps had begun, and its logs began anew.
    #[error("the task was given to another agent, and log {log} begins anew: read it from byte 0")]
    BeganAnew {
        /// The log.
        log: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A grant has no line in the audit log.
    #[error("the grant could not be noted")]
    NotNoted(#[source] Status),
}

impl From<StateError> for OutputError {
    fn from(error: StateError) -> Self {
        Self::Index(SegmentsError::State(error))
    }
}

impl OutputError {
    /// The database or the store did not answer: the same may go well later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Index(SegmentsError::State(_)))
    }
}

/// The answer to an agent. What may go well later is `UNAVAILABLE`; everything else will not.
impl From<OutputError> for Status {
    fn from(error: OutputError) -> Self {
        if error.is_passing() {
            tracing::error!("{}.", navvy_job::chain::chain(&error));
            return Self::unavailable("the processor's database or store does not answer; try again");
        }
        let text = error.to_string();
        match error {
            OutputError::NotNoted(status) => status,
            OutputError::Form(_) => Self::invalid_argument(text),
            OutputError::NoTask { .. } | OutputError::NoLog { .. } => Self::not_found(text),
            OutputError::Beyond { .. } => Self::out_of_range(text),
            OutputError::Missing { .. } | OutputError::Damaged { .. } => Self::data_loss(text),
            OutputError::Index(SegmentsError::TooManyLogs) => Self::resource_exhausted(text),
            OutputError::Index(SegmentsError::LeaseLost) | OutputError::NotStored { .. } => {
                Self::failed_precondition(text)
            }
            OutputError::Index(_) => Self::already_exists(text),
            OutputError::BeganAnew { .. } | OutputError::Store(_) => Self::aborted(text),
        }
    }
}
