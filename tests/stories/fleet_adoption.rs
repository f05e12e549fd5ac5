//! Agents that are killed, and those that go on in their place: no byte is lost, none comes twice, no step runs again.

use std::time::Duration;

use navvy_tests::{Bench, Fleet, Peak, Served, SmallDisk, Wire, eventually, files_that_hold, printed_by_slow, sha256};

const LIMIT: Duration = Duration::from_secs(120);
/// What the processor is told, so that a lease is over soon, and not while a busy machine stands still.
const SHORT: (&str, &str) = ("NAVVY_PROCESSOR_LEASE", "15s");
const LOG: &str = "001-1";

/// Prints lines for some seconds, and how often it has run in its container.
const SLOW: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: counts, command: "for i in $(seq 1 3000); do echo line $i; [ $((i % 100)) = 0 ] && sleep 0.2; done; echo once >>/tmp/ran; wc -l </tmp/ran"}
      - run: {name: after, command: "echo once >>/tmp/after; wc -l </tmp/after"}
workflows:
  ci: {jobs: [slow]}
"#;

#[track_caller]
fn goes_on(runner: &Served) {
    eventually("the word that it goes on", LIMIT, || runner.said().contains("this one goes on with it").then_some(()));
}

/// Passed, complete, each of these steps begun and ended once, and nothing left.
#[track_caller]
fn passed_once(bench: &Bench, fleet: &Fleet<'_>, pipeline: &str, task: &str, steps: &[&str]) {
    assert_eq!(fleet.end_of(pipeline, LIMIT), "success", "{}", fleet.show(pipeline));
    let job = fleet.job(pipeline, "slow");
    assert_eq!((job["tasks"].as_array().map(Vec::len), &job["tasks"][0]["output"]), (Some(1), &"complete".into()));
    let events = fleet.events(pipeline);
    for step in steps {
        for kind in ["step_started", "step_ended"] {
            let found = events.iter().filter(|event| event["event"] == kind && event["name"] == *step).count();
            assert_eq!(found, 1, "{kind} of {step}: {events:#?}");
        }
    }
    for kind in ["task_started", "task_ended", "run_ended"] {
        assert_eq!(events.iter().filter(|event| event["event"] == kind).count(), 1, "{kind}");
    }
    nothing_is_left(bench, task);
}

/// Lets the step go on that waits for it.
#[track_caller]
fn let_go(bench: &Bench, task: &str) {
    bench.docker().ask(&["exec", &format!("navvy-{task}-primary"), "touch", "/tmp/go"]).succeeded();
}

#[track_caller]
fn nothing_is_left(bench: &Bench, task: &str) {
    eventually("the removal of the task's containers", LIMIT, || {
        bench.docker().containers_of(task).is_empty().then_some(())
    });
    assert_eq!(bench.docker().volumes_of(task), Vec::<String>::new());
    eventually("the removal of its journal", LIMIT, || {
        (!bench.state().join(format!("navvy/tasks/{task}.journal")).exists()).then_some(())
    });
}

#[test]
fn a_runner_that_is_killed_in_the_middle_of_a_step_again_and_again_and_started_goes_on() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let mut runner = fleet.runner(&[]);
    let (pipeline, task) = fleet.in_the_middle();
    for line in [700, 1500, 2400] {
        runner.kill();
        runner = fleet.runner(&[]);
        goes_on(&runner);
        fleet.has_shown(&task, LOG, &format!("line {line}\n"));
    }
    passed_once(&bench, &fleet, &pipeline, &task, &["counts", "after"]);
    assert_eq!(sha256(&fleet.log(&task, LOG)), sha256(&printed_by_slow()));
    assert_eq!(fleet.log(&task, "002-1"), b"1\n");
}

/// Two pipes, and a secret that is never written at once; it ends when its file is there.
const SECRETIVE: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: tells, command: "first=${TOKEN:0:9}; rest=${TOKEN:9}; for i in $(seq 1 400); do printf 'line %s %s' $i $first; sleep 0.01; echo $rest; echo err $TOKEN >&2; done; until [ -e /tmp/go ]; do sleep 0.05; done"}
workflows:
  ci: {jobs: [slow: {context: words}]}
"#;

