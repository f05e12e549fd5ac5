//! Somebody else's token on every method, generated from the protocol's own description: a method or a field that is new
//! fails here until it is said what an attacker would put into it.

use bytes::Bytes;
use navvy_storage::suite::{cache, won};
use navvy_storage::{Body, Entry, Grantor as _, Ledger as _, Piece, PieceKind, Slot};
use tonic::{Code, Status};

use super::raw::{Method, Value, call, filled, methods};
use super::*;

const SHAPE: Shape = Shape { part: 10, parallel: 2 };

fn layer(group: &str) -> Slot {
    Slot::Piece(Piece { of: PieceKind::Layer, group: group.to_owned(), producer: "job".to_owned(), node: 0, step: 1 })
}

/// What somebody has in the store that is nobody else's affair.
struct Victim {
    task: Task,
    entry: Entry,
    /// Reserved, and an upload with one part.
    open: Body,
    upload: String,
}

impl Victim {
    async fn new(bench: &Bench, scope: &str, slot: Slot) -> Self {
        let task = bench.task(PROJECT, scope, WORKSPACE).await;
        let entry = won(&bench.store(&task.token, SHAPE), slot, b"nobody else's").await;
        let remote = bench.remote(&task.token);
        let reservation = remote.reserve(layer(WORKSPACE)).await.unwrap();
        let upload = remote.begin(reservation.id).await.unwrap();
        let url = remote.part_url(reservation.id, &upload, 0, 3).await.unwrap();
        let target = url.strip_prefix(&bench.people).unwrap();
        assert_eq!(raw::ask(&bench.people, "PUT", target, Some(b"abc")).await.status, 200);
        let open = Body { id: reservation.id, size: 3, sha256: "0".repeat(64) };
        Self { task, entry, open, upload }
    }

    /// What an attacker who has read all that the victim was ever told puts into a field.
    fn known(&self, field: &str, body: &Body) -> Value {
        let text = |text: &str| Value::Bytes(text.as_bytes().to_vec());
        let json = |json: serde_json::Value| Value::Bytes(json.to_string().into_bytes());
        match field.rsplit('.').next().unwrap() {
            "body" => text(&body.id.to_string()),
            "upload" => text(&self.upload),
            "entry" => Value::Bytes(serde_json::to_vec(&self.entry).unwrap()),
            "slot" => Value::Bytes(serde_json::to_vec(&self.entry.record.place).unwrap()),
            "listed" => json(serde_json::json!({
                "key": "k", "created": self.entry.created.to_string(), "path": navvy_storage::index_path(
                    &navvy_storage::Namespace::new(PROJECT, &self.entry.record.scope.parse().unwrap()),
                    &self.entry.record.place,
                    1000,
                ),
            })),
            "about" => json(serde_json::json!({
                "producer": {"pipeline": null, "job": "j", "task": self.task.id, "build_num": null}, "details": {},
            })),
            "kind" => text("layer"),
            "group" => text(WORKSPACE),
            "producers" => text("job"),
            "keys" | "prefix" => text("k"),
            "sha256" => text(&body.sha256),
            "why" => text("because"),
            "tags" => text("\"3\""),
            "size" | "length" => Value::Number(body.size),
            "part" | "from" | "all" => Value::Number(0),
            other => panic!("say what an attacker would put into {other}"),
        }
    }

    /// Every method with every body of the victim's.
    fn calls(&self) -> Vec<(Method, Vec<u8>)> {
        let bodies = [self.entry.body(), &self.open];
        let calls = methods("Storage").into_iter().flat_map(|method| {
            bodies.map(|body| (method.clone(), filled(&method.input, &|field| self.known(field, body))))
        });
        calls.collect()
    }

    /// Says something that only the victim may hear.
    fn is_told_by(&self, said: &[u8]) -> bool {
        let secrets =
            [self.entry.body().id.to_string(), self.open.id.to_string(), self.upload.clone(), "/store/".into()];
        secrets.iter().any(|secret| said.windows(secret.len()).any(|said| said == secret.as_bytes()))
    }
}

