//! Archives made to do harm, and broken ones: an error each, nothing outside the root touched, nothing half-written left.

mod forge;
mod trees;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use forge::*;
use navvy_archive::beneath::Root;
use navvy_archive::codec::{Compressor, store};
use navvy_archive::contents::Contents;
use navvy_archive::entry::{Entry, Kind, Place, Time};
use navvy_archive::error::ReadError;
use navvy_archive::format::{ANNOUNCEMENT, Announcement, FOOTER, Footer, HEAD, PLAIN_CAP, START, digest};
use navvy_archive::sparse::{Map, Piece};
use navvy_archive::tape::{self, Body, Head};
use navvy_archive::unpack::{self, Limits, Placement, unpack, verify};
use trees::{LIMITS, THREADS, build_rich_tree, options, packed, unpack_with};

#[test]
fn a_forgery_without_evil_is_taken() {
    let forgery = Forgery::new()
        .entry(&directory(b"d"), b"")
        .file(b"d/file", b"content")
        .entry(&symlink(b"d/link", b"/etc"), b"")
        .next_frame()
        .entry(&hard_link(b"other", b"d/file"), b"")
        .end();
    let yard = Yard::new();
    yard.unpack(&forgery.build()).unwrap();
    assert_eq!(fs::read_to_string(yard.root().join("other")).unwrap(), "content");
}

#[test]
fn names_that_lead_out_are_refused() {
    for (path, why) in [
        (&b"/tmp/absolute"[..], "absolute"),
        (b"../outside/file", ".."),
        (b"a/../../outside/file", ".."),
        (b"..", ".."),
        (b"./a", "`.`"),
        (b"a//b", "empty"),
        (b"a/", "empty"),
        (&[b'n'; 256], "255"),
        (&b"d/".repeat(2100), "4095"),
    ] {
        for head in [head(path, Body::File { size: 4 }), directory(path), symlink(path, b"x")] {
            let data: &[u8] = if matches!(head.body, Body::File { .. }) { b"evil" } else { b"" };
            let archive = Forgery::new().entry(&head, data).end().build();
            let error = Yard::new().unpack(&archive).unwrap_err().to_string();
            assert!(error.contains(why) || error.contains("in the form"), "{path:?}: {error}");
        }
    }
}

#[test]
fn a_nul_in_a_name_is_refused() {
    let long = [&b"n".repeat(120)[..], b"\0", b"/../../outside/file"].concat();
    refused(&Forgery::new().file(&long, b"evil").end().build(), "broken");
}

#[test]
fn a_file_below_a_symlink_is_refused() {
    for target in [&b"../outside"[..], b".", b"/"] {
        let forgery = Forgery::new().entry(&symlink(b"d", target), b"").file(b"d/file", b"evil");
        refused(&forgery.clone().end().build(), "not a directory");
        // In another frame, which another worker has.
        let forgery = Forgery::new().entry(&symlink(b"d", target), b"").next_frame().file(b"d/deep/file", b"evil");
        refused(&forgery.end().build(), "not a directory");
    }
    let forgery = Forgery::new().file(b"d/file", b"evil").entry(&symlink(b"d", b"../outside"), b"");
    refused(&forgery.end().build(), "another entry is below it");
}

#[test]
fn a_file_over_a_link_of_its_name_is_refused() {
    let forgery = Forgery::new().entry(&symlink(b"f", b"../outside/file"), b"").file(b"f", b"evil");
    refused(&forgery.end().build(), "twice");
    let forgery = Forgery::new().file(b"f", b"x").entry(&hard_link(b"g", b"f"), b"").file(b"g", b"evil");
    refused(&forgery.end().build(), "twice");
}

