//! Reading typed values out of plain nodes, with an error where one does not fit.

use navvy_job::compiled::Origin;

use crate::diagnostic::{Diagnostic, Span};
use crate::keys::Known;
use crate::resolve::{Context, Trail};
use crate::syntax::{Literal, Map, Node, boolean};

/// Where in the pipeline something is read, for what there is to say of it.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    pub context: &'p Context<'p>,
    pub trail: &'p Trail,
}

impl Place<'_> {
    pub fn report(&self, diagnostic: Diagnostic) {
        self.context.report(diagnostic.trail(self.trail.frames()));
    }

    pub fn error(&self, code: &'static str, span: Span, message: impl Into<String>) {
        self.report(Diagnostic::error(code, span, message));
    }

    pub fn origin(&self, span: Span) -> Origin {
        let number = |value| u32::try_from(value).unwrap_or(u32::MAX);
        Origin { line: number(span.line), column: number(span.column), trail: self.trail.names() }
    }

    /// Any scalar but null, as text.
    pub fn text(&self, node: &Node, key: &str) -> Option<String> {
        let text = node.as_text().map(ToString::to_string);
        if text.is_none() {
            self.wrong_shape(node, key, "a text");
        }
        text
    }

    pub fn truth(&self, node: &Node, key: &str) -> Option<bool> {
        let truth = node.as_text().and_then(|text| boolean(text));
        if truth.is_none() {
            self.wrong_shape(node, key, "a boolean");
        }
        truth
    }

    /// A whole number, also as text, which is what a template inside of more text leaves.
    pub fn integer(&self, node: &Node, key: &str) -> Option<i64> {
        let integer = match node.as_scalar().map(|scalar| scalar.literal()) {
            Some(Literal::Int(value)) => Some(value),
            Some(Literal::Text(text)) => text.trim().parse().ok(),
            _ => None,
        };
        if integer.is_none() {
            self.wrong_shape(node, key, "an integer");
        }
        integer
    }

    /// One text or a list of them.
    pub fn texts(&self, node: &Node, key: &str) -> Vec<String> {
        match node.as_list() {
            Some(items) => items.iter().flat_map(|item| self.texts_of_item(item, key)).collect(),
            None if node.is_null() => Vec::new(),
            None => self.text(node, key).into_iter().collect(),
        }
    }

    /// An alias to a list makes a list in the list.
    fn texts_of_item(&self, item: &Node, key: &str) -> Vec<String> {
        if item.as_list().is_some() { self.texts(item, key) } else { self.text(item, key).into_iter().collect() }
    }

    pub fn wrong_shape(&self, node: &Node, key: &str, expected: &str) {
        if !node.is_broken() {
            let message = format!("`{key}` must be {expected}, but this is {}", node.describe());
            self.error("wrong-shape", node.span, message);
        }
    }
}

/// The keys of one map.
pub(super) struct Fields<'f> {
    pub place: Place<'f>,
    pub map: &'f Map,
    /// Of what the map belongs to.
    pub span: Span,
    /// "`run` step", "machine".
    pub owner: &'f str,
}

impl<'f> Fields<'f> {
    /// The value of a key that is there and not left empty.
    pub fn get(&self, key: &str) -> Option<&'f Node> {
        self.map.get(key).filter(|node| !node.is_null())
    }

    pub fn text(&self, key: &str) -> Option<String> {
        self.get(key).and_then(|node| self.place.text(node, key))
    }

    pub fn truth(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(|node| self.place.truth(node, key))
    }

    pub fn texts(&self, key: &str) -> Vec<String> {
        self.get(key).map(|node| self.place.texts(node, key)).unwrap_or_default()
    }

    pub fn required_text(&self, key: &str) -> Option<String> {
        if self.get(key).is_none() {
            self.missing(key);
        }
        self.text(key)
    }

    pub fn required_texts(&self, key: &str) -> Vec<String> {
        if self.get(key).is_none() {
            self.missing(key);
        }
        self.texts(key)
    }

    pub fn missing(&self, key: &str) {
        self.place.error("missing-key", self.span, format!("{} has no `{key}`", self.owner));
    }

    /// Warns of keys that mean nothing here.
    pub fn only(&self, known: &(impl Known + ?Sized)) {
        crate::keys::check(self.place.context, self.map, known, self.owner);
    }
}
