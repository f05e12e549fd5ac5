//! File activities, and whom they are done as.

mod harness;

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use harness::{Bench, failure};
use navvy_protocol::supervisor::{FailureKind, Reply, Request};

const NOBODY: u32 = 65534;

fn nobody() -> Option<String> {
    Some("nobody".to_owned())
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A directory that nobody may write to.
fn owned_by_nobody(bench: &Bench) -> PathBuf {
    let directory = bench.path().join("nobodys");
    std::fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(NOBODY), Some(NOBODY)).unwrap();
    directory
}

#[test]
fn write_is_whole_or_not_at_all_and_the_users() {
    let bench = Bench::new();
    let directory = owned_by_nobody(&bench);
    let path = directory.join("file");
    let write = |path: &Path, bytes: &[u8]| {
        bench.open(&Request::Write { path: text(path), user: nobody(), mode: 0o4640 }).send_all(bytes)
    };
    let bytes = vec![7; 3_000_000];
    assert_eq!(write(&path, &bytes), Reply::Done);
    assert!(std::fs::read(&path).unwrap() == bytes);
    let metadata = path.metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (NOBODY, 0o640));
    assert_eq!(write(&path, b"new"), Reply::Done);
    assert_eq!(std::fs::read(&path).unwrap(), b"new");

    let forbidden = bench.path().join("forbidden");
    assert_eq!(failure(write(&forbidden, b"x")).kind, FailureKind::NotPermitted);
    assert!(!forbidden.exists());
    assert_eq!(failure(write(&directory.join("none/file"), b"x")).kind, FailureKind::NoSuchFile);

    // A caller that goes away in the middle leaves the old file and nothing else.
    let mut cut = bench.open(&Request::Write { path: text(&path), user: nobody(), mode: 0o644 });
    cut.data(b"half");
    cut.cut();
    harness::wait_for("the half file to be removed", || std::fs::read_dir(&directory).unwrap().count() == 1);
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
}

