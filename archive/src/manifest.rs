//! The manifest: every frame and every entry as a record, in parts that are read one by one.
//!
//! ```text
//! part   skippable frame { zstd frame { record* } }            at most 1 MiB of plain bytes, 2 MiB in the archive
//! record 1 frame      offset n, compressed n, plain n, digest [32]
//!        2 directory  name…
//!        3 file       name…, size n, frame n, offset n, digest [32]
//!        4 symlink    name…, target
//!        5 hard link  name…, target
//!        6 sparse     name…, size n, stored n, frame n, offset n, digest [32]
//! name…  bytes shared with the path before n, rest of the path, mode n, seconds z, nanos n, uid n, gid n
//! text   length n, bytes
//! n      a number in groups of seven bits, lowest first, as short as it can be; z: the same of a signed one, zigzag
//! ```
//!
//! The first path of a part shares nothing. A frame's record stands before those of the entries that end in it.

use crate::codec::{self, Compressor};
use crate::entry::{Content, Digest, Entry, Kind, MODE_BITS, PATH_CAP, Place, Time, fault_of_path, fault_of_target};
use crate::format::{self, Announcement};

/// Plain bytes of a part at most.
pub const PART_CAP: usize = 1 << 20;
/// Bytes of a part's zstd frame at most.
pub const PART_COMPRESSED_CAP: usize = 2 << 20;
/// Far above the longest record: two paths and some numbers.
const RECORD_ROOM: usize = 2 * PATH_CAP + 256;
const LEVEL: i32 = 3;

/// A data frame as the manifest describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where its zstd frame begins, in the archive's bytes; its announcement stands right before.
    pub offset: u64,
    /// Length of the zstd frame, in bytes.
    pub compressed: u32,
    /// Length of what it unpacks to, in bytes.
    pub plain: u32,
    /// Digest of its compressed bytes.
    pub digest: Digest,
}

impl Frame {
    /// Behind its last byte.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.compressed)
    }

    pub(crate) fn announced(announcement: &Announcement, offset: u64) -> Self {
        let Announcement { compressed, plain, digest, .. } = *announcement;
        Self { offset, compressed, plain, digest }
    }
}

/// One record of a manifest. They stand in the order of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A data frame.
    Frame(Frame),
    /// An entry.
    Entry(Entry),
}

/// Gathers records into parts.
pub struct Writer {
    compressor: Compressor,
    plain: Vec<u8>,
    before: Vec<u8>,
    /// Whole parts with their heads, as they will stand in the archive.
    pub bytes: Vec<u8>,
    /// Entries that were added so far.
    pub entries: u64,
}

impl Writer {
    /// A manifest without records.
    pub fn new() -> Self {
        let compressor = Compressor::new(LEVEL);
        Self { compressor, plain: Vec::new(), before: Vec::new(), bytes: Vec::new(), entries: 0 }
    }

    /// Adds a data frame.
    pub fn frame(&mut self, frame: &Frame) {
        self.make_room();
        put_frame(&mut self.plain, frame);
    }

    /// Adds an entry.
    pub fn entry(&mut self, entry: &Entry) {
        self.make_room();
        put_entry(&mut self.plain, entry, &self.before);
        self.before.clone_from(&entry.path);
        self.entries += 1;
    }

    fn make_room(&mut self) {
        if self.plain.len() + RECORD_ROOM > PART_CAP {
            self.end_part();
        }
    }

