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
mod input;
mod keys;
mod neighbour;
mod render;
mod resolve;
mod syntax;
mod top;

pub use diagnostic::{Diagnostic, Frame, Severity, Span};
pub use input::{Inputs, Source, Value};
pub use render::render;

use navvy_job::pipeline::Pipeline;

use diagnostic::Report;
use resolve::Context;
use top::Version;

/// What became of a config.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// `None` exactly if one of the diagnostics is an error.
    pub pipeline: Option<Pipeline>,
    /// In the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// The names of the pipeline parameters that a config declares; none of a text that cannot be read.
pub fn declared_parameters(text: &str) -> Vec<String> {
    let root = syntax::parse(text, &mut Report::default());
    let map = root.as_ref().and_then(|root| root.as_map());
    let parameters = map.and_then(|map| map.get("parameters")).and_then(|node| node.as_map());
    parameters.map(|map| map.entries.iter().map(|entry| entry.key.to_string()).collect()).unwrap_or_default()
}

/// Compiles a config text for the branch or tag, parameters and values of `inputs`.
///
/// Never fails otherwise than by diagnostics, whatever the text.
pub fn compile(source: &Source<'_>, inputs: &Inputs) -> Outcome {
    let mut report = Report::default();
    let root = syntax::parse(source.text, &mut report);
    if report.errors() > 0 {
        return Outcome { pipeline: None, diagnostics: report.into_sorted() };
    }
    let Some((map, version)) = top::read(root.as_ref(), &mut report) else {
        return Outcome { pipeline: None, diagnostics: report.into_sorted() };
    };
    let context = Context::new(source.text, inputs, report, version == Version::TwoOne);
    let span = root.as_ref().map(|root| root.span).unwrap_or_default();
    let plain = resolve::resolve(&context, map, span);
    let pipeline = compile::compile(&context, plain);
    let pipeline = (!context.has_errors()).then_some(pipeline);
    Outcome { pipeline, diagnostics: context.into_report().into_sorted() }
}
