//! Repositories that nobody's git has made. `tests/src/hostile.rs` has more of them, and every command.

use super::*;
use crate::{CheckoutError, GitError, GitFacts};

fn refused(dir: &Dir) -> String {
    let stream = |tree: WorkingTree| tree.stream(std::io::sink()).map(drop);
    WorkingTree::open(dir.path(), Elsewhere::Refused).and_then(stream).unwrap_err().to_string()
}

fn pipe(dir: &Dir, name: &str) {
    let _ = fs::remove_file(dir.join(name));
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.join(name), rustix::fs::Mode::RWXU).unwrap();
}

#[test]
fn what_git_has_as_a_file_is_one() {
    let secret = Dir::empty();
    secret.write("file", "secret");
    for name in [".git/MERGE_MSG", ".git/info/exclude", ".git/HEAD", ".git/packed-refs", ".git/logs/HEAD"] {
        let dir = Dir::repository();
        dir.git(&["checkout", "-q", "--detach"]);
        let _ = fs::remove_file(dir.join(name));
        dir.link(name, secret.join("file").to_str().unwrap());
        let told = refused(&dir);
        assert!(told.contains("symbolic link") && told.contains("--follow-git-links"), "{name}: {told}");
        pipe(&dir, name);
        assert!(refused(&dir).contains("a named pipe"), "{name}: {}", refused(&dir));
    }
}

#[test]
fn a_git_file_leads_only_where_the_other_side_says_so_too() {
    let private = Dir::repository();
    let dir = Dir::empty();
    dir.write("file", "").write(".git", format!("gitdir: {}\n", private.join(".git").display()));
    assert!(refused(&dir).contains("outside of this repository"), "{}", refused(&dir));
    let followed = GitFacts::of(dir.path(), Elsewhere::Followed).unwrap();
    assert_eq!(followed.branch.as_deref(), Some("main"));

    let dir = Dir::repository();
    dir.write(".git/commondir", private.join(".git").display().to_string());
    assert!(refused(&dir).contains("commondir"), "{}", refused(&dir));
}

#[test]
fn a_nested_repository_that_leads_elsewhere_is_left_out() {
    let private = Dir::repository();
    let dir = Dir::repository();
    dir.write("a/.git", format!("gitdir: {}\n", private.join(".git").display()));
    fs::create_dir(dir.join("b")).unwrap();
    git(&dir.join("b"), &["init", "-q"]);
    dir.write("b/file", "").link("b/.git/MERGE_MSG", private.join("readme").to_str().unwrap());
    let (copy, report) = dir.stream();
    let foreign = |name: &str| (name.to_owned(), Reason::ForeignRepository);
    assert_eq!(reasons(&report), [foreign("a"), foreign("b")]);
    assert!(!copy.has("a/.git") && !copy.has("b/.git") && !copy.has("b/file"));
}

#[test]
fn nothing_of_a_repository_is_run() {
    let place = Dir::empty();
    let evil = format!("touch {}", place.join("ran").display());
    let dir = Dir::repository();
    for key in
        ["filter.x.clean", "filter.x.process", "core.fsmonitor", "diff.x.textconv", "diff.external", "core.pager"]
    {
        dir.git(&["config", key, &evil]);
    }
    dir.write(".git/info/attributes", "* filter=x diff=x\n").write("readme", "changed\n");
    let mut facts = GitFacts::of(dir.path(), Elsewhere::Refused).unwrap();
    facts.load_commit().unwrap();
    let _report = WorkingTree::open(dir.path(), Elsewhere::Refused).unwrap().stream(std::io::sink()).unwrap();
    assert!(!place.has("ran"));
}

#[test]
fn a_git_that_stands_still_is_ended() {
    let dir = Dir::repository();
    pipe(&dir, ".gitignore");
    let error = WorkingTree::open(dir.path(), Elsewhere::Refused).unwrap().stream(std::io::sink()).unwrap_err();
    assert!(matches!(error, CheckoutError::Git(GitError::StoodStill { .. })), "{error}");
}

/// git lists whatever name an index holds, of any length. No file is that deep, so nobody goes down there.
#[test]
fn a_name_of_an_index_that_is_longer_than_any_path_is_left_out() {
    let dir = Dir::repository();
    let name = [&b"src/".repeat(1 << 20)[..], b"lib.rs"].concat();
    // Version 2, one entry: a regular file, whose name ends at its zero, for its length does not fit.
    let mut index = [&b"DIRC"[..], &2_u32.to_be_bytes(), &1_u32.to_be_bytes(), &[0; 24]].concat();
    index.extend([&0o100_644_u32.to_be_bytes()[..], &[0; 12], &[0x11; 20], &0x0fff_u16.to_be_bytes(), &name].concat());
    index.extend(vec![0; 8 - (index.len() - 12) % 8]);
    // No digest: git takes that for one that was left out.
    index.extend([0; 20]);
    dir.write(".git/index", index);
    let (copy, report) = dir.stream();
    assert!(copy.has("readme") && copy.has("src/lib.rs"), "what is untracked is there");
    let told: Vec<Reason> = report.left_out.iter().map(|left| left.reason).collect();
    assert_eq!(told, [Reason::NoName]);
    let lines = report.lines();
    assert!(lines[0].starts_with("Left out: \"src/src/") && lines[0].ends_with("…: no name of a file in this tree"));
    assert!(lines[0].len() < 400, "{} bytes are shown of it", lines[0].len());
}
