//! How much one config may ask for, so that a few lines of a stranger cannot stand for more than a machine has.
//!
//! Each limit lies far above every real config (`config/corpus` and its largest are named beside it), and each error
//! says the number and the way out.

use std::borrow::Cow;

use navvy_job::compiled::Variables;
use navvy_job::pipeline::{Workflow, WorkflowJobKind};

use super::fields::At;
use crate::diagnostic::{Diagnostic, Span};
use crate::resolve::{Context, PlainJob, PlainWorkflow};
use crate::syntax::Node;

/// Nodes of a job (largest: 32).
pub(super) const MOST_NODES: u32 = 1_000;
/// Tasks of a workflow: nodes of all its jobs that run (largest: 263).
const MOST_TASKS_OF_WORKFLOW: u64 = 5_000;
/// Tasks of all workflows that run (largest: 382).
const MOST_TASKS: u64 = 10_000;
/// Service containers of a job (largest: 16). Each costs the machine an own process of the engine.
const MOST_SERVICES: usize = 50;
/// Steps of a job, with those of its commands (largest: 76).
const MOST_STEPS: usize = 2_000;
/// Characters of the name of a workflow, job or step (largest: 275).
const LONGEST_NAME: usize = 1_000;
/// Bytes of `NAME=value` with its end, which Linux refuses to hand to a program above this (`MAX_ARG_STRLEN`).
const LONGEST_VARIABLE: usize = 128 << 10;
/// Bytes of all variables of a job, step or container; Linux takes 2 MiB for these and all arguments together.
const LARGEST_ENVIRONMENT: usize = 1 << 20;
/// Characters of a name in a message.
const SHOWN: usize = 40;

const CODE: &str = "over-limit";

/// The beginning of a long name, as much as a line shows.
pub(super) fn start(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &name[..end])),
        None => Cow::Borrowed(name),
    }
}

/// Cuts the default name of a step: the start of a long script names it well enough.
pub(super) fn cut_name(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        Some(_) => name.chars().take(LONGEST_NAME - 1).chain(['…']).collect(),
        None => name.to_owned(),
    }
}

/// `of` is what bears the name: "a job".
pub(super) fn check_name(place: At<'_>, of: &str, name: &str, span: Span) {
    let length = name.chars().count();
    // What makes a config too large most often has long names, too; that it is too large says more.
    if length > LONGEST_NAME && !place.context.is_full() {
        let message = format!("the name of {of} has {length} characters, of at most {LONGEST_NAME}: `{}`", start(name));
        place.report(Diagnostic::error(CODE, span, message).help("give it a shorter one with `name`"));
    }
}

pub(super) fn check_steps(place: At<'_>, job: &PlainJob) {
    if let Some(first) = job.steps.get(MOST_STEPS) {
        let message = format!("this job has {} steps, of at most {MOST_STEPS}", job.steps.len());
        let help = "put several commands into one step, or split the job";
        place.report(Diagnostic::error(CODE, first.span, message).help(help));
    }
}

/// The containers of a job, the primary first.
pub(super) fn check_services(place: At<'_>, containers: &[Node]) {
    if let Some(first) = containers.get(MOST_SERVICES + 1) {
        let services = containers.len() - 1;
        let message = format!("this job has {services} service containers, of at most {MOST_SERVICES}");
        let help = "run several services in one container, or split the job";
        place.report(Diagnostic::error(CODE, first.span, message).help(help));
    }
}

/// The nodes of a job; 1 if that is out of bounds, which has been reported.
pub(super) fn nodes(place: At<'_>, value: i64, span: Span) -> u32 {
    match u32::try_from(value) {
        Ok(nodes @ 1..=MOST_NODES) => nodes,
        Ok(0) | Err(_) if value < 1 => {
            place.error("out-of-range", span, format!("`parallelism` must be at least 1, not {value}"));
            1
        }
        _ => {
            let message = format!("`parallelism` is {value}, of at most {MOST_NODES} nodes of a job");
            let help = "give each node more to do, or split the job";
            place.report(Diagnostic::error(CODE, span, message).help(help));
            1
        }
    }
}

/// The variables of a job, step or container.
pub(super) fn check_environment(place: At<'_>, variables: &Variables, span: Span) {
    let size = |(name, value): &(String, String)| name.len() + value.len() + "=\0".len();
    if let Some(long) = variables.iter().find(|variable| size(variable) > LONGEST_VARIABLE) {
        let message = format!(
            "variable `{}` has {} bytes with its name, of at most {LONGEST_VARIABLE}: Linux hands no longer one to a program",
            start(&long.0),
            size(long)
        );
        place.report(Diagnostic::error(CODE, span, message).help("write the value to a file in a step"));
    }
    let total: usize = variables.iter().map(size).sum();
    if total > LARGEST_ENVIRONMENT {
        let message = format!(
            "the {} variables have {total} bytes, of at most {LARGEST_ENVIRONMENT}: Linux hands no program many more",
            variables.len()
        );
        place.report(Diagnostic::error(CODE, span, message).help("write the values to a file in a step"));
    }
}

/// Counts what would run.
pub(super) fn check_tasks(context: &Context<'_>, workflows: &[Workflow], plain: &[PlainWorkflow]) {
    let mut all = 0_u64;
    let mut is_told = false;
    for (workflow, plain) in workflows.iter().zip(plain).filter(|(workflow, _)| workflow.selected.is_selected()) {
        let tasks = tasks(workflow);
        let before = all;
        all += tasks;
        let name = start(&workflow.name);
        let message = if tasks > MOST_TASKS_OF_WORKFLOW {
            format!("workflow `{name}` has {tasks} tasks, of at most {MOST_TASKS_OF_WORKFLOW}")
        } else if before <= MOST_TASKS && all > MOST_TASKS && !is_told {
            format!("with workflow `{name}` the pipeline has {all} tasks, of at most {MOST_TASKS}")
        } else {
            continue;
        };
        is_told = true;
        let help = "every node of every job is a task: smaller matrices, less `parallelism`, or several pipelines";
        context.report(Diagnostic::error(CODE, plain.span, message).help(help));
    }
}

fn tasks(workflow: &Workflow) -> u64 {
    let running = workflow.jobs.iter().filter(|job| job.selected.is_selected());
    running
        .map(|job| match &job.kind {
            WorkflowJobKind::Build { job } => u64::from(job.parallelism),
            _ => 1,
        })
        .sum()
}
