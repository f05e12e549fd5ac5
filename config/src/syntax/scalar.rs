//! What a plain scalar stands for, by YAML 1.1 as SnakeYAML reads it: that reader stands behind the original's compiler.
//!
//! It is neither the whole of YAML 1.1 (`y` and `n` are words) nor YAML 1.2 (`on` is a boolean, `010` is 8, `1:30` is 90).
//! What is known of it, and what is not: `docs/config-rules.md`.

use std::borrow::Cow;

/// The meaning of a scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Literal<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// A whole number beyond what 64 bits hold, about.
    Large(f64),
    Float(f64),
    Text(&'a str),
}

impl Literal<'_> {
    /// In words for a message.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Large(_) => "an integer of more than 64 bits",
            Self::Float(_) => "a number",
            Self::Text(_) => "a string",
        }
    }
}

/// Reads a plain scalar.
pub(crate) fn literal(text: &str) -> Literal<'_> {
    if let "" | "~" | "null" | "Null" | "NULL" = text {
        return Literal::Null;
    }
    boolean(text).map(Literal::Bool).or_else(|| number(text)).unwrap_or(Literal::Text(text))
}

/// Reads a word that is a boolean. `y` and `n` are not booleans, although YAML 1.1 lists them.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// A plain scalar as what it stands for is written: `true` for `on`, `8` for `010`, `3.1` for `3.10`.
pub(crate) fn canonical(text: &str) -> Cow<'_, str> {
    match literal(text) {
        Literal::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        Literal::Int(value) => unless_same(text, value.to_string()),
        // As other languages write it: 13.0 stays 13.0.
        Literal::Float(value) if value.is_finite() => unless_same(text, format!("{value:?}")),
        Literal::Null | Literal::Large(_) | Literal::Float(_) | Literal::Text(_) => Cow::Borrowed(text),
    }
}

fn unless_same(text: &str, canonical: String) -> Cow<'_, str> {
    if canonical == text { Cow::Borrowed(text) } else { Cow::Owned(canonical) }
}

/// Is this a date or a time to YAML 1.1?
pub(crate) fn is_date(text: &str) -> bool {
    // Most keys and values are words: leave before any cutting.
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let (date, time) = text.split_at(text.find(['T', 't', ' ', '\t']).unwrap_or(text.len()));
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let digits = |part: &str, least: usize| part.len() >= least && part.len() <= 2 && all_digits(part);
    let least = if time.is_empty() { 2 } else { 1 };
    year.len() == 4 && all_digits(year) && digits(month, least) && digits(day, least) && is_time(time)
}

/// What may follow a date: nothing, or a time of day and its zone.
fn is_time(text: &str) -> bool {
    let clock = text.trim_start_matches(['T', 't', ' ', '\t']);
    let clock = clock.split(['.', 'Z', '+', '-', ' ']).next().unwrap_or("");
    text.is_empty()
        || (clock.split(':').count() == 3 && clock.split(':').all(|part| part.len() <= 2 && all_digits(part)))
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn number(text: &str) -> Option<Literal<'static>> {
    // Most scalars are words: leave before any parsing.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number = whole(unsigned).or_else(|| float(unsigned).map(Literal::Float))?;
    // Only of infinity the sign counts: there is no `-.nan`.
    match number {
        Literal::Float(value) if value.is_nan() && unsigned.len() < text.len() => None,
        number if text.starts_with('-') => Some(negative(number)),
        number => Some(number),
    }
}

fn negative(number: Literal<'_>) -> Literal<'_> {
    match number {
        Literal::Int(value) => Literal::Int(-value),
        Literal::Large(value) => Literal::Large(-value),
        Literal::Float(value) => Literal::Float(-value),
        other => other,
    }
}

/// Binary, octal by its leading zero, hexadecimal, to the base of 60, or decimal; `_` may stand between digits.
fn whole(text: &str) -> Option<Literal<'static>> {
    if let Some(digits) = text.strip_prefix("0b") {
        return based(digits, 2);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return based(digits, 16);
    }
    match text.strip_prefix('0') {
        Some("") => Some(Literal::Int(0)),
        Some(digits) => based(digits, 8),
        None if text.starts_with(|c: char| c.is_ascii_digit()) => {
            based(text, 10).or_else(|| sexagesimal(text).map(Literal::Int))
        }
        None => None,
    }
}

fn based(digits: &str, base: u32) -> Option<Literal<'static>> {
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    // Nothing but its size can be wrong with it.
    Some(i64::from_str_radix(&digits, base).map_or_else(|_| Literal::Large(about(&digits, base)), Literal::Int))
}

fn about(digits: &str, base: u32) -> f64 {
    let digits = digits.chars().filter_map(|c| c.to_digit(base));
    digits.fold(0.0, |value, digit| value * f64::from(base) + f64::from(digit))
}

/// `1:30` is 90: digits to the base of 60, each but the first of at most two figures.
fn sexagesimal(text: &str) -> Option<i64> {
    let (first, rest) = text.split_once(':')?;
    let Literal::Int(first) = based(first, 10)? else { return None };
    let is_digit = |digit: &str| all_digits(digit) && (digit.len() == 1 || (digit.len() == 2 && digit < "6"));
    rest.split(':').try_fold(first, |value, digit| {
        let digit: i64 = digit.parse().ok().filter(|_| is_digit(digit))?;
        value.checked_mul(60)?.checked_add(digit)
    })
}

