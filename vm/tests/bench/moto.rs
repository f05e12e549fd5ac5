//! EC2 as moto plays it, with a double of ours in front for what moto does not do: client tokens that count, answers that are late, lost,
//! refused or false, and, where a test wants it, a machine that is really there.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// moto, until its input ends.
pub struct Moto {
    _child: Child,
    address: String,
}

impl Moto {
    pub fn start() -> Self {
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
pub enum Twist {
    /// This answer instead; nothing reaches moto.
    Say(u16, &'static str),
    /// The same with a wish to be left alone for so many seconds.
    LeaveAlone(u64),
    /// Carried out, and the answer is lost.
    Lose,
    /// Carried out, and no answer ever comes.
    LoseAndHang,
    /// Carried out, and the answer has no machine.
    Empty,
    /// Nothing is made, and the answer says that all went well.
    Lie,
    /// The tags of the request are dropped.
    Untag,
    /// No answer.
    Hang,
    /// As it is.
    Pass,
}

#[derive(Default)]
pub struct Front {
    pub moto: String,
    pub twists: BTreeMap<&'static str, VecDeque<Twist>>,
    /// Answers by client token, as EC2 keeps them.
    pub tokens: BTreeMap<String, String>,
    pub calls: Vec<String>,
    /// Requests for machines, as they came.
    pub launches: Vec<String>,
    /// Machines that were ended.
    pub ended: BTreeSet<String>,
    /// Lists hold every machine, whatever is filtered for.
    pub is_heedless: bool,
    /// Lists come in pages of so many.
    pub page: Option<usize>,
    /// The one machine that is really there: `far-host`.
    pub there: Option<PathBuf>,
}

impl Front {
    /// Where moto is, what this call meets, and what was answered to it before.
    fn take(&mut self, action: &str, body: &mut String) -> (String, Option<Twist>, Option<String>) {
        self.calls.push(action.to_owned());
        if action == "RunInstances" {
            self.launches.push(body.clone());
        }
        if self.is_heedless {
            *body = body.split('&').filter(|pair| !pair.starts_with("Filter.")).collect::<Vec<_>>().join("&");
        }
        if let Some(page) = self.page {
            *body = body.replace("MaxResults=1000", &format!("MaxResults={page}"));
        }
        let twist = self.twists.get_mut(action).and_then(VecDeque::pop_front);
        (self.moto.clone(), twist, self.tokens.get(field(body, "ClientToken")).cloned())
    }
}

pub type Shared = Arc<Mutex<Front>>;

pub fn field<'a>(body: &'a str, name: &str) -> &'a str {
    body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
}

fn error(status: u16, code: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\"?><Response><Errors><Error><Code>{code}</Code><Message>told to</Message></Error></Errors></Response>"
    );
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

const NONE: &str = "<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>";
const ENDED: &str = "<TerminateInstancesResponse><instancesSet/></TerminateInstancesResponse>";
const NOTHING: &str = "<RunInstancesResponse><instancesSet/></RunInstancesResponse>";

async fn front(State(front): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut body = String::from_utf8(body.to_vec()).unwrap();
    let action = field(&body, "Action").to_owned();
    let user_data = field(&body, "UserData").to_owned();
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDTEST/"), "{authorization}");
    let (moto, twist, known) = front.lock().unwrap().take(&action, &mut body);
    match &twist {
        Some(Twist::Say(status, code)) => return error(*status, code),
        Some(Twist::LeaveAlone(seconds)) => {
            let mut response = error(503, "RequestLimitExceeded");
            response.headers_mut().insert("retry-after", seconds.to_string().parse().unwrap());
            return response;
        }
        Some(Twist::Lie) if action == "TerminateInstances" => return ENDED.into_response(),
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
    let ended = (action == "TerminateInstances").then(|| field(&body, "InstanceId.1").to_owned());
    if ended.as_ref().is_some_and(|name| front.lock().unwrap().ended.contains(name)) {
        // moto stumbles over the network interface of a machine that is gone, where EC2 says that it is gone.
        return ENDED.into_response();
    }
    let is_new = known.is_none();
    let (status, answer) = match known {
        Some(answer) => (StatusCode::OK, answer),
        None => forward(&front, &moto, &headers, body).await,
    };
    let there = front.lock().unwrap().there.clone();
    if let (Some(place), true) = (&there, status.is_success() && is_new) {
        follow(place, &action, &user_data).await;
    }
    if let Some(name) = ended.filter(|_| status.is_success()) {
        front.lock().unwrap().ended.insert(name);
    }
    let answer = if there.is_some() { on_loopback(&answer) } else { answer };
    match twist {
        Some(Twist::LoseAndHang) => std::future::pending().await,
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

pub fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

/// The one machine that is really there begins as its user data say, and ends.
async fn follow(place: &Path, action: &str, user_data: &str) {
    let (place, action, user_data) = (place.to_owned(), action.to_owned(), user_data.to_owned());
    let work = move || match action.as_str() {
        "RunInstances" => begin(&place, &user_data),
        "TerminateInstances" => far_host("stop", &place),
        _ => {}
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

/// As cloud-init would.
fn begin(place: &Path, user_data: &str) {
    let encoded = user_data.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap();
    let config: serde_json::Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
    let host_key = place.join("host_key");
    std::fs::write(&host_key, config["ssh_keys"]["ed25519_private"].as_str().unwrap()).unwrap();
    std::fs::set_permissions(&host_key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!((&config["users"][0]["name"], &config["disable_root"]), (&"root".into(), &false.into()));
    let authorized = config["users"][0]["ssh_authorized_keys"][0].as_str().unwrap();
    std::fs::write(place.join("authorized_keys"), authorized).unwrap();
    far_host("reset", place);
}

/// `vm/tests/far-host`.
pub fn far_host(verb: &str, place: &Path) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/far-host");
    assert!(Command::new(script).arg(verb).arg(place).status().unwrap().success(), "far-host {verb}");
}

/// An answer with the address of the machine that is there.
fn on_loopback(answer: &str) -> String {
    let mut said = String::new();
    let mut rest = answer;
    while let Some((before, after)) = rest.split_once("<privateIpAddress>") {
        said.push_str(before);
        said.push_str("<privateIpAddress>127.0.0.1");
        rest = &after[after.find('<').unwrap()..];
    }
    said + rest
}

/// One for all tests; it ends with this process, whose end it hears of.
static MOTO: OnceLock<Moto> = OnceLock::new();

/// A double of its own before the moto that all share, and its address.
pub async fn double() -> (Shared, String) {
    let moto = tokio::task::spawn_blocking(|| MOTO.get_or_init(Moto::start)).await.unwrap();
    let front = Shared::new(Mutex::new(Front { moto: moto.address.clone(), ..Front::default() }));
    let router = Router::new().fallback(self::front).with_state(Arc::clone(&front));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (front, at)
}
