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

use navvy_job::pipeline::Pipeline;

use crate::resolve::{Context, PlainPipeline};

/// The pipeline. Meaningful only if nothing was reported as an error.
pub(crate) fn compile(context: &Context<'_>, plain: PlainPipeline) -> Pipeline {
    let workflows = plain.workflows.into_iter().map(|plain| workflow::workflow(context, plain)).collect();
    for unused in &plain.unused.jobs {
        let _ = job::job(context, unused);
    }
    for unused in &plain.unused.steps {
        let _ = step::step(context, unused);
    }
    Pipeline { setup: plain.setup, workflows }
}