fn float(text: &str) -> Option<f64> {
    match text {
        ".inf" | ".Inf" | ".INF" => return Some(f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    let (mantissa, exponent) = split(text, &['e', 'E']);
    let (before, after) = split(mantissa, &['.']);
    let numeric = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if (after.is_none() && exponent.is_none()) || !numeric(after.unwrap_or("")) {
        return None;
    }
    if exponent.is_some_and(|exponent| !all_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))) {
        return None;
    }
    // Rust also reads "inf" and "nan", which are words in YAML.
    match before.contains(':') {
        true if exponent.is_some() => None,
        true => Some(sexagesimal(before)? as f64 + format!("0.{}0", after?.replace('_', "")).parse::<f64>().ok()?),
        false if numeric(before) && !before.starts_with('_') => text.replace('_', "").parse().ok(),
        false => None,
    }
}

/// What stands before and behind the first of these marks.
fn split<'t>(text: &'t str, marks: &[char]) -> (&'t str, Option<&'t str>) {
    text.split_once(marks).map_or((text, None), |(before, after)| (before, Some(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_of_the_original_decides() {
        assert_eq!(literal("~"), Literal::Null);
        assert_eq!(literal("True"), Literal::Bool(true));
        assert_eq!(literal("-12"), Literal::Int(-12));
        assert_eq!(literal("3.10"), Literal::Float(3.1));
        assert_eq!(literal("1e3"), Literal::Float(1000.0));
        assert_eq!(literal("-.inf"), Literal::Float(f64::NEG_INFINITY));
        for text in ["1.2.3", "10m", "inf", "nan", "-.nan", "5432:5432", "v1", "0.0.0.0", "127.0.0.1", "a:1"] {
            assert_eq!(literal(text), Literal::Text(text), "{text}");
        }
    }

    #[test]
    fn words_of_yaml_1_1_are_booleans_but_for_single_letters() {
        for (word, truth) in [("yes", true), ("On", true), ("YES", true), ("no", false), ("Off", false), ("NO", false)]
        {
            assert_eq!(literal(word), Literal::Bool(truth), "{word}");
            assert_eq!(boolean(word), Some(truth), "{word}");
        }
        for word in ["y", "n", "Y", "N", "yEs", "oN", "yes!", "1", "0"] {
            assert_eq!(boolean(word), None, "{word}");
        }
        assert_eq!(literal("y"), Literal::Text("y"));
    }

    #[test]
    fn numbers_of_yaml_1_1() {
        for (text, value) in [
            ("010", 8),
            ("0755", 493),
            ("00", 0),
            ("-010", -8),
            ("1_000", 1000),
            ("0b1", 1),
            ("0b1010_0111", 167),
            ("0x1F", 31),
            ("0x_1_f", 31),
            ("+5", 5),
            ("1:30", 90),
            ("12:30:45", 45045),
            ("-1:30", -90),
            ("22:22", 1342),
        ] {
            assert_eq!(literal(text), Literal::Int(value), "{text}");
            assert_eq!(literal(&canonical(text)), Literal::Int(value), "{text} written anew");
        }
        for (text, value) in [("1_000.5", 1000.5), (".5", 0.5), ("1.", 1.0), ("1:30.5", 90.5), ("12e03", 12000.0)] {
            assert_eq!(literal(text), Literal::Float(value), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_number_is_a_text() {
        for text in [
            "0o17", "08", "09", "0b2", "0xg", "0x", "0b", "0_", "_1", "1:60", "01:30", "1:", ":30", ".", "._", "-",
            "1e", "+_1",
        ] {
            assert_eq!(literal(text), Literal::Text(text), "{text}");
        }
    }

    #[test]
    fn a_large_number_is_a_number_and_stays_as_written() {
        let address = "0x21DF875603Ba765a15F9ae20e633D2DAe42952d9";
        assert!(matches!(literal(address), Literal::Large(value) if value > 1e47 && value < 2e47));
        assert_eq!(canonical(address), address);
        assert!(matches!(literal("-99999999999999999999"), Literal::Large(value) if value < -9e19));
    }

    #[test]
    fn a_value_is_written_as_what_it_is() {
        for (text, written) in [
            ("on", "true"),
            ("NO", "false"),
            ("TRUE", "true"),
            ("010", "8"),
            ("1_000", "1000"),
            ("3.10", "3.1"),
            ("13.0", "13.0"),
            ("1e3", "1000.0"),
            ("true", "true"),
            ("12", "12"),
            ("y", "y"),
            ("null", "null"),
            (".inf", ".inf"),
        ] {
            assert_eq!(canonical(text), written, "{text}");
        }
    }

    #[test]
    fn dates_are_known() {
        for text in ["2024-01-31", "2024-1-2 3:04:05", "2024-01-31T03:04:05Z", "2024-01-31 03:04:05.25 +01:00"] {
            assert!(is_date(text), "{text}");
        }
        for text in ["2024-1-31", "2024-01", "24-01-31", "2024-01-31-x", "2024-01-31 noon", "ubuntu-2024-01-01", ""] {
            assert!(!is_date(text), "{text}");
        }
    }
}
