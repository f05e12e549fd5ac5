//! A task from where another agent of it was killed: the same lease, the same environment, the same logs.
//!
//! ```text
//! Found ─▶ has the processor the lease still? ─ no ─▶ what runs is ended, the spool stays
//!             │ yes: how far it has each log, and the events
//!             ▼
//!          logs cut to what was acknowledged ─▶ delivery on from there ─▶ task::go_on ─▶ as any task
//! ```

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use navvy_job::event::LogEnd;
use navvy_output::mask::{MaskedIn, Masks};
use navvy_protocol::processor::v1::GetMarksRequest;
use tokio::sync::{mpsc, watch};

use super::{Carried, Carrying, tell_stop};
use crate::bus::{self, Bus};
use crate::fleet::connection::unary;
use crate::fleet::delivery::{Ending, Left, name_of};
use crate::fleet::left::{self, Found};
use crate::fleet::persist::{Halt, persist};
use crate::fleet::record::{self, Followers, LogNews, Recorded};
use crate::scheduled::Onlooker;
use crate::task::{self, Inherited, Leaving, LeftLogs, Occupancy, TaskResult, Turn, ends_in};

impl Carrying {
    /// What another agent of the task has left, and how far the processor has it.
    pub(super) async fn go_on(self, found: Found, occupancy: Occupancy) -> Carried {
        let call = || {
            let mut agents = self.session.agents();
            async move { unary(agents.get_marks(GetMarksRequest {})).await }
        };
        // The first word of the processor that the lease holds: before it nothing of the task is touched.
        let marks = match persist(&self.session, &self.lost, call).await {
            Ok(marks) => marks,
            Err(halt) => return self.leave_to_nobody(found, halt).await,
        };
        tracing::warn!(task = %found.task, "The agent of a task was killed; this one goes on with it.");
        let logs = match found.take_up_logs().await {
            Ok(logs) => logs,
            Err(why) => {
                return self.take_away(&found, format!("logs that its agent left could not be taken up: {why}")).await;
            }
        };
        let place = found.place.clone();
        let masks = Masks::new(&found.caller.masked);
        let _hidden = (self.machine.hide)(&masks);
        let (bus, events) = bus::channel(masks.clone());
        let (recorded, seen) = watch::channel(Recorded::default());
        let (names, news) = mpsc::unbounded_channel();
        let onlooker = self.machine.scheduled.onlooker.clone();
        if let Some(onlooker) = &onlooker {
            tell_of_step(onlooker, &found, &masks);
        }
        let followers = Followers { recorded, state: self.state.clone(), logs: names.clone(), onlooker };
        if let Err(error) = record::resume(events, &record::path_in(&place.run), followers) {
            let why = format!("the events that another agent of the task has left cannot be read: {error}");
            return self.take_away(&found, why).await;
        }
        let marks: BTreeMap<String, u64> = marks.marks.into_iter().map(|mark| (mark.log, mark.durable)).collect();
        let ends = match ends_in(&place.logs).await {
            Ok(ends) => ends,
            Err(error) => {
                return self.take_away(&found, format!("logs that its agent left cannot be read: {error}")).await;
            }
        };
        let (waiting, again) = tell_of_logs(&ends, &marks, &names);
        drop(names);
        self.spool.take_up(waiting, again);
        let lines = seen.borrow().lines;
        let delivery = self.deliver(&place, seen.clone(), news, Left { lines, marks });
        let ended = self.run_on(found, logs, bus, occupancy).await;
        self.end(ended, delivery, &seen, &place).await
    }

    /// Nobody can go on with it: what runs is ended, and the processor is told why.
    async fn take_away(&self, found: &Found, fault: String) -> Carried {
        self.remove(found).await;
        self.refuse(fault).await
    }

    async fn remove(&self, found: &Found) {
        for left in left::remove(&self.machine, &found.task, &found.journal).await {
            tracing::error!("{left} is still there. `navvy prune` removes it.");
        }
    }

    /// The lease is lost, or the processor does not take this agent for the task's: what runs is ended. The spool stays.
    async fn leave_to_nobody(self, found: Found, halt: Halt) -> Carried {
        self.remove(&found).await;
        match halt {
            Halt::Lost => Carried::Lost { why: "its lease was over before this agent could go on with it".to_owned() },
            other => Carried::Unreported { why: other.to_string() },
        }
    }

    /// The same from where another agent was killed on.
    async fn run_on(&self, found: Found, logs: LeftLogs, bus: Bus, occupancy: Occupancy) -> TaskResult {
        let telling = Ending(tokio::spawn(tell_stop(self.stop.subscribe(), bus.clone(), self.spool.clone())));
        let Found { task, left, caller, journal, containers, link, place, .. } = found;
        let (store, checkout) = self.store_and_tree(caller.tree.clone());
        let (is_left, sparing) = self.spare(task);
        is_left.send_replace(true);
        let mut context = self.context(&place, bus, checkout, store, caller.config_name.clone());
        context.providers = self.providers(caller.has_pool);
        context.leaving = serde_json::to_string(&caller).ok().map(|caller| Leaving { caller: caller.into(), is_left });
        let has_begun = left.progress.step > 0;
        let turn = if has_begun { Turn::Now(occupancy) } else { Turn::Ask(self.asking(occupancy)) };
        let inherited = Inherited { left, logs, journal, containers, link };
        let (result, removal) = task::go_on(inherited, context, turn).boxed().await;
        sparing.end().await;
        if let Some(removal) = removal {
            removal.carry_out().await;
        }
        drop(telling);
        result
    }
}

/// A step's name may hold a secret.
fn tell_of_step(onlooker: &Onlooker, found: &Found, masks: &Masks) {
    let (steps, number) = (&found.left.note.claim.job.steps, found.left.progress.step);
    let name = number.checked_sub(1).and_then(|index| Some(steps.get(index)?.name.as_str()));
    let name = name.map(|name| masks.text(|| MaskedIn::of_run("step name"), name));
    onlooker.goes_on(steps.len(), name.as_deref().map(|name| (number, name)));
}

/// Tells the delivery which logs there are. Returns how many of their bytes are not durable, and how many that are durable were
/// taken back.
fn tell_of_logs(ends: &[LogEnd], marks: &BTreeMap<String, u64>, names: &mpsc::UnboundedSender<LogNews>) -> (u64, u64) {
    let (mut waiting, mut again) = (0, 0);
    for end in ends {
        let Some(name) = name_of(&end.log) else { continue };
        let durable = marks.get(&name).copied().unwrap_or(0);
        waiting += end.bytes.saturating_sub(durable);
        again += durable.saturating_sub(end.bytes);
        names.send(LogNews::Begins(name.clone())).ok();
        if end.sha256.is_some() {
            names.send(LogNews::Pauses(name)).ok();
        }
    }
    (waiting, again)
}
