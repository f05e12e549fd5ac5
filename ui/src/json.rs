//! One event a line, as `docs/events.md` describes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use navvy_job::event::{Event, Stamped, TaskRef};
use navvy_job::id::TaskId;
use serde::Serialize;
use serde_json::ser::Formatter;

use super::sink::{Sink, ViewError};

/// Writes events as JSON lines.
#[derive(Debug)]
pub struct Json<W> {
    sink: Sink<W>,
    buffer: Vec<u8>,
    /// Starts of characters whose ends come with the stream's next bytes: at most 3 bytes each.
    partial: BTreeMap<Source, (TaskRef, Vec<u8>)>,
}

/// A stream: task, step, name.
type Source = (TaskId, usize, String);

impl<W: Write> Json<W> {
    /// A view that writes to `writer`.
    pub fn new(writer: W) -> Self {
        Self { sink: Sink::new(writer), buffer: Vec::new(), partial: BTreeMap::new() }
    }

    /// Writes the event as one line.
    pub fn handle(&mut self, stamped: &Stamped) -> Result<(), ViewError> {
        match &stamped.event {
            Event::Output { task, step, stream, bytes } => self.output(stamped, task, *step, stream, bytes)?,
            Event::StepEnded { task, step, .. } => {
                self.end(stamped, |(of, number, _)| *of == task.task && number == step)?;
                self.add(stamped)?;
            }
            Event::TaskEnded { task, .. } => {
                self.end(stamped, |(of, _, _)| *of == task.task)?;
                self.add(stamped)?;
            }
            _ => self.add(stamped)?,
        }
        self.sink.write(&mut self.buffer)
    }

    /// A character that two reads have torn apart is put together again.
    fn output(
        &mut self,
        stamped: &Stamped,
        task: &TaskRef,
        step: usize,
        stream: &str,
        bytes: &[u8],
    ) -> Result<(), ViewError> {
        let torn = torn_character(bytes);
        if torn == 0 && self.partial.is_empty() {
            return self.add(stamped);
        }
        let source = (task.task.clone(), step, stream.to_owned());
        let mut whole = self.partial.remove(&source).map_or_else(Vec::new, |(_, start)| start);
        whole.extend_from_slice(bytes);
        let start = whole.split_off(whole.len() - torn_character(&whole));
        if !start.is_empty() {
            self.partial.insert(source, (task.clone(), start));
        }
        if whole.is_empty() { Ok(()) } else { self.add_output(stamped, task, step, stream, whole) }
    }

    /// The streams have ended: what is torn stays so.
    fn end(&mut self, stamped: &Stamped, is_theirs: impl Fn(&Source) -> bool) -> Result<(), ViewError> {
        let ended: Vec<Source> = self.partial.keys().filter(|source| is_theirs(source)).cloned().collect();
        for source in ended {
            if let Some((task, bytes)) = self.partial.remove(&source) {
                self.add_output(stamped, &task, source.1, &source.2, bytes)?;
            }
        }
        Ok(())
    }

    fn add_output(
        &mut self,
        stamped: &Stamped,
        task: &TaskRef,
        step: usize,
        stream: &str,
        bytes: Vec<u8>,
    ) -> Result<(), ViewError> {
        let event = Event::Output { task: task.clone(), step, stream: stream.to_owned(), bytes };
        self.add(&Stamped { at_ms: stamped.at_ms, time: stamped.time.clone(), event })
    }

    fn add(&mut self, stamped: &Stamped) -> Result<(), ViewError> {
        add_line(&mut self.buffer, stamped).map_err(|error| ViewError::Write(error.into()))
    }
}

/// Appends a value as a line of JSON that a terminal may be shown: every `--json` goes through here.
pub fn add_line(buffer: &mut Vec<u8>, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut *buffer, Tame))?;
    buffer.push(b'\n');
    Ok(())
}

/// Compact, and without the control characters that JSON itself lets pass: a terminal may obey U+0080 to U+009F as it
/// does ESC sequences.
struct Tame;

impl Formatter for Tame {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !fragment.bytes().any(|byte| matches!(byte, 0x7f | 0xc2)) {
            return writer.write_all(fragment.as_bytes());
        }
        for piece in fragment.split_inclusive(is_late_control) {
            match piece.char_indices().next_back().filter(|(_, last)| is_late_control(*last)) {
                Some((at, last)) => write!(writer, "{}\\u{:04x}", &piece[..at], u32::from(last))?,
                None => writer.write_all(piece.as_bytes())?,
            }
        }
        Ok(())
    }
}

