//! What the crate has to say about a file: diagnostics, and the report that gathers them.
//!
//! A diagnostic points at bytes of the source and carries the trail that led there. The report keeps every
//! diagnostic once, however often the place it points at is compiled: a job that ten workflows use is wrong once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A stretch of a source text: of the config, or of an orb's file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Line of the first byte, from 1.
    pub line: usize,
    /// Column of the first byte in characters, from 1.
    pub column: u32,
    /// Which text it lies in: 0 is the config, N the file `N - 1` of [`Outcome::files`](crate::Outcome::files).
    pub file: u32,
}

/// Characters of a line before a place, as a column counts them.
pub(crate) fn column(characters: usize) -> u32 {
    u32::try_from(characters).map_or(u32::MAX, |characters| characters.saturating_add(1))
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The pipeline cannot be made.
    Error,
    /// It can, but the author may have meant something else.
    Warning,
}

/// One step of the way to a diagnostic's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// "in command `setup`", "called from job `build`".
    pub text: String,
    /// Where that is.
    pub span: Span,
}

/// Another place that has to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// What stands there: "the first one stands here".
    pub text: String,
    /// Where that is.
    pub span: Span,
}

/// Something to tell the author of a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Does it make the config invalid?
    pub severity: Severity,
    /// Kebab-case and stable: `unknown-step`.
    pub code: &'static str,
    /// One sentence, without a full stop.
    pub message: String,
    /// Where the config is wrong.
    pub span: Span,
    /// Short text beside the underline.
    pub label: Option<String>,
    /// What the author could do.
    pub help: Option<String>,
    /// Innermost first.
    pub trail: Vec<Frame>,
    /// Other places that have to do with it.
    pub related: Vec<Related>,
}

impl Diagnostic {
    pub(crate) fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span,
            label: None,
            help: None,
            trail: vec![],
            related: vec![],
        }
    }

    pub(crate) fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    pub(crate) fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The name that the author may have meant, if there is one.
    pub(crate) fn meant(self, neighbour: Option<&str>) -> Self {
        match neighbour {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }

    /// Another place that has to do with it; one that has no place is left out.
    pub(crate) fn related(mut self, span: Span, text: impl Into<String>) -> Self {
        if span.line > 0 {
            self.related.push(Related { text: text.into(), span });
        }
        self
    }

    pub(crate) fn trail(self, trail: Vec<Frame>) -> Self {
        Self { trail, ..self }
    }
}

/// Further warnings are not kept.
const MOST_WARNINGS: usize = 1_000;

/// Gathers diagnostics, each once.
#[derive(Debug, Default)]
pub(crate) struct Report {
    diagnostics: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
    /// What was said of which place: where it is in the list.
    seen: HashMap<(&'static str, u32, usize, usize, String), usize>,
}

impl Report {
    /// Keeps `diagnostic` unless the same was said of the same place before. What was a warning where it did no harm
    /// becomes an error where it does.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let is_warning = diagnostic.severity == Severity::Warning;
        if is_warning && self.is_weary() {
            return;
        }
        let Span { file, start, end, .. } = diagnostic.span;
        match self.seen.entry((diagnostic.code, file, start, end, diagnostic.message.clone())) {
            Entry::Vacant(place) => {
                place.insert(self.diagnostics.len());
                self.errors += usize::from(!is_warning);
                self.warnings += usize::from(is_warning);
                self.diagnostics.push(diagnostic);
            }
            Entry::Occupied(place) => {
                let known = &mut self.diagnostics[*place.get()];
                if !is_warning && known.severity == Severity::Warning {
                    self.errors += 1;
                    self.warnings -= 1;
                    *known = diagnostic;
                }
            }
        }
    }

    /// The same, but what is said here takes the place of what was said of the same place on a longer way.
    pub(crate) fn push_at_its_place(&mut self, diagnostic: Diagnostic) {
        let Span { file, start, end, .. } = diagnostic.span;
        match self.seen.get(&(diagnostic.code, file, start, end, diagnostic.message.clone())) {
            Some(&known) if self.diagnostics[known].severity == diagnostic.severity => {
                self.diagnostics[known] = diagnostic;
            }
            _ => self.push(diagnostic),
        }
    }

    /// There are more warnings than a person would read.
    pub(crate) fn is_weary(&self) -> bool {
        self.warnings >= MOST_WARNINGS
    }

    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// In the order of the files, and in each in the order of its lines.
    pub(crate) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|told| (told.span.file, told.span.start, told.span.end));
        self.diagnostics
    }
}
