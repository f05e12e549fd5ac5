//! Which registry orbs a config uses, told by its text alone, and whether exactly these are told to be missing.

use std::collections::{BTreeMap, BTreeSet};

use navvy_config::{Diagnostic, Severity};
use serde_json::{Value, json};

use crate::compare::Fact;

/// Without the orbs the only errors name those that are used; with leave to go on, the warnings name the same.
pub fn compare(text: &str, strict: &[Diagnostic], lenient: &[Diagnostic]) -> Vec<Fact> {
    let declared = declared(text);
    let used: BTreeSet<&str> =
        declared.iter().filter(|(alias, _)| is_used(text, alias)).map(|(_, line)| *line).collect();
    let errors = strict.iter().filter(|told| told.severity == Severity::Error);
    let warnings = lenient.iter().filter(|told| told.code == "missing-orb");
    vec![
        fact("missing orbs", json!(used), json!(errors.map(|told| place(text, told)).collect::<BTreeSet<_>>())),
        fact("orbs left out", json!(used), json!(warnings.map(|told| place(text, told)).collect::<BTreeSet<_>>())),
    ]
}

fn fact(path: &str, expected: Value, found: Value) -> Fact {
    Fact { path: path.to_owned(), expected, found }
}

/// The line that a diagnostic points at; one that does not tell of an orb is shown with its message.
fn place(text: &str, told: &Diagnostic) -> String {
    let line = text.lines().nth(told.span.line.saturating_sub(1)).unwrap_or("").trim();
    if told.code == "missing-orb" { line.to_owned() } else { format!("{line}: {}", told.message) }
}

/// Aliases of registry orbs with their lines: `  node: circleci/node@5.1`, directly below `orbs:`, or in its braces.
fn declared(text: &str) -> BTreeMap<&str, &str> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("orbs:"));
    let head = lines.next().unwrap_or("");
    let indent = |line: &str| line.len() - line.trim_start().len();
    let content = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let inside: Vec<&str> = lines.filter(content).take_while(|line| indent(line) > 0).collect();
    let own = inside.first().map_or(0, |line| indent(line));
    let direct = inside.into_iter().filter(|line| indent(line) == own).map(|line| (line, line.trim()));
    let braces = head["orbs:".len().min(head.len())..].trim().trim_matches(['{', '}']);
    let flow = braces.split(',').map(|entry| (head, entry.trim()));
    let entries = direct.chain(flow).filter_map(|(line, entry)| Some((line.trim(), entry.split_once(':')?)));
    entries
        .filter(|(_, (_, reference))| reference.contains('@'))
        .map(|(line, (alias, _))| (alias.trim(), line))
        .collect()
}

/// Does `alias/element` stand anywhere as a key or a whole value?
fn is_used(text: &str, alias: &str) -> bool {
    let start = format!("{alias}/");
    text.lines().filter(|line| !line.trim_start().starts_with('#')).any(|line| {
        line.match_indices(&start).any(|(at, _)| {
            let before = line[..at].trim_start();
            let before = before.strip_suffix(['"', '\'', '[', '{', ' ']).unwrap_or(before).trim_end();
            let element =
                line[at + start.len()..].trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_-".contains(c));
            let after = element.trim_start_matches(['"', '\'']).trim();
            let is_key = before.is_empty() || before.ends_with(['-', '[', ',', '{', ':']);
            is_key && (after.is_empty() || after.starts_with([':', ',', ']', '}', '#']))
        })
    })
}
