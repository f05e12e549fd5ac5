//! Why a processor did not do what it was asked for.

use std::time::Duration;

use navvy_job::outcome::Blame;
use navvy_protocol::api::Problem;
use navvy_storage::TransportError;

use super::address::AddressError;

/// What came of a call.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// There is no such address, or no token may go there.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No client can be made.
    #[error("failed to make a way to the processor")]
    Transport(#[from] TransportError),
    /// No connection, or it was lost before the answer.
    #[error("the processor at {at} cannot be reached: {why}")]
    Unreachable {
        /// Its address.
        at: String,
        /// In words.
        why: String,
    },
    /// It took too long.
    #[error("the processor at {at} did not answer within {} seconds", limit.as_secs())]
    Late {
        /// Its address.
        at: String,
        /// The time that it had.
        limit: Duration,
    },
    /// The answer ended in the middle.
    #[error("the answer of the processor at {at} was cut off: {why}")]
    Cut {
        /// Its address.
        at: String,
        /// In words.
        why: String,
    },
    /// It says no.
    #[error("{}", problem.message)]
    Refused {
        /// Of HTTP.
        status: u16,
        /// In its own words, or in ours if it has none.
        problem: Box<Problem>,
    },
    /// What it says is not what was asked for.
    #[error("the answer of the processor at {at} is not understood: {why}")]
    Answer {
        /// Its address.
        at: String,
        /// In words.
        why: String,
    },
    /// What was to be sent could not be read here.
    #[error("failed to send it: {0}")]
    Source(String),
}

impl RemoteError {
    /// May the same call go well a little later?
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Late { .. } | Self::Cut { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::Address(_) | Self::Transport(_) | Self::Answer { .. } | Self::Source(_) => false,
        }
    }

    /// Is it not there, or not yet so long?
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status: 404 | 416, .. })
    }

    /// Who can do something about it.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Address(_) => Blame::Usage,
            Self::Refused { problem, .. } if problem.diagnostics.is_some() => Blame::Config,
            Self::Refused { status, .. } if (400..500).contains(status) && *status != 429 => Blame::Usage,
            _ => Blame::Infra,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Address(error) => error.hint().map(str::to_owned),
            Self::Refused { problem, .. } if problem.hint.is_some() => problem.hint.clone(),
            Self::Refused { status: 401, .. } => {
                Some("`navvy login URL` keeps another token; it may have been revoked or have ended.".to_owned())
            }
            Self::Unreachable { .. } => {
                Some("Is it running, and is the address right? `--processor URL` names another.".to_owned())
            }
            _ => None,
        }
    }
}

/// What an error of the HTTP client comes from, in words: the layers above only say that they have failed. Never a URL.
pub fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
