//! Whose repository it is. As git does, we take nothing from a repository of another user, unless the user's own
//! settings say that its directory is safe.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::CheckoutError;
use super::git::Place;
use super::repository::Repository;

/// # Errors
/// Its working tree or git directory is another user's, or cannot be looked at.
pub(super) fn check(repository: &Repository) -> Result<(), CheckoutError> {
    let Some((path, owner)) = first_foreign(repository)? else { return Ok(()) };
    let place = Place { top: &repository.top, git_dir: None, settings: &[], index: 0 };
    let safe = place.query(&["config", "-z", "--get-all", "safe.directory"], None)?.unwrap_or_default();
    if says_safe(&safe, repository.top.as_os_str().as_encoded_bytes()) {
        return Ok(());
    }
    Err(CheckoutError::NotYours { path: path.to_owned(), top: repository.top.clone(), owner })
}

/// The first of its directories that is another user's, and that user's id.
fn first_foreign(repository: &Repository) -> Result<Option<(&Path, u32)>, CheckoutError> {
    for path in [repository.top.as_path(), repository.git_dir.path(), repository.common_dir.path()] {
        if let Some(owner) = foreign_owner(path, &[]).map_err(CheckoutError::read(path))? {
            return Ok(Some((path, owner)));
        }
    }
    Ok(None)
}

/// Whose something is, if it is not this user's: the other user's id. Root by way of sudo is also who called sudo; who is
/// in `also` counts as this user, too. A link has two owners: who made it chose where it leads. One of root's is as good as our own: root
/// could put anything there.
///
/// # Errors
/// It cannot be looked at: then nobody knows whose it is.
pub fn foreign_owner(path: &Path, also: &[u32]) -> io::Result<Option<u32>> {
    let (named, meant) = (fs::symlink_metadata(path)?, fs::metadata(path)?.uid());
    let we = rustix::process::geteuid();
    let called: Option<u32> = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()).filter(|_| we.is_root());
    let is_ours = |owner: u32| owner == we.as_raw() || Some(owner) == called || also.contains(&owner);
    let linked = (named.is_symlink() && named.uid() != 0).then_some(named.uid());
    Ok(linked.into_iter().chain([meant]).find(|owner| !is_ours(*owner)))
}

/// An empty value takes back what was said before it.
fn says_safe(values: &[u8], top: &[u8]) -> bool {
    let values = values.strip_suffix(b"\0").unwrap_or(values);
    values.split(|byte| *byte == 0).fold(false, |safe, value| match value {
        b"" => false,
        b"*" => true,
        value => safe || value == top || value.strip_suffix(b"/*").is_some_and(|above| is_below(top, above)),
    })
}

fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{lchown, symlink};

    use super::*;
    use crate::Elsewhere;

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_ours() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        fs::write(at("file"), "").unwrap();
        symlink("round", at("round")).unwrap();
        assert_eq!(foreign_owner(&at("file"), &[]).unwrap(), None);
        for name in ["none", "round", "round/below", "file/below"] {
            assert!(foreign_owner(&at(name), &[]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_repository_whose_owner_nobody_knows_is_refused() {
        let top = tempfile::tempdir().unwrap();
        for directory in [".git/objects", ".git/refs"] {
            fs::create_dir_all(top.path().join(directory)).unwrap();
        }
        fs::write(top.path().join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        let repository = Repository::at(top.path(), Elsewhere::Refused).unwrap().unwrap();
        check(&repository).unwrap();
        fs::remove_dir_all(top.path().join(".git")).unwrap();
        assert!(matches!(check(&repository), Err(CheckoutError::Read { .. })));
    }

    #[test]
    fn a_link_is_also_whose_it_leads_to() {
        // Nobody else may give files away.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        fs::write(at("ours"), "").unwrap();
        fs::write(at("theirs"), "").unwrap();
        symlink("theirs", at("our link")).unwrap();
        symlink("ours", at("their link")).unwrap();
        lchown(at("theirs"), Some(4711), None).unwrap();
        lchown(at("their link"), Some(4712), None).unwrap();
        let owner = |name: &str, also: &[u32]| foreign_owner(&at(name), also).unwrap();
        assert_eq!((owner("theirs", &[]), owner("theirs", &[4711])), (Some(4711), None));
        assert_eq!((owner("our link", &[]), owner("our link", &[4711])), (Some(4711), None));
        assert_eq!((owner("their link", &[4711]), owner("their link", &[4712])), (Some(4712), None));
    }

    #[test]
    fn a_directory_is_safe_if_the_user_says_so() {
        assert!(says_safe(b"/x\0/a/b\0", b"/a/b"));
        assert!(says_safe(b"*\0", b"/a/b"));
        assert!(says_safe(b"/a/*\0", b"/a/b"));
        for values in [&b""[..], b"*\0\0", b"/a\0", b"/a/bc\0", b"/a/b/*\0"] {
            assert!(!says_safe(values, b"/a/b"), "{}", String::from_utf8_lossy(values));
        }
    }
}
