//! Machines that are ready before a job wants them.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use navvy_tests::{Bench, Driven, Finished, Fleet, Group, Signal, Unhindered, eventually};
use serde_json::Value;

/// A machine that is emulated, beside others: it boots in seconds where nobody else works.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// Clones are ready in a fraction of a second, and small.
const MACHINES: &str = "[vm]\naccelerator = 'tcg'\nsnapshots = 'make'\ncpus = 1\nmemory = '640M'\n";
const IMAGE: &str = "debian-12-minimal";
const DOCKER_IMAGE: &str = "debian-12-docker";
/// In CI; `scripts/soak vm` tells thirty and ten.
const JOBS: &str = "NAVVY_POOL_JOBS";
const KILLS: &str = "NAVVY_POOL_KILLS";

fn config(steps: &str) -> String {
    config_of(&format!("{{image: {IMAGE}}}"), steps)
}

fn config_of(machine: &str, steps: &str) -> String {
    format!(
        "version: 2.1\njobs:\n  vm:\n    machine: {machine}\n    steps:\n{steps}\nworkflows:\n  ci: {{jobs: [vm]}}\n"
    )
}

fn step(name: &str, command: &str) -> String {
    format!("      - run: {{name: {name}, command: \"{command}\"}}\n")
}

/// A pool's process, of a bench's user.
struct Pool<'a> {
    bench: &'a Bench,
    process: Child,
    /// Where it shows its figures.
    port: u16,
}

impl<'a> Pool<'a> {
    /// Keeps so many machines ready, and waits until they are.
    #[track_caller]
    fn of(bench: &'a Bench, count: u32) -> Self {
        let pool = Self::start(bench, count);
        pool.until_ready(count.into());
        pool
    }

    #[track_caller]
    fn start(bench: &'a Bench, count: u32) -> Self {
        Self::start_of(bench, IMAGE, count)
    }

    #[track_caller]
    fn start_of(bench: &'a Bench, image: &str, count: u32) -> Self {
        let entry = format!("[[pool.prescale]]\nclass = 'medium'\nimage = '{image}'\ncount = {count}\n");
        bench.config_file("navvy/pool.toml", format!("[pool]\nquota = 6\n{entry}"));
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a port is free").port();
        let metrics = format!("127.0.0.1:{port}");
        let mut command =
            bench.command_of(&["vm-pool", "--settings", &settings_of(bench), "--metrics", metrics.as_str()]);
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("the pool can be started");
        Self { bench, process, port }
    }

    /// What it answers to a question over HTTP.
    #[track_caller]
    fn figures(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it takes a question");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("it answers");
        said
    }

    fn report(&self) -> Option<Value> {
        let asked = self.bench.ask(&["vm-pool", "report", "--json"]);
        serde_json::from_str(&asked.stdout()).ok()
    }

    #[track_caller]
    fn until_ready(&self, count: u64) {
        eventually(&format!("{count} machines are ready"), BOOT_LIMIT, || {
            let report = self.report()?;
            let ready: u64 = report["kinds"].as_array()?.iter().filter_map(|kind| kind["warm"].as_u64()).sum();
            (ready >= count).then_some(())
        });
    }

    #[track_caller]
    fn signal(mut self, signal: Signal) -> Option<i32> {
        navvy_tests::signal(self.process.id(), signal);
        self.process.wait().expect("the pool ends").code()
    }
}

/// A story that failed leaves no machine behind.
impl Drop for Pool<'_> {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        if std::thread::panicking() {
            self.bench.command_of(&["vm-pool", "empty"]).status().ok();
        }
    }
}

fn settings_of(bench: &Bench) -> String {
    bench.state().with_file_name("config").join("navvy/pool.toml").display().to_string()
}

/// The machines that are there, of anybody's.
fn machines(bench: &Bench) -> BTreeSet<String> {
    let entries = std::fs::read_dir(bench.state().join("navvy/machines")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.len() == 32).collect()
}

