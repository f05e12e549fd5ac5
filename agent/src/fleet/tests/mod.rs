//! Tasks of a processor on loopback, in an environment that is not there.

mod adoption;
mod processor;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::request::PullPolicy;
use navvy_job::compiled::{Step, StepKind};
use navvy_job::outcome::{Cancel, CancelReason};
use navvy_job::resource::Size;
use navvy_journal::owner::Owner;
use navvy_output::DiskFloor;
use navvy_output::mask::Masks;
use navvy_protocol::processor::v1::{ClaimedTask, Secrets, Variable, Word};
use navvy_storage::{Pace, Proxies, StorageSettings, Transport};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::carry::{Carried, Machine, carry};
use super::claiming::Claimed;
use super::connection::{Address, Processor};
use super::room::Share;
use crate::environment::Providers;
use crate::environment::fake::{Act, World, exits, says};
use crate::run_store::RunStore;
use crate::scheduled::Scheduled;
use crate::step::handing::RemoteDocker;
use crate::task::tests::bench::claim;
use crate::task::tests::run;
use processor::{Fake, TOKEN};

/// One task of a processor, and all that is around it.
struct Bench {
    fake: Fake,
    world: World,
    machine: Machine,
    stop: watch::Sender<Option<Cancel>>,
    directory: tempfile::TempDir,
    task: ClaimedTask,
}

impl Bench {
    async fn new(steps: impl Into<Vec<Step>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let world = World::default();
        let machine = machine(directory.path().to_owned(), &world);
        let secret = Variable { name: "SECRET".to_owned(), value: "hunter2hunter2".to_owned(), public: false };
        let task = ClaimedTask {
            claim: serde_json::to_vec(&claim(steps.into())).unwrap(),
            secrets: Some(Secrets { variables: vec![secret], ..Secrets::default() }),
            token: TOKEN.to_owned(),
            lease_ms: 30_000,
            workflow: "w".to_owned(),
            resource_class: "medium".to_owned(),
            config_name: "config.yml".to_owned(),
            ..ClaimedTask::default()
        };
        Self { fake: Fake::start().await, world, machine, stop: watch::Sender::new(None), directory, task }
    }

    fn start(&self) -> JoinHandle<Carried> {
        let processor = Processor::new(&Address { url: self.fake.url(), ..Address::default() }).unwrap();
        let (machine, stop) = (self.machine.clone(), self.stop.subscribe());
        let claimed = Claimed { task: self.task.clone(), asked: Instant::now() };
        tokio::spawn(async move { carry(&processor, &machine, claimed, stop, Box::new(())).await })
    }

    async fn run(&self) -> Carried {
        self.start().await.unwrap()
    }

    /// The verdict that was told last.
    fn verdict(&self) -> serde_json::Value {
        let state = self.fake.state();
        let end = &state.finishes.last().expect("nothing was finished").end;
        serde_json::from_slice::<serde_json::Value>(end).unwrap()["verdict"].clone()
    }

    /// What was promised is what is in the store.
    fn check_logs(&self) {
        let logs = self.fake.state().finishes.last().unwrap().logs.clone();
        for log in &logs {
            let bytes = self.fake.log(&log.log);
            assert_eq!((bytes.len() as u64, &Sha256::digest(&bytes)[..]), (log.bytes, &log.sha256[..]), "{}", log.log);
        }
        let state = self.fake.state();
        assert_eq!(state.finishes.last().unwrap().events, state.events.len() as u64);
        assert!(state.segments.iter().all(|segment| logs.iter().any(|log| log.log == segment.log)));
    }

    /// The directory of the only task's logs.
    fn task_logs(&self) -> PathBuf {
        let runs = self.directory.path().join("state/runs");
        let run = std::fs::read_dir(runs).unwrap().next().unwrap().unwrap().path();
        run.join("0123456789abcdef")
    }

    /// What is left of spools.
    fn spools(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("state/runs")).map_or(0, Iterator::count)
    }
}

fn reported() -> Carried {
    Carried::Reported { missing: Vec::new() }
}

