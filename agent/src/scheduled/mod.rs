//! A task whose agent was started by a scheduler's task driver: this side of [`navvy_job::scheduled`].
//!
//! ```text
//! DIR ─▶ directory: believed? ─▶ host.json, claim.json       onlooker ◀─ events of the task, masked
//!                                                               ├─▶ progress      a line a second at most
//!        exit.json ◀── the agent's last act ◀── verdict ────────┤
//!                                                               └─▶ pipe ─▶ host.stdout     the agent's log ─▶ pipe ─▶ host.stderr
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`directory`] | which files of the driver's are believed, and the agent's last word |
//! | [`onlooker`] | what the driver learns of the task while it runs |
//! | [`pipe`] | writing to where perhaps nobody reads: it never waits, and never fails |
//! | [`place`] | the agent's own place on the machine: session, cgroup, score |

pub mod directory;
pub mod onlooker;
pub mod pipe;
pub mod place;

use std::time::Duration;

use navvy_environment::cgroup::Parent;
use navvy_job::claim::Limits;

pub use self::onlooker::Onlooker;

/// From SIGTERM to SIGKILL a driver gives its agent 30 seconds: the steps' share of them. The rest is for the end of the environment, and
/// for telling it.
const MOST_GRACE: Duration = Duration::from_secs(10);

/// What a driver gives to the one task of its agent. Nothing of it elsewhere.
#[derive(Clone, Default)]
pub struct Scheduled {
    /// The task's own cgroup is made below it.
    pub cgroup: Option<Parent>,
    /// Most processes and threads, beside what the claim says.
    pub pids: Option<u32>,
    pub onlooker: Option<Onlooker>,
}

impl Scheduled {
    /// The smaller of what the claim and the driver say holds.
    pub fn hold_down(&self, limits: &mut Limits) {
        if self.onlooker.is_some() {
            limits.grace = limits.grace.min(MOST_GRACE);
        }
        limits.pids = limits.pids.min(self.pids.unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use navvy_job::resource::Size;

    use super::*;

    #[test]
    fn the_smaller_of_claim_and_driver_holds() {
        let directory = tempfile::tempdir().unwrap();
        let onlooker = Onlooker::new(&directory.path().join("progress"), None, None).unwrap();
        let wanted =
            Limits { grace: Duration::from_secs(60), pids: 100, ..Limits::new(Size::new(1, 1), Duration::MAX) };
        let held = |scheduled: Scheduled| {
            let mut limits = wanted;
            scheduled.hold_down(&mut limits);
            (limits.pids, limits.grace)
        };
        let driven = |pids| Scheduled { pids, onlooker: Some(onlooker.clone()), cgroup: None };
        assert_eq!(held(driven(Some(7))), (7, MOST_GRACE));
        assert_eq!(held(driven(Some(700))), (100, MOST_GRACE));
        assert_eq!(held(driven(None)), (100, MOST_GRACE));
        assert_eq!(held(Scheduled::default()), (wanted.pids, wanted.grace));
    }
}
