//! Killed while it unpacks: whatever has its own name is whole, at any moment.

mod trees;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use navvy_archive::format::digest;
use trees::{options, packed, unpack_with};

/// How the test tells its child where to go.
const VICTIM: &str = "NAVVY_TEST_UNPACK_VICTIM";
const KILLS: usize = 20;
const SMALL_FILES: usize = 100;
const SMALL: usize = 20_000;
/// Takes several frames, so that several workers write it.
const LARGE: usize = 5_000_000;

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

fn bytes_in(root: &Path) -> usize {
    let lengths = fs::read_dir(root).unwrap().filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len() as usize));
    lengths.sum()
}

#[test]
fn whoever_is_killed_while_unpacking_leaves_no_half_file_under_its_name() {
    if let Some(place) = std::env::var_os(VICTIM) {
        let place = Path::new(&place);
        unpack_with(&fs::read(place.join("archive")).unwrap(), &place.join("root"), &options()).unwrap();
        return;
    }
    let (tree, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    build(tree.path());
    fs::write(place.path().join("archive"), packed(tree.path())).unwrap();
    let root = place.path().join("root");
    let whole = LARGE + SMALL_FILES * SMALL;
    let mut half = 0;
    for nth in 0..KILLS {
        fs::create_dir(&root).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "whoever_is_killed_while_unpacking_leaves_no_half_file_under_its_name"])
            .env(VICTIM, place.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while bytes_in(&root) < nth * whole / KILLS && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "it unpacks nothing");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        half += usize::from((1..=SMALL_FILES).contains(&look(&root)));
        // Whoever unpacks again is not in the way of what is left.
        if nth == KILLS / 2 {
            unpack_with(&fs::read(place.path().join("archive")).unwrap(), &root, &options()).unwrap();
            assert_eq!(look(&root), SMALL_FILES + 1);
        }
        fs::remove_dir_all(&root).unwrap();
    }
    assert!(half > 0, "nobody was killed half-way");
}
