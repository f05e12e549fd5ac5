//! The end of what a step wrote, cheap to keep however much it is: bytes are looked at only when they are shown.

use super::lines::Lines;

/// Bytes kept at least, if there were so many.
const KEEP: usize = 32 * 1024;
/// Bytes in which the last line is looked for.
const LAST_LINE: usize = 4 * 1024;

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: Vec<u8>,
    /// Something came before `bytes`.
    cut: bool,
}

impl Tail {
    /// Costs at most a copy of [`KEEP`] bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.get(bytes.len().saturating_sub(KEEP)..).unwrap_or(bytes);
        if kept.len() < bytes.len() || self.bytes.len() + kept.len() > 2 * KEEP {
            self.cut = true;
            let room = KEEP.saturating_sub(kept.len());
            self.bytes.drain(..self.bytes.len().saturating_sub(room));
        }
        self.bytes.extend_from_slice(kept);
    }

    /// The last lines, oldest first, and whether there were more.
    pub fn last_lines(&self, most: usize, colors: bool) -> (Vec<String>, bool) {
        let mut lines = sanitized(whole_lines(&self.bytes, self.cut), colors);
        while lines.last().is_some_and(|line| line.trim().is_empty()) {
            lines.pop();
        }
        let more = lines.len().saturating_sub(most);
        lines.drain(..more);
        (lines, self.cut || more > 0)
    }

    /// The last line that is not blank, finished or not, without colours.
    pub fn last_line(&self) -> Option<String> {
        let start = self.bytes.len().saturating_sub(LAST_LINE);
        let end = self.bytes.get(start..).unwrap_or_default();
        let lines = sanitized(whole_lines(end, self.cut || start > 0), false);
        let line = lines.into_iter().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().replace('\t', " "))
    }
}

/// What a cut has left of its first line is not shown, unless there is nothing else: it may start inside a character
/// or an escape sequence.
fn whole_lines(bytes: &[u8], cut: bool) -> &[u8] {
    let first_end = bytes.iter().position(|b| *b == b'\n').filter(|_| cut);
    let rest = first_end.and_then(|at| bytes.get(at + 1..)).unwrap_or_default();
    if rest.is_empty() { bytes } else { rest }
}

fn sanitized(bytes: &[u8], colors: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = Lines::new(colors);
    lines.push(bytes, 0, |line| found.push(line.text.to_owned()));
    lines.finish(|line| found.push(line.text.to_owned()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_flood() {
        let mut tail = Tail::default();
        for n in 0..100_000 {
            tail.push(format!("\x1b[32mline {n}\x1b[0m\n").as_bytes());
            assert!(tail.bytes.len() <= 2 * KEEP);
        }
        let (lines, more) = tail.last_lines(2, false);
        assert_eq!((lines, more), (vec!["line 99998".to_owned(), "line 99999".to_owned()], true));
        assert_eq!(tail.last_line().as_deref(), Some("line 99999"));
    }

    #[test]
    fn a_chunk_larger_than_all_that_is_kept() {
        let mut tail = Tail::default();
        tail.push(b"before\n");
        tail.push(&[vec![b'x'; 10 * KEEP], b"\nend".to_vec()].concat());
        assert_eq!(tail.last_lines(20, true), (vec!["end".to_owned()], true));
    }

    #[test]
    fn short_output_is_all_there() {
        let mut tail = Tail::default();
        tail.push(b"one\n10%\r20%");
        assert_eq!(tail.last_lines(20, true), (vec!["one".to_owned(), "20%".to_owned()], false));
        assert_eq!(tail.last_line().as_deref(), Some("20%"));
        assert_eq!(Tail::default().last_line(), None);
    }

    #[test]
    fn a_line_without_end_still_shows_something() {
        let mut tail = Tail::default();
        tail.push(&vec![b'x'; 10 * KEEP]);
        assert!(tail.last_line().is_some_and(|line| line.starts_with("xxx")));
    }
}
