//! What takes too long for every change (scripts/soak fleet): faults of a real Nomad many times over, and many tasks.

use std::fs;
use std::time::{Duration, Instant};

use navvy_tests::{
    Bench, End, Ending, Fleet, NOMAD_LIMIT, Nomad, SLOW, SLOW_LOG, Signal, figure, parameterized, printed_by_slow,
    seldom, signal, text_of,
};
use serde_json::{Value, json};

fn job() -> Value {
    parameterized("navvy-tests", 4000, 1024)
}

/// Tells a fault `times` times, each in the middle of a step of its own task.
#[track_caller]
fn many_times(times: u32, mut fault: impl FnMut(&mut Nomad)) {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let mut nomad = Nomad::start(&bench);
    let mut fleet = Fleet::start(&bench);
    for nth in 1..=times {
        let pipeline = fleet.submit(&["--tree"]);
        let task = fleet.task(&pipeline, "slow");
        let (_, alloc) = nomad.dispatch_task(&fleet, &job(), &task);
        // Each time somewhere else.
        let line = 100 * (1 + nth * 7 % 27);
        fleet.has_shown(&task, SLOW_LOG, &format!("line {line}\n"));
        fault(&mut nomad);
        nomad.alloc_is(&alloc, "complete");
        let printed = printed_by_slow();
        let of = Ending { pipeline: &pipeline, task: &task, job: "slow", log: SLOW_LOG, printed: &printed };
        fleet.has_ended(End::Passed, &of);
        nomad.nothing_is_left();
        figure(&format!("{nth} of {times}: whole"));
    }
}

#[test]
#[ignore = "some minutes: scripts/soak fleet"]
fn a_plugin_that_is_killed_twenty_times_costs_nothing() {
    many_times(20, |nomad| {
        let plugin = nomad.plugin_pid("one");
        signal(plugin, Signal::Kill);
        seldom("another process of the driver", NOMAD_LIMIT, || (nomad.plugin_pid("one") != plugin).then_some(()));
    });
}

#[test]
#[ignore = "some minutes: scripts/soak fleet"]
fn a_client_that_is_killed_and_started_ten_times_costs_nothing() {
    many_times(10, |nomad| nomad.crash_and_restart("one"));
}

#[test]
#[ignore = "some minutes: scripts/soak fleet"]
fn a_client_and_its_plugin_that_are_killed_ten_times_at_once_cost_nothing() {
    many_times(10, |nomad| {
        let plugin = nomad.plugin_pid("one");
        nomad.client("one").kill();
        signal(plugin, Signal::Kill);
        nomad.client("one").start_again();
    });
}

#[test]
#[ignore = "some minutes: scripts/soak fleet"]
fn an_agent_that_is_killed_ten_times_is_started_again_each_time() {
    many_times(10, |nomad| {
        let agent = nomad.agent_pid("one");
        signal(agent, Signal::Kill);
        seldom("another agent", NOMAD_LIMIT, || nomad.agents("one").iter().any(|pid| *pid != agent).then_some(()));
    });
}

/// A job of fifty tasks.
const FIFTY: &str = r#"
version: 2.1
jobs:
  many:
    docker: [{image: navvy/busybox:static}]
    shell: /bin/sh
    resource_class: small
    parallelism: 50
    steps: [{run: {name: says, command: "echo said"}}]
workflows:
  ci: {jobs: [many]}
"#;

/// The ids of its tasks.
#[track_caller]
fn fifty(fleet: &Fleet<'_>) -> (String, Vec<String>) {
    let pipeline = fleet.submit(&["--tree"]);
    let tasks = seldom("fifty tasks", NOMAD_LIMIT, || {
        let job = fleet.job(&pipeline, "many");
        let tasks: Vec<String> =
            job["tasks"].as_array()?.iter().filter_map(|task| Some(task["id"].as_str()?.to_owned())).collect();
        (tasks.len() == 50).then_some(tasks)
    });
    (pipeline, tasks)
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Resident KiB.
    resident: u64,
    /// Of these, KiB that are no part of a file: the program's own pages come in as they are used.
    own: u64,
    /// Open files.
    files: usize,
}

impl Held {
    fn by(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
        let kib = |name: &str| -> Option<u64> {
            status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok())
        };
        let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there").count();
        Self { resident: kib("VmRSS:").expect("a figure"), own: kib("RssAnon:").expect("a figure"), files }
    }

    /// The larger of each.
    fn most(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            own: self.own.max(other.own),
            files: self.files.max(other.files),
        }
    }

    fn told(self, when: &str) {
        figure(&format!("{when}: {} KiB, {} KiB of its own, {} files", self.resident, self.own, self.files));
    }
}

#[test]
#[ignore = "half an hour: scripts/soak fleet"]
fn fifty_tasks_at_once_and_then_five_hundred_in_a_row_all_end_and_the_driver_does_not_grow() {
    let bench = Bench::on_this_machine();
    bench.config(FIFTY).commit("a project");
    let mut nomad = Nomad::start(&bench);
    let fleet = Fleet::start(&bench);
    let plugin = nomad.plugin_pid("one");
    let idle = Held::by(plugin);
    idle.told("idle");
    let small = parameterized("navvy-small", 300, 256);
    nomad.register(&small);
    // One after the other, each has half of the machine.
    nomad.register(&parameterized("navvy-large", 4000, 1024));
    let dispatch = |name: &str, task: &str| {
        let meta = json!({ "task": task, "processor": format!("http://{}", fleet.agents) });
        nomad.dispatch(name, &meta, &fleet.launch_token(task))
    };
    let (pipeline, tasks) = fifty(&fleet);
    let dispatched: Vec<String> = tasks.iter().map(|task| dispatch("navvy-small", task)).collect();
    let mut most = idle;
    for one in &dispatched {
        let alloc = nomad.alloc_of(one);
        most = most.most(Held::by(plugin));
        nomad.alloc_is(&alloc, "complete");
    }
    most.told("with fifty");
    assert_eq!(fleet.end_of(&pipeline, NOMAD_LIMIT), "success");
    nomad.nothing_is_left();
    let after_fifty = Held::by(plugin);
    after_fifty.told("after fifty");
    let begin = Instant::now();
    for nth in 1..=10 {
        let (pipeline, tasks) = fifty(&fleet);
        for task in &tasks {
            let alloc = nomad.alloc_of(&dispatch("navvy-large", task));
            nomad.alloc_is(&alloc, "complete");
        }
        assert_eq!(fleet.end_of(&pipeline, NOMAD_LIMIT), "success");
        let now = Held::by(plugin);
        now.told(&format!("after {} in {:?}", nth * 50, begin.elapsed()));
        assert!(now.files <= after_fifty.files + 4, "files stay open: {now:?}, at first {after_fifty:?}");
        assert!(now.resident <= after_fifty.resident + 2048, "memory grows: {now:?}, at first {after_fifty:?}");
    }
    nomad.nothing_is_left();
    let log = nomad.client("one").said();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("[ERROR]")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let all = nomad.get("/v1/allocations");
    let all = all.as_array().expect("a list");
    assert!(all.iter().all(|one| text_of(one, "ClientStatus") == "complete"));
    assert!(Duration::from_secs(3600) > begin.elapsed());
}
