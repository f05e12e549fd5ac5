//! Killed while it unpacks: whatever has its own name is whole, at any moment.

mod trees;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use navvy_archive::format::digest;
use tempfile::TempDir;
use trees::{options, packed, unpack_with};

/// How the test tells its child where to go.
const VICTIM: &str = "NAVVY_TEST_UNPACK_VICTIM";
const KILLS: usize = 20;
const SMALL_FILES: usize = 100;
const SMALL: usize = 20_000;
/// Takes several frames, so that several workers write it.
const LARGE: usize = 5_000_000;
const WHOLE: usize = LARGE + SMALL_FILES * SMALL;

fn name(bytes: &[u8]) -> String {
    digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each file is called as its content's digest.
fn build(tree: &Path) {
    let (mut state, mut bytes) = (1_u64, vec![0_u8; LARGE]);
    let mut noise = |length: usize| {
        for byte in &mut bytes[..length] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        let bytes = &bytes[..length];
        fs::write(tree.join(name(bytes)), bytes).unwrap();
    };
    noise(LARGE);
    (0..SMALL_FILES).for_each(|_| noise(SMALL));
}

/// How many files have their names, each of them whole; and the bytes of all.
fn look(root: &Path) -> usize {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let named: Vec<String> = entries.filter(|name| !name.starts_with(".navvy-")).collect();
    for named in &named {
        let bytes = fs::read(root.join(named)).unwrap();
        assert_eq!(&name(&bytes), named, "{} bytes", bytes.len());
    }
    named.len()
}

/// Of files there and in directories there.
fn bytes_in(root: &Path) -> usize {
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
        meta => meta.map_or(0, |meta| meta.len() as usize),
    };
    fs::read_dir(root).into_iter().flatten().flatten().map(bytes).sum()
}

/// Of a tree that has its files in this directory.
fn place_with_archive(directory: &str) -> (TempDir, Vec<u8>) {
    let (tree, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(tree.path().join(directory)).unwrap();
    build(&tree.path().join(directory));
    let archive = packed(tree.path());
    fs::write(place.path().join("archive"), &archive).unwrap();
    (place, archive)
}

/// In the child that is to be killed.
fn is_victim() -> bool {
    let Some(place) = std::env::var_os(VICTIM) else { return false };
    let place = Path::new(&place);
    unpack_with(&fs::read(place.join("archive")).unwrap(), &place.join("root"), &options()).unwrap();
    true
}

/// Kills a child while it unpacks `archive` below `place`, once some bytes lie there.
fn kill_one(place: &Path, test: &str, bytes: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(VICTIM, place)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while bytes_in(&place.join("root")) < bytes && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it unpacks nothing");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn whoever_is_killed_while_unpacking_leaves_no_half_file_under_its_name() {
    if is_victim() {
        return;
    }
    let (place, archive) = place_with_archive("");
    let root = place.path().join("root");
    let mut half = 0;
    for nth in 0..KILLS {
        fs::create_dir(&root).unwrap();
        let test = "whoever_is_killed_while_unpacking_leaves_no_half_file_under_its_name";
        kill_one(place.path(), test, nth * WHOLE / KILLS);
        half += usize::from((1..=SMALL_FILES).contains(&look(&root)));
        // Whoever unpacks again is not in the way of what is left.
        if nth == KILLS / 2 {
            unpack_with(&archive, &root, &options()).unwrap();
            assert_eq!(look(&root), SMALL_FILES + 1);
        }
        fs::remove_dir_all(&root).unwrap();
    }
    assert!(half > 0, "nobody was killed half-way");
}

#[test]
fn whoever_is_killed_while_unpacking_leaves_a_directory_that_was_not_there_whole_or_not_there() {
    if is_victim() {
        return;
    }
    let (place, archive) = place_with_archive("new");
    let root = place.path().join("root");
    let mut half = 0;
    for nth in 0..KILLS {
        fs::create_dir(&root).unwrap();
        let test = "whoever_is_killed_while_unpacking_leaves_a_directory_that_was_not_there_whole_or_not_there";
        kill_one(place.path(), test, nth * WHOLE / KILLS);
        if root.join("new").exists() {
            assert_eq!(look(&root.join("new")), SMALL_FILES + 1);
        } else {
            half += usize::from(bytes_in(&root) > 0);
            unpack_with(&archive, &root, &options()).unwrap();
            assert_eq!(look(&root.join("new")), SMALL_FILES + 1);
        }
        fs::remove_dir_all(&root).unwrap();
    }
    assert!(half > 0, "nobody was killed half-way");
}
