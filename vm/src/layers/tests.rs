//! Volumes of projects, by their files alone.

use super::*;
use crate::machine_id::MachineId;
use crate::record::{Planned, Record};

const DAY: u64 = 24 * 3600;

fn task(nth: u64) -> TaskId {
    format!("{nth:016x}").parse().unwrap()
}

/// A machine of this task, by its record alone.
async fn machine(state: &Path, task: TaskId) -> Record {
    let planned = Planned {
        version: Planned::VERSION,
        machine: MachineId::random(),
        task: Some(task),
        owner: navvy_journal::owner::Owner::this_process().unwrap(),
        provider: "qemu".to_owned(),
        image: "debian-12-docker".to_owned(),
        is_adoptable: false,
        has_steps: true,
        pool: None,
        kind: None,
        is_lent: false,
    };
    Record::create(state, planned).await.unwrap()
}

#[tokio::test]
async fn a_task_that_is_handed_out_again_has_one_volume_and_of_two_none_is_saved() {
    let state = tempfile::tempdir().unwrap();
    // Its agent was killed before a machine was there.
    let first = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    let slot = first.slot.clone();
    write(&first.path(), "half").await;
    first.leave();
    // Another job was quicker, and its volume is the warmer one.
    fs::create_dir_all(slot.with_file_name("1")).unwrap();
    write_about(&slot.with_file_name("1"), About { made: now(), used: now() + DAY }).unwrap();
    let _machine = machine(state.path(), task(1)).await;
    let second = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    assert_ne!(second.slot, slot);
    assert!(!slot.join(WORK).exists() && !slot.join(TASK).exists(), "what was half written is nobody's");
    let its = second.slot.clone();
    second.leave();
    let again = Volume::of_task(state.path(), &task(1)).await.unwrap().unwrap();
    assert_eq!(again.slot, its);
    again.leave();
    for file in [TASK, WORK] {
        fs::write(slot.join(file), task(1).as_str()).unwrap();
    }
    assert!(
        Volume::of_task(state.path(), &task(1)).await.unwrap().is_none(),
        "which of them is its machine's is not known"
    );
}

#[tokio::test]
async fn a_record_that_cannot_be_read_may_be_that_of_a_held_job_s_machine() {
    let state = tempfile::tempdir().unwrap();
    let record = machine(state.path(), task(1)).await;
    let held = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    let slot = held.slot.clone();
    held.leave();
    let path = record.directory().join("record");
    drop(record);
    fs::write(&path, "no record\n and more\n").unwrap();
    assert_ne!(Volume::take(state.path(), "shop", &task(2)).await.unwrap().slot, slot);
    let at_once = Keeping { unused: Duration::ZERO, age: Duration::ZERO, size: 0 };
    prune_at(state.path(), at_once, now() + DAY);
    assert!(slot.join(WORK).exists(), "its machine may write to it");
    fs::remove_dir_all(record::machines(state.path())).unwrap();
    fs::write(record::machines(state.path()), "").unwrap();
    prune_at(state.path(), at_once, now() + DAY);
    assert!(slot.join(WORK).exists(), "nor is a directory of records that cannot be read an empty one");
}

#[tokio::test]
async fn a_disk_is_made_anew_on_what_it_stands_on() {
    let state = tempfile::tempdir().unwrap();
    let saved = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    write(&saved.path(), "one.").await;
    saved.keep().await.unwrap();
    let volume = Volume::take(state.path(), "shop", &task(2)).await.unwrap();
    write(&volume.path(), "two.").await;
    let disk = Disk { path: volume.path(), backing: volume.backing(), serial: String::new(), mount: String::new() };
    renew(&disk).await.unwrap();
    assert_eq!(content(&volume.path()).await, "one.");
}

