//! What becomes of a machine that is there: it is ready, it failed, it is removed, it goes by itself.

use std::collections::BTreeSet;

use super::super::record::{Record, Stage, Why};
use super::super::rules::Kind;
use super::{Core, Effect, Machine, PAUSE_S, pause_after};
use crate::machine_id::MachineId;

impl Core {
    pub(super) fn made(&mut self, id: &MachineId, now_s: u64, effects: &mut Vec<Effect>) {
        let Some(machine) = self.machines.get_mut(id) else { return };
        machine.is_busy = false;
        let memory = self.memory.entry(machine.record.kind.clone()).or_default();
        memory.make_s = Some(now_s.saturating_sub(machine.record.born_s));
        (memory.failures, memory.not_before_s, memory.last_fault) = (0, 0, None);
        self.set(id, Stage::Warm { since_s: now_s }, effects);
    }

    pub(super) fn not_made(
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

    pub(super) fn removed(&mut self, id: &MachineId, effects: &mut Vec<Effect>) {
        if matches!(self.stage(id), Some(Stage::Removing { .. })) {
            self.machines.remove(id);
            effects.push(Effect::Erase { id: id.clone() });
        }
    }

    pub(super) fn not_removed(&mut self, id: &MachineId, now_s: u64) {
        if let Some(machine) = self.machines.get_mut(id) {
            machine.is_busy = false;
            machine.failures += 1;
            machine.not_before_s = now_s + pause_after(machine.failures);
        }
    }

    pub(super) fn surveyed(
        &mut self,
        asked: u64,
        present: &BTreeSet<MachineId>,
        now_s: u64,
        effects: &mut Vec<Effect>,
    ) {
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
    pub(super) fn clean(&mut self, now_s: u64, effects: &mut Vec<Effect>) {
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
}
