//! Orbs: inline, from a shelf in place of an orb path, and going on without those that are not there.

use navvy_config::{Inputs, Severity, Source, compile, compile_orb};
use navvy_job::pipeline::WorkflowJobKind;

use crate::shelf::shelf;
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

const NODE: &str = r#"
version: 2.1
description: Node, for tests.
orbs: {tools: acme/tools@2}
executors: {default: {parameters: {tag: {type: string, default: lts}}, docker: [{image: "node:<< parameters.tag >>"}]}}
commands:
  install:
    parameters: {with: {type: string, default: npm}, after: {type: steps, default: []}}
    steps: [{run: "<< parameters.with >> install on << pipeline.git.branch >>"}, tools/tidy, {steps: << parameters.after >>}]
jobs:
  test:
    parameters: {tag: {type: string, default: lts}}
    executor: {name: default, tag: << parameters.tag >>}
    steps: [checkout, install]
"#;
const TOOLS: &str = "commands: {tidy: {steps: [{run: tidy}]}}";

#[test]
fn elements_of_a_registry_orb_mean_what_they_mean_there() {
    let text = r#"
version: 2.1
orbs: {node: acme/node@5}
commands: {install: {steps: [{run: of-config}]}}
jobs: {a: {executor: node/default, steps: [{node/install: {with: yarn, after: [install]}}]}}
workflows: {w: {jobs: [a, {node/test: {tag: "20", pre-steps: [install]}}]}}
"#;
    let inputs = shelf(&[("acme/node@5.1.0", NODE), ("acme/tools@2.0.0", TOOLS)]);
    let workflow = &pipeline_of(text, &inputs).workflows[0];
    let (a, test) = (job_of(workflow, "a"), job_of(workflow, "node/test"));
    assert_eq!(shown(&a.steps), ["yarn install on main", "tidy", "of-config"]);
    assert_eq!(shown(&test.steps), ["of-config", "checkout", "npm install on main", "tidy"]);
    assert!(format!("{:?}", (a.executor, test.executor)).contains("node:20"));
    let files: Vec<_> = a.steps.iter().map(|step| step.origin.file.as_deref()).collect();
    assert_eq!(files, [Some("orbs/acme/node@5.1.0.yml"), Some("orbs/acme/tools@2.0.0.yml"), None]);
    assert_eq!(
        (a.steps[1].origin.line, &*a.steps[1].origin.trail),
        (1, &["job a", "command install", "command tidy"].map(String::from)[..])
    );
}

#[test]
fn a_reference_may_hold_pipeline_parameters() {
    let text = r#"
version: 2.1
parameters: {v: {type: string, default: "1"}}
orbs: {o: "acme/o@<< pipeline.parameters.v >>"}
jobs: {build: {docker: [{image: i}], steps: [o/say]}}
"#;
    let say = |v: &str| Inputs {
        parameters: vec![("v".into(), v.into())],
        ..shelf(&[
            ("acme/o@1.2.0", "commands: {say: {steps: [{run: old}]}}"),
            ("acme/o@1.10.0", "commands: {say: {steps: [{run: new}]}}"),
            ("acme/o@dev:x", "commands: {say: {steps: [{run: dev}]}}"),
        ])
    };
    let said = |v: &str| job_of(&pipeline_of(text, &say(v)).workflows[0], "build").steps[0].name.clone();
    assert_eq!(["1", "1.2", "1.2.0", "volatile", "dev:x"].map(said), ["new", "old", "old", "new", "dev"]);
}

#[test]
fn orbs_by_address_are_asked_for_like_those_of_a_registry() {
    let text = "version: 2.1\norbs: {o: https://h.example/o.yml}\njobs: {build: {docker: [{image: i}], steps: [o/c]}}";
    let inputs = shelf(&[("https://h.example/o.yml", "commands: {c: {steps: [{run: x}]}}")]);
    assert_eq!(shown(&job_of(&pipeline_of(text, &inputs).workflows[0], "build").steps), ["x"]);
}

