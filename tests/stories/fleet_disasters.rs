//! A fleet that loses machines, disks, databases, clocks: each story ends with [`Fleet::has_ended`].

use std::fs;
use std::time::{Duration, Instant};

use navvy_tests::{
    Bench, Clock, End, Ending, Fate, Fleet, ObjectStore, Postgres, SLOW, SLOW_LOG, SmallDisk, Wire, eventually,
    printed_by_slow, sha256,
};

const LIMIT: Duration = Duration::from_secs(120);

#[track_caller]
fn ends(fleet: &mut Fleet<'_>, end: End, pipeline: &str, task: &str) {
    fleet.has_ended(end, &Ending { pipeline, task, job: "slow", log: SLOW_LOG, printed: &printed_by_slow() });
}

/// Each line once, in order.
#[track_caller]
fn shows_each_line_once(said: &str) {
    let shown: Vec<u32> = said.lines().filter_map(|line| line.rsplit_once("line ")?.1.trim().parse().ok()).collect();
    assert_eq!(shown, (1..=3000).collect::<Vec<u32>>(), "{said}");
}

#[test]
fn what_nobody_names_in_the_store_is_swept() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let (pipeline, task) = fleet.in_the_middle();
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    // A working tree whose config has mistakes.
    bench.config("version: 2.1\njobs: {a: {docker: [{image: i}], stepz: []}}\nworkflows: {w: {jobs: [a]}}\n");
    fleet.navvy(&["submit", "--tree"]).ends(2, &["stepz"]);
    // What is left of an agent that died between its upload and its commit, and of a processor that died within one.
    let log = fleet.data().join("store/v1/log").join(&pipeline).join(&task).join(SLOW_LOG);
    let unique = "0123456789abcdef0123456789abcdef";
    for name in [format!("0-{unique}"), format!("7-{unique}#12345")] {
        fs::write(log.join(name), "left behind").expect("a file can be written");
    }
    fs::write(fleet.data().join("store/v1/tree/0123.tar.zst#9"), "left behind").expect("a file can be written");
    ends(&mut fleet, End::Passed, &pipeline, &task);
}

#[test]
fn a_database_that_crashes_in_the_middle_of_a_step_and_comes_back_costs_nothing() {
    let (bench, postgres) = (Bench::on_this_machine(), Postgres::start());
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::with(&bench, &[("NAVVY_PROCESSOR_DATABASE", postgres.url())]);
    let _runner = fleet.runner(&[]);
    let (pipeline, task) = fleet.in_the_middle();
    postgres.crash();
    let said = eventually("word that it is not ready", LIMIT, || fleet.get("/readyz").err());
    assert!(said.contains("database: "), "{said}");
    assert_eq!(fleet.get("/healthz").map(|text| text == b"alive\n"), Ok(true));
    fleet.navvy(&["pipelines", "show", &pipeline]).ends(3, &["database does not answer"]);
    postgres.restart();
    ends(&mut fleet, End::Passed, &pipeline, &task);
}

#[test]
fn over_postgres_and_an_object_store_a_second_processor_goes_on_when_the_first_ones_machine_is_lost() {
    let (bench, postgres, store) = (Bench::on_this_machine(), Postgres::start(), ObjectStore::serve());
    bench.config(SLOW).commit("a project");
    let gate = store.gate();
    let mut first = Fleet::over(&bench, &store, &gate, &[("NAVVY_PROCESSOR_DATABASE", postgres.url())]);
    let (people, agents) = (Wire::to(first.url.trim_start_matches("http://")), Wire::to(&first.agents));
    let _runner = first.runner_by(&agents.address(), &[]);
    let (pipeline, task) = first.in_the_middle();
    let mut reader = first.follow(&pipeline, &people.address());
    eventually("the reader's first lines", LIMIT, || reader.said().contains("line 50\n").then_some(()));
    first.processor().kill();
    fs::remove_dir_all(first.data()).expect("its disk is gone with it");
    let mut second = first.another();
    people.lead_to(second.url.trim_start_matches("http://"));
    agents.lead_to(&second.agents);
    ends(&mut second, End::Passed, &pipeline, &task);
    assert_eq!(reader.end(LIMIT), Some(0), "{}", reader.said());
    shows_each_line_once(&reader.said());
}

