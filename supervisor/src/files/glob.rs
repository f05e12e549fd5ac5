//! Matching paths below a directory: `*`, `?`, `[a-z]`, `{a,b}`, and `**` across directories.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use navvy_protocol::supervisor::{Failure, Reply};

use super::data::Sender;
use super::unread::Unread;
use crate::failure;

/// More alternatives than this are no pattern that a person wrote.
const ALTERNATIVES_CAP: usize = 4096;

/// Unread places that are listed one by one.
const TOLD: usize = 50;

/// The result of a search.
#[derive(Debug, Default)]
pub struct Found {
    /// Relative to the root, or absolute where the pattern is.
    pub paths: BTreeSet<PathBuf>,
    /// What is there may match, too.
    pub unread: Unread,
}

/// Sends each matching path, sorted, ended by NUL.
pub fn send(root: &str, patterns: &[String], sender: &mut Sender<'_>) -> Result<Reply, Failure> {
    let mut all = Found::default();
    for pattern in patterns {
        let Found { mut paths, unread } = find(Path::new(root), pattern)?;
        all.paths.append(&mut paths);
        all.unread.append(unread);
    }
    write(&all.paths, sender).map_err(|error| failure::of(&error, "send the matching paths"))?;
    let mut unread = all.unread.into_all().map(|(path, error)| shown(&path, &error));
    let told = unread.by_ref().take(TOLD).collect();
    Ok(Reply::Found { unread: told, more_unread: unread.count() as u64 })
}

/// `tests/closed: permission denied`.
pub fn shown(path: &[u8], error: &io::Error) -> String {
    format!("{}: {}", String::from_utf8_lossy(path), failure::text(error))
}

/// Every path that matches the pattern.
///
/// # Errors
/// That the root itself cannot be read. What cannot be read below it is [`Found::unread`].
pub fn find(root: &Path, pattern: &str) -> Result<Found, Failure> {
    let mut found = Found::default();
    for alternative in alternatives(pattern.as_bytes())? {
        let searched = Search { root, found: &mut found }.run(&alternative);
        searched.map_err(|error| failure::of(&error, format_args!("look into {}", root.display())))?;
    }
    Ok(found)
}

fn write(found: &BTreeSet<PathBuf>, sender: &mut Sender<'_>) -> io::Result<()> {
    for path in found {
        sender.write_all(path.as_os_str().as_bytes())?;
        sender.write_all(&[0])?;
    }
    sender.finish()
}

/// Every pattern without braces that this one stands for.
fn alternatives(pattern: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
    let (mut done, mut open) = (Vec::new(), vec![pattern.to_vec()]);
    while let Some(next) = open.pop() {
        if done.len() + open.len() > ALTERNATIVES_CAP {
            return Err(failure::invalid(format!("pattern with more than {ALTERNATIVES_CAP} alternatives")));
        }
        match first_braces(&next) {
            None => done.push(next),
            Some((start, end, parts)) => {
                open.extend(parts.iter().map(|part| [&next[..start], part, &next[end + 1..]].concat()));
            }
        }
    }
    Ok(done)
}

/// Where the first `{…}` stands, and its parts.
fn first_braces(pattern: &[u8]) -> Option<(usize, usize, Vec<Vec<u8>>)> {
    let start = pattern.iter().position(|byte| *byte == b'{')?;
    let (mut depth, mut parts, mut part) = (0, Vec::new(), Vec::new());
    for (index, byte) in pattern.iter().enumerate().skip(start) {
        match byte {
            b'{' => {
                depth += 1;
                if depth == 1 {
                    continue;
                }
            }
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    parts.push(part);
                    return Some((start, index, parts));
                }
            }
            b',' if depth == 1 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(*byte);
    }
    None
}

/// A place on disk and the part of the pattern that is still to be matched below it.
struct Place<'a> {
    /// The path as it is reported: relative to the root, or absolute for an absolute pattern.
    path: PathBuf,
    rest: &'a [&'a [u8]],
}

struct Search<'a> {
    root: &'a Path,
    found: &'a mut Found,
}

