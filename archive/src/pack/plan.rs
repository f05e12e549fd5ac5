//! The walk: what is there, in order, cut into jobs.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, Stat};
use rustix::io::Errno;
use sha2::Sha256;

use super::{Source, Trouble, Warning};
use crate::beneath::Root;
use crate::entry::{MODE_BITS, Time, fault_of_path, split};
use crate::format::{BLOCK, FRAMES_CAP};
use crate::promise::{Awaited, Promise, promise};
use crate::sparse::{Map, Piece};

/// Numbers in pax records take less.
const PAX_NUMBERS: usize = 320;
/// Directories that the walk keeps open; from deeper down it opens them anew.
const OPEN_CAP: usize = 32;
/// A file with less in holes is read whole: a map would cost more than it saves.
const HOLES_WORTH: u64 = 64 << 10;

/// A source that could be opened.
pub struct Tree {
    pub root: Root,
    path: Vec<u8>,
    name: Vec<u8>,
}

impl Tree {
    /// Where an entry is, below the root.
    pub fn on_disk(&self, path: &[u8]) -> Vec<u8> {
        let rest = &path[self.name.len()..];
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        match (self.path.is_empty(), rest.is_empty()) {
            (true, _) => rest.to_vec(),
            (_, true) => self.path.clone(),
            _ => [&self.path, &b"/"[..], rest].concat(),
        }
    }
}

/// Sorted, without those that lie below others.
pub fn open(sources: &[Source], warn: &mut dyn FnMut(Warning)) -> Vec<Tree> {
    let mut sources: Vec<&Source> = sources.iter().collect();
    // Name by name, as the walk goes: `a/b` comes before `a-b`.
    sources.sort_by(|one, other| names(&one.name).cmp(names(&other.name)));
    let mut trees: Vec<Tree> = Vec::new();
    for source in sources {
        if trees.last().is_some_and(|tree| is_below(&source.name, &tree.name)) {
            continue;
        }
        match open_one(source) {
            Ok(tree) => trees.push(tree),
            Err(trouble) => warn(Warning { path: source.name.clone(), trouble }),
        }
    }
    trees
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

/// Or the same.
fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| above.is_empty() || rest.is_empty() || rest[0] == b'/')
}

fn open_one(source: &Source) -> Result<Tree, Trouble> {
    if let Some(fault) = fault_of_path(&source.name).or_else(|| fault_of_path(&source.path)) {
        return Err(Trouble::Name(fault));
    }
    if source.name.is_empty() && !source.path.is_empty() && is_no_directory(source) {
        return Err(Trouble::Name("only a directory can be the archive's root"));
    }
    let root = Root::open(&source.root).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Trouble::Missing,
        _ => Trouble::Unreadable(error),
    })?;
    Ok(Tree { root, path: source.path.clone(), name: source.name.clone() })
}

fn is_no_directory(source: &Source) -> bool {
    Root::open(&source.root).is_ok_and(|root| root.enter(&source.path).is_err_and(|error| error == Errno::NOTDIR))
}

/// What an entry says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub size: u64,
}

impl From<&Stat> for Meta {
    fn from(stat: &Stat) -> Self {
        let mtime = Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 };
        let (mode, size) = (stat.st_mode & MODE_BITS, u64::try_from(stat.st_size).unwrap_or(0));
        Self { mode, uid: stat.st_uid, gid: stat.st_gid, mtime, size }
    }
}

/// What becomes one frame.
pub struct Job {
    pub number: u32,
    pub items: Vec<Item>,
    /// Bytes it is expected to have.
    pub planned: usize,
    pub warnings: Vec<Warning>,
    /// The tape ends with it.
    pub last: bool,
}

/// An entry, or a piece of one.
pub struct Item {
    /// Index of its tree.
    pub tree: usize,
    /// Path in the archive.
    pub path: Vec<u8>,
    pub meta: Meta,
    pub what: What,
}

pub enum What {
    Directory,
    Symlink,
    /// The promise is kept when the file was packed: hard links to it wait for that.
    File(Option<Promise<()>>),
    Link {
        target: Vec<u8>,
        packed: Awaited<()>,
    },
    Piece(LargePiece),
}

