//! `<< … >>` in a tree replaced by values.
//!
//! A text that is one tag alone becomes the value itself, with its type; a tag inside of more text becomes text.

use std::ops::Range;

use super::expression::{self, Expression, Fault, World, Wrong};
use super::scope::{Scope, Site};
use super::template::{self, Problem, Segment};
use super::value::Value;
use crate::diagnostic::{Diagnostic, Span};
use crate::syntax::{Content, Entry, Map, Node, Scalar};

/// How a value that is null shows in a text: empty, but in `environment` as the language has it.
const NULL_IN_ENVIRONMENT: &str = "<nil>";

/// Where an expression stands.
struct Place<'p, 'a> {
    scope: &'p Scope<'a>,
    at: Site<'p>,
    /// Text of the expression.
    text: &'p str,
}

impl World for Place<'_, '_> {
    fn value(&self, name: &str, at: &Range<usize>) -> Result<Value, Fault> {
        self.scope.value(name, self.at.part(self.text, at))
    }

    fn full_match(&self, pattern: &str, text: &str) -> Result<bool, String> {
        self.scope.context.full_match(pattern, text, self.at.span)
    }
}

impl Scope<'_> {
    /// `node` without templates. Where one is wrong it is reported, and the node is broken.
    pub fn substitute(&self, node: &Node) -> Node {
        if self.context.templates { self.tree(node, false).unwrap_or_else(|| node.clone()) } else { node.clone() }
    }

    /// The same for a node that is known to be the value of `environment`.
    pub fn substitute_entry(&self, entry: &Entry) -> Entry {
        let environment = &*entry.key == "environment";
        let value = if self.context.templates { self.tree(&entry.value, environment) } else { None };
        Entry { value: value.unwrap_or_else(|| entry.value.clone()), ..entry.clone() }
    }

    /// `None`: nothing to replace in there, so that the tree can be shared.
    fn tree(&self, node: &Node, environment: bool) -> Option<Node> {
        if !self.context.look(node.span) {
            return Some(Node::broken(node.span));
        }
        match &node.content {
            Content::Scalar(scalar) if !self.context.scan(&scalar.text, node.span) => Some(Node::broken(node.span)),
            Content::Scalar(scalar) if template::is_literal(&scalar.text) => None,
            Content::Scalar(scalar) => Some(self.scalar(scalar, node.span, environment)),
            Content::List(items) => self.list(items, environment).map(|items| Node::list(node.span, items)),
            Content::Map(map) => self.map(map, environment).map(|entries| Node::map(node.span, entries)),
            Content::Broken => None,
        }
    }

    fn list(&self, items: &[Node], environment: bool) -> Option<Vec<Node>> {
        replaced(items, |item| self.tree(item, environment))
    }

    fn map(&self, map: &Map, environment: bool) -> Option<Vec<Entry>> {
        let inside = |entry: &Entry| environment || &*entry.key == "environment";
        replaced(&map.entries, |entry| {
            let value = self.tree(&entry.value, inside(entry))?;
            Some(Entry { value, ..entry.clone() })
        })
    }

    fn scalar(&self, scalar: &Scalar, span: Span, environment: bool) -> Node {
        if let Some(content) = template::whole(&scalar.text) {
            return self.whole(content, &scalar.text, span, environment);
        }
        let segments = match template::parse(&scalar.text) {
            Ok(segments) => segments,
            Err(problem) => {
                self.template_problem(&problem, span);
                return Node::broken(span);
            }
        };
        let mut text = String::new();
        match self.render(&segments, span, environment, &mut text) {
            Ok(()) if self.context.spend(text.len(), span) => Node::text(span, text),
            _ => Node::broken(span),
        }
    }

    /// A tag alone: the value keeps its type, and stands where the tag stood.
    fn whole(&self, content: &str, raw: &str, span: Span, environment: bool) -> Node {
        match self.tag(content, raw, span) {
            Ok(value) if value.is_null() && environment => Node::text(span, NULL_IN_ENVIRONMENT),
            Ok(value) if value.as_scalar().is_some() => Node { span, ..value },
            Ok(value) => value,
            Err(_) => Node::broken(span),
        }
    }

    fn render(&self, segments: &[Segment<'_>], span: Span, environment: bool, out: &mut String) -> Result<(), Fault> {
        for segment in segments {
            match segment {
                Segment::Literal(text) => out.push_str(text),
                Segment::Tag { content, raw } => {
                    let value = self.tag(content, raw, span)?;
                    self.embed(&value, raw, span, environment, out)?;
                }
                Segment::Section { name, raw, inverted, inner } => {
                    let shown = self.reference_value(name, raw, span)?.is_truthy() != *inverted;
                    if shown {
                        self.render(inner, span, environment, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn embed(&self, value: &Node, raw: &str, span: Span, environment: bool, out: &mut String) -> Result<(), Fault> {
        match value.as_scalar() {
            Some(_) if value.is_null() && environment => out.push_str(NULL_IN_ENVIRONMENT),
            Some(_) if value.is_null() => {}
            Some(scalar) => out.push_str(&scalar.shown()),
            None if value.is_broken() => return Err(Fault::Reported),
            None => {
                let message = format!("this stands for {}, which cannot be part of a text", value.describe());
                self.report(Diagnostic::error("not-a-text", self.context.narrow(span, raw), message));
                return Err(Fault::Reported);
            }
        }
        Ok(())
    }

    /// The value of what stands between `<<` and `>>`.
    fn tag(&self, content: &str, raw: &str, span: Span) -> Result<Node, Fault> {
        let at = Site::new(span, raw);
        if is_reference(content) || self.is_pipeline_parameter(content) {
            return self.lookup(content, at);
        }
        let expression = self.parse(content, at)?;
        self.evaluate(&expression, content, at).map(|value| node(&value, span))
    }

    fn reference_value(&self, name: &str, raw: &str, span: Span) -> Result<Value, Fault> {
        self.value(name, Site::new(span, raw))
    }

    /// Reads what is not a name alone.
    pub fn parse(&self, content: &str, at: Site<'_>) -> Result<Expression, Fault> {
        expression::parse(content).map_err(|wrong| {
            let shown = at.raw.lines().next().unwrap_or(at.raw);
            let Wrong { message, help, at: part } = wrong;
            let message = format!("cannot read `{shown}`: {message}");
            let heredoc = "text that holds `<<` itself, such as a heredoc, must be written `\\<<`";
            // A heredoc in a script holds anything, but hardly a value of the pipeline.
            let meant = ["pipeline.", "parameters.", "matrix."].iter().any(|scope| content.contains(scope));
            let (span, help) = match help.filter(|_| meant) {
                Some(help) => (self.exact(at.part(content, &part)), help),
                None => (self.exact(at), heredoc.to_owned()),
            };
            self.report(Diagnostic::error("invalid-expression", span, message).help(help));
            Fault::Reported
        })
    }

    /// The value of an expression, whose text is `text`; what is wrong with it is reported.
    pub fn evaluate(&self, expression: &Expression, text: &str, at: Site<'_>) -> Result<Value, Fault> {
        let value = expression::evaluate(expression, &Place { scope: self, at, text });
        value.map_err(|fault| {
            if let Fault::Wrong(message) = fault {
                self.report(Diagnostic::error("invalid-expression", self.exact(at), message));
            }
            Fault::Reported
        })
    }

    pub fn template_problem(&self, problem: &Problem<'_>, span: Span) {
        let (code, needle, message, help) = match problem {
            Problem::Unclosed { rest } => (
                "unclosed-template",
                *rest,
                "unclosed `<<` tag".to_owned(),
                "close it with `>>`, or write `\\<<` for the plain text `<<`",
            ),
            Problem::SectionUnclosed { name, raw } => (
                "unclosed-section",
                *raw,
                format!("section `{name}` is not closed"),
                "it ends with `<</ name >>`, with the same name",
            ),
            Problem::TooDeep { raw } => (
                "nested-too-deep",
                *raw,
                "too many sections inside each other".to_owned(),
                "a section ends with `<</ name >>`",
            ),
            Problem::SectionUnopened { name, raw } => (
                "unclosed-section",
                *raw,
                format!("section `{name}` ends here, but none was open"),
                "it starts with `<<# name >>`, with the same name",
            ),
        };
        self.report(Diagnostic::error(code, self.context.narrow(span, needle), message).help(help));
    }
}

/// The items, some of them made anew; `None` when all stay what they are, so that nothing is copied.
fn replaced<T: Clone>(items: &[T], mut new: impl FnMut(&T) -> Option<T>) -> Option<Vec<T>> {
    let mut replaced: Option<Vec<T>> = None;
    for (index, item) in items.iter().enumerate() {
        match (new(item), &mut replaced) {
            (None, None) => {}
            (None, Some(items)) => items.push(item.clone()),
            (Some(new), Some(items)) => items.push(new),
            (Some(new), None) => {
                let mut before = Vec::with_capacity(items.len());
                before.extend_from_slice(&items[..index]);
                before.push(new);
                replaced = Some(before);
            }
        }
    }
    replaced
}

/// A name and nothing else; anything more is an expression.
pub(crate) fn is_reference(content: &str) -> bool {
    let is_word = content.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    is_word && content.starts_with(|c: char| c.is_ascii_alphabetic()) && !matches!(content, "true" | "false" | "null")
}

fn node(value: &Value, span: Span) -> Node {
    match value {
        Value::Null => Node::null(span),
        Value::Bool(value) => Node::plain(span, value.to_string()),
        Value::Int(value) => Node::plain(span, value.to_string()),
        Value::Float(value) => Node::plain(span, value.to_string()),
        Value::Text(text) | Value::Executor { name: text, .. } => Node::text(span, text.clone()),
        Value::Tree(tree) => tree.clone(),
    }
}
