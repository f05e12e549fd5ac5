//! Which jobs run, and when.

use navvy_tests::{Bench, Finished, everywhere};

const DIAMOND: &str = r#"
version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  first: {executor: box, steps: [{run: {name: go, command: echo first}}]}
  left: {executor: box, steps: [{run: {name: go, command: sleep 2}}]}
  right: {executor: box, steps: [{run: {name: go, command: sleep 2}}]}
  last: {executor: box, steps: [{run: {name: go, command: echo last}}]}
workflows:
  ci:
    jobs:
      - first
      - left: {requires: [first]}
      - right: {requires: [first]}
      - last: {requires: [left, right]}
"#;

fn overlap(done: &Finished, one: &str, other: &str) -> bool {
    let ((a, b), (c, d)) = (done.span(one), done.span(other));
    a < d && c < b
}

everywhere! {
    fn jobs_run_side_by_side_where_the_graph_allows(bench: Bench) {
        let done = bench.run_config(DIAMOND, &[]);
        done.passes();
        assert!(overlap(&done, "left", "right"), "{:?} {:?}", done.span("left"), done.span("right"));
        assert!(done.span("first").1 <= done.span("left").0.min(done.span("right").0));
        assert!(done.span("left").1.max(done.span("right").1) <= done.span("last").0);
    }
}

#[test]
fn who_requires_a_job_group_runs_when_all_of_it_has_passed() {
    let done = Bench::new().run_config(
        r#"
version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  good: {executor: box, steps: [{run: {name: go, command: echo good}}]}
  bad: {executor: box, steps: [{run: {name: go, command: "false"}}]}
  after: {executor: box, steps: [{run: {name: go, command: echo after}}]}
job-groups:
  whole: {jobs: [good]}
  broken: {jobs: [bad]}
workflows:
  ci:
    jobs:
      - whole
      - broken: {serial-group: prod}
      - after: {name: after whole, requires: [whole]}
      - after: {name: after broken, requires: [broken]}
"#,
        &[],
    );
    done.exits_with(1);
    let end = |job: &str| done.end(job);
    assert_eq!(
        (end("whole-entry"), end("whole"), done.verdict("after whole")),
        ("passed".into(), "passed".into(), "passed".into())
    );
    assert_eq!(
        (done.verdict("bad"), end("broken"), end("after broken")),
        ("failed".into(), "not_run".into(), "not_run".into())
    );
    assert_eq!((end("broken-lock"), end("broken-unlock")), ("passed".into(), "passed".into()));
    assert!(done.span("good").1 <= done.span("after whole").0);
}

#[test]
fn one_at_a_time_when_asked() {
    let bench = Bench::new();
    let done = bench.run_config(DIAMOND, &["--max-parallel", "1"]);
    done.passes();
    assert!(!overlap(&done, "left", "right"), "{:?} {:?}", done.span("left"), done.span("right"));
}

#[test]
fn a_job_runs_alone_or_with_what_it_requires() {
    let bench = Bench::new();
    let alone = bench.run_config(DIAMOND, &["--job", "last"]);
    alone.passes();
    assert_eq!(alone.tasks().len(), 1);
    let with = bench.run(&["--job", "left", "--with-requires"]).finish();
    with.passes();
    assert_eq!(with.tasks().len(), 2);
    assert_eq!(with.verdict("first"), "passed");
    let assumed = bench.run(&["--assume", "passed:left", "--assume", "passed:first"]).finish();
    assumed.passes();
    assert_eq!(assumed.end("left"), "passed");
    assert_eq!(assumed.tasks().len(), 2);
    assert_eq!(assumed.verdict("last"), "passed");
}

#[test]
fn what_stands_behind_a_failed_job_is_not_run() {
    let bench = Bench::new();
    let done = bench.run_config(
        r#"
version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  bad: {executor: box, steps: [{run: "false"}]}
  good: {executor: box, steps: [{run: "true"}]}
  report: {executor: box, steps: [{run: "true"}]}
workflows:
  ci:
    jobs:
      - bad
      - good
      - good: {name: behind, requires: [bad]}
      - good: {name: far behind, requires: [behind]}
      - report: {requires: [{bad: [failed]}]}
"#,
        &[],
    );
    done.exits_with(1);
    assert_eq!(done.verdict("good"), "passed");
    assert_eq!(done.end("behind"), "not_run");
    assert_eq!(done.end("far behind"), "not_run");
    assert_eq!(done.verdict("report"), "passed");
    assert!(done.end_words("behind").contains("bad"), "{}", done.end_words("behind"));
}

#[test]
fn an_approval_holds_what_is_behind_it_until_it_is_given() {
    let bench = Bench::new();
    let config = r#"
version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  build: {executor: box, steps: [{run: "true"}]}
  deploy: {executor: box, steps: [{run: "true"}]}
workflows:
  ci:
    jobs:
      - build
      - hold: {type: approval, requires: [build]}
      - deploy: {requires: [hold]}
"#;
    let held = bench.run_config(config, &[]);
    held.exits_with(4);
    assert_eq!(held.verdict("build"), "passed");
    assert_eq!(held.end("hold"), "held");
    assert_eq!(held.end("deploy"), "not_run");
    let asked = held.event("the question", |event| event.is("approval_asked"));
    assert_eq!(asked.texts("holds"), ["deploy"]);
    let given = bench.run(&["--approve", "hold"]).finish();
    given.passes();
    assert_eq!(given.verdict("deploy"), "passed");
    let all = bench.run(&["--approve", "all", "--assume", "passed:build", "--assume", "passed:deploy"]).finish();
    all.passes();
}

