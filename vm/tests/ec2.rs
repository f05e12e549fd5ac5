//! EC2 as moto plays it, with a double of ours in front for what moto does not do: client tokens that count, and answers that are
//! late, lost, refused or false.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use navvy_vm::MachineId;
use navvy_vm::cloud::call::Pace;
use navvy_vm::cloud::{Fault, Launch, Secret, Stage};
use navvy_vm::ec2::{Clients, Credentials, Ec2, Sources};

/// moto, until its input ends.
struct Moto {
    _child: Child,
    address: String,
}

impl Moto {
    fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/moto");
        let mut child = Command::new(script)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/moto");
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(address.starts_with("http://"), "moto did not start: {address:?}");
        Self { _child: child, address: address.trim().to_owned() }
    }
}

/// What the next call of an action meets.
#[derive(Clone)]
enum Twist {
    /// This answer instead; nothing reaches moto.
    Say(u16, &'static str),
    /// The same with a wish to be left alone for so many seconds.
    LeaveAlone(u64),
    /// Carried out, and the answer is lost.
    Lose,
    /// Carried out, and the answer has no machine.
    Empty,
    /// Nothing is made, and the answer says that all went well.
    Lie,
    /// The tags of the request are dropped.
    Untag,
    /// No answer.
    Hang,
}

#[derive(Default)]
struct Front {
    moto: String,
    twists: BTreeMap<&'static str, VecDeque<Twist>>,
    /// Answers by client token, as EC2 keeps them.
    tokens: BTreeMap<String, String>,
    calls: Vec<String>,
}

type Shared = Arc<Mutex<Front>>;

fn field<'a>(body: &'a str, name: &str) -> &'a str {
    body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
}

fn error(status: u16, code: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\"?><Response><Errors><Error><Code>{code}</Code><Message>told to</Message></Error></Errors></Response>"
    );
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

const NONE: &str = "<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>";
const NOTHING: &str = "<RunInstancesResponse><instancesSet/></RunInstancesResponse>";

async fn front(State(front): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut body = String::from_utf8(body.to_vec()).unwrap();
    let action = field(&body, "Action").to_owned();
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDTEST/"), "{authorization}");
    let (moto, twist, known) = {
        let mut front = front.lock().unwrap();
        front.calls.push(action.clone());
        let twist = front.twists.get_mut(action.as_str()).and_then(VecDeque::pop_front);
        (front.moto.clone(), twist, front.tokens.get(field(&body, "ClientToken")).cloned())
    };
    match &twist {
        Some(Twist::Say(status, code)) => return error(*status, code),
        Some(Twist::LeaveAlone(seconds)) => {
            let mut response = error(503, "RequestLimitExceeded");
            response.headers_mut().insert("retry-after", seconds.to_string().parse().unwrap());
            return response;
        }
        Some(Twist::Lie) => return NOTHING.into_response(),
        Some(Twist::Hang) => return std::future::pending().await,
        Some(Twist::Untag) => {
            let kept = body.split('&').filter(|pair| !pair.starts_with("TagSpecification."));
            body = kept.collect::<Vec<_>>().join("&");
        }
        _ => {}
    }
    // moto knows no filter by token.
    if field(&body, "Filter.1.Name") == "client-token" {
        let made = front.lock().unwrap().tokens.get(field(&body, "Filter.1.Value.1")).cloned();
        let name = made.and_then(|answer| Some(answer.split_once("<instanceId>")?.1.split_once('<')?.0.to_owned()));
        let Some(name) = name else { return NONE.into_response() };
        body = format!("Action=DescribeInstances&Version=2016-11-15&InstanceId.1={name}");
    }
    let (status, answer) = match known {
        Some(answer) => (StatusCode::OK, answer),
        None => forward(&front, &moto, &headers, body).await,
    };
    match twist {
        Some(Twist::Lose) => (StatusCode::BAD_GATEWAY, "").into_response(),
        Some(Twist::Empty) => NOTHING.into_response(),
        _ => (status, answer).into_response(),
    }
}

async fn forward(front: &Shared, moto: &str, headers: &HeaderMap, body: String) -> (StatusCode, String) {
    let token = field(&body, "ClientToken").to_owned();
    let mut request = client().post(moto).body(body);
    for name in ["authorization", "content-type", "x-amz-date"] {
        request = request.header(name, headers[name].clone());
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let answer = answer.text().await.unwrap();
    if !token.is_empty() {
        assert!(status.is_success(), "{answer}");
        front.lock().unwrap().tokens.insert(token, answer.clone());
    }
    (status, answer)
}

fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

struct Bench {
    ec2: Ec2,
    front: Shared,
    /// moto is shared with the other tests.
    pool: String,
}

/// One for all tests; it ends with this process, whose end it hears of.
static MOTO: OnceLock<Moto> = OnceLock::new();

async fn bench() -> Bench {
    bench_with(Duration::from_secs(120)).await
}

async fn bench_with(limit: Duration) -> Bench {
    let moto = tokio::task::spawn_blocking(|| MOTO.get_or_init(Moto::start)).await.unwrap();
    let front = Shared::new(Mutex::new(Front { moto: moto.address.clone(), ..Front::default() }));
    let router = Router::new().fallback(self::front).with_state(Arc::clone(&front));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
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
