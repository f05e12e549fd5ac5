//! What looking into a file may cost, and what comes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use navvy_job::figures;
use navvy_output::mask::{MaskedIn, Masks};

/// Characters of a member's name that are shown.
const SHOWN: usize = 200;

/// How much is unpacked at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes, of one file.
    pub file: u64,
    /// Bytes, of all files of a step.
    pub step: u64,
    /// Packed members of one file.
    pub members: u64,
    /// How often something may be packed in what is packed.
    pub depth: usize,
}

/// Some seconds of one core for a step. A zip bomb costs no more; the larger ones of real builds' files fit.
pub const BOUNDS: Bounds = Bounds { file: 512 << 20, step: 2 << 30, members: 100_000, depth: 2 };

/// What was not looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// Why, as the end of a sentence about the file.
    pub why: String,
    /// What else in it was not.
    pub more: usize,
}

/// What looking into one file may still cost, and what came of it.
pub(super) struct Look {
    pub masks: Masks,
    pub place: MaskedIn,
    pub bounds: Bounds,
    /// Bytes that are left.
    step: Arc<AtomicU64>,
    file: u64,
    /// Members that are left.
    members: u64,
    pub found: Option<String>,
    pub unseen: Option<Unseen>,
    gave_up: bool,
}

impl Look {
    pub fn new(masks: Masks, place: MaskedIn, bounds: Bounds, step: Arc<AtomicU64>) -> Self {
        let (file, members) = (bounds.file, bounds.members);
        Self { masks, place, bounds, step, file, members, found: None, unseen: None, gave_up: false }
    }

    pub fn is_over(&self) -> bool {
        self.gave_up || self.found.is_some()
    }

    /// Is there room for so many more bytes?
    pub fn charge(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let Some(file) = self.file.checked_sub(bytes) else {
            self.give_up(format!("holds more than {}, unpacked", figures::bytes(self.bounds.file)));
            return false;
        };
        self.file = file;
        let take = |left: u64| left.checked_sub(bytes);
        let has_room = self.step.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if !has_room {
            self.give_up(format!(
                "comes after more than {} that this step has unpacked",
                figures::bytes(self.bounds.step)
            ));
        }
        has_room
    }

    pub fn take_member(&mut self) -> bool {
        let has_room = self.members > 0;
        self.members = self.members.saturating_sub(1);
        if !has_room {
            self.give_up(format!("has more than {} packed members", self.bounds.members));
        }
        has_room
    }

    fn give_up(&mut self, why: String) {
        self.gave_up = true;
        self.pass_over(why);
    }

    pub fn pass_over(&mut self, why: String) {
        match &mut self.unseen {
            Some(unseen) => unseen.more += 1,
            none => *none = Some(Unseen { why, more: 0 }),
        }
    }

    /// A member's name for people.
    pub fn shown(&self, name: &[u8]) -> String {
        let name = String::from_utf8_lossy(name);
        let masked = self.masks.text(|| self.place.clone(), &name);
        masked.chars().take(SHOWN).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
    }
}
