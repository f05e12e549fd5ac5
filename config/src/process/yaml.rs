//! What is to be written: a tree with comments.

use crate::syntax::{Content, Literal, Node};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Yaml {
    /// Written as it is: a number, a boolean, null.
    Plain(String),
    Text(String),
    List(Vec<Item>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub comments: Vec<String>,
    pub value: Yaml,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub comments: Vec<String>,
    pub key: String,
    pub value: Yaml,
}

/// Comments make no difference: two jobs that came about in different ways may be equal.
impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.value == other.value
    }
}

impl Yaml {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn number(number: impl ToString) -> Self {
        Self::Plain(number.to_string())
    }

    pub fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(|text| Item::new(Self::text(text))).collect())
    }

    /// The tree of the config; `comments` tells what there is to say of a scalar.
    pub fn of(node: &Node, comments: &dyn Fn(&Node) -> Vec<String>) -> Self {
        match &node.content {
            Content::Map(map) => Self::Map(
                map.entries
                    .iter()
                    .map(|entry| Entry {
                        comments: comments(&entry.value),
                        key: entry.key.to_string(),
                        value: Self::of(&entry.value, comments),
                    })
                    .collect(),
            ),
            Content::List(items) => Self::List(
                items.iter().map(|item| Item { comments: comments(item), value: Self::of(item, comments) }).collect(),
            ),
            Content::Scalar(scalar) if scalar.plain && scalar.text.is_empty() => Self::Plain("null".to_owned()),
            Content::Scalar(scalar) => match scalar.literal() {
                Literal::Text(text) if !scalar.plain || !is_word(text) => Self::text(text),
                _ => Self::Plain(scalar.text.to_string()),
            },
            // Has an error, so that nothing is written.
            Content::Broken => Self::Plain("null".to_owned()),
        }
    }
}

/// What YAML 1.1 reads as a boolean when it is plain.
pub(super) fn is_word(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off" | "y" | "n")
}

impl Item {
    pub fn new(value: Yaml) -> Self {
        Self { comments: Vec::new(), value }
    }
}

impl Entry {
    pub fn new(key: impl Into<String>, value: Yaml) -> Self {
        Self { comments: Vec::new(), key: key.into(), value }
    }

    pub fn with(self, comments: Vec<String>) -> Self {
        Self { comments, ..self }
    }
}
