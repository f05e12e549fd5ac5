//! One story per diagnostic: a config that is wrong in one way, and what its author is told.

mod jobs;
mod names;
mod parameters;
mod steps;
mod syntax;
mod templates;
mod top;
mod workflows;

use navvy_config::{Inputs, Source, compile, render};

/// What is said of a config on a push to `main`.
fn told(text: &str) -> String {
    let source = Source { name: "config.yml", text };
    let outcome = compile(&source, &Inputs::default());
    format!(
        "{}{}",
        render(&source, &outcome.diagnostics),
        if outcome.pipeline.is_some() { "compiled" } else { "refused" }
    )
}
