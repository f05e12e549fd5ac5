//! The reservation: what a fleet's host keeps for coordination (the scheduler's client, the engine, agents, uploads), and what that
//! leaves for tasks. One piece of arithmetic for the task driver, the runner and `navvy host nomad-config`.
//!
//! ```text
//! whole machine ─ reservation = room ─ sizes of running tasks = free        a task starts if its size fits into what is free
//! ```

use crate::figures;
use crate::resource::Size;

/// Machines up to this size are tested; what is larger works by the same arithmetic and is untried.
pub const LARGEST_TESTED: Size = Size::new(64, 128);

/// What is kept for coordination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation(pub Size);

impl Default for Reservation {
    /// 2 vCPU and 4 GiB.
    fn default() -> Self {
        Self(Size::new(2, 4))
    }
}

/// A machine that has nothing left for tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this machine is too small: it has {} CPUs and {}, and {} CPUs and {} are reserved for what is not a task",
    figures::cpus(.whole.millicpus), figures::bytes(.whole.memory), figures::cpus(.reserved.millicpus), figures::bytes(.reserved.memory)
)]
pub struct TooSmall {
    /// The machine.
    pub whole: Size,
    /// What it would keep.
    pub reserved: Size,
}

/// A task that would eat into the reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the task wants {} CPUs and {}, and {} CPUs and {} are free beside the reservation and the tasks that run",
    figures::cpus(.wanted.millicpus), figures::bytes(.wanted.memory), figures::cpus(.free.millicpus), figures::bytes(.free.memory)
)]
pub struct NoRoom {
    /// The task's size.
    pub wanted: Size,
    /// What is left.
    pub free: Size,
}

impl Reservation {
    /// What tasks may have of a machine together.
    ///
    /// # Errors
    /// Nothing is left of CPUs or memory.
    pub fn room(self, whole: Size) -> Result<Size, TooSmall> {
        let room = whole.minus(self.0);
        match room.millicpus > 0 && room.memory > 0 {
            true => Ok(room),
            false => Err(TooSmall { whole, reserved: self.0 }),
        }
    }
}

/// Does a task fit beside those that run?
///
/// # Errors
/// It does not.
pub fn admit(wanted: Size, room: Size, running: impl IntoIterator<Item = Size>) -> Result<(), NoRoom> {
    let used = running.into_iter().fold(Size { millicpus: 0, memory: 0 }, Size::plus);
    let free = room.minus(used);
    match wanted.fits(free) {
        true => Ok(()),
        false => Err(NoRoom { wanted, free }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resource::{docker_class, docker_class_names};

    proptest! {
        /// Hosts from a quarter of a CPU to 64 CPUs and 128 GiB, tasks of all classes coming and going: together they never get more
        /// than the reservation leaves, and what fits is let in.
        #[test]
        fn tasks_never_get_more_than_the_rest(
            millicpus in 250..=LARGEST_TESTED.millicpus, mib in 256..=(LARGEST_TESTED.memory >> 20),
            reserved_millicpus in 0..8000_u64, reserved_mib in 0..16_384_u64,
            moves in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..200),
        ) {
            let whole = Size { millicpus, memory: mib << 20 };
            let reserved = Size { millicpus: reserved_millicpus, memory: reserved_mib << 20 };
            let Ok(room) = Reservation(reserved).room(whole) else {
                prop_assert!(whole.millicpus <= reserved.millicpus || whole.memory <= reserved.memory);
                return Ok(());
            };
            let classes: Vec<Size> = docker_class_names().filter_map(docker_class).collect();
            let mut running: Vec<Size> = Vec::new();
            for (index, ends) in moves {
                if ends && !running.is_empty() {
                    running.swap_remove(index.index(running.len()));
                    continue;
                }
                let wanted = classes[index.index(classes.len())];
                let used = running.iter().copied().fold(Size { millicpus: 0, memory: 0 }, Size::plus);
                let admitted = admit(wanted, room, running.iter().copied());
                prop_assert_eq!(admitted.is_ok(), used.plus(wanted).plus(reserved).fits(whole));
                if admitted.is_ok() {
                    running.push(wanted);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_figures() {
        let told = Reservation::default().room(Size::new(2, 16)).unwrap_err().to_string();
        assert!(told.contains("too small") && told.contains("2 CPUs"), "{told}");
        let told = admit(Size::new(4, 8), Size::new(6, 12), [Size::new(4, 8)]).unwrap_err().to_string();
        assert!(told.contains("wants 4 CPUs") && told.contains("2 CPUs"), "{told}");
    }
}
