//! The workflows of a continuation join the run.

use navvy_job::event::Event;
use navvy_job::walk::{Effect, Happening, JobKey, Part, TaskKey};

use super::continuing::{Continued, Second};
use super::run::{GoOn, PipelineRun};

impl PipelineRun {
    /// Takes in the workflows of a task's continuation.
    pub(super) fn go_on(&mut self, task: TaskKey, go_on: &mut GoOn<'_>) -> Vec<Effect> {
        self.finished.was_continued = true;
        let job = self.walk.reference(task.job).job;
        let continued = match self.continuations.remove(&task) {
            Some(continuation) => go_on(&continuation),
            None => Err("what it goes on with is lost".to_owned()),
        };
        match continued {
            Ok(continued) => self.join(continued),
            Err(why) => {
                self.warn(format!("the pipeline cannot go on after {job}: {why}"));
                self.finished.fidelity.add(format!("the pipeline did not go on after {job}: {why}"));
                self.walk.handle(Happening::NotContinued)
            }
        }
    }

    /// There is one continuation; a later job gets a warning.
    pub(super) fn refuse_to_go_on(&self, job: JobKey) {
        let job = self.walk.reference(job).job;
        self.warn(format!(
            "{job} continues the pipeline, which was continued before: only the first continuation counts"
        ));
    }

    fn join(&mut self, continued: Continued) -> Vec<Effect> {
        let Continued { workflows, builtins, config, source, warnings } = continued;
        self.finished.fidelity.extend(workflows.iter().flat_map(|chosen| chosen.notes.clone()).chain(warnings.clone()));
        let parts: Vec<Part> = workflows.iter().map(|chosen| self.plan.part(chosen)).collect();
        let jobs = parts.iter().flat_map(Part::references).collect();
        self.bus.send(Event::PipelineContinued { config: config.clone(), jobs });
        self.second = Some(Second { first: self.plan.workflows.len(), builtins, config, source });
        self.plan.workflows.extend(workflows);
        warnings.into_iter().for_each(|warning| self.warn(warning));
        self.walk.handle(Happening::Continued { parts })
    }

    fn warn(&self, message: String) {
        self.bus.send(Event::Warning { task: None, message });
    }
}