fn machine(directory: PathBuf, world: &World) -> Machine {
    let paths = HostPaths {
        state: directory.join("state"),
        runtime: Some(directory.join("runtime")),
        docker_config: None,
        search_path: String::new(),
        supervisor: None,
    };
    Machine {
        providers: Providers { fake: Some(world.clone()), ..Providers::default() },
        paths: Arc::new(paths),
        owner: Owner::this_process().unwrap(),
        floor: DiskFloor(0),
        idle_limit: navvy_environment::request::IDLE_LIMIT,
        pull: PullPolicy::Never,
        remote_docker: Arc::new(Err("this test has no machines".to_owned())),
        egress: Arc::default(),
        room: Size::new(64, 256),
        most_of_machines: None,
        transport: Transport::new(None, &Proxies::default(), Pace::default()).unwrap(),
        no_tty: false,
        store: Some(RunStore::new(Ok(StorageSettings::directory(&directory.join("store"))))),
        spool: 1 << 30,
        scheduled: Scheduled::default(),
        hide: |_: &Masks| Box::new(()),
    }
}

#[test]
fn a_job_that_asks_for_a_docker_engine_of_its_own_counts_that_machine() {
    let directory = tempfile::tempdir().unwrap();
    let (size, takes) = (Size::new(2, 7), Size { millicpus: 100, memory: 1 << 28 });
    let remote =
        RemoteDocker { size, takes, image: "i".to_owned(), docker: "20.10.24".to_owned(), user: "circleci".to_owned() };
    let lacks = machine(directory.path().to_owned(), &World::default());
    let has = Machine { remote_docker: Arc::new(Ok(remote)), ..lacks.clone() };
    let kind = StepKind::SetupRemoteDocker { docker_layer_caching: false, version: None };
    let (plain, asks) = (claim(vec![run("build")]), claim(vec![run("build"), Step { kind, ..run("docker") }]));
    let own = Share { size: plain.limits.size, has_machine: false };
    for counted in [has.takes(&plain), lacks.takes(&plain), lacks.takes(&asks)] {
        assert_eq!(counted, own);
    }
    assert_eq!(has.takes(&asks), Share { size: own.size.plus(takes), has_machine: true });
}

#[tokio::test]
async fn a_task_is_carried_out_and_all_of_it_is_delivered() {
    let bench = Bench::new([run("build"), run("test")]).await;
    bench.world.script("build", [says("the secret is hunter2hunter2\n"), says("second\n"), exits(0)]);
    bench.world.script("test", [says("third\n"), exits(3)]);
    assert_eq!(bench.run().await, reported());
    assert_eq!(bench.verdict(), serde_json::json!({ "verdict": "failed", "step": 2, "name": "test" }));
    let masked = bench.fake.log("001-1");
    assert_eq!(String::from_utf8_lossy(&masked), "the secret is ****\nsecond\n");
    assert_eq!(bench.fake.log("002-1"), b"third\n");
    bench.check_logs();
    let events = bench.fake.events();
    assert_eq!((events.first().unwrap().as_str(), events.last().unwrap().as_str()), ("task_started", "task_state"));
    assert!(events.contains(&"task_ended".to_owned()) && events.contains(&"task_logs".to_owned()));
    // The processor knew that steps began before one did.
    assert!(bench.fake.state().beats.iter().any(|beat| beat.state == "running"));
    assert_eq!(bench.spools(), 0);
}

/// Bytes of which no two places look alike.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A command that writes all of this, as much at a time as one frame holds.
fn writes(bytes: &[u8]) -> impl Iterator<Item = Act> {
    bytes.chunks(64 << 10).map(|piece| Act::Says(piece.to_vec()))
}

fn canceled(reason: &str) -> serde_json::Value {
    serde_json::json!({ "verdict": "canceled", "reason": reason })
}

#[tokio::test]
async fn no_step_begins_before_the_processor_has_it_written_down() {
    let bench = Bench::new([run("build")]).await;
    bench.fake.state().says_state = Some("preparing");
    let running = bench.start();
    bench.fake.until("the beat", |state| state.beats.iter().any(|beat| beat.state == "running")).await;
    // A word that is sent for another reason is no leave either.
    bench.fake.say(Word { readers: 1, state: "preparing".to_owned(), ..Word::default() }).await;
    bench.fake.cut();
    bench
        .fake
        .until("another beat", |state| state.beats.iter().filter(|beat| beat.state == "running").count() > 1)
        .await;
    assert_eq!(bench.world.count("exec"), 0);
    bench.fake.state().says_state = None;
    bench.fake.cut();
    assert_eq!(running.await.unwrap(), reported());
    assert_eq!((bench.world.count("exec"), bench.verdict()), (1, serde_json::json!({ "verdict": "passed" })));
}

