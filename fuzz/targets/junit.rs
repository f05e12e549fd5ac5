//! JUnit reports: of any bytes; of pieces of their language; of what a program wrote, in whatever encoding. The same however
//! the bytes arrive; nothing is kept that is longer than it may be; what was written is what is read, and a part of it is told
//! as cut off.
#![no_main]

use libfuzzer_sys::fuzz_target;
use navvy_fuzz::{Feed, Trickle};
use navvy_results::junit::{Broken, Limits, parse};
use navvy_results::summary::{Counts, lines};
use navvy_results::{Case, Outcome};

/// Bytes that docs/tests.md allows.
const NAME: usize = 2 << 10;
const MESSAGE: usize = 4 << 10;
/// Encodings that a reader tells from the first bytes, beside plain UTF-8.
const KNOWN: std::ops::Range<u8> = 1..6;

const PIECES: [&str; 40] = [
    "<testsuites>",
    "</testsuites>",
    "<testsuite file='f'>",
    "<testsuite>",
    "</testsuite>",
    "<testcase name='n' time='1'>",
    "<testcase name=\"a&amp;b\"/>",
    "</testcase>",
    "<failure message='m'>",
    "</failure>",
    "<error/>",
    "<error type='T'>",
    "</error>",
    "<skipped/>",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<?x",
    "?>",
    "<!DOCTYPE x",
    "[<!ENTITY a 'b'>]",
    ">",
    "&amp;",
    "&#x41;",
    "&#0;",
    "&what;",
    "&",
    "<",
    "'",
    "\"",
    "\n",
    "é",
    "日",
    "a_test.rs:12: ",
    "<flakyFailure>",
    "<system-out>",
    "</system-out>",
    " status='skipped'",
    "\u{feff}",
];

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed::new(data);
    let (mode, step) = (feed.byte(), feed.byte());
    let kept = if mode & 64 == 0 { 1 << 20 } else { usize::from(feed.byte()) * 16 };
    let reader = Reader { step: step.into(), kept };
    match mode % 3 {
        0 => drop(reader.read(feed.rest())),
        1 => reader.pieces(&mut feed),
        _ => written(&mut feed, step.into()),
    }
});

struct Reader {
    /// Bytes that arrive at once.
    step: usize,
    /// Bytes of cases that may be kept.
    kept: usize,
}

impl Reader {
    fn read(&self, document: &[u8]) -> (Vec<Case>, Result<(), Broken>) {
        let limits = Limits { kept: self.kept, ..Limits::default() };
        let (mut cases, mut trickled) = (Vec::new(), Vec::new());
        let done = parse(document, limits, &mut cases);
        let step = self.step.max(1) + document.len() / 64;
        let again = parse(Trickle { bytes: document, step }, limits, &mut trickled);
        assert_eq!((&trickled, &again), (&cases, &done), "the same bytes, {step} at a time");
        self.bounds(document, &cases, &done);
        counts(&cases);
        (cases, done)
    }

    fn bounds(&self, document: &[u8], cases: &[Case], done: &Result<(), Broken>) {
        let mut kept = 0;
        for case in cases {
            for text in [&case.file, &case.class, &case.place].into_iter().flatten() {
                assert!(text.len() <= NAME);
                kept += text.len();
            }
            assert!(case.name.len() <= NAME);
            let message = case.message.as_deref().unwrap_or_default();
            assert!(message.len() <= MESSAGE && case.message.is_some() != message.trim().is_empty());
            assert!(case.place.is_none() || case.outcome.is_bad());
            kept += case.name.len() + message.len() + size_of::<Case>();
        }
        assert!(kept <= self.kept, "{kept} bytes are kept where {} are allowed", self.kept);
        if let Err(broken) = done {
            let lines = 1 + document.iter().filter(|byte| **byte == b'\n').count();
            assert!((1..=lines as u64).contains(&broken.line) && !broken.why.is_empty(), "{broken}");
        }
    }