#[test]
fn a_matrix_makes_jobs_and_parallelism_makes_nodes() {
    let bench = Bench::new();
    let config = r#"
version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  say:
    executor: box
    parameters: {word: {type: string}, loud: {type: boolean}}
    steps: [{run: {name: go, command: "echo << parameters.word >> << parameters.loud >>"}}]
  split:
    executor: box
    parallelism: 3
    steps: [{run: {name: go, command: 'echo "node $CIRCLE_NODE_INDEX of $CIRCLE_NODE_TOTAL"'}}]
workflows:
  ci:
    jobs:
      - say:
          matrix:
            parameters: {word: [hello, bye], loud: [true, false]}
            exclude: [{word: bye, loud: false}]
      - split: {requires: [say]}
"#;
    let nodes = |done: &Finished| {
        let outputs = done.events.iter().filter(|event| event.is("output") && event.job() == "split");
        let mut lines: Vec<String> = outputs.map(|event| event.text("bytes").trim_end().to_owned()).collect();
        lines.sort();
        lines
    };
    let done = bench.run_config(config, &[]);
    done.passes();
    assert_eq!(done.tasks().len(), 6);
    let said: Vec<&str> =
        done.events.iter().filter(|e| e.is("output") && e.job().starts_with("say")).map(|e| e.text("bytes")).collect();
    for line in ["hello true\n", "hello false\n", "bye true\n"] {
        assert!(said.contains(&line), "{said:?}");
    }
    assert_eq!(nodes(&done), ["node 0 of 3", "node 1 of 3", "node 2 of 3"]);
    let capped = bench.run(&["--job", "split", "--parallelism", "2"]).finish();
    capped.passes();
    assert_eq!(nodes(&capped), ["node 0 of 2", "node 1 of 2"]);
}

#[test]
fn a_job_whose_executor_is_not_here_neither_passes_nor_fails() {
    let bench = Bench::new();
    let config = r#"
version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  here: {executor: box, steps: [{run: "true"}]}
  vm: {machine: {image: "ubuntu-2204:current"}, steps: [{run: {name: go, command: echo in a container}}]}
  mac: {macos: {xcode: "16.0.0"}, steps: [{run: "true"}]}
workflows:
  ci:
    jobs:
      - here
      - vm
      - here: {name: after vm, requires: [vm]}
  apple: {jobs: [mac]}
"#;
    let done = bench.run_config(config, &["ci"]);
    done.exits_with(4);
    assert_eq!(done.verdict("here"), "passed");
    assert_eq!(done.end("vm"), "not_available");
    assert!(done.end_words("vm").contains("ubuntu-2204:current"), "{}", done.end_words("vm"));
    assert_eq!(done.end("after vm"), "not_run");

    let replaced = bench.run(&["ci", "--machine-as", "navvy/busybox:static"]).finish();
    replaced.passes();
    assert_eq!(replaced.text("vm", "go"), "in a container\n");
    let summary = replaced.event("the end", |event| event.is("run_ended"));
    assert!(summary.texts("fidelity").iter().any(|note| note.contains("vm")), "{}", summary.summary());

    let apple = bench.run(&["apple"]).finish();
    apple.exits_with(4);
    assert_eq!(apple.end("mac"), "not_available");
}

#[test]
fn filters_decide_by_branch_and_tag() {
    let bench = Bench::new();
    bench.config(
        r#"
version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  show:
    executor: box
    steps: [{run: {name: go, command: 'echo "[$CIRCLE_BRANCH][$CIRCLE_TAG]"'}}]
workflows:
  ci:
    jobs:
      - show: {name: everywhere}
      - show: {name: main only, filters: {branches: {only: main}}}
      - show: {name: not main, filters: {branches: {ignore: main}}}
      - show: {name: releases, filters: {tags: {only: /^v.*/}, branches: {ignore: /.*/}}}
"#,
    );
    let ran = |done: &Finished| {
        let started = done.events.iter().filter(|event| event.is("task_started"));
        let mut jobs: Vec<String> = started.map(|event| event.job().to_owned()).collect();
        jobs.sort();
        jobs
    };
    let on_main = bench.run(&[]).finish();
    on_main.passes();
    assert_eq!(ran(&on_main), ["everywhere", "main only"]);
    let on_feature = bench.run(&["--branch", "feature/x"]).finish();
    on_feature.passes();
    assert_eq!(ran(&on_feature), ["everywhere", "not main"]);
    assert_eq!(on_feature.text("not main", "go"), "[feature/x][]\n");
    let on_tag = bench.run(&["--tag", "v1.2"]).finish();
    on_tag.passes();
    assert_eq!(ran(&on_tag), ["releases"]);
    assert_eq!(on_tag.text("releases", "go"), "[][v1.2]\n");
}
