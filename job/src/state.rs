//! States of tasks, with their table of legal moves.
//!
//! ```text
//! Claimed → Preparing → Running → Finishing → Reporting → Releasing → Done
//!    └──────────┴─────────┴───────────┴──────────▲  (any fault or cancel goes to Reporting)
//!                                     └→ Held ───┘ └────────────────────▲
//!                                        for a person: there is nothing to release
//! ```
//!
//! The table stands once, here, and every move asks it ([`TaskState::moved_to`]).

use serde::{Deserialize, Serialize};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Ours, nothing made yet.
    Claimed,
    /// Environment being made.
    Preparing,
    /// Steps running.
    Running,
    /// Steps ended; what they left running is being ended, late output and results gathered.
    Finishing,
    /// Environment held for a person, in place of being destroyed.
    #[serde(rename = "kept")]
    Held,
    /// None of the job's processes runs any more and its output is flushed; the verdict is being reported.
    Reporting,
    /// The verdict is reported; the environment is being destroyed.
    Releasing,
    /// The environment is gone, or left to its hold.
    Done,
}

impl TaskState {
    /// Every legal move.
    pub const MOVES: [(Self, Self); 12] = [
        (Self::Claimed, Self::Preparing),
        (Self::Claimed, Self::Reporting),
        (Self::Preparing, Self::Running),
        (Self::Preparing, Self::Reporting),
        (Self::Running, Self::Finishing),
        (Self::Running, Self::Reporting),
        (Self::Finishing, Self::Reporting),
        (Self::Finishing, Self::Held),
        (Self::Held, Self::Reporting),
        (Self::Reporting, Self::Releasing),
        // The task is held.
        (Self::Reporting, Self::Done),
        (Self::Releasing, Self::Done),
    ];

    /// The state after a move.
    ///
    /// # Errors
    /// The table does not have it: the state that holds stays, and nothing that belongs to `next` may be done.
    pub fn moved_to(self, next: Self) -> Result<Self, IllegalMove> {
        match Self::MOVES.contains(&(self, next)) {
            true => Ok(next),
            false => Err(IllegalMove { from: self, to: next }),
        }
    }
}

/// A move that the table does not have: a bug of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task cannot move from {from:?} to {to:?}")]
pub struct IllegalMove {
    /// State that the task is in.
    pub from: TaskState,
    /// State that was asked for.
    pub to: TaskState,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TASK: [TaskState; 8] = [
        TaskState::Claimed,
        TaskState::Preparing,
        TaskState::Running,
        TaskState::Finishing,
        TaskState::Held,
        TaskState::Reporting,
        TaskState::Releasing,
        TaskState::Done,
    ];

    fn rank(state: TaskState) -> usize {
        TASK.iter().position(|other| *other == state).unwrap()
    }

    proptest! {
        #[test]
        fn tasks_only_move_forward_as_the_table_says(wishes in prop::collection::vec(prop::sample::select(&TASK[..]), 0..40)) {
            let mut state = TaskState::Claimed;
            for wish in wishes {
                match state.moved_to(wish) {
                    Ok(moved) => {
                        prop_assert!(TaskState::MOVES.contains(&(state, wish)) && moved == wish);
                        prop_assert!(rank(wish) > rank(state), "{state:?} went back to {wish:?}");
                        state = moved;
                    }
                    Err(illegal) => prop_assert_eq!(illegal, IllegalMove { from: state, to: wish }),
                }
            }
        }
    }

    #[test]
    fn every_task_tells_its_verdict_and_then_releases_what_it_holds() {
        let may = |from: TaskState, to| from.moved_to(to).is_ok();
        for state in TASK.into_iter().take(5) {
            assert!(may(state, TaskState::Reporting), "{state:?} has no way to tell a verdict");
            assert!(!may(state, TaskState::Releasing), "{state:?} would be released before its verdict is reported");
        }
        assert!(may(TaskState::Reporting, TaskState::Releasing) && may(TaskState::Releasing, TaskState::Done));
    }

    /// Users and journals know it by this name.
    #[test]
    fn a_held_task_is_written_as_kept() {
        assert_eq!(serde_json::to_string(&TaskState::Held).unwrap(), r#""kept""#);
    }
}
