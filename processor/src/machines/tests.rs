//! A pool's service over loopback, for agents that are only words, over a maker that a test holds.

use std::collections::BTreeSet;
use std::path::Path;

use async_trait::async_trait;
use navvy_job::outcome::Verdict;
use navvy_protocol::processor::v1::{self, machines_client::MachinesClient, take_machine_answer::Answer as Taken};
use navvy_vm::MachineId;
use navvy_vm::pool::maker::NotMade;
use navvy_vm::pool::record::Holder;
use navvy_vm::pool::rules::{Kind, Prescaled};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status};

use super::service::MachinesService;
use super::*;
use crate::claims::tests::{claims, ending, submit};
use crate::claims::{Claims, Room};
use crate::conduct::RerunOf;
use crate::state::tests::{Database, databases};

const LIMIT: Duration = Duration::from_secs(30);
const CONFIG: &str = "
version: 2.1
jobs:
  image: {docker: [{image: i}], parallelism: 3, steps: [setup_remote_docker, {run: make}]}
  plain: {docker: [{image: i}], resource_class: large, steps: [{run: make}]}
workflows:
  main: {jobs: [image, plain]}
";

const LENT: &str = "
version: 2.1
jobs:
  ubuntu: {machine: {image: 'ubuntu-2204:current'}, steps: [{run: make}]}
  debian: {machine: {image: 'debian:12'}, resource_class: large, steps: [{run: make}]}
  image: {docker: [{image: i}], resource_class: small, steps: [setup_remote_docker, {run: make}]}
workflows:
  main: {jobs: [ubuntu, debian, image]}
";

/// Machines that are names in a set; outlives the pool's process.
#[derive(Default)]
pub(super) struct Names(Mutex<BTreeSet<MachineId>>);

impl Names {
    pub fn has(&self, id: &str) -> bool {
        self.0.lock().unwrap().iter().any(|known| known.as_str() == id)
    }
}

#[async_trait]
impl Maker for Names {
    async fn make(&self, id: &MachineId, _kind: &Kind) -> Result<(), NotMade> {
        self.0.lock().unwrap().insert(id.clone());
        Ok(())
    }

    async fn hand_over(&self, id: &MachineId, _to: &Holder) -> Result<serde_json::Value, String> {
        Ok(serde_json::json!({"way": "a test's", "id": id}))
    }

    async fn remove(&self, id: &MachineId) -> Result<(), String> {
        self.0.lock().unwrap().remove(id);
        Ok(())
    }

    async fn survey(&self) -> Result<BTreeSet<MachineId>, String> {
        Ok(self.0.lock().unwrap().clone())
    }
}

pub(super) fn kind() -> Kind {
    Kind { class: "medium".to_owned(), image: "debian-12-docker".to_owned() }
}

pub(super) fn rules(count: u32, quota: u32) -> Rules {
    let prescaled = vec![Prescaled { kind: kind(), schedule: None, count }];
    Rules { prescaled, quota, at_once: 10, ..Rules::default() }
}

pub(super) fn here() -> Here {
    Here { host: "this/boot".to_owned(), state: "/state".into() }
}

fn parts(place: &Path, maker: &Arc<Names>, rules: Rules) -> Parts {
    Parts {
        place: place.join("machine-pool"),
        rules,
        maker: Arc::clone(maker) as Arc<dyn Maker>,
        reach: Reach::Host(here()),
    }
}

/// A processor's pool on loopback. It ends with this value, as a SIGKILL would end it.
pub(super) struct Scene {
    pub database: Database,
    pub claims: Claims,
    directory: tempfile::TempDir,
    pub maker: Arc<Names>,
    pub machines: Machines,
    pub channel: Channel,
    stop: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

impl Scene {
    pub async fn new(database: Database, rules: Rules) -> Self {
        let claims = claims(&database);
        claims.conductor().submit("gh/acme/shop", submit(CONFIG), RerunOf::default(), "me").await.unwrap();
        let (directory, maker) = (tempfile::tempdir().unwrap(), Arc::new(Names::default()));
        Self::on(database, claims, directory, maker, rules).await
    }

    /// A processor on this database and this disk.
    async fn on(
        database: Database,
        claims: Claims,
        directory: tempfile::TempDir,
        maker: Arc<Names>,
        rules: Rules,
    ) -> Self {
        let parts = parts(directory.path(), &maker, rules);
        Self::of(parts, database, claims, directory, maker).await
    }

