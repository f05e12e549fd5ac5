//! Test results: what failed is shown where it happens, and the next run shares its tests out by what they took.

use std::fs;

use navvy_tests::{Bench, Finished, everywhere};

const STORES: &str = "Uploading test results";

/// One job that runs `command` and stores `path`.
fn storing(command: &str, path: &str) -> String {
    let command = command.replace('\n', "\n            ");
    format!(
        r#"
version: 2.1
jobs:
  test:
    docker: [{{image: navvy/base:bookworm}}]
    resource_class: small
    steps:
      - run:
          name: write
          command: |
            {command}
      - store_test_results: {{path: {path}}}
workflows:
  ci: {{jobs: [test]}}
"#
    )
}

everywhere! {
    fn what_failed_is_shown_with_its_place(bench: Bench) {
        let command = "mkdir -p out/deep\n\
            echo '<testsuite name=\"s\"><testcase classname=\"Cart\" name=\"adds\" file=\"spec/cart_spec.rb\" time=\"1.5\">\
            <failure message=\"expected 12, got 11\">spec/cart_spec.rb:14</failure></testcase>\
            <testcase classname=\"Cart\" name=\"is empty\" time=\"0.5\"/></testsuite>' >out/deep/rspec.xml\n\
            echo '<testsuites><testsuite><testcase name=\"later\"><skipped/></testcase></testsuite></testsuites>' >out/b.xml\n\
            exit 3";
        let done = bench.run_config(&storing(command, "out"), &[]);
        done.exits_with(1);
        assert_eq!(done.step("test", STORES).outcome, "success");
        let text = done.text("test", STORES);
        assert_eq!(
            text,
            "Archiving the following test results\n  * /home/circleci/project/out/b.xml\n  \
             * /home/circleci/project/out/deep/rspec.xml\n3 tests in 2.0s: 1 passed, 1 failed, 1 skipped\nFailed:\n  \
             Cart adds (spec/cart_spec.rb:14)\n      expected 12, got 11\n      spec/cart_spec.rb:14\n"
        );
    }
}

#[test]
fn results_that_are_missing_or_broken_fail_nothing() {
    let bench = Bench::new();
    let missing = bench.run_config(&storing("true", "~/nowhere"), &[]);
    missing.passes();
    let text = missing.text("test", STORES);
    assert!(text.starts_with("Unable to save test results from /home/circleci/nowhere\nError: "), "{text}");
    assert!(text.ends_with("Found no path with test results, skipping\n"), "{text}");

    let broken = "mkdir out; printf '<testsuite>\\n<testcase name=\"a\" time=\"1\"/>\\n<testcase' >out/cut.xml; \
                  echo '{}' >out/no.xml; printf '<testsuite><testcase name=\"b\"/></testsuite>' >out/whole.xml";
    let done = bench.run_config(&storing(broken, "out"), &[]);
    done.passes();
    let text = done.text("test", STORES);
    assert!(text.contains("Warning: /home/circleci/project/out/cut.xml:3: "), "{text}");
    assert!(text.contains("Warning: /home/circleci/project/out/no.xml:1: not a JUnit report"), "{text}");
    assert!(text.ends_with("2 tests in 1.0s: 2 passed\n"), "{text}");
    assert!(done.warnings().contains("test results: /home/circleci/project/out/cut.xml:3: "), "{}", done.warnings());

    let single = bench
        .run_config(&storing("echo '<testsuite><testcase name=\"b\"/></testsuite>' >one.report", "one.report"), &[]);
    single.passes();
    assert!(single.text("test", STORES).ends_with("1 test in 0ms: 1 passed\n"), "{}", single.text("test", STORES));
}

#[test]
fn results_that_hold_a_secret_are_not_stored() {
    let bench = Bench::new();
    let command = "mkdir out; echo '<testsuite><testcase name=\"x\"><failure>got hunter2hunter2</failure></testcase></testsuite>' \
                   >out/a.xml";
    let done = bench.run_config(&storing(command, "out"), &["-e", "TOKEN=hunter2hunter2"]);
    done.passes();
    let text = done.text("test", STORES);
    assert!(text.contains("got ****"), "{text}");
    assert!(text.contains("The results are not stored: they hold the value of TOKEN."), "{text}");
    assert!(done.warnings().contains("hold the value of TOKEN"), "{}", done.warnings());
}

#[test]
fn a_report_in_utf_16_is_read_and_its_tests_are_listed() {
    let bench = Bench::new();
    let command = "mkdir out; printf '\\xef\\xbb\\xbf%s' '<?xml version=\"1.0\" encoding=\"utf-16\"?><testsuites><testsuite name=\"s\">\
                   <testcase classname=\"Wörter\" name=\"zählt\" file=\"spec/a.rb\" time=\"1.5\"/><testcase classname=\"Wörter\" name=\"日本\">\
                   <failure>it said pässwörd</failure></testcase></testsuite></testsuites>' >utf8
iconv -f UTF-8 -t UTF-16LE utf8 >out/little.xml; iconv -f UTF-8 -t UTF-16BE utf8 >out/big.xml; head -c 2 out/little.xml | od -An -tx1";
    let done = bench.run_config(&storing(command, "out"), &[]);
    done.passes();
    assert_eq!(done.text("test", "write"), " ff fe\n");
    let text = done.text("test", STORES);
    assert!(
        text.contains("4 tests in 3.0s: 2 passed, 2 failed\nFailed:\n  Wörter 日本\n      it said pässwörd\n"),
        "{text}"
    );
    assert_eq!(done.warnings(), "");
    let json = bench.ask(&["tests", "--json"]).passes().stdout();
    let kept: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&kept["passed"], &kept["failed"]), (&2.into(), &2.into()), "{json}");
    assert_eq!(kept["failures"][0]["name"], "日本", "{json}");
    assert_eq!(kept["slowest"][0]["name"], "zählt", "{json}");

    let done = bench.run_config(&storing(command, "out"), &["-e", "TOKEN=pässwörd"]);
    done.passes();
    let text = done.text("test", STORES);
    assert!(text.contains("it said ****") && text.contains("they hold the value of TOKEN."), "{text}");
}