#[test]
fn no_space_is_told_as_such() {
    let bench = Bench::new();
    let directory = bench.path().join("small");
    std::fs::create_dir(&directory).unwrap();
    let mount = |command: &[&str]| std::process::Command::new(command[0]).args(&command[1..]).status().unwrap();
    assert!(mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", &text(&directory)]).success());
    let request = Request::Write { path: text(&directory.join("file")), user: None, mode: 0o644 };
    let reply = bench.open(&request).send_all(&vec![1; 3_000_000]);
    let left = std::fs::read_dir(&directory).unwrap().count();
    assert!(mount(&["umount", &text(&directory)]).success());
    assert_eq!((failure(reply).kind, left), (FailureKind::NoSpace, 0));
}

#[test]
fn read_and_checksum_are_the_users() {
    let bench = Bench::new();
    let path = bench.path().join("file");
    let bytes: Vec<u8> = (0..1_000_000u32).map(|number| (number * 7) as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    let read = |path: &Path, user| bench.open(&Request::Read { path: text(path), user }).receive();
    assert!(read(&path, nobody()) == (bytes, Reply::Done));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(failure(read(&path, nobody()).1).kind, FailureKind::NotPermitted);
    assert_eq!(failure(read(&bench.path().join("none"), None).1).kind, FailureKind::NoSuchFile);
    // What never ends, or never begins, is not a file.
    let fifo = bench.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for odd in [fifo.as_path(), Path::new("/dev/zero"), Path::new("/")] {
        assert!(matches!(read(odd, None).1, Reply::Failed(_)), "{odd:?}");
    }
    std::fs::write(&path, "abc").unwrap();
    let checksum = |user| bench.ask(&Request::Checksum { paths: vec![text(&path)], user });
    let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
    assert_eq!(checksum(None), Reply::Checksums { sha256: vec![wanted] });
    assert_eq!(failure(checksum(nobody())).kind, FailureKind::NotPermitted);
}

#[test]
fn directories_are_made_for_the_user_and_never_through_a_users_link() {
    let bench = Bench::new();
    let make = |path: &Path| bench.ask(&Request::MakeDirectory { path: text(path), user: nobody() });
    // Below a directory that only uid 0 may write to.
    let deep = bench.path().join("a/b/c");
    assert_eq!(make(&deep), Reply::Done);
    assert_eq!(make(&deep), Reply::Done);
    for directory in [deep.as_path(), deep.parent().unwrap()] {
        assert_eq!(directory.metadata().unwrap().uid(), NOBODY, "{directory:?}");
    }
    assert_eq!(bench.path().metadata().unwrap().uid(), 0);
    // A link of uid 0's is a way; one of the user's is not.
    let secret = bench.path().join("roots");
    std::fs::create_dir(&secret).unwrap();
    symlink(&secret, bench.path().join("link")).unwrap();
    assert_eq!(make(&bench.path().join("link/new")), Reply::Done);
    assert_eq!(secret.join("new").metadata().unwrap().uid(), NOBODY);
    let evil = owned_by_nobody(&bench).join("evil");
    symlink(&secret, &evil).unwrap();
    std::os::unix::fs::lchown(&evil, Some(NOBODY), Some(NOBODY)).unwrap();
    assert!(matches!(make(&evil.join("taken")), Reply::Failed(_)));
    assert!(!secret.join("taken").exists());
    // A file in the way.
    std::fs::write(bench.path().join("file"), "").unwrap();
    assert!(matches!(make(&bench.path().join("file/x")), Reply::Failed(_)));
}

#[test]
fn globs_find_paths() {
    let bench = Bench::new();
    let root = bench.path().join("tree");
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"a/b/new\nline\xff.log");
    for name in [Path::new("a/x.log"), Path::new("top.log"), Path::new(odd)] {
        std::fs::write(root.join(name), "").unwrap();
    }
    let request =
        Request::Glob { root: text(&root), patterns: vec!["**/*.log".into(), "none*".into()], user: nobody() };
    let (bytes, reply) = bench.open(&request).receive();
    assert_eq!(reply, Reply::Found { unread: vec![], more_unread: 0 });
    assert_eq!(bytes, b"a/b/new\nline\xff.log\0a/x.log\0top.log\0");
}

#[test]
fn globs_tell_what_they_could_not_look_at() {
    let bench = Bench::new();
    let root = bench.path().join("tree");
    std::fs::create_dir_all(root.join("closed")).unwrap();
    std::fs::write(root.join("top.log"), "").unwrap();
    std::fs::set_permissions(root.join("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    let glob = |root: &Path| {
        let request = Request::Glob { root: text(root), patterns: vec!["**/*.log".into()], user: nobody() };
        bench.open(&request).receive()
    };
    let unread = vec!["closed: permission denied".to_owned()];
    assert_eq!(glob(&root), (b"top.log\0".to_vec(), Reply::Found { unread, more_unread: 0 }));
    // Of the root itself it is an error.
    assert_eq!(failure(glob(&root.join("closed")).1).kind, FailureKind::NotPermitted);
    assert_eq!(failure(glob(&root.join("none")).1).kind, FailureKind::NoSuchFile);
    assert_eq!(failure(glob(&root.join("top.log")).1).kind, FailureKind::NoSuchFile);
}

// ---- unpack ----

/// A tar made entry by entry, so that names can be as bad as they like.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn add(mut self, kind: u8, name: &[u8], link: &[u8], mode: u32, bytes: &[u8]) -> Self {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name);
        header[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        header[136..147].copy_from_slice(b"07346544000");
        header[148..156].fill(b' ');
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link);
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &[u8], bytes: &[u8]) -> Self {
        self.add(b'0', name, b"", 0o644, bytes)
    }

    fn link(self, name: &[u8], target: &[u8]) -> Self {
        self.add(b'2', name, target, 0o777, b"")
    }

    fn hard_link(self, name: &[u8], target: &[u8]) -> Self {
        self.add(b'1', name, target, 0o644, b"")
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn unpack(bench: &Bench, root: &Path, archive: Archive) -> Reply {
    bench.open(&Request::Unpack { root: text(root), user: nobody() }).send_all(&archive.bytes())
}

#[test]
fn archives_are_unpacked_as_the_user() {
    let bench = Bench::new();
    let root = bench.path().join("root");
    let archive = Archive::default()
        .add(b'5', b"./", b"", 0o700, b"")
        .add(b'5', b"d/", b"", 0o555, b"")
        .add(b'0', b"d/run", b"", 0o6755, b"#!/bin/sh\n")
        .file(b"made/on/the/way", b"way")
        .file(b"odd\nname\xff", b"odd")
        .link(b"link", b"/etc/passwd")
        .hard_link(b"hard", b"made/on/the/way")
        .add(b'3', b"device", b"", 0o666, b"")
        .add(b'6', b"fifo", b"", 0o666, b"")
        .file(b"link", b"replaced, not written through");
    assert_eq!(unpack(&bench, &root, archive), Reply::Unpacked { entries: 7, bytes: 10 + 3 + 3 + 29 });
    let metadata = root.join("d/run").metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777, metadata.mtime()), (NOBODY, 0o755, 0o7346544000));
    let directory = root.join("d").metadata().unwrap();
    assert_eq!((directory.uid(), directory.mode() & 0o7777, directory.mtime()), (NOBODY, 0o555, 0o7346544000));
    assert_eq!(std::fs::read(root.join(std::ffi::OsStr::from_bytes(b"odd\nname\xff"))).unwrap(), b"odd");
    assert_eq!(root.join("hard").metadata().unwrap().nlink(), 2);
    assert!(!root.join("device").exists() && !root.join("fifo").exists());
    assert!(root.join("link").symlink_metadata().unwrap().is_file());
    assert_eq!(root.metadata().unwrap().uid(), NOBODY);
}

