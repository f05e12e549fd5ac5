//! No branch is no branch: what only some branches may do is not done in a bisect, a rebase, another CI's clone, a
//! directory without git.

use navvy_tests::Bench;

const CONFIG: &str = r#"version: 2.1
jobs:
  j: &j
    docker: [{image: navvy/busybox:static}]
    steps:
      - run:
          name: Which
          command: echo "branch <${CIRCLE_BRANCH-unset}>, value [<< pipeline.git.branch >>], default [<< pipeline.git.branch.is_default >>]"
workflows:
  ci:
    jobs:
      - j: {name: test}
      - j: {name: lint, filters: {branches: {ignore: gh-pages}}}
      - j: {name: deploy, filters: {branches: {only: main}}}
      - j: {name: announce, requires: [deploy]}
"#;

const ONLY: &str = r#"version: 2.1
jobs:
  deploy: {docker: [{image: navvy/busybox:static}], steps: [{run: "echo deployed"}]}
workflows: {ci: {jobs: [{deploy: {filters: {branches: {only: [main, /release.*/]}}}}]}}
"#;

fn runs_without_a_branch(bench: &Bench, why: &str) {
    let done = bench.run(&[]).finish();
    done.passes();
    assert_eq!(done.text("test", "Which"), "branch <unset>, value [], default [false]\n");
    assert_eq!(done.verdict("lint"), "passed");
    assert_eq!(done.tasks().len(), 2, "{}", done.account());
    let warnings = done.warnings();
    for part in ["there is no branch", why, "deploy", "--branch NAME"] {
        assert!(warnings.contains(part), "no {part:?} in {warnings}");
    }
    let summary = bench.navvy(&["run", "--quiet"]);
    assert!(summary.stdout().contains("there is no branch"), "{}", summary.account());
}

#[test]
fn on_a_detached_head_only_lets_nothing_run_and_the_report_says_so() {
    let bench = Bench::new();
    bench.config(CONFIG).commit("a pipeline");
    bench.git(&["checkout", "--quiet", "--detach"]).succeeded();
    runs_without_a_branch(&bench, "HEAD is detached, at ");
    let list = bench.navvy(&["run", "--list"]);
    assert!(list.stdout().contains("its branch filter lets only some branches through"), "{}", list.account());
    let named = bench.run(&["--branch", "main"]).finish();
    named.passes();
    assert_eq!(named.text("deploy", "Which"), "branch <main>, value [main], default [true]\n");
    assert_eq!(named.tasks().len(), 4);
    assert!(!named.warnings().contains("no branch"), "{}", named.warnings());
}

#[test]
fn without_git_there_is_no_branch_either() {
    let bench = Bench::new();
    bench.config(CONFIG);
    std::fs::remove_dir_all(bench.project().join(".git")).expect("git's directory can be removed");
    runs_without_a_branch(&bench, "is in no git repository");
}

#[test]
fn where_nothing_is_left_to_run_the_error_names_the_flag() {
    let bench = Bench::new();
    bench.config(ONLY).commit("a pipeline");
    bench.git(&["checkout", "--quiet", "--detach"]).succeeded();
    bench.run(&[]).finish().exits_with(2).complains(&["HEAD is detached", "deploy", "--branch NAME"]).ran_nothing();
    // Whoever names the job means it.
    bench.run(&["--job", "deploy"]).finish().passes();
    let explained = bench.navvy(&["config", "explain", "deploy"]);
    assert!(explained.stdout().contains("does not run on no branch"), "{}", explained.account());
}

#[test]
fn the_branch_that_is_named_is_the_one_that_values_tell() {
    let bench = Bench::new();
    bench.config(CONFIG).commit("a pipeline");
    let done = bench.run(&["--branch", "feature", "--job", "test"]).finish();
    done.passes();
    assert_eq!(done.text("test", "Which"), "branch <feature>, value [feature], default [false]\n");
}
