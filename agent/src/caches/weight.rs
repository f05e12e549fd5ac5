//! What an archive is made of: where most of its bytes are, and whether it is the number of files that takes the time. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;

use navvy_archive::entry::{Entry, Kind};
use serde::Serialize;

/// A file below this costs about as much as an empty one.
pub const SMALL: u64 = 16 << 10;
/// Paths that are listed.
const TOLD: usize = 5;
/// A file with less than this part of everything counts as its directory's.
const SHARE: u64 = 100;

/// A path with much below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Heavy {
    /// Absolute.
    pub path: String,
    pub bytes: u64,
    pub files: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    bytes: u64,
    files: u64,
}

/// An archive's entries, added up.
#[derive(Debug, Default)]
pub struct Weights {
    /// Bytes of the whole, as its end tells.
    plain: u64,
    nodes: BTreeMap<Vec<u8>, Node>,
    pub bytes: u64,
    pub files: u64,
    /// Files below [`SMALL`].
    pub small: u64,
}

impl Weights {
    pub fn new(plain: u64) -> Self {
        Self { plain, ..Self::default() }
    }

    pub fn add(&mut self, entry: &Entry) {
        let Kind::File(content) = &entry.kind else { return };
        let size = content.stored;
        self.bytes += size;
        self.files += 1;
        self.small += u64::from(size < SMALL);
        let own = (size > self.plain / SHARE).then_some(entry.path.len());
        let slashes = entry.path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in slashes.chain(own) {
            let node = match self.nodes.get_mut(&entry.path[..end]) {
                Some(node) => node,
                None => self.nodes.entry(entry.path[..end].to_vec()).or_default(),
            };
            node.bytes += size;
            node.files += 1;
        }
    }

    /// Where the bytes are: a directory that has more than half of everything is shown by what is in it, if that says more.
    pub fn heaviest(&self) -> Vec<Heavy> {
        let mut found = self.below(b"");
        while let Some(at) = found.iter().position(|(_, node)| node.bytes > self.bytes / 2) {
            let below = self.below(&found[at].0);
            if below.iter().map(|(_, node)| node.bytes).sum::<u64>() <= found[at].1.bytes / 2 {
                break;
            }
            found.swap_remove(at);
            found.extend(below);
        }
        found.sort_by(|(a_path, a), (b_path, b)| (b.bytes, a_path).cmp(&(a.bytes, b_path)));
        let heavy = |(path, node): (Vec<u8>, Node)| Heavy {
            path: format!("/{}", String::from_utf8_lossy(&path)),
            bytes: node.bytes,
            files: node.files,
        };
        found.into_iter().take(TOLD).filter(|(_, node)| node.bytes > 0).map(heavy).collect()
    }

    /// What stands right below a directory.
    fn below(&self, directory: &[u8]) -> Vec<(Vec<u8>, Node)> {
        let prefix = if directory.is_empty() { Vec::new() } else { [directory, b"/"].concat() };
        let all = self.nodes.range::<[u8], _>((Bound::Included(prefix.as_slice()), Bound::Unbounded));
        let below = all.take_while(|(path, _)| path.starts_with(&prefix));
        let direct = below.filter(|(path, _)| path.len() > prefix.len() && !path[prefix.len()..].contains(&b'/'));
        direct.map(|(path, node)| (path.clone(), *node)).collect()
    }

    /// Is it their number that takes the time?
    pub fn is_many_small(&self) -> bool {
        self.files >= 1000 && self.small > self.files / 2
    }
}

#[cfg(test)]
mod tests {
    use navvy_archive::entry::{Content, Place, Time};

    use super::*;

    fn weights(files: &[(&str, u64)]) -> Weights {
        let mut weights = Weights::new(files.iter().map(|(_, size)| size).sum());
        for (path, size) in files {
            let content =
                Content { size: *size, stored: *size, sparse: false, digest: [0; 32], place: Place::default() };
            let (path, kind) = (path.as_bytes().to_vec(), Kind::File(content));
            weights.add(&Entry { path, mode: 0o644, mtime: Time::default(), uid: 0, gid: 0, kind });
        }
        weights
    }

    fn told(weights: &Weights) -> Vec<(String, u64, u64)> {
        weights.heaviest().into_iter().map(|heavy| (heavy.path, heavy.bytes, heavy.files)).collect()
    }

    #[test]
    fn what_everything_is_below_says_nothing() {
        let found = weights(&[
            ("home/u/.m2/a/x", 40),
            ("home/u/.m2/a/y", 30),
            ("home/u/.m2/b-c/z", 20),
            ("home/u/.m2/b/z", 60),
        ]);
        let wanted = [("/home/u/.m2/a", 70, 2), ("/home/u/.m2/b", 60, 1), ("/home/u/.m2/b-c", 20, 1)];
        assert_eq!(told(&found), wanted.map(|(path, bytes, files)| (path.to_owned(), bytes, files)));
    }

    #[test]
    fn one_large_file_is_told_itself_and_many_small_ones_as_their_directory() {
        let found = weights(&[("d/large", 1 << 30), ("d/other", 1 << 10)]);
        assert_eq!(told(&found), [("/d/large".to_owned(), 1 << 30, 1)]);
        let names: Vec<String> = (0..2000).map(|number| format!("d/many/{number}")).collect();
        let many = weights(&names.iter().map(|name| (name.as_str(), 10)).collect::<Vec<_>>());
        assert_eq!(told(&many), [("/d/many".to_owned(), 20_000, 2000)]);
        assert!(many.is_many_small() && !found.is_many_small());
        assert_eq!(told(&weights(&[])), []);
        assert_eq!(told(&weights(&[("empty", 0)])), []);
    }

    #[test]
    fn five_are_told() {
        let names: Vec<String> = (0..9).map(|number| format!("d{number}/f")).collect();
        let found = weights(&names.iter().map(|name| (name.as_str(), 10)).collect::<Vec<_>>());
        assert_eq!(found.heaviest().len(), 5);
    }
}