#[tokio::test]
async fn what_is_written_while_connections_break_is_stored_once_and_whole() {
    let bench = Bench::new([run("build")]).await;
    let text = noise(15 << 20);
    let mut acts = Vec::new();
    for (piece, word) in text.chunks(5 << 20).zip(["first", "second", "third"]) {
        acts.extend(writes(piece));
        acts.push(Act::Waits(word));
    }
    bench.world.script("build", acts);
    let running = bench.start();
    for (count, word) in [(1, "first"), (2, "second"), (3, "third")] {
        bench.fake.until("a segment", |state| state.segments.len() >= count as usize).await;
        bench.fake.cut();
        bench.fake.state().failing = count;
        bench.world.say(word);
        bench.fake.until("a call", |state| state.failing == 0).await;
    }
    bench.fake.cut();
    assert_eq!(running.await.unwrap(), reported());
    assert!(bench.fake.log("001-1") == text);
    bench.check_logs();
    // Whole segments where there was enough for one.
    assert!(bench.fake.state().segments.iter().any(|segment| segment.length == 4 << 20));
}

#[tokio::test]
async fn a_store_that_is_away_for_a_while_is_waited_for() {
    let bench = Bench::new([run("build")]).await;
    bench.fake.state().store_failing = 6;
    let text = noise(5 << 20);
    bench.world.script("build", writes(&text).collect::<Vec<_>>());
    assert_eq!(bench.run().await, reported());
    assert!(bench.fake.log("001-1") == text);
    bench.check_logs();
    assert_eq!(bench.fake.state().store_failing, 0);
}

#[tokio::test]
async fn what_a_slow_store_does_not_take_whole_goes_in_small_segments() {
    let mut bench = Bench::new([run("build")]).await;
    // As if the time that a request has were enough for so many bytes.
    let pace = Pace { window: Duration::from_millis(100), floor: 1, answer: Duration::from_millis(300) };
    bench.machine.transport = Transport::new(None, &Proxies::default(), pace).unwrap();
    bench.fake.state().store_takes = Some(100_000);
    let text = noise(1 << 20);
    bench.world.script("build", writes(&text).collect::<Vec<_>>());
    assert_eq!(bench.run().await, reported());
    assert!(bench.fake.log("001-1") == text);
    bench.check_logs();
    assert!(bench.fake.state().segments.iter().all(|segment| segment.stored <= 100_000));
}

/// Runs a step and stays in a second one until `meanwhile` has had the first one's log.
async fn with_logs_of_the_first(bench: &Bench, meanwhile: impl FnOnce(PathBuf)) -> Carried {
    bench.world.script("build", [says("built\n"), exits(0)]);
    bench.world.script("test", [says("tested\n"), Act::Waits("changed"), exits(0)]);
    let running = bench.start();
    bench.fake.until("the first log", |state| state.segments.iter().any(|segment| segment.log == "001-1")).await;
    bench.world.until_written("2-1", "tested\n").await;
    let is_sealed = |end: &navvy_job::event::LogEnd| end.log.ends_with("001-1.log") && end.sha256.is_some();
    while !navvy_output::log_ends(&bench.task_logs()).unwrap().iter().any(is_sealed) {
        tokio::task::yield_now().await;
    }
    meanwhile(bench.task_logs());
    bench.world.say("changed");
    running.await.unwrap()
}

#[tokio::test]
async fn a_log_without_a_seal_costs_neither_the_verdict_nor_the_spool() {
    let bench = Bench::new([run("build"), run("test")]).await;
    let carried = with_logs_of_the_first(&bench, |logs| std::fs::remove_file(logs.join("001-1.seg")).unwrap()).await;
    assert_eq!((carried, bench.verdict()["verdict"].as_str()), (reported(), Some("passed")));
    let finish = bench.fake.state().finishes.last().unwrap().clone();
    assert!(finish.logs.iter().all(|log| log.sha256.len() == 32 && log.log != "001-1"), "{:?}", finish.logs);
    assert!(finish.logs.iter().any(|log| log.log == "002-1"), "{:?}", finish.logs);
    let told = "log 001-1 was not sealed, so nobody can say whether it is whole";
    assert!(finish.warnings.iter().any(|warning| warning == told), "{:?}", finish.warnings);
    assert_eq!((bench.fake.log("001-1"), bench.spools()), (b"built\n".to_vec(), 1));
}

