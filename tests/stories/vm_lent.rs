//! A processor that lends a cloud's machines to agents that have nothing of their own: EC2 by a double with a real ssh server and supervisor
//! behind it (`vm/tests/ec2-double`).

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use navvy_tests::{Bench, Fleet, eventually, files_that_hold};

use crate::kill::programs_have_ended;

const LIMIT: Duration = Duration::from_secs(120);
const WARM: &str = r#"navvy_pool_machines{class="medium",image="ubuntu-*",state="warm"} 1"#;

/// A cloud with room for one machine. It ends with this value.
struct Cloud {
    process: Child,
    address: String,
    place: tempfile::TempDir,
    port: u16,
}

fn file_of_vm(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../vm/tests", name].iter().collect()
}

impl Cloud {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a directory can be made");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("a port is free").port();
        let supervisor: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../target/bin/navvy-supervisor"].iter().collect();
        let supervisor = supervisor.canonicalize().expect("scripts/build makes it").display().to_string();
        for (name, text) in [("port", port.to_string()), ("forwarding", "yes".to_owned()), ("supervisor", supervisor)] {
            std::fs::write(place.path().join(name), text).expect("a file can be written");
        }
        let mut command = Command::new(file_of_vm("ec2-double"));
        let command = command.arg(place.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3");
        let mut address = String::new();
        let said = process.stdout.take().expect("it is piped");
        BufReader::new(said).read_line(&mut address).expect("it says where it is");
        Self { process, address: address.trim().to_owned(), place, port }
    }

    /// Settings of a processor whose pool it makes machines for.
    fn settings(&self, bench: &Bench, count: u32) -> String {
        let path = bench.state().join("processor.toml");
        let Self { address, port, .. } = self;
        let text = format!(
            "[machine_pool]\nprovider = 'ec2'\nquota = 1\nsurplus_after_seconds = 1\n\
             prescale = [{{class = 'medium', image = 'ubuntu-2204:current', count = {count}}}]\n\
             [machine_pool.ec2]\nregion = 'eu-central-1'\nendpoint = '{address}'\nport = {port}\n\
             images = [{{name = 'ubuntu-*', image = 'ami-1'}}]\ntypes = [{{name = 't3a.medium', cpus = 2, memory = '4G'}}]\n"
        );
        std::fs::create_dir_all(bench.state()).expect("a directory can be made");
        std::fs::write(&path, text).expect("a file can be written");
        path.to_str().expect("a path of ours").to_owned()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().ok();
        drop(Command::new(file_of_vm("far-host")).arg("stop").arg(self.place.path()).status());
    }
}

fn config(image: &str, step: &str) -> String {
    format!(
        "version: 2.1\njobs:\n  whole:\n    machine: {{image: '{image}'}}\n    steps:\n      - run: {{name: says, command: \"{step}\"}}\n\
         workflows:\n  ci: {{jobs: [whole]}}\n"
    )
}

/// A processor that keeps a pool, and has the rights for it.
fn of_processor(file: &str) -> [(&str, &str); 3] {
    [("NAVVY_PROCESSOR_SETTINGS", file), ("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", "secret")]
}

/// Waits until these lines stand in the processor's figures.
#[track_caller]
fn figures(fleet: &Fleet<'_>, lines: &[&str]) {
    eventually(&format!("the figures {lines:?}"), LIMIT, || {
        let said = String::from_utf8_lossy(&fleet.get("/metrics").unwrap_or_default()).into_owned();
        lines.iter().all(|line| said.lines().any(|found| found == *line)).then_some(())
    });
}

