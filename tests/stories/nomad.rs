//! The driver on a real Nomad, with tasks that the story dispatches itself: what operators see and do.

use std::time::Duration;

use navvy_tests::{Bench, End, Ending, Fleet, Nomad, SLOW, SLOW_LOG, parameterized, printed_by_slow, seldom};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// Half a CPU of a client of stories, and a GiB.
fn job() -> Value {
    parameterized("navvy-tests", 4000, 1024)
}

/// A job that prints where it is and then waits for a file, `/tmp/go`.
const WAITS: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm, environment: {SECRET_OF_JOB: for-the-job}}]
    steps:
      - run: {name: waits, command: "echo begun; until [ -e /tmp/go ]; do sleep 0.1; done; echo went on"}
workflows:
  ci: {jobs: [slow]}
"#;

const FAILS: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: breaks, command: "echo broken; exit 3"}
workflows:
  ci: {jobs: [slow]}
"#;

/// A dispatched task whose step is in its middle: pipeline, task, Nomad job, allocation.
#[track_caller]
fn begun(fleet: &Fleet<'_>, nomad: &Nomad, mark: &str) -> [String; 4] {
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    let (dispatched, alloc) = nomad.dispatch_task(fleet, &job(), &task);
    fleet.has_shown(&task, SLOW_LOG, mark);
    [pipeline, task, dispatched, alloc]
}

#[test]
fn a_task_that_is_dispatched_passes_its_log_is_whole_and_nothing_is_left() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let [pipeline, task, _, alloc] = begun(&fleet, &nomad, "line 100\n");
    nomad.alloc_is(&alloc, "complete");
    // Nomad's collector writes its log beside the task's end.
    let log = seldom("the end of the agent's own log", LIMIT, || {
        Some(nomad.logs(&alloc, &["-stderr"])).filter(|log| log.contains("The job passed."))
    });
    for part in ["Preparing the environment", "Step 1 of 1: counts", "The job passed."] {
        assert!(log.contains(part), "the agent's own log lacks {part:?}: {log}");
    }
    assert!(!log.contains("line 100"), "steps' output was not asked for: {log}");
    seldom("an event of the driver's", LIMIT, || {
        nomad.events_of(&alloc).iter().any(|event| event.starts_with("Driver: ")).then_some(())
    });
    fleet.has_ended(
        End::Passed,
        &Ending { pipeline: &pipeline, task: &task, job: "slow", log: SLOW_LOG, printed: &printed_by_slow() },
    );
    nomad.nothing_is_left();
}

#[test]
fn a_job_that_fails_is_reported_and_is_no_failure_of_the_agent() {
    let bench = Bench::on_this_machine();
    bench.config(FAILS).commit("a project");
    let nomad = Nomad::start(&bench);
    let fleet = Fleet::start(&bench);
    let [pipeline, task, _, alloc] = begun(&fleet, &nomad, "broken\n");
    nomad.alloc_is(&alloc, "complete");
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "failed");
    seldom("the verdict among the events", LIMIT, || nomad.status(&alloc).contains("failed").then_some(()));
    fleet.nothing_is_left_on_the_host(&task);
    nomad.nothing_is_left();
}

#[test]
fn steps_output_goes_to_stdout_if_the_nomad_job_asks_for_it() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let fleet = Fleet::start(&bench);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    let mut job = job();
    job["TaskGroups"][0]["Tasks"][0]["Config"]["output"] = true.into();
    let (_, alloc) = nomad.dispatch_task(&fleet, &job, &task);
    nomad.alloc_is(&alloc, "complete");
    let printed = String::from_utf8(printed_by_slow()).expect("text");
    let lines = printed.matches("line ").count();
    let shown = seldom("all lines in Nomad's log", LIMIT, || {
        Some(nomad.logs(&alloc, &[]).matches("line ").count()).filter(|shown| *shown >= lines)
    });
    assert_eq!(shown, lines);
    nomad.nothing_is_left();
}

#[test]
fn nomad_job_stop_cancels_the_job_with_its_reason() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let [pipeline, task, dispatched, alloc] = begun(&fleet, &nomad, "line 100\n");
    nomad.stop(&dispatched);
    nomad.alloc_is(&alloc, "complete");
    fleet.has_ended(
        End::Canceled,
        &Ending { pipeline: &pipeline, task: &task, job: "slow", log: SLOW_LOG, printed: &printed_by_slow() },
    );
    let shown = fleet.show(&pipeline).to_string();
    assert!(!shown.contains("infra"), "{shown}");
    nomad.nothing_is_left();
}

