//! Calls of agents as each version has sent them, byte by byte: `protocol/recorded/agents-VERSION.jsonl`. All that lie there are
//! played to today's processor. Written anew on purpose alone, and a version's once it is out never more:
//! `NAVVY_RECORD=1 cargo test --workspace --lib recorded`.
//!
//! ```text
//! {"method": "Agents/Claim", "token": "runner", "sent": HEX, "answered": HEX}      a call
//! {"put": HEX}                                                                     bytes for the URL that was answered last
//! ```
//!
//! Ids that a processor makes differ from day to day. Their lengths do not: in what is sent, those of the recording are replaced
//! by today's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use navvy_job::claim::Claim;
use navvy_job::outcome::Verdict;
use navvy_job::walk::TaskEnd;
use navvy_protocol::processor::v1::{self, claimed_task::Checkout};
use navvy_storage::{About, Bucket, Producer, Slot};
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};

use super::*;
use crate::claims::tests::{claims, submit};
use crate::conduct::RerunOf;
use crate::grants::Grants;
use crate::grants::tests::raw::{ask, call};
use crate::output::segment::hex;
use crate::state::tests::{Database, databases};

const CONFIG: &str = "
version: 2.1
jobs:
  unit: {docker: [{image: i}], steps: [{run: make}]}
workflows:
  main: {jobs: [unit]}
";
/// What the log has, and the body of the cache.
const PRINTED: &[u8] = b"line 1\nline 2\n";

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/recorded")
}

/// A processor on loopback with a task that waits. It ends with this value.
struct Scene {
    database: Database,
    pipeline: String,
    channel: Channel,
    people: String,
    runner: String,
    _directory: tempfile::TempDir,
    _serving: JoinSet<()>,
}

impl Scene {
    async fn new(database: Database) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bucket = Arc::new(Bucket::directory(directory.path()).unwrap());
        let [people, agents] =
            [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let [people_at, agents_at] = [&people, &agents].map(|it| format!("http://{}", it.local_addr().unwrap()));
        let grants = Grants::new((*database).clone(), bucket, &people_at);
        let claims = claims(&database);
        let submitted =
            claims.conductor().submit("gh/acme/shop", submit(CONFIG), RerunOf::default(), "me").await.unwrap();
        let output = Output::new((*database).clone(), Arc::new(grants.objects()));
        let (_, cancels) = watch::channel(HashMap::new());
        let service = v1::agents_server::AgentsServer::new(AgentsService::new(claims, output, cancels));
        let (router, storage) = (grants.router(), grants.service());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(people, router).await.unwrap() });
        serving.spawn(async move {
            let server = Server::builder().add_service(service).add_service(storage);
            server.serve_with_incoming(TcpListenerStream::new(agents)).await.unwrap();
        });
        let channel = Endpoint::from_shared(agents_at).unwrap().connect_lazy();
        let runner = database.new_token(&Scope::Class("*".into()), "a runner").await.unwrap();
        let pipeline = submitted.id;
        Self { database, pipeline, channel, people: people_at, runner, _directory: directory, _serving: serving }
    }

    async fn put(&self, url: &str, bytes: &[u8]) {
        let target = url.strip_prefix(&self.people).unwrap();
        let answer = ask(&self.people, "PUT", target, Some(bytes)).await;
        assert_eq!(answer.status, 200, "{}", answer.head);
    }
}

/// Ids and URLs of the answers so far.
#[derive(Debug, Default)]
struct Known {
    task: String,
    token: String,
    object: String,
    body: String,
    url: String,
}

impl Known {
    fn learn(&mut self, method: &str, answer: &[u8]) {
        match method {
            "Agents/Claim" => {
                let task = v1::ClaimAnswer::decode(answer).unwrap().task.unwrap();
                let claim: Claim = serde_json::from_slice(&task.claim).unwrap();
                (self.task, self.token) = (claim.task.to_string(), task.token);
            }
            "Agents/GrantSegment" => {
                let grant = v1::SegmentGrant::decode(answer).unwrap();
                (self.object, self.url) = (grant.object, grant.url);
            }
            "Storage/Reserve" => self.body = v1::ReserveAnswer::decode(answer).unwrap().body,
            "Storage/PutUrl" | "Storage/GetUrl" => self.url = v1::Url::decode(answer).unwrap().url,
            _ => {}
        }
    }

