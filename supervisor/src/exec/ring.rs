//! A step's output on its way to the agent, as wire bytes, until the agent has acknowledged it.
//!
//! ```text
//!      head            cursor (of the connection)            tail
//!       │ frame │ frame │ frame … │ frame │ frame │ frame …   │
//!       └──── sent, not acknowledged ────┴──── to be sent ────┘        at most CAPACITY bytes
//! ```
//!
//! A read from the step's pipe goes straight behind a place left for the frame's header, and a connection is sent
//! the same bytes from here: no copy in between. Positions only grow; the place of a position is its distance to
//! `base`, modulo the capacity. Whenever nothing is left, `base` moves, so that small steps touch few pages.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _};

use navvy_protocol::frame::{self, FrameKind, OutputHeader, Stream};

use crate::sys::{self, Pages};

pub const CAPACITY: usize = 1 << 20;
/// Frame header and output header in front of every chunk.
const OVERHEAD: usize = frame::HEADER_LENGTH + OutputHeader::LENGTH;
/// Largest chunk: a quarter, so that acknowledging one makes room while others are under way.
const CHUNK: usize = CAPACITY / 4;
/// Least room for a read: with less, chunks would be very small.
const LEAST_ROOM: usize = 32 << 10;
/// An idle ring that has grown past this gives its pages back.
const IDLE_BYTES: u64 = 64 << 10;

pub struct Ring {
    /// Made with the first output.
    pages: Option<Pages>,
    base: u64,
    head: u64,
    tail: u64,
    /// The step's bytes before `head`'s frame, and before `tail`.
    forgotten: u64,
    output: u64,
    /// Where the newest frame starts, while it may still grow.
    newest: Option<u64>,
    /// Bytes touched since the pages were last given back.
    touched: u64,
}

/// Where to go on for an attach: the rest of a cut frame gets a header of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Resume {
    pub cursor: u64,
    pub header: Vec<u8>,
}

/// The newest frame while more is read into it.
#[derive(Clone, Copy)]
struct Grown {
    start: u64,
    bytes: usize,
}

impl Ring {
    pub fn new() -> Self {
        Self { pages: None, base: 0, head: 0, tail: 0, forgotten: 0, output: 0, newest: None, touched: 0 }
    }

    /// The step's bytes so far.
    pub fn output(&self) -> u64 {
        self.output
    }

    pub fn tail(&self) -> u64 {
        self.tail
    }

    pub fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    fn room(&self) -> usize {
        CAPACITY - (self.tail - self.head) as usize
    }

    /// Whether it is worth reading from the step.
    pub fn has_room(&self) -> bool {
        self.room() >= LEAST_ROOM
    }

    /// Reads one chunk. 0 at the end of the stream; an error as `read` gives it. What lies behind `cursor` was not
    /// sent, so the newest frame may grow there: a terminal gives 4 KiB at a time, and a frame for each would cost more
    /// than the bytes.
    pub fn fill(&mut self, stream: Stream, source: &File, limit: usize, cursor: u64) -> io::Result<usize> {
        let grown = self.growable(stream, cursor);
        let overhead = if grown.is_some() { 0 } else { OVERHEAD };
        let most = CHUNK - grown.map_or(0, |grown| grown.bytes);
        let wanted = limit.min(most).min(self.room().saturating_sub(overhead));
        if wanted == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (first, second) = self.spans(self.tail + overhead as u64, wanted);
        let pages = self.pages()?;
        let mut source = source;
        let count = if second == 0 {
            source.read(&mut pages[first..first + wanted])?
        } else {
            let (low, high) = pages.split_at_mut(first);
            source.read_vectored(&mut [IoSliceMut::new(high), IoSliceMut::new(&mut low[..second])])?
        };
        match grown {
            _ if count == 0 => {}
            Some(grown) => self.grow(grown, count),
            None => self.begin(stream, count),
        }
        Ok(count)
    }

    /// The newest frame, if it is of this stream, has room, and nothing of it was sent.
    fn growable(&self, stream: Stream, cursor: u64) -> Option<Grown> {
        let start = self.newest.filter(|start| *start >= cursor)?;
        let [old] = self.get(start + frame::HEADER_LENGTH as u64);
        let bytes = self.frame_at(start).1 as usize;
        (old == stream as u8 && bytes < CHUNK).then_some(Grown { start, bytes })
    }

    fn grow(&mut self, grown: Grown, count: usize) {
        let length = frame::header(FrameKind::Output, OutputHeader::LENGTH + grown.bytes + count);
        self.put(grown.start, &length);
        self.advance(count, count);
    }

