//! Texts that are small and stand for much, or long, or strange: each is refused or compiled, in bounded memory.
//!
//! The process may never have more than 500 MB resident, with all of these side by side.

use std::fmt::Write as _;

use navvy_config::{Inputs, Source, compile};

const HEAD: &str = "version: 2.1\n";
const JOB: &str = "jobs:\n  build:\n    docker: [{image: i}]\n    steps:\n";

/// The codes of the errors; empty when the text compiles.
fn refused(text: &str) -> Vec<&'static str> {
    let outcome = compile(&Source { name: "config.yml", text }, &Inputs::default());
    let errors: Vec<_> =
        outcome.diagnostics.iter().filter(|told| told.severity == navvy_config::Severity::Error).collect();
    assert_eq!(errors.is_empty(), outcome.pipeline.is_some());
    assert!(errors.iter().all(|told| text.get(told.span.start..told.span.end).is_some()));
    assert!(peak_mb() < 500.0, "{} MB", peak_mb());
    errors.iter().map(|told| told.code).collect()
}

/// The most memory that this process had resident, as Linux counts it.
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1000.0
}

fn too_large(text: &str) {
    assert_eq!(refused(text), ["config-too-large"]);
}

/// `levels` commands, each of which makes of the one before what `call` says.
fn commands(levels: usize, first: &str, call: impl Fn(usize) -> String) -> String {
    let mut text = format!("{HEAD}commands:\n  c0: {first}\n");
    for level in 1..levels {
        let _ = writeln!(text, "  c{level}: {}", call(level - 1));
    }
    text
}

#[test]
fn aliases_that_explode_are_refused() {
    let mut text = format!("{HEAD}a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let _ = writeln!(text, "a{level}: &a{level} [{}]", vec![format!("*a{}", level - 1); 9].join(", "));
    }
    too_large(&text);
    let mut text = format!("{HEAD}a0: &a0 {{k0: x, k1: x}}\n");
    for level in 1..40 {
        let _ = writeln!(text, "a{level}: &a{level} {{l: *a{0}, r: *a{0}}}", level - 1);
    }
    too_large(&text);
}

#[test]
fn commands_that_double_are_refused() {
    too_large(
        &(commands(60, "{steps: [{run: x}]}", |last| format!("{{steps: [c{last}, c{last}]}}")) + JOB + "      - c59\n"),
    );
    let call = |last| {
        format!(
            "{{parameters: {{s: {{type: steps}}}}, steps: [{{c{last}: {{s: [{{steps: << parameters.s >>}}, {{steps: << parameters.s >>}}]}}}}]}}"
        )
    };
    let first = "{parameters: {s: {type: steps}}, steps: [{steps: << parameters.s >>}]}";
    too_large(&(commands(60, first, call) + JOB + "      - c59: {s: [checkout]}\n"));
}

#[test]
fn texts_that_double_are_refused() {
    let call = |last| {
        format!(
            "{{parameters: {{p: {{type: string}}}}, steps: [{{c{last}: {{p: << parameters.p >>+<< parameters.p >>}}}}]}}"
        )
    };
    let first = "{parameters: {p: {type: string}}, steps: [{run: << parameters.p >>}]}";
    too_large(&(commands(60, first, call) + JOB + "      - c59: {p: x}\n"));
}

#[test]
fn a_script_that_is_used_often_is_bounded() {
    let script = "x".repeat(100_000);
    let many = "      - c\n".repeat(300);
    too_large(&format!("{HEAD}commands:\n  c: {{steps: [{{run: {script}}}]}}\n{JOB}{many}"));
    let variables = (0..5_000).fold(String::new(), |text, n| text + &format!("V{n}: {n}, "));
    let jobs = (0..2_000).fold(String::new(), |text, n| text + &format!("      - b: {{name: b{n}}}\n"));
    too_large(&format!(
        "{HEAD}jobs:\n  b:\n    docker: [{{image: i}}]\n    environment: {{{variables}}}\n    steps: [checkout]\nworkflows:\n  w:\n    jobs:\n{jobs}"
    ));
}

