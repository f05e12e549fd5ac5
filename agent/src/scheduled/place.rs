//! The agent's own place on the machine: a session of its own, the task's cgroup, the score for when memory runs out.

use std::io;

use navvy_environment::cgroup::{Parent, ParentError};
use rustix::io::Errno;
use rustix::process::{getpid, getsid, setsid};

use crate::oom;

/// Why the agent does not run where it was told to.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(transparent)]
    Cgroup(#[from] ParentError),
    #[error("failed to begin a session of its own: {0}")]
    Session(io::Error),
}

/// Takes the place. Before anything is started: a child would stay behind.
///
/// # Errors
/// It would run outside of the task's limits, or end with the driver's terminal.
pub fn take(cgroup: Option<&Parent>) -> Result<(), PlaceError> {
    match setsid() {
        Ok(_) => {}
        // It leads one already.
        Err(Errno::PERM) if getsid(None).is_ok_and(|session| session == getpid()) => {}
        // Whoever starts it has made it lead a group: signals to the driver's group do not reach it, and that is what counts.
        Err(Errno::PERM) => {
            tracing::warn!("This agent leads a group of processes, so it stays in the driver's session.")
        }
        Err(error) => return Err(PlaceError::Session(error.into())),
    }
    if let Some(given) = cgroup {
        given.enter()?;
    }
    oom::set_score_of_scheduled();
    Ok(())
}
