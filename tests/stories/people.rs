//! What a person sees.

use navvy_tests::{Bench, Docker, PrivateEngine};

const TWO_JOBS: &str = r#"version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  good:
    executor: box
    steps:
      - run: {name: speaks, command: "printf 'one\\n\\033[31mred\\033[0m\\033]0;title\\007\\n'"}
      - setup_remote_docker
  bad:
    executor: box
    steps: [{run: {name: fails, command: "echo trouble; exit 4"}}]
workflows:
  ci:
    jobs:
      - good
      - bad: {requires: [good]}
      - good: {name: after, requires: [bad]}
"#;

/// Times, paths and what depends on the machine, taken out.
fn steady(bench: &Bench, text: &str) -> String {
    let text = text.replace(&bench.state().display().to_string(), "STATE");
    let text = text.replace(&bench.project().display().to_string(), "PROJECT");
    let steady = |word: &str| {
        let bare = word.trim_end_matches([',', ':']);
        let number = bare.trim_end_matches(|c: char| c.is_alphabetic());
        let is_time = number != bare
            && !number.is_empty()
            && ["ms", "s", "m"].contains(&&bare[number.len()..])
            && number.chars().all(|c| c.is_ascii_digit() || c == '.');
        match (is_time, word.split_once("/runs/")) {
            (true, _) => word.replace(bare, "TIME"),
            (false, Some((before, after))) => {
                let tail = after.split('/').nth(2).map(|file| format!("/TASK/{file}")).unwrap_or_default();
                format!("{before}/runs/RUN{tail}")
            }
            (false, None) => word.to_owned(),
        }
    };
    // A time is as wide as it is: columns move with it.
    let line = |line: &str| {
        let indent = &line[..line.len() - line.trim_start().len()];
        indent.to_owned() + &line.split_whitespace().map(steady).collect::<Vec<_>>().join(" ") + "\n"
    };
    text.lines().filter(|line| !line.contains("├   ")).map(line).collect()
}

#[test]
fn lines_with_prefixes_a_table_and_what_would_differ() {
    let bench = Bench::new();
    bench.config_file("navvy/settings.toml", "[vm]\nqemu = '/nonexistent/qemu'\n");
    let done = bench.config(TWO_JOBS).run_for_people(&[]).finish();
    done.exits_with(1);
    assert_eq!(done.stderr, "");
    insta::assert_snapshot!(steady(&bench, &done.stdout()), @r"
    navvy ├ PROJECT/.circleci/config.yml: 3 jobs, logs in STATE/navvy/runs/RUN
    good ├ ▸ Spin up: navvy/busybox:static, small (1 CPU, 2 GiB)
    good ├ ▸ Spin up environment
    good ├ ✓ Spin up environment, TIME
    good ├ ▸ 1/2 speaks
    good │ #!/bin/sh -eo pipefail
    good │ printf 'one\n\033[31mred\033[0m\033]0;title\007\n'
    good │ one
    good │ red
    good ├ ✓ 1/2 speaks, TIME
    good ├ ! step `setup_remote_docker` is not available here and was skipped: your settings name /nonexistent/qemu as QEMU, which is no file
    good ├ ○ 2/2 Setup a remote Docker engine, skipped: not available yet
    good ├ ✓ passed, TIME
    bad ├ ▸ Spin up: navvy/busybox:static, small (1 CPU, 2 GiB)
    bad ├ ▸ Spin up environment
    bad ├ ✓ Spin up environment, TIME
    bad ├ ▸ 1/1 fails
    bad │ #!/bin/sh -eo pipefail
    bad │ echo trouble; exit 4
    bad │ trouble
    bad │ Exited with code exit status 4
    bad │ CircleCI received exit code 4
    bad ├ ✗ 1/1 fails, TIME: exit code 4 (.circleci/config.yml:12)
    bad ├ ✗ failed: fails, TIME
    after ├ ○ not run: bad ended failed

    ✓ good passed TIME 1 step skipped, 1 warning
    ✗ bad failed TIME fails
        STATE/navvy/runs/RUN/TASK/001-1.log
    ○ after not run bad ended failed

    On the real service this would differ:
      - 1 step was skipped

    1 step skipped: not available in this version
    Logs: STATE/navvy/runs/RUN
    ✗ 1 of 3 jobs failed: bad; 1 did not run · TIME
    ");
}

#[test]
fn quiet_is_the_summary_alone() {
    let bench = Bench::new();
    let done = bench.config(TWO_JOBS).run_for_people(&["--quiet"]).finish();
    done.exits_with(1);
    insta::assert_snapshot!(steady(&bench, &done.stdout()), @r"
    ✓ good passed TIME 1 step skipped, 1 warning
    ✗ bad failed TIME fails
        STATE/navvy/runs/RUN/TASK/001-1.log
    ○ after not run bad ended failed

    On the real service this would differ:
      - 1 step was skipped

    1 step skipped: not available in this version
    Logs: STATE/navvy/runs/RUN
    ✗ 1 of 3 jobs failed: bad; 1 did not run · TIME
    ");
}

#[test]
fn the_engine_is_found_as_the_docker_client_finds_it() {
    let bench = Bench::on_this_machine().env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    bench.config(TWO_JOBS);
    bench.run(&["--job", "good", "--docker", "unix:///var/run/docker.sock"]).finish().passes();
    let bench = Bench::on_this_machine().env("DOCKER_CONTEXT", "elsewhere");
    bench.config(TWO_JOBS).run(&[]).finish().exits_with(69).complains(&["elsewhere"]).ran_nothing();
}

#[test]
fn an_engine_behind_a_unix_socket_may_still_see_none_of_our_files() {
    let engine = PrivateEngine::far();
    let bench = Bench::new().on(engine.docker(), &engine.address());
    let done = bench.config(TWO_JOBS).run(&["--job", "good"]).finish();
    done.passes();
    assert_eq!(done.text("good", "speaks"), "one\n\x1b[31mred\x1b[0m\x1b]0;title\x07\n");
    assert!(!done.report("good").contains("shared socket"), "{}", done.report("good"));
}

#[test]
fn the_doctor_looks_at_the_engine_and_at_its_absence() {
    let well = Bench::new().navvy(&["doctor"]);
    well.passes();
    let version = Docker::default().ask(&["version", "--format", "{{.Server.Version}}"]).text();
    assert!(well.stdout().contains(version.trim()), "{}", well.stdout());
    let ill = Bench::new().env("DOCKER_HOST", "unix:///nonexistent/docker.sock").navvy(&["doctor"]);
    assert_ne!(ill.exit_code, 0, "{}", ill.account());
    let said = ill.stdout() + &ill.stderr;
    assert!(said.contains("/nonexistent/docker.sock"), "{said}");
}

#[test]
fn shells_can_complete_our_words() {
    for shell in ["bash", "zsh", "fish"] {
        let done = Bench::new().navvy(&["completions", shell]);
        done.passes();
        assert!(done.stdout().contains("with-requires"), "{shell}");
    }
}