    fn begin(&mut self, stream: Stream, count: usize) {
        let header = header(OutputHeader { stream, offset: self.output, nanoseconds: sys::monotonic() }, count);
        self.put(self.tail, &header);
        self.newest = Some(self.tail);
        self.advance(OVERHEAD + count, count);
    }

    /// What comes from now on begins a frame of its own.
    pub fn seal(&mut self) {
        self.newest = None;
    }

    fn advance(&mut self, wire: usize, count: usize) {
        self.tail += wire as u64;
        self.output += count as u64;
        self.touched = self.touched.max(self.tail - self.base);
    }

    /// The first place of a span and how much of it lies beyond the edge, at the beginning.
    fn spans(&self, position: u64, length: usize) -> (usize, usize) {
        let first = ((position - self.base) % CAPACITY as u64) as usize;
        (first, (first + length).saturating_sub(CAPACITY))
    }

    fn pages(&mut self) -> io::Result<&mut Pages> {
        if self.pages.is_none() {
            self.pages = Some(Pages::new(CAPACITY)?);
        }
        self.pages.as_mut().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn put(&mut self, position: u64, bytes: &[u8]) {
        let (first, second) = self.spans(position, bytes.len());
        let Some(pages) = &mut self.pages else { return };
        let split = bytes.len() - second;
        pages[first..first + split].copy_from_slice(&bytes[..split]);
        pages[..second].copy_from_slice(&bytes[split..]);
    }

    fn get<const N: usize>(&self, position: u64) -> [u8; N] {
        let mut bytes = [0; N];
        for (slice, place) in self.slices(position, position + N as u64).iter().scan(0, |done, slice| {
            let place = *done;
            *done += slice.len();
            Some((slice, place))
        }) {
            bytes[place..place + slice.len()].copy_from_slice(slice);
        }
        bytes
    }

    /// The wire bytes from one position to another, in one or two pieces.
    pub fn slices(&self, from: u64, to: u64) -> [IoSlice<'_>; 2] {
        let Some(pages) = &self.pages else { return [IoSlice::new(&[]), IoSlice::new(&[])] };
        let length = (to - from) as usize;
        let (first, second) = self.spans(from, length);
        [IoSlice::new(&pages[first..first + length - second]), IoSlice::new(&pages[..second])]
    }

    /// Length on the wire of the frame at a position, and the step's bytes in it.
    fn frame_at(&self, position: u64) -> (u64, u64) {
        let length = u64::from(u32::from_le_bytes(self.get(position))) + 4;
        (length, length - OVERHEAD as u64)
    }

    /// Forgets whole frames before `offset` that this connection was sent already.
    pub fn acknowledge(&mut self, offset: u64, cursor: u64) {
        while self.head < self.tail {
            let (length, bytes) = self.frame_at(self.head);
            if self.forgotten + bytes > offset || self.head + length > cursor {
                return;
            }
            self.head += length;
            self.forgotten += bytes;
        }
        self.base = self.tail;
        self.newest = None;
    }

    /// Where a connection that has everything before `offset` goes on. `None`: forgotten, or not written yet.
    pub fn resume(&self, offset: u64) -> Option<Resume> {
        if offset < self.forgotten || offset > self.output {
            return None;
        }
        let (mut cursor, mut before) = (self.head, self.forgotten);
        while cursor < self.tail {
            let (length, bytes) = self.frame_at(cursor);
            if before + bytes > offset {
                let skipped = offset - before;
                return Some(self.resume_within(cursor, skipped, bytes));
            }
            cursor += length;
            before += bytes;
        }
        Some(Resume { cursor, header: Vec::new() })
    }

    fn resume_within(&self, frame: u64, skipped: u64, bytes: u64) -> Resume {
        if skipped == 0 {
            return Resume { cursor: frame, header: Vec::new() };
        }
        let old: [u8; OutputHeader::LENGTH] = self.get(frame + frame::HEADER_LENGTH as u64);
        let rest = (bytes - skipped) as usize;
        let header = OutputHeader::split(&old)
            .map(|(old, _)| header(OutputHeader { offset: old.offset + skipped, ..old }, rest).to_vec())
            .unwrap_or_default();
        Resume { cursor: frame + OVERHEAD as u64 + skipped, header }
    }

    /// Worth calling [`Ring::rest`] after a while without output.
    pub fn is_bloated(&self) -> bool {
        self.is_empty() && self.touched > IDLE_BYTES
    }

    /// Gives the pages back.
    pub fn rest(&mut self) {
        if self.is_empty()
            && let Some(pages) = &mut self.pages
        {
            pages.forget();
            self.base = self.tail;
            self.touched = 0;
        }
    }
}

fn header(header: OutputHeader, bytes: usize) -> [u8; OVERHEAD] {
    let mut all = [0; OVERHEAD];
    all[..frame::HEADER_LENGTH].copy_from_slice(&frame::header(FrameKind::Output, OutputHeader::LENGTH + bytes));
    all[frame::HEADER_LENGTH..].copy_from_slice(&header.to_bytes());
    all
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// The step's bytes from a cursor on, as an agent would read them.
    fn read_all(ring: &Ring, resume: Resume) -> Vec<u8> {
        let mut wire = resume.header;
        for slice in ring.slices(resume.cursor, ring.tail()) {
            wire.extend_from_slice(&slice);
        }
        let (mut wire, mut buffer, mut bytes) = (wire.as_slice(), Vec::new(), Vec::new());
        let mut expected = None;
        while let Some(kind) = frame::read(&mut wire, &mut buffer).unwrap() {
            assert_eq!(kind, FrameKind::Output);
            let (header, chunk) = OutputHeader::split(&buffer).unwrap();
            assert_eq!(*expected.get_or_insert(header.offset), header.offset);
            expected = Some(header.offset + chunk.len() as u64);
            bytes.extend_from_slice(chunk);
        }
        bytes
    }

    fn noise(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        *seed >> 33
    }

    #[test]
    fn whatever_is_not_acknowledged_can_be_read_again_from_any_offset() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let source = File::from(std::os::fd::OwnedFd::from(reader));
        let (mut ring, mut sent, mut seed) = (Ring::new(), Vec::new(), 7);
        let (mut acknowledged, mut sent_to) = (0, 0);
        for _ in 0..400 {
            let length = noise(&mut seed) as usize % 40_000 + 1;
            let bytes: Vec<u8> = (0..length).map(|_| noise(&mut seed) as u8).collect();
            writer.write_all(&bytes).unwrap();
            let mut left = length;
            while left > 0 {
                if ring.has_room() {
                    left -= ring.fill(Stream::Stdout, &source, usize::MAX, sent_to).unwrap();
                } else {
                    acknowledged = ring.output() - noise(&mut seed) % 300_000;
                    ring.acknowledge(acknowledged, ring.tail());
                }
            }
            sent.extend_from_slice(&bytes);
            // Now and then everything is sent; frames grow only behind.
            sent_to = if noise(&mut seed).is_multiple_of(3) { ring.tail() } else { sent_to };
            let offset = acknowledged + noise(&mut seed) % (ring.output() - acknowledged + 1);
            let resume = ring.resume(offset).unwrap();
            assert_eq!(read_all(&ring, resume), &sent[offset as usize..]);
        }
        assert_eq!(ring.resume(ring.output() + 1), None);
        ring.acknowledge(ring.output(), ring.tail());
        assert!(ring.is_empty());
        assert_eq!(ring.resume(0), None);
        assert!(ring.resume(ring.output()).is_some());
    }

