//! Lists of steps written out: commands expanded, conditions decided, lists of steps spliced in.

use super::bind::{Call, entered};
use super::library::{Definition, Found, Library, Part};
use super::plain::{Action, BUILT_INS, BuiltIn, PlainStep};
use super::scope::{Bound, Scope};
use super::template;
use crate::diagnostic::{Diagnostic, Span};
use crate::keys::tables::LOGIC;
use crate::keys::{self, Known as _, tables};
use crate::neighbour::nearest;
use crate::syntax::{Content, Entry, Literal, Map, Node, Scalar};

const INDENT: &str = "what belongs to the step must be indented further than its name";

/// `run:` with nothing, and what it should hold beside it.
pub(super) fn is_unindented_run(map: &Map, first: &Entry) -> bool {
    first.value.is_null()
        && matches!(BuiltIn::named(&first.key), Some(BuiltIn::Run | BuiltIn::Deploy))
        && map.get("command").is_some()
}

fn keys_of(map: &Map) -> Vec<String> {
    map.entries.iter().map(|entry| format!("`{}`", entry.key)).collect()
}

impl<'a> Scope<'a> {
    /// Adds what `list` amounts to.
    pub fn expand(&self, list: &Node, out: &mut Vec<PlainStep>) {
        if let Some(Bound::Steps { steps, .. }) = self.bound_whole(list) {
            return self.splice(steps, list.span, out);
        }
        let Some(items) = list.as_list() else {
            if !list.is_broken() {
                let message = format!("steps must be a list, but this is {}", list.describe());
                self.report(Diagnostic::error("wrong-shape", list.span, message));
            }
            return;
        };
        self.context.deeper(list.span, || items.iter().for_each(|item| self.item(item, out)));
    }

    fn item(&self, item: &Node, out: &mut Vec<PlainStep>) {
        if !self.context.look(item.span) {
            return;
        }
        match &item.content {
            Content::Map(map) => match &map.entries[..] {
                [] => self.report(Diagnostic::error("empty-step", item.span, "this step is empty")),
                [entry] => self.step(&entry.key, entry.key_span, &entry.value, out),
                [entry, ..] if is_unindented_run(map, entry) => self.not_one_key(map, item.span),
                [entry, further, ..] => {
                    self.warn_of_further_keys(map, further);
                    self.step(&entry.key, entry.key_span, &entry.value, out);
                }
            },
            Content::Scalar(_) if !item.is_null() => self.bare(item, out),
            // A list inside of the list: an alias to several steps.
            Content::List(_) => self.expand(item, out),
            Content::Broken => {}
            Content::Scalar(_) => self.report(Diagnostic::error("empty-step", item.span, "this step is empty")),
        }
    }

    /// A name alone, or a parameter that holds steps.
    fn bare(&self, item: &Node, out: &mut Vec<PlainStep>) {
        if let Some(Bound::Steps { steps, .. }) = self.bound_whole(item) {
            return self.splice(steps, item.span, out);
        }
        let value = self.substitute(item);
        match value.as_text() {
            Some(name) => self.step(name, item.span, &Node::null(item.span), out),
            None => self.expand(&value, out),
        }
    }

    fn splice(&self, steps: &[PlainStep], span: Span, out: &mut Vec<PlainStep>) {
        if self.context.steps(steps.len(), span) {
            out.extend(steps.iter().cloned());
        }
    }

    fn step(&self, name: &str, span: Span, body: &Node, out: &mut Vec<PlainStep>) {
        match name {
            "when" | "unless" => return self.conditional(name, span, body, out),
            "steps" => return self.expand(body, out),
            _ => {}
        }
        match self.find(Part::Commands, name) {
            Found::Here(library, definition) => self.command(library, definition, span, body, out),
            Found::Missing { orb, element } => {
                let action = Action::Missing { orb: orb.to_owned(), command: element };
                out.push(PlainStep { action, span, body: self.substitute(body), trail: self.trail.clone() });
            }
            Found::Broken(..) => {}
            Found::Nothing => self.built_in(name, span, body, out),
        }
    }

    fn built_in(&self, name: &str, span: Span, body: &Node, out: &mut Vec<PlainStep>) {
        let Some(built_in) = BuiltIn::named(name) else {
            return self.unknown_step(name, span);
        };
        if !self.context.steps(1, span) {
            return;
        }
        let body = self.substitute(body);
        out.push(PlainStep { action: Action::BuiltIn(built_in), span, body, trail: self.trail.clone() });
    }

