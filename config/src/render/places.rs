//! Spans with their ends as lines and columns, which other programs want.

use serde::Serialize;

use crate::diagnostic::Span;
use crate::input::{File, Source};

/// A stretch of the text. Lines and columns count from 1, columns in characters; ends are one past the last character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Place {
    /// The orb's file that it lies in; missing where it is the config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub line: usize,
    pub column: usize,
    pub end_line: usize,
    pub end_column: usize,
    /// First byte of the text.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

/// The config and the files of its orbs.
pub(super) struct Places<'s> {
    texts: Vec<Source<'s>>,
}

impl<'s> Places<'s> {
    pub fn new(source: &Source<'s>, files: &'s [File]) -> Self {
        let files = files.iter().map(|file| Source { name: &file.name, text: &file.text });
        Self { texts: std::iter::once(*source).chain(files).collect() }
    }

    /// What the file that `span` lies in is called.
    pub fn name(&self, span: Span) -> &'s str {
        self.source(span).map(|source| source.name).unwrap_or_default()
    }

    fn source(&self, span: Span) -> Option<&Source<'s>> {
        self.texts.get(usize::try_from(span.file).ok()?)
    }

    /// `None` for what has no place of its own.
    pub fn of(&self, span: Span) -> Option<Place> {
        let Span { start, end, line, column, file } = span;
        let column = usize::try_from(column).unwrap_or(usize::MAX);
        if line == 0 {
            return None;
        }
        let covered = self.source(span).and_then(|source| source.text.get(start..end)).unwrap_or("");
        let (end_line, end_column) = match covered.rfind('\n') {
            None => (line, column + covered.chars().count()),
            Some(newline) => (line + covered.matches('\n').count(), covered[newline + 1..].chars().count() + 1),
        };
        let file = (file > 0).then(|| self.name(span).to_owned());
        Some(Place { file, line, column, end_line, end_column, start, end: end.max(start) })
    }
}
