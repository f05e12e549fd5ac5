//! Configs and command lines that cannot be understood: said where and why, and nothing is run.

use std::os::unix::fs::PermissionsExt as _;

use navvy_tests::{Bench, Finished, Setting};

fn refused(yaml: &str) -> Finished {
    let done = Bench::new().run_config(yaml, &[]);
    done.exits_with(2).ran_nothing();
    done
}

#[test]
fn a_config_that_is_not_there_is_named() {
    let bench = Bench::new();
    bench.run(&[]).finish().exits_with(2).complains(&[".circleci/config.yml"]).ran_nothing();
    bench.run(&["-f", "other.yml"]).finish().exits_with(2).complains(&["other.yml"]).ran_nothing();
}

#[test]
fn a_config_that_cannot_be_read_is_named() {
    let bench = Bench::of(Setting::User);
    bench.config("version: 2.1\n");
    let file = bench.project().join(".circleci/config.yml");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o000)).expect("its mode can be set");
    bench.run(&[]).finish().exits_with(2).complains(&[".circleci/config.yml", "denied"]).ran_nothing();
    bench.file("binary.yml", b"version: 2.1\n# \xff\n");
    bench.run(&["-f", "binary.yml"]).finish().exits_with(2).complains(&["binary.yml:2", "UTF-8"]).ran_nothing();
}

#[test]
fn yaml_that_does_not_parse_is_shown_at_its_line() {
    let done = refused("version: 2.1\njobs:\n  build:\n    docker: [{image: x}\n    steps: []\n");
    done.complains(&[".circleci/config.yml:"]);
    let shown = ["config.yml:4:", "config.yml:5:"].iter().any(|place| done.stderr.contains(place));
    assert!(shown, "{}", done.stderr);
}

#[test]
fn every_mistake_is_told_with_its_place_and_the_name_that_was_meant() {
    let done = refused(
        r#"version: 2.1
commands:
  greet: {steps: [{run: echo hello}]}
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    steps:
      - chekout
      - gret
  test:
    docker: [{image: navvy/busybox:static}]
    resource_class: smal
    steps: [{run: "true"}]
workflows:
  ci: {jobs: [biuld, test]}
"#,
    );
    done.complains(&[
        "config.yml:8:9",
        "`checkout`",
        "config.yml:9:9",
        "`greet`",
        "config.yml:12:21",
        "small",
        "config.yml:15:15",
        "`build`",
    ]);
}

#[test]
fn jobs_that_require_each_other_are_told() {
    let done = refused(
        r#"version: 2.1
jobs:
  job: {docker: [{image: navvy/busybox:static}], steps: [{run: "true"}]}
workflows:
  ci:
    jobs:
      - job: {name: one, requires: [three]}
      - job: {name: two, requires: [one]}
      - job: {name: three, requires: [two]}
"#,
    );
    done.complains(&["one", "two", "three", "config.yml:"]);
}

#[test]
fn a_command_line_that_is_not_understood_is_usage() {
    let bench = Bench::new();
    bench.config("version: 2.1\njobs: {}\nworkflows: {}\n");
    bench.navvy(&["run", "--no-such-flag"]).exits_with(64).complains(&["--no-such-flag"]);
    bench.navvy(&["run", "--job-limit", "soon"]).exits_with(64).complains(&["soon"]);
    bench.navvy(&["run", "--with-requires"]).exits_with(64).complains(&["--job"]);
    bench.navvy(&["run", "-p", "nonsense"]).exits_with(64).complains(&["nonsense"]);
    bench.navvy(&["rnu"]).exits_with(64).complains(&["rnu"]);
    bench.navvy(&["--help"]).passes();
}

#[test]
fn a_job_or_workflow_that_is_not_there_has_its_neighbour_named() {
    let bench = Bench::new();
    bench.config(
        r#"version: 2.1
jobs:
  build: {docker: [{image: navvy/busybox:static}], steps: [{run: "true"}]}
workflows:
  ci: {jobs: [build]}
"#,
    );
    bench.run(&["--job", "biuld"]).finish().exits_with(2).complains(&["biuld", "`build`"]).ran_nothing();
    bench.run(&["cii"]).finish().exits_with(2).complains(&["cii", "`ci`"]).ran_nothing();
}

#[test]
fn config_validate_says_valid_or_why_not() {
    let bench = Bench::new();
    bench.config(
        "version: 2.1\njobs:\n  build: {docker: [{image: x}], steps: [{run: a}]}\nworkflows: {ci: {jobs: [build]}}\n",
    );
    let good = bench.navvy(&["config", "validate"]);
    good.passes();
    assert_eq!(good.stdout(), ".circleci/config.yml: valid\n");
    bench.config("version: 2.1\njobs:\n  build: {docker: [{image: x}], stepz: []}\n");
    bench.navvy(&["config", "validate"]).exits_with(2).complains(&["config.yml:3:", "steps"]);
}
