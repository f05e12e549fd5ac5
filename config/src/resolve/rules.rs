//! What decides whether a job of a workflow runs, as it was written at the job's use.
//!
//! A rule without a value does not count, which is reported. `only` is different: without a value it would let everything
//! through, although it was written to let little through.

use std::sync::Arc;

use super::plain::PlainFilters;
use super::record::Record;
use super::scope::Scope;
use crate::diagnostic::Diagnostic;
use crate::syntax::{Content, Entry, Map, Node};

pub(super) fn filters(scope: &Scope<'_>, keys: Option<&Map>) -> PlainFilters {
    let Some(entry) = keys.and_then(|keys| keys.entry("filters")) else { return PlainFilters::None };
    let node = &entry.value;
    match &node.content {
        Content::Map(_) => filter_map(scope, node),
        Content::Scalar(_) if node.is_null() => {
            warn_of_nothing(scope, entry, EVERY_BRANCH);
            PlainFilters::None
        }
        Content::Scalar(scalar) => decided(scope, node, scalar.text.to_string()),
        Content::List(_) => {
            let expected = "a map with `branches` and `tags`, or an expression";
            let message = format!("`filters` must be {expected}, but this is {}", node.describe());
            scope.report(Diagnostic::error("wrong-shape", node.span, message));
            PlainFilters::Wrong
        }
        Content::Broken => PlainFilters::Wrong,
    }
}

const EVERY_BRANCH: &str = "the job runs on every branch";

fn decided(scope: &Scope<'_>, node: &Node, text: String) -> PlainFilters {
    scope.context.record(Record::forget_seen);
    match scope.condition(node) {
        Some(holds) => PlainFilters::Decided { text, holds, values: scope.context.seen() },
        None => PlainFilters::Wrong,
    }
}

/// A map of `branches` and `tags`.
pub(super) fn filter_map(scope: &Scope<'_>, node: &Node) -> PlainFilters {
    let Some(map) = node.as_map() else { return PlainFilters::Wrong };
    refuse_empty(scope, map);
    for entry in blocks(map) {
        match entry.value.as_map().and_then(|block| block.entry("ignore")) {
            Some(ignore) if ignore.value.is_null() => warn_of_nothing(scope, ignore, "it keeps nothing out"),
            None if entry.value.is_null() && &*entry.key == "branches" => warn_of_nothing(scope, entry, EVERY_BRANCH),
            _ => {}
        }
    }
    PlainFilters::Map(closed(&scope.substitute(node)))
}

/// Refuses `only` with nothing written in it.
pub(super) fn refuse_empty(scope: &Scope<'_>, filters: &Map) {
    for entry in blocks(filters) {
        let only = entry.value.as_map().and_then(|block| block.entry("only"));
        if let Some(only) = only.filter(|only| only.value.is_null()) {
            let message = format!("`only` of `{}` has nothing in it", entry.key);
            let help = "name what may run, or leave `only` out to let everything through";
            scope.report(Diagnostic::error("wrong-shape", only.key_span, message).help(help));
        }
    }
}

fn blocks(filters: &Map) -> impl Iterator<Item = &Entry> {
    filters.entries.iter().filter(|entry| matches!(&*entry.key, "branches" | "tags"))
}

/// Where `only` is a value that was not given, it names nothing, and nothing gets through.
fn closed(filters: &Node) -> Node {
    let with = |node: &Node, change: &dyn Fn(&Entry) -> Node| match node.as_map() {
        Some(map) => {
            let entries = map.entries.iter().map(|entry| Entry { value: change(entry), ..entry.clone() });
            Node::map(node.span, entries.collect())
        }
        None => node.clone(),
    };
    let only = |entry: &Entry| match &*entry.key {
        "only" if entry.value.is_null() => Node::list(entry.value.span, Vec::new()),
        _ => entry.value.clone(),
    };
    with(filters, &|entry| with(&entry.value, &only))
}

pub(super) fn requires(scope: &Scope<'_>, keys: Option<&Map>) -> Option<Node> {
    whole(scope, keys?.entry("requires")?, "the job waits for no other")
}

pub(super) fn serial_group(scope: &Scope<'_>, keys: Option<&Map>) -> Option<Node> {
    whole(scope, keys?.entry("serial-group")?, "the job runs beside any other")
}

/// The value; `so` is what follows if nothing was written there.
fn whole(scope: &Scope<'_>, entry: &Entry, so: &str) -> Option<Node> {
    if entry.value.is_null() {
        warn_of_nothing(scope, entry, so);
        return None;
    }
    Some(scope.substitute(&entry.value))
}

/// Tells that a rule has nothing in it, and what follows from that.
pub(super) fn warn_of_nothing(scope: &Scope<'_>, entry: &Entry, so: &str) {
    let message = format!("`{}` has nothing in it: {so}", entry.key);
    scope.report(Diagnostic::warning("empty-rule", entry.key_span, message));
}

/// A text, if the key is there and not left empty.
pub(super) fn text(scope: &Scope<'_>, keys: Option<&Map>, key: &str) -> Option<Arc<str>> {
    let value = scope.substitute(keys?.get(key)?);
    if value.as_text().is_none() && !value.is_null() && !value.is_broken() {
        let message = format!("`{key}` must be a text, but this is {}", value.describe());
        scope.report(Diagnostic::error("wrong-shape", value.span, message));
    }
    value.as_text().cloned()
}
