//! Trees to pack, and what there is to say of a tree.

#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use navvy_archive::beneath::Root;
use navvy_archive::error::ReadError;
use navvy_archive::pack::{self, Options, Source, Summary, Warning, pack};
use navvy_archive::unpack::{self, Limits, Placement, Unpacked, unpack};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, XattrFlags};

pub const THREADS: usize = 3;
pub const LIMITS: Limits = Limits { bytes: 1 << 34, entries: 1 << 20 };

/// Everything that an archive keeps of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: &'static str,
    pub mode: u32,
    pub mtime: (i64, i64),
    pub size: u64,
    pub content: Vec<u8>,
    /// The first path of the same file.
    pub same_as: Option<PathBuf>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The whole tree below, without its root.
pub fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let (mut found, mut inodes) = (BTreeMap::new(), HashMap::new());
    look_at(root, root, &mut found);
    for (path, seen) in &mut found {
        let meta = fs::symlink_metadata(root.join(path)).unwrap();
        if seen.kind == "file" && meta.nlink() > 1 {
            let first = inodes.entry(meta.ino()).or_insert_with(|| path.clone());
            seen.same_as = Some(first.clone());
        }
    }
    found
}

fn look_at(root: &Path, directory: &Path, found: &mut BTreeMap<PathBuf, Seen>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let (kind, content) = if meta.is_dir() {
            look_at(root, &path, found);
            ("directory", Vec::new())
        } else if meta.is_symlink() {
            ("link", fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
        } else if meta.len() > 100 << 20 {
            ("file", Vec::new())
        } else {
            ("file", fs::read(&path).unwrap())
        };
        let size = if kind == "file" { meta.len() } else { 0 };
        let mode = if kind == "link" { 0 } else { meta.mode() & 0o7777 };
        let mtime = (meta.mtime(), meta.mtime_nsec());
        let xattrs = if kind == "link" { BTreeMap::new() } else { xattrs(&path) };
        let seen = Seen { kind, mode, mtime, size, content, same_as: None, xattrs };
        found.insert(path.strip_prefix(root).unwrap().to_owned(), seen);
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = [0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

pub fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Bytes that look different everywhere.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length).map(|_| next() as u8).collect()
}

/// One of each thing that an archive keeps.
pub fn build_rich_tree(root: &Path) {
    let put = |name: &str, content: &[u8]| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    };
    put("empty", b"");
    put("one", b"1");
    put("block", &[7; 512]);
    put("text/a b", "words and words and words\n".repeat(5000).as_bytes());
    put("text/noise", &noise(300_000, 1));
    put("large/noise", &noise(9 << 20, 2));
    put("large/zeros", &vec![0; 5 << 20]);
    put("large/exact", &noise(4 << 20, 3));
    put("a/b", b"slash sorts before");
    put("a-b", b"hyphen");
    fs::create_dir_all(root.join("empty directory/inside")).unwrap();
    for number in 0..500 {
        put(&format!("many/{}/{number}", number % 7), &noise(number * 13 % 5000, number as u64));
    }
    put(&format!("{}/{}", "deep/".repeat(40), "n".repeat(255)), b"long names");
    put(&format!("{}x", "d".repeat(99)), b"100 bytes");
    let odd = root.join(std::ffi::OsStr::from_bytes(b"not utf-8 \xff\xfe\nand a line"));
    fs::write(&odd, "odd").unwrap();
    symlink("one", root.join("link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    symlink("t".repeat(1000), root.join("long link")).unwrap();
    symlink("..", root.join("text/up")).unwrap();
    fs::hard_link(root.join("one"), root.join("zzz other name")).unwrap();
    fs::hard_link(root.join("large/noise"), root.join("large/also")).unwrap();
    fs::hard_link(root.join("one"), root.join("0 first name")).unwrap();
    let holes = File::create(root.join("holes")).unwrap();
    holes.set_len(50 << 20).unwrap();
    holes.write_all_at(&noise(10_000, 4), 1 << 20).unwrap();
    holes.write_all_at(b"in the middle", (30 << 20) + 5).unwrap();
    let holes = File::create(root.join("ends with data")).unwrap();
    holes.write_all_at(b"at the end", 20 << 20).unwrap();
    File::create(root.join("only a hole")).unwrap().set_len(3 << 20).unwrap();
    for (name, mode) in [("one", 0o400), ("block", 0o755), ("text/noise", 0o640), ("a-b", 0o4755), ("empty", 0o000)] {
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
    }
    for (name, value) in [("user.navvy", &b"value"[..]), ("user.binary", &[0, 10, 61, 255])] {
        for path in ["block", "text", "large/noise"] {
            let _ = rustix::fs::setxattr(root.join(path), name, value, XattrFlags::empty());
        }
    }
    set_mtime(&root.join("one"), 1_600_000_000, 123_456_789);
    set_mtime(&root.join("block"), -5, 250_000_000);
    set_mtime(&root.join("link"), 1_500_000_000, 1);
    set_mtime(&root.join("holes"), 0, 0);
    set_mtime(&root.join("empty directory"), 1_400_000_000, 999_999_999);
    set_mtime(&root.join("text"), 9_000_000_000, 7);
    fs::set_permissions(root.join("empty directory"), Permissions::from_mode(0o500)).unwrap();
    fs::set_permissions(root.join("many"), Permissions::from_mode(0o1777)).unwrap();
}

/// Everything below, named as it is there.
pub fn sources_of(root: &Path) -> Vec<Source> {
    let mut names: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names.into_iter().map(|name| Source::beneath(root, name.as_bytes())).collect()
}

pub fn pack_with(root: &Path, options: &Options) -> (Vec<u8>, Summary, Vec<Warning>) {
    let (mut archive, mut warnings) = (Vec::new(), Vec::new());
    let summary = pack(&sources_of(root), options, &mut archive, &mut |warning| warnings.push(warning)).unwrap();
    (archive, summary, warnings)
}

/// Without a warning.
pub fn packed(root: &Path) -> Vec<u8> {
    let (archive, summary, warnings) = pack_with(root, &pack::Options::new(THREADS));
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(summary.archive, archive.len() as u64);
    archive
}

pub fn options() -> unpack::Options {
    unpack::Options { threads: THREADS, limits: LIMITS }
}

pub fn unpack_with(archive: &[u8], root: &Path, options: &unpack::Options) -> Result<Unpacked, ReadError> {
    let roots = [Root::open(root).unwrap()];
    unpack(archive, &roots, options, &mut |path| Some(Placement { root: 0, path: path.to_vec() }))
}

pub fn unpacked(archive: &[u8], root: &Path) -> Unpacked {
    unpack_with(archive, root, &options()).unwrap()
}

/// Told path by path: a whole tree in a message helps nobody.
pub fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (look(one), look(other));
    let names = |tree: &BTreeMap<PathBuf, Seen>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    for (path, seen) in &one {
        let other = &other[path];
        assert!(seen.content == other.content, "content of {path:?}");
        let without = |seen: &Seen| Seen { content: Vec::new(), ..seen.clone() };
        assert_eq!(without(seen), without(other), "{path:?}");
    }
}
