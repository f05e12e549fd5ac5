//! Repositories of every shape.

use super::*;

/// `host` cloned from `origin`, as people have it.
fn cloned(origin: &Dir, options: &[&str]) -> Dir {
    let host = Dir::empty();
    let url = format!("file://{}", origin.path().display());
    host.git(&[&["clone", "-q"], options, &[&url, "."]].concat());
    host
}

#[test]
fn branches_tags_and_origin() {
    let origin = Dir::repository();
    origin.git(&["branch", "feature/x"]);
    origin.git(&["tag", "v1"]);
    origin.git(&["tag", "-a", "v2", "-m", "annotated"]);
    let host = cloned(&origin, &[]);
    host.git(&["checkout", "-q", "-b", "mine", "--track", "origin/feature/x"]);
    host.write("more", "more\n").commit("ahead by one");
    host.git(&["pack-refs", "--all"]);
    host.git(&["tag", "loose"]);
    host.git(&["symbolic-ref", "refs/heads/alias", "refs/heads/main"]);
    host.git(&["notes", "add", "-m", "a note"]);

    let (copy, _) = host.stream();
    assert_same(host.path(), copy.path());
    assert_eq!(copy.git(&["rev-parse", "--abbrev-ref", "origin/HEAD"]), "origin/main\n");
    assert_eq!(copy.git(&["describe", "--all"]), host.git(&["describe", "--all"]));
    copy.git(&["fetch", "-q"]);
}

#[test]
fn a_detached_head_and_a_merge_in_progress() {
    let host = Dir::repository();
    host.git(&["checkout", "-q", "-b", "side"]);
    host.write("readme", "side\n").commit("side");
    host.git(&["checkout", "-q", "main"]);
    host.write("readme", "main\n").commit("main");
    host.git(&["checkout", "-q", "--detach"]);
    host.write("new", "new\n").commit("beyond where it was detached");
    assert_same(host.path(), host.stream().0.path());
    let merge = Command::new("git").args(["merge", "side"]).current_dir(host.path()).output().unwrap();
    assert!(!merge.status.success());
    let (copy, _) = host.stream();
    assert_same(host.path(), copy.path());
    assert!(copy.git(&["status"]).contains("unmerged"));
}

#[test]
fn stash_and_reflog_stay() {
    let host = Dir::repository();
    host.write("readme", "stashed\n").git(&["stash", "-q"]);
    let (copy, _) = host.stream();
    assert_same(host.path(), copy.path());
    assert_eq!(copy.git(&["stash", "list"]), "");
    assert!(!copy.has(".git/logs") && !copy.has(".git/hooks"));
}

#[test]
fn a_shallow_clone_stays_shallow() {
    let origin = Dir::repository();
    origin.write("readme", "2\n").commit("second").write("readme", "3\n").commit("third");
    let host = cloned(&origin, &["--depth", "2"]);
    let (copy, _) = host.stream();
    assert_same(host.path(), copy.path());
    assert_eq!(copy.git(&["rev-parse", "--is-shallow-repository"]), "true\n");
    assert_eq!(copy.git(&["rev-list", "--count", "HEAD"]), "2\n");
}

#[test]
fn a_linked_worktree_becomes_a_repository_of_its_own() {
    let host = Dir::repository();
    let place = Dir::empty();
    let linked = place.join("linked");
    host.git(&["worktree", "add", "-q", "-b", "side", linked.to_str().unwrap()]);
    fs::write(linked.join("readme"), "changed here\n").unwrap();
    fs::write(linked.join("new"), "new\n").unwrap();
    git(&linked, &["add", "new"]);
    host.write("readme", "changed there\n");

    let (copy, _) = unpack(&WorkingTree::open(&linked, Elsewhere::Refused).unwrap());
    assert_same(&linked, copy.path());
    assert!(copy.join(".git").is_dir());
    assert_eq!(copy.git(&["branch", "--show-current"]), "side\n");
    assert_eq!(copy.git(&["worktree", "list"]).lines().count(), 1);
    assert_same(host.path(), host.stream().0.path());
}

#[test]
fn submodules_bring_their_files_and_a_git_of_their_own() {
    let library = Dir::repository();
    let host = Dir::repository();
    let url = format!("file://{}", library.path().display());
    host.git(&["submodule", "add", "-q", &url, "libs/one"]);
    host.git(&["submodule", "add", "-q", &url, "libs/two"]);
    host.commit("submodules");
    host.git(&["submodule", "deinit", "-q", "-f", "libs/two"]);
    host.write("libs/one/readme", "changed\n").write("libs/one/new", "new\n");
    host.write("libs/one/.gitignore", "out\n").write("libs/one/out", "ignored\n");

    let (copy, report) = host.stream();
    assert_same(host.path(), copy.path());
    assert_same(&host.join("libs/one"), &copy.join("libs/one"));
    assert_eq!(copy.git(&["submodule", "status"]), host.git(&["submodule", "status"]));
    assert_eq!(copy.read("libs/one/readme"), "changed\n");
    assert!(!copy.has("libs/one/out") && copy.has("libs/two"));
    assert_eq!(report.nested, [PathBuf::from("libs/one")]);
}

