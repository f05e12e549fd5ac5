//! The suite ([`crate::suite`]) in every home that this crate alone can put together.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan as _};
use object_store::memory::InMemory;

use super::super::suite::server::server;
use super::super::suite::{Home, PROJECT, SMALL, cache, keys, won};
use super::super::*;
use super::signs_nothing;

/// With credentials.
fn direct(bucket: Bucket, shape: Shape, holds: Box<dyn std::any::Any + Send>) -> Home {
    let bucket = Arc::new(bucket);
    let opened = bucket.clone();
    let open = move |scope: &str, _: &str| Store::direct(opened.clone(), PROJECT, scope.parse().unwrap(), shape);
    Home { bucket, shape, open: Box::new(open), holds }
}

async fn file() -> Home {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Bucket::directory(&directory.path().join("a store")).unwrap();
    direct(bucket, SMALL, Box::new(directory))
}

async fn memory() -> Home {
    let bucket = Bucket::plain("memory://".into(), "a/b", Arc::new(InMemory::new())).unwrap();
    direct(bucket, SMALL, Box::new(()))
}

/// It takes no smaller parts.
const SERVER_SHAPE: Shape = Shape { part: 5 << 20, parallel: 3 };

/// The real server, with its credentials.
async fn with_credentials() -> Home {
    let settings = server().settings(&server().endpoint);
    direct(settings.open().unwrap(), SERVER_SHAPE, Box::new(()))
}

/// The real server, with nothing but URLs.
async fn with_urls() -> Home {
    let settings = server().settings(&server().endpoint);
    let bucket = Arc::new(settings.open().unwrap());
    let objects = Objects::new(bucket.clone(), signs_nothing());
    let open = move |scope: &str, _: &str| {
        let grantor = Arc::new(objects.grants(PROJECT, scope.parse().unwrap()));
        Store::granted(grantor, settings.transport().unwrap(), Retries::default(), SERVER_SHAPE)
    };
    Home { bucket, shape: SERVER_SHAPE, open: Box::new(open), holds: Box::new(()) }
}

crate::told_by_every_home! {
    file: file(),
    server: with_credentials(),
    granted: with_urls(),
    memory: memory(),
}

/// The file of an index object, for whoever turns its clock.
fn index_file(home: &Home, key: &str) -> std::path::PathBuf {
    let namespace = layout::Namespace::new("project", &TrustScope::Trusted);
    let index = layout::index(&namespace, &Slot::Cache { key: key.to_owned() }, home.bucket.text_limit());
    home.bucket.as_directory().unwrap().join(index)
}

#[tokio::test]
async fn only_the_stores_clock_counts() {
    let home = file().await;
    let store = home.store("trusted");
    let first = won(&store, cache("k-1"), b"saved first").await;
    won(&store, cache("k-2"), b"saved last").await;
    // The store thought it was tomorrow, then yesterday.
    let (tomorrow, yesterday) = (first.created + 24.hours(), first.created - 24.hours());
    let stamp = |key: &str, time: Timestamp| {
        std::fs::File::options().write(true).open(index_file(&home, key)).unwrap().set_modified(time.into()).unwrap();
    };
    stamp("k-1", tomorrow);
    stamp("k-2", yesterday);
    let hit = store.look_up(&keys(&["k"])).await.unwrap().unwrap();
    assert_eq!((hit.entry.key(), hit.entry.created), (Some("k-1"), tomorrow));
    let listed: Vec<Timestamp> = store.list("k").await.unwrap().into_iter().map(|listed| listed.created).collect();
    assert_eq!(listed, [tomorrow, yesterday]);
}
