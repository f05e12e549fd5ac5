//! What every cloud has in common: what is asked for, what comes back, and how it can fail.
//!
//! ```text
//! Launch (id, owner, tags, seed) ─▶ ec2 | gce ─▶ Instance        one id, one machine: asking again gives the same one
//!                                     │ Fault: whose fault it is, whether trying again helps, and what to do
//! owner ─▶ list ─▶ [Instance]         └ everything that a cloud says is bounded, has a deadline, and is not believed further than that
//! ```

pub mod call;
#[cfg(test)]
pub(crate) mod tests;
pub mod user_data;

use std::fmt;
use std::time::Duration;

use navvy_job::outcome::Blame;

use crate::machine_id::MachineId;

/// What a machine's tags say who made it.
pub const MANAGED_BY: &str = "navvy";

/// A text that no log, error or `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// A machine that is wanted of a cloud.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The cloud is asked by it: twice gives one machine.
    pub id: MachineId,
    /// Who looks after it: a pool's or a machine's name, the same over restarts.
    pub owner: String,
    /// The task that it is made for; none of a pool's.
    pub task: Option<String>,
    /// A pool makes it, before somebody wants it.
    pub is_pools: bool,
    /// The cloud's own name of the image.
    pub image: String,
    /// The cloud's own name of the size: `t3a.medium`, `e2-standard-2`.
    pub size: String,
    /// What its first start gives it: its host key and who may come in.
    pub user_data: Secret,
    /// A cheaper one, which the cloud may take away at any moment.
    pub is_spot: bool,
    /// Its root disk in GiB; 0: as the image has it.
    pub disk_gib: u32,
}

/// A machine of a cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The cloud's own name of it.
    pub name: String,
    /// Which machine it is, by its tags. `None`: they do not say.
    pub machine: Option<MachineId>,
    /// Whose it is, by its tags.
    pub owner: Option<String>,
    /// Where it stands.
    pub stage: Stage,
    /// Where it can be reached.
    pub address: Option<String>,
    /// When the cloud started it, in seconds since 1970.
    pub launched_s: Option<u64>,
}

/// Where a cloud's machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is being made.
    Coming,
    /// It runs, as far as the cloud knows.
    Running,
    /// It is being removed, or is stopped.
    Going,
    /// It costs nothing any more.
    Gone,
}

/// How a cloud did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has no room for such a machine now.
    #[error(
        "{cloud} has no capacity for {what} now: {message}; let the pool try again, or name another zone, subnet or size"
    )]
    Capacity {
        /// Which cloud.
        cloud: &'static str,
        /// What was asked for.
        what: String,
        /// Its own words.
        message: String,
    },
    /// The account may have no more.
    #[error(
        "{cloud} gives this account no more machines: {message}; ask the cloud for a larger quota, or lower the pool's"
    )]
    Quota {
        /// Which cloud.
        cloud: &'static str,
        /// Its own words.
        message: String,
    },
    /// It was asked too often.
    #[error("{cloud} is asked too often: {message}; the next try comes later by itself")]
    Throttled {
        /// Which cloud.
        cloud: &'static str,
        /// Its own words.
        message: String,
        /// How long it wants to be left alone.
        wait: Option<Duration>,
    },
    /// It is not well.
    #[error("{cloud} answered {status}: {message}; the next try comes by itself, and its status page says more")]
    Unwell {
        /// Which cloud.
        cloud: &'static str,
        /// Status of the answer.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// It could not be reached, or hung up.
    #[error("{cloud} cannot be reached: {message}; look at the network, a proxy and the endpoint in the settings")]
    Unreachable {
        /// Which cloud.
        cloud: &'static str,
        /// What the network says.
        message: String,
    },
    /// It did not answer in time.
    #[error("{cloud} did not answer {call} within {} s; the next try comes by itself", limit.as_secs())]
    Late {
        /// Which cloud.
        cloud: &'static str,
        /// Which call.
        call: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// It does not know who asks, or does not let them.
    #[error("{cloud} does not allow {call}: {message}; look at the credentials and their rights")]
    NotAllowed {
        /// Which cloud.
        cloud: &'static str,
        /// Which call.
        call: &'static str,
        /// Its own words.
        message: String,
    },
    /// There are no credentials.
    #[error("there are no credentials for {cloud}: {message}")]
    NoCredentials {
        /// Which cloud.
        cloud: &'static str,
        /// Where they were looked for, and what to do.
        message: String,
    },
    /// What it was asked for makes no sense to it.
    #[error("{cloud} refuses {call}: {code}: {message}; look at the image, the size and the network in the settings")]
    Refused {
        /// Which cloud.
        cloud: &'static str,
        /// Which call.
        call: &'static str,
        /// Its own code.
        code: String,
        /// Its own words.
        message: String,
    },
    /// It knows no such machine.
    #[error("{cloud} knows no machine {name}")]
    NotFound {
        /// Which cloud.
        cloud: &'static str,
        /// The machine's name.
        name: String,
    },
    /// Its answer makes no sense.
    #[error(
        "{cloud} answered {call} with something else than it promises: {message}; is the endpoint in the settings its own?"
    )]
    Nonsense {
        /// Which cloud.
        cloud: &'static str,
        /// Which call.
        call: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// It said yes, and there is no machine.
    #[error("{cloud} said that it made machine {id}, and there is none; the next try comes by itself")]
    NoMachine {
        /// Which cloud.
        cloud: &'static str,
        /// Which machine.
        id: MachineId,
    },
    /// It made the machine and left its tags away: nobody would find it again. It was removed.
    #[error(
        "{cloud} made {name} without the tags that say whose it is, and took none afterwards ({message}); it was {}",
        if *is_removed { "removed" } else { "not removed either: remove it by hand" }
    )]
    Untagged {
        /// Which cloud.
        cloud: &'static str,
        /// The cloud's own name of it.
        name: String,
        /// What it says to tags.
        message: String,
        /// It is gone.
        is_removed: bool,
    },
}

impl Fault {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::NotAllowed { .. } | Self::NoCredentials { .. } | Self::Refused { .. } => Blame::Usage,
            _ => Blame::Engine,
        }
    }

    /// Does trying again, with nothing changed, not help?
    pub fn is_final(&self) -> bool {
        matches!(self, Self::NotAllowed { .. } | Self::NoCredentials { .. } | Self::Refused { .. })
    }

    /// May the same call be made again at once, after a pause of seconds? (Capacity and quotas change slower.)
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Throttled { .. }
                | Self::Unwell { .. }
                | Self::Unreachable { .. }
                | Self::Late { .. }
                | Self::Nonsense { .. }
        )
    }

    /// How long the cloud wants to be left alone.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Throttled { wait, .. } => *wait,
            _ => None,
        }
    }

    /// One word, for figures.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Capacity { .. } => "capacity",
            Self::Quota { .. } => "quota",
            Self::Throttled { .. } => "throttled",
            Self::Unwell { .. } => "unwell",
            Self::Unreachable { .. } => "unreachable",
            Self::Late { .. } => "late",
            Self::NotAllowed { .. } => "not_allowed",
            Self::NoCredentials { .. } => "no_credentials",
            Self::Refused { .. } => "refused",
            Self::NotFound { .. } => "not_found",
            Self::Nonsense { .. } => "nonsense",
            Self::NoMachine { .. } => "no_machine",
            Self::Untagged { .. } => "untagged",
        }
    }
}
