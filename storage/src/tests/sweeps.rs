//! Sweeps of stores in which something is bad: all else goes, and what stays is named.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::super::record::BodyId;
use super::super::suite::server::server;
use super::super::*;
use super::proxy::{Asked, Fate, Proxy};

const SHAPE: Shape = Shape { part: 5 << 20, parallel: 2 };
const RETRIES: Retries = Retries {
    most: 2,
    within: Duration::from_secs(120),
    first: Duration::from_millis(1),
    last: Duration::from_millis(20),
};

fn cache(key: &str) -> Slot {
    Slot::Cache { key: key.to_owned() }
}

/// What a saver leaves that was killed behind its upload.
async fn forsaken(store: &Store, key: &str) -> BodyId {
    let reservation = store.reserve(cache(key)).await.unwrap();
    let bytes = futures_util::stream::iter([Ok(Bytes::from_static(b"x"))]);
    store.put(&reservation, bytes).await.unwrap();
    reservation.id
}

async fn layer(store: &Store, step: u32) -> Entry {
    let of = PieceKind::Layer;
    let place = Slot::Piece(Piece { of, group: "w".into(), producer: "job".into(), node: 0, step });
    let reservation = store.reserve(place).await.unwrap();
    let bytes = futures_util::stream::iter([Ok(Bytes::from_static(b"x"))]);
    let body = store.put(&reservation, bytes).await.unwrap();
    match store.commit(&reservation, &body, About::default()).await.unwrap() {
        Commit::Won(entry) => entry,
        other => panic!("{other:?}"),
    }
}

async fn beneath(bucket: &Bucket, prefix: &str) -> Vec<String> {
    bucket.list(prefix).await.unwrap().into_iter().map(|object| object.path).collect()
}

/// Every request whose target holds one of these fails, while `bad` says so.
struct Bad {
    parts: Arc<Mutex<Vec<String>>>,
    bad: Arc<AtomicBool>,
    proxy: Proxy,
}

impl Bad {
    async fn server() -> Self {
        let (parts, bad) = (Arc::new(Mutex::new(Vec::<String>::new())), Arc::new(AtomicBool::new(true)));
        let (fails, while_bad) = (Arc::clone(&parts), Arc::clone(&bad));
        let rule = move |asked: &Asked| {
            let fits = fails.lock().unwrap().iter().any(|part| asked.is("GET", part));
            if fits && while_bad.load(Ordering::Relaxed) { Fate::Answer(500) } else { Fate::Pass }
        };
        let proxy = Proxy::before(&server().endpoint, rule).await;
        Self { parts, bad, proxy }
    }

