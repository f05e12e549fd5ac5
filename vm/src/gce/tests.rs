//! Against a strict double: it knows the fields that the API knows, refuses all others, and wants a token for each request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::token::tests::{claimed, rsa_key};
use super::*;
use crate::cloud::Secret;
use crate::cloud::Stage;
use crate::cloud::tests::{client, launch};

const PROJECT: &str = "navvy-tests";
const ZONE: &str = "europe-west3-a";
const TOKEN: &str = "ya29.a-token-of-the-double";

#[derive(Default)]
struct Double {
    key: String,
    instances: BTreeMap<String, Value>,
    requests: BTreeMap<String, String>,
    /// What the next calls of a verb are answered instead.
    scripted: Vec<(&'static str, Response)>,
    calls: Vec<String>,
    forgets_labels: bool,
    refuses_labels: bool,
    makes_nothing: bool,
}

type Shared = Arc<Mutex<Double>>;

fn refusal(status: u16, reason: &str) -> Response {
    let body =
        json!({"error": {"code": status, "message": format!("told to: {reason}"), "errors": [{"reason": reason}]}});
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

fn operation(name: &str, status: &str, error: Option<&str>) -> Response {
    let mut body = json!({"kind": "compute#operation", "name": name, "status": status});
    if let Some(code) = error {
        body["error"] = json!({"errors": [{"code": code, "message": "told to"}]});
    }
    body.to_string().into_response()
}

/// The names of a body's fields must be among these.
fn unknown(body: &Value, known: &[&str]) -> Option<String> {
    let fields = body.as_object().into_iter().flatten().map(|(name, _)| name);
    fields.into_iter().find(|name| !known.contains(&name.as_str())).cloned()
}

async fn token(State(double): State<Shared>, body: String) -> Response {
    let double = double.lock().unwrap();
    let assertion = body
        .strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=")
        .and_then(|assertion| claimed(&double.key, assertion));
    match assertion {
        Some(claim) if claim["iss"] == "ci@navvy-tests.iam.gserviceaccount.com" => {
            json!({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}).to_string().into_response()
        }
        _ => (StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"}).to_string()).into_response(),
    }
}

async fn api(
    State(double): State<Shared>,
    method: Method,
    Path(path): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut double = double.lock().unwrap();
    let query = uri.query().unwrap_or_default().to_owned();
    if headers.get("authorization").is_none_or(|value| value != &format!("Bearer {TOKEN}")) {
        return refusal(401, "authError");
    }
    let Some(rest) = path.strip_prefix(&format!("{PROJECT}/zones/{ZONE}/")) else { return refusal(404, "notFound") };
    let parts: Vec<&str> = rest.split('/').collect();
    let verb = match (&method, &parts[..]) {
        (&Method::POST, ["instances"]) => "insert",
        (&Method::GET, ["instances"]) => "list",
        (&Method::GET, ["instances", _]) => "get",
        (&Method::GET, ["instances", _, "serialPort"]) if query == "port=1" => "console",
        (&Method::DELETE, ["instances", _]) => "delete",
        (&Method::POST, ["instances", _, "setLabels"]) => "setLabels",
        (&Method::POST, ["operations", _, "wait"]) => "wait",
        _ => return refusal(404, "notFound"),
    };
    double.calls.push(verb.to_owned());
    if let Some(nth) = double.scripted.iter().position(|(of, _)| *of == verb) {
        return double.scripted.remove(nth).1;
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    double.answer(verb, &parts, &query, &body)
}

impl Double {
    fn answer(&mut self, verb: &str, parts: &[&str], query: &str, body: &Value) -> Response {
        match verb {
            "insert" => self.insert(query, body),
            "list" => self.list(query),
            "get" => {
                self.instances.get(parts[1]).map_or(refusal(404, "notFound"), |found| found.to_string().into_response())
            }
            "console" if self.instances.contains_key(parts[1]) => {
                json!({"kind": "compute#serialPortOutput", "contents": "booting\nwaiting for the network\n", "start": "0", "next": "32"})
                    .to_string()
                    .into_response()
            }
            "console" => refusal(404, "notFound"),
            "delete" => match self.instances.remove(parts[1]) {
                Some(_) => operation("op-delete", "DONE", None),
                None => refusal(404, "notFound"),
            },
            "setLabels" if self.refuses_labels => refusal(412, "conditionNotMet"),
            "setLabels" => {
                let Some(found) = self.instances.get_mut(parts[1]) else { return refusal(404, "notFound") };
                if found["labelFingerprint"] != body["labelFingerprint"] {
                    return refusal(412, "conditionNotMet");
                }
                found["labels"] = body["labels"].clone();
                operation("op-labels", "DONE", None)
            }
            _ => operation(parts[1], "DONE", None),
        }
    }

    fn insert(&mut self, query: &str, body: &Value) -> Response {
        let known = [
            "name",
            "machineType",
            "labels",
            "disks",
            "networkInterfaces",
            "tags",
            "scheduling",
            "metadata",
            "serviceAccounts",
        ];
        let scheduling = ["automaticRestart", "onHostMaintenance", "provisioningModel", "instanceTerminationAction"];
        if let Some(name) = unknown(body, &known).or_else(|| unknown(&body["scheduling"], &scheduling)) {
            return refusal(400, &format!("unknown field {name}"));
        }
        let Some(request) = query.strip_prefix("requestId=").filter(|id| id.len() == 36) else {
            return refusal(400, "requestId");
        };
        let name = body["name"].as_str().unwrap_or_default().to_owned();
        if self.requests.contains_key(request) {
            return operation("op-insert", "DONE", None);
        }
        if self.instances.contains_key(&name) {
            return refusal(409, "alreadyExists");
        }
        self.requests.insert(request.to_owned(), name.clone());
        if !self.makes_nothing {
            let mut instance = body.clone();
            instance["status"] = json!("RUNNING");
            instance["labelFingerprint"] = json!("42");
            instance["creationTimestamp"] = json!("2026-11-29T07:00:00.000-08:00");
            instance["networkInterfaces"] = json!([{"networkIP": "10.0.0.9"}]);
            if self.forgets_labels {
                instance["labels"] = json!({});
            }
            self.instances.insert(name, instance);
        }
        operation("op-insert", "RUNNING", None)
    }

    /// Two a page.
    fn list(&self, query: &str) -> Response {
        let wanted =
            query.split('&').find_map(|part| part.strip_prefix("filter=")).unwrap_or_default().replace("%3D", "=");
        let owner =
            wanted.split("%20AND%20").find_map(|part| part.strip_prefix("labels.navvy-owner=")).unwrap_or_default();
        let from: usize = query.split('&').find_map(|part| part.strip_prefix("pageToken=")?.parse().ok()).unwrap_or(0);
        let all: Vec<_> =
            self.instances.values().filter(|instance| instance["labels"]["navvy-owner"] == owner).collect();
        let page: Vec<_> = all.iter().skip(from).take(2).collect();
        let mut body = json!({"kind": "compute#instanceList", "items": page});
        if from + 2 < all.len() {
            body["nextPageToken"] = json!((from + 2).to_string());
        }
        body.to_string().into_response()
    }
}

struct Bench {
    gce: Gce,
    double: Shared,
    at: String,
    files: tempfile::TempDir,
}

async fn bench() -> Bench {
    let double = Shared::new(Mutex::new(Double { key: rsa_key(), ..Double::default() }));
    let router = Router::new()
        .route("/token", axum::routing::post(token))
        .route("/compute/v1/projects/{*path}", axum::routing::any(api))
        .with_state(Arc::clone(&double));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("account.json");
    let account = json!({
        "type": "service_account", "client_email": "ci@navvy-tests.iam.gserviceaccount.com", "private_key_id": "1",
        "private_key": double.lock().unwrap().key, "token_uri": format!("{at}/token"),
    });
    std::fs::write(&file, account.to_string()).unwrap();
    let settings = json!({"project": PROJECT, "zone": ZONE, "endpoint": &at, "network_tags": ["ci"]});
    let sources = Sources { file: Some(file), metadata: "127.0.0.1:1".to_owned() };
    let clients = Clients { cloud: client(), direct: client() };
    let pace = Pace { limit: Duration::from_secs(5), tries: 3, pause: Duration::from_millis(1) };
    let gce = Gce::new(serde_json::from_value(settings).unwrap(), sources, clients, pace).unwrap();
    Bench { gce, double, at, files }
}

#[tokio::test]
async fn a_machine_is_made_once_found_by_its_label_and_ended() {
    let bench = bench().await;
    let wanted = launch("pool-a");
    let made = bench.gce.launch(&wanted).await.unwrap();
    assert_eq!((made.stage, made.address.as_deref()), (Stage::Running, Some("10.0.0.9")));
    assert_eq!(bench.gce.launch(&wanted).await.unwrap(), made, "asked again, there is one");
    for _ in 0..4 {
        bench.gce.launch(&launch("pool-a")).await.unwrap();
    }
    bench.gce.launch(&launch("pool-b")).await.unwrap();
    assert_eq!(bench.gce.list("pool-a").await.unwrap().len(), 5, "of three pages");
    let body = bench.double.lock().unwrap().instances[&made.name].clone();
    assert_eq!(body["serviceAccounts"], json!([]));
    assert_eq!(body["labels"]["navvy-pool"], Value::Null);
    let pools = bench.gce.launch(&Launch { is_pools: true, ..launch("pool-c") }).await.unwrap();
    let labels = bench.double.lock().unwrap().instances[&pools.name]["labels"].clone();
    assert_eq!((&labels["navvy-pool"], &labels["navvy-task"]), (&json!("yes"), &Value::Null));
    assert_eq!(body["metadata"]["items"][0]["value"], wanted.user_data.reveal());
    bench.gce.terminate(&made.name).await.unwrap();
    bench.gce.terminate(&made.name).await.unwrap();
    assert_eq!(bench.gce.find(&wanted.id).await.unwrap(), None);
}

#[tokio::test]
async fn what_a_console_said_is_the_cloud_s_own_words_or_a_fault() {
    let bench = bench().await;
    let made = bench.gce.launch(&launch("pool")).await.unwrap();
    assert_eq!(bench.gce.console(&made.name).await.unwrap(), "booting\nwaiting for the network\n");
    assert_eq!(bench.gce.console("no-such-machine").await.unwrap_err().word(), "not_found");
    bench
        .double
        .lock()
        .unwrap()
        .scripted
        .push(("console", json!({"kind": "compute#instance"}).to_string().into_response()));
    assert_eq!(bench.gce.console(&made.name).await.unwrap_err().word(), "nonsense");
}

#[tokio::test]
async fn faults_are_told_apart() {
    let bench = bench().await;
    let say = |answers: Vec<(&'static str, Response)>| bench.double.lock().unwrap().scripted.extend(answers);
    let word = async || bench.gce.launch(&launch("pool")).await.unwrap_err().word();
    say(vec![("insert", operation("op", "DONE", Some("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS")))]);
    assert_eq!(word().await, "capacity");
    say(vec![("wait", operation("op", "DONE", Some("QUOTA_EXCEEDED")))]);
    assert_eq!(word().await, "quota");
    say((0..3).map(|_| ("insert", refusal(403, "rateLimitExceeded"))).collect());
    assert_eq!(word().await, "throttled");
    say((0..3).map(|_| ("insert", refusal(500, "backendError"))).collect());
    assert_eq!(word().await, "unwell");
    say(vec![("insert", refusal(403, "forbidden"))]);
    assert_eq!(word().await, "not_allowed");
    say((0..3).map(|_| ("list", "<html>Sign in</html>".into_response())).collect());
    assert_eq!(bench.gce.list("pool").await.unwrap_err().word(), "nonsense");
    say((0..3).map(|_| ("list", "{}".into_response())).collect());
    assert_eq!(bench.gce.list("pool").await.unwrap_err().word(), "nonsense", "no list is not an empty one");
    // One that passes is not seen.
    say(vec![("insert", refusal(503, "backendError")), ("get", refusal(429, "rateLimitExceeded"))]);
    bench.gce.launch(&launch("pool")).await.unwrap();
}

#[tokio::test]
async fn success_without_a_machine_and_a_machine_without_labels() {
    let bench = bench().await;
    bench.double.lock().unwrap().makes_nothing = true;
    assert_eq!(bench.gce.launch(&launch("pool")).await.unwrap_err().word(), "no_machine");
    {
        let mut double = bench.double.lock().unwrap();
        (double.makes_nothing, double.forgets_labels) = (false, true);
    }
    let labelled = bench.gce.launch(&launch("pool")).await.unwrap();
    assert_eq!(bench.gce.list("pool").await.unwrap().len(), 1, "{labelled:?}");
    bench.double.lock().unwrap().refuses_labels = true;
    let fault = bench.gce.launch(&launch("pool")).await.unwrap_err();
    assert!(matches!(fault, Fault::Untagged { is_removed: true, .. }), "{fault}");
    assert_eq!(bench.double.lock().unwrap().instances.len(), 1, "what cannot be found again goes");
}

#[tokio::test]
async fn without_credentials_it_is_said_where_they_were_looked_for() {
    let bench = bench().await;
    let settings = json!({"project": PROJECT, "zone": ZONE});
    let clients = Clients { cloud: client(), direct: client() };
    let sources = Sources { file: None, metadata: "127.0.0.1:1".to_owned() };
    let nobody = Gce::new(serde_json::from_value(settings).unwrap(), sources, clients, Pace::default()).unwrap();
    let fault = nobody.list("pool").await.unwrap_err();
    assert!(fault.to_string().contains("GOOGLE_APPLICATION_CREDENTIALS") && fault.is_final(), "{fault}");
    let debug = format!("{:?} {:?}", Secret::new("s3cret"), bench.gce.token().await.unwrap());
    assert!(!debug.contains("s3cret") && !debug.contains(TOKEN), "{debug}");
}

/// What a killed maker has left at the cloud is ended by the record alone, whether it wrote the answer down or not.
#[tokio::test]
async fn a_record_ends_its_machine_however_far_its_maker_came() {
    use crate::record::{Entry, Fact, Planned, Record};
    use crate::state::State;
    let bench = bench().await;
    let host = navvy_environment::HostPaths {
        state: bench.files.path().join("state"),
        runtime: Some(bench.files.path().to_owned()),
        docker_config: None,
        search_path: "/usr/bin:/bin".to_owned(),
        supervisor: None,
    };
    let machines = machines(&bench);
    for has_answer in [false, true] {
        let wanted = launch("somebody");
        let owner = navvy_journal::owner::Owner::this_process().unwrap();
        let task: navvy_job::id::TaskId = "0123456789abcdef".parse().unwrap();
        let planned = Planned {
            version: Planned::VERSION,
            machine: wanted.id.clone(),
            task: Some(task.clone()),
            owner,
            provider: "gce".to_owned(),
            image: "an-image".to_owned(),
            is_adoptable: false,
            has_steps: true,
            pool: None,
            kind: None,
            is_lent: false,
        };
        let record = Record::create(&host.state, planned).await.unwrap();
        let place = format!("{PROJECT}/{ZONE}");
        let asked = Fact::Requested { token: wanted.id.as_str().to_owned(), place };
        let states = [State::Provisioned, State::Launched].map(Entry::State);
        record.write(states.into_iter().chain([Entry::Fact(asked)]).collect()).await.unwrap();
        let made = bench.gce.launch(&wanted).await.unwrap();
        if has_answer {
            record.note(Fact::Instance { id: made.name, address: None }).await.unwrap();
        }
        drop(record);
        let limit = Duration::from_secs(30);
        // A cloud that says yes and does nothing is found out.
        bench.double.lock().unwrap().scripted.push(("delete", operation("op", "DONE", None)));
        let left = machines.remove_task(&task, &host, limit).await;
        assert!(left.len() == 1 && left[0].contains("still runs"), "{left:?}");
        assert_eq!(machines.remove_task(&task, &host, limit).await, Vec::<String>::new());
        assert!(bench.double.lock().unwrap().instances.is_empty());
        assert_eq!(crate::record::all(&host.state).unwrap(), []);
    }
}

fn machines(bench: &Bench) -> crate::Machines {
    let table = json!({
        "project": PROJECT, "zone": ZONE, "endpoint": bench.at,
        "images": [{"name": "*", "image": "global/images/navvy"}], "types": [{"name": "e2-standard-2", "cpus": 2, "memory": "8G"}],
    });
    let file = bench.files.path().join("account.json").display().to_string();
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), file)].into();
    let clients = Clients { cloud: client(), direct: client() };
    let pace = Pace { limit: Duration::from_secs(5), tries: 3, pause: Duration::from_millis(1) };
    let clouds = crate::far::Clouds { variables: &variables, home: None, clients, pace };
    let settings = crate::Settings::new(navvy_vm_image::Images::at(bench.files.path()));
    crate::Machines::gce(settings, &serde_json::from_value(table).unwrap(), clouds)
        .unwrap_or_else(|fault| panic!("{fault}"))
}
