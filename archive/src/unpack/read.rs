//! The tape understood, frame after frame: what is to be done for each.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::sync::Arc;

use sha2::Sha256;

use super::stage::{Spot, Stages};
use super::write::{OpenFile, Shared};
use super::{Limits, Placement, Unpacked};
use crate::entry::{Content, Digest, Entry, Kind, Place, fault_of_path, split};
use crate::error::ReadError;
use crate::format;
use crate::manifest::{self, Frame};
use crate::promise::{Awaited, Promise, promise};
use crate::sparse::Map;
use crate::tape::{self, Body, Head, Item};

/// Something to do with a frame's plain bytes.
pub enum Op {
    Directory {
        at: Spot,
        path: Vec<u8>,
    },
    Symlink {
        at: Spot,
        head: Head,
    },
    /// A whole file.
    File {
        at: Spot,
        head: Head,
        bytes: Range<usize>,
        number: usize,
    },
    Piece(Piece),
}

/// A part of a file that takes several frames, or has holes.
pub struct Piece {
    /// `None`: it is only digested.
    pub file: Option<Arc<OpenFile>>,
    /// Offset in the stored bytes.
    pub from: u64,
    pub bytes: Range<usize>,
    pub before: Option<Awaited<Sha256>>,
    pub after: Promise<Sha256>,
    /// The entry's number, with its last piece.
    pub ends: Option<usize>,
}

/// A hard link, for when everything else is there.
pub struct Link {
    pub path: Vec<u8>,
    pub at: Spot,
    pub target: Spot,
}

/// A directory, for when nothing is put into it any more.
pub struct Directory {
    pub at: Spot,
    pub head: Head,
}

/// What the manifest must say of an entry.
pub struct Found {
    pub fingerprint: [u8; 16],
    /// `None`: it has none, or was passed over.
    pub digest: Option<Digest>,
}

/// Everything that was on the tape.
pub struct AllFound<'a> {
    pub shared: &'a Shared<'a>,
    pub frames: Vec<Frame>,
    pub entries: Vec<Found>,
    pub links: Vec<Link>,
    pub directories: Vec<Directory>,
    pub stages: Stages<'a>,
    pub unpacked: Unpacked,
}

/// An entry as the manifest has it, but for its digest.
pub fn fingerprint(entry: &Entry) -> [u8; 16] {
    let mut bytes = Vec::new();
    match &entry.kind {
        Kind::File(content) => {
            let kind = Kind::File(Content { digest: [0; 32], ..*content });
            manifest::put_entry(&mut bytes, &Entry { kind, ..entry.clone() }, b"");
        }
        _ => manifest::put_entry(&mut bytes, entry, b""),
    }
    let mut short = [0; 16];
    short.copy_from_slice(&format::digest(&bytes)[..16]);
    short
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Something stands below it.
    Implied,
    Directory,
    File,
    Other,
}

/// A file whose bytes go on in the next frame.
struct Current {
    number: usize,
    path: Vec<u8>,
    file: Option<Arc<OpenFile>>,
    digested: bool,
    stored: u64,
    from: u64,
    before: Option<Awaited<Sha256>>,
}

pub struct Tape<'a> {
    shared: &'a Shared<'a>,
    place: &'a mut (dyn FnMut(&[u8]) -> Option<Placement> + Send),
    limits: Limits,
    digest_all: bool,
    /// What has which place, by a keyed hash: an archive's author cannot make two paths collide.
    seen: HashMap<u64, Seen>,
    hasher: RandomState,
    /// The last one whose parents were all looked at.
    parent: Option<(usize, Vec<u8>)>,
    current: Option<Current>,
    ended: bool,
    /// Bytes that sparse files look like.
    holes: u64,
    plain: u64,
    frames: Vec<Frame>,
    entries: Vec<Found>,
    links: Vec<Link>,
    directories: Vec<Directory>,
    stages: Stages<'a>,
    unpacked: Unpacked,
}

impl<'a> Tape<'a> {
    pub fn new(
        shared: &'a Shared<'a>,
        place: &'a mut (dyn FnMut(&[u8]) -> Option<Placement> + Send),
        limits: Limits,
        digest_all: bool,
    ) -> Self {
        Self {
            shared,
            place,
            limits,
            digest_all,
            seen: HashMap::new(),
            hasher: RandomState::new(),
            parent: None,
            current: None,
            ended: false,
            holes: 0,
            plain: 0,
            frames: Vec::new(),
            entries: Vec::new(),
            links: Vec::new(),
            directories: Vec::new(),
            stages: Stages::new(shared),
            unpacked: Unpacked::default(),
        }
    }

