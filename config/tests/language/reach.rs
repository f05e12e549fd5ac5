//! Mistakes in what does not run: of workflows that their own conditions leave out, of definitions that nothing uses.

use navvy_config::{Inputs, Outcome, Severity, Source, compile, compile_whole, explain, process};
use navvy_job::pipeline::{Selection, WorkflowJobKind};

use crate::shelf::shelf;

const JOBS: &str = "version: 2.1\njobs: {a: {docker: [{image: i}], steps: [checkout]}}\n";

fn of(text: &str, tolerate_unreached: bool) -> Outcome {
    compile(&Source { name: "c", text }, &Inputs { tolerate_unreached, ..Inputs::default() })
}

/// Codes with their severity: `E:` or `W:`.
fn told(outcome: &Outcome) -> Vec<String> {
    let letter = |severity| if severity == Severity::Error { "E" } else { "W" };
    outcome.diagnostics.iter().map(|told| format!("{}:{}", letter(told.severity), told.code)).collect()
}

/// Mistakes in a workflow, one by one: what stands beside its condition.
const WRONG: [&str; 14] = [
    "jobs: [gone]",
    "jobs: [a: {requires: [gone]}]",
    "jobs: [{a: {requires: [b]}}, {a: {name: b, requires: [a]}}]",
    "jobs: [a: {x: 1}]",
    "jobs: [a: {matrix: {parameters: {x: []}}}]",
    "jobs: [a: {pre-steps: [gone]}]",
    "jobs: [a: {filters: {branches: {only: '/(/'}}}]",
    "jobs: [a: {context: ' '}]",
    "jobs: [{}]",
    "jobs: []",
    "jobs: [a: {name: << pipeline.gone >>}]",
    "{jobs: [a], max_auto_reruns: 9}",
    "{jobs: [a], serial-group: x}",
    "{jobs: [{hold: {type: approval}}, {hold: {type: approval}}]}",
];

fn workflow(condition: &str, wrong: &str) -> String {
    let inner = wrong.trim_start_matches('{').trim_end_matches(|c| c == '}' && wrong.starts_with('{'));
    format!("{JOBS}workflows:\n  run: {{jobs: [a]}}\n  w: {{{condition}{inner}}}\n")
}

#[test]
fn mistakes_in_a_workflow_that_its_condition_leaves_out_are_warnings() {
    for wrong in WRONG {
        for condition in
            ["when: false, ", "unless: true, ", "when: {equal: [a, b]}, ", "when: pipeline.git.branch == \"x\", "]
        {
            let text = workflow(condition, wrong);
            let outcome = of(&text, false);
            let told = told(&outcome);
            assert!(!told.is_empty() && told.iter().all(|told| told.starts_with("W:")), "{text}{told:?}");
            let pipeline = outcome.pipeline.unwrap_or_else(|| panic!("{text}"));
            assert!(pipeline.workflows[1].flawed && !pipeline.workflows[0].flawed, "{text}");
            assert!(
                matches!(&pipeline.workflows[1].selected, Selection::Left { reason } if reason.contains("mistakes"))
            );
        }
        for condition in ["", "when: true, ", "unless: false, "] {
            let text = workflow(condition, wrong);
            let outcome = of(&text, true);
            assert!(outcome.pipeline.is_none(), "{text}");
        }
    }
}

/// Another reason not to run is none to look away: a push of another branch would run it.
#[test]
fn mistakes_in_other_workflows_that_do_not_run_are_errors() {
    let scheduled = format!(
        "{JOBS}workflows:\n  run: {{jobs: [a]}}\n  w: {{triggers: [{{schedule: {{cron: 0 0 * * *, filters: {{branches: {{only: main}}}}}}}}], jobs: [gone]}}\n"
    );
    assert_eq!(told(&of(&scheduled, true)), ["E:unknown-job"]);
    let filtered = format!(
        "{JOBS}workflows: {{w: {{jobs: [a: {{filters: {{branches: {{ignore: main}}}}, requires: [gone]}}]}}}}\n"
    );
    assert_eq!(told(&of(&filtered, true)), ["E:unknown-requirement"]);
}

