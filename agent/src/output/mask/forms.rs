//! How a secret value may appear in a text (pure). `docs/secrets.md` tells users the same.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::Serialize;

/// Values with fewer characters are not masked: they occur everywhere.
pub const SHORTEST: usize = 4;
/// Base64 and hexadecimal forms are masked of values of at least this many bytes.
pub const SHORTEST_ENCODED: usize = 6;
/// `base64` and `openssl` break their output into lines of so many characters.
const WRAPS: [usize; 2] = [76, 64];

/// One way a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    Plain,
    /// One line of a value that has several.
    Line,
    Base64,
    Hex,
    Url,
    Json,
    Shell,
}

impl Form {
    /// As a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Plain => "as it is",
            Self::Line => "a line of it",
            Self::Base64 => "base64",
            Self::Hex => "hexadecimal",
            Self::Url => "URL-encoded",
            Self::Json => "JSON-escaped",
            Self::Shell => "shell-quoted",
        }
    }
}

/// May this value be masked at all?
pub fn is_maskable(value: &str) -> bool {
    let value = value.trim_end_matches(['\n', '\r']);
    !value.trim().is_empty()
        && value.chars().nth(SHORTEST - 1).is_some()
        && !matches!(value, "true" | "True" | "false" | "False")
}

/// Every form of a maskable value, each at least [`SHORTEST`] bytes long. May name the same bytes twice.
pub fn forms(value: &str) -> Vec<(Form, Vec<u8>)> {
    // A line break at the end is no secret, and masking it would join two lines.
    let whole = value.trim_end_matches(['\n', '\r']);
    let mut all = vec![(Form::Plain, whole.as_bytes().to_vec())];
    escaped(whole, &mut all);
    if whole.contains('\n') {
        lines(whole, &mut all);
    }
    if whole.len() >= SHORTEST_ENCODED {
        base64(whole.as_bytes(), &mut all);
        hex(whole.as_bytes(), &mut all);
    }
    all.retain(|(_, bytes)| bytes.len() >= SHORTEST);
    all
}

/// The whole with the other kind of line ends, each line, and each line without what surrounds it.
fn lines(whole: &str, all: &mut Vec<(Form, Vec<u8>)>) {
    let bare = whole.replace("\r\n", "\n");
    all.push((Form::Plain, bare.replace('\n', "\r\n").into_bytes()));
    all.push((Form::Plain, bare.clone().into_bytes()));
    for line in bare.split('\n') {
        for text in [line, line.trim()] {
            if is_maskable(text) {
                all.push((Form::Line, text.as_bytes().to_vec()));
                escaped(text, all);
            }
        }
    }
}

fn escaped(text: &str, all: &mut Vec<(Form, Vec<u8>)>) {
    let mut add = |form, escaped: String| {
        if escaped != text {
            all.push((form, escaped.into_bytes()));
        }
    };
    url(text, &mut |escaped| add(Form::Url, escaped));
    json(text, &mut |escaped| add(Form::Json, escaped));
    shell(text, &mut |escaped| add(Form::Shell, escaped));
}

/// The characters of the encoding that do not depend on what stands before and after the value.
fn base64(value: &[u8], all: &mut Vec<(Form, Vec<u8>)>) {
    for offset in 0..3 {
        let padded = [vec![0; offset], value.to_vec()].concat();
        let fixed = (offset * 8).div_ceil(6)..padded.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            let encoded = &encoded.as_bytes()[fixed.clone()];
            all.push((Form::Base64, encoded.to_vec()));
            if offset == 0 {
                wrapped(encoded, all);
            }
        }
    }
}

fn wrapped(encoded: &[u8], all: &mut Vec<(Form, Vec<u8>)>) {
    for width in WRAPS.into_iter().filter(|width| encoded.len() > *width) {
        let pieces = encoded.chunks(width).filter(|piece| piece.len() > SHORTEST_ENCODED);
        all.extend(pieces.map(|piece| (Form::Base64, piece.to_vec())));
    }
}

fn hex(value: &[u8], all: &mut Vec<(Form, Vec<u8>)>) {
    let lower: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    all.push((Form::Hex, lower.to_uppercase().into_bytes()));
    all.push((Form::Hex, lower.into_bytes()));
}

/// Encoders differ in what they leave as it is: RFC 3986, Python's `quote`, JavaScript's `encodeURIComponent`.
fn url(text: &str, add: &mut dyn FnMut(String)) {
    for kept in ["", "/", "!*'()"] {
        for upper in [true, false] {
            let encoded = percent(text, kept, upper);
            if text.contains(' ') {
                add(encoded.replace("%20", "+"));
            }
            add(encoded);
        }
    }
}

fn percent(text: &str, kept: &str, upper: bool) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        let written = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                write!(encoded, "{}", char::from(byte))
            }
            _ if kept.as_bytes().contains(&byte) => write!(encoded, "{}", char::from(byte)),
            _ if upper => write!(encoded, "%{byte:02X}"),
            _ => write!(encoded, "%{byte:02x}"),
        };
        debug_assert!(written.is_ok());
        encoded
    })
}

/// Encoders differ in what they escape beyond need: anything but ASCII (Python), `<>&` (Go), `/` (PHP).
fn json(text: &str, add: &mut dyn FnMut(String)) {
    let plain = serde_json::to_string(text).unwrap_or_default();
    let plain = plain.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(&plain);
    let go = plain.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    add(ascii_json(&go));
    add(go);
    add(ascii_json(plain));
    add(plain.replace('/', "\\/"));
    add(ascii_json(&plain.replace('/', "\\/")));
    add(plain.to_owned());
}

