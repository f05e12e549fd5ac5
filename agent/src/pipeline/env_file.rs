//! Files of variables: contexts and `--env-file`, read as docker compose and dotenv read theirs (`docs/secrets.md`).
//!
//! ```text
//! # a comment
//! export NAME=value of one line # a comment
//! LITERAL='no escapes, several lines'
//! ESCAPED="\n, \r, \t, \", \\ and \$, several lines"
//! ```
//!
//! Nothing is replaced by other variables' values: a password may hold a `$`. No error shows a piece of a value.

use std::io;
use std::path::{Path, PathBuf};

use navvy_job::compiled::Variables;
use navvy_plain_file as plain_file;

use crate::settings::env_table::is_name;

/// No file of variables is longer.
const LONGEST: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}:{line}: {what}", path.display())]
    Syntax { path: PathBuf, line: usize, what: Mistake },
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    #[error("expected NAME=VALUE")]
    NoAssignment,
    /// The name is not shown: it may be a piece of a value, such as a line of a key.
    #[error("the text before `=` is not a variable name; use letters, digits and _")]
    Name,
    #[error(
        "the quote {0} that opens here is not closed; put a value that begins with a quote in quotes of the other kind"
    )]
    Open(char),
    #[error(
        "there is text after the quote that closes the value of line {opened}; write a quote within it as \\{quote}"
    )]
    Behind { quote: char, opened: usize },
    #[error("this value continues on the next line; put a value of several lines in quotes")]
    SeveralLines,
    #[error("the value holds a NUL, which no variable can")]
    Nul,
}

/// Reads a file of variables.
pub fn read(path: &Path) -> Result<Variables, EnvFileError> {
    let text =
        plain_file::given_text(path, LONGEST).map_err(|source| EnvFileError::Read { path: path.to_owned(), source })?;
    understand(path, &text)
}

/// The variables in the text of a file.
pub fn understand(path: &Path, text: &str) -> Result<Variables, EnvFileError> {
    parse(text).map_err(|(line, what)| EnvFileError::Syntax { path: path.to_owned(), line, what })
}

/// A mistake, and its line from 1.
type Wrong = (usize, Mistake);

fn parse(text: &str) -> Result<Variables, Wrong> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut variables = Vec::new();
    let (mut rest, mut line) = (text.as_str(), 1);
    while !rest.is_empty() {
        let (variable, after) = assignment(rest, line)?;
        line += rest[..rest.len() - after.len()].matches('\n').count();
        rest = after;
        variables.extend(variable);
    }
    Ok(variables)
}

/// A variable, if there is one, and what comes after it.
type Assigned<'a> = (Option<(String, String)>, &'a str);

/// What the first line assigns, with the lines that belong to its value.
fn assignment(text: &str, line: usize) -> Result<Assigned<'_>, Wrong> {
    let (first, after) = text.split_once('\n').unwrap_or((text, ""));
    if first.trim().is_empty() || first.trim_start().starts_with('#') {
        return Ok((None, after));
    }
    let (name, raw) = first.split_once('=').ok_or((line, Mistake::NoAssignment))?;
    let name = without_export(name.trim());
    if !is_name(name) {
        return Err((line, Mistake::Name));
    }
    let (value, after) = match raw.trim_start().chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let opening = first.len() - raw.trim_start().len();
            quoted(&text[opening + 1..], quote, line)?
        }
        _ => (unquoted(raw, line)?, after),
    };
    if value.contains('\0') {
        return Err((line, Mistake::Nul));
    }
    Ok((Some((name.to_owned(), value)), after))
}

fn without_export(name: &str) -> &str {
    match name.strip_prefix("export") {
        Some(rest) if rest.starts_with(char::is_whitespace) => rest.trim_start(),
        _ => name,
    }
}

/// To the end of the line, or to a `#` behind a blank.
fn unquoted(raw: &str, line: usize) -> Result<String, Wrong> {
    let mut before = '=';
    let comment = raw.char_indices().find(|(_, character)| {
        let begins = *character == '#' && before.is_whitespace();
        before = *character;
        begins
    });
    let value = comment.map_or(raw, |(at, _)| &raw[..at]).trim();
    // Of a key without quotes each further line would be taken for a variable, or for a mistake.
    match value.starts_with("-----BEGIN ") && !value.contains("-----END ") {
        true => Err((line, Mistake::SeveralLines)),
        false => Ok(value.to_owned()),
    }
}

