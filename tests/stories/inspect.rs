//! A pipeline looked at, and not run: no engine is asked.

use std::path::Path;

use navvy_tests::Bench;

const PIPELINE: &str = r#"version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  build:
    executor: box
    steps: [checkout, {run: {name: Build it, command: make}}, {store_artifacts: {path: out}}]
  test:
    docker: [{image: navvy/base:bookworm}, {image: navvy/postgres:15, name: db}]
    parallelism: 4
    steps: [checkout, {run: make test}]
  vm: {machine: {image: "ubuntu-2204:current"}, steps: [checkout]}
workflows:
  ci:
    jobs:
      - build
      - test: {requires: [build]}
      - hold: {type: approval, requires: [test]}
      - vm: {requires: [hold], filters: {branches: {only: main}}}
"#;

/// A bench on which no engine can be reached.
fn bench() -> Bench {
    let bench = Bench::new().env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    bench.config(PIPELINE).config_file("navvy/settings.toml", "[vm]\nqemu = '/nonexistent/qemu'\n");
    bench
}

#[test]
fn list_shows_workflows_and_jobs() {
    let done = bench().navvy(&["run", "--list"]);
    done.passes();
    insta::assert_snapshot!(done.stdout(), @r"
    ci
      build  docker navvy/busybox:static                     small
      test   docker navvy/base:bookworm + navvy/postgres:15         4 nodes; after build
      hold   approval                                               after test
      vm     machine ubuntu-2204:current                            not available here: needs a virtual machine (ubuntu-2204:current, class medium): your settings name /nonexistent/qemu as QEMU, which is no file; after hold
    ");
}

#[test]
fn graph_shows_who_waits_for_whom() {
    let bench = bench();
    let text = bench.navvy(&["run", "--graph"]);
    text.passes();
    insta::assert_snapshot!(text.stdout(), @r"
    ci
    └─ build
       └─ test ×4
          └─ hold (approval)
             └─ vm
    ");
    let dot = bench.navvy(&["run", "--graph", "dot"]);
    dot.passes();
    insta::assert_snapshot!(dot.stdout(), @r#"
    digraph pipeline {
      rankdir=LR;
      node [shape=box, style=rounded];
      subgraph cluster_0 {
        label="ci";
        "ci/build" [label="build"];
        "ci/test" [label="test"];
        "ci/hold" [label="hold", shape=diamond];
        "ci/vm" [label="vm"];
      }
      "ci/build" -> "ci/test";
      "ci/test" -> "ci/hold";
      "ci/hold" -> "ci/vm";
    }
    "#);
}

#[test]
fn dry_run_shows_every_step() {
    let done = bench().navvy(&["run", "--dry-run", "--machine-as", "navvy/base:bookworm"]);
    done.passes();
    insta::assert_snapshot!(done.stdout(), @r"
    workflow ci
      job build
        in navvy/busybox:static (class small)
          1. checkout: Checkout code
          2. run: Build it
          3. store_artifacts: Uploading artifacts
      job test after build
        in navvy/base:bookworm with navvy/postgres:15 (class medium)
        4 times side by side
          1. checkout: Checkout code
          2. run: make test
      job hold after test
        waits for approval
      job vm after hold
        in navvy/base:bookworm (class medium)
          1. checkout: Checkout code
    ");
}

#[test]
fn the_examples_and_our_own_pipeline_compile() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").to_owned();
    let bench = Bench::new().env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    for config in ["examples/shop/.circleci/config.yml", ".circleci/config.yml"] {
        let path = root.join(config);
        let done = bench.navvy(&["run", "--list", "-f", &path.display().to_string()]);
        done.passes();
        assert!(done.stdout().lines().count() > 2, "{config}: {}", done.stdout());
    }
}
