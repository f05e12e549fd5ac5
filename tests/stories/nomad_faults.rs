//! Faults on a real Nomad with a job in the middle of its step: each story ends with one end of the task, with the bytes that were
//! printed, no step begun twice, and nothing left on the host.

use navvy_tests::{
    Bench, End, Ending, Fleet, NOMAD_LIMIT, Nomad, NomadSetup, PrivateEngine, Program, SLOW, SLOW_LOG, Signal,
    parameterized, printed_by_slow, seldom, signal,
};

/// The task is in the middle of its step: pipeline, task, allocation.
#[track_caller]
fn in_the_middle(fleet: &Fleet<'_>, nomad: &Nomad) -> [String; 3] {
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "slow");
    let (_, alloc) = nomad.dispatch_task(fleet, &parameterized("navvy-tests", 4000, 1024), &task);
    fleet.has_shown(&task, SLOW_LOG, "line 100\n");
    [pipeline, task, alloc]
}

/// It went on as if nothing had happened.
#[track_caller]
fn is_whole(fleet: &mut Fleet<'_>, nomad: &Nomad, [pipeline, task, alloc]: &[String; 3]) {
    nomad.alloc_is(alloc, "complete");
    fleet.has_ended(End::Passed, &Ending { pipeline, task, job: "slow", log: SLOW_LOG, printed: &printed_by_slow() });
    nomad.nothing_is_left();
}

/// Another process of the driver than this serves the client.
#[track_caller]
fn another_plugin_than(nomad: &Nomad, before: u32) {
    seldom("another process of the driver", NOMAD_LIMIT, || (nomad.plugin_pid("one") != before).then_some(()));
}

#[test]
fn a_plugin_that_is_killed_costs_nothing() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let ids = in_the_middle(&fleet, &nomad);
    let plugin = nomad.plugin_pid("one");
    signal(plugin, Signal::Kill);
    another_plugin_than(&nomad, plugin);
    is_whole(&mut fleet, &nomad, &ids);
}

#[test]
fn a_nomad_client_that_is_killed_and_started_again_finds_its_task() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let ids = in_the_middle(&fleet, &nomad);
    let plugin = nomad.plugin_pid("one");
    nomad.crash_and_restart("one");
    is_whole(&mut fleet, &nomad, &ids);
    // A client that starts runs its plugins once more, for a moment, to see what they are.
    assert_eq!(nomad.plugin_pid("one"), plugin, "it is the plugin that was there");
}

#[test]
fn a_nomad_client_that_is_stopped_and_started_again_finds_its_task() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let ids = in_the_middle(&fleet, &nomad);
    nomad.client("one").process().signal(Signal::Interrupt);
    nomad.client("one").process().end(NOMAD_LIMIT);
    nomad.client("one").start_again();
    is_whole(&mut fleet, &nomad, &ids);
}

#[test]
fn a_client_and_its_plugin_that_are_killed_at_once_cost_nothing() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let ids = in_the_middle(&fleet, &nomad);
    let plugin = nomad.plugin_pid("one");
    nomad.client("one").kill();
    signal(plugin, Signal::Kill);
    nomad.client("one").start_again();
    is_whole(&mut fleet, &nomad, &ids);
}

#[test]
fn a_task_that_ends_while_its_client_is_away_ends_as_it_did() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let ids = in_the_middle(&fleet, &nomad);
    let plugin = nomad.plugin_pid("one");
    nomad.client("one").kill();
    signal(plugin, Signal::Kill);
    assert_eq!(fleet.end_of(&ids[0], NOMAD_LIMIT), "success");
    nomad.client("one").start_again();
    is_whole(&mut fleet, &nomad, &ids);
}

#[test]
fn an_agent_that_is_killed_is_started_again_and_goes_on() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let ids = in_the_middle(&fleet, &nomad);
    let agent = nomad.agent_pid("one");
    signal(agent, Signal::Kill);
    seldom("another agent", NOMAD_LIMIT, || nomad.agents("one").iter().any(|pid| *pid != agent).then_some(()));
    is_whole(&mut fleet, &nomad, &ids);
}

#[test]
fn an_agent_that_is_killed_with_the_plugin_is_started_again_by_the_next_one() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let ids = in_the_middle(&fleet, &nomad);
    signal(nomad.plugin_pid("one"), Signal::Kill);
    signal(nomad.agent_pid("one"), Signal::Kill);
    is_whole(&mut fleet, &nomad, &ids);
}

#[test]
fn a_processor_that_is_killed_and_started_again_costs_nothing() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let ids = in_the_middle(&fleet, &nomad);
    fleet.crash_and_restart();
    is_whole(&mut fleet, &nomad, &ids);
}

#[test]
fn a_server_that_is_killed_and_started_again_costs_nothing() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    let ids = in_the_middle(&fleet, &nomad);
    nomad.crash_and_restart("server");
    is_whole(&mut fleet, &nomad, &ids);
}

