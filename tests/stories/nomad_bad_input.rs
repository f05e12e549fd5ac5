//! What can be wrong with a client, a job or a token, and how it stands in `nomad alloc status` or on the node's page.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use navvy_tests::{
    Bench, Fleet, NOMAD_LIMIT, Nomad, NomadSetup, SLOW, SLOW_LOG, Signal, parameterized, seldom, signal, text_of,
};
use serde_json::{Value, json};

fn job() -> Value {
    parameterized("navvy-tests", 4000, 1024)
}

const RESERVE: &str = "reserve { cpus = 0, memory = \"0\" }";

/// A Nomad whose client has these lines in its plugin block; the client's node.
#[track_caller]
fn with_driver(bench: &Bench, driver: &str) -> (Nomad, String) {
    let mut nomad = Nomad::server(bench, NomadSetup { driver: driver.to_owned(), ..NomadSetup::default() });
    let node = nomad.add_client("one");
    (nomad, node)
}

/// A client that works, a fleet, and a task that waits there for its agent.
#[track_caller]
fn task_of<'a>(bench: &'a Bench) -> (Nomad, Fleet<'a>, String) {
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(bench);
    let fleet = Fleet::start(bench);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    (nomad, fleet, task)
}

/// The allocation fails, and `nomad alloc status` says all of this; it never shows the token.
#[track_caller]
fn says(nomad: &Nomad, alloc: &str, token: &str, parts: &[&str]) {
    nomad.alloc_is(alloc, "failed");
    let status = nomad.status(alloc);
    // The table of events breaks no lines, but it cuts none either.
    for part in parts {
        assert!(status.contains(part), "no {part:?} in: {status}");
    }
    assert!(!status.contains(token), "the token is shown: {status}");
    nomad.nothing_is_left();
}

fn script(path: &Path, text: &str) -> PathBuf {
    fs::write(path, text).expect("a file can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    path.to_owned()
}

#[test]
fn a_client_without_an_agent_takes_no_tasks_and_says_so() {
    let bench = Bench::on_this_machine();
    let (nomad, node) = with_driver(&bench, &format!("agent_path = \"/nowhere/navvy\"\n    {RESERVE}"));
    let said = nomad.unhealthy(&node, "/nowhere/navvy");
    assert!(said.contains("agent_path"), "what to do: {said}");
}

/// A job that is waiting for such a client says what it waits for.
#[test]
fn an_agent_that_is_removed_later_is_told_to_who_dispatches() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let link = bench.state().join("navvy-link");
    symlink(navvy_tests::program_of_ours("navvy"), &link).expect("a link can be made");
    let (nomad, node) = with_driver(&bench, &format!("agent_path = \"{}\"\n    {RESERVE}", link.display()));
    nomad.healthy(&node);
    let fleet = Fleet::start(&bench);
    let task = fleet.task(&fleet.submit(&["--tree"]), "slow");
    fs::remove_file(&link).expect("a link can be removed");
    let token = fleet.launch_token(&task);
    let (_, alloc) = nomad.dispatch_with(&fleet, &job(), &task, &token);
    says(&nomad, &alloc, &token, &["there is no agent", "agent_path"]);
}

/// Nomad has placed a task before it heard that the client takes none: the task fails with the reason, and keeps its token.
#[test]
fn a_task_that_was_placed_on_a_client_that_takes_none_any_more_says_why() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let link = bench.state().join("navvy-link");
    symlink(navvy_tests::program_of_ours("navvy"), &link).expect("a link can be made");
    let (mut nomad, node) = with_driver(&bench, &format!("agent_path = \"{}\"\n    {RESERVE}", link.display()));
    nomad.healthy(&node);
    let fleet = Fleet::start(&bench);
    let task = fleet.task(&fleet.submit(&["--tree"]), "slow");
    let token = fleet.launch_token(&task);
    let plugin = nomad.plugin_pid("one");
    // While the client hears nothing, its driver is gone and so is the agent; the next driver finds none.
    nomad.client("one").process().signal(Signal::Stop);
    signal(plugin, Signal::Kill);
    fs::remove_file(&link).expect("a link can be removed");
    let (_, alloc) = nomad.dispatch_with(&fleet, &job(), &task, &token);
    nomad.client("one").process().signal(Signal::Continue);
    says(&nomad, &alloc, &token, &["this client takes no tasks", "there is no agent", "navvy-link"]);
}

