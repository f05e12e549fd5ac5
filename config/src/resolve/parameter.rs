//! Declarations of parameters, and whether a value is of their type.

use std::sync::Arc;

use super::context::Context;
use super::template;
use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::keys;
use crate::keys::tables::{self, PARAMETER_TYPES, PLAIN_TYPES};
use crate::neighbour::nearest;
use crate::syntax::{Entry, Literal, Map, Node, Scalar, becomes, boolean, is_read_otherwise};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    String,
    Boolean,
    Integer,
    Enum,
    Executor,
    Steps,
    EnvVarName,
}

/// In the order of [`PARAMETER_TYPES`].
const KINDS: [Kind; 7] =
    [Kind::String, Kind::Boolean, Kind::Integer, Kind::Enum, Kind::Executor, Kind::Steps, Kind::EnvVarName];

/// What owns the parameters at the top of a config.
pub(crate) const PIPELINE: &str = "the pipeline";

/// Types by their name in a config.
fn kinds() -> impl Iterator<Item = (&'static str, Kind)> {
    PARAMETER_TYPES.into_iter().zip(KINDS)
}

/// What a job, command, executor or the pipeline says of one parameter.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub name: Arc<str>,
    pub span: Span,
    pub kind: Kind,
    pub default: Option<Node>,
    /// The members of an `enum`.
    pub members: Vec<Scalar>,
}

impl Kind {
    fn name(self) -> &'static str {
        kinds().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// Executors and the pipeline take values only.
    fn is_plain(self) -> bool {
        PLAIN_TYPES.contains(&self.name())
    }
}

/// Reads the `parameters:` of a definition. `owner` is "command `x`"; `plain` forbids steps and executors.
pub(crate) fn declarations(context: &Context<'_>, body: &Map, owner: &str, plain: bool) -> Vec<Parameter> {
    let Some(node) = body.get("parameters").filter(|node| !node.is_null()) else { return Vec::new() };
    let Some(map) = node.as_map() else {
        let message = format!("`parameters` of {owner} must be a map, but this is {}", node.describe());
        context.report(Diagnostic::error("wrong-shape", node.span, message));
        return Vec::new();
    };
    map.entries.iter().filter_map(|entry| declaration(context, entry, owner, plain)).collect()
}

fn declaration(context: &Context<'_>, entry: &Entry, owner: &str, plain: bool) -> Option<Parameter> {
    let name = &entry.key;
    check_name(context, entry, owner);
    let Some(map) = entry.value.as_map() else {
        let message = format!("parameter `{name}` of {owner} must be a map with a `type`");
        context.report(Diagnostic::error("wrong-shape", entry.key_span, message));
        return None;
    };
    keys::check(context, map, &tables::PARAMETER, "a parameter");
    let kind = kind(context, entry, map)?;
    if plain && !kind.is_plain() {
        let message = format!("parameter `{name}` of {owner} cannot be of type `{}`", kind.name());
        let help = "string, boolean, integer and enum can stand here";
        context.report(Diagnostic::error("parameter-type", entry.key_span, message).help(help));
        return None;
    }
    let members = if kind == Kind::Enum { members(context, entry, map) } else { Vec::new() };
    // A default without a value does not count.
    let default = map.get("default").filter(|node| !node.is_null()).cloned();
    let parameter = Parameter { name: name.clone(), span: entry.key_span, kind, default, members };
    parameter.check_default(context);
    Some(parameter)
}

/// The pipeline's parameters may have other names: they are replaced as plain text, but stand in no expression.
fn check_name(context: &Context<'_>, entry: &Entry, owner: &str) {
    let starts = entry.key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let goes_on = entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !starts || !goes_on {
        let message = format!("`{}` is not a name that a parameter can have", entry.key);
        let help = "a letter, then letters, digits, `_` and `-`";
        let diagnostic = Diagnostic::error("parameter-name", entry.key_span, message).help(help);
        let severity = if owner == PIPELINE { Severity::Warning } else { Severity::Error };
        context.report(Diagnostic { severity, ..diagnostic });
    }
}

