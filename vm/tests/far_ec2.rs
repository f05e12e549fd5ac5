//! A cloud's machine as a task's, by the whole life of its record: EC2 as moto plays it, and behind it a machine that is really there
//! (`far-host`), which begins as its user data say.

mod bench;
#[path = "bench/ec2.rs"]
mod cloud;
#[path = "bench/moto.rs"]
mod moto;

use std::net::TcpListener;
use std::time::Duration;

use bench::{Bench, run};
use cloud::{Cloud, open};
use moto::Twist;
use navvy_journal::owner::Owner;
use navvy_vm::cloud::{Launch, Secret};
use navvy_vm::record::{self, Fact};
use navvy_vm::{Fault, MachineId};

const LIMIT: Duration = Duration::from_secs(30);

fn machine_of(bench: &Bench) -> MachineId {
    let [machine] = &record::all(&bench.host.state).unwrap()[..] else { panic!("not one record") };
    machine.clone()
}

/// As whom this state directory's machines are tagged: by the request for one.
fn owner_tag(cloud: &Cloud) -> String {
    let launches = cloud.front.lock().unwrap().launches.clone();
    let (_, after) = launches.last().unwrap().split_once("navvy%3Aowner").unwrap();
    let (_, value) = after.split_once(".Value=").unwrap();
    value.split('&').next().unwrap().to_owned()
}

