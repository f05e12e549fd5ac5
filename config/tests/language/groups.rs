//! Job groups: what the use of one becomes.

use navvy_config::Inputs;
use navvy_job::pipeline::{Workflow, WorkflowJobKind};

use crate::{pipeline_of, selected, workflow};

const JOBS: &str = r#"
version: 2.1
jobs:
  build: &job {docker: [{image: i}], steps: [checkout]}
  deploy: *job
  smoke: *job
  notes: *job
  after: *job
job-groups:
  release:
    jobs:
      - deploy
      - smoke: {requires: [deploy]}
      - notes
workflows:
  w:
    jobs:
"#;

fn with(uses: &str) -> String {
    let lines: String = uses.lines().map(|line| format!("      {line}\n")).collect();
    format!("{JOBS}{lines}")
}

/// `name<-required(statuses)`, statuses only where it is not success.
fn graph(workflow: &Workflow) -> Vec<String> {
    let requirement = |r: &navvy_job::pipeline::Requirement| {
        let statuses: Vec<&str> = r.statuses.iter().map(|status| status.as_str()).collect();
        if statuses == ["success"] { r.job.clone() } else { format!("{}({})", r.job, statuses.len()) }
    };
    let line = |job: &navvy_job::pipeline::WorkflowJob| {
        let kind = if matches!(job.kind, WorkflowJobKind::NoOp) { "*" } else { "" };
        let requires: Vec<String> = job.requires.iter().map(requirement).collect();
        format!("{}{kind} <- {}", job.name, requires.join(" "))
    };
    workflow.jobs.iter().map(line).collect()
}

#[test]
fn a_group_is_an_entry_its_members_and_an_exit() {
    let workflow = workflow(&with("- build\n- release: {requires: [build]}\n- after: {requires: [release]}"));
    assert_eq!(
        graph(&workflow),
        [
            "build <- ",
            "release-entry* <- build",
            "deploy <- release-entry",
            "smoke <- deploy",
            "notes <- release-entry",
            "release* <- smoke notes",
            "after <- release",
        ]
    );
}

#[test]
fn a_serial_group_is_taken_at_the_entry_and_given_back_whatever_happens() {
    let workflow = workflow(&with("- release: {name: ship, serial-group: prod/eu}\n- after: {requires: [ship]}"));
    assert_eq!(
        graph(&workflow),
        [
            "ship-lock* <- ",
            "deploy <- ship-lock",
            "smoke <- deploy",
            "notes <- ship-lock",
            "ship* <- smoke notes",
            "ship-unlock* <- deploy(5) smoke(5) notes(5) ship(5)",
            "after <- ship",
        ]
    );
    let serial: Vec<_> = workflow.jobs.iter().filter(|job| job.serial_group.is_some()).map(|job| &*job.name).collect();
    assert_eq!(serial, ["ship-lock"]);
}

#[test]
fn two_uses_are_told_apart_by_their_names() {
    let workflow = workflow(&with("- release: {name: eu}\n- release: {name: us, requires: [eu]}\n- smoke"));
    assert_eq!(
        graph(&workflow),
        [
            "eu-entry* <- ",
            "eu/deploy <- eu-entry",
            "eu/smoke <- eu/deploy",
            "notes-1 <- eu-entry",
            "eu* <- eu/smoke notes-1",
            "us-entry* <- eu",
            "us/deploy <- us-entry",
            "us/smoke <- us/deploy",
            "notes-2 <- us-entry",
            "us* <- us/smoke notes-2",
            "smoke <- ",
        ]
        .map(|line| line.replace("notes-1", "eu/notes").replace("notes-2", "us/notes"))
    );
}

#[test]
fn filters_of_a_group_are_those_of_its_jobs() {
    let uses = "- build: {filters: {tags: {only: v1}}}\n- release: {filters: {branches: {only: main}, tags: {only: v1}}}\n- after: {requires: [release]}";
    assert_eq!(selected(&workflow(&with(uses))).len(), 7);
    let tag = Inputs { branch: None, tag: Some("v1".into()), ..Inputs::default() };
    let on_tag = &pipeline_of(&with(uses), &tag).workflows[0];
    assert_eq!(selected(on_tag), ["build", "release-entry", "deploy", "smoke", "notes", "release"]);
    let other = Inputs { branch: Some("other".into()), ..Inputs::default() };
    assert_eq!(selected(&pipeline_of(&with(uses), &other).workflows[0]), ["build"]);
}

#[test]
fn members_may_have_a_matrix_and_be_required_by_it() {
    let text = r#"
version: 2.1
jobs:
  test: {parameters: {v: {type: string}}, docker: [{image: i}], steps: [checkout]}
  report: {docker: [{image: i}], steps: [checkout]}
job-groups:
  all: {jobs: [{test: {matrix: {parameters: {v: [a, b]}}}}, {report: {requires: [{test: terminal}]}}]}
workflows: {w: {jobs: [all]}}
"#;
    assert_eq!(
        graph(&workflow(text)),
        [
            "all-entry* <- ",
            "test-a <- all-entry",
            "test-b <- all-entry",
            "report <- test-a(5) test-b(5)",
            "all* <- report",
        ]
    );
}
