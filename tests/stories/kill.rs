//! SIGKILL, wherever it hurts: of `navvy run` at every request to the engine, every state and any moment, and of the
//! engine itself. What is left is found and removed; what lives beside it is not touched. Runs are killed on the machine's
//! own engine, with a trap before it; an engine is killed that belongs to its story, in both ways to the supervisor.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use navvy_tests::{Bench, Docker, Last, Password, PrivateEngine, Registry, Run, Signal, Trap, When};

pub const ENGINE: &str = "/var/run/docker.sock";
/// Kills that wait for nothing but each other.
const WORKERS: usize = 3;

/// A service with a nameless volume, a step, a step that is left running.
const JOB: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}, {image: navvy-tests/with-volume}]
    resource_class: small
    steps:
      - run: {name: server, background: true, command: sleep 1000}
      - run: {name: go, command: echo hello}
workflows:
  ci: {jobs: [build]}
"#;

const BESIDE: &str = r#"
version: 2.1
jobs:
  beside:
    docker: [{image: navvy/busybox:static}, {image: navvy-tests/with-volume}]
    resource_class: small
    steps:
      - run:
          name: count
          command: |
            i=0
            while [ ! -e /tmp/enough ]; do i=$((i+1)); echo "line $i"; usleep 10000; done
            echo "last $i"
workflows:
  ci: {jobs: [beside]}
"#;

/// How many kills where the number is a matter of patience: `NAVVY_KILLS`.
fn kills(usually: usize) -> usize {
    std::env::var("NAVVY_KILLS").map_or(usually, |text| text.parse().expect("NAVVY_KILLS is a number"))
}

fn job() -> Bench {
    Docker::default().image_with_volume();
    let bench = Bench::on_this_machine();
    bench.config(JOB);
    bench
}

/// A run that goes on while others are killed.
struct Beside<'a> {
    run: Run<'a>,
    primary: String,
}

impl<'a> Beside<'a> {
    #[track_caller]
    fn start(bench: &'a Bench) -> Self {
        Docker::default().image_with_volume();
        let run = bench.config(BESIDE).run(&[]);
        let task = run.wait_for_output("line 1").task().expect("output is a task's").to_owned();
        Self { run, primary: format!("navvy-{task}-primary") }
    }

    /// It was not disturbed: its verdict is its own, its log is whole.
    #[track_caller]
    fn ends_well(self) {
        Docker::default().ask(&["exec", &self.primary, "touch", "/tmp/enough"]).succeeded();
        let done = self.run.finish_within(Duration::from_secs(30));
        done.passes();
        let text = done.text("beside", "count");
        let lines: Vec<&str> = text.lines().collect();
        let (last, counted) = lines.split_last().expect("it wrote something");
        assert_eq!(*last, format!("last {}", counted.len()));
        for (number, line) in (1..).zip(counted) {
            assert_eq!(*line, format!("line {number}"));
        }
    }
}

/// What a run that is killed had started is killed a moment later, or ends by itself.
#[track_caller]
pub fn programs_have_ended(bench: &Bench) {
    navvy_tests::eventually("the end of all programs", Duration::from_secs(60), || {
        bench.left_of_runs().iter().all(|left| !left.starts_with("process ")).then_some(())
    });
}

/// Starts `navvy` once more and looks for anything that it should have removed.
#[track_caller]
pub fn a_start_leaves_nothing(bench: &Bench, pid: u32, tasks: &[String], how: &str) {
    programs_have_ended(bench);
    let pruned = bench.ask(&["prune"]);
    assert_eq!(pruned.exit_code, 0, "{how}: {}", pruned.account());
    let mut left = bench.left_of(tasks);
    left.extend(bench.docker().owned_by(pid));
    left.extend(bench.left_of_runs());
    assert!(left.is_empty(), "{how}: left behind: {left:?}; prune said {}", pruned.stdout());
}

/// Kills a run at a request; returns its line, or `None` if the run ended before.
#[track_caller]
fn kill_at(bench: &Bench, last: Last, how: &str) -> Option<String> {
    let trap = Trap::before(Path::new(ENGINE), last);
    let run = bench.run(&["--docker", &trap.address()]);
    let pid = run.pid();
    trap.arm(pid);
    let done = run.that_leaves_things().finish();
    trap.settle();
    let how = format!("{how}: {:?}", trap.requests());
    a_start_leaves_nothing(bench, pid, &done.tasks(), &how);
    trap.line_of_death()
}

