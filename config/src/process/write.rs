//! A tree to YAML that readers of YAML 1.1 and of 1.2 understand alike.
//!
//! Text is plain where every reader takes it for text, a block where it has several lines, else quoted.

use super::yaml::{Entry, Item, Yaml, is_word};
use crate::syntax::{Literal, literal};

const STEP: usize = 2;
/// Readers look no further for the `:` of a key.
const LONGEST_KEY: usize = 1_000;

struct Writer {
    out: String,
    /// Do readers of the text take `<<` for a tag?
    escaped: bool,
}

/// The whole text. With `escaped`, `<<` is written `\<<`.
pub(crate) fn document(entries: &[Entry], escaped: bool) -> String {
    let mut writer = Writer { out: String::new(), escaped };
    writer.entries(entries, 0, false);
    writer.out
}

impl Writer {
    /// `continued`: the first entry stands behind the dash of an item.
    fn entries(&mut self, entries: &[Entry], indent: usize, continued: bool) {
        for (index, entry) in entries.iter().enumerate() {
            if index > 0 || !continued {
                self.comments(&entry.comments, indent);
                self.indent(indent);
            }
            self.key(&entry.key, indent);
            self.value(&entry.value, indent);
        }
    }

    fn key(&mut self, key: &str, indent: usize) {
        let key = scalar(key);
        if key.len() > LONGEST_KEY {
            self.out.push_str("? ");
            self.out.push_str(&key);
            self.out.push('\n');
            self.indent(indent);
        } else {
            self.out.push_str(&key);
        }
        self.out.push(':');
    }

    /// What stands behind `key:`, with the line's end.
    fn value(&mut self, value: &Yaml, indent: usize) {
        match value {
            Yaml::Map(entries) if !entries.is_empty() => {
                self.out.push('\n');
                self.entries(entries, indent + STEP, false);
            }
            Yaml::List(items) if !items.is_empty() => {
                self.out.push('\n');
                self.items(items, indent + STEP);
            }
            _ => {
                self.out.push(' ');
                self.leaf(value, indent + STEP);
            }
        }
    }

    fn items(&mut self, items: &[Item], indent: usize) {
        for item in items {
            self.comments(&item.comments, indent);
            if let Yaml::Map(entries) = &item.value
                && let Some(first) = entries.first()
            {
                self.comments(&first.comments, indent);
            }
            self.indent(indent);
            self.out.push_str("- ");
            match &item.value {
                Yaml::Map(entries) if !entries.is_empty() => self.entries(entries, indent + STEP, true),
                Yaml::List(items) if !items.is_empty() => {
                    // A list in a list starts on a line of its own.
                    self.out.truncate(self.out.trim_end_matches(' ').len());
                    self.out.push('\n');
                    self.items(items, indent + STEP);
                }
                leaf => self.leaf(leaf, indent + STEP),
            }
        }
    }

    fn leaf(&mut self, value: &Yaml, indent: usize) {
        match value {
            Yaml::Plain(text) => self.out.push_str(text),
            Yaml::Text(text) => {
                let escaped = if self.escaped { text.replace("<<", "\\<<") } else { text.clone() };
                match block(&escaped, indent) {
                    Some(block) => return self.out.push_str(&block),
                    None => self.out.push_str(&scalar(&escaped)),
                }
            }
            Yaml::List(_) => self.out.push_str("[]"),
            Yaml::Map(_) => self.out.push_str("{}"),
        }
        self.out.push('\n');
    }

    fn comments(&mut self, comments: &[String], indent: usize) {
        for comment in comments {
            self.indent(indent);
            self.out.push_str("# ");
            self.out.extend(comment.chars().map(|c| if is_printable(c) { c } else { ' ' }));
            self.out.push('\n');
        }
    }

    fn indent(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }
}

/// A literal block with its header and its line's end; `None` for what would not come back from one as it was.
fn block(text: &str, indent: usize) -> Option<String> {
    let lines: Vec<&str> = text.split('\n').collect();
    let only_blanks = |line: &&str| !line.is_empty() && line.chars().all(char::is_whitespace);
    let readable = |c: char| c == '\n' || c == '\t' || is_printable(c);
    let first = lines.iter().find(|line| !line.is_empty())?;
    if lines.len() < 2 || lines.iter().any(only_blanks) || !text.chars().all(readable) || first.starts_with('\t') {
        return None;
    }
    let width = if text.starts_with([' ', '\n']) { STEP.to_string() } else { String::new() };
    let (body, chomp) = match text.strip_suffix('\n') {
        None => (text, "-"),
        Some(body) if body.ends_with('\n') => (body, "+"),
        Some(body) => (body, ""),
    };
    let mut out = format!("|{width}{chomp}\n");
    for line in body.split('\n') {
        if !line.is_empty() {
            out.extend(std::iter::repeat_n(' ', indent));
            out.push_str(line);
        }
        out.push('\n');
    }
    Some(out)
}

