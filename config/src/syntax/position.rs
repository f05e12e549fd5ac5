//! From the parser's markers, which count characters, to spans, which count bytes.

use std::ops::Range;

use saphyr_parser::{Marker, Span as Marked};

use crate::diagnostic::{Span, column};

/// Byte offsets of a text's characters.
pub(super) struct Positions<'a> {
    pub text: &'a str,
    file: u32,
    /// Offset of every character; `None` when the text is ASCII and characters are bytes.
    offsets: Option<Vec<usize>>,
}

impl<'a> Positions<'a> {
    /// `file` as in a [`Span`].
    pub fn new(text: &'a str, file: u32) -> Self {
        let offsets = (!text.is_ascii()).then(|| text.char_indices().map(|(offset, _)| offset).collect());
        Self { text, file, offsets }
    }

    pub fn span(&self, marked: Marked) -> Span {
        let start = self.byte(marked.start.index());
        let end = self.byte(marked.end.index()).max(start);
        // Block scalars and collections end where the next token starts: give back the white space.
        let covered = self.text.get(start..end).unwrap_or("");
        Span { start, end: start + covered.trim_end().len(), ..self.place(marked.start) }
    }

    /// A part of what a span covers.
    pub fn part(&self, span: Span, part: &Range<usize>) -> Span {
        let before = self.text.get(span.start..span.start + part.start).unwrap_or("");
        let (start, end) = (span.start + part.start, span.start + part.end);
        match before.rsplit_once('\n') {
            None => Span { start, end, column: column(before.chars().count()) + span.column - 1, ..span },
            Some((above, line)) => {
                let further = above.matches('\n').count() + 1;
                Span { start, end, line: span.line + further, column: column(line.chars().count()), ..span }
            }
        }
    }

    pub fn point(&self, marker: &Marker) -> Span {
        let start = self.byte(marker.index());
        let length = self.text.get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        Span { start, end: start + length, ..self.place(*marker) }
    }

    /// With the line counted anew: where the parser gave up, its own may be one ahead or behind.
    pub fn counted(&self, span: Span) -> Span {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = 1 + self.breaks(before);
        if line == span.line {
            return span;
        }
        let at = before.rsplit(['\n', '\r']).next().unwrap_or("").chars().count();
        Span { line, column: if span.start == self.text.len() { span.column } else { column(at) }, ..span }
    }

    /// Ends of lines in the text's beginning. A lone carriage return ends a line, too, as it does for the parser.
    fn breaks(&self, before: &str) -> usize {
        let is_lone = |at: &usize| self.text.as_bytes().get(at + 1) != Some(&b'\n');
        let lone = before.match_indices('\r').map(|(at, _)| at).filter(is_lone).count();
        before.matches('\n').count() + lone
    }

    fn byte(&self, character: usize) -> usize {
        match &self.offsets {
            Some(offsets) => offsets.get(character).copied().unwrap_or(self.text.len()),
            None => character.min(self.text.len()),
        }
    }

    fn place(&self, marker: Marker) -> Span {
        Span { line: marker.line().max(1), column: column(marker.col()), file: self.file, ..Span::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_counted_whatever_ends_the_lines_before() {
        for (text, line) in [("a\nb\rc\n\u{0}", 4), ("a\r\nb\r\n\u{0}", 3), ("a\n\u{0}", 2), ("\u{0}", 1)] {
            let start = text.len() - 1;
            // The parser gave up, and its own line is not to be believed.
            let wrong = Span { start, end: start + 1, line: 9, column: 9, ..Span::default() };
            let counted = Positions::new(text, 0).counted(wrong);
            assert_eq!((counted.line, counted.column), (line, 1), "{text:?}");
        }
    }
}
