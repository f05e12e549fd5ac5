//! How a secret value may appear in a text (pure). `docs/secrets.md` tells users the same.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use navvy_job::event::Form;

/// Values with fewer characters are not masked: they occur everywhere.
pub const SHORTEST: usize = 4;
/// Base64 and hexadecimal forms are masked of values of at least this many bytes.
pub const SHORTEST_ENCODED: usize = 6;
/// `base64` and `openssl` break their output into lines of so many characters.
const WRAPS: [usize; 2] = [76, 64];

/// May this value be masked at all?
pub fn is_maskable(value: &str) -> bool {
    let value = value.trim_end_matches(['\n', '\r']);
    !value.trim().is_empty()
        && value.chars().nth(SHORTEST - 1).is_some()
        && !matches!(value, "true" | "True" | "false" | "False")
}

/// Every form of a maskable value, each at least [`SHORTEST`] bytes long. May name the same bytes twice.
pub fn forms(value: &str) -> Vec<(Form, Vec<u8>)> {
    // A line break at the end is not secret, and masking it would join two lines.
    let whole = value.trim_end_matches(['\n', '\r']);
    let mut all = Vec::new();
    let trimmed = whole.trim();
    let bare = (trimmed != whole && is_maskable(trimmed)).then_some(trimmed);
    // Programs drop the blanks around a value, as `echo $VALUE` does.
    for text in [Some(whole), bare].into_iter().flatten() {
        all.push((Form::Plain, text.as_bytes().to_vec()));
        escaped(text, &mut all);
        if text.len() >= SHORTEST_ENCODED {
            base64(text.as_bytes(), &mut all);
            hex(text.as_bytes(), &mut all);
        }
    }
    if whole.contains('\n') {
        lines(whole, &mut all);
    }
    all.retain(|(_, bytes)| bytes.len() >= SHORTEST);
    utf_16(&mut all);
    all
}

