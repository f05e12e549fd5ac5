//! EC2 as moto plays it, with a double of ours in front (`bench/moto.rs`).

#[path = "bench/moto.rs"]
mod moto;

use std::time::Duration;

use moto::{Shared, Twist, client};
use navvy_vm::MachineId;
use navvy_vm::cloud::call::Pace;
use navvy_vm::cloud::{Fault, Launch, Secret, Stage};
use navvy_vm::ec2::{Clients, Credentials, Ec2, Sources};

struct Bench {
    ec2: Ec2,
    front: Shared,
    /// moto is shared with the other tests.
    pool: String,
}

async fn bench() -> Bench {
    bench_with(Duration::from_secs(120)).await
}

async fn bench_with(limit: Duration) -> Bench {
    let (front, at) = moto::double().await;
    let settings = serde_json::json!({"region": "us-east-1", "endpoint": at});
    let given =
        Credentials { key_id: "AKIDTEST".to_owned(), secret: Secret::new("secret"), token: None, until_s: None };
    let sources = Sources { given: Some(given), file: None, profile: "default".to_owned(), metadata: None };
    let clients = Clients { cloud: client(), direct: client() };
    let pace = Pace { limit, tries: 3, pause: Duration::from_millis(1) };
    let ec2 = Ec2::new(serde_json::from_value(settings).unwrap(), sources, clients, pace).unwrap();
    Bench { ec2, front, pool: format!("pool-{}", MachineId::random()) }
}

impl Bench {
    fn twist(&self, action: &'static str, twists: impl IntoIterator<Item = Twist>) {
        self.front.lock().unwrap().twists.entry(action).or_default().extend(twists);
    }

    /// Machines that are there, whatever their tags say.
    async fn there(&self, launches: &[Launch]) -> usize {
        let mut there = 0;
        for launch in launches {
            there += usize::from(self.ec2.find(&launch.id).await.unwrap().is_some());
        }
        there
    }
}

fn launch(owner: &str) -> Launch {
    Launch {
        id: MachineId::random(),
        owner: owner.to_owned(),
        task: Some("0123456789abcdef".to_owned()),
        is_pools: false,
        image: "ami-12c6146b".to_owned(),
        size: "t3a.medium".to_owned(),
        user_data: Secret::new("#cloud-config\n{}\n"),
        is_spot: false,
        disk_gib: 20,
    }
}

#[tokio::test]
async fn a_machine_is_made_once_found_by_its_tags_and_ended() {
    let bench = bench().await;
    let wanted = launch(&bench.pool);
    let made = bench.ec2.launch(&wanted).await.unwrap();
    assert_eq!((made.machine.as_ref(), made.owner.as_deref()), (Some(&wanted.id), Some(bench.pool.as_str())));
    assert_eq!(bench.ec2.launch(&wanted).await.unwrap().name, made.name, "asked again, there is one");
    bench.ec2.launch(&launch("pool-b")).await.unwrap();
    let spot = Launch { is_spot: true, ..launch(&bench.pool) };
    bench.ec2.launch(&spot).await.unwrap();
    let found = bench.ec2.list(&bench.pool).await.unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|instance| instance.stage == Stage::Running && instance.address.is_some()), "{found:?}");
    assert_eq!(bench.ec2.find(&wanted.id).await.unwrap().unwrap().name, made.name);
    // Once: moto stumbles over the network interface of a machine that is gone, where EC2 says that it is gone.
    bench.ec2.terminate(&made.name).await.unwrap();
    bench.ec2.terminate("i-0123456789abcdef0").await.unwrap();
    assert_eq!(bench.ec2.list(&bench.pool).await.unwrap().len(), 1);
}

