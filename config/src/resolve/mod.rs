//! Second stage: names to what they stand for.
//!
//! Takes the tree of the file and leaves a plain one, of the shape of a version 2 config: pipeline parameters first,
//! then for every workflow its jobs, each with its parameters replaced, its executor found, its commands written
//! out, its conditions decided, its matrix spread. Everything keeps its place and the trail that led there.

mod bind;
mod check;
mod context;
mod executor;
mod expression;
mod invocation;
mod job;
mod library;
mod logic;
mod matrix;
mod parameter;
mod pipeline;
mod plain;
mod record;
mod scope;
mod steps;
mod substitute;
mod template;
mod trail;
mod value;
mod workflow;

pub(crate) use context::Context;
pub(crate) use parameter::is_variable_name;
#[cfg(test)]
pub(crate) use plain::BUILT_INS;
pub(crate) use plain::{
    Action, BuiltIn, PlainExecutor, PlainFilters, PlainJob, PlainKind, PlainPipeline, PlainStep, PlainWorkflow,
    PlainWorkflowJob,
};
pub(crate) use record::{Condition, Record, Whence};
pub(crate) use template::references;
pub(crate) use trail::Trail;

use crate::diagnostic::Span;
use crate::syntax::{Map, Node};
use library::Library;
use scope::Scope;

/// The plain tree of a config. What is wrong is reported, and left out or broken.
pub(crate) fn resolve(context: &Context<'_>, root: &Map, span: Span) -> PlainPipeline {
    let parameters = if context.templates { pipeline::parameters(context, root) } else { Default::default() };
    // Set once, before anything can ask for it.
    let _ = context.parameters.set(parameters);
    let library = Library::read(context, root, true);
    let scope = Scope::outermost(context, &library);
    let workflows = workflow::workflows(&scope, root, span);
    let mut unused = check::Unused::default();
    check::library(&scope, &library, &mut unused);
    PlainPipeline { setup: setup(root), workflows, unused }
}

fn setup(root: &Map) -> bool {
    root.get("setup").and_then(Node::as_text).is_some_and(|text| crate::syntax::boolean(text) == Some(true))
}