const SHARED: &str = r#"
version: 2.1
jobs:
  test:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    parallelism: 2
    steps:
      - run: {name: make, command: "mkdir t; for test in a b c d e f; do echo $test >t/$test.sh; done"}
      - run: {name: share, command: 'circleci tests glob "t/*.sh" | circleci tests split --split-by=timings >share; cat share'}
      - run:
          name: test
          command: |
            mkdir out
            {
              echo '<testsuites><testsuite>'
              for file in $(cat share); do
                time=1; [ $file != t/a.sh ] || time=1,000.5
                echo "<testcase name='runs' file='$file' time='$time'/>"
              done
              echo '</testsuite></testsuites>'
            } >out/junit.xml
      - store_test_results: {path: out}
workflows:
  ci: {jobs: [test]}
"#;

/// What each node was given, in no order of theirs; standard error of the split left out.
fn shares(done: &Finished) -> Vec<Vec<String>> {
    let paths = done.log_paths("test", "share");
    let read = |path| fs::read_to_string(path).unwrap();
    let share =
        |text: String| text.lines().filter(|line| line.starts_with("t/")).map(|line| line.trim().to_owned()).collect();
    let mut shares: Vec<Vec<String>> = paths.iter().map(read).map(share).collect();
    shares.sort();
    shares
}

#[test]
fn nodes_share_the_tests_and_the_next_run_goes_by_what_they_took() {
    let bench = Bench::new();
    let first = bench.run_config(SHARED, &[]);
    first.passes();
    assert!(first.text("test", "share").contains("Error reading historical timing data: file does not exist"));
    assert_eq!(shares(&first), [["t/a.sh", "t/c.sh", "t/e.sh"], ["t/b.sh", "t/d.sh", "t/f.sh"]]);

    let second = bench.run_config(SHARED, &[]);
    second.passes();
    assert_eq!(shares(&second), [vec!["t/a.sh"], vec!["t/b.sh", "t/c.sh", "t/d.sh", "t/e.sh", "t/f.sh"]]);
    assert!(!second.text("test", "share").contains("Error"), "{}", second.text("test", "share"));
    // Another project, or another scope, has none of it.
    let fork = bench.run_config(SHARED, &["--scope", "fork:somebody"]);
    fork.passes();
    assert!(fork.text("test", "share").contains("Error reading historical timing data: file does not exist"));
}

#[test]
fn navvy_tests_tells_of_the_last_run_the_slowest_and_the_flaky() {
    let bench = Bench::new();
    let config = r#"
version: 2.1
jobs:
  unit:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps: [checkout, {store_test_results: {path: report.xml}}]
workflows:
  ci: {jobs: [unit]}
"#;
    bench.config(config);
    let nothing = bench.ask(&["tests"]).passes().stdout();
    assert!(nothing.starts_with("No test results are kept of this project. "), "{nothing}");
    for (time, verdict) in [("1", ""), ("2", "<failure message='wobbles'>t/a.py:3</failure>"), ("3", "")] {
        let report = format!(
            "<testsuite><testcase name='shaky' file='t/a.py' time='{time}'>{verdict}</testcase>\
             <testcase name='slow\u{202e}' time='90'/></testsuite>"
        );
        bench.file("report.xml", report);
        bench.commit("a report");
        bench.run_config(config, &[]).passes();
    }
    let text = bench.ask(&["tests"]).passes().stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("unit  (") && lines[0].ends_with(", branch main)"), "{text}");
    assert_eq!(lines[1], "  2 tests in 1m 33s: 2 passed");
    assert_eq!(lines[2], "  Slowest:");
    assert!(lines[3].starts_with("     1m 30s  slow") && !text.contains('\u{202e}'), "{text}");
    assert_eq!(lines[4], "       3.0s  shaky (t/a.py)");
    assert_eq!(lines[5..], ["  Not always the same, over 3 runs:", "   1 of  3 bad  shaky (t/a.py)"]);
    let json = bench.ask(&["tests", "unit", "--json", "--slowest", "1"]).passes().stdout();
    let line: serde_json::Value = serde_json::from_str(&json).expect("a line of JSON");
    assert_eq!((&line["passed"], &line["runs"]), (&2.into(), &3.into()));
    assert_eq!(line["not_always"][0]["test"], "shaky");
    assert_eq!(line["slowest"].as_array().map(Vec::len), Some(1));
    assert!(!text.contains("All "), "one job's own line is the total: {text}");
    bench.run_config(&config.replace("unit", "other"), &[]).passes();
    let both = bench.ask(&["tests"]).passes().stdout();
    assert_eq!(both.lines().last(), Some("All 2 jobs: 4 tests in 3m 06s: 4 passed"), "{both}");
    bench.ask(&["tests", "lint"]).exits_with(64).complains(&["no test results are kept of a job lint", "unit"]);
}
