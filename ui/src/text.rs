//! Text with colours in it, measured and cut by what a terminal shows.

use unicode_width::UnicodeWidthChar as _;

/// A piece of sanitized text: a colour sequence, or one character.
enum Piece<'a> {
    Color(&'a str),
    Character(char),
}

/// Splits sanitized text: every ESC in it starts `ESC [ … m`.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let character = rest.chars().next()?;
        let end = match character {
            '\u{1b}' => rest.find('m').map_or(rest.len(), |at| at + 1),
            other => other.len_utf8(),
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(if character == '\u{1b}' { Piece::Color(piece) } else { Piece::Character(character) })
    })
}

/// Columns that the text takes on a terminal. Colours take none.
pub fn width(text: &str) -> usize {
    pieces(text)
        .map(|piece| match piece {
            Piece::Color(_) => 0,
            Piece::Character(character) => columns(character),
        })
        .sum()
}

/// The text, or its start and `…`, in at most `limit` columns. Colours after the cut are kept: they may be resets.
pub fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit || width(text) <= limit {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len().min(4 * limit));
    let mut used = 0;
    let mut full = limit == 0;
    for piece in pieces(text) {
        match piece {
            Piece::Color(color) => shown.push_str(color),
            Piece::Character(_) if full => {}
            Piece::Character(character) if used + columns(character) < limit => {
                used += columns(character);
                shown.push(character);
            }
            Piece::Character(_) => {
                shown.push('…');
                full = true;
            }
        }
    }
    shown
}

/// The text, filled up with spaces on the right.
pub fn pad(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}

/// The text, filled up with spaces on the left.
pub fn pad_left(text: &str, to: usize) -> String {
    format!("{}{text}", " ".repeat(to.saturating_sub(width(text))))
}

/// Breaks text between words so that lines fit, the first starting with `first`, the others with as many spaces.
/// A word that is too long for any line (a path) stays whole, so that it can be copied.
pub fn wrap(text: &str, first: &str, limit: Option<usize>) -> Vec<String> {
    let indent = " ".repeat(width(first));
    let room = limit.map_or(usize::MAX, |limit| limit.saturating_sub(indent.len()).max(1));
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut() {
            if line.is_empty() {
                line.push_str(word);
                continue;
            }
            if width(line) + 1 + width(word) <= room {
                line.push(' ');
                line.push_str(word);
                continue;
            }
        }
        lines.push(word.to_owned());
    }
    let starts = std::iter::once(first).chain(std::iter::repeat(indent.as_str()));
    starts.zip(&lines).map(|(start, line)| format!("{start}{line}")).collect()
}

fn columns(character: char) -> usize {
    match character {
        // Only in text that the terminal itself lays out; one column is the least it takes.
        '\t' => 1,
        other => other.width().unwrap_or(0),
    }
}

/// Names joined for a sentence, cut to a few: `a, b, c and 4 more`.
pub fn list(names: &[String], most: usize) -> String {
    match names.get(..most) {
        Some(shown) if names.len() > most + 1 => format!("{} and {} more", shown.join(", "), names.len() - most),
        _ => names.join(", "),
    }
}

/// `1 job`, `2 jobs`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn width_is_what_a_terminal_shows() {
        assert_eq!([width("abc"), width("日本"), width("\x1b[31mred\x1b[0m"), width("e\u{301}")], [3, 4, 3, 1]);
    }

    #[test]
    fn a_cut_never_exceeds_its_limit_and_keeps_resets() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("\x1b[31mabcdef\x1b[0m", 3), "\x1b[31mab…\x1b[0m");
        assert_eq!(cut("abc", 0), "");
        for limit in 0..8 {
            assert!(width(&cut("a日b本c語", limit)) <= limit);
        }
    }

    #[test]
    fn wrapped_lines_fit_and_long_words_stay_whole() {
        assert_eq!(wrap("one two three", "- ", Some(9)), ["- one two", "  three"]);
        assert_eq!(wrap("see /a/very/long/path now", "  ", Some(8)), ["  see", "  /a/very/long/path", "  now"]);
        assert_eq!(wrap("one two", "", None), ["one two"]);
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(list(&names, 2), "a, b and 2 more");
        assert_eq!(list(&names, 3), "a, b, c, d");
    }
}
