//! What leads where: which definitions a workflow uses, and how much a mistake in each matters.
//!
//! ```text
//! workflow that may run ──────▶ definitions that it uses      a mistake is an error
//! workflow that its own
//! condition leaves out ───────▶ definitions that it uses      a warning
//! nothing ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ▶ all others                    an error, or a warning where the user wants to run
//! ```
//!
//! Steps count as used also where a condition leaves them out today.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use super::context::Context;
use super::library::{Definition, Found, Library, Part};
use super::scope::Scope;
use super::template;
use crate::diagnostic::{Diagnostic, Related, Severity, Span};
use crate::syntax::{Content, Entry, Node};

/// How near to a run something is, the farthest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reach {
    /// No workflow leads there.
    None,
    /// Workflows do that their own conditions leave out, and no others.
    Left,
    /// A workflow does that may run.
    Full,
}

/// What the part of a config that is being looked at is to the pipeline.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub reach: Reach,
    /// Why a mistake there matters less, for its author.
    why: Option<Related>,
}

impl Standing {
    pub const FULL: Self = Self { reach: Reach::Full, why: None };

    /// Inside of a workflow that its own condition leaves out.
    pub fn left(workflow: &str, span: Span) -> Self {
        let text = format!("a warning alone, as its own condition leaves out workflow `{workflow}`");
        Self { reach: Reach::Left, why: Some(Related { text, span }) }
    }

    /// Inside of a definition, `owner`, that is reached so far.
    fn of(reach: Reach, owner: &str, span: Span) -> Self {
        let text = match reach {
            Reach::Full => return Self::FULL,
            Reach::Left => format!("a warning alone, as no workflow that may run uses {owner}"),
            Reach::None => format!("a warning alone, as no workflow uses {owner}"),
        };
        Self { reach, why: Some(Related { text, span }) }
    }

    /// A mistake that concerns no run, as a warning that says why it is not an error.
    pub fn lighter(&self, diagnostic: Diagnostic) -> Diagnostic {
        let diagnostic = Diagnostic { severity: Severity::Warning, ..diagnostic };
        match &self.why {
            Some(why) => diagnostic.related(why.span, why.text.clone()),
            None => diagnostic,
        }
    }
}

/// Mistakes of definitions that are kept until it is known who uses them; of further ones the file is refused anyway.
const MOST_HELD: usize = 1_000;

/// A definition by its file and where it starts.
type Id = (u32, usize);

fn id(span: Span) -> Id {
    (span.file, span.start)
}

/// A mistake found while a definition was read, before anything could use it.
struct Held {
    definition: Span,
    owner: String,
    diagnostic: Diagnostic,
}

/// What is known so far of what leads where.
pub(super) struct Reached {
    standing: RefCell<Standing>,
    definitions: RefCell<HashMap<Id, Reach>>,
    /// Those of them that were written out.
    expanded: RefCell<HashSet<Id>>,
    /// Lists of steps that were looked through for names, and how near they were to a run.
    mentions: RefCell<HashSet<(Id, Reach)>>,
    /// The definition that is being read.
    reading: RefCell<Option<(Span, String)>>,
    held: RefCell<Vec<Held>>,
    /// Mistakes that became warnings.
    lighter: Cell<usize>,
}

impl Default for Reached {
    fn default() -> Self {
        Self {
            standing: RefCell::new(Standing::FULL),
            definitions: RefCell::default(),
            expanded: RefCell::default(),
            mentions: RefCell::default(),
            reading: RefCell::default(),
            held: RefCell::default(),
            lighter: Cell::new(0),
        }
    }
}

impl Reached {
    /// Whether a mistake is reported now, and how much it matters.
    pub fn weigh(&self, diagnostic: Diagnostic, tolerates_unreached: bool) -> Option<Diagnostic> {
        if diagnostic.severity != Severity::Error {
            return Some(diagnostic);
        }
        if let Some((definition, owner)) = &*self.reading.borrow() {
            let mut held = self.held.borrow_mut();
            if held.len() < MOST_HELD {
                held.push(Held { definition: *definition, owner: owner.clone(), diagnostic });
                return None;
            }
            return Some(diagnostic);
        }
        let standing = self.standing.borrow();
        match standing.reach {
            Reach::Full => Some(diagnostic),
            Reach::None if !tolerates_unreached => Some(diagnostic),
            Reach::Left | Reach::None => {
                self.lighter.set(self.lighter.get() + 1);
                Some(standing.lighter(diagnostic))
            }
        }
    }

    /// How many mistakes are warnings where we are. Elsewhere none of them counts.
    pub fn lighter(&self) -> usize {
        if self.standing.borrow().reach == Reach::Full { 0 } else { self.lighter.get() }
    }
}