/// A piece of a file that takes several frames, or has holes.
pub struct LargePiece {
    pub large: Arc<Large>,
    /// Offset in the stored bytes.
    pub from: u64,
    pub length: usize,
    pub before: Option<Awaited<Begun>>,
    pub after: Promise<Begun>,
}

/// What the worker of one piece hands to that of the next.
#[derive(Clone, Default)]
pub struct Begun {
    pub digest: Sha256,
    /// Where the stored bytes begin in their first frame.
    pub offset: u32,
}

pub struct Large {
    pub file: File,
    /// The job that it begins in.
    pub job: u32,
    pub size: u64,
    pub stored: u64,
    pub map: Option<(Map, Vec<u8>)>,
}

impl Large {
    /// Stored bytes from `from` on. Returns whether all of them were there.
    pub fn read(&self, from: u64, to: &mut [u8]) -> std::io::Result<bool> {
        let Some((map, head)) = &self.map else { return read_whole(&self.file, from, to) };
        let head_length = head.len() as u64;
        let begun = head.get(from as usize..).unwrap_or(&[]);
        let (in_head, in_data) = to.split_at_mut(begun.len().min(to.len()));
        in_head.copy_from_slice(&begun[..in_head.len()]);
        let mut whole = true;
        for (at, piece) in map.cut(from.saturating_sub(head_length), in_data.len() as u64) {
            whole &= read_whole(&self.file, piece.offset, &mut in_data[at..at + piece.length as usize])?;
        }
        Ok(whole)
    }
}

/// Fills `to`; what is not there any more is left as it is.
pub fn read_whole(file: &File, from: u64, to: &mut [u8]) -> std::io::Result<bool> {
    let mut at = 0;
    while at < to.len() {
        match file.read_at(&mut to[at..], from + at as u64) {
            Ok(0) => return Ok(false),
            Ok(count) => at += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Reading, never waiting for a pipe's other end, never through a link.
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

pub fn open_file(directory: &OwnedFd, name: &[u8]) -> Result<(File, Stat), Trouble> {
    let file = rustix::fs::openat(directory, name, READ, Mode::empty()).map_err(trouble)?;
    let stat = rustix::fs::fstat(&file).map_err(trouble)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok((File::from(file), stat)),
        _ => Err(Trouble::Vanished),
    }
}

/// What an error means for a path that existed a moment ago.
pub fn trouble(error: Errno) -> Trouble {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Trouble::Vanished,
        error => Trouble::Unreadable(error.into()),
    }
}

/// A directory being walked.
struct Level {
    path: Vec<u8>,
    directory: Option<OwnedFd>,
    names: Names,
    next: usize,
}

/// Many names in one piece of memory, sorted.
#[derive(Default)]
struct Names {
    bytes: Vec<u8>,
    places: Vec<(u32, u32)>,
}

impl Names {
    fn of(directory: &OwnedFd) -> Result<Self, Errno> {
        let mut names = Self::default();
        let mut buffer = Vec::with_capacity(64 << 10);
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.places.push((names.bytes.len() as u32, name.len() as u32));
                names.bytes.extend_from_slice(name);
            }
        }
        let bytes = &names.bytes;
        names.places.sort_unstable_by_key(|(at, length)| &bytes[*at as usize..(*at + *length) as usize]);
        Ok(names)
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        self.places.get(index).map(|(at, length)| &self.bytes[*at as usize..(*at + *length) as usize])
    }
}

/// The receiver of the jobs has gone.
struct Gone;

pub struct Planner<'a> {
    trees: &'a [Tree],
    frame: usize,
    tokens: SyncSender<()>,
    jobs: SyncSender<Job>,
    number: u32,
    items: Vec<Item>,
    planned: usize,
    warnings: Vec<Warning>,
    levels: Vec<Level>,
    /// Device and inode of files with several names: the first one, and whether it was packed.
    linked: HashMap<(u64, u64), (Vec<u8>, Awaited<()>)>,
}

impl<'a> Planner<'a> {
    pub fn new(trees: &'a [Tree], frame: usize, tokens: SyncSender<()>, jobs: SyncSender<Job>) -> Self {
        let (number, planned) = (0, 0);
        let (items, warnings, levels, linked) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        Self { trees, frame, tokens, jobs, number, items, planned, warnings, levels, linked }
    }

