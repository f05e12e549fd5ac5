//! An error with its causes on one line, and what is wrong with a value.

use std::error::Error;

/// `what: why: because`. Causes that only repeat what was said are left out.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What a reader of a file says of a value, on one line, and without our own language's names of types: `expected u32` is
/// `expected a whole number from 0`.
pub fn about_a_value(said: &str) -> String {
    let line = said.trim_end().replace('\n', " ");
    let Some((before, kind)) = line.rsplit_once("expected ") else { return line };
    let kind = match kind {
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => "a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        other => other,
    };
    format!("{before}expected {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_value_names_no_type_of_ours() {
        for (said, words) in [
            (
                "invalid type: string \"3\", expected u32\n",
                "invalid type: string \"3\", expected a whole number from 0",
            ),
            (
                "invalid value: integer `-1`, expected usize",
                "invalid value: integer `-1`, expected a whole number from 0",
            ),
            (
                "invalid type: string \"yes\", expected a boolean",
                "invalid type: string \"yes\", expected true or false",
            ),
            ("invalid type: map, expected f64", "invalid type: map, expected a number"),
            (
                "invalid type: string \"expected u8\", expected a string",
                "invalid type: string \"expected u8\", expected a string",
            ),
            ("unknown field `a`\nin `b`", "unknown field `a` in `b`"),
        ] {
            assert_eq!(about_a_value(said), words);
        }
    }
}
