//! Bodies through the processor, by its URLs and past them.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use navvy_protocol::processor::v1;
use navvy_storage::suite::{cache, won};
use navvy_storage::{About, Body, Commit, Grantor as _, Ledger as _, Reservation};
use sha2::Digest as _;
use sqlx::Row as _;

use super::raw::{ask, break_off, send};
use super::*;

const SHAPE: Shape = Shape { part: 10, parallel: 2 };

#[tokio::test]
async fn a_body_goes_through_the_processor_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::new(Arc::new(Bucket::directory(directory.path()).unwrap())).await;
    let store = bench.store(&usual(&bench).await.token, SHAPE);
    let entry = won(&store, cache("k"), b"one body").await;
    let other = bench.store(&usual(&bench).await.token, SHAPE);
    let hit = other.look_up(&["k".into()]).await.unwrap().unwrap();
    let bytes: Vec<Bytes> = other.get(hit.entry.body()).try_collect().await.unwrap();
    assert_eq!((bytes.concat(), hit.entry.body()), (b"one body".to_vec(), entry.body()));
}

/// A body that a task has reserved, and where its URLs lead.
struct Reserved {
    directory: tempfile::TempDir,
    bench: Bench,
    remote: Remote,
    reservation: Reservation,
}

impl Reserved {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bench = Bench::new(Arc::new(Bucket::directory(directory.path()).unwrap())).await;
        let remote = bench.remote(&usual(&bench).await.token);
        let reservation = remote.reserve(cache("k")).await.unwrap();
        Self { directory, bench, remote, reservation }
    }

    fn target(&self, url: &str) -> String {
        url.strip_prefix(&self.bench.people).unwrap().to_owned()
    }

    async fn put_target(&self, length: u64) -> String {
        self.target(&self.remote.put_url(self.reservation.id, length).await.unwrap())
    }

    async fn put(&self, target: &str, body: &[u8]) -> u16 {
        ask(&self.bench.people, "PUT", target, Some(body)).await.status
    }

    /// What is stored as the body.
    fn stored(&self) -> Option<Vec<u8>> {
        std::fs::read(self.directory.path().join(format!("v1/body/{}", self.reservation.id))).ok()
    }

    async fn commit(&self, content: &[u8]) -> navvy_storage::Result<Commit> {
        let sha256 = sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let body = Body { id: self.reservation.id, size: content.len() as u64, sha256 };
        self.remote.commit(&self.reservation, &body, About::default()).await
    }
}

