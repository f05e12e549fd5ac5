//! Branch and tag filters: does a job run for this push?

use navvy_job::pipeline::Selection;

use super::fields::Place;
use super::{filter_shape, pattern};
use crate::resolve::{Context, PlainFilters, Trail};
use crate::syntax::{Map, Node};

/// The selection of a job by its own filters.
pub(super) fn selection(place: Place<'_>, filters: &PlainFilters) -> Selection {
    match filters {
        PlainFilters::None => by_map(place, &Map::default()),
        PlainFilters::Map(node) => match node.as_map() {
            Some(map) => {
                let is_right = filter_shape::is_right(place, map);
                // Looked at in any case, so that every broken pattern is told.
                let selection = by_map(place, map);
                if is_right { selection } else { wrong() }
            }
            None => wrong(),
        },
        PlainFilters::Decided { holds: true, .. } => Selection::Selected,
        PlainFilters::Decided { text, .. } => left(format!("its filter `{}` does not hold", text.trim())),
        PlainFilters::Wrong => wrong(),
    }
}

/// Whoever goes on in spite of the error must not run more than was meant.
fn wrong() -> Selection {
    left("its filters are wrong".to_owned())
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
        patterns.into_iter().find(|pattern| list.is_some_and(|(_, node)| pattern::matches(place, node, pattern, name)));
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
        None => node.as_text().is_some_and(|pattern| pattern::matches(place, node, pattern, name)),
    }
}
