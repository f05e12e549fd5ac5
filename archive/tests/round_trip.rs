//! What is packed is what is unpacked: by us, and by zstd and tar.

mod trees;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use navvy_archive::beneath::Root;
use navvy_archive::pack::{Options, Source, pack};
use navvy_archive::unpack::{Placement, unpack, verify};
use proptest::prelude::*;
use tempfile::tempdir;
use trees::*;

#[test]
fn a_tree_comes_back_as_it_was() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    build_rich_tree(from.path());
    let archive = packed(from.path());
    let told = unpacked(&archive, to.path());
    assert_same(from.path(), to.path());
    assert_eq!(told.entries as usize, look(from.path()).len());
    assert_eq!(told.skipped, 0);
    assert!(verify(&archive[..], &options()).is_ok());
}

#[test]
fn holes_stay_holes() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    build_rich_tree(from.path());
    unpacked(&packed(from.path()), to.path());
    for name in ["holes", "ends with data", "only a hole"] {
        let (one, other) = (fs::metadata(from.path().join(name)).unwrap(), fs::metadata(to.path().join(name)).unwrap());
        assert!(other.blocks() * 512 <= one.blocks() * 512 + (64 << 10), "{name}: {} blocks", other.blocks());
    }
}

/// Runs a command with bytes as its input.
fn pipe(command: &mut Command, input: &[u8]) -> Vec<u8> {
    // tar warns of times in the future.
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("zstd and tar are installed");
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{command:?}");
        output.stdout
    })
}

fn peers_unpack(archive: &[u8], root: &Path) {
    let tar = pipe(Command::new("zstd").arg("-dcq"), archive);
    pipe(Command::new("tar").args(["xpf", "-", "--xattrs", "-C"]).arg(root), &tar);
}

#[test]
fn zstd_and_tar_read_it_without_us() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    build_rich_tree(from.path());
    peers_unpack(&packed(from.path()), to.path());
    assert_same(from.path(), to.path());
}

#[test]
fn tar_alone_knows_what_it_is() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    fs::write(from.path().join("f"), "content").unwrap();
    let file = to.path().join("archive");
    fs::write(&file, packed(from.path())).unwrap();
    let listed = Command::new("tar").arg("tf").arg(&file).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), "f\n");
}

#[test]
fn the_same_tree_gives_the_same_bytes_on_any_number_of_threads() {
    let from = tempdir().unwrap();
    build_rich_tree(from.path());
    let (one, ..) = pack_with(from.path(), &Options::new(1));
    for threads in [2, 5, 16] {
        assert!(pack_with(from.path(), &Options::new(threads)).0 == one, "{threads} threads");
    }
}

#[test]
fn frames_of_any_size_hold_the_same_tree() {
    let from = tempdir().unwrap();
    build_rich_tree(from.path());
    for frame in [1, 100_000, 1 << 20, 1 << 30] {
        let to = tempdir().unwrap();
        let (archive, ..) = pack_with(from.path(), &Options { frame, ..Options::new(THREADS) });
        unpacked(&archive, to.path());
        assert_same(from.path(), to.path());
    }
}

