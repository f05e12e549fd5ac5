//! Directories that are not there yet: filled under a name of ours beside their place, and renamed when everything in them
//! is whole.
//!
//! ```text
//! entry ─▶ place: a/b/c ─▶ is a/b there? ─┬─ yes ────────────────────────▶ spot: a/b/c, by a name beside it and a rename
//!                                         └─ no, a neither ─▶ .navvy-1-0 ─▶ spot: .navvy-1-0/b/c, at once
//!                                                             │ at the end
//!                                                             ├─ all is well ─▶ renamed to a
//!                                                             └─ it is not ───▶ removed
//! ```
//!
//! So a tree that was missing comes whole or not at all, and its files need no rename of their own. Where a directory cannot
//! be made beside its place, what is below goes straight there.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode};
use rustix::io::Errno;

use super::Placement;
use super::write::{IMPLIED_MODE, OWN_MODE, Shared};
use crate::beneath::Root;
use crate::entry::split;

/// Where an entry is put until everything is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    pub root: usize,
    pub path: Vec<u8>,
    /// The stage that it lies in, which is not visible yet: only this archive's entries are there.
    pub stage: Option<usize>,
}

#[derive(Debug)]
struct Stage {
    root: usize,
    /// Path of the missing directory.
    place: Vec<u8>,
    /// Path of the directory beside it that takes its entries.
    path: Vec<u8>,
    /// Mode to set at the end, unless an entry gives one.
    mode: Option<Mode>,
}

/// A directory that was looked at, and what it lies in.
#[derive(Debug)]
struct Looked {
    root: usize,
    directory: Vec<u8>,
    stage: Option<usize>,
}

/// Dropped, it removes what was not brought into its place.
pub struct Stages<'a> {
    shared: &'a Shared<'a>,
    list: Vec<Stage>,
    /// Stages by root and place. `None`: the directory is missing, and could not be made beside its place.
    known: HashMap<usize, HashMap<Vec<u8>, Option<usize>>>,
    last: Option<Looked>,
}

impl<'a> Stages<'a> {
    pub fn new(shared: &'a Shared<'a>) -> Self {
        Self { shared, list: Vec::new(), known: HashMap::new(), last: None }
    }

    /// The spot of an entry that goes to `at`.
    pub fn spot(&mut self, at: Placement, is_directory: bool) -> Spot {
        let Placement { root, path } = at;
        let directory = if is_directory { &path[..] } else { split(&path).0 };
        let stage = match &self.last {
            Some(last) if last.root == root && last.directory == directory => last.stage,
            _ => {
                let stage = self.stage(root, directory);
                self.last = Some(Looked { root, directory: directory.to_vec(), stage });
                stage
            }
        };
        if let Some(stage) = stage
            && is_directory
            && self.list[stage].place == path
        {
            self.list[stage].mode = None;
        }
        Spot { root, path: self.path(stage, path), stage }
    }

    /// The spot of an entry that was put to `at` before.
    pub fn spot_of(&self, at: Placement) -> Spot {
        let Placement { root, path } = at;
        let stage = self.above(root, &path).flatten();
        Spot { root, path: self.path(stage, path), stage }
    }

    fn path(&self, stage: Option<usize>, place: Vec<u8>) -> Vec<u8> {
        let Some(stage) = stage else { return place };
        let Stage { place: top, path, .. } = &self.list[stage];
        [&path[..], &place[top.len()..]].concat()
    }

    /// What is known of the path or of what it lies in.
    fn above(&self, root: usize, mut path: &[u8]) -> Option<Option<usize>> {
        let known = self.known.get(&root)?;
        while !path.is_empty() {
            if let Some(stage) = known.get(path) {
                return Some(*stage);
            }
            path = split(path).0;
        }
        None
    }

    fn stage(&mut self, root: usize, directory: &[u8]) -> Option<usize> {
        if let Some(known) = self.above(root, directory) {
            return known;
        }
        let place = missing(&self.shared.roots[root], directory)?;
        let made = make_beside(self.shared, root, place).map(|(path, mode)| {
            self.list.push(Stage { root, place: place.to_vec(), path, mode: Some(mode) });
            self.list.len() - 1
        });
        self.known.entry(root).or_default().insert(place.to_vec(), made);
        made
    }

    /// Brings them all into their places. What was put to a place meanwhile is merged with ours.
    ///
    /// # Errors
    /// The place that a stage could not be brought to, and why.
    pub fn publish(&self) -> Result<Vec<Published>, (Vec<u8>, Errno)> {
        let publish = |stage: &Stage| {
            let root = &self.shared.roots[stage.root];
            stage.publish(root).map_err(|error| (stage.place.clone(), error))
        };
        self.list.iter().map(publish).collect()
    }

    /// Where a spot is once its stage is published.
    pub fn placed(&self, spot: &Spot) -> Vec<u8> {
        let Some(stage) = spot.stage else { return spot.path.clone() };
        let Stage { place, path, .. } = &self.list[stage];
        [&place[..], &spot.path[path.len()..]].concat()
    }
}

