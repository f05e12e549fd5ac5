//! Whose repository it is. As git does, we take nothing from a repository of another user, unless the user's own
//! settings say that its directory is safe.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::CheckoutError;
use super::git::Place;
use super::repository::Repository;

/// # Errors
/// Its working tree or git directory is another user's.
pub(super) fn check(repository: &Repository) -> Result<(), CheckoutError> {
    let Some((path, owner)) = [repository.top.as_path(), repository.git_dir.path(), repository.common_dir.path()]
        .into_iter()
        .find_map(|path| Some((path, foreign_owner(path)?)))
    else {
        return Ok(());
    };
    let place = Place { top: &repository.top, git_dir: None, settings: &[], index: 0 };
    let safe = place.query(&["config", "-z", "--get-all", "safe.directory"], None)?.unwrap_or_default();
    if says_safe(&safe, repository.top.as_os_str().as_encoded_bytes()) {
        return Ok(());
    }
    Err(CheckoutError::NotYours { path: path.to_owned(), top: repository.top.clone(), owner })
}

/// Whose it is, if not ours. Root by way of sudo is also who called sudo.
fn foreign_owner(path: &Path) -> Option<u32> {
    let owner = fs::metadata(path).ok()?.uid();
    let we = rustix::process::geteuid();
    let called = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()).filter(|_| we.is_root());
    (owner != we.as_raw() && Some(owner) != called).then_some(owner)
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
    use super::*;

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
