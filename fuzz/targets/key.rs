//! Templates of cache keys: any text is a key or an error that can be printed; one that was put together of actions and literal
//! text becomes what a naive reader makes of it, which takes one action after the other.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use navvy_fuzz::Feed;
use navvy_storage::template::{KeyError, LONGEST, Template, Values, What, shown};

/// White space for Go's templates. Rust knows more of it.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
const PLAIN: [&str; 16] =
    ["v1-", "a", " ", "\n", "\t", "}}", "}", "ü", "\u{a0}", "-", "\"", "`", "/*", "\r\n", "*/", "\u{2003}x"];
/// What a quoted string says, between double quotes.
const QUOTED: [(&str, &str); 8] = [
    ("a", "a"),
    ("\\\"", "\""),
    ("\\\\", "\\"),
    ("\\n", "\n"),
    ("\\t", "\t"),
    ("}}", "}}"),
    ("{{", "{{"),
    ("`é", "`é"),
];

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed::new(data);
    match feed.byte() & 1 {
        0 => any(&String::from_utf8_lossy(feed.rest())),
        _ => put_together(&mut feed),
    }
});

fn values() -> Values {
    Values {
        branch: "main".to_owned(),
        build_num: "7".to_owned(),
        checkout_key: String::new(),
        revision: "r".repeat(400),
        environment: BTreeMap::from([
            ("A".to_owned(), "{{ .Branch }}".to_owned()),
            ("É_1".to_owned(), " \n".to_owned()),
        ]),
        epoch: -5,
        arch: "linux-amd64-6_85".to_owned(),
        checksums: BTreeMap::from([
            ("go.sum".to_owned(), Ok([0xff; 32])),
            ("none".to_owned(), Err("it is gone".to_owned())),
        ]),
    }
}

fn any(text: &str) {
    let values = values();
    let parsed = Template::parse(text);
    assert_eq!(parsed, Template::parse(text));
    let key = parsed.as_ref().map_err(KeyError::clone).and_then(|template| template.render(&values));
    match &key {
        Ok(key) => {
            assert!((1..=LONGEST).contains(&key.chars().count()));
            let pieces = parsed.as_ref().and_then(|template| Ok(template.pieces(&values).unwrap().concat()));
            assert_eq!(pieces.as_ref(), Ok(key), "the pieces are not the key");
        }
        Err(error) => {
            let words = error.to_string();
            assert!(words.starts_with("error computing cache key: ") && words.len() < 400 + 8 * text.len());
            assert!(!words.contains(|c: char| c.is_control()), "what is printed must not steer a terminal: {words:?}");
        }
    }
    if let Ok(template) = &parsed {
        let checksums = template.asked().filter(|what| matches!(what, What::Checksum(_))).count();
        assert_eq!(template.files().count(), checksums);
    }
    if !text.contains("{{") {
        let is_itself = (1..=LONGEST).contains(&text.chars().count()) == (key.as_deref() == Ok(text));
        assert!(is_itself, "a text without an action is itself: {text:?} is {key:?}");
    }
}

/// A piece of a template as it is written, and what it becomes.
struct Action {
    written: String,
    becomes: String,
    trims: (bool, bool),
}

fn put_together(feed: &mut Feed<'_>) {
    let mut text = literal(feed);
    let mut written = text.clone();
    let (mut key, mut trims, mut is_missing) = (String::new(), false, false);
    for _ in 0..feed.up_to(7) {
        let action = action(feed, &mut is_missing);
        written += &action.written;
        key += trimmed(&text, trims, action.trims.0);
        key += &action.becomes;
        trims = action.trims.1;
        text = literal(feed);
        written += &text;
    }
    key += trimmed(&text, trims, false);
    let found = Template::parse(&written).and_then(|template| template.render(&values()));
    match key.chars().count() {
        _ if is_missing => assert!(found.is_err(), "a file that is gone has a checksum in {written:?}"),
        0 => assert_eq!(found, Err(KeyError::Empty), "{written:?}"),
        count if count > LONGEST => assert_eq!(found, Err(KeyError::TooLong(count))),
        _ => assert_eq!(found, Ok(key), "of {written:?}"),
    }
    any(&written);
}

fn trimmed(text: &str, start: bool, end: bool) -> &str {
    let text = if start { text.trim_start_matches(SPACE) } else { text };
    if end { text.trim_end_matches(SPACE) } else { text }
}

fn literal(feed: &mut Feed<'_>) -> String {
    feed.piece(6).iter().map(|byte| PLAIN[usize::from(*byte) % PLAIN.len()]).collect()
}

fn action(feed: &mut Feed<'_>, is_missing: &mut bool) -> Action {
    let shape = feed.byte();
    let space = |feed: &mut Feed<'_>| SPACE[feed.up_to(SPACE.len() - 1)];
    let (inner, becomes) = inner(feed, is_missing);
    let trims = (shape & 1 != 0, shape & 2 != 0);
    let mut written = String::from("{{");
    if trims.0 {
        written.extend(['-', space(feed)]);
    }
    let is_comment = inner.starts_with("/*");
    let blanks = |shape: u8| " ".repeat(if is_comment { 0 } else { usize::from(shape) });
    written += &format!("{}{inner}{}", blanks(shape >> 2 & 1), blanks(shape >> 3 & 1));
    if trims.1 {
        written.extend([space(feed), '-']);
    }
    Action { written: written + "}}", becomes, trims }
}

fn inner(feed: &mut Feed<'_>, is_missing: &mut bool) -> (String, String) {
    let values = values();
    let (inner, becomes) = match feed.byte() % 13 {
        0 => ("epoch", "-5"),
        1 => ("arch", &*values.arch),
        2 => (".Branch", &*values.branch),
        3 => (".BuildNum", &*values.build_num),
        4 => (".Revision", &*values.revision),
        5 => (".CheckoutKey", ""),
        6 => (".Environment.A", "{{ .Branch }}"),
        7 => (".Environment.É_1", " \n"),
        8 => (".Environment.NONE", "<no value>"),
        9 => ("/* }} {{ */", ""),
        10 => {
            *is_missing = true;
            ("checksum\t`none`", "")
        }
        11 => return (["checksum \"go.sum\"", "checksum `go.sum`"][feed.up_to(1)].to_owned(), shown(&[0xff; 32])),
        _ => return string(feed),
    };
    (inner.to_owned(), becomes.to_owned())
}

fn string(feed: &mut Feed<'_>) -> (String, String) {
    let picked: Vec<_> = feed.piece(5).iter().map(|byte| QUOTED[usize::from(*byte) % QUOTED.len()]).collect();
    let (written, becomes): (String, String) = picked.into_iter().unzip();
    match feed.byte() & 1 {
        0 if !written.contains('`') => (format!("`{written}`"), written),
        _ => (format!("\"{written}\""), becomes),
    }
}
