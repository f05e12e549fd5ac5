//! A pool's process for tests, of machines that are elsewhere.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use navvy_journal::owner::Owner;
use navvy_vm::pool::core::Wish;
use navvy_vm::pool::figures::KindReport;
use navvy_vm::pool::keeper::{Keeper, Pool};
use navvy_vm::pool::maker::Maker;
use navvy_vm::pool::record::Holder;
use navvy_vm::pool::rules::{Kind, Prescaled, Rules};
use navvy_vm::pool::shelf::ShelfError;
use navvy_vm::pool::source::{Asked, Given, NotGiven, Source};
use navvy_vm::record::{self, Known};
use navvy_vm::{MachineEnvironment, MachineId, Machines};

use crate::bench::Bench;

const LIMIT: Duration = Duration::from_secs(60);

/// A bench whose task's machine is of a class.
pub fn of_class(mut bench: Bench) -> Bench {
    bench.class = Some("medium".to_owned());
    bench.size = bench.settings.size_of("medium").unwrap();
    bench
}

pub fn kind(image: &str) -> Kind {
    Kind { class: "medium".to_owned(), image: image.to_owned() }
}

/// Who makes the machines of a pool with this directory.
type Makes<'a> = &'a dyn Fn(&Path) -> Arc<dyn Maker>;

/// A pool's process with one machine that is kept ready.
pub struct Running {
    pub pool: Pool,
    pub process: tokio::task::JoinHandle<Result<(), ShelfError>>,
}

impl Running {
    pub async fn start(bench: &Bench, machines: &Machines, image: &str, quota: u32) -> Self {
        let maker = |place: &Path| machines.maker(place.to_owned(), &bench.host);
        Self::start_by(bench, machines, image, (quota, &maker)).await
    }

    /// One whose machines are for agents of other hosts.
    pub async fn lending(bench: &Bench, machines: &Machines) -> Self {
        let maker = |place: &Path| machines.lender(place.to_owned(), &bench.host).unwrap();
        Self::start_by(bench, machines, "test", (1, &maker)).await
    }

    async fn start_by(bench: &Bench, machines: &Machines, image: &str, (quota, maker): (u32, Makes<'_>)) -> Self {
        let place = bench.host.state.join("vm-pool");
        let counted = machines.counted(&kind(image)).unwrap();
        let prescaled = vec![Prescaled { kind: counted, schedule: None, count: 1 }];
        let rules = Rules { prescaled, quota, at_once: 1, ..Rules::default() };
        let opened = async {
            loop {
                match Keeper::open(&place, rules.clone(), maker(&place)) {
                    // A write of the one before is on its way; a real SIGKILL would have ended that, too.
                    Err(ShelfError::Taken { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                    opened => return opened.unwrap(),
                }
            }
        };
        let (keeper, pool) = tokio::time::timeout(LIMIT, opened).await.unwrap();
        Self { pool, process: tokio::spawn(keeper.run()) }
    }

    /// Its machine, once that is ready.
    pub async fn ready(bench: &Bench, machines: &Machines, image: &str, quota: u32) -> Self {
        let running = Self::start(bench, machines, image, quota).await;
        running.until_ready().await;
        running
    }

    pub async fn until_ready(&self) {
        self.until("a machine is ready", async || self.count(|kind| kind.warm).await == 1).await;
    }

    pub async fn count(&self, of: impl Fn(&KindReport) -> u32) -> u32 {
        let report = self.pool.report().await.expect("the pool has ended");
        report.kinds.iter().map(of).sum()
    }

    pub async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(LIMIT, waiting).await;
        assert!(in_time.is_ok(), "not within {LIMIT:?}: {what}; {:?}", self.pool.report().await);
    }

    /// As a SIGKILL would end it: between any two of its steps.
    pub async fn kill(self) {
        self.process.abort();
        assert!(self.process.await.is_err());
    }

    pub async fn empty(self, bench: &Bench) {
        self.pool.empty().await;
        self.until("nothing is left", async || self.pool.is_empty().await).await;
        self.kill().await;
        bench.assert_nothing_left();
    }
}

/// What takers of this process see of it.
#[derive(Debug, Clone)]
pub struct Near(pub Pool);

#[async_trait]
impl Source for Near {
    async fn take(&self, asked: &Asked) -> Result<Given, NotGiven> {
        let holder = Holder {
            ticket: asked.ticket.clone(),
            task: asked.task.as_str().to_owned(),
            owner: Some(Owner::this_process().unwrap()),
        };
        let handed =
            self.0.take(Wish { kind: asked.kind.clone(), holder }).await.map_err(|why| NotGiven::No { why })?;
        Ok(Given { id: handed.id, way: serde_json::from_value(handed.machine).unwrap() })
    }

    async fn give_back(&self, ticket: &str) {
        self.0.give_back(ticket).await;
    }
}

pub fn with(machines: Machines, running: &Running) -> Machines {
    machines.with_pool(Arc::new(Near(running.pool.clone())))
}

pub async fn prepare(bench: &Bench, machines: &Machines) -> MachineEnvironment {
    bench.prepare_by(machines).await.unwrap_or_else(|e| panic!("{e}"))
}

pub fn only(bench: &Bench) -> (MachineId, Known) {
    let [machine] = &record::all(&bench.host.state).unwrap()[..] else { panic!("not one record") };
    (machine.clone(), record::load(&record::directory(&bench.host.state, machine)).unwrap())
}

pub async fn destroy(environment: MachineEnvironment) {
    assert_eq!(environment.destroy(LIMIT).await, Vec::<String>::new());
}
