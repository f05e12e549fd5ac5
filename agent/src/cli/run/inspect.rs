//! `--list`, `--graph` and `--dry-run`: what would run, without running it.

use std::fmt::Write as _;

use navvy_job::compiled::{Executor, StepKind};
use navvy_job::pipeline::{Pipeline, WorkflowJob, WorkflowJobKind};
use navvy_job::selection::Chosen;
use navvy_ui::graph::{self, Drawn};
use navvy_ui::list;
use navvy_ui::style::Palette;

use crate::cli::args::config::GraphFormat;
use crate::cli::args::run::RunArgs;
use crate::pipeline::{Replacements, localise};

/// The graph of a pipeline's jobs.
pub fn draw(pipeline: &Pipeline, format: GraphFormat, drawn: Drawn) -> String {
    match format {
        GraphFormat::Text => graph::text(pipeline, drawn),
        GraphFormat::Dot => graph::dot(pipeline, drawn),
        GraphFormat::Mermaid => graph::mermaid(pipeline, drawn),
    }
}

/// `--graph`, else `--list`.
pub fn shown(arguments: &RunArgs, pipeline: &Pipeline, replacements: &Replacements) -> String {
    if let Some(format) = arguments.graph {
        return draw(pipeline, format, Drawn::Selected);
    }
    let missing = |job: &WorkflowJob| match &job.kind {
        WorkflowJobKind::Build { job: build } => localise(build, replacements).err(),
        WorkflowJobKind::Unavailable { what } => Some(what.clone()),
        WorkflowJobKind::Approval | WorkflowJobKind::NoOp => None,
    };
    list::list(pipeline, &missing, Palette::default())
}

/// Every job that would run, with its steps.
pub fn dry_run(chosen: &[Chosen], replacements: &Replacements) -> String {
    let mut text = String::new();
    for chosen in chosen {
        writeln!(text, "workflow {}", chosen.workflow.name).ok();
        let takes_part = |job: &&WorkflowJob| {
            job.selected.is_selected() && chosen.only.as_ref().is_none_or(|only| only.contains(&job.name))
        };
        for job in chosen.workflow.jobs.iter().filter(takes_part) {
            dry_job(&mut text, job, replacements);
        }
    }
    text
}

fn dry_job(text: &mut String, job: &WorkflowJob, replacements: &Replacements) {
    let requires: Vec<&str> = job.requires.iter().map(|requirement| requirement.job.as_str()).collect();
    let after = if requires.is_empty() { String::new() } else { format!(" after {}", requires.join(", ")) };
    writeln!(text, "  job {}{after}", job.name).ok();
    let line = match &job.kind {
        WorkflowJobKind::Approval => "waits for approval".to_owned(),
        WorkflowJobKind::NoOp => "passes at once".to_owned(),
        WorkflowJobKind::Unavailable { what } => format!("not available here: {what}"),
        WorkflowJobKind::Build { job: build } => match localise(build, replacements) {
            Ok(local) => return dry_build(text, &local),
            Err(needs) => format!("not available here: needs {needs}"),
        },
    };
    writeln!(text, "    {line}").ok();
}

fn dry_build(text: &mut String, local: &crate::pipeline::Local) {
    if let Executor::Docker { containers } = &local.job.executor {
        let images: Vec<&str> = containers.iter().map(|container| container.image.as_str()).collect();
        writeln!(text, "    in {} (class {})", images.join(" with "), local.class).ok();
    }
    if let Some(image) = &local.vm_image {
        writeln!(text, "    in a virtual machine of {image} (class {})", local.class).ok();
    }
    if local.job.parallelism > 1 {
        writeln!(text, "    {} times side by side", local.job.parallelism).ok();
    }
    for (index, step) in local.job.steps.iter().enumerate() {
        let name = step.name.lines().next().unwrap_or_default();
        let note = match step.kind {
            StepKind::Run(_)
            | StepKind::Checkout(_)
            | StepKind::AddSshKeys { .. }
            | StepKind::SaveCache { .. }
            | StepKind::RestoreCache { .. }
            | StepKind::PersistToWorkspace { .. }
            | StepKind::AttachWorkspace { .. }
            | StepKind::StoreArtifacts { .. }
            | StepKind::StoreTestResults { .. } => "",
            StepKind::OrbCommand { .. } => "  (skipped: its orb is not here)",
            _ => "  (skipped: not available yet)",
        };
        writeln!(text, "    {:>3}. {}: {name}{note}", index + 1, step.kind.key()).ok();
    }
}