#[tokio::test]
async fn what_a_machine_goes_on_with_is_nobody_elses_and_is_kept_by_whoever_takes_its_task_up() {
    let state = tempfile::tempdir().unwrap();
    let _machine = machine(state.path(), task(1)).await;
    let left = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    write(&left.path(), "one.").await;
    let slot = left.slot.clone();
    left.leave();
    let other = Volume::take(state.path(), "shop", &task(2)).await.unwrap();
    assert_ne!(other.slot, slot);
    let at_once = Keeping { unused: Duration::ZERO, age: Duration::ZERO, size: 0 };
    assert_eq!(prune_at(state.path(), at_once, now() + DAY), (Vec::new(), Vec::new()));
    assert!(Volume::of_task(state.path(), &task(3)).await.unwrap().is_none());
    let again = Volume::of_task(state.path(), &task(1)).await.unwrap().unwrap();
    assert!(Volume::of_task(state.path(), &task(1)).await.unwrap().is_none(), "it is one process's");
    again.keep().await.unwrap();
    assert_eq!(
        (content(&slot.join(DISK)).await.as_str(), names(&slot)),
        ("one.", vec![ABOUT.into(), DISK.into(), LOCK.into()])
    );
}

#[tokio::test]
async fn what_a_machine_that_was_removed_has_left_is_the_next_jobs_place() {
    let state = tempfile::tempdir().unwrap();
    let machine = machine(state.path(), task(1)).await;
    let left = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    write(&left.path(), "one.").await;
    let slot = left.slot.clone();
    left.leave();
    machine.remove().await.unwrap();
    let next = Volume::take(state.path(), "shop", &task(2)).await.unwrap();
    assert!(next.is_new() && next.slot == slot);
    assert!(Volume::of_task(state.path(), &task(1)).await.unwrap().is_none());
}

/// As a child does that another thread has just started, until it is another program.
fn hold_for_a_moment(slot: &Path) -> std::thread::JoinHandle<()> {
    let held = File::open(slot.join(LOCK)).unwrap();
    held.lock().unwrap();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(held);
    })
}

