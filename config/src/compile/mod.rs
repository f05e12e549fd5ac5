//! Third stage: the plain tree to the types of `navvy_job`, every value checked.

mod caps;
mod docker;
mod duration;
mod environment;
mod executor;
mod fields;
mod filter;
mod filter_shape;
mod group;
mod job;
mod names;
mod paths;
mod pattern;
mod requires;
mod resource;
mod run;
mod step;
mod workflow;

use std::collections::BTreeSet;

use navvy_job::outcome::JobStatus;
use navvy_job::pipeline::{Pipeline, Requirement, Workflow};

use crate::diagnostic::Diagnostic;
use crate::resolve::{Context, PlainJob, PlainPipeline, PlainWorkflow, PlainWorkflowJob, Reach};
pub use filter::NO_BRANCH;
pub(crate) use filter::{Pushed, Verdict, verdict};
pub(crate) use job::Parts;
pub(crate) use names::Names;

/// The language's limit on different contexts.
const MOST_CONTEXTS: usize = 100;

/// The pipeline. Meaningful only if nothing was reported as an error.
pub(crate) fn compile(context: &Context<'_>, plain: &PlainPipeline) -> Pipeline {
    let workflows: Vec<Workflow> = plain.workflows.iter().map(|plain| workflow::workflow(context, plain)).collect();
    if plain.setup {
        check_setup(context, &workflows, &plain.workflows);
    }
    check_contexts(context, &workflows, &plain.workflows);
    caps::check_tasks(context, &workflows, &plain.workflows);
    for (standing, unused) in &plain.unused.jobs {
        let _ = context.within(standing.clone(), || job::job(context, unused));
    }
    for (standing, unused) in &plain.unused.steps {
        context.within(standing.clone(), || {
            for unused in unused {
                let _ = step::step(context, unused);
            }
        });
    }
    Pipeline { setup: plain.setup, workflows }
}

/// A setup config makes one config: one workflow at most runs, and none by the clock.
fn check_setup(context: &Context<'_>, workflows: &[Workflow], plain: &[PlainWorkflow]) {
    let mut running = workflows.iter().zip(plain).filter(|(workflow, _)| workflow.selected.is_selected());
    if let (Some((first, _)), Some((second, plain))) = (running.next(), running.next()) {
        let message = format!("of a setup config one workflow may run, but `{}` and `{}` do", first.name, second.name);
        let help = "choose with `when` which one runs";
        context.report(Diagnostic::error("several-workflows", plain.span, message).help(help));
    }
    for (workflow, plain) in workflows.iter().zip(plain).filter(|(workflow, _)| !workflow.schedules.is_empty()) {
        let message = format!("workflow `{}` of a setup config cannot run on schedule", workflow.name);
        let diagnostic = Diagnostic::error("scheduled-setup", plain.span, message);
        context.within(plain.standing.clone(), || context.report(diagnostic));
    }
}

/// Counts the contexts of the workflows that their conditions let through: no others are written out.
fn check_contexts(context: &Context<'_>, workflows: &[Workflow], plain: &[PlainWorkflow]) {
    let mut names = BTreeSet::new();
    let counted = workflows.iter().zip(plain).filter(|(_, plain)| plain.standing.reach == Reach::Full);
    for (workflow, plain) in counted {
        let before = names.len();
        names.extend(workflow.jobs.iter().flat_map(|job| &job.contexts));
        if before <= MOST_CONTEXTS && names.len() > MOST_CONTEXTS {
            let message =
                format!("with workflow `{}` the config names more than {MOST_CONTEXTS} contexts", workflow.name);
            context.report(Diagnostic::error("too-many-contexts", plain.span, message));
        }
    }
}

/// The jobs of a workflow by name, of a pipeline in which nothing is wrong.
pub(crate) fn names(context: &Context<'_>, jobs: &[PlainWorkflowJob]) -> Names {
    Names::new(context, jobs)
}

/// Indices of required jobs, those that are left out included, and how each may have ended.
pub(crate) type Requires = Vec<(usize, BTreeSet<JobStatus>)>;

/// What the job at `index` of a workflow requires.
pub(crate) fn requires(context: &Context<'_>, jobs: &[PlainWorkflowJob], index: usize, names: &Names) -> Requires {
    let edges = workflow::edges(context, jobs, index, names);
    edges.into_iter().map(|edge| (edge.to, edge.statuses)).collect()
}

/// The pipeline with requirements on jobs that are left out.
pub(crate) fn with_all_requirements(context: &Context<'_>, plain: &PlainPipeline, mut pipeline: Pipeline) -> Pipeline {
    // What is flawed may go in circles.
    let whole = pipeline.workflows.iter_mut().zip(&plain.workflows).filter(|(workflow, _)| !workflow.flawed);
    for (workflow, plain) in whole {
        let names = names(context, &plain.jobs);
        for (index, job) in workflow.jobs.iter_mut().enumerate() {
            let required = requires(context, &plain.jobs, index, &names).into_iter();
            job.requires =
                required.map(|(to, statuses)| Requirement { job: names.unique()[to].clone(), statuses }).collect();
        }
    }
    pipeline
}

/// A job's keys over those of its executor, and the environment of both.
pub(crate) fn plain_job(context: &Context<'_>, job: &PlainJob) -> Parts {
    job::parts(context, job)
}
