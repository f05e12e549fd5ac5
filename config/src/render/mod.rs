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
use crate::input::Source;
pub use json::render_json;
pub use sarif::render_sarif;

/// Longer lines are cut around the underline, so that one terminal line holds them.
const WIDEST_EXCERPT: usize = 160;

/// All diagnostics as text without colour codes, a blank line between them.
pub fn render(source: &Source<'_>, diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<&str> = source.text.lines().collect();
    let rendered: Vec<String> = diagnostics.iter().map(|told| render_one(source, &lines, told)).collect();
    rendered.join("\n")
}

fn render_one(source: &Source<'_>, lines: &[&str], diagnostic: &Diagnostic) -> String {
    let mut out = String::new();
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{severity}[{}]: {}", diagnostic.code, printable(&diagnostic.message));
    let gutter = diagnostic.span.line.to_string().len();
    place(&mut out, source, lines, diagnostic, gutter);
    for frame in &diagnostic.trail {
        let _ = writeln!(out, "{:gutter$} = {} (line {})", "", printable(&frame.text), frame.span.line);
    }
    for related in &diagnostic.related {
        let _ = writeln!(out, "{:gutter$} = {} (line {})", "", printable(&related.text), related.span.line);
    }
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(out, "{:gutter$} = help: {}", "", printable(help));
    }
    out
}

fn place(out: &mut String, source: &Source<'_>, lines: &[&str], diagnostic: &Diagnostic, gutter: usize) {
    let Span { line, column, .. } = diagnostic.span;
    if line == 0 {
        let _ = writeln!(out, "{:gutter$}--> {}", "", source.name);
        return;
    }
    let _ = writeln!(out, "{:gutter$}--> {}:{line}:{column}", "", source.name);
    let Some(text) = lines.get(line - 1) else { return };
    let (excerpt, underline) = excerpt(text, diagnostic.span, source.text);
    let label = diagnostic.label.as_deref().map(|label| format!(" {}", printable(label))).unwrap_or_default();
    let _ = writeln!(out, "{:gutter$} |\n{line} | {excerpt}\n{:gutter$} | {underline}{label}", "", "");
}

/// The line, cut to a bearable width, and the carets below it.
fn excerpt(line: &str, span: Span, text: &str) -> (String, String) {
    let characters: Vec<char> = line.chars().map(visible).collect();
    let before = (span.column - 1).min(characters.len());
    let length =
        text.get(span.start..span.end).map_or(1, |covered| covered.lines().next().unwrap_or("").chars().count());
    let first = before.saturating_sub(WIDEST_EXCERPT / 2);
    let shown: String = characters.iter().skip(first).take(WIDEST_EXCERPT).collect();
    let carets = length.clamp(1, (characters.len() - before).max(1)).min(WIDEST_EXCERPT / 2);
    (shown.trim_end().to_owned(), format!("{}{}", " ".repeat(before - first), "^".repeat(carets)))
}

/// Tabs would shift the underline, and control characters must not reach a terminal.
fn visible(character: char) -> char {
    if character.is_control() { ' ' } else { character }
}

fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}
