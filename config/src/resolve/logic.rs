//! Logic statements: `and`, `or`, `not`, `equal`, `matches`, and what is truthy.

use super::anchors;
use super::scope::{Scope, Site};
use super::substitute::is_reference;
use super::template;
use super::value::Value;
use crate::diagnostic::{Diagnostic, Span};
use crate::keys::Known as _;
use crate::keys::tables::{LOGIC, MATCHES};
use crate::neighbour::nearest;
use crate::syntax::{Content, Entry, Node, becomes};

/// The language's limit.
const DEEPEST: usize = 100;

const ONE_OPERATOR: &str = "a logic statement is a map with exactly one operator";

/// What to do about a key that belongs somewhere else.
fn instead_of_operator(key: &str) -> Option<&'static str> {
    match key {
        "condition" => Some("what holds stands here itself: only a step's `when` has a `condition`"),
        "steps" | "jobs" => Some("a condition is one statement: the rest stands beside it, further out"),
        "branch" | "branches" | "tags" | "only" | "ignore" => {
            Some("branches and tags are chosen by `filters` of a job, or by an expression on `pipeline.git.branch`")
        }
        _ => None,
    }
}

/// Operators inside each other.
fn depth(node: &Node) -> usize {
    match &node.content {
        Content::Map(map) => map.entries.iter().map(|entry| depth(&entry.value)).max().map_or(0, |inner| inner + 1),
        Content::List(items) => items.iter().map(depth).max().unwrap_or(0),
        Content::Scalar(_) | Content::Broken => 0,
    }
}