#[tokio::test]
async fn logs_that_cannot_be_listed_are_delivered_as_far_as_they_are_known() {
    let bench = Bench::new([run("build"), run("test")]).await;
    let dangling = |logs: PathBuf| std::os::unix::fs::symlink("nowhere", logs.join("009-1.log")).unwrap();
    let carried = with_logs_of_the_first(&bench, dangling).await;
    assert_eq!((carried, bench.verdict()["verdict"].as_str()), (reported(), Some("passed")));
    assert_eq!(bench.fake.state().finishes.last().unwrap().logs, []);
    assert_eq!((bench.fake.log("001-1"), bench.fake.log("002-1")), (b"built\n".to_vec(), b"tested\n".to_vec()));
    let told = |event: &serde_json::Value| event["message"].as_str().is_some_and(|it| it.contains("cannot be read"));
    assert!(bench.fake.state().events.iter().any(told), "{:#?}", bench.fake.state().events);
}

#[tokio::test]
async fn a_full_spool_holds_the_step_up_and_says_so() {
    let mut bench = Bench::new([run("build")]).await;
    bench.machine.spool = 1 << 20;
    bench.fake.state().store_failing = u32::MAX;
    let text = noise(8 << 20);
    bench.world.script("build", writes(&text).collect::<Vec<_>>());
    let running = bench.start();
    let is_full =
        |event: &serde_json::Value| event["message"].as_str().is_some_and(|text| text.contains("step 1 waits"));
    bench.fake.until("the warning", |state| state.events.iter().any(is_full)).await;
    let log = bench.task_logs().join("001-1.log");
    assert!(std::fs::metadata(&log).unwrap().len() < 2 << 20);
    bench.fake.state().store_failing = 0;
    assert_eq!(running.await.unwrap(), reported());
    assert!(bench.fake.log("001-1") == text);
    bench.check_logs();
}

#[tokio::test]
async fn a_task_that_is_canceled_ends_and_is_reported() {
    for (at_once, act) in [(false, Act::UntilStopped), (true, Act::UntilKilled)] {
        let bench = Bench::new([run("build")]).await;
        bench.world.script("build", [says("started\n"), act]);
        let running = bench.start();
        bench.world.until_asked("exec 1-1").await;
        bench.fake.cancel("user", at_once).await;
        assert_eq!(running.await.unwrap(), reported());
        assert_eq!(bench.verdict(), canceled("user"));
        assert_eq!(bench.fake.log("001-1"), b"started\n");
        bench.check_logs();
        assert!(bench.fake.events().contains(&"stop_asked".to_owned()));
    }
}

#[tokio::test]
async fn a_task_that_is_canceled_while_its_environment_is_made_runs_no_step() {
    let bench = Bench::new([run("build")]).await;
    bench.world.never_be_ready();
    let running = bench.start();
    bench.world.until_asked("prepare").await;
    bench.fake.until("a beat", |state| !state.beats.is_empty()).await;
    bench.fake.cancel("user", false).await;
    assert_eq!((running.await.unwrap(), bench.verdict()), (reported(), canceled("user")));
    assert_eq!(bench.world.count("exec"), 0);
}

#[tokio::test]
async fn the_machines_own_wish_to_stop_ends_the_task() {
    let bench = Bench::new([run("build")]).await;
    bench.world.script("build", [Act::UntilStopped]);
    let running = bench.start();
    bench.world.until_asked("exec 1-1").await;
    bench.stop.send_replace(Some(Cancel::gently(CancelReason::Drain)));
    assert_eq!((running.await.unwrap(), bench.verdict()), (reported(), canceled("drain")));
}

