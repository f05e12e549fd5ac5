//! Merge keys and duplicate keys: how a map's entries come together.
//!
//! Explicit keys win over merged ones, earlier merges over later ones. The merge key may stand twice in one map.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::node::{Content, Entry, Node};
use crate::diagnostic::{Diagnostic, Report, Span};

/// So few keys are found faster by looking at each.
const FEW: usize = 16;

/// Collects a map's entries while it is read.
#[derive(Default)]
pub(super) struct Collector {
    explicit: Vec<Entry>,
    merged: Vec<Node>,
    /// Index of each explicit key, once there are more than a few.
    places: HashMap<Arc<str>, usize>,
}

impl Collector {
    pub fn explicit(&mut self, entry: Entry, report: &mut Report) {
        match self.place(&entry.key) {
            Some(index) => self.replace(index, entry, report),
            None => self.push(entry),
        }
    }

    fn place(&self, key: &str) -> Option<usize> {
        if self.explicit.len() <= FEW {
            return self.explicit.iter().position(|entry| &*entry.key == key);
        }
        self.places.get(key).copied()
    }

    fn push(&mut self, entry: Entry) {
        self.explicit.push(entry);
        if self.explicit.len() > FEW {
            let from = self.places.len();
            let new = self.explicit.iter().enumerate().skip(from).map(|(index, entry)| (entry.key.clone(), index));
            self.places.extend(new);
        }
    }

    /// The value of a merge key: a map or a list of maps.
    pub fn merge(&mut self, value: Node, report: &mut Report) {
        match &value.content {
            Content::Map(_) => self.merged.push(value),
            Content::List(items) => items.iter().for_each(|item| self.merge_item(item, report)),
            Content::Scalar(_) if value.is_null() => {}
            Content::Scalar(_) | Content::Broken => report.push(not_a_map(&value)),
        }
    }

    pub fn finish(mut self) -> Vec<Entry> {
        if self.merged.is_empty() {
            return self.explicit;
        }
        let mut known: HashSet<Arc<str>> = self.explicit.iter().map(|entry| entry.key.clone()).collect();
        let merged = self.merged.iter().filter_map(Node::as_map).flat_map(|map| &map.entries);
        let mut entries: Vec<Entry> = merged.filter(|entry| known.insert(entry.key.clone())).cloned().collect();
        entries.append(&mut self.explicit);
        entries
    }

    fn merge_item(&mut self, item: &Node, report: &mut Report) {
        match &item.content {
            Content::Map(_) => self.merged.push(item.clone()),
            _ => report.push(not_a_map(item)),
        }
    }

    /// The later of two equal keys stays, as most YAML readers have it.
    fn replace(&mut self, index: usize, entry: Entry, report: &mut Report) {
        let earlier = &mut self.explicit[index];
        report.push(duplicate(&entry.key, entry.key_span, earlier.key_span));
        *earlier = entry;
    }
}

fn duplicate(key: &str, span: Span, earlier: Span) -> Diagnostic {
    Diagnostic::warning("duplicate-key", span, format!("key `{key}` stands twice in this map; this one counts"))
        .related(earlier, "the first one stands here")
        .help(format!("remove the other one, at line {}, column {}", earlier.line, earlier.column))
}

fn not_a_map(node: &Node) -> Diagnostic {
    Diagnostic::error("merge-not-a-map", node.span, format!("`<<` merges maps, but this is {}", node.describe()))
        .help("lists and single values cannot be merged")
}