#[test]
fn a_directory_over_a_link_changes_no_mode_outside() {
    let open = Head { mode: 0o777, ..directory(b"d") };
    let forgery = Forgery::new().entry(&symlink(b"d", b"../outside"), b"").entry(&open, b"").end();
    refused(&forgery.build(), "twice");
    // The link was there before: from another archive, or from the job.
    let yard = Yard::new();
    yard.unpack(&Forgery::new().entry(&symlink(b"d", b"../outside"), b"").end().build()).unwrap();
    yard.unpack(&Forgery::new().entry(&open, b"").file(b"d/file", b"inside").end().build()).unwrap();
    assert!(yard.root().join("d").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read_to_string(yard.root().join("d/file")).unwrap(), "inside");
}

#[test]
fn links_that_were_there_before_are_replaced_not_followed() {
    let yard = Yard::new();
    std::os::unix::fs::symlink("../outside", yard.root().join("d")).unwrap();
    std::os::unix::fs::symlink("../outside/file", yard.root().join("f")).unwrap();
    std::os::unix::fs::symlink("../outside/new", yard.root().join("large")).unwrap();
    let large = vec![7; PLAIN_CAP];
    let first = Forgery::new().file(b"d/file", b"inside").file(b"f", b"inside");
    let mut forgery = first.next_frame().entry(&head(b"large", Body::File { size: PLAIN_CAP as u64 }), b"");
    let split = PLAIN_CAP - 4096;
    let Some(Entry { kind: Kind::File(content), .. }) = forgery.entries.last_mut() else { panic!("a file") };
    content.digest = digest(&large);
    yard.unpack(&forgery.raw(&large[..split]).next_frame().raw(&large[split..]).end().build()).unwrap();
    assert!(fs::read(yard.root().join("large")).unwrap() == large);
    assert!(!yard.root().join("f").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn a_hard_link_names_only_a_file_of_its_archive() {
    let yard = Yard::new();
    fs::write(yard.root().join("there before"), "x").unwrap();
    for target in [&b"there before"[..], b"../outside/file", b"/etc/passwd", b"d", b"s", b"later", b"l"] {
        let forgery = Forgery::new()
            .entry(&directory(b"d"), b"")
            .entry(&symlink(b"s", b"../outside/file"), b"")
            .entry(&hard_link(b"l", target), b"")
            .file(b"later", b"x");
        let error = yard.unpack(&forgery.end().build()).unwrap_err().to_string();
        assert!(error.contains("broken"), "{error}");
        assert!(yard.root().join("l").symlink_metadata().is_err());
    }
}

#[test]
fn devices_pipes_and_other_types_are_refused() {
    for flag in *b"346789gLKSVDMNX\0" {
        let header = changed_header(&head(b"dev", Body::File { size: 0 }), |block| block[156] = flag);
        refused(&Forgery::new().raw(&header).end().build(), "broken");
    }
}

#[test]
fn sizes_that_other_readers_understand_otherwise_are_refused() {
    let plain = Head { mtime: Time { nanos: 0, ..TIME }, ..head(b"f", Body::File { size: 512 }) };
    let mut inner = Vec::new();
    tape::write(&head(b"smuggled", Body::File { size: 0 }), &mut inner);
    // The pax record says another size than the header, both within what follows.
    for record in ["11 size=0\n", "10 size=0\n", "12 size=512\n", "13 size=1024\n", "19 GNU.sparse.size=0\n"] {
        let mut pax =
            changed_header(&Head { body: Body::File { size: record.len() as u64 }, ..plain.clone() }, |block| {
                block[..100].fill(0);
                block[..9].copy_from_slice(b"PaxHeader");
                block[100..108].copy_from_slice(b"0000644\0");
                block[108..124].copy_from_slice(b"0000000\x000000000\0");
                block[136..148].copy_from_slice(b"00000000000\0");
                block[156] = b'x';
            });
        pax.extend_from_slice(record.as_bytes());
        pax.resize(1024, 0);
        tape::write(&plain, &mut pax);
        refused(&Forgery::new().raw(&pax).raw(&inner).end().build(), "broken");
    }
    // A number in base 256, with a sign, with a space, with something behind its NUL.
    for size in [&b"\x80\0\0\0\0\0\0\0\0\0\x02\0"[..], b"+0000001000\0", b" 0000001000\0", b"1000\0\0\0\0\0\0\0\x01"] {
        let header = changed_header(&plain, |block| block[124..136].copy_from_slice(size));
        refused(&Forgery::new().raw(&header).raw(&[b'x'; 512]).end().build(), "broken");
    }
    // Fields that no reader of ours looks at.
    for at in [101, 108, 257, 263, 265, 297, 329, 345, 511] {
        let header = changed_header(&plain, |block| block[at] ^= 0x10);
        refused(&Forgery::new().raw(&header).raw(&[b'x'; 512]).end().build(), "broken");
    }
    let wrong_sum = {
        let mut header = changed_header(&plain, |_| {});
        header[150] ^= 1;
        header
    };
    refused(&Forgery::new().raw(&wrong_sum).raw(&[b'x'; 512]).end().build(), "broken");
}

#[test]
fn names_of_four_gigabytes_take_no_memory() {
    for flag in [b'x', b'L'] {
        for size in [b"37777777777\0", b"77777777777\0"] {
            let header = changed_header(&head(b"name", Body::File { size: 0 }), |block| {
                block[124..136].copy_from_slice(size);
                block[156] = flag;
            });
            let archive = Forgery::new().raw(&header).raw(b"4294967000 path=aaaa").end().build();
            refused(&archive, "broken");
        }
    }
    let records =
        [&b"4294967295 path=x\n"[..], b"99999999999999999999 path=x\n", b"3 =\n", b"0 path=x\n", b"-5 path=x\n"];
    for record in records {
        let mut pax = changed_header(&Head { mode: 0o644, ..head(b"PaxHeader", Body::File { size: 0 }) }, |block| {
            block[124..136].copy_from_slice(format!("{:011o}\0", record.len()).as_bytes());
            block[156] = b'x';
        });
        pax.extend_from_slice(record);
        refused(&Forgery::new().raw(&pax).raw(&[0; 512]).end().build(), "broken");
    }
}

/// Counts what is taken from it.
struct Counted<'a, R>(R, &'a AtomicU64);

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

#[test]
fn a_bomb_ends_in_a_quota_error_before_it_is_unpacked() {
    let mut zeros = Vec::new();
    Compressor::new(3).compress(&vec![0; PLAIN_CAP], &mut zeros);
    let limits = Limits { bytes: 100 << 20, entries: 10 };
    let (taken, yard) = (AtomicU64::new(0), Yard::new());
    let roots = [Root::open(&yard.root()).unwrap()];
    let size = 10_u64 << 30;
    let mut first = Vec::new();
    tape::write(&head(b"bomb", Body::File { size }), &mut first);
    first.resize(PLAIN_CAP, 0);
    let mut packed_first = Vec::new();
    Compressor::new(3).compress(&first, &mut packed_first);
    let mut frames = vec![(zeros, PLAIN_CAP as u32); 640];
    frames[0].0 = packed_first;
    let archive = build(&frames, &[]);
    assert!(archive.len() < 1 << 20, "10 GB in {} bytes", archive.len());
    let source = Counted(&archive[..], &taken);
    let options = unpack::Options { threads: THREADS, limits };
    let result = unpack(source, &roots, &options, &mut |path| Some(Placement { root: 0, path: path.to_vec() }));
    assert!(matches!(result, Err(ReadError::Quota { of: "bytes", .. })), "{result:?}");
    assert!(taken.load(Relaxed) < archive.len() as u64 / 10);
    drop(roots);
    yard.check();
    assert_eq!(fs::read_dir(yard.root()).unwrap().count(), 0, "the half-written file went");
}

#[test]
fn too_many_entries_end_in_a_quota_error() {
    let forgery = (0..100).fold(Forgery::new(), |forgery, number| forgery.file(format!("{number}").as_bytes(), b""));
    let options = unpack::Options { threads: 1, limits: Limits { entries: 99, ..LIMITS } };
    let yard = Yard::new();
    let result = unpack_with(&forgery.end().build(), &yard.root(), &options);
    assert!(matches!(result, Err(ReadError::Quota { of: "entries", .. })));
}

#[test]
fn holes_of_eight_exbibytes_end_in_a_quota_error() {
    for size in [u64::MAX, 1 << 63, (1 << 63) - 1, LIMITS.bytes] {
        let map = Map { size, pieces: vec![Piece { offset: size, length: 0 }] }.encode();
        let head = head(b"holes", Body::Sparse { size, stored: map.len() as u64 });
        let archive = Forgery::new().entry(&head, &map).end().build();
        let yard = Yard::new();
        assert!(matches!(yard.unpack(&archive), Err(ReadError::Quota { .. })), "{size}");
    }
    // A map that counts more than it has.
    for map in [&b"99999999999\n0\n5\n"[..], b"2\n0\n512\n", b"1\n18446744073709551615\n18446744073709551615\n"] {
        let mut map = map.to_vec();
        map.resize(512, 0);
        let head = head(b"holes", Body::Sparse { size: 4096, stored: 512 });
        refused(&Forgery::new().entry(&head, &map).end().build(), "map");
    }
}

fn small_archive() -> Vec<u8> {
    let from = tempfile::tempdir().unwrap();
    fs::create_dir(from.path().join("d")).unwrap();
    fs::write(from.path().join("d/file"), "some words and some words").unwrap();
    std::os::unix::fs::symlink("file", from.path().join("d/link")).unwrap();
    packed(from.path())
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let archive = small_archive();
    for length in 0..archive.len() {
        assert!(verify(&archive[..length], &options()).is_err(), "{length} of {}", archive.len());
    }
    let longer = [&archive[..], b"x"].concat();
    assert!(verify(&longer[..], &options()).is_err());
}

#[test]
fn a_bit_changed_anywhere_is_found() {
    let archive = small_archive();
    for at in 0..archive.len() {
        for bit in [at % 8, (at + 5) % 8] {
            let mut changed = archive.clone();
            changed[at] ^= 1 << bit;
            assert!(verify(&changed[..], &options()).is_err(), "bit {bit} of byte {at} of {}", archive.len());
        }
    }
}

#[test]
fn no_byte_of_a_damaged_frame_is_used() {
    let from = tempfile::tempdir().unwrap();
    build_rich_tree(from.path());
    let archive = packed(from.path());
    // Within the first frame.
    for at in [START.len() + ANNOUNCEMENT + 4, START.len() + ANNOUNCEMENT + 100, START.len() + 40] {
        let mut changed = archive.clone();
        changed[at] ^= 1;
        let yard = Yard::new();
        let options = unpack::Options { threads: 1, ..options() };
        let result = unpack_with(&changed, &yard.root(), &options);
        assert!(matches!(result, Err(ReadError::Damaged { .. })), "{result:?}");
        assert_eq!(fs::read_dir(yard.root()).unwrap().count(), 0);
    }
}

#[test]
fn frames_in_another_order_or_twice_are_refused() {
    let forgery = Forgery::new().file(b"a", b"1").next_frame().file(b"b", b"2").end();
    let archive = forgery.build();
    let first = START.len();
    let lengths: Vec<usize> = forgery.frames.iter().map(|frame| ANNOUNCEMENT + stored(frame).len()).collect();
    let (one, rest) = archive[first..].split_at(lengths[0]);
    let (two, rest) = rest.split_at(lengths[1]);
    for order in [[two, one, rest].concat(), [one, one, two, rest].concat(), [one, rest].concat(), rest.to_vec()] {
        refused(&[&START[..], &order].concat(), "broken");
    }
}

fn stored(plain: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    store(plain, &mut frame);
    frame
}

#[test]
fn a_frame_is_one_zstd_frame_of_the_announced_length() {
    let plain = Forgery::new().file(b"f", b"x").end();
    let (frame, length) = (stored(&plain.frames[0]), plain.frames[0].len() as u32);
    let skippable = [&0x184D_2A50_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"evil"].concat();
    for (bytes, announced) in [
        ([&frame[..], &frame].concat(), length * 2),
        ([&skippable[..], &frame].concat(), length),
        ([&frame[..], &skippable].concat(), length),
        (frame.clone(), length + 512),
        (frame.clone(), length - 512),
        (skippable, length),
        (b"no zstd at all".to_vec(), length),
        (Vec::new(), length),
        // A window of gigabytes and no length.
        ([&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xb0][..], &frame[9..]].concat(), length),
    ] {
        refused(&build(&[(bytes, announced)], &plain.entries), "frame");
    }
}

