//! Values that conditions compare.

use std::collections::HashMap;
use std::sync::Arc;

use crate::syntax::{Content, Literal, Node};

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    /// A list or a map.
    Tree(Node),
    /// An executor parameter: equal to its name and to its definition.
    Executor {
        name: Arc<str>,
        definition: Option<Node>,
    },
}

impl Value {
    pub fn of(node: &Node) -> Self {
        let Some(scalar) = node.as_scalar() else { return Self::Tree(node.clone()) };
        match scalar.literal() {
            Literal::Null => Self::Null,
            Literal::Bool(value) => Self::Bool(value),
            Literal::Int(value) => Self::Int(value),
            Literal::Float(value) | Literal::Large(value) => Self::Float(value),
            Literal::Text(_) => Self::Text(scalar.text.clone()),
        }
    }

    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Null | Self::Bool(false) | Self::Int(0) => false,
            Self::Float(value) => *value != 0.0 && !value.is_nan(),
            Self::Text(text) => !text.is_empty(),
            _ => true,
        }
    }

    pub fn as_number(&self) -> Option<f64> {
        match self {
            // Whole numbers of a config are far below 2^53.
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// Equality by type: `1` is not `"1"`.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Tree(a), Self::Tree(b)) => same(a, b),
            (Self::Executor { name: a, .. }, Self::Executor { name: b, .. }) => a == b,
            (Self::Executor { name, definition }, other) | (other, Self::Executor { name, definition }) => {
                match other {
                    Self::Text(text) => text == name,
                    Self::Tree(tree) => definition.as_ref().is_some_and(|definition| same(definition, tree)),
                    _ => false,
                }
            }
            _ => self.as_number().is_some_and(|a| other.as_number() == Some(a)),
        }
    }

    pub fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::Tree(node) => node.describe(),
            Self::Executor { .. } => "an executor",
        }
    }
}

/// Do two trees say the same? Their places and the order of their keys do not matter.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.content, &b.content) {
        (Content::Scalar(x), Content::Scalar(y)) => x.text == y.text || Value::of(a).equals(&Value::of(b)),
        (Content::List(a), Content::List(b)) => {
            Arc::ptr_eq(a, b) || (a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b)))
        }
        (Content::Map(a), Content::Map(b)) => {
            Arc::ptr_eq(a, b)
                || (a.entries.len() == b.entries.len() && {
                    let others: HashMap<&str, &Node> = b.entries.iter().map(|e| (&*e.key, &e.value)).collect();
                    a.entries.iter().all(|entry| others.get(&*entry.key).is_some_and(|other| same(&entry.value, other)))
                })
        }
        _ => false,
    }
}