#[tokio::test]
async fn a_lease_that_the_processor_takes_away_ends_the_task_and_keeps_its_spool() {
    let bench = Bench::new([run("build")]).await;
    bench.world.script("build", [says("kept\n"), Act::UntilKilled]);
    let running = bench.start();
    bench.world.until_asked("exec 1-1").await;
    bench.fake.state().is_lost = true;
    bench.fake.cut();
    assert!(matches!(running.await.unwrap(), Carried::Lost { why } if why.contains("the lease is lost")));
    assert!(bench.fake.state().finishes.is_empty());
    assert_eq!(bench.world.count("destroy"), 1);
    assert_eq!(std::fs::read(bench.task_logs().join("001-1.log")).unwrap(), b"kept\n");
}

#[tokio::test]
async fn a_lease_that_nobody_renews_is_over_by_the_agents_own_clock() {
    let bench = Bench::new([run("build")]).await;
    bench.fake.state().lease = Duration::from_millis(300);
    bench.world.script("build", [Act::UntilKilled]);
    let running = bench.start();
    bench.fake.until("a beat", |state| !state.beats.is_empty()).await;
    bench.fake.state().is_mute = true;
    assert!(matches!(running.await.unwrap(), Carried::Lost { why } if why.contains("not renewed")));
    assert_eq!((bench.fake.state().finishes.len(), bench.spools()), (0, 1));
}

#[tokio::test]
async fn an_end_whose_answer_is_lost_is_told_again() {
    let bench = Bench::new([run("build")]).await;
    bench.fake.state().drops_finish = true;
    assert_eq!(bench.run().await, reported());
    let state = bench.fake.state();
    assert_eq!(state.finishes.len(), 2);
    assert_eq!(state.finishes[0], state.finishes[1]);
}

#[tokio::test]
async fn a_claim_that_cannot_be_read_is_reported_as_a_fault_and_makes_nothing() {
    let mut bench = Bench::new([run("build")]).await;
    let mut claim = claim(vec![run("build")]);
    claim.version += 1;
    for (claim, why) in [(serde_json::to_vec(&claim).unwrap(), "update the agent"), (b"{".to_vec(), "cannot be read")] {
        bench.task.claim = claim;
        assert_eq!(bench.run().await, reported());
        let verdict = bench.verdict();
        assert_eq!(verdict["verdict"], "infra");
        assert!(verdict["fault"].as_str().unwrap().contains(why), "{verdict}");
    }
    assert!(bench.world.asked().is_empty());
}

#[tokio::test]
async fn whoever_looks_on_gets_every_byte_live_and_in_order() {
    let bench = Bench::new([run("build")]).await;
    bench.fake.state().readers = 1;
    let lines: Vec<String> = (0..50).map(|number| format!("line {number}\n")).collect();
    let mut acts: Vec<Act> = lines.iter().map(|line| says(line)).collect();
    acts.push(Act::Waits("seen"));
    bench.world.script("build", acts);
    let running = bench.start();
    let text = lines.concat().into_bytes();
    let seen = |state: &processor::State| {
        let mut bytes = Vec::new();
        for chunk in state.live.iter().filter(|chunk| chunk.log == "001-1") {
            assert_eq!(chunk.offset, bytes.len() as u64);
            bytes.extend_from_slice(&chunk.bytes);
        }
        bytes == text
    };
    // Long before its segment is due, and before the step has ended.
    bench.fake.until("all lines live", seen).await;
    bench.world.say("seen");
    assert_eq!(running.await.unwrap(), reported());
}

#[tokio::test]
async fn numbers_go_on_where_an_earlier_agent_of_the_task_has_ended() {
    let bench = Bench::new([run("build")]).await;
    bench.fake.state().events = vec![serde_json::json!({ "event": "task_state", "state": "preparing" }); 3];
    assert_eq!(bench.run().await, reported());
    let events = bench.fake.events();
    assert_eq!((events[3].as_str(), events.last().unwrap().as_str()), ("task_started", "task_state"));
    bench.check_logs();
}

#[tokio::test]
async fn an_event_that_is_refused_keeps_back_none_behind_it() {
    let bench = Bench::new([run("build")]).await;
    bench.fake.state().refuses = Some("step_started");
    assert_eq!(bench.run().await, reported());
    let events = bench.fake.events();
    assert!(events.contains(&"task_ended".to_owned()) && !events.contains(&"step_started".to_owned()), "{events:?}");
    let is_told =
        |event: &serde_json::Value| event["message"].as_str().is_some_and(|text| text.contains("was not taken"));
    assert!(bench.fake.state().events.iter().any(is_told));
    bench.check_logs();
}