#[tokio::test]
async fn a_url_takes_as_many_bytes_as_it_says_and_all_or_none() {
    let reserved = Reserved::new().await;
    let target = reserved.put_target(6).await;
    let people = &reserved.bench.people;
    assert_eq!(reserved.put(&target, b"abcde").await, 400);
    assert_eq!(reserved.put(&target, b"abcdefg").await, 413);
    let head = |more: &str| format!("PUT {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n");
    assert_eq!(send(people, &head(""), b"").await.status, 411);
    let chunked = b"6\r\nabcdef\r\n0\r\n\r\n";
    assert_eq!(send(people, &head("Transfer-Encoding: chunked\r\n"), chunked).await.status, 411);
    // It promises six, and ends after three.
    assert_ne!(break_off(people, &head("Content-Length: 6\r\n"), b"abc").await.status, 200);
    assert_eq!(reserved.stored(), None);
    assert_eq!(reserved.put(&target, b"abcdef").await, 200);
    assert_eq!(reserved.stored().unwrap(), b"abcdef");
    // Nothing is left of what was refused.
    let left = std::fs::read_dir(reserved.directory.path().join("v1/body")).unwrap().count();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_url_leads_to_its_object_by_its_verb_alone() {
    let reserved = Reserved::new().await;
    let people = &reserved.bench.people;
    let put = reserved.put_target(6).await;
    let (path, query) = put.split_once('?').unwrap();
    for method in ["GET", "HEAD", "POST", "DELETE", "PATCH", "OPTIONS"] {
        assert_eq!(ask(people, method, &put, None).await.status, 403, "{method}");
    }
    let id = reserved.reservation.id;
    let other = reserved.remote.reserve(cache("other")).await.unwrap().id;
    for trick in [
        format!("/store/v1/body/{other}"),
        format!("/store/v1/reserved/{id}"),
        format!("/store/v1/body/../reserved/{id}"),
        format!("/store/v1/body/x/../{id}"),
        format!("/store/v1/body/./{id}"),
        format!("/store//v1/body/{id}"),
        format!("/store/v1/body/{id}/"),
        format!("/store/v1/body/{id}%00"),
        format!("/store/v1/%62ody/{id}"),
        format!("/store/v1%2Fbody%2F{id}"),
        format!("/store/v1/body/%2e%2e/reserved/{id}"),
        format!("/store/V1/BODY/{id}"),
        "/store/../../../../etc/passwd".to_owned(),
        "/store/%2e%2e%2f%2e%2e%2fetc%2fpasswd".to_owned(),
        "/store//etc/passwd".to_owned(),
        "/store/x".to_owned(),
    ] {
        for method in ["GET", "PUT"] {
            let status = ask(people, method, &format!("{trick}?{query}"), Some(b"abcdef")).await.status;
            assert!(matches!(status, 403 | 404), "{method} {trick}: {status}");
        }
    }
    assert!(matches!(ask(people, "PUT", path, Some(b"abcdef")).await.status, 403));
    assert_eq!(reserved.stored(), None);
    // A URL of another life of the processor, and of a processor beside it.
    let bucket = Arc::new(Bucket::directory(reserved.directory.path()).unwrap());
    let beside = Bench::over(bucket, reserved.bench.state.clone()).await;
    assert_eq!(ask(&beside.people, "PUT", &put, Some(b"abcdef")).await.status, 403);
    assert_eq!(reserved.put(&put, b"abcdef").await, 200);
}

#[tokio::test]
async fn ranges_come_as_they_were_asked_for() {
    let reserved = Reserved::new().await;
    assert_eq!(reserved.put(&reserved.put_target(6).await, b"abcdef").await, 200);
    reserved.commit(b"abcdef").await.unwrap();
    let get = reserved.target(&reserved.remote.get_url(reserved.reservation.id).await.unwrap());
    let people = &reserved.bench.people;
    let whole = ask(people, "GET", &get, None).await;
    assert_eq!((whole.status, &*whole.body), (200, &b"abcdef"[..]));
    let range = async |range: &str| {
        let head = format!("GET {get} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: {range}\r\n\r\n");
        send(people, &head, b"").await
    };
    for (asked, span, content) in [
        ("bytes=1-3", "bytes 1-3/6", &b"bcd"[..]),
        ("bytes=4-", "bytes 4-5/6", b"ef"),
        ("bytes=0-99", "bytes 0-5/6", b"abcdef"),
    ] {
        let answer = range(asked).await;
        assert_eq!((answer.status, &*answer.body), (206, content), "{asked}");
        assert!(answer.head.to_ascii_lowercase().contains(&format!("content-range: {span}")), "{}", answer.head);
    }
    assert_eq!(range("bytes=6-7").await.status, 416);
    for odd in ["bytes=0-1,3-4", "bytes=-2", "lines=1-2", "bytes=3-1"] {
        assert_eq!(range(odd).await.status, 400, "{odd}");
    }
}

#[tokio::test]
async fn what_is_committed_does_not_change_any_more() {
    let reserved = Reserved::new().await;
    let early = reserved.put_target(3).await;
    assert!(reserved.commit(b"abc").await.is_err(), "nothing was uploaded");
    assert_eq!(reserved.put(&early, b"abc").await, 200);
    assert!(reserved.commit(b"abcd").await.is_err(), "less was uploaded");
    let elsewhere = Reservation::of_age(reserved.reservation.id, cache("another"), std::time::Duration::ZERO);
    let body = Body { id: reserved.reservation.id, size: 3, sha256: "0".repeat(64) };
    let error = reserved.remote.commit(&elsewhere, &body, About::default()).await.unwrap_err();
    assert!(error.to_string().contains("another place"), "{error}");
    let Commit::Won(entry) = reserved.commit(b"abc").await.unwrap() else { panic!("lost") };
    // Its answer was lost.
    assert_eq!(reserved.commit(b"abc").await.unwrap(), Commit::Won(entry.clone()));
    // A URL that is still good, and one that it may want now.
    assert_eq!(reserved.put(&early, b"xyz").await, 404);
    let error = reserved.remote.put_url(reserved.reservation.id, 3).await.unwrap_err();
    assert!(error.to_string().contains("does not change"), "{error}");
    assert!(reserved.remote.abandon(&reserved.reservation).await.is_err());
    assert_eq!(reserved.stored().unwrap(), b"abc");
    // Who it is by is not the agent's word.
    assert_ne!(entry.record.producer.task, "");
    assert!(entry.record.producer.pipeline.unwrap().starts_with("pipeline of "));
}

#[tokio::test]
async fn what_was_given_up_stays_given_up() {
    let reserved = Reserved::new().await;
    let early = reserved.put_target(3).await;
    for _ in 0..2 {
        reserved.remote.abandon(&reserved.reservation).await.unwrap();
    }
    assert_eq!(reserved.put(&early, b"abc").await, 404);
    for error in [
        reserved.remote.put_url(reserved.reservation.id, 3).await.unwrap_err(),
        reserved.remote.begin(reserved.reservation.id).await.unwrap_err(),
        reserved.commit(b"abc").await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("given up"), "{error}");
    }
}

