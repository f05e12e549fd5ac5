//! Tasks that wait for room on this machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use navvy_job::claim::{Claim, Secrets};
use navvy_job::compiled::Executor;
use navvy_job::event::{JobRef, TaskRef};
use navvy_job::walk::{JobKey, TaskKey};
use tokio::sync::{mpsc, oneshot};

use super::room::{Occupancy, Room, Share};
use crate::task::{self, Turn};

/// A task that waits for room.
pub(super) struct Queued {
    pub key: TaskKey,
    pub reference: TaskRef,
    pub claim: Claim,
    pub secrets: Secrets,
    pub class: String,
    pub image: Option<String>,
    pub steps: Vec<String>,
    pub notes: Vec<String>,
    /// What it takes of this machine. A virtual machine's memory counts whole, whatever is used of it.
    pub takes: Share,
}

impl Queued {
    /// Services and machines take processors and memory from their start on.
    fn may_be_made_ahead(&self) -> bool {
        matches!(&self.claim.job.executor, Executor::Docker { containers } if containers.len() == 1)
    }
}

/// Why jobs wait, as it was last reported.
#[derive(Debug, Default)]
struct Reasons {
    /// A task of them has started: they no longer wait, even if their other nodes do.
    started: BTreeSet<JobKey>,
    told: BTreeMap<JobKey, &'static str>,
}

impl Reasons {
    /// Is it news that this job waits for this reason?
    fn is_news(&mut self, job: JobKey, why: &'static str) -> bool {
        !self.started.contains(&job) && self.told.insert(job, why) != Some(why)
    }
}

/// The machine's room, and who waits for it.
pub(super) struct Queue {
    room: Room,
    waiting: VecDeque<Queued>,
    /// Tasks made ahead, whose steps wait for room.
    ahead: VecDeque<(Share, oneshot::Sender<task::Occupancy>)>,
    /// What tasks had whose steps are over.
    vacated: (mpsc::UnboundedSender<Share>, mpsc::UnboundedReceiver<Share>),
    reasons: Reasons,
}

impl Queue {
    pub fn new(room: Room) -> Self {
        let (vacated, reasons) = (mpsc::unbounded_channel(), Reasons::default());
        Self { room, waiting: VecDeque::new(), ahead: VecDeque::new(), vacated, reasons }
    }

    pub fn room(&self) -> &Room {
        &self.room
    }

    pub fn push(&mut self, queued: Queued) {
        self.waiting.push_back(queued);
    }

    /// It never starts.
    pub fn give_up(&mut self, task: TaskKey) {
        self.waiting.retain(|queued| queued.key != task);
    }

    /// The waiting tasks that start now, in order, as far as there is room.
    pub fn admit(&mut self) -> Vec<(Queued, Turn)> {
        self.admit_those_ahead();
        let (mut admitted, mut waiting) = (Vec::new(), VecDeque::new());
        while let Some(queued) = self.waiting.pop_front() {
            let share = queued.takes;
            if self.room.enter(share) {
                admitted.push((queued, Turn::Now(Box::new(self.occupancy(share)))));
            } else if queued.may_be_made_ahead() && self.room.enter_ahead(self.ahead.len()) {
                let (sender, receiver) = oneshot::channel();
                self.ahead.push_back((share, sender));
                admitted.push((queued, Turn::Later(receiver)));
            } else {
                waiting.push_back(queued);
            }
        }
        self.waiting = waiting;
        self.reasons.started.extend(admitted.iter().map(|(queued, _)| queued.key.job));
        admitted
    }

    /// Jobs that could not start, and why: each once for a reason.
    pub fn waits(&mut self) -> Vec<(JobRef, &'static str)> {
        let Self { room, waiting, reasons, .. } = self;
        let with_why = waiting.iter().map(|queued| (queued, room.why_not(queued.takes)));
        let news = with_why.filter(|(queued, why)| reasons.is_news(queued.key.job, why));
        news.map(|(queued, why)| (queued.reference.job.clone(), why)).collect()
    }

    /// A task that was prepared early comes before those that wait.
    fn admit_those_ahead(&mut self) {
        let mut waiting = VecDeque::new();
        while let Some((share, sender)) = self.ahead.pop_front() {
            // A closed one is over: its environment could not be made, say.
            if sender.is_closed() {
                continue;
            }
            if self.room.admit(share) {
                // A task that ends in this very moment gives its room back by dropping it.
                sender.send(Box::new(self.occupancy(share))).ok();
            } else {
                waiting.push_back((share, sender));
            }
        }
        self.ahead = waiting;
    }

    fn occupancy(&self, share: Share) -> Occupancy {
        Occupancy::new(share, self.vacated.0.clone())
    }

    /// Waits until a task's steps are over and its share is free.
    pub async fn vacated(&mut self) {
        // The sender at home keeps the channel open.
        if let Some(share) = self.vacated.1.recv().await {
            self.room.leave(share);
        }
    }

    /// A task that was admitted has its verdict.
    pub fn ended(&mut self) {
        self.room.ended();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_waits_once_for_a_reason_and_no_more_once_a_task_of_it_has_started() {
        let [first, second] = [0, 1].map(|job| JobKey { workflow: 0, job });
        let mut reasons = Reasons::default();
        assert!(reasons.is_news(first, "room") && reasons.is_news(second, "room"));
        // Another node, or another try.
        assert!(!reasons.is_news(first, "room"));
        assert!(reasons.is_news(first, "the cap") && !reasons.is_news(first, "the cap"));
        reasons.started.insert(first);
        assert!(!reasons.is_news(first, "room") && reasons.is_news(second, "the cap"));
    }
}