#[test]
fn announcements_and_footers_promise_what_may_be() {
    let evil = Announcement { frame: 0, compressed: u32::MAX, plain: u32::MAX, digest: [0; 32] };
    refused(&[&START[..], &evil.encode()].concat(), "announcement");
    let evil = Announcement { frame: 7, compressed: 5, plain: 512, digest: [0; 32] };
    refused(&[&START[..], &evil.encode(), b"12345"].concat(), "announcement");
    // A section of 4 GiB of each kind.
    for magic in [0x184D_2A51_u32, 0x184D_2A52, 0x184D_2A53, 0x184D_2A50, 0xFD2F_B528] {
        refused(&[&START[..], &magic.to_le_bytes(), &u32::MAX.to_le_bytes()].concat(), "broken");
    }
    let numbers = Footer {
        manifest_offset: u64::MAX,
        manifest_length: u64::MAX,
        frames: u64::MAX,
        entries: u64::MAX,
        plain: u64::MAX,
        manifest_digest: [0; 32],
    };
    refused(&[&START[..], &numbers.encode()].concat(), "broken");
    assert!(Contents::read(numbers, b"", u64::MAX).is_err());
    let numbers = Footer { manifest_offset: 9, manifest_length: 0, manifest_digest: digest(b""), ..numbers };
    assert!(Contents::read(numbers, b"", u64::MAX).is_err());
}