fn launch_of(owner: &str) -> Launch {
    Launch {
        id: MachineId::random(),
        owner: owner.to_owned(),
        task: None,
        is_pools: false,
        image: "ami-12c6146b".to_owned(),
        size: "t3a.medium".to_owned(),
        user_data: Secret::new("none"),
        is_spot: false,
        disk_gib: 20,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_s_machine_lives_for_its_task_and_is_ended() {
    let (bench, cloud) = (open(), Cloud::new().await);
    let machines = cloud.machines(&bench, "1h");
    let environment = bench.prepare_by(&machines).await.unwrap_or_else(|e| panic!("{e}"));
    let report = bench.report();
    for words in ["Image: ami-12c6146b of ec2, us-east-1", "Machine: t3a.medium (2 vCPU, 4096 MiB)", "Instance: i-"] {
        assert!(report.contains(words), "{report}");
    }
    assert_eq!(run(&environment, "id -un").await, "circleci\n");
    let facts = bench.facts();
    let asked = facts.iter().position(|fact| matches!(fact, Fact::Requested { .. }));
    let told = facts.iter().position(|fact| matches!(fact, Fact::Instance { .. }));
    assert!(
        asked.is_some() && asked < told && facts.iter().any(|fact| matches!(fact, Fact::HostKey { .. })),
        "{facts:?}"
    );
    let login = record::directory(&bench.host.state, &machine_of(&bench)).join("login");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(login).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let link = cloud.machines(&bench, "1h").link_of_left(&bench.task, &bench.host).await.unwrap();
    drop(link);
    // What a record knows is nobody's to reap.
    let here = Owner::this_process().unwrap();
    assert_eq!(cloud.machines(&bench, "0s").reap(&here, &bench.host, LIMIT).await.left, Vec::<String>::new());
    assert_eq!(run(&environment, "id -un").await, "circleci\n");
    assert_eq!(environment.destroy(LIMIT).await, Vec::<String>::new());
    bench.assert_nothing_left();
    assert_eq!(cloud.ended(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_maker_was_killed_before_it_heard_of_it_is_found_and_ended() {
    let (bench, cloud) = (open(), Cloud::new().await);
    let machines = cloud.machines(&bench, "1h");
    cloud.front.lock().unwrap().there = None;
    // As a SIGKILL would: the request is carried out, and nothing of its answer is written down.
    cloud.twist("RunInstances", [Twist::LoseAndHang]);
    let prepared = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! {
            _ = bench.prepare_by(&machines) => panic!("it was answered"),
            () = until_made(&cloud) => {}
        }
    });
    prepared.await.unwrap();
    assert!(!bench.facts().iter().any(|fact| matches!(fact, Fact::Instance { .. })), "{:?}", bench.facts());
    assert!(cloud.ec2().find(&machine_of(&bench)).await.unwrap().is_some(), "nothing was made");
    assert_eq!(cloud.machines(&bench, "1h").remove_task(&bench.task, &bench.host, LIMIT).await, Vec::<String>::new());
    assert_eq!(cloud.ended(), 1);
    bench.assert_nothing_left();
}

async fn until_made(cloud: &Cloud) {
    while cloud.front.lock().unwrap().tokens.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_no_record_knows_is_ended_once_it_is_old() {
    let (bench, cloud) = (open(), Cloud::new().await);
    let environment = bench.prepare_by(&cloud.machines(&bench, "1h")).await.unwrap_or_else(|e| panic!("{e}"));
    // Its host has lost the record with its disk.
    let machine = machine_of(&bench);
    let (owner, ec2) = (owner_tag(&cloud), cloud.ec2());
    drop(environment);
    std::fs::remove_dir_all(record::directory(&bench.host.state, &machine)).unwrap();
    // Somebody else's is not ours to end.
    cloud.front.lock().unwrap().there = None;
    let strangers = launch_of(&format!("{owner}-other"));
    ec2.launch(&strangers).await.unwrap();
    let here = Owner::this_process().unwrap();
    assert_eq!(cloud.machines(&bench, "1h").reap(&here, &bench.host, LIMIT).await.left, Vec::<String>::new());
    assert!(ec2.find(&machine).await.unwrap().is_some(), "it is young");
    // A list that cannot be had is no list of none.
    cloud.twist("DescribeInstances", vec![Twist::Say(500, "InternalError"); 3]);
    let left = cloud.machines(&bench, "0s").reap(&here, &bench.host, LIMIT).await.left;
    assert!(
        left.len() == 1 && left[0].contains("that no record knows, if there are any (EC2 answered 500"),
        "{left:?}"
    );
    assert_eq!(cloud.machines(&bench, "0s").reap(&here, &bench.host, LIMIT).await.left, Vec::<String>::new());
    assert!(ec2.find(&machine).await.unwrap().is_none(), "it is there yet");
    assert!(ec2.find(&strangers.id).await.unwrap().is_some(), "a stranger's machine was ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_cloud_passes_over_filters_no_stranger_s_machine_is_ended() {
    let (bench, cloud) = (open(), Cloud::new().await);
    cloud.front.lock().unwrap().there = None;
    let strangers = launch_of("a-stranger");
    cloud.ec2().launch(&strangers).await.unwrap();
    cloud.front.lock().unwrap().is_heedless = true;
    let here = Owner::this_process().unwrap();
    assert_eq!(cloud.machines(&bench, "0s").reap(&here, &bench.host, LIMIT).await.left, Vec::<String>::new());
    assert!(cloud.calls().contains(&"DescribeInstances".to_owned()), "the cloud was not asked");
    assert_eq!(cloud.ended(), 0);
    assert!(cloud.ec2().find(&strangers.id).await.unwrap().is_some(), "a stranger's machine was ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_s_faults_keep_their_names_and_leave_nothing() {
    let (bench, cloud) = (open(), Cloud::new().await);
    let machines = cloud.machines(&bench, "1h");
    for (twists, word) in [
        (vec![Twist::Say(500, "InsufficientInstanceCapacity")], "capacity"),
        (vec![Twist::Say(503, "RequestLimitExceeded"); 3], "throttled"),
        (vec![Twist::Say(500, "InternalError"); 3], "unwell"),
        (vec![Twist::Say(403, "UnauthorizedOperation")], "not_allowed"),
        (vec![Twist::Lie], "no_machine"),
    ] {
        cloud.twist("RunInstances", twists);
        let Err(error) = bench.prepare_by(&machines).await else { panic!("{word}: there is a machine") };
        let Fault::Cloud(fault) = &error.fault else { panic!("{error}") };
        assert_eq!((fault.word(), error.leftovers.as_slice()), (word, &[] as &[String]));
        bench.assert_nothing_left();
    }
    assert_eq!(cloud.ended(), 0, "none of them left a machine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_ssh_never_comes_is_named_with_the_last_lines_of_its_console_and_ended() {
    let (mut bench, cloud) = (open(), Cloud::new().await);
    bench.settings.answer_limit = Duration::from_secs(3);
    let nobodys = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Err(error) = bench.prepare_by(&cloud.machines_at(nobodys, &bench, "1h", "ami-12c6146b")).await else {
        panic!("it answered")
    };
    let told = error.to_string();
    assert!(told.contains("; the machine's console ends with:\n") && told.contains("Built 1 zonelists"), "{told}");
    assert_eq!((error.leftovers.as_slice(), cloud.ended()), (&[] as &[String], 1));
    // Without its console there is the fault alone.
    cloud.twist("GetConsoleOutput", [Twist::Say(500, "InternalError")]);
    let Err(error) = bench.prepare_by(&cloud.machines_at(nobodys, &bench, "1h", "ami-12c6146b")).await else {
        panic!("it answered")
    };
    assert_eq!((error.console.as_str(), cloud.ended()), ("", 2));
    bench.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_does_not_end_a_machine_is_named_and_asked_again() {
    let (bench, cloud) = (open(), Cloud::new().await);
    let machines = cloud.machines(&bench, "1h");
    let environment = bench.prepare_by(&machines).await.unwrap_or_else(|e| panic!("{e}"));
    cloud.twist("TerminateInstances", [Twist::Lie]);
    let left = environment.destroy(LIMIT).await;
    assert!(left.len() == 1 && left[0].contains("the machine still runs"), "{left:?}");
    cloud.twist("TerminateInstances", vec![Twist::Say(500, "InternalError"); 3]);
    let left = machines.remove_task(&bench.task, &bench.host, LIMIT).await;
    assert!(left.len() == 1 && left[0].starts_with("machine i-") && left[0].contains("EC2 answered 500"), "{left:?}");
    assert_eq!(machines.remove_task(&bench.task, &bench.host, LIMIT).await, Vec::<String>::new());
    assert_eq!(cloud.ended(), 1);
    bench.assert_nothing_left();
}
