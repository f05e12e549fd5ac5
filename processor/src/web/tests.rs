//! What jobs left, over HTTP: as the agents store it, and as people read it.

use axum::http::{Method, StatusCode};
use navvy_protocol::api::{Artifact, Page, Test};
use navvy_results::keep::{self, Keeper};
use navvy_results::{Case, Outcome};
use navvy_storage::artifacts::{Name, producer};
use navvy_storage::{About, Bucket, Commit, Entry, Piece, PieceKind, Producer, Shape, Slot, Store};
use sqlx::Row as _;

use super::attacks::{Answer, Scene};
use crate::state::Scope;
use crate::state::tests::databases;

/// The store as the scene's tasks see it.
async fn store(scene: &Scene) -> Store {
    let row = sqlx::query("SELECT project, scope FROM tasks WHERE id = $1").bind(&scene.task);
    let row = row.fetch_one(scene.database.pool()).await.unwrap();
    let (project, scope): (String, String) = (row.try_get(0).unwrap(), row.try_get(1).unwrap());
    let bucket = Bucket::directory(scene.directory.path()).unwrap();
    Store::direct(std::sync::Arc::new(bucket), &project, scope.parse().unwrap(), Shape::default())
}

async fn leave(scene: &Scene, task: &str, step: u32, files: &[(&[u8], &str)]) -> Entry {
    let store = store(scene).await;
    let of = PieceKind::Artifacts;
    let place = Piece { of, group: scene.pipeline.clone(), producer: producer("main", "unit"), node: 0, step };
    let mut set = store.pack(store.reserve(Slot::Piece(place)).await.unwrap());
    for (name, content) in files {
        let bytes = futures_util::stream::iter([Ok(bytes::Bytes::from((*content).to_owned()))]);
        set.add(Name(name.to_vec()), "text/html", bytes).await.unwrap();
    }
    let producer = Producer { task: task.to_owned(), job: "unit".to_owned(), ..Producer::default() };
    match set.commit(About { producer, ..About::default() }).await.unwrap() {
        Commit::Won(entry) => entry,
        other => panic!("{other:?}"),
    }
}

async fn get(scene: &Scene, path: &str) -> Answer {
    let token = scene.token(Scope::Viewer).await;
    scene.ask(&Method::GET, path, Some(&token), "").await
}

