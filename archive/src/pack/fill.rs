//! A job into a frame: what it names is read, written down as tar, digested and compressed.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::plan::{Begun, Item, Job, LargePiece, Meta, Tree, What, open_file, read_whole, trouble};
use super::{Filled, Trouble, Warning, attributes};
use crate::codec::Compressor;
use crate::entry::{Content, Digest, Entry, Kind, Place, split};
use crate::format::{self, PLAIN_CAP};
use crate::promise::Promise;
use crate::tape::{self, Body, Head, PAX_CAP};

/// Pax records without attributes are shorter: two paths and numbers.
const PAX_RESERVE: usize = 16 << 10;

pub struct Filler<'a> {
    trees: &'a [Tree],
    compressor: Compressor,
    plain: Vec<u8>,
    /// The directory of the entry before: a job goes through one after another.
    directory: Option<(usize, Vec<u8>, OwnedFd)>,
    job: u32,
    /// Bytes that the frame may grow beyond its plan.
    budget: usize,
    entries: Vec<Entry>,
    warnings: Vec<Warning>,
}

impl<'a> Filler<'a> {
    pub fn new(trees: &'a [Tree], level: i32) -> Self {
        let compressor = Compressor::new(level);
        let (plain, entries, warnings) = (Vec::new(), Vec::new(), Vec::new());
        Self { trees, compressor, plain, directory: None, job: 0, budget: 0, entries, warnings }
    }

    /// `compressed` is a buffer to use.
    pub fn fill(&mut self, job: Job, mut compressed: Vec<u8>) -> Filled {
        self.plain.clear();
        self.budget = PLAIN_CAP.saturating_sub(job.planned + tape::END.len());
        (self.job, self.warnings) = (job.number, job.warnings);
        for item in job.items {
            self.item(item);
        }
        if job.last {
            self.plain.extend_from_slice(&tape::END);
        }
        compressed.clear();
        if !self.plain.is_empty() {
            self.compressor.compress_or_store(&self.plain, &mut compressed);
        }
        Filled {
            job: job.number,
            plain: self.plain.len() as u32,
            digest: format::digest(&compressed),
            compressed,
            entries: std::mem::take(&mut self.entries),
            warnings: std::mem::take(&mut self.warnings),
            last: job.last,
        }
    }

    fn item(&mut self, item: Item) {
        let Item { tree, path, meta, what } = item;
        let outcome = match what {
            What::Directory => self.directory(tree, &path, meta),
            What::Symlink => self.symlink(tree, &path, meta),
            What::File(packed) => self.file(tree, &path, meta, packed),
            What::Piece(piece) => self.piece(&path, meta, piece),
            What::Link { target, packed } => {
                // If the first name could not be packed, its own packing has warned.
                if packed.wait().is_some() {
                    self.entry(&path, meta, Vec::new(), Body::HardLink { target });
                }
                Ok(())
            }
        };
        if let Err(trouble) = outcome {
            self.warn(&path, trouble);
        }
    }

    fn warn(&mut self, path: &[u8], trouble: Trouble) {
        self.warnings.push(Warning { path: path.to_vec(), trouble });
    }

    fn directory(&mut self, tree: usize, path: &[u8], meta: Meta) -> Result<(), Trouble> {
        let on_disk = self.trees[tree].on_disk(path);
        let xattrs = match self.trees[tree].root.read(&on_disk) {
            Ok(directory) => {
                let xattrs = self.attributes(path, &directory);
                self.directory = Some((tree, on_disk, directory));
                xattrs
            }
            // The walk tells that its names could not be read.
            Err(Errno::ACCESS) => Vec::new(),
            Err(error) => return Err(trouble(error)),
        };
        self.entry(path, meta, xattrs, Body::Directory);
        Ok(())
    }

    fn symlink(&mut self, tree: usize, path: &[u8], meta: Meta) -> Result<(), Trouble> {
        let on_disk = self.trees[tree].on_disk(path);
        let (parent, name) = split(&on_disk);
        let target =
            rustix::fs::readlinkat(self.parent(tree, parent)?, name, Vec::new()).map_err(|error| match error {
                // No link any more.
                Errno::INVAL => Trouble::Vanished,
                error => trouble(error),
            })?;
        let target = target.into_bytes();
        let more = target.len().saturating_sub(meta.size as usize);
        self.budget = self.budget.checked_sub(more).ok_or(Trouble::Vanished)?;
        self.entry(path, meta, Vec::new(), Body::Symlink { target });
        Ok(())
    }

    fn file(&mut self, tree: usize, path: &[u8], planned: Meta, packed: Option<Promise<()>>) -> Result<(), Trouble> {
        let on_disk = self.trees[tree].on_disk(path);
        let (parent, name) = split(&on_disk);
        let (file, stat) = open_file(self.parent(tree, parent)?, name)?;
        let mut meta = Meta::from(&stat);
        meta.size = self.within_budget(path, planned.size, meta.size);
        let xattrs = self.attributes(path, &file);
        let before = (self.plain.len(), self.entries.len());
        let at = self.headers(path, meta, xattrs, Body::File { size: meta.size });
        match self.content(&file, path, meta.size as usize) {
            Ok(digest) => {
                let place = Place { frame: self.job, offset: at };
                let content = Content { size: meta.size, stored: meta.size, sparse: false, digest, place };
                self.record(path, meta, Kind::File(content));
            }
            Err(error) => {
                self.plain.truncate(before.0);
                self.entries.truncate(before.1);
                return Err(Trouble::Unreadable(error));
            }
        }
        if let Some(packed) = packed {
            packed.keep(());
        }
        Ok(())
    }