/// The key is a secret of two directories: the processor's, and that of the agent which has the task.
#[track_caller]
fn the_way_in_is_where_it_belongs(bench: &Bench, fleet: &Fleet<'_>) {
    let machine = std::fs::read_dir(bench.state().join("navvy/machines")).expect("it has one").flatten().next();
    let login = machine.expect("it has one").path().join("login");
    let key = std::fs::read_to_string(&login).expect("it is entered by a key");
    let part = key.lines().nth(2).expect("a key of several lines");
    let mut hold_it = files_that_hold(&bench.state(), part.as_bytes());
    hold_it.sort();
    let its =
        fleet.data().join("lent/machines").join(login.strip_prefix(bench.state().join("navvy/machines")).unwrap());
    assert_eq!(hold_it, [its, login]);
}

#[test]
fn a_job_has_a_machine_that_its_processor_lends_and_a_lost_one_goes_with_its_lease() {
    let bench = Bench::on_this_machine();
    let cloud = Cloud::new();
    bench.config_file("navvy/settings.toml", "[vm]\nprovider = 'lent'\n");
    let told = bench.navvy(&["vm-pool"]);
    told.exits_with(64).complains(&["the setting `vm.provider`", "made by the processor that lends them"]);
    bench.config(&config("ubuntu-2204:current", "id -un; pwd")).commit("a project");
    let listed = bench.navvy(&["run", "--list"]).stdout();
    assert!(listed.contains("not available here") && listed.contains("none to `navvy run`"), "{listed}");
    let file = cloud.settings(&bench, 1);
    let mut fleet = Fleet::with(&bench, &[&of_processor(&file)[..], &[("NAVVY_PROCESSOR_LEASE", "15s")]].concat());
    figures(&fleet, &["navvy_pool_up 1", WARM]);
    let mut runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success", "{}", fleet.show(&pipeline));
    let task = fleet.task(&pipeline, "whole");
    assert_eq!(String::from_utf8_lossy(&fleet.log(&task, "001-1")), "circleci\n/home/circleci/project\n");
    let log = String::from_utf8_lossy(&fleet.log(&task, "000-1")).into_owned();
    assert!(log.contains("Machine: from the pool") && log.contains("of ec2, lent by the processor"), "{log}");
    figures(&fleet, &[WARM, r#"navvy_pool_removals_total{why="used"} 1"#]);

    bench.config(&config("debian:12", "true")).commit("an image that nobody has");
    let lacking = fleet.submit(&["--tree"]);
    assert_eq!(fleet.end_of(&lacking, LIMIT), "error", "{}", fleet.show(&lacking));
    let log = fleet.log(&fleet.task(&lacking, "whole"), "000-1");
    assert!(
        String::from_utf8_lossy(&log).contains("no entry of [[vm.ec2.images]]"),
        "{}",
        String::from_utf8_lossy(&log)
    );

    bench.config(&config("ubuntu-2204:current", "echo began; sleep 3600")).commit("one that waits");
    let waits = fleet.submit(&["--tree"]);
    let task = eventually("the job's task", LIMIT, || {
        fleet.job(&waits, "whole")["tasks"][0]["id"].as_str().map(str::to_owned)
    });
    fleet.has_shown(&task, "001-1", "began\n");
    the_way_in_is_where_it_belongs(&bench, &fleet);
    // The agent leaves with the supervisor what a visitor needs, beside the step.
    eventually("somebody has entered", LIMIT, || {
        let entered = bench.program(&["shell", &task, "--", "id", "-un"]).run();
        (entered.exit_code == Some(0) && entered.stdout() == "circleci\n").then_some(())
    });
    runner.kill();
    figures(&fleet, &[WARM, r#"navvy_pool_removals_total{why="holder-gone"} 1"#]);
    assert_eq!(fleet.end_of(&waits, LIMIT), "error", "a fault of the infrastructure");
    // Without any right at the cloud.
    eventually("what the killed agent has left is removed", LIMIT, || {
        let pruned = bench.program(&["prune"]).run();
        assert_eq!(pruned.exit_code, Some(0), "{}", pruned.stderr);
        std::fs::read_dir(bench.state().join("navvy/machines")).map_or(0, Iterator::count).eq(&0).then_some(())
    });

    // A pool that wants none removes what it has left, after SIGKILL, too.
    cloud.settings(&bench, 0);
    fleet.crash_and_restart();
    figures(&fleet, &["navvy_pool_up 1", r#"navvy_pool_removals_total{why="surplus"} 1"#]);
    eventually("the end of all machines", LIMIT, || {
        std::fs::read_dir(fleet.data().join("lent/machines")).map_or(0, Iterator::count).eq(&0).then_some(())
    });
    drop((fleet, runner));
    programs_have_ended(&bench);
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn a_killed_runner_s_job_in_a_machine_that_is_lent_is_gone_on_with() {
    let bench = Bench::on_this_machine();
    let cloud = Cloud::new();
    bench.config_file("navvy/settings.toml", "[vm]\nprovider = 'lent'\n");
    // The machine of the double has this machine's /tmp. It is in the middle of its step while this file is there.
    let gate = tempfile::NamedTempFile::new().expect("a file can be made");
    let slow = format!(
        "echo begun >> ~/ran; for i in $(seq 1 100); do echo line $i; [ $i != 20 ] || while [ -e {} ]; do sleep 0.1; done; done; cat ~/ran",
        gate.path().display()
    );
    bench.config(&config("ubuntu-2204:current", &slow)).commit("a project");
    let file = cloud.settings(&bench, 1);
    let mut fleet = Fleet::with(&bench, &of_processor(&file));
    figures(&fleet, &["navvy_pool_up 1", WARM]);
    let mut runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, "whole");
    eventually("the step's output", LIMIT, || {
        String::from_utf8_lossy(&fleet.log_so_far(&task, "001-1")).contains("line 20\n").then_some(())
    });
    runner.kill();
    let runner = fleet.runner(&[]);
    eventually("the word that it goes on", LIMIT, || runner.said().contains("this one goes on with it").then_some(()));
    drop(gate);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success", "{}\n{}", fleet.show(&pipeline), runner.said());
    let expected: String = (1..=100).map(|line| format!("line {line}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&fleet.log(&task, "001-1")), format!("{expected}begun\n"));
    figures(&fleet, &[WARM]);
    cloud.settings(&bench, 0);
    fleet.crash_and_restart();
    eventually("the end of all machines", LIMIT, || {
        std::fs::read_dir(fleet.data().join("lent/machines")).map_or(0, Iterator::count).eq(&0).then_some(())
    });
    drop((fleet, runner));
    programs_have_ended(&bench);
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn a_processor_ends_machines_at_its_cloud_of_which_it_knows_nothing_any_more() {
    let bench = Bench::on_this_machine();
    let cloud = Cloud::new();
    let file = cloud.settings(&bench, 1);
    let mut fleet = Fleet::with(&bench, &of_processor(&file));
    figures(&fleet, &["navvy_pool_up 1", WARM]);
    let answers = || std::net::TcpStream::connect(("127.0.0.1", cloud.port)).is_ok();
    assert!(answers(), "there is a machine");
    // As if its disk had been lost, but for the name by which its machines are tagged.
    for of in ["machines", "pool"] {
        std::fs::remove_dir_all(fleet.data().join("lent").join(of)).expect("the processor's own directory");
    }
    cloud.settings(&bench, 0);
    fleet.crash_and_restart();
    eventually("the end of a machine that no record knows", LIMIT, || (!answers()).then_some(()));
    // Settings that lend none any more do not forget what is there.
    std::fs::create_dir_all(fleet.data().join("lent/machines/0123456789abcdef0123456789abcdef"))
        .expect("a directory can be made");
    std::fs::write(&file, "").expect("a file can be written");
    fleet.crash_and_restart();
    eventually("the word that machines may be left", LIMIT, || {
        fleet.processor_says().contains("these settings lend none").then_some(())
    });
    drop(fleet);
    programs_have_ended(&bench);
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}
