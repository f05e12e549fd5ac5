//! Which registry orbs a config imports, told by its text alone, and whether exactly these are told to be missing.

use std::collections::{BTreeMap, BTreeSet};

use navvy_config::{Diagnostic, Severity};
use serde_json::{Value, json};

use crate::compare::Fact;

/// Without the orbs the only errors name each of them; with leave to go on, the warnings name the same.
pub fn compare(text: &str, strict: &[Diagnostic], lenient: &[Diagnostic]) -> Vec<Fact> {
    let imported: BTreeSet<&str> = imported(text).into_values().collect();
    let errors = strict.iter().filter(|told| told.severity == Severity::Error);
    let warnings = lenient.iter().filter(|told| told.code == "missing-orb");
    vec![
        fact("missing orbs", json!(imported), json!(errors.map(|told| place(text, told)).collect::<BTreeSet<_>>())),
        fact("orbs left out", json!(imported), json!(warnings.map(|told| place(text, told)).collect::<BTreeSet<_>>())),
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

/// Aliases of registry orbs with their lines: `  node: circleci/node@5.1`, somewhere below `orbs:` (an orb that is written
/// out may import others), or in its braces.
fn imported(text: &str) -> BTreeMap<&str, &str> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("orbs:"));
    let head = lines.next().unwrap_or("");
    let below = |line: &&str| line.trim().is_empty() || line.starts_with([' ', '#']);
    let direct = lines.take_while(below).map(|line| (line.trim(), line.trim()));
    let braces = head["orbs:".len().min(head.len())..].trim().trim_matches(['{', '}']);
    let flow = braces.split(',').map(|entry| (head.trim(), entry.trim()));
    let entries = direct.chain(flow).filter(|(line, _)| !line.starts_with('#'));
    let entries = entries.filter_map(|(line, entry)| Some((line, entry.split_once(':')?)));
    entries
        .filter(|(_, (_, reference))| is_reference(reference))
        .map(|(line, (alias, _))| (alias.trim(), line))
        .collect()
}

/// `namespace/name@version`, and no image by digest.
fn is_reference(text: &str) -> bool {
    let text = text.split(" #").next().unwrap_or("").trim().trim_matches(['"', '\'']);
    let Some((name, version)) = text.split_once('@') else { return false };
    let known = version.starts_with(|c: char| c.is_ascii_digit() || c == '<');
    name.contains('/') && (known || version == "volatile" || version.starts_with("dev:"))
}
