//! What the author of a text that is not YAML could do about it.
//!
//! The parser says where it got lost. What is wrong often stands before that: a line that belongs to the text above it,
//! a bracket that was not closed, the marks of a merge.

use super::escape;
use super::invisible;
use crate::diagnostic::{Diagnostic, Frame, Span, column};

/// Marks that a merge leaves where both sides changed.
const CONFLICTS: [&str; 4] = ["<<<<<<<", "=======", ">>>>>>>", "|||||||"];

/// A fault by the beginning of the parser's words: what to say instead, and what to do.
const FAULTS: [(&str, &str, &str); 11] = [
    ("tab", "a tab stands where only blanks may", "indent with blanks: YAML forbids tabs there"),
    (
        "while scanning a plain scalar, found a tab",
        "a tab stands where only blanks may",
        "indent with blanks: YAML forbids tabs there",
    ),
    (
        "mapping values are not allowed",
        "a `key: value` cannot stand here",
        "check the indentation, and quote text that holds a `: `",
    ),
    (
        "while parsing a block collection",
        "this line is neither an item of the list above nor outside of it",
        "all `-` of one list stand in the same column",
    ),
    (
        "while parsing a block mapping",
        "this cannot follow what stands before it",
        "quote text that starts with one of `[ { * & ! % @`, and check the indentation",
    ),
    ("while scanning an anchor or alias", "this is not a name of an anchor", "quote text that starts with `*` or `&`"),
    (
        "while scanning a quoted scalar, found unexpected end",
        "this quote is not closed",
        "close it, or double it if it is part of the text",
    ),
    (
        "invalid trailing content after double-quoted scalar",
        "the quoted text has ended, and something follows it",
        "put the whole value into quotes of the other kind, these included",
    ),
    ("':' must be followed by", "a tab separates the `:` from this, where a blank is needed", "write a blank"),
    ("'-' must be followed by", "a tab separates the `-` from this, where a blank is needed", "write a blank"),
    ("found unprintable character", "a control character stands here", "remove it: YAML forbids them"),
];

/// The diagnostic of a fault: `told` is what the parser says of it, `at` where, `open` the innermost bracket that is open.
pub(super) fn diagnostic(text: &str, told: &str, at: Span, open: Option<Span>) -> Diagnostic {
    let error = |span, message: String| {
        Diagnostic::error("yaml-syntax", span, format!("the file is not valid YAML: {message}"))
    };
    if let Some(span) = conflict(text, at) {
        let message = "the mark of a merge stands here".to_owned();
        return error(span, message).help("decide which side to keep, and remove the marks");
    }
    if let Some((span, name)) = instead_of_blank(text, at) {
        return error(span, format!("{name} stands where only a blank may")).help("write a blank");
    }
    if told.starts_with("while parsing a quoted scalar")
        && let Some(unknown) = escape::unknown(text, at.start)
    {
        let span = placed(text, unknown.at, unknown.length, at);
        let message = format!("`{}` stands for nothing in double quotes", &text[span.start..span.end]);
        let help = "use single quotes, in which a backslash is a backslash (and `''` a single quote), or write `\\\\`";
        return error(span, message).help(help);
    }
    if let Some(bracket) = open {
        let opened = text.get(bracket.start..bracket.start + 1).unwrap_or("[");
        let closing = if opened == "{" { "}" } else { "]" };
        let message = format!("this `{opened}` is not closed before something comes that cannot stand in it");
        let help = format!("add a `{closing}`, or quote the text in which `{opened}` means itself");
        return lost(error(bracket, message).help(help), at);
    }
    if told.starts_with("simple key expect") {
        let message = "this is neither a `key: value` nor part of what stands above it".to_owned();
        let help = "indent it further than the key whose text it belongs to, or add a `:`";
        return lost(error(line_before(text, at), message).help(help), at);
    }
    match FAULTS.iter().find(|(start, ..)| told.starts_with(start)) {
        Some((_, message, help)) => error(at, (*message).to_owned()).help(*help),
        None => error(at, told.to_owned()),
    }
}

/// Where the parser got lost, when that is another line.
fn lost(diagnostic: Diagnostic, at: Span) -> Diagnostic {
    if diagnostic.span.line == at.line {
        return diagnostic;
    }
    diagnostic.trail(vec![Frame { text: "nothing can be read from here on".to_owned(), span: at }])
}

/// The mark of a merge in the line of a fault or in the one before.
fn conflict(text: &str, at: Span) -> Option<Span> {
    let lines = [line_at(text, at), line_before(text, at)];
    lines.into_iter().find(|span| CONFLICTS.iter().any(|mark| text[span.start..span.end].starts_with(mark)))
}

/// What is no blank and looks like one, in the line of a fault or in the one before.
fn instead_of_blank(text: &str, at: Span) -> Option<(Span, String)> {
    let ends = |span: &Span| text[span.start..].find(['\n', '\r']).map_or(text.len(), |length| span.start + length);
    [line_at(text, at), line_before(text, at)].into_iter().find_map(|span| {
        let start = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let (part, name) = invisible::instead_of_blank(&text[start..ends(&span)])?;
        Some((placed(text, start + part.start, part.len(), at), name))
    })
}

/// The line of a place, without the blanks around it.
fn line_at(text: &str, at: Span) -> Span {
    let start = text.get(..at.start).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    trimmed(text, start, at)
}

/// The last line before a place that holds anything, without the blanks around it.
fn line_before(text: &str, at: Span) -> Span {
    let mut end = line_at(text, at).start;
    while let Some(newline) = text.get(..end).and_then(|before| before.rfind('\n')) {
        let start = text[..newline].rfind('\n').map_or(0, |newline| newline + 1);
        if !text[start..newline].trim().is_empty() {
            return trimmed(text, start, at);
        }
        end = start;
    }
    at
}

/// So many bytes from there on, in the file of `of`.
fn placed(text: &str, start: usize, length: usize, of: Span) -> Span {
    let before = &text[..start];
    let line = 1 + before.matches('\n').count();
    let column = column(before.rsplit('\n').next().unwrap_or("").chars().count());
    Span { start, end: start + length, line, column, ..of }
}

/// The line that starts there, in the file of `of`. At the end of a text the parser may be a line ahead: lines are counted here.
fn trimmed(text: &str, start: usize, of: Span) -> Span {
    let whole = text[start..].lines().next().unwrap_or("");
    let indent = whole.len() - whole.trim_start().len();
    placed(text, start + indent, whole.trim().len(), of)
}
