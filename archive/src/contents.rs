//! What is in an archive, from its end; and one file's bytes out of the frame that holds them.
//!
//! ```text
//! last bytes ──▶ Footer::decode ──▶ the manifest's bytes ──▶ Contents::read ──▶ find ──▶ pieces ──▶ frames' bytes
//!                                                                                          open_frame ──▶ the file
//! ```
//!
//! Nothing here reads a file or a network: the caller brings the bytes that are asked for, whole objects or ranges.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use crate::codec::Decompressor;
use crate::entry::{Content, Entry, Kind};
use crate::error::ReadError;
use crate::format::{self, ANNOUNCEMENT, Announcement, FRAMES_CAP, Footer, HEAD, START, Section};
use crate::manifest::{self, Frame, PART_COMPRESSED_CAP, Record};
use crate::sparse::Map;

/// A manifest, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The archive's end, which says where the manifest is.
    pub footer: Footer,
    /// Data frames, in the order of the archive.
    pub frames: Vec<Frame>,
    /// Entries, in the order of the archive.
    pub entries: Vec<Entry>,
    /// Where each frame begins in the tar, and where the tar ends.
    starts: Vec<u64>,
}

/// Bytes of a file that stand in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Index among [`Contents::frames`].
    pub frame: usize,
    /// In the frame's plain bytes.
    pub offset: usize,
    /// In bytes.
    pub length: usize,
}

/// Calls `each` for every record of a manifest, one after another, and holds the manifest against its footer and its
/// frames against each other. Takes memory for one part at a time. What the caller keeps is the caller's affair: a
/// manifest of a hostile job may be as long as an archive may be.
///
/// `manifest`: the bytes that the footer names.
pub fn each_record(
    footer: &Footer,
    manifest: &[u8],
    each: &mut dyn FnMut(Record) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    if manifest.len() as u64 != footer.manifest_length || format::digest(manifest) != footer.manifest_digest {
        return Err(ReadError::Damaged { what: "its manifest".into() });
    }
    let mut check = Check { next: START.len() as u64, ..Check::default() };
    let (mut rest, mut failed) = (manifest, None);
    while let Some((head, behind)) = rest.split_first_chunk::<HEAD>() {
        let part = match format::section(*head) {
            Some((Section::Manifest, length)) if length <= PART_COMPRESSED_CAP => behind.get(..length),
            _ => None,
        };
        let part = part.ok_or_else(|| broken("invalid part in its manifest"))?;
        manifest::read_part(part, &mut |record| {
            check.take(&record)?;
            if failed.is_none() {
                failed = each(record).err();
            }
            Ok(())
        })
        .map_err(broken)?;
        if let Some(failed) = failed {
            return Err(failed);
        }
        rest = &behind[part.len()..];
    }
    let ends = rest.is_empty() && check.next == footer.manifest_offset;
    if !ends || (check.frames, check.entries, check.plain) != (footer.frames, footer.entries, footer.plain) {
        return Err(broken("its manifest and its footer differ"));
    }
    Ok(())
}

fn broken(what: &str) -> ReadError {
    ReadError::Broken { what: what.to_owned(), offset: 0 }
}

/// Frames follow each other without gap or overlap.
#[derive(Default)]
struct Check {
    /// Where the next announcement must stand.
    next: u64,
    frames: u64,
    entries: u64,
    plain: u64,
}

impl Check {
    fn take(&mut self, record: &Record) -> Result<(), &'static str> {
        let Record::Frame(frame) = record else {
            self.entries += 1;
            return Ok(());
        };
        let Frame { offset, compressed, plain, digest } = *frame;
        let number = u32::try_from(self.frames).unwrap_or(FRAMES_CAP);
        let is_possible = Announcement { frame: number, compressed, plain, digest }.is_possible();
        if !is_possible || offset != self.next + ANNOUNCEMENT as u64 {
            return Err("a frame of its manifest overlaps another, or there is a gap");
        }
        self.next = frame.end();
        self.frames += 1;
        self.plain += u64::from(plain);
        Ok(())
    }
}

impl Contents {
    /// Reads a whole manifest into memory, at most `entries_cap` entries.
    pub fn read(footer: Footer, manifest: &[u8], entries_cap: u64) -> Result<Self, ReadError> {
        let (mut frames, mut entries) = (Vec::new(), Vec::new());
        if footer.entries > entries_cap {
            return Err(ReadError::Quota { limit: entries_cap, of: "entries" });
        }
        each_record(&footer, manifest, &mut |record| {
            match record {
                Record::Frame(frame) => frames.push(frame),
                Record::Entry(entry) if (entries.len() as u64) < entries_cap => entries.push(entry),
                Record::Entry(_) => return Err(ReadError::Quota { limit: entries_cap, of: "entries" }),
            }
            Ok(())
        })?;
        let mut starts = vec![0];
        for frame in &frames {
            starts.push(starts[starts.len() - 1] + u64::from(frame.plain));
        }
        let contents = Self { footer, frames, entries, starts };
        contents.check_places()?;
        Ok(contents)
    }

