//! What of a tree's files goes in.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::*;
use crate::CheckoutError;

#[test]
fn directories_have_the_mode_that_git_would_give_them() {
    let host = Dir::repository();
    host.write("private/file", "x").commit("more").write("open/new", "x");
    for (name, mode) in [("src", 0o777), ("private", 0o700), ("open", 0o2775)] {
        fs::set_permissions(host.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let (copy, _) = host.stream();
    for name in ["src", "private", "open", ".git", ".git/refs"] {
        assert_eq!(copy.mode(name), 0o755, "{name}");
    }
    // Without a repository, too.
    fs::remove_dir_all(host.join(".git")).unwrap();
    let (copy, _) = host.stream();
    for name in ["src", "private", "open"] {
        assert_eq!(copy.mode(name), 0o755, "{name}");
    }
}

#[test]
fn everything_that_changed_is_as_on_the_host() {
    let host = Dir::repository();
    for name in ["kept", "edited", "staged", "both", "gone", "removed", "old name", "mode"] {
        host.write(name, format!("{name}\n").repeat(20));
    }
    host.commit("second");
    host.write("edited", "edited\n").write("staged", "staged\n").write("both", "one\n").write("new/file", "new\n");
    host.git(&["add", "staged", "both"]);
    host.write("both", "two\n");
    fs::remove_file(host.join("gone")).unwrap();
    host.git(&["rm", "-q", "removed"]);
    host.git(&["mv", "old name", "new name"]);
    fs::set_permissions(host.join("mode"), fs::Permissions::from_mode(0o755)).unwrap();
    host.write("intended", "x\n").git(&["add", "-N", "intended"]);

    let (copy, report) = host.stream();
    assert_same(host.path(), copy.path());
    assert_eq!(copy.read("both"), "two\n");
    assert!(!copy.has("gone") && !copy.has("removed") && copy.has("new/file"));
    assert_eq!(copy.mode("mode"), 0o755);
    assert_eq!(copy.mode("kept"), host.mode("kept"));
    assert_eq!((report.left_out.len(), report.is_repository), (0, true));
}

#[test]
fn status_reads_no_file_again() {
    let host = Dir::repository();
    // Older than the index, so that nothing may have changed within the index's own second.
    let before = std::time::SystemTime::now() - Duration::from_secs(60);
    for name in ["readme", "src/lib.rs"] {
        fs::File::options().write(true).open(host.join(name)).unwrap().set_modified(before).unwrap();
    }
    host.git(&["update-index", "--refresh"]);
    let (copy, _) = host.stream();
    // With other bytes of the same size and time, only reading would tell.
    copy.write("readme", "HELLO\n");
    fs::File::options().write(true).open(copy.join("readme")).unwrap().set_modified(before).unwrap();
    assert_eq!(copy.git(&["status", "--porcelain"]), "");
}

#[test]
fn ignored_files_stay_unless_they_are_tracked() {
    let host = Dir::repository();
    host.write(".gitignore", "*.log\n/target/\n").write("kept.log", "tracked\n");
    host.git(&["add", "-f", "kept.log", ".gitignore"]);
    host.git(&["commit", "-q", "-m", "ignore"]);
    host.write("other.log", "ignored\n").write("target/big", "ignored\n").write("src/.gitignore", "own\n");
    host.write("src/own", "ignored\n").write(".git/info/exclude", "private\n").write("private", "ignored\n");

    let (copy, _) = host.stream();
    assert_same(host.path(), copy.path());
    assert!(copy.has("kept.log") && copy.has("src/.gitignore"));
    for ignored in ["other.log", "target", "src/own", "private"] {
        assert!(!copy.has(ignored), "{ignored}");
    }
}

#[test]
fn links_are_links_wherever_they_point() {
    let host = Dir::repository();
    let far = format!("../{}", "far/".repeat(60));
    host.link("inside", "readme").link("outside", "/etc/passwd").link("dangling", "../nowhere").link("far", &far);
    host.commit("links").link("untracked", "/etc");
    // A tracked directory that became a link: what is behind the link is not the tree's.
    let elsewhere = Dir::empty();
    elsewhere.write("lib.rs", "not mine\n");
    fs::remove_dir_all(host.join("src")).unwrap();
    host.link("src", elsewhere.path().to_str().unwrap());

    let (copy, report) = host.stream();
    assert_same(host.path(), copy.path());
    assert_eq!(fs::read_link(copy.join("outside")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read_link(copy.join("far")).unwrap(), Path::new(&far));
    assert_eq!(fs::read_link(copy.join("src")).unwrap(), elsewhere.path());
    assert_eq!(report.symlinks, 6);
}

#[test]
fn odd_names_arrive_byte_for_byte() {
    let host = Dir::repository();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let names: [&[u8]; 8] = [
        b"a space",
        b"a\nnewline",
        b"\xff\xfe not utf-8",
        b"-dash",
        b"\"quoted\"",
        b"back\\slash",
        b" ",
        long.as_bytes(),
    ];
    for (count, name) in names.iter().enumerate() {
        let path = host.path().join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
        if count == 3 {
            host.commit("half of them");
        }
    }
    let (copy, report) = host.stream();
    assert_same(host.path(), copy.path());
    for name in names {
        assert_eq!(fs::read(copy.path().join(OsStr::from_bytes(name))).unwrap(), name);
    }
    assert_eq!(report.files, 10);
}

#[test]
fn sockets_and_pipes_are_named_not_sent() {
    let host = Dir::repository();
    let _socket = UnixListener::bind(host.join("src/socket")).unwrap();
    let fifo = |name: &str| assert!(Command::new("mkfifo").arg(host.join(name)).status().unwrap().success());
    fifo("pipe");
    fifo("ignored.pipe");
    host.write(".gitignore", "ignored.*\n");
    // A tracked file in whose place a pipe is.
    fs::remove_file(host.join("readme")).unwrap();
    fifo("readme");

    let (copy, report) = host.stream();
    let expected = [("readme", Reason::Fifo), ("pipe", Reason::Fifo), ("src/socket", Reason::Socket)];
    let mut told = reasons(&report);
    told.sort_by_key(|(name, _)| expected.iter().position(|(expected, _)| expected == name));
    assert_eq!(told, expected.map(|(name, reason)| (name.to_owned(), reason)));
    assert!(!copy.has("readme") && !copy.has("pipe") && !copy.has("src/socket"));
}

#[test]
fn without_git_the_whole_directory_goes() {
    let host = Dir::empty();
    host.write("a", "a\n").write("sub/.gitignore", "*\n").write("sub/b", "b\n").write(".env", "X=1\n").link("l", "a");
    fs::create_dir(host.join("empty")).unwrap();
    let _socket = UnixListener::bind(host.join("sub/socket")).unwrap();

    let (copy, report) = host.stream();
    assert_eq!((copy.read("sub/b"), copy.read(".env")), ("b\n".to_owned(), "X=1\n".to_owned()));
    assert!(copy.has("empty") && !copy.has(".git") && !copy.has("sub/socket"));
    assert_eq!((report.is_repository, report.files, report.symlinks), (false, 4, 1));
    assert_eq!(reasons(&report), [("sub/socket".to_owned(), Reason::Socket)]);
}

#[test]
fn repositories_below_a_plain_directory_are_copied_as_such() {
    let host = Dir::empty();
    let inner = host.join("inner");
    fs::create_dir(&inner).unwrap();
    git(&inner, &["init", "-q", "-b", "main"]);
    git(&inner, &["config", "http.extraheader", "TOKEN"]);
    host.write("inner/.gitignore", "out\n").write("inner/out", "ignored\n").write("broken/.git/config", "TOKEN");

    let (copy, report) = host.stream();
    assert_same(&inner, &copy.join("inner"));
    assert!(!copy.has("inner/out") && !copy.read("inner/.git/config").contains("TOKEN"));
    assert_eq!(report.nested, [PathBuf::from("inner")]);
    assert_eq!(reasons(&report), [("broken/.git".to_owned(), Reason::BrokenRepository)]);
}

#[test]
fn a_repository_that_cannot_be_looked_at_is_no_plain_directory() {
    let host = Dir::empty();
    host.write("inner/.git/HEAD", "ref: refs/heads/main\n").write("inner/.gitignore", "secret\n");
    host.write("inner/secret", "ignored\n").write("beside", "beside\n").link("inner/.git/objects", "objects");
    let (copy, report) = host.stream();
    assert!(copy.has("beside") && copy.has("inner") && !copy.has("inner/secret"));
    assert_eq!(reasons(&report), [("inner".to_owned(), Reason::Unreadable)]);
    let error = WorkingTree::open(&host.join("inner"), Elsewhere::Refused).unwrap_err();
    assert!(matches!(error, CheckoutError::Read { .. }), "{error}");
}

#[test]
fn an_empty_repository() {
    let host = Dir::empty();
    host.git(&["init", "-q", "-b", "trunk"]);
    let (copy, _) = host.stream();
    assert_eq!(copy.git(&["status", "--porcelain=v1", "--branch"]), "## No commits yet on trunk\n");
    host.write("new", "new\n").git(&["add", "new"]);
    let (copy, _) = host.stream();
    assert_eq!(copy.git(&["status"]), host.git(&["status"]));
}

#[test]
fn a_start_below_the_top_means_the_whole_repository() {
    let host = Dir::repository();
    let tree = WorkingTree::open(&host.join("src"), Elsewhere::Refused).unwrap();
    assert_eq!(tree.root(), host.path().canonicalize().unwrap());
    let (copy, _) = unpack(&tree);
    assert_same(host.path(), copy.path());
}

#[test]
fn starts_that_are_no_working_tree() {
    let host = Dir::repository();
    let open = |path: PathBuf| WorkingTree::open(&path, Elsewhere::Refused).unwrap_err();
    assert!(matches!(open(host.join("missing")), CheckoutError::Read { .. }));
    assert!(matches!(open(host.join("readme")), CheckoutError::NotADirectory { .. }));
    assert!(matches!(open(host.join(".git/refs")), CheckoutError::NoWorkingTree { .. }));
    let lost = Dir::empty();
    lost.write(".git", "gitdir: /nowhere\n");
    assert!(matches!(open(lost.path().to_owned()), CheckoutError::BrokenLink { .. }));
}

#[test]
fn a_file_that_changes_while_it_is_read_does_not_break_the_stream() {
    /// Changes a file as soon as its header goes by.
    struct Changing<'a>(Vec<u8>, &'a Path, u64);
    impl io::Write for Changing<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend_from_slice(bytes);
            fs::File::options().write(true).open(self.1)?.set_len(self.2)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let cases = [(1_000_000, Reason::Shrunk, 3_000_000), (9_000_000, Reason::Grown, 3_000_000)];
    for (length, reason, expected) in cases {
        let host = Dir::empty();
        host.write("big", vec![7; 3_000_000]).write("next", "next\n");
        let path = host.join("big");
        let mut sink = Changing(Vec::new(), &path, length);
        let report = WorkingTree::open(host.path(), Elsewhere::Refused).unwrap().stream(&mut sink).unwrap();
        let copy = untar(&sink.0);
        assert_eq!(reasons(&report), [("big".to_owned(), reason)]);
        assert_eq!(fs::metadata(copy.join("big")).unwrap().len(), expected);
        assert_eq!(copy.read("next"), "next\n");
    }
}

#[test]
fn a_sink_that_fails_ends_the_stream() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let host = Dir::repository();
    host.write("big", vec![1; 2_000_000]);
    let error = WorkingTree::open(host.path(), Elsewhere::Refused).unwrap().stream(Full).unwrap_err();
    assert!(matches!(error, CheckoutError::Write(_)), "{error}");
}

#[test]
fn only_files_dirs_and_links_are_in_the_stream() {
    let host = Dir::repository();
    let mut stream = Vec::new();
    let _report = WorkingTree::open(host.path(), Elsewhere::Refused).unwrap().stream(&mut stream).unwrap();
    for entry in tar::Archive::new(&stream[..]).entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        let kind = header.entry_type();
        assert!(kind.is_file() || kind.is_dir() || kind.is_symlink(), "{kind:?}");
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        assert_eq!((header.username_bytes(), header.groupname_bytes()), (Some(&b""[..]), Some(&b""[..])));
    }
}