fn ascii_json(text: &str) -> String {
    let mut ascii = String::new();
    for character in text.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            ascii.extend(character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    ascii
}

fn shell(text: &str, add: &mut dyn FnMut(String)) {
    // bash's `set -x`; dash's and Python's way.
    add(text.replace('\'', r"'\''"));
    add(text.replace('\'', r#"'"'"'"#));
    // `declare -p`
    add(escape(text, |c, _| matches!(c, '"' | '\\' | '$' | '`')));
    // `printf %q`
    add(escape(text, |c, first| " \t!\"$&'()*,;<>?[\\]^`{|}".contains(c) || (first && "#~".contains(c))));
    // `$'…'`, which bash takes for values with control characters.
    add(ansi(text, true));
    add(ansi(text, false));
}

fn escape(text: &str, special: impl Fn(char, bool) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (index, character) in text.char_indices() {
        if special(character, index == 0) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// `unicode`: characters beyond ASCII stay as they are; in the C locale bash writes their bytes in octal.
fn ansi(text: &str, unicode: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\x07' => escaped.push_str("\\a"),
            '\x08' => escaped.push_str("\\b"),
            '\x1b' => escaped.push_str("\\E"),
            '\x0c' => escaped.push_str("\\f"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\x0b' => escaped.push_str("\\v"),
            '\\' | '\'' => escaped.extend(['\\', character]),
            ' '..='~' => escaped.push(character),
            _ if unicode && !character.is_control() => escaped.push(character),
            _ => {
                let bytes =
                    character.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\{byte:03o}")).collect::<String>();
                escaped.push_str(&bytes);
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(value: &str, form: Form, text: &str) {
        let all = forms(value);
        let found = all.iter().any(|(known, bytes)| *known == form && bytes == text.as_bytes());
        assert!(found, "{value:?} lacks {form:?} {text:?}: {:?}", shown(&all));
    }

    fn shown(all: &[(Form, Vec<u8>)]) -> Vec<(Form, String)> {
        all.iter().map(|(form, bytes)| (*form, String::from_utf8_lossy(bytes).into_owned())).collect()
    }

    #[test]
    fn short_and_common_values_are_left() {
        for value in ["", "abc", "日本語", "true", "True", "false", "False", "    ", "abc\n", "\n\n\n\n"] {
            assert!(!is_maskable(value), "{value:?}");
        }
        for value in ["abcd", "TRUE", "日本語字", "true1", "a\nb\nc"] {
            assert!(is_maskable(value), "{value:?}");
        }
    }

    #[test]
    fn base64_at_every_offset_in_both_alphabets() {
        let value = "hunter2>>>?";
        for before in ["", "a", "bc", "user:", "me:x"] {
            for after in ["", "\n", "zz"] {
                let text = format!("{before}{value}{after}");
                for encoded in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                    let covered = forms(value).into_iter().filter(|(form, _)| *form == Form::Base64);
                    let longest = covered.filter(|(_, it)| encoded.contains(std::str::from_utf8(it).unwrap()));
                    let longest = longest.map(|(_, it)| it.len()).max().unwrap_or(0);
                    assert!(longest * 6 + 12 > value.len() * 8, "{text:?} {encoded}");
                }
            }
        }
        assert!(!forms("hunte").iter().any(|(form, _)| *form == Form::Base64));
    }

    #[test]
    fn base64_that_is_broken_into_lines() {
        let value = "0123456789".repeat(12);
        let encoded = STANDARD_NO_PAD.encode(&value);
        has(&value, Form::Base64, &encoded[76..152]);
        has(&value, Form::Base64, &encoded[64..128]);
        has(&value, Form::Base64, &encoded[152..]);
    }

    #[test]
    fn lines_with_either_end() {
        let value = "first line\nab\r\n  third line\n";
        has(value, Form::Line, "first line");
        has(value, Form::Line, "  third line");
        has(value, Form::Line, "third line");
        has(value, Form::Plain, "first line\nab\n  third line");
        has(value, Form::Plain, "first line\r\nab\r\n  third line");
        assert!(!forms(value).iter().any(|(_, bytes)| bytes == b"ab"));
    }

    #[test]
    fn escaped_as_programs_do() {
        has("a b/c?é", Form::Url, "a%20b%2Fc%3F%C3%A9");
        has("a b/c?é", Form::Url, "a+b%2fc%3f%c3%a9");
        has("a b/c?é", Form::Url, "a%20b/c%3F%C3%A9");
        has(
            "it's(5)!",
            Form::Url,
            "it's(5)!".replace('\'', "%27").replace('(', "%28").replace(')', "%29").replace('!', "%21").as_str(),
        );
        has("\"a\\b\né/<", Form::Json, r#"\"a\\b\né/<"#);
        has("\"a\\b\né/<", Form::Json, r#"\"a\\b\n\u00e9/<"#);
        has("\"a\\b\né/<", Form::Json, r#"\"a\\b\né/\u003c"#);
        has("\"a\\b\né/<", Form::Json, r#"\"a\\b\né\/<"#);
        has("pass\"", Form::Json, r#"pass\""#);
        has("it's $5", Form::Shell, r"it'\''s $5");
        has("it's $5", Form::Shell, r#"it'"'"'s $5"#);
        has("it's $5", Form::Shell, r"it's \$5");
        has("it's $5", Form::Shell, r"it\'s\ \$5");
        has("#a,b{c}", Form::Shell, r"\#a\,b\{c\}");
        has("tab\tit's é", Form::Shell, r"tab\tit\'s é");
        has("tab\tit's é", Form::Shell, r"tab\tit\'s \303\251");
        has("hunter2", Form::Hex, "68756e74657232");
        has("hunter2z", Form::Hex, "68756E746572327A");
    }
}
