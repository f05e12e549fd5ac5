//! What the service accepts although it looks wrong: one step as a map, keys that were not indented, empty keys.

use navvy_config::{Inputs, Severity, Source, compile};

use crate::shelf::shelf;
use crate::{codes, job, job_of, pipeline_of, reason, selected, shown, steps, workflow};

#[test]
fn the_steps_of_a_condition_may_be_one_step() {
    let list = "- when: {condition: true, steps: {run: one}}\n- unless: {condition: false, steps: {greet: {whom: you}}}\n\
                - when: {condition: true, steps: }\n- unless: {condition: true, steps: {run: no}}\n- run: last";
    let top = "commands: {greet: {parameters: {whom: {type: string}}, steps: {}}}";
    let top = top.replace(
        "steps: {}",
        "steps: [{when: {condition: << parameters.whom >>, steps: {run: 'hi << parameters.whom >>'}}}]",
    );
    assert_eq!(shown(&steps(&top, list)), ["one", "hi you", "last"]);
}

/// The shape of `circleci/node` 4.8.0 to 6.3.0: its job `test` stores results under three conditions, each with one step.
const NODE: &str = r#"
version: 2.1
executors: {default: {parameters: {tag: {type: string}}, docker: [{image: "cimg/node:<< parameters.tag >>"}]}}
jobs:
  test:
    parameters:
      version: {type: string, default: lts}
      setup: {type: steps, default: []}
      test-results-path: {type: string, default: ''}
      test-results-for: {type: enum, enum: [jest, mocha, other], default: other}
    executor: {name: default, tag: << parameters.version >>}
    steps:
      - checkout
      - steps: << parameters.setup >>
      - run: npm run test
      - when:
          condition: << parameters.test-results-path >>
          steps:
            store_test_results:
              path: << parameters.test-results-path >>
      - when:
          condition:
            and:
              - equal: [jest, << parameters.test-results-for >>]
              - equal: ['', << parameters.test-results-path >>]
          steps:
            store_test_results:
              path: junit.xml
"#;

#[test]
fn the_test_job_of_the_node_orb_stores_its_results() {
    let text = "version: 2.1\norbs: {node: circleci/node@5}\nworkflows: {w: {jobs: [node/test, \
                {node/test: {name: path, test-results-path: out}}, {node/test: {name: jest, test-results-for: jest}}]}}\n";
    for version in ["circleci/node@5.2.0", "circleci/node@5.0.1"] {
        let workflow = &pipeline_of(text, &shelf(&[(version, NODE)])).workflows[0];
        let last = |name| format!("{:?}", job_of(workflow, name).steps.last().unwrap().kind);
        assert!(last("node/test").contains("npm run test"));
        assert!(last("path").contains("path: \"out\""), "{}", last("path"));
        assert!(last("jest").contains("path: \"junit.xml\""), "{}", last("jest"));
    }
}

#[test]
fn of_a_step_with_several_keys_the_first_counts() {
    let found = steps(
        "commands: {greet: {steps: [run: hi]}}",
        "- run: a\n  name: b\n- checkout:\n  path: x\n- greet:\n  whom: you\n- when: {condition: true, steps: [run: c]}\n  name: d",
    );
    assert_eq!(shown(&found), ["a", "checkout", "hi", "c"]);
    assert_eq!(found[0].name, "a");
}

fn told(text: &str) -> Vec<(Severity, &'static str)> {
    let outcome = compile(&Source { name: "c", text }, &Inputs::default());
    outcome.diagnostics.iter().map(|told| (told.severity, told.code)).collect()
}

#[test]
fn further_keys_of_a_step_are_warned_of_wherever_it_stands() {
    let text = r#"
version: 2.1
commands: {c: {parameters: {s: {type: steps, default: []}}, steps: [{run: x, name: y}, {steps: << parameters.s >>}]}}
jobs: {j: {docker: [{image: i}], steps: [{c: {s: [{run: x, name: y}]}}, {when: {condition: false, steps: [{c: , name: y}]}}]}}
workflows: {w: {jobs: [{j: {pre-steps: [{run: x, name: y}], post-steps: [{run: x, name: y}]}}]}}
"#;
    assert_eq!(told(text), [(Severity::Warning, "step-not-single-key"); 5]);
}

#[test]
fn of_a_workflows_job_with_several_keys_the_first_counts() {
    let text = r#"
version: 2.1
jobs: {a: &a {docker: [{image: i}], steps: [checkout]}, b: *a}
workflows:
  w:
    jobs:
      - a:
          context: c
        requires: [b]
        filters: {branches: {only: never}}
      - b
"#;
    let workflow = workflow(text);
    assert_eq!(selected(&workflow), ["a", "b"]);
    assert!(workflow.jobs[0].requires.is_empty());
    assert_eq!(workflow.jobs[0].contexts, ["c"]);
    assert_eq!(told(text), [(Severity::Warning, "job-not-single-key")]);
}

#[test]
fn a_command_beside_an_empty_run_is_refused() {
    for step in [
        "{run: , command: x}",
        "{run: , name: y, command: x}",
        "{deploy: , command: x}",
        "{save_cache: , key: k, paths: [p]}",
    ] {
        let text = format!("version: 2.1\njobs: {{build: {{docker: [{{image: i}}], steps: [{step}]}}}}\n");
        assert!(told(&text).iter().any(|told| told.0 == Severity::Error), "{step}: {:?}", told(&text));
    }
}

