//! An operator's shell in a job that runs, as a task driver opens it for `nomad alloc exec`.

use std::time::Duration;

use navvy_tests::{Bench, Driven, Fleet, SLOW_LOG, Screen, Served, Signal, files_that_hold};

const LIMIT: Duration = Duration::from_secs(120);
const SECRET: &str = "s3cr3t-that-nobody-may-see";

/// Runs until it is told to end.
const ENDLESS: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm, user: nobody}]
    environment: {PLAIN: of-the-job}
    working_directory: /tmp/work
    steps:
      - run: {name: waits, command: "echo 'export LATER=of-a-step' >>$BASH_ENV; echo waits; while [ ! -e /tmp/over ]; do sleep 0.1 || :; done"}
workflows:
  ci: {jobs: [slow: {context: words}]}
"#;

struct Running<'a> {
    fleet: Fleet<'a>,
    pipeline: String,
    task: String,
    driven: Driven<'a>,
    agent: Served,
}

/// The job waits in its step.
#[track_caller]
fn running(bench: &Bench) -> Running<'_> {
    bench.config(ENDLESS).commit("a project");
    let fleet = Fleet::start(bench);
    bench.program(&["context", "set", "words", "TOKEN"]).input(SECRET).run().succeeded();
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    let mut driven = Driven::new(&fleet, &task);
    let agent = driven.start();
    fleet.has_shown(&task, SLOW_LOG, "waits\n");
    Running { fleet, pipeline, task, driven, agent }
}

#[test]
fn it_has_what_the_job_has_and_its_streams_and_exit_code_are_the_commands_own() {
    let bench = Bench::on_this_machine();
    let Running { fleet, pipeline, task, mut agent, .. } = running(&bench);
    let script = "cat; echo $TOKEN $PLAIN $LATER $PWD $(id -un) $CIRCLE_JOB; echo to the other >&2; exit 7";
    let answer = bench.program(&["shell", &task, "--", "sh", "-c", script]).input("typed\nto its end").run();
    assert_eq!(answer.exit_code, Some(7), "{}", answer.stderr);
    let shown = answer.stdout();
    assert_eq!(shown, format!("typed\nto its end{SECRET} of-the-job of-a-step /tmp/work nobody slow\n"));
    assert_eq!(answer.stderr, "to the other\n");
    // A signal's end is told as shells do.
    let killed = bench.program(&["shell", &task, "--", "sh", "-c", "kill -9 $$"]).run();
    assert_eq!(killed.exit_code, Some(137), "{}", killed.stderr);
    let missing = bench.program(&["shell", &task, "--", "no-such-program"]).run();
    assert_eq!(missing.exit_code, Some(127), "{}", missing.stderr);
    // Much of it, and none of it late.
    let much = bench
        .program(&[
            "shell",
            &task,
            "--",
            "sh",
            "-c",
            "yes 0123456789 | head -c 20000000; yes 0123456789 | head -c 20000000 >&2",
        ])
        .run();
    assert_eq!((much.stdout.len(), much.stderr.len(), much.exit_code), (20_000_000, 20_000_000, Some(0)));
    bench.program(&["shell", &task, "--", "touch", "/tmp/over"]).run().succeeded();
    assert_eq!(agent.end(LIMIT), Some(0));
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    assert_eq!(fleet.log(&task, SLOW_LOG), b"waits\n", "nothing of it is in the job's log");
    let said = agent.said();
    drop(fleet);
    assert!(!said.contains(SECRET), "{said}");
    assert_eq!(files_that_hold(&bench.state(), SECRET.as_bytes()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn when_the_job_ends_the_shell_ends_and_holds_nothing_up() {
    let bench = Bench::on_this_machine();
    let Running { mut fleet, pipeline, task, mut agent, .. } = running(&bench);
    let mut shell =
        fleet.beside(&["shell", &task, "--", "sh", "-c", "trap '' TERM HUP; echo inside; while :; do sleep 1; done"]);
    navvy_tests::eventually("the shell", LIMIT, || shell.said().contains("inside").then_some(()));
    bench.program(&["shell", &task, "--", "touch", "/tmp/over"]).run().succeeded();
    assert_eq!(agent.end(Duration::from_secs(30)), Some(0), "{}", agent.said());
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    assert_eq!(shell.end(LIMIT), Some(137), "{}", shell.said());
    assert_eq!(bench.left_of(&[task]), Vec::<String>::new());
}

#[test]
fn a_terminal_of_a_drivers_is_followed_in_its_size_and_keys_arrive() {
    let bench = Bench::on_this_machine();
    let Running { fleet, task, agent, .. } = running(&bench);
    let mut screen = Screen::start(bench.command_of(&["shell", &task, "--", "bash", "--norc", "-i"]), 100, 30);
    screen.types("echo \"size $(stty size) token $TOKEN\"; trap 'echo \"now $(stty size)\"' WINCH\n");
    screen.shows(&format!("size 30 100 token {SECRET}"), LIMIT);
    screen.resize(77, 22);
    // bash tells of it once it is back at its prompt, and the size comes by another way than what is typed.
    screen.shows_if_typed("now 22 77", "\n", LIMIT);
    screen.types("echo $((1 + 1))nd; sleep 1000\n");
    screen.shows("2nd", LIMIT);
    screen.types("\u{3}");
    screen.types("echo $((40 + 2)) is the answer\n");
    screen.shows("42 is the answer", LIMIT);
    screen.types("exit 5\n");
    assert_eq!(screen.end(LIMIT), Some(5));
    drop((agent, fleet));
}

#[test]
fn an_agent_that_is_killed_and_goes_on_takes_no_shell_with_it() {
    let bench = Bench::on_this_machine();
    let Running { mut fleet, pipeline, task, mut driven, mut agent } = running(&bench);
    let mut shell = fleet.beside(&[
        "shell",
        &task,
        "--",
        "sh",
        "-c",
        "echo inside; while [ ! -e /tmp/enough ]; do sleep 0.1; done; exit 4",
    ]);
    navvy_tests::eventually("the shell", LIMIT, || shell.said().contains("inside").then_some(()));
    agent.kill();
    let mut next = driven.start();
    navvy_tests::eventually("the word that it goes on", LIMIT, || {
        next.said().contains("goes on with it").then_some(())
    });
    bench.program(&["shell", &task, "--", "touch", "/tmp/enough"]).run().succeeded();
    assert_eq!(shell.end(LIMIT), Some(4), "{}", shell.said());
    next.signal(Signal::Terminate);
    assert_eq!(next.end(LIMIT), Some(0), "{}", next.said());
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "canceled");
}

#[test]
fn a_task_of_a_run_here_is_entered_only_while_it_is_held() {
    let bench = Bench::on_this_machine();
    bench.config(&ENDLESS.replace("slow: {context: words}", "slow"));
    let run = bench.run(&[]);
    let started = run.wait_for_step("waits");
    let task = started.text("task");
    bench.program(&["shell", task]).run().ends(64, &["is running, and cannot be entered now", "--keep-on-fail"]);
    bench.program(&["shell", "no-such-task"]).run().ends(64, &["no task no-such-task on this host"]);
    run.signal(Signal::Terminate);
    run.finish().exits_with(130);
}
