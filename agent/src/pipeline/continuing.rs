//! A setup pipeline that goes on: the workflows of another config join the run.

use std::path::PathBuf;
use std::sync::Arc;

use navvy_job::event::Event;
use navvy_job::selection::Chosen;
use navvy_job::workflow::Graph;
use navvy_protocol::supervisor::Continuation;

use super::runner::{Builtins, Runner};
use crate::task::{Context, HoldPolicy, SourceNote};

/// What joins the run.
pub struct Continued {
    pub workflows: Vec<Chosen>,
    pub builtins: Builtins,
    pub config: PathBuf,
    /// For a retry of one of its jobs.
    pub source: SourceNote,
    pub warnings: Vec<String>,
}

/// What is needed of it while it runs.
pub(super) struct Second {
    /// Workflows from this one on are the continuation's.
    first: usize,
    builtins: Builtins,
    config: PathBuf,
    source: SourceNote,
}

impl Second {
    /// The variables of a workflow's tasks, if it is of the continuation.
    pub fn builtins(&self, workflow: usize) -> Option<&Builtins> {
        (workflow >= self.first).then_some(&self.builtins)
    }

    /// Tasks of the continuation tell of its config, not of the setup's.
    pub fn adapt(&self, workflow: usize, context: &mut Context) {
        if workflow < self.first {
            return;
        }
        context.config_name =
            self.config.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        context.hold = Arc::new(HoldPolicy { source: self.source.clone(), ..(*context.hold).clone() });
    }
}

impl Runner {
    /// Takes the workflows in. There is one continuation; who comes later is told.
    pub(super) fn go_on(
        &mut self,
        job: &str,
        continuation: &Continuation,
        carry_out: &mut dyn FnMut(&Continuation) -> Result<Continued, String>,
    ) {
        self.finished.was_continued = true;
        if self.second.is_some() {
            return self.warn(format!("{job} continues the pipeline, which was continued before: nothing comes of it"));
        }
        match carry_out(continuation) {
            Ok(continued) => self.join(continued),
            Err(why) => {
                self.warn(format!("the pipeline cannot go on after {job}: {why}"));
                self.note(format!("the pipeline did not go on after {job}: {why}"));
            }
        }
    }

    fn join(&mut self, continued: Continued) {
        let Continued { workflows, builtins, config, source, warnings } = continued;
        let first = self.graphs.len();
        self.graphs.extend(workflows.iter().map(|chosen| Graph::new(&chosen.workflow, chosen.only.as_ref())));
        self.finished.fidelity.extend(workflows.iter().flat_map(|chosen| chosen.notes.clone()).chain(warnings.clone()));
        self.plan.workflows.extend(workflows);
        let jobs = self.job_references().split_off(self.jobs_before(first));
        self.bus.send(Event::PipelineContinued { config: config.clone(), jobs });
        self.second = Some(Second { first, builtins, config, source });
        warnings.into_iter().for_each(|warning| self.warn(warning));
    }

    fn jobs_before(&self, workflow: usize) -> usize {
        self.graphs.iter().take(workflow).map(|graph| graph.names().len()).sum()
    }

    fn warn(&self, message: String) {
        self.bus.send(Event::Warning { task: None, message });
    }
}
