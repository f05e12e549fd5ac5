//! The language, rule by rule: a small config, and what it compiles to.

mod accepted;
mod aliases;
mod commands;
mod executors;
mod filters;
mod groups;
mod orbs;
mod reach;
#[path = "../support/shelf.rs"]
mod shelf;
mod templates;
mod words;
mod workflows;

use navvy_config::{Inputs, Source, compile};
use navvy_job::compiled::{Job, Step, StepKind};
use navvy_job::pipeline::{Pipeline, Selection, Workflow, WorkflowJobKind};

/// The pipeline of a push to `main`.
fn pipeline(text: &str) -> Pipeline {
    pipeline_of(text, &Inputs::default())
}

fn pipeline_of(text: &str, inputs: &Inputs) -> Pipeline {
    let source = Source { name: "config.yml", text };
    let outcome = compile(&source, inputs);
    let rendered = outcome.render(&source);
    outcome.pipeline.unwrap_or_else(|| panic!("{rendered}"))
}

/// The codes of all that is said of a config.
fn codes(text: &str) -> Vec<&'static str> {
    let outcome = compile(&Source { name: "config.yml", text }, &Inputs::default());
    outcome.diagnostics.iter().map(|told| told.code).collect()
}

/// The first workflow.
fn workflow(text: &str) -> Workflow {
    pipeline(text).workflows.swap_remove(0)
}

/// A job of the first workflow, by its name in it.
fn job(text: &str, name: &str) -> Job {
    job_of(&workflow(text), name)
}

fn job_of(workflow: &Workflow, name: &str) -> Job {
    let found = workflow.jobs.iter().find(|job| job.name == name);
    match found.map(|job| &job.kind) {
        Some(WorkflowJobKind::Build { job }) => (**job).clone(),
        other => panic!("{name} is {other:?}"),
    }
}

/// The steps of the job `build`, whose items are `steps`; `top` stands before `jobs:`.
fn steps(top: &str, steps: &str) -> Vec<Step> {
    let items: String = steps.lines().map(|line| format!("      {line}\n")).collect();
    let text = format!("version: 2.1\n{top}\njobs:\n  build:\n    docker: [{{image: i}}]\n    steps:\n{items}");
    job(&text, "build").steps
}

/// Commands of `run` steps, keys of all others.
fn shown(steps: &[Step]) -> Vec<&str> {
    steps.iter().map(show).collect()
}

fn show(step: &Step) -> &str {
    match &step.kind {
        StepKind::Run(run) => &run.command,
        kind => kind.key(),
    }
}

/// Names of the jobs that run.
fn selected(workflow: &Workflow) -> Vec<&str> {
    workflow.jobs.iter().filter(|job| job.selected.is_selected()).map(|job| job.name.as_str()).collect()
}

fn reason(selection: &Selection) -> &str {
    match selection {
        Selection::Selected => "",
        Selection::Left { reason } => reason,
    }
}
