//! Definitions by name: of the config itself, and of every orb.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::context::Context;
use super::orb::{self, Home};
use super::parameter::{Parameter, declarations};
use crate::diagnostic::{Diagnostic, Span};
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
    pub(super) aliases: [Aliases; Part::ALL.len()],
    pub job_groups: BTreeMap<Arc<str>, Group>,
    pub orbs: BTreeMap<Arc<str>, Orb>,
    /// How many orbs lie inside each other here.
    pub height: usize,
}

pub(crate) type Table = BTreeMap<Arc<str>, Definition>;

/// An entry that defines nothing by itself, by its name in the config.
pub(super) type Aliases = BTreeMap<Arc<str>, Alias>;

/// `mine: orb/theirs`: a name for an orb's element.
#[derive(Debug)]
pub(crate) struct Alias {
    pub span: Span,
    /// As written; `None` for an entry of the wrong shape, which has been reported.
    pub target: Option<(Arc<str>, Span)>,
}

/// A command, an executor or a job as it was written.
#[derive(Debug)]
pub(crate) struct Definition {
    pub name: Arc<str>,
    pub span: Span,
    pub body: Node,
    pub parameters: Vec<Parameter>,
}

impl Definition {
    /// What messages call it: "command `x`".
    pub fn owner(&self, part: Part) -> String {
        format!("{} `{}`", part.noun(), self.name)
    }

    /// Its list of steps, unless that is empty.
    pub fn steps(&self) -> Option<&Node> {
        let steps = self.body.as_map()?.get("steps")?;
        steps.as_list().is_none_or(|items| !items.is_empty()).then_some(steps)
    }
}

#[derive(Debug)]
pub(crate) enum Orb {
    /// Written out where it is imported.
    Inline(Rc<Library>),
    /// Read from a file of its own, which others may import, too.
    Imported(Rc<Library>),
    /// Not here, or wrong: that has been reported.
    Missing,
}

impl Orb {
    fn library(&self) -> Option<&Library> {
        match self {
            Self::Inline(library) | Self::Imported(library) => Some(library),
            Self::Missing => None,
        }
    }
}