#[test]
fn a_pipeline_that_is_canceled_ends_its_allocation() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let [pipeline, task, _, alloc] = begun(&fleet, &nomad, "line 100\n");
    fleet.navvy(&["pipelines", "cancel", &pipeline]).succeeded();
    nomad.alloc_is(&alloc, "complete");
    fleet.has_ended(
        End::Canceled,
        &Ending { pipeline: &pipeline, task: &task, job: "slow", log: SLOW_LOG, printed: &printed_by_slow() },
    );
    nomad.nothing_is_left();
}

#[test]
fn nomad_alloc_exec_is_a_shell_in_the_job_and_its_secrets_are_in_no_log() {
    let bench = Bench::on_this_machine();
    bench.config(WAITS).commit("a project");
    let nomad = Nomad::start(&bench);
    let fleet = Fleet::start(&bench);
    let [pipeline, task, _, alloc] = begun(&fleet, &nomad, "begun\n");
    let exec = |words: &[&str]| nomad.command(&[&["alloc", "exec", "-i=false", "-t=false", &alloc], words].concat());
    // Exit codes and both streams.
    let answer = exec(&["sh", "-c", "echo out; echo err >&2; exit 43"]).run();
    assert_eq!((answer.exit_code, answer.stdout().as_str(), answer.stderr.as_str()), (Some(43), "out\n", "err\n"));
    // The job's files, and its environment as a step has it.
    assert_eq!(
        exec(&["cat", "/etc/os-release"]).run().text(),
        std::fs::read_to_string("/etc/os-release").unwrap_or_default()
    );
    assert_eq!(exec(&["sh", "-c", "echo $SECRET_OF_JOB"]).run().text(), "for-the-job\n");
    // Standard input.
    let typed = nomad.command(&["alloc", "exec", "-i", "-t=false", &alloc, "sh", "-c", "cat; exit 5"]);
    let answer = typed.input("typed\n").run();
    assert_eq!((answer.exit_code, answer.stdout().as_str()), (Some(5), "typed\n"));
    // A terminal, of the size that the operator's has.
    let line = format!(
        "stty rows 33 cols 99; NOMAD_ADDR={} {} alloc exec -i -t {alloc} sh -c 'tty; stty size; exit 7'",
        nomad.address(),
        navvy_tests::nomad_program().display(),
    );
    let script = ["--quiet", "--flush", "--return", "--command", &line, "/dev/null"];
    let answer = navvy_tests::Program::new("script").args(script).run();
    assert_eq!(answer.exit_code, Some(7), "{}{}", answer.stdout(), answer.stderr);
    assert!(answer.stdout().contains("/dev/pts/") && answer.stdout().contains("33 99"), "{}", answer.stdout());
    exec(&["touch", "/tmp/go"]).run().succeeded();
    nomad.alloc_is(&alloc, "complete");
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    assert_eq!(fleet.log(&task, SLOW_LOG), b"begun\nwent on\n", "what a shell shows is in no log");
    assert!(!nomad.logs(&alloc, &["-stderr"]).contains("for-the-job"));
    nomad.nothing_is_left();
}

#[test]
fn a_drain_lets_what_runs_end() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let [pipeline, task, _, alloc] = begun(&fleet, &nomad, "line 100\n");
    nomad.drain(&nomad.node("one"), Duration::from_secs(600));
    nomad.alloc_is(&alloc, "complete");
    fleet.has_ended(
        End::Passed,
        &Ending { pipeline: &pipeline, task: &task, job: "slow", log: SLOW_LOG, printed: &printed_by_slow() },
    );
    nomad.nothing_is_left();
}

#[test]
fn at_the_deadline_of_a_drain_the_job_is_canceled() {
    let bench = Bench::on_this_machine();
    bench.config(WAITS).commit("a project");
    let nomad = Nomad::start(&bench);
    let fleet = Fleet::start(&bench);
    let [pipeline, task, _, alloc] = begun(&fleet, &nomad, "begun\n");
    nomad.drain(&nomad.node("one"), Duration::from_secs(2));
    nomad.alloc_is(&alloc, "complete");
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "canceled");
    assert_eq!(fleet.log(&task, SLOW_LOG), b"begun\n");
    fleet.nothing_is_left_on_the_host(&task);
    nomad.nothing_is_left();
}

