//! Tasks of a processor on loopback, in an environment that is not there.

mod processor;

use std::path::PathBuf;
use std::sync::Arc;

use navvy_environment::HostPaths;
use navvy_environment::request::PullPolicy;
use navvy_job::compiled::Step;
use navvy_job::outcome::Cancel;
use navvy_job::resource::Size;
use navvy_journal::owner::Owner;
use navvy_output::DiskFloor;
use navvy_output::mask::Masks;
use navvy_protocol::processor::v1::{ClaimedTask, Secrets, Variable};
use navvy_storage::{Pace, Proxies, StorageSettings, Transport};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::carry::{Carried, Machine, carry};
use super::claiming::Claimed;
use super::connection::{Address, Processor};
use crate::environment::Provider;
use crate::environment::fake::{World, exits, says};
use crate::run_store::RunStore;
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
        provider: Provider::Fake(world.clone()),
        paths: Arc::new(paths),
        owner: Owner::this_process().unwrap(),
        floor: DiskFloor(0),
        idle_limit: navvy_environment::request::IDLE_LIMIT,
        pull: PullPolicy::Never,
        egress: Arc::default(),
        room: Size::new(64, 256),
        transport: Transport::new(None, &Proxies::default(), Pace::default()).unwrap(),
        store: Some(RunStore::new(Ok(StorageSettings::directory(&directory.join("store"))))),
        spool: 1 << 30,
        hide: |_: &Masks| Box::new(()),
    }
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