    #[test]
    fn small_chunks_share_a_frame_until_it_is_sent() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let source = File::from(std::os::fd::OwnedFd::from(reader));
        let mut ring = Ring::new();
        let mut add = |ring: &mut Ring, stream, cursor| {
            writer.write_all(b"abc").unwrap();
            ring.fill(stream, &source, usize::MAX, cursor).unwrap();
            ring.tail()
        };
        let one = (OVERHEAD + 3) as u64;
        assert_eq!(add(&mut ring, Stream::Stdout, 0), one);
        assert_eq!(add(&mut ring, Stream::Stdout, 0), one + 3);
        assert_eq!(add(&mut ring, Stream::Stderr, 0), 2 * one + 3);
        assert_eq!(add(&mut ring, Stream::Stderr, one + 4), 3 * one + 3);
        ring.seal();
        assert_eq!(add(&mut ring, Stream::Stderr, 0), 4 * one + 3);
        assert_eq!(read_all(&ring, ring.resume(0).unwrap()), b"abc".repeat(5));
    }

    #[test]
    fn nothing_unsent_is_forgotten() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let source = File::from(std::os::fd::OwnedFd::from(reader));
        let mut ring = Ring::new();
        writer.write_all(b"abc").unwrap();
        ring.fill(Stream::Stderr, &source, usize::MAX, 0).unwrap();
        ring.acknowledge(3, 0);
        assert_eq!(read_all(&ring, ring.resume(1).unwrap()), b"bc");
        ring.acknowledge(2, ring.tail());
        assert!(!ring.is_empty());
        ring.acknowledge(u64::MAX, ring.tail());
        assert!(ring.is_empty());
    }
}
