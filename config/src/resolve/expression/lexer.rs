//! Text of an expression to tokens.

use std::borrow::Cow;
use std::ops::Range;

use super::wrong::{Wrong, foreign_symbol, unexpected};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'t> {
    Open,
    Close,
    Operator(Operator),
    And,
    Or,
    Not,
    Name(&'t str),
    Text(Cow<'t, str>),
    Regex(&'t str),
    Int(i64),
    Float(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    StartsWith,
    Matches,
}

const SYMBOLS: [(&str, Token<'static>); 8] = [
    ("==", Token::Operator(Operator::Equal)),
    ("!=", Token::Operator(Operator::Unequal)),
    ("<=", Token::Operator(Operator::LessOrEqual)),
    (">=", Token::Operator(Operator::GreaterOrEqual)),
    ("<", Token::Operator(Operator::Less)),
    (">", Token::Operator(Operator::Greater)),
    ("(", Token::Open),
    (")", Token::Close),
];

/// A token and its bytes in the text.
pub(super) type Placed<'t> = (Token<'t>, Range<usize>);

/// Tokens, or what could not be read as one.
pub(super) fn tokens(text: &str) -> Result<Vec<Placed<'_>>, Wrong> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let offset = text.len() - rest.len();
        let (token, length) = next(rest, offset)?;
        tokens.push((token, offset..offset + length));
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn next(rest: &str, offset: usize) -> Result<(Token<'_>, usize), Wrong> {
    if rest.starts_with("===") || rest.starts_with("!==") || rest.starts_with("<>") {
        return Err(foreign_symbol(rest, offset).unwrap_or_else(|| unexpected(rest, offset)));
    }
    if let Some((symbol, token)) = SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
        return Ok((token.clone(), symbol.len()));
    }
    match rest.as_bytes().first() {
        Some(quote @ (b'"' | b'\'')) => text(rest, offset, char::from(*quote)),
        Some(b'/') => regex(rest, offset),
        Some(b'0'..=b'9' | b'-' | b'+' | b'.') => number(rest, offset),
        Some(b'A'..=b'Z' | b'a'..=b'z' | b'_') => Ok(word(rest)),
        _ => Err(unexpected(rest, offset)),
    }
}

fn text(rest: &str, offset: usize, quote: char) -> Result<(Token<'_>, usize), Wrong> {
    let open = || Wrong::new("a string is not closed", offset..offset + rest.len()).help(format!("add a `{quote}`"));
    let end = closing(&rest[1..], quote).ok_or_else(open)?;
    let inner = &rest[1..1 + end];
    let inner = if inner.contains('\\') { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) };
    Ok((Token::Text(inner), end + 2))
}

fn regex(rest: &str, offset: usize) -> Result<(Token<'_>, usize), Wrong> {
    let open = || {
        let wrong = Wrong::new("a regular expression is not closed", offset..offset + rest.len());
        wrong.help("add a `/`; a text that holds a `/` stands in quotes, as in `\"release/1.0\"`")
    };
    let end = closing(&rest[1..], '/').ok_or_else(open)?;
    Ok((Token::Regex(&rest[1..1 + end]), end + 2))
}

/// Offset of the first `quote` that no backslash escapes.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(offset, c)| {
        let closes = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        closes.then_some(offset)
    })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        out.push(if c == '\\' { characters.next().unwrap_or('\\') } else { c });
    }
    out
}

fn number(rest: &str, offset: usize) -> Result<(Token<'_>, usize), Wrong> {
    let length = rest[1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '.').map_or(rest.len(), |end| end + 1);
    let digits = &rest[..length];
    let token = digits.parse().map(Token::Int).or_else(|_| digits.parse().map(Token::Float));
    token.map(|token| (token, length)).map_err(|_| {
        let wrong = Wrong::new(format!("`{digits}` is not a number"), offset..offset + length);
        wrong.help(format!("a text stands in quotes: `\"{digits}\"`"))
    })
}

fn word(rest: &str) -> (Token<'_>, usize) {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let length = rest.find(|c| !part(c)).unwrap_or(rest.len());
    let token = match &rest[..length] {
        "and" => Token::And,
        "or" => Token::Or,
        "not" => Token::Not,
        "starts-with" => Token::Operator(Operator::StartsWith),
        "matches" => Token::Operator(Operator::Matches),
        name => Token::Name(name),
    };
    (token, length)
}
