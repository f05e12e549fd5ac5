//! What a job writes → what may reach the user's terminal.
//!
//! ```text
//!            ESC             [                     final byte: kept if it is a plain `m`, else dropped
//!   Ground ───────► Escape ───────► Csi ──────────────────────────────► Ground
//!     ▲               │ ] P X ^ _
//!     └── BEL, ST ────┴───────────► Text (title, clipboard, link, image: dropped whole)
//! ```
//!
//! Printable text, colours (`CSI … m`), newline, tab and carriage return pass. Nothing else does: no titles, no
//! clipboard, no links, no cursor movement, no bells. What could make text look like other text (bidirectional
//! overrides) is spelled out. State is a few bytes, whatever the input; the result does not depend on how the bytes were cut.

/// A whole text of several lines.
pub fn tame(text: &str, colors: bool) -> String {
    let mut sanitizer = Sanitizer::new(colors);
    let mut out = String::with_capacity(text.len());
    sanitizer.push(text.as_bytes(), &mut out);
    sanitizer.finish(&mut out);
    out
}

/// Bytes of a control string after which the next newline ends it: what forgot its end must not hide the rest.
const STRING_LIMIT: usize = 4096;
/// Longer parameters are no colour.
const PARAMETERS_LIMIT: usize = 64;

/// Filters one stream. Feed it every byte of the stream, in order.
#[derive(Debug, Clone)]
pub struct Sanitizer {
    colors: bool,
    state: State,
    /// Start of a character whose end has not come yet: at most 3 bytes.
    partial: Vec<u8>,
}

#[derive(Debug, Clone)]
enum State {
    Ground,
    /// After ESC.
    Escape,
    /// After ESC and one of ` !"#$%&'()*+,-./`: one more byte ends it.
    EscapeMore,
    Csi {
        parameters: String,
        swallowed: usize,
    },
    Text(ControlString),
}

#[derive(Debug, Clone, Copy)]
struct ControlString {
    /// An operating system command: ends at BEL too, and never spans lines.
    osc: bool,
    /// The last character was ESC.
    escape: bool,
    swallowed: usize,
}

impl Sanitizer {
    /// `colors: false` drops colours too.
    pub fn new(colors: bool) -> Self {
        Self { colors, state: State::Ground, partial: Vec::new() }
    }

    /// Filters `bytes`, appending what may be shown to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        let mut rest = bytes;
        while let Some((&first, after)) = rest.split_first()
            && !self.partial.is_empty()
        {
            self.partial.push(first);
            rest = after;
            self.complete_partial(out);
        }
        self.whole(rest, out);
    }

    /// The stream has ended: a half character is shown as what it is.
    pub fn finish(&mut self, out: &mut String) {
        if !std::mem::take(&mut self.partial).is_empty() {
            self.step(char::REPLACEMENT_CHARACTER, out);
        }
        self.state = State::Ground;
    }

    /// Looks whether the bytes kept from before now make a character, or never will.
    fn complete_partial(&mut self, out: &mut String) {
        let bytes = std::mem::take(&mut self.partial);
        self.whole(&bytes, out);
    }

    /// Decodes; keeps an unfinished character at the end for later.
    fn whole(&mut self, bytes: &[u8], out: &mut String) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let error = match std::str::from_utf8(rest) {
                Ok(text) => return self.text(text, out),
                Err(error) => error,
            };
            let (valid, bad) = rest.split_at(error.valid_up_to());
            // Checked just above; an empty text would be harmless.
            self.text(std::str::from_utf8(valid).unwrap_or_default(), out);
            let Some(length) = error.error_len() else {
                self.partial = bad.to_vec();
                return;
            };
            self.step(char::REPLACEMENT_CHARACTER, out);
            rest = bad.get(length..).unwrap_or_default();
        }
    }

    fn text(&mut self, text: &str, out: &mut String) {
        let mut rest = text;
        loop {
            if matches!(self.state, State::Ground) {
                let (plain, special) = rest.split_at(plain_length(rest));
                out.push_str(plain);
                rest = special;
                // The way of nearly all colours; those that chunks tear apart go through the states.
                if let Some((color, after)) = leading_color(rest) {
                    out.push_str(if self.colors { color } else { "" });
                    rest = after;
                    continue;
                }
            }
            let mut characters = rest.chars();
            let Some(character) = characters.next() else { return };
            self.step(character, out);
            rest = characters.as_str();
        }
    }

    fn step(&mut self, character: char, out: &mut String) {
        match std::mem::replace(&mut self.state, State::Ground) {
            State::Ground => self.ground(character, out),
            State::Escape => self.escape(character, out),
            State::EscapeMore => self.escape_more(character, out),
            State::Csi { parameters, swallowed } => self.csi(parameters, swallowed + 1, character, out),
            State::Text(string) => self.control_string(string, character, out),
        }
    }

    fn ground(&mut self, character: char, out: &mut String) {
        match character {
            '\u{1b}' => self.state = State::Escape,
            '\u{9b}' => self.state = csi(),
            '\u{9d}' => self.state = control_string(true),
            '\u{90}' | '\u{98}' | '\u{9e}' | '\u{9f}' => self.state = control_string(false),
            _ if is_plain(character) => out.push(character),
            _ if is_deceiving(character) => out.push_str(&format!("<U+{:04X}>", u32::from(character))),
            _ => {}
        }
    }

    fn escape(&mut self, character: char, out: &mut String) {
        match character {
            '[' => self.state = csi(),
            ']' => self.state = control_string(true),
            'P' | 'X' | '^' | '_' => self.state = control_string(false),
            ' '..='/' => self.state = State::EscapeMore,
            '0'..='~' | CANCEL | SUBSTITUTE => {}
            _ => self.interrupted(State::Escape, character, out),
        }
    }

    fn escape_more(&mut self, character: char, out: &mut String) {
        match character {
            ' '..='/' => self.state = State::EscapeMore,
            '0'..='~' | CANCEL | SUBSTITUTE => {}
            _ => self.interrupted(State::EscapeMore, character, out),
        }
    }

    fn csi(&mut self, mut parameters: String, swallowed: usize, character: char, out: &mut String) {
        match character {
            ' '..='?' if swallowed < STRING_LIMIT => {
                if parameters.len() <= PARAMETERS_LIMIT {
                    parameters.push(character);
                }
                self.state = State::Csi { parameters, swallowed };
            }
            'm' if self.colors && is_color(&parameters) => out.push_str(&format!("\u{1b}[{parameters}m")),
            '@'..='~' | CANCEL | SUBSTITUTE => {}
            _ => self.interrupted(State::Csi { parameters, swallowed }, character, out),
        }
    }

    fn control_string(&mut self, string: ControlString, character: char, out: &mut String) {
        let swallowed = string.swallowed + 1;
        match character {
            // ESC \ ends it; any other escape sequence does, too, and counts itself.
            '\\' if string.escape => {}
            _ if string.escape => {
                self.state = State::Escape;
                self.step(character, out);
            }
            '\u{9c}' | CANCEL | SUBSTITUTE => {}
            '\u{7}' if string.osc => {}
            '\n' if string.osc || swallowed > STRING_LIMIT => out.push('\n'),
            '\u{1b}' => self.state = State::Text(ControlString { escape: true, swallowed, ..string }),
            _ => self.state = State::Text(ControlString { swallowed, ..string }),
        }
    }

    /// Something that does not belong into the sequence: other controls are ignored inside it, the rest ends it.
    fn interrupted(&mut self, state: State, character: char, out: &mut String) {
        let ends = matches!(character, '\n' | '\r' | '\t' | '\u{1b}') || !character.is_ascii();
        if ends || character == ' ' || character.is_ascii_graphic() {
            self.ground(character, out);
        } else {
            self.state = state;
        }
    }
}