#[test]
fn long_ways_of_many_steps_are_bounded() {
    let many = "{checkout: {}}, ".repeat(2_000);
    let call = |last| format!("{{steps: [c{last}]}}");
    let uses = "      - c99\n".repeat(100);
    too_large(&(commands(100, &format!("{{steps: [{many}]}}"), call) + JOB + &uses));
}

#[test]
fn a_matrix_that_requires_a_matrix_is_bounded() {
    let values: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    let job = "  b: {parameters: {x: {type: integer}}, docker: [{image: i}], steps: [checkout]}\n";
    let matrix = format!("matrix: {{parameters: {{x: [{}]}}", values.join(", "));
    let text = format!(
        "{HEAD}jobs:\n{job}workflows:\n  w:\n    jobs:\n      - b: {{{matrix}, alias: one}}}}\n      - b: {{name: c<< matrix.x >>, {matrix}, alias: two}}, requires: [one]}}\n"
    );
    too_large(&text);
}

#[test]
fn a_matrix_of_long_values_is_bounded() {
    let long = "v".repeat(200_000);
    let axes = format!(
        "x: [{long}a, {long}b, {long}c], y: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], z: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"
    );
    let job = "  b: {parameters: {x: {type: string}, y: {type: integer}, z: {type: integer}}, docker: [{image: i}], steps: [checkout]}\n";
    too_large(&format!(
        "{HEAD}jobs:\n{job}workflows:\n  w:\n    jobs:\n      - b: {{matrix: {{parameters: {{{axes}}}}}}}\n"
    ));
    let axes: String = (0..100).map(|n| format!("p{n}: [a], ")).collect();
    let text = format!(
        "{HEAD}jobs:\n  b: {{docker: [{{image: i}}], steps: [checkout]}}\nworkflows:\n  w:\n    jobs:\n      - b: {{matrix: {{parameters: {{{axes}}}}}}}\n"
    );
    assert_eq!(refused(&text), ["invalid-matrix"]);
}

#[test]
fn patterns_are_bounded() {
    let filter = |pattern: &str| {
        format!(
            "{HEAD}jobs:\n  b: {{docker: [{{image: i}}], steps: [checkout]}}\nworkflows:\n  w:\n    jobs:\n      - b: {{filters: {{branches: {{only: [{pattern}]}}}}}}\n"
        )
    };
    let many: String = (0..20_000).map(|n| format!("/x{n}.*/, ")).collect();
    assert_eq!(refused(&filter(&many)), ["config-too-large"]);
    let steps_back: String = (0..1_000).map(|n| format!("'/(m|ma|a)*(?=x{n})b/', ")).collect();
    assert!(refused(&filter(&steps_back)).contains(&"config-too-large"));
    assert_eq!(refused(&filter("'/((a{100}){100}){100}/'")), ["invalid-regex"]);
    assert_eq!(refused(&filter(&format!("'/{}/'", "(".repeat(100_000)))), ["invalid-regex"]);
    assert_eq!(refused(&filter(&format!("'/{}x{}/'", "(".repeat(50_000), ")".repeat(50_000)))), ["invalid-regex"]);
}

#[test]
fn what_lies_deep_is_refused() {
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("[a: ", "]")] {
        let text = format!(
            "{HEAD}x: {}y{}\n",
            if open == "- " { "\n" } else { "" }.to_owned() + &open.repeat(20_000),
            close.repeat(20_000)
        );
        assert!(matches!(refused(&text)[..], ["nested-too-deep" | "yaml-syntax"]), "{open}");
    }
    let sections = "<<# pipeline.number >>".repeat(20_000) + &"<</ pipeline.number >>".repeat(20_000);
    assert_eq!(refused(&format!("{HEAD}{JOB}      - run: '{sections}'\n")), ["nested-too-deep"]);
    let expression = format!("{}true{}", "(".repeat(20_000), ")".repeat(20_000));
    assert_eq!(refused(&format!("{HEAD}{JOB}      - run: '<< {expression} >>'\n")), ["invalid-expression"]);
    let chain = format!("{HEAD}{JOB}      - run: '<< {}true >>'\n", "true and not false and ".repeat(5_000));
    assert_eq!(refused(&chain), [""; 0]);
}

