//! The top of the file: its version, and which keys may stand there.

use crate::diagnostic::{Diagnostic, Report, Span};
use crate::keys::Known as _;
use crate::keys::tables::TOP;
use crate::syntax::{Map, Node};

/// Far more keys than a person writes at the top of a file.
const MOST: usize = 1_000;
const ONLY_IN_2_1: [&str; 6] = ["setup", "orbs", "commands", "executors", "parameters", "job-groups"];

/// Versions of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// No templates, no commands, no executors.
    Two,
    TwoOne,
}

/// The file's map and version; what is wrong with them is reported.
pub(crate) fn read<'n>(root: Option<&'n Node>, report: &mut Report) -> Option<(&'n Map, Version)> {
    const START: Span = Span { file: 0, start: 0, end: 0, line: 1, column: 1 };
    let Some(root) = root else {
        report.push(Diagnostic::error("empty-config", START, "the config is empty"));
        return None;
    };
    if root.is_null() {
        // The parser puts what is not there behind the end of the text.
        report.push(Diagnostic::error("empty-config", START, "the config is empty"));
        return None;
    }
    let Some(map) = root.as_map() else {
        let message = "a config is a map with `version` and `jobs`";
        report.push(Diagnostic::error("empty-config", root.span, message));
        return None;
    };
    let version = version(map, root.span, report)?;
    check_keys(map, version, report);
    Some((map, version))
}

fn version(map: &Map, span: Span, report: &mut Report) -> Option<Version> {
    let Some(entry) = map.entry("version") else {
        let span = map.entries.first().map_or(span, |entry| entry.key_span);
        let message = "the config has no `version`";
        report.push(Diagnostic::error("missing-version", span, message).help("add `version: 2.1`"));
        return None;
    };
    match entry.value.as_text().map(|text| &**text) {
        Some("2.1") => Some(Version::TwoOne),
        Some("2" | "2.0") => Some(Version::Two),
        other => {
            let shown = other.map_or_else(|| entry.value.describe().to_owned(), |text| format!("`{text}`"));
            let message = format!("{shown} is not a version of the config language");
            report.push(
                Diagnostic::error("unknown-version", entry.value.span, message).help("it is 2.1, or 2 for old files"),
            );
            None
        }
    }
}

/// Any key may hold anchors, so only what looks like a typo is reported.
fn check_keys(map: &Map, version: Version, report: &mut Report) {
    for entry in map.entries.iter().take(MOST) {
        let key = &*entry.key;
        if version == Version::Two && ONLY_IN_2_1.contains(&key) && !entry.value.is_null() {
            let message = format!("`{key}` needs `version: 2.1`");
            report.push(Diagnostic::error("needs-2.1", entry.key_span, message));
        }
        if let (false, Some(neighbour)) = (TOP.knows(key), TOP.neighbour(key)) {
            let message = format!("key `{key}` means nothing at the top of a config");
            let diagnostic = Diagnostic::warning("unknown-key", entry.key_span, message).label("ignored");
            report.push(diagnostic.meant(Some(neighbour)));
        }
    }
}
