//! Who gets which machine, and who gets none.

use std::collections::{BTreeMap, VecDeque};

use super::super::record::{Record, Stage, Why};
use super::super::rules::Kind;
use super::{Core, Effect, Machine, Waiter, Wish};
use crate::machine_id::MachineId;

impl Core {
    pub(super) fn take(&mut self, wish: Wish, now_s: u64, effects: &mut Vec<Effect>) {
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

    pub(super) fn given_back(&mut self, ticket: &str, effects: &mut Vec<Effect>) {
        self.waiting.retain(|waiter| waiter.wish.holder.ticket != ticket);
        let has_it = |record: &&Record| matches!(&record.stage, Stage::Given { to, .. } if to.ticket == ticket);
        let ids: Vec<_> = self.records().filter(has_it).map(|record| record.id.clone()).collect();
        ids.iter().for_each(|id| self.remove(id, Why::Used, effects));
    }

    pub(super) fn not_handed(&mut self, id: &MachineId, now_s: u64, effects: &mut Vec<Effect>) {
        let Some(Machine { record, .. }) = self.machines.get(id) else { return };
        let Stage::Given { to, .. } = &record.stage else { return };
        let wish = Wish { kind: record.kind.clone(), holder: to.clone() };
        self.remove(id, Why::Died, effects);
        self.waiting.push_front(Waiter { wish, since_s: now_s });
    }

    /// First come, first served; the machine that has waited longest first.
    pub(super) fn hand_out(&mut self, now_s: u64, effects: &mut Vec<Effect>) {
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

    pub(super) fn oldest_warm(&self, kind: &Kind) -> Option<MachineId> {
        let warm = self.records().filter(|record| record.kind == *kind).filter_map(|record| match record.stage {
            Stage::Warm { since_s } => Some((since_s, &record.id)),
            _ => None,
        });
        warm.min().map(|(_, id)| id.clone())
    }

    pub(super) fn give_up_waiting(&mut self, now_s: u64, effects: &mut Vec<Effect>) {
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

    pub(super) fn refuse(
        &mut self,
        which: impl Fn(&Waiter) -> bool,
        why: impl Fn(&Waiter) -> String,
        effects: &mut Vec<Effect>,
    ) {
        let waiting = std::mem::take(&mut self.waiting);
        let (refused, still): (VecDeque<_>, VecDeque<_>) = waiting.into_iter().partition(|waiter| which(waiter));
        self.waiting = still;
        for waiter in refused {
            let why = why(&waiter);
            effects.push(Effect::Refuse { ticket: waiter.wish.holder.ticket, why });
        }
    }
}
