//! The index beside a log, as bytes. Pure: no clock, no file.
//!
//! ```text
//! NNN-A.seg:   header  segment  segment  …  segment  seal
//! NNN-A.log:           └ bytes ┘└ bytes ┘…  └ bytes ┘
//! ```
//!
//! All numbers are little endian; every record ends with the CRC-32 of its other bytes.
//!
//! ```text
//! header  32 bytes   0 magic "navvyseg"   8 version u32   12 zero u32   16 unix_ns u64   24 zero u32   28 crc u32
//! segment 32 bytes   0 kind 1 u8   1 stream u8   2 zero u16   4 crc of the log's bytes u32
//!                    8 end u64   16 ns u64   24 length u32   28 crc u32
//! seal    64 bytes   0 kind 2 u8   1 zero [7]   8 total u64   16 zero u64   24 sha256 [32]   56 zero u32   60 crc u32
//! ```
//!
//! `unix_ns` is the wall clock when the first segment's first byte was taken, so that every `ns` (a monotonic clock) has
//! a time of day. A segment covers the log's bytes `end - length .. end`.
//!
//! Invariants, which the writer ([`super::StepLog`]) keeps and the reader ([`super::reader`]) relies on:
//!
//! 1. Both files are only ever appended to. What was cut off in a write is taken back before the next one.
//! 2. The log's bytes are written first, their record after them: a record never covers bytes that are not in the log.
//! 3. Segments follow each other without a gap or an overlap, the first starts at 0, and none is empty.
//! 4. A seal comes once, last, when the writer is done; its total is the log's length and the last segment's end.
//! 5. What lies behind the last record of an index without a seal is *unsealed*: its writer lives, or died.
//! 6. A log without a byte has no index.

use navvy_protocol::frame::Stream;

/// Bytes of a header, of a segment's record, and of half a seal.
pub const SLOT: usize = 32;
/// No segment is longer: what a reader must hold at once.
pub const MAX_SEGMENT: usize = 256 << 10;

const MAGIC: &[u8; 8] = b"navvyseg";
const VERSION: u32 = 1;
const SEGMENT: u8 = 1;
const SEAL: u8 = 2;

/// The start of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Nanoseconds since 1970 (UTC) of the log's first byte.
    pub unix_ns: u64,
}

/// A stretch of the log that came from one stream within a short time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Stream that the bytes came from.
    pub stream: Stream,
    /// Offset in the log behind its last byte.
    pub end: u64,
    /// Length in bytes, from 1 to [`MAX_SEGMENT`].
    pub length: u32,
    /// Monotonic clock of its first byte.
    pub ns: u64,
    /// CRC-32 of the log's bytes.
    pub crc: u32,
}

/// The end of a log whose writer was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// Bytes of the log.
    pub total: u64,
    /// Digest of the whole log.
    pub sha256: [u8; 32],
}

impl Header {
    /// The header as it stands in the index.
    pub fn encode(self) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.unix_ns.to_le_bytes());
        closed(bytes)
    }

    /// `None` for anything that [`Header::encode`] does not make.
    pub fn decode(bytes: &[u8; SLOT]) -> Option<Self> {
        let header = Self { unix_ns: u64_at(bytes, 16) };
        (header.encode() == *bytes).then_some(header)
    }
}

impl Segment {
    /// The segment as it stands in the index.
    pub fn encode(self) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        put(&mut bytes, 0, &[SEGMENT, stream_code(self.stream)]);
        put(&mut bytes, 4, &self.crc.to_le_bytes());
        put(&mut bytes, 8, &self.end.to_le_bytes());
        put(&mut bytes, 16, &self.ns.to_le_bytes());
        put(&mut bytes, 24, &self.length.to_le_bytes());
        closed(bytes)
    }

    /// `None` for anything that no writer makes.
    pub fn decode(bytes: &[u8; SLOT]) -> Option<Self> {
        let segment = Self {
            stream: if bytes.get(1) == Some(&1) { Stream::Stderr } else { Stream::Stdout },
            end: u64_at(bytes, 8),
            length: u32_at(bytes, 24),
            ns: u64_at(bytes, 16),
            crc: u32_at(bytes, 4),
        };
        let length = usize::try_from(segment.length).unwrap_or(usize::MAX);
        let possible = (1..=MAX_SEGMENT).contains(&length) && u64::from(segment.length) <= segment.end;
        (possible && segment.encode() == *bytes).then_some(segment)
    }

    /// Offset in the log of its first byte.
    pub fn start(&self) -> u64 {
        self.end.saturating_sub(u64::from(self.length))
    }
}