const CANCEL: char = '\u{18}';
const SUBSTITUTE: char = '\u{1a}';

fn csi() -> State {
    State::Csi { parameters: String::new(), swallowed: 0 }
}

fn control_string(osc: bool) -> State {
    State::Text(ControlString { osc, escape: false, swallowed: 0 })
}

/// `CSI > … m` and `CSI ? … m` change the keyboard, not the colour.
fn is_color(parameters: &str) -> bool {
    parameters.len() <= PARAMETERS_LIMIT && parameters.bytes().all(|b| matches!(b, b'0'..=b'9' | b';' | b':'))
}

/// A whole colour sequence at the start of `text`, and what follows it.
fn leading_color(text: &str) -> Option<(&str, &str)> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let length = parameters.bytes().take(PARAMETERS_LIMIT + 1).position(|b| b == b'm')?;
    is_color(parameters.get(..length)?).then(|| text.split_at("\u{1b}[".len() + length + 1))
}

/// Length of the start of `text` that passes as it is.
fn plain_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        let ahead = bytes.get(at..).unwrap_or_default();
        at += ahead.iter().position(|b| SUSPECT[usize::from(*b)]).unwrap_or(ahead.len());
        match text.get(at..).and_then(|rest| rest.chars().next()) {
            Some(character) if is_plain(character) => at += character.len_utf8(),
            _ => return at,
        }
    }
}

/// First bytes of characters that [`is_plain`] must look at.
const SUSPECT: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'\n' as usize] = false;
    table[b'\t' as usize] = false;
    table[b'\r' as usize] = false;
    // DEL, U+0080..U+00BF, U+0600.., U+2000..
    table[0x7f] = true;
    table[0xc2] = true;
    table[0xd8] = true;
    table[0xe2] = true;
    table
};

fn is_plain(character: char) -> bool {
    matches!(character, '\n' | '\t' | '\r') || !(character.is_control() || is_deceiving(character))
}

/// Reorders or breaks the text around it.
fn is_deceiving(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line of text for a label: no colours, no line breaks.
pub fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut sanitizer = Sanitizer::new(false);
    sanitizer.push(text.as_bytes(), &mut shown);
    shown.replace(['\n', '\t', '\r'], " ")
}

