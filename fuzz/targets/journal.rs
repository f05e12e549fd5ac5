//! Journals: of any bytes; of any JSON under right checksums; of what a writer wrote and something then befell.
#![no_main]

use libfuzzer_sys::fuzz_target;
use navvy_fuzz::{Feed, mishap};
use navvy_job::id::TaskId;
use navvy_job::state::TaskState;
use navvy_journal::owner::Owner;
use navvy_journal::{Ending, Entry, HeldStep, Opening, Reading, Record, Standing, VerdictKind, read};

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed::new(data);
    match feed.byte() % 3 {
        0 => any(feed.rest()),
        1 => any(&feed.rest().split(|byte| *byte == b'\n').flat_map(line).collect::<Vec<_>>()),
        _ => written(&mut feed),
    }
});

/// A line, as the drawing of the journal has it: not by the code that is looked at.
fn line(text: &[u8]) -> Vec<u8> {
    [format!("{:08x} ", crc32fast::hash(text)).as_bytes(), text, b"\n"].concat()
}

fn lines(records: &[Record]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut starts) = (Vec::new(), Vec::new());
    for record in records {
        starts.push(bytes.len());
        bytes.extend(line(&serde_json::to_vec(record).expect("a record that JSON cannot hold")));
    }
    starts.push(bytes.len());
    (bytes, starts)
}

/// What was read and is written again comes back the same.
fn any(bytes: &[u8]) {
    let reading = read(bytes);
    assert!(reading.records.len() <= bytes.iter().filter(|byte| **byte == b'\n').count());
    assert_eq!(reading.known().is_some(), !reading.records.is_empty());
    if let Some(known) = reading.known() {
        known.held_step();
    }
    if let Ending::Torn { at } | Ending::Damaged { at } = reading.ending {
        assert!((at as usize) < bytes.len());
        let before = read(&bytes[..at as usize]);
        assert_eq!(before, Reading { records: reading.records.clone(), ending: Ending::Whole });
    }
    let again = read(&lines(&reading.records).0);
    assert_eq!(again, Reading { records: reading.records, ending: Ending::Whole });
}

fn written(feed: &mut Feed<'_>) {
    let records = records(feed);
    let (bytes, starts) = lines(&records);
    assert_eq!(read(&bytes), Reading { records: records.clone(), ending: Ending::Whole });
    match feed.byte() % 3 {
        0 => cut(&bytes, &starts, &records, feed.up_to(bytes.len())),
        1 => changed(&bytes, &starts, &records, feed),
        _ => befallen(bytes, &starts, &records, feed),
    }
}

/// Its process or machine ended while it wrote: never damage, and no record is lost that was whole.
fn cut(bytes: &[u8], starts: &[usize], records: &[Record], at: usize) {
    let whole = starts.iter().rposition(|start| *start <= at).unwrap_or(0);
    let start = starts[whole];
    let ending = if start == at { Ending::Whole } else { Ending::Torn { at: start as u64 } };
    assert_eq!(read(&bytes[..at]), Reading { records: records[..whole].to_vec(), ending });
}

/// One byte is another: the records before it are there, and no other.
fn changed(bytes: &[u8], starts: &[usize], records: &[Record], feed: &mut Feed<'_>) {
    let at = feed.up_to(bytes.len() - 1);
    let mut changed = bytes.to_vec();
    changed[at] ^= feed.byte().max(1);
    let number = starts.iter().rposition(|start| *start <= at).unwrap_or(0);
    let start = starts[number] as u64;
    // The last one may as well be torn. Of the last but one a changed line feed takes the line behind it along.
    let is_last = number + 1 == records.len() || (number + 2 == records.len() && at + 1 == starts[number + 1]);
    let ending = if is_last { Ending::Torn { at: start } } else { Ending::Damaged { at: start } };
    assert_eq!(read(&changed), Reading { records: records[..number].to_vec(), ending });
}

/// Whatever it is: no record that was never written.
fn befallen(mut bytes: Vec<u8>, starts: &[usize], records: &[Record], feed: &mut Feed<'_>) {
    for _ in 0..=feed.up_to(3) {
        mishap(feed, &mut bytes, starts);
    }
    let reading = read(&bytes);
    assert!(records.starts_with(&reading.records), "a record that was never written: {:?}", reading.records);
    any(&bytes);
}

fn records(feed: &mut Feed<'_>) -> Vec<Record> {
    let mut entries = vec![Entry::Opened(Box::new(opening(feed)))];
    for _ in 0..feed.up_to(6) {
        entries.push(entry(feed));
    }
    (0..).zip(entries).map(|(seq, entry)| Record { seq, at_ms: feed.number(), entry }).collect()
}

fn opening(feed: &mut Feed<'_>) -> Opening {
    Opening {
        version: Opening::VERSION,
        task: TaskId::from_random(feed.number().to_le_bytes()),
        workflow: feed.text(9),
        job: feed.text(40),
        node_index: feed.number() as u32,
        node_total: feed.number() as u32,
        owner: owner(feed),
        engine: feed.text(9),
        logs: feed.text(9).into(),
        run_directory: feed.text(9).into(),
        containers: feed.text(9),
        cgroup: feed.text(9),
    }
}

/// A label's separator stands in no machine's name.
fn owner(feed: &mut Feed<'_>) -> Owner {
    Owner {
        machine: feed.text(9).replace('/', "-"),
        boot: feed.text(9).replace('/', "-"),
        pid_namespace: feed.number(),
        pid: feed.number() as u32,
        start_time: feed.number(),
    }
}

fn entry(feed: &mut Feed<'_>) -> Entry {
    match feed.byte() % 6 {
        0 | 1 => Entry::State { state: state(feed), verdict: verdict(feed) },
        2 => Entry::Owner { owner: owner(feed) },
        3 => Entry::Standing(Standing::Running),
        4 => {
            let step = Some(HeldStep { number: feed.number() as usize, name: feed.text(60) });
            Entry::Standing(Standing::Kept { until: feed.number(), step })
        }
        _ => Entry::Standing(Standing::Adoptable { until: feed.number() }),
    }
}

fn state(feed: &mut Feed<'_>) -> TaskState {
    use TaskState::{Claimed, Done, Finishing, Held, Preparing, Releasing, Reporting, Running};
    [Claimed, Preparing, Running, Finishing, Held, Releasing, Reporting, Done][feed.up_to(7)]
}

fn verdict(feed: &mut Feed<'_>) -> Option<VerdictKind> {
    use VerdictKind::{Canceled, Failed, Infra, Passed, TimedOut};
    [None, Some(Passed), Some(Failed), Some(Canceled), Some(TimedOut), Some(Infra)][feed.up_to(5)]
}
