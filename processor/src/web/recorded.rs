//! Requests of people's programs as each version has sent them: `protocol/recorded/http-VERSION.jsonl`. All are asked of today's
//! processor, and what was answered then is read by today's types. `NAVVY_RECORD=1` writes this version's anew.
//!
//! ```text
//! {"method": "POST", "path": "/api/v2/…/{pipeline}/…", "body": …, "status": 200, "answer": …}
//! ```

use std::path::Path;

use axum::http::Method;
use navvy_protocol::api::{
    Approve, CancelPipeline, DeployKey, Log, Message, Named, NumberedEvent, Page, Pipeline, PipelineDetail, Rerun,
    Submit, Submitted, Value as Secret, Vcs,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::attacks::{CONFIG, Scene};
use crate::state::Scope;
use crate::state::tests::databases;

/// What today's `navvy` sends, in this order.
fn requests() -> Vec<(Method, &'static str, Value)> {
    fn spelled(body: impl Serialize) -> Value {
        serde_json::to_value(body).unwrap()
    }
    let text = |text: &str| Some(text.to_owned());
    let vcs = Vcs {
        origin_repository_url: text("https://github.com/acme/shop.git"),
        branch: text("main"),
        revision: text("0123456789abcdef0123456789abcdef01234567"),
        default_branch: text("main"),
        subject: text("A commit"),
        author_name: text("Ann"),
        author_email: text("ann@acme.example"),
        ..Vcs::default()
    };
    let submit = Submit {
        config: CONFIG.to_owned(),
        config_name: ".circleci/config.yml".to_owned(),
        vcs,
        traceparent: text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ..Submit::default()
    };
    let key =
        DeployKey { host: text("github.com"), text: "a key".into(), md5: "aa:bb".into(), sha256: "SHA256:x".into() };
    let secret = || spelled(Secret { value: "hunter2".into() });
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    vec![
        (put.clone(), "/api/v2/context/prod/environment-variable/KEY", secret()),
        (get.clone(), "/api/v2/context", Value::Null),
        (get.clone(), "/api/v2/context/prod/environment-variable", Value::Null),
        (delete.clone(), "/api/v2/context/prod/environment-variable/KEY", Value::Null),
        (post.clone(), "/api/v2/project/gh%2Facme%2Fshop/pipeline", spelled(submit)),
        (put.clone(), "/api/v2/project/gh%2Facme%2Fshop/envvar/KEY", secret()),
        (get.clone(), "/api/v2/project/gh%2Facme%2Fshop/envvar", Value::Null),
        (delete, "/api/v2/project/gh%2Facme%2Fshop/envvar/KEY", Value::Null),
        (put, "/api/v2/project/gh%2Facme%2Fshop/deploy-key", spelled(key)),
        (get.clone(), "/api/v2/pipeline?project=gh%2Facme%2Fshop", Value::Null),
        (get.clone(), "/api/v2/pipeline/{pipeline}", Value::Null),
        (get.clone(), "/api/v2/pipeline/{pipeline}/events?after=0", Value::Null),
        (get, "/api/v2/task/{task}/logs", Value::Null),
        (post.clone(), "/api/v2/pipeline/{pipeline}/approve/hold", spelled(Approve { approved: true })),
        (post.clone(), "/api/v2/pipeline/{pipeline}/cancel", spelled(CancelPipeline { at_once: true })),
        (post, "/api/v2/pipeline/{pipeline}/rerun", spelled(Rerun { from_failed: false })),
    ]
}

/// Asks all of it. Lines as they are kept.
async fn asked(scene: &Scene, requests: &[(Method, String, Value)]) -> Vec<Value> {
    let admin = scene.token(Scope::Admin).await;
    let mut lines = Vec::new();
    for (method, path, body) in requests {
        let today = path.replace("{pipeline}", &scene.pipeline).replace("{task}", &scene.task);
        let bytes = if body.is_null() { String::new() } else { body.to_string() };
        let answer = scene.ask(method, &today, Some(&admin), bytes).await;
        let answered = String::from_utf8(answer.body.to_vec()).unwrap();
        let (method, status) = (method.as_str(), answer.status.as_u16());
        lines.push(json!({"method": method, "path": path, "body": body, "status": status, "answer": answered}));
    }
    lines
}

/// Today's client understands the answer.
fn reads(line: &Value) {
    fn read<T: DeserializeOwned>(line: &Value, text: &str) {
        serde_json::from_str::<T>(text).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    let path = line["path"].as_str().unwrap().split('?').next().unwrap();
    let text = line["answer"].as_str().unwrap();
    let last = path.rsplit('/').next().unwrap();
    match (line["method"].as_str().unwrap(), last) {
        ("GET", "events") => text.lines().for_each(|event| read::<NumberedEvent>(line, event)),
        ("GET", "logs") => read::<Page<Log>>(line, text),
        ("GET", "pipeline") => read::<Page<Pipeline>>(line, text),
        ("GET", "{pipeline}") => read::<PipelineDetail>(line, text),
        ("GET", _) => read::<Page<Named>>(line, text),
        ("POST", "pipeline" | "rerun") => read::<Submitted>(line, text),
        _ => read::<Message>(line, text),
    }
}

#[tokio::test]
async fn recorded_requests_are_answered_as_they_were_and_recorded_answers_are_read() {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/recorded");
    if std::env::var_os("NAVVY_RECORD").is_some() {
        let scene = Scene::new(databases().await.into_iter().next().unwrap()).await;
        let requests: Vec<_> =
            requests().into_iter().map(|(method, path, body)| (method, path.to_owned(), body)).collect();
        let text: String = asked(&scene, &requests).await.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(recordings.join(format!("http-{}.jsonl", env!("CARGO_PKG_VERSION"))), text).unwrap();
    }
    let mut played = 0;
    for entry in std::fs::read_dir(&recordings).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with("http-") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let request = |line: &Value| {
            let method = line["method"].as_str().unwrap().parse().unwrap();
            (method, line["path"].as_str().unwrap().to_owned(), line["body"].clone())
        };
        let requests: Vec<_> = lines.iter().map(request).collect();
        for database in databases().await {
            let scene = Scene::new(database).await;
            for (today, before) in asked(&scene, &requests).await.iter().zip(&lines) {
                assert_eq!(today["status"], before["status"], "{}: {before}\n{today}", path.display());
                assert_eq!(before["status"], 200, "{before}");
                reads(before);
                reads(today);
            }
            played += 1;
        }
    }
    assert!(played >= 1, "there is no recording in {}", recordings.display());
}
