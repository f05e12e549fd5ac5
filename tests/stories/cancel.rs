//! The end before the end: Ctrl-C, signals, an engine that is not there or goes away.

use std::time::Duration;

use navvy_tests::{
    Bench, PrivateEngine, Program, Run, Signal, StuckPipe, Unhindered, eventually, everywhere, waits_for_stderr,
};

const POLITE: &str = r#"
version: 2.1
executors:
  base: {docker: [{image: navvy/base:bookworm}], resource_class: small}
jobs:
  build:
    executor: base
    steps:
      - run: {name: server, background: true, command: sleep 1000}
      - run:
          name: polite
          command: |
            trap 'echo good bye; exit 3' TERM
            echo ready
            while :; do sleep 0.1; done
      - run: {name: never, when: always, command: echo never}
  later: {executor: base, steps: [{run: "true"}]}
workflows:
  ci: {jobs: [build, later: {requires: [build]}]}
"#;

const STUBBORN: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run:
          name: stubborn
          command: |
            trap '' TERM INT
            (setsid bash -c 'trap "" TERM; while :; do sleep 0.1; done' &)
            echo ready
            while :; do sleep 0.1; done
workflows:
  ci: {jobs: [build]}
"#;

/// The run tells of its end within so long of the signal. What a story looks for behind that is no part of it.
#[track_caller]
fn signal_ends(run: &Run<'_>, signal: Signal, limit: Duration) {
    let asked = Unhindered::since_now();
    run.signal(signal);
    run.wait_for("the run's end", Duration::from_secs(60), |event| event.is("run_ended"));
    let took = asked.elapsed();
    assert!(took < limit, "it took {took:?}");
}

fn ends_politely(bench: &Bench, signal: Signal, reason: &str) {
    let run = bench.config(POLITE).run(&[]);
    run.wait_for_output("ready");
    signal_ends(&run, signal, Duration::from_secs(8));
    let done = run.finish();
    done.exits_with(130);
    // The shell itself may say that its `sleep` was terminated, too.
    let said = done.text("build", "polite");
    assert!(said.starts_with("ready\n") && said.ends_with("good bye\n"), "{said}");
    let polite = done.step("build", "polite");
    assert_eq!((polite.outcome.as_str(), polite.trailers.join("\n").as_str()), ("canceled", "Step was canceled"));
    assert_eq!(done.skipped("build", "never"), "stopped");
    assert_eq!((done.verdict("build").as_str(), done.why_canceled("build").as_str()), ("canceled", reason));
    assert_eq!(done.end("later"), "not_run");
}

everywhere! {
    fn one_ctrl_c_lets_the_step_say_good_bye(bench: Bench) {
        ends_politely(&bench, Signal::Interrupt, "user");
    }

    fn a_second_ctrl_c_ends_at_once(bench: Bench) {
        let run = bench.config(STUBBORN).run(&[]);
        run.wait_for_output("ready");
        run.signal(Signal::Interrupt);
        // The first one is heard before the second is sent: two at once are one to a process.
        run.wait_for("the first Ctrl-C", Duration::from_secs(10), |event| event.is("stop_asked"));
        signal_ends(&run, Signal::Interrupt, Duration::from_secs(4));
        let done = run.finish();
        done.exits_with(130);
        assert_eq!(done.verdict("build"), "canceled");
    }
}

#[test]
fn sigterm_is_as_good_as_ctrl_c() {
    ends_politely(&Bench::new(), Signal::Terminate, "shutdown");
}

/// The main thread is in a call of the system that does not return: it hears of no signal. A pipe that nobody reads is as good
/// as a file server that is gone.
#[test]
fn a_second_ctrl_c_ends_a_run_whose_main_thread_is_stuck_and_nothing_is_left() {
    let bench = Bench::new().env("NAVVY_LOG", "trace");
    let pipe = StuckPipe::at(&bench.home().join("stderr"));
    let run = bench.config(POLITE).run_with_stderr(&[], pipe.path());
    // Its log fits into the pipe so far.
    run.wait_for_output("ready");
    pipe.fill();
    run.signal(Signal::Interrupt);
    eventually("the main thread is stuck", Duration::from_secs(60), || waits_for_stderr(run.pid()).then_some(()));
    run.signal(Signal::Interrupt);
    let done = run.finish_within(Duration::from_secs(120));
    done.exits_with(130);
    assert_eq!(done.tasks().len(), 1);
}

/// Nobody waits for whoever would write into it.
#[test]
fn a_pipe_that_is_called_like_a_task_s_journal_holds_no_command_up() {
    let bench = Bench::new();
    let tasks = bench.state().join("navvy/tasks");
    std::fs::create_dir_all(&tasks).expect("a directory can be made");
    let _pipe = Program::new("mkfifo").args([tasks.join("0123456789abcdef.journal")]).run();
    bench.run_config(POLITE, &["--job", "later"]).passes();
    // It is none, and may be where one was: that is said, and nothing is removed for it.
    for command in ["ps", "prune"] {
        let done = bench.ask(&[command]);
        assert_eq!(done.exit_code, 3, "{}", done.account());
        assert!(
            done.stderr.contains("0123456789abcdef.journal (could not be read: it is a named pipe"),
            "{}",
            done.account()
        );
    }
}

#[test]
fn ctrl_c_while_the_environment_is_being_made_leaves_nothing() {
    let bench = Bench::new();
    let run = bench.config(POLITE).run(&[]);
    run.wait_for("the task's start", Duration::from_secs(20), |event| event.is("task_started"));
    run.signal(Signal::Interrupt);
    run.finish().exits_with(130);
}

#[test]
fn what_a_killed_agent_leaves_the_next_run_takes_away() {
    let bench = Bench::new();
    let run = bench.config(POLITE).run(&[]);
    let task = run.wait_for_output("ready").task().expect("output is a task's").to_owned();
    run.signal(Signal::Kill);
    run.that_leaves_things().finish().exits_with(128 + 9);
    bench.run(&["--job", "later"]).finish().passes();
    assert_eq!(bench.left_of(&[task]), Vec::<String>::new());
}

#[test]
fn without_an_engine_nothing_is_run_and_its_address_is_told() {
    let bench = Bench::new().env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let done = bench.run_config(POLITE, &[]);
    done.exits_with(69).complains(&["/nonexistent/docker.sock", "DOCKER_HOST"]).ran_nothing();
}

#[test]
fn an_engine_that_dies_under_a_job_is_no_fault_of_the_job() {
    let engine = PrivateEngine::near();
    let bench = Bench::new().on(engine.docker(), &engine.address());
    let run = bench.config(POLITE).run(&[]);
    run.wait_for_output("ready");
    engine.crash();
    let done = run.that_leaves_things().finish();
    done.exits_with(3);
    assert_eq!(done.verdict("build"), "infra");
    for what in ["task_removed", "run_ended"] {
        let event = done.event(what, |event| event.is(what));
        assert!(!event.texts("leftovers").is_empty(), "what could not be removed is not named: {}", event.summary());
    }
}
