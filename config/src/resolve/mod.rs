//! Second stage: names to what they stand for.
//!
//! Takes the tree of the file and leaves a plain one, of the shape of a version 2 config: pipeline parameters first,
//! then for every workflow its jobs, each with its parameters replaced, its executor found, its commands written
//! out, its conditions decided, its matrix spread. Everything keeps its place and the trail that led there.

mod anchors;
mod bind;
mod check;
mod context;
mod executor;
mod expression;
mod group;
mod invocation;
mod job;
mod library;
mod logic;
mod matrix;
mod orb;
mod parameter;
mod pipeline;
mod plain;
mod reach;
mod record;
mod rules;
mod schedule;
mod scope;
mod steps;
mod substitute;
mod template;
mod trail;
mod value;
mod workflow;

pub(crate) use context::{Context, Resolved};
pub(crate) use orb::top as orb_top;
pub(crate) use parameter::is_variable_name;
#[cfg(test)]
pub(crate) use plain::BUILT_INS;
pub(crate) use plain::{
    Action, BuiltIn, GroupRole, InGroup, PlainExecutor, PlainFilters, PlainJob, PlainKind, PlainPipeline, PlainStep,
    PlainWorkflow, PlainWorkflowJob,
};
pub(crate) use reach::Reach;
pub(crate) use record::{Condition, Record, Whence};
pub(crate) use template::references;
pub(crate) use trail::Trail;

use crate::diagnostic::{Diagnostic, Span};
use crate::syntax::Map;
use library::Library;
use orb::Home;
use scope::Scope;

/// The plain tree of a config. What is wrong is reported, and left out or broken.
pub(crate) fn resolve(context: &Context<'_>, root: &Map, span: Span) -> PlainPipeline {
    let parameters = if context.templates { pipeline::parameters(context, root) } else { Default::default() };
    // Set once, before anything can ask for it.
    let _ = context.parameters.set(parameters);
    let library = Library::read(context, root, &Home::default());
    let scope = Scope::outermost(context, &library);
    let workflows = workflow::workflows(&scope, root, span);
    context.tell_held();
    let mut unused = check::Unused::default();
    group::check(&scope, &mut unused);
    check::library(&scope, &library, &mut unused);
    PlainPipeline { setup: setup(context, root), workflows, unused }
}

/// Nothing but what can be said of the orb whose file it is.
pub(crate) fn resolve_orb(context: &Context<'_>, root: &Map) -> PlainPipeline {
    let library = orb::read(context, root, &Home::of_orb());
    context.tell_held();
    let scope = Scope::outermost(context, &library);
    let mut unused = check::Unused::default();
    check::library(&scope, &library, &mut unused);
    PlainPipeline { setup: false, workflows: Vec::new(), unused }
}

fn setup(context: &Context<'_>, root: &Map) -> bool {
    let Some(node) = root.get("setup").filter(|node| !node.is_null()) else { return false };
    let truth = node.as_text().and_then(|text| crate::syntax::boolean(text));
    if truth.is_none() {
        let message = format!("`setup` must be a boolean, but this is {}", node.describe());
        context.report(Diagnostic::error("wrong-shape", node.span, message));
    }
    truth.unwrap_or(false)
}