/// What is left, once the pool has no machine any more.
#[track_caller]
fn empty(bench: &Bench) {
    bench.ask(&["vm-pool", "empty"]).exits_with(0);
    assert_eq!(machines(bench), BTreeSet::new());
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
    let records: Vec<PathBuf> = std::fs::read_dir(bench.state().join("navvy/vm-pool/machines"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert_eq!(records, Vec::<PathBuf>::new());
}

fn bench() -> Bench {
    let bench = Bench::with_machines();
    bench.config_file("navvy/settings.toml", MACHINES);
    bench
}

/// A job that says on which machine it runs.
#[track_caller]
fn machine_of(done: &Finished) -> String {
    done.passes();
    done.text("vm", "says").trim().to_owned()
}

/// Below 65536.
fn chance() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("the kernel has chance");
    u64::from_str_radix(&text[..4], 16).expect("it is hexadecimal")
}

fn many(name: &str, in_ci: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(in_ci)
}

#[test]
fn a_machine_that_is_ready_outlives_its_pool_becomes_a_job_s_and_goes_with_it() {
    let bench = bench();
    let pool = Pool::of(&bench, 1);
    let ready = machines(&bench);
    assert_eq!(ready.len(), 1);
    let figures = pool.figures("/metrics");
    let line = format!("navvy_pool_machines{{class=\"medium\",image=\"{IMAGE}\",state=\"warm\"}} 1");
    assert!(figures.starts_with("HTTP/1.1 200 OK") && figures.contains(&line), "{figures}");
    assert!(pool.figures("/").starts_with("HTTP/1.1 404 Not Found"));
    let second = bench.ask(&["vm-pool"]);
    second.exits_with(64).complains(&["another process looks after the pool", "navvy vm-pool report"]);
    assert_eq!(pool.signal(Signal::Terminate), Some(0));
    bench.ask(&["prune"]).exits_with(0);
    assert_eq!(machines(&bench), ready, "what is ready waits for the pool to start again");

    let pool = Pool::of(&bench, 1);
    assert_eq!(machines(&bench), ready, "it goes on with what it had");
    bench.config(&config(&(step("says", "cat /etc/machine-id") + &step("fails", "test -e mended"))));
    let since = Unhindered::since_now();
    let done = bench.run(&["--keep-on-fail"]).that_leaves_things().finish_within(BOOT_LIMIT);
    let hindered = since.hindered();
    assert_eq!(done.verdict("vm"), "failed", "{}", done.account());
    let taken = done.text("vm", "says").trim().to_owned();
    assert!(ready.contains(&taken), "{taken}, {}", done.report("vm"));
    let report = done.report("vm");
    let waited = report.split_once("Machine: from the pool, waited ").and_then(|(_, rest)| rest.split_once(" s"));
    let waited: f64 = waited.and_then(|(number, _)| number.parse().ok()).unwrap_or_else(|| panic!("{report}"));
    assert!(waited < 1.0 + hindered.as_secs_f64(), "hindered for {hindered:?}: {report}");

    // Its taker's process is dead, and the task is kept: the pool leaves it alone, and makes another one.
    pool.until_ready(1);
    assert!(machines(&bench).contains(&taken));
    let task = done.tasks()[0].clone();
    bench.ask(&["shell", &task, "--", "touch", "mended"]).exits_with(0);
    bench.start(&["retry", &task, "--json"]).finish_within(BOOT_LIMIT).passes();
    assert!(!machines(&bench).contains(&taken), "a machine is used once");

    bench.config(&config(&step("ends", "sudo kill -TERM 1; sleep 60")));
    let ended = bench.run(&[]).finish_within(BOOT_LIMIT);
    assert!(ended.report("vm").contains("from the pool"), "{}", ended.report("vm"));
    assert_eq!(ended.verdict("vm"), "failed", "shut down from inside: {}", ended.account());
    empty(&bench);
    drop(pool);
}

#[test]
fn each_job_has_a_machine_of_its_own_however_often_the_pool_is_killed() {
    let bench = bench();
    bench.config(&config(&step("says", "cat /etc/machine-id")));
    let mut used = BTreeSet::new();
    let pool = Pool::of(&bench, 3);
    for job in 0..many(JOBS, 5) {
        let done = bench.run(&[]).finish_within(BOOT_LIMIT);
        assert!(done.report("vm").contains("Machine: from the pool"), "job {job}: {}", done.report("vm"));
        assert!(used.insert(machine_of(&done)), "job {job}: a machine was used twice");
    }
    assert_eq!(pool.signal(Signal::Kill), None);

    for round in 0..many(KILLS, 3) {
        let pool = Pool::start(&bench, 2);
        let run = bench.run(&[]);
        // The moment is what the story is about; no outcome depends on which one it is.
        std::thread::sleep(Duration::from_millis(chance() * 3000 / 65_536));
        pool.signal(Signal::Kill);
        let done = run.finish_within(BOOT_LIMIT);
        assert!(used.insert(machine_of(&done)), "round {round}: a machine was used twice");
    }
    empty(&bench);
}

#[test]
fn a_taker_that_is_killed_and_a_pool_that_is_dead_cost_nothing_but_a_machine() {
    let bench = bench();
    // It has its machine until it is killed.
    bench.config(&config(&step("waits", "sleep 3600")));
    let pool = Pool::of(&bench, 1);
    let ready = machines(&bench).pop_first().expect("one is ready");
    let record = bench.state().join("navvy/machines").join(&ready).join("record");
    let run = bench.run(&[]);
    eventually("the machine is given", BOOT_LIMIT, || {
        let text = std::fs::read_to_string(&record).ok()?;
        text.contains("\"given\"").then_some(())
    });
    run.signal(Signal::Kill);
    drop(run.that_leaves_things().finish());
    // By the pool, or by whoever starts next: as far as it came.
    bench.ask(&["prune"]).exits_with(0);
    eventually("the machine is gone", BOOT_LIMIT, || (!machines(&bench).contains(&ready)).then_some(()));
    pool.until_ready(1);

    assert_eq!(pool.signal(Signal::Kill), None);
    bench.config(&config(&step("says", "cat /etc/machine-id")));
    let done = bench.run(&[]).finish_within(BOOT_LIMIT);
    done.passes();
    let report = done.report("vm");
    assert!(report.contains("Machine: its own, none from the pool: no pool answers at"), "{report}");
    empty(&bench);
}

/// The process of the machine that this task has, and the machine's id.
#[track_caller]
fn qemu_of(bench: &Bench, task: &str) -> (PathBuf, String) {
    let all = bench.state().join("navvy/machines");
    let is_of_task = |id: &String| {
        std::fs::read_to_string(all.join(id).join("record")).is_ok_and(|text| text.contains(&format!("\"{task}\"")))
    };
    let id = machines(bench).into_iter().find(is_of_task).expect("the task has a machine");
    let processes = std::fs::read_dir("/proc").expect("processes are to be seen").flatten().map(|entry| entry.path());
    let is_its = |process: &PathBuf| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == all.join(&id));
    (processes.into_iter().find(is_its).expect("it has a process"), id)
}