#[test]
fn a_tape_ends_once_and_properly() {
    refused(&Forgery::new().file(b"f", b"x").build(), "no end");
    refused(&Forgery::new().file(b"f", b"x").end().file(b"g", b"y").build(), "broken");
    refused(&Forgery::new().file(b"f", b"x").end().next_frame().file(b"g", b"y").build(), "follows the end");
    refused(&Forgery::new().file(b"f", b"x").end().next_frame().end().build(), "follows the end");
    refused(&Forgery::new().raw(&[0; 512]).build(), "broken");
    refused(&Forgery::new().end().raw(&[0; 512]).build(), "broken");
    // A file that goes on where nothing is.
    let head = head(b"f", Body::File { size: 1 << 20 });
    refused(&Forgery::new().entry(&head, b"x").build(), "ends within");
    // Headers that are cut by the end of a frame.
    let mut bytes = Vec::new();
    tape::write(&directory(&[b'd'; 200]), &mut bytes);
    refused(&Forgery::new().raw(&bytes[..512]).next_frame().raw(&bytes[512..]).end().build(), "one frame");
    // Bytes behind a file's end, which nobody would see.
    let mut forgery = Forgery::new().file(b"f", b"x").end();
    let at = forgery.frames[0].len() - tape::END.len() - 1;
    forgery.frames[0][at] = b'!';
    refused(&forgery.build(), "behind a file's end");
}