#[test]
fn a_condition_that_is_wrong_itself_is_an_error() {
    for condition in ["when: {nand: [a]}", "when: pipeline.gone", "{when: false, unless: true}"] {
        let inner = condition.trim_matches(|c| condition.starts_with('{') && (c == '{' || c == '}'));
        let text = format!("{JOBS}workflows: {{w: {{{inner}, jobs: [a]}}}}\n");
        assert!(of(&text, true).pipeline.is_none(), "{text}");
        let scheduled = text.replace(
            "jobs: [a]}",
            "triggers: [{schedule: {cron: 0 0 * * *, filters: {branches: {only: main}}}}], jobs: [a]}",
        );
        assert!(of(&scheduled, true).pipeline.is_none(), "{scheduled}");
    }
}

#[test]
fn what_a_workflow_left_out_uses_is_tolerated_and_what_others_use_is_not() {
    let text = r#"
version: 2.1
commands:
  left: {steps: [{run: {}}, {when: {condition: false, steps: [gone]}}]}
  both: {steps: [{run: {}}]}
jobs:
  a: {docker: [{image: i}], steps: [checkout]}
  b: {docker: [{image: i}], steps: [left]}
workflows:
  run: {jobs: [a]}
  w: {when: false, jobs: [b]}
"#;
    // Not of `both`, which nothing leads to.
    assert_eq!(told(&of(text, true)), ["W:missing-key", "W:unknown-step", "W:missing-key"]);
    let used = text.replace("steps: [checkout]", "steps: [left, both]");
    assert_eq!(told(&of(&used, true)), ["E:missing-key", "E:unknown-step", "E:missing-key"]);
    let after = used.replace("  run: {jobs: [a]}\n", "") + "  run: {jobs: [a]}\n";
    assert_eq!(told(&of(&after, true)), ["E:missing-key", "E:unknown-step", "E:missing-key"]);
}

#[test]
fn nothing_of_a_flawed_workflow_is_shown_as_if_it_were_whole() {
    let text = format!(
        "{JOBS}workflows:\n  run: {{jobs: [a]}}\n  w:\n    when: false\n    jobs: [{{a: {{name: x, requires: [y]}}}}, {{a: {{name: y, requires: [x]}}}}, gone, {{a: {{name: z, post-steps: [gone]}}}}]\n"
    );
    let source = Source { name: "c", text: &text };
    let whole = compile_whole(&source, &Inputs::default());
    assert_eq!(told(&whole), ["W:cyclic-requires", "W:unknown-job", "W:unknown-step"]);
    let jobs = &whole.pipeline.unwrap().workflows[1].jobs;
    assert!(jobs.iter().all(|job| job.requires.is_empty()));
    assert!(matches!(&jobs[2].kind, WorkflowJobKind::Unavailable { what } if what == "its mistakes mended"));
    let explained = explain(&source, &Inputs::default(), "x", None);
    assert_eq!(told(&explained.outcome).len(), 3);
    assert!(explained.found.iter().all(|found| !found.runs));
    let written = process(&source, &Inputs::default(), false).text.unwrap();
    assert!(!written.contains("w:"), "{written}");
}

/// Definitions that no workflow leads to, each with a mistake.
const UNREACHED: [(&str, &str); 15] = [
    ("commands", "u: {steps: [gone]}"),
    ("commands", "u: {steps: [{when: {condition: false, steps: [gone]}}]}"),
    ("commands", "u: {steps: [{run: {name: x}}]}"),
    ("commands", "u: {steps: [{run: << parameters.gone >>}]}"),
    ("commands", "u: {steps: [u]}"),
    ("commands", "u: {parameters: {p: {type: strin}}, steps: [checkout]}"),
    ("commands", "u: {parameters: {p: {type: integer, default: x}}, steps: [checkout]}"),
    ("commands", "u: [checkout]"),
    ("executors", "u: {resource_class: small}"),
    ("executors", "u: {docker: [{image: i}], machine: true}"),
    ("executors", "u: {docker: [{image: << parameters.gone >>}]}"),
    ("executors", "u: {parameters: {p: {type: steps}}, docker: [{image: i}]}"),
    ("job-groups", "u: {jobs: [gone]}"),
    ("job-groups", "u: {}"),
    ("orbs", "o: {commands: {u: {steps: [gone]}}}"),
];