async fn all<T: serde::de::DeserializeOwned>(scene: &Scene, path: &str) -> (Vec<T>, usize) {
    let (mut items, mut pages, mut token) = (Vec::new(), 0, None::<String>);
    loop {
        let query = token.map_or_else(String::new, |token| format!("?page-token={token}"));
        let answer = get(scene, &format!("{path}{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let page: Page<T> = serde_json::from_slice(&answer.body).unwrap();
        items.extend(page.items);
        pages += 1;
        match page.next_page_token {
            Some(next) => token = Some(next),
            None => return (items, pages),
        }
    }
}

/// Without the address that a processor has.
fn local(url: &str) -> &str {
    url.strip_prefix("http://here").unwrap()
}

#[tokio::test]
async fn artifacts_are_listed_and_read_whatever_they_are_called() {
    for database in databases().await {
        let scene = Scene::new(database).await;
        leave(&scene, &scene.task, 2, &[(b"../../etc/passwd", "first"), (b"log.txt", "old"), (b"\xff", "bytes")]).await;
        leave(&scene, &scene.task, 4, &[(b"log.txt", "newer\n"), (b"empty", "")]).await;
        // Its task is another pipeline's, whatever else it says.
        leave(&scene, "0123456789abcdef", 5, &[(b"strange", "strange")]).await;
        let (listed, _) = all::<Artifact>(&scene, &format!("/api/v2/pipeline/{}/artifacts", scene.pipeline)).await;
        let names: Vec<(&str, u32, u64)> = listed.iter().map(|it| (it.path.as_str(), it.step, it.size)).collect();
        assert_eq!(names, [("../../etc/passwd", 2, 5), ("\u{fffd}", 2, 5), ("log.txt", 4, 6), ("empty", 4, 0)]);
        assert_eq!((&listed[0].path_bytes, listed[1].path_bytes.as_deref()), (&None, Some(&b"\xff"[..])));
        assert_eq!((&*listed[0].job, &*listed[0].workflow, listed[0].node_index), ("unit", "main", 0));
        for (artifact, content) in listed.iter().zip(["first", "bytes", "newer\n", ""]) {
            let read = get(&scene, local(&artifact.url)).await;
            assert_eq!((read.status, &read.body[..]), (StatusCode::OK, content.as_bytes()));
            assert_eq!(read.media, "application/octet-stream", "no browser is to show it");
        }
        let rest = get(&scene, &format!("{}?offset=2", local(&listed[2].url))).await;
        assert_eq!(&rest.body[..], b"wer\n");
        let beyond = get(&scene, &format!("{}?offset=7", local(&listed[2].url))).await;
        assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
        let by_number = format!("/api/v2/project/gh%2Facme%2Fshop/{}/artifacts", listed[0].job_number);
        assert_eq!(all::<Artifact>(&scene, &by_number).await.0, listed);
        for nowhere in ["2-1", "2-99999", "3-0", "x", "2-", "5-0", "-1-0", "2-18446744073709551615"] {
            let path = format!("/api/v2/task/{}/artifact/{nowhere}", scene.task);
            assert_eq!(get(&scene, &path).await.status, StatusCode::NOT_FOUND, "{nowhere}");
        }
        let path = format!("/api/v2/pipeline/{}/artifacts", scene.pipeline);
        assert_eq!(get(&scene, &format!("{path}?job=other")).await.status, StatusCode::NOT_FOUND);
        assert_eq!(get(&scene, &format!("{path}?page-token=1")).await.status, StatusCode::BAD_REQUEST);
        assert_eq!(get(&scene, "/api/v2/project/gh%2Facme%2Fshop/77/artifacts").await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn many_artifacts_come_page_by_page() {
    for database in databases().await {
        let scene = Scene::new(database).await;
        let names: Vec<String> = (0..9000).map(|nth| format!("coverage/{nth:05}.html")).collect();
        let files: Vec<(&[u8], &str)> = names.iter().map(|name| (name.as_bytes(), "x")).collect();
        leave(&scene, &scene.task, 1, &files).await;
        leave(&scene, &scene.task, 2, &[(b"last", "x")]).await;
        let (listed, pages) = all::<Artifact>(&scene, &format!("/api/v2/pipeline/{}/artifacts", scene.pipeline)).await;
        assert!(pages > 1, "{pages}");
        let listed: Vec<String> = listed.into_iter().map(|it| it.path).collect();
        assert_eq!(listed[..9000], names);
        assert_eq!(listed[9000..], ["last"]);
    }
}

#[tokio::test]
async fn an_artifact_that_is_not_what_was_stored_is_cut_off() {
    for database in databases().await {
        let scene = Scene::new(database).await;
        let entry = leave(&scene, &scene.task, 1, &[(b"a", "what was stored")]).await;
        let path = scene.directory.path().join(format!("v1/body/{}", entry.body().id));
        let stored = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
        std::fs::write(&path, stored.replacen("was", "is!", 1)).unwrap();
        let token = scene.token(Scope::Viewer).await;
        let url = format!("/api/v2/task/{}/artifact/1-0", scene.task);
        assert!(scene.cut_off(&url, &token).await, "the last piece must not come");
    }
}

#[tokio::test]
async fn results_of_tests_are_listed_by_job() {
    for database in databases().await {
        let scene = Scene::new(database).await;
        let keeper = Keeper::new(store(&scene).await);
        let bad = Case {
            name: "adds".to_owned(),
            class: Some("Cart".to_owned()),
            file: Some("cart.rb".to_owned()),
            outcome: Outcome::Failed,
            micros: Some(1_500_000),
            message: Some("<b>expected</b>".to_owned()),
            place: Some("cart.rb:7".to_owned()),
        };
        let cases: Vec<Case> = std::iter::once(bad)
            .chain((0..2500).map(|nth| Case { name: nth.to_string(), ..Case::default() }))
            .collect();
        let whose = |task: &str, step| keep::Whose {
            job: "unit".to_owned(),
            run: scene.pipeline.clone(),
            task: task.to_owned(),
            step,
            ..keep::Whose::default()
        };
        keeper.put(&whose(&scene.task, 3), keep::document(&cases)).await.unwrap();
        keeper.put(&whose("0123456789abcdef", 4), keep::document(&cases)).await.unwrap();
        let path = format!("/api/v2/pipeline/{}/tests", scene.pipeline);
        let (tests, pages) = all::<Test>(&scene, &path).await;
        assert_eq!((tests.len(), pages), (2501, 3));
        let expected = Test {
            name: "adds".to_owned(),
            classname: "Cart".to_owned(),
            file: "cart.rb".to_owned(),
            result: "failure".to_owned(),
            message: "<b>expected</b>".to_owned(),
            run_time: Some(1.5),
            source: "junit".to_owned(),
            place: Some("cart.rb:7".to_owned()),
            workflow: "main".to_owned(),
            job: "unit".to_owned(),
            job_number: tests[0].job_number,
            node_index: 0,
        };
        assert_eq!(tests[0], expected);
        assert_eq!(tests[2500].name, "2499");
        let by_number = format!("/api/v2/project/gh%2Facme%2Fshop/{}/tests", tests[0].job_number);
        assert_eq!(all::<Test>(&scene, &by_number).await.0.len(), 2501);
    }
}
