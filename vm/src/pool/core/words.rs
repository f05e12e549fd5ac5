//! What can happen to a pool, and what can be done.

use std::collections::BTreeSet;

use super::super::record::{Holder, Record, Why};
use super::super::rules::Kind;
use crate::machine_id::MachineId;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// Somebody wants a machine.
    Take(Wish),
    /// Who waited has gone.
    Left {
        /// By this ticket.
        ticket: String,
    },
    /// Who has a machine is done with it, or with asking.
    GivenBack {
        /// By this ticket.
        ticket: String,
    },
    /// Who has it is dead.
    HolderGone {
        /// Which machine.
        id: MachineId,
    },
    /// It is ready.
    Made {
        /// Which machine.
        id: MachineId,
    },
    /// It did not become ready; something of it may be there.
    NotMade {
        /// Which machine.
        id: MachineId,
        /// Why, in a sentence.
        why: String,
        /// Trying again does not help: settings or the image are wrong.
        is_final: bool,
        /// Earliest next try, in seconds from now, where the provider said so.
        wait_s: Option<u64>,
    },
    /// Its taker could not be given it: another one is found.
    NotHanded {
        /// Which machine.
        id: MachineId,
    },
    /// Nothing of it is left.
    Removed {
        /// Which machine.
        id: MachineId,
    },
    /// Something of it is left.
    NotRemoved {
        /// Which machine.
        id: MachineId,
    },
    /// What is there, of all that the provider has for this pool.
    Survey {
        /// What [`super::Core::mark`] was when the provider was asked.
        asked: u64,
        /// The machines.
        present: BTreeSet<MachineId>,
    },
    /// Keep nothing ready any more: the pool is being emptied.
    Empty,
}

/// A wish for a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Of which kind.
    pub kind: Kind,
    /// For whom.
    pub holder: Holder,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Put it on disk, and only then go on.
    Write(Record),
    /// Make a machine; [`Event::Made`] or [`Event::NotMade`] is the answer.
    Make {
        /// Which.
        id: MachineId,
        /// Of which kind.
        kind: Kind,
    },
    /// Tell the taker.
    Hand {
        /// By this ticket.
        ticket: String,
        /// Which machine.
        id: MachineId,
        /// Seconds that it was waited for.
        waited_s: u64,
    },
    /// Tell who waits that there is none.
    Refuse {
        /// By this ticket.
        ticket: String,
        /// Why, in a sentence.
        why: String,
    },
    /// Remove all of it that is there; [`Event::Removed`] or [`Event::NotRemoved`] is the answer.
    Remove {
        /// Which machine.
        id: MachineId,
        /// Why.
        why: Why,
    },
    /// Its record goes from the disk.
    Erase {
        /// Which machine.
        id: MachineId,
    },
}
