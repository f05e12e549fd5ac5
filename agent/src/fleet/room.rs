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
}

/// What one task takes, until its steps are over.
#[derive(Debug)]
pub struct Place {
    size: Size,
    vacated: UnboundedSender<Size>,
}

impl Room {
    pub fn new(all: Size, most: usize) -> Self {
        Self { all, used: Size { millicpus: 0, memory: 0 }, tasks: 0, most }
    }

    /// What a further task may take. `None`: there shall be none now.
    pub fn offer(&self) -> Option<Size> {
        let free = self.all.minus(self.used);
        (self.tasks < self.most && free.millicpus > 0 && free.memory > 0).then_some(free)
    }

    /// A task is begun. It takes no more than there is.
    pub fn enter(&mut self, size: Size, vacated: UnboundedSender<Size>) -> Place {
        let size = size.clamp_to(self.all.minus(self.used));
        self.used = self.used.plus(size);
        self.tasks += 1;
        Place { size, vacated }
    }

    /// The steps of a task of this size are over.
    pub fn leave(&mut self, size: Size) {
        self.used = self.used.minus(size);
    }

    /// A task's end is told.
    pub fn ended(&mut self) {
        self.tasks = self.tasks.saturating_sub(1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The runner may be gone.
        self.vacated.send(self.size).ok();
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
        fn no_more_is_given_than_there_is(moves in proptest::collection::vec((0..6_u64, 0..6_u64, any::<bool>()), 0..40)) {
            let (vacated, mut free) = mpsc::unbounded_channel();
            let all = Size::new(4, 8);
            let mut room = Room::new(all, 3);
            let mut places = Vec::new();
            for (cpus, gib, comes) in moves {
                if comes && room.offer().is_some() {
                    places.push(room.enter(Size::new(cpus, gib), vacated.clone()));
                } else if let Some(place) = places.pop() {
                    drop(place);
                    room.leave(free.try_recv().unwrap());
                    room.ended();
                }
                prop_assert!(room.used.fits(all) && room.tasks == places.len() && room.tasks <= 3);
            }
            for place in places.drain(..) {
                drop(place);
                room.leave(free.try_recv().unwrap());
                room.ended();
            }
            prop_assert_eq!(room.offer(), Some(all));
        }
    }
}