/// The first line of a name (a step without one is named by its whole command), marked if there is more.
pub fn first_line(text: &str) -> String {
    let text = text.trim();
    match text.split_once('\n') {
        Some((first, _)) => format!("{} …", clean(first.trim_end())),
        None => clean(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sanitized(bytes: &[u8]) -> String {
        let mut out = String::new();
        let mut sanitizer = Sanitizer::new(true);
        sanitizer.push(bytes, &mut out);
        sanitizer.finish(&mut out);
        out
    }

    #[test]
    fn colors_and_text_pass() {
        for text in ["plain", "\x1b[31mred\x1b[0m", "\x1b[38;2;1;2;3mx", "\x1b[4:3mx", "tab\there\r\n", "日本 é 🎉", ""]
        {
            assert_eq!(sanitized(text.as_bytes()), text);
        }
    }

    #[test]
    fn nothing_else_does() {
        let cases: &[(&[u8], &str)] = &[
            (b"a\x1b]0;title\x07b", "ab"),
            (b"a\x1b]52;c;aGk=\x1b\\b", "ab"),
            (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"a\x1b[2J\x1b[1;1H\x1b[3Ab", "ab"),
            (b"a\x1b[?25l\x1b[>4;1mb", "ab"),
            (b"a\x1bPq#0;2\nmore\x1b\\b", "ab"),
            (b"a\x1b_x\x1b\\b\x1b^x\x1b\\c\x1bXx\x1b\\d", "abcd"),
            (b"a\x1b(Bb\x1bcd\x1b7e", "abde"),
            (b"bell\x07 back\x08space\x00\x7f", "bell backspace"),
            ("a\u{9b}31mb\u{9b}2Jc\u{9d}0;t\u{9c}d\u{85}e".as_bytes(), "a\x1b[31mbcde"),
            ("x\u{202e}y\u{2066}z".as_bytes(), "x<U+202E>y<U+2066>z"),
            (b"raw c1 \x9b31m", "raw c1 \u{fffd}31m"),
            (b"\xff\xc3(\xe2\x82", "\u{fffd}\u{fffd}(\u{fffd}"),
            (b"\x1b[31\x1b[32mgreen", "\x1b[32mgreen"),
            (b"\x1b]0;never ended\nnext", "\nnext"),
            (b"\x1b]0;aborted\x1b[31mred", "\x1b[31mred"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(sanitized(bytes), *shown, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn an_unterminated_string_hides_a_bounded_part() {
        let mut bytes = b"\x1bP".to_vec();
        bytes.extend(b"0123456789\n".repeat(1000));
        let shown = sanitized(&bytes);
        assert!(shown.len() > bytes.len() - STRING_LIMIT - 20, "{}", shown.len());
        assert!(shown.starts_with('\n'));
    }

    #[test]
    fn endless_parameters_end() {
        let mut bytes = b"\x1b[".to_vec();
        bytes.extend(b"1".repeat(10_000));
        assert!(sanitized(&bytes).len() > 5000);
    }

    #[test]
    fn without_colors_only_text_is_left() {
        let mut out = String::new();
        Sanitizer::new(false).push(b"\x1b[1;31mred\x1b[m\n", &mut out);
        assert_eq!(out, "red\n");
    }

    #[test]
    fn names_are_one_line() {
        assert_eq!(first_line("  make\n  make test\n"), "make …");
        assert_eq!(first_line("a\tb\x1b[31m"), "a b");
    }

    /// Bytes that are often what matters here.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\x1b".to_vec()),
            Just(b"\x1b[".to_vec()),
            Just(b"\x1b]".to_vec()),
            Just(b"\x1b\\".to_vec()),
            Just(b"\x1bP".to_vec()),
            Just(b"\x07".to_vec()),
            Just(b"31m".to_vec()),
            Just(b"\n".to_vec()),
            Just("\u{9b}\u{9c}\u{9d}é\u{202e}".as_bytes().to_vec()),
            "[a-z;0-9 ]{0,6}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    /// The text with its colours taken out again.
    fn without_colors(text: &str) -> String {
        let mut parts = text.split("\u{1b}[");
        let mut rest = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|c: char| !(c.is_ascii_digit() || c == ';' || c == ':')).expect("an end");
            assert_eq!(part[end..].chars().next(), Some('m'), "{part:?}");
            rest.push_str(&part[end + 1..]);
        }
        rest
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(bytes in hostile(), sizes in proptest::collection::vec(1_usize..9, 1..20)) {
            let mut out = String::new();
            let mut sanitizer = Sanitizer::new(true);
            let mut rest = bytes.as_slice();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break }
                let (chunk, after) = rest.split_at((*size).min(rest.len()));
                sanitizer.push(chunk, &mut out);
                rest = after;
            }
            sanitizer.finish(&mut out);
            prop_assert_eq!(out, sanitized(&bytes));
        }

        #[test]
        fn only_text_and_colors_come_out(bytes in hostile()) {
            let text = without_colors(&sanitized(&bytes));
            prop_assert!(text.chars().all(is_plain), "{:?}", text);
        }

        #[test]
        fn text_is_never_lost(text in "[a-zé日 ]{0,80}") {
            prop_assert_eq!(sanitized(text.as_bytes()), text);
        }
    }
}