#[test]
fn archives_stay_below_their_root() {
    let bench = Bench::new();
    let outside = owned_by_nobody(&bench);
    std::fs::write(outside.join("victim"), "safe").unwrap();
    std::os::unix::fs::chown(outside.join("victim"), Some(NOBODY), Some(NOBODY)).unwrap();
    let out = text(&outside).into_bytes();
    let within = |name: &str| [&out[..], name.as_bytes()].concat();
    let attempts = [
        Archive::default().file(b"../nobodys/new", b"x"),
        Archive::default().file(b"a/../../nobodys/new", b"x"),
        Archive::default().file(&within("/new"), b"x"),
        Archive::default().link(b"l", &out).file(b"l/new", b"x"),
        Archive::default().link(b"l", b"../nobodys").file(b"l/new", b"x"),
        Archive::default().link(b"l", &out).add(b'5', b"l/", b"", 0o777, b"").file(b"l/new", b"x"),
        Archive::default().link(b"l", &within("/new")).file(b"l", b"x"),
        Archive::default().link(b"l", &within("/victim")).file(b"l", b"x"),
        Archive::default().hard_link(b"h", &within("/victim")).file(b"h", b"x"),
        Archive::default().hard_link(b"h", b"../nobodys/victim").file(b"h", b"x"),
        Archive::default().link(b"l", &out).hard_link(b"h", b"l/victim").file(b"h", b"x"),
        Archive::default().link(b"a", b".").link(b"a/b", b"..").file(b"a/b/nobodys/new", b"x"),
    ];
    for (number, archive) in attempts.into_iter().enumerate() {
        let root = outside.parent().unwrap().join(format!("root-{number}"));
        // Refused or made harmless, either is right.
        unpack(&bench, &root, archive);
        let left: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["victim"], "attempt {number}");
        let victim = outside.join("victim");
        assert_eq!(std::fs::read(&victim).unwrap(), b"safe", "attempt {number}");
        assert_eq!(victim.metadata().unwrap().nlink(), 1, "attempt {number}");
    }
}

#[test]
fn broken_archives_are_told() {
    let bench = Bench::new();
    let root = owned_by_nobody(&bench);
    let request = Request::Unpack { root: text(&root), user: nobody() };
    let reply = bench.open(&request).send_all(&vec![b'x'; 2_000_000]);
    assert_eq!(failure(reply).kind, FailureKind::Invalid);
    let mut cut = Archive::default().file(b"file", &[b'x'; 5000]).0;
    cut.truncate(1000);
    assert!(matches!(bench.open(&request).send_all(&cut), Reply::Failed(_)));
    let root = bench.path().join("file");
    std::fs::write(&root, "").unwrap();
    assert!(matches!(unpack(&bench, &root, Archive::default().file(b"x", b"")), Reply::Failed(_)));
}

#[test]
fn many_small_files_all_come_and_are_quick() {
    let bench = Bench::new();
    let root = bench.path().join("many");
    let mut archive = Archive::default();
    for number in 0..5000 {
        archive = archive.file(format!("d{}/e{}/f{number}", number % 10, number % 7).as_bytes(), &[b'x'; 2000]);
    }
    let began = std::time::Instant::now();
    assert_eq!(unpack(&bench, &root, archive), Reply::Unpacked { entries: 5000, bytes: 10_000_000 });
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    let names = (0..10).flat_map(|d| (0..7).map(move |e| format!("d{d}/e{e}")));
    let files: usize = names.map(|name| std::fs::read_dir(root.join(name)).unwrap().count()).sum();
    assert_eq!(files, 5000);
}
