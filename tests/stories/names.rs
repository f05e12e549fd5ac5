//! Names on the command line that the config has not: refused before anything runs, with what was probably meant.

use navvy_tests::Bench;

const CONFIG: &str = r#"version: 2.1
jobs:
  build: {docker: [{image: navvy/busybox:static}, {image: navvy/postgres:15}], steps: [{run: "true"}]}
workflows:
  ci:
    jobs:
      - build: {context: [deploy-keys]}
      - hold: {type: approval, requires: [build]}
      - build: {name: release, requires: [hold], filters: {branches: {only: never}}}
  other:
    when: false
    jobs: [{build: {name: nightly}}]
"#;

const SETUP: &str = r#"version: 2.1
setup: true
jobs:
  start:
    docker: [{image: navvy/base:bookworm}]
    steps: [checkout, {run: "circleci continuation continue --configuration next.yml"}]
workflows: {setup: {jobs: [start]}}
"#;

const NEXT: &str = r#"version: 2.1
jobs: {later: {docker: [{image: navvy/busybox:static}], steps: [{run: "true"}]}}
workflows: {ci: {jobs: [later, {hold: {type: approval, requires: [later]}}]}}
"#;

fn bench() -> Bench {
    let bench = Bench::new().env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    bench.config(CONFIG);
    bench
}

/// Whatever else is asked for.
#[track_caller]
fn is_refused(words: &[&str], code: i32, parts: &[&str]) {
    let bench = bench();
    for more in [&["--list"][..], &["--dry-run"], &["--graph"], &[]] {
        let words = [&["run"], words, more].concat();
        bench.navvy(&words).exits_with(code).complains(parts).ran_nothing();
    }
}

#[test]
fn what_nothing_has_is_refused_with_its_neighbour() {
    is_refused(&["--approve", "hodl"], 64, &["--approve hodl", "did you mean `hold`?"]);
    is_refused(&["--approve", "build"], 64, &["--approve build", "job `build` is not an approval"]);
    is_refused(&["--assume", "passed:biuld"], 64, &["--assume passed:biuld", "did you mean `build`?"]);
    is_refused(&["--context", "deploy-kyes=x.env"], 64, &["--context deploy-kyes", "did you mean `deploy-keys`?"]);
    is_refused(&["--image", "navvy/bsybox:*=x"], 64, &["--image navvy/bsybox:*=x", "navvy/busybox:static"]);
    is_refused(&["--job", "biuld"], 2, &["there is no job `biuld`", "did you mean `build`?"]);
    is_refused(&["co"], 2, &["there is no workflow `co`", "ci, other"]);
    is_refused(&["--break-before", "nope"], 64, &["--break-before nope"]);
    is_refused(
        &["--approve", "hodl", "--assume", "passed:biuld"],
        64,
        &["--approve hodl: ", "--assume passed:biuld: "],
    );
}

#[test]
fn what_only_a_job_has_that_does_not_run_is_no_mistake() {
    let bench = bench();
    let words =
        ["--approve", "hold", "--approve", "all", "--assume", "passed:nightly", "--context", "deploy-keys=x.env"];
    bench.navvy(&[&["run", "--list"][..], &words, &["--image", "navvy/postgres:*=x"]].concat()).passes();
}

#[test]
fn a_list_shows_what_was_named() {
    let bench = bench();
    let shown = |words: &[&str]| {
        let done = bench.navvy(&[&["run"], words].concat());
        done.passes();
        done.stdout()
    };
    let build = shown(&["--list", "--job", "build"]);
    assert!(build.contains("build") && !build.contains("approval") && !build.contains("nightly"), "{build}");
    let other = shown(&["other", "--list"]);
    assert!(other.contains("nightly") && !other.contains("approval"), "{other}");
    let graph = shown(&["--graph", "--job", "release"]);
    assert!(graph.contains("release") && !graph.contains("approval"), "{graph}");
}

#[test]
fn a_name_may_be_in_what_a_setup_config_goes_on_with() {
    let bench = Bench::new();
    bench.config(SETUP).file("next.yml", NEXT);
    let done = bench.run(&["--approve", "hold", "--approve", "hodl"]).finish();
    done.passes();
    let warnings = done.warnings();
    assert!(warnings.contains("--approve hodl did nothing") && warnings.contains("did you mean `hold`?"), "{warnings}");
    assert!(!warnings.contains("--approve hold did"), "{warnings}");
}

#[test]
fn a_node_that_has_left_no_artifacts_is_named() {
    let bench = Bench::new();
    bench.config(
        r#"version: 2.1
jobs:
  make:
    docker: [{image: navvy/base:bookworm}]
    steps: [{run: "echo x > x"}, {store_artifacts: {path: x}}]
workflows: {ci: {jobs: [make]}}
"#,
    );
    bench.run(&[]).finish().passes();
    bench.navvy(&["artifacts", "ls", "--node", "0"]).passes();
    bench.navvy(&["artifacts", "ls", "--node", "7"]).exits_with(64).complains(&["node 7", "0"]);
    bench.navvy(&["artifacts", "get", "--node", "7"]).exits_with(64).complains(&["node 7"]);
}
