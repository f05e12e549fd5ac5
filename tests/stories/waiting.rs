//! A task that is prepared ahead and waits for room, longer than its supervisor waits for a call.

use std::time::Duration;

use navvy_tests::{Bench, Signal};

const LIMIT: Duration = Duration::from_secs(60);
/// A busy machine may stand still for seconds.
const IDLE_LIMIT: &str = "20s";

/// Each takes the whole machine, so the second waits for the first.
const TWO: &str = r#"
version: 2.1
jobs:
  first:
    docker: [{image: navvy/base:bookworm}]
    resource_class: large
    steps: [{run: {name: waits, command: "until [ -e /tmp/go ]; do sleep 0.05; done"}}]
  second:
    docker: [{image: navvy/base:bookworm}]
    resource_class: large
    steps: [{run: {name: greets, command: echo hi}}]
workflows:
  ci: {jobs: [first, second]}
"#;

/// The task of the first job, and that of the second, whose environment is ready by then.
fn both_ready(run: &navvy_tests::Run<'_>) -> [String; 2] {
    let task = |job: &str| {
        let started = run.wait_for(job, LIMIT, |event| event.is("task_started") && event.job() == job);
        started.task().expect("it has an id").to_owned()
    };
    let tasks = [task("first"), task("second")];
    run.wait_for_step("waits");
    run.wait_for("the second to wait", LIMIT, |event| event.is("progress") && event.text("what").starts_with("ready"));
    tasks
}

#[test]
fn a_task_that_waits_for_long_is_not_taken_for_abandoned() {
    let bench = Bench::new().env("NAVVY_IDLE_LIMIT", IDLE_LIMIT);
    bench.config(TWO);
    let run = bench.run(&[]);
    let [first, second] = both_ready(&run);
    let docker = bench.docker();
    // Well over the limit, by the clock of the environment that waits.
    docker.ask(&["exec", &docker.containers_of(&second)[0], "sleep", "30"]).succeeded();
    docker.ask(&["exec", &docker.containers_of(&first)[0], "touch", "/tmp/go"]).succeeded();
    let done = run.finish();
    done.passes();
    assert_eq!(done.text("second", "greets"), "hi\n");
}

#[test]
fn a_task_whose_agent_stood_still_is_an_infra_fault_and_no_failure_of_its_job() {
    let bench = Bench::new().env("NAVVY_IDLE_LIMIT", IDLE_LIMIT);
    bench.config(TWO);
    let run = bench.run(&[]);
    let [first, second] = both_ready(&run);
    let docker = bench.docker();
    let waiting = docker.containers_of(&second)[0].clone();
    run.signal(Signal::Stop);
    // The supervisor ends its environment by itself: nobody calls.
    let ended = docker.ask(&["wait", &waiting]);
    run.signal(Signal::Continue);
    ended.succeeded();
    docker.ask(&["exec", &docker.containers_of(&first)[0], "touch", "/tmp/go"]).succeeded();
    let done = run.finish();
    done.exits_with(3);
    assert_eq!(done.verdict("first"), "passed");
    done.event("the infra fault", |event| {
        event.is("task_ended") && event.job() == "second" && event.text("fault").contains("Navvy had not called it")
    });
    assert_eq!(done.verdict("second"), "infra");
}

#[test]
fn an_idle_limit_that_is_none_is_refused_before_anything_runs() {
    for (limit, why) in [("soon", "not a duration"), ("1s", "at least 5s is needed")] {
        let bench = Bench::new().env("NAVVY_IDLE_LIMIT", limit);
        bench.config(TWO);
        bench.run(&[]).finish().exits_with(64).complains(&["NAVVY_IDLE_LIMIT", why]).ran_nothing();
    }
}
