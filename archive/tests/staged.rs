//! Directories that were not there come whole, or not at all.

mod forge;
mod trees;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use forge::{Forgery, Yard, directory, hard_link, head};
use navvy_archive::beneath::Root;
use navvy_archive::error::ReadError;
use navvy_archive::tape::{Body, Head};
use navvy_archive::unpack::{Placement, unpack};
use rustix::fs::AtFlags;
use trees::{assert_same, build_rich_tree, look, options, packed, unpack_with};

/// Unpacks into `root`, and does something when an entry of this path is placed.
fn unpack_meanwhile(archive: &[u8], root: &Path, at: &[u8], mut act: impl FnMut() + Send) -> Result<(), ReadError> {
    let roots = [Root::open(root).unwrap()];
    let place = &mut |path: &[u8]| {
        if path == at {
            act();
        }
        Some(Placement { root: 0, path: path.to_vec() })
    };
    unpack(archive, &roots, &options(), place).map(drop)
}

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names.into_iter().map(|name| name.into_string().unwrap()).collect()
}

/// Frames of their own, so that what comes before `new/last` is there by then.
fn small() -> Forgery {
    Forgery::new()
        .entry(&directory(b"new"), b"")
        .entry(&directory(b"new/sub"), b"")
        .file(b"new/sub/file", b"ours")
        .next_frame()
        .file(b"new/last", b"ours")
        .entry(&hard_link(b"new/link", b"new/sub/file"), b"")
        .end()
}

#[test]
fn a_missing_directory_is_not_seen_before_it_is_whole() {
    let yard = Yard::new();
    let seen = std::sync::Mutex::new(Vec::new());
    unpack_meanwhile(&small().build(), &yard.root(), b"new/last", || {
        seen.lock().unwrap().push(names(&yard.root()));
    })
    .unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.iter().all(|names| names.len() == 1 && names[0].starts_with(".navvy-")), "{seen:?}");
    assert!(!seen.is_empty());
    assert_eq!(fs::read(yard.root().join("new/link")).unwrap(), b"ours");
    assert_eq!(fs::metadata(yard.root().join("new/link")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(yard.root().join("new")).unwrap().mtime(), forge::TIME.seconds);
    yard.check();
}

#[test]
fn of_a_missing_directory_an_error_leaves_nothing_and_what_was_there_stays() {
    let broken = |forgery: Forgery| forgery.next_frame().raw(b"no header").build();
    let tree = Forgery::new()
        .file(b"mine/whole", b"ours")
        .entry(&directory(b"new"), b"")
        .entry(&Head { mode: 0, ..directory(b"new/closed") }, b"")
        .file(b"new/closed/file", b"ours")
        .entry(&head(b"new/closed/link", Body::Symlink { target: b"/".to_vec() }), b"")
        .file(b"other/deep/er/file", b"ours");
    let yard = Yard::new();
    fs::create_dir(yard.root().join("mine")).unwrap();
    yard.unpack(&broken(tree)).unwrap_err();
    assert_eq!(names(&yard.root()), ["mine"]);
    assert_eq!(fs::read(yard.root().join("mine/whole")).unwrap(), b"ours", "{:?}", names(&yard.root().join("mine")));
}

#[test]
fn a_manifest_that_lies_leaves_nothing_either() {
    let mut forgery = small();
    forgery.entries[2].mode = 0o777;
    let yard = Yard::new();
    yard.unpack(&forgery.build()).unwrap_err();
    assert!(names(&yard.root()).is_empty());
}

#[test]
fn what_is_put_there_meanwhile_is_merged_with_ours() {
    let yard = Yard::new();
    let new = yard.root().join("new");
    unpack_meanwhile(&small().build(), &yard.root(), b"new/last", || {
        fs::create_dir_all(new.join("sub/theirs")).unwrap();
        fs::write(new.join("sub/file"), "theirs").unwrap();
        fs::write(new.join("sub/mine"), "stays").unwrap();
        fs::create_dir_all(new.join("last")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o700)).unwrap();
    })
    .unwrap();
    let read = |name: &str| fs::read_to_string(new.join(name)).unwrap();
    assert_eq!([read("sub/file"), read("last"), read("link"), read("sub/mine")], ["ours", "ours", "ours", "stays"]);
    assert!(new.join("sub/theirs").is_dir());
    let of = fs::metadata(&new).unwrap();
    assert_eq!((of.mode() & 0o7777, of.mtime()), (0o755, forge::TIME.seconds), "the archive's");
    yard.check();
}

#[test]
fn a_file_where_a_directory_comes_is_replaced_whenever_it_came() {
    let yard = Yard::new();
    let new = yard.root().join("new");
    unpack_meanwhile(&small().build(), &yard.root(), b"new/last", || fs::write(&new, "theirs").unwrap()).unwrap();
    assert_eq!(fs::read(new.join("last")).unwrap(), b"ours");
    yard.check();
}

