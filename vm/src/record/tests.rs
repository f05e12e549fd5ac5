use super::*;

fn planned() -> Planned {
    Planned {
        version: Planned::VERSION,
        machine: MachineId::random(),
        task: Some("0123456789abcdef".parse().unwrap()),
        owner: Owner::this_process().unwrap(),
        provider: "qemu".to_owned(),
        image: "debian-12-minimal".to_owned(),
        is_adoptable: true,
        has_steps: true,
    }
}

fn tap() -> Fact {
    Fact::Tap { name: "nvy0007".into(), address: "10.209.0.7/16".into(), link_address: "52:54:00:00:00:07".into() }
}

#[tokio::test]
async fn what_was_written_is_known_to_the_next_process_and_nobody_else_writes() {
    let state = tempfile::tempdir().unwrap();
    let record = Record::create(state.path(), planned()).await.unwrap();
    let directory = record.directory().to_owned();
    record.note(tap()).await.unwrap();
    record.write(vec![Entry::State(State::Provisioned), Entry::State(State::Launched)]).await.unwrap();
    assert!(is_held(&directory));
    assert!(matches!(Record::resume(directory.clone()).await, Err(RecordError::Busy { .. })));
    let known = record.known();
    drop(record);
    assert!(!is_held(&directory));
    assert_eq!(load(&directory).unwrap(), known);
    assert_eq!((known.state, known.facts), (State::Launched, vec![tap()]));
    assert_eq!(all(state.path()), [known.planned.machine]);
    let resumed = Record::resume(directory.clone()).await.unwrap();
    resumed.enter(State::Booting).await.unwrap();
    assert_eq!(load(&directory).unwrap().state, State::Booting);
}

#[tokio::test]
async fn a_move_that_is_not_in_the_table_is_not_written() {
    let state = tempfile::tempdir().unwrap();
    let record = Record::create(state.path(), planned()).await.unwrap();
    let error = record.write(vec![Entry::Fact(tap()), Entry::State(State::Ready)]).await.unwrap_err();
    assert!(matches!(error, RecordError::Move { from: State::Planned, to: State::Ready, .. }), "{error}");
    let known = load(record.directory()).unwrap();
    assert_eq!((known.state, known.facts.len()), (State::Planned, 0));
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_damage_is_named() {
    let state = tempfile::tempdir().unwrap();
    let record = Record::create(state.path(), planned()).await.unwrap();
    record.note(tap()).await.unwrap();
    record.enter(State::Provisioned).await.unwrap();
    let path = record.directory().join(FILE);
    let directory = record.directory().to_owned();
    drop(record);
    let whole = fs::read(&path).unwrap();
    let lines: Vec<usize> = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        match load(&directory) {
            Ok(known) => {
                let expected = lines.iter().filter(|end| **end <= length).count();
                assert_eq!(known.facts.len() + usize::from(known.state > State::Planned) + 1, expected, "{length}");
            }
            Err(error) => assert!(length < lines[0] && matches!(error, RecordError::Empty { .. }), "{length}: {error}"),
        }
    }
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let resumed = Record::resume(directory.clone()).await.unwrap();
    resumed.enter(State::Provisioned).await.unwrap();
    drop(resumed);
    assert_eq!(load(&directory).unwrap().state, State::Provisioned);
    // The line feed of the last line but one makes one torn line of the last two.
    for at in 0..lines[1] - 1 {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, &flipped).unwrap();
        let error = load(&directory).unwrap_err();
        assert!(matches!(error, RecordError::Damaged { .. }), "byte {at}: {error}");
    }
}

#[tokio::test]
async fn a_newer_versions_record_is_not_judged() {
    let state = tempfile::tempdir().unwrap();
    let record = Record::create(state.path(), Planned { version: 2, ..planned() }).await.unwrap();
    assert!(matches!(load(record.directory()), Err(RecordError::Newer { version: 2, .. })));
}
