//! How many machines there ought to be: what is missing is made, what is too much goes.

use std::collections::BTreeSet;

use super::super::record::{Record, Stage, Why};
use super::super::rules::{Demand, Kind};
use super::{Core, Counts, Effect, Machine};
use crate::machine_id::MachineId;

/// Takes of so many seconds say what to expect.
const WINDOW_S: u64 = 600;
/// What a machine takes to be made, until one was.
const USUAL_MAKE_S: u64 = 60;

impl Core {
    /// Makes what is missing, removes what is too much.
    pub(super) fn scale(&mut self, now_s: u64, new_id: &mut dyn FnMut() -> MachineId, effects: &mut Vec<Effect>) {
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
