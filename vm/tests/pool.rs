//! A pool's process with its door, over a maker that a test holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use navvy_vm::MachineId;
use navvy_vm::pool::core::Wish;
use navvy_vm::pool::door::{Answer, Ask, AskError, Door, DoorSource, ask};
use navvy_vm::pool::keeper::{Keeper, Pool};
use navvy_vm::pool::maker::{Maker, NotMade};
use navvy_vm::pool::record::Holder;
use navvy_vm::pool::rules::{Kind, Prescaled, Rules};
use navvy_vm::pool::shelf::ShelfError;
use navvy_vm::pool::source::{Asked, NotGiven, Source as _};

const LIMIT: Duration = Duration::from_secs(20);

/// Machines that are names in a set; outlives the pool's process.
#[derive(Default)]
struct Names {
    there: Mutex<BTreeSet<MachineId>>,
    made: Mutex<Vec<MachineId>>,
    /// What the next makes say.
    faults: Mutex<Vec<NotMade>>,
    /// The next hand-overs fail.
    unhanded: Mutex<u32>,
}

#[async_trait]
impl Maker for Names {
    async fn make(&self, id: &MachineId, _kind: &Kind) -> Result<(), NotMade> {
        self.there.lock().unwrap().insert(id.clone());
        self.made.lock().unwrap().push(id.clone());
        match self.faults.lock().unwrap().pop() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    async fn hand_over(&self, id: &MachineId, to: &Holder) -> Result<Value, String> {
        let mut unhanded = self.unhanded.lock().unwrap();
        if *unhanded > 0 {
            *unhanded -= 1;
            return Err("it died".to_owned());
        }
        Ok(serde_json::json!({"id": id, "task": to.task}))
    }

    async fn remove(&self, id: &MachineId) -> Result<(), String> {
        self.there.lock().unwrap().remove(id);
        Ok(())
    }

    async fn survey(&self) -> Result<BTreeSet<MachineId>, String> {
        Ok(self.there.lock().unwrap().clone())
    }
}

fn kind() -> Kind {
    Kind { class: "medium".to_owned(), image: "debian-12-docker".to_owned() }
}

fn rules(count: u32) -> Rules {
    Rules {
        prescaled: vec![Prescaled { kind: kind(), schedule: None, count }],
        quota: 6,
        at_once: 6,
        ..Rules::default()
    }
}

struct Running {
    pool: Pool,
    socket: PathBuf,
    process: tokio::task::JoinHandle<Result<(), ShelfError>>,
    door: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(place: &Path, maker: &Arc<Names>, rules: Rules) -> Self {
        let opened = async {
            loop {
                match Keeper::open(place, rules.clone(), Arc::clone(maker) as Arc<dyn Maker>) {
                    // A write of the one before is on its way; a real SIGKILL would have ended that, too.
                    Err(ShelfError::Taken { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
                    opened => return opened.unwrap(),
                }
            }
        };
        let (keeper, pool) = tokio::time::timeout(LIMIT, opened).await.unwrap();
        let socket = place.join("pool.sock");
        let door = Door::open(&socket).unwrap();
        let door = tokio::spawn(door.serve(pool.clone()));
        Self { pool, socket, process: tokio::spawn(keeper.run()), door }
    }

    /// As a SIGKILL would end it: between any two of its steps.
    async fn kill(self) {
        self.process.abort();
        self.door.abort();
        let (process, door) = (self.process.await, self.door.await);
        assert!(process.is_err() && door.is_err());
    }

    async fn take(&self, ticket: &str) -> Result<MachineId, AskError> {
        let take = Ask::Take {
            class: kind().class,
            image: kind().image,
            ticket: ticket.to_owned(),
            task: "0123456789abcdef".to_owned(),
        };
        match ask(&self.socket, &take, LIMIT).await? {
            Answer::Given { id, .. } => Ok(id),
            other => panic!("{other:?}"),
        }
    }

    async fn give_back(&self, ticket: &str) {
        let done = ask(&self.socket, &Ask::GiveBack { ticket: ticket.to_owned() }, LIMIT).await.unwrap();
        assert!(matches!(done, Answer::Done));
    }

    async fn until(&self, what: &str, holds: impl Fn(&Names) -> bool, maker: &Names) {
        let waiting = async {
            while !holds(maker) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let report = || async { format!("{:?}", self.pool.report().await) };
        if tokio::time::timeout(LIMIT, waiting).await.is_err() {
            panic!("not within {LIMIT:?}: {what}; {}", report().await);
        }
    }
}

#[tokio::test]
async fn thirty_jobs_of_a_pool_of_three_have_a_machine_each() {
    let place = tempfile::tempdir().unwrap();
    let maker = Arc::new(Names::default());
    let running = Running::start(place.path(), &maker, rules(3)).await;
    let mut seen = BTreeSet::new();
    for job in 0..30 {
        let ticket = format!("job-{job}");
        assert!(seen.insert(running.take(&ticket).await.unwrap()), "a machine was used twice");
        running.give_back(&ticket).await;
    }
    let gone = |maker: &Names| maker.there.lock().unwrap().is_disjoint(&seen);
    running.until("no used machine is left", gone, &maker).await;
    let report = running.pool.report().await.unwrap();
    assert_eq!(report.waits.count, 30);
    assert!(report.prometheus().contains("navvy_pool_removals_total{why=\"used\"} 30"), "{}", report.prometheus());
}

#[tokio::test]
async fn a_killed_pool_goes_on_with_what_it_had() {
    let place = tempfile::tempdir().unwrap();
    let maker = Arc::new(Names::default());
    let running = Running::start(place.path(), &maker, rules(2)).await;
    let given = running.take("held").await.unwrap();
    running.kill().await;
    // Nobody's: made while no pool could have known of it.
    let stranger = MachineId::random();
    maker.there.lock().unwrap().insert(stranger.clone());
    let running = Running::start(place.path(), &maker, rules(2)).await;
    assert_eq!(running.take("held").await.unwrap(), given, "the same wish, the same machine");
    let other = running.take("another").await.unwrap();
    assert_ne!(other, given);
    running.until("the stranger is gone", |maker| !maker.there.lock().unwrap().contains(&stranger), &maker).await;
    assert!(maker.there.lock().unwrap().contains(&given));
    running.pool.empty().await;
    running.give_back("held").await;
    running.give_back("another").await;
    running.until("nothing is left", |maker| maker.there.lock().unwrap().is_empty(), &maker).await;
}

#[tokio::test]
async fn killed_at_random_moments_a_pool_leaks_nothing_and_gives_no_machine_twice() {
    let place = tempfile::tempdir().unwrap();
    let maker = Arc::new(Names::default());
    let mut given = BTreeSet::new();
    for round in 0..25_u64 {
        let running = Running::start(place.path(), &maker, rules(2)).await;
        let ticket = format!("job-{round}");
        // Deterministic moments would always meet the same step.
        let moment = Duration::from_micros(u64::from(MachineId::random().as_str().as_bytes()[0]) * round * 20);
        if let Ok(Ok(id)) = tokio::time::timeout(moment, running.take(&ticket)).await {
            assert!(given.insert(id), "given twice");
        }
        running.kill().await;
    }
    let running = Running::start(place.path(), &maker, rules(0)).await;
    for round in 0..25 {
        running.give_back(&format!("job-{round}")).await;
    }
    running.pool.empty().await;
    running.until("nothing is left", |maker| maker.there.lock().unwrap().is_empty(), &maker).await;
    let records = || std::fs::read_dir(place.path().join("machines")).unwrap().count();
    running.until("no record is left", |_| records() == 0, &maker).await;
}

#[tokio::test]
async fn a_taker_that_dies_loses_its_machine() {
    let place = tempfile::tempdir().unwrap();
    let maker = Arc::new(Names::default());
    let running = Running::start(place.path(), &maker, rules(1)).await;
    let mut child = tokio::process::Command::new("sleep").arg("600").spawn().unwrap();
    let owner = navvy_journal::owner::Owner::of_process(child.id().unwrap()).unwrap();
    let holder = Holder { ticket: "t".to_owned(), task: "x".to_owned(), owner: Some(owner) };
    let handed = running.pool.take(Wish { kind: kind(), holder }).await.unwrap();
    child.kill().await.unwrap();
    running.until("its machine is gone", |maker| !maker.there.lock().unwrap().contains(&handed.id), &maker).await;
}

#[tokio::test]
async fn a_machine_that_died_ready_is_not_given_and_who_hangs_up_waits_no_more() {
    let place = tempfile::tempdir().unwrap();
    let maker = Arc::new(Names { unhanded: Mutex::new(2), ..Names::default() });
    let running = Running::start(place.path(), &maker, rules(1)).await;
    running.take("t").await.unwrap();
    let made = maker.made.lock().unwrap().len();
    assert!(made >= 3, "{made} were made, and two of them could not be handed over");
    let mut stream = UnixStream::connect(&running.socket).await.unwrap();
    stream
        .write_all(b"{\"ask\":\"take\",\"class\":\"c\",\"image\":\"i\",\"ticket\":\"x\",\"task\":\"t\"}\n")
        .await
        .unwrap();
    drop(stream);
    let none_wait = async {
        while running.pool.report().await.unwrap().kinds.iter().any(|kind| kind.waiting > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, none_wait).await.unwrap();
}

#[tokio::test]
async fn settings_that_cannot_work_are_told_to_who_waits() {
    let place = tempfile::tempdir().unwrap();
    let fault = NotMade { why: "no such image".to_owned(), word: "refused", is_final: true, wait_s: None };
    let maker = Arc::new(Names { faults: Mutex::new(vec![fault]), ..Names::default() });
    let running = Running::start(place.path(), &maker, rules(0)).await;
    let error = running.take("t").await.unwrap_err();
    assert!(matches!(&error, AskError::No { why } if why == "no such image"), "{error}");
    let nonsense = [&b"hello\n"[..], b"{\"ask\":\"sell\"}\n", &[b'a'; 70_000]];
    for bytes in nonsense {
        let mut stream = UnixStream::connect(&running.socket).await.unwrap();
        // A line that is too long is cut off in the middle.
        stream.write_all(bytes).await.ok();
    }
    let error = ask(Path::new("/nonexistent/pool.sock"), &Ask::Report, LIMIT).await.unwrap_err();
    assert!(matches!(error, AskError::NoPool { .. }), "{error}");
}

#[tokio::test]
async fn a_taker_learns_that_there_is_no_pool_only_where_somebody_named_one() {
    let place = tempfile::tempdir().unwrap();
    // Longer than what the kernel takes of a socket's path.
    let deep = place.path().join("a".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let path = deep.join("pool.sock");
    let asked =
        || Asked { kind: kind(), ticket: "t".to_owned(), task: "0123456789abcdef".parse().unwrap(), is_lent: false };
    let (usual, named) = (DoorSource::usual(path.clone(), LIMIT), DoorSource::named(path.clone(), LIMIT));
    assert!(!usual.is_there() && named.is_there());
    assert_eq!(usual.take(&asked()).await, Err(NotGiven::NoPool));
    let told = named.take(&asked()).await.unwrap_err();
    assert!(matches!(&told, NotGiven::No { why } if why.contains("`navvy vm-pool` starts one")), "{told:?}");

    let maker = Arc::new(Names::default());
    let running = Running::start(&deep, &maker, rules(1)).await;
    let told = usual.take(&asked()).await.unwrap_err();
    assert!(matches!(&told, NotGiven::No { why } if why.contains("makes no sense")), "{told:?}");
    let given = running.take("t").await.unwrap();
    usual.give_back("t").await;
    running.until("it is gone", |maker| !maker.there.lock().unwrap().contains(&given), &maker).await;
    running.kill().await;
}

#[tokio::test]
async fn a_pool_that_is_being_emptied_gives_nothing_and_says_when_it_has_nothing() {
    let place = tempfile::tempdir().unwrap();
    let maker = Arc::new(Names::default());
    let running = Running::start(place.path(), &maker, rules(2)).await;
    let given = running.take("kept").await.unwrap();
    assert!(matches!(ask(&running.socket, &Ask::Empty, LIMIT).await.unwrap(), Answer::Done));
    let told = running.take("late").await.unwrap_err();
    assert!(matches!(&told, AskError::No { why } if why.contains("being emptied")), "{told}");
    let only_given = |maker: &Names| *maker.there.lock().unwrap() == BTreeSet::from([given.clone()]);
    running.until("only what was given is there", only_given, &maker).await;
    let ended = async {
        while !running.pool.report().await.is_some_and(|report| report.is_emptied && report.has_none_of_its_own()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, ended).await.unwrap();
}