#[test]
fn a_secret_that_is_cut_by_a_kill_is_shown_nowhere() {
    let bench = Bench::on_this_machine();
    bench.config(SECRETIVE).commit("a project");
    let secret = "s3cr3t-that-nobody-may-see";
    let mut fleet = Fleet::start(&bench);
    bench.program(&["context", "set", "words", "TOKEN"]).input(secret).run().succeeded();
    let mut runner = fleet.runner(&["--no-tty"]);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    for line in [50, 150, 250] {
        fleet.has_shown(&task, LOG, &format!("line {line} "));
        runner.kill();
        runner = fleet.runner(&["--no-tty"]);
        goes_on(&runner);
    }
    let_go(&bench, &task);
    passed_once(&bench, &fleet, &pipeline, &task, &["tells"]);
    let log = String::from_utf8(fleet.log(&task, LOG)).expect("text");
    for part in [secret, &secret[..9], &secret[9..]] {
        assert!(!log.contains(part), "{log}");
    }
    // Two streams: their lines may stand in each other, but there are as many as were written.
    assert_eq!(log.matches("****").count(), 800, "{log}");
    assert_eq!((log.matches("line ").count(), log.matches("err ").count()), (400, 400));
    drop(fleet);
    assert_eq!(files_that_hold(&bench.state(), secret.as_bytes()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_runner_that_is_killed_between_steps_runs_none_of_them_twice() {
    let bench = Bench::on_this_machine();
    let step = |n: u32| {
        format!(
            "      - run: {{name: step {n}, command: \"echo {n} >>/tmp/ran; echo begins {n}; sleep 0.05; echo ends {n}\"}}\n"
        )
    };
    let steps: String = (1..=40).map(step).collect();
    let gate = "      - run: {name: gate, command: \"until [ -e /tmp/go ]; do sleep 0.05; done\"}\n";
    let config = format!(
        "version: 2.1\njobs:\n  slow:\n    docker: [{{image: navvy/base:bookworm}}]\n    steps:\n      - checkout\n{steps}{gate}      - run: {{name: all, command: cat /tmp/ran}}\nworkflows:\n  ci: {{jobs: [slow]}}\n"
    );
    bench.config(&config).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let mut runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    for n in [3, 11, 19, 27, 35] {
        fleet.has_shown(&task, &format!("{n:03}-1"), "ends");
        runner.kill();
        runner = fleet.runner(&[]);
        goes_on(&runner);
    }
    let_go(&bench, &task);
    let names: Vec<String> = (1..=40).map(|n| format!("step {n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    passed_once(&bench, &fleet, &pipeline, &task, &names);
    let all: String = (1..=40).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&fleet.log(&task, "043-1")), all);
    for n in 1..=40 {
        let log = fleet.log(&task, &format!("{:03}-1", n + 1));
        assert_eq!(String::from_utf8_lossy(&log), format!("begins {n}\nends {n}\n"));
    }
}

#[test]
fn a_runner_that_is_killed_while_the_processor_is_away_waits_for_it_and_goes_on() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let wire = Wire::to(&fleet.agents);
    let mut runner = fleet.runner_by(&wire.address(), &[]);
    let (pipeline, task) = fleet.in_the_middle();
    wire.cut();
    runner.kill();
    let next = fleet.runner_by(&wire.address(), &[]);
    eventually("calls that went nowhere", LIMIT, || (wire.refused() >= 3).then_some(()));
    wire.mend();
    goes_on(&next);
    passed_once(&bench, &fleet, &pipeline, &task, &["counts", "after"]);
    assert_eq!(sha256(&fleet.log(&task, LOG)), sha256(&printed_by_slow()));
}

#[test]
fn of_runners_that_start_together_one_goes_on_and_an_agent_needs_no_second_token() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    let token = fleet.launch_token(&task);
    let mut agent = fleet.agent(&task, &token);
    fleet.has_shown(&task, LOG, "line 100\n");
    agent.kill();
    // Its token was used by the first.
    let mut next = fleet.agent(&task, &token);
    goes_on(&next);
    fleet.has_shown(&task, LOG, "line 700\n");
    next.kill();
    let runners = [fleet.runner(&[]), fleet.runner(&[]), fleet.runner(&[])];
    passed_once(&bench, &fleet, &pipeline, &task, &["counts", "after"]);
    assert_eq!(sha256(&fleet.log(&task, LOG)), sha256(&printed_by_slow()));
    let said: Vec<String> = runners.iter().map(Served::said).collect();
    assert_eq!(said.iter().filter(|said| said.contains("this one goes on with it")).count(), 1, "{said:#?}");
}

#[test]
fn an_agent_that_comes_past_the_lease_removes_what_is_left_and_keeps_the_spool() {
    let bench = Bench::on_this_machine();
    // The step outlives the lease.
    bench.config(&SLOW.replace("sleep 0.2", "sleep 2")).commit("a project");
    let mut fleet = Fleet::with(&bench, &[SHORT]);
    let mut runner = fleet.runner(&[]);
    let (pipeline, task) = fleet.in_the_middle();
    runner.kill();
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "error");
    let output = fleet.job(&pipeline, "slow")["tasks"][0]["output"].as_str().unwrap_or_default().to_owned();
    assert!(output.starts_with("incomplete: agent ") && output.contains(" was lost at "), "{output}");
    let shown = fleet.show(&pipeline);
    let next = fleet.runner(&[]);
    nothing_is_left(&bench, &task);
    eventually("what became of it", LIMIT, || {
        next.said().contains(&format!("the right to run task {task} was lost")).then_some(())
    });
    assert_eq!(fleet.show(&pipeline), shown);
    let spooled = files_that_hold(&bench.state().join("navvy/runs"), b"line 100\n");
    assert_eq!(spooled.len(), 1, "{spooled:?}");
    assert!(printed_by_slow().starts_with(&fleet.log_so_far(&task, LOG)));
}