    /// The next frame's plain bytes.
    pub fn frame(&mut self, frame: Frame, plain: &[u8]) -> Result<Vec<Op>, ReadError> {
        let number = self.frames.len() as u32;
        let broken = |what: &str| ReadError::Broken { what: what.to_owned(), offset: frame.offset };
        self.plain += u64::from(frame.plain);
        self.frames.push(frame);
        let (mut ops, mut at) = (Vec::new(), 0);
        if let Some(current) = self.current.take() {
            at = self.piece(current, plain, 0, &mut ops)?;
        }
        while at < plain.len() {
            if self.ended {
                return Err(broken("something follows the end of its tar"));
            }
            match tape::read(&plain[at..]).map_err(broken)? {
                Item::End => (self.ended, at) = (true, plain.len()),
                Item::Entry(head, length) => {
                    let place = Place { frame: number, offset: (at + length) as u32 };
                    at = self.entry(head, place, plain, &mut ops)?;
                }
            }
        }
        Ok(ops)
    }

    /// Returns where the next entry begins.
    fn entry(&mut self, head: Head, place: Place, plain: &[u8], ops: &mut Vec<Op>) -> Result<usize, ReadError> {
        if self.entries.len() as u64 >= self.limits.entries {
            return Err(ReadError::Quota { limit: self.limits.entries, of: "entries" });
        }
        let at = place.offset as usize;
        let placement = self.placement(&head)?;
        self.entries.push(Found { fingerprint: fingerprint(&entry_of(&head, place)), digest: None });
        self.unpacked.entries += 1;
        if placement.is_none() {
            self.unpacked.skipped += 1;
        }
        match &head.body {
            Body::File { .. } | Body::Sparse { .. } => return self.file(head, placement, plain, at, ops),
            Body::Directory => {
                if let Some(placement) = placement {
                    ops.push(Op::Directory { at: placement.clone(), path: head.path.clone() });
                    self.directories.push(Directory { at: placement, head });
                }
            }
            Body::Symlink { .. } => ops.extend(placement.map(|at| Op::Symlink { at, head })),
            Body::HardLink { target } => {
                if let Some(at) = placement {
                    let target = self.target(&head.path, target)?;
                    self.links.push(Link { path: head.path, at, target });
                }
            }
        }
        Ok(at)
    }

    /// Where it goes, and that nothing else is there.
    fn placement(&mut self, head: &Head) -> Result<Option<Spot>, ReadError> {
        let Some(placement) = (self.place)(&head.path) else { return Ok(None) };
        let refuse = |why: &str| Err(ReadError::entry(&head.path, why));
        if placement.root >= self.shared.roots.len() {
            return refuse("it was given a place below no root");
        }
        if let Some(fault) = fault_of_path(&placement.path) {
            return refuse(fault);
        }
        if placement.path.is_empty() {
            return match head.body {
                // It is there already, and stays as it is.
                Body::Directory => Ok(None),
                _ => refuse("it has the place of the root itself"),
            };
        }
        let kind = match head.body {
            Body::Directory => Seen::Directory,
            Body::File { .. } | Body::Sparse { .. } => Seen::File,
            _ => Seen::Other,
        };
        match self.claim(&placement, kind) {
            Ok(()) => Ok(Some(self.stages.spot(placement, kind == Seen::Directory))),
            Err(why) => refuse(why),
        }
    }

