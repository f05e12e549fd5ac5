use super::*;

#[tokio::test]
async fn what_lies_in_the_store_becomes_durable() {
    for bench in benches().await {
        let first = bench.put("003-1", 0, b"hello ").await;
        let second = bench.put("003-1", 6, b"world").await;
        assert_eq!(bench.commit(&[second]).await.unwrap(), 0);
        assert_eq!(bench.commit(std::slice::from_ref(&first)).await.unwrap(), 11);
        // Once more, and with an object of its own that nobody needs.
        assert_eq!(bench.commit(&[first]).await.unwrap(), 11);
        assert_eq!(bench.put_and_commit("003-1", 0, b"hello ").await, 11);
        // Once more, and the object that was put beside has been swept since.
        let again = bench.put("003-1", 6, b"world").await;
        bench
            .store
            .remove(&bench.store.paths().into_iter().find(|path| path.ends_with(&again.object)).unwrap())
            .await
            .unwrap();
        assert_eq!(bench.commit(&[again]).await.unwrap(), 11);
        let marks = bench.output.marks(TASK).await.unwrap();
        assert_eq!(marks.iter().map(|mark| (&*mark.log, mark.durable)).collect::<Vec<_>>(), [("003-1", 11)]);
    }
}

#[tokio::test]
async fn what_does_not_lie_there_is_not_durable() {
    for bench in benches().await {
        let good = bench.put("003-1", 0, b"hello ").await;
        let cut = bench.put("003-1", 6, b"world").await;
        let path = bench.store.paths().into_iter().find(|path| path.contains("/6-")).unwrap();
        bench.store.change(&path, |bytes| bytes.slice(1..));
        let never = v1::Segment { object: "f".repeat(32), ..bench.put("003-1", 11, b"!").await };
        let error = bench.commit(&[good.clone(), cut.clone()]).await.unwrap_err().to_string();
        let found = format!("the object has {} instead of {} bytes", cut.stored - 1, cut.stored);
        assert!(error.contains("bytes 6 to 11 of log 003-1 are not in the store") && error.contains(&found), "{error}");
        let error = bench.commit(&[good.clone(), never]).await.unwrap_err().to_string();
        assert!(error.contains("the object has no instead of"), "{error}");
        assert!(bench.output.marks(TASK).await.unwrap().is_empty());
        assert_eq!(bench.commit(&[good]).await.unwrap(), 6);
    }
}

#[tokio::test]
async fn a_grant_holds_no_path_and_shows_no_url() {
    for bench in benches().await {
        let segment = bench.put("003-1", 0, b"hello").await;
        let grant = bench.output.grant(&access(TASK), &segment).await.unwrap();
        assert_ne!(grant.object, segment.object);
        assert_eq!(grant.url, format!("memory:v1/log/a-pipeline/{TASK}/003-1/0-{}", grant.object));
        assert!(!format!("{grant:?}").contains("memory:"));
    }
}

#[tokio::test]
async fn too_many_segments_in_one_call_are_refused() {
    for bench in benches().await {
        let segment = bench.put("003-1", 0, b"hello").await;
        let error = bench.commit(&vec![segment; 1025]).await.unwrap_err().to_string();
        assert!(error.contains("at most 1024 segments, and not 1025"), "{error}");
    }
}
