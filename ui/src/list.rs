//! The text of `--list`: workflows, their jobs, what each runs in, what it waits for, and why it would not run.

use std::collections::BTreeSet;

use navvy_job::compiled::{Executor, Job};
use navvy_job::outcome::JobStatus;
use navvy_job::pipeline::{Pipeline, Requirement, Selection, Workflow, WorkflowJob, WorkflowJobKind};

use super::sanitize::clean;
use super::style::Palette;
use super::text;

/// What a job would need that is not here; `None` when it can run.
pub type Missing<'a> = dyn Fn(&WorkflowJob) -> Option<String> + 'a;

/// Every workflow with its jobs, in the order of the file.
pub fn list(pipeline: &Pipeline, missing: &Missing<'_>, palette: Palette) -> String {
    let workflows: Vec<String> = pipeline.workflows.iter().map(|it| workflow(it, missing, palette)).collect();
    if workflows.is_empty() { "There are no workflows.\n".to_owned() } else { workflows.join("\n") }
}

fn workflow(workflow: &Workflow, missing: &Missing<'_>, palette: Palette) -> String {
    let name = palette.strong(&clean(&workflow.name));
    let head = match &workflow.selected {
        Selection::Selected => name,
        Selection::Left { reason } => format!("{name}  {}", palette.faint(&format!("left out: {}", clean(reason)))),
    };
    let rows: Vec<[String; 4]> = workflow.jobs.iter().map(|job| row(job, missing, palette)).collect();
    let columns: [usize; 3] = std::array::from_fn(|at| {
        rows.iter().filter_map(|row| row.get(at)).map(|cell| text::width(cell)).max().unwrap_or(0)
    });
    let lines = rows.iter().map(|row| line(row, &columns));
    std::iter::once(head).chain(lines).map(|line| line + "\n").collect()
}

fn line(row: &[String; 4], columns: &[usize; 3]) -> String {
    let [name, runs_in, class, notes] = row;
    let [first, second, third] = columns;
    let cells = [text::pad(name, *first), text::pad(runs_in, *second), text::pad(class, *third), notes.clone()];
    format!("  {}", cells.join("  ")).trim_end().to_owned()
}

fn row(job: &WorkflowJob, missing: &Missing<'_>, palette: Palette) -> [String; 4] {
    let (runs_in, class) = match &job.kind {
        WorkflowJobKind::Build { job } => (runs_in(job), job.resource_class.clone().unwrap_or_default()),
        WorkflowJobKind::Approval => ("approval".to_owned(), String::new()),
        WorkflowJobKind::NoOp => ("no-op".to_owned(), String::new()),
        WorkflowJobKind::Unavailable { what } => (what.clone(), String::new()),
    };
    [clean(&job.name), clean(&runs_in), clean(&class), notes(job, missing, palette)]
}

fn runs_in(job: &Job) -> String {
    match &job.executor {
        Executor::Docker { containers } => docker(containers.iter().map(|container| container.image.as_str())),
        Executor::Machine { image, .. } => format!("machine {}", image.as_deref().unwrap_or("default")),
        Executor::Macos { xcode } => format!("macos xcode {}", xcode.as_deref().unwrap_or("default")),
    }
}

fn docker<'a>(mut images: impl Iterator<Item = &'a str>) -> String {
    let primary = images.next().unwrap_or_default();
    let services: Vec<&str> = images.collect();
    if services.is_empty() {
        format!("docker {primary}")
    } else {
        format!("docker {primary} + {}", services.join(" + "))
    }
}

fn notes(job: &WorkflowJob, missing: &Missing<'_>, palette: Palette) -> String {
    let mut notes = Vec::new();
    if let Selection::Left { reason } = &job.selected {
        notes.push(palette.faint(&format!("left out: {}", clean(reason))));
    }
    if let Some(why) = unavailable(job, missing) {
        notes.push(palette.caution(&why));
    }
    if let WorkflowJobKind::Build { job } = &job.kind
        && job.parallelism > 1
    {
        notes.push(format!("{} nodes", job.parallelism));
    }
    if !job.requires.is_empty() {
        let names: Vec<String> = job.requires.iter().map(requirement).collect();
        notes.push(format!("after {}", names.join(", ")));
    }
    if !job.contexts.is_empty() {
        notes.push(format!("context {}", clean(&job.contexts.join(", "))));
    }
    notes.join("; ")
}

fn unavailable(job: &WorkflowJob, missing: &Missing<'_>) -> Option<String> {
    match &job.kind {
        WorkflowJobKind::Unavailable { .. } => Some("not available here".to_owned()),
        WorkflowJobKind::Approval | WorkflowJobKind::NoOp => None,
        WorkflowJobKind::Build { .. } => {
            missing(job).map(|needs| format!("not available here: needs {}", clean(&needs)))
        }
    }
}

/// The job's name, and which ends count if not success alone.
pub fn requirement(requirement: &Requirement) -> String {
    match statuses(&requirement.statuses) {
        Some(ends) => format!("{} ({ends})", clean(&requirement.job)),
        None => clean(&requirement.job),
    }
}

/// In words; `None` for plain success.
pub fn statuses(statuses: &BTreeSet<JobStatus>) -> Option<String> {
    if statuses.len() == 1 && statuses.contains(&JobStatus::Success) {
        return None;
    }
    if JobStatus::TERMINAL.iter().all(|status| statuses.contains(status)) {
        return Some("any end".to_owned());
    }
    Some(statuses.iter().map(|status| status.as_str()).collect::<Vec<&str>>().join(" or "))
}

#[cfg(test)]
mod tests {
    use super::super::scene::pipeline;
    use super::*;

    #[test]
    fn everything_a_job_is() {
        let missing = |job: &WorkflowJob| (job.name == "mac").then(|| "macOS with Xcode 15.4".to_owned());
        insta::assert_snapshot!(list(&pipeline(), &missing, Palette::default()), @r#"
        shop
          lint          docker navvy/base:bookworm
          unit-eur      docker navvy/base:bookworm
          integration   docker navvy/base:bookworm + navvy/postgres  large  4 nodes; after lint, unit-eur
          mac           macos xcode 15.4                                    not available here: needs macOS with Xcode 15.4
          vm            machine default                                     after integration
          hold          approval                                            after integration
          release       a release job                                       not available here; after hold; context aws
          notify "all"  no-op                                               after hold (any end)
          docs          docker navvy/base:bookworm                          left out: its branch filter does not match branch `main`

        nightly  left out: it has a schedule
          slow  docker navvy/base:bookworm
        "#);
    }

    #[test]
    fn nothing_at_all() {
        let empty = Pipeline { setup: false, workflows: Vec::new() };
        assert_eq!(list(&empty, &|_| None, Palette::default()), "There are no workflows.\n");
    }
}
