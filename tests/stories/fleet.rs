//! A processor and runners: what is submitted ends as under `navvy run`, and its output is whole.

use std::time::Duration;

use navvy_tests::{Bench, Fleet, SLOW, SLOW_LOG, Signal, eventually, files_that_hold, printed_by_slow, sha256};

const LIMIT: Duration = Duration::from_secs(90);

const TWO: &str = r#"
version: 2.1
jobs:
  unit:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - checkout
      - run: {name: reads, command: "cat greeting.txt; echo to stderr >&2"}
      - persist_to_workspace: {root: ., paths: [greeting.txt]}
  deploy:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - attach_workspace: {at: /tmp/w}
      - run: {name: ships, command: "tr a-z A-Z </tmp/w/greeting.txt"}
workflows:
  ci: {jobs: [unit, {deploy: {requires: [unit]}}]}
"#;

#[test]
fn what_is_submitted_is_carried_out_by_a_runner_with_the_tree_that_was_sent() {
    let bench = Bench::on_this_machine();
    bench.config(TWO).file("greeting.txt", "hello, fleet\n").commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    let (unit, deploy) = (fleet.task(&pipeline, "unit"), fleet.task(&pipeline, "deploy"));
    assert_eq!(String::from_utf8_lossy(&fleet.log(&unit, "002-1")), "hello, fleet\nto stderr\n");
    assert_eq!(String::from_utf8_lossy(&fleet.log(&deploy, "002-1")), "HELLO, FLEET\n");
    for task in [&unit, &deploy] {
        let job = if task == &unit { "unit" } else { "deploy" };
        assert_eq!(fleet.job(&pipeline, job)["tasks"][0]["output"], "complete", "{}", fleet.show(&pipeline));
        assert_eq!(bench.docker().containers_of(task), Vec::<String>::new());
    }
}

#[test]
fn a_failed_job_fails_its_pipeline_and_a_rerun_from_there_passes_over_what_passed() {
    let bench = Bench::on_this_machine();
    bench.config(
        r#"
version: 2.1
jobs:
  good:
    docker: [{image: navvy/base:bookworm}]
    steps: [{run: "true"}]
  bad:
    docker: [{image: navvy/base:bookworm}]
    steps: [{run: {name: breaks, command: "echo broken; exit 3"}}]
workflows:
  ci: {jobs: [good, {bad: {requires: [good]}}]}
"#,
    );
    bench.commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "failed");
    assert_eq!(fleet.job(&pipeline, "bad")["status"], "failed");
    let said = fleet.navvy(&["pipelines", "rerun", &pipeline, "--from-failed", "--json"]).text();
    let again: serde_json::Value = serde_json::from_str(said.trim()).expect("JSON");
    let again = again["id"].as_str().expect("an id").to_owned();
    assert_eq!(fleet.end_of(&again, LIMIT), "failed");
    assert_eq!(fleet.job(&again, "good")["tasks"].as_array().map(Vec::len), Some(0), "it was not run again");
}

#[test]
fn a_processor_that_is_killed_in_the_middle_of_a_step_loses_and_doubles_nothing() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    for lines in [100, 900] {
        fleet.has_shown(&task, SLOW_LOG, &format!("line {lines}\n"));
        fleet.crash_and_restart();
    }
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    assert_eq!(sha256(&fleet.log(&task, "001-1")), sha256(&printed_by_slow()));
    assert_eq!(fleet.job(&pipeline, "slow")["tasks"][0]["output"], "complete");
}

#[test]
fn a_canceled_pipeline_ends_its_running_job_and_leaves_nothing() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let mut runner = fleet.runner(&["--once"]);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    eventually("output of the step", LIMIT, || (!fleet.log_so_far(&task, "001-1").is_empty()).then_some(()));
    fleet.navvy(&["pipelines", "cancel", &pipeline]).succeeded();
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "canceled");
    assert_eq!(runner.end(LIMIT), Some(0), "the agent's exit code speaks of the agent");
    assert_eq!(bench.docker().containers_of(&task), Vec::<String>::new());
}

#[test]
fn a_drained_runner_ends_what_it_has_and_takes_nothing_more() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let mut runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    eventually("output of the step", LIMIT, || (!fleet.log_so_far(&task, "001-1").is_empty()).then_some(()));
    runner.signal(Signal::Terminate);
    let second = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    assert_eq!(runner.end(LIMIT), Some(0));
    assert_eq!(fleet.job(&second, "slow")["status"], "queued");
}