struct Scene {
    bench: Bench,
    directory: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bench = Bench::new(Arc::new(Bucket::directory(directory.path()).unwrap())).await;
        Self { bench, directory }
    }

    /// Tries every method. Nothing of the victim's may be told, and nothing may change but what the attacker reserved.
    async fn learns_nothing(&self, who: &str, token: Option<&str>, victim: &Victim) -> Vec<(String, Option<Status>)> {
        let before = files(self.directory.path());
        let mut ended = Vec::new();
        for (method, message) in victim.calls() {
            let answer = call(&self.bench.channel, &format!("Storage/{}", method.name), token, message).await;
            let (said, status) = match answer {
                Ok(said) => (said, None),
                Err(status) => (format!("{status:?}").into_bytes(), Some(status)),
            };
            assert!(!victim.is_told_by(&said), "{who}, {}: {}", method.name, String::from_utf8_lossy(&said));
            let mut after = files(self.directory.path());
            after.retain(|path, _| before.contains_key(path) || !path.contains("/v1/reserved/"));
            assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{who}, {}", method.name);
            assert!(after == before, "{who}, {}: the store has changed", method.name);
            ended.push((method.name, status));
        }
        ended
    }
}

#[tokio::test]
async fn without_a_task_s_token_no_method_does_anything() {
    let scene = Scene::new().await;
    let state = &scene.bench.state;
    let victim = Victim::new(&scene.bench, "trusted", cache("k")).await;
    let mut tokens =
        vec![("nobody", None), ("a guess", Some("navvy_guessed".to_owned())), ("empty", Some(String::new()))];
    let id = &victim.task.id;
    for (who, scope) in [
        ("an admin", Scope::Admin),
        ("a viewer", Scope::Viewer),
        ("a runner", Scope::Class("*".into())),
        ("a launch", Scope::Launch(id.clone())),
        ("an agent that had it before", Scope::Task { task: id.clone(), fence: 0 }),
        ("an agent that will have it", Scope::Task { task: id.clone(), fence: 2 }),
        ("a task that there is not", Scope::Task { task: "0000000000000000".into(), fence: 1 }),
    ] {
        tokens.push((who, Some(state.new_token(&scope, who).await.unwrap())));
    }
    let revoked = scene.bench.task(PROJECT, "trusted", WORKSPACE).await;
    state.revoke(&Scope::Task { task: revoked.id, fence: 1 }).await.unwrap();
    tokens.push(("a task that has ended", Some(revoked.token)));
    for (who, token) in tokens {
        for (method, status) in scene.learns_nothing(who, token.as_deref(), &victim).await {
            let code = status.map(|status| status.code());
            let refused = [Code::Unauthenticated, Code::PermissionDenied, Code::FailedPrecondition];
            assert!(code.is_some_and(|code| refused.contains(&code)), "{who}, {method}: {code:?}");
        }
    }
}

#[tokio::test]
async fn a_task_learns_and_changes_nothing_of_another_project_scope_or_workspace() {
    let scene = Scene::new().await;
    let of_fork = Victim::new(&scene.bench, "fork:victim", cache("k")).await;
    let layered = Victim::new(&scene.bench, "fork:victim", layer(WORKSPACE)).await;
    for (project, scope, workspace, victims) in [
        ("another project", "fork:victim", WORKSPACE, vec![&of_fork, &layered]),
        (PROJECT, "fork:mallory", WORKSPACE, vec![&of_fork, &layered]),
        (PROJECT, "trusted", WORKSPACE, vec![&of_fork, &layered]),
        (PROJECT, "local", WORKSPACE, vec![&of_fork, &layered]),
        (PROJECT, "fork:victim", "another workspace", vec![&layered]),
    ] {
        for victim in victims {
            let attacker = scene.bench.task(project, scope, workspace).await;
            let who = format!("{project}, {scope}, {workspace}");
            let mut victim_of_all = scene.learns_nothing(&who, Some(&attacker.token), victim).await;
            victim_of_all.retain(|(method, _)| method.ends_with("Url") || method.ends_with("Upload"));
            assert!(victim_of_all.len() >= 2 * 6, "{victim_of_all:?}");
            for (method, status) in victim_of_all {
                assert_eq!(status.map(|status| status.code()), Some(Code::PermissionDenied), "{who}, {method}");
            }
        }
    }
    let store = scene.bench.store(&of_fork.task.token, SHAPE);
    assert!(store.look_up(&["k".into()]).await.unwrap().is_some());
}

