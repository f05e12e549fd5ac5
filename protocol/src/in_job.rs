//! The few questions that a job may put to its supervisor, over a socket that every step can reach.
//!
//! One line of JSON each way. Nothing here can start, stop, read or write anything.

use serde::{Deserialize, Serialize};

/// Longest line either side reads.
pub const MAX_LINE: usize = 4096;

/// One question of a step's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub enum Question {
    /// Run no further step after the current one; the job ends with the result that it has.
    Halt,
    /// Does a supervisor answer, and in which version?
    Ping,
    /// The job asked for something that only the service has.
    Lacks {
        /// What was asked for.
        what: Lack,
    },
}

/// What only the service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// `circleci run release …`: markers of deployments.
    DeployMarkers,
    /// `circleci run oidc get`: a signed token.
    OidcToken,
    /// `circleci testsuite …`.
    TestSuite,
}

impl Lack {
    /// What there is to know, for a person.
    pub fn why(self) -> &'static str {
        match self {
            Self::DeployMarkers => "deploy markers are kept by the service, and none was set",
            Self::OidcToken => "only the service signs OIDC tokens, and Navvy cannot",
            Self::TestSuite => "test suites are not available in Navvy, and no tests were run",
        }
    }
}

/// Answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Answer to [`Question::Halt`]: no further step runs.
    Halted,
    /// To [`Question::Lacks`]: the run's report will mention it.
    Noted {
        /// No step of this job asked for it before.
        first: bool,
    },
    /// Answer to [`Question::Ping`].
    Pong {
        /// Version of the supervisor.
        version: String,
    },
    /// The question was not understood, or cannot be granted.
    Refused {
        /// Reason, for a person.
        why: String,
    },
}
