//! The newest bytes of one log. Pure.
//!
//! ```text
//!          start          end
//! ┄┄┄┄┄┄┄┄┄├─────────────┤   ◀─ at end: taken     before end: known, passed over     behind end: the ring begins there
//!  let go     at most `most`
//! ```

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

/// See the module.
#[derive(Debug, Default)]
pub struct Ring {
    start: u64,
    bytes: VecDeque<u8>,
}

impl Ring {
    /// Takes what is new of bytes that stand at `offset`, and lets the oldest go where it would hold more than `most`.
    pub fn push(&mut self, offset: u64, bytes: &[u8], most: usize) {
        if self.bytes.is_empty() || offset > self.end() {
            self.bytes.clear();
            self.start = offset;
        }
        let known = usize::try_from(self.end() - offset).unwrap_or(usize::MAX);
        let new = bytes.get(known..).unwrap_or_default();
        let new = new.get(new.len().saturating_sub(most)..).unwrap_or_default();
        let end = offset.saturating_add(bytes.len() as u64).max(self.end());
        let room = most.saturating_sub(new.len());
        let over = self.bytes.len().saturating_sub(room);
        self.bytes.drain(..over);
        let wanted = self.bytes.len() + new.len();
        if wanted > self.bytes.capacity() {
            let grown = wanted.max(self.bytes.capacity() * 2).min(most);
            self.bytes.reserve_exact(grown.saturating_sub(self.bytes.len()));
        }
        self.bytes.extend(new);
        self.start = end - self.bytes.len() as u64;
    }

    /// Bytes from exactly `cursor` on: at most `most`, and none where it does not have them.
    pub fn from(&self, cursor: u64, most: usize) -> Option<Bytes> {
        let at = usize::try_from(cursor.checked_sub(self.start)?).ok()?;
        let (front, back) = self.bytes.as_slices();
        let piece = match front.get(at..) {
            Some(piece) if !piece.is_empty() => piece,
            _ => back.get(at.checked_sub(front.len())?..)?,
        };
        let piece = piece.get(..piece.len().min(most)).unwrap_or_default();
        (!piece.is_empty()).then(|| Bytes::copy_from_slice(piece))
    }

    /// Lets go of the bytes before `offset`, and of the memory that they were in.
    pub fn let_go(&mut self, offset: u64) {
        let gone = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.bytes.len());
        if gone > 0 || self.bytes.is_empty() {
            self.bytes.drain(..gone);
            self.start += gone as u64;
            self.bytes.shrink_to_fit();
        }
    }

    /// Lets go of the oldest bytes, until it holds `most`, and of the memory that they were in.
    pub fn shorten(&mut self, most: usize) {
        if self.bytes.len() > most || self.bytes.capacity() > most {
            let over = self.bytes.len().saturating_sub(most);
            self.bytes.drain(..over);
            self.start += over as u64;
            self.bytes.shrink_to_fit();
        }
    }

    /// The bytes that it has.
    pub fn range(&self) -> Range<u64> {
        self.start..self.end()
    }

    /// Memory that it takes.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What stands at each offset of an honest log.
    fn honest(range: Range<u64>) -> Vec<u8> {
        range.map(|at| (at * 31 + at / 251) as u8).collect()
    }

    #[test]
    fn a_repeat_is_passed_over_and_a_gap_begins_anew() {
        let mut ring = Ring::default();
        ring.push(10, &honest(10..20), 64);
        ring.push(5, &honest(5..12), 64);
        ring.push(15, &honest(15..25), 64);
        assert_eq!(ring.range(), 10..25);
        assert_eq!(ring.from(10, 99).unwrap(), honest(10..25));
        assert_eq!((ring.from(9, 99), ring.from(25, 99), ring.from(u64::MAX, 99)), (None, None, None));
        ring.push(30, &honest(30..31), 64);
        assert_eq!(ring.range(), 30..31);
    }

    proptest! {
        #[test]
        fn what_it_gives_is_what_stands_there(
            steps in prop::collection::vec((0..400_u64, 1..90_u64, 1..64_usize, 0..8_u8), 1..80),
        ) {
            let mut ring = Ring::default();
            for (offset, length, most, kind) in steps {
                match kind {
                    0 => ring.let_go(offset),
                    1 => ring.shorten(most),
                    _ => ring.push(offset, &honest(offset..offset + length), 64),
                }
                prop_assert!(ring.capacity() <= 64, "{}", ring.capacity());
                for cursor in 0..500 {
                    if let Some(bytes) = ring.from(cursor, most) {
                        prop_assert!(bytes.len() <= most);
                        prop_assert_eq!(&bytes[..], &honest(cursor..cursor + bytes.len() as u64)[..]);
                    } else {
                        prop_assert!(!ring.range().contains(&cursor));
                    }
                }
            }
        }

        #[test]
        fn in_order_it_holds_the_newest_bytes(lengths in prop::collection::vec(1..100_u64, 1..50)) {
            let (mut ring, mut end) = (Ring::default(), 0);
            for length in lengths {
                ring.push(end, &honest(end..end + length), 64);
                end += length;
                prop_assert_eq!(ring.range(), end.saturating_sub(64)..end);
            }
        }
    }
}
