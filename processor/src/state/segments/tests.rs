use proptest::prelude::*;

use super::super::tests::{Database, add_task, databases};
use super::*;

const TASK: &str = "0123456789abcdef";
const OF: Holder<'_> = Holder { task: TASK, fence: 1 };

fn segment(log: &str, start: u64, length: u64) -> Segment {
    let sha256 = format!("{start:032x}{length:032x}");
    Segment { log: log.into(), start, length, stored: 9, sha256, object: format!("v1/log/p/t/{log}/{start}-x") }
}

async fn prepared() -> Vec<Database> {
    let databases = databases().await;
    for database in &databases {
        add_task(database, TASK, "claimed", 1).await;
    }
    databases
}

#[tokio::test]
async fn segments_are_entered_in_any_order_and_the_mark_stops_at_the_first_gap() {
    for state in prepared().await {
        let commit = async |segments: &[Segment]| state.commit_segments(OF, segments).await.unwrap()[0].durable;
        assert_eq!(commit(&[segment("001-1", 10, 10)]).await, 0);
        assert_eq!(commit(&[segment("001-1", 30, 5), segment("001-1", 0, 10)]).await, 20);
        assert_eq!(commit(&[segment("001-1", 20, 10)]).await, 35);
        // Handed over once more, as by an agent that did not see the answer.
        assert_eq!(commit(&[segment("001-1", 20, 10), segment("001-1", 35, 1)]).await, 36);
        assert_eq!(state.log(TASK, "001-1").await.unwrap().unwrap().durable, 36);
        assert_eq!(state.log(TASK, "001-2").await.unwrap(), None);
        let from = state.segments_from(TASK, "001-1", 19, 2).await.unwrap();
        assert_eq!(from.iter().map(|segment| segment.start).collect::<Vec<_>>(), [10, 20]);
        assert_eq!(from[0], segment("001-1", 10, 10));
        assert!(state.segments_from(TASK, "001-1", 36, 2).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_contradicts_the_index_is_refused_whole() {
    for state in prepared().await {
        state.commit_segments(OF, &[segment("001-1", 10, 10)]).await.unwrap();
        for (start, length) in [(5, 6), (19, 4), (12, 3), (5, 30), (10, 9), (10, 11)] {
            let both = [segment("000-1", 0, 4), segment("001-1", start, length)];
            let error = state.commit_segments(OF, &both).await.unwrap_err().to_string();
            let end = start + length;
            assert_eq!(
                error,
                format!("bytes {start} to {end} of log 001-1 overlap with bytes 10 to 20, which are durable")
            );
        }
        let other = Segment { sha256: "0".repeat(64), ..segment("001-1", 10, 10) };
        let error = state.commit_segments(OF, &[other]).await.unwrap_err().to_string();
        assert_eq!(error, "bytes 10 to 20 of log 001-1 are durable with another SHA-256");
        assert_eq!(state.log(TASK, "000-1").await.unwrap(), None, "nothing of it was entered");
    }
}

#[tokio::test]
async fn only_the_agent_that_has_the_task_enters_segments() {
    for state in prepared().await {
        let late = Holder { task: TASK, fence: 0 };
        let refused = state.commit_segments(late, &[segment("001-1", 0, 10)]).await;
        assert!(matches!(refused, Err(SegmentsError::LeaseLost)), "{refused:?}");
        add_task(&state, "fedcba9876543210", "ended", 1).await;
        let ended = Holder { task: "fedcba9876543210", fence: 1 };
        let refused = state.commit_segments(ended, &[segment("001-1", 0, 10)]).await;
        assert!(matches!(refused, Err(SegmentsError::LeaseLost)), "{refused:?}");
        let nobody = Holder { task: "ffffffffffffffff", fence: 1 };
        let refused = state.commit_segments(nobody, &[segment("001-1", 0, 10)]).await;
        assert!(matches!(refused, Err(SegmentsError::LeaseLost)), "{refused:?}");
    }
}

#[tokio::test]
async fn an_end_is_told_once() {
    for state in prepared().await {
        let end = |bytes: u64| BTreeMap::from([("001-1".to_owned(), (bytes, "ab".repeat(32)))]);
        state.end_logs(OF, &end(7)).await.unwrap();
        state.end_logs(OF, &end(7)).await.unwrap();
        let error = state.end_logs(OF, &end(8)).await.unwrap_err().to_string();
        assert!(error.starts_with("log 001-1 ends at byte 7, as its agent has said before"), "{error}");
        assert_eq!(state.log(TASK, "001-1").await.unwrap().unwrap().end, Some((7, "ab".repeat(32))));
        let late = Holder { task: TASK, fence: 2 };
        assert!(matches!(state.end_logs(late, &end(7)).await, Err(SegmentsError::LeaseLost)));
    }
}

#[tokio::test]
async fn gaps_are_named() {
    for state in prepared().await {
        let segments = [segment("001-1", 0, 10), segment("001-1", 15, 5), segment("001-1", 30, 5)];
        state.commit_segments(OF, &segments).await.unwrap();
        assert_eq!(state.gaps(TASK, "001-1", 50, 9).await.unwrap(), [10..15, 20..30, 35..50]);
        assert_eq!(state.gaps(TASK, "001-1", 25, 9).await.unwrap(), [10..15, 20..25]);
        assert_eq!(state.gaps(TASK, "001-1", 50, 1).await.unwrap(), vec![10..15_u64; 1]);
        assert_eq!(state.gaps(TASK, "001-1", 10, 9).await.unwrap(), []);
        assert_eq!(state.gaps(TASK, "001-2", 3, 9).await.unwrap(), vec![0..3_u64; 1]);
        assert_eq!(state.extent(TASK, "001-1").await.unwrap(), 35);
    }
}

#[tokio::test]
async fn a_task_that_is_handed_out_again_begins_anew() {
    for state in prepared().await {
        state.commit_segments(OF, &[segment("000-1", 0, 10)]).await.unwrap();
        state.forget_logs(TASK).await.unwrap();
        assert!(state.logs(TASK).await.unwrap().is_empty());
        assert_eq!(state.commit_segments(OF, &[segment("000-1", 0, 3)]).await.unwrap()[0].durable, 3);
    }
}

#[tokio::test]
async fn two_that_enter_at_once_leave_no_segment_behind_the_mark() {
    for state in prepared().await {
        let each = (0..40_u64).map(|nth| {
            let state = state.clone();
            async move { state.commit_segments(OF, &[segment("001-1", nth * 10, 10)]).await.map(drop) }
        });
        futures_util::future::try_join_all(each).await.unwrap();
        assert_eq!(state.log(TASK, "001-1").await.unwrap().unwrap().durable, 400);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_mark_is_the_end_of_the_first_run(mut order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(), lengths in prop::collection::vec(1..50_u64, 12), left in 0..12_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let starts: Vec<u64> = lengths.iter().scan(0, |at, length| { *at += length; Some(*at - length) }).collect();
            order.truncate(left);
            for state in prepared().await {
                for nth in &order {
                    let entered = state.commit_segments(OF, &[segment("001-1", starts[*nth], lengths[*nth])]).await;
                    entered.unwrap();
                }
                let run = (0..12).take_while(|nth| order.contains(nth)).last();
                let expected = run.map_or(0, |nth| starts[nth] + lengths[nth]);
                let durable = state.log(TASK, "001-1").await.unwrap().map_or(0, |log| log.durable);
                assert_eq!(durable, expected);
            }
        });
    }
}