/// The memory cgroup that a process is in, below the hierarchy's root.
fn memory_cgroup(process: &Path) -> String {
    let text = std::fs::read_to_string(process.join("cgroup")).expect("it runs");
    let line = text.lines().find_map(|line| line.split_once(":memory:"));
    line.map(|(_, path)| path.to_owned()).expect("limits are of version 1 here")
}

#[test]
fn a_task_driver_s_job_takes_a_machine_which_goes_with_its_task() {
    // What the class has here, and what its process may have beside.
    const CLASS: u64 = 640 << 20;
    const OVERHEAD: u64 = 512 << 20;
    let bench = bench();
    bench.config(&config(&step("waits", "echo began; sleep 3600"))).commit("a project");
    let pool = Pool::of(&bench, 1);
    let fleet = Fleet::start(&bench);
    for (name, room) in [("tight.agent", CLASS), ("wide.agent", CLASS + OVERHEAD)] {
        pool.until_ready(1);
        let pipeline = fleet.submit(&["--tree"]);
        let task = fleet.task(&pipeline, "vm");
        let group = Group::new(name, room, 500);
        let mut driven = Driven::new(&fleet, &task);
        let size = serde_json::json!({"millicpus": 1000, "memory": CLASS});
        driven.host("environment", "vm").host("cgroup", group.path()).host("size", size);
        let mut agent = driven.start();
        fleet.has_shown(&task, "001-1", "began\n");
        let report = String::from_utf8_lossy(&fleet.log_so_far(&task, "000-1")).into_owned();
        assert!(report.contains("Machine: from the pool") && report.contains("1 vCPU, 640 MiB"), "{report}");
        let (process, id) = qemu_of(&bench, &task);
        let cgroup = memory_cgroup(&process);
        assert_eq!(cgroup.starts_with(&group.path()), room > CLASS, "{name}: {cgroup}");
        assert_eq!(report.contains("stays in its pool's cgroup"), room == CLASS, "{report}");
        let limit = format!("/sys/fs/cgroup/memory{cgroup}/memory.limit_in_bytes");
        let limit = std::fs::read_to_string(limit).expect("it has a limit");
        assert_eq!(limit.trim(), (CLASS + OVERHEAD).to_string(), "{name}");
        // As a driver does that ends a task for good.
        agent.kill();
        driven.remove().succeeded();
        assert!(!process.exists() && !machines(&bench).contains(&id), "{name}: nothing of it is left");
        assert_eq!(group.children("memory").iter().find(|child| child.contains(&task)), None);
        assert!(!PathBuf::from(format!("/sys/fs/cgroup/memory{cgroup}")).exists(), "{cgroup}");
    }
    drop(fleet);
    assert_eq!(pool.signal(Signal::Terminate), Some(0));
    empty(&bench);
}

