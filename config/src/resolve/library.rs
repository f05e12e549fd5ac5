//! Definitions by name: of the config itself, and of every inline orb.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::Context;
use super::parameter::{Parameter, declarations};
use crate::diagnostic::{Diagnostic, Span};
use crate::keys::{self, tables};
use crate::neighbour::nearest;
use crate::syntax::{Entry, Map, Node};

/// What can be named in one scope.
#[derive(Debug, Default)]
pub(crate) struct Library {
    /// Pipeline parameters are in scope in the config, not in orbs.
    pub is_root: bool,
    pub commands: Table,
    pub executors: Table,
    pub jobs: Table,
    pub job_groups: BTreeMap<Arc<str>, Span>,
    pub orbs: BTreeMap<Arc<str>, Orb>,
}

pub(crate) type Table = BTreeMap<Arc<str>, Definition>;

/// A command, an executor or a job as it was written.
#[derive(Debug)]
pub(crate) struct Definition {
    pub name: Arc<str>,
    pub span: Span,
    pub body: Node,
    pub parameters: Vec<Parameter>,
}

#[derive(Debug)]
pub(crate) enum Orb {
    Inline(Box<Library>),
    /// From the registry or a URL: not here.
    Missing {
        reference: Arc<str>,
        span: Span,
    },
}

/// Which table a name is looked up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Commands,
    Executors,
    Jobs,
}

/// What a name stands for.
pub(crate) enum Found<'a> {
    Here(&'a Library, &'a Definition),
    /// In an orb that is not here.
    Missing {
        orb: &'a str,
        element: String,
    },
    Nothing,
}

impl Part {
    fn key(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Executors => "executors",
            Self::Jobs => "jobs",
        }
    }

    pub fn noun(self) -> &'static str {
        match self {
            Self::Commands => "command",
            Self::Executors => "executor",
            Self::Jobs => "job",
        }
    }
}

impl Library {
    pub fn read(context: &Context<'_>, map: &Map, is_root: bool) -> Self {
        let table = |part| table(context, map, part);
        Self {
            is_root,
            commands: table(Part::Commands),
            executors: table(Part::Executors),
            jobs: table(Part::Jobs),
            job_groups: entries(context, map, "job-groups").iter().map(|e| (e.key.clone(), e.key_span)).collect(),
            orbs: entries(context, map, "orbs").iter().filter_map(|entry| orb(context, entry)).collect(),
        }
    }

    /// Looks up `name` or `orb/name`; says once of every orb that it is not here.
    pub fn find<'a>(&'a self, context: &Context<'_>, part: Part, name: &str) -> Found<'a> {
        if let Some(definition) = self.table(part).get(name) {
            return Found::Here(self, definition);
        }
        let Some((alias, element)) = name.split_once('/') else { return Found::Nothing };
        match self.orbs.get_key_value(alias) {
            Some((_, Orb::Inline(library))) => {
                library.table(part).get(element).map_or(Found::Nothing, |definition| Found::Here(library, definition))
            }
            Some((alias, Orb::Missing { reference, span })) => {
                context.report(missing_orb(alias, reference, *span, context.inputs.allow_missing_orbs));
                context.note_missing_orb(alias, reference);
                Found::Missing { orb: alias, element: element.to_owned() }
            }
            None => Found::Nothing,
        }
    }

    /// The known name nearest to one that stands for nothing.
    pub fn neighbour(&self, part: Part, name: &str) -> Option<String> {
        let mut known: Vec<String> = self.table(part).keys().map(ToString::to_string).collect();
        for (alias, orb) in &self.orbs {
            if let Orb::Inline(library) = orb {
                known.extend(library.table(part).keys().map(|element| format!("{alias}/{element}")));
            }
        }
        nearest(name, known.iter().map(String::as_str)).map(str::to_owned)
    }

    fn table(&self, part: Part) -> &Table {
        match part {
            Part::Commands => &self.commands,
            Part::Executors => &self.executors,
            Part::Jobs => &self.jobs,
        }
    }
}

fn table(context: &Context<'_>, map: &Map, part: Part) -> Table {
    entries(context, map, part.key())
        .iter()
        .filter_map(|entry| definition(context, entry, part))
        .map(|definition| (definition.name.clone(), definition))
        .collect()
}

/// The entries of a top-level map, which may be left empty.
fn entries<'m>(context: &Context<'_>, map: &'m Map, key: &str) -> &'m [Entry] {
    let Some(node) = map.get(key).filter(|node| !node.is_null()) else { return &[] };
    if let Some(inner) = node.as_map() {
        return &inner.entries;
    }
    let message = format!("`{key}` must be a map, but this is {}", node.describe());
    context.report(Diagnostic::error("wrong-shape", node.span, message));
    &[]
}

fn definition(context: &Context<'_>, entry: &Entry, part: Part) -> Option<Definition> {
    let owner = format!("{} `{}`", part.noun(), entry.key);
    let Some(body) = entry.value.as_map() else {
        let message = format!("{owner} must be a map, but this is {}", entry.value.describe());
        context.report(Diagnostic::error("wrong-shape", entry.key_span, message));
        return None;
    };
    let parameters =
        if context.templates { declarations(context, body, &owner, part == Part::Executors) } else { Vec::new() };
    Some(Definition { name: entry.key.clone(), span: entry.key_span, body: entry.value.clone(), parameters })
}

fn orb(context: &Context<'_>, entry: &Entry) -> Option<(Arc<str>, Orb)> {
    let alias = entry.key.clone();
    if let Some(map) = entry.value.as_map() {
        keys::check(context, map, &tables::ORB, "an orb");
        return Some((alias, Orb::Inline(Box::new(Library::read(context, map, false)))));
    }
    if let Some(reference) = entry.value.as_text() {
        return Some((alias, Orb::Missing { reference: reference.clone(), span: entry.key_span }));
    }
    let message = format!("orb `{alias}` must be `namespace/orb@version` or a map");
    context.report(Diagnostic::error("wrong-shape", entry.key_span, message));
    None
}

fn missing_orb(alias: &str, reference: &str, span: Span, allowed: bool) -> Diagnostic {
    if allowed {
        let message = format!("orb `{alias}` (`{reference}`) is not available here; what comes from it is left out");
        return Diagnostic::warning("missing-orb", span, message);
    }
    let message = format!("orb `{alias}` (`{reference}`) is not available here");
    let help = "orbs of a registry cannot be fetched yet; inline orbs work";
    Diagnostic::error("missing-orb", span, message).help(help)
}