    /// Ends early when the receiver of the jobs has gone.
    pub fn run(mut self) {
        let _ = (0..self.trees.len()).try_for_each(|tree| self.tree(tree)).and_then(|()| self.send(true));
    }

    fn tree(&mut self, tree: usize) -> Result<(), Gone> {
        let path = self.trees[tree].name.clone();
        match self.stat_source(tree) {
            Ok(stat) => self.visit(tree, path, &stat)?,
            Err(Errno::NOENT | Errno::NOTDIR) => self.warn(path, Trouble::Missing),
            Err(error) => self.warn(path, Trouble::Unreadable(error.into())),
        }
        while let Some(mut level) = self.levels.pop() {
            let entry = self.next_of(tree, &mut level);
            let Some(entry) = entry else { continue };
            self.levels.push(level);
            if let Some((path, stat)) = entry {
                self.visit(tree, path, &stat)?;
            }
        }
        Ok(())
    }

    fn stat_source(&self, tree: usize) -> Result<Stat, Errno> {
        let tree = &self.trees[tree];
        let (parent, name) = split(&tree.path);
        let parent = tree.root.enter(parent)?;
        if name.is_empty() {
            return rustix::fs::fstat(&parent);
        }
        rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// `None`: the level is done. `Some(None)`: that one is not there any more.
    fn next_of(&mut self, tree: usize, level: &mut Level) -> Option<Option<(Vec<u8>, Stat)>> {
        let name = level.names.get(level.next)?;
        level.next += 1;
        let path = if level.path.is_empty() { name.to_vec() } else { [&level.path, &b"/"[..], name].concat() };
        let stat = match &level.directory {
            Some(directory) => rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW),
            None => {
                let tree = &self.trees[tree];
                tree.root.enter(&tree.on_disk(&level.path)).and_then(|directory| {
                    let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
                    level.directory = Some(directory);
                    stat
                })
            }
        };
        match stat {
            Ok(stat) => Some(Some((path, stat))),
            Err(error) => {
                self.warn(path, trouble(error));
                Some(None)
            }
        }
    }

    fn visit(&mut self, tree: usize, path: Vec<u8>, stat: &Stat) -> Result<(), Gone> {
        if let Some(fault) = fault_of_path(&path) {
            self.warn(path, Trouble::Name(fault));
            return Ok(());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(tree, path, stat),
            FileType::RegularFile => self.file(tree, path, stat),
            FileType::Symlink => self.add(Item { tree, path, meta: stat.into(), what: What::Symlink }, 0),
            _ => {
                self.warn(path, Trouble::Special);
                Ok(())
            }
        }
    }

    fn directory(&mut self, tree: usize, path: Vec<u8>, stat: &Stat) -> Result<(), Gone> {
        self.add(Item { tree, path: path.clone(), meta: stat.into(), what: What::Directory }, 0)?;
        let root = &self.trees[tree];
        match root.root.read(&root.on_disk(&path)).and_then(|directory| Ok((Names::of(&directory)?, directory))) {
            Ok((names, directory)) => {
                if let Some(shallow) = self.levels.len().checked_sub(OPEN_CAP) {
                    self.levels[shallow].directory = None;
                }
                self.levels.push(Level { path, directory: Some(directory), names, next: 0 });
            }
            Err(error) => self.warn(path, trouble(error)),
        }
        Ok(())
    }

    fn file(&mut self, tree: usize, path: Vec<u8>, stat: &Stat) -> Result<(), Gone> {
        let meta = Meta::from(stat);
        let identity = (stat.st_dev, stat.st_ino);
        if let Some((target, packed)) = self.linked.get(&identity) {
            let what = What::Link { target: target.clone(), packed: packed.clone() };
            return self.add(Item { tree, path, meta, what }, 0);
        }
        let mut packed = None;
        if stat.st_nlink > 1 {
            let (promise, awaited) = promise();
            self.linked.insert(identity, (path.clone(), awaited));
            packed = Some(promise);
        }
        let holes = meta.size.saturating_sub(stat.st_blocks as u64 * 512) >= HOLES_WORTH;
        if holes || meta.size > self.frame as u64 {
            return self.large(tree, path, packed);
        }
        self.add(Item { tree, path, meta, what: What::File(packed) }, meta.size as usize)
    }

