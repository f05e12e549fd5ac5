//! Workspace layers put one over the other, by what their manifests say, before a byte of them is fetched. Pure.
//!
//! ```text
//! layers, last to first ─▶ each entry: who has this path later? ─┬─ a layer that came after it: passed over
//!                                                                └─ one beside it: a conflict
//! ```
//!
//! Paths are known by 128 bits of their SHA-256: a workspace may have a million of them.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

/// Entries of all layers together.
pub const ENTRIES_CAP: u64 = 2_000_000;

/// Who made a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    pub job: String,
    /// Its place among the upstream jobs.
    pub index: usize,
    /// Those that it comes after.
    pub after: Vec<usize>,
    pub node: u32,
}

impl Maker {
    /// Neither can have seen what the other did.
    pub fn is_beside(&self, other: &Self) -> bool {
        if self.index == other.index {
            return self.node != other.node;
        }
        !self.after.contains(&other.index) && !other.after.contains(&self.index)
    }

    fn shown(&self, other: &Self) -> String {
        if self.job == other.job { format!("{} node {}", self.job, self.node) } else { self.job.clone() }
    }
}

/// What of a layer's entry counts here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    Directory,
    Other,
    /// And what it is another name of.
    HardLink(&'a [u8]),
}

/// A path that two layers have that know nothing of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub path: Vec<u8>,
    pub makers: [String; 2],
    /// The earlier layer's.
    pub layer: usize,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    layer: u32,
    is_directory: bool,
    /// Another layer with this path: its index and one; 0 for none.
    other: u32,
}

/// Gathers layers, the last one first.
pub struct Stack<'a> {
    makers: &'a [Maker],
    newest: HashMap<u128, u32>,
    seen: Vec<Seen>,
    pub conflicts: Vec<Conflict>,
    /// Beyond those that are kept.
    pub more_conflicts: usize,
}

/// Conflicts that are named one by one.
const CONFLICTS_TOLD: usize = 100;

/// One layer, entry by entry.
pub struct Adding<'a, 'b> {
    stack: &'b mut Stack<'a>,
    layer: usize,
    passed_over: Vec<Vec<u8>>,
    linked: Vec<Vec<u8>>,
    parent: Vec<u8>,
}

impl<'a> Stack<'a> {
    pub fn new(makers: &'a [Maker]) -> Self {
        Self { makers, newest: HashMap::new(), seen: Vec::new(), conflicts: Vec::new(), more_conflicts: 0 }
    }

    pub fn entries(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Layers are added from the last to the first.
    pub fn add(&mut self, layer: usize) -> Adding<'a, '_> {
        Adding { stack: self, layer, passed_over: Vec::new(), linked: Vec::new(), parent: Vec::new() }
    }

    fn others(&self, path: &[u8]) -> impl Iterator<Item = Seen> + use<'_, 'a> {
        let first = self.newest.get(&short(path)).map(|index| self.seen[*index as usize]);
        std::iter::successors(first, |seen| (seen.other > 0).then(|| self.seen[seen.other as usize - 1]))
    }

    fn remember(&mut self, layer: usize, path: &[u8], is_directory: bool) {
        let index = self.seen.len() as u32;
        let slot = self.newest.entry(short(path)).or_insert(u32::MAX);
        let other = if *slot == u32::MAX { 0 } else { *slot + 1 };
        if other > 0 && self.seen[*slot as usize].layer as usize == layer {
            return;
        }
        *slot = index;
        self.seen.push(Seen { layer: layer as u32, is_directory, other });
    }

    fn conflict(&mut self, path: &[u8], layer: usize, other: usize) {
        if self.conflicts.last().is_some_and(|last| last.path == path) {
            return;
        }
        if self.conflicts.len() == CONFLICTS_TOLD {
            self.more_conflicts += 1;
            return;
        }
        let (one, two) = (&self.makers[layer], &self.makers[other]);
        self.conflicts.push(Conflict { path: path.to_vec(), makers: [one.shown(two), two.shown(one)], layer });
    }
}

impl Adding<'_, '_> {
    pub fn entry(&mut self, path: &[u8], kind: Kind<'_>) {
        let is_directory = kind == Kind::Directory;
        // Something of another layer that is no directory, where one must be for this entry.
        let above = ends(path).flat_map(|end| self.stack.others(&path[..end])).filter(|seen| !seen.is_directory);
        let here = self.stack.others(path).filter(|seen| !(is_directory && seen.is_directory));
        let in_the_way: Vec<Seen> = above.chain(here).filter(|seen| seen.layer as usize != self.layer).collect();
        let is_covered = !in_the_way.is_empty();
        in_the_way.into_iter().for_each(|seen| self.look_at(path, seen));
        if is_covered {
            self.passed_over.push(path.to_vec());
        } else if let Kind::HardLink(target) = kind {
            self.linked.push(target.to_vec());
        }
        self.remember(path, is_directory);
    }