    fn claim(&mut self, placement: &Placement, kind: Seen) -> Result<(), &'static str> {
        let (parent, _) = split(&placement.path);
        if self.parent.as_ref().is_none_or(|(root, known)| (*root, &known[..]) != (placement.root, parent)) {
            self.imply(placement.root, parent)?;
            self.parent = Some((placement.root, parent.to_vec()));
        }
        match self.seen.entry(self.hasher.hash_one((placement.root, &placement.path[..]))) {
            std::collections::hash_map::Entry::Vacant(free) => drop(free.insert(kind)),
            std::collections::hash_map::Entry::Occupied(mut taken) => match (*taken.get(), kind) {
                (Seen::Implied, Seen::Directory) => drop(taken.insert(kind)),
                (Seen::Implied, _) => return Err("it is not a directory, but another entry is below it"),
                _ => return Err("it is there twice"),
            },
        }
        Ok(())
    }

    fn imply(&mut self, root: usize, mut path: &[u8]) -> Result<(), &'static str> {
        while !path.is_empty() {
            let seen = self.seen.entry(self.hasher.hash_one((root, path))).or_insert(Seen::Implied);
            if !matches!(seen, Seen::Implied | Seen::Directory) {
                return Err("a path above it is not a directory");
            }
            path = split(path).0;
        }
        Ok(())
    }

    /// Only a file of this archive that was unpacked.
    fn target(&mut self, path: &[u8], target: &[u8]) -> Result<Spot, ReadError> {
        let placement = (self.place)(target);
        let hash = |placement: &Placement| self.hasher.hash_one((placement.root, &placement.path[..]));
        let placement = placement.filter(|placement| self.seen.get(&hash(placement)) == Some(&Seen::File));
        placement.map(|placement| self.stages.spot_of(placement)).ok_or_else(|| {
            ReadError::entry(path, "it is a hard link to what is not a file of this archive, or was not unpacked")
        })
    }

    fn file(
        &mut self,
        head: Head,
        placement: Option<Spot>,
        plain: &[u8],
        at: usize,
        ops: &mut Vec<Op>,
    ) -> Result<usize, ReadError> {
        let (number, stored) = (self.entries.len() - 1, head.stored());
        let sparse = self.map(&head, &plain[at..])?;
        let end = usize::try_from(stored).ok().and_then(|stored| at.checked_add(stored));
        match (placement, end) {
            (Some(placement), Some(end)) if sparse.is_none() && end <= plain.len() => {
                ops.push(Op::File { at: placement, head, bytes: at..end, number });
                padded(end, plain)
            }
            (placement, _) => {
                let path = head.path.clone();
                let digested = placement.is_some() || self.digest_all;
                let file =
                    placement.map(|placement| OpenFile::make(self.shared, placement, head, sparse)).transpose()?;
                let current = Current { number, path, file, digested, stored, from: 0, before: None };
                self.piece(current, plain, at, ops)
            }
        }
    }

    /// The map of a sparse file stands in one frame with its headers.
    fn map(&mut self, head: &Head, rest: &[u8]) -> Result<Option<(Map, usize)>, ReadError> {
        let Body::Sparse { size, stored } = head.body else { return Ok(None) };
        self.holes = self.holes.saturating_add(size);
        if self.holes.saturating_add(self.plain) > self.limits.bytes {
            return Err(ReadError::Quota { limit: self.limits.bytes, of: "bytes" });
        }
        let within = &rest[..rest.len().min(usize::try_from(stored).unwrap_or(usize::MAX))];
        let (map, length) = Map::decode(size, within).map_err(|why| ReadError::entry(&head.path, why))?;
        if length as u64 + map.data() != stored {
            return Err(ReadError::entry(&head.path, "its map and its size differ"));
        }
        Ok(Some((map, length)))
    }

    fn piece(&mut self, mut current: Current, plain: &[u8], at: usize, ops: &mut Vec<Op>) -> Result<usize, ReadError> {
        let left = current.stored - current.from;
        let length = left.min((plain.len() - at) as u64);
        let ends = length == left;
        if current.digested {
            let (after, awaited) = promise();
            let before = current.before.replace(awaited);
            if let Some(file) = &current.file {
                file.begin_piece();
            }
            let (bytes, from) = (at..at + length as usize, current.from);
            let ends = ends.then_some(current.number);
            ops.push(Op::Piece(Piece { file: current.file.clone(), from, bytes, before, after, ends }));
        }
        current.from += length;
        if !ends {
            self.current = Some(current);
            return Ok(plain.len());
        }
        padded(at + length as usize, plain)
    }

    /// Ends the tape, after the last frame.
    pub fn end(self, digests: Vec<(usize, Digest)>) -> Result<AllFound<'a>, ReadError> {
        let cut = |what: String| Err(ReadError::Broken { what, offset: 0 });
        if let Some(current) = self.current {
            return cut(format!("its tar ends within {:?}", String::from_utf8_lossy(&current.path)));
        }
        if !self.ended {
            return cut("its tar has no end".to_owned());
        }
        let Self { shared, frames, mut entries, links, directories, stages, unpacked, .. } = self;
        for (number, digest) in digests {
            entries[number].digest = Some(digest);
        }
        Ok(AllFound { shared, frames, entries, links, directories, stages, unpacked })
    }
}

/// Where a block begins behind a file's last byte: what lies between is zeros.
fn padded(end: usize, plain: &[u8]) -> Result<usize, ReadError> {
    let next = end.next_multiple_of(format::BLOCK);
    if plain[end..next].iter().any(|byte| *byte != 0) {
        return Err(ReadError::Broken { what: "there is data behind a file's end".to_owned(), offset: 0 });
    }
    Ok(next)
}

fn entry_of(head: &Head, place: Place) -> Entry {
    let stored = head.stored();
    let content = |size, sparse| Kind::File(Content { size, stored, sparse, digest: [0; 32], place });
    let kind = match &head.body {
        Body::Directory => Kind::Directory,
        Body::File { size } => content(*size, false),
        Body::Sparse { size, .. } => content(*size, true),
        Body::Symlink { target } => Kind::Symlink { target: target.clone() },
        Body::HardLink { target } => Kind::HardLink { target: target.clone() },
    };
    let Head { path, mode, mtime, uid, gid, .. } = head;
    Entry { path: path.clone(), mode: *mode, mtime: *mtime, uid: *uid, gid: *gid, kind }
}
