//! Objects from streams that break off: nothing stays open.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::super::suite::server::server;
use super::super::*;
use super::proxy::{Asked, Fate, Proxy};
use super::signs_nothing;

const RETRIES: Retries = Retries {
    most: 2,
    within: Duration::from_secs(120),
    first: Duration::from_millis(1),
    last: Duration::from_millis(20),
};

fn objects(endpoint: &str) -> Objects {
    let settings = StorageSettings { retries: RETRIES, ..server().settings(endpoint) };
    Objects::new(Arc::new(settings.open().unwrap()), signs_nothing())
}

fn path() -> ObjectPath {
    ObjectPath::read("v1/tree/0123.tar.zst").unwrap()
}

fn pieces(count: usize) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + Unpin {
    futures_util::stream::iter((0..count).map(|_| Ok(Bytes::from(vec![7; 8 << 20]))))
}

async fn left(objects: &Objects) -> (Vec<String>, Vec<String>) {
    objects.settle().await;
    let uploads = objects.bucket().open_uploads(path().as_str()).await.unwrap();
    let there = objects.list("v1/tree/").await.unwrap();
    (uploads, there.into_iter().map(|stored| stored.path.to_string()).collect())
}

#[tokio::test]
async fn a_stream_that_ends_is_an_object_and_nothing_else() {
    let objects = objects(&server().endpoint);
    assert_eq!(objects.put_stream(&path(), 1 << 30, pieces(2)).await.unwrap(), 16 << 20);
    assert_eq!(objects.size(&path()).await.unwrap(), Some(16 << 20));
    assert_eq!(left(&objects).await, (vec![], vec![path().to_string()]));
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_dropped_or_is_too_long_leaves_no_upload_open() {
    let objects = objects(&server().endpoint);
    let mark = format!("{}.upload", path());
    let broken = pieces(1).chain(futures_util::stream::iter([Err(std::io::ErrorKind::BrokenPipe.into())]));
    assert!(matches!(objects.put_stream(&path(), 1 << 30, broken).await, Err(StorageError::Source(_))));
    assert_eq!(left(&objects).await, (vec![], vec![mark.clone()]));
    let long = objects.put_stream(&path(), 9 << 20, pieces(2)).await;
    assert!(matches!(long, Err(StorageError::TooLong { .. })));
    assert_eq!(left(&objects).await, (vec![], vec![mark.clone()]));
    // Its sender says nothing more, and whoever waited for it is dropped.
    let (told, begun) = tokio::sync::oneshot::channel();
    let silent = pieces(1).chain(futures_util::stream::once(async move {
        told.send(()).unwrap();
        std::future::pending().await
    }));
    let (silent, path_of_it) = (std::pin::pin!(silent), path());
    tokio::select! {
        _ = objects.put_stream(&path_of_it, 1 << 30, silent) => panic!("it has no end"),
        begun = begun => begun.unwrap(),
    }
    assert_eq!(left(&objects).await, (vec![], vec![mark]));
}

#[tokio::test]
async fn an_end_that_the_store_refuses_leaves_no_upload_open() {
    let ends = |asked: &Asked| match asked.is("POST", "uploadId=") {
        true => Fate::Answer(400),
        false => Fate::Pass,
    };
    let proxy = Proxy::before(&server().endpoint, ends).await;
    let objects = objects(&proxy.endpoint);
    objects.put_stream(&path(), 1 << 30, pieces(1)).await.unwrap_err();
    assert_eq!(left(&objects).await.0, Vec::<String>::new());
}

#[tokio::test]
async fn what_a_process_that_was_killed_has_left_is_taken_back_by_its_mark() {
    let objects = objects(&server().endpoint);
    let mark = ObjectPath::read(&format!("{}.upload", path())).unwrap();
    objects.put(&mark, Bytes::from_static(b"{}")).await.unwrap();
    // Nobody aborts it.
    std::mem::forget(objects.bucket().upload(path().as_str()).await.unwrap());
    assert_eq!(left(&objects).await.0.len(), 1);
    assert_eq!(objects.take_back(&mark, objects.now().await.unwrap()).await.unwrap(), 1);
    assert_eq!(left(&objects).await, (vec![], vec![]));
    assert_eq!(path().as_mark(), None);
    assert_eq!(objects.take_back(&path(), objects.now().await.unwrap()).await.unwrap(), 0, "it is no mark");
}