    fn look_at(&mut self, path: &[u8], seen: Seen) {
        let other = seen.layer as usize;
        if self.stack.makers[self.layer].is_beside(&self.stack.makers[other]) {
            self.stack.conflict(path, self.layer, other);
        }
    }

    fn remember(&mut self, path: &[u8], is_directory: bool) {
        self.stack.remember(self.layer, path, is_directory);
        let parent = path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |slash| &path[..slash]);
        if parent != self.parent {
            for end in ends(path) {
                self.stack.remember(self.layer, &path[..end], true);
            }
            self.parent = parent.to_vec();
        }
    }

    /// Paths of this layer that a later one has, too, each ended by NUL. What another name of the same file needs stays.
    pub fn finish(mut self) -> Vec<u8> {
        self.linked.sort_unstable();
        let is_free = |path: &Vec<u8>| self.linked.binary_search(path).is_err();
        self.passed_over.iter().filter(|path| is_free(path)).flat_map(|path| [&path[..], b"\0"].concat()).collect()
    }
}

/// Where the directories above end in a path.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at)
}

fn short(path: &[u8]) -> u128 {
    let digest: [u8; 32] = Sha256::digest(path).into();
    digest.first_chunk().map_or(0, |half| u128::from_le_bytes(*half))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker(job: &str, index: usize, after: &[usize], node: u32) -> Maker {
        Maker { job: job.into(), index, after: after.to_vec(), node }
    }

    /// Layers first to last, a path that ends in `/` is a directory. What is passed over of each, and the conflicts.
    fn stacked(makers: &[Maker], layers: &[&[&str]]) -> (Vec<String>, Vec<String>) {
        let mut stack = Stack::new(makers);
        let mut passed_over: Vec<String> = Vec::new();
        for (layer, paths) in layers.iter().enumerate().rev() {
            let mut adding = stack.add(layer);
            for path in *paths {
                match path.split_once('=') {
                    Some((path, target)) => adding.entry(path.as_bytes(), Kind::HardLink(target.as_bytes())),
                    None if path.ends_with('/') => adding.entry(path.trim_matches('/').as_bytes(), Kind::Directory),
                    None => adding.entry(path.as_bytes(), Kind::Other),
                }
            }
            passed_over.insert(0, String::from_utf8(adding.finish()).unwrap().replace('\0', " "));
        }
        let shown = |it: &Conflict| format!("{} {}", String::from_utf8_lossy(&it.path), it.makers.join(" "));
        let conflicts = stack.conflicts.iter().map(shown).collect();
        (passed_over, conflicts)
    }

    #[test]
    fn of_layers_that_follow_each_other_the_last_one_counts() {
        let makers = [maker("a", 0, &[], 0), maker("b", 1, &[0], 0), maker("b", 1, &[0], 0)];
        let layers: [&[&str]; 3] = [&["d/", "d/x", "d/y", "z"], &["d/", "d/x"], &["d/", "d/x", "z"]];
        assert_eq!(stacked(&makers, &layers), (vec!["d/x z ".into(), "d/x ".into(), String::new()], vec![]));
    }

    #[test]
    fn a_file_over_a_directory_and_the_other_way_round() {
        let makers = [maker("a", 0, &[], 0), maker("b", 1, &[0], 0)];
        let over = |first: &[&str], second: &[&str]| stacked(&makers, &[first, second]).0[0].clone();
        assert_eq!(over(&["d/", "d/x"], &["d"]), "d d/x ");
        assert_eq!(over(&["d"], &["d/", "d/x"]), "d ");
        assert_eq!(over(&["d"], &["d/x"]), "d ", "directories that only their content tells of");
        assert_eq!(over(&["d/e/x"], &["d"]), "d/e/x ");
        assert_eq!(over(&["file", "name=file"], &["file"]), "", "its other name needs it");
        assert_eq!(over(&["file", "name=file"], &["file", "name"]), "file name ");
    }

    #[test]
    fn layers_beside_each_other_must_not_have_one_file() {
        let makers =
            [maker("a", 0, &[], 0), maker("l", 1, &[0], 0), maker("r", 2, &[0], 0), maker("z", 3, &[0, 1, 2], 0)];
        let layers: [&[&str]; 4] = [&["x"], &["d/", "x", "d/l"], &["d/", "x", "d/r"], &["x"]];
        assert_eq!(stacked(&makers, &layers).1, ["x l r"]);
        let nodes = [maker("a", 0, &[], 0), maker("a", 0, &[], 1)];
        assert_eq!(stacked(&nodes, &[&["x"], &["x", "y"]]).1, ["x a node 0 a node 1"]);
        assert_eq!(stacked(&nodes, &[&["d/x"], &["d"]]).1, ["d/x a node 0 a node 1"]);
    }
}
