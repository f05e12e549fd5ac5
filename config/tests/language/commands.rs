//! Commands, conditions, lists of steps; what steps are called and when they run.

use navvy_job::compiled::{StepKind, When};

use crate::{codes, shown, steps};

#[test]
fn parameters_are_lexical_and_defaults_fill_in() {
    let top = r#"
commands:
  outer: {parameters: {x: {type: string}}, steps: [{inner: {x: "<< parameters.x >>!"}}, inner]}
  inner: {parameters: {x: {type: string, default: d}}, steps: [{run: "echo << parameters.x >>"}]}
"#;
    assert_eq!(shown(&steps(top, "- outer: {x: a}")), ["echo a!", "echo d"]);
}

#[test]
fn lists_of_steps_are_spliced_wherever_they_stand() {
    let top = r#"
commands:
  around: {parameters: {s: {type: steps, default: []}}, steps: [{steps: << parameters.s >>}, checkout, << parameters.s >>]}
  through: {parameters: {s: {type: steps}}, steps: [{around: {s: << parameters.s >>}}]}
"#;
    assert_eq!(shown(&steps(top, "- through: {s: [{run: a}, {run: b}]}")), ["a", "b", "checkout", "a", "b"]);
    assert_eq!(shown(&steps(top, "- around")), ["checkout"]);
}

#[test]
fn conditions_are_decided_and_gone() {
    let top = "commands: {c: {parameters: {on: {type: boolean, default: false}, s: {type: string, default: ''}}, steps: [\
               {when: {condition: << parameters.on >>, steps: [{run: on}]}}, \
               {unless: {condition: << parameters.s >>, steps: [{run: empty}]}}, \
               {when: {condition: {or: [{equal: [a, << parameters.s >>]}, {and: [<< parameters.on >>, true]}]}, steps: [{run: or}]}}]}}";
    assert_eq!(shown(&steps(top, "- c")), ["empty"]);
    assert_eq!(shown(&steps(top, "- c: {on: yes}")), ["on", "empty", "or"]);
    assert_eq!(shown(&steps(top, "- c: {s: a}")), ["or"]);
    assert_eq!(shown(&steps("", "- when: {condition: '${CIRCLE_TAG} && x', steps: [checkout]}")), ["checkout"]);
}

#[test]
fn numbers_and_texts_are_not_equal() {
    let top = "parameters: {n: {type: integer, default: 1}}";
    let when = |other| {
        format!("- when: {{condition: {{equal: [{other}, << pipeline.parameters.n >>]}}, steps: [checkout]}}\n- run: x")
    };
    assert_eq!(shown(&steps(top, &when("1"))), ["checkout", "x"]);
    assert_eq!(shown(&steps(top, &when("'1'"))), ["x"]);
}

#[test]
fn a_command_wins_over_a_built_in_step_of_its_name() {
    let top = "commands: {checkout: {steps: [{run: mine}]}}";
    assert_eq!(shown(&steps(top, "- checkout")), ["mine"]);
}

#[test]
fn built_ins_may_be_written_with_hyphens() {
    let list = steps("", "- restore-cache: {keys: [a, b], key: c}\n- store-test-results: {path: x}");
    assert_eq!(shown(&list), ["restore_cache", "store_test_results"]);
    assert_eq!(list[0].kind, StepKind::RestoreCache { keys: vec!["c".into(), "a".into(), "b".into()] });
}

#[test]
fn steps_have_names_and_times_to_run() {
    let list = steps(
        "",
        "- run: make\n- run: {name: Test, command: make test, when: always}\n- store_artifacts: {path: a}\n- store_test_results: {path: b, when: on_fail}\n- checkout",
    );
    let told: Vec<_> = list.iter().map(|step| (step.name.as_str(), step.when)).collect();
    assert_eq!(
        told,
        [
            ("make", When::OnSuccess),
            ("Test", When::Always),
            ("Uploading artifacts", When::Always),
            ("Uploading test results", When::OnFail),
            ("Checkout code", When::OnSuccess),
        ]
    );
}

#[test]
fn a_step_knows_where_it_was_written() {
    let list = steps("commands:\n  c:\n    steps:\n      - run: x", "- checkout\n- c");
    assert_eq!((list[0].origin.line, list[0].origin.column), (10, 9));
    assert_eq!((list[1].origin.line, list[1].origin.column), (5, 9));
    assert_eq!(list[1].origin.trail, ["job build", "command c"]);
}

#[test]
fn a_mistake_is_told_once_however_often_it_is_used() {
    let text = "version: 2.1\ncommands: {c: {steps: [{nope: {}}]}}\njobs:\n  build: {docker: [{image: i}], steps: [c, c, c]}\n  other: {docker: [{image: i}], steps: [c]}\nworkflows: {w: {jobs: [build, other]}}\n";
    assert_eq!(codes(text), ["unknown-step"]);
}

#[test]
fn what_nothing_uses_is_checked_too() {
    let text = "version: 2.1\ncommands: {c: {steps: [{run: {name: x}}]}}\njobs:\n  build: {docker: [{image: i}], steps: [checkout]}\n  other: {docker: [{image: i}], parallelism: 0, steps: [checkout]}\nworkflows: {w: {jobs: [build]}}\n";
    assert_eq!(codes(text), ["missing-key", "out-of-range"]);
}