#[test]
fn statements_nest_a_hundred_deep() {
    let nested = |depth: usize| {
        let condition = "{not: ".repeat(depth) + "true" + &"}".repeat(depth);
        let lists = "{and: [".repeat(depth) + "true" + &"]}".repeat(depth);
        format!(
            "{HEAD}{JOB}      - checkout\nworkflows:\n  w: {{when: {condition}, jobs: [build]}}\n  v: {{when: {lists}, jobs: [build]}}\n"
        )
    };
    assert_eq!(refused(&nested(100)), [""; 0]);
    assert_eq!(refused(&nested(101)), ["nested-too-deep"; 2]);
}

#[test]
fn a_config_names_a_hundred_contexts() {
    let config = |number: usize| {
        let names: Vec<String> = (0..number).map(|n| format!("c{n}")).collect();
        format!(
            "{HEAD}{JOB}      - checkout\nworkflows:\n  w:\n    jobs:\n      - build: {{context: [{}]}}\n",
            names.join(", ")
        )
    };
    assert_eq!(refused(&config(100)), [""; 0]);
    assert_eq!(refused(&config(101)), ["too-many-contexts"]);
}

#[test]
fn long_texts_are_bounded() {
    let script = |length: usize| format!("{HEAD}{JOB}      - run: {}\n", "x".repeat(length));
    assert_eq!(refused(&script(8_000_000)), [""; 0]);
    too_large(&script(9_000_000));
    let keys: String = (0..20_000).map(|n| format!("key{n}: [{{unknown: 1}}]\n")).collect();
    assert_eq!(refused(&format!("{HEAD}{JOB}      - checkout\n{keys}")), [""; 0]);
    let jobs: String = (0..20_000).map(|n| format!("  j{n}: {{dokcer: 1, stpes: 2, a: 3}}\n")).collect();
    assert!(refused(&format!("{HEAD}jobs:\n{jobs}workflows: {{w: {{jobs: [j1]}}}}\n")).contains(&"missing-key"));
    let globs = "release/*, ".repeat(20_000);
    let text = format!(
        "{HEAD}{JOB}      - checkout\nworkflows:\n  w:\n    jobs:\n      - build: {{filters: {{branches: {{only: [{globs}]}}}}}}\n"
    );
    assert_eq!(refused(&text), [""; 0]);
    let names: String = (0..20_000).map(|n| format!("a.{n}: x, ")).collect();
    assert_eq!(refused(&format!("{HEAD}{JOB}      - checkout\n    environment: {{{names}}}\n")), [""; 0]);
    let pairs: String = (0..20_000).map(|n| format!("k{n}: x, ")).collect();
    let equal = format!("a: &a {{{pairs}}}\nb: &b {{{pairs}}}\n");
    let many = "      - when: {condition: {equal: [*a, *b]}, steps: [checkout]}\n".repeat(4);
    assert_eq!(refused(&format!("{HEAD}{equal}{JOB}      - checkout\n{many}")), [""; 0]);
}