#[tokio::test]
async fn a_lock_that_is_held_for_a_moment_is_nobody_s() {
    let state = tempfile::tempdir().unwrap();
    let left = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    let slot = left.slot.clone();
    left.leave();
    let moment = hold_for_a_moment(&slot);
    let again = Volume::of_task(state.path(), &task(1)).await.unwrap().expect("it is its own task's");
    moment.join().unwrap();
    write(&again.path(), "one.").await;
    again.keep().await.unwrap();
    let moment = hold_for_a_moment(&slot);
    let next = Volume::take(state.path(), "shop", &task(2)).await.unwrap();
    moment.join().unwrap();
    assert!(!next.is_new(), "the project's next job has what was saved");
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What a guest would read of the disk's beginning.
async fn content(disk: &Path) -> String {
    let raw = disk.with_extension("raw");
    qemu_img(&["convert", "-q", "-O", "raw", &text(disk), &text(&raw)]).await.unwrap();
    let mut bytes = [0; 4];
    io::Read::read_exact(&mut File::open(&raw).unwrap(), &mut bytes).unwrap();
    fs::remove_file(raw).unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Writes to the disk's beginning, as a machine would.
async fn write(disk: &Path, what: &str) {
    let raw = disk.with_extension("in");
    fs::write(&raw, what.repeat(1024)).unwrap();
    let arguments = ["-f", "qcow2", "-c", &format!("write -s {} 0 4096", text(&raw)), &text(disk)];
    command::run("qemu-io", &arguments, b"", &command::search_path(None), QEMU_IMG_LIMIT).await.unwrap();
    fs::remove_file(raw).unwrap();
}

#[tokio::test]
async fn what_was_kept_is_there_for_the_next_job_and_what_was_not_is_gone() {
    let state = tempfile::tempdir().unwrap();
    let first = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    assert!(first.is_new());
    write(&first.path(), "one.").await;
    let slot = first.slot.clone();
    first.keep().await.unwrap();
    assert_eq!(names(&slot), [ABOUT, DISK, LOCK]);

    let second = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    assert!(!second.is_new() && second.slot == slot);
    assert_eq!(content(&second.path()).await, "one.");
    write(&second.path(), "two.").await;
    drop(second);
    assert_eq!((content(&slot.join(DISK)).await.as_str(), names(&slot).len()), ("one.", 3));

    let third = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    write(&third.path(), "3333").await;
    third.keep().await.unwrap();
    // It stands alone: its backing file was what it has replaced.
    let (disk, path) = (text(&slot.join(DISK)), command::search_path(None));
    let information = command::run("qemu-img", &["info", &disk], b"", &path, QEMU_IMG_LIMIT).await.unwrap();
    let information = String::from_utf8(information).unwrap();
    assert!(!information.contains("backing file"), "{information}");
    assert_eq!(content(&slot.join(DISK)).await, "3333");
}

#[tokio::test]
async fn no_volume_is_had_twice_and_none_by_another_project() {
    let state = tempfile::tempdir().unwrap();
    let first = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    let beside = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    assert_ne!(first.slot, beside.slot);
    first.keep().await.unwrap();
    for other in ["Shop", "../shop", "", "shop/0"] {
        let theirs = Volume::take(state.path(), other, &task(1)).await.unwrap();
        assert!(theirs.is_new(), "{other}");
        assert_eq!(theirs.slot.parent().unwrap().parent().unwrap(), directory(state.path()), "{other}");
    }
    drop(beside);
    assert_eq!(list(state.path()).unwrap().len(), 1);
}

#[tokio::test]
async fn a_project_has_so_many_volumes_and_no_more() {
    let state = tempfile::tempdir().unwrap();
    let parent = directory(state.path()).join(project_name("shop"));
    let taken: Vec<Volume> = (0..SLOTS).map(|_| take_slot(state.path(), &parent, &task(1), 1).unwrap()).collect();
    assert!(matches!(take_slot(state.path(), &parent, &task(1), 1), Err(LayersError::Full)));
    drop(taken);
    take_slot(state.path(), &parent, &task(1), 1).unwrap();
}

#[tokio::test]
async fn what_a_killed_job_left_is_removed_and_what_was_saved_stays() {
    let state = tempfile::tempdir().unwrap();
    let killed = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    let slot = killed.slot.clone();
    killed.keep().await.unwrap();
    fs::write(slot.join(WORK), "half").unwrap();
    assert_eq!(prune_at(state.path(), Keeping::default(), now()), (vec![], vec![]));
    assert_eq!(names(&slot), [ABOUT, DISK, LOCK]);
    fs::write(slot.join(WORK), "half").unwrap();
    let next = Volume::take(state.path(), "shop", &task(1)).await.unwrap();
    assert!(!next.is_new() && next.path().metadata().unwrap().len() > 4);
}

#[tokio::test]
async fn volumes_go_when_they_are_unused_old_or_large_and_never_while_a_job_has_them() {
    let keeping = Keeping::default();
    let doomed = [
        ("unused", now() - DAY, now() - 4 * DAY, keeping, true),
        ("old", now() - 15 * DAY, now(), keeping, true),
        ("large", now(), now(), Keeping { size: 1, ..keeping }, true),
        ("young", now() - 13 * DAY, now() - 2 * DAY, keeping, false),
    ];
    for (name, made, used, keeping, is_doomed) in doomed {
        let state = tempfile::tempdir().unwrap();
        let volume = Volume::take(state.path(), name, &task(1)).await.unwrap();
        let slot = volume.slot.clone();
        write(&volume.path(), "data").await;
        volume.keep().await.unwrap();
        write_about(&slot, About { made, used }).unwrap();
        let held = lock(&slot).unwrap().unwrap();
        assert_eq!(prune(state.path(), keeping), (vec![], vec![]), "{name}");
        drop(held);
        let (removed, left) = prune(state.path(), keeping);
        assert_eq!((removed.len(), left.len(), slot.exists()), (usize::from(is_doomed), 0, !is_doomed), "{name}");
    }
}

#[test]
fn what_is_no_volume_is_neither_listed_nor_removed() {
    let state = tempfile::tempdir().unwrap();
    let place = directory(state.path());
    for path in ["mine/0/disk.qcow2", "0123456789abcdef0123456789abcdef/99/disk.qcow2", "notes/disk.qcow2"] {
        let path = place.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    let nothing = Keeping { unused: Duration::ZERO, age: Duration::ZERO, size: 0 };
    assert_eq!((list(state.path()).unwrap(), prune(state.path(), nothing)), (vec![], (vec![], vec![])));
    assert_eq!(names(&place).len(), 3);
}

/// Nothing can be looked at there: it is a link to itself.
fn spoil(path: &Path) {
    std::os::unix::fs::symlink(path, path).unwrap();
}

fn slot(state: &Path, project: &str) -> PathBuf {
    let slot = directory(state).join(project_name(project)).join("0");
    fs::create_dir_all(&slot).unwrap();
    slot
}

#[test]
fn a_saved_disk_that_cannot_be_looked_at_is_no_new_one() {
    let state = tempfile::tempdir().unwrap();
    let slot = slot(state.path(), "shop");
    spoil(&slot.join(DISK));
    let error = take_slot(state.path(), slot.parent().unwrap(), &task(1), 1).unwrap_err();
    assert_eq!(error.to_string(), format!("failed to look at {}", slot.join(DISK).display()));
    assert!(!slot.join(TASK).exists(), "nobody has it");
}

#[test]
fn what_a_machine_goes_on_with_counts_as_new_only_where_nothing_was_saved() {
    let state = tempfile::tempdir().unwrap();
    let slot = slot(state.path(), "shop");
    fs::write(slot.join(TASK), task(1).as_str()).unwrap();
    fs::write(slot.join(WORK), "half").unwrap();
    let new = slot_of(state.path(), &task(1)).unwrap().unwrap();
    assert!(new.is_new());
    new.leave();
    spoil(&slot.join(DISK));
    let error = slot_of(state.path(), &task(1)).unwrap_err();
    assert_eq!(error.to_string(), format!("failed to look at {}", slot.join(DISK).display()));
    fs::remove_file(slot.join(WORK)).unwrap();
    spoil(&slot.join(WORK));
    assert!(slot_of(state.path(), &task(1)).is_err(), "it may be there");
}

#[test]
fn volumes_that_cannot_be_listed_may_be_there() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!((list(state.path()).unwrap(), prune(state.path(), Keeping::default())), (vec![], (vec![], vec![])));
    let place = directory(state.path());
    let assert_told = |path: &Path| {
        let words = format!("failed to list {}", path.display());
        assert_eq!(list(state.path()).unwrap_err().to_string(), words);
        assert_eq!(slot_of(state.path(), &task(1)).unwrap_err().to_string(), words);
        let (removed, left) = prune(state.path(), Keeping::default());
        assert!(removed.is_empty() && left.len() == 1 && left[0].contains(&words), "{left:?}");
    };
    fs::write(&place, "").unwrap();
    assert_told(&place);
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    let project = place.join(project_name("shop"));
    fs::write(&project, "").unwrap();
    assert_told(&project);
}

#[test]
fn a_volume_whose_disk_cannot_be_looked_at_is_named() {
    let state = tempfile::tempdir().unwrap();
    let slot = slot(state.path(), "shop");
    spoil(&slot.join(DISK));
    assert!(list(state.path()).is_err());
    let (removed, left) = prune(state.path(), Keeping::default());
    assert!(removed.is_empty() && left.len() == 1 && left[0].contains("failed to look at"), "{left:?}");
}
