//! A processor that launches its tasks through a real Nomad: from `navvy submit` to the verdict.

use std::collections::BTreeSet;
use std::time::Duration;

use navvy_tests::{
    Bench, End, Ending, Fleet, NOMAD_LIMIT, Nomad, NomadSetup, SLOW, SLOW_LOG, Signal, printed_by_slow, seldom, signal,
    text_of,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);

/// A processor that launches through this Nomad.
#[track_caller]
fn fleet<'a>(bench: &'a Bench, nomad: &Nomad, more: &[(&str, &str)]) -> Fleet<'a> {
    let address = nomad.address();
    let own = [("NAVVY_PROCESSOR_NOMAD", &*address)];
    Fleet::with(bench, &[&own, more].concat())
}

/// Of one small job for each name.
fn jobs(names: &[&str], command: &str) -> String {
    let mut yaml = String::from("version: 2.1\njobs:\n");
    for name in names {
        yaml.push_str(&format!(
            "  {name}:\n    docker: [{{image: navvy/base:bookworm}}]\n    resource_class: small\n    steps: [{{run: \"{command}\"}}]\n"
        ));
    }
    format!("{yaml}workflows:\n  ci: {{jobs: [{}]}}\n", names.join(", "))
}

/// Jobs that were dispatched, as Nomad lists them.
fn dispatched(nomad: &Nomad) -> Vec<Value> {
    let all = nomad.get("/v1/jobs");
    let is_one = |job: &&Value| !text_of(job, "ParentID").is_empty();
    all.as_array().into_iter().flatten().filter(is_one).cloned().collect()
}

/// Nothing of what has ended stays in Nomad's state.
#[track_caller]
fn is_purged(nomad: &Nomad) {
    seldom("that dead jobs are purged", LIMIT, || dispatched(nomad).is_empty().then_some(()));
}

/// The allocation of the one job that runs.
#[track_caller]
fn running(nomad: &Nomad) -> (String, String) {
    seldom("an allocation that runs", LIMIT, || {
        let all = nomad.get("/v1/allocations");
        let one = all.as_array()?.iter().find(|one| one["ClientStatus"] == "running")?;
        Some((text_of(one, "JobID").to_owned(), text_of(one, "ID").to_owned()))
    })
}