    /// Needed once more at the end.
    pub fn end_part(&mut self) {
        if self.plain.is_empty() {
            return;
        }
        let mut part = Vec::new();
        self.compressor.compress(&self.plain, &mut part);
        self.bytes.extend_from_slice(&format::manifest_head(part.len()));
        self.bytes.extend_from_slice(&part);
        self.plain.clear();
        self.before.clear();
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

/// Every record of a part, given the part's zstd frame.
pub fn read_part(part: &[u8], each: &mut dyn FnMut(Record) -> Result<(), &'static str>) -> Result<(), &'static str> {
    let mut plain = Vec::new();
    codec::Decompressor::new().unpack_any(part, PART_CAP, &mut plain)?;
    let (mut rest, mut before) = (Bytes(&plain), Vec::new());
    while !rest.0.is_empty() {
        let record = rest.record(&before).ok_or("invalid record in its manifest")?;
        if let Record::Entry(entry) = &record {
            check(entry)?;
            before.clone_from(&entry.path);
        }
        each(record)?;
    }
    Ok(())
}

/// What an entry must be, wherever it was read.
fn check(entry: &Entry) -> Result<(), &'static str> {
    if let Some(fault) = fault_of_path(&entry.path) {
        return Err(fault);
    }
    if entry.mode & !MODE_BITS != 0 || entry.mtime.nanos >= 1_000_000_000 {
        return Err("invalid mode or time in its manifest");
    }
    let fault = match &entry.kind {
        Kind::Symlink { target } => fault_of_target(target),
        Kind::HardLink { target } => fault_of_path(target),
        Kind::File(content) if !content.sparse && content.size != content.stored => Some("a file has two sizes"),
        _ => None,
    };
    fault.map_or(Ok(()), Err)
}

const FRAME: u8 = 1;
const DIRECTORY: u8 = 2;
const FILE: u8 = 3;
const SYMLINK: u8 = 4;
const HARD_LINK: u8 = 5;
const SPARSE: u8 = 6;

fn put_frame(to: &mut Vec<u8>, frame: &Frame) {
    to.push(FRAME);
    put(to, frame.offset);
    put(to, frame.compressed.into());
    put(to, frame.plain.into());
    to.extend_from_slice(&frame.digest);
}

/// Appends an entry's record. `before` is the path of the entry before it; empty for an entry by itself.
pub fn put_entry(to: &mut Vec<u8>, entry: &Entry, before: &[u8]) {
    to.push(match &entry.kind {
        Kind::Directory => DIRECTORY,
        Kind::File(Content { sparse: false, .. }) => FILE,
        Kind::File(_) => SPARSE,
        Kind::Symlink { .. } => SYMLINK,
        Kind::HardLink { .. } => HARD_LINK,
    });
    let shared = entry.path.iter().zip(before).take_while(|(one, other)| one == other).count();
    put(to, shared as u64);
    put_text(to, &entry.path[shared..]);
    put(to, entry.mode.into());
    put(to, zigzag(entry.mtime.seconds));
    put(to, entry.mtime.nanos.into());
    put(to, entry.uid.into());
    put(to, entry.gid.into());
    match &entry.kind {
        Kind::Directory => {}
        Kind::Symlink { target } | Kind::HardLink { target } => put_text(to, target),
        Kind::File(content) => {
            put(to, content.size);
            if content.sparse {
                put(to, content.stored);
            }
            put(to, content.place.frame.into());
            put(to, content.place.offset.into());
            to.extend_from_slice(&content.digest);
        }
    }
}

fn put(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn put_text(to: &mut Vec<u8>, text: &[u8]) {
    put(to, text.len() as u64);
    to.extend_from_slice(text);
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Being taken from the front. `None`: not what is due.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7f);
            if group << shift >> shift != group {
                return None;
            }
            number |= group << shift;
            if byte & 0x80 == 0 {
                // Only the shortest form: one number, one text.
                return (byte != 0 || shift == 0).then_some(number);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.small()? as usize;
        if length <= PATH_CAP { self.take(length) } else { None }
    }

    fn digest(&mut self) -> Option<Digest> {
        self.take(32)?.try_into().ok()
    }

    fn record(&mut self, before: &[u8]) -> Option<Record> {
        match self.byte()? {
            FRAME => {
                let (offset, compressed, plain) = (self.number()?, self.small()?, self.small()?);
                Some(Record::Frame(Frame { offset, compressed, plain, digest: self.digest()? }))
            }
            tag => self.entry(tag, before).map(Record::Entry),
        }
    }

    fn entry(&mut self, tag: u8, before: &[u8]) -> Option<Entry> {
        let shared = self.small()? as usize;
        let path = [before.get(..shared)?, self.text()?].concat();
        let mode = self.small()?;
        let mtime = Time { seconds: unzigzag(self.number()?), nanos: self.small()? };
        let (uid, gid) = (self.small()?, self.small()?);
        let kind = match tag {
            DIRECTORY => Kind::Directory,
            FILE => Kind::File(self.content(false)?),
            SPARSE => Kind::File(self.content(true)?),
            SYMLINK => Kind::Symlink { target: self.text()?.to_vec() },
            HARD_LINK => Kind::HardLink { target: self.text()?.to_vec() },
            _ => return None,
        };
        Some(Entry { path, mode, mtime, uid, gid, kind })
    }

    fn content(&mut self, sparse: bool) -> Option<Content> {
        let size = self.number()?;
        let stored = if sparse { self.number()? } else { size };
        let place = Place { frame: self.small()?, offset: self.small()? };
        Some(Content { size, stored, sparse, digest: self.digest()?, place })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        let mtime = Time { seconds: -5, nanos: 999_999_999 };
        Entry { path: path.into(), mode: 0o4755, mtime, uid: 3434, gid: u32::MAX, kind }
    }

    fn content(sparse: bool) -> Kind {
        let (size, stored) = if sparse { (1 << 50, 7) } else { (300, 300) };
        Kind::File(Content { size, stored, sparse, digest: [3; 32], place: Place { frame: 4, offset: 512 } })
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<Record>, &'static str> {
        let (mut records, mut rest) = (Vec::new(), bytes);
        while let Some((head, behind)) = rest.split_first_chunk() {
            let (section, length) = format::section(*head).ok_or("no head")?;
            assert_eq!(section, format::Section::Manifest);
            read_part(&behind[..length], &mut |record| {
                records.push(record);
                Ok(())
            })?;
            rest = &behind[length..];
        }
        Ok(records)
    }

    #[test]
    fn what_is_written_is_read() {
        let frame = Frame { offset: 65, compressed: 100, plain: 512, digest: [1; 32] };
        let entries = [
            entry("", Kind::Directory),
            entry("a", Kind::Directory),
            entry("a/b", content(false)),
            entry("a/bc", content(true)),
            entry("a/c", Kind::Symlink { target: b"../../x".to_vec() }),
            entry("a/d", Kind::HardLink { target: b"a/b".to_vec() }),
        ];
        let mut writer = Writer::new();
        writer.frame(&frame);
        entries.iter().for_each(|entry| writer.entry(entry));
        writer.end_part();
        let read = read_all(&writer.bytes).unwrap();
        let expected: Vec<Record> = [Record::Frame(frame)].into_iter().chain(entries.map(Record::Entry)).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn long_manifests_are_cut_into_parts_within_the_cap() {
        let mut writer = Writer::new();
        let paths: Vec<String> =
            (0..40_000).map(|number| "directory/".repeat(number % 9) + &number.to_string()).collect();
        paths.iter().for_each(|path| writer.entry(&entry(path, content(false))));
        writer.end_part();
        let read = read_all(&writer.bytes).unwrap();
        assert_eq!(read.len(), paths.len());
        assert!(read.iter().zip(&paths).all(|(record, path)| *record == Record::Entry(entry(path, content(false)))));
    }

    #[test]
    fn a_number_has_one_form() {
        assert_eq!(Bytes(&[0x80, 0x00]).number(), None, "zero in two bytes");
        assert_eq!(Bytes(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).number(), Some(u64::MAX));
        assert_eq!(Bytes(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03]).number(), None);
        assert_eq!(Bytes(&[0x80; 20]).number(), None);
    }

    proptest! {
        #[test]
        fn numbers_round_trip(number: u64, signed: i64) {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            prop_assert_eq!(Bytes(&bytes).number(), Some(number));
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }

        #[test]
        fn whatever_is_read_as_records_never_panics(bytes: Vec<u8>) {
            let mut rest = Bytes(&bytes);
            while !rest.0.is_empty() && rest.record(b"before").is_some() {}
        }
    }
}
