//! Diagnostics as plain text: place, excerpt with an underline, trail, help.
//!
//! ```text
//! error[unknown-step]: there is no step or command named `chekout`
//!   --> .circleci/config.yml:7:9
//!    |
//!  7 |       - chekout
//!    |         ^^^^^^^ not defined here
//!    = in job `build` (line 4)
//!    = help: did you mean `checkout`?
//! ```

mod json;
mod places;
mod sarif;

use std::fmt::Write as _;

use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::input::{File, Source};
pub(crate) use json::render_json;
pub(crate) use sarif::render_sarif;

/// Longer lines are cut around the underline, so that one terminal line holds them.
const WIDEST_EXCERPT: usize = 160;

/// Diagnostics of a config that takes nothing from orbs' files as text without colour codes, a blank line between them.
/// [`Outcome::render`](crate::Outcome::render) knows those files, too.
pub fn render(source: &Source<'_>, diagnostics: &[Diagnostic]) -> String {
    render_in(source, &[], diagnostics)
}

pub(crate) fn render_in(source: &Source<'_>, files: &[File], diagnostics: &[Diagnostic]) -> String {
    let files = files.iter().map(|file| Source { name: &file.name, text: &file.text });
    let texts: Vec<Text<'_>> = std::iter::once(*source).chain(files).map(Text::new).collect();
    let rendered: Vec<String> = diagnostics.iter().map(|told| render_one(&texts, told)).collect();
    rendered.join("\n")
}

/// A file, its lines found once.
struct Text<'a> {
    source: Source<'a>,
    lines: Vec<&'a str>,
}

impl<'a> Text<'a> {
    fn new(source: Source<'a>) -> Self {
        Self { source, lines: source.text.lines().collect() }
    }

    /// The text that `span` lies in.
    fn of(texts: &[Self], span: Span) -> Option<&Self> {
        texts.get(usize::try_from(span.file).ok()?)
    }
}

/// Another place, and its file where that is another one.
fn pointer(out: &mut String, texts: &[Text<'_>], diagnostic: &Diagnostic, text: &str, span: Span, gutter: usize) {
    let other = Text::of(texts, span).filter(|_| span.file != diagnostic.span.file);
    let file = other.map(|text| format!("{}, ", printable(text.source.name))).unwrap_or_default();
    let _ = writeln!(out, "{:gutter$} = {} ({file}line {})", "", printable(text), span.line);
}

fn render_one(texts: &[Text<'_>], diagnostic: &Diagnostic) -> String {
    let mut out = String::new();
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{severity}[{}]: {}", diagnostic.code, printable(&diagnostic.message));
    let gutter = diagnostic.span.line.to_string().len();
    place(&mut out, Text::of(texts, diagnostic.span), diagnostic, gutter);
    for frame in &diagnostic.trail {
        pointer(&mut out, texts, diagnostic, &frame.text, frame.span, gutter);
    }
    for related in &diagnostic.related {
        pointer(&mut out, texts, diagnostic, &related.text, related.span, gutter);
    }
    for (index, line) in diagnostic.help.iter().flat_map(|help| help.lines()).enumerate() {
        let title = if index == 0 { "= help:" } else { "       " };
        let _ = writeln!(out, "{:gutter$} {title} {}", "", printable(line));
    }
    out
}

fn place(out: &mut String, text: Option<&Text<'_>>, diagnostic: &Diagnostic, gutter: usize) {
    // Only what does not come from here names an unknown file.
    let Some(Text { source, lines }) = text else { return };
    let Span { line, column, .. } = diagnostic.span;
    if line == 0 {
        let _ = writeln!(out, "{:gutter$}--> {}", "", source.name);
        return;
    }
    let _ = writeln!(out, "{:gutter$}--> {}:{line}:{column}", "", source.name);
    let Some(shown) = lines.get(line - 1) else { return };
    let (excerpt, underline) = excerpt(shown, diagnostic.span, source.text);
    let label = diagnostic.label.as_deref().map(|label| format!(" {}", printable(label))).unwrap_or_default();
    let _ = writeln!(out, "{:gutter$} |\n{line} | {excerpt}\n{:gutter$} | {underline}{label}", "", "");
}

/// The line, cut to a bearable width, and the carets below it. Looks at no more of a line than it shows: some have megabytes.
fn excerpt(line: &str, span: Span, text: &str) -> (String, String) {
    const HALF: usize = WIDEST_EXCERPT / 2;
    let line_start = line.as_ptr() as usize - text.as_ptr() as usize;
    let at = span.start.saturating_sub(line_start).min(line.len());
    let at = if line.is_char_boundary(at) { at } else { 0 };
    let first = line[..at].char_indices().rev().take(HALF).last().map_or(at, |(offset, _)| offset);
    let shown: String = line[first..].chars().take(WIDEST_EXCERPT).map(visible).collect();
    let covered = text.get(span.start..span.end).and_then(|covered| covered.lines().next()).unwrap_or("");
    let rest = line[at..].chars().take(HALF).count().max(1);
    let carets = covered.chars().take(HALF).count().clamp(1, rest);
    (shown.trim_end().to_owned(), format!("{}{}", " ".repeat(line[first..at].chars().count()), "^".repeat(carets)))
}

/// Tabs would shift the underline, and control characters must not reach a terminal.
fn visible(character: char) -> char {
    if character.is_control() { ' ' } else { character }
}

fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}