#[test]
fn a_processor_whose_embedded_state_is_lost_lets_its_agents_end_as_their_leases_say() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let mut runner = fleet.runner(&[]);
    let (_, task) = fleet.in_the_middle();
    fleet.processor().kill();
    for name in ["processor.db", "processor.db-wal", "processor.db-shm"] {
        fs::remove_file(fleet.data().join(name)).ok();
    }
    fleet.restart();
    // It knows neither the task nor the runner.
    fleet.nothing_is_left_on_the_host(&task);
    assert_eq!(runner.end(LIMIT), Some(3), "{}", runner.said());
    let said = runner.said();
    assert!(said.contains("lost") && said.contains("does not know the token"), "{said}");
}

#[test]
fn a_processor_whose_disk_is_full_says_so_and_goes_on_when_there_is_room_again() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let data = bench.state().join("fleet/data");
    fs::create_dir_all(&data).expect("a directory can be made");
    let disk = SmallDisk::mounted_at(&data, 128);
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let (pipeline, task) = fleet.in_the_middle();
    disk.fill();
    let said = eventually("word that it is not ready", LIMIT, || fleet.get("/readyz").err());
    assert!(said.contains("disk: ") && said.contains("free"), "{said}");
    fleet.navvy(&["submit"]).ends(3, &["database does not answer"]);
    disk.free();
    ends(&mut fleet, End::Passed, &pipeline, &task);
    let log = fleet.said_before();
    assert!(!log.contains("panicked"), "{log}");
}

const HOUR: i64 = 3600;

/// Neither a lease nor a signed URL of an embedded store goes by it.
#[test]
fn a_processors_clock_that_is_set_an_hour_on_and_back_costs_nothing() {
    let (bench, clock) = (Bench::on_this_machine(), Clock::right());
    bench.config(SLOW).commit("a project");
    let variables = clock.variables();
    let settings: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut fleet = Fleet::with(&bench, &settings);
    let _runner = fleet.runner(&[]);
    let (pipeline, task) = fleet.in_the_middle();
    clock.set(HOUR);
    fleet.has_shown(&task, SLOW_LOG, "line 1000\n");
    clock.set(-HOUR);
    fleet.has_shown(&task, SLOW_LOG, "line 2000\n");
    // What is begun by the wrong clock.
    let token = fleet.navvy(&["runner-token", "small"]).text();
    assert!(token.starts_with("navvy_"), "{token}");
    ends(&mut fleet, End::Passed, &pipeline, &task);
}

#[test]
fn an_agents_clock_that_is_set_an_hour_on_and_back_costs_nothing() {
    let (clock, store) = (Clock::right(), ObjectStore::serve());
    let bench = clock.variables().iter().fold(Bench::on_this_machine(), |bench, (name, value)| bench.env(name, value));
    bench.config(SLOW).commit("a project");
    let gate = store.gate();
    let mut fleet = Fleet::over(&bench, &store, &gate, &[]);
    let _runner = fleet.runner(&[]);
    let (pipeline, task) = fleet.in_the_middle();
    clock.set(HOUR);
    fleet.has_shown(&task, SLOW_LOG, "line 1000\n");
    clock.set(-HOUR);
    fleet.has_shown(&task, SLOW_LOG, "line 2000\n");
    ends(&mut fleet, End::Passed, &pipeline, &task);
}

/// An object store refuses what is signed by a wrong clock: that is said, and nothing is lost until the clock is right again.
#[test]
fn a_processor_whose_clock_an_object_store_refuses_says_so_and_goes_on_when_it_is_right() {
    let (bench, clock, store) = (Bench::on_this_machine(), Clock::right(), ObjectStore::serve());
    bench.config(SLOW).commit("a project");
    let gate = store.gate();
    let variables = clock.variables();
    let settings: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut fleet = Fleet::over(&bench, &store, &gate, &settings);
    let _runner = fleet.runner(&[]);
    let (pipeline, task) = fleet.in_the_middle();
    for (wrong, line) in [(HOUR, 1000), (-HOUR, 2000)] {
        clock.set(wrong);
        let said = eventually("word that it is not ready", LIMIT, || fleet.get("/readyz").err());
        assert!(said.contains("store: ") && said.contains("clock"), "{said}");
        fleet.has_shown(&task, SLOW_LOG, &format!("line {line}\n"));
    }
    clock.set(0);
    ends(&mut fleet, End::Passed, &pipeline, &task);
}