#[test]
fn mistakes_of_definitions_that_nothing_reaches_are_warnings_for_who_runs() {
    let run = format!("{JOBS}workflows: {{run: {{jobs: [a]}}}}\n");
    let others = UNREACHED.iter().map(|(part, entry)| format!("{run}{part}: {{{entry}}}\n"));
    let jobs = [
        "u: {steps: [checkout]}",
        "u: {docker: [{image: i}]}",
        "u: {executor: gone, steps: [checkout]}",
        "u: {type: nothing}",
    ];
    let jobs = jobs.map(|job| run.replace("jobs: {a:", &format!("jobs: {{{job}, a:")));
    for text in others.chain(jobs) {
        let lenient = of(&text, true);
        let found = told(&lenient);
        assert!(!found.is_empty() && found.iter().all(|told| told.starts_with("W:")), "{text}{found:?}");
        assert!(lenient.pipeline.is_some(), "{text}");
        assert!(of(&text, false).pipeline.is_none(), "{text}");
    }
}

#[test]
fn what_a_condition_leaves_out_today_is_reached() {
    let text = r#"
version: 2.1
commands:
  one: {steps: [two]}
  two: {steps: [{when: {condition: false, steps: {three: {}}}}]}
  three: {steps: [{run: {name: x}}, {when: {condition: false, steps: [gone]}}]}
jobs: {a: {docker: [{image: i}], steps: [checkout, {when: {condition: false, steps: [one]}}]}}
workflows: {run: {jobs: [a]}}
"#;
    assert_eq!(told(&of(text, true)), ["E:missing-key", "E:unknown-step"]);
}

#[test]
fn elements_of_orbs_that_nothing_uses_are_tolerated() {
    let orb = "commands: {fine: {steps: [{run: x}]}, wrong: {parameters: {p: {type: strin}}, steps: [checkout]}}";
    let text = |step: &str| {
        format!("version: 2.1\norbs: {{o: acme/o@1}}\njobs: {{build: {{docker: [{{image: i}}], steps: [{step}]}}}}\n")
    };
    let inputs = Inputs { tolerate_unreached: true, ..shelf(&[("acme/o@1.0.0", orb)]) };
    let of = |step: &str| told(&compile(&Source { name: "c", text: &text(step) }, &inputs));
    assert_eq!(of("o/fine"), ["W:parameter-type"]);
    assert_eq!(of("o/fine, o/wrong"), ["E:parameter-type"]);
}

#[test]
fn an_executor_that_is_used_is_reached() {
    let text = r#"
version: 2.1
executors: {u: {parameters: {p: {type: strin}}, docker: [{image: i}]}}
jobs: {a: {parameters: {e: {type: executor, default: u}}, executor: EXECUTOR, steps: [checkout]}}
workflows: {run: {jobs: [a]}}
"#;
    for executor in ["u", "{name: u}", "<< parameters.e >>"] {
        assert_eq!(told(&of(&text.replace("EXECUTOR", executor), true)), ["E:parameter-type"], "{executor}");
    }
}

/// An anchor in what nothing uses may be used elsewhere, with the same place in the file.
#[test]
fn what_is_used_through_an_anchor_is_reached() {
    let text =
        "version: 2.1\njobs: {u: &u {docker: [{image: i}], steps: [gone]}, a: *u}\nworkflows: {run: {jobs: [a]}}\n";
    assert_eq!(told(&of(text, true)), ["E:unknown-step"]);
}

/// After so many mistakes nobody looks further, and nothing may pass as whole because of that.
#[test]
fn far_too_many_mistakes_hide_nothing() {
    let many: String = (0..1_100).map(|n| format!("gone-{n}, ")).collect();
    let text = format!(
        "{JOBS}workflows:\n  l: {{when: false, jobs: [{many}]}}\n  m: {{when: false, jobs: [a]}}\n  run: {{jobs: [a]}}\n"
    );
    let pipeline = of(&text, false).pipeline.unwrap();
    assert!(pipeline.workflows[0].flawed && !pipeline.workflows[2].flawed);
    assert_eq!(pipeline.workflows[2].jobs.len(), 1);
    assert!(pipeline.workflows[1].flawed || pipeline.workflows[1].jobs.len() == 1);
    let wrong = format!("{JOBS}workflows:\n  l: {{when: false, jobs: [{many}]}}\n  run: {{jobs: [gone]}}\n");
    assert!(of(&wrong, false).pipeline.is_none());
    let commands: String =
        (0..1_100).map(|n| format!("c{n}: {{parameters: {{p: {{type: strin}}}}, steps: [checkout]}}, ")).collect();
    let text = format!("{JOBS}commands: {{{commands}}}\nworkflows: {{run: {{jobs: [a]}}}}\n");
    assert!(of(&text, true).pipeline.is_none());
}