    /// With what is known today in place of what the recording knew at this point.
    fn today(&self, recorded: &Self, sent: &[u8]) -> Vec<u8> {
        let pairs = [(&recorded.task, &self.task), (&recorded.object, &self.object), (&recorded.body, &self.body)];
        let mut sent = sent.to_vec();
        for (old, new) in pairs.into_iter().filter(|(old, _)| !old.is_empty()) {
            assert_eq!(old.len(), new.len(), "an id has got another length: say how it is put into a message");
            while let Some(at) =
                sent.windows(old.len()).position(|window| window == old.as_bytes()).filter(|_| old != new)
            {
                sent[at..at + old.len()].copy_from_slice(new.as_bytes());
            }
        }
        sent
    }
}

/// What an agent of today sends, from its claim to the end, where it is to be recorded.
struct Recorder<'a> {
    scene: &'a Scene,
    known: Known,
    lines: Vec<Value>,
}

impl Recorder<'_> {
    async fn call(&mut self, method: &str, message: &impl Message) {
        let (who, token) = match method {
            "Agents/Claim" => ("runner", &self.scene.runner),
            _ => ("task", &self.known.token),
        };
        let sent = message.encode_to_vec();
        let answered = call(&self.scene.channel, method, Some(token), sent.clone()).await;
        let answered = answered.unwrap_or_else(|status| panic!("{method}: {status}"));
        self.known.learn(method, &answered);
        self.lines.push(json!({"method": method, "token": who, "sent": hex(&sent), "answered": hex(&answered)}));
    }

    async fn put(&mut self, bytes: &[u8]) {
        self.scene.put(&self.known.url, bytes).await;
        self.lines.push(json!({"put": hex(bytes)}));
    }

    /// Events as docs/events.md has them, with this task's id.
    fn event(&self, word: &str, more: Value) -> Vec<u8> {
        let mut event = json!({"at_ms": 1, "time": "2026-01-02T03:04:05.500Z", "event": word, "task": self.known.task,
                               "workflow": "main", "job": "unit", "node_index": 0, "node_total": 1});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::to_vec(&event).unwrap()
    }

    async fn record(mut self) -> Vec<Value> {
        let claim = v1::ClaimRequest {
            agent_version: version::OURS.to_owned(),
            agent_name: "a-host:4711".to_owned(),
            task: String::new(),
            classes: vec!["*".to_owned()],
            wait_ms: 1000,
            room_millicpus: 4000,
            room_memory: 8 << 30,
            executors: vec!["docker".to_owned()],
            machine_room: 0,
        };
        self.call("Agents/Claim", &claim).await;
        self.call("Agents/Attend", &v1::Beat { state: "running".to_owned(), spooled: 0 }).await;
        let step =
            json!({"step": 1, "attempt": 1, "name": "make", "kind": "run", "background": false, "header": "make"});
        let events =
            vec![self.event("task_started", json!({"resource_class": "medium"})), self.event("step_started", step)];
        self.call("Agents/Record", &v1::RecordRequest { first: 0, events }).await;
        let (log, bytes) = ("001-1".to_owned(), Bytes::from_static(PRINTED));
        self.call("Agents/Live", &v1::Chunk { log: log.clone(), offset: 0, bytes, stream: v1::Stream::Stderr.into() })
            .await;
        let mut packed = Vec::with_capacity(zstd_safe::compress_bound(PRINTED.len()));
        zstd_safe::compress(&mut packed, PRINTED, 3).unwrap();
        let (length, stored, sha256) = (PRINTED.len() as u32, packed.len() as u32, Sha256::digest(PRINTED).to_vec());
        let mut segment =
            v1::Segment { log: log.clone(), offset: 0, length, stored, sha256: sha256.clone(), object: String::new() };
        self.call("Agents/GrantSegment", &v1::SegmentRequest { segment: Some(segment.clone()) }).await;
        self.put(&packed).await;
        segment.object.clone_from(&self.known.object);
        self.call("Agents/CommitSegments", &v1::CommitSegmentsRequest { segments: vec![segment] }).await;
        self.call("Agents/GetMarks", &v1::GetMarksRequest {}).await;
        self.keep_a_cache().await;
        let end = serde_json::to_vec(&TaskEnd::new(Verdict::Passed)).unwrap();
        let logs = vec![v1::LogEnd { log, bytes: PRINTED.len() as u64, sha256 }];
        let finish = v1::FinishRequest { end, logs, events: 2, ..v1::FinishRequest::default() };
        self.call("Agents/Finish", &finish).await;
        self.lines
    }

    async fn keep_a_cache(&mut self) {
        let slot = serde_json::to_vec(&Slot::Cache { key: "deps-v1".to_owned() }).unwrap();
        self.call("Storage/Describe", &v1::DescribeRequest {}).await;
        self.call("Storage/LookUp", &v1::LookUpRequest { keys: vec!["deps-v1".to_owned(), "deps-".to_owned()] }).await;
        self.call("Storage/Reserve", &v1::ReserveRequest { slot: slot.clone() }).await;
        let (body, length) = (self.known.body.clone(), PRINTED.len() as u64);
        self.call("Storage/PutUrl", &v1::BodyRequest { body: body.clone(), length }).await;
        self.put(PRINTED).await;
        let (job, task) = ("unit".to_owned(), self.known.task.clone());
        let about = About { producer: Producer { pipeline: None, job, task, build_num: Some(1) }, details: [].into() };
        let about = serde_json::to_vec(&about).unwrap();
        let sha256 = hex(&Sha256::digest(PRINTED));
        self.call(
            "Storage/Commit",
            &v1::CommitRequest { body: body.clone(), slot: slot.clone(), size: length, sha256, about },
        )
        .await;
        self.call("Storage/LookUp", &v1::LookUpRequest { keys: vec!["deps-v1".to_owned(), "deps-".to_owned()] }).await;
        self.call("Storage/Find", &v1::FindRequest { slot }).await;
        self.call("Storage/List", &v1::ListRequest { prefix: "deps-".to_owned(), from: 0 }).await;
        self.call("Storage/GetUrl", &v1::BodyRequest { body, length: 0 }).await;
        let all = v1::PiecesRequest {
            kind: "artifacts".to_owned(),
            group: "g".to_owned(),
            all: true,
            ..v1::PiecesRequest::default()
        };
        self.call("Storage/Pieces", &all).await;
    }
}