#[test]
fn strange_bytes_are_read_or_refused() {
    let config = format!("{HEAD}{JOB}      - run: |\n          a\n          b\n");
    assert_eq!(refused(&config.replace('\n', "\r\n")), [""; 0]);
    assert_eq!(refused(&format!("\u{feff}{config}")), [""; 0]);
    assert_eq!(refused(&config.replace("      - run", "\t- run")), ["yaml-syntax"]);
    assert_eq!(refused(&config.replace("          b", "\t\tb")), ["yaml-syntax"]);
    assert!(!refused(&config.replace("image: i", "image: \0")).is_empty());
    let wide: String = config.chars().flat_map(|c| [c, '\0']).collect();
    assert!(!refused(&wide).is_empty());
    assert!(!refused("\u{fffd}\u{fffd}v\0e\0r\0").is_empty());
    assert_eq!(refused(&format!("{config}---\n{config}")), [""; 0]);
    assert_eq!(refused(&format!("--- \n{config}...\n")), [""; 0]);
    assert_eq!(refused(&(config.clone() + "jobs:\n  build: {docker: [{image: j}], steps: [checkout]}\n")), [""; 0]);
    assert_eq!(refused("\0"), ["yaml-syntax"]);
}

/// A config at a limit compiles, and one beyond it is refused by name.
fn limited(config: impl Fn(usize) -> String, most: usize) {
    assert_eq!(refused(&config(most)), [""; 0]);
    assert_eq!(refused(&config(most + 1)), ["over-limit"]);
}

fn job_with(keys: &str) -> String {
    format!("{HEAD}jobs:\n  build:\n    docker: [{{image: i}}]\n    {keys}\n    steps: [checkout]\n")
}

#[test]
fn a_job_has_a_thousand_nodes_at_most() {
    limited(|nodes| job_with(&format!("parallelism: {nodes}")), 1_000);
    for wrong in ["1000000000", "4294967296", "9223372036854775807"] {
        assert_eq!(refused(&job_with(&format!("parallelism: {wrong}"))), ["over-limit"]);
    }
    for wrong in ["0", "-1", "-9223372036854775807"] {
        assert_eq!(refused(&job_with(&format!("parallelism: {wrong}"))), ["out-of-range"]);
    }
    let given = format!(
        "{HEAD}parameters: {{n: {{type: integer, default: 1000000000}}}}\n{}",
        &job_with("parallelism: << pipeline.parameters.n >>")[HEAD.len()..]
    );
    assert_eq!(refused(&given), ["over-limit"]);
}

/// Jobs of `nodes` nodes each, by a matrix.
fn matrix(nodes: usize, workflows: &[(usize, &str)]) -> String {
    let mut text = format!(
        "{HEAD}jobs:\n  b: {{parameters: {{x: {{type: integer}}}}, parallelism: {nodes}, docker: [{{image: i}}], steps: [checkout]}}\nworkflows:\n"
    );
    for (index, (jobs, more)) in workflows.iter().enumerate() {
        let values: Vec<String> = (0..*jobs).map(|n| n.to_string()).collect();
        let values = values.join(", ");
        let _ = writeln!(text, "  w{index}: {{{more}jobs: [{{b: {{matrix: {{parameters: {{x: [{values}]}}}}}}}}]}}");
    }
    text
}

#[test]
fn a_workflow_and_a_pipeline_have_some_thousand_tasks_at_most() {
    limited(|nodes| matrix(nodes, &[(50, "")]), 100);
    limited(|jobs| matrix(100, &[(50, ""), (jobs - 1, ""), (1, "")]), 50);
    // What does not run is no task.
    assert_eq!(refused(&matrix(100, &[(50, ""), (50, ""), (50, "when: false, ")])), [""; 0]);
    assert_eq!(refused(&matrix(1_000, &[(2_000, "")])), ["over-limit"]);
}

