//! How many machines a task has, waits for and has begun to ask for: what a token is good for here (pure, in memory).
//!
//! What it has is the pool's to say. The rest is lost with the process, and so are those who wait.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use navvy_job::claim::Claim;
use navvy_job::compiled::{Executor, StepKind};
use navvy_job::resource::DEFAULT_MACHINE_CLASS;
use navvy_vm::MachineId;
use navvy_vm_image::table::DEFAULT;

/// Machines that a task may begin to ask for, one after the other, for each that it may have at once: one that has died is asked for
/// anew.
const TRIES: u32 = 8;

/// A task, as the agent has it that got it as the `fence`-th.
pub(super) type Whose = (String, u64);

/// Machines that a job may have at once: the one of its steps, or the one of `setup_remote_docker`.
pub(super) fn most_of(claim: &Claim) -> usize {
    let is_remote_docker = |kind: &StepKind| matches!(kind, StepKind::SetupRemoteDocker { .. });
    match &claim.job.executor {
        Executor::Machine { .. } => 1,
        Executor::Docker { .. } => usize::from(claim.job.steps.iter().any(|step| is_remote_docker(&step.kind))),
        Executor::Macos { .. } => 0,
    }
}

/// Of which class a job's machine is: its own, or the one of every `setup_remote_docker`.
pub(super) fn class_of(claim: &Claim) -> &str {
    let own = match claim.job.executor {
        Executor::Machine { .. } => claim.job.resource_class.as_deref(),
        Executor::Docker { .. } | Executor::Macos { .. } => None,
    };
    own.unwrap_or(DEFAULT_MACHINE_CLASS)
}

/// The config's own name of the image of a job's machine; `None`: its steps run in none.
pub(super) fn image_of(claim: &Claim) -> Option<&str> {
    match &claim.job.executor {
        Executor::Machine { image, .. } => Some(image.as_deref().unwrap_or(DEFAULT)),
        Executor::Docker { .. } | Executor::Macos { .. } => None,
    }
}

/// Those who ask.
#[derive(Debug, Default)]
pub(super) struct Takers {
    of: HashMap<Whose, Taker>,
    /// Machines whose giving stands in the audit log.
    noted: HashSet<MachineId>,
}

#[derive(Debug, Default)]
struct Taker {
    /// Calls that wait by each ticket.
    waiting: BTreeMap<String, u32>,
    /// Tickets that were asked for.
    tickets: BTreeSet<String>,
}

/// Why a task does not get another one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Its job has no use for any.
    #[error("this task's job has no machine: neither its executor nor a `setup_remote_docker` step asks for one")]
    NoUse,
    /// It has as many as it may have.
    #[error("this task has or awaits {most} of at most {most} machines: give one back first")]
    Enough {
        /// How many it may have.
        most: usize,
    },
    /// It has asked for one after the other.
    #[error("this task has asked for {tries} machines, and gets no more")]
    Tries {
        /// How many.
        tries: u32,
    },
}

impl Takers {
    /// One asks by this ticket, and waits from now on; `most`: how many machines the task may have.
    pub(super) fn enter(&mut self, whose: &Whose, ticket: &str, most: usize) -> Result<(), Refused> {
        if most == 0 {
            return Err(Refused::NoUse);
        }
        let tries = u32::try_from(most).unwrap_or(u32::MAX).saturating_mul(TRIES);
        let taker = self.of.entry(whose.clone()).or_default();
        if !taker.waiting.contains_key(ticket) && taker.waiting.len() >= most {
            return Err(Refused::Enough { most });
        }
        if !taker.tickets.contains(ticket) && taker.tickets.len() >= tries as usize {
            return Err(Refused::Tries { tries });
        }
        taker.tickets.insert(ticket.to_owned());
        *taker.waiting.entry(ticket.to_owned()).or_default() += 1;
        Ok(())
    }

    /// May who has entered have one more, or the same one again? `given`: tickets by which the task has machines, asked for after it
    /// has entered: of two that ask at once, one sees the other, waiting or given.
    pub(super) fn admit(&self, whose: &Whose, ticket: &str, given: &[String], most: usize) -> Result<(), Refused> {
        let waiting = self.of.get(whose).into_iter().flat_map(|taker| taker.waiting.keys());
        let others: BTreeSet<&String> = given.iter().chain(waiting).filter(|other| *other != ticket).collect();
        match others.len() < most || given.iter().any(|given| given == ticket) {
            true => Ok(()),
            false => Err(Refused::Enough { most }),
        }
    }

    /// One waits no more by it.
    pub(super) fn leave(&mut self, whose: &Whose, ticket: &str) {
        let Some(taker) = self.of.get_mut(whose) else { return };
        if let Some(calls) = taker.waiting.get_mut(ticket) {
            *calls -= 1;
            if *calls == 0 {
                taker.waiting.remove(ticket);
            }
        }
    }

    /// Is this giving in the audit log?
    pub(super) fn is_noted(&self, id: &MachineId) -> bool {
        self.noted.contains(id)
    }

    /// It is.
    pub(super) fn note(&mut self, id: MachineId) {
        self.noted.insert(id);
    }

    /// Nothing is remembered but of tasks that have their lease, and of machines that are in somebody's hands.
    pub(super) fn forget(&mut self, has_lease: impl Fn(&Whose) -> bool, is_given: impl Fn(&MachineId) -> bool) {
        self.of.retain(|whose, taker| !taker.waiting.is_empty() || has_lease(whose));
        self.noted.retain(is_given);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(task: &str) -> Whose {
        (task.to_owned(), 1)
    }

    #[test]
    fn a_task_has_as_many_as_its_job_and_asks_again_by_the_same_ticket() {
        let (mut takers, one) = (Takers::default(), whose("one"));
        assert_eq!(takers.enter(&one, "a", 0), Err(Refused::NoUse));
        takers.enter(&one, "a", 1).unwrap();
        takers.enter(&one, "a", 1).unwrap();
        takers.admit(&one, "a", &[], 1).unwrap();
        takers.leave(&one, "a");
        assert_eq!(takers.enter(&one, "b", 1), Err(Refused::Enough { most: 1 }), "the second call waits by it");
        takers.enter(&whose("two"), "b", 1).unwrap();
        takers.leave(&one, "a");
        let given = ["a".to_owned()];
        takers.enter(&one, "b", 1).unwrap();
        assert_eq!(takers.admit(&one, "b", &given, 1), Err(Refused::Enough { most: 1 }), "it has that machine");
        takers.admit(&one, "b", &given, 2).unwrap();
        takers.leave(&one, "b");
        takers.enter(&one, "a", 1).unwrap();
        takers.admit(&one, "a", &given, 1).unwrap();
    }

    #[test]
    fn a_thousand_takes_come_to_an_end_and_are_forgotten_with_the_task() {
        let (mut takers, one) = (Takers::default(), whose("one"));
        let ask = |takers: &mut Takers, nth: u32| {
            let ticket = format!("t{nth}");
            let entered = takers.enter(&one, &ticket, 1);
            takers.leave(&one, &ticket);
            entered
        };
        let given = (0..1000).filter(|nth| ask(&mut takers, *nth).is_ok()).count();
        assert_eq!(given, TRIES as usize);
        assert_eq!(ask(&mut takers, 1000), Err(Refused::Tries { tries: TRIES }));
        ask(&mut takers, 0).unwrap();
        takers.note(MachineId::random());
        takers.forget(|_| true, |_| true);
        assert_eq!((takers.of.len(), takers.noted.len()), (1, 1));
        takers.forget(|_| false, |_| false);
        assert!(takers.of.is_empty() && takers.noted.is_empty());
    }
}
