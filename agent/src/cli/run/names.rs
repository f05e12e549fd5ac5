//! Names on the command line that nothing in the config has: what they were to do would silently not happen.

use std::collections::BTreeSet;

use navvy_docker::ImageSubstitutions;
use navvy_job::chain::chain;
use navvy_job::compiled::Executor;
use navvy_job::pipeline::{Pipeline, WorkflowJob, WorkflowJobKind};
use navvy_job::selection::nearest;

use super::plan;
use crate::cli::CliError;
use crate::cli::args::run::RunArgs;
use crate::cli::handed::context_name;

/// Gives every approval, by any name.
pub const ALL: &str = "all";

/// A flag whose name is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// As it was typed: `--approve relase`.
    pub flag: String,
    /// What is not there, and the nearest that is.
    pub why: String,
}

/// Those of the command line that the pipeline has not. `images` are the `FROM=TO` that were typed: those of settings are
/// for other projects, too.
pub fn unknown(arguments: &RunArgs, images: &[String], pipeline: &Pipeline) -> Result<Vec<Unknown>, CliError> {
    let jobs: Vec<&WorkflowJob> = pipeline.workflows.iter().flat_map(|workflow| &workflow.jobs).collect();
    let mut found = approvals(arguments, &jobs);
    found.extend(assumed(arguments, &jobs)?);
    found.extend(contexts(arguments, &jobs)?);
    found.extend(replaced_images(images, &jobs)?);
    Ok(found)
}

/// The error that names them all.
pub fn refuse(unknown: &[Unknown]) -> Result<(), CliError> {
    if unknown.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = unknown.iter().map(|unknown| format!("{}: {}", unknown.flag, unknown.why)).collect();
    Err(CliError::usage(told.join("; "))
        .hint("`navvy run --list` shows the jobs, `navvy run --dry-run` their images and steps."))
}

/// What is worth a warning where neither a setup config nor what it went on with has the name.
pub fn warnings(unknown: &[Unknown]) -> Vec<String> {
    unknown.iter().map(|unknown| format!("{} did nothing: {}", unknown.flag, unknown.why)).collect()
}

fn approvals(arguments: &RunArgs, jobs: &[&WorkflowJob]) -> Vec<Unknown> {
    let names = names(jobs, |job| job.kind == WorkflowJobKind::Approval);
    let wrong = arguments.approve.iter().filter(|name| *name != ALL && !names.contains(name.as_str()));
    let told = wrong.map(|name| Unknown {
        flag: format!("--approve {name}"),
        why: match jobs.iter().any(|job| job.name == *name) {
            true => format!("job `{name}` is not an approval"),
            false => missing("approval", name, &names),
        },
    });
    told.collect()
}

fn assumed(arguments: &RunArgs, jobs: &[&WorkflowJob]) -> Result<Vec<Unknown>, CliError> {
    let names = names(jobs, |_| true);
    let wrong = plan::assumed(arguments)?.into_iter().filter(|name| !names.contains(name.as_str()));
    let told =
        wrong.map(|name| Unknown { flag: format!("--assume passed:{name}"), why: missing("job", &name, &names) });
    Ok(told.collect())
}

fn contexts(arguments: &RunArgs, jobs: &[&WorkflowJob]) -> Result<Vec<Unknown>, CliError> {
    let names: BTreeSet<&str> = jobs.iter().flat_map(|job| &job.contexts).map(String::as_str).collect();
    let mut told = Vec::new();
    for text in &arguments.contexts {
        let (name, _) = context_name(text)?;
        if !names.contains(name) {
            let flag = format!("--context {name}");
            told.push(Unknown { flag, why: missing("job's context", name, &names) });
        }
    }
    Ok(told)
}

fn replaced_images(images: &[String], jobs: &[&WorkflowJob]) -> Result<Vec<Unknown>, CliError> {
    // What a job of an orb that is not here runs in is not known.
    if jobs.iter().any(|job| matches!(job.kind, WorkflowJobKind::Unavailable { .. })) {
        return Ok(Vec::new());
    }
    let known: BTreeSet<&str> = jobs.iter().flat_map(|job| images_of(job)).collect();
    let mut told = Vec::new();
    for text in images {
        let parsed = ImageSubstitutions::parse(std::slice::from_ref(text));
        let parsed = parsed.map_err(|error| CliError::usage(format!("--image: {}", chain(&error))))?;
        if !known.iter().any(|image| parsed.apply(image).is_some()) {
            let from = text.split_once('=').map_or(text.as_str(), |(from, _)| from);
            told.push(Unknown { flag: format!("--image {text}"), why: missing("job's image", from, &known) });
        }
    }
    Ok(told)
}

fn images_of(job: &WorkflowJob) -> Vec<&str> {
    match &job.kind {
        WorkflowJobKind::Build { job } => match &job.executor {
            Executor::Docker { containers } => containers.iter().map(|container| container.image.as_str()).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn names<'a>(jobs: &[&'a WorkflowJob], fits: impl Fn(&WorkflowJob) -> bool) -> BTreeSet<&'a str> {
    jobs.iter().filter(|job| fits(job)).map(|job| job.name.as_str()).collect()
}

/// Names that an error lists at most.
const LISTED: usize = 8;

fn missing(what: &str, name: &str, known: &BTreeSet<&str>) -> String {
    let names: Vec<&str> = known.iter().copied().collect();
    let near = nearest(name, &names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let more = if names.len() > LISTED { ", …" } else { "" };
    let there = match names.is_empty() {
        true => "this config has none".to_owned(),
        false => format!("there are {}{more}", names[..names.len().min(LISTED)].join(", ")),
    };
    format!("no {what} is called `{name}`{near} ({there})")
}