    /// Opened here, since several workers will read it.
    fn large(&mut self, tree: usize, path: Vec<u8>, packed: Option<Promise<()>>) -> Result<(), Gone> {
        let root = &self.trees[tree];
        let on_disk = root.on_disk(&path);
        let (parent, name) = split(&on_disk);
        let opened = root.root.enter(parent).map_err(trouble).and_then(|parent| open_file(&parent, name));
        let (file, stat) = match opened {
            Ok(opened) => opened,
            Err(trouble) => {
                self.warn(path, trouble);
                return Ok(());
            }
        };
        if let Some(packed) = packed {
            packed.keep(());
        }
        // It begins a frame, so that its place is known before it was read.
        self.send_if_any()?;
        let meta = Meta::from(&stat);
        let map = holes_of(&file, &stat);
        let stored = map.as_ref().map_or(meta.size, |(map, head)| head.len() as u64 + map.data());
        let large = Arc::new(Large { file, job: self.number, size: meta.size, stored, map });
        self.pieces(tree, &path, meta, &large)
    }

    fn pieces(&mut self, tree: usize, path: &[u8], meta: Meta, large: &Arc<Large>) -> Result<(), Gone> {
        let (mut from, mut before) = (0, None);
        loop {
            // The map stands in one frame with its headers.
            let least = large.map.as_ref().map_or(0, |(_, head)| head.len());
            let most = if from == 0 { self.frame.max(least) } else { self.frame };
            let length = (large.stored - from).min(most as u64) as usize;
            let (after, awaited) = promise();
            let piece = LargePiece { large: Arc::clone(large), from, length, before, after };
            self.add(Item { tree, path: path.to_vec(), meta, what: What::Piece(piece) }, length)?;
            (from, before) = (from + length as u64, Some(awaited));
            if from == large.stored {
                return Ok(());
            }
            self.send_if_any()?;
        }
    }

    fn add(&mut self, item: Item, length: usize) -> Result<(), Gone> {
        let room = length + room_of_head(&item);
        if self.planned + room > self.frame {
            self.send_if_any()?;
        }
        self.planned += room;
        self.items.push(item);
        Ok(())
    }

    fn warn(&mut self, path: Vec<u8>, trouble: Trouble) {
        self.warnings.push(Warning { path, trouble });
    }

    fn send_if_any(&mut self) -> Result<(), Gone> {
        if self.items.is_empty() { Ok(()) } else { self.send(false) }
    }

    fn send(&mut self, last: bool) -> Result<(), Gone> {
        if self.number >= FRAMES_CAP {
            return Err(Gone);
        }
        let (items, warnings) = (std::mem::take(&mut self.items), std::mem::take(&mut self.warnings));
        let job = Job { number: self.number, items, planned: self.planned, warnings, last };
        self.tokens.send(()).map_err(|_| Gone)?;
        self.jobs.send(job).map_err(|_| Gone)?;
        (self.number, self.planned) = (self.number + 1, 0);
        Ok(())
    }
}

/// What an entry's headers take at most, without attributes.
fn room_of_head(item: &Item) -> usize {
    let target = match &item.what {
        What::Symlink => item.meta.size as usize,
        What::Link { target, .. } => target.len(),
        _ => 0,
    };
    2 * BLOCK + (item.path.len() + target + PAX_NUMBERS).next_multiple_of(BLOCK)
}

/// The map of a file with holes, and its text.
fn holes_of(file: &File, stat: &Stat) -> Option<(Map, Vec<u8>)> {
    let size = Meta::from(stat).size;
    if size.saturating_sub(stat.st_blocks as u64 * 512) < HOLES_WORTH {
        return None;
    }
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < size {
        let offset = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(offset) => offset.min(size),
            Err(Errno::NXIO) => break,
            // A file system that cannot tell.
            Err(_) => return None,
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(offset)).ok()?.min(size);
        pieces.push(Piece { offset, length: at - offset });
    }
    let map = Map::new(size, &pieces);
    // Compressed by the file system, not sparse.
    (size - map.data() >= HOLES_WORTH).then(|| {
        let text = map.encode();
        (map, text)
    })
}