const TOO_MUCH: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: takes, command: "echo begun; head -c 2000000000 /dev/zero | tail; echo unreached"}
workflows:
  ci: {jobs: [slow]}
"#;

#[test]
fn a_task_that_takes_more_memory_than_it_has_says_so_in_its_exit_and_among_its_events() {
    let bench = Bench::on_this_machine();
    bench.config(TOO_MUCH).commit("a project");
    let nomad = Nomad::start(&bench);
    let fleet = Fleet::start(&bench);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    let (_, alloc) = nomad.dispatch_task(&fleet, &parameterized("navvy-tests", 4000, 512), &task);
    // The agent has done its work: the job's failure is in its report.
    nomad.alloc_is(&alloc, "complete");
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "failed");
    let log = String::from_utf8(fleet.log(&task, SLOW_LOG)).expect("text");
    assert!(log.starts_with("begun\n") && log.contains("Killed") && !log.contains("unreached"), "{log}");
    let told = fleet.events(&pipeline);
    let step = told.iter().find(|event| event["event"] == "step_ended" && event["step"] == 1).expect("the step's end");
    assert!(step.to_string().contains("memory"), "{step}");
    let status = seldom("a word on memory", LIMIT, || {
        Some(nomad.status(&alloc)).filter(|status| status.contains("The task had no memory left"))
    });
    assert!(status.contains("Exit Code: 0"), "{status}");
    let agent = &nomad.alloc(&alloc)["TaskStates"]["agent"]["Events"];
    let flags = agent.as_array().into_iter().flatten().filter(|event| event["Details"]["oom_killed"] == "true");
    assert_eq!(flags.count(), 1, "{agent:#}");
    fleet.nothing_is_left_on_the_host(&task);
    nomad.nothing_is_left();
}

/// A launch token is good for one start, and so is a Nomad task.
#[test]
fn nomad_alloc_restart_cancels_the_job_and_the_new_task_has_no_token() {
    let bench = Bench::on_this_machine();
    bench.config(WAITS).commit("a project");
    let nomad = Nomad::start(&bench);
    let fleet = Fleet::start(&bench);
    let [pipeline, task, _, alloc] = begun(&fleet, &nomad, "begun\n");
    nomad.nomad(&["alloc", "restart", &alloc]).succeeded();
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "canceled");
    nomad.alloc_is(&alloc, "failed");
    let status = nomad.status(&alloc);
    assert!(status.contains("the launch token could not be read"), "{status}");
    assert_eq!(fleet.log(&task, SLOW_LOG), b"begun\n");
    fleet.nothing_is_left_on_the_host(&task);
    nomad.nothing_is_left();
}

/// 200 MB, and waits.
const HOLDS: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: holds, command: "perl -e '$held = q(x) x shift; $| = 1; print qq(begun\n); sleep 1 while 1' 200000000"}
workflows:
  ci: {jobs: [slow]}
"#;
const HELD: u64 = 200_000_000;

/// What a client uses and what of it is measured.
#[test]
fn the_whole_task_is_measured() {
    let bench = Bench::on_this_machine();
    bench.config(HOLDS).commit("a project");
    let mut nomad = Nomad::start(&bench);
    let fleet = Fleet::start(&bench);
    let [_, _, dispatched, alloc] = begun(&fleet, &nomad, "begun\n");
    let port = nomad.client("one").ports.http;
    let usage = seldom("figures of the task", LIMIT, || {
        let path = format!("http://127.0.0.1:{port}/v1/client/allocation/{alloc}/stats");
        let said = navvy_tests::Program::new("curl").args(["--silent", "--max-time", "20", &path]).run();
        let usage: Value = serde_json::from_slice(&said.stdout).ok()?;
        let memory = usage["ResourceUsage"]["MemoryStats"].clone();
        let used = memory["Usage"].as_u64().or(memory["RSS"].as_u64())?;
        (used > HELD).then_some(usage)
    });
    assert!(usage["ResourceUsage"]["CpuStats"]["Measured"].as_array().is_some_and(|all| !all.is_empty()), "{usage}");
    nomad.stop(&dispatched);
    nomad.alloc_is(&alloc, "complete");
    nomad.nothing_is_left();
}
