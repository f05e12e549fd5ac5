//! A fleet in which something breaks: each story ends with one end of the task, with the bytes that were printed, and with nothing
//! left on the host.

use std::time::Duration;

use navvy_tests::{
    Bench, End, Ending, Fate, Fleet, ObjectStore, SLOW, SLOW_LOG, Signal, Wire, eventually, printed_by_slow,
};

const LIMIT: Duration = Duration::from_secs(120);
/// What the processor is told, so that a lease is over soon, and not while a busy machine stands still.
const SHORT: (&str, &str) = ("NAVVY_PROCESSOR_LEASE", "15s");

/// As [`SLOW`], but its step outlives such a lease: it is not over when that is.
const SLOWER: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: counts, command: "for i in $(seq 1 3000); do echo line $i; [ $((i % 100)) = 0 ] && sleep 2; done"}
workflows:
  ci: {jobs: [slow]}
"#;

/// Passed, with all that was printed, after one start of its step; nothing is left.
#[track_caller]
fn is_whole(fleet: &mut Fleet<'_>, pipeline: &str, task: &str) {
    fleet.has_ended(End::Passed, &Ending { pipeline, task, job: "slow", log: SLOW_LOG, printed: &printed_by_slow() });
}

/// The task that was lost ended once, by the processor's word, and what is durable of it is a beginning of what was printed.
#[track_caller]
fn was_lost(fleet: &mut Fleet<'_>, pipeline: &str, task: &str) {
    fleet.has_ended(End::Lost, &Ending { pipeline, task, job: "slow", log: SLOW_LOG, printed: &printed_by_slow() });
}

#[test]
fn an_agent_that_is_killed_loses_its_task_which_is_removed_by_the_next_one_and_can_be_run_again() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::with(&bench, &[SHORT]);
    let mut runner = fleet.runner(&[]);
    let (pipeline, task) = fleet.in_the_middle();
    runner.kill();
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "error");
    let _next = fleet.runner(&[]);
    was_lost(&mut fleet, &pipeline, &task);
    let said = fleet.navvy(&["pipelines", "rerun", &pipeline, "--from-failed", "--json"]).text();
    let again: serde_json::Value = serde_json::from_str(said.trim()).expect("JSON");
    let again = again["id"].as_str().expect("an id").to_owned();
    let task = fleet.task(&again, "slow");
    is_whole(&mut fleet, &again, &task);
}

#[test]
fn an_agent_that_slept_past_its_lease_ends_its_job_and_reports_nothing() {
    let bench = Bench::on_this_machine();
    bench.config(SLOWER).commit("a project");
    let mut fleet = Fleet::with(&bench, &[SHORT]);
    let mut runner = fleet.runner(&["--once"]);
    let (pipeline, task) = fleet.in_the_middle();
    runner.signal(Signal::Stop);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "error");
    let before = fleet.show(&pipeline);
    runner.signal(Signal::Continue);
    runner.end(LIMIT);
    assert!(runner.said().contains("lost"), "{}", runner.said());
    assert_eq!(fleet.show(&pipeline), before);
    was_lost(&mut fleet, &pipeline, &task);
}

#[test]
fn of_two_agents_with_one_launch_token_the_second_is_refused() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    let token = fleet.launch_token(&task);
    let mut first = fleet.agent(&task, &token);
    fleet.has_shown(&task, SLOW_LOG, "line 100\n");
    let mut second = fleet.agent(&task, &token);
    assert_eq!(second.end(LIMIT), Some(3), "{}", second.said());
    assert!(second.said().contains("its launch token was used before"), "{}", second.said());
    assert!(!second.said().contains(&token), "the token is shown");
    assert_eq!(first.end(LIMIT), Some(0), "{}", first.said());
    is_whole(&mut fleet, &pipeline, &task);
}

#[test]
fn a_processor_that_is_stopped_in_the_middle_of_a_step_and_started_goes_on() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::with(&bench, &[("NAVVY_PROCESSOR_DRAIN_TIMEOUT", "1s")]);
    let _runner = fleet.runner(&[]);
    let (pipeline, task) = fleet.in_the_middle();
    fleet.processor().signal(Signal::Terminate);
    assert_eq!(fleet.processor().end(LIMIT), Some(0));
    fleet.restart();
    is_whole(&mut fleet, &pipeline, &task);
}

#[test]
fn a_store_that_is_away_for_a_while_costs_no_byte() {
    let (bench, store) = (Bench::on_this_machine(), ObjectStore::serve());
    bench.config(SLOW).commit("a project");
    let gate = store.gate();
    let mut fleet = Fleet::over(&bench, &store, &gate, &[]);
    let _runner = fleet.runner(&[]);
    let (pipeline, task) = fleet.in_the_middle();
    gate.rule(|_| Fate::Answer(503, "<Error><Code>SlowDown</Code></Error>".to_owned()));
    // The agent has come back again and again.
    eventually("PUTs that were refused", LIMIT, || {
        (gate.asked().iter().filter(|asked| asked.method == "PUT").count() >= 6).then_some(())
    });
    assert!(!fleet.log_so_far(&task, SLOW_LOG).is_empty(), "who looks sees what is printed all the same");
    gate.rule(|_| Fate::Pass);
    is_whole(&mut fleet, &pipeline, &task);
}

#[test]
fn a_network_that_is_cut_for_a_while_costs_no_byte() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let wire = Wire::to(&fleet.agents);
    let _runner = fleet.runner_by(&wire.address(), &[]);
    let (pipeline, task) = fleet.in_the_middle();
    wire.cut();
    // The pauses between these grow: some seconds.
    eventually("calls that went nowhere", LIMIT, || (wire.refused() >= 5).then_some(()));
    wire.mend();
    is_whole(&mut fleet, &pipeline, &task);
}

#[test]
fn a_network_that_is_cut_past_the_lease_ends_the_job_on_both_sides() {
    let bench = Bench::on_this_machine();
    bench.config(SLOWER).commit("a project");
    let mut fleet = Fleet::with(&bench, &[SHORT]);
    let wire = Wire::to(&fleet.agents);
    let mut runner = fleet.runner_by(&wire.address(), &["--once"]);
    let (pipeline, task) = fleet.in_the_middle();
    wire.cut();
    // The agent's own clock comes first, and needs nobody.
    runner.end(LIMIT);
    fleet.nothing_is_left_on_the_host(&task);
    was_lost(&mut fleet, &pipeline, &task);
    wire.mend();
}
