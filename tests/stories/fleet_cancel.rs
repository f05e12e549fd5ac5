//! A person cancels while a task waits for somebody else: a registry, the store. It ends at once, and leaves nothing.

use std::time::{Duration, Instant};

use navvy_tests::{Asked, Bench, End, Ending, Fate, Fleet, Gate, ObjectStore, Password, Registry, eventually};

const LIMIT: Duration = Duration::from_secs(120);
/// A person who cancels sees the end within this, whoever hangs.
const PROMPTLY: Duration = Duration::from_secs(40);
/// Bytes a second of what hangs.
const HARDLY: usize = 10;

fn config(image: &str, steps: &str) -> String {
    format!(
        "version: 2.1\njobs:\n  slow:\n    docker: [{{image: '{image}'}}]\n    steps:\n{steps}workflows:\n  ci: {{jobs: [slow]}}\n"
    )
}

/// Submits, and waits until the task hangs at such a request.
#[track_caller]
fn hangs_at(fleet: &Fleet<'_>, gate: &Gate, hangs: fn(&Asked) -> bool) -> (String, String) {
    gate.rule(move |asked| match (hangs(asked), asked.method.as_str()) {
        (false, _) => Fate::Pass,
        (true, "GET") => Fate::AnswerTrickles(HARDLY),
        (true, _) => Fate::RequestTrickles(HARDLY),
    });
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    eventually("a request that hangs", LIMIT, || gate.asked().iter().any(hangs).then_some(()));
    (pipeline, task)
}

/// Cancels, and waits for the end.
#[track_caller]
fn is_canceled(fleet: &Fleet<'_>, gate: &Gate, (pipeline, task): &(String, String), end: &str) {
    let asked = Instant::now();
    fleet.navvy(&["pipelines", "cancel", pipeline]).succeeded();
    assert_eq!(fleet.end_of(pipeline, LIMIT), end);
    assert!(asked.elapsed() < PROMPTLY, "it took {:?}", asked.elapsed());
    fleet.nothing_is_left_on_the_host(task);
    gate.rule(|_| Fate::Pass);
}

#[track_caller]
fn canceled_at(fleet: &mut Fleet<'_>, gate: &Gate, hangs: fn(&Asked) -> bool) -> (String, String) {
    let of = hangs_at(fleet, gate, hangs);
    is_canceled(fleet, gate, &of, "canceled");
    of
}

#[track_caller]
fn is_over(fleet: &mut Fleet<'_>, (pipeline, task): &(String, String), log: &str, printed: &[u8]) {
    fleet.has_ended(End::Canceled, &Ending { pipeline, task, job: "slow", log, printed });
}

#[test]
fn a_task_that_pulls_its_image_ends_when_it_is_canceled() {
    let bench = Bench::on_this_machine();
    let registry = Registry::start(&bench, Password::None);
    let noise = bench.docker().image_of_noise("navvy-tests/hangs", 1);
    registry.offer(&noise, "hangs");
    bench.docker().ask(&["rmi", "--force", &noise]).succeeded();
    let gate = Gate::before(&format!("http://{}", registry.host()));
    let image = format!("{}/hangs", gate.endpoint().trim_start_matches("http://"));
    bench.config(&config(&image, "      - run: 'true'\n")).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let ended = canceled_at(&mut fleet, &gate, |asked| asked.is("GET", "/blobs/"));
    is_over(&mut fleet, &ended, "001-1", b"");
}

#[test]
fn a_task_that_checks_out_ends_when_it_is_canceled() {
    let (bench, store) = (Bench::on_this_machine(), ObjectStore::serve());
    bench.config(&config("navvy/base:bookworm", "      - checkout\n")).commit("a project");
    let gate = store.gate();
    let mut fleet = Fleet::over(&bench, &store, &gate, &[]);
    let _runner = fleet.runner(&[]);
    let ended = canceled_at(&mut fleet, &gate, |asked| asked.is("GET", "/v1/tree/"));
    is_over(&mut fleet, &ended, "009-1", b"");
}

#[test]
fn a_task_that_saves_a_cache_ends_when_it_is_canceled() {
    let (bench, store) = (Bench::on_this_machine(), ObjectStore::serve());
    let steps = "      - run: {command: 'head -c 9000000 /dev/urandom >/tmp/noise; echo made'}\n      \
                 - save_cache: {key: noise, paths: [/tmp/noise]}\n";
    bench.config(&config("navvy/base:bookworm", steps)).commit("a project");
    let gate = store.gate();
    let mut fleet = Fleet::over(&bench, &store, &gate, &[]);
    let _runner = fleet.runner(&[]);
    let ended = canceled_at(&mut fleet, &gate, |asked| asked.is("PUT", "/v1/body/"));
    is_over(&mut fleet, &ended, "001-1", b"made\n");
    assert_eq!(store.open_uploads(), [""; 0]);
}

/// What it printed never came into the store: that is said, and nobody waits for it.
#[test]
fn a_task_that_delivers_its_last_output_ends_when_it_is_canceled() {
    let (bench, store) = (Bench::on_this_machine(), ObjectStore::serve());
    bench.config(&config("navvy/base:bookworm", "      - run: echo made\n")).commit("a project");
    let gate = store.gate();
    let mut fleet = Fleet::over(&bench, &store, &gate, &[]);
    let _runner = fleet.runner(&[]);
    let (pipeline, task) = hangs_at(&fleet, &gate, |asked| asked.is("PUT", "/v1/log/"));
    let over = |event: &serde_json::Value| event["event"] == "step_ended" && event["step"] == 1;
    eventually("the end of its step", LIMIT, || fleet.events_so_far(&pipeline).iter().any(over).then_some(()));
    // Its steps have passed; that stays so.
    is_canceled(&fleet, &gate, &(pipeline.clone(), task.clone()), "success");
    let job = fleet.job(&pipeline, "slow");
    let output = job["tasks"][0]["output"].as_str().unwrap_or_default();
    assert!(output.starts_with("incomplete: "), "{job}");
    fleet.ended_once(&Ending { pipeline: &pipeline, task: &task, job: "slow", log: "001-1", printed: b"made\n" });
    fleet.nothing_is_left_in_the_store();
}