/// Adds UTF-16 of the value, of its lines, and of each form that is not ASCII. The other forms are not worth so many
/// patterns in a log; in a file they are looked for without its NULs (the agent's `artifacts::guard`).
fn utf_16(all: &mut Vec<(Form, Vec<u8>)>) {
    let mut wide = Vec::new();
    for (form, bytes) in all.iter() {
        let is_of_value = matches!(form, Form::Plain | Form::Line) || !bytes.is_ascii();
        let Some(text) = is_of_value.then(|| std::str::from_utf8(bytes).ok()).flatten() else { continue };
        for encode in [u16::to_le_bytes, u16::to_be_bytes] {
            wide.push((Form::Utf16, text.encode_utf16().flat_map(encode).collect()));
        }
    }
    all.append(&mut wide);
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
    xml(text, &mut |escaped| add(Form::Xml, escaped));
    quoted(text, &mut |escaped| add(Form::Quoted, escaped));
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

/// Once, and what was encoded once more: an address in an address.
fn url(text: &str, add: &mut dyn FnMut(String)) {
    url_once(text, &mut |once| {
        if once != text {
            let twice = once.replace('%', "%25");
            for plus in ["%2B", "%2b"].into_iter().filter(|_| once.contains('+')) {
                add(twice.replace('+', plus));
            }
            add(twice);
        }
        add(once);
    });
}

/// Encoders differ in what they leave as it is: RFC 3986, Python's `quote`, JavaScript's `encodeURIComponent`.
fn url_once(text: &str, add: &mut dyn FnMut(String)) {
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

/// Once, and what was escaped once more: JSON in a string of JSON.
fn json(text: &str, add: &mut dyn FnMut(String)) {
    let mut once = Vec::new();
    json_once(text, &mut |escaped| once.push(escaped));
    once.sort_unstable();
    once.dedup();
    for escaped in once {
        if escaped != text {
            json_once(&escaped, add);
        }
        add(escaped);
    }
}

/// Encoders differ in what they escape beyond need: anything but ASCII (Python), `<>&` (Go), `/` (PHP).
fn json_once(text: &str, add: &mut dyn FnMut(String)) {
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

/// How quotes are written, `"` and `'`: not at all (in a text between tags), in an attribute by XML, libxml, HTML, Python, Go, PHP.
const ENTITIES: [[&str; 2]; 7] = [
    ["\"", "'"],
    ["&quot;", "'"],
    ["&quot;", "&apos;"],
    ["&quot;", "&#39;"],
    ["&quot;", "&#x27;"],
    ["&#34;", "&#39;"],
    ["&quot;", "&#039;"],
];

/// Encoders differ in quotes, in `>`, which need not be escaped, and in what is not ASCII.
fn xml(text: &str, add: &mut dyn FnMut(String)) {
    if !text.contains(['&', '<', '>', '"', '\'']) && text.is_ascii() {
        return;
    }
    let both = text.replace('&', "&amp;").replace('<', "&lt;");
    for greater in [">", "&gt;"] {
        for [double, single] in ENTITIES {
            let escaped = both.replace('>', greater).replace('"', double).replace('\'', single);
            for hex in [false, true].into_iter().filter(|_| !escaped.is_ascii()) {
                add(numbered(&escaped, hex));
            }
            add(escaped);
        }
    }
}

/// What is not ASCII as `&#233;` or `&#xE9;`.
fn numbered(text: &str, hex: bool) -> String {
    let number = |character: char| match (character.is_ascii(), hex) {
        (true, _) => character.to_string(),
        (false, true) => format!("&#x{:X};", u32::from(character)),
        (false, false) => format!("&#{};", u32::from(character)),
    };
    text.chars().map(number).collect()
}

/// A quote in a text that such quotes stand around.
fn quoted(text: &str, add: &mut dyn FnMut(String)) {
    // SQL, YAML, PowerShell, CSV.
    add(text.replace('\'', "''"));
    add(text.replace('"', "\"\""));
    // PowerShell's `"…"`; MySQL and the languages that are like C.
    add(text.replace('`', "``").replace('"', "`\"").replace('$', "`$"));
    add(escape(text, |c, _| matches!(c, '"' | '\'' | '\\')));
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
    fn the_shortest_values_have_the_forms_that_they_may_have() {
        has("abcd", Form::Plain, "abcd");
        has("hunter", Form::Hex, "68756e746572");
        has("hunter", Form::Base64, "aHVudGVy");
        assert!(
            !forms("hunte").iter().any(|(form, _)| *form == Form::Hex),
            "five characters are too short for hexadecimal"
        );
    }

    #[test]
    fn base64_that_is_broken_into_lines() {
        let value = "0123456789".repeat(12);
        let encoded = STANDARD_NO_PAD.encode(&value);
        has(&value, Form::Base64, &encoded[76..152]);
        has(&value, Form::Base64, &encoded[64..128]);
        has(&value, Form::Base64, &encoded[152..]);
        // Only six characters of its second line are certain, and they may occur in any text.
        let barely = "0123456789".repeat(7)[..62].to_owned();
        let short = &STANDARD_NO_PAD.encode(&barely)[76..82];
        assert!(!forms(&barely).iter().any(|(_, bytes)| bytes == short.as_bytes()), "{short} is too short");
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
    fn blanks_around_a_value_may_be_gone() {
        for value in ["  hunter2 horse ", "\thunter2 horse", "hunter2 horse \n"] {
            has(value, Form::Plain, value.trim_end_matches('\n'));
            has(value, Form::Plain, "hunter2 horse");
            has(value, Form::Url, "hunter2%20horse");
            has(value, Form::Hex, "68756e7465723220686f727365");
            has(value, Form::Base64, &STANDARD_NO_PAD.encode("hunter2 horse")[..17]);
        }
        assert!(!forms("  abc ").iter().any(|(_, bytes)| bytes == b"abc"), "too short to be masked");
        assert!(!forms(" true ").iter().any(|(_, bytes)| bytes == b"true"), "too common to be masked");
        has(" -----BEGIN\nabcdefgh\nEND----- ", Form::Plain, "-----BEGIN\nabcdefgh\nEND-----");
    }

    #[test]
    fn xml_of_a_value_that_is_ascii_and_of_one_that_needs_numbers_alone() {
        has("p<w&d", Form::Xml, "p&lt;w&amp;d");
        has("caf\u{e9}", Form::Xml, "caf&#233;");
        has("caf\u{e9}", Form::Xml, "caf&#xE9;");
    }

    #[test]
    fn escaped_for_a_text_in_a_text() {
        let value = r#"a'b"c<d>&e/é"#;
        for text in [
            "a'b\"c&lt;d&gt;&amp;e/é",
            "a'b\"c&lt;d>&amp;e/é",
            "a&apos;b&quot;c&lt;d&gt;&amp;e/é",
            "a&#39;b&#34;c&lt;d&gt;&amp;e/é",
            "a&#39;b&quot;c&lt;d&gt;&amp;e/é",
            "a&#x27;b&quot;c&lt;d&gt;&amp;e/é",
            "a&#039;b&quot;c&lt;d&gt;&amp;e/é",
            "a'b&quot;c&lt;d&gt;&amp;e/&#233;",
            "a'b\"c&lt;d&gt;&amp;e/&#xE9;",
        ] {
            has(value, Form::Xml, text);
        }
        has(value, Form::Quoted, "a''b\"c<d>&e/é");
        has(value, Form::Quoted, "a'b\"\"c<d>&e/é");
        has(value, Form::Quoted, r#"a\'b\"c<d>&e/é"#);
        has("pa$$`\"", Form::Quoted, "pa`$`$```\"");
        let inner = serde_json::json!({ "k": value }).to_string();
        let outer = serde_json::json!({ "body": inner }).to_string();
        let twice = forms(value).into_iter().any(|(form, bytes)| {
            form == Form::Json
                && bytes.windows(3).any(|it| it == br#"\\\"#)
                && outer.contains(std::str::from_utf8(&bytes).unwrap())
        });
        assert!(twice, "{outer}");
        has(value, Form::Json, r#"a'b\\\"c\\u003cd\\u003e\\u0026e/\\u00e9"#);
        has("a b/c+é", Form::Url, "a%2520b%252Fc%252B%25C3%25A9");
        has("a b/c+é", Form::Url, "a%2Bb%252fc%252b%25c3%25a9");
    }

    #[test]
    fn a_value_without_anything_to_escape_has_no_more_forms_than_it_needs() {
        let mut all: Vec<Vec<u8>> = forms("hunter2hunter2").into_iter().map(|(_, bytes)| bytes).collect();
        all.sort();
        all.dedup();
        assert_eq!(
            all.len(),
            1 + 3 + 2 + 2,
            "as it is, base64 at three offsets, hexadecimal and UTF-16 in two ways each"
        );
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
