use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::*;

/// Bytes of a reader, up to so many.
async fn up_to(stream: &mut LogStream, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        let piece = tokio::time::timeout(Duration::from_secs(60), stream.next()).await.expect("a reader that is told");
        all.extend_from_slice(&piece.unwrap().unwrap());
    }
    all
}

#[tokio::test]
async fn a_reader_gets_history_then_the_live_end_then_the_end() {
    for bench in benches().await {
        bench.put_and_commit("003-1", 0, b"one ").await;
        let mut stream = bench.output.read(TASK, "003-1", 0, true).await.unwrap();
        assert_eq!(up_to(&mut stream, 4).await, b"one ");
        bench.live("003-1", 4, b"two ").unwrap();
        assert_eq!(up_to(&mut stream, 4).await, b"two ");
        bench.live("003-1", 8, b"three").unwrap();
        assert_eq!(up_to(&mut stream, 5).await, b"three");
        bench.put_and_commit("003-1", 4, b"two three").await;
        bench.end_log("003-1", b"one two three").await;
        assert!(stream.next().await.is_none());
        assert_eq!(bench.read("003-1", 0, true).await.unwrap(), b"one two three");
        assert_eq!(bench.read("003-1", 8, false).await.unwrap(), b"three");
        assert_eq!(bench.read("003-1", 13, false).await.unwrap(), b"");
        let error = bench.read("003-1", 14, false).await.unwrap_err().to_string();
        assert_eq!(error, "log 003-1 has 13 bytes: there is nothing at byte 14");
    }
}

#[tokio::test]
async fn a_reader_waits_where_the_ring_begins_behind_the_durable_end() {
    for bench in benches().await {
        bench.put_and_commit("003-1", 0, b"one ").await;
        bench.live("003-1", 8, b"three").unwrap();
        let mut stream = bench.output.read(TASK, "003-1", 0, true).await.unwrap();
        assert_eq!(up_to(&mut stream, 4).await, b"one ");
        bench.live("003-1", 13, b" four").unwrap();
        bench.put_and_commit("003-1", 4, b"two ").await;
        assert_eq!(up_to(&mut stream, 14).await, b"two three four");
    }
}

#[tokio::test]
async fn without_follow_a_reader_ends_at_what_there_is() {
    for bench in benches().await {
        assert!(matches!(bench.read("003-1", 0, false).await, Err(OutputError::NoLog { .. })));
        bench.live("003-1", 0, b"live").unwrap();
        assert_eq!(bench.read("003-1", 0, false).await.unwrap(), b"live");
        bench.live("003-1", 10, b"behind a gap").unwrap();
        assert_eq!(bench.read("003-1", 0, false).await.unwrap(), b"");
        bench.put_and_commit("003-1", 0, b"live ").await;
        assert_eq!(bench.read("003-1", 1, false).await.unwrap(), b"ive ");
    }
}

#[tokio::test]
async fn a_lost_end_is_an_error_and_never_an_end() {
    for bench in benches().await {
        bench.put_and_commit("003-1", 0, b"one ").await;
        bench.live("003-1", 4, b"two").unwrap();
        bench.restart_and_end().await;
        for follow in [true, false] {
            let mut stream = bench.output.read(TASK, "003-1", 0, follow).await.unwrap();
            assert_eq!(up_to(&mut stream, 4).await, b"one ");
            let error = stream.next().await.unwrap().unwrap_err().to_string();
            assert_eq!(
                error,
                "log 003-1 is incomplete: its agent was lost, and what it wrote from byte 4 on was never stored"
            );
        }
        let error = bench.read("004-1", 0, true).await.unwrap_err().to_string();
        assert!(error.contains("has no log 004-1"), "{error}");
        bench.end_log("003-1", b"one two").await;
        let error = bench.read("003-1", 0, true).await.unwrap_err().to_string();
        assert_eq!(error, "log 003-1 is incomplete: bytes 4 to 7 were never stored");
        assert!(matches!(
            bench.output.read("ffffffffffffffff", "003-1", 0, true).await,
            Err(OutputError::NoTask { .. })
        ));
    }
}

impl Bench {
    async fn restart_and_end(&self) {
        self.output.hub().begin_anew(TASK);
        self.end_task().await;
    }
}

#[tokio::test]
async fn the_last_screen_of_a_long_log_is_one_segment() {
    for bench in benches().await {
        let whole = honest(0..40_000);
        for (nth, bytes) in whole.chunks(1000).enumerate() {
            bench.put_and_commit("003-1", nth as u64 * 1000, bytes).await;
        }
        let before = bench.store.gets.load(Ordering::SeqCst);
        assert_eq!(bench.read("003-1", 39_200, false).await.unwrap(), whole[39_200..]);
        assert_eq!(bench.store.gets.load(Ordering::SeqCst) - before, 1);
        assert_eq!(bench.read("003-1", 0, false).await.unwrap(), whole);
    }
}

