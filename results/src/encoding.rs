//! Bytes of unknown encoding as UTF-8, or nearly so.
//!
//! What a document declares is not asked: files that declare one thing and are another are as common as honest ones. UTF-16 is
//! known by its first bytes; of the rest, what is valid UTF-8 is UTF-8, and what is not is Latin-1, text by text.

use std::io::{self, Read};

/// Reads UTF-16 as UTF-8 and everything else as it is.
pub fn utf8<'a>(mut source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut first = Vec::with_capacity(2);
    (&mut source).take(2).read_to_end(&mut first)?;
    let big = match first.as_slice() {
        [0xFE, 0xFF] | [0, b'<'] => true,
        [0xFF, 0xFE] | [b'<', 0] => false,
        _ => return Ok(Box::new(io::Cursor::new(first).chain(source))),
    };
    let source = io::BufReader::new(io::Cursor::new(first).chain(source));
    Ok(Box::new(Wide { source, big, high: None, ready: io::Cursor::new(Vec::new()) }))
}

struct Wide<R> {
    source: R,
    big: bool,
    /// First half of a character that takes two units.
    high: Option<u16>,
    ready: io::Cursor<Vec<u8>>,
}

impl<R: Read> Wide<R> {
    /// Half a unit at the end is dropped.
    fn unit(&mut self) -> io::Result<Option<u16>> {
        let mut pair = [0; 2];
        match self.source.read_exact(&mut pair) {
            Ok(()) if self.big => Ok(Some(u16::from_be_bytes(pair))),
            Ok(()) => Ok(Some(u16::from_le_bytes(pair))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl<R: Read> Read for Wide<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ready.position() == self.ready.get_ref().len() as u64 {
            let mut text = String::new();
            while text.len() < 4096 {
                let Some(unit) = self.unit()? else { break };
                let (high, is_high) = (self.high.take(), (0xD800..0xDC00).contains(&unit));
                if is_high {
                    self.high = Some(unit);
                }
                let units = [high, (!is_high).then_some(unit)].into_iter().flatten();
                text.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
            }
            self.ready = io::Cursor::new(text.into_bytes());
        }
        self.ready.read(buffer)
    }
}

/// A text of a document: UTF-8 if it can be, else Latin-1. The end may have been cut off in the middle of a character.
pub fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned()
        }
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> String {
        let mut text = Vec::new();
        utf8(bytes).unwrap().read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn wide_characters_are_known_by_their_first_bytes() {
        let text = "<a b=\"ü 🙂\"/>".repeat(1000);
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(read(&little), text);
        assert_eq!(read(&big), text);
        assert_eq!(read(&[&[0xFF, 0xFE], little.as_slice()].concat()), format!("\u{feff}{text}"));
        assert_eq!(read(text.as_bytes()), text);
        for short in [&b""[..], b"<", b"<a"] {
            assert_eq!(read(short).as_bytes(), short);
        }
    }

    #[test]
    fn halves_of_characters_do_no_harm() {
        let units = [u16::from(b'<'), 0xD83D, u16::from(b'a'), 0xDE42, 0xD83D, 0xDE42, 0xD83D];
        let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).chain([7]).collect();
        assert_eq!(read(&bytes), "<\u{fffd}a\u{fffd}🙂");
    }

    #[test]
    fn what_is_not_utf8_is_latin_1() {
        assert_eq!(text("grün".as_bytes()), "grün");
        assert_eq!(text(b"gr\xfcn"), "grün");
        assert_eq!(text(&"grün".as_bytes()[..3]), "gr");
    }
}