#[test]
fn a_manifest_that_lies_is_found() {
    let honest = Forgery::new().entry(&directory(b"d"), b"").file(b"d/f", b"xy").entry(&symlink(b"l", b"t"), b"").end();
    Yard::new().unpack(&honest.build()).unwrap();
    let lie = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut forgery = honest.clone();
        change(&mut forgery.entries);
        refused(&forgery.build(), "manifest");
    };
    lie(&|entries| drop(entries.pop()));
    lie(&|entries| drop(entries.remove(0)));
    lie(&|entries| entries.push(entries[1].clone()));
    lie(&|entries| entries.swap(0, 1));
    lie(&|entries| entries[1].path = b"d/g".to_vec());
    lie(&|entries| entries[1].mode = 0o777);
    lie(&|entries| entries[1].mtime.nanos += 1);
    lie(&|entries| entries[1].uid += 1);
    lie(&|entries| entries[0].kind = Kind::Symlink { target: b"d".to_vec() });
    lie(&|entries| entries[2].kind = Kind::Symlink { target: b"other".to_vec() });
    lie(&|entries| entries[2].kind = Kind::HardLink { target: b"t".to_vec() });
    let lie_of_content = |change: &dyn Fn(&mut navvy_archive::entry::Content)| {
        lie(&|entries| match &mut entries[1].kind {
            Kind::File(content) => change(content),
            _ => panic!("a file"),
        });
    };
    lie_of_content(&|content| content.digest = digest(b"xz"));
    lie_of_content(&|content| (content.size, content.stored) = (1, 1));
    lie_of_content(&|content| content.sparse = true);
    lie_of_content(&|content| content.place.offset += 512);
    lie_of_content(&|content| content.place = Place { frame: 9, offset: 0 });
}

