//! Characters that look like nothing, or like others that mean something to YAML.

/// Its name in words, if nobody sees the character or takes it for a blank.
pub(crate) fn invisible(c: char) -> Option<String> {
    let name = match c {
        '\u{a0}' | '\u{202f}' => "a no-break space",
        '\u{200b}' | '\u{2060}' | '\u{feff}' => "a space of no width",
        '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{205f}' | '\u{3000}' => "a blank that is none",
        '\u{ad}' => "a soft hyphen",
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            "a mark of the writing's direction"
        }
        '\u{85}' | '\u{2028}' | '\u{2029}' => "a line break that is none",
        _ => return None,
    };
    Some(format!("{name} (U+{:04X})", u32::from(c)))
}
