//! A job's bytes, made into lines that can stand beside those of other jobs.

use super::sanitize::Sanitizer;

/// An unfinished line is shown when nothing has come for this long, …
const QUIET_MS: u64 = 200;
/// … or when it has been growing (or being rewritten by a progress bar) for this long, …
const PATIENCE_MS: u64 = 5000;
/// … or when it has become this long.
const HELD_LIMIT: usize = 16 * 1024;
/// Colour sequences remembered from line to line. More of them without a reset are no style but a flood.
const COLORS_LIMIT: usize = 256;

const RESET: &str = "\u{1b}[0m";

/// A line to show.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Sanitized, without its end; ends with no colour on.
    pub text: &'a str,
    /// The line before it was shown unfinished, and this is its rest.
    pub continued: bool,
}

/// Lines of one stream. A carriage return starts the line again, as it does on a terminal.
#[derive(Debug)]
pub struct Lines {
    sanitizer: Sanitizer,
    /// The unfinished line.
    held: String,
    /// Carriage return seen: what comes next replaces `held`.
    rewind: bool,
    continued: bool,
    colors: Colors,
    /// When the unfinished line's first and last bytes came.
    since_ms: u64,
    last_ms: u64,
    /// Kept for its memory only.
    scratch: String,
}

impl Lines {
    pub fn new(colors: bool) -> Self {
        Self {
            sanitizer: Sanitizer::new(colors),
            held: String::new(),
            rewind: false,
            continued: false,
            colors: Colors::default(),
            since_ms: 0,
            last_ms: 0,
            scratch: String::new(),
        }
    }

