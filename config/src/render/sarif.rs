//! Diagnostics as SARIF 2.1.0, which code review and editors read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::places::Places;
use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::input::{File, Source};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// One run whose rules are the codes that occur. Columns count characters.
pub(crate) fn render_sarif(source: &Source<'_>, files: &[File], diagnostics: &[Diagnostic]) -> String {
    let codes: BTreeMap<&str, &Diagnostic> = diagnostics.iter().rev().map(|told| (told.code, told)).collect();
    let indices: BTreeMap<&str, usize> = codes.keys().enumerate().map(|(index, code)| (*code, index)).collect();
    let places = Places::new(source, files);
    let results: Vec<Value> = diagnostics.iter().map(|told| result(&places, told, indices[told.code])).collect();
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {
                "driver": {
                    "name": "navvy",
                    "semanticVersion": env!("CARGO_PKG_VERSION"),
                    "rules": codes.values().map(|told| rule(told)).collect::<Vec<_>>(),
                }
            },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    // No map of these types has keys that are not texts.
    serde_json::to_string_pretty(&log).unwrap_or_default() + "\n"
}

fn rule(told: &Diagnostic) -> Value {
    json!({
        "id": told.code,
        "shortDescription": { "text": told.code.replace('-', " ") },
        "defaultConfiguration": { "level": level(told.severity) },
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn result(places: &Places<'_>, told: &Diagnostic, rule: usize) -> Value {
    let trail = told.trail.iter().map(|frame| (&frame.text, frame.span));
    let related = told.related.iter().map(|related| (&related.text, related.span));
    let others: Vec<Value> = related
        .chain(trail)
        .enumerate()
        .map(|(id, (text, span))| {
            let mut other = location(places, span);
            other["id"] = json!(id);
            other["message"] = json!({ "text": text });
            other
        })
        .collect();
    let help = told.help.as_ref().map(|help| format!("\n{help}")).unwrap_or_default();
    json!({
        "ruleId": told.code,
        "ruleIndex": rule,
        "level": level(told.severity),
        "message": { "text": format!("{}{help}", told.message) },
        "locations": [location(places, told.span)],
        "relatedLocations": others,
    })
}

fn location(places: &Places<'_>, span: Span) -> Value {
    let mut physical = json!({ "artifactLocation": { "uri": uri(places.name(span)) } });
    if let Some(place) = places.of(span) {
        physical["region"] = json!({
            "startLine": place.line,
            "startColumn": place.column,
            "endLine": place.end_line,
            "endColumn": place.end_column,
            "byteOffset": place.start,
            "byteLength": place.end - place.start,
        });
    }
    json!({ "physicalLocation": physical })
}

/// A path as a reference: what has a meaning in one is escaped.
fn uri(name: &str) -> String {
    let keeps = |b: &u8| b.is_ascii_alphanumeric() || b"-._~/".contains(b);
    name.bytes().map(|b| if keeps(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inputs, compile};

    fn log(text: &str) -> Value {
        let source = Source { name: ".circleci/a b.yml", text };
        serde_json::from_str(&compile(&source, &Inputs::default()).render_sarif(&source)).unwrap()
    }

    #[test]
    fn results_point_at_their_rules_and_places() {
        let text = "version: 2.1\njobs:\n  build:\n    docker: [{image: i}]\n    machine: true\n    steps: [chekout, wen: x]\n";
        insta::assert_json_snapshot!(log(text));
    }

    /// What the schema of SARIF requires, and that references lead somewhere.
    #[test]
    fn what_must_be_there_is_there() {
        for text in ["", "a: [", "version: 2.1\njobs: {build: {stepz: []}}\n", "version: 2.1\nworkflows: {}\n"] {
            let log = log(text);
            assert_eq!(log["version"], "2.1.0");
            let run = &log["runs"][0];
            let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
            assert!(run["tool"]["driver"]["name"].is_string());
            for result in run["results"].as_array().unwrap() {
                let rule = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
                assert_eq!(rules[rule]["id"], result["ruleId"]);
                assert!(!result["message"]["text"].as_str().unwrap().is_empty());
                let region = &result["locations"][0]["physicalLocation"]["region"];
                assert!(region.is_null() || region["startLine"].as_u64() >= Some(1), "{region}");
            }
        }
    }
}