impl Search<'_> {
    /// A queue instead of recursion: the job decides how deep its directories are. An error is the root's.
    fn run(&mut self, pattern: &[u8]) -> io::Result<()> {
        let parts: Vec<&[u8]> =
            pattern.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
        let start = match pattern.starts_with(b"/") {
            true => PathBuf::from("/"),
            false => {
                self.root.metadata()?;
                PathBuf::new()
            }
        };
        let mut queue = vec![Place { path: start, rest: &parts }];
        while let Some(place) = queue.pop() {
            match place.rest.split_first() {
                None => drop(self.found.paths.insert(place.path)),
                Some((&b"**", rest)) => self.anywhere(place, rest, &mut queue)?,
                Some((part, rest)) if is_literal(part) => {
                    let path = place.path.join(OsStr::from_bytes(part));
                    match self.root.join(&path).symlink_metadata() {
                        Ok(_) => queue.push(Place { path, rest }),
                        Err(error) => self.found.unread.note(path.as_os_str().as_bytes(), error),
                    }
                }
                Some((part, rest)) => {
                    let wanted = |name: &[u8], _| matches(part, name, Dialect::Shell);
                    self.below(&place.path, wanted, |path| queue.push(Place { path, rest }))?;
                }
            }
        }
        Ok(())
    }

    /// `**`: here, and in every directory below; at the end of a pattern, everything below.
    fn anywhere<'a>(&mut self, place: Place<'a>, rest: &'a [&'a [u8]], queue: &mut Vec<Place<'a>>) -> io::Result<()> {
        let whole = place.rest;
        if rest.is_empty() {
            self.below(&place.path, |_, _| true, |path| queue.push(Place { path, rest }))?;
        }
        self.below(&place.path, |_, is_directory| is_directory, |path| queue.push(Place { path, rest: whole }))?;
        if !rest.is_empty() {
            queue.push(Place { path: place.path, rest });
        }
        Ok(())
    }

    fn below(
        &mut self,
        path: &Path,
        wanted: impl Fn(&[u8], bool) -> bool,
        mut then: impl FnMut(PathBuf),
    ) -> io::Result<()> {
        let entries = match std::fs::read_dir(self.root.join(path)) {
            Ok(entries) => entries,
            // If the root itself cannot be read, nothing can be known.
            Err(error) if path.as_os_str().is_empty() => return Err(error),
            Err(error) => {
                self.found.unread.note(path.as_os_str().as_bytes(), error);
                return Ok(());
            }
        };
        for entry in entries {
            let looked = entry.and_then(|entry| Ok((entry.file_type()?.is_dir(), entry.file_name())));
            match looked {
                Ok((is_directory, name)) if wanted(name.as_bytes(), is_directory) => then(path.join(name)),
                Ok(_) => {}
                Err(error) => self.found.unread.note(path.as_os_str().as_bytes(), error),
            }
        }
        Ok(())
    }
}

/// Has no wild card in it.
pub fn is_literal(part: &[u8]) -> bool {
    !part.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
}

/// Whose patterns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `[!…]` is `[^…]`, and a `[` that nothing closes is itself.
    Shell,
    /// `!` in brackets is itself. The caller has checked that everything is closed.
    Go,
}