#[test]
fn a_job_has_fifty_services_and_two_thousand_steps_at_most() {
    let services = |number: usize| {
        let images = ", {image: s}".repeat(number);
        format!("{HEAD}jobs:\n  build:\n    docker: [{{image: i}}{images}]\n    steps: [checkout]\n")
    };
    limited(services, 50);
    let of_executor = |number: usize| {
        let images = ", {image: s}".repeat(number);
        format!(
            "{HEAD}executors: {{e: {{docker: [{{image: i}}{images}]}}}}\njobs: {{build: {{executor: e, steps: [checkout]}}}}\n"
        )
    };
    limited(of_executor, 50);
    limited(|number| format!("{HEAD}{JOB}{}", "      - checkout\n".repeat(number)), 2_000);
    let by_command = |number: usize| {
        let calls = "      - ten\n".repeat(number.div_ceil(10));
        format!("{HEAD}commands: {{ten: {{steps: [{}]}}}}\n{JOB}{calls}", ["checkout"; 10].join(", "))
    };
    limited(by_command, 2_000);
}

#[test]
fn names_have_a_thousand_characters_at_most() {
    let step = |length: usize| format!("{HEAD}{JOB}      - run: {{name: {}, command: x}}\n", "é".repeat(length));
    limited(step, 1_000);
    let built_in = |length: usize| format!("{HEAD}{JOB}      - checkout: {{name: {}}}\n", "n".repeat(length));
    limited(built_in, 1_000);
    let job = |length: usize| {
        format!(
            "{HEAD}{JOB}      - checkout\nworkflows: {{w: {{jobs: [{{build: {{name: {}}}}}]}}}}\n",
            "n".repeat(length)
        )
    };
    limited(job, 1_000);
    let workflow = |length: usize| {
        format!("{HEAD}{JOB}      - checkout\nworkflows:\n  ? {}\n  : {{jobs: [build]}}\n", "n".repeat(length))
    };
    limited(workflow, 1_000);
    let by_matrix = |length: usize| {
        let value = "v".repeat(length - "b-".len());
        format!(
            "{HEAD}jobs:\n  b: {{parameters: {{x: {{type: string}}}}, docker: [{{image: i}}], steps: [checkout]}}\nworkflows: {{w: {{jobs: [{{b: {{matrix: {{parameters: {{x: [{value}]}}}}}}}}]}}}}\n"
        )
    };
    limited(by_matrix, 1_000);
}

#[test]
fn a_long_script_names_its_step_by_its_start() {
    let text = format!("{HEAD}{JOB}      - run: {}\n", "é".repeat(100_000));
    let pipeline = compile(&Source { name: "config.yml", text: &text }, &Inputs::default()).pipeline.unwrap();
    let navvy_job::pipeline::WorkflowJobKind::Build { job } = &pipeline.workflows[0].jobs[0].kind else { panic!() };
    assert_eq!(job.steps[0].name, "é".repeat(999) + "…");
}

#[test]
fn an_environment_is_no_larger_than_linux_hands_on() {
    let places = [
        ("job", format!("{HEAD}{JOB}      - checkout\n    environment: ENV\n")),
        ("step", format!("{HEAD}{JOB}      - run: {{command: x, environment: ENV}}\n")),
        (
            "container",
            format!("{HEAD}jobs: {{build: {{docker: [{{image: i, environment: ENV}}], steps: [checkout]}}}}\n"),
        ),
        (
            "executor",
            format!(
                "{HEAD}executors: {{e: {{docker: [{{image: i}}], environment: ENV}}}}\njobs: {{build: {{executor: e, steps: [checkout]}}}}\n"
            ),
        ),
    ];
    for (place, config) in places {
        let one = |size: usize| config.replace("ENV", &format!("{{A: {}}}", "x".repeat(size - "A=\0".len())));
        limited(one, 128 << 10);
        // 1,024 variables of 1 KiB each.
        let all = |over: usize| {
            let variables: Vec<String> =
                (0..1_024).map(|n| format!("V{n:04}: {}", "x".repeat(1_017 + usize::from(n < over)))).collect();
            config.replace("ENV", &format!("{{{}}}", variables.join(", ")))
        };
        limited(all, 0);
        assert_eq!(refused(&all(1_024)), ["over-limit"], "{place}");
    }
}
