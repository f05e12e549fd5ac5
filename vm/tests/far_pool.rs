//! A pool of machines that are elsewhere, from its first to nothing left: hosts that are there, and EC2 as moto plays it; behind both a
//! real ssh server and the real supervisor (`far-host`).

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
use std::time::Duration;

use async_trait::async_trait;
use bench::run;
use cloud::Cloud;
use keeping::{Near, Running, destroy, kind, of_class, only, prepare, with};
use moto::{Twist, far_host, field};
use navvy_journal::owner::Owner;
use navvy_vm::Fault;
use navvy_vm::pool::source::{Asked, Given, NotGiven, Source};
use navvy_vm::record::{self, Fact};
use navvy_vm::ssh::HostError;
use there::{There, open};

const LIMIT: Duration = Duration::from_secs(60);

/// A pool whose machine dies on its way to its taker, and the pool's process with it.
#[derive(Debug)]
struct Deadly(Near, PathBuf, tokio::task::AbortHandle);

#[async_trait]
impl Source for Deadly {
    async fn take(&self, asked: &Asked) -> Result<Given, NotGiven> {
        let given = self.0.take(asked).await?;
        far_host("stop", &self.1);
        self.2.abort();
        Ok(given)
    }

    async fn give_back(&self, _ticket: &str) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_s_machine_is_ready_before_its_task_and_ended_after_it() {
    let (bench, cloud) = (of_class(open()), Cloud::new().await);
    let machines = cloud.machines(&bench, "1h");
    let running = Running::ready(&bench, &machines, "test", 1).await;
    let (machine, known) = only(&bench);
    assert!(known.is_pooled() && known.planned.task.is_none() && known.way().is_some(), "{known:?}");
    let directory = record::directory(&bench.host.state, &machine);
    assert!(directory.join("login").exists() && !directory.join("secret").exists(), "it was seeded for nobody");
    let request = cloud.front.lock().unwrap().launches[0].clone();
    assert!(request.contains("navvy%3Apool") && !request.contains("navvy%3Atask"), "{request}");
    // What a pool's record knows is nobody's to end.
    let here = Owner::this_process().unwrap();
    assert_eq!(cloud.machines(&bench, "0s").reap(&here, &bench.host, LIMIT).await.left, Vec::<String>::new());
    assert_eq!(cloud.ended(), 0);

    let environment = prepare(&bench, &with(machines, &running)).await;
    let report = bench.report();
    for words in ["Machine: from the pool", "Image: ami-12c6146b of ec2", "Machine: t3a.medium", "Instance: i-"] {
        assert!(report.contains(words), "{report}");
    }
    assert_eq!(run(&environment, "id -un").await, "circleci\n");
    assert_eq!((only(&bench).0, cloud.front.lock().unwrap().launches.len()), (machine.clone(), 1));
    running.until("its tags name the task", async || cloud.calls().iter().any(|call| call == "CreateTags")).await;
    // Another process finds its way by the record alone.
    drop(cloud.machines(&bench, "1h").link_of_left(&bench.task, &bench.host).await.unwrap());
    destroy(environment).await;
    running.until_ready().await;
    assert_ne!(only(&bench).0, machine, "it is used once");
    running.empty(&bench).await;
    assert_eq!(cloud.ended(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_machine_that_its_cloud_has_ended_is_given_to_nobody() {
    let (bench, cloud) = (of_class(open()), Cloud::new().await);
    let machines = cloud.machines(&bench, "1h");
    let running = Running::ready(&bench, &machines, "test", 1).await;
    let (taken_back, known) = only(&bench);
    cloud.ec2().terminate(known.instances().first().unwrap()).await.unwrap();
    let environment = prepare(&bench, &with(machines, &running)).await;
    assert!(bench.report().contains("Machine: from the pool"), "{}", bench.report());
    assert_ne!(only(&bench).0, taken_back);
    assert_eq!(run(&environment, "id -un").await, "circleci\n");
    assert_eq!(running.pool.report().await.unwrap().faults.get("not_handed"), Some(&1));
    destroy(environment).await;
    running.empty(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_on_its_way_to_its_task_is_ended_and_the_task_makes_its_own() {
    let (bench, cloud) = (of_class(open()), Cloud::new().await);
    let machines = cloud.machines(&bench, "1h");
    let running = Running::ready(&bench, &machines, "test", 1).await;
    let (dead, near) = (only(&bench).0, Near(running.pool.clone()));
    let deadly = Deadly(near, cloud.scratch.path().to_owned(), running.process.abort_handle());
    let environment = prepare(&bench, &machines.clone().with_pool(Arc::new(deadly))).await;
    let report = bench.report();
    assert!(report.contains("Machine: its own, none from the pool: no ssh server answered"), "{report}");
    assert!(only(&bench).0 != dead && cloud.ended() == 1);
    assert_eq!(run(&environment, "id -un").await, "circleci\n");
    destroy(environment).await;
    // The next pool knows from its disk what it gave, and finds it gone.
    let running = Running::start(&bench, &machines, "test", 1).await;
    running.until_ready().await;
    running.empty(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_killed_while_it_makes_and_while_it_keeps_leaks_nothing() {
    let (bench, cloud) = (of_class(open()), Cloud::new().await);
    let machines = cloud.machines(&bench, "1h");
    // The request is carried out, and nothing of its answer is written down.
    cloud.twist("RunInstances", [Twist::LoseAndHang]);
    let running = Running::start(&bench, &machines, "test", 1).await;
    running.until("it was made", async || cloud.scratch.path().join("ready").exists()).await;
    let interrupted = only(&bench).0;
    running.kill().await;
    let running = Running::ready(&bench, &machines, "test", 1).await;
    assert!(cloud.ended() == 1 && cloud.ec2().find(&interrupted).await.unwrap().is_none());
    let kept = only(&bench).0;
    running.kill().await;
    let running = Running::start(&bench, &machines, "test", 1).await;
    let environment = prepare(&bench, &with(machines.clone(), &running)).await;
    assert_eq!(only(&bench).0, kept, "what was ready is gone on with");
    running.kill().await;
    let running = Running::start(&bench, &machines, "test", 1).await;
    running.until("it knows what it gave", async || running.count(|kind| kind.given).await == 1).await;
    assert_eq!(run(&environment, "id -un").await, "circleci\n");
    destroy(environment).await;
    running.until_ready().await;
    running.empty(&bench).await;
    assert_eq!(cloud.ended(), 3);
    let owner = field(&cloud.front.lock().unwrap().launches[0], "TagSpecification.1.Tag.3.Value").to_owned();
    assert_eq!(cloud.ec2().list(&owner).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_yesterday_s_settings_is_replaced() {
    let (bench, cloud) = (of_class(open()), Cloud::new().await);
    let running = Running::ready(&bench, &cloud.machines(&bench, "1h"), "test", 1).await;
    let (old, _) = only(&bench);
    running.kill().await;
    let machines = cloud.machines_of(&bench, "1h", "ami-03cf127a");
    let running = Running::start(&bench, &machines, "test", 1).await;
    let is_new = async || match &record::all(&bench.host.state).unwrap()[..] {
        [machine] => *machine != old && running.count(|kind| kind.warm).await == 1,
        _ => false,
    };
    running.until("the old one is replaced", is_new).await;
    assert_eq!(only(&bench).1.planned.image, "ami-03cf127a");
    running.empty(&bench).await;
    assert_eq!(cloud.ended(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_and_jobs_never_have_the_same_host() {
    let (mut bench, one, two) = (of_class(open()), There::new("no"), There::new("yes"));
    let hosts = [("one", &one), ("two", &two)];
    let machines = there::all(&bench, &hosts);
    let running = Running::ready(&bench, &machines, "*", 1).await;
    assert_eq!((one.resets(), two.resets()), (1, 0));
    let other = prepare(&bench, &machines).await;
    assert!(bench.report().contains("Host: two"), "{}", bench.report());
    bench.settings.start_limit = Duration::from_secs(10);
    let third = bench.sibling();
    let Err(error) = third.prepare_by(&there::all(&bench, &hosts)).await else { panic!("it has somebody's host") };
    let Fault::There(HostError::AllTaken { whose, .. }) = &error.fault else { panic!("{error}") };
    assert!(whose.contains("one (a pool keeps it ready)") && whose.contains(bench.task.as_str()), "{whose}");

    let taker = bench.sibling();
    let environment = prepare(&taker, &with(machines, &running)).await;
    let report = taker.report();
    assert!(report.contains("Machine: from the pool") && report.contains("Host: one"), "{report}");
    assert_eq!(run(&environment, "id -un").await, "circleci\n");
    assert_eq!(one.resets(), 1, "a host that is ready is not reset for its taker");
    destroy(environment).await;
    running.until_ready().await;
    assert_eq!((one.resets(), two.resets()), (3, 1));
    destroy(other).await;
    running.empty(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_host_that_does_not_wait_any_more_is_made_as_new() {
    let (bench, there) = (of_class(open()), There::new("yes"));
    let machines = there.machines(&bench);
    let running = Running::ready(&bench, &machines, "default", 1).await;
    let (dead, _) = only(&bench);
    far_host("stop", &there.place);
    let environment = prepare(&bench, &with(machines.clone(), &running)).await;
    assert!(bench.report().contains("Machine: from the pool") && only(&bench).0 != dead, "{}", bench.report());
    assert_eq!(run(&environment, "id -un").await, "circleci\n");
    running.kill().await;
    // Whoever cleans up spares what lives, and what the next pool goes on with.
    let here = Owner::this_process().unwrap();
    assert_eq!(machines.reap(&here, &bench.host, LIMIT).await.left, Vec::<String>::new());
    destroy(environment).await;
    let running = Running::ready(&bench, &machines, "default", 1).await;
    running.empty(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_type_is_not_its_class_s_and_an_image_of_no_row_make_their_own() {
    let (mut bench, cloud) = (of_class(open()), Cloud::new().await);
    let machines = cloud.machines(&bench, "1h");
    let told = machines.counted(&kind("windows")).unwrap_err().join("\n");
    assert!(told.contains("image \"windows\": no entry of [[vm.ec2.images]]") && told.contains("test"), "{told}");
    let running = Running::start(&bench, &machines, "test", 1).await;
    running.until_ready().await;
    let kept = only(&bench).0;
    running.kill().await;
    // Nothing may be made beside the one machine that is really there.
    bench.class = Some("of no such class".to_owned());
    cloud.twist("RunInstances", vec![Twist::Say(500, "InsufficientInstanceCapacity"); 1]);
    let near = Near(Running::start(&bench, &machines, "test", 1).await.pool);
    let Err(error) = bench.prepare_by(&machines.clone().with_pool(Arc::new(near.clone()))).await else {
        panic!("made")
    };
    assert!(matches!(error.fault, Fault::Cloud(_)), "{error}");
    assert!(bench.report().contains("none from the pool: class \"of no such class\""), "{}", bench.report());
    assert_eq!(only(&bench).0, kept);
    near.0.empty().await;
    let gone = async {
        while !near.0.is_empty().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap();
    let waits = |fact: &Fact| matches!(fact, Fact::Waits { .. });
    assert!(!bench.facts().iter().any(waits));
}
