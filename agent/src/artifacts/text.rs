//! Is a file text? Asked piece by piece, as it passes by (pure).

use std::str;

/// A character of UTF-8 that a piece breaks off has at most so many bytes.
const LONGEST_REST: usize = 3;

/// Looks at the bytes of one file in order.
///
/// Text is UTF-8 without NUL and without the other control characters that neither files for people nor logs of terminals
/// have. It is on the safe side: what is taken for text by mistake would be stored broken.
#[derive(Debug, Clone, Default)]
pub struct TextCheck {
    is_binary: bool,
    /// The beginning of a character whose end has not come yet.
    rest: Vec<u8>,
}

impl TextCheck {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.is_binary {
            return;
        }
        self.is_binary = bytes.iter().any(|byte| is_foreign(*byte));
        if !self.is_binary {
            self.decode(bytes);
        }
    }

    /// Is all of it text, if nothing more comes?
    pub fn is_text(&self) -> bool {
        !self.is_binary && self.rest.is_empty()
    }

    /// Is it text so far? A character may have been broken off.
    pub fn may_be_text(&self) -> bool {
        !self.is_binary
    }

    fn decode(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        // The broken character first: it ends within the next few bytes, or is not a character.
        while !self.rest.is_empty() {
            let Some((byte, after)) = bytes.split_first() else { return };
            self.rest.push(*byte);
            bytes = after;
            let rest = std::mem::take(&mut self.rest);
            self.take(&rest);
            if self.is_binary {
                return;
            }
        }
        self.take(bytes);
    }

    fn take(&mut self, bytes: &[u8]) {
        if let Err(error) = str::from_utf8(bytes) {
            let rest = &bytes[error.valid_up_to()..];
            match error.error_len() {
                None if rest.len() <= LONGEST_REST => self.rest = rest.to_vec(),
                _ => self.is_binary = true,
            }
        }
    }
}

/// Of the control characters, terminals and files for people have bell to shift in, and escape.
fn is_foreign(byte: u8) -> bool {
    matches!(byte, 0x00..=0x06 | 0x10..=0x1a | 0x1c..=0x1f | 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_text(bytes: &[u8], size: usize) -> bool {
        let mut check = TextCheck::default();
        bytes.chunks(size).for_each(|piece| check.push(piece));
        check.is_text()
    }

    #[test]
    fn text_is_told_from_what_is_none_wherever_it_is_cut() {
        for size in [1, 2, 3, 5, 100] {
            for text in ["", "plain\r\n\ttext", "ü日本語🦀 x", "\x1b[31mred\x1b[0m\x07\x08"] {
                assert!(is_text(text.as_bytes(), size), "{text:?} by {size}");
            }
            let others: [&[u8]; 7] = [
                b"\x7fELF",
                b"text, then \0",
                b"latin \xe9t\xe9",
                b"\xff\xfe",
                "ü".as_bytes()[..1].into(),
                b"\xe2\x28\xa1",
                b"a\x01",
            ];
            for bytes in others {
                assert!(!is_text(bytes, size), "{bytes:?} by {size}");
            }
        }
    }
}
