//! Warnings about a plain scalar that YAML reads as something else than what stands there.

use std::fmt::Display;

use super::node::{Node, Scalar};
use super::scalar::{Literal, canonical, is_date};
use crate::diagnostic::{Diagnostic, Span};

/// Is its value written otherwise than it is: `on`, `010`, `3.10`?
pub(crate) fn is_read_otherwise(scalar: &Scalar) -> bool {
    scalar.plain && canonical(&scalar.text) != *scalar.text
}

/// `what` has the value that YAML makes of it. `None`: that is what was written.
pub(crate) fn becomes(what: impl Display, node: &Node) -> Option<Diagnostic> {
    let scalar = node.as_scalar().filter(|scalar| is_read_otherwise(scalar))?;
    let (written, shown) = (&scalar.text, scalar.shown());
    let help = format!("write `{shown}` if you mean it; a text is quoted: `\"{written}\"`");
    Some(told(what, scalar, &shown, node.span).help(help))
}

/// `what` is a text and becomes `text`, because that is what YAML makes of it.
pub(crate) fn rewritten(what: impl Display, scalar: &Scalar, text: &str, span: Span) -> Diagnostic {
    told(what, scalar, text, span).help(format!("quote it to keep it: `\"{}\"`", scalar.text))
}

fn told(what: impl Display, scalar: &Scalar, text: &str, span: Span) -> Diagnostic {
    let (written, read) = (&scalar.text, read_as(scalar));
    let message = format!("{what} becomes `{text}`, because YAML reads `{written}` as {read}");
    Diagnostic::warning(code(scalar), span, message)
}

/// Where a text is wanted it stays as written here; the original never sees what was written.
pub(crate) fn stays(what: impl Display, node: &Node) -> Option<Diagnostic> {
    let scalar = node.as_scalar().filter(|scalar| scalar.plain)?;
    let date = is_date(&scalar.text);
    if !date && !is_read_otherwise(scalar) {
        return None;
    }
    let (written, read) = (&scalar.text, if date { "a date" } else { read_as(scalar) });
    let value = if date { String::new() } else { format!(", `{}`", scalar.shown()) };
    let message = format!("{what} stays `{written}` here, but CircleCI reads it as {read}{value}");
    Some(Diagnostic::warning(code(scalar), node.span, message).help(format!("quote it: `\"{written}\"`")))
}

fn read_as(scalar: &Scalar) -> &'static str {
    match scalar.literal() {
        Literal::Int(_) | Literal::Large(_) => "a number",
        other => other.describe(),
    }
}

fn code(scalar: &Scalar) -> &'static str {
    match scalar.literal() {
        Literal::Bool(_) => "word-rewritten",
        Literal::Text(_) => "date-unquoted",
        _ => "number-rewritten",
    }
}