#[test]
fn frames_that_overlap_in_a_manifest_are_refused() {
    let forgery = Forgery::new().file(b"a", b"1").next_frame().file(b"b", b"2").end();
    let archive = forgery.build();
    let footer = Footer::decode(&archive).unwrap();
    let honest = &archive[footer.manifest_offset as usize..archive.len() - FOOTER];
    let contents = Contents::read(footer, honest, 10).unwrap();
    for change in [-1_i64, 1, -600] {
        let mut manifest = navvy_archive::manifest::Writer::new();
        for (number, frame) in contents.frames.iter().enumerate() {
            let mut frame = *frame;
            if number == 1 {
                frame.offset = frame.offset.wrapping_add_signed(change);
            }
            manifest.frame(&frame);
        }
        contents.entries.iter().for_each(|entry| manifest.entry(entry));
        manifest.end_part();
        let lying =
            Footer { manifest_length: manifest.bytes.len() as u64, manifest_digest: digest(&manifest.bytes), ..footer };
        let error = Contents::read(lying, &manifest.bytes, 10).unwrap_err().to_string();
        assert!(error.contains("overlaps"), "{error}");
        let before = &archive[..footer.manifest_offset as usize];
        refused(&[before, &manifest.bytes, &lying.encode()].concat(), "manifest");
    }
}

#[test]
fn a_manifest_that_points_outside_its_frames_is_refused() {
    let mut forgery = Forgery::new().file(b"a", b"1").end();
    let Kind::File(content) = &mut forgery.entries[0].kind else { panic!("a file") };
    (content.size, content.stored) = (u64::MAX, u64::MAX);
    let archive = forgery.build();
    let footer = Footer::decode(&archive).unwrap();
    let manifest = &archive[footer.manifest_offset as usize..archive.len() - FOOTER];
    let error = Contents::read(footer, manifest, 10).unwrap_err().to_string();
    assert!(error.contains("outside"), "{error}");
}

#[test]
fn parts_of_a_manifest_have_a_cap() {
    // A megabyte and more of zeros in a few bytes.
    let mut part = Vec::new();
    Compressor::new(3).compress(&vec![0; 2 << 20], &mut part);
    let plain = Forgery::new().end();
    let archive = plain.build();
    let footer = Footer::decode(&archive).unwrap();
    let manifest = [&navvy_archive::format::manifest_head(part.len())[..], &part].concat();
    assert_eq!(manifest.len(), HEAD + part.len());
    let footer = Footer { manifest_length: manifest.len() as u64, manifest_digest: digest(&manifest), ..footer };
    let before = &archive[..footer.manifest_offset as usize];
    refused(&[before, &manifest, &footer.encode()].concat(), "longer than it may be");
}

