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

mod diagnostic;
mod input;
mod render;

pub use diagnostic::{Diagnostic, Frame, Severity, Span};
pub use input::{Inputs, Source, Value};
pub use render::render;

use navvy_job::pipeline::Pipeline;

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
pub fn compile(_source: &Source<'_>, _inputs: &Inputs) -> Outcome {
    Outcome { pipeline: None, diagnostics: vec![Diagnostic::error("unfinished", Span::default(), "not compiled yet")] }
}
