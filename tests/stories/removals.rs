//! What a job leaves is removed beside whatever comes next: nobody waits for it but the end of the run.

use std::path::Path;
use std::time::Duration;

use navvy_tests::{Bench, Finished, Last, Run, Signal, Trap};

use crate::kill::{ENGINE, a_start_leaves_nothing};

const TWO: &str = r#"
version: 2.1
executors:
  base: {docker: [{image: navvy/busybox:static}, {image: navvy-tests/with-volume, name: service}], resource_class: small}
jobs:
  first: {executor: base, steps: [{run: {name: one, command: echo one}}]}
  second: {executor: base, steps: [{run: {name: two, command: echo two}}]}
workflows:
  ci: {jobs: [first, second: {requires: [first]}]}
"#;

const SLEEPS: &str = r#"
version: 2.1
jobs:
  sleeps: {docker: [{image: navvy/busybox:static}], resource_class: small, steps: [{run: {name: sleep, command: sleep 1000}}]}
workflows:
  ci: {jobs: [sleeps]}
"#;

/// Removals do not reach the engine before the trap lets them go.
fn slow_removals() -> Trap {
    Trap::before(Path::new(ENGINE), Last::HeldBack("DELETE "))
}

fn bench() -> Bench {
    let bench = Bench::on_this_machine();
    bench.docker().image_with_volume();
    bench
}

/// Waits for an event; returns how many came up to it.
#[track_caller]
fn wait_for(run: &Run<'_>, kind: &str, job: &str) -> usize {
    run.wait_for(&format!("{kind} of {job}"), Duration::from_secs(60), |event| event.is(kind) && event.job() == job);
    place(&run.events(), kind, job).expect("it was waited for")
}

fn place(events: &[navvy_tests::Event], kind: &str, job: &str) -> Option<usize> {
    events.iter().position(|event| event.is(kind) && (job.is_empty() || event.job() == job))
}

#[track_caller]
fn nothing_is_left(bench: &Bench, done: &Finished) {
    assert_eq!(bench.left_of(&done.tasks()), Vec::<String>::new());
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn a_dependent_starts_while_the_containers_before_it_are_still_there() {
    let (bench, trap) = (bench(), slow_removals());
    let run = bench.config(TWO).run(&["--docker", &trap.address()]);
    let first_ended = wait_for(&run, "job_ended", "first");
    let second_started = wait_for(&run, "step_started", "second");
    assert!(first_ended < second_started);
    assert_eq!(place(&run.events(), "task_removed", "first"), None, "nothing waited for the removal");
    wait_for(&run, "job_ended", "second");
    trap.let_go();
    let done = run.finish();
    done.passes();
    let ended = done.event("the task's end", |event| event.is("task_ended") && event.job() == "first");
    let removed = done.event("its removal", |event| event.is("task_removed") && event.job() == "first");
    assert!(ended.number("duration_ms") <= ended.at_ms(), "the removal counts as the job's time");
    assert!(removed.at_ms() >= ended.at_ms() && removed.texts("leftovers").is_empty());
    nothing_is_left(&bench, &done);
}

#[test]
fn one_task_at_a_time_does_not_mean_one_removal_at_a_time() {
    let (bench, trap) = (bench(), slow_removals());
    let run = bench.config(TWO).run(&["--max-parallel", "1", "--docker", &trap.address()]);
    wait_for(&run, "job_ended", "second");
    assert_eq!(place(&run.events(), "task_removed", "first"), None);
    trap.let_go();
    run.finish().passes();
}

#[test]
fn ctrl_c_while_the_run_waits_for_removals_changes_no_verdict() {
    let (bench, trap) = (bench(), slow_removals());
    let run = bench.config(TWO).run(&["--docker", &trap.address()]);
    run.wait_for("a word about removals", Duration::from_secs(60), |event| event.is("removal_awaited"));
    for (signal, at_once) in [(Signal::Interrupt, false), (Signal::Terminate, true)] {
        run.signal(signal);
        let heard = run.wait_for("the signal", Duration::from_secs(20), |event| {
            event.is("stop_asked") && event.get("at_once").as_bool() == Some(at_once)
        });
        assert_eq!(heard.get("jobs_over").as_bool(), Some(true), "{}", heard.summary());
    }
    trap.let_go();
    let done = run.finish();
    done.passes();
    nothing_is_left(&bench, &done);
}

#[test]
fn a_cancelled_run_says_at_once_what_is_being_removed() {
    let (bench, trap) = (bench(), slow_removals());
    let run = bench.config(SLEEPS).run(&["--docker", &trap.address()]);
    run.wait_for_step("sleep");
    run.signal(Signal::Interrupt);
    let word = run.wait_for("a word about removals", Duration::from_secs(60), |event| event.is("removal_awaited"));
    assert_eq!(word.get("tasks").as_array().map(Vec::len), Some(1), "{}", word.summary());
    trap.let_go();
    let done = run.finish();
    done.exits_with(130);
    assert_eq!(done.verdict("sleeps"), "canceled");
    nothing_is_left(&bench, &done);
}

#[test]
fn a_run_killed_while_it_waits_for_removals_leaves_nothing_that_the_next_start_does_not_remove() {
    let (bench, trap) = (bench(), slow_removals());
    let run = bench.config(TWO).run(&["--docker", &trap.address()]);
    run.wait_for("a word about removals", Duration::from_secs(60), |event| event.is("removal_awaited"));
    let pid = run.pid();
    run.signal(Signal::Kill);
    let done = run.that_leaves_things().finish();
    drop(trap);
    assert_eq!(done.verdict("first"), "passed");
    a_start_leaves_nothing(&bench, pid, &done.tasks(), "killed while removals were held back");
}
