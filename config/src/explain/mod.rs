//! Why a job runs, or not, and which line gave it each value: `navvy config explain`.
//!
//! ```text
//! plain tree, record ──┐
//! compiled pipeline  ──┴─▶ why (workflow, filters, requirements), values (parameters, executor, environment, steps)
//! ```

mod values;
mod why;

use navvy_job::pipeline::{Pipeline, Workflow};

use crate::Outcome;
use crate::input::{Inputs, Source};
use crate::neighbour::nearest;
use crate::process::Comments;
use crate::resolve::{Context, PlainPipeline, PlainWorkflow};

/// What there is to say of the jobs of one name.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The pipeline and all diagnostics.
    pub outcome: Outcome,
    /// One for each job of that name, or made from the job of that name, in every workflow.
    pub found: Vec<Explanation>,
    /// The name nearest to one that no job has.
    pub neighbour: Option<String>,
}

/// One job of one workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Name of the workflow.
    pub workflow: String,
    /// Name of the job in the workflow.
    pub job: String,
    /// Would a push of this branch or tag run it?
    pub runs: bool,
    /// One reason a line, in the order in which they decide.
    pub why: Vec<String>,
    /// What it is made of.
    pub values: Vec<ExplainedValue>,
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedValue {
    /// "image", "environment LANG", "parameter `os`".
    pub name: String,
    /// As the job sees it.
    pub value: String,
    /// Where it was written, in words.
    pub from: String,
}

/// Explains the jobs named `job`, in `workflow` or in all.
pub fn explain(source: &Source<'_>, inputs: &Inputs, job: &str, workflow: Option<&str>) -> Explained {
    let (mut found, mut neighbour) = (Vec::new(), None);
    let outcome = crate::compile_with(source, inputs, true, &mut |context, plain, pipeline| {
        let story = Story::new(source.name, context, plain, pipeline);
        let wanted = |at: &usize| workflow.is_none_or(|name| pipeline.workflows[*at].name == name);
        let workflows: Vec<usize> = (0..pipeline.workflows.len()).filter(wanted).collect();
        found = story.find(&workflows, job);
        neighbour = if found.is_empty() { story.neighbour(&workflows, job) } else { None };
    });
    Explained { outcome, found, neighbour }
}

/// All that is known of a pipeline.
struct Story<'s> {
    comments: Comments<'s>,
    plain: &'s PlainPipeline,
    pipeline: &'s Pipeline,
}

impl<'s> Story<'s> {
    fn new(name: &'s str, context: &'s Context<'s>, plain: &'s PlainPipeline, pipeline: &'s Pipeline) -> Self {
        let comments = Comments { context, source: name, wanted: true, record: context.recorded() };
        Self { comments, plain, pipeline }
    }

    /// A job's own name counts first, then what it is made from.
    fn find(&self, workflows: &[usize], name: &str) -> Vec<Explanation> {
        let by_name =
            self.matching(workflows, |workflow, index| self.pipeline.workflows[workflow].jobs[index].name == name);
        if !by_name.is_empty() {
            return by_name;
        }
        self.matching(workflows, |workflow, index| {
            let job = &self.plain.workflows[workflow].jobs[index];
            &*job.definition == name || &*job.name == name || job.alias.as_deref() == Some(name)
        })
    }

    fn matching(&self, workflows: &[usize], wanted: impl Fn(usize, usize) -> bool) -> Vec<Explanation> {
        let indices = |&at: &usize| (0..self.pipeline.workflows[at].jobs.len()).map(move |index| (at, index));
        workflows
            .iter()
            .flat_map(indices)
            .filter(|&(workflow, index)| wanted(workflow, index))
            .map(|(workflow, index)| self.explanation(workflow, index))
            .collect()
    }

    fn neighbour(&self, workflows: &[usize], name: &str) -> Option<String> {
        let jobs = workflows.iter().flat_map(|&at| &self.pipeline.workflows[at].jobs);
        let names = jobs.flat_map(|job| [job.name.as_str(), job.definition.as_str()]);
        nearest(name, names).map(str::to_owned)
    }

    fn explanation(&self, workflow: usize, index: usize) -> Explanation {
        let (compiled, plain) = (&self.pipeline.workflows[workflow], &self.plain.workflows[workflow]);
        let job = &compiled.jobs[index];
        Explanation {
            workflow: compiled.name.clone(),
            job: job.name.clone(),
            runs: compiled.selected.is_selected() && job.selected.is_selected(),
            why: self.why(compiled, plain, index),
            values: values::values(&self.comments, &plain.jobs[index], job),
        }
    }

    fn why(&self, compiled: &Workflow, plain: &PlainWorkflow, index: usize) -> Vec<String> {
        why::Why { comments: &self.comments, compiled, plain }.reasons(index)
    }
}

#[cfg(test)]
mod tests;
