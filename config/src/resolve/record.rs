//! What explanations derive from: which argument or default gave a parameter its value, and what conditions looked at.
//!
//! Kept only when an explanation is asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::scope::{Bound, Scope};
use super::trail::Trail;
use crate::diagnostic::Span;
use crate::keys;
use crate::syntax::{Map, Node};

#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// Parameters by the id of the way into the job, command or executor.
    given: HashMap<usize, Vec<Given>>,
    /// Ids stay what they are as long as their ways are known.
    ways: Vec<Trail>,
    /// Names looked up since [`Record::forget_seen`], with their values.
    pub(super) seen: Vec<(String, String)>,
    /// Pipeline parameters: where the default stands, or `None` if another value was given from outside.
    pub pipeline: BTreeMap<Arc<str>, Option<Span>>,
    /// Orbs that are not here: alias and reference.
    pub missing_orbs: BTreeMap<Arc<str>, Arc<str>>,
}

/// The value of one parameter.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub name: Arc<str>,
    /// Its value as a person reads it.
    pub value: String,
    pub whence: Whence,
}

/// What gave a parameter its value, and where that stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whence {
    Argument(Span),
    Default(Span),
    Matrix(Span),
}

/// The condition of a workflow, decided.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    /// `when` or `unless`.
    pub key: &'static str,
    pub span: Span,
    pub holds: bool,
    /// What it looked at.
    pub values: Vec<(String, String)>,
}

impl Record {
    pub fn give(&mut self, way: &Trail, given: Given) {
        self.given.entry(way.id()).or_default().push(given);
        self.ways.push(way.clone());
    }

    pub fn give_pipeline(&mut self, name: &Arc<str>, default: Option<Span>) {
        self.pipeline.insert(name.clone(), default);
    }

    /// The parameters of what the way leads into.
    pub fn given(&self, way: &Trail) -> &[Given] {
        self.given.get(&way.id()).map_or(&[], Vec::as_slice)
    }

    pub fn forget_seen(&mut self) {
        self.seen.clear();
    }

    pub fn see(&mut self, name: &str, value: &Node) {
        let seen = (name.to_owned(), shown_node(value));
        if !self.seen.contains(&seen) {
            self.seen.push(seen);
        }
    }
}

/// The condition of a workflow again, with all that it looks at. `None` without one, and without a record.
pub(crate) fn condition(scope: &Scope<'_>, map: &Map) -> Option<Condition> {
    if !scope.context.keeps_record() {
        return None;
    }
    let (key, entry) = ["when", "unless"].into_iter().find_map(|key| {
        keys::given(scope.context, map, key)?;
        Some((key, map.entry(key)?))
    })?;
    scope.context.record(Record::forget_seen);
    let holds = scope.condition(&entry.value)?;
    Some(Condition { key, span: entry.key_span, holds, values: scope.context.seen() })
}

/// A value for a person.
pub(crate) fn shown(bound: &Bound<'_>) -> String {
    match bound {
        Bound::Plain(node) => shown_node(node),
        Bound::Steps { steps, .. } if steps.len() == 1 => "1 step".to_owned(),
        Bound::Steps { steps, .. } => format!("{} steps", steps.len()),
        Bound::Executor(used) => format!("executor `{}`", used.name),
    }
}

fn shown_node(node: &Node) -> String {
    match node.as_scalar() {
        Some(_) if node.is_null() => "null".to_owned(),
        Some(scalar) if scalar.plain => scalar.text.to_string(),
        Some(scalar) => format!("{:?}", scalar.text),
        None => node.describe().to_owned(),
    }
}
