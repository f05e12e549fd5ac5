//! Any text, on a branch or a tag, with parameters or without: it compiles or is refused with a reason, at a place that lies in
//! it; the same way each time; and what there is to say of it can be written out.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use navvy_config::{Diagnostic, Inputs, Severity, Source, Value, compile, render};
use navvy_fuzz::Feed;

const NAMES: [&str; 6] = ["main", "release/1.x", "v1.2.3", "", "ä\u{1}", "a-very-long-name-of-a-branch/with/slashes"];
const PARAMETERS: [&str; 4] = ["deploy", "tag", "e", "x"];
const VALUES: [&str; 5] = ["true", "1", "a", "", "<< pipeline.id >>"];

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed::new(data);
    let inputs = inputs(&mut feed);
    let text = String::from_utf8_lossy(feed.rest());
    let source = Source { name: "config.yml", text: &text };
    let outcome = compile(&source, &inputs);
    let refused = outcome.diagnostics.iter().any(|told| told.severity == Severity::Error);
    assert_eq!(outcome.pipeline.is_none(), refused, "a pipeline, or an error");
    outcome.diagnostics.iter().for_each(|told| lies_in_it(told, &text));
    let rendered = render(&source, &outcome.diagnostics);
    assert!(!refused || !rendered.is_empty());
    assert!(!rendered.contains(|c: char| c.is_control() && c != '\n'), "what is printed must not steer a terminal");

    let again = compile(&source, &inputs);
    assert!(again.diagnostics == outcome.diagnostics, "the same text is refused otherwise");
    // A number that is none equals nothing, not even itself.
    let same = serde_json::to_string(&again.pipeline).ok() == serde_json::to_string(&outcome.pipeline).ok();
    assert!(same, "the same text compiles otherwise");
});

fn inputs(feed: &mut Feed<'_>) -> Inputs {
    let name = |feed: &mut Feed<'_>| NAMES[feed.up_to(NAMES.len() - 1)].to_owned();
    let shape = feed.byte();
    let pick = |feed: &mut Feed<'_>, from: &[&str]| from[feed.up_to(from.len() - 1)].to_owned();
    let parameters = (0..shape & 3).map(|_| (pick(feed, &PARAMETERS), pick(feed, &VALUES))).collect();
    let mut values = BTreeMap::new();
    if shape & 4 != 0 {
        values.insert("number".to_owned(), Value::Int(7));
        values.insert("git.base_revision".to_owned(), Value::Null);
    }
    let (branch, tag) = if shape & 8 == 0 { (Some(name(feed)), None) } else { (None, Some(name(feed))) };
    let (allow_missing_orbs, tolerate_unreached) = (shape & 16 != 0, shape & 32 != 0);
    Inputs { branch, tag, parameters, values, allow_missing_orbs, tolerate_unreached, ..Inputs::default() }
}

fn lies_in_it(told: &Diagnostic, text: &str) {
    for span in std::iter::once(told.span).chain(told.trail.iter().map(|frame| frame.span)) {
        assert!(text.get(span.start..span.end).is_some(), "{span:?} lies in no text: {}", told.message);
        let line = 1 + text[..span.start].matches('\n').count();
        let is_placed = span.line == 0 || span.line.abs_diff(line) <= text.matches('\r').count();
        assert!(is_placed, "{span:?} says line {}, but that is line {line}: {}", span.line, told.message);
    }
}
