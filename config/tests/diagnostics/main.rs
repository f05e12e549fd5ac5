//! One story per diagnostic: a config that is wrong in one way, and what its author is told.

mod aliases;
mod condition_rules;
mod elsewhere;
mod expressions;
mod given;
mod groups;
mod job_rules;
mod jobs;
mod loosened;
mod names;
mod orbs;
mod parameters;
mod rules;
mod schedules;
#[path = "../support/shelf.rs"]
mod shelf;
mod step_rules;
mod steps;
mod syntax;
mod templates;
mod top;
mod types;
mod versions;
mod words;
mod workflow_rules;
mod workflows;

use navvy_config::{Inputs, Source, compile};

/// What is said of a config on a push to `main`.
fn told(text: &str) -> String {
    told_of(text, &Inputs::default())
}

fn told_of(text: &str, inputs: &Inputs) -> String {
    let source = Source { name: "config.yml", text };
    let outcome = compile(&source, inputs);
    format!("{}{}", outcome.render(&source), if outcome.pipeline.is_some() { "compiled" } else { "refused" })
}

/// The same in short: each message with its advice, without its place.
fn headlines(text: &str) -> String {
    let told = told(text);
    let of_interest = |line: &str| ["error[", "warning[", "= help: "].iter().any(|start| line.starts_with(start));
    let lines = told.lines().map(str::trim).filter(|line| of_interest(line) || matches!(*line, "compiled" | "refused"));
    lines.map(|line| line.trim_start_matches("= ")).collect::<Vec<_>>().join("\n")
}
