//! What only the service has: a deploy marker is a no-op, what a job cannot do without is told, each once a job.

use navvy_tests::{Bench, Finished};

fn job(bench: &Bench, command: &str, args: &[&str]) -> Finished {
    let config = format!(
        "version: 2.1
jobs:
  work:
    docker: [{{image: navvy/busybox:static}}]
    steps:
      - run: {{name: ask, command: '{command}'}}
      - run: {{name: after, command: echo after}}
workflows: {{ci: {{jobs: [work]}}}}
"
    );
    bench.run_config(&config, args)
}

/// How often the report tells this.
fn told(done: &Finished, words: &str) -> usize {
    done.warnings().lines().filter(|warning| warning.contains(words)).count()
}

#[test]
fn deploy_markers_are_no_ops_and_told_once() {
    let bench = Bench::new();
    let done = job(
        &bench,
        "circleci run release plan d1 --environment-name=prod --component-name=shop --target-version=1 &&
        circleci run release update d1 --status=RUNNING && circleci run release log --target-version=1 &&
        circleci run release update d1 --status=FAILED --failure-reason=none",
        &[],
    );
    done.passes();
    assert_eq!(done.text("work", "after"), "after\n");
    let said = done.text("work", "ask");
    assert_eq!(said.matches("kept by the service").count(), 1, "{said}");
    assert_eq!(told(&done, "job work: deploy markers are kept by the service"), 1);
}

#[test]
fn what_a_job_cannot_do_without_is_told_once_with_the_flag_that_skips_it() {
    let bench = Bench::new();
    for (command, what) in [
        ("circleci run oidc get --claims {}", "only the service signs OIDC tokens"),
        ("circleci testsuite run unit", "no tests were run"),
        ("circleci run testsuite unit", "no tests were run"),
    ] {
        let failed = job(&bench, &format!("{command} || {command}"), &[]);
        failed.exits_with(1);
        let said = failed.text("work", "ask");
        assert_eq!(said.matches(what).count(), 1, "{said}");
        assert_eq!(said.matches("-e NAVVY_SKIP_MISSING=true").count(), 1, "{said}");
        assert_eq!(told(&failed, what), 1, "{}", failed.warnings());
        let skipped = job(&bench, command, &["-e", "NAVVY_SKIP_MISSING=true"]);
        skipped.passes();
        assert_eq!(skipped.text("work", "after"), "after\n");
        assert_eq!(told(&skipped, what), 1, "{}", skipped.warnings());
    }
}
