//! What a runner's tasks take of its machine. Pure, but for the word that a task's steps are over.

use navvy_job::resource::Size;
use tokio::sync::mpsc::UnboundedSender;

/// What may be given to tasks, and what is.
#[derive(Debug)]
pub struct Room {
    all: Size,
    used: Size,
    /// Tasks whose end is not told yet.
    tasks: usize,
    most: usize,
    /// Tasks with machines whose steps are not over.
    machines: usize,
    most_machines: usize,
}

/// What one task takes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub size: Size,
    /// Its steps run in a virtual machine.
    pub has_machine: bool,
}

impl Share {
    /// Of a task of which nothing is known.
    pub const NONE: Self = Self { size: Size { millicpus: 0, memory: 0 }, has_machine: false };
}

/// What one task takes, until its steps are over.
#[derive(Debug)]
pub struct Place {
    share: Share,
    vacated: UnboundedSender<Share>,
}

impl Room {
    /// For so many tasks at most, and so many with machines among them.
    pub fn new(all: Size, most: usize, most_machines: Option<usize>) -> Self {
        let used = Share::NONE.size;
        Self { all, used, tasks: 0, most, machines: 0, most_machines: most_machines.unwrap_or(usize::MAX) }
    }

    /// What a further task may take. `None`: there shall be none now.
    pub fn offer(&self) -> Option<Size> {
        let free = self.all.minus(self.used);
        (self.tasks < self.most && free.millicpus > 0 && free.memory > 0).then_some(free)
    }

    /// May a further task have a machine?
    pub fn has_place_for_machine(&self) -> bool {
        self.machines < self.most_machines
    }

    /// A task is begun. It takes no more than there is.
    pub fn enter(&mut self, share: Share, vacated: UnboundedSender<Share>) -> Place {
        let share = Share { size: share.size.clamp_to(self.all.minus(self.used)), ..share };
        self.used = self.used.plus(share.size);
        self.machines += usize::from(share.has_machine);
        self.tasks += 1;
        Place { share, vacated }
    }

    /// The steps of a task with this share are over.
    pub fn leave(&mut self, share: Share) {
        self.used = self.used.minus(share.size);
        self.machines = self.machines.saturating_sub(share.has_machine.into());
    }

    /// A task's end is told.
    pub fn ended(&mut self) {
        self.tasks = self.tasks.saturating_sub(1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The runner may be gone.
        self.vacated.send(self.share).ok();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::mpsc;

    use super::*;

    proptest! {
        /// Whatever comes and goes: no more is given away than there is, nor to more tasks than allowed, and all of it comes back.
        #[test]
        fn no_more_is_given_than_there_is(
            moves in proptest::collection::vec((0..6_u64, 0..6_u64, any::<bool>(), any::<bool>()), 0..40),
        ) {
            let (vacated, mut free) = mpsc::unbounded_channel();
            let all = Size::new(4, 8);
            let mut room = Room::new(all, 3, Some(1));
            let mut places = Vec::new();
            for (cpus, gib, comes, is_machine) in moves {
                if comes && room.offer().is_some() {
                    let has_machine = is_machine && room.has_place_for_machine();
                    places.push(room.enter(Share { size: Size::new(cpus, gib), has_machine }, vacated.clone()));
                } else if let Some(place) = places.pop() {
                    drop(place);
                    room.leave(free.try_recv().unwrap());
                    room.ended();
                }
                prop_assert!(room.used.fits(all) && room.tasks == places.len() && room.tasks <= 3);
                let machines = places.iter().filter(|place| place.share.has_machine).count();
                prop_assert!(room.machines == machines && machines <= 1);
            }
            for place in places.drain(..) {
                drop(place);
                room.leave(free.try_recv().unwrap());
                room.ended();
            }
            prop_assert_eq!(room.offer(), Some(all));
            prop_assert!(room.has_place_for_machine());
        }
    }
}