fn is_late_control(character: char) -> bool {
    matches!(character, '\u{7f}'..='\u{9f}')
}

/// Bytes at the end that are the start of a character.
fn torn_character(bytes: &[u8]) -> usize {
    for (at, byte) in bytes.iter().rev().take(3).enumerate() {
        let needed = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 0,
        };
        return if needed > at + 1 { at + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use navvy_job::event::{Event, JobEnd};
    use navvy_job::outcome::{CancelReason, StepOutcome, Verdict};

    use super::super::scene::{Scene, node};
    use super::*;
    use navvy_job::event::examples::examples;

    const DOCUMENT: &str = include_str!("../../docs/events.md");

    fn line(event: Event) -> String {
        let stamped = Stamped { at_ms: 1500, time: "2026-01-02T03:04:05.500Z".to_owned(), event };
        let mut out = Vec::new();
        Json::new(&mut out).handle(&stamped).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_document_shows_every_event_as_it_is() {
        for event in examples() {
            let line = line(event);
            assert!(DOCUMENT.contains(&line), "docs/events.md lacks\n{line}");
        }
    }

    #[test]
    fn the_document_shows_every_end_as_it_is() {
        let second = Duration::from_secs(1);
        let outcomes = [
            StepOutcome::Success,
            StepOutcome::ExitCode { code: 1 },
            StepOutcome::Signal { signal: 9 },
            StepOutcome::OutOfMemory { detail: "…".to_owned() },
            StepOutcome::NoOutput { limit: second },
            StepOutcome::JobLimit { limit: second },
            StepOutcome::Canceled,
            StepOutcome::Error { reason: "…".to_owned() },
        ];
        let verdicts = [
            Verdict::Passed,
            Verdict::Failed { step: 2, name: "…".to_owned() },
            Verdict::Canceled { reason: CancelReason::User },
            Verdict::TimedOut { limit: second },
            Verdict::Infra { fault: "…".to_owned() },
        ];
        let ends = [
            JobEnd::NotAvailable { needs: "…".to_owned() },
            JobEnd::Unapproved { approval: "hold".to_owned() },
            JobEnd::Held { before: "…".to_owned() },
            JobEnd::NotRun { why: "…".to_owned() },
            JobEnd::Passed { how: "…".to_owned() },
        ];
        let outcomes = outcomes.iter().map(|it| serde_json::to_string(it).unwrap());
        let verdicts = verdicts.iter().map(|it| serde_json::to_string(it).unwrap());
        let ends = ends.iter().map(|it| serde_json::to_string(it).unwrap());
        for value in outcomes.chain(verdicts).chain(ends) {
            assert!(DOCUMENT.contains(&format!("`{value}`")), "docs/events.md lacks\n{value}");
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let event = Event::Output {
            task: node("a\nb", 0, 1),
            step: 1,
            stream: "stdout".to_owned(),
            bytes: b"one\ntwo\xff\x1b[31m\r\n\0\xc2\x9b77;77H\xc2\x85\x7f\xc2\xa9".to_vec(),
        };
        let line = line(event);
        assert_eq!(line.lines().count(), 1);
        assert!(line.contains(r"one\ntwo") && line.contains('\u{fffd}'), "{line}");
        let back: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(back["event"], "output");
        assert!(!line.contains(is_late_control), "{line}");
        let bytes = back["bytes"].as_str().unwrap();
        assert!(bytes.ends_with("\0\u{9b}77;77H\u{85}\u{7f}\u{a9}"), "{bytes:?}");
    }

    #[test]
    fn characters_torn_apart_are_put_together() {
        let task = node("unit", 0, 1);
        let bytes = "é日🎉 a\u{301}".as_bytes();
        for size in 1..bytes.len() {
            let mut scene = Scene::new(&[]);
            for chunk in bytes.chunks(size) {
                scene.writes(&task, 1, chunk).stream(&task, 1, "stderr", b"\xc3");
            }
            scene.ends(&task, 1, "Run", StepOutcome::Success);
            let mut out = Vec::new();
            let mut json = Json::new(&mut out);
            scene.events.iter().for_each(|event| json.handle(event).unwrap());
            let lines =
                out.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
            let text =
                lines.filter(|line| line["stream"] == "stdout").map(|line| line["bytes"].as_str().unwrap().to_owned());
            assert_eq!(text.collect::<String>().as_bytes(), bytes, "{size}");
        }
    }
}