impl Context<'_> {
    /// Does `work` where a mistake counts as `standing` says.
    pub fn within<T>(&self, standing: Standing, work: impl FnOnce() -> T) -> T {
        let outer = self.reached.standing.replace(standing);
        let result = work();
        self.reached.standing.replace(outer);
        result
    }

    /// Does `work`; are there mistakes in it that became warnings, so that what comes out is not whole?
    pub fn flawed<T>(&self, standing: Standing, work: impl FnOnce() -> T) -> (T, bool) {
        self.within(standing, || {
            let before = self.reached.lighter.get();
            let result = work();
            (result, self.reached.lighter.get() > before || self.is_hopeless())
        })
    }

    /// Looks at a definition, `owner`, by itself: a mistake counts as much as the definition does.
    pub fn within_definition<T>(&self, owner: &str, span: Span, work: impl FnOnce() -> T) -> T {
        self.within(self.standing_of(owner, span), work)
    }

    /// What a definition, `owner`, is to the pipeline, as far as is known now.
    pub fn standing_of(&self, owner: &str, span: Span) -> Standing {
        Standing::of(self.reach_of(span), owner, span)
    }

    /// Reads a definition, `owner`, whose users are not known yet: its mistakes are kept until
    /// [`Self::tell_held`].
    pub fn reading<T>(&self, definition: Span, owner: &str, work: impl FnOnce() -> T) -> T {
        let outer = self.reached.reading.replace(Some((definition, owner.to_owned())));
        let result = work();
        self.reached.reading.replace(outer);
        result
    }

    /// Tells the mistakes of definitions that were kept, now that all uses are known.
    pub fn tell_held(&self) {
        for Held { definition, owner, diagnostic } in self.reached.held.take() {
            self.within_definition(&owner, definition, || self.report_at_its_place(diagnostic));
        }
    }

    /// What is being looked at uses a definition, which is written out there.
    pub fn mark_used(&self, definition: Span) {
        self.reached.expanded.borrow_mut().insert(id(definition));
        self.mark_named(definition);
    }

    /// What is being looked at names a definition.
    pub fn mark_named(&self, definition: Span) {
        let reach = self.reached.standing.borrow().reach;
        let mut known = self.reached.definitions.borrow_mut();
        let best = known.entry(id(definition)).or_insert(reach);
        *best = reach.max(*best);
    }

    /// Has it been written out for anything so far, be it for what nothing uses itself?
    pub fn is_used(&self, definition: Span) -> bool {
        self.reached.expanded.borrow().contains(&id(definition))
    }

    fn reach_of(&self, definition: Span) -> Reach {
        self.reached.definitions.borrow().get(&id(definition)).copied().unwrap_or(Reach::None)
    }

    /// Have these steps not been looked through for names yet, from a place that is as near to a run as this one?
    fn first_mention(&self, steps: Span) -> bool {
        let reach = self.reached.standing.borrow().reach;
        self.reached.mentions.borrow_mut().insert((id(steps), reach))
    }
}

impl<'a> Scope<'a> {
    /// Marks the commands that `steps` name, and those that these name, although no step of it is written out.
    pub fn mention(&self, steps: &Node) {
        if !self.context.first_mention(steps.span) {
            return;
        }
        let mut open = Vec::new();
        self.mentioned(steps, &mut open);
        while let Some((library, definition)) = open.pop() {
            if let Some(steps) = definition.steps().filter(|steps| self.context.first_mention(steps.span)) {
                Scope::outermost(self.context, library).mentioned(steps, &mut open);
            }
        }
    }

    fn mentioned(&self, steps: &Node, open: &mut Vec<(&'a Library, &'a Definition)>) {
        if !self.context.look(steps.span) {
            return;
        }
        match &steps.content {
            Content::List(items) => items.iter().for_each(|item| self.mentioned(item, open)),
            Content::Map(map) => {
                if let Some(entry) = map.entries.first() {
                    self.mentioned_entry(entry, open);
                }
            }
            Content::Scalar(scalar) if template::is_literal(&scalar.text) => self.mentioned_name(&scalar.text, open),
            Content::Scalar(_) | Content::Broken => {}
        }
    }

    fn mentioned_entry(&self, entry: &Entry, open: &mut Vec<(&'a Library, &'a Definition)>) {
        match &*entry.key {
            "when" | "unless" => {
                if let Some(steps) = entry.value.as_map().and_then(|map| map.get("steps")) {
                    self.mentioned(steps, open);
                }
            }
            "steps" => self.mentioned(&entry.value, open),
            name => self.mentioned_name(name, open),
        }
    }

    fn mentioned_name(&self, name: &str, open: &mut Vec<(&'a Library, &'a Definition)>) {
        if let Found::Here(library, definition) = self.find(Part::Commands, name) {
            self.context.mark_named(definition.span);
            open.push((library, definition));
        }
    }
}