#[tokio::test]
async fn a_damaged_object_is_never_passed_on() {
    for bench in benches().await {
        bench.put_and_commit("003-1", 0, b"one ").await;
        bench.put_and_commit("003-1", 4, b"two ").await;
        let path = bench.store.paths().into_iter().find(|path| path.contains("/4-")).unwrap();
        bench.store.change(&path, |bytes| {
            let (object, _) = packed(b"tw0 ");
            assert_eq!(object.len(), bytes.len());
            object.into()
        });
        let mut stream = bench.output.read(TASK, "003-1", 0, true).await.unwrap();
        assert_eq!(up_to(&mut stream, 4).await, b"one ");
        let error = stream.next().await.unwrap().unwrap_err().to_string();
        assert_eq!(error, "bytes 4 to 8 of log 003-1 are not what was stored: their SHA-256 differs");
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn a_store_that_fails_for_a_while_is_waited_for() {
    for bench in benches().await {
        bench.put_and_commit("003-1", 0, b"one ").await;
        bench.store.failing.store(2, Ordering::SeqCst);
        assert_eq!(bench.read("003-1", 0, false).await.unwrap(), b"one ");
        assert_eq!(bench.store.failing.load(Ordering::SeqCst), 0);
    }
}

/// Another processor over the same index and store.
fn other(bench: &Bench) -> Output {
    output(&bench.database, &bench.store)
}

#[tokio::test]
async fn another_processors_commits_are_seen() {
    for mut bench in benches().await {
        bench.output.look_again = Duration::from_millis(20);
        let mut stream = bench.output.read(TASK, "003-1", 0, true).await.unwrap();
        bench.output = other(&bench);
        for nth in 0..5 {
            bench.put_and_commit("003-1", nth * 4, b"one ").await;
            assert_eq!(up_to(&mut stream, 4).await, b"one ");
        }
        bench.end_log("003-1", &b"one ".repeat(5)).await;
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn a_log_that_another_processor_began_anew_ends_its_readers() {
    for mut bench in benches().await {
        bench.output.look_again = Duration::from_millis(20);
        bench.put_and_commit("000-1", 0, b"first agent").await;
        let mut stream = bench.output.read(TASK, "000-1", 0, true).await.unwrap();
        assert_eq!(up_to(&mut stream, 11).await, b"first agent");
        // Nothing behind its cursor comes before it has looked: it would wait for what the second agent has not written.
        bench.database.forget_logs(TASK).await.unwrap();
        bench.output = other(&bench);
        bench.put_and_commit("000-1", 0, b"second").await;
        let error = stream.next().await.unwrap().unwrap_err().to_string();
        assert!(error.contains("log 000-1 begins anew"), "{error}");
    }
}

#[tokio::test]
async fn a_log_that_begins_anew_ends_its_readers() {
    for bench in benches().await {
        bench.live("000-1", 0, b"first agent").unwrap();
        let mut stream = bench.output.read(TASK, "000-1", 0, true).await.unwrap();
        assert_eq!(up_to(&mut stream, 11).await, b"first agent");
        bench.database.forget_logs(TASK).await.unwrap();
        bench.output.hub().begin_anew(TASK);
        bench.live("000-1", 0, b"second agent, which writes more").unwrap();
        let error = stream.next().await.unwrap().unwrap_err().to_string();
        assert_eq!(error, "the task was given to another agent, and log 000-1 begins anew: read it from byte 0");
    }
}

#[tokio::test]
async fn who_looks_is_counted_and_nobody_is_kept() {
    for bench in benches().await {
        let mut readers = bench.output.hub().readers(TASK);
        assert_eq!(*readers.borrow_and_update(), 0);
        let one = bench.output.read(TASK, "003-1", 0, true).await.unwrap();
        let two = bench.output.read(TASK, "004-1", 0, true).await.unwrap();
        assert_eq!(*readers.wait_for(|readers| *readers == 2).await.unwrap(), 2);
        drop(one);
        readers.wait_for(|readers| *readers == 1).await.unwrap();
        drop(two);
        readers.wait_for(|readers| *readers == 0).await.unwrap();
        drop(readers);
        bench.live("003-1", 0, b"x").unwrap();
        bench.output.hub().begin_anew(TASK);
        assert_eq!((bench.output.hub().tasks(), bench.output.hub().held()), (0, 0));
    }
}

#[tokio::test]
async fn slow_readers_do_not_keep_others_from_reading() {
    for bench in benches().await {
        let whole = honest(0..16 << 20);
        bench.put_and_commit("003-1", 0, &whole).await;
        // Each has taken nothing of a segment that fills more than half of the room.
        let mut slow = Vec::new();
        for _ in 0..3 {
            slow.push(bench.output.read(TASK, "003-1", 0, false).await.unwrap());
        }
        let last = tokio::time::timeout(Duration::from_secs(60), bench.read("003-1", (16 << 20) - 100, false));
        assert_eq!(last.await.unwrap().unwrap(), whole[(16 << 20) - 100..]);
        for stream in slow {
            assert!(gather(stream).await.unwrap() == whole);
        }
    }
}
