//! Machine jobs of a fleet: handed to who can carry them out, gone on with after a kill, and nothing left.

use std::time::Duration;

use navvy_tests::{Bench, Fleet, Served, eventually};

/// Machines that are emulated, beside others.
const LIMIT: Duration = Duration::from_secs(400);
const LOG: &str = "001-1";

/// From a container to a machine and back.
const CHAIN: &str = r#"
version: 2.1
jobs:
  makes:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: makes, command: "mkdir out; echo from a container > out/first"}
      - persist_to_workspace: {root: out, paths: [.]}
  uses:
    machine: true
    steps:
      - attach_workspace: {at: ws}
      - run: {name: reads, command: "cat ws/first; id -un; echo from a machine > ws/second"}
      - persist_to_workspace: {root: ws, paths: [second]}
  ends:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - attach_workspace: {at: ws}
      - run: {name: reads, command: "cat ws/first ws/second"}
workflows:
  ci:
    jobs:
      - makes
      - uses: {requires: [makes]}
      - ends: {requires: [uses]}
"#;

/// Neither of the tasks, once all is over, nor of the programs that carried them out.
#[track_caller]
fn nothing_is_left(bench: &Bench, fleet: Fleet<'_>, runner: Served) {
    eventually("that nothing but the programs is left", LIMIT, || {
        bench.left_of_runs().iter().all(|left| left.starts_with("process ")).then_some(())
    });
    drop((runner, fleet));
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn one_pipeline_s_jobs_run_in_containers_and_in_machines_and_hand_on_their_files() {
    let bench = Bench::with_machines();
    bench.config(CHAIN).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let mut runner = fleet.runner(&["--once"]);
    let pipeline = fleet.submit(&["--tree"]);
    assert_eq!(runner.end(LIMIT), Some(0));
    let runner = fleet.runner(&[]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success", "{}", fleet.show(&pipeline));
    let of = |job: &str, log: &str| String::from_utf8(fleet.log(&fleet.task(&pipeline, job), log)).expect("text");
    assert_eq!(of("uses", "002-1"), "from a container\ncircleci\n");
    assert_eq!(of("ends", "002-1"), "from a container\nfrom a machine\n");
    nothing_is_left(&bench, fleet, runner);
}

#[test]
fn a_machine_job_waits_for_an_agent_that_has_machines_and_says_so() {
    let bench = Bench::with_machines();
    let usual = std::fs::read_to_string(bench.settings_file()).expect("the bench's settings");
    bench.config_file("navvy/settings.toml", usual.replace("[vm]", "[vm]\njobs = false"));
    bench.config(CHAIN).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    eventually("why the machine job waits", LIMIT, || {
        let job = fleet.job(&pipeline, "uses");
        (job["status"] == "queued" && job["why"] == "no agent offers the executor machine for class medium")
            .then_some(())
    });
    let shown = fleet.navvy(&["pipelines", "show", &pipeline]).text();
    assert!(shown.contains("no agent offers the executor machine"), "{shown}");
    let follower = fleet.beside(&["follow", &pipeline, "--plain"]);
    eventually("that a follower hears it", LIMIT, || {
        follower.said().contains("no agent offers the executor machine for class medium").then_some(())
    });
    drop(follower);
    let checked = bench.ask(&["host", "check"]).stdout();
    assert!(checked.contains("of these kinds: docker.\n"), "{checked}");
    // The same runner, once its user has said otherwise.
    bench.config_file("navvy/settings.toml", &usual);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success", "{}\n{}", fleet.show(&pipeline), runner.said());
    nothing_is_left(&bench, fleet, runner);
}

/// A step that ends when its file is there, in a machine.
const SLOW: &str = r#"
version: 2.1
jobs:
  slow:
    machine: true
    steps:
      - run: {name: counts, command: "echo begun >> /tmp/ran; for i in $(seq 1 200); do echo line $i; sleep 0.1; done; until [ -e /tmp/go ]; do sleep 0.1; done; cat /tmp/ran"}
      - run: {name: after, command: "echo after"}
workflows:
  ci: {jobs: [slow]}
"#;

/// A person in the machine while its job runs.
#[track_caller]
fn visit(bench: &Bench, task: &str) {
    let script = "cat; id -un; pwd; cat /tmp/ran; exit 7";
    let answer = bench.program(&["shell", task, "--", "sh", "-c", script]).input("typed\n").run();
    assert_eq!(answer.exit_code, Some(7), "{}", answer.stderr);
    assert_eq!(answer.stdout(), "typed\ncircleci\n/home/circleci/project\nbegun\n");
}

#[test]
fn a_killed_runner_s_machine_job_is_gone_on_with_where_it_was() {
    let bench = Bench::with_machines();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let mut runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    eventually("the step's output", LIMIT, || {
        String::from_utf8_lossy(&fleet.log_so_far(&task, LOG)).contains("line 20\n").then_some(())
    });
    visit(&bench, &task);
    runner.kill();
    let runner = fleet.runner(&[]);
    eventually("the word that it goes on", LIMIT, || runner.said().contains("this one goes on with it").then_some(()));
    visit(&bench, &task);
    // Its answer may be lost: with it the job, and soon the machine, is over.
    let _answer = bench.program(&["shell", &task, "--", "touch", "/tmp/go"]).run();
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success", "{}\n{}", fleet.show(&pipeline), runner.said());
    let log = String::from_utf8(fleet.log(&task, LOG)).expect("text");
    let expected: String = (1..=200).map(|line| format!("line {line}\n")).collect();
    assert_eq!(log, format!("{expected}begun\n"), "no byte is lost, and the step ran once");
    nothing_is_left(&bench, fleet, runner);
}

#[test]
fn a_killed_runner_s_machine_job_whose_lease_is_lost_is_removed() {
    let bench = Bench::with_machines();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::with(&bench, &[("NAVVY_PROCESSOR_LEASE", "15s")]);
    let mut runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    eventually("the step's output", LIMIT, || {
        String::from_utf8_lossy(&fleet.log_so_far(&task, LOG)).contains("line 5\n").then_some(())
    });
    runner.kill();
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "error", "{}", fleet.show(&pipeline));
    assert_eq!(fleet.job(&pipeline, "slow")["status"], "infrastructure_fail");
    let next = fleet.runner(&[]);
    nothing_is_left(&bench, fleet, next);
}

#[test]
fn a_host_without_docker_takes_machine_jobs_alone() {
    // Nobody answers there.
    let bench = Bench::with_machines().env("DOCKER_HOST", "tcp://127.0.0.1:1");
    // Here nobody makes its file.
    bench.config(&SLOW.replace("until [ -e /tmp/go ]", "until true")).commit("a project");
    let checked = bench.ask(&["host", "check"]);
    checked.exits_with(0);
    assert!(checked.stdout().contains("of these kinds: vm.\n"), "{}", checked.stdout());
    let doctor = bench.ask(&["doctor"]);
    doctor.exits_with(0);
    assert!(doctor.stdout().contains("only jobs in virtual machines run"), "{}", doctor.stdout());
    let mut fleet = Fleet::start(&bench);
    let runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success", "{}\n{}", fleet.show(&pipeline), runner.said());
    assert!(runner.said().contains("Jobs in containers are not taken"), "{}", runner.said());
    bench.config(CHAIN).commit("another");
    let pipeline = fleet.submit(&["--tree"]);
    eventually("why the job in a container waits", LIMIT, || {
        (fleet.job(&pipeline, "makes")["why"] == "no agent offers the executor docker for class small").then_some(())
    });
    nothing_is_left(&bench, fleet, runner);
}
