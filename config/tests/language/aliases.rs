//! Entries of `commands`, `executors` and `jobs` that are the name of an orb's element.

use navvy_config::{Inputs, Severity, Source, compile, process};
use navvy_job::pipeline::WorkflowJobKind;

use crate::shelf::shelf;
use crate::{codes, job, job_of, pipeline_of, shown, workflow};

const ORB: &str = r#"
version: 2.1
orbs:
  o:
    orbs: {deep: {commands: {tidy: {steps: [{run: tidy}]}}}}
    executors: {e: {parameters: {tag: {type: string, default: lts}}, docker: [{image: "of-orb:<< parameters.tag >>"}]}}
    commands:
      greet: {parameters: {whom: {type: string, default: world}}, steps: [{run: "hello << parameters.whom >>"}]}
      clean: deep/tidy
    jobs: {j: {parameters: {whom: {type: string, default: orb}}, executor: e, steps: [greet: {whom: << parameters.whom >>}]}}
"#;

fn with_orb(rest: &str) -> String {
    format!("{ORB}{rest}")
}

#[test]
fn an_alias_stands_for_the_element_of_the_orb() {
    let text = with_orb(
        r#"
executors: {mine: o/e}
commands: {hi: o/greet, sweep: o/clean}
jobs:
  theirs: o/j
  own: {executor: {name: mine, tag: "20"}, steps: [hi, {hi: {whom: you}}, sweep]}
workflows: {w: {jobs: [own, {theirs: {whom: me, requires: [own]}}, {theirs: {name: again}}]}}
"#,
    );
    let own = job(&text, "own");
    assert_eq!(shown(&own.steps), ["hello world", "hello you", "tidy"]);
    assert!(format!("{:?}", own.executor).contains("of-orb:20"));
    assert_eq!(shown(&job(&text, "theirs").steps), ["hello me"]);
    assert_eq!(shown(&job(&text, "again").steps), ["hello orb"]);
    assert_eq!(workflow(&text).jobs[1].definition, "theirs");
    assert_eq!(codes(&text), Vec::<&str>::new());
}

#[test]
fn an_alias_may_be_the_job_that_runs_without_workflows() {
    assert_eq!(shown(&job(&with_orb("jobs: {build: o/j}\n"), "build").steps), ["hello orb"]);
}

#[test]
fn an_executor_parameter_takes_an_alias() {
    let text = with_orb(
        r#"
executors: {mine: o/e}
jobs:
  a: {parameters: {x: {type: executor, default: mine}}, executor: << parameters.x >>, steps: [checkout]}
workflows: {w: {jobs: [a]}}
"#,
    );
    assert!(format!("{:?}", job(&text, "a").executor).contains("of-orb:lts"));
}

#[test]
fn an_alias_of_an_imported_orb_means_what_it_means_there() {
    let orb = "commands: {install: {steps: [other]}, other: {steps: [{run: of-orb}]}}";
    let text = "version: 2.1\norbs: {n: acme/node@1}\ncommands: {other: {steps: [{run: of-config}]}, setup: n/install}\n\
                jobs: {build: {docker: [{image: i}], steps: [setup]}}\n";
    let pipeline = pipeline_of(text, &shelf(&[("acme/node@1.0.0", orb)]));
    assert_eq!(shown(&job_of(&pipeline.workflows[0], "build").steps), ["of-orb"]);
}

const MISSING: &str = r#"
version: 2.1
orbs: {node: circleci/node@5}
executors: {default: node/default}
commands: {install: node/install}
jobs:
  test: node/test
  a: {docker: [{image: i}], steps: [install: {with: yarn}]}
  b: {executor: {name: default, tag: "20"}, steps: [checkout]}
workflows: {w: {jobs: [a, b, {test: {requires: [a], version: "1"}}]}}
"#;

#[test]
fn an_alias_of_what_is_missing_is_missing() {
    let inputs = Inputs { allow_missing_orbs: true, ..Inputs::default() };
    let workflow = &pipeline_of(MISSING, &inputs).workflows[0];
    assert_eq!(job_of(workflow, "a").steps[0].name, "node/install");
    let what = |index: usize| match &workflow.jobs[index].kind {
        WorkflowJobKind::Unavailable { what } => what.clone(),
        other => format!("{other:?}"),
    };
    assert_eq!((what(1), what(2)), ("executor `node/default`".into(), "orb `node`".into()));
}

/// What is written out has no aliases: it names the elements of the orb, which is still missing, and says the same.
#[test]
fn aliases_of_what_is_missing_are_written_out() {
    let inputs = Inputs { allow_missing_orbs: true, ..Inputs::default() };
    let written = process(&Source { name: "c", text: MISSING }, &inputs, false).text.unwrap();
    let again = &pipeline_of(&written, &inputs).workflows[0];
    let kinds: Vec<_> = again.jobs.iter().map(|job| job.kind.clone()).collect();
    assert!(
        matches!(&kinds[1], WorkflowJobKind::Unavailable { what } if what == "executor `node/default`"),
        "{written}"
    );
    assert!(matches!(&kinds[2], WorkflowJobKind::Unavailable { what } if what == "orb `node`"), "{written}");
    assert_eq!(again.jobs[2].name, "test");
    assert_eq!(job_of(again, "a").steps[0].name, "node/install");
}

#[test]
fn an_alias_of_a_missing_orb_is_one_error() {
    let outcome = compile(&Source { name: "c", text: MISSING }, &Inputs::default());
    let told: Vec<_> = outcome.diagnostics.iter().map(|told| (told.code, told.severity)).collect();
    assert_eq!(told, [("missing-orb", Severity::Error)]);
}

#[test]
fn version_2_has_no_aliases() {
    let text = "version: 2\njobs: {build: o/j}\n";
    assert!(codes(text).contains(&"wrong-shape"), "{:?}", codes(text));
}
