//! Wrong tokens on every method of `Agents`, which come from the protocol's own description: a method or a field that is new
//! fails here until it is said what an attacker would put into it.

use std::sync::Arc;

use navvy_job::outcome::Verdict;
use navvy_storage::Bucket;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Server};

use super::*;
use crate::claims::tests::{TWO_JOBS, claims, ending, submit};
use crate::conduct::RerunOf;
use crate::grants::Grants;
use crate::grants::tests::files;
use crate::grants::tests::raw::{Method, Value, call, filled, methods};
use crate::state::tests::{Database, databases, dump};

/// A processor on loopback, whose agents have tasks. It ends with this value.
struct Scene {
    database: Database,
    directory: tempfile::TempDir,
    channel: Channel,
    /// A task that an agent has, as the second one.
    victim: String,
    /// The token that the first agent had for it.
    lost: String,
    /// A task that has ended, and the token for it.
    ended: String,
    ended_token: String,
    _serving: JoinSet<()>,
}

impl Scene {
    async fn new(database: Database) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bucket = Arc::new(Bucket::directory(directory.path()).unwrap());
        let grants = Grants::new((*database).clone(), bucket, "http://here");
        let claims = claims(&database);
        claims.conductor().submit("gh/acme/shop", submit(TWO_JOBS), RerunOf::default(), "me").await.unwrap();
        let first = claims.take("*", Room::ANY, "one").await.unwrap().unwrap();
        claims.lose(first.claim.task.as_str(), 1, 0, None).await.unwrap();
        let again = claims.take("*", Room::ANY, "two").await.unwrap().unwrap();
        let other = claims.take("*", Room::ANY, "three").await.unwrap().unwrap();
        assert_eq!(first.claim.task, again.claim.task);
        claims.finish(other.claim.task.as_str(), 1, ending(Verdict::Passed)).await.unwrap();

