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
    assert!(Volume::of_task(state.path(), &task(3)).await.is_none());
    let again = Volume::of_task(state.path(), &task(1)).await.unwrap();
    assert!(Volume::of_task(state.path(), &task(1)).await.is_none(), "it is one process's");
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
    assert!(Volume::of_task(state.path(), &task(1)).await.is_none());
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
    assert_eq!(list(state.path()).len(), 1);
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
    assert_eq!((list(state.path()), prune(state.path(), nothing)), (vec![], (vec![], vec![])));
    assert_eq!(names(&place).len(), 3);
}
