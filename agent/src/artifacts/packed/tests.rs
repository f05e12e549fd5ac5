use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};

use super::*;

const SECRET: &str = "hunter2hunter2";

fn masks() -> Masks {
    Masks::new(&[("TOKEN".to_owned(), SECRET.to_owned())])
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    zstd_safe::compress(&mut packed, plain, 3).unwrap();
    packed
}

fn deflated(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A member's head and bytes. `sizes`: in its head, as they should be; else behind its bytes.
fn member(name: &str, flags: u16, method: u16, packed: &[u8], sizes: bool) -> Vec<u8> {
    let flags = flags | if sizes { 0 } else { 8 };
    let size = (packed.len() as u32).to_le_bytes();
    let here = if sizes { size } else { [0; 4] };
    let head = [20, flags, method, 0, 0].map(u16::to_le_bytes).concat();
    let lengths = [name.len() as u16, 4].map(u16::to_le_bytes).concat();
    let mut all =
        [b"PK\x03\x04", &head[..], b"crc.", &here, &here, &lengths, name.as_bytes(), b"\xfe\xca\0\0", packed].concat();
    if !sizes {
        all.extend([b"PK\x07\x08crc.", &size[..], &size].concat());
    }
    all
}

fn zip(members: &[Vec<u8>]) -> Vec<u8> {
    // A table of contents, as far as it matters: nobody here asks it.
    [members.concat(), b"PK\x01\x02 its table PK\x05\x06\0\0".to_vec()].concat()
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}

fn look_within(bounds: Bounds, bytes: &[u8], size: usize) -> (Option<String>, Option<String>) {
    let step = Arc::new(AtomicU64::new(bounds.step));
    let mut inside = Inside::new(masks(), MaskedIn::of_run("test"), bounds, step);
    bytes.chunks(size).for_each(|piece| inside.push(piece));
    inside.end();
    let unseen = inside.unseen().map(|Unseen { why, more }| format!("{why} +{more}"));
    (inside.found().map(str::to_owned), unseen)
}

/// Whether the longer of two values follows is known at the end alone.
#[test]
fn a_secret_at_the_end_of_what_is_packed_is_found_though_it_begins_another() {
    let masks = || Masks::new(&[("A".to_owned(), SECRET.to_owned()), ("B".to_owned(), format!("{SECRET}hunter3"))]);
    let found = |bytes: &[u8]| {
        let step = Arc::new(AtomicU64::new(BOUNDS.step));
        let mut inside = Inside::new(masks(), MaskedIn::of_run("test"), BOUNDS, step);
        inside.push(bytes);
        inside.end();
        inside.found().is_some()
    };
    let wide: Vec<u8> = format!("it is {SECRET}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    for plain in [format!("it is {SECRET}").into_bytes(), wide] {
        let whole = gzip(&plain);
        let cut = &whole[..whole.len() - 9];
        for packed in [whole.clone(), zstd(&plain), zip(&[member("m", 0, 8, &deflated(&plain), true)]), cut.to_vec()] {
            assert!(found(&packed), "{packed:?}");
        }
    }
}

/// Where a secret was found, and what was not looked into: the same wherever the file is cut.
#[track_caller]
fn look(bytes: &[u8]) -> (Option<String>, Option<String>) {
    let whole = look_within(BOUNDS, bytes, bytes.len());
    for size in [1, 7, 64, 1000] {
        assert_eq!(look_within(BOUNDS, bytes, size), whole, "in pieces of {size}");
    }
    whole
}

/// No compressor finds anything to shorten in it, so that none of it is in the packed bytes as it is.
fn text() -> Vec<u8> {
    let noise: String = (0..3000_u32).map(|at| char::from(b'a' + (at.wrapping_mul(at) % 23) as u8)).collect();
    format!("{noise}\nthe token is {SECRET}, and so on\n{noise}").into_bytes()
}

#[test]
fn a_secret_is_found_in_whatever_is_packed_and_wherever_that_begins() {
    let (text, harmless) = (text(), gzip(b"harmless"));
    let script = |packed: &[u8]| [b"#!/bin/sh\ntail -c +99 $0 | tar xz; exit\n", packed].concat();
    let found = Some("packed in it".to_owned());
    let in_member = Some("in its member conf/x".to_owned());
    let packed = |sizes| member("conf/x", 0, 8, &deflated(&text), sizes);
    let other = member("a", 0, 8, &deflated(b"harmless, too"), false);
    let cases: Vec<(&str, Vec<u8>, &Option<String>)> = vec![
        ("gzip", gzip(&text), &found),
        ("gzip, its second member", [harmless.clone(), gzip(&text)].concat(), &found),
        ("gzip with all that a head may have", named(&gzip(&text)), &found),
        ("zstd", zstd(&text), &found),
        ("zstd, its second frame", [zstd(b"harmless"), zstd(&text)].concat(), &found),
        ("tar.gz", gzip(&tar("conf/x", &text)), &found),
        ("gzip in a tar", tar("a.gz", &gzip(&text)), &found),
        ("behind a script", script(&gzip(&tar("conf/x", &text))), &found),
        ("zip", zip(&[packed(true)]), &in_member),
        ("zip without sizes", zip(&[other.clone(), packed(false)]), &in_member),
        (
            "zip behind a program",
            [b"MZ\0\0 a program PK\x03\x04\0\0".to_vec(), zip(&[packed(true)])].concat(),
            &in_member,
        ),
        ("zip in zip, packed", zip(&[member("b.jar", 0, 8, &deflated(&zip(&[packed(false)])), true)]), &in_member),
        ("zip in zip, stored", zip(&[member("b.jar", 0, 0, &zip(&[packed(true)]), false), other.clone()]), &in_member),
        ("behind one stored without sizes", zip(&[member("a", 0, 0, b"plain", false), packed(true)]), &in_member),
        ("behind an encrypted one", zip(&[member("a", 1, 8, b"\x01\x02\x03", true), packed(true)]), &in_member),
        ("zstd in zip", zip(&[member("conf/x", 0, 93, &zstd(&text), true)]), &in_member),
        ("jar in tar.gz", gzip(&tar("a.jar", &zip(&[packed(true)]))), &in_member),
        ("UTF-16 in gzip", gzip(&wide(SECRET)), &found),
    ];
    for (what, bytes, expected) in cases {
        assert!(
            !bytes.windows(SECRET.len()).any(|it| it == SECRET.as_bytes()),
            "{what}: it would be found without unpacking"
        );
        assert_eq!(&look(&bytes).0, expected, "{what}");
    }
    for bytes in [harmless, zip(&[other]), zstd(b"harmless"), b"hunter".to_vec()] {
        assert_eq!(look(&bytes), (None, None));
    }
}

/// With an extra field, a name, a comment and the head's checksum.
fn named(gzip: &[u8]) -> Vec<u8> {
    let mut head = gzip[..10].to_vec();
    head[3] = 0x1e;
    [&head[..], b"\x03\0abcname\0a comment\0\x01\x02", &gzip[10..]].concat()
}

fn wide(text: &str) -> Vec<u8> {
    let text: String = text.chars().cycle().take(text.len() * 200).collect();
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn what_is_not_looked_into_is_told_with_the_reason() {
    let ours = member("b", 0, 8, &deflated(b"harmless"), true);
    let mut broken = gzip(&text());
    broken[12..40].fill(0xff);
    let xz = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46\x02\0\x21\x01".to_vec();
    let deep = (0..3).fold(b"harmless".to_vec(), |inner, _| gzip(&inner));
    let mut ultra = zstd(b"harmless");
    ultra.splice(4.., [0x00, 0x90, 0x01, 0, 0]);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (xz.clone(), "is packed by xz, which Navvy does not unpack +0"),
        (tar("data.tar.xz", &xz), "holds what is packed by xz, which Navvy does not unpack +0"),
        (b"BZh91AY&SY and more".to_vec(), "is packed by bzip2, which Navvy does not unpack +0"),
        (b"7z\xbc\xaf\x27\x1c\0\x04 and more".to_vec(), "is packed by 7-Zip, which Navvy does not unpack +0"),
        (b"Rar!\x1a\x07\x01\0 and more".to_vec(), "is packed by RAR, which Navvy does not unpack +0"),
        (zip(&[member("a/b", 1, 8, b"??", true), ours.clone()]), "holds a/b, which is encrypted +0"),
        (
            zip(&[member("a", 0, 14, b"??", true), member("c", 0x2000, 8, b"??", true)]),
            "holds a, which is packed by method 14 of zip; Navvy does not unpack it +1",
        ),
        (zip(&[member("a\n", 0, 8, &[0xff; 50], true), ours]), "holds a\u{fffd}, which is damaged +0"),
        (broken, "is damaged +0"),
        (deep, "holds what is packed more than 2 times over +0"),
        (ultra, "is not unpacked by zstd: Frame requires too much memory for decoding +0"),
    ];
    for (bytes, why) in cases {
        assert_eq!(look(&bytes), (None, Some(why.to_owned())));
    }
    let name = member(SECRET, 1, 8, b"??", true);
    assert_eq!(look(&name).1.as_deref(), Some("holds ****, which is encrypted +0"));
}

#[test]
fn what_only_looks_like_a_head_is_passed_over() {
    let program: Vec<u8> = [
        &b"\x7fELF PK\x03\x04\x14\0\0\0\x08\0 PK\x03\x04"[..],
        b" \x1f\x8b\x08 \x1f\x8b\x08\0\x01\x02\x03\x04\x05\x06\xff\xff\xff \x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff",
        b" \xfd7zXZ\0 and BZh9 and 7z\xbc\xaf\x27\x1c \x1f\x8b\x08\x04\xff\xff ",
    ]
    .concat();
    assert_eq!(look(&program), (None, None));
    let behind = [program, gzip(&text())].concat();
    assert_eq!(look(&behind).0.as_deref(), Some("packed in it"), "what is one behind them is found all the same");
}

#[test]
fn a_bomb_costs_no_more_than_the_bounds() {
    let bounds = Bounds { file: 100_000, step: 150_000, members: 3, depth: 2 };
    let bomb = gzip(&vec![0; 1_000_000]);
    let why = "holds more than 97.6 KiB, unpacked +0";
    assert_eq!(look_within(bounds, &bomb, 64), (None, Some(why.to_owned())));
    let nested = zip(&[member("a", 0, 8, &deflated(&gzip(&vec![0; 99_000])), true)]);
    assert_eq!(look_within(bounds, &nested, 64), (None, None), "each level is counted, and this one has room");
    let many = zip(&vec![member("a", 0, 8, &deflated(b"x"), true); 4]);
    assert_eq!(look_within(bounds, &many, 64), (None, Some("has more than 3 packed members +0".to_owned())));

    // What a step may unpack is shared by its files; what it did not unpack any more is told of each.
    let step = Arc::new(AtomicU64::new(bounds.step));
    let told: Vec<Option<String>> = (0..4)
        .map(|_| {
            let mut inside = Inside::new(masks(), MaskedIn::of_run("test"), bounds, step.clone());
            inside.push(&gzip(&vec![0; 70_000]));
            inside.end();
            inside.unseen().map(|unseen| unseen.why.clone())
        })
        .collect();
    let late = Some("comes after more than 146.4 KiB that this step has unpacked".to_owned());
    assert_eq!(told, [None, None, late.clone(), late]);
}

#[test]
fn what_unpacks_to_nothing_is_not_kept_in_memory() {
    let empty_blocks = [0, 0, 0, 0xff, 0xff].repeat(1 << 20);
    let step = Arc::new(AtomicU64::new(BOUNDS.step));
    let mut inside = Inside::new(masks(), MaskedIn::of_run("test"), BOUNDS, step);
    inside.push(&gzip(b"")[..10]);
    for piece in empty_blocks.chunks(PIECE) {
        inside.push(piece);
        let first = inside.top.unpacking.as_ref().map_or(0, |unpacking| unpacking.first.capacity());
        assert!(first <= 2 * (MOST_FIRST + PIECE), "{first}");
    }
    assert!(inside.top.unpacking.is_some(), "it goes on");
}