#[tokio::test]
async fn where_filters_are_passed_over_nobody_else_s_machine_is_listed_or_found() {
    let bench = bench().await;
    let strangers = launch("pool-of-a-stranger");
    bench.ec2.launch(&strangers).await.unwrap();
    bench.front.lock().unwrap().is_heedless = true;
    assert_eq!(bench.ec2.list(&bench.pool).await.unwrap(), []);
    assert_eq!(bench.ec2.find(&MachineId::random()).await.unwrap(), None);
    assert!(bench.ec2.find(&strangers.id).await.unwrap().is_some(), "the list has it");
    bench.ec2.launch(&launch(&bench.pool)).await.unwrap();
    assert_eq!(bench.ec2.list(&bench.pool).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_console_said_is_asked_of_the_cloud() {
    let bench = bench().await;
    let made = bench.ec2.launch(&launch(&bench.pool)).await.unwrap();
    assert!(bench.ec2.console(&made.name).await.unwrap().starts_with("Linux version "));
    // A type that keeps none of a machine that runs.
    bench.twist("GetConsoleOutput", [Twist::Say(400, "UnsupportedOperation")]);
    assert!(bench.ec2.console(&made.name).await.unwrap().starts_with("Linux version "));
    bench.twist("GetConsoleOutput", [Twist::Say(403, "UnauthorizedOperation")]);
    assert_eq!(bench.ec2.console(&made.name).await.unwrap_err().word(), "not_allowed");
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_machine() {
    let bench = bench().await;
    bench.twist("RunInstances", [Twist::Lose]);
    let wanted = launch(&bench.pool);
    let made = bench.ec2.launch(&wanted).await.unwrap();
    assert_eq!(bench.ec2.list(&bench.pool).await.unwrap().len(), 1);
    bench.twist("RunInstances", [Twist::Empty]);
    let other = launch(&bench.pool);
    let found = bench.ec2.launch(&other).await.unwrap();
    assert_eq!(found.machine, Some(other.id));
    assert_ne!(found.name, made.name);
}

#[tokio::test]
async fn faults_have_names_and_say_what_to_do() {
    let bench = bench().await;
    let word = async || bench.ec2.launch(&launch(&bench.pool)).await.unwrap_err();
    bench.twist("RunInstances", [Twist::Say(500, "InsufficientInstanceCapacity")]);
    let fault = word().await;
    assert!(fault.word() == "capacity" && fault.to_string().contains("t3a.medium"), "{fault}");
    bench.twist("RunInstances", vec![Twist::Say(503, "RequestLimitExceeded"); 3]);
    assert_eq!(word().await.word(), "throttled");
    bench.twist("RunInstances", vec![Twist::Say(500, "InternalError"); 3]);
    assert_eq!(word().await.word(), "unwell");
    bench.twist("RunInstances", [Twist::Say(403, "UnauthorizedOperation")]);
    assert!(word().await.is_final());
    bench.twist("RunInstances", [Twist::Lie]);
    let fault = word().await;
    assert!(matches!(fault, Fault::NoMachine { .. }), "{fault}");
    assert_eq!(bench.ec2.list(&bench.pool).await.unwrap().len(), 0, "none of them left a machine");
    // What passes is not seen, and is waited for as long as the cloud says.
    let begun = std::time::Instant::now();
    bench.twist("RunInstances", [Twist::Say(500, "InternalError"), Twist::LeaveAlone(1)]);
    bench.ec2.launch(&launch(&bench.pool)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_machine_without_tags_gets_them_or_goes() {
    let bench = bench().await;
    bench.twist("RunInstances", [Twist::Untag]);
    let tagged = launch(&bench.pool);
    bench.ec2.launch(&tagged).await.unwrap();
    assert_eq!(bench.ec2.list(&bench.pool).await.unwrap().len(), 1);
    bench.twist("RunInstances", [Twist::Untag]);
    bench.twist("CreateTags", [Twist::Say(403, "UnauthorizedOperation")]);
    let untagged = launch(&bench.pool);
    let fault = bench.ec2.launch(&untagged).await.unwrap_err();
    assert!(matches!(fault, Fault::Untagged { is_removed: true, .. }), "{fault}");
    assert_eq!(bench.there(&[tagged, untagged]).await, 1);
}

#[tokio::test]
async fn a_cloud_that_hangs_or_is_not_there_is_given_up() {
    let bench = bench_with(Duration::from_millis(200)).await;
    bench.twist("DescribeInstances", vec![Twist::Hang; 3]);
    let fault = bench.ec2.list(&bench.pool).await.unwrap_err();
    assert!(matches!(fault, Fault::Late { call: "DescribeInstances", .. }), "{fault}");
    assert_eq!(bench.front.lock().unwrap().calls.len(), 3);
    let settings = serde_json::json!({"region": "us-east-1", "endpoint": "http://127.0.0.1:9/"});
    let given = Credentials { key_id: "AKIDTEST".to_owned(), secret: Secret::new("s"), token: None, until_s: None };
    let sources = Sources { given: Some(given), file: None, profile: "default".to_owned(), metadata: None };
    let clients = Clients { cloud: client(), direct: client() };
    let pace = Pace { tries: 2, pause: Duration::from_millis(1), ..Pace::default() };
    let nobody = Ec2::new(serde_json::from_value(settings).unwrap(), sources, clients, pace).unwrap();
    assert_eq!(nobody.list(&bench.pool).await.unwrap_err().word(), "unreachable");
}

#[tokio::test]
async fn volumes_are_made_attached_and_deleted() {
    let bench = bench().await;
    let machine = bench.ec2.launch(&launch(&bench.pool)).await.unwrap();
    let made = bench
        .ec2
        .create_volume(&MachineId::random(), (&bench.pool, "project-1-slot-0"), "us-east-1a", 15)
        .await
        .unwrap();
    let all = bench.ec2.volumes(&bench.pool, "project-1-slot-0").await.unwrap();
    assert_eq!(all.iter().map(|volume| (&volume.name, volume.is_free)).collect::<Vec<_>>(), [(&made.name, true)]);
    assert!(bench.ec2.volumes(&bench.pool, "project-2-slot-0").await.unwrap().is_empty());
    bench.ec2.attach_volume(&made.name, &machine.name, "/dev/sdf").await.unwrap();
    assert!(!bench.ec2.volumes(&bench.pool, "project-1-slot-0").await.unwrap()[0].is_free);
    bench.ec2.detach_volume(&made.name, &machine.name, "/dev/sdf").await.unwrap();
    bench.ec2.delete_volume(&made.name).await.unwrap();
    assert!(bench.ec2.volumes(&bench.pool, "project-1-slot-0").await.unwrap().is_empty());
}

#[tokio::test]
async fn lists_of_several_pages_come_whole_and_one_that_is_cut_off_is_a_fault() {
    let bench = bench().await;
    let mut wanted = Vec::new();
    for _ in 0..7 {
        let launch = launch(&bench.pool);
        bench.ec2.launch(&launch).await.unwrap();
        wanted.push(launch.id);
    }
    bench.front.lock().unwrap().page = Some(5);
    bench.front.lock().unwrap().calls.clear();
    let mut found: Vec<_> =
        bench.ec2.list(&bench.pool).await.unwrap().into_iter().filter_map(|instance| instance.machine).collect();
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    assert!(bench.front.lock().unwrap().calls.len() > 1, "it was one page");
    // The second page fails: what the first one had is no list.
    bench.twist("DescribeInstances", std::iter::once(Twist::Pass).chain(vec![Twist::Say(500, "InternalError"); 3]));
    assert_eq!(bench.ec2.list(&bench.pool).await.unwrap_err().word(), "unwell");
}

#[tokio::test]
async fn machines_are_asked_for_as_they_must_be() {
    let bench = bench().await;
    bench.ec2.launch(&launch(&bench.pool)).await.unwrap();
    bench.ec2.launch(&Launch { is_spot: true, ..launch(&bench.pool) }).await.unwrap();
    let launches = bench.front.lock().unwrap().launches.clone();
    for launch in &launches {
        for words in
            ["MetadataOptions.HttpTokens=required", "MetadataOptions.HttpPutResponseHopLimit=1", "Ebs.Encrypted=true"]
        {
            assert!(launch.contains(words), "{launch}");
        }
    }
    let are_spot = launches.iter().map(|launch| launch.contains("InstanceMarketOptions.MarketType=spot"));
    assert_eq!(are_spot.collect::<Vec<_>>(), [false, true]);
}