impl Seal {
    /// The seal as it stands in the index.
    pub fn encode(self) -> [u8; 2 * SLOT] {
        let mut bytes = [0; 2 * SLOT];
        put(&mut bytes, 0, &[SEAL]);
        put(&mut bytes, 8, &self.total.to_le_bytes());
        put(&mut bytes, 24, &self.sha256);
        closed(bytes)
    }

    /// Whether a record that begins so may be a seal, and so has a second half.
    pub fn begins(bytes: &[u8; SLOT]) -> bool {
        bytes.first() == Some(&SEAL)
    }

    /// `None` for anything that no writer makes.
    pub fn decode(first: &[u8; SLOT], second: &[u8; SLOT]) -> Option<Self> {
        let mut bytes = [0; 2 * SLOT];
        put(&mut bytes, 0, first);
        put(&mut bytes, SLOT, second);
        let mut sha256 = [0; 32];
        put(&mut sha256, 0, bytes.get(24..56)?);
        let seal = Self { total: u64_at(&bytes, 8), sha256 };
        (seal.encode() == bytes).then_some(seal)
    }

    /// Hexadecimal, as `sha256sum` prints it.
    pub fn hex(&self) -> String {
        hex(&self.sha256)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn stream_code(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// The record with its crc in its last four bytes.
fn closed<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    let body = N.saturating_sub(4);
    let crc = crc32fast::hash(bytes.get(..body).unwrap_or_default());
    put(&mut bytes, body, &crc.to_le_bytes());
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|found| found.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|found| found.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn halves(bytes: [u8; 2 * SLOT]) -> ([u8; SLOT], [u8; SLOT]) {
        let (first, second) = bytes.split_at(SLOT);
        (first.try_into().unwrap(), second.try_into().unwrap())
    }

    #[test]
    fn records_come_back_as_they_were() {
        let header = Header { unix_ns: 7 };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        let segment = Segment { stream: Stream::Stderr, end: 12, length: 5, ns: 99, crc: 3 };
        assert_eq!(Segment::decode(&segment.encode()), Some(segment));
        let seal = Seal { total: 12, sha256: [9; 32] };
        let (first, second) = halves(seal.encode());
        assert!(Seal::begins(&first) && !Seal::begins(&segment.encode()));
        assert_eq!(Seal::decode(&first, &second), Some(seal));
    }

    #[test]
    fn what_no_writer_makes_is_no_record() {
        let segment = Segment { stream: Stream::Stdout, end: 12, length: 5, ns: 99, crc: 3 };
        for odd in [
            Segment { length: 0, ..segment },
            Segment { length: 13, ..segment },
            Segment { end: 1 << 40, length: MAX_SEGMENT as u32 + 1, ..segment },
        ] {
            assert_eq!(Segment::decode(&odd.encode()), None, "{odd:?}");
        }
        assert_eq!(Header::decode(&[0; SLOT]), None);
        assert_eq!(Seal::decode(&[0; SLOT], &[0; SLOT]), None);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_makes_any_record_none(bit in 0..SLOT * 8, end in 5_u64..1 << 40, crc: u32, ns: u64) {
            let flipped = |mut bytes: [u8; SLOT]| { bytes[bit / 8] ^= 1 << (bit % 8); bytes };
            let segment = Segment { stream: Stream::Stdout, end, length: 5, ns, crc };
            prop_assert_eq!(Segment::decode(&flipped(segment.encode())), None);
            prop_assert_eq!(Header::decode(&flipped(Header { unix_ns: ns }.encode())), None);
            let (first, second) = halves(Seal { total: end, sha256: [7; 32] }.encode());
            prop_assert_eq!(Seal::decode(&flipped(first), &second), None);
            prop_assert_eq!(Seal::decode(&first, &flipped(second)), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(first: [u8; SLOT], second: [u8; SLOT]) {
            Header::decode(&first);
            Segment::decode(&first);
            Seal::decode(&first, &second);
        }
    }
}
