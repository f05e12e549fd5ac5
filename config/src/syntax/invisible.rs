//! Characters that look like nothing, or like others that mean something to YAML: what copying from a page leaves.

use std::ops::Range;

/// The character's name in words, if it is invisible or looks like a blank.
pub(crate) fn invisible(c: char) -> Option<String> {
    let name = match c {
        '\u{a0}' | '\u{202f}' => "a no-break space",
        '\u{200b}' | '\u{2060}' | '\u{feff}' => "a space of no width",
        '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{205f}' | '\u{3000}' => "a wide or narrow space",
        '\u{ad}' => "a soft hyphen",
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => "a mark of direction",
        '\u{85}' | '\u{2028}' | '\u{2029}' => "a line separator",
        _ => return None,
    };
    Some(format!("{name} (U+{:04X})", u32::from(c)))
}

/// The quotes of typographers.
pub(crate) fn is_curly_quote(c: char) -> bool {
    matches!(c, '“' | '”' | '„' | '‘' | '’' | '«' | '»')
}

/// The first character of a text that its author hardly means: one that is not seen, among those of programs and not of
/// a language. Its bytes, and its name.
pub(super) fn stray(text: &str) -> Option<(Range<usize>, String)> {
    if text.is_ascii() {
        return None;
    }
    let plain = |c: Option<char>| c.is_none_or(|c| c.is_ascii() || invisible(c).is_some());
    text.char_indices().find_map(|(at, c)| {
        let name = invisible(c)?;
        let end = at + c.len_utf8();
        (plain(text[..at].chars().next_back()) && plain(text[end..].chars().next())).then_some((at..end, name))
    })
}

/// The same where only blanks may stand: at the ends of a line, and behind what YAML itself reads.
pub(super) fn instead_of_blank(line: &str) -> Option<(Range<usize>, String)> {
    let blank = |c: char| c.is_whitespace() || invisible(c).is_some();
    line.char_indices().find_map(|(at, c)| {
        let name = invisible(c)?;
        let (before, after) = (line[..at].trim_end_matches(blank), line[at..].trim_start_matches(blank));
        let between = before.is_empty() || after.is_empty() || before.ends_with(['-', ':', ',', '[', '{', '?']);
        between.then_some((at..at + c.len_utf8(), name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_language_needs_is_stray() {
        let found = |text: &str| stray(text).map(|(at, name)| (at.start, name));
        assert_eq!(found("make\u{a0}test"), Some((4, "a no-break space (U+00A0)".to_owned())));
        assert_eq!(found("\u{200b}docker"), Some((0, "a space of no width (U+200B)".to_owned())));
        assert_eq!(found("a \u{a0}\u{a0}b"), Some((2, "a no-break space (U+00A0)".to_owned())));
        for text in ["plain", "Voil\u{e0}\u{a0}!", "10\u{a0}€", "日本\u{3000}語", "👩\u{200d}💻"] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn what_stands_where_blanks_may_is_found() {
        let found = |line: &str| instead_of_blank(line).map(|(at, _)| at.start);
        assert_eq!(found("\u{a0}  - a"), Some(0));
        assert_eq!(found("  -\u{a0}a"), Some(3));
        assert_eq!(found("  a:\u{a0}b"), Some(4));
        assert_eq!(found("  a: b\u{a0}"), Some(6));
        assert_eq!(found("  a: b\u{a0}c"), None);
    }
}
