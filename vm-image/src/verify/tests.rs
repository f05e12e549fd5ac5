use std::fs;

use super::*;
use crate::samples;
use crate::store::Images;

fn told(images: &Images) -> String {
    images.get("a").unwrap().verify().unwrap_err().to_string()
}

#[test]
fn a_file_of_other_bytes_is_named_with_both_digests() {
    let (_directory, images) = samples::store();
    samples::put(&images, "a");
    let image = images.get("a").unwrap();
    image.verify().unwrap();
    fs::write(image.root(), b"toor").unwrap();
    let error = told(&images);
    assert!(error.contains("root.qcow2 is 4") || error.contains("root.qcow2 is "), "{error}");
    assert!(error.contains(&image.manifest.root.sha256), "{error}");
    fs::write(image.root(), b"root and more").unwrap();
    assert!(told(&images).contains("has 13 bytes, and 4 by its manifest"), "{}", told(&images));
    fs::remove_file(image.root()).unwrap();
    assert!(told(&images).contains("failed to open"), "{}", told(&images));
}

/// Whoever swaps a file can set its age back, and give it the same length.
#[test]
fn a_swapped_file_is_seen_although_its_age_and_length_are_the_same() {
    let (directory, images) = samples::store();
    samples::put(&images, "a");
    let image = images.get("a").unwrap();
    image.verify().unwrap();
    let age = fs::metadata(image.kernel()).unwrap().modified().unwrap();
    let other = directory.path().join("other");
    fs::write(&other, b"lenrek").unwrap();
    fs::File::options().write(true).open(&other).unwrap().set_modified(age).unwrap();
    fs::rename(&other, image.kernel()).unwrap();
    assert!(told(&images).contains("the digest of"), "{}", told(&images));
    // In place, too: the time of change tells.
    let age = fs::metadata(image.initrd()).unwrap().modified().unwrap();
    fs::write(image.initrd(), b"dritni").unwrap();
    fs::File::options().write(true).open(image.initrd()).unwrap().set_modified(age).unwrap();
    fs::write(image.kernel(), b"kernel").unwrap();
    assert!(told(&images).contains("initrd.cpio"), "{}", told(&images));
}

#[test]
fn what_was_read_is_not_read_again() {
    let (_directory, images) = samples::store();
    samples::put(&images, "a");
    let image = images.get("a").unwrap();
    image.verify().unwrap();
    // That the note counts, and for how much: the digest that it has is believed of the file that it describes, and of no other.
    let notes = notes(&image).unwrap();
    let mut seen = read_notes(&notes);
    assert_eq!(seen.len(), 3);
    let mut manifest = image.manifest.clone();
    let false_digest = "0".repeat(64);
    manifest.root.sha256.clone_from(&false_digest);
    samples::write(&image.directory, &manifest);
    seen.get_mut(crate::manifest::ROOT).unwrap().sha256 = false_digest;
    write_notes(&notes, &seen).unwrap();
    images.get("a").unwrap().verify().unwrap();
    assert!(images.get("a").unwrap().verify_thoroughly().is_err());
    // Notes that are none are read over.
    fs::write(&notes, "no json").unwrap();
    assert!(images.get("a").unwrap().verify().is_err());
}

#[test]
fn a_link_or_a_pipe_in_a_file_s_place_is_not_followed() {
    let (directory, images) = samples::store();
    samples::put(&images, "a");
    let image = images.get("a").unwrap();
    let elsewhere = directory.path().join("root");
    fs::rename(image.root(), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, image.root()).unwrap();
    assert!(told(&images).contains("failed to open"), "{}", told(&images));
    fs::remove_file(image.root()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, image.root(), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(told(&images).contains("no plain file"), "{}", told(&images));
}

/// Whoever may only read the store cannot write notes, but reads those of its owner.
#[test]
fn notes_can_be_read_by_everybody() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_directory, images) = samples::store();
    samples::put(&images, "a");
    let image = images.get("a").unwrap();
    image.verify().unwrap();
    assert_eq!(fs::metadata(notes(&image).unwrap()).unwrap().permissions().mode() & 0o777, 0o644);
}
