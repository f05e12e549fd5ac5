//! What a pool writes down of a machine, before it does what that means.

use navvy_journal::owner::Owner;
use serde::{Deserialize, Serialize};

use super::rules::Kind;
use crate::machine_id::MachineId;

/// Where a machine stands with its pool.
///
/// ```text
/// Making ─▶ Warm ─▶ Given ─▶ Removing ─▶ (its record goes)
///    └────────┴────────────────▲
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum Stage {
    /// It is decided: from here on something of it may be there.
    Making,
    /// It is ready, and nobody's.
    Warm {
        /// Since when, in seconds since 1970.
        since_s: u64,
    },
    /// It is one taker's, and never again another's.
    Given {
        /// Whose it is.
        to: Holder,
        /// Since when, in seconds since 1970.
        since_s: u64,
    },
    /// It goes, whatever of it is there.
    Removing {
        /// Why.
        why: Why,
    },
}

/// Who has a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// What the taker calls its wish: whoever asks again by it, because no answer came, gets the same machine.
    pub ticket: String,
    /// For which task.
    pub task: String,
    /// The process that has taken it. `None`: one of another machine, which is asked for by its lease.
    pub owner: Option<Owner>,
}

/// Why a machine is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Who had it is done with it.
    Used,
    /// Who had it is dead.
    HolderGone,
    /// It did not become ready.
    NotMade,
    /// The pool was killed while it was made.
    Interrupted,
    /// It was ready for a day.
    Recycled,
    /// More are ready than are wanted.
    Surplus,
    /// It is older than any machine may be.
    TooOld,
    /// It ended while it was ready.
    Died,
    /// No record knows it.
    Unknown,
    /// The pool ends, and keeps nothing.
    Ending,
}

/// A machine of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Form of this record: [`Self::VERSION`] of who wrote it.
    pub version: u32,
    /// Which machine.
    pub id: MachineId,
    /// Of which kind.
    pub kind: Kind,
    /// When it was decided, in seconds since 1970.
    pub born_s: u64,
    /// Where it stands.
    #[serde(flatten)]
    pub stage: Stage,
}

impl Record {
    /// The form that this code writes, and the only one that it reads.
    pub const VERSION: u32 = 1;

    /// May its stage become that one?
    pub fn may_become(&self, next: &Stage) -> bool {
        match next {
            Stage::Making => false,
            Stage::Warm { .. } => self.stage == Stage::Making,
            Stage::Given { .. } => matches!(self.stage, Stage::Warm { .. }),
            Stage::Removing { .. } => !matches!(self.stage, Stage::Removing { .. }),
        }
    }
}