#[test]
fn something_in_a_directory_that_came_meanwhile_is_not_removed_for_a_file() {
    let yard = Yard::new();
    let last = yard.root().join("new/last");
    let result = unpack_meanwhile(&small().build(), &yard.root(), b"new/last", || {
        fs::create_dir_all(&last).unwrap();
        fs::write(last.join("mine"), "stays").unwrap();
    });
    let error = result.unwrap_err().to_string();
    assert!(error.contains("bring the directory into its place"), "{error}");
    assert_eq!(fs::read_to_string(last.join("mine")).unwrap(), "stays");
    yard.check();
}

#[test]
fn missing_directories_below_one_that_is_there_come_each_for_itself() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    build_rich_tree(from.path());
    for there in ["many", "deep/deep", "text"] {
        fs::create_dir_all(to.path().join(there)).unwrap();
    }
    unpack_with(&packed(from.path()), to.path(), &options()).unwrap();
    assert_same(from.path(), to.path());
}

#[test]
fn a_directory_without_an_entry_is_open_to_others() {
    let yard = Yard::new();
    let forgery = Forgery::new().file(b"a/b/file", b"").entry(&directory(b"c/d/told"), b"").end();
    yard.unpack(&forgery.build()).unwrap();
    for path in ["a", "a/b", "c", "c/d"] {
        let mode = fs::metadata(yard.root().join(path)).unwrap().mode();
        assert_eq!(mode & 0o500, 0o500, "{path}");
        assert_eq!(mode & 0o055, 0o055, "{path}: a usual umask takes nothing of this");
        assert_eq!(mode & 0o022, 0, "{path}: nobody else may write");
    }
}

#[test]
fn a_directory_without_an_entry_is_open_to_others_where_a_file_was_in_its_way() {
    let yard = Yard::new();
    let new = yard.root().join("new");
    let archive = Forgery::new().file(b"new/sub/file", b"").next_frame().file(b"new/last", b"ours").end().build();
    unpack_meanwhile(&archive, &yard.root(), b"new/last", || fs::write(&new, "theirs").unwrap()).unwrap();
    for path in [new.clone(), new.join("sub")] {
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o755, "{path:?}");
    }
}

#[test]
fn everything_belongs_to_the_group_of_a_directory_that_passes_it_on() {
    let yard = Yard::new();
    // Only root can give it away; whoever else sees that his own group is passed on.
    let _ = std::os::unix::fs::chown(yard.root(), None, Some(12_345));
    fs::set_permissions(yard.root(), fs::Permissions::from_mode(0o2755)).unwrap();
    let group = fs::metadata(yard.root()).unwrap().gid();
    let forgery = Forgery::new().file(b"implied/sub/file", b"").entry(&directory(b"told"), b"").file(b"told/file", b"");
    yard.unpack(&forgery.end().build()).unwrap();
    for path in ["implied", "implied/sub", "implied/sub/file", "told", "told/file"] {
        assert_eq!(fs::metadata(yard.root().join(path)).unwrap().gid(), group, "{path}");
    }
}

#[test]
fn a_path_as_long_as_it_may_be_below_a_short_name() {
    let path = format!("a/{}{}", format!("{}/", "d".repeat(250)).repeat(16), "f".repeat(77));
    assert_eq!(path.len(), 4095);
    let to = tempfile::tempdir().unwrap();
    unpack_with(&Forgery::new().file(path.as_bytes(), b"far below").end().build(), to.path(), &options()).unwrap();
    // No call takes the whole of it.
    let mut directory = Root::open(to.path()).unwrap();
    let names: Vec<&str> = path.split('/').collect();
    let (last, above) = names.split_last().unwrap();
    for name in above {
        directory = directory.enter(name.as_bytes()).unwrap().into();
    }
    assert_eq!(rustix::fs::statat(&directory, *last, AtFlags::empty()).unwrap().st_size, 9);
}

#[test]
fn modes_that_forbid_writing_are_kept_and_hinder_nobody() {
    let closed = Head { mode: 0o555, ..directory(b"new") };
    let below = Head { mode: 0o500, ..directory(b"new/sub") };
    let forgery = Forgery::new().entry(&closed, b"").entry(&below, b"").file(b"new/sub/file", b"ours").end();
    let yard = Yard::new();
    yard.unpack(&forgery.build()).unwrap();
    let found = look(&yard.root());
    assert_eq!(found[Path::new("new")].mode, 0o555);
    assert_eq!(found[Path::new("new/sub")].mode, 0o500);
    assert_eq!(found[Path::new("new/sub")].mtime.0, forge::TIME.seconds);
}