/// A job group as it was written.
#[derive(Debug)]
pub(crate) struct Group {
    pub name: Arc<str>,
    pub span: Span,
    pub body: Node,
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
    /// The name leads into an orb that is not here.
    Missing {
        orb: &'a str,
        element: String,
    },
    /// The entry is wrong, or the name of something that is not there.
    Broken(&'a Library, &'a Alias),
    Nothing,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Commands, Self::Executors, Self::Jobs];

    fn key(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Executors => "executors",
            Self::Jobs => "jobs",
        }
    }

    /// The noun with its article.
    fn one(self) -> &'static str {
        match self {
            Self::Commands => "a command",
            Self::Executors => "an executor",
            Self::Jobs => "a job",
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
    pub fn read(context: &Context<'_>, map: &Map, home: &Home) -> Self {
        let [commands, executors, jobs] = Part::ALL.map(|part| table(context, map, part));
        let orbs: BTreeMap<_, _> =
            entries(context, map, "orbs").iter().filter_map(|entry| orb::orb(context, entry, home)).collect();
        let heights = orbs.values().map(|orb| 1 + orb.library().map_or(0, |library| library.height));
        Self {
            height: heights.max().unwrap_or(0),
            is_root: home.is_root(),
            commands: commands.0,
            executors: executors.0,
            jobs: jobs.0,
            aliases: [commands.1, executors.1, jobs.1],
            job_groups: entries(context, map, "job-groups").iter().map(group).collect(),
            orbs,
        }
    }

    /// Looks up `name` or `orb/name`.
    pub fn find(&self, part: Part, name: &str) -> Found<'_> {
        match self.find_own(part, name) {
            Found::Nothing => self.find_in_orb(part, name),
            found => found,
        }
    }

    /// Orbs contain each other but never in a circle, so aliases of aliases end.
    fn find_own(&self, part: Part, name: &str) -> Found<'_> {
        if let Some(definition) = self.table(part).get(name) {
            return Found::Here(self, definition);
        }
        let Some(alias) = self.aliases(part).get(name) else { return Found::Nothing };
        match alias.target.as_ref().map(|(target, _)| self.find_in_orb(part, target)) {
            Some(Found::Nothing) | None => Found::Broken(self, alias),
            Some(found) => found,
        }
    }

    fn find_in_orb(&self, part: Part, name: &str) -> Found<'_> {
        let Some((alias, element)) = name.split_once('/') else { return Found::Nothing };
        let Some((alias, orb)) = self.orbs.get_key_value(alias) else { return Found::Nothing };
        match orb.library() {
            Some(library) => library.find_own(part, element),
            None => Found::Missing { orb: alias, element: element.to_owned() },
        }
    }

    /// The known name nearest to one that stands for nothing.
    pub fn neighbour(&self, part: Part, name: &str) -> Option<String> {
        let mut known: Vec<String> = self.names(part).map(ToString::to_string).collect();
        for (alias, orb) in &self.orbs {
            if let Some(library) = orb.library() {
                known.extend(library.names(part).map(|element| format!("{alias}/{element}")));
            }
        }
        nearest(name, known.iter().map(String::as_str)).map(str::to_owned)
    }

    /// Names of definitions and aliases.
    fn names(&self, part: Part) -> impl Iterator<Item = &Arc<str>> {
        self.table(part).keys().chain(self.aliases(part).keys())
    }

    /// Entries that only name a definition elsewhere.
    pub fn aliases(&self, part: Part) -> &Aliases {
        &self.aliases[part as usize]
    }

    fn table(&self, part: Part) -> &Table {
        match part {
            Part::Commands => &self.commands,
            Part::Executors => &self.executors,
            Part::Jobs => &self.jobs,
        }
    }
}

fn group(entry: &Entry) -> (Arc<str>, Group) {
    (entry.key.clone(), Group { name: entry.key.clone(), span: entry.key_span, body: entry.value.clone() })
}

fn table(context: &Context<'_>, map: &Map, part: Part) -> (Table, Aliases) {
    let (mut table, mut aliases) = (Table::new(), Aliases::new());
    for entry in entries(context, map, part.key()) {
        let owner = format!("{} `{}`", part.noun(), entry.key);
        let read = context.reading(entry.key_span, &owner, || definition(context, entry, part, &owner));
        match read {
            Ok(definition) => drop(table.insert(entry.key.clone(), definition)),
            Err(alias) => drop(aliases.insert(entry.key.clone(), alias)),
        }
    }
    (table, aliases)
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

/// A definition, or a name for one of an orb.
fn definition(context: &Context<'_>, entry: &Entry, part: Part, owner: &str) -> Result<Definition, Alias> {
    let Some(body) = entry.value.as_map() else { return Err(alias(context, entry, part, owner)) };
    let parameters =
        if context.templates { declarations(context, body, owner, part == Part::Executors) } else { Vec::new() };
    Ok(Definition { name: entry.key.clone(), span: entry.key_span, body: entry.value.clone(), parameters })
}

fn alias(context: &Context<'_>, entry: &Entry, part: Part, owner: &str) -> Alias {
    let target = entry.value.as_text().filter(|text| context.templates && text.contains('/'));
    if target.is_none() && !entry.value.is_broken() {
        let message = format!("{owner} must be a map, but this is {}", entry.value.describe());
        let diagnostic = Diagnostic::error("wrong-shape", entry.key_span, message);
        let is_text = context.templates && entry.value.as_text().is_some();
        let help = format!("the name of {} of an orb can stand here: `orb/{}`", part.one(), part.noun());
        context.report(if is_text { diagnostic.help(help) } else { diagnostic });
    }
    Alias { span: entry.key_span, target: target.map(|text| (text.clone(), entry.value.span)) }
}
