//! JUnit's XML, in any of its dialects, as test cases.
//!
//! ```text
//! testsuites? ─▶ testsuite* (in each other) ─▶ testcase ─▶ failure | error | skipped
//!                    file                        file, classname, name, time, line
//! ```
//!
//! The files are the job's: their depth, the length of their texts and the number of their cases are bounded, entities other
//! than XML's own stay as they are, and there is no DTD.

use std::io::{BufRead, Read};

use quick_xml::Reader;
use quick_xml::escape::{resolve_predefined_entity, unescape};
use quick_xml::events::{BytesStart, Event};

use super::brief::Brief;
use super::encoding::{text, utf8};
use super::place::place;
use super::{Case, Outcome};

/// Depth of suites in suites; no real report is this deep.
const DEPTH_CAP: usize = 128;
const NAME_CAP: usize = 2 << 10;
const MESSAGE_CAP: usize = 4 << 10;

/// How much is taken.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one file.
    pub file: u64,
    /// Bytes of what is kept of all files: names and messages.
    pub kept: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file: 1 << 30, kept: 64 << 20 }
    }
}

/// Why a file was not read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Broken {
    /// From 1.
    pub line: u64,
    /// What is wrong with it, as part of a sentence.
    pub why: String,
    /// The file is right as far as it goes: its writer may not be done.
    pub is_cut_off: bool,
}

/// What is open around the place that is read.
struct Open {
    what: What,
    name: String,
    line: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Suites,
    Suite,
    Case,
    /// Inside a case's failure or the like, whose text is the case's message.
    Verdict,
    /// Anything else, with all that is in it.
    Other,
}

/// Reads one document and adds its cases to `cases`, those before a fault too.
///
/// # Errors
/// [`Broken`] if it is not a JUnit report, or ends too early, or is too much.
pub fn parse(source: impl Read, limits: Limits, cases: &mut Vec<Case>) -> Result<(), Broken> {
    let source = utf8(source).map_err(|error| Broken { line: 1, why: error.to_string(), is_cut_off: false })?;
    let mut reader = Reader::from_reader(Brief::new(source, limits.file));
    reader.config_mut().allow_dangling_amp = true;
    let left = limits.kept.saturating_sub(cases.iter().map(cost).sum());
    let mut parser = Parser {
        stack: Vec::new(),
        has_root: false,
        files: Vec::new(),
        case: None,
        line: None,
        message: Vec::new(),
        is_heard: false,
        left,
        cases,
    };
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let line = reader.get_ref().line();
        let event = reader.read_event_into(&mut buffer);
        let taken = match event {
            Ok(event) => parser.take(event, line),
            Err(error) => Err(why(&error, reader.get_mut())),
        };
        match taken {
            Ok(false) => reader.get_mut().understood(),
            Ok(true) => return Ok(()),
            Err(Fault { why, at, is_cut_off }) => {
                let line = at.unwrap_or_else(|| reader.get_ref().line());
                return Err(Broken { line, why, is_cut_off });
            }
        }
    }
}

struct Fault {
    why: String,
    /// Its line, if it is not the one that is being read.
    at: Option<u64>,
    is_cut_off: bool,
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self { why, at: None, is_cut_off: false }
    }
}

/// Our own reader's words stand alone.
fn why(error: &quick_xml::Error, rest: &mut impl BufRead) -> Fault {
    let why = match error {
        quick_xml::Error::Io(error) => error.to_string(),
        error => navvy_job::chain::chain(error),
    };
    use quick_xml::errors::SyntaxError;
    let is_cut_off = match error {
        // Something else stands behind `<!` than may, or nothing yet.
        quick_xml::Error::Syntax(SyntaxError::InvalidBangMarkup) => rest.fill_buf().is_ok_and(<[u8]>::is_empty),
        // All others are of what begins and does not end before the file does.
        quick_xml::Error::Syntax(_) => true,
        _ => false,
    };
    Fault { why, at: None, is_cut_off }
}

/// Bytes that a case is counted as.
fn cost(case: &Case) -> usize {
    let texts = [&case.file, &case.class, &case.message, &case.place];
    texts.into_iter().flatten().map(String::len).sum::<usize>() + case.name.len() + std::mem::size_of::<Case>()
}

