use std::time::Duration;

use super::*;
use crate::samples;

fn wanted(supervisor: &Path) -> Build {
    Build {
        variant: Variant::Minimal,
        architecture: "x86_64".into(),
        name: "a".into(),
        supervisor: supervisor.to_owned(),
        anew: false,
    }
}

fn supervisor(directory: &Path, tail: &str) -> PathBuf {
    let mut bytes = vec![0; 64];
    bytes[..4].copy_from_slice(b"\x7fELF");
    bytes[18] = 62;
    bytes.extend(tail.as_bytes());
    let path = directory.join(format!("supervisor{tail}"));
    std::fs::write(&path, bytes).unwrap();
    path
}

/// An image as the recipe would have made it.
fn put(images: &Images, supervisor: &Path) {
    let made = images.making().unwrap();
    let mut manifest = samples::fill(made.path(), "a");
    manifest.inputs = recipe::inputs(Variant::Minimal, "x86_64");
    let modules = Modules::from([("list".into(), b"a.ko\n".to_vec()), ("a.ko".into(), b"A".to_vec())]);
    let initrd = initrd::pack(&std::fs::read(supervisor).unwrap(), &modules);
    manifest.initrd = write(made.path(), manifest::INITRD, &initrd).unwrap();
    finish(made.path(), &manifest).unwrap();
    images.alone("a").unwrap().put(made).unwrap();
}

#[test]
fn another_supervisor_needs_no_other_root() {
    let (directory, images) = samples::store();
    let [old, new] = ["old", "new"].map(|tail| supervisor(directory.path(), tail));
    put(&images, &old);
    let before = images.get("a").unwrap();
    let (digest, manifest) = (before.digest.clone(), before.manifest.clone());
    drop(before);
    let say = |_: &str| panic!("the recipe runs");
    assert_eq!(build(&images, &wanted(&old), &Stop::default(), &say).unwrap(), Built::AsItWas);
    assert_eq!(build(&images, &wanted(&new), &Stop::default(), &say).unwrap(), Built::Supervisor);
    let after = images.get("a").unwrap();
    after.verify_thoroughly().unwrap();
    assert_eq!((&after.manifest.root, &after.manifest.kernel), (&manifest.root, &manifest.kernel));
    assert_ne!(after.digest, digest);
    let (is, modules) = initrd::unpack(&std::fs::read(after.initrd()).unwrap()).unwrap();
    assert_eq!((is, modules.len()), (std::fs::read(&new).unwrap(), 2));
}

#[test]
fn an_image_that_a_machine_starts_from_is_not_exchanged() {
    let (directory, images) = samples::store();
    let [old, new] = ["old", "new"].map(|tail| supervisor(directory.path(), tail));
    put(&images, &old);
    let held = images.get("a").unwrap();
    let busy = build(&images, &wanted(&new), &Stop::default(), &|_| {});
    assert!(matches!(busy, Err(ImageError::Busy { .. })), "{busy:?}");
    held.verify().unwrap();
}

#[test]
fn a_supervisor_of_another_processor_is_refused_before_anything_is_made() {
    let (directory, images) = samples::store();
    let supervisor = supervisor(directory.path(), "x");
    let arm = Build { architecture: "aarch64".into(), ..wanted(&supervisor) };
    let error = build(&images, &arm, &Stop::default(), &|_| {}).unwrap_err();
    assert!(error.to_string().contains("is no supervisor for aarch64"), "{error}");
    assert!(!images.directory().exists());
}

/// A recipe that would never end, and has started what would not either.
#[test]
fn what_is_stopped_is_gone_with_all_that_it_started() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    // The grandchild holds the pipe open for writing: reading it ends when the grandchild has.
    let script =
        format!("(exec 3>{0}; echo up >&3; exec sleep 3600) & echo started >&2; wait; sleep 3600", fifo.display());
    let stop = Stop::default();
    let (started, is_started) = std::sync::mpsc::channel();
    let runner = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let words = [OsStr::new("-c"), OsStr::new(&script)];
            tools::run(Path::new("bash"), &words, true, 600, &stop, &|line| started.send(line.to_owned()).unwrap())
        }
    });
    let mut pipe = std::fs::File::open(&fifo).unwrap();
    assert_eq!(is_started.recv_timeout(Duration::from_secs(60)).unwrap(), "started");
    stop.stop();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut pipe, &mut said).unwrap();
    assert_eq!(said, "up\n");
    assert_eq!(runner.join().unwrap(), Err("it was stopped".to_owned()));
    assert!(tools::run(Path::new("true"), &[], false, 60, &stop, &|_| {}).is_err(), "nothing begins after that");
}

#[test]
fn a_recipe_that_fails_or_takes_too_long_says_so_with_its_last_words() {
    let run = |script: &str, seconds| {
        let words = [OsStr::new("-c"), OsStr::new(script)];
        tools::run(Path::new("bash"), &words, false, seconds, &Stop::default(), &|_| {})
    };
    assert_eq!(run("true", 60), Ok(()));
    let failed = run("for i in $(seq 100); do echo line $i >&2; done; exit 3", 60).unwrap_err();
    assert!(
        failed.contains("exit status: 3") && failed.ends_with("line 99\nline 100") && !failed.contains("line 50"),
        "{failed}"
    );
    assert!(run("exec sleep 600", 1).unwrap_err().contains("longer than 1 s"));
}

#[test]
fn names_and_versions_are_as_people_write_them() {
    assert_eq!(Variant::Docker.image("x86_64"), "debian-12-docker");
    assert_eq!(Variant::Full.image("aarch64"), "debian-12-full-arm64");
    assert_eq!(upstream("20.10.24+dfsg1-1+deb12u1+b6"), "20.10.24");
}
