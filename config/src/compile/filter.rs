//! Branch and tag filters: does a job run for this push?

use std::borrow::Cow;

use navvy_job::pipeline::Selection;

use super::fields::{Fields, Place};
use crate::diagnostic::Diagnostic;
use crate::keys::tables;
use crate::resolve::{Context, PlainFilters, Trail};
use crate::syntax::{Map, Node};

/// The selection of a job by its own filters.
pub(super) fn selection(place: Place<'_>, filters: &PlainFilters) -> Selection {
    match filters {
        PlainFilters::None => by_map(place, &Map::default()),
        PlainFilters::Map(node) => match node.as_map() {
            Some(map) => filter_map(place, node, map),
            None => Selection::Selected,
        },
        PlainFilters::Decided { holds: true, .. } => Selection::Selected,
        PlainFilters::Decided { text, .. } => left(format!("its filter `{}` does not hold", text.trim())),
    }
}

fn filter_map(place: Place<'_>, node: &Node, map: &Map) -> Selection {
    let fields = Fields { place, map, span: node.span, owner: "`filters`" };
    fields.only(&tables::FILTERS);
    for key in ["branches", "tags"] {
        if let Some(block) = fields.get(key).and_then(Node::as_map) {
            let owner = format!("`{key}` of a filter");
            Fields { place, map: block, span: node.span, owner: &owner }.only(&tables::FILTER);
        }
    }
    by_map(place, map)
}

fn by_map(place: Place<'_>, map: &Map) -> Selection {
    let inputs = place.context.inputs;
    match (&inputs.tag, &inputs.branch) {
        (Some(tag), _) => by_tag(place, map, tag),
        (None, branch) => by_branch(place, map, branch.as_deref().unwrap_or("")),
    }
}

/// Without a tag filter a job does not run on tags.
fn by_tag(place: Place<'_>, map: &Map, tag: &str) -> Selection {
    let block = map.get("tags").and_then(Block::read);
    match block {
        None => left("it has no tag filter, and without one a job does not run on tags".to_owned()),
        Some(block) if block.is_empty() => left("its tag filter names no tags".to_owned()),
        Some(block) if block.lets_through(place, tag) => Selection::Selected,
        Some(_) => left(format!("its tag filter does not match tag `{tag}`")),
    }
}

/// Without a branch filter a job runs on every branch.
fn by_branch(place: Place<'_>, map: &Map, branch: &str) -> Selection {
    match map.get("branches").and_then(Block::read) {
        Some(block) if !block.lets_through(place, branch) => {
            left(format!("its branch filter does not match branch `{branch}`"))
        }
        _ => Selection::Selected,
    }
}

fn left(reason: String) -> Selection {
    Selection::Left { reason }
}

/// What lets a branch or tag through, or does not: for an explanation.
pub(crate) struct Verdict<'n> {
    /// `only` or `ignore`; `None`: the block names neither.
    pub list: Option<(&'static str, &'n Node)>,
    /// The first pattern of the list that matches.
    pub matching: Option<String>,
}

/// Which pattern of `branches` or `tags` decides. `None`: there is no such block.
pub(crate) fn verdict<'n>(context: &Context<'_>, filters: &'n Node, tag: bool, name: &str) -> Option<Verdict<'n>> {
    let trail = Trail::default();
    let place = Place { context, trail: &trail };
    let block = Block::read(filters.as_map()?.get(if tag { "tags" } else { "branches" })?)?;
    let list = block.only.map(|node| ("only", node)).or(block.ignore.map(|node| ("ignore", node)));
    let patterns = list.map(|(_, node)| place.texts(node, "filters")).unwrap_or_default();
    let matching =
        patterns.into_iter().find(|pattern| list.is_some_and(|(_, node)| matches(place, node, pattern, name)));
    Some(Verdict { list, matching })
}

/// `only` and `ignore`.
struct Block<'n> {
    only: Option<&'n Node>,
    ignore: Option<&'n Node>,
}

impl<'n> Block<'n> {
    fn read(node: &'n Node) -> Option<Self> {
        let given = |map: &'n Map, key| map.get(key).filter(|node| !node.is_null());
        let map = node.as_map()?;
        Some(Self { only: given(map, "only"), ignore: given(map, "ignore") })
    }

    fn is_empty(&self) -> bool {
        self.only.is_none() && self.ignore.is_none()
    }

    /// `only` wins over `ignore`.
    fn lets_through(&self, place: Place<'_>, name: &str) -> bool {
        match (self.only, self.ignore) {
            (Some(only), _) => matches_any(place, only, name),
            (None, Some(ignore)) => !matches_any(place, ignore, name),
            (None, None) => true,
        }
    }
}

fn matches_any(place: Place<'_>, node: &Node, name: &str) -> bool {
    // All are looked at, so that every broken pattern is told.
    match node.as_list() {
        Some(items) => items.iter().filter(|item| matches_any(place, item, name)).count() > 0,
        None => match node.as_text() {
            Some(pattern) => matches(place, node, pattern, name),
            None => {
                place.wrong_shape(node, "filters", "a name or a pattern");
                false
            }
        },
    }
}

/// A pattern between slashes is a regular expression for the whole name, any other the name itself.
fn matches(place: Place<'_>, node: &Node, pattern: &str, name: &str) -> bool {
    let regex = pattern.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    let Some(regex) = regex else {
        warn_of_glob(place, node, pattern);
        return pattern == name;
    };
    let regex = if regex.contains("\\/") { Cow::Owned(regex.replace("\\/", "/")) } else { Cow::Borrowed(regex) };
    place.context.full_match(&regex, name, node.span).unwrap_or_else(|message| {
        place.error("invalid-regex", node.span, message);
        false
    })
}

fn warn_of_glob(place: Place<'_>, node: &Node, pattern: &str) {
    if pattern.contains('*') && !place.context.is_weary() {
        let message = format!("`{pattern}` is plain text and matches nothing but itself");
        let help = "a regular expression stands between slashes, as in `/release\\/.*/`";
        place.report(Diagnostic::warning("glob-in-filter", node.span, message).help(help));
    }
}
