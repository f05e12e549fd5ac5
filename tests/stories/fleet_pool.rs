//! A processor that keeps machines ready: a job takes one, uses it once, and another one takes its place.

use std::time::Duration;

use navvy_tests::{Bench, Fleet, eventually};

/// A machine that is emulated, beside others: it boots in seconds where nobody else works.
const LIMIT: Duration = Duration::from_secs(240);
const IMAGES: &str = "/var/cache/navvy-images";
const WARM: &str = r#"navvy_pool_machines{class="medium",image="debian-12-docker",state="warm"} 1"#;

/// A job in a container with an engine of its own in a machine, and then one whose steps run in a machine.
const BOTH: &str = r#"
version: 2.1
jobs:
  boxed:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - setup_remote_docker
      - run: {name: says, command: "echo $DOCKER_HOST"}
  whole:
    machine: true
    steps:
      - run: {name: says, command: "echo in a machine"}
workflows:
  ci: {jobs: [boxed, {whole: {requires: [boxed]}}]}
"#;
const WAITS: &str = r#"
version: 2.1
jobs:
  whole:
    machine: true
    steps:
      - run: {name: waits, command: "echo began; sleep 3600"}
workflows:
  ci: {jobs: [whole]}
"#;

/// A pool of so many, of machines as small as the bench's own.
fn settings(bench: &Bench, count: u32) -> String {
    let path = bench.state().join("processor.toml");
    let state = bench.state().join("navvy");
    let text = format!(
        "[machine_pool]\nstate = {state:?}\naccelerator = 'tcg'\nsnapshots = 'off'\ncpus = 1\nmemory = '640M'\nquota = 2\n\
         surplus_after_seconds = 1\n\
         prescale = [{{class = 'medium', image = 'debian-12-docker', count = {count}}}]\n"
    );
    std::fs::create_dir_all(bench.state()).expect("a directory can be made");
    std::fs::write(&path, text).expect("a file can be written");
    path.to_str().expect("a path of ours").to_owned()
}

/// Waits until these lines stand in the processor's figures.
#[track_caller]
fn figures(fleet: &Fleet<'_>, lines: &[&str]) {
    let mut last = String::new();
    let found = || {
        last = String::from_utf8_lossy(&fleet.get("/metrics").unwrap_or_default()).into_owned();
        lines.iter().all(|line| last.lines().any(|found| found == *line)).then_some(())
    };
    eventually(&format!("the figures {lines:?}"), LIMIT, found);
}

#[test]
fn a_job_takes_a_machine_that_is_ready_and_a_lost_one_goes_with_its_lease() {
    let bench = Bench::with_machines();
    bench.config(BOTH).commit("a project");
    let file = settings(&bench, 1);
    let of_processor =
        [("NAVVY_PROCESSOR_SETTINGS", &*file), ("NAVVY_IMAGES", IMAGES), ("NAVVY_PROCESSOR_LEASE", "15s")];
    let mut fleet = Fleet::with(&bench, &of_processor);
    figures(&fleet, &["navvy_pool_up 1", WARM]);
    let mut runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success", "{}", fleet.show(&pipeline));
    for (job, log) in [("boxed", "001-1"), ("whole", "000-1")] {
        let log = fleet.log(&fleet.task(&pipeline, job), log);
        let log = String::from_utf8_lossy(&log);
        assert!(log.contains("Machine: from the pool"), "{job}: {log}");
    }
    // Each was used once, and another one is ready.
    figures(&fleet, &[WARM, r#"navvy_pool_removals_total{why="used"} 2"#, "navvy_pool_wait_seconds_count 2"]);

    bench.config(WAITS).commit("one that waits");
    let waits = fleet.submit(&["--tree"]);
    let task = eventually("the job's task", LIMIT, || {
        fleet.job(&waits, "whole")["tasks"][0]["id"].as_str().map(str::to_owned)
    });
    fleet.has_shown(&task, "001-1", "began\n");
    runner.kill();
    figures(&fleet, &[WARM, r#"navvy_pool_removals_total{why="holder-gone"} 1"#]);
    assert_eq!(fleet.end_of(&waits, LIMIT), "error", "a fault of the infrastructure");

    // A pool that wants none removes what it has left, after SIGKILL, too.
    settings(&bench, 0);
    fleet.crash_and_restart();
    figures(&fleet, &["navvy_pool_up 1", r#"navvy_pool_removals_total{why="surplus"} 1"#]);
    eventually("the end of all machines", LIMIT, || {
        let machines = std::fs::read_dir(bench.state().join("navvy/machines"));
        machines.map_or(0, Iterator::count).eq(&0).then_some(())
    });
    // What a killed runner has left of its task is the next start's to remove.
    assert!(bench.navvy(&["prune"]).exit_code == 0, "what is left can be removed");
    // The processor and what it serves are processes of the bench, too.
    drop((fleet, runner));
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}
