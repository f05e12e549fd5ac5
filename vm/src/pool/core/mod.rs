//! What a pool decides: happenings in, effects out; no clock, no disk, no machine (pure).
//!
//! ```text
//! Event ─▶ handle ─▶ [Write, Make, Hand, …]     in this order: what a Write says is on disk before the next effect begins
//! ```
//!
//! | module | what it decides |
//! |---|---|
//! | `words` | nothing: what can happen, and what can be done |
//! | `takers` | who gets which machine, and who gets none |
//! | `machines` | what becomes of a machine that is there |
//! | `scaling` | how many there ought to be |
//!
//! Whatever of a list of effects is carried out before a SIGKILL, [`Core::restore`] goes on from what was written: what was being
//! made is removed, what was given stays given, and nothing is handed out before a survey has shown what is there.

mod machines;
mod scaling;
mod takers;
mod words;

use std::collections::{BTreeMap, VecDeque};

pub use self::words::{Effect, Event, Wish};
use super::record::{Record, Stage, Why};
use super::rules::{Kind, Rules};
use crate::machine_id::MachineId;

/// The first pause after a machine that was not made or not removed, and the longest.
const PAUSE_S: (u64, u64) = (2, 300);

struct Waiter {
    wish: Wish,
    since_s: u64,
}

struct Machine {
    record: Record,
    /// An effect is under way whose answer comes as an event.
    is_busy: bool,
    /// [`Core::mark`] when its stage changed.
    changed: u64,
    failures: u32,
    not_before_s: u64,
}

/// What is remembered of a kind, and lost with the process.
#[derive(Default)]
struct Memory {
    takes: VecDeque<u64>,
    make_s: Option<u64>,
    failures: u32,
    not_before_s: u64,
    last_fault: Option<String>,
    surplus_since_s: Option<u64>,
}

/// A pool's mind.
pub struct Core {
    rules: Rules,
    machines: BTreeMap<MachineId, Machine>,
    waiting: VecDeque<Waiter>,
    memory: BTreeMap<Kind, Memory>,
    mark: u64,
    /// Nothing of before a restart is believed to be there until it was seen.
    is_surveyed: bool,
    is_emptied: bool,
}

/// Machines by where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Being made.
    pub making: u32,
    /// Ready.
    pub warm: u32,
    /// In somebody's hands.
    pub given: u32,
    /// Being removed.
    pub removing: u32,
    /// Wishes that wait.
    pub waiting: u32,
    /// Age of the oldest one, in seconds.
    pub oldest_s: u64,
}

impl Counts {
    fn all(&self) -> u32 {
        self.making + self.warm + self.given + self.removing
    }
}

impl Core {
    /// A pool that finds these records.
    pub fn restore(rules: Rules, records: impl IntoIterator<Item = Record>) -> Self {
        let machine = |record: Record| {
            let machine = Machine { record, is_busy: false, changed: 0, failures: 0, not_before_s: 0 };
            (machine.record.id.clone(), machine)
        };
        Self {
            rules,
            machines: records.into_iter().map(machine).collect(),
            waiting: VecDeque::new(),
            memory: BTreeMap::new(),
            mark: 0,
            is_surveyed: false,
            is_emptied: false,
        }
    }

    /// Grows with everything that changes; a survey is judged by what had changed when it began.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.machines.values().map(|machine| &machine.record)
    }

    /// Has it been seen, since this process began, what is there?
    pub fn is_surveyed(&self) -> bool {
        self.is_surveyed
    }

    /// Is it being emptied?
    pub fn is_emptied(&self) -> bool {
        self.is_emptied
    }

    /// Does nothing exist and nobody wait?
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty() && self.waiting.is_empty()
    }

    /// How many there are, by kind.
    pub fn counts(&self, now_s: u64) -> BTreeMap<Kind, Counts> {
        let mut counts: BTreeMap<Kind, Counts> = BTreeMap::new();
        for record in self.records() {
            let of_kind = counts.entry(record.kind.clone()).or_default();
            of_kind.oldest_s = of_kind.oldest_s.max(now_s.saturating_sub(record.born_s));
            match record.stage {
                Stage::Making => of_kind.making += 1,
                Stage::Warm { .. } => of_kind.warm += 1,
                Stage::Given { .. } => of_kind.given += 1,
                Stage::Removing { .. } => of_kind.removing += 1,
            }
        }
        for waiter in &self.waiting {
            counts.entry(waiter.wish.kind.clone()).or_default().waiting += 1;
        }
        counts
    }

    /// Takes in what has happened, and says what is to be done.
    pub fn handle(&mut self, event: Event, now_s: u64, new_id: &mut dyn FnMut() -> MachineId) -> Vec<Effect> {
        self.mark += 1;
        let mut effects = Vec::new();
        match event {
            Event::Tick => {}
            Event::Take(wish) => self.take(wish, now_s, &mut effects),
            Event::Left { ticket } => self.waiting.retain(|waiter| waiter.wish.holder.ticket != ticket),
            Event::GivenBack { ticket } => self.given_back(&ticket, &mut effects),
            Event::HolderGone { id } => {
                if matches!(self.stage(&id), Some(Stage::Given { .. })) {
                    self.remove(&id, Why::HolderGone, &mut effects);
                }
            }
            Event::Made { id } => self.made(&id, now_s, &mut effects),
            Event::NotMade { id, why, is_final, wait_s } => {
                self.not_made(&id, (why, is_final, wait_s), now_s, &mut effects);
            }
            Event::NotHanded { id } => self.not_handed(&id, now_s, &mut effects),
            Event::Removed { id } => self.removed(&id, &mut effects),
            Event::NotRemoved { id } => self.not_removed(&id, now_s),
            Event::Survey { asked, present } => self.surveyed(asked, &present, now_s, &mut effects),
            Event::Empty => self.is_emptied = true,
        }
        self.clean(now_s, &mut effects);
        self.hand_out(now_s, &mut effects);
        self.give_up_waiting(now_s, &mut effects);
        self.scale(now_s, new_id, &mut effects);
        effects
    }

    fn stage(&self, id: &MachineId) -> Option<&Stage> {
        self.machines.get(id).map(|machine| &machine.record.stage)
    }

    /// The one place where a stage changes: by the table, and written first.
    fn set(&mut self, id: &MachineId, stage: Stage, effects: &mut Vec<Effect>) -> bool {
        let mark = self.mark;
        let Some(machine) = self.machines.get_mut(id).filter(|machine| machine.record.may_become(&stage)) else {
            return false;
        };
        machine.record.stage = stage;
        machine.changed = mark;
        effects.push(Effect::Write(machine.record.clone()));
        true
    }

    fn remove(&mut self, id: &MachineId, why: Why, effects: &mut Vec<Effect>) {
        self.set(id, Stage::Removing { why }, effects);
        self.begin_removal(id, effects);
    }

    /// A removal waits for the answer of what is under way with the machine.
    fn begin_removal(&mut self, id: &MachineId, effects: &mut Vec<Effect>) {
        let Some(machine) = self.machines.get_mut(id).filter(|machine| !machine.is_busy) else { return };
        if let Stage::Removing { why } = machine.record.stage {
            machine.is_busy = true;
            effects.push(Effect::Remove { id: id.clone(), why });
        }
    }
}

fn pause_after(failures: u32) -> u64 {
    let (first, longest) = PAUSE_S;
    first.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(longest)
}