const HARDLY: usize = 10_000;

#[test]
fn a_store_that_takes_ten_kilobytes_a_second_costs_no_byte() {
    let (bench, store) = (Bench::on_this_machine(), ObjectStore::serve());
    bench.config(SLOW).commit("a project");
    let gate = store.gate();
    let mut fleet = Fleet::over(&bench, &store, &gate, &[]);
    let _runner = fleet.runner(&[]);
    gate.rule(|asked| if asked.is("PUT", "/v1/log/") { Fate::RequestDawdles(HARDLY) } else { Fate::Pass });
    let (pipeline, task) = fleet.in_the_middle();
    ends(&mut fleet, End::Passed, &pipeline, &task);
}

#[test]
#[ignore = "takes minutes: scripts/soak fleet"]
fn a_store_that_answers_503_for_a_minute_costs_no_byte() {
    let (bench, store) = (Bench::on_this_machine(), ObjectStore::serve());
    bench.config(SLOW).commit("a project");
    let gate = store.gate();
    let mut fleet = Fleet::over(&bench, &store, &gate, &[]);
    let _runner = fleet.runner(&[]);
    let (pipeline, task) = fleet.in_the_middle();
    gate.rule(|_| Fate::Answer(503, "<Error><Code>SlowDown</Code></Error>".to_owned()));
    // The minute is the fault itself.
    let begun = Instant::now();
    eventually("the end of a minute", LIMIT, || (begun.elapsed() > Duration::from_secs(60)).then_some(()));
    assert!(gate.asked().iter().any(|asked| asked.method == "PUT"));
    gate.rule(|_| Fate::Pass);
    ends(&mut fleet, End::Passed, &pipeline, &task);
}

/// What a step wrote into its pipe arrives byte for byte: the job itself tells the digest of it.
#[track_caller]
fn arrives_as_it_was_written(makes: &str) {
    let bench = Bench::on_this_machine();
    bench.config(&format!(
        "version: 2.1\njobs:\n  slow:\n    docker: [{{image: navvy/base:bookworm}}]\n    steps:\n      \
         - run: {{name: prints, command: '{makes} | tee /tmp/printed'}}\n      \
         - run: {{name: tells, command: 'sha256sum </tmp/printed'}}\nworkflows:\n  ci: {{jobs: [slow]}}\n"
    ));
    bench.commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&["--no-tty"]);
    let pipeline = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&pipeline, 5 * LIMIT), "success");
    let task = fleet.task(&pipeline, "slow");
    let told = String::from_utf8_lossy(&fleet.log(&task, "002-1")).into_owned();
    let printed = fleet.log(&task, SLOW_LOG);
    assert_eq!(told.split_whitespace().next(), Some(&*sha256(&printed)), "{} bytes", printed.len());
    ends_with(&mut fleet, &pipeline, &task, &printed);
}

#[track_caller]
fn ends_with(fleet: &mut Fleet<'_>, pipeline: &str, task: &str, printed: &[u8]) {
    fleet.has_ended(End::Passed, &Ending { pipeline, task, job: "slow", log: SLOW_LOG, printed });
}

#[test]
fn random_bytes_arrive_as_they_were_written() {
    arrives_as_it_was_written("head -c 20000000 /dev/urandom");
}

#[test]
fn a_line_of_many_megabytes_arrives_as_it_was_written() {
    arrives_as_it_was_written("head -c 60000000 /dev/zero | tr \"\\0\" a");
}

#[test]
#[ignore = "takes minutes: scripts/soak fleet"]
fn a_line_of_a_gibibyte_arrives_as_it_was_written() {
    arrives_as_it_was_written("head -c 1073741824 /dev/zero | tr \"\\0\" a");
}
