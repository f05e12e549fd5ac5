//! What is told of a task's machines where a record of some machine cannot be read.

use std::fs;
use std::os::unix::fs::symlink;

use navvy_journal::owner::Owner;
use navvy_vm_image::Images;

use super::*;

fn host(state: &Path) -> HostPaths {
    HostPaths {
        state: state.to_owned(),
        runtime: Some(state.join("runtime")),
        docker_config: None,
        search_path: "/usr/bin:/bin".to_owned(),
        supervisor: None,
    }
}

fn machines() -> Machines {
    Machines::qemu(Settings::new(Images::at("/nonexistent")))
}

fn task(nth: u64) -> TaskId {
    format!("{nth:016x}").parse().unwrap()
}

/// The directory of a machine in which this task's steps run, by its record alone.
async fn machine(state: &Path, task: TaskId) -> PathBuf {
    let planned = Planned {
        version: Planned::VERSION,
        machine: MachineId::random(),
        task: Some(task),
        owner: Owner::this_process().unwrap(),
        provider: "qemu".to_owned(),
        image: "debian-12-minimal".to_owned(),
        is_adoptable: false,
        has_steps: true,
        pool: None,
        kind: None,
        is_lent: false,
    };
    Record::create(state, planned).await.unwrap().directory().to_owned()
}

async fn assert_none(state: &Path, task: &TaskId) {
    assert!(!machines().has(task, &host(state)));
    assert_eq!(machines().remove_machines(task, &host(state), CLEAN_UP_LIMIT).await, Vec::<String>::new());
    assert!(find(state, task, true).unwrap().is_none());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_now_may_be_of_any_task_s_machine_and_is_named_as_left() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    let record = machine(state, task(2)).await.join("record");
    assert_none(state, &task(1)).await;
    fs::remove_file(&record).unwrap();
    symlink("record", &record).unwrap();
    assert!(machines().has(&task(1), &host(state)));
    let left = machines().remove_task(&task(1), &host(state), CLEAN_UP_LIMIT).await;
    assert!(left.len() == 1 && left[0].contains(&record.display().to_string()), "{left:?}");
    assert!(find(state, &task(1), true).is_err());
    fs::remove_file(&record).unwrap();
    assert_none(state, &task(1)).await;
    fs::write(&record, "").unwrap();
    assert_none(state, &task(1)).await;
}

#[tokio::test]
async fn a_record_that_nobody_will_ever_read_holds_up_no_task_of_all() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path();
    fs::write(machine(state, task(2)).await.join("record"), "no record\n and more\n").unwrap();
    assert!(!machines().has(&task(1), &host(state)));
    assert_eq!(machines().remove_task(&task(1), &host(state), CLEAN_UP_LIMIT).await, Vec::<String>::new());
    assert!(find(state, &task(1), true).is_err(), "it may have been its machine");
    let own = machine(state, task(1)).await;
    assert_eq!(all_of(state, &task(1)).unwrap(), std::slice::from_ref(&own));
    assert_eq!(find(state, &task(1), true).unwrap().map(|(directory, _)| directory), Some(own));
    assert!(find(state, &task(1), false).unwrap().is_none());
}

#[tokio::test]
async fn a_directory_that_cannot_be_looked_at_is_left() {
    let state = tempfile::tempdir().unwrap();
    let directory = machine(state.path(), task(1)).await;
    fs::remove_dir_all(&directory).unwrap();
    let removed = machines().remove_directory(directory.clone(), &host(state.path()), CLEAN_UP_LIMIT).await;
    assert_eq!(removed, Vec::<String>::new(), "it went meanwhile");
    symlink(&directory, &directory).unwrap();
    let left = machines().remove_directory(directory, &host(state.path()), CLEAN_UP_LIMIT).await;
    assert!(left.len() == 1 && left[0].contains("could not read the record of a machine"), "{left:?}");
}