    fn command(
        &self,
        library: &'a Library,
        definition: &'a Definition,
        span: Span,
        body: &Node,
        out: &mut Vec<PlainStep>,
    ) {
        if self.trail.passes("command", definition.span) {
            let message = format!("command `{}` calls itself", definition.name);
            let diagnostic = Diagnostic::error("recursive-command", span, message);
            return self.report(diagnostic.related(definition.span, "it is defined here"));
        }
        self.context.mark_used(definition.span);
        if !self.context.call(span) {
            return;
        }
        let Some(arguments) = self.arguments(&definition.name, body) else { return };
        let trail = self.trail.enter("command", &definition.name, definition.span, span);
        let home = Scope::outermost(self.context, library).with_trail(trail);
        let call = Call {
            noun: "command",
            name: &definition.name,
            definition,
            caller: self,
            home: &home,
            at: span,
            keys: None,
        };
        let Some(bindings) = call.bind(&arguments) else { return };
        match definition.steps() {
            Some(steps) => entered(&home, bindings).expand(steps, out),
            None => {
                let message = format!("command `{}` has no `steps`", definition.name);
                self.context.report(Diagnostic::error("missing-key", definition.span, message));
            }
        }
    }

    /// The arguments of a command: a map, or nothing.
    fn arguments(&self, name: &str, body: &Node) -> Option<Vec<Entry>> {
        if let Some(map) = body.as_map() {
            return Some(map.entries.clone());
        }
        if body.is_null() {
            return Some(Vec::new());
        }
        if !body.is_broken() {
            let message = format!("the arguments of command `{name}` must be a map, but this is {}", body.describe());
            self.report(Diagnostic::error("wrong-shape", body.span, message));
        }
        None
    }

    fn conditional(&self, name: &str, span: Span, body: &Node, out: &mut Vec<PlainStep>) {
        let wanted = name == "when";
        let Some(map) = body.as_map() else {
            let message = format!("`{name}` takes a map with `condition` and `steps`");
            return self.report(Diagnostic::error("wrong-shape", span, message));
        };
        let (Some(condition), Some(steps)) = (map.get("condition"), map.get("steps")) else {
            let missing = if map.get("condition").is_none() { "condition" } else { "steps" };
            let diagnostic = Diagnostic::error("missing-key", span, format!("`{name}` has no `{missing}`"));
            let stray = map.entries.iter().find(|entry| missing == "condition" && LOGIC.knows(&entry.key));
            return self.report(match stray {
                Some(entry) => diagnostic.help(format!("put `{}` below a `condition`", entry.key)),
                None => diagnostic,
            });
        };
        keys::check(self.context, map, &tables::CONDITIONAL, if wanted { "a `when` step" } else { "an `unless` step" });
        self.warn_of_text(condition);
        match self.holds(condition) {
            Some(holds) if holds == wanted => self.conditional_steps(steps, out),
            _ => self.mention(steps),
        }
    }

    /// The steps of a condition may be none, or one alone.
    fn conditional_steps(&self, steps: &Node, out: &mut Vec<PlainStep>) {
        match &steps.content {
            Content::Map(_) => drop(self.context.deeper(steps.span, || self.item(steps, out))),
            _ if steps.is_null() => {}
            _ => self.expand(steps, out),
        }
    }

    /// People write expressions here, which stand for themselves and not for what they would mean elsewhere.
    pub fn warn_of_text(&self, condition: &Node) {
        let is_text = |scalar: &Scalar| matches!(scalar.literal(), Literal::Text(text) if !text.is_empty());
        if condition.as_scalar().is_some_and(|scalar| is_text(scalar) && template::is_literal(&scalar.text)) {
            let message = "this condition is a text, which always holds";
            let help = "a condition is `<< a value >>`, or one of `and`, `or`, `not`, `equal`, `matches`";
            self.report(Diagnostic::warning("constant-condition", condition.span, message).help(help));
        }
    }

    fn not_one_key(&self, map: &Map, span: Span) {
        let keys = keys_of(map);
        let message = format!("a step is a map with one key, but this one has {}: {}", keys.len(), keys.join(", "));
        self.report(Diagnostic::error("step-not-single-key", span, message).help(INDENT));
    }

    /// Only the first key counts: any other is ignored.
    pub(super) fn warn_of_further_keys(&self, map: &Map, further: &Entry) {
        let keys = keys_of(map);
        let message =
            format!("a step has one key, but this one has {}: {}; only the first counts", keys.len(), keys.join(", "));
        let diagnostic = Diagnostic::warning("step-not-single-key", further.key_span, message).label("ignored");
        self.report(diagnostic.help(INDENT));
    }

    pub(super) fn unknown_step(&self, name: &str, span: Span) {
        if let Some((orb, _)) = name.split_once('/')
            && !self.library.orbs.contains_key(orb)
        {
            let neighbour = nearest(name, self.library.orbs.keys().map(|key| &**key));
            let diagnostic = Diagnostic::error("unknown-orb", span, format!("there is no orb named `{orb}`"));
            return self.report(diagnostic.meant(neighbour));
        }
        let message = format!("cannot find a definition for a command or step named `{name}`");
        let built_in = nearest(name, BUILT_INS.iter().map(|(key, _)| *key).chain(["when", "unless", "steps"]));
        let command = self.library.neighbour(Part::Commands, name);
        let nearer = nearest(name, command.as_deref().into_iter().chain(built_in));
        self.report(Diagnostic::error("unknown-step", span, message).meant(nearer));
    }
}
