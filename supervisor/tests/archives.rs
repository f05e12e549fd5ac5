//! `Pack` and `Extract`: file trees out of an environment and into another, as one stream.

mod harness;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use harness::{Bench, failure, wait_for};
use navvy_archive::pack::{Options, Source};
use navvy_protocol::supervisor::{ArchiveLimits, Extracted, FailureKind, Packed, Reply, Request, Trees};

const NOBODY: u32 = 65534;
const LIMITS: ArchiveLimits = ArchiveLimits { bytes: 1 << 30, entries: 100_000 };

fn nobody() -> Option<String> {
    Some("nobody".to_owned())
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A directory that nobody may write to.
fn owned(bench: &Bench, name: &str) -> PathBuf {
    let directory = bench.path().join(name);
    std::fs::create_dir(&directory).unwrap();
    chown(&directory, Some(NOBODY), Some(NOBODY)).unwrap();
    directory
}

fn places(paths: &[&Path]) -> Trees {
    Trees::Places { paths: paths.iter().map(|path| text(path)).collect() }
}

fn below(root: &Path, patterns: &[&str]) -> Trees {
    Trees::Below { root: text(root), patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect() }
}

fn pack(bench: &Bench, trees: Trees) -> (Vec<u8>, Packed) {
    match bench.open(&Request::Pack { trees, user: nobody() }).receive() {
        (bytes, Reply::Packed(packed)) => {
            assert_eq!(bytes.len() as u64, packed.archive);
            (bytes, packed)
        }
        (_, other) => panic!("{other:?}"),
    }
}

fn extract(bench: &Bench, trees: Trees, archive: &[u8], passed_over: &[u8]) -> Reply {
    let request = Request::Extract { trees, user: nobody(), limits: LIMITS, passed_over: passed_over.len() as u64 };
    bench.open(&request).send_all(&[passed_over, archive].concat())
}

fn extracted(reply: Reply) -> Extracted {
    match reply {
        Reply::Extracted(extracted) => extracted,
        other => panic!("{other:?}"),
    }
}

/// `a/one`, `a/link` and `b.txt`.
fn tree(root: &Path) {
    std::fs::create_dir(root.join("a")).unwrap();
    std::fs::write(root.join("a/one"), "one").unwrap();
    std::fs::set_permissions(root.join("a/one"), PermissionsExt::from_mode(0o754)).unwrap();
    symlink("/etc/passwd", root.join("a/link")).unwrap();
    std::fs::write(root.join("b.txt"), vec![7; 3_000_000]).unwrap();
}

#[test]
fn what_is_packed_comes_back_to_its_places_as_the_users() {
    let bench = Bench::new();
    let home = owned(&bench, "home");
    tree(&home);
    let trees = places(&[&home.join("a"), &home.join("b.txt"), &home.join("none")]);
    let (archive, packed) = pack(&bench, trees.clone());
    assert_eq!((packed.files, packed.bytes, packed.missing, packed.warnings.len()), (2, 3_000_003, vec![2], 0));
    std::fs::remove_dir_all(home.join("a")).unwrap();
    std::fs::write(home.join("b.txt"), "another").unwrap();
    std::fs::write(home.join("other"), "stays").unwrap();
    assert_eq!(extracted(extract(&bench, trees.clone(), &archive, b"")).entries, 4);
    let metadata = home.join("a/one").metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (NOBODY, 0o754));
    assert_eq!(std::fs::read_link(home.join("a/link")).unwrap(), Path::new("/etc/passwd"));
    assert!(std::fs::read(home.join("b.txt")).unwrap() == [7; 3_000_000]);
    assert_eq!(std::fs::read(home.join("other")).unwrap(), b"stays");
    // Also where nothing is any more.
    std::fs::remove_dir_all(&home).unwrap();
    std::fs::create_dir(&home).unwrap();
    assert_eq!(failure(extract(&bench, trees, &archive, b"")).kind, FailureKind::NotPermitted);
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0);
}