#[test]
fn an_agent_of_another_version_is_refused_by_its_version() {
    let bench = Bench::on_this_machine();
    let other = script(
        &bench.state().join("other-navvy"),
        "#!/bin/sh\necho '{\"version\":99,\"agent\":\"9.9.9\",\"docker\":null,\"environments\":[],\"problems\":[],\"kvm\":false}'\n",
    );
    let (nomad, node) = with_driver(&bench, &format!("agent_path = \"{}\"\n    {RESERVE}", other.display()));
    let said = nomad.unhealthy(&node, "9.9.9");
    assert!(said.contains("one release"), "what to do: {said}");
}

#[test]
fn a_program_that_is_no_agent_is_told_as_such() {
    let bench = Bench::on_this_machine();
    let (nomad, node) = with_driver(&bench, &format!("agent_path = \"/bin/false\"\n    {RESERVE}"));
    nomad.unhealthy(&node, "/bin/false does not work");
}

#[test]
fn a_client_without_docker_takes_no_tasks_and_says_so() {
    let bench = Bench::on_this_machine();
    let (nomad, node) = with_driver(&bench, &format!("docker = \"unix:///nowhere/docker.sock\"\n    {RESERVE}"));
    nomad.unhealthy(&node, "/nowhere/docker.sock");
}

#[test]
fn a_client_that_is_too_small_for_its_reservation_says_how_to_lower_it() {
    let bench = Bench::on_this_machine();
    let (nomad, node) = with_driver(&bench, "reserve { cpus = 4096, memory = \"4GiB\" }");
    let said = nomad.unhealthy(&node, "too small");
    assert!(said.contains("4096") && said.contains("reserve"), "{said}");
}

/// Nomad starts all the same, and its other drivers work.
#[test]
fn a_wrong_setting_of_the_plugin_is_told_by_its_key_and_stops_nothing_else() {
    let bench = Bench::on_this_machine();
    let wrong =
        "log_level = \"loud\"\n    state_dir = [\"a\"]\n    reserve { cpus = \"many\" }\n    environments = [\"jail\"]";
    let (nomad, node) = with_driver(&bench, wrong);
    let said = nomad.unhealthy(&node, "log_level");
    for key in ["state_dir", "reserve.cpus", "environments"] {
        assert!(said.contains(key), "no {key} in {said}");
    }
    assert_eq!(nomad.get(&format!("/v1/node/{node}"))["Drivers"]["raw_exec"]["Healthy"], true);
}

#[test]
fn hcl_of_a_wrong_type_is_refused_by_its_key() {
    let bench = Bench::on_this_machine();
    let (nomad, fleet, task) = task_of(&bench);
    for (key, value) in [("pids", json!("many")), ("output", json!("perhaps")), ("colour", json!("red"))] {
        let mut job = parameterized(&format!("navvy-{key}"), 4000, 1024);
        job["TaskGroups"][0]["Tasks"][0]["Config"][key] = value;
        let token = fleet.launch_token(&task);
        let (_, alloc) = nomad.dispatch_with(&fleet, &job, &task, &token);
        says(&nomad, &alloc, &token, &[key]);
    }
}

#[test]
fn a_token_that_cannot_be_read_is_told_with_its_path() {
    let bench = Bench::on_this_machine();
    let (nomad, fleet, task) = task_of(&bench);
    for (file, part) in [
        ("secrets/nowhere", "secrets/nowhere"),
        ("../../../etc/hostname", "token_file"),
        ("/etc/hostname", "token_file"),
    ] {
        let mut job = job();
        job["TaskGroups"][0]["Tasks"][0]["Config"]["token_file"] = file.into();
        let token = fleet.launch_token(&task);
        let (_, alloc) = nomad.dispatch_with(&fleet, &job, &task, &token);
        says(&nomad, &alloc, &token, &["token", part]);
    }
}

#[test]
fn a_token_that_was_used_takes_nothing_a_second_time() {
    let bench = Bench::on_this_machine();
    let (nomad, fleet, task) = task_of(&bench);
    let token = fleet.launch_token(&task);
    let (_, first) = nomad.dispatch_with(&fleet, &job(), &task, &token);
    fleet.has_shown(&task, SLOW_LOG, "line 100\n");
    let (_, second) = nomad.dispatch_with(&fleet, &job(), &task, &token);
    nomad.alloc_is(&second, "failed");
    let status = nomad.status(&second);
    assert!(status.contains("launch token was used before"), "{status}");
    assert!(!status.contains(&token), "{status}");
    nomad.alloc_is(&first, "complete");
    nomad.nothing_is_left();
}