#[test]
fn every_orb_is_read_once_and_every_import_is_told() {
    let text = r#"
version: 2.1
orbs: {node: acme/node@5, again: acme/node@5.1.0, tools: acme/tools@volatile, gone: acme/gone@1}
jobs: {build: {docker: [{image: i}], steps: [node/install, again/install, tools/tidy]}}
"#;
    let inputs =
        Inputs { allow_missing_orbs: true, ..shelf(&[("acme/node@5.1.0", NODE), ("acme/tools@2.0.0", TOOLS)]) };
    let outcome = compile(&Source { name: "c", text }, &inputs);
    let files: Vec<_> = outcome.files.iter().map(|file| &*file.name).collect();
    assert_eq!(files, ["orbs/acme/node@5.1.0.yml", "orbs/acme/tools@2.0.0.yml"]);
    let told = outcome.orbs.iter().map(|orb| {
        let resolved = orb.resolved.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        format!("{} {} {} {resolved}", orb.importer, orb.alias, orb.reference)
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            "0 node acme/node@5 acme/node@5.1.0",
            "1 tools acme/tools@2 acme/tools@2.0.0",
            "0 again acme/node@5.1.0 acme/node@5.1.0",
            "0 tools acme/tools@volatile acme/tools@2.0.0",
            "0 gone acme/gone@1 -",
        ]
    );
}

#[test]
fn an_orb_that_overrides_a_job_replaces_it_if_it_has_the_job() {
    let text = r#"
version: 2.1
orbs: {o: acme/o@1}
jobs: {a: {docker: [{image: i}], steps: [{run: local}]}, b: {docker: [{image: i}], steps: [{run: local}]}}
workflows: {w: {jobs: [{a: {override-with: o/a}}, {b: {override-with: o/b, requires: [a]}}, {c: {override-with: o/a}}]}}
"#;
    let inputs = shelf(&[("acme/o@1.0.0", "jobs: {a: {docker: [{image: i}], steps: [{run: of-orb}]}}")]);
    let workflow = &pipeline_of(text, &inputs).workflows[0];
    let runs = |name: &str| shown(&job_of(workflow, name).steps).join(" ");
    assert_eq!((runs("a"), runs("b"), runs("c")), ("of-orb".into(), "local".into(), "of-orb".into()));
}

#[test]
fn an_override_by_an_orb_that_is_not_here_leaves_the_job_as_it_is() {
    let text = r#"
version: 2.1
orbs: {o: acme/o@1}
jobs: {a: {docker: [{image: i}], steps: [{run: local}]}}
workflows: {w: {jobs: [{a: {override-with: o/a}}]}}
"#;
    let inputs = Inputs { allow_missing_orbs: true, ..shelf(&[]) };
    assert_eq!(shown(&job_of(&pipeline_of(text, &inputs).workflows[0], "a").steps), ["local"]);
}

#[test]
fn an_orb_may_miss_orbs_of_its_own() {
    let text =
        "version: 2.1\norbs: {node: acme/node@5}\njobs: {build: {executor: node/default, steps: [node/install]}}";
    let inputs = Inputs { allow_missing_orbs: true, ..shelf(&[("acme/node@5.1.0", NODE)]) };
    let build = job_of(&pipeline_of(text, &inputs).workflows[0], "build");
    assert_eq!(shown(&build.steps), ["npm install on main", "tidy"]);
    assert_eq!(build.steps[1].name, "tools/tidy");
}

#[test]
fn version_2_imports_nothing() {
    let text = "version: 2\norbs: {node: acme/node@5}\njobs: {build: {docker: [{image: i}], steps: [checkout]}}";
    let outcome = compile(&Source { name: "c", text }, &shelf(&[]));
    assert_eq!(outcome.diagnostics.iter().map(|told| told.code).collect::<Vec<_>>(), ["needs-2.1"]);
    assert_eq!(outcome.orbs, []);
}

#[test]
fn an_orb_in_a_file_of_its_own_can_be_checked() {
    let codes = |text: &str| {
        let outcome = compile_orb(&Source { name: "o", text }, &shelf(&[("acme/tools@2.0.0", TOOLS)]));
        assert_eq!(outcome.pipeline.is_none(), outcome.diagnostics.iter().any(|told| told.severity == Severity::Error));
        outcome.diagnostics.iter().map(|told| told.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(NODE), [""; 0]);
    assert_eq!(codes("version: 2.1\njobs: {}\nworkflows: {}"), ["no-orb"]);
    assert_eq!(codes(""), ["no-orb"]);
    assert_eq!(codes("commands: {c: {steps: [nothing]}}"), ["unknown-step"]);
    assert_eq!(codes("commands: {c: {steps: [{run: << pipeline.parameters.x >>}]}}"), ["undeclared-parameter"]);
    assert_eq!(codes("comands: {}\njobs: {}"), ["unknown-key"]);
}
