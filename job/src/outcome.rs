//! How steps, tasks and jobs end.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit_code;

/// How a job of a workflow ended, in the words that `requires` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Every significant step passed.
    Success,
    /// A step failed, the job exceeded a limit, or an infra fault ended it.
    Failed,
    /// The job was stopped before its end.
    Canceled,
    /// The job was not allowed to run.
    Unauthorized,
    /// The job was left out: what it requires did not end as it asks.
    NotRun,
}

impl JobStatus {
    /// All five: what `requires: [{job: terminal}]` means.
    pub const TERMINAL: [Self; 5] = [Self::Success, Self::Failed, Self::Canceled, Self::Unauthorized, Self::NotRun];

    /// As the config has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Unauthorized => "unauthorized",
            Self::NotRun => "not_run",
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a task ended. The first failure fixes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Every significant step passed.
    Passed,
    /// The first significant step that failed: its number from 1 and its name.
    Failed {
        /// The step's number.
        step: usize,
        /// The step's name.
        name: String,
    },
    /// It was kept from its end.
    Canceled {
        /// Why it was asked to stop.
        reason: CancelReason,
    },
    /// The job's time was over.
    TimedOut {
        /// The time that it had.
        #[serde(with = "crate::compiled::millis")]
        limit: Duration,
    },
    /// Ours, not the user's: the task may be tried again.
    Infra {
        /// What went wrong, for people.
        fault: String,
    },
}

impl Verdict {
    /// The job status that one task alone would give. An infra fault and a time-out count as failed.
    pub fn status(&self) -> JobStatus {
        match self {
            Self::Passed => JobStatus::Success,
            Self::Failed { .. } | Self::TimedOut { .. } | Self::Infra { .. } => JobStatus::Failed,
            Self::Canceled { .. } => JobStatus::Canceled,
        }
    }
}

/// How a run ended. Of several ends, the greatest counts: a job's failure tells more than that the run was incomplete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunEnd {
    /// Every job passed.
    #[default]
    Passed,
    /// Nothing failed, but something was not run: an approval was held, an executor is not here.
    Incomplete,
    /// An infra fault.
    Infra,
    /// A job failed.
    JobFailed,
    /// The pipeline that a setup pipeline continues with cannot be carried out.
    BadConfig,
    /// A job was kept from its end.
    Canceled,
}

impl RunEnd {
    /// What a program ends with that shows such a run.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Passed => exit_code::PASSED,
            Self::Incomplete => exit_code::INCOMPLETE,
            Self::Infra => exit_code::INFRA,
            Self::JobFailed => exit_code::JOB_FAILED,
            Self::BadConfig => exit_code::BAD_CONFIG,
            Self::Canceled => exit_code::CANCELED,
        }
    }
}

/// Why a task was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// A person asked (Ctrl-C, the API).
    User,
    /// The process is being ended from outside: SIGTERM, SIGHUP.
    Shutdown,
    /// The right to run was lost.
    LeaseLost,
    /// The machine takes no further work, and what it has is given back.
    Drain,
    /// A limit that the maker of the task set, beside the job's own time.
    Limit,
}

/// A request to stop what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancel {
    /// Who or what asks.
    pub reason: CancelReason,
    /// Processes are killed at once, without time for their clean-up.
    pub at_once: bool,
}

impl Cancel {
    /// Processes get time for their clean-up.
    pub fn gently(reason: CancelReason) -> Self {
        Self { reason, at_once: false }
    }

    /// The request after another one: the first reason stays, and a request without grace never gets its grace back.
    #[must_use]
    pub fn urged(self, at_once: bool) -> Self {
        Self { at_once: self.at_once || at_once, ..self }
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum StepOutcome {
    /// It exited with 0.
    Success,
    /// Exited with a code other than 0.
    ExitCode {
        /// The exit code.
        code: i32,
    },
    /// Killed by a signal that Navvy did not send.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// The kernel killed one of its processes for want of memory.
    OutOfMemory {
        /// In words.
        detail: String,
    },
    /// It wrote nothing for too long.
    NoOutput {
        /// Longest time that it may write nothing.
        #[serde(with = "crate::compiled::millis")]
        limit: Duration,
    },
    /// The job's time limit came while it ran.
    JobLimit {
        /// The time that the job had.
        #[serde(with = "crate::compiled::millis")]
        limit: Duration,
    },
    /// It was kept from its end.
    Canceled,
    /// It could not be started or carried out; `reason` says why.
    Error {
        /// In words.
        reason: String,
    },
}

impl StepOutcome {
    /// Whether it succeeded.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Success)
    }
}

/// Why a step was not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// `when: on_success` after a failure.
    JobFailed,
    /// `when: on_fail` and nothing failed.
    NothingFailed,
    /// The job was halted before (`circleci-agent step halt`).
    Halted,
    /// The run was stopped.
    Stopped,
    /// Recognised, and not carried out by this version.
    NotAvailable,
    /// Its orb is not here, and the run's settings allow it to continue without.
    OrbMissing,
    /// The deprecated `deploy`: it runs on a job's first node alone.
    FirstNodeOnly,
    /// The environment is held as it was at an earlier step; this one runs when the task goes on.
    Held,
}

/// Who can do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The command line.
    Usage,
    /// The config, or a file that was named.
    Config,
    /// The job, its config or its image: trying again changes nothing.
    Job,
    /// The engine cannot be reached, or was lost.
    Engine,
    /// Navvy itself, or the machine: trying again may help.
    Infra,
}

impl Blame {
    /// What a program ends with that such an error ended.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => exit_code::USAGE,
            Self::Config => exit_code::BAD_CONFIG,
            Self::Job => exit_code::JOB_FAILED,
            Self::Engine => exit_code::NO_DOCKER,
            Self::Infra => exit_code::INFRA,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_to_stop_keeps_its_first_reason_and_never_gets_weaker() {
        let gently = Cancel::gently(CancelReason::Shutdown);
        let at_once = Cancel { reason: CancelReason::Shutdown, at_once: true };
        assert_eq!((gently.urged(false), gently.urged(true)), (gently, at_once));
        assert_eq!((at_once.urged(false), at_once.urged(true)), (at_once, at_once));
    }
}
