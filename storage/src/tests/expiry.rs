//! What is older than a rule goes, in two steps and in rounds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::super::suite::server::server;
use super::super::*;

const OLD: Duration = Duration::ZERO;

/// A directory, and a real server.
fn buckets() -> Vec<(Arc<Bucket>, Box<dyn std::any::Any>)> {
    let directory = tempfile::tempdir().unwrap();
    let file = Bucket::directory(directory.path()).unwrap();
    let cloud = server().settings(&server().endpoint).open().unwrap();
    vec![(Arc::new(file), Box::new(directory)), (Arc::new(cloud), Box::new(()))]
}

async fn put(store: &Store, place: Slot, pipeline: &str) -> Entry {
    let reservation = store.reserve(place).await.unwrap();
    let bytes = futures_util::stream::iter([Ok(Bytes::from_static(b"content"))]);
    let body = store.put(&reservation, bytes).await.unwrap();
    let producer = Producer { pipeline: Some(pipeline.to_owned()), ..Producer::default() };
    match store.commit(&reservation, &body, About { producer, ..About::default() }).await.unwrap() {
        Commit::Won(entry) => entry,
        other => panic!("{other:?}"),
    }
}

fn piece(of: PieceKind, group: &str) -> Slot {
    Slot::Piece(Piece { of, group: group.to_owned(), producer: "job".to_owned(), node: 0, step: 0 })
}

async fn expire(
    bucket: &Arc<Bucket>,
    what: Kept,
    older: Duration,
    spares: impl Fn(&Entry) -> bool + Send + Sync,
) -> Expired {
    let mut place = Place::default();
    let expired = bucket.expire(what, older, &mut place, &spares).await.unwrap();
    assert!(place.is_start() && expired.failed.is_empty(), "{expired:?}");
    expired
}

#[tokio::test]
async fn an_old_entry_is_not_found_any_more_and_who_reads_it_reads_on_until_the_sweep() {
    for (bucket, _holds) in buckets() {
        let store = Store::direct(bucket.clone(), "project", TrustScope::Trusted, Shape::default());
        let cache = put(&store, Slot::Cache { key: "deps".to_owned() }, "p").await;
        let artifacts = put(&store, piece(PieceKind::Artifacts, "p"), "p").await;
        let results = put(&store, piece(PieceKind::TestResults, "p"), "p").await;
        assert_eq!(expire(&bucket, Kept::Caches, Duration::from_secs(3600), |_| false).await, Expired::default());
        assert!(store.look_up(&["deps".to_owned()]).await.unwrap().is_some(), "it is too young");
        // Twice, as two processors may.
        assert_eq!(expire(&bucket, Kept::Caches, OLD, |_| false).await.hidden, 1);
        assert_eq!(expire(&bucket, Kept::Caches, OLD, |_| false).await, Expired::default());
        assert!(store.look_up(&["deps".to_owned()]).await.unwrap().is_none());
        let read: Vec<Bytes> = store.get(cache.body()).try_collect().await.unwrap();
        assert_eq!(read.concat(), b"content", "a job is in the middle of it");
        // Other kinds are other rules'.
        assert!(store.find(&artifacts.record.place).await.unwrap().is_some());
        assert!(store.find(&results.record.place).await.unwrap().is_some());
        assert_eq!(bucket.sweep(SWEEP_AFTER).await.unwrap(), Swept::default(), "not before its readers are gone");
        assert_eq!(bucket.sweep(OLD).await.unwrap().bodies, 1);
        let gone = store.get(cache.body()).try_collect::<Vec<Bytes>>().await;
        assert!(matches!(gone, Err(StorageError::Missing { .. })), "{gone:?}");
        // Its key is free.
        put(&store, Slot::Cache { key: "deps".to_owned() }, "p").await;
    }
}

#[tokio::test]
async fn what_is_needed_is_spared() {
    for (bucket, _holds) in buckets() {
        let store = Store::direct(bucket.clone(), "project", TrustScope::Trusted, Shape::default());
        let (needed, old) = (piece(PieceKind::Layer, "w1"), piece(PieceKind::Layer, "w2"));
        put(&store, needed.clone(), "runs").await;
        put(&store, old.clone(), "is over").await;
        let expired =
            expire(&bucket, Kept::Layers, OLD, |entry| entry.record.producer.pipeline.as_deref() == Some("runs")).await;
        assert_eq!((expired.hidden, expired.spared), (1, 1));
        assert!(store.find(&needed).await.unwrap().is_some() && store.find(&old).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_round_ends_and_the_next_one_goes_on_behind_it() {
    for (bucket, _holds) in buckets() {
        for nth in 0..7 {
            bucket.write(&format!("v1/cache/n/{nth}"), "x".into()).await.unwrap();
        }
        bucket.write("v1/cached", "x".into()).await.unwrap();
        let (mut place, mut seen, mut rounds) = (Place::default(), Vec::new(), 0);
        loop {
            let (objects, next) = bucket.list_some("v1/cache/", place, 3).await.unwrap();
            assert!(objects.len() <= 3);
            seen.extend(objects.into_iter().map(|object| object.path));
            (place, rounds) = (next, rounds + 1);
            if place.is_start() {
                break;
            }
        }
        let all: Vec<String> = (0..7).map(|nth| format!("v1/cache/n/{nth}")).collect();
        assert_eq!((seen, rounds), (all, 3));
    }
}