#[test]
fn repositories_git_does_not_know_are_copied_too() {
    let host = Dir::repository();
    fs::create_dir(host.join("nested")).unwrap();
    let nested = host.join("nested");
    git(&nested, &["init", "-q", "-b", "inner"]);
    host.write("nested/file", "file\n");
    git(&nested, &["add", "."]);
    git(&nested, &["commit", "-q", "-m", "inner"]);
    host.write("lost/.git", "gitdir: /nowhere\n");

    let (copy, report) = host.stream();
    assert_eq!(copy.git(&["status", "--porcelain"]), "?? nested/\n");
    assert_same(&nested, &copy.join("nested"));
    assert_eq!(report.nested, [PathBuf::from("nested")]);
}

#[test]
fn objects_of_alternates_are_copied_in_if_somebody_says_so() {
    let origin = Dir::repository();
    let reference = cloned(&origin, &[]);
    reference.git(&["gc", "-q"]);
    let host = Dir::empty();
    host.git(&["clone", "-q", "--shared", reference.path().to_str().unwrap(), "."]);
    host.write("more", "more\n").commit("own objects");
    let error = WorkingTree::open(host.path(), Elsewhere::Refused).unwrap().stream(std::io::sink()).unwrap_err();
    assert!(error.to_string().contains("--follow-git-links"), "{error}");
    let (copy, _) = unpack(&WorkingTree::open(host.path(), Elsewhere::Followed).unwrap());
    drop(reference);
    assert!(!copy.has(".git/objects/info/alternates"));
    copy.git(&["fsck", "--strict"]);
    assert_eq!(copy.git(&["rev-list", "--count", "HEAD"]), "2\n");
}

#[test]
fn packs_loose_objects_and_sha256() {
    let host = Dir::empty();
    host.git(&["init", "-q", "-b", "main", "--object-format=sha256"]);
    host.write("a", "a\n").commit("first").git(&["gc", "-q"]);
    host.write("b", "b\n").commit("second");
    let (copy, _) = host.stream();
    assert_same(host.path(), copy.path());
    assert_eq!(copy.git(&["rev-parse", "--show-object-format"]), "sha256\n");
}

#[test]
fn a_repack_while_the_copy_is_made_loses_nothing() {
    /// Repacks once, as soon as the first bytes go by.
    struct Repacking<'a>(Vec<u8>, &'a Dir, bool);
    impl std::io::Write for Repacking<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if !std::mem::replace(&mut self.2, true) {
                self.1.git(&["gc", "-q", "--prune=now"]);
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let host = Dir::repository();
    for round in 0_u32..40 {
        // Does not compress, so that the stream's buffer fills between the objects.
        let noise: Vec<u8> = (0..20_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> (round % 13)) as u8).collect();
        host.write(&format!("f{round}"), &noise).commit("more");
    }
    let mut sink = Repacking(Vec::new(), &host, false);
    let report = WorkingTree::open(host.path(), Elsewhere::Refused).unwrap().stream(&mut sink).unwrap();
    assert!(sink.2 && !report.objects_incomplete);
    let copy = untar(&sink.0);
    assert_same(host.path(), copy.path());
}

#[test]
fn a_partial_clone_says_so() {
    let origin = Dir::repository();
    origin.git(&["config", "uploadpack.allowFilter", "true"]);
    origin.write("readme", "2\n").commit("second");
    let host = cloned(&origin, &["--filter=blob:none"]);
    let (copy, report) = host.stream();
    assert!(report.partial_clone);
    assert_eq!(told(host.path())[..6], told(copy.path())[..6]);
    // The origin is within reach here, so what is missing comes.
    assert_eq!(copy.git(&["show", "HEAD~1:readme"]), "hello\n");
}

#[test]
fn sparse_and_split() {
    let host = Dir::repository();
    host.write("in/a", "a\n").write("out/b", "b\n").commit("dirs");
    host.git(&["sparse-checkout", "set", "--cone", "in"]);
    let (copy, _) = host.stream();
    assert_same(host.path(), copy.path());
    assert!(copy.has("in/a") && !copy.has("out/b"));

    let host = Dir::repository();
    host.git(&["update-index", "--split-index", "--untracked-cache"]);
    host.write("new", "new\n").git(&["add", "new"]);
    let (copy, _) = host.stream();
    assert_same(host.path(), copy.path());
}