/// Text on one line.
pub(super) fn scalar(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else if !text.chars().all(is_printable) {
        escaped(text)
    } else if text.contains(['"', '\\']) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        format!("\"{text}\"")
    }
}

/// Does every reader take the text for a text, and for this one?
fn is_plain(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_alphabetic() || matches!(c, '/' | '_' | '.' | '$' | '(' | '~'));
    let ends = !text.ends_with([' ', ':']);
    let inside = !text.contains(": ") && !text.contains(" #") && text.chars().all(is_printable);
    starts && ends && inside && !is_other_type(text)
}

/// Would YAML 1.2 or 1.1 read the text as something else than a text?
fn is_other_type(text: &str) -> bool {
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | '_' | ':' | '+' | '-' | 'e' | 'E');
    literal(text) != Literal::Text(text)
        || is_word(text)
        || text.chars().all(numeric)
        || matches!(text.to_ascii_lowercase().as_str(), ".inf" | ".nan")
}

/// In YAML 1.1, what needs an escape in no text. Its line breaks are not ours.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn escaped(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::diagnostic::Report;
    use crate::syntax::{Node, parse};

    /// What comes back of a text that stands in a map, in a list, and is followed by something.
    fn back(text: &str) -> (Node, String) {
        let entries = [Entry::new(
            "a",
            Yaml::List(vec![Item::new(Yaml::Map(vec![
                Entry::new("the text itself", Yaml::text(text)),
                Entry::new(text, Yaml::texts([text])),
            ]))]),
        )];
        let written = document(&entries, false);
        let mut report = Report::default();
        let root = parse(&written, 0, &mut report).unwrap_or_else(|| panic!("{written}\n{:?}", report.into_sorted()));
        let map = root.as_map().unwrap().get("a").unwrap().as_list().unwrap()[0].clone();
        (map, written)
    }

    fn comes_back(text: &str) {
        let (node, written) = back(text);
        let map = node.as_map().unwrap();
        let scalar = |node: &Node| match node.as_scalar().unwrap().literal() {
            Literal::Text(text) => text.to_owned(),
            other => panic!("{other:?} in {written}"),
        };
        assert_eq!(scalar(map.get("the text itself").unwrap()), text, "{written}");
        let entry = &map.entries[1];
        assert_eq!(&*entry.key, text, "{written}");
        assert_eq!(scalar(&entry.value.as_list().unwrap()[0]), text, "{written}");
    }

    /// Texts that a plain scalar, or a block, would lose.
    #[rustfmt::skip]
    const ODD: &[&str] = &[
        "", " ", "~", "null", "true", "Yes", "off", "y", "1", "010", "1_000", "0x1F", "1e3", ".5", "-1", "+1", ".inf",
        "12:30:45", "2001-12-14", "1.2.3", "a: b", "a:", "a #b", "#a", "- a", "-", "? a", "*a", "&a", "!a", "|", ">",
        "[a]", "{a}", "%a", "@a", "`a", "'a'", "\"a\"", "a'b\"c\\d", "<<", "=", "a\\b", "---", "...", "a, b",
        "a\r\nb", "\u{85}", "\u{2028}", "\u{feff}a", "ü", "😀",
        "a\tb", "\ta", "a\n", "a\n\n", "\na", "\n", " a\nb\n", "a\n\tb\n", "\ta\nb", "a\n \nb", "a \nb",
        "a\n  b\n c\n", "a\n\n  b", "a\n ", "a\n# b\n", "é\nü\n", "a\0b", "# a\nb", "- a\nb", "a: b\nc: d\n",
        "\n\n a\n",
    ];

    #[test]
    fn texts_that_look_like_something_else_stay_texts() {
        for text in ODD {
            comes_back(text);
        }
    }

    #[test]
    fn long_keys_come_back() {
        let (node, _) = back(&"k".repeat(3_000));
        assert_eq!(node.as_map().unwrap().entries[1].key.len(), 3_000);
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in "[a-c0-9 \n\t:#'\"<>\\\\~.\\-+{}\\[\\]|>&*!%@`,?=ü]{0,12}") {
            comes_back(&text);
        }

        #[test]
        fn strange_characters_come_back(text in "\\PC{0,8}[\\x00-\\x1f\\u{7f}-\\u{a0}\\u{2028}]?\\PC{0,4}") {
            comes_back(&text);
        }
    }
}
