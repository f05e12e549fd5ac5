//! Memory that runs out: the kernel ends a job, not the process that looks after all of them.

use std::fs;
use std::io;

const SCORE: &str = "/proc/self/oom_score_adj";
/// Half of the machine's memory is forgiven. Not all of it: a leak of ours must not end everything else.
const WANTED: i32 = -500;
/// Of an agent that a scheduler has started, which may have handed down its own: the engine and the scheduler outlive it.
const SCHEDULED: i32 = -900;

/// Lowers this process's score where it may; only root may, as a rule. Containers are no children of ours and keep theirs.
pub fn spare_this_process() {
    if let Err(error) = lower() {
        tracing::debug!(%error, "The score of this process for when memory runs out stays as it is.");
    }
}

/// The same for an agent whose parent's score is not its own. Without the rights it gets an ordinary process's, at least.
pub fn set_score_of_scheduled() {
    let wanted = fs::write(SCORE, SCHEDULED.to_string());
    if let Err(error) = wanted.or_else(|_| fs::write(SCORE, "0")) {
        tracing::debug!(%error, "The score of this process for when memory runs out stays as it is.");
    }
}

fn lower() -> io::Result<()> {
    let present: i32 = fs::read_to_string(SCORE)?.trim().parse().map_err(io::Error::other)?;
    // The parent may have set a lower score already.
    if present > WANTED { fs::write(SCORE, WANTED.to_string()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_lowered_where_that_is_allowed() {
        let score = || fs::read_to_string(SCORE).unwrap().trim().parse::<i32>().unwrap();
        let before = score();
        match lower() {
            Ok(()) => assert!(score() <= WANTED),
            Err(error) => assert_eq!((error.kind(), score()), (io::ErrorKind::PermissionDenied, before)),
        }
    }
}
