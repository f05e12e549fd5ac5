//! What the tests of several modules share.

use std::path::{Path, PathBuf};

use proptest::prelude::{Strategy, any, prop};
use serde_json::Value;

/// The configs of `config/tests/fixtures`, which together use the whole language: name and text.
pub(crate) fn fixtures() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 5, "the fixtures are gone");
    let read = |path: PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap())
    };
    paths.into_iter().map(read).collect()
}

/// What is wrong with `document` by `schema`.
pub(crate) fn valid(schema: &Value, document: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(schema).unwrap();
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// A generated file of the repository is what is generated now. Where it is not, it is written anew, and the test fails
/// this once.
pub(crate) fn committed(path: &str, schema: &Value) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let now = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if std::fs::read_to_string(&file).unwrap_or_default() != now {
        std::fs::write(&file, now).unwrap();
        panic!("{path} was not up to date. It is now: look at the change and commit it.");
    }
}

/// Pieces that mean something in one place or another.
const WORDS: [&str; 34] = [
    "<<",
    ">>",
    "<< parameters.whom >>",
    "<< pipeline.number >>",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "- ",
    "\n",
    "  ",
    "when",
    "null",
    "true",
    "1",
    "3.10",
    "on",
    "010",
    "1:30",
    "!x",
    "'",
    "\"",
    "#",
    "ä",
    "\u{2028}",
    "steps",
    "run",
    "name",
    "requires",
    "build",
    "~",
    "|",
    "",
];

/// A fixture with a few places changed.
pub(crate) fn mutated() -> impl Strategy<Value = String> {
    let texts: Vec<String> = fixtures().into_iter().map(|(_, text)| text).collect();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0_usize..10, 0..WORDS.len()), 1..4);
    (prop::sample::select(texts), edits).prop_map(|(mut text, edits)| {
        for (at, cut, word) in edits {
            let at = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.ceil_char_boundary((at + cut).min(text.len()));
            text.replace_range(at..end, WORDS[word]);
        }
        text
    })
}
