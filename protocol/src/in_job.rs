//! The few questions that a job may put to its supervisor, over a socket that every step can reach.
//!
//! One line of JSON each way. Nothing here can start, stop, read or write anything.

use serde::{Deserialize, Serialize};

/// Longest line either side reads.
pub const MAX_LINE: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub enum Question {
    /// After the current step, run no further one; the job ends as it stands.
    Halt,
    /// Is anyone there, and which version?
    Ping,
    /// The job asked for something that only the service has.
    Lacks { what: Lack },
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
            Self::OidcToken => "only the service signs OIDC tokens, and there is none here",
            Self::TestSuite => "test suites are not available in Navvy, and no tests were run",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Halted,
    /// It will be told; `first` if nothing of this job asked for it before.
    Noted {
        first: bool,
    },
    Pong {
        version: String,
    },
    Refused {
        why: String,
    },
}
