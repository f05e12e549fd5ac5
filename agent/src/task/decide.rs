//! What to do about what happens while a step runs. Pure: no clock, no I/O.
//!
//! ```text
//! it runs ──its process ended──▶ over
//!    │ silence, cancel, job limit            ▲
//!    ▼                                       │
//! it is being ended ──its process ended──────┘
//! ```

use std::time::Duration;

use navvy_job::outcome::{Cancel, StepOutcome};
use navvy_protocol::supervisor::Exited;

use crate::step::bounded::Lost;
use crate::step::texts;

/// What happened.
#[derive(Debug, Clone)]
pub enum Happening {
    /// Its process ended.
    Exited(Exited),
    /// It never ran, or the supervisor is lost, or its log cannot be written: `reason` says which.
    Broken {
        reason: String,
        lost: Option<Lost>,
    },
    /// Nothing was written for the step's limit.
    Silence(Duration),
    JobLimit(Duration),
    Stop(Cancel),
    /// Stopping it is over, well or badly, and it should have ended by now.
    StopFailed {
        reason: String,
    },
}

/// What to do about it.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Wait,
    /// End it with everything it started; a second one comes with less grace.
    Terminate {
        grace: Duration,
    },
    Finish(Box<StepEnd>),
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepEnd {
    pub outcome: StepOutcome,
    pub exited: Option<Exited>,
    /// No further step can run.
    pub lost: Option<Lost>,
}

/// A step being watched.
#[derive(Debug)]
pub struct StepWatch {
    grace: Duration,
    /// Why it is being ended by us, if it is.
    ending: Option<StepOutcome>,
    /// What it was asked last.
    stop: Option<Cancel>,
}

impl StepWatch {
    pub fn new(grace: Duration) -> Self {
        Self { grace, ending: None, stop: None }
    }

    pub fn handle(&mut self, happening: Happening) -> Action {
        match happening {
            Happening::Exited(exited) => self.exited(exited),
            Happening::Broken { reason, lost } => self.broken(reason, lost),
            Happening::Silence(limit) => self.terminate(StepOutcome::NoOutput { limit }),
            Happening::JobLimit(limit) => self.terminate(StepOutcome::JobLimit { limit }),
            Happening::Stop(stop) => self.stop(stop),
            Happening::StopFailed { reason } => self.broken(reason, Some(Lost::Supervisor)),
        }
    }

    /// Is it being ended by us?
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    fn exited(&mut self, exited: Exited) -> Action {
        let outcome = self.ending.clone().unwrap_or_else(|| texts::outcome(&exited));
        Action::Finish(Box::new(StepEnd { outcome, exited: Some(exited), lost: None }))
    }

    fn broken(&mut self, reason: String, lost: Option<Lost>) -> Action {
        let outcome = self.ending.clone().unwrap_or(StepOutcome::Error { reason });
        Action::Finish(Box::new(StepEnd { outcome, exited: None, lost }))
    }

    /// The first reason stays.
    fn terminate(&mut self, why: StepOutcome) -> Action {
        if self.ending.is_some() {
            return Action::Wait;
        }
        self.ending = Some(why);
        Action::Terminate { grace: self.grace }
    }

    fn stop(&mut self, cancel: Cancel) -> Action {
        let is_stronger = self.stop.is_none_or(|before| cancel.at_once && !before.at_once);
        self.stop = Some(self.stop.map_or(cancel, |before| before.urged(cancel.at_once)));
        match (is_stronger, cancel.at_once) {
            (true, true) => {
                self.ending.get_or_insert(StepOutcome::Canceled);
                Action::Terminate { grace: Duration::ZERO }
            }
            (true, false) => self.terminate(StepOutcome::Canceled),
            (false, _) => Action::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use navvy_job::outcome::CancelReason;
    use navvy_protocol::supervisor::{Exit, Usage};
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);
    const GENTLY: Cancel = Cancel { reason: CancelReason::User, at_once: false };
    const AT_ONCE: Cancel = Cancel { reason: CancelReason::User, at_once: true };

    fn exited(exit: Exit) -> Exited {
        Exited {
            exit,
            output: 0,
            usage: Usage::default(),
            out_of_memory: None,
            halted: false,
            lacks: BTreeSet::new(),
            main_ended: None,
            left_running: 0,
        }
    }

    fn outcome(action: Action) -> StepOutcome {
        match action {
            Action::Finish(end) => end.outcome,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_silent_step_is_ended_and_keeps_that_reason() {
        let mut watch = StepWatch::new(GRACE);
        let limit = Duration::from_secs(600);
        assert_eq!(watch.handle(Happening::Silence(limit)), Action::Terminate { grace: GRACE });
        assert_eq!(watch.handle(Happening::Silence(limit)), Action::Wait);
        let end = outcome(watch.handle(Happening::Exited(exited(Exit::Signal(15)))));
        assert_eq!(end, StepOutcome::NoOutput { limit });
    }

    #[test]
    fn the_second_stop_is_without_grace() {
        let mut watch = StepWatch::new(GRACE);
        assert_eq!(watch.handle(Happening::Stop(GENTLY)), Action::Terminate { grace: GRACE });
        assert_eq!(watch.handle(Happening::Stop(AT_ONCE)), Action::Terminate { grace: Duration::ZERO });
        assert_eq!(watch.handle(Happening::Stop(AT_ONCE)), Action::Wait);
        assert_eq!(outcome(watch.handle(Happening::Exited(exited(Exit::Code(0))))), StepOutcome::Canceled);
    }

    fn happenings() -> impl Strategy<Value = Happening> {
        prop_oneof![
            Just(Happening::Silence(Duration::from_secs(1))),
            Just(Happening::JobLimit(Duration::from_secs(1))),
            Just(Happening::Stop(GENTLY)),
            Just(Happening::Stop(AT_ONCE)),
        ]
    }

    proptest! {
        #[test]
        fn a_step_is_asked_to_end_twice_at_most(happenings in prop::collection::vec(happenings(), 0..12)) {
            let mut watch = StepWatch::new(GRACE);
            let any = !happenings.is_empty();
            let asked = happenings
                .into_iter()
                .map(|happening| watch.handle(happening))
                .filter(|action| matches!(action, Action::Terminate { .. }))
                .count();
            prop_assert!(asked <= 2);
            let end = outcome(watch.handle(Happening::Exited(exited(Exit::Code(0)))));
            prop_assert_eq!(end.is_success(), !any);
        }
    }
}
