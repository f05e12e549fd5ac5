//! Graphs of jobs: names, requirements, matrices, approvals.

use std::collections::BTreeSet;

use navvy_job::outcome::JobStatus;
use navvy_job::pipeline::{Workflow, WorkflowJobKind};

use crate::{codes, job, shown, workflow};

const HEAD: &str = "version: 2.1\njobs:\n  j: {docker: [{image: i}], steps: [checkout]}\n  m: {parameters: {os: {type: string}, v: {type: string, default: ''}}, docker: [{image: 'i:<< parameters.os >>'}], steps: [{run: 'v<< parameters.v >>'}]}\n  gate: {type: no-op}\n";

fn of(jobs: &str) -> Workflow {
    let items: String = jobs.lines().map(|line| format!("      {line}\n")).collect();
    workflow(&format!("{HEAD}workflows:\n  w:\n    jobs:\n{items}"))
}

fn names(workflow: &Workflow) -> Vec<&str> {
    workflow.jobs.iter().map(|job| job.name.as_str()).collect()
}

fn required(workflow: &Workflow, index: usize) -> Vec<&str> {
    workflow.jobs[index].requires.iter().map(|requirement| requirement.job.as_str()).collect()
}

#[test]
fn a_matrix_becomes_a_job_for_every_combination() {
    let workflow =
        of("- m: {matrix: {parameters: {v: ['1', ''], os: [a, b]}, exclude: [{os: b, v: ''}]}}\n- j: {requires: [m]}");
    assert_eq!(names(&workflow), ["m-a-1", "m-b-1", "m-a-", "j"]);
    assert_eq!(required(&workflow, 3), ["m-a-1", "m-b-1", "m-a-"]);
    assert_eq!(workflow.jobs[1].matrix.get("os").map(String::as_str), Some("b"));
}

#[test]
fn matrix_values_may_stand_in_names_and_requirements_and_a_matrix_has_an_alias() {
    let workflow = of("- m: {name: 'build << matrix.os >>', matrix: {alias: all, parameters: {os: [a, b]}}}\n\
                       - m: {name: 'test << matrix.os >>', requires: ['build << matrix.os >>'], matrix: {parameters: {os: [a, b]}}}\n\
                       - j: {requires: [all]}");
    assert_eq!(names(&workflow), ["build a", "build b", "test a", "test b", "j"]);
    assert_eq!(required(&workflow, 3), ["build b"]);
    assert_eq!(required(&workflow, 4), ["build a", "build b"]);
}

#[test]
fn equal_names_are_numbered() {
    assert_eq!(names(&of("- j\n- j\n- j: {name: j-1}\n- j: {name: x}")), ["j-2", "j-3", "j-1", "x"]);
}

#[test]
fn requirements_name_statuses() {
    let workflow = of(
        "- j: {name: a}\n- j: {name: b, requires: [a: failed]}\n- j: {name: c, requires: [a: [success, canceled], b: terminal]}",
    );
    let statuses = |index: usize, which: usize| workflow.jobs[index].requires[which].statuses.clone();
    assert_eq!(statuses(1, 0), BTreeSet::from([JobStatus::Failed]));
    assert_eq!(statuses(2, 0), BTreeSet::from([JobStatus::Success, JobStatus::Canceled]));
    assert_eq!(statuses(2, 1).len(), 5);
}

#[test]
fn approvals_and_no_ops_need_no_executor() {
    let workflow = of(
        "- hold: {type: approval}\n- gate: {requires: [hold]}\n- j: {requires: [gate], context: [x, y], serial-group: a/b}",
    );
    assert_eq!(workflow.jobs[0].kind, WorkflowJobKind::Approval);
    assert_eq!(workflow.jobs[1].kind, WorkflowJobKind::NoOp);
    assert_eq!(workflow.jobs[2].contexts, ["x", "y"]);
    assert_eq!(workflow.jobs[2].serial_group.as_deref(), Some("a/b"));
}

#[test]
fn steps_of_the_invocation_stand_around_those_of_the_job() {
    let text = format!(
        "{HEAD}workflows: {{w: {{jobs: [{{j: {{pre-steps: [{{run: before}}], post-steps: [{{run: after}}]}}}}]}}}}\n"
    );
    assert_eq!(shown(&job(&text, "j").steps), ["before", "checkout", "after"]);
}

#[test]
fn a_jobs_own_parameters_come_before_keys_of_the_invocation() {
    let text = "version: 2.1\njobs:\n  j: {parameters: {version: {type: string}, parallelism: {type: integer}}, docker: [{image: 'i:<< parameters.version >>'}], parallelism: << parameters.parallelism >>, steps: [checkout]}\nworkflows: {w: {jobs: [{j: {matrix: {parameters: {version: ['1'], parallelism: [2]}}}}]}}\n";
    assert_eq!(job(text, "j-2-1").parallelism, 2);
}

#[test]
fn without_workflows_the_job_build_runs() {
    let text = "version: 2\njobs:\n  build: {docker: [{image: i}], steps: [checkout], branches: {ignore: main}}\n";
    let workflow = workflow(text);
    assert_eq!(names(&workflow), ["build"]);
    assert!(!workflow.selected.is_selected());
}

#[test]
fn cycles_and_self_requirements_are_refused() {
    let text = format!("{HEAD}workflows: {{w: {{jobs: [{{j: {{requires: [j]}}}}]}}}}\n");
    assert_eq!(codes(&text), ["cyclic-requires"]);
}

#[test]
fn the_values_of_a_matrix_win_over_an_argument() {
    let text = "version: 2.1\njobs:\n  j: {parameters: {p: {type: string}}, docker: [{image: i}], steps: [run: echo << parameters.p >>]}\nworkflows: {w: {jobs: [{j: {p: z, matrix: {parameters: {p: [x, y]}}}}]}}\n";
    for (name, command) in [("j-x", "echo x"), ("j-y", "echo y")] {
        assert_eq!(shown(&job(text, name).steps), [command]);
    }
}
