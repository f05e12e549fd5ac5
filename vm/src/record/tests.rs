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
        pool: None,
        kind: None,
        is_lent: false,
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
    // A program that another test starts just now may have it for a moment.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while is_held(&directory) {
        assert!(std::time::Instant::now() < deadline, "the lock did not go with the record");
        tokio::task::yield_now().await;
    }
    assert_eq!(load(&directory).unwrap(), known);
    assert_eq!((known.state, known.facts), (State::Launched, vec![tap()]));
    assert_eq!(all(state.path()).unwrap(), [known.planned.machine]);
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
    let record = Record::create(state.path(), Planned { version: Planned::VERSION + 1, ..planned() }).await.unwrap();
    assert!(matches!(load(record.directory()), Err(RecordError::Newer { version: 3, .. })));
}

fn pooled() -> Planned {
    Planned {
        task: None,
        is_adoptable: false,
        has_steps: false,
        pool: Some("/var/lib/navvy/vm-pool".into()),
        ..planned()
    }
}

fn taken() -> Entry {
    Entry::Taken(Box::new(Taken {
        task: "fedcba9876543210".parse().unwrap(),
        owner: Owner::this_process().unwrap(),
        is_adoptable: true,
        has_steps: true,
    }))
}

#[tokio::test]
async fn a_pools_machine_is_given_and_then_taken_once() {
    let state = tempfile::tempdir().unwrap();
    let record = Record::create(state.path(), pooled()).await.unwrap();
    assert!(record.known().is_pooled());
    assert!(record.write(vec![taken()]).await.is_err(), "nobody takes what was not given");
    let taker = Owner { pid: 1, ..Owner::this_process().unwrap() };
    record.write(vec![Entry::Given(taker.clone())]).await.unwrap();
    let given = load(record.directory()).unwrap();
    assert_eq!((given.owner, given.planned.task, given.is_given), (taker.clone(), None, true));
    record.write(vec![taken()]).await.unwrap();
    let known = load(record.directory()).unwrap();
    assert_eq!(known.planned.task, Some("fedcba9876543210".parse().unwrap()));
    assert!(known.planned.has_steps && known.planned.is_adoptable && !known.is_pooled());
    for again in [taken(), Entry::Given(taker)] {
        assert!(record.write(vec![again]).await.is_err());
    }
    let own = Record::create(state.path(), planned()).await.unwrap();
    for entry in [taken(), Entry::Given(Owner::this_process().unwrap())] {
        assert!(own.write(vec![entry]).await.is_err(), "a machine that is no pool's is not given away");
    }
}

#[tokio::test]
async fn records_that_cannot_be_listed_may_be_there() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(all(state.path()).unwrap(), []);
    std::fs::write(machines(state.path()), "").unwrap();
    let error = all(state.path()).unwrap_err();
    assert!(error.to_string().contains("could not list the records of machines"), "{error}");
    let machines = crate::Machines::qemu(crate::Settings::new(navvy_vm_image::Images::at("/nonexistent")));
    let runtime = state.path().display().to_string();
    let mut host = navvy_environment::HostPaths::new(&[("XDG_RUNTIME_DIR".to_owned(), runtime)].into(), None);
    host.state = state.path().to_owned();
    let (task, here) = ("0123456789abcdef".parse().unwrap(), Owner::this_process().unwrap());
    let limit = std::time::Duration::from_secs(30);
    assert!(machines.has(&task, &host));
    for left in [
        machines.remove_machines(&task, &host, limit).await,
        machines.reap(&here, &host, limit).await.left,
        vec![navvy_job::chain::chain(&machines.link_of_left(&task, &host).await.err().unwrap())],
    ] {
        assert!(left.len() == 1 && left[0].contains("could not list"), "{left:?}");
    }
}
