use std::fs;

use navvy_job::id::TaskId;
use navvy_job::state::TaskState;
use proptest::prelude::*;

use super::*;
use crate::files::LONGEST;
use crate::owner::Owner;

fn owner() -> Owner {
    Owner::this_process().unwrap()
}

fn opening() -> Opening {
    let task: TaskId = "0123456789abcdef".parse().unwrap();
    Opening {
        version: Opening::VERSION,
        workflow: "w".into(),
        job: "build".into(),
        node_index: 0,
        node_total: 1,
        owner: owner(),
        engine: "unix:///var/run/docker.sock".into(),
        logs: "/s/runs/r/t".into(),
        run_directory: "/run/navvy/t".into(),
        containers: format!("navvy-{task}-"),
        cgroup: "navvy/task-0123456789abcdef".into(),
        task,
    }
}

fn state(state: TaskState) -> Entry {
    Entry::State { state, verdict: None }
}

fn kept() -> Entry {
    let step = Some(HeldStep { number: 2, name: "Test".into() });
    Entry::Standing(Standing::Kept { until: 1_800_000_000, step })
}

/// A journal of five records, and where each begins.
fn sample() -> (Vec<u8>, Vec<usize>) {
    let entries = [
        Entry::Opened(Box::new(opening())),
        state(TaskState::Preparing),
        Entry::State { state: TaskState::Running, verdict: Some(VerdictKind::Failed) },
        kept(),
        Entry::Owner { owner: Owner { pid: 7, ..owner() } },
    ];
    let (mut bytes, mut starts) = (Vec::new(), Vec::new());
    for (seq, entry) in (0..).zip(entries) {
        starts.push(bytes.len());
        bytes.extend(read::line(&Record { seq, at_ms: 5, entry }).unwrap());
    }
    (bytes, starts)
}

#[test]
fn records_add_up_to_what_is_known() {
    let known = read(&sample().0).known().unwrap();
    assert_eq!((known.state, known.verdict), (TaskState::Running, Some(VerdictKind::Failed)));
    assert_eq!((known.owner.pid, &known.opening), (7, &opening()));
    assert_eq!(known.held_step().unwrap().number, 2);
}

#[test]
fn a_newer_journal_is_not_believed_and_not_cut() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.journal");
    let mut newer = opening();
    newer.version = 2;
    let same_shape = serde_json::to_vec(&Record { seq: 0, at_ms: 5, entry: Entry::Opened(Box::new(newer)) }).unwrap();
    for first in [same_shape, br#"{"version":2,"record":"opened","owners":[]}"#.to_vec()] {
        let mut bytes = format!("{:08x} ", crc32fast::hash(&first)).into_bytes();
        bytes.extend([&first[..], b"\n"].concat());
        let reading = read(&bytes);
        assert_eq!((reading.known(), reading.ending), (None, Ending::Newer { version: 2 }));
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(Journal::resume(&path), Err(JournalError::Newer { version: 2, .. })));
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn every_cut_is_a_torn_tail_and_loses_only_the_last_record() {
    let (bytes, starts) = sample();
    for cut in 0..bytes.len() {
        let reading = read(&bytes[..cut]);
        let whole = starts.iter().filter(|start| **start <= cut && **start > 0).count();
        assert_eq!(reading.records.len(), whole, "cut at {cut}");
        let at = if whole == 0 { 0 } else { starts[whole] };
        let expected = if at == cut { Ending::Whole } else { Ending::Torn { at: at as u64 } };
        assert_eq!(reading.ending, expected, "cut at {cut}");
    }
}

#[test]
fn a_changed_or_lost_record_is_damage_and_not_a_torn_tail() {
    let (bytes, starts) = sample();
    let mut changed = bytes.clone();
    changed[starts[2] + 20] ^= 1;
    assert_eq!(read(&changed).ending, Ending::Damaged { at: starts[2] as u64 });
    // Still a record, but not the one that was written.
    let text = String::from_utf8(bytes.clone()).unwrap().replacen("\"at_ms\":5", "\"at_ms\":6", 1);
    assert_ne!(text.as_bytes(), bytes);
    assert_eq!(read(text.as_bytes()).ending, Ending::Damaged { at: 0 });
    let lost = [&bytes[..starts[1]], &bytes[starts[2]..]].concat();
    assert_eq!(read(&lost).ending, Ending::Damaged { at: starts[1] as u64 });
    let zeros = [&bytes[..starts[4]], &[0; 300]].concat();
    assert_eq!(read(&zeros).ending, Ending::Torn { at: starts[4] as u64 });
}

