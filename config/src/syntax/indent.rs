//! Brackets that stand no further in than the key they belong to.
//!
//! ```text
//! paths: [
//!   a
//! ]
//! ```
//!
//! YAML 1.2 forbids it, older readers allow it, and people write it. The parser refuses such a line, so it is read
//! again with the line moved to the right, which means nothing between brackets; places are counted back.

use std::borrow::Cow;
use std::collections::BTreeSet;

use saphyr_parser::{Marker, ScanError};

/// Further right than any bracket's key.
const WIDTH: usize = 256;
/// Every line costs another pass.
const MOST_LINES: usize = 64;

/// The text with some lines moved to the right.
pub(super) struct Shifted<'t> {
    pub text: Cow<'t, str>,
    /// For each moved line: its number, and the index of its first character in the moved text.
    lines: Vec<(usize, usize)>,
}

/// The lines to move after the parser refused one more; `None` when that is not what is wrong.
pub(super) fn further(lines: &BTreeSet<usize>, error: &ScanError) -> Option<BTreeSet<usize>> {
    let refused = error.info().starts_with("invalid indentation") && lines.len() < MOST_LINES;
    let mut lines = lines.clone();
    (refused && lines.insert(error.marker().line())).then_some(lines)
}

impl<'t> Shifted<'t> {
    pub fn new(text: &'t str, moved: &BTreeSet<usize>) -> Self {
        if moved.is_empty() {
            return Self { text: Cow::Borrowed(text), lines: Vec::new() };
        }
        let mut shifted = String::with_capacity(text.len() + moved.len() * WIDTH);
        let mut lines = Vec::new();
        let mut characters = 0;
        for (index, line) in text.split_inclusive('\n').enumerate() {
            if moved.contains(&(index + 1)) {
                lines.push((index + 1, characters));
                shifted.push_str(&" ".repeat(WIDTH));
                characters += WIDTH;
            }
            shifted.push_str(line);
            characters += line.chars().count();
        }
        Self { text: Cow::Owned(shifted), lines }
    }

    /// The marker as it is in the text that was not moved.
    pub fn back(&self, marker: Marker) -> Marker {
        if self.lines.is_empty() {
            return marker;
        }
        let added = |&(_, start): &(usize, usize)| marker.index().saturating_sub(start).min(WIDTH);
        let index = marker.index() - self.lines.iter().map(added).sum::<usize>();
        let moved = self.lines.iter().any(|(line, _)| *line == marker.line());
        let column = if moved { marker.col().saturating_sub(WIDTH) } else { marker.col() };
        Marker::new(index, marker.line(), column)
    }
}
