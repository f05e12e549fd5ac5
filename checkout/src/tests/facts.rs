//! Facts about directories.

use super::*;
use crate::GitFacts;

fn of(dir: &Dir) -> GitFacts {
    GitFacts::of(dir.path(), Elsewhere::Refused).unwrap()
}

#[test]
fn of_a_branch_with_an_origin() {
    let host = Dir::repository();
    host.git(&["remote", "add", "origin", "https://me:TOKEN@github.com/acme/shop.git"]);
    let first = host.git(&["rev-parse", "HEAD"]).trim().to_owned();
    host.git(&["update-ref", "refs/remotes/origin/feature/x", "HEAD"]);
    host.git(&["update-ref", "refs/remotes/origin/trunk", "HEAD"]);
    host.git(&["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk"]);
    host.git(&["checkout", "-q", "-b", "feature/x"]);
    assert_eq!(of(&host).base_revision, None);
    host.write("a", "a\n").git(&["add", "a"]);
    host.git(&["commit", "-q", "-m", "Subject: x", "-m", "Body\n\nof two"]);
    for pack in [false, true] {
        if pack {
            host.git(&["pack-refs", "--all"]);
        }
        let mut facts = GitFacts::of(&host.join("src"), Elsewhere::Refused).unwrap();
        assert_eq!(facts.top, host.path().canonicalize().unwrap());
        assert_eq!(facts.head.as_deref(), Some(host.git(&["rev-parse", "HEAD"]).trim()));
        assert_eq!(facts.branch.as_deref(), Some("feature/x"));
        assert_eq!(facts.default_branch.as_deref(), Some("trunk"));
        assert_eq!(facts.base_revision.as_ref(), Some(&first));
        assert_eq!(facts.origin.as_ref().unwrap().url, "https://github.com/acme/shop.git");
        assert_eq!((facts.repo_owner().as_str(), facts.repo_name().as_str()), ("acme", "shop"));
        facts.load_mentioned("version: 2.1").unwrap();
        assert_eq!(facts.commit, None);
        facts.load_mentioned("<< pipeline.git.commit.subject >>").unwrap();
        let commit = facts.commit.unwrap();
        assert_eq!((commit.subject.as_str(), commit.body.as_str()), ("Subject: x", "Body\n\nof two"));
        assert_eq!((commit.author_name.as_str(), commit.author_email.as_str()), ("Ada", "ada@example.com"));
    }
}

#[test]
fn of_a_detached_head() {
    let host = Dir::repository();
    host.git(&["tag", "v1.9"]);
    host.git(&["checkout", "-q", "--detach"]);
    let facts = of(&host);
    // A tag is only what the user names.
    assert_eq!((facts.branch.clone(), facts.tag.clone()), (None, None));
    assert_eq!(facts.default_branch.as_deref(), Some("main"));
}

#[test]
fn before_the_first_commit_and_without_git() {
    let host = Dir::empty();
    let facts = of(&host);
    let name = host.path().file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!((facts.is_repo, facts.repo_name()), (false, name));
    host.git(&["init", "-q", "-b", "trunk"]);
    let mut facts = of(&host);
    facts.load_commit().unwrap();
    assert_eq!((facts.is_repo, facts.head, facts.branch.as_deref()), (true, None, Some("trunk")));
}

#[test]
fn of_a_linked_worktree() {
    let host = Dir::repository();
    let place = Dir::empty();
    host.git(&["worktree", "add", "-q", "-b", "side", place.join("linked").to_str().unwrap()]);
    let facts = GitFacts::of(&place.join("linked"), Elsewhere::Refused).unwrap();
    assert_eq!(facts.branch.as_deref(), Some("side"));
    assert_eq!(facts.head, of(&host).head);
}
