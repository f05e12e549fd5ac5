//! Masking of bytes that come in pieces.
//!
//! ```text
//!          written            held                         not here yet
//! ──────────────────────────┤ may still become a match ├──────────────
//!                           ▲ base: all positions count from here
//! ```
//!
//! Held is the longest tail that a pattern begins with: nothing else waits. A match is written as soon as its last byte
//! is here, and remembered as far as it reaches: what overlaps it later only lengthens it.

use super::index::Number;
use super::{MaskedIn, Masks, STARS};

/// A pattern whose beginning is here.
struct Begun {
    pattern: Number,
    start: usize,
    /// Bytes of the pattern that were compared.
    seen: usize,
}

/// One stream's masking. Memory: what is held, less than the longest pattern, and a buffer as large as one piece.
pub struct MaskStream {
    masks: Masks,
    place: MaskedIn,
    held: Vec<u8>,
    /// Room for held bytes and a new piece, and for what is written in place of them.
    joined: Vec<u8>,
    masked: Vec<u8>,
    /// Where to look next.
    next: usize,
    begun: Vec<Begun>,
    /// Matches, begin and end, whose place in the output has not come yet.
    found: Vec<(usize, usize)>,
    /// Up to here everything belongs to a match that was written.
    covered: usize,
    hits: Vec<Number>,
    has_found: bool,
}

impl MaskStream {
    pub(super) fn new(masks: Masks, place: MaskedIn) -> Self {
        Self {
            masks,
            place,
            held: Vec::new(),
            joined: Vec::new(),
            masked: Vec::new(),
            next: 0,
            begun: Vec::new(),
            found: Vec::new(),
            covered: 0,
            hits: Vec::new(),
            has_found: false,
        }
    }

    /// Takes a piece; gives `write` what is certain by now, at most once.
    pub fn push(&mut self, piece: &[u8], write: &mut impl FnMut(&[u8])) {
        if self.masks.is_empty() {
            return write(piece);
        }
        if self.held.is_empty() {
            return self.work(piece, false, write);
        }
        let mut joined = std::mem::take(&mut self.joined);
        joined.clear();
        joined.append(&mut self.held);
        joined.extend_from_slice(piece);
        self.work(&joined, false, write);
        self.joined = joined;
    }

    /// Nothing more comes: gives what was held. The next piece begins a new text.
    pub fn finish(&mut self, write: &mut impl FnMut(&[u8])) {
        let held = std::mem::take(&mut self.held);
        self.work(&held, true, write);
    }

    /// Was anything masked so far?
    pub fn has_found(&self) -> bool {
        self.has_found
    }

    /// Bytes that wait.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// All that another stream of the same masks must know to go on exactly here: the bytes that wait, and how many of them
    /// belong to a match that was written.
    pub fn waiting(&self) -> (&[u8], usize) {
        (&self.held, self.covered)
    }

    /// Takes up where a stream of the same masks was left, as [`Self::waiting`] told it.
    pub fn take_up(&mut self, held: &[u8], covered: usize) {
        self.covered = covered.min(held.len());
        let text = held.to_vec();
        self.go_on_with_begun(&text);
        self.look(&text);
        self.held = text;
        // Counted by whoever found them.
        self.hits.clear();
    }

    fn work(&mut self, text: &[u8], is_last: bool, write: &mut impl FnMut(&[u8])) {
        self.go_on_with_begun(text);
        self.look(text);
        if is_last {
            self.begun.clear();
        }
        let until = if is_last { text.len() } else { self.certain(text) };
        self.write(&text[..until], write);
        self.rebase(until);
        self.held.extend_from_slice(&text[until..]);
        if is_last {
            (self.next, self.covered) = (0, 0);
        }
        if !self.hits.is_empty() {
            self.has_found = true;
            self.masks.count(&self.place, &self.hits);
            self.hits.clear();
        }
    }

    fn go_on_with_begun(&mut self, text: &[u8]) {
        for begun in std::mem::take(&mut self.begun) {
            self.compare(begun, text);
        }
    }

    fn look(&mut self, text: &[u8]) {
        let masks = self.masks.clone();
        self.next = masks.index().look(text, self.next, |pattern, start| {
            self.compare(Begun { pattern, start, seen: 0 }, text);
        });
    }

    /// Is it there, is it there as far as the text goes, or is it not?
    fn compare(&mut self, begun: Begun, text: &[u8]) {
        let Begun { pattern, start, seen } = begun;
        let bytes = self.masks.index().pattern(pattern);
        let here = (text.len() - start).min(bytes.len());
        if text[start + seen..start + here] != bytes[seen..here] {
            return;
        }
        if here == bytes.len() {
            self.found.push((start, start + here));
            self.hits.push(pattern);
        } else {
            self.begun.push(Begun { pattern, start, seen: here });
        }
    }

    /// No byte before this place can belong to a match that was not found yet.
    fn certain(&self, text: &[u8]) -> usize {
        let index = self.masks.index();
        let begun = self.begun.iter().map(|begun| begun.start).min().unwrap_or(text.len());
        (index.open_from(self.next)..begun).find(|start| index.begins(&text[*start..])).unwrap_or(begun)
    }

    /// Writes `text`, all of which is certain.
    fn write(&mut self, text: &[u8], write: &mut impl FnMut(&[u8])) {
        self.found.sort_unstable();
        let mut written = self.covered.min(text.len());
        let due = self.found.partition_point(|(start, _)| *start < text.len());
        if due == 0 {
            return give(&text[written..], write);
        }
        self.masked.clear();
        for (start, end) in self.found.drain(..due) {
            if start >= self.covered {
                self.masked.extend_from_slice(&text[written..start]);
                self.masked.extend_from_slice(STARS);
            }
            self.covered = self.covered.max(end);
            written = self.covered.min(text.len());
        }
        self.masked.extend_from_slice(&text[written..]);
        give(&self.masked, write);
    }

    /// Positions count from `base` on.
    fn rebase(&mut self, base: usize) {
        // A pattern that begins from here on has its gram from here on.
        self.next = self.next.max(base) - base;
        self.covered = self.covered.saturating_sub(base);
        self.begun.iter_mut().for_each(|begun| begun.start -= base);
        self.found.iter_mut().for_each(|(start, end)| (*start, *end) = (*start - base, *end - base));
    }
}

fn give(bytes: &[u8], write: &mut impl FnMut(&[u8])) {
    if !bytes.is_empty() {
        write(bytes);
    }
}