#[test]
fn an_empty_default_is_none() {
    let text = r#"
version: 2.1
executors: {e: {parameters: {tag: {type: string, default: }}, docker: [{image: "i:<< parameters.tag >>"}]}}
commands: {c: {parameters: {whom: {type: string, default: }, n: {type: integer, default: }, s: {type: steps, default: }}, steps: [{run: "<< parameters.whom >> << parameters.n >>"}, {steps: << parameters.s >>}]}}
jobs: {build: {executor: {name: e, tag: x}, steps: [{c: {whom: you, n: 1, s: [checkout]}}]}}
"#;
    assert_eq!(shown(&job(text, "build").steps), ["you 1", "checkout"]);
    assert_eq!(told(&text.replace("whom: you, ", "")), [(Severity::Error, "missing-argument")]);
    assert_eq!(told(&text.replace(", tag: x", "")), [(Severity::Error, "missing-argument")]);
    let pipeline = format!("{text}parameters: {{p: {{type: string, default: }}}}\n");
    assert_eq!(told(&pipeline), [(Severity::Error, "missing-default")]);
}

#[test]
fn an_empty_key_of_2_1_is_nothing_in_version_2() {
    let text = r#"
version: 2
orbs:
commands:
executors:
parameters: ~
setup:
jobs: {build: {executor: , parameters: , docker: [{image: i}], steps: [checkout]}}
workflows: {version: 2, w: {when: , unless: , jobs: [{build: {matrix: , name: , pre-steps: , post-steps: }}]}}
"#;
    assert_eq!(codes(text), Vec::<&str>::new());
    let workflow = workflow(text);
    assert_eq!(reason(&workflow.selected), "");
    assert_eq!(shown(&job_of(&workflow, "build").steps), ["checkout"]);
    assert!(codes(&text.replace("orbs:", "orbs: {a: b/c@1}")).contains(&"needs-2.1"));
}

#[test]
fn a_job_may_require_the_other_use_of_itself() {
    let required = |jobs: &str| {
        let text = format!(
            "version: 2.1\njobs: {{t: {{parameters: {{x: {{type: string, default: ''}}}}, docker: [{{image: i}}], steps: [checkout]}}}}\n\
             workflows: {{w: {{jobs: [{jobs}]}}}}\n"
        );
        let names = |job: &navvy_job::pipeline::WorkflowJob| {
            let names: Vec<_> = job.requires.iter().map(|requirement| requirement.job.as_str()).collect();
            format!("{} after {}", job.name, names.join("+"))
        };
        workflow(&text).jobs.iter().map(names).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(required("t, {t: {requires: [t]}}"), "t-1 after , t-2 after t-1");
    assert_eq!(required("{t: {requires: [t: failed]}}, t"), "t-1 after t-2, t-2 after ");
    assert_eq!(required("t, t, {t: {requires: [t]}}"), "t-1 after , t-2 after , t-3 after t-1+t-2");
    assert_eq!(required("{t: {name: a}}, {t: {requires: [t]}}"), "a after , t after a");
    assert_eq!(required("{t: {name: a}}, {t: {name: b, requires: [t]}}"), "a after , b after a");
    let mixed = "{t: {name: a}}, {t: {requires: [t], matrix: {parameters: {x: [y, z]}}}}";
    assert_eq!(required(mixed), "a after , t-y after a, t-z after a");
    let matrix = "{t: {matrix: {parameters: {x: [a, b]}}}}, {t: {name: 'z-<< matrix.x >>', requires: [t], matrix: {parameters: {x: [a, b]}}}}";
    assert_eq!(required(matrix), "t-a after , t-b after , z-a after t-a+t-b, z-b after t-a+t-b");
    let alone = "version: 2.1\njobs: {t: {docker: [{image: i}], steps: [checkout]}}\nworkflows: {w: {jobs: [{t: {requires: [t]}}]}}\n";
    assert_eq!(codes(alone), ["cyclic-requires"]);
    let both = alone.replace("[{t: {requires: [t]}}]", "[{t: {requires: [t]}}, {t: {requires: [t]}}]");
    assert_eq!(codes(&both), ["cyclic-requires"]);
}

#[test]
fn retired_classes_are_told_as_retired() {
    let of = |class: &str| {
        told(&format!("version: 2.1\njobs: {{build: {{machine: true, resource_class: {class}, steps: [checkout]}}}}\n"))
    };
    for class in ["gpu.small", "gpu.medium", "gpu.large"] {
        assert_eq!(of(class), [(Severity::Warning, "retired-resource-class")], "{class}");
    }
    for class in ["windows.arm.medium", "windows.arm.large", "windows.arm.xlarge", "windows.arm.2xlarge"] {
        assert_eq!(of(class), [], "{class}");
    }
    assert_eq!(of("gpu.huge"), [(Severity::Error, "unknown-resource-class")]);
}

#[test]
fn values_of_the_trigger_and_the_author_are_known() {
    let values = ["trigger.name", "git.commit.author_name", "git.commit.author_email", "git.commit.author_avatar_url"];
    let list: Vec<String> = values.iter().map(|name| format!("- run: x<< pipeline.{name} >>")).collect();
    assert_eq!(shown(&steps("", &list.join("\n"))), ["x"; 4]);
}
