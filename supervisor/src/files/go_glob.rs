//! Patterns as Go's `filepath.Glob` takes them: `*`, `?`, `[…]`, `\c`, within one name; nothing crosses a `/`.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Every path below `root` that fits, sorted, relative to it; the root itself is the empty one.
///
/// # Errors
/// Why it is no pattern.
pub fn find(root: &Path, pattern: &[u8]) -> Result<BTreeSet<Vec<u8>>, &'static str> {
    let parts: Vec<&[u8]> =
        pattern.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    for part in &parts {
        check(part)?;
    }
    let mut found = BTreeSet::from([Vec::new()]);
    for (depth, part) in parts.iter().enumerate() {
        let is_last = depth + 1 == parts.len();
        found = found.iter().flat_map(|path| below(root, path, part, is_last)).collect();
    }
    Ok(found)
}

/// The names in a directory that fit one part.
fn below(root: &Path, path: &[u8], part: &[u8], is_last: bool) -> Vec<Vec<u8>> {
    let directory = join(root, path);
    let with = |name: &[u8]| if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
    // A name that is written out may stand in a directory that cannot be listed.
    if let Some(name) = literal(part) {
        let is_there = join(&directory, &name).symlink_metadata().is_ok();
        return if is_there { vec![with(&name)] } else { Vec::new() };
    }
    // What cannot be read has no matches.
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let fitting = entries.filter(|entry| fits(part, entry.file_name().as_bytes()));
    let fitting = fitting.filter(|entry| is_last || entry.file_type().is_ok_and(|kind| !kind.is_file()));
    fitting.map(|entry| with(entry.file_name().as_bytes())).collect()
}

fn join(root: &Path, path: &[u8]) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path))
}

/// The name that a part without wild cards stands for.
fn literal(part: &[u8]) -> Option<Vec<u8>> {
    (!part.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))).then(|| part.to_vec())
}

fn check(part: &[u8]) -> Result<(), &'static str> {
    if part == b".." {
        return Err("`..` leads out of the root");
    }
    let mut rest = part;
    while !rest.is_empty() {
        rest = &rest[element(rest).ok_or("it is no pattern: a `[` or `\\` in it has no end")?.length..];
    }
    Ok(())
}

/// What stands at the beginning of a pattern.
struct Element<'a> {
    kind: Kind<'a>,
    length: usize,
}

enum Kind<'a> {
    Star,
    Any,
    /// What stands between the brackets, without `^`.
    Set {
        ranges: &'a [u8],
        negated: bool,
    },
    Byte(u8),
}

/// `None`: it has no end.
fn element(pattern: &[u8]) -> Option<Element<'_>> {
    let kind = match *pattern.first()? {
        b'*' => Kind::Star,
        b'?' => Kind::Any,
        b'\\' => return Some(Element { kind: Kind::Byte(*pattern.get(1)?), length: 2 }),
        b'[' => return set(pattern),
        byte => Kind::Byte(byte),
    };
    Some(Element { kind, length: 1 })
}

fn set(pattern: &[u8]) -> Option<Element<'_>> {
    let negated = pattern.get(1) == Some(&b'^');
    let start = 1 + usize::from(negated);
    let mut end = start;
    // One range at least, as in Go: `[]` is none.
    while end == start || *pattern.get(end)? != b']' {
        end += range(&pattern[end..])?.2;
    }
    Some(Element { kind: Kind::Set { ranges: &pattern[start..end], negated }, length: end + 1 })
}

/// Lowest and highest byte of the range at the beginning, and its length.
fn range(text: &[u8]) -> Option<(u8, u8, usize)> {
    let (low, low_length) = byte(text)?;
    if text.get(low_length) != Some(&b'-') {
        return Some((low, low, low_length));
    }
    let (high, high_length) = byte(&text[low_length + 1..])?;
    Some((low, high, low_length + 1 + high_length))
}

/// One byte of a range, maybe behind a backslash.
fn byte(text: &[u8]) -> Option<(u8, usize)> {
    match *text.first()? {
        b'\\' => Some((*text.get(1)?, 2)),
        b'-' | b']' => None,
        byte => Some((byte, 1)),
    }
}

fn holds(mut ranges: &[u8], wanted: u8) -> bool {
    while let Some((low, high, length)) = range(ranges) {
        if (low..=high).contains(&wanted) {
            return true;
        }
        ranges = &ranges[length..];
    }
    false
}

/// One part against one name. The last star takes a byte more wherever the rest does not fit.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    loop {
        let found = element(&pattern[p..]);
        let fitting = match (&found, name.get(n)) {
            (None, None) => return true,
            (Some(Element { kind: Kind::Star, .. }), _) => {
                (p, star) = (p + 1, Some((p + 1, n)));
                continue;
            }
            (Some(Element { kind, .. }), Some(byte)) => match kind {
                Kind::Set { ranges, negated } => holds(ranges, *byte) != *negated,
                Kind::Byte(wanted) => wanted == byte,
                Kind::Any | Kind::Star => true,
            },
            _ => false,
        };
        match (fitting, found, &mut star) {
            (true, Some(found), _) => (p, n) = (p + found.length, n + 1),
            (_, _, Some((behind, from))) if *from < name.len() => {
                *from += 1;
                (p, n) = (*behind, *from);
            }
            _ => return false,
        }
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
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), wanted, "{pattern} {name}");
        }
        for bad in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", ".."] {
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
            let found = find(root.path(), pattern.as_bytes()).unwrap();
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