    fn content(&mut self, file: &File, path: &[u8], length: usize) -> std::io::Result<Digest> {
        let start = self.plain.len();
        self.plain.resize(start + length + tape::padding(length as u64), 0);
        let bytes = &mut self.plain[start..start + length];
        let whole = read_whole(file, 0, bytes)?;
        let digest = format::digest(bytes);
        if !whole {
            self.warn(path, Trouble::Shrank);
        }
        Ok(digest)
    }

    /// A frame has an end: what a file has grown since the walk must fit in.
    fn within_budget(&mut self, path: &[u8], planned: u64, size: u64) -> u64 {
        let more = size.saturating_sub(planned).next_multiple_of(format::BLOCK as u64);
        if more <= self.budget as u64 {
            self.budget -= more as usize;
            return size;
        }
        self.warn(path, Trouble::Grew);
        planned
    }

    fn piece(&mut self, path: &[u8], meta: Meta, piece: LargePiece) -> Result<(), Trouble> {
        let LargePiece { large, from, length, before, after } = piece;
        if from == 0 {
            let xattrs = self.attributes(path, &large.file);
            let (size, stored) = (large.size, large.stored);
            let body = if large.map.is_some() { Body::Sparse { size, stored } } else { Body::File { size } };
            self.headers(path, meta, xattrs, body);
        }
        let start = self.plain.len();
        self.plain.resize(start + length + tape::padding(length as u64), 0);
        let bytes = &mut self.plain[start..start + length];
        // What cannot be read is zeros: its header has already promised the length.
        let whole = large.read(from, bytes);
        let begun = || Some(Begun { digest: Sha256::new(), offset: start as u32 });
        // `None`: a worker has died, and nothing of this will be used.
        let mut begun = before.map_or_else(begun, |before| before.wait().cloned()).unwrap_or_default();
        begun.digest.update(&self.plain[start..start + length]);
        if from + length as u64 == large.stored {
            let place = Place { frame: large.job, offset: begun.offset };
            let (size, stored, sparse) = (large.size, large.stored, large.map.is_some());
            let content = Content { size, stored, sparse, digest: begun.digest.clone().finalize().into(), place };
            self.record(path, meta, Kind::File(content));
        }
        after.keep(begun);
        match whole {
            Ok(true) => Ok(()),
            Ok(false) => Err(Trouble::Shrank),
            Err(error) => Err(Trouble::Unreadable(error)),
        }
    }

    /// Gives up attributes that would not fit.
    fn attributes(&mut self, path: &[u8], file: impl std::os::fd::AsFd) -> Vec<(Vec<u8>, Vec<u8>)> {
        let xattrs = attributes::read(file.as_fd());
        if xattrs.is_empty() {
            return xattrs;
        }
        let room: usize = xattrs.iter().map(|(name, value)| tape::xattr_room(name, value)).sum();
        if room + PAX_RESERVE > PAX_CAP || room + format::BLOCK > self.budget {
            self.warn(path, Trouble::Attributes);
            return Vec::new();
        }
        self.budget -= room + format::BLOCK;
        xattrs
    }

    /// Something without a content of its own.
    fn entry(&mut self, path: &[u8], meta: Meta, xattrs: Vec<(Vec<u8>, Vec<u8>)>, body: Body) {
        let kind = match &body {
            Body::Symlink { target } => Kind::Symlink { target: target.clone() },
            Body::HardLink { target } => Kind::HardLink { target: target.clone() },
            _ => Kind::Directory,
        };
        self.headers(path, meta, xattrs, body);
        self.record(path, meta, kind);
    }

    /// Returns where the next byte stands.
    fn headers(&mut self, path: &[u8], meta: Meta, xattrs: Vec<(Vec<u8>, Vec<u8>)>, body: Body) -> u32 {
        let Meta { mode, uid, gid, mtime, .. } = meta;
        tape::write(&Head { path: path.to_vec(), mode, mtime, uid, gid, xattrs, body }, &mut self.plain);
        self.plain.len() as u32
    }

    fn record(&mut self, path: &[u8], meta: Meta, kind: Kind) {
        let Meta { mode, uid, gid, mtime, .. } = meta;
        self.entries.push(Entry { path: path.to_vec(), mode, mtime, uid, gid, kind });
    }

    /// The open directory of an entry.
    fn parent(&mut self, tree: usize, parent: &[u8]) -> Result<&OwnedFd, Trouble> {
        let known = self.directory.take().filter(|(known_tree, known, _)| *known_tree == tree && known == parent);
        let directory = match known {
            Some(known) => known,
            None => (tree, parent.to_vec(), self.trees[tree].root.enter(parent).map_err(trouble)?),
        };
        Ok(&self.directory.insert(directory).2)
    }
}
