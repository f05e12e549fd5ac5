//! Branch and tag filters: does a job run for this push?

use navvy_job::pipeline::Selection;

use super::fields::At;
use super::{filter_shape, pattern};
use crate::input::Inputs;
use crate::resolve::{Context, PlainFilters, Trail};
use crate::syntax::{Map, Node};

/// In the reason of a job that is left out since no branch is there for its filter to let through.
pub const NO_BRANCH: &str = "there is no branch";

/// The selection of a job by its own filters.
pub(super) fn selection(place: At<'_>, filters: &PlainFilters) -> Selection {
    match filters {
        PlainFilters::None => by_map(place, &Map::default()),
        PlainFilters::Map(node) => match node.as_map() {
            Some(map) => {
                let is_right = filter_shape::is_right(place, map);
                // Looked at in any case, so that every broken pattern is reported.
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

/// A run that continues in spite of the error must not run more than was meant.
fn wrong() -> Selection {
    left("its filters are wrong".to_owned())
}

fn by_map(place: At<'_>, map: &Map) -> Selection {
    match Pushed::of(place.context.inputs) {
        Pushed::Tag(tag) => by_tag(place, map, tag),
        Pushed::Branch(branch) => by_branch(place, map, branch),
        Pushed::Nothing => by_no_branch(place, map),
    }
}

/// Without a tag filter a job does not run on tags.
fn by_tag(place: At<'_>, map: &Map, tag: &str) -> Selection {
    let block = map.get("tags").and_then(Block::read);
    match block {
        None => left("it has no tag filter, and without one a job does not run on tags".to_owned()),
        Some(block) if block.is_empty() => left("its tag filter names no tags".to_owned()),
        Some(block) if block.lets_through(place, Pushed::Tag(tag)) => Selection::Selected,
        Some(_) => left(format!("its tag filter does not match tag `{tag}`")),
    }
}

/// Without a branch filter a job runs on every branch.
fn by_branch(place: At<'_>, map: &Map, branch: &str) -> Selection {
    match map.get("branches").and_then(Block::read) {
        Some(block) if !block.lets_through(place, Pushed::Branch(branch)) => {
            left(format!("its branch filter does not match branch `{branch}`"))
        }
        _ => Selection::Selected,
    }
}

/// A push without a branch matches neither the branches of `only` nor those of `ignore`.
fn by_no_branch(place: At<'_>, map: &Map) -> Selection {
    match map.get("branches").and_then(Block::read) {
        Some(block) if !block.lets_through(place, Pushed::Nothing) => left(match block.only {
            Some(_) => format!("its branch filter lets only some branches through, and {NO_BRANCH}"),
            None => "its branch filter lets no branch through".to_owned(),
        }),
        _ => Selection::Selected,
    }
}

/// Names that patterns are compared with where there is no branch. A regular expression for all branches fits both; one in
/// `only` that fits the empty name, as `/.*/` does, also lets a push without a branch through.
const NO_NAMES: [&str; 2] = ["", "HEAD"];

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
pub(crate) fn verdict<'n>(context: &Context<'_>, filters: &'n Node, pushed: Pushed<'_>) -> Option<Verdict<'n>> {
    let trail = Trail::default();
    let place = At { context, trail: &trail };
    let block = Block::read(filters.as_map()?.get(if pushed.is_tag() { "tags" } else { "branches" })?)?;
    let list = block.only.map(|node| ("only", node)).or(block.ignore.map(|node| ("ignore", node)));
    let patterns = list.map(|(_, node)| place.texts(node, "filters")).unwrap_or_default();
    let fits =
        |pattern: &String| list.is_some_and(|(key, node)| pattern::matches(place, node, pattern, &pushed.names(key)));
    let matching = patterns.into_iter().find(fits);
    Some(Verdict { list, matching })
}

/// What a pipeline is for: filters are held against it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pushed<'i> {
    Tag(&'i str),
    Branch(&'i str),
    /// Neither is known.
    Nothing,
}

impl<'i> Pushed<'i> {
    pub fn of(inputs: &'i Inputs) -> Self {
        match (&inputs.tag, &inputs.branch) {
            (Some(tag), _) => Self::Tag(tag),
            (None, Some(branch)) => Self::Branch(branch),
            (None, None) => Self::Nothing,
        }
    }

    pub fn is_tag(self) -> bool {
        matches!(self, Self::Tag(_))
    }

    fn names(self, list: &str) -> Vec<&'i str> {
        match self {
            Self::Tag(name) | Self::Branch(name) => vec![name],
            Self::Nothing if list == "only" => vec![NO_NAMES[0]],
            Self::Nothing => NO_NAMES.to_vec(),
        }
    }
}

impl std::fmt::Display for Pushed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(name) => write!(f, "tag `{name}`"),
            Self::Branch(name) => write!(f, "branch `{name}`"),
            Self::Nothing => f.write_str("what has no branch"),
        }
    }
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
    fn lets_through(&self, place: At<'_>, pushed: Pushed<'_>) -> bool {
        match (self.only, self.ignore) {
            (Some(only), _) => matches_any(place, only, &pushed.names("only")),
            (None, Some(ignore)) => !matches_any(place, ignore, &pushed.names("ignore")),
            (None, None) => true,
        }
    }
}

fn matches_any(place: At<'_>, node: &Node, names: &[&str]) -> bool {
    // All are looked at, so that every broken pattern is reported.
    match node.as_list() {
        Some(items) => items.iter().filter(|item| matches_any(place, item, names)).count() > 0,
        None => node.as_text().is_some_and(|pattern| pattern::matches(place, node, pattern, names)),
    }
}