#[test]
fn records_of_a_later_version_are_passed_over() {
    let (mut bytes, starts) = sample();
    let text = br#"{"seq":5,"at_ms":1,"record":"mood","of":"the day"}"#;
    bytes.extend(format!("{:08x} ", crc32fast::hash(text)).bytes().chain(text.iter().copied()).chain(*b"\n"));
    let reading = read(&bytes);
    assert_eq!((reading.records.len(), reading.ending), (starts.len() + 1, Ending::Whole));
    assert_eq!(reading.records[5].entry, Entry::Unknown);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..2000_usize) {
        read(&bytes);
        let (mut sample, _) = sample();
        let at = at.min(sample.len());
        sample.splice(at..at, bytes);
        let reading = read(&sample);
        prop_assert!(reading.records.len() <= 5);
        reading.known();
    }
}

#[tokio::test]
async fn a_journal_is_private_and_goes_with_its_task() {
    use std::os::unix::fs::PermissionsExt as _;
    let state_directory = tempfile::tempdir().unwrap();
    let journal = Journal::begin(state_directory.path(), opening(), vec![state(TaskState::Preparing)]);
    journal.opened().await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(journal.path()), mode(&directory(state_directory.path()))), (0o600, 0o700));
    journal.record(state(TaskState::Running)).await.unwrap();
    assert_eq!(tasks(state_directory.path()).unwrap(), [opening().task]);
    let reading = load(journal.path()).unwrap();
    assert_eq!((reading.records.len(), reading.ending), (3, Ending::Whole));
    journal.remove().await.unwrap();
    assert_eq!(fs::read_dir(directory(state_directory.path())).unwrap().count(), 0);
}

#[tokio::test]
async fn a_successor_waits_for_the_lock_and_cuts_a_torn_tail_off() {
    let state_directory = tempfile::tempdir().unwrap();
    let first = Journal::begin(state_directory.path(), opening(), vec![]);
    first.opened().await.unwrap();
    let path = first.path().to_owned();
    assert!(is_held(&path).unwrap());
    assert!(matches!(Journal::resume(&path), Err(JournalError::Busy { .. })));
    drop(first);
    // The thread that began it may be about to let go; so may a program that another test starts just now.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while is_held(&path).unwrap() {
        assert!(std::time::Instant::now() < deadline, "the lock did not go with the journal");
        std::thread::yield_now();
    }
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], b"0123abcd {\"se"].concat()).unwrap();
    let (second, reading) = Journal::resume(&path).unwrap();
    assert_eq!(reading.ending, Ending::Torn { at: whole.len() as u64 });
    second.record(kept()).await.unwrap();
    drop(second);
    let reading = load(&path).unwrap();
    assert_eq!((reading.records.len(), reading.ending), (2, Ending::Whole));
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_says_where() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Journal::begin(&file, opening(), vec![]).opened().await.unwrap_err();
    assert!(error.to_string().contains("file/tasks/0123456789abcdef.journal"), "{error}");
}

/// Nobody ever writes into it: whoever waits for that waits for ever.
#[test]
fn a_pipe_that_is_called_like_a_journal_is_not_waited_for() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("0123456789abcdef.journal");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    assert_eq!(load(&path).unwrap_err().to_string(), "it is a named pipe, not a file");
    assert!(is_held(&path).is_err());
    assert!(matches!(Journal::resume(&path), Err(JournalError::Read { .. })));
}

#[test]
fn what_a_dead_process_began_is_swept_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let dead = Owner { start_time: 0, ..owner() };
    for name in [dead.unfinished("a"), owner().unfinished("b"), "kept".into(), ".new~x~y".into()] {
        fs::write(scratch.path().join(name), "").unwrap();
    }
    fs::create_dir(scratch.path().join(dead.unfinished("directory"))).unwrap();
    sweep(scratch.path(), &owner());
    let mut left: Vec<_> =
        fs::read_dir(scratch.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    let mut expected = [".new~x~y".to_owned(), owner().unfinished("b"), "kept".to_owned()];
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn what_cannot_be_removed_is_told_and_what_is_missing_is_fine() {
    let directory = tempfile::tempdir().unwrap();
    remove(&directory.path().join("missing")).unwrap();
    fs::create_dir(directory.path().join("in-the-way")).unwrap();
    remove(&directory.path().join("in-the-way")).unwrap_err();
}

#[test]
fn a_journal_has_a_longest_length() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let file = fs::File::create(&path).unwrap();
    file.set_len(LONGEST + 1).unwrap();
    assert!(load(&path).unwrap_err().to_string().starts_with("it is longer than"));
    file.set_len(LONGEST).unwrap();
    assert_eq!(load(&path).unwrap().records.len(), 0);
}
