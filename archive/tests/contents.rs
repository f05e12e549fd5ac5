//! An archive from its end: what is in it, and each file by itself.

mod trees;

use std::fs;

use navvy_archive::contents::{Contents, each_record, open_frame};
use navvy_archive::entry::Kind;
use navvy_archive::error::ReadError;
use navvy_archive::format::{FOOTER, Footer};
use navvy_archive::manifest::{Frame, Record};
use navvy_archive::pack::Options;
use tempfile::tempdir;
use trees::*;

fn contents(archive: &[u8]) -> Result<Contents, ReadError> {
    let footer = Footer::decode(&archive[archive.len() - FOOTER..]).expect("a footer");
    let start = footer.manifest_offset as usize;
    Contents::read(footer, &archive[start..start + footer.manifest_length as usize], 1 << 20)
}

fn range<'a>(archive: &'a [u8], frame: &Frame) -> &'a [u8] {
    &archive[frame.offset as usize..frame.end() as usize]
}

#[test]
fn each_file_is_read_from_its_frames_alone() {
    let from = tempdir().unwrap();
    build_rich_tree(from.path());
    for frame in [64 << 10, 4 << 20] {
        let (archive, summary, _) = pack_with(from.path(), &Options { frame, ..Options::new(THREADS) });
        let contents = contents(&archive).unwrap();
        assert_eq!(contents.footer, summary.footer);
        let (mut files, mut fetched) = (0, 0);
        for entry in &contents.entries {
            let Kind::File(content) = &entry.kind else { continue };
            let mut bytes = Vec::new();
            let mut fetch = |frame: &Frame| {
                fetched += 1;
                Ok(range(&archive, frame).to_vec())
            };
            contents.copy_file(content, &mut fetch, &mut bytes).unwrap();
            let path = from.path().join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&entry.path));
            assert!(bytes == fs::read(path).unwrap(), "{}", entry.shown());
            files += 1;
        }
        assert_eq!(files, summary.files);
        assert!(fetched >= files - 2, "all but empty files");
    }
}

#[test]
fn a_hard_link_is_found_as_its_file() {
    let from = tempdir().unwrap();
    build_rich_tree(from.path());
    let contents = contents(&packed(from.path())).unwrap();
    let one = contents.find(b"zzz other name").unwrap();
    assert_eq!(one.path, b"0 first name");
    assert_eq!(contents.find(b"no such name"), None);
}

#[test]
fn what_a_manifest_says_is_what_the_disk_had() {
    let from = tempdir().unwrap();
    build_rich_tree(from.path());
    let archive = packed(from.path());
    let contents = contents(&archive).unwrap();
    let there = look(from.path());
    assert_eq!(contents.entries.len(), there.len());
    for entry in &contents.entries {
        let path: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&entry.path);
        let seen = &there[std::path::Path::new(path)];
        let mtime = (entry.mtime.seconds, i64::from(entry.mtime.nanos));
        assert_eq!(mtime, seen.mtime, "{path:?}");
        match &entry.kind {
            Kind::File(content) if content.sparse => assert_eq!(content.size, seen.size),
            Kind::File(content) => {
                assert_eq!((content.size, entry.mode), (seen.size, seen.mode));
                assert_eq!(content.digest, navvy_archive::format::digest(&seen.content));
            }
            Kind::Symlink { target } => assert_eq!(*target, seen.content),
            Kind::HardLink { .. } => assert!(seen.same_as.is_some()),
            Kind::Directory => assert_eq!((seen.kind, entry.mode), ("directory", seen.mode)),
        }
    }
}

#[test]
fn entries_stand_in_the_order_of_their_names() {
    let from = tempdir().unwrap();
    build_rich_tree(from.path());
    let contents = contents(&packed(from.path())).unwrap();
    let names = |path: &[u8]| path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
    assert!(contents.entries.windows(2).all(|two| names(&two[0].path) < names(&two[1].path)));
}

#[test]
fn a_frame_of_other_bytes_is_damaged() {
    let from = tempdir().unwrap();
    build_rich_tree(from.path());
    let archive = packed(from.path());
    let contents = contents(&archive).unwrap();
    let frame = &contents.frames[0];
    let mut bytes = range(&archive, frame).to_vec();
    assert!(open_frame(frame, &bytes).is_ok());
    bytes[20] ^= 1;
    assert!(matches!(open_frame(frame, &bytes), Err(ReadError::Damaged { .. })));
    assert!(matches!(open_frame(frame, &bytes[1..]), Err(ReadError::Damaged { .. })));
}

#[test]
fn a_manifest_that_is_not_the_footers_is_refused() {
    let from = tempdir().unwrap();
    build_rich_tree(from.path());
    let archive = packed(from.path());
    let footer = contents(&archive).unwrap().footer;
    let start = footer.manifest_offset as usize;
    let manifest = &archive[start..start + footer.manifest_length as usize];
    let read = |footer: &Footer, manifest: &[u8]| each_record(footer, manifest, &mut |_: Record| Ok(()));
    assert!(read(&footer, manifest).is_ok());
    assert!(read(&footer, &manifest[..manifest.len() - 1]).is_err());
    for wrong in [
        Footer { entries: footer.entries + 1, ..footer },
        Footer { frames: footer.frames - 1, ..footer },
        Footer { plain: footer.plain + 512, ..footer },
        Footer { manifest_offset: footer.manifest_offset - 1, ..footer },
        Footer { manifest_digest: [0; 32], ..footer },
    ] {
        assert!(read(&wrong, manifest).is_err(), "{wrong:?}");
    }
    assert!(matches!(Contents::read(footer, manifest, 3), Err(ReadError::Quota { .. })));
}
