//! A machine job, from the config to nothing left.

use std::time::Duration;

use navvy_tests::{Bench, Signal};

/// A machine that is emulated, beside others: it boots in seconds where nobody else works.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

fn job(steps: &str) -> String {
    format!(
        "version: 2.1\njobs:\n  vm:\n    machine: true\n    environment: {{GREETING: hello}}\n    steps:\n{steps}\nworkflows:\n  ci: \
         {{jobs: [vm]}}\n"
    )
}

/// A step, by its name and command.
fn step(name: &str, command: &str) -> String {
    format!("      - run: {{name: {name}, command: \"{command}\"}}\n")
}

#[test]
fn a_machine_job_runs_as_the_image_s_user_and_needs_no_engine() {
    // Nobody answers there.
    let bench = Bench::with_machines().env("DOCKER_HOST", "tcp://127.0.0.1:1");
    let says = "echo $(id -un) $(pwd) $GREETING $CIRCLE_JOB $CI; sudo id -u; cat /proc/1/comm";
    bench.config(&job(&step("says", says)));
    let done = bench.run(&[]).finish_within(BOOT_LIMIT);
    done.passes();
    let said = done.text("vm", "says");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["circleci /home/circleci/project hello vm true", "0"], "{said}");
    assert!(lines[2].contains("navvy-superviso"), "{said}");
    let report = done.report("vm");
    assert!(report.contains("debian-12-docker") && report.contains("QEMU"), "{report}");
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn what_is_missing_for_machines_is_said_with_the_command_that_mends_it() {
    let config = job(&step("says", "true"));
    let no_image = Bench::on_this_machine().env("NAVVY_IMAGES", "/nonexistent");
    no_image.config(&config);
    let done = no_image.run(&[]).finish();
    assert_eq!(done.end("vm"), "not_available");
    let why = done.end_words("vm");
    assert!(why.contains("navvy image build docker"), "{why}");
    no_image.config_file("navvy/settings.toml", "[vm]\nqemu = '/nonexistent/qemu'\n");
    let listed = no_image.navvy(&["run", "--list"]);
    assert!(listed.stdout().contains("name /nonexistent/qemu as QEMU, which is no file"), "{}", listed.stdout());
    let refused = Bench::with_machines();
    refused.config_file("navvy/settings.toml", "[vm]\njobs = false\n");
    refused.config(&config);
    let listed = refused.navvy(&["run", "--list"]);
    assert!(listed.stdout().contains("your settings refuse it: `jobs = false` in [vm]"), "{}", listed.stdout());
    let no_qemu = Bench::on_this_machine().env("PATH", "/nonexistent");
    no_qemu.config(&config);
    let listed = no_qemu.navvy(&["run", "--list"]);
    assert!(listed.stdout().contains("apt install qemu-system-x86"), "{}", listed.stdout());
}

#[test]
fn a_dry_run_says_which_image_a_machine_job_gets() {
    let bench = Bench::with_machines();
    bench.config(&job(&step("says", "true")));
    let shown = bench.navvy(&["run", "--dry-run"]).stdout();
    assert!(shown.contains("in a virtual machine of debian-12-docker (class medium)"), "{shown}");
    let replaced = bench.navvy(&["run", "--dry-run", "--machine-as", "navvy/base:bookworm"]).stdout();
    assert!(replaced.contains("in navvy/base:bookworm (class medium)"), "{replaced}");
}

#[test]
fn a_job_that_is_canceled_leaves_no_machine() {
    let bench = Bench::with_machines();
    bench.config(&job(&step("waits", "echo began; sleep 3600")));
    let run = bench.run(&[]);
    run.wait_for("the step's output", BOOT_LIMIT, |event| event.is("output"));
    run.signal(Signal::Interrupt);
    let done = run.finish_within(BOOT_LIMIT);
    assert_eq!(done.verdict("vm"), "canceled");
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn a_machine_that_is_shut_down_from_inside_is_the_job_s_own_failure() {
    let bench = Bench::with_machines();
    bench.config(&job(&format!("{}{}", step("ends", "sudo kill -TERM 1; sleep 60"), step("never", "true"))));
    let done = bench.run(&[]).finish_within(BOOT_LIMIT);
    assert_eq!(done.verdict("vm"), "failed", "{}", done.account());
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn a_run_that_is_killed_leaves_a_machine_that_the_next_start_removes() {
    let bench = Bench::with_machines();
    bench.config(&job(&step("waits", "echo began; sleep 3600")));
    let run = bench.run(&[]);
    run.wait_for("the step's output", BOOT_LIMIT, |event| event.is("output"));
    run.signal(Signal::Kill);
    drop(run.that_leaves_things().finish());
    let pruned = bench.navvy(&["prune"]);
    assert!(pruned.stdout().contains("Removed task"), "{}", pruned.stdout());
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}