    /// One that lends machines of these hosts' images, with a machine job and one that has a Docker engine beside it.
    async fn lending(database: Database) -> Self {
        let claims = claims(&database);
        claims.conductor().submit("gh/acme/shop", submit(LENT), RerunOf::default(), "me").await.unwrap();
        let (directory, maker) = (tempfile::tempdir().unwrap(), Arc::new(Names::default()));
        let prescaled = vec![Prescaled { kind: ubuntu("ubuntu-*"), schedule: None, count: 1 }];
        let rules = Rules { prescaled, quota: 4, ..Rules::default() };
        let parts = Parts { reach: Reach::Lent(Box::new(rows())), ..parts(directory.path(), &maker, rules) };
        Self::of(parts, database, claims, directory, maker).await
    }

    async fn of(
        parts: Parts,
        database: Database,
        claims: Claims,
        directory: tempfile::TempDir,
        maker: Arc<Names>,
    ) -> Self {
        let pace = Pace { open_again: Duration::from_millis(20), look: Duration::from_millis(20) };
        let machines = Machines::with_pace(pace, parts, (*database).clone());
        let mut serving = JoinSet::new();
        serving.spawn(machines.clone().keep());
        let (stop, stopped) = watch::channel(false);
        let service = MachinesService::new((*database).clone(), Some(machines.clone()), stopped);
        let channel = serve(&mut serving, service).await;
        Self { database, claims, directory, maker, machines, channel, stop, _serving: serving }
    }

    /// A task of the job `image`, or of `plain`, and its token.
    pub async fn task(&self, class: &str) -> (String, String) {
        let taken = self.claims.take(class, Room::ANY, "an agent").await.unwrap().unwrap();
        (taken.claim.task.to_string(), taken.token)
    }

    async fn take(&self, token: &str, ticket: &str) -> Result<Taken, Status> {
        take(&self.channel, token, request(ticket)).await
    }

    /// Which machine.
    pub async fn given(&self, token: &str, ticket: &str) -> String {
        match self.take(token, ticket).await {
            Ok(Taken::Machine(machine)) => machine.id,
            other => panic!("{other:?}"),
        }
    }

    async fn give_back(&self, token: &str, ticket: &str) -> Result<(), Status> {
        let mut client = MachinesClient::new(self.channel.clone());
        let message = v1::GiveBackMachineRequest { ticket: ticket.to_owned() };
        client.give_back(bearing(message, token)).await.map(|_| ())
    }

    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let waiting = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(LIMIT, waiting).await.is_err() {
            panic!("not within {LIMIT:?}: {what}; {}", self.machines.figures().await);
        }
    }

    async fn waiting(&self) -> u32 {
        let report = self.machines.pool().unwrap().report().await.unwrap();
        report.kinds.iter().map(|kind| kind.waiting).sum()
    }
}

fn ubuntu(image: &str) -> Kind {
    Kind { class: "medium".to_owned(), image: image.to_owned() }
}

/// By which a config's name of an image is known.
fn rows() -> navvy_vm::Machines {
    let settings = navvy_vm::Settings::new(navvy_vm_image::Images::at("/nonexistent"));
    let table = serde_json::json!({"hosts": [{
        "name": "one", "address": "192.0.2.1", "key-file": "/k", "reset": ["true"], "images": ["ubuntu-*"],
        "host-key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ",
    }]});
    navvy_vm::Machines::ssh(settings, &serde_json::from_value(table).unwrap()).unwrap_or_else(|fault| panic!("{fault}"))
}

async fn serve(serving: &mut JoinSet<()>, service: MachinesService) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    serving.spawn(async move {
        let server = Server::builder().add_service(service.into_server());
        server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    Endpoint::from_shared(url).unwrap().connect_lazy()
}

fn request(ticket: &str) -> v1::TakeMachineRequest {
    let Kind { class, image } = kind();
    let (ticket, state) = (ticket.to_owned(), "/state".to_owned());
    v1::TakeMachineRequest { class, image, ticket, host: here().host, state, lent: false }
}

fn bearing<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

async fn take(channel: &Channel, token: &str, asked: v1::TakeMachineRequest) -> Result<Taken, Status> {
    let answer = MachinesClient::new(channel.clone()).take(bearing(asked, token)).await?;
    Ok(answer.into_inner().answer.expect("an answer"))
}

async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap();
}