    /// Every file's bytes stand within the frames.
    fn check_places(&self) -> Result<(), ReadError> {
        for entry in &self.entries {
            let Kind::File(content) = &entry.kind else { continue };
            let frame = content.place.frame as usize;
            let within = self.frames.get(frame).is_some_and(|frame| content.place.offset <= frame.plain);
            let end = || (self.starts[frame] + u64::from(content.place.offset)).checked_add(content.stored);
            if !within || end().is_none_or(|end| end > self.footer.plain) {
                return Err(ReadError::entry(&entry.path, "its bytes lie outside the frames"));
            }
        }
        Ok(())
    }

    /// The entry of this path; for a hard link the file that it names.
    pub fn find(&self, path: &[u8]) -> Option<&Entry> {
        let entry = |path: &[u8]| self.entries.iter().find(|entry| entry.path == path);
        let found = entry(path)?;
        match &found.kind {
            Kind::HardLink { target } => entry(target),
            _ => Some(found),
        }
    }

    /// Where a file's stored bytes are: one span, or several in frames that follow each other. None for an empty file.
    pub fn spans(&self, content: &Content) -> Vec<Span> {
        let (mut frame, mut offset) = (content.place.frame as usize, content.place.offset as usize);
        let (mut left, mut spans) = (content.stored, Vec::new());
        while left > 0 && frame < self.frames.len() {
            let here = (self.frames[frame].plain as usize).saturating_sub(offset);
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(here);
            if length > 0 {
                spans.push(Span { frame, offset, length });
            }
            (frame, offset, left) = (frame + 1, 0, left - length as u64);
        }
        spans
    }

    /// Writes a file's bytes to `sink`, holes as zeros, and holds them against the file's digest. `fetch` brings a
    /// frame's compressed bytes; a frame at a time is in memory. When it fails, `sink` may have got a part.
    pub fn copy_file(
        &self,
        content: &Content,
        fetch: &mut dyn FnMut(&Frame) -> io::Result<Vec<u8>>,
        sink: &mut dyn Write,
    ) -> Result<(), ReadError> {
        let (mut digest, mut sparse) = (Sha256::new(), None);
        for (index, span) in self.spans(content).into_iter().enumerate() {
            let frame = &self.frames[span.frame];
            let plain = open_frame(frame, &fetch(frame).map_err(ReadError::Source)?)?;
            let mut bytes = &plain[span.offset..span.offset + span.length];
            digest.update(bytes);
            if content.sparse && index == 0 {
                let (map, length) = Map::decode(content.size, bytes).map_err(broken)?;
                bytes = &bytes[length..];
                sparse = Some(Spread::new(map));
            }
            match &mut sparse {
                Some(spread) => spread.write(bytes, sink),
                None => sink.write_all(bytes),
            }
            .map_err(ReadError::Source)?;
        }
        if let Some(spread) = sparse {
            spread.end(sink).map_err(ReadError::Source)?;
        }
        if content.digest != format::Digest::from(digest.finalize()) {
            return Err(ReadError::Damaged { what: "the file".into() });
        }
        Ok(())
    }
}

/// A frame's plain bytes, given the compressed ones, which are held against its digest first.
pub fn open_frame(frame: &Frame, compressed: &[u8]) -> Result<Vec<u8>, ReadError> {
    if compressed.len() != frame.compressed as usize || format::digest(compressed) != frame.digest {
        return Err(ReadError::Damaged { what: format!("the frame at byte {}", frame.offset) });
    }
    let mut plain = Vec::new();
    Decompressor::new().unpack(compressed, frame.plain as usize, &mut plain).map_err(broken)?;
    Ok(plain)
}

/// A sparse file as its reader sees it: the bytes between its holes come in, in any pieces, and go out with the holes.
pub struct Spread {
    map: Map,
    /// Data bytes so far.
    from: u64,
    written: u64,
}

impl Spread {
    /// Starts with the map of the sparse file, before any data.
    pub fn new(map: Map) -> Self {
        Self { map, from: 0, written: 0 }
    }

    /// The next stored bytes behind the map.
    pub fn write(&mut self, bytes: &[u8], sink: &mut dyn Write) -> io::Result<()> {
        for (at, piece) in self.map.cut(self.from, bytes.len() as u64) {
            zeros(piece.offset - self.written, sink)?;
            sink.write_all(&bytes[at..at + piece.length as usize])?;
            self.written = piece.end();
        }
        self.from += bytes.len() as u64;
        Ok(())
    }

    /// The hole at its end.
    pub fn end(self, sink: &mut dyn Write) -> io::Result<()> {
        zeros(self.map.size - self.written, sink)
    }
}

fn zeros(mut count: u64, sink: &mut dyn Write) -> io::Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    while count > 0 {
        let now = count.min(ZEROS.len() as u64);
        sink.write_all(&ZEROS[..now as usize])?;
        count -= now;
    }
    Ok(())
}
