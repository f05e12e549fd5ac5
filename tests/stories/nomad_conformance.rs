//! Nomad's own conformance tests of drivers, run against ours: `tests/nomad` in Go, which Nomad's loader and harness are part of.
//! docs/nomad-conformance.md says which cases there are and which do not apply.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use navvy_tests::{Bench, Fleet, NOMAD_LIMIT, Program, nomad_driver_tests, program_of_ours, seldom};
use serde_json::{Map, Value, json};

/// Says that a command can be run in it, and waits for a file.
const WAITS: &str = "touch /tmp/ready; until [ -e /tmp/go ]; do sleep 0.1; done";
/// Takes no notice of being asked to end.
const STUBBORN: &str = "trap '' TERM INT HUP; touch /tmp/ready; while :; do sleep 0.1; done";

/// The jobs that the cases start, each once.
const JOBS: [(&str, &str); 14] = [
    ("exec", WAITS),
    ("isolation", WAITS),
    ("exec-task", WAITS),
    ("passes", "echo passed"),
    ("logs", WAITS),
    ("stopped", WAITS),
    ("stubborn", STUBBORN),
    ("signals", WAITS),
    ("stats", "touch /tmp/ready; while :; do :; done"),
    ("events", "sleep 1"),
    ("recovered", WAITS),
    ("ends-alone", WAITS),
    ("reattached", WAITS),
    ("gone", WAITS),
];
/// A job that no case gets to start.
const NEVER: &str = "never";

fn config() -> String {
    let names = JOBS.iter().map(|(name, _)| *name).chain([NEVER]);
    let mut yaml = String::from("version: 2.1\njobs:\n");
    for (name, command) in JOBS.iter().copied().chain([(NEVER, "exit 1")]) {
        yaml.push_str(&format!(
            "  {name}:\n    docker: [{{image: navvy/base:bookworm}}]\n    resource_class: small\n    steps:\n      - run: {}\n",
            json!({ "name": "step", "command": command })
        ));
    }
    yaml.push_str(&format!("workflows:\n  ci:\n    jobs: [{}]\n", names.collect::<Vec<_>>().join(", ")));
    yaml
}

/// Ids and launch tokens of all jobs' tasks.
#[track_caller]
fn tasks(fleet: &Fleet<'_>, pipeline: &str) -> Map<String, Value> {
    let names = JOBS.iter().map(|(name, _)| *name).chain([NEVER]);
    let entry = |name: &str| {
        let task = fleet.task(pipeline, name);
        (name.to_owned(), json!({ "task": task, "token": fleet.launch_token(&task) }))
    };
    names.map(entry).collect()
}

/// A directory with the driver alone, as the agent of Nomad is given one.
#[track_caller]
fn plugins(place: &Path) -> std::path::PathBuf {
    let plugins = place.join("plugins");
    fs::create_dir_all(&plugins).expect("a directory can be made");
    symlink(program_of_ours("navvy-driver"), plugins.join("navvy-driver")).expect("a link can be made");
    plugins
}

#[test]
fn nomads_own_tests_of_drivers_pass() {
    let bench = Bench::on_this_machine();
    bench.config(&config()).commit("a project");
    let fleet = Fleet::start(&bench);
    let pipeline = fleet.submit(&["--tree"]);
    let tasks = tasks(&fleet, &pipeline);
    let place = bench.state().join("conformance");
    let given = json!({
        "plugins": plugins(&place), "agent": program_of_ours("navvy"), "state": place.join("driver"),
        "processor": format!("http://{}", fleet.agents), "tasks": tasks,
    });
    let file = place.join("given.json");
    fs::write(&file, given.to_string()).expect("a file can be written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    let cases = std::env::var("NAVVY_CONFORMANCE_RUN").unwrap_or_default();
    let words = ["-test.v", "-test.timeout=20m", "-test.parallel=1", "-test.run", &cases];
    let answer = Program::new(nomad_driver_tests()).args(words).env("NAVVY_CONFORMANCE", &file).directory(&place).run();
    let said = answer.stdout();
    assert_eq!(answer.exit_code, Some(0), "{said}\n{}", answer.stderr);
    assert!(said.contains("--- PASS: TestExecStreaming") || !cases.is_empty(), "{said}");
    assert!(!said.contains("--- SKIP"), "what does not apply is named in docs/nomad-conformance.md: {said}");
    // Each step ran once at most, and nothing is left.
    fleet.navvy(&["pipelines", "cancel", &pipeline]).succeeded();
    let ids: Vec<String> = tasks.values().filter_map(|task| Some(task["task"].as_str()?.to_owned())).collect();
    seldom("that nothing of the tasks is left on the host", NOMAD_LIMIT, || {
        bench.left_of(&ids).is_empty().then_some(())
    });
    let left: Vec<_> = fs::read_dir(place.join("driver/tasks")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
