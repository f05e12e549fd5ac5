//! An XML document with its long texts cut short, so that its reader needs little memory.
//!
//! ```text
//! bytes ─▶ Text ─<─▶ Tag, Bang ─▶ Comment, CData, Doctype, Instruction ─>─▶ Text …
//!           what is longer than it may be: texts lose their middle, tags are an error
//! ```
//!
//! What is cut never changes which tags there are: every end is handed on. Lines are those of the whole document.

use std::io::{self, BufRead, Read};

/// Bytes of a text, CDATA section, comment or instruction that are handed on.
const TEXT_CAP: usize = 64 << 10;
/// Bytes of a tag. Attributes hold messages, too.
const TAG_CAP: usize = 1 << 20;
/// Handed on since the reader last said that it has understood something: what it may have to remember.
const PENDING_CAP: usize = 4 << 20;
/// Read at once.
const BLOCK: usize = 64 << 10;

/// What the byte to come is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Text,
    /// Behind `<`.
    Open,
    Tag,
    /// Behind `<!`, so many bytes of what it may become.
    Bang,
    /// `<!--`, `<![CDATA[`, `<?`: up to an end that no quote hides.
    Until(&'static [u8]),
    Doctype,
}

const CDATA: &[u8] = b"[CDATA[";

/// Cuts what it reads.
pub struct Brief<R> {
    source: R,
    inside: Inside,
    /// Bytes since it began.
    length: usize,
    quote: Option<u8>,
    /// The last bytes, for ends and beginnings of more than one.
    last: [u8; 8],
    /// What was read last.
    block: Box<[u8]>,
    ready: Vec<u8>,
    taken: usize,
    /// Newlines in front of the byte to come, whether they were taken or cut.
    lines: u64,
    /// Newlines that were cut, and how many bytes of what is ready stand before them; the newest first.
    cuts: Vec<(usize, u64)>,
    /// Why it does not go on behind what is ready.
    fault: Option<io::Error>,
    pending: usize,
    total: u64,
    cap: u64,
}

impl<R: Read> Brief<R> {
    /// `cap`: bytes of the longest document.
    pub fn new(source: R, cap: u64) -> Self {
        Self {
            source,
            inside: Inside::Text,
            length: 0,
            quote: None,
            last: [0; 8],
            block: vec![0; BLOCK].into(),
            ready: Vec::new(),
            taken: 0,
            lines: 0,
            cuts: Vec::new(),
            fault: None,
            pending: 0,
            total: 0,
            cap,
        }
    }

    /// Line of the next byte, from 1.
    pub fn line(&self) -> u64 {
        self.lines + 1
    }

    /// The reader need not remember any more what it was given.
    pub fn understood(&mut self) {
        self.pending = 0;
    }

    fn refill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.taken = 0;
        while self.ready.is_empty() {
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            let count = match self.source.read(&mut self.block) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            // What stands before a fault is read first, however much came at once.
            self.fault = self.pass_all(count).err();
            self.tell_cuts();
        }
        self.pending += self.ready.len();
        if self.pending > PENDING_CAP + BLOCK {
            return Err(too_long("an element", PENDING_CAP));
        }
        Ok(())
    }

    /// Takes the first bytes of the block.
    fn pass_all(&mut self, count: usize) -> io::Result<()> {
        let allowed = usize::try_from(self.cap - self.total).unwrap_or(usize::MAX).min(count);
        self.total += allowed as u64;
        let block = std::mem::take(&mut self.block);
        let passed = block[..allowed].iter().try_for_each(|byte| self.pass(*byte));
        self.block = block;
        passed?;
        if allowed < count { Err(too_long("the file", self.cap as usize)) } else { Ok(()) }
    }

    /// Counts the newlines that were cut in front of the byte to come.
    fn tell_cuts(&mut self) {
        while let Some((_, count)) = self.cuts.pop_if(|(before, _)| *before <= self.taken) {
            self.lines += count;
        }
    }

    fn pass(&mut self, byte: u8) -> io::Result<()> {
        self.last.rotate_left(1);
        self.last[7] = byte;
        self.length += 1;
        match self.inside {
            Inside::Text if byte == b'<' => self.enter(Inside::Open, byte),
            Inside::Text => self.keep_or_cut(byte),
            Inside::Open => match byte {
                b'!' => self.enter(Inside::Bang, byte),
                b'?' => self.enter(Inside::Until(b"?>"), byte),
                _ => {
                    self.enter(Inside::Tag, byte);
                    self.leave_tag(byte);
                }
            },
            Inside::Bang => self.bang(byte),
            Inside::Until(end) => match self.length >= end.len() && self.last.ends_with(end) {
                true => {
                    // The end again, whole: some of it may have been cut.
                    if self.length > TEXT_CAP {
                        self.ready.extend_from_slice(&end[..end.len() - 1]);
                    }
                    self.enter(Inside::Text, byte);
                }
                false => self.keep_or_cut(byte),
            },
            Inside::Tag if self.length > TAG_CAP => return Err(too_long("a tag", TAG_CAP)),
            Inside::Tag => {
                self.ready.push(byte);
                self.leave_tag(byte);
            }
            Inside::Doctype if self.length > TEXT_CAP => return Err(too_long("the DOCTYPE", TEXT_CAP)),
            Inside::Doctype => {
                if byte == b'[' && self.quote.is_none() {
                    let why = "it brings a DTD of its own, which is not read";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                self.ready.push(byte);
                self.leave_tag(byte);
            }
        }
        Ok(())
    }

    fn enter(&mut self, inside: Inside, byte: u8) {
        (self.inside, self.length, self.quote) = (inside, 0, None);
        self.ready.push(byte);
    }

    /// At `>` outside of quotes.
    fn leave_tag(&mut self, byte: u8) {
        match (self.quote, byte) {
            (None, b'>') => (self.inside, self.length) = (Inside::Text, 0),
            (None, b'"' | b'\'') => self.quote = Some(byte),
            (Some(quote), _) if quote == byte => self.quote = None,
            _ => {}
        }
    }

    fn bang(&mut self, byte: u8) {
        let so_far = &self.last[8 - self.length.min(8)..];
        let next = match so_far {
            b"--" => Some(Inside::Until(b"-->")),
            CDATA => Some(Inside::Until(b"]]>")),
            so_far if so_far == b"-" || CDATA.starts_with(so_far) => None,
            _ => Some(Inside::Doctype),
        };
        match next {
            Some(inside) => {
                self.enter(inside, byte);
                if inside == Inside::Doctype {
                    self.leave_tag(byte);
                }
            }
            None => self.ready.push(byte),
        }
    }

    fn keep_or_cut(&mut self, byte: u8) {
        if self.length <= TEXT_CAP {
            self.ready.push(byte);
        } else if byte == b'\n' {
            match self.cuts.first_mut().filter(|(before, _)| *before == self.ready.len()) {
                Some((_, count)) => *count += 1,
                None => self.cuts.insert(0, (self.ready.len(), 1)),
            }
        }
    }
}

