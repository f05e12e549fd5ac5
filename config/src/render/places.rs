//! Spans with their ends as lines and columns, which other programs want.

use serde::Serialize;

use crate::diagnostic::Span;
use crate::input::Source;

/// A stretch of the text. Lines and columns count from 1, columns in characters; ends are one past the last character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
    pub end_line: usize,
    pub end_column: usize,
    /// First byte of the text.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

pub(super) struct Places<'s> {
    text: &'s str,
}

impl<'s> Places<'s> {
    pub fn new(source: &Source<'s>) -> Self {
        Self { text: source.text }
    }

    /// `None` for what has no place of its own.
    pub fn of(&self, span: Span) -> Option<Place> {
        let Span { start, end, line, column } = span;
        if line == 0 {
            return None;
        }
        let covered = self.text.get(start..end).unwrap_or("");
        let (end_line, end_column) = match covered.rfind('\n') {
            None => (line, column + covered.chars().count()),
            Some(newline) => (line + covered.matches('\n').count(), covered[newline + 1..].chars().count() + 1),
        };
        Some(Place { line, column, end_line, end_column, start, end: end.max(start) })
    }
}