/// One component against one name. The last star takes a byte more wherever the rest does not fit.
pub fn matches(pattern: &[u8], name: &[u8], dialect: Dialect) -> bool {
    let (mut p, mut n, mut retry) = (0, 0, None);
    while n < name.len() {
        match one(&pattern[p..], &name[n..], dialect) {
            Some((0, _)) => retry = Some((p, n)),
            Some((length, taken)) => {
                (p, n) = (p + length, n + taken);
                continue;
            }
            None => match &mut retry {
                None => return false,
                Some((star, from)) => {
                    *from += 1;
                    (p, n) = (*star, *from);
                }
            },
        }
        p += usize::from(pattern.get(p) == Some(&b'*'));
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// How much of the pattern takes how much of the name, which is not empty: 0 of it for a star. `None`: no match.
fn one(pattern: &[u8], name: &[u8], dialect: Dialect) -> Option<(usize, usize)> {
    let is = |wanted: u8, length: usize| (wanted == name[0]).then_some((length, 1));
    match pattern.first()? {
        b'*' => Some((0, 0)),
        b'?' => Some((1, character(name))),
        b'\\' if pattern.len() > 1 => is(pattern[1], 2),
        b'[' => match set(pattern, name[0], dialect) {
            Some((true, length)) => Some((length, 1)),
            Some((false, _)) => None,
            None => is(b'[', 1),
        },
        first => is(*first, 1),
    }
}

/// Bytes of the character at the beginning; 1 for what is not UTF-8.
fn character(name: &[u8]) -> usize {
    let whole = |length: &usize| name.get(..*length).is_some_and(|bytes| std::str::from_utf8(bytes).is_ok());
    (1..=4).find(whole).unwrap_or(1)
}

/// `[…]`: whether it holds the byte, and its length. `None` when it never closes.
fn set(pattern: &[u8], byte: u8, dialect: Dialect) -> Option<(bool, usize)> {
    let negated = match pattern.get(1) {
        Some(b'^') => true,
        Some(b'!') => dialect == Dialect::Shell,
        _ => false,
    };
    let start = 1 + usize::from(negated);
    let (mut index, mut holds) = (start, false);
    loop {
        if *pattern.get(index)? == b']' && index > start {
            return Some((holds != negated, index + 1));
        }
        let (low, behind) = member(pattern, index)?;
        let is_range = pattern.get(behind) == Some(&b'-') && pattern.get(behind + 1).is_some_and(|high| *high != b']');
        let (high, behind) = if is_range { member(pattern, behind + 1)? } else { (low, behind) };
        holds |= (low..=high).contains(&byte);
        index = behind;
    }
}

/// One byte between brackets, maybe behind a backslash, and where the next one stands.
fn member(pattern: &[u8], index: usize) -> Option<(u8, usize)> {
    match *pattern.get(index)? {
        b'\\' => Some((*pattern.get(index + 1)?, index + 2)),
        byte => Some((byte, index + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_match_names() {
        let table: [(&str, &str, bool); 26] = [
            ("*", "", true),
            ("*", ".hidden", true),
            ("*.rs", "main.rs", true),
            ("*.rs", "main.rss", false),
            ("a*b*c", "a__b_b_c", true),
            ("a*b*c", "a__b_b_d", false),
            ("?", "x", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[", "[", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("**", "any", true),
            ("*a", "aaaa", true),
            ("[^a]", "b", true),
            ("[\\]x]", "]", true),
            ("[a\\-c]", "b", false),
            ("?.txt", "é.txt", true),
            ("??.txt", "é.txt", false),
            ("*?", "é", true),
            ("[a-]", "-", true),
            ("[a-]", "b", false),
            ("\\", "\\", true),
            ("\\", "x", false),
        ];
        for (pattern, name, wanted) in table {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes(), Dialect::Shell), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn braces_are_all_their_alternatives() {
        let all = |pattern: &str| {
            let mut all: Vec<String> =
                alternatives(pattern.as_bytes()).unwrap().into_iter().map(|a| String::from_utf8(a).unwrap()).collect();
            all.sort();
            all
        };
        assert_eq!(all("a{b,c{d,e}}f"), ["abf", "acdf", "acef"]);
        assert_eq!(all("{a,b}{c,d}"), ["ac", "ad", "bc", "bd"]);
        assert_eq!(all("{open"), ["{open"]);
        assert!(alternatives("{a,b}".repeat(20).as_bytes()).is_err());
    }

    #[test]
    fn paths_are_found_across_directories() {
        let root = tempfile::tempdir().unwrap();
        for path in ["a/x.rs", "a/b/y.rs", "a/b/.z.rs", "c/x.txt"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink(root.path(), root.path().join("c/loop")).unwrap();
        let find = |pattern: &str| {
            let Found { paths, unread } = find(root.path(), pattern).unwrap();
            assert_eq!(unread.into_all().len(), 0);
            paths.into_iter().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(find("**/*.rs"), ["a/b/.z.rs", "a/b/y.rs", "a/x.rs"]);
        assert_eq!(find("a/*.rs"), ["a/x.rs"]);
        assert_eq!(find("a/**"), ["a/b", "a/b/.z.rs", "a/b/y.rs", "a/x.rs"]);
        assert_eq!(find("c/x.txt"), ["c/x.txt"]);
        assert_eq!(find("c/none"), [] as [&str; 0]);
        assert_eq!(find("*/x.*"), ["a/x.rs", "c/x.txt"]);
        assert_eq!(find("*/x.rs/*"), [] as [&str; 0], "a file has nothing below it");
    }

    #[test]
    fn a_root_that_is_not_there_is_no_empty_one() {
        let root = tempfile::tempdir().unwrap();
        for pattern in ["*", "**/x", "x"] {
            for missing in [root.path().join("none"), PathBuf::new()] {
                assert!(find(&missing, pattern).is_err(), "{pattern} in {missing:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_looked_at_is_told() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("itself", root.path().join("itself")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.path().join("dangling")).unwrap();
        for (pattern, place) in [("*/x", "itself/x"), ("itself/x", "itself/x"), ("itself/**", "itself")] {
            let found = find(root.path(), pattern).unwrap();
            let unread: Vec<Vec<u8>> = found.unread.into_all().map(|(path, _)| path).collect();
            assert_eq!((found.paths.len(), unread), (0, vec![place.as_bytes().to_vec()]), "{pattern}");
        }
    }
}