#[test]
fn a_contexts_secret_reaches_its_job_alone_and_is_nowhere_on_disk() {
    let bench = Bench::on_this_machine();
    bench.config(
        r#"
version: 2.1
jobs:
  tells:
    docker: [{image: navvy/base:bookworm}]
    steps: [{run: {name: tells, command: "echo the word is $WORD; test ${#WORD} = 20"}}]
  other:
    docker: [{image: navvy/base:bookworm}]
    steps: [{run: {name: knows, command: "test -z \"$WORD\""}}]
workflows:
  ci: {jobs: [{tells: {context: words}}, other]}
"#,
    );
    bench.commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let set = bench.program(&["context", "set", "words", "WORD"]).input("hunter2-of-the-fleet").run();
    set.succeeded();
    let pipeline = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    let task = fleet.task(&pipeline, "tells");
    assert_eq!(String::from_utf8_lossy(&fleet.log(&task, "001-1")), "the word is ****\n");
    assert_eq!(files_that_hold(&bench.state(), b"hunter2-of-the-fleet"), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_config_with_mistakes_is_refused_with_its_diagnostics() {
    let bench = Bench::on_this_machine();
    bench.config("version: 2.1\njobs: {a: {docker: [{image: i}], steps: [{runn: x}]}}\nworkflows: {w: {jobs: [a]}}\n");
    bench.commit("a project");
    let fleet = Fleet::start(&bench);
    fleet.navvy(&["submit", "--tree"]).ends(2, &["runn", "config.yml"]);
}

const LONG: &str = r#"
version: 2.1
jobs:
  long:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: counts, command: "for i in $(seq 1 60000); do echo line $i; [ $((i % 1000)) = 0 ] && sleep 0.7; done; echo once >>/tmp/ran; wc -l </tmp/ran"}
workflows:
  ci: {jobs: [long]}
"#;

#[test]
#[ignore = "takes minutes: scripts/soak fleet"]
fn a_processor_that_is_killed_at_twenty_random_moments_loses_and_doubles_nothing() {
    let bench = Bench::on_this_machine();
    bench.config(LONG).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "long");
    eventually("output of the step", LIMIT, || (!fleet.log_so_far(&task, "001-1").is_empty()).then_some(()));
    let mut random =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").subsec_nanos();
    for _ in 0..20 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // The moment is what is random here; nothing waits for the time to be over.
        std::thread::sleep(Duration::from_millis(u64::from(random >> 22)));
        fleet.crash_and_restart();
    }
    assert_eq!(fleet.end_of(&pipeline, 2 * LIMIT), "success", "moments from {random}");
    let lines: String = (1..=60_000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(sha256(&fleet.log(&task, "001-1")), sha256(format!("{lines}1\n").as_bytes()));
    assert_eq!(fleet.job(&pipeline, "long")["tasks"][0]["output"], "complete");
}

const SETUP: &str = r#"
version: 2.1
setup: true
jobs:
  decide:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - checkout
      - run: {name: decides, command: circleci continuation continue --configuration next.yml}
workflows:
  setup: {jobs: [decide]}
"#;

/// `ships` takes what the job before it made, leaves a cache, and fails.
const NEXT: &str = r#"
version: 2.1
jobs:
  makes:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - checkout
      - run: "echo made >made.txt"
      - persist_to_workspace: {root: ., paths: [made.txt]}
  ships:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - attach_workspace: {at: /tmp/w}
      - run: {name: takes, command: "cat /tmp/w/made.txt"}
      - restore_cache: {keys: [mark]}
      - run: touch /tmp/mark
      - save_cache: {key: mark, paths: [/tmp/mark]}
      - run: {name: fails, command: "false"}
workflows:
  main: {jobs: [makes, {ships: {requires: [makes]}}]}
"#;

#[test]
fn a_setup_pipeline_goes_on_with_what_its_job_chose_and_so_does_its_rerun() {
    let bench = Bench::on_this_machine();
    bench.config(SETUP).file("next.yml", NEXT).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "failed");
    let task = fleet.task(&pipeline, "ships");
    assert_eq!(String::from_utf8_lossy(&fleet.log(&task, "002-1")), "made\n");
    let said = fleet.navvy(&["pipelines", "rerun", &pipeline, "--from-failed", "--json"]).text();
    let again: serde_json::Value = serde_json::from_str(said.trim()).expect("JSON");
    let again = again["id"].as_str().expect("an id").to_owned();
    assert_eq!(fleet.end_of(&again, LIMIT), "failed");
    assert_eq!(fleet.job(&again, "makes")["tasks"].as_array().map(Vec::len), Some(0), "it was not run again");
    let task = fleet.task(&again, "ships");
    assert_eq!(String::from_utf8_lossy(&fleet.log(&task, "002-1")), "made\n", "what the first run made is there");
    assert!(
        String::from_utf8_lossy(&fleet.log(&task, "003-1")).contains("mark"),
        "the cache of the first run is found"
    );
}
