//! An engine's disk that runs out of inodes: whoever took them is ended by name, held ones included.

use std::time::Duration;

use navvy_tests::{Bench, Finished, PrivateEngine, Run, SmallDisk, eventually};

#[track_caller]
fn task_of(run: &Run<'_>, said: &str) -> String {
    run.wait_for_output(said).task().expect("output is a task's").to_owned()
}

/// An engine whose disk has 20,000 inodes, and this project's runs on it.
struct FewInodes {
    bench: Bench,
    engine: PrivateEngine,
    _disk: SmallDisk,
    _place: tempfile::TempDir,
}

impl FewInodes {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a temporary directory can be made");
        let disk = SmallDisk::with_inodes_at(place.path(), 512, 20_000);
        let engine = PrivateEngine::near_with_data_at(place.path(), "navvy/busybox:static");
        let bench = Bench::on_this_machine().beside(&engine, &engine.address());
        Self { bench, engine, _disk: disk, _place: place }
    }

    /// Takes no inode where the gate is there already: the files of a job that was ended go beside its verdict.
    fn let_go(&self, task: &str) {
        let docker = self.engine.docker();
        for container in docker.containers_of(task) {
            docker.ask(&["exec", &container, "sh", "-c", "echo > /gate"]).succeeded();
        }
    }
}

/// As many files as there can be, and no bytes.
const MAKES_FILES: &str = "until [ -s /gate ]; do sleep 0.1; done; mkdir /many; n=0; while echo -n > /many/$n; do n=$((n + 1)); done; sleep 1000";
const NEIGHBOUR: &str = ": > /gate; echo waits; until [ -s /gate ]; do sleep 0.1; done; echo goes on";

/// A job on the smallest image.
fn small_job(name: &str, steps: &[(&str, &str)]) -> String {
    let step = |(words, command): &(&str, &str)| format!("      - run: {{{words}, command: '{command}'}}\n");
    let steps: String = steps.iter().map(step).collect();
    format!("  {name}:\n    docker: [{{image: navvy/busybox:static}}]\n    resource_class: small\n    steps:\n{steps}")
}

fn config_of(jobs: &[String], names: &str) -> String {
    format!("version: 2.1\njobs:\n{}workflows:\n  ci: {{jobs: [{names}]}}\n", jobs.concat())
}

#[track_caller]
fn was_ended_for_inodes(done: &Finished, job: &str, step: &str) {
    done.exits_with(1);
    let step = done.step(job, step);
    let said = format!("{} {}", step.event.get("outcome"), step.trailers.join("\n"));
    for part in ["disk floor:", "this job has written", " files", "inodes left, below 4096", "--disk-floor"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

#[test]
fn a_job_that_takes_all_inodes_is_ended_by_name_and_its_neighbour_goes_on() {
    let few = FewInodes::new();
    let fills = small_job("fills", &[("name: fills", &format!("echo fills soon; {MAKES_FILES}"))]);
    few.bench.config(&config_of(&[fills, small_job("neighbour", &[("name: goes on", NEIGHBOUR)])], "fills, neighbour"));
    let run = few.bench.run(&[]);
    let (neighbour, fills) = (task_of(&run, "waits"), task_of(&run, "fills soon"));
    few.let_go(&fills);
    run.wait_for("the job is ended", Duration::from_secs(60), |event| {
        event.job() == "fills" && event.is_end_of("fills")
    });
    few.let_go(&neighbour);
    let done = run.finish();
    was_ended_for_inodes(&done, "fills", "fills");
    assert_eq!(done.text("neighbour", "goes on"), "waits\ngoes on\n");
}

#[test]
fn a_job_that_is_gone_on_with_is_ended_for_the_disk_as_any_other() {
    let few = FewInodes::new();
    let again = format!("if [ -e /again ]; then echo > /gate; {MAKES_FILES}; fi; touch /again; exit 1");
    few.bench.config(&config_of(&[small_job("fills", &[("name: fills", &again)])], "fills"));
    let held = few.bench.run(&["--keep-on-fail"]).that_leaves_things().finish();
    let task = held.event("a task is kept", |event| event.is("task_kept")).task().expect("it is a task's").to_owned();
    let done = few.bench.start(&["retry", &task, "--json"]).finish();
    was_ended_for_inodes(&done, "fills", "fills");
    assert_eq!(few.bench.left_of(&[task]), Vec::<String>::new());
}

#[test]
fn a_held_job_that_nobody_looks_after_is_removed_when_it_fills_the_disk() {
    let few = FewInodes::new();
    let fills = small_job("fills", &[("name: fills, background: true", MAKES_FILES), ("name: fails", "exit 1")]);
    let neighbour = small_job("neighbour", &[("name: goes on", NEIGHBOUR)]);
    few.bench.config(&config_of(&[fills, neighbour], "fills, neighbour"));
    let held = few.bench.run(&["--job", "fills", "--keep-on-fail"]).that_leaves_things().finish();
    let task = held.event("a task is kept", |event| event.is("task_kept")).task().expect("it is a task's").to_owned();
    let run = few.bench.run(&["--job", "neighbour"]);
    let neighbour = task_of(&run, "waits");
    few.let_go(&task);
    eventually("the held environment is removed", Duration::from_secs(120), || {
        few.engine.docker().containers_of(&task).is_empty().then_some(())
    });
    few.let_go(&neighbour);
    let done = run.finish();
    done.passes().complains(&[&format!("Task {task} was held, had written"), "inodes left, below 4096"]);
    few.bench.ask(&["rm", &task]).passes();
}
