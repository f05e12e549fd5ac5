//! The map at the beginning of a sparse file's stored bytes, as GNU tar's format 1.0 has it: what lies between the holes.
//!
//! ```text
//! COUNT\n (OFFSET\n LENGTH\n)*   padded to 512 with zeros; then the pieces themselves, without gaps
//! ```
//!
//! Pieces are whole blocks of the file, but for its end. A file that ends with a hole has an empty last piece there.

use crate::format::BLOCK;

/// Pieces of a map; a file with more has its smallest holes filled with zeros.
pub const PIECES_CAP: usize = 8192;
/// Bytes of the longest map, with room.
pub const MAP_CAP: usize = 512 << 10;

/// Data between two holes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins, in the file.
    pub offset: u64,
    /// In bytes.
    pub length: u64,
}

impl Piece {
    /// Where it ends, in the file: the first byte behind it.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Where a sparse file has data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Size of the file, in bytes.
    pub size: u64,
    /// In the order of the file; none overlaps another.
    pub pieces: Vec<Piece>,
}

impl Map {
    /// Makes a map of the pieces that a file system reported, ascending; their bounds are moved outwards to whole blocks.
    pub fn new(size: u64, told: &[Piece]) -> Self {
        let mut least_hole = BLOCK as u64;
        loop {
            let map = Self::with_holes(size, told, least_hole);
            if map.pieces.len() <= PIECES_CAP {
                return map;
            }
            least_hole *= 2;
        }
    }

    fn with_holes(size: u64, told: &[Piece], least_hole: u64) -> Self {
        let mut pieces: Vec<Piece> = Vec::new();
        for piece in told.iter().filter(|piece| piece.length > 0) {
            let offset = piece.offset - piece.offset % BLOCK as u64;
            let end = piece.end().next_multiple_of(BLOCK as u64).min(size);
            match pieces.last_mut() {
                Some(last) if offset < last.end() + least_hole => last.length = end.max(last.end()) - last.offset,
                _ => pieces.push(Piece { offset, length: end - offset }),
            }
        }
        if pieces.last().is_none_or(|last| last.end() < size) {
            pieces.push(Piece { offset: size, length: 0 });
        }
        Self { size, pieces }
    }

    /// Bytes between the holes.
    pub fn data(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.length).sum()
    }

    /// The map as it stands in the tar, filled up to whole blocks.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{}\n", self.pieces.len());
        for piece in &self.pieces {
            text += &format!("{}\n{}\n", piece.offset, piece.length);
        }
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    /// Reads the map at the beginning of `stored`, and returns its length there.
    pub fn decode(size: u64, stored: &[u8]) -> Result<(Self, usize), &'static str> {
        let map = Self::parse(size, stored).ok_or("invalid map of a sparse file")?;
        let again = map.encode();
        if !map.is_right() || !stored.starts_with(&again) {
            return Err("the map of a sparse file is not in the form that an archive must have");
        }
        Ok((map, again.len()))
    }

    fn parse(size: u64, stored: &[u8]) -> Option<Self> {
        let mut lines = stored.split(|byte| *byte == b'\n');
        let mut number = || std::str::from_utf8(lines.next()?).ok()?.parse::<u64>().ok();
        let count = usize::try_from(number()?).ok().filter(|count| *count <= PIECES_CAP + 1)?;
        let mut pieces = Vec::new();
        for _ in 0..count {
            pieces.push(Piece { offset: number()?, length: number()? });
        }
        Some(Self { size, pieces })
    }

    fn is_right(&self) -> bool {
        let mut end = 0;
        for (index, piece) in self.pieces.iter().enumerate() {
            let last = index + 1 == self.pieces.len();
            let Some(piece_end) = piece.offset.checked_add(piece.length) else { return false };
            let ends_well = if last { piece_end == self.size } else { piece_end < self.size };
            // Only the last one may be empty, and be no whole number of blocks.
            let is_whole = piece.length.is_multiple_of(BLOCK as u64) && piece.length > 0;
            let begins_well = piece.offset.is_multiple_of(BLOCK as u64) || piece.length == 0;
            if piece.offset < end || !ends_well || !begins_well || !(last || is_whole) {
                return false;
            }
            end = piece_end;
        }
        !self.pieces.is_empty()
    }

    /// Where the data bytes `from..from + length` belong in the file: each as (position from `from`, piece).
    pub fn cut(&self, from: u64, length: u64) -> Vec<(usize, Piece)> {
        let (mut at, mut cut) = (0, Vec::new());
        for piece in &self.pieces {
            let (begin, end) = (from.max(at), (from + length).min(at + piece.length));
            if begin < end {
                let part = Piece { offset: piece.offset + (begin - at), length: end - begin };
                cut.push(((begin - from) as usize, part));
            }
            at += piece.length;
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(offset: u64, length: u64) -> Piece {
        Piece { offset, length }
    }

    #[test]
    fn pieces_become_whole_blocks_and_a_hole_at_the_end_is_told() {
        let map = Map::new(10_000, &[piece(600, 10), piece(9000, 1000)]);
        assert_eq!(map.pieces, [piece(512, 512), piece(8704, 1296)]);
        let map = Map::new(10_000, &[piece(600, 10)]);
        assert_eq!(map.pieces, [piece(512, 512), piece(10_000, 0)]);
        assert_eq!(Map::new(10_000, &[]).pieces, [piece(10_000, 0)]);
        assert_eq!(map.cut(256, 200), [(0, piece(768, 200))]);
    }

    #[test]
    fn maps_that_lie_are_refused() {
        let encode = |size, pieces: &[Piece]| Map { size, pieces: pieces.to_vec() }.encode();
        for (size, pieces) in [
            (1024, vec![piece(0, 512), piece(0, 512), piece(1024, 0)]),
            (1024, vec![piece(512, 512), piece(0, 1024)]),
            (512, vec![piece(0, 1024)]),
            (1024, vec![piece(0, 512)]),
            (1024, vec![piece(0, 100), piece(1024, 0)]),
            (1024, vec![piece(100, 924)]),
            (1024, vec![]),
            (5, vec![piece(u64::MAX, 6)]),
            (1024, vec![piece(512, 0), piece(512, 512)]),
        ] {
            assert!(Map::decode(size, &encode(size, &pieces)).is_err(), "{pieces:?}");
        }
        assert!(Map::decode(5, b"99999999\n").is_err());
        assert!(Map::decode(5, b"+1\n0\n5\n").is_err());
    }

    #[test]
    fn too_many_pieces_become_fewer() {
        let told: Vec<Piece> = (0..100_000).map(|at| piece(at * 8192, 4096)).collect();
        let map = Map::new(100_000 * 8192, &told);
        assert!(map.pieces.len() <= PIECES_CAP && map.encode().len() <= MAP_CAP);
    }

    proptest! {
        #[test]
        fn maps_round_trip(size in 0_u64..100_000, told in proptest::collection::btree_map(0_u64..100_000, 0_u64..5000, 0..20)) {
            let mut end = 0;
            let mut pieces = Vec::new();
            for (offset, length) in told {
                let (offset, length) = (offset.max(end).min(size), length.min(size.saturating_sub(offset.max(end))));
                pieces.push(piece(offset, length));
                end = offset + length;
            }
            let map = Map::new(size, &pieces);
            let bytes = map.encode();
            prop_assert_eq!(Map::decode(size, &bytes), Ok((map, bytes.len())));
        }
    }
}
