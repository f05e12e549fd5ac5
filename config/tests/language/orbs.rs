//! Inline orbs, and going on without the orbs of a registry.

use navvy_config::{Inputs, Severity, Source, compile};
use navvy_job::pipeline::WorkflowJobKind;

use crate::{job, job_of, pipeline_of, shown};

#[test]
fn names_resolve_inside_of_an_inline_orb_first() {
    let text = r#"
version: 2.1
orbs:
  o:
    orbs: {deep: {commands: {c: {steps: [{run: deep}]}}}}
    executors: {e: {docker: [{image: of-orb}]}}
    commands: {c: {parameters: {s: {type: steps, default: []}}, steps: [{run: of-orb}, {steps: << parameters.s >>}]}}
    jobs: {j: {parameters: {s: {type: steps, default: []}}, executor: e, steps: [{c: {s: << parameters.s >>}}, deep/c]}}
executors: {e: {docker: [{image: of-config}]}}
commands: {c: {steps: [{run: of-config}]}}
workflows: {w: {jobs: [{o/j: {s: [c]}}]}}
"#;
    let job = job(text, "o/j");
    assert_eq!(shown(&job.steps), ["of-orb", "of-config", "deep"]);
    assert!(format!("{:?}", job.executor).contains("of-orb"));
}

const REGISTRY: &str = r#"
version: 2.1
orbs: {node: circleci/node@5, slack: circleci/slack@4}
jobs:
  a: {docker: [{image: i}], steps: [checkout, node/install, {slack/notify: {x: 1}}, {run: x}]}
  b: {executor: node/default, steps: [checkout]}
workflows: {w: {jobs: [a, b, {node/test: {requires: [a], version: "1"}}]}}
"#;

#[test]
fn a_missing_orb_is_one_error() {
    let outcome = compile(&Source { name: "c", text: REGISTRY }, &Inputs::default());
    let errors: Vec<_> = outcome.diagnostics.iter().map(|told| (told.code, told.severity)).collect();
    assert_eq!(errors, [("missing-orb", Severity::Error); 2]);
}

#[test]
fn missing_orbs_may_be_left_out() {
    let inputs = Inputs { allow_missing_orbs: true, ..Inputs::default() };
    let workflow = &pipeline_of(REGISTRY, &inputs).workflows[0];
    let a = job_of(workflow, "a");
    assert_eq!(shown(&a.steps), ["checkout", "install", "notify", "x"]);
    assert_eq!(a.steps[1].name, "node/install");
    let what = |index: usize| match &workflow.jobs[index].kind {
        WorkflowJobKind::Unavailable { what } => what.clone(),
        other => format!("{other:?}"),
    };
    assert_eq!((what(1), what(2)), ("executor `node/default`".into(), "orb `node`".into()));
    assert_eq!(workflow.jobs[2].requires[0].job, "a");
}
