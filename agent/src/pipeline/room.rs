//! How much of the machine tasks take. Pure.
//!
//! Tasks start while the sum of their classes fits; a class larger than the machine is clamped; one task may always
//! run. A task whose virtual machine is elsewhere takes what its agent needs for it, and no more have one at once than the operator
//! says. `navvy run` keeps no reservation: fleet hosts do. A few of the tasks that wait are made ahead: their environments
//! take next to nothing until their steps run, and those then start at once.

use navvy_job::resource::Size;

use crate::settings::overcommit::Overcommit;
use tokio::sync::mpsc::UnboundedSender;

/// What a task takes of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub size: Size,
    /// It has a virtual machine, wherever that is.
    pub has_machine: bool,
}

/// The machine and what runs on it.
#[derive(Debug, Clone)]
pub struct Room {
    machine: Size,
    /// The part of the machine that may be given out.
    budget: Size,
    used: Size,
    /// Tasks whose steps are not over.
    inside: usize,
    /// Tasks that have no verdict.
    tasks: usize,
    max_tasks: usize,
    /// Tasks with virtual machines whose steps are not over.
    vms: usize,
    max_vms: usize,
}

impl Room {
    /// `max_tasks` of 0 means no other limit than the machine.
    pub fn new(machine: Size, overcommit: Overcommit, max_tasks: usize) -> Self {
        let budget = overcommit.of(machine);
        let (used, max_vms) = (Size { millicpus: 0, memory: 0 }, usize::MAX);
        Self { machine, budget, used, inside: 0, tasks: 0, max_tasks, vms: 0, max_vms }
    }

    /// No more tasks than this have virtual machines at once, if it says so.
    #[must_use]
    pub fn with_max_vms(self, most: Option<usize>) -> Self {
        Self { max_vms: most.unwrap_or(usize::MAX), ..self }
    }

    /// What a task of this class gets.
    pub fn clamp(&self, wanted: Size) -> Size {
        wanted.clamp_to(self.machine)
    }

    /// Takes room for a task of this (clamped) share, if there is some.
    pub fn enter(&mut self, share: Share) -> bool {
        let allowed = self.max_tasks == 0 || self.tasks < self.max_tasks;
        let entered = allowed && self.admit(share);
        if entered {
            self.tasks += 1;
        }
        entered
    }

    /// May a task be made whose steps wait for room? `waiting` of them do already. It counts from now on.
    pub fn enter_ahead(&mut self, waiting: usize) -> bool {
        let allowed = self.max_tasks == 0 || self.tasks < self.max_tasks;
        let as_many_as_could_run = (waiting as u64) < self.budget.millicpus.div_ceil(1000);
        if allowed && as_many_as_could_run {
            self.tasks += 1;
        }
        allowed && as_many_as_could_run
    }

    /// Why a task that did not get in has to wait, in words.
    pub fn why_not(&self, share: Share) -> &'static str {
        let is_capped = self.max_tasks != 0 && self.tasks >= self.max_tasks;
        match is_capped {
            true => "as many tasks run as --max-parallel allows",
            false if self.lacks_vm(share) => "as many jobs have virtual machines as [vm] of your settings allows",
            false => "no free processors or memory",
        }
    }

    fn lacks_vm(&self, share: Share) -> bool {
        share.has_machine && self.vms >= self.max_vms
    }

    /// Takes room for a task that was made ahead, if there is some.
    pub fn admit(&mut self, share: Share) -> bool {
        let fits = self.inside == 0 || self.used.plus(share.size).fits(self.budget);
        let is_admitted = fits && !self.lacks_vm(share);
        if is_admitted {
            self.used = self.used.plus(share.size);
            self.inside += 1;
            self.vms += usize::from(share.has_machine);
        }
        is_admitted
    }

    /// A task's steps are over: its share is free, it still counts.
    pub fn leave(&mut self, share: Share) {
        self.used = self.used.minus(share.size);
        self.inside = self.inside.saturating_sub(1);
        self.vms = self.vms.saturating_sub(share.has_machine.into());
    }

    /// A task that has left has its verdict, too. What is left to do for it, its removal, takes no room.
    pub fn ended(&mut self) {
        self.tasks = self.tasks.saturating_sub(1);
    }
}

/// What a task takes of the room. Dropped when its steps are over: what is left to do then takes no room, so the next task may
/// be made meanwhile.
#[derive(Debug)]
pub struct Occupancy {
    share: Share,
    vacated: UnboundedSender<Share>,
}

impl Occupancy {
    /// `vacated` gets the share once it is free.
    pub fn new(share: Share, vacated: UnboundedSender<Share>) -> Self {
        Self { share, vacated }
    }
}