    /// One text says the same in every encoding.
    fn pieces(&self, feed: &mut Feed<'_>) {
        let mut text = ["<testsuite>", "<testsuites>", "<?xml version='1.0'?>", ""][feed.up_to(3)].to_owned();
        while !feed.is_empty() && text.len() < 2000 {
            match usize::from(feed.byte()) {
                number if number < 4 * PIECES.len() => text.push_str(PIECES[number % PIECES.len()]),
                _ => text.push_str(&feed.text(20)),
            }
        }
        let plain = self.read(text.as_bytes());
        // A zero behind `<` is a half of a wide character.
        for encoding in KNOWN.filter(|_| text.starts_with('<') && !text.starts_with("<\0")) {
            assert_eq!(self.read(&encoded(&text, encoding)), plain, "in encoding {encoding}: {text:?}");
        }
    }
}

fn counts(cases: &[Case]) {
    let counts = Counts::of(cases);
    let bad = cases.iter().filter(|case| case.outcome.is_bad()).count();
    assert_eq!((counts.all(), counts.failed + counts.errored), (cases.len(), bad));
    let lines = lines(cases);
    assert_eq!(lines[0], counts.line());
    assert!(lines.len() <= 3 + 20 * 4 && lines.iter().all(|line| !line.contains(['\n', '\r'])));
}

