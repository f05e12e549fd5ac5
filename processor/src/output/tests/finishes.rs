use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn end(log: &str, whole: &[u8]) -> v1::LogEnd {
    v1::LogEnd { log: log.into(), bytes: whole.len() as u64, sha256: Sha256::digest(whole).to_vec() }
}

impl Bench {
    async fn finish(&self, ends: &[v1::LogEnd]) -> Result<Finished, OutputError> {
        self.output.finish(&access(TASK), ends, PATIENCE).await
    }
}

fn incomplete(words: &[&str]) -> Finished {
    Finished::Incomplete(words.iter().map(|word| (*word).to_owned()).collect())
}

#[tokio::test]
async fn a_whole_output_is_complete_and_stays_so() {
    for mut bench in benches().await {
        let whole = honest(0..5000);
        bench.put_and_commit("003-1", 0, &whole[..3000]).await;
        bench.put_and_commit("003-1", 3000, &whole[3000..]).await;
        let ends = [end("003-1", &whole), end("004-1", b"")];
        assert_eq!(bench.finish(&ends).await.unwrap(), Finished::Complete);
        bench.restart();
        assert_eq!(bench.finish(&ends).await.unwrap(), Finished::Complete);
        assert_eq!(bench.output.check(TASK, PATIENCE).await.unwrap(), Finished::Complete);
        let error = bench.finish(&[end("003-1", b"other")]).await.unwrap_err().to_string();
        assert!(error.starts_with("log 003-1 ends at byte 5000"), "{error}");
        assert_eq!(bench.read("003-1", 0, true).await.unwrap(), whole);
    }
}

#[tokio::test]
async fn what_is_missing_is_named_and_may_still_come() {
    for bench in benches().await {
        let whole = honest(0..100);
        bench.put_and_commit("003-1", 10, &whole[10..30]).await;
        bench.put_and_commit("003-1", 50, &whole[50..60]).await;
        bench.put_and_commit("service-0", 0, b"untold").await;
        let ends = [end("003-1", &whole), end("004-1", b"never came")];
        let expected = [
            "log 003-1: bytes 0 to 10, 30 to 50, 60 to 100 are missing",
            "log 004-1: bytes 0 to 10 are missing",
            "log service-0: 6 bytes are stored, and its agent did not say where it ends",
        ];
        assert_eq!(bench.finish(&ends).await.unwrap(), incomplete(&expected));
        for (from, to) in [(0, 10), (30, 50), (60, 100)] {
            bench.put_and_commit("003-1", from, &whole[from as usize..to]).await;
        }
        bench.put_and_commit("004-1", 0, b"never came").await;
        assert_eq!(bench.finish(&[end("service-0", b"untold")]).await.unwrap(), Finished::Complete);
    }
}

#[tokio::test]
async fn nothing_is_complete_by_its_length_alone() {
    for bench in benches().await {
        bench.put_and_commit("003-1", 0, b"one ").await;
        bench.put_and_commit("003-1", 4, b"two ").await;
        let Finished::Incomplete(words) = bench.finish(&[end("003-1", b"one tw0 ")]).await.unwrap() else { panic!() };
        let [found, said] = [b"one two ", b"one tw0 "].map(|bytes| segment::hex(&Sha256::digest(bytes)));
        assert_eq!(words, [format!("log 003-1: its SHA-256 is {found}, and its agent says {said}")]);
        assert!(matches!(bench.output.check(TASK, PATIENCE).await.unwrap(), Finished::Incomplete(_)));
    }
}

#[tokio::test]
async fn an_object_that_was_damaged_or_removed_is_found() {
    for bench in benches().await {
        bench.put_and_commit("003-1", 0, b"one ").await;
        let path = bench.store.paths().remove(0);
        bench.store.change(&path, |_| packed(b"0ne ").0.into());
        let words = ["bytes 0 to 4 of log 003-1 are not what was stored: their SHA-256 differs"];
        assert_eq!(bench.finish(&[end("003-1", b"one ")]).await.unwrap(), incomplete(&words));
        bench.store.remove(&path).await.unwrap();
        let words = ["bytes 0 to 4 of log 003-1 are not what was stored: their object is not in the store"];
        assert_eq!(bench.finish(&[end("003-1", b"one ")]).await.unwrap(), incomplete(&words));
    }
}

#[tokio::test]
async fn more_than_was_said_is_told() {
    for bench in benches().await {
        bench.put_and_commit("003-1", 0, b"one two").await;
        let words = ["log 003-1: 7 bytes are stored, and its agent says that it has 3"];
        assert_eq!(bench.finish(&[end("003-1", b"one")]).await.unwrap(), incomplete(&words));
    }
}

#[tokio::test]
async fn a_check_that_is_not_through_says_so_and_goes_on() {
    for bench in benches().await {
        let whole = honest(0..4000);
        for nth in 0..4_usize {
            bench.put_and_commit("003-1", nth as u64 * 1000, &whole[nth * 1000..][..1000]).await;
        }
        // One segment is read, and the next one not before the patience is at its end.
        let (task, ends) = (access(TASK), [end("003-1", &whole)]);
        let mut checked = 0;
        while checked == 0 {
            bench.store.hold_after(1);
            let finished = bench.output.finish(&task, &ends, Duration::from_millis(200)).await.unwrap();
            let Finished::Checking { checked: now, bytes: 4000 } = finished else { panic!("{finished:?}") };
            checked = now;
        }
        assert_eq!(checked, 1000);
        bench.store.let_go();
        let before = bench.store.gets.load(Ordering::SeqCst);
        assert_eq!(bench.output.check(TASK, PATIENCE).await.unwrap(), Finished::Complete);
        assert_eq!(bench.store.gets.load(Ordering::SeqCst) - before, 3, "the first one was not read again");
    }
}

#[tokio::test]
async fn ends_of_another_form_are_refused() {
    for bench in benches().await {
        let good = end("003-1", b"");
        let cases = [
            (vec![v1::LogEnd { log: "../x".into(), ..good.clone() }], "is no log"),
            (vec![v1::LogEnd { bytes: u64::MAX, ..good.clone() }], "cannot have"),
            (vec![v1::LogEnd { sha256: vec![], ..good.clone() }], "32 bytes, and not 0"),
            (vec![good.clone(), good], "ended twice"),
        ];
        for (ends, text) in cases {
            let error = bench.finish(&ends).await.unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let late = TaskAccess { fence: 0, ..access(TASK) };
        let error = bench.output.finish(&late, &[], PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains("its lease is lost"), "{error}");
    }
}
