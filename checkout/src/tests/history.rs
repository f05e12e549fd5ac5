//! What became of a file, told by real repositories.

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::history::{Change, FileHistory, is_ignored, since};

const LOCK: &str = "a dir/lock file";

fn history(dir: &Dir, content: &str, revision: &str) -> FileHistory {
    since(dir.path(), Elsewhere::Refused, LOCK, &Sha256::digest(content).into(), Timestamp::UNIX_EPOCH, revision)
        .unwrap()
}

fn subjects(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|change| change.subject.as_str()).collect()
}

#[test]
fn the_commit_that_had_the_content_and_those_since() {
    let dir = Dir::repository();
    dir.write(LOCK, "one\ntwo\n").commit("lock");
    dir.write("readme", "other\n").commit("beside");
    dir.write(LOCK, "one\nzwei\ndrei\n").commit("more: é \"quoted\"");
    let found = history(&dir, "one\ntwo\n", "");
    assert_eq!(found.then.as_ref().map(|then| then.subject.as_str()), Some("lock"));
    assert_eq!(subjects(&found.since), ["more: é \"quoted\""]);
    assert_eq!((found.lines, found.is_uncommitted, found.is_elsewhere), (Some((2, 1)), false, false));
    assert_eq!(found.since[0].id, dir.git(&["rev-parse", "HEAD"]).trim());
    assert!(found.since[0].id.starts_with(&found.since[0].short) && found.since[0].date.len() == 10);

    // Changed beside all commits: HEAD has what is looked for, and nothing came since.
    dir.write(LOCK, "one\nzwei\n");
    let found = history(&dir, "one\nzwei\ndrei\n", "");
    assert_eq!((subjects(&found.since), found.lines, found.is_uncommitted), (vec![], Some((0, 1)), true));
}

#[test]
fn content_that_came_again_is_found_at_its_newest_commit_and_beyond_the_first_commits() {
    let dir = Dir::repository();
    for number in [0, 1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10] {
        dir.write(LOCK, format!("{number}\n")).commit(&format!("number {number}"));
    }
    let found = history(&dir, "0\n", "");
    assert_eq!(found.since.len(), 9);
    assert_eq!(found.since.last().map(|change| change.subject.as_str()), Some("number 2"));
}

#[test]
fn content_of_another_branch_is_found_by_the_commit_it_was_saved_at() {
    let dir = Dir::repository();
    dir.write(LOCK, "main\n").commit("main");
    dir.git(&["checkout", "-q", "-b", "other"]);
    dir.write(LOCK, "other\n").commit("other");
    dir.write("readme", "beside\n").commit("beside");
    let revision = dir.git(&["rev-parse", "HEAD"]).trim().to_owned();
    dir.git(&["checkout", "-q", "main"]);
    let found = history(&dir, "other\n", &revision);
    assert_eq!(found.then.map(|then| then.subject), Some("other".to_owned()));
    assert!(found.is_elsewhere);
    assert_eq!(found.lines, Some((1, 1)));
    // Nobody had it; what is no commit's name is not handed to git.
    for revision in [revision.as_str(), "", "--output=x", &"0".repeat(40)] {
        let found = history(&dir, "nobody's\n", revision);
        assert_eq!((found.then, found.is_elsewhere, found.lines), (None, false, None));
        assert_eq!(subjects(&found.since), ["main"], "by time");
    }
    let later = since(dir.path(), Elsewhere::Refused, LOCK, &[0; 32], Timestamp::MAX, "").unwrap();
    assert_eq!(subjects(&later.since), [""; 0]);
}

#[test]
fn files_that_git_does_not_know_and_repositories_without_a_commit() {
    let dir = Dir::empty();
    dir.git(&["init", "-q", "-b", "main"]);
    dir.write(LOCK, "x\n").write(".gitignore", "ignored\n").write("ignored", "").write("-n", "");
    let found = history(&dir, "x\n", "");
    assert_eq!(found, FileHistory { is_uncommitted: true, ..FileHistory::default() });
    assert_eq!(
        ["ignored", LOCK, "-n"].map(|file| is_ignored(dir.path(), Elsewhere::Refused, file).unwrap()),
        [true, false, false]
    );
}