fn kind(context: &Context<'_>, entry: &Entry, map: &Map) -> Option<Kind> {
    let Some(text) = map.get("type").and_then(Node::as_text) else {
        let message = format!("parameter `{}` has no `type`", entry.key);
        context.report(Diagnostic::error("parameter-type", entry.key_span, message));
        return None;
    };
    let found = kinds().find(|(name, _)| *name == &**text).map(|(_, kind)| kind);
    if found.is_none() {
        let span = map.get("type").map_or(entry.key_span, |node| node.span);
        let message = format!("there is no parameter type `{text}`");
        let neighbour = nearest(text, PARAMETER_TYPES);
        context.report(Diagnostic::error("parameter-type", span, message).meant(neighbour));
    }
    found
}

fn members(context: &Context<'_>, entry: &Entry, map: &Map) -> Vec<Scalar> {
    let items = map.get("enum").and_then(Node::as_list).unwrap_or_default();
    if items.is_empty() {
        let message = format!("parameter `{}` is an enum without a list of its values in `enum`", entry.key);
        context.report(Diagnostic::error("parameter-type", entry.key_span, message));
    }
    let what = format!("a value of enum `{}`", entry.key);
    items.iter().filter_map(|item| becomes(&what, item)).for_each(|told| context.report(told));
    items.iter().filter_map(Node::as_scalar).cloned().collect()
}

impl Parameter {
    /// The value in its type's own form, or what was expected instead.
    pub fn check(&self, value: &Node) -> Result<Node, String> {
        let fits = match self.kind {
            Kind::String => is_text(value),
            Kind::Boolean => return truth(value).ok_or_else(|| self.mismatch(value)),
            Kind::Integer => return integer(value).ok_or_else(|| self.mismatch(value)),
            Kind::Enum => return self.member(value),
            Kind::EnvVarName => is_text(value) && value.as_text().is_some_and(|text| is_variable_name(text)),
            Kind::Executor => value.as_text().is_some() || value.as_map().is_some(),
            Kind::Steps => value.as_list().is_some(),
        };
        if fits { Ok(value.clone()) } else { Err(self.mismatch(value)) }
    }

    /// A default must fit also where every use gives another value. What holds a template is known only there.
    fn check_default(&self, context: &Context<'_>) {
        let Some(default) = self.default.as_ref().filter(|default| !holds_template(default)) else { return };
        match self.check(default) {
            Ok(_) => self.told_otherwise(default).into_iter().for_each(|told| context.report(told)),
            Err(message) => {
                let diagnostic = Diagnostic::error("type-mismatch", default.span, message);
                context.report(Diagnostic { help: self.advice(default), ..diagnostic });
            }
        }
    }

    /// What there is to say of a value that fits, if YAML makes something else of it than what stands there. A word for
    /// a boolean is what its author meant.
    pub fn told_otherwise(&self, value: &Node) -> Option<Diagnostic> {
        let counts = matches!(self.kind, Kind::Integer | Kind::Enum);
        counts.then(|| becomes(format_args!("parameter `{}`", self.name), value)).flatten()
    }

    /// Converts what was given on a command line.
    pub fn convert(&self, text: &str, span: Span) -> Result<Node, String> {
        match self.kind {
            // `-p number=010` is not meant as 8.
            Kind::Integer => match text.parse::<i64>() {
                Ok(number) => Ok(Node::plain(span, number.to_string())),
                // `0x1F` and `1_000` are numbers in a config alone.
                Err(_) => self.check(&Node::plain(span, text)).and(Err(self.mismatch(&Node::text(span, text)))),
            },
            Kind::Boolean => self.check(&Node::plain(span, text)),
            Kind::Enum if self.members.iter().any(|member| member.plain && *member.text == *text) => {
                self.check(&Node::plain(span, text))
            }
            _ => self.check(&Node::text(span, text)),
        }
    }

