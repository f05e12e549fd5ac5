//! What a backslash cannot stand for in double quotes.

/// A backslash of a double-quoted text that stands for nothing.
pub(super) struct Unknown {
    /// Its offset in the text.
    pub at: usize,
    /// Length of the escape with what belongs to it: `\d`.
    pub length: usize,
}

/// The first such backslash after `quote`, the offset of the opening quote. `None`: each stands for something.
pub(super) fn unknown(text: &str, quote: usize) -> Option<Unknown> {
    let inner = text.get(quote..)?.strip_prefix('"')?;
    let mut rest = inner;
    loop {
        let (before, after) = rest.split_at(rest.find(['\\', '"']).filter(|at| !rest[*at..].starts_with('"'))?);
        let escape = escape(after);
        let at = text.len() - after.len();
        let length = match escape {
            Ok(length) => length,
            Err(length) => return Some(Unknown { at, length }),
        };
        rest = &rest[before.len() + length..];
    }
}

/// Length of the escape at the start of `text`, also where it stands for nothing.
fn escape(text: &str) -> Result<usize, usize> {
    let Some(c) = text[1..].chars().next() else { return Err(1) };
    let length = 1 + c.len_utf8();
    let digits = match c {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        '0' | 'a' | 'b' | 't' | '\t' | 'n' | 'v' | 'f' | 'r' | 'e' | ' ' | '"' | '/' | '\\' | 'N' | '_' | 'L' | 'P'
        | '\n' | '\r' => return Ok(length),
        _ => return Err(length),
    };
    let number = text.get(length..length + digits).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    number.and_then(char::from_u32).map(|_| length + digits).ok_or(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<&str> {
        unknown(text, 0).map(|unknown| &text[unknown.at..unknown.at + unknown.length])
    }

    #[test]
    fn the_first_unknown_escape_is_found() {
        assert_eq!(found(r#""grep \d+""#), Some(r"\d"));
        assert_eq!(found(r#""a \\d \"b\" \[x\]" and \d"#), Some(r"\["));
        assert_eq!(found(r#""C:\Users\me""#), Some(r"\U"));
        assert_eq!(found(r#""\x4""#), Some(r"\x"));
        assert_eq!(found(r#""\ä""#), Some(r"\ä"));
        assert_eq!(found(r#""\uD800""#), Some(r"\u"));
        assert_eq!(found("\"\\"), Some("\\"));
    }

    #[test]
    fn known_escapes_and_what_follows_the_quote_are_passed_over() {
        assert_eq!(
            found(
                r#""\n\t\\ \x41 \u00e4 \U0001f600 \
        x" \d"#
            ),
            None
        );
        assert_eq!(found(r"'\d'"), None);
    }
}