#[test]
fn four_tasks_of_one_job_are_four_nomad_jobs_that_say_whose_they_are() {
    let bench = Bench::on_this_machine();
    bench.config(
        "version: 2.1\njobs:\n  four:\n    docker: [{image: navvy/base:bookworm}]\n    resource_class: small\n    parallelism: 4\n    \
         steps: [{run: {name: says, command: \"echo node $CIRCLE_NODE_INDEX; until [ -e /tmp/go ]; do sleep 0.1; done\"}}]\n\
         workflows:\n  ci: {jobs: [four]}\n",
    );
    bench.commit("a project");
    let nomad = Nomad::start(&bench);
    let fleet = fleet(&bench, &nomad, &[]);
    let pipeline = fleet.submit(&["--tree"]);
    let tasks = seldom("four tasks", LIMIT, || {
        let tasks = fleet.job(&pipeline, "four")["tasks"].as_array()?.clone();
        (tasks.len() == 4).then_some(tasks)
    });
    let running = seldom("four allocations that run", NOMAD_LIMIT, || {
        let all = nomad.get("/v1/allocations");
        let running: Vec<Value> =
            all.as_array()?.iter().filter(|one| one["ClientStatus"] == "running").cloned().collect();
        (running.len() == 4).then_some(running)
    });
    let names: BTreeSet<String> = running.iter().map(|one| text_of(one, "JobID").to_owned()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for (nth, task) in tasks.iter().enumerate() {
        let id = text_of(task, "id");
        let name = names.iter().find(|name| name.contains(id)).unwrap_or_else(|| panic!("no {id} in {names:?}"));
        assert!(name.starts_with("navvy-docker-small/dispatch-"), "{name}");
        assert!(name.contains(&format!("{id}-{nth}-build-")), "{name}");
    }
    // Each is its own: a shell in one of them lets that one go on.
    for one in &running {
        let words = ["alloc", "exec", "-i=false", "-t=false", text_of(one, "ID"), "touch", "/tmp/go"];
        seldom("the job's container", LIMIT, || (nomad.nomad(&words).exit_code == Some(0)).then_some(()));
    }
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    for (nth, task) in tasks.iter().enumerate() {
        assert_eq!(fleet.log(text_of(task, "id"), "001-1"), format!("node {nth}\n").into_bytes());
    }
    nomad.nothing_is_left();
    is_purged(&nomad);
}

#[test]
fn what_finds_no_room_is_queued_with_its_reason_and_runs_when_there_is_some() {
    let bench = Bench::on_this_machine();
    bench
        .config(&jobs(&["first", "second"], "echo begun; until [ -e /tmp/go ]; do sleep 0.1; done"))
        .commit("a project");
    let mut nomad = Nomad::server(&bench, NomadSetup { compute: 1500, ..NomadSetup::default() });
    let node = nomad.add_client("one");
    nomad.healthy(&node);
    let fleet = fleet(&bench, &nomad, &[]);
    let pipeline = fleet.submit(&["--tree"]);
    let (_, first) = running(&nomad);
    seldom("why the other one waits", LIMIT, || {
        let shown = fleet.show(&pipeline).to_string();
        shown.contains("needs 1 CPU, the largest client has 0.5 free").then_some(())
    });
    let go = |alloc: &str| {
        let words = ["alloc", "exec", "-i=false", "-t=false", alloc, "touch", "/tmp/go"];
        seldom("the job's container", LIMIT, || (nomad.nomad(&words).exit_code == Some(0)).then_some(()));
    };
    go(&first);
    let second = seldom("the other one runs", LIMIT, || {
        let all = nomad.get("/v1/allocations");
        let one = all.as_array()?.iter().find(|one| one["ClientStatus"] == "running" && one["ID"] != *first)?;
        Some(text_of(one, "ID").to_owned())
    });
    go(&second);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    nomad.nothing_is_left();
    is_purged(&nomad);
}

#[test]
fn a_class_larger_than_every_client_is_told_at_once_and_runs_on_one_that_comes_later() {
    let bench = Bench::on_this_machine();
    bench.config(&jobs(&["one"], "echo done")).commit("a project");
    let mut nomad = Nomad::server(&bench, NomadSetup { compute: 500, ..NomadSetup::default() });
    let node = nomad.add_client("one");
    nomad.healthy(&node);
    let fleet = fleet(&bench, &nomad, &[]);
    let pipeline = fleet.submit(&["--tree"]);
    seldom("why it waits", LIMIT, || {
        let shown = fleet.show(&pipeline).to_string();
        shown.contains("needs 1 CPU, and no client is so large: the largest has 0.5 CPUs").then_some(())
    });
    assert_eq!(fleet.show(&pipeline)["state"], "running");
    assert_eq!(fleet.job(&pipeline, "one")["status"], "queued");
    nomad.setup().compute = 4000;
    nomad.add_client("two");
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    nomad.nothing_is_left();
    is_purged(&nomad);
}

#[test]
fn the_job_that_is_shown_to_operators_is_the_one_that_is_registered() {
    let bench = Bench::on_this_machine();
    bench.config(&jobs(&["one"], "true").replace("resource_class: small", "resource_class: medium"));
    bench.commit("a project");
    let nomad = Nomad::start(&bench);
    let fleet = fleet(&bench, &nomad, &[]);
    assert_eq!(fleet.end_of(&fleet.submit(&["--tree"]), LIMIT), "success");
    let example = include_str!("../../packaging/examples/job.hcl");
    let shown = nomad.post("/v1/jobs/parse", &json!({ "JobHCL": example, "Canonicalize": true }));
    assert_eq!(shown["ID"], "navvy-docker-medium");
    // Nomad's own word on what would change.
    let plan = nomad.post("/v1/job/navvy-docker-medium/plan", &json!({ "Job": shown, "Diff": true }));
    assert_eq!(plan["Diff"]["Type"], "None", "{plan:#}");
    let mut other = shown.clone();
    other["TaskGroups"][0]["Tasks"][0]["KillTimeout"] = 1_000_000_000.into();
    let plan = nomad.post("/v1/job/navvy-docker-medium/plan", &json!({ "Job": other, "Diff": true }));
    assert_eq!(plan["Diff"]["Type"], "Edited", "{plan:#}");
}

/// Of what is submitted one job is in the middle of its step: pipeline, task, Nomad job, allocation.
#[track_caller]
fn in_the_middle(fleet: &Fleet<'_>, nomad: &Nomad) -> [String; 4] {
    let (pipeline, task) = fleet.in_the_middle();
    let (job, alloc) = running(nomad);
    [pipeline, task, job, alloc]
}

#[track_caller]
fn ends(fleet: &mut Fleet<'_>, nomad: &Nomad, end: End, pipeline: &str, task: &str) {
    fleet.has_ended(end, &Ending { pipeline, task, job: "slow", log: SLOW_LOG, printed: &printed_by_slow() });
    nomad.nothing_is_left();
    is_purged(nomad);
}

#[test]
fn a_job_that_is_stopped_in_nomad_is_canceled_and_not_launched_again() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let mut fleet = fleet(&bench, &nomad, &[]);
    let [pipeline, task, job, _] = in_the_middle(&fleet, &nomad);
    nomad.stop(&job);
    ends(&mut fleet, &nomad, End::Canceled, &pipeline, &task);
}

#[test]
fn a_pipeline_that_is_canceled_ends_its_nomad_job() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let mut fleet = fleet(&bench, &nomad, &[]);
    let [pipeline, task, ..] = in_the_middle(&fleet, &nomad);
    fleet.navvy(&["pipelines", "cancel", &pipeline]).succeeded();
    ends(&mut fleet, &nomad, End::Canceled, &pipeline, &task);
}