/// Fills the disk, and has a step behind that.
const FLOOD: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: floods, command: "seq -f 'line %.0f of the flood' 400000"}
      - run: {name: last words, when: always, command: "echo last words"}
workflows:
  ci: {jobs: [slow]}
"#;

#[test]
fn an_agent_whose_disk_is_full_says_so_and_what_was_durable_stays() {
    for (floor, why) in [("64m", "disk floor: "), ("0", "no space is left on the disk of the logs")] {
        let bench = Bench::on_this_machine();
        bench.config(FLOOD).commit("a project");
        let mut fleet = Fleet::start(&bench);
        let runs = bench.state().join("navvy/runs");
        std::fs::create_dir_all(&runs).expect("a directory can be made");
        let disk = SmallDisk::mounted_at(&runs, 4);
        let mut runner = fleet.runner(&["--no-tty", "--once", "--disk-floor", floor]);
        let pipeline = fleet.submit(&["--tree"]);
        let task = fleet.task(&pipeline, "slow");
        assert_eq!(fleet.end_of(&pipeline, LIMIT), "failed", "{}", fleet.show(&pipeline));
        // Nothing of it hangs.
        assert_eq!(runner.end(LIMIT), Some(0), "{}", runner.said());
        let events = fleet.events(&pipeline);
        let floods = |event: &&serde_json::Value| event["event"] == "step_ended" && event["name"] == "floods";
        let told = events.iter().find(floods).map(ToString::to_string);
        // Where not even events have room, the report says why they are missing.
        let told = told.unwrap_or_else(|| fleet.show(&pipeline).to_string());
        assert!(told.contains(why), "{told}");
        let all: String = (1..=400_000).map(|i| format!("line {i} of the flood\n")).collect();
        let durable = fleet.log(&task, LOG);
        assert!(durable.len() > 100_000 && all.as_bytes().starts_with(&durable), "{} bytes", durable.len());
        nothing_is_left(&bench, &task);
        drop(disk);
    }
}

const GIB: usize = 1 << 30;

/// One line that never ends.
const LINE: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: one line, no_output_timeout: 10m, command: "head -c 1073741824 /dev/zero | tr '\\0' x"}
workflows:
  ci: {jobs: [slow]}
"#;

#[test]
fn a_line_of_a_gibibyte_goes_through_in_bounded_memory() {
    let bench = Bench::on_this_machine();
    bench.config(LINE).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let runner = fleet.runner(&["--no-tty"]);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    let (mut agent, mut processor) = (Peak::default(), Peak::default());
    let long = Duration::from_secs(900);
    eventually("the end of the pipeline", long, || {
        agent.look(runner.pid());
        processor.look(fleet.processor().pid());
        (fleet.show(&pipeline)["state"] != "running").then_some(())
    });
    assert_eq!(fleet.show(&pipeline)["state"], "success", "{}", fleet.show(&pipeline));
    assert_eq!(fleet.job(&pipeline, "slow")["tasks"][0]["output"], "complete");
    let log = fleet.log(&task, LOG);
    assert!(log.len() == GIB && log.iter().all(|byte| *byte == b'x'), "{} bytes", log.len());
    processor.look(fleet.processor().pid());
    // KiB. Dev builds; what counts is that it is nowhere near the line.
    assert!(agent.own < 256 << 10 && processor.own < 256 << 10, "{agent:?} {processor:?}");
    nothing_is_left(&bench, &task);
}
