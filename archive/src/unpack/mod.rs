//! An archive into the file system, as it comes, on several threads.
//!
//! ```text
//!          ┌──────────── each worker, frame by frame ─────────────┐
//!  source ─▶ read │ verify, decompress │ understand │ write files  │ … then, alone: the manifest held against
//!          │ one  │ side by side       │ in order,  │ side by side │   what was found, hard links, modes and
//!          │ at a │                    │ one at a   │              │   times of directories
//!          │ time │                    │ time       │              │
//!          └──────┴────────────────────┴────────────┴──────────────┘
//! ```
//!
//! No byte of a frame is used before its digest fits. No two entries may have one place, none may stand below something
//! that is not a directory: so workers never meet at one path, and no entry can change what another one meant.
//! Directories are reached beneath their root only, never through a link; a file is written under a name of ours beside
//! its place, and renamed, or so is the whole directory where there was none ([`stage`]). What was in the way of a file or
//! link goes, directories stay with all that they hold. The data of a large file is written by several workers, its digest
//! goes from one to the next.

mod read;
mod stage;
mod write;

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::beneath::Root;
use crate::codec::Decompressor;
use crate::entry::{Digest, Kind};
use crate::error::ReadError;
use crate::format;
use crate::frames::FrameReader;
use crate::manifest::{self, Record};
use read::{Op, Tape, fingerprint};
use write::{Shared, Writer};

/// Where an entry goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Index of one of the roots.
    pub root: usize,
    /// Path below that root. Empty: the root itself, which stays as it is.
    pub path: Vec<u8>,
}

/// How much an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the tar, where a sparse file counts with the size that its reader sees.
    pub bytes: u64,
    /// Number of entries.
    pub entries: u64,
}

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Threads that take turns to read and unpack at the same time; 0 counts as 1.
    pub threads: usize,
    /// What makes it an error to go on.
    pub limits: Limits,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries written; those that were passed over are left out.
    pub entries: u64,
    /// Bytes written to files, holes not counted.
    pub bytes: u64,
    /// Entries that were passed over because they have no place.
    pub skipped: u64,
    /// Extended attributes that the file system did not take.
    pub attributes_lost: u64,
}

/// Unpacks beneath `roots`; `place` says where an entry of this path goes, or `None` to pass over it. It is asked again
/// for the path that a hard link names, which must have been unpacked, too.
///
/// What was written to directories that were there stays after an error, each file whole or not there; a directory that was
/// not there is whole or not there. Modes of the process's umask are not applied.
pub fn unpack(
    source: impl Read + Send,
    roots: &[Root],
    options: &Options,
    place: &mut (dyn FnMut(&[u8]) -> Option<Placement> + Send),
) -> Result<Unpacked, ReadError> {
    run(source, roots, options, place, false)
}

/// Reads a whole archive and holds everything in it against its digests and its manifest, without writing anything.
pub fn verify(source: impl Read + Send, options: &Options) -> Result<Unpacked, ReadError> {
    run(source, &[], options, &mut |_| None, true)
}

fn run(
    source: impl Read + Send,
    roots: &[Root],
    options: &Options,
    place: &mut (dyn FnMut(&[u8]) -> Option<Placement> + Send),
    digest_all: bool,
) -> Result<Unpacked, ReadError> {
    let shared = Shared::new(roots);
    let tape = Tape::new(&shared, place, options.limits, digest_all);
    let source = FrameReader::new(source)?;
    let line = Line {
        source: Mutex::new(source),
        turn: Mutex::new(Turn { next: 0, tape, failed: None, stopped: false }),
        turned: Condvar::new(),
        limits: options.limits,
    };
    let digests = thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..options.threads.max(1) {
            let work = || line.work(Writer::new(&shared));
            match thread::Builder::new().spawn_scoped(scope, work) {
                Ok(worker) => workers.push(worker),
                Err(error) => line.fail(ReadError::Thread(error)),
            }
        }
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect::<Vec<_>>()
    });
    let source = line.source.into_inner().unwrap_or_else(PoisonError::into_inner);
    let turn = line.turn.into_inner().unwrap_or_else(PoisonError::into_inner);
    match turn.failed {
        Some(failed) => Err(failed),
        None => finish(source, turn.tape, digests),
    }
}

