//! Importing orbs: references read, sources asked for, files parsed, each once.
//!
//! ```text
//! orbs: entry ─▶ map ─────────────────────────▶ Library
//!         └────▶ text ─▶ reference ─▶ source ─▶ file ─▶ Library     wrong, or not here: Orb::Missing, and reported
//! ```
//!
//! An orb sees its own elements and those of the orbs it imports, and no others.

use std::rc::Rc;
use std::sync::Arc;

use super::context::{Context, Import};
use super::library::{Library, Orb};
use super::scope::Scope;
use crate::diagnostic::{Diagnostic, Report, Span};
use crate::keys::{self, tables};
use crate::orb::{ImportedOrb, NoOrb, OrbReference, OrbText};
use crate::syntax::{self, Entry, Map, Node};

/// How many orbs may lie inside each other.
const DEEPEST: usize = 5;
/// Orbs by address that one config may name.
const MOST_URLS: usize = 50;
/// The way from the config to the library that is being read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Home {
    /// Orbs around it, inline ones, too.
    depth: usize,
    /// Those of them that were imported, by exact reference.
    path: Vec<OrbReference>,
    /// Its file, as spans count them.
    file: u32,
    in_orb: bool,
}

impl Home {
    /// The home of an orb's file that is looked at by itself.
    pub fn of_orb() -> Self {
        Self { depth: 1, in_orb: true, ..Self::default() }
    }

    /// The config itself: pipeline parameters are in scope in the config, not in orbs.
    pub fn is_root(&self) -> bool {
        !self.in_orb
    }

    fn deeper(&self) -> Self {
        Self { depth: self.depth + 1, in_orb: true, ..self.clone() }
    }

    fn into(&self, resolved: OrbReference, file: u32) -> Self {
        let path = self.path.iter().cloned().chain([resolved]).collect();
        Self { path, file, ..self.deeper() }
    }
}

/// The orb of one entry of `orbs:`.
pub(super) fn orb(context: &Context<'_>, entry: &Entry, home: &Home) -> Option<(Arc<str>, Orb)> {
    let alias = entry.key.clone();
    if context.is_hopeless() || !context.look(entry.key_span) {
        return None;
    }
    if !context.templates {
        // Version 2 has none, which has been reported.
        return Some((alias, Orb::Missing));
    }
    if home.depth >= DEEPEST {
        context.report(too_deep(entry));
        return Some((alias, Orb::Missing));
    }
    if let Some(map) = entry.value.as_map() {
        return Some((alias, Orb::Inline(Rc::new(read(context, map, &home.deeper())))));
    }
    let library = import(context, entry, home);
    Some((alias, library.map_or(Orb::Missing, Orb::Imported)))
}

/// `None` when it is not here or wrong, which has been reported.
fn import(context: &Context<'_>, entry: &Entry, home: &Home) -> Option<Rc<Library>> {
    let reference = reference(context, entry, home)?;
    let found = match &context.inputs.orbs {
        Some(source) => source.find(&reference),
        None => Err(NoOrb::Missing { help: "inline orbs work".to_owned() }),
    };
    let resolved = found.as_ref().ok().map(|text| text.resolved.clone());
    let alias = entry.key.to_string();
    context.imported(ImportedOrb { alias, reference: reference.clone(), resolved, importer: home.file });
    match found {
        Ok(text) => library(context, entry, text, home),
        Err(reason) => {
            context.report(no_orb(context, entry, &reference, reason));
            None
        }
    }
}

/// The reference as it is once the pipeline's parameters are known.
fn reference(context: &Context<'_>, entry: &Entry, home: &Home) -> Option<OrbReference> {
    let library = Library { is_root: home.is_root(), ..Library::default() };
    let value = Scope::outermost(context, &library).substitute(&entry.value);
    if value.is_broken() {
        return None;
    }
    let Some(text) = value.as_text() else {
        let message = format!("orb `{}` must be a reference or a map, but this is {}", entry.key, value.describe());
        context.report(Diagnostic::error("wrong-shape", entry.key_span, message).help(FORM));
        return None;
    };
    let reference = text.parse().map_err(|why| {
        let message = format!("`{text}` is not a reference to an orb: it {why}");
        context.report(Diagnostic::error("orb-reference", entry.value.span, message).help(FORM));
    });
    let reference = reference.ok()?;
    if matches!(reference, OrbReference::Url(_)) && home.is_root() && context.count_url_orb() == MOST_URLS + 1 {
        let message = format!("a config can name {MOST_URLS} orbs by address and no more");
        context.report(Diagnostic::error("too-many-url-orbs", entry.key_span, message));
    }
    Some(reference)
}

