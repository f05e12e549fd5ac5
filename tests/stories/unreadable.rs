//! What a job's user cannot read, and what modes the directories have that are made for a job.

use navvy_tests::Bench;

const CLOSED: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: |
          mkdir -p out/open out/closed/deep results/closed
          echo x >out/open/file; echo x >out/secret; echo x >out/closed/deep/file
          echo '<testsuite><testcase name="a"/></testsuite>' >results/a.xml
          sudo chown -R root out/closed out/secret results/closed
          sudo chmod 700 out/closed results/closed; sudo chmod 600 out/secret
      - persist_to_workspace: {name: persist, root: out, paths: [open, secret, closed/*]}
      - save_cache: {name: save, key: v1, paths: [out/open, out/secret, out/closed/deep]}
      - store_artifacts: {name: artifacts, path: out}
      - store_test_results: {name: results, path: results}
      - persist_to_workspace: {name: nothing, root: out, paths: [closed/*]}
workflows:
  ci: {jobs: [build]}
"#;

#[test]
fn what_cannot_be_read_is_told_in_the_report() {
    let bench = Bench::new();
    bench.config(CLOSED);
    let done = bench.run(&[]).finish();
    done.exits_with(1);
    let report = done.event("the report", |event| event.is("run_ended")).texts("warnings").join("\n");
    for (step, archive) in [(2, "the workspace"), (3, "the cache"), (4, "the artifacts")] {
        let line = format!("build: step {step}: what the job's user cannot read is missing in {archive}: ");
        assert!(report.contains(&line), "{line:?} in {report}");
    }
    let persisted = done.text("build", "persist");
    assert!(persisted.contains("Warning: \"closed\": it cannot be read: Permission denied"), "{persisted}");
    assert!(persisted.contains("Warning: closed/* did not match any files in"), "{persisted}");
    assert!(persisted.contains("Warning: \"secret\": it cannot be read: Permission denied"), "{persisted}");
    let saved = done.text("build", "save");
    assert!(saved.contains("out/closed/deep\": it cannot be read: Permission denied"), "{saved}");
    assert!(!saved.contains("Not found"), "{saved}");
    assert!(saved.contains("  * /home/circleci/project/out/open\n"), "{saved}");
    assert!(!saved.contains("  * /home/circleci/project/out/closed/deep\n"), "{saved}");
    let results = done.text("build", "results");
    assert!(results.contains("Warning: /home/circleci/project/results/closed: permission denied"), "{results}");
    assert!(results.ends_with("1 test in 0ms: 1 passed\n"), "{results}");
    let why = done.step("build", "nothing").event.get("outcome").to_string();
    assert!(why.contains("did not match any files") && why.contains("it cannot be read: Permission denied"), "{why}");
}

const HIDDEN: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: |
          mkdir -p out/.hidden/deep .results
          for file in out/a.xml out/.b.xml out/.hidden/c.xml out/.hidden/deep/d.xml .results/e.xml; do
            echo '<testsuite><testcase name="a"/></testsuite>' >$file
          done
      - store_test_results: {name: some, path: out}
      - store_test_results: {name: none, path: .results}
workflows:
  ci: {jobs: [build]}
"#;

#[test]
fn reports_in_hidden_directories_are_ignored_and_the_report_says_so() {
    let bench = Bench::new();
    bench.config(HIDDEN);
    let done = bench.run(&[]).finish();
    done.passes();
    let some = done.text("build", "some");
    assert!(
        some.contains("  * /home/circleci/project/out/a.xml\n") && some.ends_with("2 tests in 0ms: 2 passed\n"),
        "{some}"
    );
    let none = done.text("build", "none");
    assert!(none.ends_with("Found no path with test results, skipping\n"), "{none}");
    let report = done.event("the report", |event| event.is("run_ended")).texts("warnings").join("\n");
    assert!(report.contains("out/.hidden/c.xml and 1 other are ignored, as on the real service"), "{report}");
    assert!(report.contains(".results/e.xml is ignored, as on the real service"), "{report}");
    let shown = bench.run_for_people(&[]).finish();
    assert!(
        shown.stdout().contains("Warnings") && shown.stdout().contains(".results/e.xml is ignored"),
        "{}",
        shown.stdout()
    );
}

const MODES: &str = r#"
version: 2.1
jobs:
  first:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    working_directory: /work/of/mine
    steps:
      - checkout
      - run: {name: checkout modes, command: 'stat -c "%a %n" /work /work/of . src src/deep .git'}
      - run: "umask 0; mkdir -p ~/c/a/che a/b/dir a/x; echo x >~/c/a/che/file; echo x >a/b/dir/file; echo x >a/x/file; chmod 700 ~/c/a/che"
      - save_cache: {key: v1, paths: [~/c/a/che]}
      - run: rm -r ~/c
      - restore_cache: {keys: [v1]}
      - run: {name: cache modes, command: 'stat -c "%a %n" ~/c ~/c/a ~/c/a/che'}
      - persist_to_workspace: {root: ., paths: [a/b/dir, a/x/file]}
  second:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - attach_workspace: {at: /made/ws}
      - run: {name: workspace modes, command: 'cd /made; stat -c "%a %n" . ws ws/a ws/a/b ws/a/b/dir ws/a/x; stat -c "%a %n" ~/project'}
      - run: {name: step directory, working_directory: new/er, command: 'stat -c "%a %n" . ..'}
workflows:
  ci: {jobs: [first, {second: {requires: [first]}}]}
"#;

#[test]
fn directories_that_are_made_for_a_job_are_nobody_elses_to_write_to() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    bench.file("src/deep/file", "x").commit("tree");
    for (path, mode) in [("src", 0o777), ("src/deep", 0o700)] {
        std::fs::set_permissions(bench.project().join(path), std::fs::Permissions::from_mode(mode))
            .expect("a mode is set");
    }
    let done = bench.run_config(MODES, &[]);
    done.passes();
    let checkout = done.text("first", "checkout modes");
    assert_eq!(checkout, "755 /work\n755 /work/of\n755 .\n755 src\n755 src/deep\n755 .git\n");
    let home = "/home/circleci";
    assert_eq!(done.text("first", "cache modes"), format!("755 {home}/c\n755 {home}/c/a\n700 {home}/c/a/che\n"));
    assert_eq!(
        done.text("second", "workspace modes"),
        format!("755 .\n755 ws\n755 ws/a\n755 ws/a/b\n777 ws/a/b/dir\n755 ws/a/x\n755 {home}/project\n")
    );
    assert_eq!(done.text("second", "step directory"), "755 .\n755 ..\n");
}
