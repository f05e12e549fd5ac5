//! Where a machine that is ready comes from: what a taker sees of a pool, wherever that pool is.
//!
//! ```text
//! taker ── Asked ─▶ Source ─┬─ Given: the machine is the taker's, and never another's
//!                           └─ NotGiven: the taker makes its own
//! ```
//!
//! [`super::door::DoorSource`] is the one for a pool of this host.

use std::fmt::Debug;
use std::path::PathBuf;

use async_trait::async_trait;
use navvy_job::id::TaskId;
use serde::{Deserialize, Serialize};

use super::rules::Kind;
use crate::far::Forwarding;
use crate::machine_id::MachineId;

/// Asks one pool for machines.
#[async_trait]
pub trait Source: Debug + Send + Sync + 'static {
    /// Waits for a machine. Whoever drops this gives up waiting.
    ///
    /// # Errors
    /// There is none, and whether somebody should be told why.
    async fn take(&self, asked: &Asked) -> Result<Given, NotGiven>;

    /// Is there a pool at all? Where there is none, nobody is told that it was not asked.
    fn is_there(&self) -> bool {
        true
    }

    /// The ticket's machine is done with, or its wish is. A pool that cannot be reached finds out by itself.
    async fn give_back(&self, ticket: &str);
}

/// What one taker asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Of which kind: the class's and the image's own names.
    pub kind: Kind,
    /// What the taker calls this wish: who asks again by it gets the same machine. Letters, digits and dashes.
    pub ticket: String,
    /// For which task.
    pub task: TaskId,
    /// The image's name is the config's own, and a machine is wanted that the pool's host lends: it is entered by ssh. Else one of the
    /// taker's own host.
    pub is_lent: bool,
}

/// A machine that was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// Which.
    pub id: MachineId,
    /// How its taker finds it.
    pub way: Way,
}

/// How a taker finds its machine. This is the value that [`super::maker::Maker::hand_over`] answers, and that crosses a pool's door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "way", rename_all = "snake_case")]
pub enum Way {
    /// A machine of this host, by its record: `STATE/machines/ID/record`. Nothing of it is believed but that record; the taker locks it.
    Here {
        /// The pool's state directory. A taker with another one does not find the record.
        state: PathBuf,
    },
    /// A machine elsewhere, by ssh: lent, for the pool ends it.
    Ssh(Box<Entrance>),
}

/// How a machine elsewhere is entered.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Entrance {
    /// Who has it: `ec2`, `gce`.
    pub provider: String,
    /// Its provider's own name for it.
    pub instance: String,
    /// Its address or name in the network.
    pub address: String,
    /// Port of its ssh server.
    pub port: u16,
    /// As whom it is entered.
    pub user: String,
    /// The host key that it must show: a line as in `ssh_host_ed25519_key.pub`.
    pub host_key: String,
    /// The private key by which it is entered, in OpenSSH's format. Secret: `Debug` tells none of it.
    pub key: String,
    /// How its supervisor is reached from there.
    pub forwarding: Forwarding,
    /// Its provider's own name of its image.
    pub image: String,
    /// As whom steps run in it.
    pub step_user: String,
    /// The version of its Docker engine, if it has one.
    pub docker: Option<String>,
}

impl Debug for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { provider, instance, address, port, .. } = self;
        f.debug_struct("Entrance")
            .field("provider", provider)
            .field("instance", instance)
            .field("address", address)
            .field("port", port)
            .finish_non_exhaustive()
    }
}

/// Why a taker makes its own machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotGiven {
    /// No pool is set up here: there is nothing to tell.
    #[error("there is no pool here")]
    NoPool,
    /// A machine was given, and was of no use.
    #[error("{why}")]
    Lost {
        /// Why, in words that a report can show.
        why: String,
    },
    /// The pool has said no, has died, or its answer makes no sense.
    #[error("{why}")]
    No {
        /// Why, in words that a report can show.
        why: String,
    },
}
