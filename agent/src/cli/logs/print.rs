//! Pieces of a log on their way to a person or a pipe.

use std::io::{self, Write};

use jiff::Timestamp;
use navvy_output::reader::{Origin, Piece, Trust};
use navvy_protocol::frame::Stream;
use navvy_ui::sanitize::Sanitizer;

/// Columns of a time: `2026-01-02T03:04:05.678Z`.
const TIME_COLUMNS: usize = 24;

/// How a log is printed.
#[derive(Debug, Clone, Default)]
pub struct Style {
    /// For a terminal: what could steer it is taken out; colours stay if wanted.
    pub sanitize: Option<Colors>,
    /// Time and stream in front of each line.
    pub times: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colors(pub bool);

/// Writes the pieces of one log.
pub struct Printer<'a, W> {
    out: &'a mut W,
    sanitizer: Option<Sanitizer>,
    times: bool,
    /// What a service's output is called instead of `stdout`.
    service: Option<String>,
    /// The stream whose line is not ended yet.
    unfinished: Option<String>,
}

impl<'a, W: Write> Printer<'a, W> {
    pub fn new(out: &'a mut W, style: &Style, service: Option<String>) -> Self {
        let sanitizer = style.sanitize.map(|Colors(wanted)| Sanitizer::new(wanted));
        Self { out, sanitizer, times: style.times, service, unfinished: None }
    }

    pub fn piece(&mut self, piece: &Piece<'_>) -> io::Result<()> {
        match &mut self.sanitizer {
            None => self.show(piece.bytes, piece),
            Some(sanitizer) => {
                let mut text = String::with_capacity(piece.bytes.len());
                sanitizer.push(piece.bytes, &mut text);
                self.show(text.as_bytes(), piece)
            }
        }
    }

    /// The log is over.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(mut sanitizer) = self.sanitizer.take() {
            let mut text = String::new();
            sanitizer.finish(&mut text);
            self.out.write_all(text.as_bytes())?;
        }
        // With times the output is made of lines.
        if self.unfinished.is_some() { self.out.write_all(b"\n") } else { Ok(()) }
    }

    fn show(&mut self, bytes: &[u8], piece: &Piece<'_>) -> io::Result<()> {
        if !self.times {
            return self.out.write_all(bytes);
        }
        let stream = self.stream(piece);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.unfinished.as_ref().is_some_and(|unfinished| *unfinished != stream) {
                self.out.write_all(b"\n")?;
                self.unfinished = None;
            }
            if self.unfinished.is_none() {
                write!(self.out, "{:TIME_COLUMNS$} {stream} ", time(piece.origin.as_ref()))?;
            }
            self.out.write_all(line)?;
            self.unfinished = (!line.ends_with(b"\n")).then(|| stream.clone());
        }
        Ok(())
    }

    /// `stdout`, `stderr`, `service:NAME`; if it is unknown, the reason.
    fn stream(&self, piece: &Piece<'_>) -> String {
        match (piece.origin, piece.trust, &self.service) {
            (None, Trust::Damaged, _) => "added".to_owned(),
            (None, ..) => "unsealed".to_owned(),
            (Some(_), _, Some(service)) => service.clone(),
            (Some(Origin { stream: Stream::Stdout, .. }), ..) => "stdout".to_owned(),
            (Some(Origin { stream: Stream::Stderr, .. }), ..) => "stderr".to_owned(),
        }
    }
}

fn time(origin: Option<&Origin>) -> String {
    let nanoseconds = origin.and_then(|origin| origin.unix_ns);
    match nanoseconds.map(|ns| Timestamp::from_nanosecond(i128::from(ns))) {
        Some(Ok(time)) => time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(stream: Stream, unix_ns: Option<u64>) -> Option<Origin> {
        Some(Origin { segment: 1, stream, unix_ns })
    }

    fn printed(style: &Style, service: Option<&str>, pieces: &[(&[u8], Option<Origin>)]) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, style, service.map(str::to_owned));
        for (bytes, origin) in pieces {
            printer.piece(&Piece { start: 0, bytes, trust: Trust::Verified, origin: *origin }).unwrap();
        }
        printer.finish().unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn raw_bytes_are_exactly_those() {
        let pieces: &[(&[u8], _)] = &[(b"\x1b]0;x\x07a", origin(Stream::Stdout, None)), (b"b", None)];
        assert_eq!(printed(&Style::default(), None, pieces), "\x1b]0;x\x07ab");
    }

    #[test]
    fn a_terminal_gets_what_the_views_would_show() {
        let style = Style { sanitize: Some(Colors(true)), times: false };
        let pieces: &[(&[u8], _)] = &[(b"\x1b]0;ti", None), (b"tle\x07\x1b[31mred\xe2", None)];
        assert_eq!(printed(&style, None, pieces), "\x1b[31mred\u{fffd}");
    }

    #[test]
    fn every_line_has_its_time_and_stream() {
        let style = Style { times: true, ..Style::default() };
        let at = |ms: u64| Some(1_767_323_045_000_000_000 + ms * 1_000_000);
        let pieces: &[(&[u8], _)] = &[
            (b"one\ntwo ", origin(Stream::Stdout, at(678))),
            (b"goes on\nthree", origin(Stream::Stdout, at(700))),
            (b"oh\n", origin(Stream::Stderr, at(701))),
            (b"late", None),
        ];
        assert_eq!(
            printed(&style, None, pieces),
            "2026-01-02T03:04:05.678Z stdout one\n\
             2026-01-02T03:04:05.678Z stdout two goes on\n\
             2026-01-02T03:04:05.700Z stdout three\n\
             2026-01-02T03:04:05.701Z stderr oh\n\
             -                        unsealed late\n"
        );
        let service: &[(&[u8], _)] = &[(b"up\n", origin(Stream::Stdout, at(0)))];
        assert_eq!(printed(&style, Some("service:db"), service), "2026-01-02T03:04:05.000Z service:db up\n");
    }
}