/// Kills runs before, during and after one request after another, until `next` is more than a run asks for; returns how
/// many were killed.
fn kill_at_requests(next: &AtomicUsize) -> usize {
    let bench = job();
    let mut killed = 0;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let kill = |when| kill_at(&bench, Last::Number(number, when), &format!("{when:?} request {number}"));
        let Some(line) = kill(When::Before) else { return killed };
        killed += 1 + usize::from(kill(When::After).is_some());
        // Nothing comes of a question that is not answered.
        if !line.starts_with("GET") {
            killed += usize::from(kill(When::During).is_some());
        }
    }
}

#[test]
fn a_run_killed_at_any_request_leaves_nothing_that_the_next_start_does_not_remove() {
    let beside_bench = Bench::on_this_machine();
    let beside = Beside::start(&beside_bench);
    let next = AtomicUsize::new(1);
    let killed: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| kill_at_requests(&next))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).sum()
    });
    beside.ends_well();
    // Two questions, four requests for each container, one end.
    assert!(killed > 30, "only {killed} runs were killed");
}

#[test]
fn a_run_killed_at_any_change_of_state_leaves_nothing_that_the_next_start_does_not_remove() {
    let beside_bench = Bench::on_this_machine();
    let beside = Beside::start(&beside_bench);
    let bench = job();
    for state in ["preparing", "running", "finishing", "releasing", "reporting", "done"] {
        let trap = Trap::before(Path::new(ENGINE), Last::Never);
        let run = bench.run(&["--docker", &trap.address()]);
        trap.arm(run.pid());
        run.wait_for(state, Duration::from_secs(30), |event| event.is("task_state") && event.text("state") == state);
        let pid = run.pid();
        run.signal(Signal::Kill);
        let done = run.that_leaves_things().finish();
        // What the engine was just asked to make is there before the next start.
        trap.settle();
        a_start_leaves_nothing(&bench, pid, &done.tasks(), state);
    }
    beside.ends_well();
}

#[test]
fn a_run_killed_at_any_moment_leaves_nothing_that_the_next_start_does_not_remove() {
    let beside_bench = Bench::on_this_machine();
    let beside = Beside::start(&beside_bench);
    killed_at_any_moment(&job(), Path::new(ENGINE), SHARED, kills(8));
    beside.ends_well();
}

#[test]
fn a_run_on_a_far_engine_killed_at_any_moment_leaves_nothing_that_the_next_start_does_not_remove() {
    let engine = PrivateEngine::far_alone();
    engine.docker().image_with_volume();
    let bench = Bench::on_this_machine().on(engine.docker(), &engine.address());
    bench.config(JOB);
    killed_at_any_moment(&bench, engine.socket(), THROUGH_THE_ENGINE, kills(4));
}

#[track_caller]
fn killed_at_any_moment(bench: &Bench, engine: &Path, way: &str, kills: usize) {
    let started = Instant::now();
    let done = bench.run(&[]).finish();
    done.passes();
    assert!(went_the_way(&done.report("build"), way));
    let whole = started.elapsed();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
    let mut number = seed;
    for _ in 0..kills {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = whole.mul_f64((number >> 40) as f64 / (1 << 24) as f64);
        let trap = Trap::before(engine, Last::Never);
        let run = bench.run(&["--docker", &trap.address()]);
        let pid = run.pid();
        trap.arm(pid);
        // No condition to wait for: any moment will do, and what is asserted holds for all.
        thread::sleep(moment);
        run.signal(Signal::Kill);
        let done = run.that_leaves_things().finish();
        trap.settle();
        a_start_leaves_nothing(bench, pid, &done.tasks(), &format!("after {moment:?} of {whole:?}, seed {seed}"));
    }
}

#[test]
fn a_run_killed_during_a_pull_leaves_nothing_of_its_own() {
    let bench = Bench::on_this_machine();
    let registry = Registry::start(&bench, Password::None);
    let noise = bench.docker().image_of_noise("navvy-tests/noise", 24);
    let offered = registry.offer(&noise, "noise");
    bench.config(&JOB.replace("navvy/busybox:static", &offered));
    for when in [When::During, When::After] {
        let sprung = kill_at(&bench, Last::Holding("/images/create", when), &format!("{when:?} a pull"));
        assert!(sprung.is_some(), "nothing was pulled");
    }
    Docker::default().ask(&["rmi", "--force", &offered, &noise]).succeeded();
}

const COUNTS: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run:
          name: count
          command: |
            i=0
            while [ $i -lt 300 ]; do i=$((i+1)); echo "line $i"; usleep 10000; done
workflows:
  ci: {jobs: [build]}
"#;