/// An engine takes its containers with it, so the job cannot go on: it ends as an infra fault, once, and nothing is left.
#[test]
fn an_engine_that_is_killed_ends_the_job_as_an_infra_fault_and_the_client_takes_tasks_again() {
    let engine = PrivateEngine::near();
    let bench = Bench::on_this_machine().beside(&engine, &engine.address());
    bench.config(SLOW).commit("a project");
    let driver = format!("docker = \"{}\"\n    reserve {{ cpus = 0, memory = \"0\" }}", engine.address());
    let mut nomad = Nomad::server(&bench, NomadSetup { driver, ..NomadSetup::default() });
    let node = nomad.add_client("one");
    nomad.healthy(&node);
    let fleet = Fleet::start(&bench);
    let [pipeline, task, alloc] = in_the_middle(&fleet, &nomad);
    engine.crash();
    nomad.unhealthy(&node, "Docker");
    engine.restart();
    nomad.healthy(&node);
    let state = fleet.end_of(&pipeline, NOMAD_LIMIT);
    seldom("the allocation's end", NOMAD_LIMIT, || nomad.unfinished().is_empty().then_some(()));
    let events = fleet.events(&pipeline);
    let begun = events.iter().filter(|event| event["event"] == "step_started" && event["step"] == 1).count();
    assert_eq!(begun, 1, "no step runs twice");
    assert_eq!(state, "error", "{}", nomad.status(&alloc));
    // What had come up to then is there, and nothing that was not printed.
    let log = fleet.log(&task, SLOW_LOG);
    assert!(log.len() > 100 && printed_by_slow().starts_with(&log), "{}", String::from_utf8_lossy(&log));
    nomad.nothing_is_left();
}

/// As dpkg does it: each program is renamed over the one that was there. What runs goes on; what is started is the new program.
#[test]
fn programs_that_are_replaced_under_a_running_job_cost_it_nothing() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let programs = bench.state().join("programs");
    std::fs::create_dir(&programs).expect("a directory can be made");
    let install = || {
        for name in ["navvy", "navvy-supervisor"] {
            let new = programs.join(format!("{name}.dpkg-new"));
            // By a process of its own: what this one has open for writing, a child of another story could keep open while it is run.
            Program::new("cp").args([&navvy_tests::program_of_ours(name), &new]).run().succeeded();
            std::fs::rename(&new, programs.join(name)).expect("a file can be renamed");
        }
    };
    install();
    let driver =
        format!("agent_path = \"{}\"\n    reserve {{ cpus = 0, memory = \"0\" }}", programs.join("navvy").display());
    let mut nomad = Nomad::server(&bench, NomadSetup { driver, ..NomadSetup::default() });
    let node = nomad.add_client("one");
    nomad.healthy(&node);
    let mut fleet = Fleet::start(&bench);
    let ids = in_the_middle(&fleet, &nomad);
    install();
    let exec = ["alloc", "exec", "-i=false", "-t=false", &ids[2], "echo", "a new program's"];
    assert_eq!(nomad.nomad(&exec).text(), "a new program's\n");
    // The agent that goes on in place of a killed one is the new program, too.
    let agent = nomad.agent_pid("one");
    assert!(std::fs::read_link(format!("/proc/{agent}/exe")).is_ok_and(|exe| exe.ends_with("navvy (deleted)")));
    signal(agent, Signal::Kill);
    seldom("an agent of the new program", NOMAD_LIMIT, || {
        let program = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        nomad.agents("one").iter().any(|pid| program(pid) == Some(programs.join("navvy"))).then_some(())
    });
    is_whole(&mut fleet, &nomad, &ids);
}

/// Its client is lost: the task ends once, as lost, and can be run again elsewhere.
#[test]
fn of_two_clients_one_is_lost_and_its_task_ends_as_lost() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut nomad = Nomad::server(&bench, NomadSetup { impatient: true, ..NomadSetup::default() });
    let one = nomad.add_client("one");
    nomad.healthy(&one);
    let mut fleet = Fleet::with(&bench, &[("NAVVY_PROCESSOR_LEASE", "15s")]);
    let [pipeline, task, alloc] = in_the_middle(&fleet, &nomad);
    // The whole machine stops, while its step runs.
    let gone: Vec<u32> = nomad.agents("one").into_iter().chain([nomad.plugin_pid("one")]).collect();
    nomad.client("one").kill();
    for pid in gone {
        signal(pid, Signal::Kill);
    }
    nomad.alloc_is(&alloc, "lost");
    assert_eq!(fleet.end_of(&pipeline, NOMAD_LIMIT), "error");
    let two = nomad.add_client("two");
    nomad.healthy(&two);
    let said = fleet.navvy(&["pipelines", "rerun", &pipeline, "--from-failed", "--json"]).text();
    let again: serde_json::Value = serde_json::from_str(said.trim()).expect("JSON");
    let again = again["id"].as_str().expect("an id").to_owned();
    let second = fleet.task(&again, "slow");
    let (_, alloc) = nomad.dispatch_task(&fleet, &parameterized("navvy-tests", 4000, 1024), &second);
    nomad.alloc_is(&alloc, "complete");
    let printed = printed_by_slow();
    fleet.has_ended(
        End::Passed,
        &Ending { pipeline: &again, task: &second, job: "slow", log: SLOW_LOG, printed: &printed },
    );
    // It comes back, and removes what it has left; what its agent still sends is nobody's, and is swept.
    nomad.client("one").start_again();
    nomad.nothing_is_left();
    fleet.has_ended(
        End::Lost,
        &Ending { pipeline: &pipeline, task: &task, job: "slow", log: SLOW_LOG, printed: &printed },
    );
}
