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

#![warn(missing_docs)]

mod compile;
mod diagnostic;
mod document;
mod explain;
mod input;
mod keys;
mod neighbour;
mod orb;
mod pack;
mod process;
mod render;
mod resolve;
mod schema;
mod syntax;
#[cfg(test)]
mod testing;
mod top;

pub use compile::NO_BRANCH;
pub use diagnostic::{Diagnostic, Frame, Related, Severity, Span};
pub use document::{Document, FORMAT};
pub use explain::{Explained, ExplainedValue, Explanation, explain};
pub use input::{File, Inputs, Source, Value};
pub use orb::{ImportedOrb, NoOrb, OrbReference, OrbSource, OrbText, OrbVersion, ReferenceError};
pub use pack::{Include, OrbPart, OrbPlace, OrbSection, Packed, pack_orb};
pub use process::{Processed, process};
pub use render::render;
pub use schema::schema;

use navvy_job::pipeline::Pipeline;

use diagnostic::Report;
use resolve::Context;
use resolve::Resolved;
use top::Version;

/// Sees the plain tree.
type Look<'l> = &'l mut dyn FnMut(&Context<'_>, &resolve::PlainPipeline, &Pipeline);

/// The result of compiling a config.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// `None` exactly if one of the diagnostics is an error.
    pub pipeline: Option<Pipeline>,
    /// In the order of the file; those of orbs' files come after those of the config.
    pub diagnostics: Vec<Diagnostic>,
    /// The orbs' files that were read: `file` N of a span is number N - 1 here.
    pub files: Vec<File>,
    /// The orbs that the config and its orbs name by reference, in the order in which they were imported.
    pub orbs: Vec<ImportedOrb>,
}

impl Outcome {
    /// All diagnostics as text, each with an excerpt of the file that it lies in. `source` is what was compiled.
    pub fn render(&self, source: &Source<'_>) -> String {
        render::render_in(source, &self.files, &self.diagnostics)
    }

    /// All diagnostics as one JSON document with a line break at the end (docs/diagnostics.schema.json).
    pub fn render_json(&self, source: &Source<'_>) -> String {
        render::render_json(source, &self.files, &self.diagnostics)
    }

    /// All diagnostics as SARIF 2.1.0, which code review and editors read.
    pub fn render_sarif(&self, source: &Source<'_>) -> String {
        render::render_sarif(source, &self.files, &self.diagnostics)
    }

    fn of(pipeline: Option<Pipeline>, told: Resolved) -> Self {
        Self { pipeline, diagnostics: told.report.into_sorted(), files: told.files, orbs: told.imports }
    }

    fn refused(report: Report) -> Self {
        Self { pipeline: None, diagnostics: report.into_sorted(), files: Vec::new(), orbs: Vec::new() }
    }
}

/// The names of the pipeline parameters that a config declares; none of a text that cannot be read.
pub fn declared_parameters(text: &str) -> Vec<String> {
    let root = syntax::parse(text, 0, &mut Report::default());
    let map = root.as_ref().and_then(|root| root.as_map());
    let parameters = map.and_then(|map| map.get("parameters")).and_then(|node| node.as_map());
    parameters.map(|map| map.entries.iter().map(|entry| entry.key.to_string()).collect()).unwrap_or_default()
}

/// Compiles a config text for the branch or tag, parameters and values of `inputs`.
///
/// Every failure is a diagnostic, for any text.
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
    let root = syntax::parse(source.text, 0, &mut report);
    if report.errors() > 0 {
        return Outcome::refused(report);
    }
    let Some((map, version)) = top::read(root.as_ref(), &mut report) else {
        return Outcome::refused(report);
    };
    let context = Context::new(source.text, inputs, report, version == Version::TwoOne);
    let context = if record { context.with_record() } else { context };
    let span = root.as_ref().map(|root| root.span).unwrap_or_default();
    let plain = resolve::resolve(&context, map, span);
    let pipeline = compile::compile(&context, &plain);
    let pipeline = (!context.has_errors()).then_some(pipeline);
    if let Some(pipeline) = &pipeline {
        context.fall_silent();
        look(&context, &plain, pipeline);
    }
    Outcome::of(pipeline, context.into_resolved())
}

/// Checks the source of an orb as it stands in a file of its own. What comes out is a pipeline without workflows.
pub fn compile_orb(source: &Source<'_>, inputs: &Inputs) -> Outcome {
    let mut report = Report::default();
    let root = syntax::parse(source.text, 0, &mut report);
    let root = if report.errors() == 0 { resolve::orb_top(root, 0, &mut report) } else { None };
    let Some(map) = root.as_ref().and_then(syntax::Node::as_map) else { return Outcome::refused(report) };
    let context = Context::new(source.text, inputs, report, true);
    let pipeline = compile::compile(&context, &resolve::resolve_orb(&context, map));
    let pipeline = (!context.has_errors()).then_some(pipeline);
    Outcome::of(pipeline, context.into_resolved())
}
