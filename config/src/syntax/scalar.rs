//! What a plain scalar stands for, by the core schema of YAML 1.2; booleans also as YAML 1.1 knew them.

/// The meaning of a scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Literal<'a> {
    Null,
    Bool(bool),
    Int(i64),
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
            Self::Float(_) => "a number",
            Self::Text(_) => "a string",
        }
    }
}

/// Reads a plain scalar by the core schema.
pub(crate) fn literal(text: &str) -> Literal<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Literal::Null,
        "true" | "True" | "TRUE" => Literal::Bool(true),
        "false" | "False" | "FALSE" => Literal::Bool(false),
        _ => number(text).unwrap_or(Literal::Text(text)),
    }
}

/// Reads a boolean parameter's value, which YAML 1.1's words are good for.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    const TRUE: [&str; 9] = ["true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"];
    const FALSE: [&str; 9] = ["false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"];
    if TRUE.contains(&text) {
        Some(true)
    } else if FALSE.contains(&text) {
        Some(false)
    } else {
        None
    }
}

fn number(text: &str) -> Option<Literal<'static>> {
    // Most scalars are words: leave before any parsing.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    integer(text).map(Literal::Int).or_else(|| float(text).map(Literal::Float))
}

fn integer(text: &str) -> Option<i64> {
    if let Some(digits) = text.strip_prefix("0x") {
        return i64::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i64::from_str_radix(digits, 8).ok();
    }
    text.parse().ok()
}

fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    match unsigned {
        ".inf" | ".Inf" | ".INF" => return Some(sign * f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    // Rust also reads "inf" and "nan", which are words in YAML.
    let digits = unsigned.strip_prefix('.').unwrap_or(unsigned);
    let starts_right = digits.starts_with(|c: char| c.is_ascii_digit());
    let only_numeric = unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if starts_right && only_numeric { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_schema_decides() {
        assert_eq!(literal("~"), Literal::Null);
        assert_eq!(literal("True"), Literal::Bool(true));
        assert_eq!(literal("yes"), Literal::Text("yes"));
        assert_eq!(literal("0x1F"), Literal::Int(31));
        assert_eq!(literal("0o17"), Literal::Int(15));
        assert_eq!(literal("-12"), Literal::Int(-12));
        assert_eq!(literal("3.10"), Literal::Float(3.1));
        assert_eq!(literal("1e3"), Literal::Float(1000.0));
        assert_eq!(literal("-.inf"), Literal::Float(f64::NEG_INFINITY));
        assert_eq!(literal("1.2.3"), Literal::Text("1.2.3"));
        assert_eq!(literal("10m"), Literal::Text("10m"));
        assert_eq!(literal("inf"), Literal::Text("inf"));
        assert_eq!(literal("1_000"), Literal::Text("1_000"));
    }

    #[test]
    fn booleans_may_be_words() {
        assert_eq!(boolean("Yes"), Some(true));
        assert_eq!(boolean("OFF"), Some(false));
        assert_eq!(boolean("y"), None);
    }
}
