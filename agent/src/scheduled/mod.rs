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

use navvy_environment::cgroup::Parent;

pub use self::onlooker::Onlooker;

/// What a driver gives to the one task of its agent. Nothing of it elsewhere.
#[derive(Clone, Default)]
pub struct Scheduled {
    /// The task's own cgroup is made below it.
    pub cgroup: Option<Parent>,
    /// Most processes and threads, beside what the claim says.
    pub pids: Option<u32>,
    pub onlooker: Option<Onlooker>,
}