impl Drop for Stages<'_> {
    fn drop(&mut self) {
        for Stage { root, path, .. } in &self.list {
            remove(&self.shared.roots[*root], path);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    AsItWas,
    /// Merged with what another process had put there.
    Merged,
}

impl Stage {
    fn publish(&self, root: &Root) -> Result<Published, Errno> {
        let (parent, name) = split(&self.place);
        let parent = root.enter(parent)?;
        let own = split(&self.path).1;
        if let Some(mode) = self.mode {
            rustix::fs::fchmod(root.read(&self.path)?, mode)?;
        }
        match rustix::fs::renameat(&parent, own, &parent, name) {
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {
                merge(root, &self.path, &self.place).map(|()| Published::Merged)
            }
            renamed => renamed.map(|()| Published::AsItWas),
        }
    }
}

/// The topmost directory that is not there. `None`: all are, or something else is in the way.
fn missing<'a>(root: &Root, directory: &'a [u8]) -> Option<&'a [u8]> {
    if root.enter(directory).err() != Some(Errno::NOENT) {
        return None;
    }
    let ends = (0..directory.len()).filter(|at| directory[*at] == b'/').chain([directory.len()]);
    for end in ends {
        match root.enter(&directory[..end]) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Some(&directory[..end]),
            Err(_) => return None,
        }
    }
    None
}

/// A new directory of ours: its path, and the mode that it gets if no entry gives one. Until then only this user can enter.
fn make_beside(shared: &Shared<'_>, root: usize, place: &[u8]) -> Option<(Vec<u8>, Mode)> {
    let parent = split(place).0;
    let directory = shared.roots[root].enter(parent).ok()?;
    for _ in 0..100 {
        let path = join(parent, shared.temporary().as_bytes());
        match rustix::fs::mkdirat(&directory, split(&path).1, IMPLIED_MODE) {
            Err(Errno::EXIST) => {}
            Err(_) => return None,
            Ok(()) => {
                let closed = close(&shared.roots[root], &path);
                if closed.is_err() {
                    // Empty, and of no use.
                    let _ = remove_one(&shared.roots[root], &path);
                }
                return closed.ok().map(|mode| (path, mode));
            }
        }
    }
    None
}

fn close(root: &Root, path: &[u8]) -> Result<Mode, Errno> {
    let directory = root.read(path)?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&directory)?.st_mode);
    // What is made in it belongs to the group that it would belong to in its place.
    rustix::fs::fchmod(directory, OWN_MODE | (mode & Mode::SGID)).map(|()| mode)
}

/// Moves what is in one directory into another, whose own things stay where ours has nothing of their name.
fn merge(root: &Root, from: &[u8], to: &[u8]) -> Result<(), Errno> {
    let source = root.read(from)?;
    // Where something else has taken its place: no entry need describe it.
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&source)?.st_mode);
    let target = root.make(to, mode | OWN_MODE)?;
    rustix::fs::fchmod(&source, OWN_MODE)?;
    for name in names(&source)? {
        match rename(&source, &name, &target) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => merge(root, &join(from, &name), &join(to, &name))?,
            renamed => renamed?,
        }
    }
    remove_one(root, from)
}

/// A file is not in a directory's way, nor an empty directory in a file's.
fn rename(source: &OwnedFd, name: &[u8], target: &OwnedFd) -> Result<(), Errno> {
    let rename = || rustix::fs::renameat(source, name, target, name);
    let in_the_way = match rename() {
        Err(Errno::NOTDIR) => AtFlags::empty(),
        Err(Errno::ISDIR) => AtFlags::REMOVEDIR,
        // A directory can be moved only by who may write in it.
        Err(Errno::ACCESS) => {
            let directory = Root::from(rustix::io::dup(source)?).read(name);
            // A file: what it said first is the reason.
            directory.and_then(|directory| rustix::fs::fchmod(directory, OWN_MODE)).map_err(|_| Errno::ACCESS)?;
            return rename();
        }
        renamed => return renamed,
    };
    rustix::fs::unlinkat(target, name, in_the_way)?;
    rename()
}

/// Removes a tree of ours, as far as that succeeds: only the failure that led here is reported.
fn remove(root: &Root, top: &[u8]) {
    let mut directories = vec![top.to_vec()];
    let mut next = 0;
    while let Some(path) = directories.get(next).cloned() {
        next += 1;
        let Ok(directory) = root.read(&path) else { continue };
        let _ = rustix::fs::fchmod(&directory, OWN_MODE);
        for name in names(&directory).unwrap_or_default() {
            if rustix::fs::unlinkat(&directory, &name[..], AtFlags::empty()).is_err() {
                directories.push(join(&path, &name));
            }
        }
    }
    for path in directories.iter().rev() {
        let _ = remove_one(root, path);
    }
}

fn remove_one(root: &Root, path: &[u8]) -> Result<(), Errno> {
    let (parent, name) = split(path);
    rustix::fs::unlinkat(root.enter(parent)?, name, AtFlags::REMOVEDIR)
}

fn names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