#[tokio::test]
async fn a_task_writes_what_it_reserved_and_reads_what_it_was_shown() {
    let scene = Scene::new().await;
    let victim = Victim::new(&scene.bench, "trusted", layer(WORKSPACE)).await;
    let sibling = scene.bench.task(PROJECT, "trusted", WORKSPACE).await;
    let remote = scene.bench.remote(&sibling.token);
    let id = victim.open.id;
    let reservation = navvy_storage::Reservation::of_age(id, layer(WORKSPACE), std::time::Duration::ZERO);
    let refused = [
        remote.put_url(id, 3).await.err(),
        remote.begin(id).await.err(),
        remote.part_url(id, &victim.upload, 0, 3).await.err(),
        remote.complete(id, &victim.upload, vec!["\"3\"".into()]).await.err(),
        remote.abort(id, &victim.upload).await.err(),
        remote.get_url(id).await.err(),
        remote.commit(&reservation, &victim.open, Default::default()).await.err(),
        remote.abandon(&reservation).await.err(),
    ];
    for (nth, error) in refused.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("{nth} was done")).to_string();
        assert!(error.contains("this task"), "{nth}: {error}");
    }
    // A layer of the own workspace: nobody may read it before it was shown, and everybody then.
    let body = victim.entry.body().id;
    assert!(remote.get_url(body).await.is_err());
    assert!(remote.find(&layer(WORKSPACE)).await.unwrap().is_some());
    remote.get_url(body).await.unwrap();
    // Its bytes are nobody's to change, its writer's least of all.
    for token in [&sibling.token, &victim.task.token] {
        let remote = scene.bench.remote(token);
        assert!(remote.put_url(body, 3).await.is_err() && remote.begin(body).await.is_err());
    }
}

#[tokio::test]
async fn a_fork_s_task_does_not_take_from_the_trusted_scope() {
    let scene = Scene::new().await;
    let trusted = scene.bench.store(&usual(&scene.bench).await.token, SHAPE);
    won(&trusted, cache("k"), b"trusted").await;
    let fork = scene.bench.store(&scene.bench.task(PROJECT, "fork:mallory", WORKSPACE).await.token, SHAPE);
    let hit = fork.look_up(&["k".into()]).await.unwrap().unwrap();
    fork.quarantine(&hit.entry, "so it says").await.unwrap();
    fork.remove(&hit.entry).await.unwrap();
    // It says that it is its own.
    let mut mine = hit.entry.clone();
    mine.record.scope = "fork:mallory".to_owned();
    fork.remove(&mine).await.unwrap();
    // Or that another entry has that body.
    let own = won(&fork, cache("own"), b"own").await;
    let mut theirs = own.clone();
    theirs.record.body = hit.entry.body().clone();
    fork.remove(&theirs).await.unwrap();
    fork.quarantine(&theirs, "so it says").await.unwrap();
    let still = trusted.look_up(&["k".into()]).await.unwrap().unwrap();
    assert_eq!(still.entry, hit.entry);
    let bytes: Vec<Bytes> = futures_util::TryStreamExt::try_collect(trusted.get(still.entry.body())).await.unwrap();
    assert_eq!(bytes.concat(), b"trusted");
    fork.remove(&own).await.unwrap();
    assert_eq!(fork.find(&cache("own")).await.unwrap(), None);
}