impl Scope<'_> {
    /// Does the statement hold? `None` when it is wrong, which has been reported.
    pub fn holds(&self, node: &Node) -> Option<bool> {
        if depth(node) > DEEPEST {
            let message = format!("more than {DEEPEST} logic statements inside each other");
            self.report(Diagnostic::error("nested-too-deep", node.span, message));
            return None;
        }
        self.statement(node).map(|value| value.is_truthy())
    }

    fn statement(&self, node: &Node) -> Option<Value> {
        if !self.context.look(node.span) {
            return None;
        }
        match &node.content {
            Content::Scalar(_) => self.operand(node),
            Content::Map(map) => match &map.entries[..] {
                [entry] => self.operation(entry).map(Value::Bool),
                entries => {
                    let diagnostic = Diagnostic::error("invalid-condition", node.span, ONE_OPERATOR);
                    let stray = entries.iter().find_map(|entry| instead_of_operator(&entry.key));
                    let join = "put them into one list, of `and` or of `or`";
                    let none = "the operators are `and`, `or`, `not`, `equal` and `matches`";
                    self.report(diagnostic.help(stray.unwrap_or(if entries.is_empty() { none } else { join })));
                    None
                }
            },
            Content::List(_) => {
                let diagnostic =
                    Diagnostic::error("invalid-condition", node.span, "a logic statement cannot be a list");
                self.report(diagnostic.help("put the list below `and`, `or` or `equal`"));
                None
            }
            Content::Broken => None,
        }
    }

    fn operation(&self, entry: &Entry) -> Option<bool> {
        match &*entry.key {
            "and" => self.all(entry).map(|values| values.iter().all(Value::is_truthy)),
            "or" => self.all(entry).map(|values| values.iter().any(Value::is_truthy)),
            "not" => self.inner(&entry.value).map(|value| !value.is_truthy()),
            "equal" => self.equal(entry),
            "matches" => self.matches(entry),
            unknown => {
                let message = format!("there is no logic operator `{unknown}`");
                let diagnostic = Diagnostic::error("invalid-condition", entry.key_span, message);
                self.report(match instead_of_operator(unknown) {
                    Some(help) => diagnostic.help(help),
                    None => diagnostic.meant(nearest(unknown, LOGIC.names())),
                });
                None
            }
        }
    }

    fn all(&self, entry: &Entry) -> Option<Vec<Value>> {
        let values: Vec<_> = self.operands(entry)?.iter().map(|item| self.inner(item)).collect();
        values.into_iter().collect()
    }

    /// A statement inside of another: no place where an expression is understood.
    fn inner(&self, node: &Node) -> Option<Value> {
        self.warn_of_text(node);
        self.statement(node)
    }

    fn equal(&self, entry: &Entry) -> Option<bool> {
        let values: Vec<_> = self.operands(entry)?.iter().map(|item| self.operand(item)).collect();
        let values: Vec<Value> = values.into_iter().collect::<Option<_>>()?;
        if values.len() == 1 {
            let help = "it compares two or more, as in `equal: [main, << pipeline.git.branch >>]`";
            let message = "`equal` of one value always holds";
            self.report(Diagnostic::warning("constant-condition", entry.key_span, message).help(help));
        }
        Some(values.windows(2).all(|pair| pair[0].equals(&pair[1])))
    }

    fn operands<'n>(&self, entry: &'n Entry) -> Option<&'n [Node]> {
        match entry.value.as_list() {
            Some([]) => self.wrong(entry.key_span, &format!("`{}` has no arguments", entry.key)),
            Some(items) => Some(items),
            None => self.wrong(entry.value.span, &format!("`{}` takes a list", entry.key)),
        }
    }

    /// A value to compare: a nested statement counts as its result, an executor parameter as its executor.
    fn operand(&self, node: &Node) -> Option<Value> {
        match &node.content {
            Content::Scalar(scalar) if template::is_literal(&scalar.text) => {
                becomes("this value", node).into_iter().for_each(|told| self.report(told));
                Some(Value::of(node))
            }
            Content::Scalar(scalar) => self.scalar_operand(&scalar.text, node),
            Content::Map(map) => match &map.entries[..] {
                [entry] if LOGIC.knows(&entry.key) => self.operation(entry).map(Value::Bool),
                _ => Some(Value::Tree(node.clone())),
            },
            Content::List(_) => Some(Value::Tree(node.clone())),
            Content::Broken => None,
        }
    }

    fn scalar_operand(&self, text: &str, node: &Node) -> Option<Value> {
        if let Some(content) = template::whole(text)
            && is_reference(content)
            && self.context.templates
        {
            return self.value(content, Site::new(node.span, text)).ok();
        }
        let value = self.substitute(node);
        (!value.is_broken()).then(|| Value::of(&value))
    }

    fn matches(&self, entry: &Entry) -> Option<bool> {
        let Some(map) = entry.value.as_map() else {
            return self.wrong(entry.value.span, "`matches` takes a map with `pattern` and `value`");
        };
        if let Some(entry) = map.entries.iter().find(|entry| !MATCHES.knows(&entry.key)) {
            let message = format!("key `{}` means nothing in `matches`", entry.key);
            let told = Diagnostic::error("invalid-condition", entry.key_span, message);
            self.report(told.help("it takes `pattern` and `value`"));
            return None;
        }
        let (Some(pattern), Some(value)) = (map.get("pattern"), map.get("value")) else {
            return self.wrong(entry.key_span, "`matches` needs both `pattern` and `value`");
        };
        let (pattern, value) = (self.text(pattern)?, self.text(value)?);
        self.warn_of_anchors(&pattern, entry.key_span);
        match self.context.full_match(&pattern, &value, entry.key_span) {
            Ok(matches) => Some(matches),
            Err(message) => self.wrong(entry.key_span, &message),
        }
    }

    fn warn_of_anchors(&self, pattern: &str, span: Span) {
        if !anchors::are_there(pattern) {
            let message = format!("the pattern `{pattern}` must match the whole value");
            let help = "write `^` and `$` to say so, or `.*` around it";
            self.report(Diagnostic::warning("unanchored-pattern", span, message).help(help));
        }
    }

    fn text(&self, node: &Node) -> Option<String> {
        let value = self.substitute(node);
        match value.as_scalar() {
            Some(_) if value.is_null() => Some(String::new()),
            Some(scalar) => Some(String::from(&*scalar.text)),
            None if value.is_broken() => None,
            None => self.wrong(value.span, &format!("`matches` compares strings, but this is {}", value.describe())),
        }
    }

    fn wrong<T>(&self, span: Span, message: &str) -> Option<T> {
        self.report(Diagnostic::error("invalid-condition", span, message));
        None
    }
}