fn encoded(text: &str, encoding: u8) -> Vec<u8> {
    let wide =
        |to: fn(u16) -> [u8; 2], mark: &[u8]| [mark, &text.encode_utf16().flat_map(to).collect::<Vec<_>>()].concat();
    match encoding {
        1 => [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        2 => wide(u16::to_le_bytes, b""),
        3 => wide(u16::to_be_bytes, b""),
        4 => wide(u16::to_le_bytes, b"\xff\xfe"),
        5 => wide(u16::to_be_bytes, b"\xfe\xff"),
        _ => text.as_bytes().to_vec(),
    }
}

/// What a program writes, and then a part of it.
fn written(feed: &mut Feed<'_>, step: usize) {
    let reader = Reader { step, kept: 8 << 20 };
    let encoding = feed.byte() % KNOWN.end;
    let mut writer = Writer { feed, text: String::new(), cases: Vec::new() };
    writer.document();
    let Writer { text, cases, .. } = writer;
    let document = encoded(&text, encoding);
    let (mut found, done) = reader.read(&document);
    found.iter_mut().for_each(|case| case.place = None);
    assert_eq!((&found, done), (&cases, Ok(())), "of {text:?}");

    let (cut, done) = reader.read(&document[..feed.up_to(document.len())]);
    let is_beginning = cut.len() <= cases.len() && cut.iter().zip(&cases).all(|(cut, case)| cut.name == case.name);
    assert!(is_beginning, "cases that were never written: {cut:?}");
    assert!(
        done.as_ref().map_or_else(|broken| broken.is_cut_off, |()| cut.len() == cases.len()),
        "{done:?}, of {text:?}"
    );
}

struct Writer<'a, 'b> {
    feed: &'a mut Feed<'b>,
    text: String,
    /// What is to be read.
    cases: Vec<Case>,
}

impl Writer<'_, '_> {
    fn document(&mut self) {
        let shape = self.feed.byte();
        if shape & 1 != 0 {
            self.text +=
                ["<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", "<?xml version='1.0'?>"][usize::from(shape >> 7)];
        }
        if shape & 2 != 0 {
            self.text += "<!DOCTYPE testsuites SYSTEM \"junit.dtd\">";
        }
        let is_many = shape & 4 != 0;
        self.text += if is_many { "<testsuites>" } else { "" };
        for _ in 0..if is_many { self.feed.up_to(2) } else { 1 } {
            self.suite(3, None);
        }
        self.text += if is_many { "</testsuites>" } else { "" };
        self.text += ["", "\n", "<!-- the end -->\n"][usize::from(shape >> 4) % 3];
    }

    fn suite(&mut self, depth: usize, file: Option<&str>) {
        self.text += "<testsuite";
        let own = self.attribute("file", 12);
        let file = own.as_deref().filter(|file| !file.is_empty()).or(file);
        self.text.push('>');
        for _ in 0..self.feed.up_to(4) {
            self.between();
            match self.feed.byte() % 4 {
                0 if depth > 0 => self.suite(depth - 1, file),
                _ => self.case(file),
            }
        }
        self.text += "</testsuite>";
    }

    /// What says nothing.
    fn between(&mut self) {
        self.text += match self.feed.byte() {
            0..128 => "",
            128..160 => "\n  ",
            160..192 => "<!-- <testcase name='no'/> - -> -->",
            192..224 => "<properties><property name=\"a\" value='<testcase>'/></properties>",
            _ => "<system-out><![CDATA[</testsuite>]]]]]></system-out>",
        };
    }

    fn case(&mut self, file: Option<&str>) {
        self.text += "<testcase";
        let name = self.attribute("name", 40).unwrap_or_default();
        let class = self.attribute("classname", 12).filter(|class| !class.is_empty());
        let own = self.attribute("file", 12).filter(|file| !file.is_empty());
        let micros = (self.feed.byte() & 1 != 0).then(|| self.feed.number() % 300_000_000_000_000);
        if let Some(micros) = micros {
            self.text += &format!(" time='{}.{:06}'", micros / 1_000_000, micros % 1_000_000);
        }
        self.text.push('>');
        let (outcome, message) = self.verdict();
        self.between();
        self.text += "</testcase>";
        let short = |text: String| cut(&text, NAME).to_owned();
        let file = own.or(file.map(str::to_owned)).map(short);
        self.cases.push(Case {
            file,
            class: class.map(short),
            name: short(name),
            outcome,
            micros,
            message,
            place: None,
        });
    }

    fn verdict(&mut self) -> (Outcome, Option<String>) {
        use Outcome::{Errored, Failed, Flaky, Passed, Skipped};
        let shape = self.feed.byte();
        let (tag, outcome) = match shape % 8 {
            0 => ("failure", Failed),
            1 => ("error", Errored),
            2 => ("skipped", Skipped),
            3 => ("flakyError", Flaky),
            _ => return (Passed, None),
        };
        self.text += &format!("<{tag}");
        let message = if shape & 8 == 0 {
            let message = self.attribute(if shape & 16 == 0 { "message" } else { "type" }, 60);
            self.text.push('>');
            message.unwrap_or_default()
        } else {
            self.text.push('>');
            let body = self.body();
            // Four times as much is held as is kept.
            cut(&body, 4 * MESSAGE).trim_matches(['\n', '\r']).trim_end().to_owned()
        };
        self.text += &format!("</{tag}>");
        (outcome, Some(cut(&message, MESSAGE).to_owned()).filter(|message| !message.trim().is_empty()))
    }

    /// Text and CDATA, now and then longer than a reader of texts takes.
    fn body(&mut self) -> String {
        let mut body = String::new();
        for _ in 0..self.feed.up_to(3) {
            let said = self.said(60);
            if self.feed.byte() & 1 == 0 {
                said.chars().for_each(|c| self.escaped(c, '<'));
                body += &said;
            } else {
                let said = said.replace(['>', ']'], "").repeat(if self.feed.byte() == 255 { 2000 } else { 1 });
                self.text += &format!("<![CDATA[{said}]]>");
                body += &said;
            }
        }
        body
    }

    /// Its value, if there is one.
    fn attribute(&mut self, name: &str, most: usize) -> Option<String> {
        let shape = self.feed.byte();
        if shape & 3 == 0 {
            return None;
        }
        let value = self.said(most).repeat(if shape == 255 { 90 } else { 1 });
        let quote = if shape & 4 == 0 { '"' } else { '\'' };
        self.text += &format!(" {name}={quote}");
        value.chars().for_each(|c| self.escaped(c, quote));
        self.text.push(quote);
        Some(value)
    }

    /// Characters that XML knows.
    fn said(&mut self, most: usize) -> String {
        let is_known =
            |c: &char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{7e}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..);
        self.feed.text(most).chars().filter(is_known).collect()
    }

    fn escaped(&mut self, c: char, quote: char) {
        let how = if c.is_ascii_alphanumeric() { 0 } else { self.feed.byte() % 4 };
        let named = [('<', "&lt;"), ('>', "&gt;"), ('&', "&amp;"), ('"', "&quot;"), ('\'', "&apos;")];
        let name = named.iter().find(|(named, _)| *named == c).map(|(_, name)| *name);
        match (how, name) {
            (1, _) => self.text += &format!("&#{};", u32::from(c)),
            (2, _) => self.text += &format!("&#x{:X};", u32::from(c)),
            (0, Some(_)) if !matches!(c, '<' | '>' | '&') && c != quote => self.text.push(c),
            (_, Some(name)) => self.text += name,
            _ => self.text.push(c),
        }
    }
}

fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