async fn audited(database: &Database) -> Vec<String> {
    let rows = sqlx::query("SELECT body FROM audit ORDER BY at_ms").fetch_all(database.pool()).await.unwrap();
    let bodies = rows.iter().map(|row| sqlx::Row::try_get::<String, _>(row, 0).unwrap());
    bodies.filter(|body| body.contains("machine.take")).collect()
}

#[tokio::test]
async fn a_task_takes_a_machine_for_itself_alone_and_it_goes_with_the_task() {
    for database in databases().await {
        let scene = Scene::new(database, rules(2, 10)).await;
        let (one, other) = (scene.task("medium").await, scene.task("medium").await);
        scene.until("the pool is open", async || scene.machines.pool().is_ok()).await;
        let first = scene.given(&one.1, "docker").await;
        assert_eq!(scene.given(&one.1, "docker").await, first, "the same ticket, the same machine");
        let second = scene.given(&other.1, "docker").await;
        assert_ne!(first, second, "a ticket is of its task alone");
        let lines = audited(&scene.database).await;
        assert_eq!(lines.len(), 2, "a line for each machine: {lines:?}");
        assert!(lines.iter().any(|line| line.contains(&first) && line.contains(&one.0) && line.contains("an agent")));

        // Of another task, of a lost lease, of none.
        scene.give_back(&other.1, "docker").await.unwrap();
        scene.until("what was given back is gone", async || !scene.maker.has(&second)).await;
        assert!(scene.maker.has(&first), "another task's ticket gives nothing back");
        let error = scene.take(&one.1, "another").await.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains("at most 1"), "{error}");

        scene.claims.finish(&one.0, 1, ending(Verdict::Passed)).await.unwrap();
        scene.until("the task's end is its machine's", async || !scene.maker.has(&first)).await;
        assert_eq!(scene.take(&one.1, "docker").await.unwrap_err().code(), Code::FailedPrecondition);
        assert_eq!(scene.give_back(&one.1, "docker").await.unwrap_err().code(), Code::FailedPrecondition);
    }
}

#[tokio::test]
async fn who_has_lost_the_lease_loses_the_machine_and_the_next_agent_gets_another() {
    for database in databases().await {
        let scene = Scene::new(database, rules(1, 10)).await;
        let (task, lost) = scene.task("medium").await;
        scene.until("the pool is open", async || scene.machines.pool().is_ok()).await;
        let machine = scene.given(&lost, "docker").await;
        scene.claims.lose(&task, 1, 0, None).await.unwrap();
        scene.until("the machine is gone", async || !scene.maker.has(&machine)).await;
        let (again, token) = scene.task("medium").await;
        assert_eq!(again, task);
        assert_ne!(scene.given(&token, "docker").await, machine);
        assert_eq!(scene.take(&lost, "docker").await.unwrap_err().code(), Code::FailedPrecondition);
    }
}

#[tokio::test]
async fn who_waits_waits_no_more_once_it_hangs_up_or_its_task_ends() {
    for database in databases().await {
        // One machine, and another task has it.
        let scene = Scene::new(database, rules(1, 1)).await;
        let (has, waits) = (scene.task("medium").await, scene.task("medium").await);
        scene.until("the pool is open", async || scene.machines.pool().is_ok()).await;
        scene.given(&has.1, "docker").await;
        let (channel, token) = (scene.channel.clone(), waits.1.clone());
        let hanging = tokio::spawn(async move { take(&channel, &token, request("docker")).await });
        scene.until("it waits", async || scene.waiting().await == 1).await;
        hanging.abort();
        scene.until("who hung up waits no more", async || scene.waiting().await == 0).await;

        let (task, token) = waits;
        let channel = scene.channel.clone();
        let ending_one = tokio::spawn(async move { take(&channel, &token, request("again")).await });
        scene.until("it waits again", async || scene.waiting().await == 1).await;
        scene.claims.finish(&task, 1, ending(Verdict::Passed)).await.unwrap();
        assert_eq!(ending_one.await.unwrap().unwrap_err().code(), Code::FailedPrecondition);
        scene.until("an ended task waits no more", async || scene.waiting().await == 0).await;

        // The end of the processor.
        let (_, token) = scene.task("medium").await;
        let channel = scene.channel.clone();
        let last = tokio::spawn(async move { take(&channel, &token, request("docker")).await });
        scene.until("a third one waits", async || scene.waiting().await == 1).await;
        scene.stop.send_replace(true);
        assert_eq!(last.await.unwrap().unwrap_err().code(), Code::Unavailable);
    }
}

