//! Patterns as Go's `filepath.Glob` takes them: `*`, `?`, `[…]`, `\c`, within one name; nothing crosses a `/`.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::glob::{Dialect, is_literal, matches};
use super::unread::Unread;

/// Every path below `root` that fits, sorted, relative to it; the root itself is the empty one.
///
/// # Errors
/// Why it is not a pattern.
pub fn find(root: &Path, pattern: &[u8], unread: &mut Unread) -> Result<BTreeSet<Vec<u8>>, &'static str> {
    let parts: Vec<&[u8]> =
        pattern.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    for part in &parts {
        check(part)?;
    }
    let mut found = BTreeSet::from([Vec::new()]);
    for (depth, part) in parts.iter().enumerate() {
        let is_last = depth + 1 == parts.len();
        found = found.iter().flat_map(|path| below(root, path, part, is_last, unread)).collect();
    }
    Ok(found)
}

/// The names in a directory that fit one part.
fn below(root: &Path, path: &[u8], part: &[u8], is_last: bool, unread: &mut Unread) -> Vec<Vec<u8>> {
    let directory = join(root, path);
    let with = |name: &[u8]| if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
    // A name that is written out may stand in a directory that cannot be listed.
    if is_literal(part) {
        return match join(&directory, part).symlink_metadata() {
            Ok(_) => vec![with(part)],
            Err(error) => {
                unread.note(&with(part), error);
                Vec::new()
            }
        };
    }
    let mut fitting = Vec::new();
    let mut look = || -> io::Result<()> {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches(part, name.as_bytes(), Dialect::Go) && (is_last || !entry.file_type()?.is_file()) {
                fitting.push(with(name.as_bytes()));
            }
        }
        Ok(())
    };
    if let Err(error) = look() {
        unread.note(path, error);
    }
    fitting
}

fn join(root: &Path, path: &[u8]) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path))
}

fn check(part: &[u8]) -> Result<(), &'static str> {
    if part == b".." {
        return Err("`..` leads out of the root");
    }
    let mut rest = part;
    while !rest.is_empty() {
        rest = &rest[element(rest).ok_or("it is not a pattern: a `[` or `\\` in it has no end")?..];
    }
    Ok(())
}

/// Length of what stands at the beginning of a pattern. `None`: it has no end.
fn element(pattern: &[u8]) -> Option<usize> {
    match *pattern.first()? {
        b'\\' => pattern.get(1).map(|_| 2),
        b'[' => set(pattern),
        _ => Some(1),
    }
}

fn set(pattern: &[u8]) -> Option<usize> {
    let start = 1 + usize::from(pattern.get(1) == Some(&b'^'));
    let mut end = start;
    // One range at least, as in Go: `[]` is not valid.
    while end == start || *pattern.get(end)? != b']' {
        end += range(&pattern[end..])?;
    }
    Some(end + 1)
}

fn range(text: &[u8]) -> Option<usize> {
    let low = byte(text)?;
    match text.get(low) {
        Some(b'-') => Some(low + 1 + byte(&text[low + 1..])?),
        _ => Some(low),
    }
}

/// One byte of a range, maybe behind a backslash.
fn byte(text: &[u8]) -> Option<usize> {
    match *text.first()? {
        b'\\' => text.get(1).map(|_| 2),
        b'-' | b']' => None,
        _ => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_gos_do() {
        // From the table of Go's own path/filepath tests.
        let table: [(&str, &str, bool); 26] = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*b*c*d*e*", "axbxcxdxexxx", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("[a-ζ]*", "α", true),
            ("[!a]", "!", true),
            ("[!a]", "b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[\\-x]", "a", false),
            ("*x", "xxx", true),
            ("?", "", false),
            ("*", ".hidden", true),
        ];
        for (pattern, name, wanted) in table {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes(), Dialect::Go), wanted, "{pattern} {name}");
            assert_eq!(check(pattern.as_bytes()), Ok(()), "{pattern}");
        }
        for bad in ["[]a]", "[^]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", ".."] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn stars_stay_within_a_name() {
        let root = tempfile::tempdir().unwrap();
        for path in ["a/x.rs", "a/b/y.rs", "c/x.txt", "file"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let find = |pattern: &str| {
            let found = find(root.path(), pattern.as_bytes(), &mut Unread::default()).unwrap();
            found.into_iter().map(|path| String::from_utf8(path).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(find("*"), ["a", "c", "file"]);
        assert_eq!(find("**"), ["a", "c", "file"]);
        assert_eq!(find("*/*.rs"), ["a/x.rs"]);
        assert_eq!(find("./a/b/"), ["a/b"]);
        assert_eq!(find("."), [""]);
        assert_eq!(find("none/*"), [] as [&str; 0]);
    }
}
