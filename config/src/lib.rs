//! Config text to diagnostics with spans, or to a compiled pipeline. No I/O, no environment, no clock.
//!
//! ```text
//! text ──syntax──▶ tree with spans ──resolve──▶ plain tree ──compile──▶ navvy_job::pipeline::Pipeline
//!                  aliases, merges    parameters, commands,   job types,
//!                  done               executors, conditions,  validated
//!                                     matrix
//! ```
//!
//! Every stage reports into one list, so that an author sees all that is wrong with a file at once.

mod compile;
mod diagnostic;
mod document;
mod explain;
mod input;
mod keys;
mod neighbour;
mod process;
mod render;
mod resolve;
mod schema;
mod syntax;
#[cfg(test)]
mod testing;
mod top;

pub use diagnostic::{Diagnostic, Frame, Related, Severity, Span};
pub use document::{Document, FORMAT};
pub use explain::{Explained, Explanation, Told, explain};
pub use input::{Inputs, Source, Value};
pub use process::{Processed, process};
pub use render::{render, render_json, render_sarif};
pub use schema::schema;

use navvy_job::pipeline::Pipeline;

use diagnostic::Report;
use resolve::Context;
use top::Version;

/// Sees the plain tree.
type Look<'l> = &'l mut dyn FnMut(&Context<'_>, &resolve::PlainPipeline, &Pipeline);

/// What became of a config.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// `None` exactly if one of the diagnostics is an error.
    pub pipeline: Option<Pipeline>,
    /// In the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Compiles a config text for the branch or tag, parameters and values of `inputs`.
///
/// Never fails otherwise than by diagnostics, whatever the text.
pub fn compile(source: &Source<'_>, inputs: &Inputs) -> Outcome {
    compile_with(source, inputs, false, &mut |_, _, _| {})
}

/// The same, but requirements on jobs that are left out are kept, and so are those of jobs that are left out: a graph
/// shows them all.
pub fn compile_whole(source: &Source<'_>, inputs: &Inputs) -> Outcome {
    let mut whole = None;
    let outcome = compile_with(source, inputs, false, &mut |context, plain, pipeline| {
        whole = Some(compile::with_all_requirements(context, plain, pipeline.clone()));
    });
    Outcome { pipeline: whole, ..outcome }
}

/// The same; `look` sees the plain tree of a config in which nothing is wrong. A record is kept only if asked for.
fn compile_with(source: &Source<'_>, inputs: &Inputs, record: bool, look: Look<'_>) -> Outcome {
    let mut report = Report::default();
    let root = syntax::parse(source.text, &mut report);
    if report.errors() > 0 {
        return Outcome { pipeline: None, diagnostics: report.into_sorted() };
    }
    let Some((map, version)) = top::read(root.as_ref(), &mut report) else {
        return Outcome { pipeline: None, diagnostics: report.into_sorted() };
    };
    let context = Context::new(source.text, inputs, report, version == Version::TwoOne);
    let context = if record { context.with_record() } else { context };
    let span = root.as_ref().map(|root| root.span).unwrap_or_default();
    let plain = resolve::resolve(&context, map, span);
    let pipeline = compile::compile(&context, &plain);
    let pipeline = (!context.has_errors()).then_some(pipeline);
    if let Some(pipeline) = &pipeline {
        look(&context, &plain, pipeline);
    }
    Outcome { pipeline, diagnostics: context.into_report().into_sorted() }
}