#[test]
fn a_token_that_is_nonsense_is_refused_by_the_processor_and_shown_nowhere() {
    let bench = Bench::on_this_machine();
    let (nomad, fleet, task) = task_of(&bench);
    let (_, alloc) = nomad.dispatch_with(&fleet, &job(), &task, "not-a-token-of-this-processor");
    says(&nomad, &alloc, "not-a-token-of-this-processor", &["token"]);
    assert!(!nomad.logs(&alloc, &["-stderr"]).contains("not-a-token-of-this-processor"));
}

#[test]
fn a_processor_that_cannot_be_reached_is_named() {
    let bench = Bench::on_this_machine();
    let (nomad, fleet, task) = task_of(&bench);
    let token = fleet.launch_token(&task);
    nomad.register(&job());
    let nowhere = "http://127.0.0.1:9";
    let dispatched = nomad.dispatch("navvy-tests", &json!({ "task": task, "processor": nowhere }), &token);
    let alloc = nomad.alloc_of(&dispatched);
    says(&nomad, &alloc, &token, &["127.0.0.1:9"]);
}

#[test]
fn an_environment_that_the_client_does_not_have_is_named_with_those_it_has() {
    let bench = Bench::on_this_machine();
    let (nomad, fleet, task) = task_of(&bench);
    let mut job = job();
    job["TaskGroups"][0]["Tasks"][0]["Config"]["environment"] = "vm".into();
    let token = fleet.launch_token(&task);
    let (_, alloc) = nomad.dispatch_with(&fleet, &job, &task, &token);
    says(&nomad, &alloc, &token, &["vm", "docker"]);
}

#[test]
fn a_task_that_is_no_task_is_refused() {
    let bench = Bench::on_this_machine();
    let (nomad, fleet, task) = task_of(&bench);
    let token = fleet.launch_token(&task);
    nomad.register(&job());
    let meta = json!({ "task": "../../etc/passwd", "processor": format!("http://{}", fleet.agents) });
    let alloc = nomad.alloc_of(&nomad.dispatch("navvy-tests", &meta, &token));
    says(&nomad, &alloc, &token, &["task"]);
}

/// Nomad places nothing that no client has room for; the job stays, and says what is lacking.
#[test]
fn a_class_that_is_larger_than_every_client_stays_pending_and_says_what_is_lacking() {
    let bench = Bench::on_this_machine();
    let (nomad, fleet, task) = task_of(&bench);
    let job = parameterized("navvy-huge", 64_000, 262_144);
    nomad.register(&job);
    let meta = json!({ "task": task, "processor": format!("http://{}", fleet.agents) });
    let dispatched = nomad.dispatch("navvy-huge", &meta, &fleet.launch_token(&task));
    let path = format!("/v1/job/{}/evaluations", dispatched.replace('/', "%2F"));
    let lacking = seldom("an evaluation that is blocked", NOMAD_LIMIT, || {
        let all = nomad.get(&path);
        let blocked = all.as_array()?.iter().find(|one| text_of(one, "Status") == "blocked")?.clone();
        Some(blocked["FailedTGAllocs"]["agent"]["DimensionExhausted"].clone())
    });
    assert!(lacking.to_string().contains("memory") || lacking.to_string().contains("cpu"), "{lacking}");
    assert!(nomad.allocs_of(&dispatched).is_empty());
}

/// Nomad remembers by classes of nodes where a job found no place, and asks again only when a class is new to it.
#[test]
fn what_was_dispatched_while_a_client_was_unhealthy_is_placed_once_it_is_healthy() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let link = bench.state().join("navvy-link");
    symlink(navvy_tests::program_of_ours("navvy"), &link).expect("a link can be made");
    let (nomad, node) = with_driver(&bench, &format!("agent_path = \"{}\"\n    {RESERVE}", link.display()));
    nomad.healthy(&node);
    fs::remove_file(&link).expect("a link can be removed");
    nomad.unhealthy(&node, "there is no agent");
    let fleet = Fleet::start(&bench);
    let task = fleet.task(&fleet.submit(&["--tree"]), "slow");
    nomad.register(&job());
    let meta = json!({ "task": task, "processor": format!("http://{}", fleet.agents) });
    let dispatched = nomad.dispatch("navvy-tests", &meta, &fleet.launch_token(&task));
    let path = format!("/v1/job/{}/evaluations", dispatched.replace('/', "%2F"));
    seldom("an evaluation that is blocked", NOMAD_LIMIT, || {
        nomad.get(&path).as_array()?.iter().find(|one| text_of(one, "Status") == "blocked").map(drop)
    });
    symlink(navvy_tests::program_of_ours("navvy"), &link).expect("a link can be made");
    nomad.healthy(&node);
    let alloc = nomad.alloc_of(&dispatched);
    nomad.alloc_is(&alloc, "complete");
    nomad.nothing_is_left();
}