/// The connection of the first call is known to be broken only after the agent has asked anew.
#[tokio::test]
async fn who_asks_anew_by_its_ticket_waits_on_when_its_first_call_is_dropped() {
    let database = databases().await.remove(0);
    let scene = Scene::new(database, rules(1, 1)).await;
    scene.until("the pool is open", async || scene.machines.pool().is_ok()).await;
    let pool = scene.machines.pool().unwrap();
    let wish = |ticket: &str| {
        let holder = Holder { ticket: ticket.to_owned(), task: "t".to_owned(), owner: None };
        navvy_vm::pool::core::Wish { kind: kind(), holder }
    };
    // Of a task that the database does not know: the look at leases must not come in between.
    let holds = pool.take(wish("holds")).await.unwrap();
    let (mut first, mut second) = (Box::pin(pool.take(wish("waits"))), Box::pin(pool.take(wish("waits"))));
    for asking in [&mut first, &mut second] {
        assert!(tokio::time::timeout(Duration::ZERO, asking.as_mut()).await.is_err());
    }
    // Not asked again what came of it, as a call whose connection is gone.
    drop(first);
    assert_eq!(scene.waiting().await, 1, "the second one waits on");
    pool.give_back("holds").await;
    let given = tokio::time::timeout(LIMIT, second).await.unwrap().unwrap();
    assert_ne!(given.id, holds.id);
}

#[tokio::test]
async fn a_thousand_takes_are_no_thousand_machines() {
    let database = databases().await.remove(0);
    let scene = Scene::new(database, rules(0, 10)).await;
    let (_, token) = scene.task("medium").await;
    scene.until("the pool is open", async || scene.machines.pool().is_ok()).await;
    let (mut machines, mut refused) = (0, 0);
    for nth in 0..1000 {
        let ticket = format!("ticket-{nth}");
        match scene.take(&token, &ticket).await {
            Ok(Taken::Machine(_)) => machines += 1,
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error.code(), Code::InvalidArgument);
                refused += 1;
            }
        }
        scene.give_back(&token, &ticket).await.unwrap();
    }
    assert_eq!((machines, refused), (8, 992));
    let (_, plain) = scene.task("large").await;
    let error = scene.take(&plain, "t").await.unwrap_err();
    assert!(error.message().contains("no machine"), "{error}");
}

