//! `matrix`: one invocation becomes many.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rules;
use super::scope::Scope;
use crate::diagnostic::{Diagnostic, Span};
use crate::keys::{self, Rules, tables};
use crate::syntax::{Entry, Map, Node};

/// Far more than a person would want to look at; keeps a few lines from standing for millions of jobs.
const LARGEST: usize = 2_048;

const MOST_AXES: usize = 64;

/// One combination of values. In the order of the names, in which generated names join them.
pub(crate) type Combination = BTreeMap<Arc<str>, Node>;

/// What a matrix amounts to.
pub(crate) struct Matrix {
    pub combinations: Vec<Combination>,
    pub alias: Option<Arc<str>>,
}

/// `None` when the matrix is wrong, which has been reported.
pub(crate) fn expand(scope: &Scope<'_>, node: &Node) -> Option<Matrix> {
    let Some(map) = node.as_map() else {
        return wrong(scope, node, "`matrix` must be a map with `parameters`");
    };
    keys::check_rules(scope.context, map, &tables::MATRIX, &Rules::OF_MATRIX, "a matrix");
    let Some(parameters) = map.get("parameters").and_then(Node::as_map).filter(|map| !map.entries.is_empty()) else {
        return wrong(scope, node, "`matrix` needs `parameters` with at least one list of values");
    };
    if parameters.entries.len() > MOST_AXES {
        return wrong(scope, node, &format!("this matrix has more than {MOST_AXES} parameters"));
    }
    let axes = axes(scope, parameters)?;
    let product = axes.iter().try_fold(1_usize, |product, (_, values)| product.checked_mul(values.len()));
    if product.is_none_or(|product| product > LARGEST) {
        return wrong(scope, node, &format!("this matrix stands for more than {LARGEST} jobs"));
    }
    let excluded = excluded(scope, map, parameters);
    let mut combinations = product_of(&axes);
    warn_of_idle(scope, &excluded, &combinations);
    let excluded: Vec<Combination> = excluded.into_iter().map(|(_, exclude)| exclude).collect();
    combinations.retain(|combination| !excluded.iter().any(|exclude| same(exclude, combination)));
    if combinations.is_empty() {
        return wrong(scope, node, "this matrix is empty: `exclude` leaves nothing of it");
    }
    let alias = rules::text(scope, Some(map), "alias");
    Some(Matrix { combinations, alias })
}

type Axis = (Arc<str>, Vec<Node>);

fn axes(scope: &Scope<'_>, parameters: &Map) -> Option<Vec<Axis>> {
    let axes: Vec<_> = parameters.entries.iter().map(|entry| axis(scope, entry)).collect();
    axes.into_iter().collect()
}

fn axis(scope: &Scope<'_>, entry: &Entry) -> Option<Axis> {
    let value = scope.substitute(&entry.value);
    if value.is_broken() {
        return None;
    }
    match value.as_list() {
        Some([]) => wrong(scope, &value, &format!("`{}` has no values", entry.key)),
        Some(values) => Some((entry.key.clone(), values.to_vec())),
        None => wrong(scope, &value, &format!("`{}` must be a list of values", entry.key)),
    }
}

/// The last axis turns fastest.
fn product_of(axes: &[Axis]) -> Vec<Combination> {
    let mut combinations = vec![Combination::new()];
    for (name, values) in axes {
        let with = |combination: &Combination| {
            let combination = combination.clone();
            values.iter().map(move |value| {
                let mut longer = combination.clone();
                longer.insert(name.clone(), value.clone());
                longer
            })
        };
        combinations = combinations.iter().flat_map(with).collect();
    }
    combinations
}

/// Tells of what excludes nothing although it names every parameter.
fn warn_of_idle(scope: &Scope<'_>, excluded: &[(Span, Combination)], combinations: &[Combination]) {
    let names: Vec<&Arc<str>> = combinations.iter().take(1).flat_map(|combination| combination.keys()).collect();
    let is_complete = |exclude: &Combination| exclude.keys().eq(names.iter().copied());
    let idle = |exclude: &Combination| !combinations.iter().any(|combination| same(exclude, combination));
    for (span, _) in excluded.iter().filter(|(_, exclude)| is_complete(exclude) && idle(exclude)) {
        let message = "this excludes nothing: no combination of the matrix has these values";
        scope.report(Diagnostic::warning("incomplete-exclude", *span, message));
    }
}

fn excluded(scope: &Scope<'_>, map: &Map, parameters: &Map) -> Vec<(Span, Combination)> {
    let Some(entry) = map.entry("exclude") else { return Vec::new() };
    let node = &entry.value;
    if node.is_null() {
        rules::warn_of_nothing(scope, entry, "every combination runs");
        return Vec::new();
    }
    let Some(items) = node.as_list() else {
        return wrong(scope, node, "`exclude` is a list of maps").unwrap_or_default();
    };
    items.iter().filter_map(|item| exclusion(scope, item, parameters)).collect()
}

fn exclusion(scope: &Scope<'_>, item: &Node, parameters: &Map) -> Option<(Span, Combination)> {
    let value = scope.substitute(item);
    let Some(map) = value.as_map() else {
        return wrong(scope, item, "`exclude` is a list of maps");
    };
    let complete = map.entries.len() == parameters.entries.len()
        && map.entries.iter().all(|entry| parameters.get(&entry.key).is_some());
    if !complete {
        let message = "this excludes nothing: it must name every parameter of the matrix";
        scope.report(Diagnostic::warning("incomplete-exclude", item.span, message));
    }
    let values = map.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone()));
    Some((item.span, values.collect()))
}

fn same(a: &Combination, b: &Combination) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((a, x), (b, y))| a == b && text(x) == text(y))
}

/// A value as a part of a name.
pub(crate) fn text(node: &Node) -> String {
    match node.as_scalar() {
        Some(scalar) => scalar.shown().into_owned(),
        None => node.as_map().and_then(|map| map.get("name")).map(text).unwrap_or_default(),
    }
}

fn wrong<T>(scope: &Scope<'_>, node: &Node, message: &str) -> Option<T> {
    scope.report(Diagnostic::error("invalid-matrix", node.span, message));
    None
}
