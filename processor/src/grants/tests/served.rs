//! One body through the processor.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use navvy_storage::suite::{cache, won};

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