#[test]
fn at_the_deadline_of_a_drain_a_launched_job_is_canceled_as_drained() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let mut fleet = fleet(&bench, &nomad, &[]);
    let [pipeline, task, ..] = in_the_middle(&fleet, &nomad);
    nomad.drain(&nomad.node("one"), Duration::from_secs(1));
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "canceled");
    let shown = fleet.show(&pipeline).to_string();
    assert!(shown.contains("node drained"), "{shown}");
    ends(&mut fleet, &nomad, End::Canceled, &pipeline, &task);
}

#[test]
fn a_processor_that_is_killed_launches_nothing_twice() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let mut fleet = fleet(&bench, &nomad, &[]);
    let [pipeline, task, ..] = in_the_middle(&fleet, &nomad);
    fleet.crash_and_restart();
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    let all = nomad.get("/v1/allocations");
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    ends(&mut fleet, &nomad, End::Passed, &pipeline, &task);
}

#[test]
fn while_nomad_is_away_the_queue_grows_and_nothing_is_lost() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut nomad = Nomad::start(&bench);
    let mut fleet = fleet(&bench, &nomad, &[]);
    nomad.client("server").kill();
    let pipeline = fleet.submit(&["--tree"]);
    let said = seldom("word that it is not ready", LIMIT, || fleet.get("/readyz").err());
    assert!(said.to_lowercase().contains("nomad"), "{said}");
    nomad.client("server").start_again();
    let task = fleet.task(&pipeline, "slow");
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    seldom("that it is ready", LIMIT, || fleet.get("/readyz").ok());
    ends(&mut fleet, &nomad, End::Passed, &pipeline, &task);
}

#[test]
fn a_client_that_is_lost_ends_its_launched_task_as_lost() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut nomad = Nomad::server(&bench, NomadSetup { impatient: true, ..NomadSetup::default() });
    let one = nomad.add_client("one");
    nomad.healthy(&one);
    let mut fleet = fleet(&bench, &nomad, &[("NAVVY_PROCESSOR_LEASE", "15s")]);
    let [pipeline, task, _, alloc] = in_the_middle(&fleet, &nomad);
    let gone: Vec<u32> = nomad.agents("one").into_iter().chain([nomad.plugin_pid("one")]).collect();
    nomad.client("one").kill();
    for pid in gone {
        signal(pid, Signal::Kill);
    }
    nomad.alloc_is(&alloc, "lost");
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "error");
    nomad.client("one").start_again();
    fleet.has_ended(
        End::Lost,
        &Ending { pipeline: &pipeline, task: &task, job: "slow", log: SLOW_LOG, printed: &printed_by_slow() },
    );
    nomad.nothing_is_left();
}

/// An agent whose machines are those of this bench: a driver's agents have a home of their own.
#[track_caller]
fn with_its_machines(bench: &Bench) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let (path, navvy) = (bench.state().join("navvy-with-machines"), bench.command_of(&[]));
    let config = bench.settings_file().ancestors().nth(2).expect("a directory").display().to_string();
    let of = |name: &str| navvy.get_envs().find(|(known, _)| *known == name).and_then(|(_, value)| value);
    let images = of("NAVVY_IMAGES").expect("the bench has machines").to_string_lossy().into_owned();
    let program = navvy.get_program().to_string_lossy().into_owned();
    let script = format!("#!/bin/sh\nexec env NAVVY_IMAGES='{images}' XDG_CONFIG_HOME='{config}' '{program}' \"$@\"\n");
    std::fs::write(&path, script).expect("a file can be written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    let reserve = "reserve { cpus = 0, memory = \"0\" }";
    format!("agent_path = \"{}\"\n    environments = [\"docker\", \"vm\"]\n    {reserve}", path.display())
}

#[test]
fn a_machine_job_waits_for_a_client_that_has_machines_and_runs_there() {
    let bench = Bench::with_machines();
    let says = "id -un; cat /proc/1/comm; nproc";
    bench.config(&format!(
        "version: 2.1\njobs:\n  vm:\n    machine: true\n    steps: [{{run: {{name: says, command: \"{says}\"}}}}]\n\
         workflows:\n  ci: {{jobs: [vm]}}\n"
    ));
    bench.commit("a project");
    let mut nomad = Nomad::server(&bench, NomadSetup::default());
    let node = nomad.add_client("one");
    nomad.healthy(&node);
    let fleet = fleet(&bench, &nomad, &[]);
    let pipeline = fleet.submit(&["--tree"]);
    seldom("why it waits", LIMIT, || {
        let why = fleet.job(&pipeline, "vm")["why"].as_str()?.to_owned();
        why.contains("driver.navvy.environments} set_contains vm").then_some(())
    });
    let node = nomad.add_client_with("two", &with_its_machines(&bench));
    nomad.healthy(&node);
    assert_eq!(fleet.end_of(&pipeline, 3 * LIMIT), "success", "{}", fleet.show(&pipeline));
    let task = fleet.task(&pipeline, "vm");
    assert_eq!(fleet.log(&task, "001-1"), b"circleci\nnavvy-superviso\n1\n");
    nomad.nothing_is_left();
    is_purged(&nomad);
}