    /// What to do about a value that does not fit.
    pub fn advice(&self, value: &Node) -> Option<String> {
        let scalar = value.as_scalar();
        let quote =
            scalar.filter(|scalar| scalar.plain && !matches!(scalar.literal(), Literal::Null | Literal::Text(_)));
        match (self.kind, quote) {
            (Kind::String | Kind::EnvVarName | Kind::Enum, Some(scalar)) => {
                Some(format!("quote it: `\"{}\"`", scalar.text))
            }
            (Kind::EnvVarName, None) => Some("letters, digits and `_`, and no digit first".to_owned()),
            (Kind::Boolean, None) if scalar.is_some_and(|scalar| is_letter(&scalar.text)) => {
                Some("`y` and `n` are texts: write `true` or `false`".to_owned())
            }
            _ => None,
        }
    }

    fn member(&self, value: &Node) -> Result<Node, String> {
        let Some(scalar) = value.as_scalar() else { return Err(self.mismatch(value)) };
        let same = |member: &&Scalar| member.shown() == scalar.shown();
        // Without members the declaration is what is wrong.
        let Some(member) = self.members.iter().find(same).or(self.members.is_empty().then_some(scalar)) else {
            let members: Vec<String> = self.members.iter().map(|member| format!("`{}`", member.shown())).collect();
            let (written, name, members) = (&scalar.text, &self.name, members.join(", "));
            return Err(match is_read_otherwise(scalar) {
                true => format!(
                    "YAML reads `{written}` as {}, which is not a value of enum `{name}`: {members}",
                    value.describe()
                ),
                false => format!("`{written}` is not a value of enum `{name}`: {members}"),
            });
        };
        match member.literal() {
            // A boolean stays one, which conditions compare with booleans; all else is a text.
            Literal::Bool(_) => Ok(Node::plain(value.span, member.shown())),
            _ => Ok(Node::text(value.span, member.shown())),
        }
    }

    fn mismatch(&self, value: &Node) -> String {
        if let (Kind::EnvVarName, true, Some(text)) = (self.kind, is_text(value), value.as_text()) {
            return format!(
                "parameter `{}` must be the name of an environment variable, which `{text}` is not",
                self.name
            );
        }
        let expected = match self.kind {
            Kind::EnvVarName => "the name of an environment variable",
            Kind::Steps => "a list of steps",
            Kind::Executor => "an executor",
            Kind::Boolean => "a boolean",
            Kind::Integer => "an integer",
            Kind::String | Kind::Enum => "a string",
        };
        match value.as_scalar().filter(|scalar| is_read_otherwise(scalar)) {
            Some(scalar) => {
                let (written, read) = (&scalar.text, value.describe());
                format!("parameter `{}` must be {expected}, but YAML reads `{written}` as {read}", self.name)
            }
            None => format!("parameter `{}` must be {expected}, but this is {}", self.name, value.describe()),
        }
    }
}

fn holds_template(value: &Node) -> bool {
    value.as_scalar().is_some_and(|scalar| !template::is_literal(&scalar.text)) || value.is_broken()
}

fn is_text(value: &Node) -> bool {
    value.as_scalar().is_some_and(|scalar| matches!(scalar.literal(), Literal::Text(_)))
}

/// In its decimal form.
fn integer(value: &Node) -> Option<Node> {
    let scalar = value.as_scalar().filter(|scalar| matches!(scalar.literal(), Literal::Int(_)))?;
    Some(if is_read_otherwise(scalar) { Node::plain(value.span, scalar.shown()) } else { value.clone() })
}

/// What YAML 1.1 lists as a boolean and its readers do not take for one.
pub(crate) fn is_letter(text: &str) -> bool {
    matches!(text, "y" | "Y" | "n" | "N")
}

fn truth(value: &Node) -> Option<Node> {
    let scalar = value.as_scalar().filter(|scalar| scalar.plain)?;
    boolean(&scalar.text).map(|truth| Node::plain(value.span, if truth { "true" } else { "false" }))
}

/// A name as POSIX allows it.
pub(crate) fn is_variable_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
