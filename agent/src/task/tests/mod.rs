//! Tasks from claim to removal on a fake environment: no engine, no clock that goes on by itself.

pub mod bench;
mod endings;
mod holding;
mod kinds;
mod passing;
mod preparing;

use navvy_job::compiled::{Origin, Run, Step, StepKind, When};

pub use bench::Bench;

fn step(name: &str, kind: StepKind) -> Step {
    Step { kind, name: name.to_owned(), when: When::OnSuccess, origin: Origin::default() }
}

/// `run: COMMAND`; its name is the command.
pub fn run(command: &str) -> Step {
    step(command, StepKind::Run(Run::new(command)))
}

impl Saying for Step {
    fn when(self, when: When) -> Step {
        Step { when, ..self }
    }

    fn with(mut self, change: impl FnOnce(&mut Run)) -> Step {
        if let StepKind::Run(run) = &mut self.kind {
            change(run);
        }
        self
    }
}

/// More to say of a step.
trait Saying: Sized {
    fn when(self, when: When) -> Step;
    /// Of a `run` step.
    fn with(self, change: impl FnOnce(&mut Run)) -> Step;
}