impl Drop for Occupancy {
    fn drop(&mut self) {
        // Nothing receives it once the run is over.
        self.vacated.send(self.share).ok();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of a job in containers.
    fn share(cpus: u64, gib: u64) -> Share {
        Share { size: Size::new(cpus, gib), has_machine: false }
    }

    #[test]
    fn tasks_enter_while_they_fit() {
        let mut room = Room::new(Size::new(4, 8), Overcommit::default(), 0);
        let medium = share(2, 4);
        assert!(room.enter(medium));
        assert!(room.enter(medium));
        assert!(!room.enter(share(1, 1)));
        room.leave(medium);
        assert!(room.enter(share(1, 1)));
    }

    #[test]
    fn overbooked_processors_let_more_tasks_in_as_far_as_there_is_memory() {
        let size = share(2, 4);
        let entered = |machine, overcommit: &str| {
            let mut room = Room::new(machine, overcommit.parse().unwrap(), 0);
            // A task is never given more than the machine has.
            assert_eq!(room.clamp(Size::new(8, 64)), machine);
            (0..10).filter(|_| room.enter(size)).count()
        };
        assert_eq!((entered(Size::new(2, 24), "1"), entered(Size::new(2, 24), "2")), (1, 2));
        assert_eq!((entered(Size::new(2, 24), "3.5"), entered(Size::new(2, 24), "16")), (3, 6));
        assert_eq!(entered(Size::new(2, 4), "16"), 1);
    }

    #[test]
    fn a_task_whose_steps_are_over_takes_no_room_and_counts_until_its_verdict() {
        let size = share(2, 4);
        let (mut free, mut capped) =
            (Room::new(size.size, Overcommit::default(), 0), Room::new(size.size, Overcommit::default(), 1));
        assert!(free.enter(size) && capped.enter(size));
        free.leave(size);
        capped.leave(size);
        assert!(free.enter(size) && !capped.enter(size));
        capped.ended();
        assert!(capped.enter(size));
    }

    #[test]
    fn a_few_tasks_are_made_ahead_and_admitted_as_others_leave() {
        let size = share(2, 4);
        let mut room = Room::new(size.size, Overcommit::default(), 0);
        assert!(room.enter(size));
        assert!(room.enter_ahead(0) && room.enter_ahead(1) && !room.enter_ahead(2));
        assert!(!room.admit(size));
        room.leave(size);
        assert!(room.admit(size) && !room.admit(size));
        let mut capped = Room::new(size.size, Overcommit::default(), 1);
        assert!(capped.enter(size) && !capped.enter_ahead(0));
    }

    #[test]
    fn who_waits_is_told_for_what() {
        let mut free = Room::new(Size::new(2, 4), Overcommit::default(), 0);
        assert!(free.enter(share(2, 4)) && !free.enter(share(1, 1)));
        assert_eq!(free.why_not(share(1, 1)), "no free processors or memory");
        let mut capped = Room::new(Size::new(2, 4), Overcommit::default(), 1);
        assert!(capped.enter(share(1, 1)) && !capped.enter(share(1, 1)));
        assert_eq!(capped.why_not(share(1, 1)), "as many tasks run as --max-parallel allows");
    }

    #[test]
    fn one_task_may_always_run() {
        let mut room = Room::new(Size::new(1, 1), Overcommit::default(), 0);
        let size = room.clamp(Size::new(8, 16));
        assert_eq!(size, Size::new(1, 1));
        let share = Share { size, has_machine: false };
        assert!(room.enter(share));
        assert!(!room.enter(share));
    }

    #[test]
    fn no_more_jobs_have_machines_at_once_than_the_operator_says() {
        let machine = Share { size: Size { millicpus: 100, memory: 1 << 28 }, has_machine: true };
        let mut room = Room::new(Size::new(2, 4), Overcommit::default(), 0).with_max_vms(Some(2));
        assert!(room.enter(machine) && room.enter(machine) && !room.enter(machine));
        assert_eq!(room.why_not(machine), "as many jobs have virtual machines as [vm] of your settings allows");
        assert!(room.enter(share(1, 1)), "one in containers has room");
        room.leave(machine);
        assert!(room.enter(machine) && !room.enter(machine));
        assert_eq!(room.why_not(share(2, 1)), "no free processors or memory");
        let mut without_bound = Room::new(Size::new(2, 4), Overcommit::default(), 0).with_max_vms(None);
        assert_eq!((0..50).filter(|_| without_bound.enter(machine)).count(), 16, "as far as there is memory");
    }

    proptest! {
        #[test]
        fn the_machine_is_never_overbooked_by_more_than_one_task(
            wishes in prop::collection::vec((1u64..9, 1u64..17, any::<bool>()), 1..60),
        ) {
            let machine = Size::new(4, 8);
            let mut room = Room::new(machine, Overcommit::default(), 3);
            let mut inside = Vec::new();
            for (cpus, gib, leave) in wishes {
                if leave && let Some(share) = inside.pop() {
                    room.leave(share);
                    room.ended();
                }
                let share = Share { size: room.clamp(Size::new(cpus, gib)), has_machine: false };
                if room.enter(share) {
                    inside.push(share);
                }
                let sum = inside.iter().fold(Size { millicpus: 0, memory: 0 }, |sum, share| sum.plus(share.size));
                prop_assert!(sum.fits(machine) && inside.len() <= 3);
            }
        }
    }
}