#[tokio::test]
async fn another_processor_goes_on_where_one_ended() {
    let Reserved { directory, bench, remote, reservation } = Reserved::new().await;
    drop(remote);
    let (state, database) = (bench.state.clone(), bench._database);
    drop((bench.grants, bench._serving));
    let token = usual_token(&state, &reservation).await;
    let bench = Bench::over(Arc::new(Bucket::directory(directory.path()).unwrap()), state).await;
    let remote = bench.remote(&token);
    let upload = remote.begin(reservation.id).await.unwrap();
    let url = remote.part_url(reservation.id, &upload, 0, 3).await.unwrap();
    let answer = ask(&bench.people, "PUT", url.strip_prefix(&bench.people).unwrap(), Some(b"abc")).await;
    assert_eq!(answer.status, 200);
    let second = Bench::over(Arc::new(Bucket::directory(directory.path()).unwrap()), bench.state.clone()).await;
    let remote = second.remote(&token);
    remote.complete(reservation.id, &upload, vec!["\"3\"".into()]).await.unwrap();
    let body = Body { id: reservation.id, size: 3, sha256: "0".repeat(64) };
    assert!(matches!(remote.commit(&reservation, &body, About::default()).await.unwrap(), Commit::Won(_)));
    bench.remote(&token).get_url(reservation.id).await.expect("it was shown by the other one");
    drop(database);
}

/// A new token for the task that made this reservation.
async fn usual_token(state: &State, reservation: &Reservation) -> String {
    let select = "SELECT task FROM reservations WHERE body = $1";
    let row = sqlx::query(select).bind(reservation.id.to_string()).fetch_one(state.pool()).await.unwrap();
    state.new_token(&Scope::Task { task: row.get(0), fence: 1 }, "again").await.unwrap()
}

#[tokio::test]
async fn a_pipeline_s_tasks_read_its_working_tree() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::new(Arc::new(Bucket::directory(directory.path()).unwrap())).await;
    let (task, stranger) = (usual(&bench).await, usual(&bench).await);
    let path = crate::grants::tree_path("0123abcd").unwrap();
    bench.grants.objects().put(&path, Bytes::from_static(b"a tree")).await.unwrap();
    let submit = serde_json::json!({"config": "", "tree": "0123abcd"}).to_string();
    let insert = "INSERT INTO pipelines (id, project, number, created_ms, submit, compiled, scope, assumed, workspace_of, state, \
                  happenings, events) VALUES ($1, 'p', 1, 0, $2, '', 'trusted', '', '', '', 0, 0)";
    let query = sqlx::query(insert).bind(format!("pipeline of {}", task.id)).bind(submit);
    query.execute(bench.state.pool()).await.unwrap();
    let url = async |token: &str, name: &str| {
        let asked = v1::BodyRequest { body: name.to_owned(), length: 0 };
        let mut request = tonic::Request::new(asked);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        v1::storage_client::StorageClient::new(bench.channel.clone()).get_url(request).await
    };
    let granted = url(&task.token, "0123abcd").await.unwrap().into_inner().url;
    let got = ask(&bench.people, "GET", granted.strip_prefix(&bench.people).unwrap(), None).await;
    assert_eq!((got.status, &*got.body), (200, &b"a tree"[..]));
    assert!(url(&stranger.token, "0123abcd").await.is_err());
    for other in ["0123abce", "../body/x", "v1/tree/0123abcd", "", ".", "0123abcd/"] {
        assert!(url(&task.token, other).await.is_err(), "{other}");
    }
}

#[tokio::test]
async fn what_is_kept_of_a_task_ends_with_it() {
    let reserved = Reserved::new().await;
    let state = &reserved.bench.state;
    assert_eq!(crate::grants::forget_ended(state).await.unwrap(), 0);
    assert_eq!(reserved.put(&reserved.put_target(3).await, b"abc").await, 200);
    reserved.commit(b"abc").await.unwrap();
    sqlx::query("UPDATE tasks SET state = 'ended'").execute(state.pool()).await.unwrap();
    assert_eq!(crate::grants::forget_ended(state).await.unwrap(), 2, "a reservation, and the right to read");
}
