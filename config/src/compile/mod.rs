//! Third stage: the plain tree to the types of `navvy_job`, every value checked.

mod docker;
mod duration;
mod environment;
mod executor;
mod fields;
mod filter;
mod group;
mod job;
mod names;
mod requires;
mod resource;
mod run;
mod step;
mod workflow;

use std::collections::BTreeSet;

use navvy_job::pipeline::{Pipeline, Workflow};

use crate::diagnostic::{Diagnostic, Span};
use crate::resolve::{Context, PlainPipeline};

/// The language's limit on different contexts.
const MOST_CONTEXTS: usize = 100;

/// The pipeline. Meaningful only if nothing was reported as an error.
pub(crate) fn compile(context: &Context<'_>, plain: PlainPipeline) -> Pipeline {
    let spans: Vec<Span> = plain.workflows.iter().map(|workflow| workflow.span).collect();
    let workflows: Vec<Workflow> =
        plain.workflows.into_iter().map(|plain| workflow::workflow(context, plain)).collect();
    if plain.setup {
        check_setup(context, &workflows, &spans);
    }
    check_contexts(context, &workflows, &spans);
    for unused in &plain.unused.jobs {
        let _ = job::job(context, unused);
    }
    for unused in &plain.unused.steps {
        let _ = step::step(context, unused);
    }
    Pipeline { setup: plain.setup, workflows }
}

/// A setup config makes one config: one workflow at most runs, and none by the clock.
fn check_setup(context: &Context<'_>, workflows: &[Workflow], spans: &[Span]) {
    let mut running = workflows.iter().zip(spans).filter(|(workflow, _)| workflow.selected.is_selected());
    if let (Some((first, _)), Some((second, span))) = (running.next(), running.next()) {
        let message = format!("of a setup config one workflow may run, but `{}` and `{}` do", first.name, second.name);
        let help = "choose with `when` which one runs";
        context.report(Diagnostic::error("several-workflows", *span, message).help(help));
    }
    for (workflow, span) in workflows.iter().zip(spans).filter(|(workflow, _)| !workflow.schedules.is_empty()) {
        let message = format!("workflow `{}` of a setup config cannot run on schedule", workflow.name);
        context.report(Diagnostic::error("scheduled-setup", *span, message));
    }
}

fn check_contexts(context: &Context<'_>, workflows: &[Workflow], spans: &[Span]) {
    let mut names = BTreeSet::new();
    for (workflow, span) in workflows.iter().zip(spans) {
        let before = names.len();
        names.extend(workflow.jobs.iter().flat_map(|job| &job.contexts));
        if before <= MOST_CONTEXTS && names.len() > MOST_CONTEXTS {
            let message =
                format!("with workflow `{}` the config names more than {MOST_CONTEXTS} contexts", workflow.name);
            context.report(Diagnostic::error("too-many-contexts", *span, message));
        }
    }
}