    fn open(&self) -> (Store, Arc<Bucket>) {
        let settings = StorageSettings { retries: RETRIES, ..server().settings(&self.proxy.endpoint) };
        let bucket = Arc::new(settings.open().unwrap());
        (Store::direct(bucket.clone(), "project", TrustScope::Trusted, SHAPE), bucket)
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_read_keeps_no_other_from_being_swept() {
    let server = Bad::server().await;
    let (store, bucket) = server.open();
    let mut ids = Vec::new();
    for key in ["a", "b", "c", "d"] {
        ids.push(forsaken(&store, key).await);
    }
    // Of one its mark cannot be read; of another its open uploads cannot be listed.
    let bad = [layout::reserved(ids[1]), layout::reserved(ids[2])];
    let encoded = layout::body(ids[2]).replace('/', "%2F");
    server.parts.lock().unwrap().extend([bad[0].clone(), encoded]);
    let swept = bucket.sweep(Duration::ZERO).await;
    let mut left = bad.to_vec();
    left.sort();
    assert_eq!(beneath(&bucket, "v1/reserved/").await, left);
    let mut swept = swept.unwrap();
    assert_eq!(swept.bodies, 2, "{swept:?}");
    swept.failed.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(swept.failed.iter().map(|failed| failed.path.clone()).collect::<Vec<_>>(), left);
    assert!(swept.failed.iter().all(|failed| failed.why.contains("500")), "{swept:?}");
    // A later one ends what this one could not.
    server.bad.store(false, Ordering::Relaxed);
    let swept = bucket.sweep(Duration::ZERO).await.unwrap();
    assert_eq!((swept.bodies, swept.failed), (2, Vec::new()));
    assert_eq!(beneath(&bucket, "v1/").await, [layout::CLOCK]);
}

#[tokio::test]
async fn a_layer_that_cannot_be_read_keeps_no_other_from_being_removed() {
    let server = Bad::server().await;
    let (store, bucket) = server.open();
    for step in [1, 2, 3] {
        layer(&store, step).await;
    }
    let all = beneath(&bucket, "v1/piece/layer/").await;
    assert_eq!(all.len(), 3);
    server.parts.lock().unwrap().push(all[0].clone());
    let removed = bucket.remove_old_layers(Duration::ZERO).await;
    assert_eq!(beneath(&bucket, "v1/piece/layer/").await, all[..1]);
    let removed = removed.unwrap();
    assert_eq!((removed.layers, removed.failed.len()), (2, 1), "{removed:?}");
    assert_eq!(removed.failed[0].path, all[0]);
}

/// A file that cannot be removed: a directory in its place, which says so as a bad disk would.
#[tokio::test]
async fn a_file_that_cannot_be_removed_keeps_no_other_from_being_swept() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Arc::new(Bucket::directory(directory.path()).unwrap());
    let store = Store::direct(bucket.clone(), "project", TrustScope::Trusted, SHAPE);
    let (bad, good) = (forsaken(&store, "a").await, forsaken(&store, "b").await);
    let at = |path: String| directory.path().join(path);
    let stuck = format!("{}#1", layout::body(bad));
    std::fs::create_dir(at(stuck.clone())).unwrap();
    std::fs::create_dir(at("v1/clock#1".to_owned())).unwrap();
    std::fs::write(at("v1/clock#2".to_owned()), "").unwrap();
    let swept = bucket.sweep(Duration::ZERO).await;
    assert!(!at(layout::reserved(good)).exists() && !at(layout::body(good)).exists());
    assert!(!at("v1/clock#2".to_owned()).exists());
    let mut swept = swept.unwrap();
    swept.failed.sort_by(|a, b| a.path.cmp(&b.path));
    let failed: Vec<&str> = swept.failed.iter().map(|failed| failed.path.as_str()).collect();
    assert_eq!(failed, [stuck.as_str(), "v1/clock#1"]);
    assert_eq!((swept.bodies, swept.staged), (2, 1), "{swept:?}");
    // Nothing but the mark knows of the file.
    assert!(at(layout::reserved(bad)).exists());
    std::fs::remove_dir(at(stuck)).unwrap();
    assert_eq!(bucket.sweep(Duration::ZERO).await.unwrap().failed.len(), 1);
    assert!(!at(layout::reserved(bad)).exists());
}

/// A processor's objects have no marks: what it was writing when it died is found where it lies.
#[tokio::test]
async fn what_a_processor_was_writing_is_swept_and_what_it_wrote_stays() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Arc::new(Bucket::directory(directory.path()).unwrap());
    let at = |path: &str| directory.path().join(path);
    let paths = ["v1/log/p/t/001-1/0-a", "v1/tree/0123.tar.zst", "audit-logs/audit_log/v1/2026-01-02/x.jsonl"];
    for path in paths {
        std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        std::fs::write(at(path), "whole").unwrap();
        std::fs::write(at(&format!("{path}#17")), "half").unwrap();
    }
    assert_eq!(bucket.sweep(SWEEP_AFTER).await.unwrap(), Swept::default(), "somebody may still write them");
    let swept = bucket.sweep(Duration::ZERO).await.unwrap();
    assert_eq!((swept.staged, swept.failed), (3, Vec::new()));
    for path in paths {
        assert!(at(path).exists() && !at(&format!("{path}#17")).exists(), "{path}");
    }
}