    /// Takes bytes, shows every line that they finish.
    pub fn push(&mut self, bytes: &[u8], now_ms: u64, mut show: impl FnMut(Line<'_>)) {
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        self.sanitizer.push(bytes, &mut text);
        self.take(&text, now_ms, &mut show);
        self.scratch = text;
    }

    /// Shows the unfinished line if it has waited long enough.
    pub fn tick(&mut self, now_ms: u64, show: impl FnMut(Line<'_>)) {
        let quiet = now_ms.saturating_sub(self.last_ms) >= QUIET_MS;
        let patient = now_ms.saturating_sub(self.since_ms) >= PATIENCE_MS;
        if !self.held.is_empty() && (quiet || patient) {
            self.show_unfinished(show);
        }
    }

    /// The stream has ended (or its step has): nothing stays held.
    pub fn finish(&mut self, mut show: impl FnMut(Line<'_>)) {
        let mut text = String::new();
        self.sanitizer.finish(&mut text);
        self.take(&text, self.last_ms, &mut show);
        if !self.held.is_empty() {
            self.end_line("", &mut show);
        }
        self.colors = Colors::default();
        self.continued = false;
    }

    fn take(&mut self, text: &str, now_ms: u64, show: &mut impl FnMut(Line<'_>)) {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|b| b == b'\n' || b == b'\r') {
            let (piece, end) = rest.split_at(at);
            let end = if end.starts_with("\r\n") { &end[1..] } else { end };
            if end.starts_with('\n') {
                self.end_line(piece, show);
            } else {
                self.rewind_line(piece, now_ms);
            }
            rest = end.get(1..).unwrap_or_default();
        }
        self.hold(rest, now_ms);
        if self.held.len() > HELD_LIMIT {
            self.show_unfinished(show);
        }
    }

    fn hold(&mut self, piece: &str, now_ms: u64) {
        if piece.is_empty() {
            return;
        }
        // A progress bar that starts its line again is still the same unfinished line.
        let same = self.start_again();
        if self.held.is_empty() && !same {
            self.since_ms = now_ms;
        }
        self.last_ms = now_ms;
        self.held.push_str(piece);
    }

    fn rewind_line(&mut self, piece: &str, now_ms: u64) {
        self.hold(piece, now_ms);
        self.rewind = true;
    }

    /// Carries out a carriage return seen before; was there something to replace?
    fn start_again(&mut self) -> bool {
        if !std::mem::take(&mut self.rewind) {
            return false;
        }
        let replaces = !self.held.is_empty();
        self.colors.follow(&self.held);
        self.held.clear();
        self.continued = false;
        replaces
    }

    fn end_line(&mut self, piece: &str, show: &mut impl FnMut(Line<'_>)) {
        if !piece.is_empty() {
            self.start_again();
        }
        let continued = std::mem::take(&mut self.continued);
        self.rewind = false;
        if self.held.is_empty() {
            if !(continued && piece.is_empty()) {
                self.colors.show(piece, continued, show);
            }
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        held.push_str(piece);
        self.colors.show(&held, continued, show);
        held.clear();
        self.held = held;
    }

    fn show_unfinished(&mut self, mut show: impl FnMut(Line<'_>)) {
        self.colors.show(&self.held, self.continued, &mut show);
        self.held.clear();
        // After a carriage return the next text is a line of its own.
        self.continued = !std::mem::take(&mut self.rewind);
    }
}

/// Colours that are on. They end with each line and begin again with the next, so that nothing between is coloured.
#[derive(Debug, Default)]
struct Colors {
    /// Sequences since the last reset.
    active: String,
}

impl Colors {
    fn show(&mut self, text: &str, continued: bool, show: &mut impl FnMut(Line<'_>)) {
        // Nothing is on before it, and nothing after it.
        if self.active.is_empty() && (text.ends_with(RESET) || !text.contains('\u{1b}')) {
            return show(Line { text, continued });
        }
        let mut line = std::mem::take(&mut self.active);
        let started = line.clone();
        line.push_str(text);
        self.active = started;
        self.follow(text);
        if !line.ends_with(RESET) {
            line.push_str(RESET);
        }
        show(Line { text: &line, continued });
    }

    /// Takes note of the colours in `text`.
    fn follow(&mut self, text: &str) {
        for part in text.split("\u{1b}[").skip(1) {
            let Some((parameters, _)) = part.split_once('m') else { continue };
            self.apply(parameters);
        }
    }

    fn apply(&mut self, parameters: &str) {
        let resets = parameters.is_empty()
            || parameters.split(';').next().is_some_and(|first| first.trim_matches('0').is_empty());
        if resets || self.active.len() + parameters.len() > COLORS_LIMIT {
            self.active.clear();
        }
        if !parameters.trim_matches(['0', ';']).is_empty() {
            self.active.push_str(&format!("\u{1b}[{parameters}m"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines as `text`, or `+text` for a continued one.
    struct Seen(Vec<String>);

    impl Seen {
        fn see(&mut self) -> impl FnMut(Line<'_>) {
            |line| self.0.push(format!("{}{}", if line.continued { "+" } else { "" }, line.text))
        }
    }

    fn shown(parts: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut seen) = (Lines::new(true), Seen(Vec::new()));
        for part in parts {
            lines.push(part, 0, seen.see());
        }
        lines.finish(seen.see());
        seen.0
    }

    #[test]
    fn lines_are_whole() {
        assert_eq!(shown(&[b"one\ntw", b"o\r\n\nthr", b"ee"]), ["one", "two", "", "three"]);
    }

    #[test]
    fn a_carriage_return_starts_the_line_again() {
        assert_eq!(shown(&[b"10%\r20%", b"\r100%\r", b"\ndone\n"]), ["100%", "done"]);
    }

    #[test]
    fn colors_end_with_the_line_and_go_on_in_the_next() {
        let red = "\x1b[31m";
        assert_eq!(
            shown(&[b"\x1b[31mone\ntwo\x1b[0m\nthree\n"]),
            [format!("{red}one\x1b[0m"), format!("{red}two\x1b[0m"), "three".to_owned()]
        );
        assert_eq!(shown(&[b"\x1b[1m\x1b[0;32ma\nb\n"])[1], "\x1b[0;32mb\x1b[0m");
    }

    #[test]
    fn an_unfinished_line_is_shown_after_a_moment_of_quiet() {
        let (mut lines, mut seen) = (Lines::new(false), Seen(Vec::new()));
        lines.push(b"Password", 1000, seen.see());
        lines.tick(1100, seen.see());
        lines.push(b": ", 1150, seen.see());
        lines.tick(1300, seen.see());
        assert!(seen.0.is_empty());
        lines.tick(1350, seen.see());
        lines.push(b"ok\nnext\n", 1400, seen.see());
        assert_eq!(seen.0, ["Password: ", "+ok", "next"]);
    }

    #[test]
    fn the_end_of_a_line_shown_early_is_no_line() {
        let (mut lines, mut seen) = (Lines::new(false), Seen(Vec::new()));
        lines.push(b"wait...", 0, seen.see());
        lines.tick(500, seen.see());
        lines.push(b"\nnext\n", 600, seen.see());
        assert_eq!(seen.0, ["wait...", "next"]);
    }

    #[test]
    fn a_progress_bar_that_never_rests_is_shown_now_and_then() {
        let (mut lines, mut seen) = (Lines::new(false), Seen(Vec::new()));
        for tenth in 0..100_u64 {
            lines.push(format!("\r{tenth}%").as_bytes(), tenth * 100, seen.see());
            lines.tick(tenth * 100 + 50, seen.see());
        }
        assert!((1..=2).contains(&seen.0.len()), "{:?}", seen.0);
    }

    #[test]
    fn a_line_without_end_is_not_kept_in_memory() {
        let (mut lines, mut seen) = (Lines::new(false), Seen(Vec::new()));
        for _ in 0..100 {
            lines.push(&[b'x'; 1000], 0, seen.see());
        }
        assert!(lines.held.len() <= HELD_LIMIT);
        assert!(seen.0[1].starts_with("+x"));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_lines(text in "[ab\n\r\u{1b}\\[0-9m]{0,60}", at in 0_usize..60) {
            let (first, second) = text.as_bytes().split_at(at.min(text.len()));
            prop_assert_eq!(shown(&[first, second]), shown(&[text.as_bytes()]));
        }
    }
}