/// The two ways to the supervisor, as a job's report tells them.
const SHARED: &str = "Supervisor: shared socket, in a small file system of its own";
const THROUGH_THE_ENGINE: &str = "Supervisor: uploaded, reached through the engine";

/// Whether a job reached its supervisor at all. The two ways break differently: a story that silently took the other one
/// would prove nothing.
#[track_caller]
fn went_the_way(report: &str, way: &str) -> bool {
    let ways: Vec<&str> = report.lines().filter(|line| line.starts_with("Supervisor: ")).collect();
    assert!(ways.iter().all(|line| *line == way), "this story is about `{way}`:\n{report}");
    !ways.is_empty()
}

#[test]
fn an_engine_that_dies_and_comes_back_leaves_a_whole_log_and_nothing_else() {
    let engine = PrivateEngine::near();
    let bench = || Bench::on_this_machine().beside(&engine, &engine.address());
    dies_and_comes_back(&engine, bench, SHARED);
}

#[test]
fn a_far_engine_that_dies_and_comes_back_leaves_a_whole_log_and_nothing_else() {
    let engine = PrivateEngine::far_alone();
    let bench = || Bench::on_this_machine().on(engine.docker(), &engine.address());
    dies_and_comes_back(&engine, bench, THROUGH_THE_ENGINE);
}

#[track_caller]
fn dies_and_comes_back(engine: &PrivateEngine, bench: impl Fn() -> Bench, way: &str) {
    let whole: String = (1..=300).map(|number| format!("line {number}\n")).collect();
    for round in 0..kills(4).min(50) {
        let bench = bench();
        let run = bench.config(COUNTS).run(&[]);
        let seen = format!("line {}\n", 10 + 7 * (round % 40));
        run.wait_for_output(&seen);
        engine.crash();
        engine.restart();
        let pid = run.pid();
        let done = run.that_leaves_things().finish();
        let report = done.report("build");
        assert!(went_the_way(&report, way), "{report}");
        let (verdict, log) = (done.verdict("build"), done.text("build", "count"));
        assert!(matches!((verdict.as_str(), done.exit_code), ("passed", 0) | ("infra", 3)), "{}", done.account());
        assert!(whole.starts_with(&log) && log.contains(&seen), "{log}");
        assert!(verdict == "infra" || log == whole, "{log}");
        let step = done.step("build", "count");
        assert_eq!((step.bytes, step.sha256), (log.len() as u64, navvy_tests::sha256(log.as_bytes())));
        a_start_leaves_nothing(&bench, pid, &done.tasks(), &format!("round {round}, {verdict}"));
    }
}

/// What an engine is asked for while it dies.
const AT_WORK: [&str; 4] = ["/containers/create", "/start", "/attach", "DELETE /"];

#[test]
fn an_engine_that_dies_while_it_makes_or_removes_a_container_leaves_nothing_for_ever() {
    let engine = PrivateEngine::near();
    dies_at_work(&engine, |address| Bench::on_this_machine().beside(&engine, address), SHARED);
}

#[test]
fn a_far_engine_that_dies_while_it_makes_or_removes_a_container_leaves_nothing_for_ever() {
    let engine = PrivateEngine::far_alone();
    let bench = |address: &str| Bench::on_this_machine().on(engine.docker(), address);
    dies_at_work(&engine, bench, THROUGH_THE_ENGINE);
}

/// `bench` makes one whose runs ask the engine at an address.
#[track_caller]
fn dies_at_work(engine: &PrivateEngine, bench: impl Fn(&str) -> Bench, way: &str) {
    // A service with a volume, so that each of these is asked for.
    engine.docker().image_with_volume();
    let mut reached = 0;
    for (at, when) in AT_WORK.iter().flat_map(|at| [(at, When::During), (at, When::After)]) {
        let how = format!("{when:?} {at}");
        let trap = Trap::before(engine.socket(), Last::Holding(at, when));
        let bench = bench(&trap.address());
        bench.config(JOB);
        trap.arm(engine.pid());
        let run = bench.run(&[]);
        let pid = run.pid();
        navvy_tests::eventually("the engine was asked for it", Duration::from_secs(60), || trap.line_of_death());
        engine.restart();
        let done = run.that_leaves_things().finish_within(Duration::from_secs(120));
        reached += usize::from(went_the_way(&done.report("build"), way));
        a_start_leaves_nothing(&bench, pid, &done.tasks(), &how);
    }
    // An engine that dies while it removes a container had a whole job before.
    assert!(reached >= 2, "only {reached} jobs reached their supervisor");
}
