//! A processor's pool of a cloud's machines, and agents of other hosts to which it lends them: EC2 as moto plays it, and behind it a real
//! ssh server and the real supervisor (`far-host`).

mod bench;
#[path = "bench/ec2.rs"]
mod cloud;
#[path = "bench/pool.rs"]
mod keeping;
#[path = "bench/moto.rs"]
mod moto;
#[path = "bench/there.rs"]
mod there;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bench::{Bench, run};
use cloud::Cloud;
use keeping::{Running, destroy, of_class, only, prepare};
use moto::far_host;
use navvy_journal::owner::Owner;
use navvy_vm::pool::core::Wish;
use navvy_vm::pool::keeper::Pool;
use navvy_vm::pool::record::Holder;
use navvy_vm::pool::source::{Asked, Given, NotGiven, Source};
use navvy_vm::record;
use navvy_vm::{Fault, Machines};
use there::{There, open};

const LIMIT: Duration = Duration::from_secs(60);

/// What a processor's tasks see of a pool: whose a machine is, is decided by a lease.
#[derive(Debug, Clone)]
struct Processor(Pool);

#[async_trait]
impl Source for Processor {
    async fn take(&self, asked: &Asked) -> Result<Given, NotGiven> {
        assert!(asked.is_lent);
        let holder = Holder { ticket: asked.ticket.clone(), task: asked.task.as_str().to_owned(), owner: None };
        let handed =
            self.0.take(Wish { kind: asked.kind.clone(), holder }).await.map_err(|why| NotGiven::No { why })?;
        let shown = format!("{handed:?}");
        let given = Given { id: handed.id, way: serde_json::from_value(handed.machine).unwrap() };
        assert!(!format!("{shown} {given:?}").contains("PRIVATE KEY"), "{shown} {given:?}");
        Ok(given)
    }

    async fn give_back(&self, ticket: &str) {
        self.0.give_back(ticket).await;
    }
}

/// A processor whose first machine dies on its way to its task.
#[derive(Debug)]
struct Unlucky(Processor, PathBuf, AtomicBool);

#[async_trait]
impl Source for Unlucky {
    async fn take(&self, asked: &Asked) -> Result<Given, NotGiven> {
        let given = self.0.take(asked).await?;
        if !self.2.swap(true, Ordering::Relaxed) {
            far_host("stop", &self.1);
        }
        Ok(given)
    }

    async fn give_back(&self, ticket: &str) {
        self.0.give_back(ticket).await;
    }
}

/// Machines that the pool lends, as an agent on another host has them: without any right at the cloud.
fn lent(bench: &Bench, running: &Running) -> Machines {
    Machines::lent(bench.settings.clone()).with_pool(Arc::new(Processor(running.pool.clone())))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_another_host_has_a_machine_that_is_lent_and_its_pool_ends_it() {
    let (processor, agent, cloud) = (open(), of_class(open()), Cloud::new().await);
    let machines = cloud.machines(&processor, "1h");
    let running = Running::lending(&processor, &machines).await;
    running.until_ready().await;
    let machine = only(&processor).0;
    let environment = prepare(&agent, &lent(&agent, &running)).await;
    let report = agent.report();
    assert!(report.contains("Machine: from the pool") && report.contains("of ec2, lent by the processor"), "{report}");
    assert_eq!(run(&environment, "id -un").await, "circleci\n");
    let (here, known) = only(&agent);
    assert_eq!((&here, known.planned.provider.as_str(), known.requested()), (&machine, "lent", None));
    let mode = |name: &str| {
        let file = std::fs::metadata(record::directory(&agent.host.state, &here).join(name)).unwrap();
        std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777
    };
    assert_eq!((mode("login"), mode("secret")), (0o600, 0o600));
    // Neither who cleans up beside the pool nor a pool that starts again takes it from its task.
    let this = Owner::this_process().unwrap();
    assert_eq!(cloud.machines(&processor, "0s").reap(&this, &processor.host, LIMIT).await.left, Vec::<String>::new());
    running.kill().await;
    let running = Running::lending(&processor, &machines).await;
    running.until("it knows what it lent", async || running.count(|kind| kind.given).await == 1).await;
    let link = Machines::qemu(agent.settings.clone()).link_of_left(&agent.task, &agent.host).await.unwrap();
    drop(link);
    assert_eq!((run(&environment, "id -un").await.as_str(), cloud.ended()), ("circleci\n", 0));
    destroy(environment).await;
    agent.assert_nothing_left();
    assert_eq!(cloud.ended(), 0, "an agent has no right to end it");
    running.pool.holder_gone(machine.clone()).await;
    running.until_ready().await;
    assert!(cloud.ended() == 1 && only(&processor).0 != machine);

    // An agent that was killed: what it has written down goes without any right at the cloud.
    let sibling = agent.sibling();
    let environment = prepare(&sibling, &lent(&sibling, &running)).await;
    drop(environment);
    let left = Machines::qemu(sibling.settings.clone()).remove_task(&sibling.task, &sibling.host, LIMIT).await;
    assert_eq!(left, Vec::<String>::new());
    agent.assert_nothing_left();
    running.pool.holder_gone(only(&processor).0).await;
    running.until_ready().await;
    running.empty(&processor).await;
    assert_eq!(cloud.ended(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_ends_and_who_is_lent_nothing_is_told_why() {
    let (processor, agent, cloud) = (open(), of_class(open()), Cloud::new().await);
    let machines = cloud.machines(&processor, "1h");
    let running = Running::lending(&processor, &machines).await;
    running.until_ready().await;
    let lent = lent(&agent, &running);
    let environment = prepare(&agent, &lent).await;
    destroy(environment).await;
    running.until("it is given back", async || cloud.ended() == 1).await;
    running.until_ready().await;
    let refused = running.pool.clone();
    running.empty(&processor).await;
    agent.assert_nothing_left();
    for (machines, words) in
        [(Machines::lent(agent.settings.clone()), "no pool of a processor lends any"), (lent, "the pool has ended")]
    {
        let Err(error) = agent.prepare_by(&machines).await else { panic!("there is a machine") };
        assert!(matches!(error.fault, Fault::NotLent(_)) && error.to_string().contains(words), "{error}");
        assert_eq!(error.leftovers, Vec::<String>::new());
    }
    drop(refused);
    agent.assert_nothing_left();
    // Hosts that are there are entered by their operator's own key.
    let there = There::new("yes");
    let told = there.machines(&processor).lender(processor.host.state.clone(), &processor.host).err().unwrap();
    assert!(told.to_string().contains("machines of ssh are not lent"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lent_machine_that_dies_on_its_way_is_given_back_and_another_one_is_lent() {
    let (processor, agent, cloud) = (open(), of_class(open()), Cloud::new().await);
    let machines = cloud.machines(&processor, "1h");
    let running = Running::lending(&processor, &machines).await;
    running.until_ready().await;
    let dead = only(&processor).0;
    let source = Processor(running.pool.clone());
    let source = Unlucky(source, cloud.scratch.path().to_owned(), AtomicBool::new(false));
    let lent = Machines::lent(agent.settings.clone()).with_pool(Arc::new(source));
    let environment = prepare(&agent, &lent).await;
    let report = agent.report();
    assert!(
        report.contains("one that was lent was of no use") && report.contains("no ssh server answered"),
        "{report}"
    );
    assert!(only(&agent).0 != dead && cloud.ended() == 1);
    assert_eq!(run(&environment, "id -un").await, "circleci\n");
    destroy(environment).await;
    running.until_ready().await;
    running.empty(&processor).await;
    agent.assert_nothing_left();
}
