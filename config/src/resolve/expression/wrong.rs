//! What is wrong with an expression, where, and what its author may have meant: other languages have other operators.

use std::ops::Range;

use crate::syntax::{invisible, is_curly_quote};

/// Why a text is not an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub message: String,
    pub help: Option<String>,
    /// Bytes of the text.
    pub at: Range<usize>,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, at: Range<usize>) -> Self {
        Self { message: message.into(), help: None, at }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// Operators of other languages, the longer ones first, and what to write for them.
const SYMBOLS: [(&str, &str); 12] = [
    ("===", "`==`"),
    ("!==", "`!=`"),
    ("=~", "`matches` and a regular expression between slashes, as in `matches /rel-.*/`"),
    ("!~", "`not (… matches /…/)`"),
    ("<>", "`!=`"),
    ("&&", "`and`"),
    ("||", "`or`"),
    ("=", "`==`"),
    ("&", "`and`"),
    ("|", "`or`"),
    ("!", "`not`, and parentheses around what is negated"),
    ("`", "double quotes around a text"),
];

/// Words of other languages for operators.
const WORDS: [(&str, &str); 9] = [
    ("is", "`==`"),
    ("eq", "`==`"),
    ("equals", "`==`"),
    ("ne", "`!=`"),
    ("in", "`matches` and a regular expression with its members, as in `matches /main|develop/`"),
    ("contains", "`matches` and a regular expression, as in `matches /.*part.*/`"),
    ("includes", "`matches` and a regular expression, as in `matches /.*part.*/`"),
    ("match", "`matches`"),
    ("startswith", "`starts-with`"),
];

/// What no token begins with, at the start of `rest`, which is the text from `offset` on.
pub(super) fn unexpected(rest: &str, offset: usize) -> Wrong {
    if let Some(wrong) = foreign_symbol(rest, offset) {
        return wrong;
    }
    let first = rest.chars().next().unwrap_or(' ');
    let one = offset..offset + first.len_utf8();
    match first {
        '$' => variable(rest, offset),
        _ if is_curly_quote(first) => {
            Wrong::new(format!("unexpected `{first}`"), one).help("write straight quotes: `\"`")
        }
        '{' | '}' => {
            Wrong::new(format!("unexpected `{first}`"), one).help("a value stands by its name alone, without braces")
        }
        _ => match invisible(first) {
            Some(name) => Wrong::new(format!("unexpected {name}"), one).help("remove it, or write a blank"),
            None => Wrong::new(format!("unexpected `{first}`"), one),
        },
    }
}

/// An operator of another language that begins with what would be one of ours, or with nothing of ours.
pub(super) fn foreign_symbol(rest: &str, offset: usize) -> Option<Wrong> {
    let (symbol, ours) = SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol))?;
    let at = offset..offset + symbol.len();
    Some(Wrong::new(format!("there is no operator `{symbol}`"), at).help(format!("write {ours}")))
}

/// `$NAME` or `${NAME}`.
fn variable(rest: &str, offset: usize) -> Wrong {
    let inner = rest[1..].strip_prefix('{').unwrap_or(&rest[1..]);
    let name = inner.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or("");
    let end = rest.len() - inner.len() + name.len() + usize::from(inner[name.len()..].starts_with('}'));
    let at = offset..offset + end;
    Wrong::new(format!("`{}` is not a value here", &rest[..end]), at).help(instead_of_variable(name))
}

/// What an expression can ask instead of an environment variable.
pub(crate) fn instead_of_variable(name: &str) -> String {
    let value = match name {
        "CIRCLE_BRANCH" => "pipeline.git.branch",
        "CIRCLE_TAG" => "pipeline.git.tag",
        "CIRCLE_SHA1" => "pipeline.git.revision",
        _ => return "environment variables come with a job, later than this: declare a pipeline parameter".to_owned(),
    };
    format!("environment variables come with a job, later than this: write `{value}`")
}

/// A word where an operator should be.
pub(super) fn word(name: &str, at: Range<usize>) -> Option<Wrong> {
    let lower = name.to_ascii_lowercase();
    let ours = match lower.as_str() {
        "and" | "or" | "not" => Some(format!("`{lower}`")),
        "starts_with" => Some("`starts-with`".to_owned()),
        lower => WORDS.iter().find(|(word, _)| *word == lower).map(|(_, ours)| (*ours).to_owned()),
    };
    ours.map(|ours| Wrong::new(format!("there is no operator `{name}`"), at).help(format!("write {ours}")))
}

/// What to do about a name that stands for nothing, if its look tells.
pub(crate) fn instead_of_name(name: &str) -> String {
    match name {
        "always" | "on_success" | "on_fail" | "never" => format!(
            "`{name}` belongs to `when` of a step; a workflow without `when` always runs, and `when: false` never does"
        ),
        "y" | "yes" | "on" => "a boolean is `true` or `false`".to_owned(),
        "n" | "no" | "off" => "a boolean is `true` or `false`".to_owned(),
        _ if name.starts_with("CIRCLE_") => instead_of_variable(name),
        _ => format!("a text stands in quotes: `\"{name}\"`"),
    }
}