struct Parser<'a> {
    stack: Vec<Open>,
    /// There was an element.
    has_root: bool,
    /// The file that each open suite names, if it does.
    files: Vec<Option<String>>,
    case: Option<Case>,
    /// The line that the case names, if it does.
    line: Option<u32>,
    /// The text of the verdict that is open, if it is one that is heard.
    message: Vec<u8>,
    is_heard: bool,
    /// Bytes that may still be kept.
    left: usize,
    cases: &'a mut Vec<Case>,
}

impl Parser<'_> {
    /// Whether it was the end.
    fn take(&mut self, event: Event<'_>, line: u64) -> Result<bool, Fault> {
        match event {
            Event::Start(tag) => self.open(&tag, line)?,
            Event::Empty(tag) => {
                self.open(&tag, line)?;
                self.close()?;
            }
            Event::End(_) => self.close()?,
            Event::Text(text) => self.text(&text),
            Event::CData(text) => self.text(&text),
            Event::GeneralRef(name) => {
                let named = std::str::from_utf8(&name).ok().and_then(resolve_predefined_entity);
                let numbered = || name.resolve_char_ref().ok().flatten().map(String::from);
                match named.map(str::to_owned).or_else(numbered) {
                    Some(character) => self.text(character.as_bytes()),
                    None => [&b"&"[..], &name, b";"].into_iter().for_each(|bytes| self.text(bytes)),
                }
            }
            Event::Eof => return self.end().map(|()| true),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
        Ok(false)
    }

    fn end(&self) -> Result<(), Fault> {
        match self.stack.last() {
            Some(open) => {
                let why = format!("<{}> begins here and does not end: the file is cut off", open.name);
                Err(Fault { why, at: Some(open.line), is_cut_off: true })
            }
            None if self.has_root => Ok(()),
            None => {
                let why = "not a JUnit report: it has no element at all".to_owned();
                Err(Fault { why, at: Some(1), is_cut_off: true })
            }
        }
    }

    fn open(&mut self, tag: &BytesStart<'_>, line: u64) -> Result<(), Fault> {
        let what = self.what(tag)?;
        if self.stack.len() >= DEPTH_CAP {
            return Err(Fault::from(format!("elements are nested deeper than {DEPTH_CAP}")));
        }
        match what {
            What::Suite => self.files.push(attribute(tag, b"file").filter(|file| !file.is_empty())),
            What::Case => {
                self.line = attribute(tag, b"line").and_then(|line| line.trim().parse().ok());
                self.case = Some(self.begin(tag));
            }
            What::Verdict => self.judge(tag),
            What::Suites | What::Other => {}
        }
        let name = text(tag.name().as_ref()).chars().take(100).collect();
        self.has_root = true;
        self.stack.push(Open { what, name, line });
        Ok(())
    }

    fn what(&self, tag: &BytesStart<'_>) -> Result<What, Fault> {
        let local = tag.local_name();
        let known = match local.as_ref() {
            b"testsuites" => What::Suites,
            b"testsuite" => What::Suite,
            b"testcase" => What::Case,
            _ => What::Other,
        };
        let is_verdict = || verdict(local.as_ref()).is_some();
        match self.stack.last().map(|open| open.what) {
            None if matches!(known, What::Suites | What::Suite) => Ok(known),
            None => {
                let name: String = text(tag.name().as_ref()).chars().take(100).collect();
                Err(Fault::from(format!(
                    "not a JUnit report: its root is <{name}>, expected <testsuites> or <testsuite>"
                )))
            }
            Some(What::Suites | What::Suite) if known != What::Suites => Ok(known),
            Some(What::Case) if is_verdict() => Ok(What::Verdict),
            Some(_) => Ok(What::Other),
        }
    }

    fn begin(&self, tag: &BytesStart<'_>) -> Case {
        let some = |name: &[u8]| attribute(tag, name).filter(|value| !value.is_empty());
        let inherited = || self.files.iter().rev().flatten().next().cloned();
        let is_skipped = |value: String| matches!(value.as_str(), "skipped" | "notrun" | "disabled" | "pending");
        let skipped = some(b"result").or_else(|| some(b"status")).is_some_and(is_skipped);
        Case {
            file: some(b"file").or_else(inherited),
            class: some(b"classname").or_else(|| some(b"class")),
            name: attribute(tag, b"name").unwrap_or_default(),
            outcome: if skipped { Outcome::Skipped } else { Outcome::Passed },
            micros: some(b"time").and_then(|time| micros(&time)),
            message: None,
            place: None,
        }
    }

    /// The worst of a case's verdicts counts; of equal ones the first one's words.
    fn judge(&mut self, tag: &BytesStart<'_>) {
        self.message.clear();
        self.is_heard = false;
        let Some((case, outcome)) = self.case.as_mut().zip(verdict(tag.local_name().as_ref())) else { return };
        self.is_heard = outcome > case.outcome || (outcome == case.outcome && case.message.is_none());
        if self.is_heard {
            case.outcome = outcome;
            let words = |name: &[u8]| attribute(tag, name).filter(|words| !words.trim().is_empty());
            case.message = Some(words(b"message").or_else(|| words(b"type")).unwrap_or_default());
        }
    }

    fn text(&mut self, bytes: &[u8]) {
        if self.is_heard && self.stack.last().is_some_and(|open| open.what == What::Verdict) {
            let room = (4 * MESSAGE_CAP).saturating_sub(self.message.len());
            self.message.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn close(&mut self) -> Result<(), Fault> {
        match self.stack.pop().map(|open| open.what) {
            Some(What::Suite) => drop(self.files.pop()),
            Some(What::Verdict) => self.said(),
            Some(What::Case) => return self.keep(),
            _ => {}
        }
        Ok(())
    }

    /// A verdict's attribute and text, each once.
    fn said(&mut self) {
        if !std::mem::take(&mut self.is_heard) {
            return;
        }
        let body = text(&self.message);
        let Some(message) = self.case.as_mut().and_then(|case| case.message.as_mut()) else { return };
        let body = body.trim_matches(['\n', '\r']).trim_end();
        let begins = message.trim_end();
        if body.trim_start().starts_with(begins) || begins.is_empty() {
            *message = body.to_owned();
        } else if !body.is_empty() && message.len() < MESSAGE_CAP {
            *message = format!("{begins}\n{body}");
        }
    }

    fn keep(&mut self) -> Result<(), Fault> {
        let Some(mut case) = self.case.take() else { return Ok(()) };
        case.message = case.message.filter(|message| !message.trim().is_empty());
        if case.outcome.is_bad() {
            case.place = place(case.file.as_deref(), self.line, case.message.as_deref().unwrap_or_default());
        }
        shorten(&mut case);
        let cost = cost(&case);
        if cost > self.left {
            return Err(Fault::from("more tests than can be kept; the rest is left out".to_owned()));
        }
        self.left -= cost;
        self.cases.push(case);
        Ok(())
    }
}

fn verdict(tag: &[u8]) -> Option<Outcome> {
    match tag {
        b"failure" => Some(Outcome::Failed),
        b"error" => Some(Outcome::Errored),
        b"skipped" | b"disabled" => Some(Outcome::Skipped),
        b"flakyFailure" | b"flakyError" => Some(Outcome::Flaky),
        _ => None,
    }
}

/// As XML wants it unescaped; with an entity that is not XML's own, as it stands.
fn attribute(tag: &BytesStart<'_>, name: &[u8]) -> Option<String> {
    let mut attributes = tag.attributes();
    // A doubled or broken attribute takes nothing from the others.
    let found = attributes.with_checks(false).flatten().find(|attribute| attribute.key.as_ref() == name)?;
    let raw = text(&found.value);
    Some(unescape(&raw).map(std::borrow::Cow::into_owned).unwrap_or(raw.clone()))
}

fn shorten(case: &mut Case) {
    let cut = |text: &mut String, cap: usize| {
        let end = (0..=cap.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    };
    for text in [&mut case.file, &mut case.class, &mut case.place].into_iter().flatten() {
        cut(text, NAME_CAP);
    }
    cut(&mut case.name, NAME_CAP);
    if let Some(message) = &mut case.message {
        cut(message, MESSAGE_CAP);
    }
}

/// Seconds as people's programs write them: `1.5`, `1,234.56`, `0,25`, `3s`. In microseconds; `None` if it is not a time.
fn micros(text: &str) -> Option<u64> {
    let text = text.trim().trim_end_matches(['s', 'S']);
    let plain: String = match text.rsplit_once(',') {
        // Thousands, unless it can only be a decimal comma.
        Some((before, after))
            if !text.contains('.') && (before == "0" || after.len() != 3) && !before.contains(',') =>
        {
            format!("{before}.{after}")
        }
        _ => text.replace(',', ""),
    };
    let seconds: f64 = plain.parse().ok()?;
    // Ten years; beyond it is a time stamp or nonsense.
    (seconds.is_finite() && (0.0..3e8).contains(&seconds)).then(|| (seconds * 1e6).round() as u64)
}

#[cfg(test)]
mod tests;