/// The value up to its closing quote, and what comes after that quote's line. `text` begins behind the opening quote.
fn quoted(text: &str, quote: char, opened: usize) -> Result<(String, &str), Wrong> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        if character == quote {
            let (behind, after) = text[at + 1..].split_once('\n').unwrap_or((&text[at + 1..], ""));
            let closed = opened + text[..at].matches('\n').count();
            return match is_nothing(behind) {
                true => Ok((value, after)),
                false => Err((closed, Mistake::Behind { quote, opened })),
            };
        }
        let escaped = (character == '\\').then(|| escape(&text[at + 1..], quote)).flatten();
        if escaped.is_some() {
            characters.next();
        }
        value.push(escaped.unwrap_or(character));
    }
    Err((opened, Mistake::Open(quote)))
}

/// Blanks, and a comment behind one.
fn is_nothing(behind: &str) -> bool {
    let text = behind.trim_start();
    text.is_empty() || (text.starts_with('#') && text.len() < behind.len())
}

/// What a backslash and the first character of `rest` stand for together. `None`: each for itself.
fn escape(rest: &str, quote: char) -> Option<char> {
    match (quote, rest.chars().next()?) {
        // All is literal but a quote within. One that ends its line closes the value: 'C:\directory\'
        ('\'', '\'') => (!is_nothing(rest[1..].split('\n').next().unwrap_or_default())).then_some('\''),
        ('\'', _) => None,
        (_, 'n') => Some('\n'),
        (_, 'r') => Some('\r'),
        (_, 't') => Some('\t'),
        (_, other @ ('"' | '\\' | '$')) => Some(other),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<String> {
        parse(text).unwrap_or_else(|wrong| panic!("{wrong:?}: {text}")).into_iter().map(|(_, value)| value).collect()
    }

    #[track_caller]
    fn wrong(text: &str, line: usize, what: Mistake) {
        assert_eq!(parse(text), Err((line, what)), "{text:?}");
    }

    #[test]
    fn files_of_variables_are_read_as_people_write_them() {
        let text = "\u{feff}# comment\r\n\nA=1\r\nexport B='two words'\n  C=\"line\\nbreak \\\"q\\\"\"\n\
            D=a=b#no # a comment\nE=\nF= # nothing\nexport\tG = it's \"so\" \nexport=h\nI=\"\"\nJ=#i\n";
        let expected = ["1", "two words", "line\nbreak \"q\"", "a=b#no", "", "", "it's \"so\"", "h", "", "#i"];
        assert_eq!(values(text), expected);
        assert_eq!(parse("export\tG = x").unwrap(), [("G".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn quoted_values_may_have_several_lines() {
        let key = "-----BEGIN KEY-----\nMIIE+/==\n\n  # no comment\nEND=1\n-----END KEY-----\n";
        for quote in ['"', '\''] {
            let text = format!("A=1\nKEY={quote}{key}{quote}  # a comment\nB=2");
            assert_eq!(values(&text), ["1", key, "2"]);
            assert_eq!(values(&text.replace('\n', "\r\n")), ["1", key, "2"]);
        }
    }

    #[test]
    fn single_quotes_are_literal_and_double_ones_have_escapes() {
        assert_eq!(values(r#"A="a\nb\rc\td\"e\\f\$g\h$I${J}'""#), ["a\nb\rc\td\"e\\f$g\\h$I${J}'"]);
        assert_eq!(values(r#"A='a\nb\\c"d$E'"#), [r#"a\nb\\c"d$E"#]);
        assert_eq!(values(r"A='Let\'s go'"), ["Let's go"]);
        assert_eq!(values("A='C:\\directory\\'\nB='x'"), ["C:\\directory\\", "x"]);
        assert_eq!(values("A=\"ends with \\\\\"\nB=1"), ["ends with \\", "1"]);
        assert_eq!(values("A=\"ü\\n日\""), ["ü\n日"]);
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        wrong("A=1\nhunter2\n", 2, Mistake::NoAssignment);
        wrong("1A=x", 1, Mistake::Name);
        wrong("A='x\ny'\n\nB-C=1", 4, Mistake::Name);
        wrong("A=1\nB=\"x\nC=1\n", 2, Mistake::Open('"'));
        wrong("B='x\ny\"\n", 1, Mistake::Open('\''));
        wrong("A=\"x\nB=\"y\"", 2, Mistake::Behind { quote: '"', opened: 1 });
        wrong("A=\"x\"y", 1, Mistake::Behind { quote: '"', opened: 1 });
        wrong("A='x'#y", 1, Mistake::Behind { quote: '\'', opened: 1 });
        wrong("A=1\nKEY=-----BEGIN KEY-----\nabcd=\n-----END KEY-----", 2, Mistake::SeveralLines);
        wrong("A=x\0y", 1, Mistake::Nul);
    }

    #[test]
    fn no_mistake_shows_a_piece_of_a_value() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.env");
        for text in ["hunter2", "hunter-2=x", "A=\"hunter2", "A='x'hunter2", "A=-----BEGIN hunter2"] {
            std::fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("x.env:1: ") && !error.contains("hunter"), "{error}");
        }
    }
}