#[test]
fn set_id_bits_stay_only_with_files_that_are_ours() {
    let mode = 0o6755;
    let (own, yard) = (Head { mode, ..head(b"own", Body::File { size: 0 }) }, Yard::new());
    let others = Head { path: b"others".to_vec(), uid: own.uid + 1, gid: own.gid + 1, ..own.clone() };
    let directory = Head { mode: 0o7777, uid: own.uid + 1, gid: own.gid + 1, ..directory(b"d") };
    let forgery = Forgery::new().entry(&directory, b"").entry(&others, b"").entry(&own, b"").end();
    yard.unpack(&forgery.build()).unwrap();
    let mode = |name: &str| fs::metadata(yard.root().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("own"), mode("others"), mode("d")), (0o6755, 0o755, 0o1777));
}

#[test]
fn two_entries_are_not_brought_to_one_place() {
    let forgery = Forgery::new().file(b"a", b"1").file(b"b", b"2").end();
    let yard = Yard::new();
    let roots = [Root::open(&yard.root()).unwrap()];
    let mut place = |_: &[u8]| Some(Placement { root: 0, path: b"same".to_vec() });
    let error = unpack(&forgery.build()[..], &roots, &options(), &mut place).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
    let evil: [fn(&[u8]) -> Placement; 3] = [
        |_| Placement { root: 1, path: b"a".to_vec() },
        |_| Placement { root: 0, path: b"../outside/file".to_vec() },
        |_| Placement { root: 0, path: Vec::new() },
    ];
    for evil in evil {
        assert!(unpack(&forgery.build()[..], &roots, &options(), &mut |path| Some(evil(path))).is_err());
    }
    yard.check();
}

/// Somebody who puts a link where a directory is, and back, all the time.
fn swap(root: &Path, outside: &Path, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let _ = fs::rename(root.join("d"), root.join("aside"));
        let _ = std::os::unix::fs::symlink(outside, root.join("d"));
        let _ = fs::remove_file(root.join("d"));
        let _ = fs::rename(root.join("aside"), root.join("d"));
        let _ = fs::remove_dir_all(root.join("aside"));
    }
}

#[test]
fn a_directory_swapped_for_a_link_meanwhile_leads_nowhere() {
    let forgery =
        (0..200).fold(Forgery::new().entry(&Head { mode: 0o777, ..directory(b"d") }, b""), |forgery, number| {
            let forgery = if number % 20 == 0 { forgery.next_frame() } else { forgery };
            forgery.file(format!("d/{}/{number}", number % 3).as_bytes(), b"evil")
        });
    let (archive, yard, stop) = (forgery.end().build(), Yard::new(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&yard.root(), &yard.outside(), &stop));
        for _ in 0..30 {
            // It may well fail: somebody is in its way.
            let _ = unpack_with(&archive, &yard.root(), &options());
        }
        stop.store(true, Relaxed);
    });
    let _ = fs::remove_dir_all(yard.root());
    fs::create_dir(yard.root()).unwrap();
    yard.check();
}

#[test]
fn a_closed_directory_of_the_users_own_is_opened_and_closed_again() {
    let yard = Yard::new();
    fs::create_dir(yard.root().join("d")).unwrap();
    fs::set_permissions(yard.root().join("d"), fs::Permissions::from_mode(0o555)).unwrap();
    yard.unpack(&Forgery::new().file(b"d/f", b"x").end().build()).unwrap();
    assert_eq!(fs::metadata(yard.root().join("d")).unwrap().mode() & 0o777, 0o555);
    assert!(yard.root().join("d/f").exists());
}
