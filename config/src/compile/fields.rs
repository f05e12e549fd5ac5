//! Reading typed values out of plain nodes, with an error where one does not fit.

use navvy_job::compiled::Origin;

use crate::diagnostic::{Diagnostic, Span};
use crate::keys::Known;
use crate::resolve::{Context, Trail};
use crate::syntax::{Literal, Map, Node, becomes, boolean, stays};

/// Bytes of the way to a step through a handful of commands.
const COMMON_TRAIL: usize = 256;

/// Where in the pipeline something is read: diagnostics need it.
#[derive(Clone, Copy)]
pub(super) struct At<'p> {
    pub context: &'p Context<'p>,
    pub trail: &'p Trail,
}

impl At<'_> {
    pub fn report(&self, diagnostic: Diagnostic) {
        self.context.report(diagnostic.trail(self.trail.frames()));
    }

    pub fn error(&self, code: &'static str, span: Span, message: impl Into<String>) {
        self.report(Diagnostic::error(code, span, message));
    }

    pub fn origin(&self, span: Span) -> Origin {
        let number = |value| u32::try_from(value).unwrap_or(u32::MAX);
        let trail = self.trail.names();
        let size: usize = trail.iter().map(|name| name.len() + size_of::<String>()).sum();
        // A trail of common length costs nothing.
        let is_affordable = size <= COMMON_TRAIL || self.context.spend(size, span);
        let trail = if is_affordable { trail } else { Vec::new() };
        Origin { line: number(span.line), column: span.column, file: self.context.file_name(span.file), trail }
    }

    /// Any scalar but null, as text.
    pub fn text(&self, node: &Node, key: &str) -> Option<String> {
        let Some(text) = node.as_text() else {
            self.wrong_shape(node, key, "a text");
            return None;
        };
        stays(format_args!("`{key}`"), node).into_iter().for_each(|told| self.report(told));
        self.context.made(text, node.span).then(|| String::from(&**text))
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
        match integer {
            Some(_) => becomes(format_args!("`{key}`"), node).into_iter().for_each(|told| self.report(told)),
            None => self.wrong_shape(node, key, "an integer"),
        }
        integer
    }

    /// One text or a list of them.
    pub fn texts(&self, node: &Node, key: &str) -> Vec<String> {
        let mut texts = Vec::new();
        if !node.is_null() {
            self.add_texts(node, key, &mut texts);
        }
        texts
    }

    /// An alias to a list makes a list in the list.
    fn add_texts(&self, node: &Node, key: &str, texts: &mut Vec<String>) {
        match node.as_list() {
            Some(items) => {
                texts.reserve(items.len());
                items.iter().for_each(|item| self.add_texts(item, key, texts));
            }
            None => texts.extend(self.text(node, key)),
        }
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
    pub place: At<'f>,
    pub map: &'f Map,
    /// Span of what the map belongs to.
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
