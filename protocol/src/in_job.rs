//! The two questions that a job may put to its supervisor, over a socket that every step can reach.
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
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Halted,
    Pong { version: String },
    Refused { why: String },
}