#[test]
fn unpacking_over_a_tree_replaces_files_and_links_and_keeps_the_rest() {
    let (from, to, outside) = (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
    build_rich_tree(from.path());
    let archive = packed(from.path());
    fs::write(outside.path().join("one"), "untouched").unwrap();
    // In the way: a link to a file, a link to a directory, a file, an empty directory, a closed directory, a hard link.
    symlink(outside.path().join("one"), to.path().join("one")).unwrap();
    symlink(outside.path(), to.path().join("text")).unwrap();
    fs::write(to.path().join("many"), "a file where a directory comes").unwrap();
    fs::create_dir(to.path().join("block")).unwrap();
    fs::create_dir(to.path().join("a")).unwrap();
    fs::write(to.path().join("a/mine"), "stays").unwrap();
    fs::set_permissions(to.path().join("a"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::hard_link(outside.path().join("one"), to.path().join("a-b")).unwrap();
    unpacked(&archive, to.path());
    assert_eq!(fs::read_to_string(outside.path().join("one")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(to.path().join("a/mine")).unwrap(), "stays");
    fs::remove_file(to.path().join("a/mine")).unwrap();
    set_mtime(&to.path().join("a"), 5, 0);
    set_mtime(&from.path().join("a"), 5, 0);
    assert_same(from.path(), to.path());
    // And once more over itself.
    unpacked(&archive, to.path());
    set_mtime(&to.path().join("a"), 5, 0);
    assert_same(from.path(), to.path());
}

#[test]
fn a_directory_with_something_in_it_is_not_removed_for_a_file() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    fs::write(from.path().join("name"), "file").unwrap();
    fs::create_dir(to.path().join("name")).unwrap();
    fs::write(to.path().join("name/mine"), "stays").unwrap();
    let error = unpack_with(&packed(from.path()), to.path(), &options()).unwrap_err();
    assert!(error.to_string().contains("name"), "{error}");
    assert_eq!(fs::read_to_string(to.path().join("name/mine")).unwrap(), "stays");
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1, "nothing half-written is left");
}

#[test]
fn entries_go_where_the_caller_says() {
    let (from, one, other) = (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
    for name in ["cache/a", "cache/b", "home/c", "home/left out"] {
        fs::create_dir_all(from.path().join(name).parent().unwrap()).unwrap();
        fs::write(from.path().join(name), name).unwrap();
    }
    fs::hard_link(from.path().join("cache/a"), from.path().join("home/link")).unwrap();
    let roots = [Root::open(one.path()).unwrap(), Root::open(other.path()).unwrap()];
    let archive = packed(from.path());
    let told = unpack(&archive[..], &roots, &options(), &mut |path| {
        if path.ends_with(b"left out") {
            return None;
        }
        let (root, prefix) = if path.starts_with(b"cache") { (0, &b"cache"[..]) } else { (1, &b"home"[..]) };
        let path = path.strip_prefix(prefix)?;
        Some(Placement { root, path: path.strip_prefix(b"/").unwrap_or(path).to_vec() })
    });
    // The two directories are the roots themselves.
    assert_eq!(told.unwrap().skipped, 3);
    assert_eq!(fs::read_to_string(one.path().join("a")).unwrap(), "cache/a");
    assert_eq!(fs::read_to_string(other.path().join("link")).unwrap(), "cache/a");
    assert_eq!(look(one.path()).len() + look(other.path()).len(), 4);
}

#[test]
fn sources_are_sorted_and_packed_once() {
    let from = tempdir().unwrap();
    build_rich_tree(from.path());
    let to = tempdir().unwrap();
    let mut sources = vec![
        Source::beneath(from.path(), "text/up"),
        Source::beneath(from.path(), "text"),
        Source::named(&from.path().join("many"), "renamed/many"),
        Source::named(&from.path().join("one"), "a file"),
        Source::beneath(from.path(), "text"),
        Source::beneath(from.path(), "missing"),
        Source::beneath(from.path(), "a/b"),
    ];
    let mut warnings = Vec::new();
    let mut packed = |sources: &[Source]| {
        let mut archive = Vec::new();
        pack(sources, &Options::new(THREADS), &mut archive, &mut |warning| warnings.push(warning.to_string())).unwrap();
        archive
    };
    let archive = packed(&sources);
    sources.reverse();
    assert!(packed(&sources) == archive);
    assert_eq!(warnings, [r#""missing": it does not exist"#; 2]);
    unpacked(&archive, to.path());
    let there = look(to.path());
    let before = look(from.path());
    assert!(there[Path::new("a/b")] == before[Path::new("a/b")]);
    assert!(there[Path::new("a file")].content == before[Path::new("one")].content);
    assert_same(&from.path().join("text"), &to.path().join("text"));
    assert_same(&from.path().join("many"), &to.path().join("renamed/many"));
}

#[test]
fn what_is_no_file_or_unreadable_is_told_and_left_out() {
    let from = tempdir().unwrap();
    fs::write(from.path().join("file"), "x").unwrap();
    let fifo = from.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.path().join("socket")).unwrap();
    let (archive, summary, warnings) = pack_with(from.path(), &Options::new(THREADS));
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let special = "it is neither a file nor a directory nor a link";
    assert_eq!(told, [format!("\"fifo\": {special}"), format!("\"socket\": {special}")]);
    assert_eq!(summary.entries, 1);
    assert!(verify(&archive[..], &options()).is_ok());
}

#[test]
fn files_that_change_meanwhile_give_a_right_archive() {
    let from = tempdir().unwrap();
    for number in 0..200 {
        fs::write(from.path().join(format!("{number:03}")), noise(20_000, number)).unwrap();
    }
    let large = File::create(from.path().join("large")).unwrap();
    large.set_len(0).unwrap();
    fs::write(from.path().join("large"), noise(9 << 20, 9)).unwrap();
    let path = from.path().to_owned();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                number = (number + 7) % 200;
                let file = path.join(format!("{number:03}"));
                match number % 4 {
                    0 => drop(fs::remove_file(&file)),
                    1 => drop(fs::write(&file, noise(40_000, number))),
                    2 => drop(File::create(&file).map(|file| file.set_len(10))),
                    _ => drop(fs::write(path.join("large"), noise(number as usize * 40_000, number))),
                }
            }
        });
        for _ in 0..10 {
            let (archive, ..) = pack_with(from.path(), &Options::new(THREADS));
            verify(&archive[..], &options()).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_sink_that_fails_ends_it() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let from = tempdir().unwrap();
    build_rich_tree(from.path());
    for room in [0, 9, 60, 100_000, 6 << 20] {
        let error = pack(&sources_of(from.path()), &Options::new(THREADS), Full(room), &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "failed to write the archive");
    }
}

#[test]
fn nothing_at_all_is_an_archive_too() {
    let (from, to) = (tempdir().unwrap(), tempdir().unwrap());
    let archive = packed(from.path());
    assert_eq!(unpacked(&archive, to.path()).entries, 0);
    peers_unpack(&archive, to.path());
    assert!(look(to.path()).is_empty());
}

#[derive(Debug, Clone)]
enum Made {
    File { length: usize, noisy: bool, mode: u32 },
    Directory { mode: u32 },
    Link(String),
    HardLink(usize),
    Holes(u64, u64),
}

fn any_entry() -> impl Strategy<Value = (String, Made, i64, i64)> {
    let path = "[ab]{1,2}(/[a-cé.]{1,3}){0,3}";
    let made = prop_oneof![
        4 => (0_usize..200_000, any::<bool>(), 0o400_u32..0o1000).prop_map(|(length, noisy, mode)| Made::File { length, noisy, mode }),
        1 => (0_u32..0o1000).prop_map(|mode| Made::Directory { mode: mode | 0o700 }),
        1 => "[a-z/.]{1,150}".prop_map(Made::Link),
        1 => any::<usize>().prop_map(Made::HardLink),
        1 => (0_u64..3_000_000, 0_u64..2_000_000).prop_map(|(hole, more)| Made::Holes(hole, more)),
    ];
    (path, made, -1_000_000_i64..4_000_000_000, 0_i64..1_000_000_000)
}

fn make(root: &Path, entries: &[(String, Made, i64, i64)]) {
    let mut files: Vec<std::path::PathBuf> = Vec::new();
    let mut made = Vec::new();
    for (seed, (name, what, seconds, nanos)) in entries.iter().enumerate() {
        let path = root.join(name);
        if name.split('/').any(|part| part == "." || part == "..") || path.symlink_metadata().is_ok() {
            continue;
        }
        if fs::create_dir_all(path.parent().unwrap()).is_err() {
            continue;
        }
        match what {
            Made::File { length, noisy, mode } => {
                let content = if *noisy { noise(*length, seed as u64) } else { vec![seed as u8; *length] };
                fs::write(&path, content).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                files.push(path.clone());
            }
            Made::Directory { mode } => {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Made::Link(target) => symlink(target, &path).unwrap(),
            Made::HardLink(_) if files.is_empty() => {}
            Made::HardLink(index) => fs::hard_link(&files[index % files.len()], &path).unwrap(),
            Made::Holes(hole, more) => {
                let file = File::create(&path).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, b"data", *hole).unwrap();
                file.set_len(hole + 4 + more).unwrap();
            }
        }
        if path.symlink_metadata().is_ok() {
            made.push((path, *seconds, *nanos));
        }
    }
    for (path, seconds, nanos) in made.iter().rev() {
        set_mtime(path, *seconds, *nanos);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back(entries in proptest::collection::vec(any_entry(), 0..30), frame in 0_usize..(1 << 20), threads in 1_usize..4) {
        let (from, ours, theirs) = (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
        make(from.path(), &entries);
        let (archive, _, warnings) = pack_with(from.path(), &Options { frame, ..Options::new(threads) });
        prop_assert!(warnings.is_empty(), "{:?}", warnings);
        unpacked(&archive, ours.path());
        assert_same(from.path(), ours.path());
        peers_unpack(&archive, theirs.path());
        assert_same(from.path(), theirs.path());
    }
}
