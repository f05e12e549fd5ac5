//! States of tasks and steps, with their tables of legal moves.
//!
//! ```text
//! Task: Claimed → Preparing → Running → Finishing → Reporting → Releasing → Done
//!          └──────────┴─────────┴───────────┴──────────▲  (any fault or cancel goes to Reporting)
//!                                           └→ Kept ───┘ └────────────────────▲
//!                                              its environment is held for a person: there is nothing to release
//! Step: Pending → Running → Draining → Exited
//!          │         └→ Terminating ─▲
//!          └→ Skipped
//! ```
//!
//! The table stands once, here, and is checked where the state is stored ([`Tracked`]).

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
    Kept,
    /// Nothing of the job runs any more and its output is flushed; the verdict is being told.
    Reporting,
    /// The verdict is told; the environment is being destroyed.
    Releasing,
    Done,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    Pending,
    Running,
    /// Being stopped by us.
    Terminating,
    /// Its process ended; what it wrote is still being read.
    Draining,
    Exited,
    Skipped,
}

/// A set of states whose moves are checked.
pub trait State: Copy + PartialEq + std::fmt::Debug + 'static {
    const MOVES: &'static [(Self, Self)];

    fn may_become(self, next: Self) -> bool {
        Self::MOVES.contains(&(self, next))
    }
}

impl State for TaskState {
    const MOVES: &'static [(Self, Self)] = &[
        (Self::Claimed, Self::Preparing),
        (Self::Claimed, Self::Reporting),
        (Self::Preparing, Self::Running),
        (Self::Preparing, Self::Reporting),
        (Self::Running, Self::Finishing),
        (Self::Running, Self::Reporting),
        (Self::Finishing, Self::Reporting),
        (Self::Finishing, Self::Kept),
        (Self::Kept, Self::Reporting),
        (Self::Reporting, Self::Releasing),
        // Of a task that is held.
        (Self::Reporting, Self::Done),
        (Self::Releasing, Self::Done),
    ];
}

impl State for StepState {
    const MOVES: &'static [(Self, Self)] = &[
        (Self::Pending, Self::Running),
        (Self::Pending, Self::Skipped),
        (Self::Running, Self::Terminating),
        (Self::Running, Self::Draining),
        // The supervisor was lost, or never started it: there is nothing left to drain.
        (Self::Running, Self::Exited),
        (Self::Terminating, Self::Draining),
        (Self::Terminating, Self::Exited),
        (Self::Draining, Self::Exited),
    ];
}

/// A move that the table does not have: a bug of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("illegal move from {from} to {to}")]
pub struct IllegalMove {
    from: String,
    to: String,
}

/// Holds a state and lets it move only as the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked<S>(S);

impl<S: State> Tracked<S> {
    pub fn new(start: S) -> Self {
        Self(start)
    }

    pub fn get(&self) -> S {
        self.0
    }

    pub fn advance(&mut self, next: S) -> Result<(), IllegalMove> {
        if !self.0.may_become(next) {
            return Err(IllegalMove { from: format!("{:?}", self.0), to: format!("{next:?}") });
        }
        self.0 = next;
        Ok(())
    }
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
        TaskState::Kept,
        TaskState::Reporting,
        TaskState::Releasing,
        TaskState::Done,
    ];
    const STEP: [StepState; 6] = [
        StepState::Pending,
        StepState::Running,
        StepState::Terminating,
        StepState::Draining,
        StepState::Exited,
        StepState::Skipped,
    ];

    /// Walks with random wishes; the tracked state only ever makes moves of the table, and never goes back.
    fn walk<S: State>(start: S, wishes: &[S], rank: impl Fn(S) -> usize) {
        let mut state = Tracked::new(start);
        for wish in wishes {
            let before = state.get();
            match state.advance(*wish) {
                Ok(()) => {
                    assert!(before.may_become(*wish));
                    assert!(rank(*wish) > rank(before), "{before:?} went back to {wish:?}");
                }
                Err(_) => assert_eq!(state.get(), before),
            }
        }
    }

    proptest! {
        #[test]
        fn tasks_only_move_forward(wishes in prop::collection::vec(prop::sample::select(&TASK[..]), 0..40)) {
            walk(TaskState::Claimed, &wishes, |s| TASK.iter().position(|t| *t == s).unwrap());
        }

        #[test]
        fn steps_only_move_forward(wishes in prop::collection::vec(prop::sample::select(&STEP[..]), 0..40)) {
            walk(StepState::Pending, &wishes, |s| STEP.iter().position(|t| *t == s).unwrap());
        }
    }

    #[test]
    fn every_task_tells_its_verdict_and_then_releases_what_it_holds() {
        for state in &TASK[..5] {
            assert!(state.may_become(TaskState::Reporting), "{state:?} has no way to tell a verdict");
            assert!(!state.may_become(TaskState::Releasing), "{state:?} would be released before its verdict is told");
        }
        assert!(TaskState::Reporting.may_become(TaskState::Releasing));
        assert!(TaskState::Releasing.may_become(TaskState::Done));
    }

    #[test]
    fn ended_steps_stay_ended() {
        for next in STEP {
            assert!(!StepState::Exited.may_become(next));
            assert!(!StepState::Skipped.may_become(next));
        }
    }
}