const FORM: &str = "write `namespace/orb@VERSION`, where VERSION is 1, 1.2, 1.2.3, volatile or dev:LABEL";

fn no_orb(context: &Context<'_>, entry: &Entry, reference: &OrbReference, reason: NoOrb) -> Diagnostic {
    let alias = &entry.key;
    match reason {
        NoOrb::Missing { .. } if context.inputs.allow_missing_orbs => {
            if entry.key_span.file == 0 {
                context.note_missing_orb(alias, &reference.to_string().into());
            }
            let message = format!("orb `{alias}` (`{reference}`) is not here; what comes from it is left out");
            Diagnostic::warning("missing-orb", entry.key_span, message)
        }
        NoOrb::Missing { help } => {
            let message = format!("orb `{alias}` (`{reference}`) is not here");
            Diagnostic::error("missing-orb", entry.key_span, message).help(help)
        }
        NoOrb::Refused { message, help } => {
            let message = format!("orb `{alias}` (`{reference}`) cannot be used: {message}");
            Diagnostic::error("refused-orb", entry.key_span, message).help(help)
        }
    }
}

fn library(context: &Context<'_>, entry: &Entry, text: OrbText, home: &Home) -> Option<Rc<Library>> {
    let resolved = text.resolved.clone();
    if let Some(first) = home.path.iter().position(|outer| *outer == resolved) {
        let cycle: Vec<String> = home.path[first..].iter().chain([&resolved]).map(ToString::to_string).collect();
        let message = format!("these orbs import each other: {}", cycle.join(" → "));
        context.report(Diagnostic::error("cyclic-orbs", entry.key_span, message));
        return None;
    }
    if let Some(known) = context.known_orb(&resolved) {
        if known.as_ref().is_some_and(|library| home.depth + 1 + library.height > DEEPEST) {
            context.report(too_deep(entry));
        }
        return known;
    }
    let source = text.file.text.clone();
    let import = Import { alias: entry.key.clone(), resolved: resolved.clone(), span: entry.key_span };
    let file = context.add_file(text.file, import);
    let root = if context.spend(source.len(), entry.key_span) { parsed(context, &source, file) } else { None };
    let inside = home.into(resolved.clone(), file);
    let library = root.as_ref().and_then(Node::as_map).map(|map| Rc::new(read(context, map, &inside)));
    context.keep_orb(resolved, library.clone());
    library
}

fn too_deep(entry: &Entry) -> Diagnostic {
    let message = format!("with orb `{}` more than {DEEPEST} orbs lie inside each other", entry.key);
    Diagnostic::error("orbs-too-deep", entry.key_span, message)
}

fn parsed(context: &Context<'_>, text: &str, file: u32) -> Option<Node> {
    context.reporting(|report| {
        let root = syntax::parse(text, file, report);
        if report.errors() == 0 { top(root, file, report) } else { None }
    })
}

/// The top of an orb's file, if it is one; what it is instead is reported.
pub(crate) fn top(root: Option<Node>, file: u32, report: &mut Report) -> Option<Node> {
    const ELEMENTS: [&str; 4] = ["commands", "jobs", "executors", "orbs"];
    let map = root.as_ref().and_then(Node::as_map);
    let span = root.as_ref().map_or(Span { file, ..Span::default() }, |root| root.span);
    let (span, message) = match map.and_then(|map| map.entry("workflows")) {
        Some(entry) => (entry.key_span, "this is a config, not an orb: an orb has no `workflows`"),
        None if map.is_some_and(|map| ELEMENTS.iter().any(|key| map.get(key).is_some())) => return root,
        None => (span, "this is not an orb: an orb is a map with `commands`, `jobs`, `executors` or `orbs`"),
    };
    report.push(Diagnostic::error("no-orb", span, message));
    None
}

/// The elements of an orb that stands alone in its file.
pub(crate) fn read(context: &Context<'_>, map: &Map, home: &Home) -> Library {
    keys::check(context, map, &tables::ORB, "an orb");
    Library::read(context, map, home)
}
