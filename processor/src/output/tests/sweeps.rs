use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::output::sweep::Swept;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn swept(orphans: u64, old: u64) -> Swept {
    Swept { orphans, old, ..Swept::default() }
}

impl Bench {
    /// Time passes for the store, and for the task's row.
    async fn days_later(&self, days: i64) {
        let gone = SignedDuration::from_hours(24 * days);
        self.store.set_clock(Timestamp::now() + gone);
        let update = sqlx::query("UPDATE tasks SET queued_ms = $1").bind(Timestamp::now().as_millisecond());
        update.execute(self.database.pool()).await.unwrap();
    }
}

#[tokio::test]
async fn only_what_nobody_will_commit_is_an_orphan() {
    for bench in benches().await {
        bench.store.set_clock(Timestamp::now());
        bench.put_and_commit("003-1", 0, b"one ").await;
        // Put twice; the second one's object is not the one that the index names.
        bench.put_and_commit("003-1", 0, b"one ").await;
        bench.put("003-1", 4, b"two ").await;
        bench.put("service-0", 0, b"never").await;
        bench.store.put("memory:v1/log/a-stranger", b"x".to_vec());
        bench.store.put("memory:v1/body/1", b"x".to_vec());
        assert_eq!(bench.store.paths().len(), 6);
        bench.days_later(2).await;
        assert_eq!(bench.output.sweep(DAY, 30 * DAY).await.unwrap(), swept(0, 0), "its agent may commit them");
        bench.end_task().await;
        assert_eq!(bench.output.sweep(3 * DAY, 30 * DAY).await.unwrap(), swept(0, 0), "they are too young");
        assert_eq!(bench.output.sweep(DAY, 30 * DAY).await.unwrap(), swept(3, 0));
        assert_eq!(bench.store.paths().len(), 3);
        bench.end_log("003-1", b"one ").await;
        assert_eq!(bench.read("003-1", 0, true).await.unwrap(), b"one ");
    }
}

#[tokio::test]
async fn objects_of_an_unknown_task_go_by_age() {
    for bench in benches().await {
        bench.store.set_clock(Timestamp::now());
        bench.put_and_commit("003-1", 0, b"one ").await;
        sqlx::query("DELETE FROM tasks").execute(bench.database.pool()).await.unwrap();
        bench.days_later(2).await;
        assert_eq!(bench.output.sweep(DAY, 30 * DAY).await.unwrap(), swept(0, 0));
        bench.days_later(31).await;
        assert_eq!(bench.output.sweep(DAY, 30 * DAY).await.unwrap(), swept(1, 0));
    }
}

#[tokio::test]
async fn old_logs_go_with_their_objects() {
    for bench in benches().await {
        bench.store.set_clock(Timestamp::now());
        for nth in 0..300 {
            bench.put_and_commit("003-1", nth * 4, b"one ").await;
        }
        bench.end_task().await;
        bench.days_later(29).await;
        assert_eq!(bench.output.sweep(DAY, 30 * DAY).await.unwrap(), swept(0, 0));
        bench.days_later(31).await;
        bench.store.failing.store(2, Ordering::SeqCst);
        assert!(bench.output.sweep(DAY, 30 * DAY).await.is_err(), "the store does not say its time");
        assert_eq!(bench.output.sweep(DAY, 30 * DAY).await.unwrap_err().to_string(), "the store failed to do anything");
        bench.store.failing_removals.store(5, Ordering::SeqCst);
        let first = bench.output.sweep(DAY, 30 * DAY).await.unwrap();
        assert!(first.failed == 5 && first.failures.len() == 5 && first.old > 0, "{first:?}");
        assert!(first.failures[0].contains("v1/log/a-pipeline/") && first.failures[0].contains("503"), "{first:?}");
        let second = bench.output.sweep(DAY, 30 * DAY).await.unwrap();
        assert_eq!(first.old + second.old, 300);
        assert!(bench.store.paths().is_empty() && bench.output.marks(TASK).await.unwrap().is_empty());
        assert!(matches!(bench.read("003-1", 0, true).await, Err(OutputError::NoLog { .. })));
    }
}
