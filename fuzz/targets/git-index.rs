//! What git lists of an index that anybody may have written: any bytes, and names that lead out of the tree, through links, into
//! a `.git`. The stream holds what a naive reader finds there, under the same name, and nothing from anywhere else.
#![no_main]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use navvy_checkout::{Reason, WorkingTree};
use navvy_fuzz::Feed;

/// Stands in every file that no job may get.
const OUTSIDE: &[u8] = b"OUTSIDE";
/// A path for a system call is shorter.
const PATH: usize = 4096;
const PARTS: [&str; 30] = [
    "a",
    "dir",
    "b",
    "deep",
    "c",
    "link",
    "dirlink",
    "out",
    "secret",
    "gone",
    "..",
    ".",
    "",
    ".git",
    ".GIT",
    ".Git",
    "config",
    "pipe",
    "sub",
    "HEAD",
    "etc",
    "passwd",
    "é",
    "a b",
    "git~1",
    ".git ",
    ".git::$INDEX_ALLOCATION",
    "GIT~1. ",
    ".g\u{200c}it",
    ".git-x",
];

static TOP: LazyLock<PathBuf> =
    LazyLock::new(|| make().unwrap_or_else(|error| panic!("the tree cannot be made: {error}")));

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed::new(data);
    let listing = match feed.byte() % 4 {
        0 => feed.rest().to_vec(),
        _ => names(&mut feed),
    };
    let mut stream = Vec::new();
    let report = WorkingTree::stream_listing(&TOP, &listing, &mut stream).expect("a listing is no fault of the tree");
    let expected = expected(&TOP, &listing);
    let files = look_through(&stream, &expected);
    assert_eq!(report.files + report.symlinks, files, "files that are told");
    let told = report.left_out.iter().filter(|left| left.reason == Reason::NoName).count();
    assert_eq!(told, expected.unclean, "names that are told to be none, in {}", listing.escape_ascii());
    assert!(report.nested.is_empty() && report.lines().iter().all(|line| line.len() < 2000));
});

/// Once, at the same place each time, so that a name found there is there the next time.
fn make() -> std::io::Result<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz/git-index");
    if home.join("tree").is_dir() {
        return Ok(home.join("tree"));
    }
    let new = home.join(format!("new-{}", std::process::id()));
    let put = |name: &str, bytes: &[u8]| {
        let path = new.join(name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, bytes)
    };
    for name in ["a", "dir/b", "dir/deep/c", "é", "dir/deep/a b", "git~1"] {
        put(name, name.as_bytes())?;
    }
    for name in [".git/config", "dir/sub/.git/config", "dir/.GIT/config", "deep/.git", "sub/.Git/a"] {
        put(name, OUTSIDE)?;
    }
    fs::create_dir_all(home.join("outside"))?;
    fs::write(home.join("outside/secret"), OUTSIDE)?;
    for (link, target) in
        [("link", "a"), ("dirlink", "dir"), ("out", "../outside"), ("secret", "../outside/secret"), ("dir/out", "/")]
    {
        symlink(target, new.join(link))?;
    }
    Command::new("mkfifo").arg(new.join("pipe")).status()?;
    // Another process may have been first.
    if fs::rename(&new, home.join("tree")).is_err() {
        fs::remove_dir_all(&new)?;
    }
    Ok(home.join("tree"))
}

fn names(feed: &mut Feed<'_>) -> Vec<u8> {
    let mut listing = Vec::new();
    while !feed.is_empty() && listing.len() < 20_000 {
        let mut shape = feed.byte();
        let mut name = Vec::new();
        if shape == 255 {
            // Deeper than any path.
            name = b"dir/".repeat(feed.up_to(3000));
            shape = feed.byte();
        }
        for number in 0..=shape % 5 {
            if number > 0 {
                name.push(b'/');
            }
            match usize::from(feed.byte()) {
                part if part < 8 * PARTS.len() => name.extend_from_slice(PARTS[part % PARTS.len()].as_bytes()),
                _ => name.extend_from_slice(feed.piece(12)),
            }
        }
        listing.extend_from_slice(&name);
        listing.push(0);
    }
    listing
}

/// What a naive reader finds.
#[derive(Default)]
struct Expected {
    names: BTreeSet<Vec<u8>>,
    /// Names that no file can have.
    unclean: usize,
}

fn expected(top: &Path, listing: &[u8]) -> Expected {
    let mut expected = Expected::default();
    let mut last: &[u8] = b"";
    let listing = listing.strip_suffix(b"\0").unwrap_or(listing);
    for name in listing.split(|byte| *byte == 0).filter(|_| !listing.is_empty()) {
        if name == last {
            continue;
        }
        last = name;
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
        if name.len() >= PATH || parts.iter().any(|part| is_unclean(part)) {
            expected.unclean += 1;
        } else {
            walk(top, &parts, &mut expected.names);
        }
    }
    expected
}

fn is_unclean(part: &[u8]) -> bool {
    part.is_empty() || part == b"." || part == b".." || is_dot_git(&String::from_utf8_lossy(part))
}

/// For whatever file system: HFS+ ignores some characters, Windows what is at the end, and behind a colon stands a stream.
fn is_dot_git(part: &str) -> bool {
    let is_ignored =
        |c: char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let seen = part.replace(is_ignored, "").to_ascii_lowercase();
    let name = seen.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    name == ".git" || name == "git~1"
}

/// Directories on the way that are none end it; they are there all the same up to that one.
fn walk(top: &Path, parts: &[&[u8]], names: &mut BTreeSet<Vec<u8>>) {
    let mut path = top.to_owned();
    for (number, part) in parts.iter().enumerate() {
        path.push(std::ffi::OsStr::from_bytes(part));
        let Ok(meta) = fs::symlink_metadata(&path) else { return };
        let is_last = number + 1 == parts.len();
        if meta.is_dir() || (is_last && (meta.is_file() || meta.is_symlink())) {
            names.insert(parts[..=number].join(&b'/'));
        } else {
            return;
        }
    }
}

/// How many files and links there are.
fn look_through(stream: &[u8], expected: &Expected) -> u64 {
    let mut archive = tar::Archive::new(stream);
    let (mut names, mut directories, mut files) = (BTreeSet::new(), BTreeSet::from([Vec::new()]), 0);
    for entry in archive.entries().expect("it is a tar") {
        let mut entry = entry.expect("it is a whole tar");
        let name = entry.path_bytes().into_owned();
        let name = name.strip_suffix(b"/").unwrap_or(&name).to_vec();
        assert!(!name.split(|byte| *byte == b'/').any(is_unclean), "{}", name.escape_ascii());
        let parent = name.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &name[..at]);
        assert!(directories.contains(parent), "{} lies in no directory", name.escape_ascii());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("memory can be read");
        assert!(
            !content.windows(OUTSIDE.len()).any(|window| window == OUTSIDE),
            "{} is not of the tree",
            name.escape_ascii()
        );
        match entry.header().entry_type() {
            tar::EntryType::Directory => drop(directories.insert(name.clone())),
            _ => files += 1,
        }
        names.insert(name);
    }
    assert_eq!(names, expected.names, "what is there");
    files
}
