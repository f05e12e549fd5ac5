use proptest::prelude::*;

use super::*;

fn chunk(log: &str, offset: u64, bytes: &[u8]) -> v1::Chunk {
    v1::Chunk { log: log.into(), offset, bytes: Bytes::copy_from_slice(bytes), stream: 0 }
}

fn name(log: &str) -> LogName {
    LogName::read(log).unwrap()
}

#[test]
fn all_rings_together_are_bounded_and_the_least_used_goes_first() {
    let hub = Hub::new(1 << 20);
    let full = vec![7; hub::MAX_CHUNK];
    for task in ["a", "b", "c"] {
        hub.push(task, &chunk("001-1", 0, &full)).unwrap();
    }
    // `a` is used: `b` is the one that nobody has looked at for longest.
    let a = hub.attach("a", name("001-1"));
    assert_eq!(a.from(0, 10).unwrap(), full[..10]);
    hub.push("d", &chunk("001-1", 0, &full)).unwrap();
    assert!(hub.held() <= 1 << 20, "{}", hub.held());
    let held = ["a", "b", "c", "d"].map(|task| !hub.attach(task, name("001-1")).range().is_empty());
    assert_eq!(held, [true, false, true, true]);
    // Many logs of one byte each cost more than their bytes.
    for nth in 0..20_000 {
        hub.push("e", &chunk(&format!("{nth:03}-1"), 0, b"x")).unwrap();
    }
    assert!(hub.held() <= 1 << 20, "{}", hub.held());
}

#[test]
fn a_log_that_somebody_looks_at_may_keep_more() {
    let hub = Hub::new(64 << 20);
    let full = vec![7; hub::MAX_CHUNK];
    let push = |nth: u64| hub.push("a", &chunk("001-1", nth * full.len() as u64, &full)).unwrap();
    (0..32).for_each(push);
    let reader = hub.attach("a", name("001-1"));
    assert_eq!(reader.range(), 31 << 18..32 << 18);
    (32..64).for_each(push);
    assert_eq!(reader.range(), 48 << 18..64 << 18);
    drop(reader);
    assert_eq!(hub.attach("a", name("001-1")).range(), 63 << 18..64 << 18);
    assert!(hub.held() <= (256 << 10) + 1024, "{}", hub.held());
}

#[test]
fn what_is_durable_is_kept_only_while_somebody_looks() {
    let hub = Hub::new(64 << 20);
    hub.push("a", &chunk("001-1", 0, &[7; 100])).unwrap();
    hub.durable("a", name("001-1"), 60);
    let reader = hub.attach("a", name("001-1"));
    assert_eq!(reader.range(), 60..100);
    hub.durable("a", name("001-1"), 100);
    assert_eq!(reader.range(), 60..100);
    drop(reader);
    assert_eq!((hub.held(), hub.tasks()), (0, 0));
    // Late bytes that are durable by now, and an agent that is there no more.
    drop(hub.readers("a"));
    hub.durable("a", name("001-1"), 200);
    hub.push("a", &chunk("001-1", 150, &[7; 10])).unwrap();
    hub.ended("a");
    assert_eq!((hub.held(), hub.tasks()), (0, 0));
}

#[test]
fn agents_that_left_keep_no_place() {
    let hub = Hub::new(64 << 20);
    for nth in 0..10_000 {
        drop(hub.readers(&format!("task-{nth}")));
    }
    assert!(hub.tasks() < 200, "{}", hub.tasks());
}

#[test]
fn a_task_that_ended_is_kept_for_those_who_look() {
    let hub = Hub::new(64 << 20);
    hub.push("a", &chunk("001-1", 0, b"seen")).unwrap();
    hub.push("a", &chunk("002-1", 0, b"unseen")).unwrap();
    let reader = hub.attach("a", name("001-1"));
    hub.ended("a");
    assert_eq!(reader.from(0, 10).unwrap(), b"seen"[..]);
    assert!(hub.attach("a", name("002-1")).range().is_empty());
    drop(reader);
}

proptest! {
    /// Whatever chunks come: the hub stays within its bound, and a reader gets a byte only where somebody has put one.
    #[test]
    fn no_chunk_does_harm(chunks in prop::collection::vec(("(003-1|004-1|service-0|[-0-9a-z/.]{0,9})", any::<u64>(), 0..6_u32, 0..300_usize, 0..3_usize), 1..60)) {
        let hub = Hub::new(4096);
        let reader = hub.attach("task-1", name("003-1"));
        for (log, offset, shift, length, task) in chunks {
            let (offset, task) = (offset >> (shift * 12), format!("task-{task}"));
            let taken = hub.push(&task, &chunk(&log, offset, &vec![log.len() as u8; length]));
            let good = LogName::read(&log).is_ok() && length > 0 && offset <= MOST_OFFSET;
            prop_assert_eq!(taken.is_ok(), good);
            prop_assert!(hub.held() <= 4096, "{}", hub.held());
            let range = reader.range();
            for cursor in [range.start, range.end.saturating_sub(1), range.end, 0, u64::MAX, offset] {
                let bytes = reader.from(cursor, 50);
                prop_assert_eq!(bytes.is_some(), range.contains(&cursor));
                prop_assert!(bytes.is_none_or(|bytes| bytes.iter().all(|byte| *byte == 5) && bytes.len() <= 50));
            }
        }
        drop(reader);
        for task in ["task-0", "task-1", "task-2"] {
            hub.ended(task);
        }
        prop_assert_eq!((hub.held(), hub.tasks()), (0, 0));
    }
}