/// Everything that comes when all data is written.
fn finish<R: Read>(
    mut source: FrameReader<R>,
    tape: Tape<'_>,
    digests: Vec<(usize, Digest)>,
) -> Result<Unpacked, ReadError> {
    let found = tape.end(digests)?;
    let (mut part, mut frames, mut entries) = (Vec::new(), 0, 0);
    while source.part(&mut part)?.is_some() {
        let mut wrong = None;
        let read = manifest::read_part(&part, &mut |record| {
            let is_so = match &record {
                Record::Frame(frame) => found.frames.get(frames) == Some(frame),
                Record::Entry(entry) => found.entries.get(entries).is_some_and(|found| {
                    let told = if let Kind::File(content) = &entry.kind { Some(content.digest) } else { None };
                    found.fingerprint == fingerprint(entry) && found.digest.is_none_or(|digest| Some(digest) == told)
                }),
            };
            match record {
                _ if wrong.is_some() => {}
                Record::Frame(_) if is_so => frames += 1,
                Record::Entry(_) if is_so => entries += 1,
                Record::Frame(_) => wrong = Some(Vec::new()),
                Record::Entry(entry) => wrong = Some(entry.path),
            }
            Ok(())
        });
        read.map_err(broken)?;
        if let Some(path) = wrong {
            return Err(ReadError::entry(&path, "the manifest contradicts the archive's data"));
        }
    }
    let footer = source.footer()?;
    if frames != found.frames.len() || entries != found.entries.len() || footer.entries != entries as u64 {
        return Err(broken("its manifest is incomplete"));
    }
    found.shared.finish(&found.links, &found.directories, &found.stages)?;
    let Unpacked { entries, skipped, .. } = found.unpacked;
    let (bytes, attributes_lost) = found.shared.counts();
    Ok(Unpacked { entries, skipped, bytes, attributes_lost })
}

fn broken(what: &str) -> ReadError {
    ReadError::Broken { what: what.to_owned(), offset: 0 }
}

/// What the workers share.
struct Line<'a, R> {
    source: Mutex<FrameReader<R>>,
    turn: Mutex<Turn<'a>>,
    /// Another frame's turn has come, or none's ever will.
    turned: Condvar,
    limits: Limits,
}

struct Turn<'a> {
    /// The frame whose turn it is.
    next: u32,
    tape: Tape<'a>,
    failed: Option<ReadError>,
    stopped: bool,
}

impl<'a, R: Read + Send> Line<'a, R> {
    /// A worker's life: the digests of files that ended with it, by their entry's number.
    fn work(&self, mut writer: Writer<'_>) -> Vec<(usize, Digest)> {
        let mut digests = Vec::new();
        let worked = catch_unwind(AssertUnwindSafe(|| self.frames(&mut writer, &mut digests)));
        match worked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(error),
            Err(_) => self.fail(ReadError::Bug),
        }
        digests
    }

    fn frames(&self, writer: &mut Writer<'_>, digests: &mut Vec<(usize, Digest)>) -> Result<(), ReadError> {
        let (mut compressed, mut plain, mut decompressor) = (Vec::new(), Vec::new(), Decompressor::new());
        loop {
            let Some((announced, frame)) = self.next(&mut compressed)? else { return Ok(()) };
            let number = announced.frame;
            if format::digest(&compressed) != announced.digest {
                return Err(ReadError::Damaged { what: format!("frame {number}") });
            }
            decompressor
                .unpack(&compressed, announced.plain as usize, &mut plain)
                .map_err(|what| ReadError::Broken { what: what.to_owned(), offset: frame.offset })?;
            let Some(mut ops) = self.in_turn(number, |tape| tape.frame(frame, &plain))? else { return Ok(()) };
            // Other workers wait for the digests of large files.
            ops.sort_by_key(|op| !matches!(op, Op::Piece(_)));
            for op in ops {
                writer.carry_out(op, &plain, digests)?;
            }
        }
    }

    fn next(&self, compressed: &mut Vec<u8>) -> Result<Option<(format::Announcement, manifest::Frame)>, ReadError> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if self.turn().stopped {
            return Ok(None);
        }
        let next = source.frame(compressed)?;
        // The limit is checked before anything is decompressed.
        if source.plain() > self.limits.bytes {
            return Err(ReadError::Quota { limit: self.limits.bytes, of: "bytes" });
        }
        Ok(next)
    }

    /// `None`: another worker has failed.
    fn in_turn<T>(
        &self,
        number: u32,
        work: impl FnOnce(&mut Tape<'a>) -> Result<T, ReadError>,
    ) -> Result<Option<T>, ReadError> {
        let waiting = |turn: &mut Turn<'_>| turn.next != number && !turn.stopped;
        let mut turn = self.turned.wait_while(self.turn(), waiting).unwrap_or_else(PoisonError::into_inner);
        if turn.stopped {
            return Ok(None);
        }
        let result = work(&mut turn.tape)?;
        turn.next += 1;
        drop(turn);
        self.turned.notify_all();
        Ok(Some(result))
    }

    fn turn(&self) -> MutexGuard<'_, Turn<'a>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only the first failure is reported.
    fn fail(&self, error: ReadError) {
        let mut turn = self.turn();
        turn.stopped = true;
        turn.failed.get_or_insert(error);
        drop(turn);
        self.turned.notify_all();
    }
}