        let output = Output::new((*database).clone(), Arc::new(grants.objects()));
        let (_, cancels) = watch::channel(HashMap::new());
        let service = v1::agents_server::AgentsServer::new(AgentsService::new(claims, output, cancels));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let server = Server::builder().add_service(service);
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        let channel = Endpoint::from_shared(url).unwrap().connect_lazy();
        let victim = again.claim.task.to_string();
        let (ended, ended_token) = (other.claim.task.to_string(), other.token);
        Self { database, directory, channel, victim, lost: first.token, ended, ended_token, _serving: serving }
    }

    /// What an attacker puts into a field: all of it would be taken from the task's own agent.
    fn known(&self, field: &str) -> Value {
        let text = |text: &str| Value::Bytes(text.as_bytes().to_vec());
        match field {
            "ClaimRequest.task" => text(&self.victim),
            "ClaimRequest.agent_version" => text(version::OURS),
            "ClaimRequest.agent_name" | "ClaimRequest.classes" => text("mallory"),
            "ClaimRequest.wait_ms" | "ClaimRequest.room_millicpus" | "ClaimRequest.room_memory" => Value::Number(0),
            "ClaimRequest.machine_room" => Value::Number(0),
            "ClaimRequest.executors" => text("docker"),
            "Beat.state" => text("running"),
            "Beat.spooled" | "RecordRequest.first" | "Chunk.offset" | "Chunk.stream" | "Segment.offset" => {
                Value::Number(0)
            }
            "RecordRequest.events" => text(&format!(
                r#"{{"at_ms":1,"time":"t","event":"report","task":"{}","workflow":"main","job":"unit","line":"x"}}"#,
                self.victim
            )),
            "Chunk.log" | "Segment.log" | "LogEnd.log" => text("000-1"),
            "Chunk.bytes" => text("abc"),
            "Segment.length" | "Segment.stored" => Value::Number(3),
            "Segment.sha256" | "LogEnd.sha256" => Value::Bytes(vec![7; 32]),
            "Segment.object" => text(&format!("{}/000-1", self.victim)),
            "FinishRequest.end" => {
                Value::Bytes(serde_json::to_vec(&navvy_job::walk::TaskEnd::new(Verdict::Passed)).unwrap())
            }
            "FinishRequest.continuation" => text(""),
            "FinishRequest.fidelity" | "FinishRequest.warnings" => text("<script>"),
            "FinishRequest.events" | "LogEnd.bytes" => Value::Number(0),
            other => panic!("say what an attacker would put into {other}"),
        }
    }

    /// Tries every method; what each was answered with. Nothing may change.
    async fn changes_nothing(&self, who: &str, token: Option<&str>) -> Vec<(Method, Code)> {
        let standing = async || {
            let mut tables = dump(&self.database).await;
            // What a runner asks for is its own word, under its own class.
            tables.entry("offers").or_default().retain(|row| !row.contains(r#"Some("none")"#));
            (tables, files(self.directory.path()))
        };
        let before = standing().await;
        let mut answers = Vec::new();
        for method in methods("Agents") {
            let message = filled(&method.input, &|field| self.known(field));
            let answer = call(&self.channel, &format!("Agents/{}", method.name), token, message).await;
            let after = standing().await;
            assert!(after == before, "{who}, {}: something has changed", method.name);
            answers.push((method, answer.map_or_else(|status| status.code(), |_| Code::Ok)));
        }
        answers
    }
}

#[tokio::test]
async fn a_wrong_token_does_nothing_by_any_method() {
    for database in databases().await {
        let scene = Scene::new(database).await;
        let token = async |scope| scene.database.new_token(&scope, "a test's").await.unwrap();
        let task = |task: &str, fence| Scope::Task { task: task.to_owned(), fence };
        let all = [
            ("nobody", None, Code::Unauthenticated, Code::Unauthenticated),
            ("a guess", Some("navvy_guessed".to_owned()), Code::Unauthenticated, Code::Unauthenticated),
            ("empty", Some(String::new()), Code::Unauthenticated, Code::Unauthenticated),
            ("a very long one", Some("x".repeat(4096)), Code::Unauthenticated, Code::Unauthenticated),
            ("an admin", Some(token(Scope::Admin).await), Code::PermissionDenied, Code::PermissionDenied),
            ("a viewer", Some(token(Scope::Viewer).await), Code::PermissionDenied, Code::PermissionDenied),
            // It may ask, and there is nothing for it.
            (
                "another class's runner",
                Some(token(Scope::Class("none".into())).await),
                Code::PermissionDenied,
                Code::Ok,
            ),
            // It is for a task that is over.
            (
                "a launch token",
                Some(token(Scope::Launch(scene.ended.clone())).await),
                Code::PermissionDenied,
                Code::AlreadyExists,
            ),
            ("whoever had the task before", Some(scene.lost.clone()), Code::FailedPrecondition, Code::PermissionDenied),
            (
                "whoever will have it",
                Some(token(task(&scene.victim, 3)).await),
                Code::FailedPrecondition,
                Code::PermissionDenied,
            ),
            (
                "a task that there is not",
                Some(token(task("0000000000000000", 1)).await),
                Code::FailedPrecondition,
                Code::PermissionDenied,
            ),
            (
                "a task that has ended",
                Some(scene.ended_token.clone()),
                Code::FailedPrecondition,
                Code::PermissionDenied,
            ),
        ];
        for (who, token, expected, claims) in all {
            let answers = scene.changes_nothing(who, token.as_deref()).await;
            assert!(answers.len() >= 8);
            for (method, code) in answers {
                let expected = match method.name.as_str() {
                    "Claim" => claims,
                    // The report may be repeated: its answer may have been lost. It says again what is written down.
                    "Finish" if who == "a task that has ended" => Code::Ok,
                    _ => expected,
                };
                assert_eq!(code, expected, "{who}, {}", method.name);
            }
        }
    }
}

#[tokio::test]
async fn what_is_tried_would_be_done_for_the_task_s_own_agent() {
    for database in databases().await {
        let scene = Scene::new(database).await;
        let own = Scope::Task { task: scene.victim.clone(), fence: 2 };
        let token = scene.database.new_token(&own, "its own").await.unwrap();
        let before = dump(&scene.database).await;
        for name in ["Record", "GrantSegment", "GetMarks"] {
            let method = methods("Agents").into_iter().find(|method| method.name == name).unwrap();
            let message = filled(&method.input, &|field| scene.known(field));
            call(&scene.channel, &format!("Agents/{name}"), Some(&token), message).await.unwrap();
        }
        assert!(dump(&scene.database).await != before, "an event was recorded");
    }
}