fn too_long(what: &str, cap: usize) -> io::Error {
    let mib = cap as f64 / f64::from(1 << 20);
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is longer than {mib:.1} MiB"))
}

impl<R: Read> BufRead for Brief<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.ready.len() {
            self.refill()?;
        }
        Ok(&self.ready[self.taken..])
    }

    fn consume(&mut self, count: usize) {
        let end = (self.taken + count).min(self.ready.len());
        self.lines += self.ready[self.taken..end].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.taken = end;
        self.tell_cuts();
    }
}

impl<R: Read> Read for Brief<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let count = ready.len().min(buffer.len());
        buffer[..count].copy_from_slice(&ready[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn through(document: &[u8]) -> io::Result<Vec<u8>> {
        let mut brief = Brief::new(document, u64::MAX);
        let mut all = Vec::new();
        loop {
            let ready = brief.fill_buf()?.to_vec();
            if ready.is_empty() {
                return Ok(all);
            }
            brief.consume(ready.len());
            brief.understood();
            all.extend(ready);
        }
    }

    #[test]
    fn long_texts_lose_their_middle_and_keep_their_ends() {
        let long = "x\n".repeat(1 << 17);
        for (before, after) in [
            ("<a>", "</a>"),
            ("<a><![CDATA[", "]]></a>"),
            ("<a><!-- > < -", "--></a>"),
            ("<?pi ", "?><a/>"),
            ("<a b='>'>", "<c d=\">\"/></a>"),
        ] {
            let document = format!("{before}{long}{after}");
            let short = String::from_utf8(through(document.as_bytes()).unwrap()).unwrap();
            assert!(short.starts_with(before), "{before}");
            assert!(short.ends_with(after), "{}", &short[short.len() - 40..]);
            assert!(short.len() < TEXT_CAP + 100);
        }
    }

    #[test]
    fn an_end_is_whole_wherever_the_cut_falls() {
        for fill in TEXT_CAP - 4..TEXT_CAP + 4 {
            let document = format!("<a><![CDATA[{}]]></a>", "x".repeat(fill));
            let short = through(document.as_bytes()).unwrap();
            assert!(short.ends_with(b"x]]></a>") || short.ends_with(b"x]]]></a>") || short.ends_with(b"x]]]]></a>"));
        }
    }

    #[test]
    fn lines_are_those_of_the_whole_document() {
        let document = format!("<a>{}</a>\n<b/>", "\n".repeat(500_000));
        let mut brief = Brief::new(document.as_bytes(), u64::MAX);
        io::copy(&mut brief, &mut io::sink()).unwrap();
        assert_eq!(brief.line(), 500_002);
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let refused = |document: &str| through(document.as_bytes()).unwrap_err().to_string();
        assert!(refused(&format!("<a b='{}'/>", "x".repeat(TAG_CAP + 10))).contains("a tag is longer than 1.0 MiB"));
        assert!(refused("<!DOCTYPE a [<!ENTITY x 'y'>]><a/>").contains("a DTD of its own"));
        assert!(refused(&format!("<!DOCTYPE a '{}'><a/>", "x".repeat(TEXT_CAP))).contains("the DOCTYPE"));
        let mut brief = Brief::new(&b"<a></a>"[..], 4);
        assert!(io::copy(&mut brief, &mut io::sink()).unwrap_err().to_string().contains("the file is longer"));
        let many = "<a/>".repeat(PENDING_CAP / 2);
        assert!(io::copy(&mut Brief::new(many.as_bytes(), u64::MAX), &mut io::sink()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_short_passes_as_it_is(document in "[<>!?\\-\\[\\]CDAT'\"a =/&;\\n]{0,200}") {
            if let Ok(passed) = through(document.as_bytes()) {
                prop_assert_eq!(passed, document.into_bytes());
            }
        }
    }
}
