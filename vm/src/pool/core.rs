//! What a pool decides: happenings in, effects out; no clock, no disk, no machine (pure).
//!
//! ```text
//! Event ─▶ handle ─▶ [Write, Make, Hand, …]     in this order: what a Write says is on disk before the next effect begins
//! ```
//!
//! Whatever of a list of effects is carried out before a SIGKILL, [`Core::restore`] goes on from what was written: what was being
//! made is removed, what was given stays given, and nothing is handed out before a survey has shown what is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::record::{Holder, Record, Stage, Why};
use super::rules::{Demand, Kind, Rules};
use crate::machine_id::MachineId;

/// Takes of so many seconds say what to expect.
const WINDOW_S: u64 = 600;
/// What a machine takes to be made, until one was.
const USUAL_MAKE_S: u64 = 60;
/// The first pause after a machine that was not made or not removed, and the longest.
const PAUSE_S: (u64, u64) = (2, 300);

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
        /// What [`Core::mark`] was when the provider was asked.
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

    fn take(&mut self, wish: Wish, now_s: u64, effects: &mut Vec<Effect>) {
        let ticket = &wish.holder.ticket;
        let has_it =
            |machine: &&Machine| matches!(&machine.record.stage, Stage::Given { to, .. } if to.ticket == *ticket);
        if let Some(machine) = self.machines.values().find(has_it) {
            let id = machine.record.id.clone();
            effects.push(Effect::Hand { ticket: ticket.clone(), id, waited_s: 0 });
            return;
        }
        if self.is_emptied {
            let why = "the pool is being emptied, and gives no more machines".to_owned();
            effects.push(Effect::Refuse { ticket: ticket.clone(), why });
            return;
        }
        if self.rules.quota_of(&wish.kind) == 0 {
            let why = format!("the pool's quota of {} is 0", wish.kind);
            effects.push(Effect::Refuse { ticket: ticket.clone(), why });
            return;
        }
        if !self.waiting.iter().any(|waiter| waiter.wish.holder.ticket == *ticket) {
            self.memory.entry(wish.kind.clone()).or_default().takes.push_back(now_s);
            self.waiting.push_back(Waiter { wish, since_s: now_s });
        }
    }

    fn given_back(&mut self, ticket: &str, effects: &mut Vec<Effect>) {
        self.waiting.retain(|waiter| waiter.wish.holder.ticket != ticket);
        let has_it = |record: &&Record| matches!(&record.stage, Stage::Given { to, .. } if to.ticket == ticket);
        let ids: Vec<_> = self.records().filter(has_it).map(|record| record.id.clone()).collect();
        ids.iter().for_each(|id| self.remove(id, Why::Used, effects));
    }

    fn made(&mut self, id: &MachineId, now_s: u64, effects: &mut Vec<Effect>) {
        let Some(machine) = self.machines.get_mut(id) else { return };
        machine.is_busy = false;
        let memory = self.memory.entry(machine.record.kind.clone()).or_default();
        memory.make_s = Some(now_s.saturating_sub(machine.record.born_s));
        (memory.failures, memory.not_before_s, memory.last_fault) = (0, 0, None);
        self.set(id, Stage::Warm { since_s: now_s }, effects);
    }

    fn not_made(
        &mut self,
        id: &MachineId,
        (why, is_final, wait_s): (String, bool, Option<u64>),
        now_s: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(machine) = self.machines.get_mut(id) else { return };
        machine.is_busy = false;
        let kind = machine.record.kind.clone();
        let memory = self.memory.entry(kind.clone()).or_default();
        memory.failures += 1;
        let pause = if is_final { PAUSE_S.1 } else { pause_after(memory.failures) };
        memory.not_before_s = now_s + pause.max(wait_s.unwrap_or(0).min(PAUSE_S.1));
        memory.last_fault = Some(why.clone());
        self.remove(id, Why::NotMade, effects);
        if is_final {
            self.refuse(|waiter| waiter.wish.kind == kind, |_| why.clone(), effects);
        }
    }

    fn not_handed(&mut self, id: &MachineId, now_s: u64, effects: &mut Vec<Effect>) {
        let Some(Machine { record, .. }) = self.machines.get(id) else { return };
        let Stage::Given { to, .. } = &record.stage else { return };
        let wish = Wish { kind: record.kind.clone(), holder: to.clone() };
        self.remove(id, Why::Died, effects);
        self.waiting.push_front(Waiter { wish, since_s: now_s });
    }

    fn removed(&mut self, id: &MachineId, effects: &mut Vec<Effect>) {
        if matches!(self.stage(id), Some(Stage::Removing { .. })) {
            self.machines.remove(id);
            effects.push(Effect::Erase { id: id.clone() });
        }
    }

    fn not_removed(&mut self, id: &MachineId, now_s: u64) {
        if let Some(machine) = self.machines.get_mut(id) {
            machine.is_busy = false;
            machine.failures += 1;
            machine.not_before_s = now_s + pause_after(machine.failures);
        }
    }

    fn surveyed(&mut self, asked: u64, present: &BTreeSet<MachineId>, now_s: u64, effects: &mut Vec<Effect>) {
        self.is_surveyed = true;
        let absent = |machine: &&Machine| {
            let is_whole = matches!(machine.record.stage, Stage::Warm { .. } | Stage::Given { .. });
            is_whole && machine.changed < asked.max(1) && !present.contains(&machine.record.id)
        };
        let absent: Vec<_> = self.machines.values().filter(absent).map(|machine| machine.record.id.clone()).collect();
        absent.iter().for_each(|id| self.remove(id, Why::Died, effects));
        for id in present.iter().filter(|id| !self.machines.contains_key(id)).cloned().collect::<Vec<_>>() {
            let kind = Kind { class: String::new(), image: String::new() };
            let stage = Stage::Removing { why: Why::Unknown };
            let record = Record { version: Record::VERSION, id: id.clone(), kind, born_s: now_s, stage };
            effects.push(Effect::Write(record.clone()));
            let machine = Machine { record, is_busy: false, changed: self.mark, failures: 0, not_before_s: 0 };
            self.machines.insert(id.clone(), machine);
            self.begin_removal(&id, effects);
        }
    }

    /// What goes by itself: what a dead process was making, what is old, what is not wanted; and removals that are due.
    fn clean(&mut self, now_s: u64, effects: &mut Vec<Effect>) {
        let ids: Vec<MachineId> = self.machines.keys().cloned().collect();
        for id in ids {
            // Judged one after the other: each that goes may spare the next one.
            if let Some(why) = self.machines.get(&id).and_then(|machine| self.doom(machine, now_s)) {
                self.remove(&id, why, effects);
            }
        }
        let due = |machine: &&Machine| machine.not_before_s <= now_s;
        for id in self.machines.values().filter(due).map(|machine| machine.record.id.clone()).collect::<Vec<_>>() {
            self.begin_removal(&id, effects);
        }
    }

    fn doom(&self, machine: &Machine, now_s: u64) -> Option<Why> {
        let record = &machine.record;
        match &record.stage {
            Stage::Making if !machine.is_busy => Some(Why::Interrupted),
            Stage::Warm { .. } if self.is_emptied => Some(Why::Ending),
            Stage::Warm { since_s } if now_s.saturating_sub(*since_s) >= self.rules.recycle_after.as_secs() => {
                // One by one, so that a pool is never empty because all its machines were born together.
                self.is_calm(&record.kind).then_some(Why::Recycled)
            }
            Stage::Given { since_s, .. } if now_s.saturating_sub(*since_s) >= self.rules.oldest.as_secs() => {
                Some(Why::TooOld)
            }
            _ => None,
        }
    }

    fn is_calm(&self, kind: &Kind) -> bool {
        let moves = |record: &&Record| matches!(record.stage, Stage::Making | Stage::Removing { .. });
        !self.records().filter(moves).any(|record| record.kind == *kind)
    }

    /// First come, first served; the machine that has waited longest first.
    fn hand_out(&mut self, now_s: u64, effects: &mut Vec<Effect>) {
        if !self.is_surveyed {
            return;
        }
        let mut still = VecDeque::new();
        while let Some(waiter) = self.waiting.pop_front() {
            let Some(id) = self.oldest_warm(&waiter.wish.kind) else {
                still.push_back(waiter);
                continue;
            };
            let Waiter { wish, since_s } = waiter;
            let ticket = wish.holder.ticket.clone();
            if self.set(&id, Stage::Given { to: wish.holder, since_s: now_s }, effects) {
                effects.push(Effect::Hand { ticket, id, waited_s: now_s.saturating_sub(since_s) });
            }
        }
        self.waiting = still;
    }

    fn oldest_warm(&self, kind: &Kind) -> Option<MachineId> {
        let warm = self.records().filter(|record| record.kind == *kind).filter_map(|record| match record.stage {
            Stage::Warm { since_s } => Some((since_s, &record.id)),
            _ => None,
        });
        warm.min().map(|(_, id)| id.clone())
    }

    fn give_up_waiting(&mut self, now_s: u64, effects: &mut Vec<Effect>) {
        let patience = self.rules.patience.as_secs();
        let faults: BTreeMap<Kind, String> =
            self.memory.iter().filter_map(|(kind, memory)| Some((kind.clone(), memory.last_fault.clone()?))).collect();
        let why = |waiter: &Waiter| {
            let kind = &waiter.wish.kind;
            let because = faults.get(kind).map_or_else(
                || "all that the quotas allow are in use; give the pool a larger quota, or try later".to_owned(),
                |fault| format!("the last one was not made: {fault}"),
            );
            format!("no machine ({kind}) was ready within {patience} s: {because}")
        };
        self.refuse(|waiter| now_s.saturating_sub(waiter.since_s) >= patience, why, effects);
    }

    fn refuse(&mut self, which: impl Fn(&Waiter) -> bool, why: impl Fn(&Waiter) -> String, effects: &mut Vec<Effect>) {
        let waiting = std::mem::take(&mut self.waiting);
        let (refused, still): (VecDeque<_>, VecDeque<_>) = waiting.into_iter().partition(|waiter| which(waiter));
        self.waiting = still;
        for waiter in refused {
            let why = why(&waiter);
            effects.push(Effect::Refuse { ticket: waiter.wish.holder.ticket, why });
        }
    }

    /// Makes what is missing, removes what is too much.
    fn scale(&mut self, now_s: u64, new_id: &mut dyn FnMut() -> MachineId, effects: &mut Vec<Effect>) {
        // Of before a restart, it is not known yet what is there.
        if !self.is_surveyed {
            return;
        }
        let waiting = |core: &Self, kind: &Kind| core.counts(now_s).get(kind).map_or(0, |counts| counts.waiting);
        let kinds = self.kinds();
        for kind in &kinds {
            let enough = waiting(self, kind);
            self.make(kind, enough, now_s, new_id, effects);
        }
        self.make_room(now_s, effects);
        for kind in &kinds {
            let wanted = self.wanted(kind, waiting(self, kind), now_s);
            self.make(kind, wanted, now_s, new_id, effects);
            self.shrink(kind, wanted, now_s, effects);
        }
    }

    fn kinds(&self) -> BTreeSet<Kind> {
        let of_waiters = self.waiting.iter().map(|waiter| &waiter.wish.kind);
        let of_rules = self.rules.prescaled.iter().map(|entry| &entry.kind);
        let of_strangers = |kind: &&Kind| kind.image.is_empty();
        let of_records = self.records().map(|record| &record.kind).filter(|kind| !of_strangers(kind));
        of_waiters.chain(of_rules).chain(of_records).cloned().collect()
    }

    fn wanted(&mut self, kind: &Kind, waiting: u32, now_s: u64) -> u32 {
        if self.is_emptied {
            return 0;
        }
        let memory = self.memory.entry(kind.clone()).or_default();
        memory.takes.retain(|take| now_s.saturating_sub(*take) < WINDOW_S);
        let make_s = memory.make_s.unwrap_or(USUAL_MAKE_S);
        // To the nearest: one job in ten minutes keeps no machine ready for the next.
        let foreseen = (memory.takes.len() as u64 * make_s + WINDOW_S / 2) / WINDOW_S;
        let foreseen = u32::try_from(foreseen).unwrap_or(u32::MAX);
        self.rules.wanted(kind, Demand { waiting, foreseen }, now_s)
    }

    fn make(
        &mut self,
        kind: &Kind,
        wanted: u32,
        now_s: u64,
        new_id: &mut dyn FnMut() -> MachineId,
        effects: &mut Vec<Effect>,
    ) {
        if self.memory.get(kind).is_some_and(|memory| memory.not_before_s > now_s) {
            return;
        }
        let counts = self.counts(now_s);
        let of_kind = counts.get(kind).copied().unwrap_or_default();
        let total: u32 = counts.values().map(Counts::all).sum();
        let making: u32 = counts.values().map(|counts| counts.making).sum();
        let missing = wanted
            .saturating_sub(of_kind.making + of_kind.warm)
            .min(self.rules.quota_of(kind).saturating_sub(of_kind.all()))
            .min(self.rules.quota.saturating_sub(total))
            .min(self.rules.at_once.saturating_sub(making));
        for _ in 0..missing {
            let id = new_id();
            let record = Record {
                version: Record::VERSION,
                id: id.clone(),
                kind: kind.clone(),
                born_s: now_s,
                stage: Stage::Making,
            };
            effects.push(Effect::Write(record.clone()));
            effects.push(Effect::Make { id: id.clone(), kind: kind.clone() });
            let machine = Machine { record, is_busy: true, changed: self.mark, failures: 0, not_before_s: 0 };
            self.machines.insert(id, machine);
        }
    }

    /// Somebody waits, and the quota is full of machines that nobody waits for: one of them goes.
    fn make_room(&mut self, now_s: u64, effects: &mut Vec<Effect>) {
        let counts = self.counts(now_s);
        let total: u32 = counts.values().map(Counts::all).sum();
        let goes_already = counts.values().any(|counts| counts.removing > 0);
        let starves = |(kind, counts): (&Kind, &Counts)| {
            counts.waiting > counts.making && counts.all() < self.rules.quota_of(kind)
        };
        if total < self.rules.quota || goes_already || !counts.iter().any(starves) {
            return;
        }
        let unwanted = counts.iter().filter(|(_, counts)| counts.waiting == 0 && counts.warm > 0);
        if let Some(id) = unwanted.max_by_key(|(_, counts)| counts.warm).and_then(|(kind, _)| self.oldest_warm(kind)) {
            self.remove(&id, Why::Surplus, effects);
        }
    }

    fn shrink(&mut self, kind: &Kind, wanted: u32, now_s: u64, effects: &mut Vec<Effect>) {
        let warm = self.counts(now_s).get(kind).map_or(0, |counts| counts.warm);
        let surplus_after = self.rules.surplus_after.as_secs();
        let memory = self.memory.entry(kind.clone()).or_default();
        if warm <= wanted {
            memory.surplus_since_s = None;
            return;
        }
        let since = *memory.surplus_since_s.get_or_insert(now_s);
        if now_s.saturating_sub(since) < surplus_after {
            return;
        }
        for _ in wanted..warm {
            if let Some(id) = self.oldest_warm(kind) {
                self.remove(&id, Why::Surplus, effects);
            }
        }
    }
}

fn pause_after(failures: u32) -> u64 {
    let (first, longest) = PAUSE_S;
    first.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(longest)
}