#[test]
fn a_machine_that_is_ready_gets_the_volume_of_a_job_with_docker_layers() {
    let bench = bench();
    let pool = Pool::start_of(&bench, DOCKER_IMAGE, 1);
    let machine = format!("{{image: {DOCKER_IMAGE}, docker_layer_caching: true}}");
    let look = "docker version >/dev/null && grep -c ' /var/lib/docker ext4' /proc/mounts";
    let keeps = step("looks", look) + &step("keeps", "sudo sh -c 'echo of a job before >> /var/lib/docker/kept'");
    for (steps, volume) in [
        (&keeps, "Docker layer caching: a new volume"),
        (&step("looks", look), "Docker layer caching: the volume that an earlier job has saved"),
    ] {
        pool.until_ready(1);
        bench.config(&config_of(&machine, &format!("{steps}{}", step("says", "sudo cat /var/lib/docker/kept"))));
        let done = bench.run(&[]).finish_within(BOOT_LIMIT);
        done.passes();
        let report = done.report("vm");
        assert!(report.contains("Machine: from the pool") && report.contains(volume), "{report}");
        assert_eq!((done.text("vm", "looks"), done.text("vm", "says")), ("1\n".into(), "of a job before\n".into()));
    }
    assert_eq!(pool.signal(Signal::Terminate), Some(0));
    empty(&bench);
}

#[test]
fn what_a_pool_cannot_be_is_told_before_it_begins() {
    let bench = bench();
    let wrong = |text: &str, parts: &[&str]| {
        bench.config_file("navvy/pool.toml", text);
        bench.navvy(&["vm-pool", "--settings", &settings_of(&bench)]).exits_with(64).complains(parts);
    };
    wrong("[pool]\nquota = 0\n", &["pool.toml", "quota: 0 is no number from 1 to 10000"]);
    wrong("[pool]\nprescaled = 1\n", &["unknown field `prescaled`", "prescale"]);
    let entry = "[[pool.prescale]]\nclass = 'huge'\nimage = 'solaris'\ncount = 9\ncron = '* *'\n";
    wrong(entry, &["prescale entry 1: count is 9, and at most 5 are kept ready"]);
    let entry = "[[pool.prescale]]\nclass = 'huge'\nimage = 'solaris'\ncount = 1\n";
    wrong(entry, &["class \"huge\" is no class of machines; there are medium", "image \"solaris\""]);
    bench.navvy(&["vm-pool", "--settings", "/nonexistent.toml"]).exits_with(64).complains(&["/nonexistent.toml"]);
    bench.navvy(&["vm-pool", "--metrics", "192.0.2.1:1"]).exits_with(64).complains(&["cannot listen there"]);
    bench.navvy(&["vm-pool", "report"]).complains(&["no pool answers at", "`navvy vm-pool` starts one"]);
    bench.config_file("navvy/settings.toml", "[vm]\npool = 'pool.sock'\n");
    bench.navvy(&["vm-pool", "empty"]).complains(&["pool = \"pool.sock\": this is no absolute path"]);
    empty(&self::bench());
}