#[test]
fn directories_that_were_missing_are_nobody_elses_to_write_to() {
    let bench = Bench::new();
    let home = owned(&bench, "home");
    let deep = home.join("x/y/z/w");
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("one"), "one").unwrap();
    let (own, open) = (PermissionsExt::from_mode(0o700), PermissionsExt::from_mode(0o1777));
    std::fs::set_permissions(deep.parent().unwrap(), own).unwrap();
    std::fs::set_permissions(&deep, open).unwrap();
    for path in ["x", "x/y", "x/y/z", "x/y/z/w", "x/y/z/w/one"] {
        chown(home.join(path), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
    // Those above a tree are in no archive; a tree's own have the modes that they had.
    let trees = places(&[&home.join("x/y/z")]);
    let (archive, _) = pack(&bench, trees.clone());
    std::fs::remove_dir_all(home.join("x")).unwrap();
    extracted(extract(&bench, trees, &archive, b""));
    let modes = ["x", "x/y", "x/y/z", "x/y/z/w"].map(|path| mode(&home.join(path)));
    assert_eq!(modes, [0o755, 0o755, 0o700, 0o1777], "{modes:?}");
    // Neither are those between a root and what a pattern found.
    let (archive, _) = pack(&bench, below(&home, &["x/y/z/w"]));
    let there = home.join("made/there");
    extracted(extract(&bench, below(&there, &[]), &archive, b""));
    let modes = ["", "x", "x/y", "x/y/z", "x/y/z/w"].map(|path| mode(&there.join(path)));
    assert_eq!(modes, [0o755, 0o755, 0o755, 0o755, 0o1777], "{modes:?}");
    assert_eq!(mode(&home.join("made")), 0o755);
}

#[test]
fn where_nothing_is_there_is_no_archive() {
    let bench = Bench::new();
    let home = owned(&bench, "home");
    let (archive, packed) = pack(&bench, places(&[&home.join("x"), &home.join("y")]));
    assert_eq!((archive.len(), packed.entries, packed.missing), (0, 0, vec![0, 1]));
    let (archive, packed) = pack(&bench, below(&home, &["*.none"]));
    assert_eq!((archive.len(), packed.entries, packed.missing), (0, 0, vec![0]));
    let gone = bench.open(&Request::Pack { trees: below(&home.join("none"), &["*"]), user: nobody() }).receive();
    assert_eq!(failure(gone.1).kind, FailureKind::NoSuchFile);
    let bad = bench.open(&Request::Pack { trees: below(&home, &["a["]), user: nobody() }).receive();
    assert_eq!(failure(bad.1).kind, FailureKind::Invalid);
}

#[test]
fn what_the_user_may_not_read_is_told_and_left_out() {
    let bench = Bench::new();
    let home = owned(&bench, "home");
    tree(&home);
    std::fs::set_permissions(home.join("b.txt"), PermissionsExt::from_mode(0o600)).unwrap();
    let (archive, packed) = pack(&bench, below(&home, &["."]));
    assert!(matches!(&packed.warnings[..], [warning] if warning.contains("b.txt")), "{packed:?}");
    let there = bench.path().join("made/there");
    extracted(extract(&bench, below(&there, &[]), &archive, b""));
    assert!(there.join("a/one").exists() && !there.join("b.txt").exists());
}

#[test]
fn what_could_not_be_looked_at_is_no_missing_file() {
    let bench = Bench::new();
    let home = owned(&bench, "home");
    std::fs::create_dir_all(home.join("closed/deep")).unwrap();
    std::fs::write(home.join("closed/deep/file"), "x").unwrap();
    std::fs::write(home.join("open"), "x").unwrap();
    std::fs::set_permissions(home.join("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    let denied = |packed: &Packed, path: &str| {
        assert_eq!((packed.unreadable, packed.warnings.len()), (1, 1), "{packed:?}");
        assert_eq!(packed.first_unreadable.as_ref(), packed.warnings.first());
        let warning = &packed.warnings[0];
        assert!(warning.contains(path) && warning.contains("cannot be read: Permission denied"), "{warning}");
    };
    let (archive, packed) = pack(&bench, places(&[&home.join("closed/deep"), &home.join("none")]));
    assert_eq!((archive.len(), &packed.missing[..], &packed.blocked[..]), (0, &[1][..], &[0][..]));
    denied(&packed, "closed/deep");
    for (pattern, place) in [("closed/*", "closed"), ("closed/deep", "closed/deep"), ("*/deep/file", "closed/deep")] {
        let (archive, packed) = pack(&bench, below(&home, &[pattern, "open"]));
        assert!(!archive.is_empty());
        assert_eq!((packed.files, &packed.missing[..]), (1, &[0][..]), "{pattern}");
        denied(&packed, place);
    }
}

#[test]
fn patterns_choose_below_a_root_and_paths_are_passed_over() {
    let bench = Bench::new();
    let home = owned(&bench, "home");
    tree(&home);
    let (archive, packed) = pack(&bench, below(&home, &["*.txt", "a/o*", "none"]));
    assert_eq!((packed.files, packed.missing), (2, vec![2]));
    let there = bench.path().join("there");
    let done = extracted(extract(&bench, below(&there, &[]), &archive, b"b.txt\0"));
    assert_eq!((done.entries, done.skipped), (1, 1));
    assert!(there.join("a/one").exists() && !there.join("a/link").exists() && !there.join("b.txt").exists());
    assert_eq!(there.metadata().unwrap().uid(), NOBODY);
}

#[test]
fn nothing_goes_anywhere_but_to_the_trees_that_were_named() {
    let bench = Bench::new();
    let home = owned(&bench, "home");
    tree(&home);
    let outside = owned(&bench, "outside");
    // An archive of what somebody else chose to call it.
    let named = |name: String| Source::named(&home.join("a/one"), name);
    let outside_name = text(&outside).trim_matches('/').to_owned();
    let within = text(&home.join("cached")).trim_matches('/').to_owned();
    let sources = [named(format!("{outside_name}/new")), named("etc/new".into()), named(format!("{within}/new"))];
    let mut archive = Vec::new();
    navvy_archive::pack::pack(&sources, &Options::new(1), &mut archive, &mut |_| {}).unwrap();
    let done = extracted(extract(&bench, places(&[&home.join("cached")]), &archive, b""));
    assert_eq!((done.entries, done.skipped), (1, 2));
    assert!(home.join("cached/new").exists());
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    // A link in the way of a tree is replaced, not followed.
    std::fs::remove_dir_all(home.join("cached")).unwrap();
    symlink(&outside, home.join("cached")).unwrap();
    extracted(extract(&bench, places(&[&home.join("cached")]), &archive, b""));
    assert!(home.join("cached").symlink_metadata().unwrap().is_dir());
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    let dots = Trees::Places { paths: vec![format!("{}/../outside", text(&home))] };
    assert_eq!(failure(extract(&bench, dots, &archive, b"")).kind, FailureKind::Invalid);
}

#[test]
fn a_damaged_archive_and_a_bomb_are_told_apart_and_write_nothing() {
    let bench = Bench::new();
    let home = owned(&bench, "home");
    tree(&home);
    let (archive, _) = pack(&bench, below(&home, &["."]));
    let there = owned(&bench, "there");
    let mut damaged = archive.clone();
    damaged[100] ^= 1;
    for broken in [&damaged[..], &archive[..90], b"no archive at all"] {
        assert_eq!(failure(extract(&bench, below(&there, &[]), broken, b"")).kind, FailureKind::Damaged);
    }
    let limits = ArchiveLimits { bytes: 1 << 20, ..LIMITS };
    let request = Request::Extract { trees: below(&there, &[]), user: nobody(), limits, passed_over: 0 };
    assert_eq!(failure(bench.open(&request).send_all(&archive)).kind, FailureKind::Quota);
    assert_eq!(std::fs::read_dir(&there).unwrap().count(), 0);
}

#[test]
fn a_caller_that_goes_away_leaves_nothing_half_written() {
    let bench = Bench::new();
    let home = owned(&bench, "home");
    // Noise, so that there is a frame after the first.
    let mut number = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 24) as u8
    })
    .take(12 << 20)
    .collect();
    std::fs::write(home.join("noise"), &noise).unwrap();
    let (archive, _) = pack(&bench, below(&home, &["."]));
    let there = owned(&bench, "there");
    let request = Request::Extract { trees: below(&there, &[]), user: nobody(), limits: LIMITS, passed_over: 0 };
    let mut cut = bench.open(&request);
    for chunk in archive[..6 << 20].chunks(200_000) {
        cut.data(chunk);
    }
    wait_for("a file of ours", || std::fs::read_dir(&there).unwrap().count() == 1);
    cut.cut();
    wait_for("it to be removed", || std::fs::read_dir(&there).unwrap().count() == 0);
    // And one that no longer takes what is packed.
    bench.open(&Request::Pack { trees: below(&home, &["."]), user: nobody() }).cut();
    wait_for("the packer to end", || children(bench.process.id()) == 0);
}

fn children(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks.map(|task| of(task).split_ascii_whitespace().count()).sum()
}
