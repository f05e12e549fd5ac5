//! What a pool needs of whoever makes its machines.

use std::collections::BTreeSet;

use async_trait::async_trait;
use navvy_journal::owner::Owner;
use serde_json::Value;

use super::record::Holder;
use super::rules::Kind;
use crate::machine_id::MachineId;

/// Makes and removes machines. Every call may be cut off by a SIGKILL at any moment, and is then made again.
#[async_trait]
pub trait Maker: Send + Sync + 'static {
    /// Makes a machine, up to a supervisor that answers and has no task yet. The same id never makes two.
    async fn make(&self, id: &MachineId, kind: &Kind) -> Result<(), NotMade>;

    /// Gives a machine into a taker's hands: from here on it is the taker's process that looks after it. What the taker needs
    /// to find it comes back. Asked again for the same taker, it answers the same.
    async fn hand_over(&self, id: &MachineId, to: &Holder) -> Result<Value, String>;

    /// Removes all of a machine that is there, from any half-made state. One that is not there is removed.
    async fn remove(&self, id: &MachineId) -> Result<(), String>;

    /// Who has a machine that was given away? Asked of each of them again and again, so it is cheap, and says [`Holding::Held`] where it
    /// does not know.
    async fn look(&self, _id: &MachineId, to: &Holder) -> Holding {
        let here = Owner::this_process().ok();
        let is_dead = here.zip(to.owner.as_ref()).is_some_and(|(here, owner)| owner.is_dead(&here));
        if is_dead { Holding::Left } else { Holding::Held }
    }

    /// All machines that were made for this pool and of which anything is there; given ones, too.
    async fn survey(&self) -> Result<BTreeSet<MachineId>, String>;
}

/// Who has a machine that was given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Its taker, or whoever has gone on with its task.
    Held,
    /// Nobody any more.
    Left,
    /// Nothing of it is there any more.
    Gone,
}

/// Why a machine did not become ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotMade {
    /// In a sentence.
    pub why: String,
    /// One word, for figures.
    pub word: &'static str,
    /// Trying again does not help.
    pub is_final: bool,
    /// Earliest next try, in seconds from now.
    pub wait_s: Option<u64>,
}
