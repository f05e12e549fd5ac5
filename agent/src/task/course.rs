//! Where a task stands. The table of moves decides; only the state that holds is reported.

use navvy_job::event::Event;
use navvy_job::outcome::Verdict;
use navvy_job::state::{IllegalMove, TaskState};

use crate::step::voice::Voice;

/// A task's state, and who learns of it.
pub struct Course {
    state: TaskState,
    voice: Voice,
}

impl Course {
    pub fn new(voice: Voice) -> Self {
        Self { state: TaskState::Claimed, voice }
    }

    pub fn state(&self) -> TaskState {
        self.state
    }

    /// Makes a move and tells of it.
    ///
    /// # Errors
    /// An illegal move is a bug of ours: the state stays, the other one is not reported, and `verdict` is an infra fault
    /// from here on.
    ///
    /// # Panics
    /// In a build with debug assertions on an illegal move, so that no test passes over it.
    pub fn enter(&mut self, next: TaskState, verdict: &mut Verdict) -> Result<(), IllegalMove> {
        let moved = self.state.moved_to(next);
        match moved {
            Ok(state) => {
                self.state = state;
                self.voice.bus.send(Event::TaskState { task: self.voice.task.clone(), state });
                Ok(())
            }
            Err(illegal) => {
                let fault = format!("a bug in Navvy: {illegal}");
                tracing::error!(task = %self.voice.task.task, "{fault}");
                *verdict = Verdict::Infra { fault };
                debug_assert!(moved.is_ok(), "{illegal}");
                Err(illegal)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use navvy_job::event::{JobRef, TaskRef};
    use navvy_output::mask::Masks;

    use super::*;
    use crate::bus::{self, Events};

    fn course() -> (Course, Events) {
        let (bus, events) = bus::channel(Masks::default());
        let job = JobRef { workflow: "w".to_owned(), job: "build".to_owned() };
        let task = TaskRef { task: "0123456789abcdef".parse().unwrap(), job, node_index: 0, node_total: 1 };
        (Course::new(Voice::new(bus, task)), events)
    }

    /// The states that were told of.
    fn told(events: &Events) -> Vec<TaskState> {
        let mut states = Vec::new();
        while let Ok(Some(stamped)) = events.next(Duration::ZERO) {
            if let Event::TaskState { state, .. } = stamped.event {
                states.push(state);
            }
        }
        states
    }

    #[test]
    fn legal_moves_are_made_and_told() {
        let (mut course, events) = course();
        let mut verdict = Verdict::Passed;
        let moves = [TaskState::Preparing, TaskState::Running, TaskState::Finishing];
        for next in moves {
            assert!(course.enter(next, &mut verdict).is_ok());
            assert_eq!(course.state(), next);
        }
        assert_eq!(verdict, Verdict::Passed);
        assert_eq!(told(&events), moves);
    }

    #[test]
    fn an_illegal_move_is_not_made_nor_told_and_is_a_fault_of_ours() {
        let (mut course, events) = course();
        let mut verdict = Verdict::Failed { step: 1, name: "Test".to_owned() };
        // A build with debug assertions panics once all of that is settled.
        let moved = catch_unwind(AssertUnwindSafe(|| course.enter(TaskState::Finishing, &mut verdict)));
        assert_eq!(moved.is_err(), cfg!(debug_assertions));
        assert!(moved.is_err() || moved.is_ok_and(|moved| moved.is_err()));
        assert_eq!(course.state(), TaskState::Claimed);
        let fault = "a bug in Navvy: a task cannot move from Claimed to Finishing".to_owned();
        assert_eq!(verdict, Verdict::Infra { fault });
        assert_eq!(told(&events), []);
    }
}
