//! The tree: nodes with spans.

use std::borrow::Cow;
use std::sync::Arc;

use super::scalar::{Literal, canonical, literal};
use crate::diagnostic::Span;

/// A YAML node and where it was written. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub span: Span,
    pub content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Scalar(Scalar),
    List(Arc<[Node]>),
    Map(Arc<Map>),
    /// Something was wrong here and has been reported: later stages say nothing more of it.
    Broken,
}

/// Text and whether it was written plain, which lets it be something else than text.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    pub text: Arc<str>,
    pub plain: bool,
}

/// Entries in the order of the file, keys unique.
#[derive(Debug, Default)]
pub(crate) struct Map {
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: Arc<str>,
    pub key_span: Span,
    pub value: Node,
}

impl Scalar {
    pub fn literal(&self) -> Literal<'_> {
        if self.plain { literal(&self.text) } else { Literal::Text(&self.text) }
    }

    /// The value as a text that holds it shows it: `true` for a plain `on`.
    pub fn shown(&self) -> Cow<'_, str> {
        if self.plain { canonical(&self.text) } else { Cow::Borrowed(&self.text) }
    }
}

impl Node {
    pub fn text(span: Span, text: impl Into<Arc<str>>) -> Self {
        Self { span, content: Content::Scalar(Scalar { text: text.into(), plain: false }) }
    }

    /// A scalar that YAML reads by its own rules: a number, a boolean, null.
    pub fn plain(span: Span, text: impl Into<Arc<str>>) -> Self {
        Self { span, content: Content::Scalar(Scalar { text: text.into(), plain: true }) }
    }

    pub fn null(span: Span) -> Self {
        Self::plain(span, "")
    }

    pub fn broken(span: Span) -> Self {
        Self { span, content: Content::Broken }
    }

    pub fn map(span: Span, entries: Vec<Entry>) -> Self {
        Self { span, content: Content::Map(Arc::new(Map { entries })) }
    }

    pub fn list(span: Span, items: Vec<Node>) -> Self {
        Self { span, content: Content::List(items.into()) }
    }

    pub fn as_scalar(&self) -> Option<&Scalar> {
        if let Content::Scalar(scalar) = &self.content { Some(scalar) } else { None }
    }

    pub fn as_map(&self) -> Option<&Map> {
        if let Content::Map(map) = &self.content { Some(map) } else { None }
    }

    pub fn as_list(&self) -> Option<&[Node]> {
        if let Content::List(items) = &self.content { Some(items) } else { None }
    }

    pub fn is_null(&self) -> bool {
        self.as_scalar().is_some_and(|scalar| scalar.literal() == Literal::Null)
    }

    pub fn is_broken(&self) -> bool {
        matches!(self.content, Content::Broken)
    }

    /// The text of a scalar of any type but null, as written.
    pub fn as_text(&self) -> Option<&Arc<str>> {
        self.as_scalar().filter(|scalar| scalar.literal() != Literal::Null).map(|scalar| &scalar.text)
    }

    /// What the node is, in words for a message.
    pub fn describe(&self) -> &'static str {
        match &self.content {
            Content::List(items) if items.is_empty() => "an empty list",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
            Content::Broken => "broken",
            Content::Scalar(scalar) => scalar.literal().describe(),
        }
    }
}

impl Map {
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| &*entry.key == key)
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }
}