/// What an agent makes of an answer, without what differs from day to day.
fn meaning(method: &str, answer: &[u8]) -> Value {
    fn read<M: Message + Default>(answer: &[u8]) -> M {
        M::decode(answer).unwrap()
    }
    let entry = |json: &[u8]| match json {
        [] => Value::Null,
        json => serde_json::from_slice::<Value>(json).unwrap()["record"]["place"].clone(),
    };
    match method {
        "Agents/Claim" => {
            let task = read::<v1::ClaimAnswer>(answer).task.unwrap();
            let claim: Claim = serde_json::from_slice(&task.claim).unwrap();
            claim.validate().unwrap();
            let clones = task.checkout == Some(Checkout::Git(true));
            json!([
                claim.job_name,
                claim.job,
                claim.limits,
                task.workflow,
                task.resource_class,
                task.lease_ms,
                task.config_name,
                clones
            ])
        }
        "Agents/Attend" => {
            let word = read::<v1::Word>(answer);
            json!([word.lease_ms, word.cancel.is_some()])
        }
        "Agents/Record" => json!(read::<v1::RecordAnswer>(answer).next),
        "Agents/Live" => json!(read::<v1::LiveWord>(answer).readers),
        "Agents/GrantSegment" => json!(read::<v1::SegmentGrant>(answer).object.len()),
        "Agents/CommitSegments" | "Agents/GetMarks" => {
            let marks = read::<v1::DurableMarks>(answer);
            json!([
                marks.next_event,
                marks.marks.iter().map(|mark| json!([mark.log, mark.durable])).collect::<Vec<_>>()
            ])
        }
        "Agents/Finish" => {
            let finished = read::<v1::FinishAnswer>(answer);
            json!([finished.complete, finished.missing])
        }
        "Storage/Describe" => json!(read::<v1::StoreDescription>(answer).name.is_empty()),
        "Storage/LookUp" => {
            let found = read::<v1::LookUpAnswer>(answer);
            json!([entry(&found.entry), found.nth])
        }
        "Storage/Find" => entry(&read::<v1::EntryAnswer>(answer).entry),
        "Storage/Commit" => {
            let committed = read::<v1::CommitAnswer>(answer);
            json!([entry(&committed.entry), committed.lost, committed.newer])
        }
        "Storage/Reserve" => json!(read::<v1::ReserveAnswer>(answer).body.len()),
        "Storage/List" => json!(read::<v1::ListAnswer>(answer).total),
        "Storage/Pieces" => json!(read::<v1::EntriesAnswer>(answer).total),
        "Storage/PutUrl" | "Storage/GetUrl" => json!(read::<v1::Url>(answer).url.starts_with("http://127.0.0.1:")),
        other => panic!("say what {other} answers"),
    }
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// A field that today's messages do not have, as a newer agent sends it.
fn with_a_new_field(mut message: Vec<u8>) -> Vec<u8> {
    prost::encoding::encode_varint(15_000 << 3 | 2, &mut message);
    prost::encoding::encode_varint(3, &mut message);
    message.extend(b"new");
    message
}

async fn play(scene: &Scene, lines: &[Value], sent: fn(Vec<u8>) -> Vec<u8>, name: &str) {
    let (mut recorded, mut today) = (Known::default(), Known::default());
    for line in lines {
        if !line["put"].is_null() {
            scene.put(&today.url, &unhex(&line["put"])).await;
            continue;
        }
        let method = line["method"].as_str().unwrap();
        let token = if line["token"] == "runner" { &scene.runner } else { &today.token };
        let message = sent(today.today(&recorded, &unhex(&line["sent"])));
        let answer = call(&scene.channel, method, Some(token), message).await;
        let answer = answer.unwrap_or_else(|status| panic!("{name}: {method} is refused today: {status}"));
        let before = unhex(&line["answered"]);
        assert_eq!(meaning(method, &answer), meaning(method, &before), "{name}: {method}");
        recorded.learn(method, &before);
        today.learn(method, &answer);
    }
    let state = crate::claims::tests::pipeline_state(&scene.database, &scene.pipeline).await;
    assert_eq!(state, "success", "{name}");
}

#[tokio::test]
async fn recorded_calls_of_agents_are_understood_as_they_were() {
    if std::env::var_os("NAVVY_RECORD").is_some() {
        for database in databases().await.into_iter().take(1) {
            let scene = Scene::new(database).await;
            let lines = Recorder { scene: &scene, known: Known::default(), lines: Vec::new() }.record().await;
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::create_dir_all(recordings()).unwrap();
            std::fs::write(recordings().join(format!("agents-{}.jsonl", version::OURS)), text).unwrap();
        }
    }
    let mut played = 0;
    for entry in std::fs::read_dir(recordings()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("agents-") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for sent in [std::convert::identity as fn(_) -> _, with_a_new_field] {
            for database in databases().await {
                let scene = Scene::new(database).await;
                play(&scene, &lines, sent, &name).await;
                played += 1;
            }
        }
    }
    assert!(played >= 2, "there is no recording in {}", recordings().display());
}

#[tokio::test]
async fn an_agent_whose_version_is_too_far_away_gets_no_task_and_is_told_why() {
    for database in databases().await {
        let scene = Scene::new(database).await;
        let far = v1::ClaimRequest { agent_version: "0.9.0".to_owned(), ..v1::ClaimRequest::default() };
        let refused = call(&scene.channel, "Agents/Claim", Some(&scene.runner), far.encode_to_vec()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains("update the processor"), "{}", refused.message());
        let near = v1::ClaimRequest { agent_version: "0.3.7".to_owned(), ..v1::ClaimRequest::default() };
        let taken = call(&scene.channel, "Agents/Claim", Some(&scene.runner), near.encode_to_vec()).await.unwrap();
        assert!(v1::ClaimAnswer::decode(&taken[..]).unwrap().task.is_some());
    }
}