#[tokio::test]
async fn names_that_are_none_and_agents_that_are_elsewhere_get_nothing() {
    let database = databases().await.remove(0);
    let scene = Scene::new(database, rules(0, 10)).await;
    let (_, token) = scene.task("medium").await;
    let asked = |change: fn(&mut v1::TakeMachineRequest)| {
        let mut asked = request("t");
        change(&mut asked);
        take(&scene.channel, &token, asked)
    };
    for change in [
        (|asked| asked.class.clear()) as fn(&mut v1::TakeMachineRequest),
        |asked| asked.class = "2xlarge".to_owned(),
        |asked| asked.image = "a\nb".to_owned(),
        |asked| asked.ticket = "x".repeat(201),
        |asked| asked.state = "x".repeat(5000),
        |asked| asked.host.clear(),
    ] {
        assert_eq!(asked(change).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let why = |taken| match taken {
        Ok(Taken::No(why)) => why,
        other => panic!("{other:?}"),
    };
    let elsewhere = asked(|asked| asked.host = "another/boot".to_owned()).await;
    assert!(matches!(elsewhere, Ok(Taken::NoPool(true))), "{elsewhere:?}");
    assert!(why(asked(|asked| asked.state = "/other".to_owned()).await).contains("state directory"));
    let (_stop, stopped) = watch::channel(false);
    let mut serving = JoinSet::new();
    let without = serve(&mut serving, MachinesService::new((*scene.database).clone(), None, stopped)).await;
    assert!(matches!(take(&without, &token, request("t")).await, Ok(Taken::NoPool(true))));
}

#[tokio::test]
async fn one_processor_has_the_pool_and_the_next_one_goes_on_with_its_machines() {
    let database = databases().await.remove(0);
    let scene = Scene::new(database, rules(1, 10)).await;
    let (_, token) = scene.task("medium").await;
    scene.until("the pool is open", async || scene.machines.pool().is_ok()).await;
    let machine = scene.given(&token, "docker").await;
    // A second processor on the same data.
    let Scene { database, claims, directory, maker, machines, channel, stop, _serving: first } = scene;
    let second = Scene::on(database, claims, directory, maker, rules(1, 10)).await;
    second
        .until("it says who has the pool", async || {
            second.machines.pool().is_err_and(|why| why.contains("another process"))
        })
        .await;
    match second.take(&token, "docker").await {
        Ok(Taken::No(why)) => assert!(why.contains("another process"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(second.machines.figures().await.contains("navvy_pool_up 0"));
    drop((machines, channel, stop, first));
    second.until("the second one has it", async || second.machines.pool().is_ok()).await;
    assert_eq!(second.given(&token, "docker").await, machine, "the same ticket, the same machine");
    let figures = second.machines.figures().await;
    assert!(figures.contains("navvy_pool_up 1") && figures.contains("state=\"given\"} 1"), "{figures}");
}

#[tokio::test]
async fn a_pool_that_is_away_takes_nothing_else_down() {
    let (directory, mut health) = crate::probes::tests::health().await;
    let place = directory.path().join("machine-pool/machines");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("damaged.json"), "{").unwrap();
    let pace = Pace { open_again: Duration::from_millis(20), ..Pace::default() };
    let (maker, rules) = (Arc::new(Names::default()), rules(1, 1));
    let machines = Machines::with_pace(pace, parts(directory.path(), &maker, rules), health.state.clone());
    let kept = tokio::spawn(machines.clone().keep());
    until(|| machines.pool().is_err_and(|why| why.contains("damaged"))).await;
    health.machines = Some(machines.clone());
    let health = axum::extract::State(Arc::new(health));
    assert_eq!(crate::probes::ready(health.clone()).await.status(), 200);
    let metrics = crate::probes::metrics(health).await;
    assert_eq!(metrics.status(), 200);
    let text = axum::body::to_bytes(metrics.into_body(), 1 << 20).await.unwrap();
    assert!(String::from_utf8_lossy(&text).contains("navvy_pool_up 0"));
    // Once the operator has removed what is damaged, the pool is there, without a new start.
    std::fs::remove_file(place.join("damaged.json")).unwrap();
    until(|| machines.pool().is_ok()).await;
    kept.abort();
}

#[tokio::test]
async fn a_machine_is_lent_for_the_image_that_the_task_s_config_names_and_no_other() {
    for database in databases().await {
        let scene = Scene::lending(database).await;
        let (_, token) = scene.task("medium").await;
        scene.until("the pool is open", async || scene.machines.pool().is_ok()).await;
        let asked = |class: &str, image: &str, lent| {
            let (class, image) = (class.to_owned(), image.to_owned());
            let host = "another/boot".to_owned();
            v1::TakeMachineRequest { class, image, ticket: "steps".to_owned(), host, state: "/other".to_owned(), lent }
        };
        let current = "ubuntu-2204:current";
        let taken = take(&scene.channel, &token, asked("medium", current, false)).await.unwrap();
        assert!(matches!(taken, Taken::NoPool(true)), "who makes machines of its own is lent none: {taken:?}");
        for image in ["ubuntu-2404:current", "ubuntu-*", "default"] {
            let error = take(&scene.channel, &token, asked("medium", image, true)).await.unwrap_err();
            let words = format!("this task's machine is of image {current}, not {image}");
            assert!(error.code() == Code::InvalidArgument && error.message().contains(&words), "{error}");
        }
        let Taken::Machine(machine) = take(&scene.channel, &token, asked("medium", current, true)).await.unwrap()
        else {
            panic!("no machine")
        };
        assert!(scene.maker.has(&machine.id));
        let report = scene.machines.pool().unwrap().report().await.unwrap();
        assert_eq!(report.kinds.iter().map(|kind| kind.image.as_str()).collect::<Vec<_>>(), ["ubuntu-*"]);

        let (_, token) = scene.task("large").await;
        let taken = take(&scene.channel, &token, asked("large", "debian:12", true)).await.unwrap();
        assert!(matches!(&taken, Taken::No(why) if why.contains("no entry of [[vm.ssh.hosts]]")), "{taken:?}");
        let (_, token) = scene.task("small").await;
        let taken = take(&scene.channel, &token, asked("medium", "default", true)).await.unwrap();
        assert!(matches!(&taken, Taken::No(why) if why.contains("not for setup_remote_docker")), "{taken:?}");
    }
}
