//! The shape of filters: what is wrong would let more through than was meant, so it is an error.

use super::fields::At;
use super::pattern;
use crate::diagnostic::Diagnostic;
use crate::keys::tables::{FILTER, FILTERS, LOGIC};
use crate::keys::{self, Known as _};
use crate::syntax::{Content, Map, Node};

/// Reports what is wrong with a map of `branches` and `tags`. `false`: something is, and nothing may follow from it.
pub(super) fn is_right(place: At<'_>, map: &Map) -> bool {
    let refused = keys::refused(map, &FILTERS, "`filters`");
    let mut right = refused.is_empty();
    refused.into_iter().for_each(|(entry, told)| place.report(advised(told, &entry.key)));
    for entry in map.entries.iter().filter(|entry| FILTERS.knows(&entry.key)) {
        right &= block(place, &entry.key, &entry.value);
    }
    right
}

/// What stands in `filters` and belongs below it, or is a condition.
fn advised(told: Diagnostic, key: &str) -> Diagnostic {
    if FILTER.knows(key) {
        let help = format!("it stands below `branches` or `tags`: `branches: {{{key}: …}}`");
        told.help(help)
    } else if LOGIC.knows(key) {
        told.help("a condition is an expression: `filters: pipeline.git.branch == \"main\"`")
    } else {
        told
    }
}

/// The same of `branches` or `tags`, by `key`.
fn block(place: At<'_>, key: &str, node: &Node) -> bool {
    let Some(map) = node.as_map() else {
        if !node.is_null() && !node.is_broken() {
            place.report(no_block(key, node));
        }
        return node.is_null();
    };
    let refused = keys::refused(map, &FILTER, &format!("`{key}` of a filter"));
    let mut right = refused.is_empty();
    refused.into_iter().for_each(|(_, told)| place.report(told));
    for entry in map.entries.iter().filter(|entry| FILTER.knows(&entry.key) && !entry.value.is_null()) {
        right &= names(place, &entry.key, &entry.value);
    }
    right
}

fn no_block(key: &str, node: &Node) -> Diagnostic {
    let message = format!("`{key}` must be a map with `only` or `ignore`, but this is {}", node.describe());
    let help = match node.as_text() {
        Some(name) => format!("write `{key}: {{only: {name}}}`"),
        None => format!("write `{key}: {{only: …}}` or `{key}: {{ignore: …}}`"),
    };
    Diagnostic::error("wrong-shape", node.span, message).help(help)
}

/// The same of `only` or `ignore`. An alias to a list makes a list in the list.
fn names(place: At<'_>, key: &str, node: &Node) -> bool {
    match &node.content {
        // All are looked at, so that every mistake is reported.
        Content::List(items) => items.iter().filter(|item| !names(place, key, item)).count() == 0,
        Content::Broken => false,
        _ => match node.as_text() {
            Some(text) => {
                pattern::warn(place, node, text);
                true
            }
            None => {
                place.wrong_shape(node, key, "a name or a pattern between slashes, or a list of them");
                false
            }
        },
    }
}
