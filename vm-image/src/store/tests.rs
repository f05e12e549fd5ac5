use std::os::fd::AsFd as _;

use super::*;
use crate::samples;

#[test]
fn places_follow_the_environment() {
    let of = |pairs: &[(&str, &str)], is_root| {
        let variables = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Images::of(&variables, is_root).map(|images| images.directory().display().to_string()).ok()
    };
    let all = [("NAVVY_IMAGES", "/i"), ("XDG_DATA_HOME", "/d"), ("HOME", "/h")];
    assert_eq!(of(&all, true).as_deref(), Some("/i"));
    assert_eq!(of(&all[1..], true).as_deref(), Some("/d/navvy/images"));
    assert_eq!(of(&all[2..], true).as_deref(), Some("/var/lib/navvy/images"));
    assert_eq!(of(&all[2..], false).as_deref(), Some("/h/.local/share/navvy/images"));
    assert_eq!(of(&[("NAVVY_IMAGES", "")], false), None);
}

#[test]
fn a_store_that_is_not_there_is_empty_and_has_no_image() {
    let (_directory, images) = samples::store();
    assert!(images.list().unwrap().is_empty());
    assert!(matches!(images.get("a"), Err(ImageError::Missing { .. })));
    assert!(matches!(images.remove("a"), Err(ImageError::Missing { .. })));
    assert!(matches!(images.get("../a"), Err(ImageError::Name(_))));
}

#[test]
fn an_image_is_put_listed_replaced_and_removed_and_nothing_else_stays() {
    let (_directory, images) = samples::store();
    samples::put(&images, "a");
    let first = images.get("a").unwrap();
    drop(images.making().unwrap());
    assert_eq!(images.list().unwrap().into_iter().map(|listed| listed.name).collect::<Vec<_>>(), ["a"]);
    assert_eq!(std::fs::read(first.root()).unwrap(), b"root");
    drop(first);
    samples::put(&images, "a");
    images.get("a").unwrap().verify().unwrap();
    images.remove("a").unwrap();
    let left: Vec<_> = std::fs::read_dir(images.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| *name == *".locks" || *name == *".verified"), "{left:?}");
    assert_eq!(std::fs::read_dir(images.directory().join(".verified")).unwrap().count(), 0);
}

#[test]
fn what_somebody_starts_from_is_neither_replaced_nor_removed() {
    let (_directory, images) = samples::store();
    samples::put(&images, "a");
    let held = images.get("a").unwrap();
    let copy = held.clone();
    drop(held);
    assert!(matches!(images.remove("a"), Err(ImageError::Busy { .. })));
    assert!(matches!(images.alone("a"), Err(ImageError::Busy { .. })));
    drop(copy);
    let alone = images.alone("a").unwrap();
    assert!(matches!(images.get("a"), Err(ImageError::Busy { .. })));
    assert!(matches!(images.alone("a"), Err(ImageError::Busy { .. })), "two builds at once");
    drop(alone);
    images.remove("a").unwrap();
}

/// As QEMU locks the disks that it has open: the lock belongs to the open file, not to a process.
#[test]
fn an_image_whose_disk_a_machine_has_open_is_not_removed() {
    let (_directory, images) = samples::store();
    samples::put(&images, "a");
    let disk = std::fs::File::open(images.directory().join("a").join(crate::manifest::ROOT)).unwrap();
    let child = lock_in_a_child(disk.as_fd().try_clone_to_owned().unwrap());
    let refused = images.remove("a");
    assert!(matches!(&refused, Err(ImageError::Busy { by, .. }) if *by == "a machine runs from it"), "{refused:?}");
    drop(child);
    drop(disk);
    images.remove("a").unwrap();
}

/// Killed when it is dropped, however its test ends.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A process that locks a byte of its standard input, says so, and waits.
fn lock_in_a_child(disk: std::os::fd::OwnedFd) -> Child {
    use std::io::Read as _;
    let script = "import fcntl, struct, sys, time\n\
                  F_OFD_SETLK = 37\n\
                  fcntl.fcntl(0, F_OFD_SETLK, struct.pack('hhqqi', fcntl.F_RDLCK, 0, 100, 1, 0))\n\
                  print('locked', flush=True)\n\
                  time.sleep(600)\n";
    let mut child = std::process::Command::new("python3")
        .args(["-c", script])
        .stdin(disk)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    Child(child)
}

#[test]
fn a_manifest_that_lies_is_no_image() {
    let (_directory, images) = samples::store();
    samples::put(&images, "a");
    let place = images.directory().join("a");
    let good = images.get("a").unwrap().manifest;
    type Lie = fn(&mut Manifest);
    let lies: [(&str, Lie); 7] = [
        ("the image `b`", |manifest| manifest.name = "b".into()),
        ("form 9", |manifest| manifest.version = 9),
        ("architecture", |manifest| manifest.architecture = "m68k".into()),
        ("name of one of its files", |manifest| manifest.root.name = "../../etc/shadow".into()),
        ("digest of its file", |manifest| manifest.kernel.sha256 = "00".into()),
        ("no line of plain text", |manifest| manifest.arguments = "a\ninit=/bin/sh".into()),
        ("its user", |manifest| manifest.user = "root;".into()),
    ];
    for (expected, lie) in lies {
        let mut manifest = good.clone();
        lie(&mut manifest);
        samples::write(&place, &manifest);
        let error = images.get("a").unwrap_err();
        assert!(
            matches!(error, ImageError::Damaged { .. }) && error.to_string().contains(expected),
            "{expected}: {error}"
        );
    }
    std::fs::remove_file(place.join(manifest::FILE)).unwrap();
    assert!(matches!(images.get("a"), Err(ImageError::Damaged { .. })));
    // It is told in the list, and can be removed.
    assert!(images.list().unwrap()[0].image.is_err());
    images.remove("a").unwrap();
}

#[test]
fn a_link_is_no_image() {
    let (directory, images) = samples::store();
    samples::put(&images, "a");
    std::os::unix::fs::symlink(images.directory().join("a"), images.directory().join("b")).unwrap();
    assert!(matches!(images.get("b"), Err(ImageError::Damaged { .. })));
    drop(directory);
}
