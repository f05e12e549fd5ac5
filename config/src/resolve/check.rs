//! What can be said of definitions without using them.
//!
//! Every template of every definition must name something in scope, and every step must exist, also where a condition
//! does not hold today. What no workflow uses is tried with its defaults, if it has one for every parameter.

use std::collections::HashMap;
use std::rc::Rc;

use super::bind::{Call, entered};
use super::expression::{self, Expression};
use super::job::JobUse;
use super::library::{Definition, Found, Library, Orb, Part, Table};
use super::plain::{BuiltIn, PlainJob, PlainKind, PlainStep};
use super::reach::Standing;
use super::scope::{Bindings, Bound, Scope, Site};
use super::steps::is_unindented_run;
use super::substitute::is_reference;
use super::template::{self, Segment};
use super::trail::Trail;
use crate::diagnostic::{Diagnostic, Span};
use crate::syntax::{Content, Map, Node};

/// What no workflow uses, written out, so that the next stage can check it, too.
#[derive(Default)]
pub(crate) struct Unused {
    pub jobs: Vec<(Standing, PlainJob)>,
    pub steps: Vec<(Standing, Vec<PlainStep>)>,
}

/// Checks all definitions of a library and of the orbs that are written out in it.
pub(crate) fn library<'a>(outermost: &Scope<'a>, library: &'a Library, unused: &mut Unused) {
    let scope = Scope::outermost(outermost.context, library);
    let tables: [(Part, &'a Table); 3] =
        [(Part::Commands, &library.commands), (Part::Executors, &library.executors), (Part::Jobs, &library.jobs)];
    for (part, table) in tables {
        for definition in table.values() {
            scope.context.within_definition(&definition.owner(part), definition.span, || {
                check(&scope, part, definition);
            });
        }
    }
    for part in Part::ALL {
        for (name, alias) in library.aliases(part) {
            let owner = format!("{} `{name}`", part.noun());
            scope.context.within_definition(&owner, alias.span, || drop(scope.find(part, name)));
        }
    }
    check_job_names(&scope, library);
    try_unused(&scope, unused);
    for orb in library.orbs.values() {
        if let Orb::Inline(inner) = orb {
            self::library(outermost, inner, unused);
        }
    }
}

/// Names of jobs differ by more than their case.
fn check_job_names(scope: &Scope<'_>, library: &Library) {
    let defined = library.jobs.iter().map(|(name, definition)| (name, definition.span));
    let aliases = library.aliases(Part::Jobs).iter().map(|(name, alias)| (name, alias.span));
    let mut known: HashMap<String, (&str, Span)> = HashMap::new();
    for (name, span) in defined.chain(aliases) {
        if let Some(other) = known.insert(name.to_lowercase(), (name, span)) {
            let this = (&**name, span);
            let (first, second) = if other.1.start < span.start { (other, this) } else { (this, other) };
            let message = format!("jobs `{}` and `{}` differ by their case alone", first.0, second.0);
            scope.report(Diagnostic::error("duplicate-name", second.1, message));
        }
    }
}

/// An executor is one of its kinds, whether a job uses it or not.
fn check_stanzas(scope: &Scope<'_>, definition: &Definition) {
    let Some(body) = definition.body.as_map() else { return };
    let mut stanzas = body.entries.iter().filter(|entry| matches!(&*entry.key, "docker" | "machine" | "macos"));
    let report = |code, span, message| {
        let trail = Trail::default().enter("executor", &definition.name, definition.span, definition.span);
        scope.with_trail(trail).report(Diagnostic::error(code, span, message));
    };
    match (stanzas.next(), stanzas.next()) {
        (None, _) => {
            let message = format!("executor `{}` has none of `docker`, `machine`, `macos`", definition.name);
            report("missing-executor", definition.span, message);
        }
        (Some(first), Some(second)) => {
            let message =
                format!("`{}` and `{}` exclude each other: a job runs in one executor", first.key, second.key);
            report("several-executors", second.key_span, message);
        }
        _ => {}
    }
}

fn check(scope: &Scope<'_>, part: Part, definition: &Definition) {
    let Some(body) = definition.body.as_map() else { return };
    let trail = Trail::default().enter(part.noun(), &definition.name, definition.span, definition.span);
    let placeholder = |span| Bound::Plain(Node::null(span));
    let parameters: Bindings<'_> =
        definition.parameters.iter().map(|parameter| (parameter.name.clone(), placeholder(parameter.span))).collect();
    let inside = Scope { parameters: Some(Rc::new(parameters)), ..scope.with_trail(trail) };
    if scope.context.templates {
        body.entries.iter().filter(|entry| &*entry.key != "parameters").for_each(|entry| inside.names(&entry.value));
    }
    if part == Part::Executors {
        check_stanzas(scope, definition);
    }
    if part != Part::Executors
        && let Some(steps) = body.get("steps")
    {
        inside.step_names(steps);
    }
}

impl Scope<'_> {
    /// Looks up every name in the templates below `node`.
    fn names(&self, node: &Node) {
        if !self.context.look(node.span) {
            return;
        }
        match &node.content {
            Content::Scalar(scalar) if template::is_literal(&scalar.text) => {}
            Content::Scalar(scalar) => match template::parse(&scalar.text) {
                Ok(segments) => self.segment_names(&segments, node.span),
                Err(problem) => self.template_problem(&problem, node.span),
            },
            Content::List(items) => items.iter().for_each(|item| self.names(item)),
            Content::Map(map) => map.entries.iter().for_each(|entry| match &*entry.key {
                "equal" => self.compared_names(&entry.value),
                _ => self.names(&entry.value),
            }),
            Content::Broken => {}
        }
    }

    /// What is compared may be a whole executor, whose templates mean what they mean there.
    fn compared_names(&self, node: &Node) {
        let items = node.as_list().unwrap_or_default();
        items.iter().filter(|item| item.as_scalar().is_some()).for_each(|item| self.names(item));
    }

    fn segment_names(&self, segments: &[Segment<'_>], span: Span) {
        for segment in segments {
            match segment {
                Segment::Literal(_) => {}
                Segment::Tag { content, raw } => self.tag_names(content, raw, span),
                Segment::Section { name, raw, inner, .. } => {
                    let _ = self.lookup(name, Site::new(span, raw));
                    self.segment_names(inner, span);
                }
            }
        }
    }

    fn tag_names(&self, content: &str, raw: &str, span: Span) {
        let at = Site::new(span, raw);
        if is_reference(content) || self.is_pipeline_parameter(content) {
            let _ = self.lookup(content, at);
        } else if let Ok(expression) = self.parse(content, at) {
            self.expression_names(&expression, content, at);
        }
    }

    fn expression_names(&self, expression: &Expression, text: &str, at: Site<'_>) {
        expression::names(expression, &mut |name, part| {
            let _ = self.lookup(name, at.part(text, part));
        });
    }

    /// Looks up the name of every step, conditions or not.
    fn step_names(&self, list: &Node) {
        for item in list.as_list().unwrap_or_default() {
            match &item.content {
                Content::Map(map) => self.step_map(map),
                Content::Scalar(scalar) if template::is_literal(&scalar.text) && !item.is_null() => {
                    self.step_name(&scalar.text, item.span);
                }
                Content::List(_) => self.step_names(item),
                Content::Scalar(_) | Content::Broken => {}
            }
        }
    }

    fn step_map(&self, map: &Map) {
        let Some(entry) = map.entries.first() else { return };
        if let Some(further) = map.entries.get(1).filter(|_| !is_unindented_run(map, entry)) {
            self.warn_of_further_keys(map, further);
        }
        match &*entry.key {
            "when" | "unless" => {
                let steps = entry.value.as_map().and_then(|map| map.get("steps"));
                match steps.map(|steps| (steps, steps.as_map())) {
                    Some((_, Some(step))) => self.step_map(step),
                    Some((steps, None)) => self.step_names(steps),
                    None => {}
                }
            }
            "steps" => self.step_names(&entry.value),
            name => self.step_name(name, entry.key_span),
        }
    }

    fn step_name(&self, name: &str, span: Span) {
        // Mistakes in these are reported where they are expanded.
        let known = BuiltIn::named(name).is_some() || matches!(name, "when" | "unless" | "steps");
        if matches!(self.find(Part::Commands, name), Found::Nothing) && !known {
            self.unknown_step(name, span);
        }
    }
}

fn try_unused<'a>(scope: &Scope<'a>, unused: &mut Unused) {
    let tried = |definition: &&Definition| {
        !scope.context.is_used(definition.span) && definition.parameters.iter().all(|p| p.default.is_some())
    };
    for definition in scope.library.jobs.values().filter(tried) {
        let standing = scope.context.standing_of(&definition.owner(Part::Jobs), definition.span);
        if let PlainKind::Build(job) = scope.context.within(standing.clone(), || unused_job(scope, definition)) {
            unused.jobs.push((standing, job));
        }
    }
    for definition in scope.library.commands.values().filter(tried) {
        let standing = scope.context.standing_of(&definition.owner(Part::Commands), definition.span);
        let mut steps = Vec::new();
        scope.context.within(standing.clone(), || unused_command(scope, definition, &mut steps));
        unused.steps.push((standing, steps));
    }
}

fn unused_job<'a>(scope: &Scope<'a>, definition: &'a Definition) -> PlainKind {
    let (library, at) = (scope.library, definition.span);
    JobUse { library, definition, caller: scope, at, arguments: Vec::new(), before: None, after: None }.resolve()
}

fn unused_command<'a>(scope: &Scope<'a>, definition: &'a Definition, steps: &mut Vec<PlainStep>) {
    let trail = Trail::default().enter("command", &definition.name, definition.span, definition.span);
    let home = scope.with_trail(trail);
    let name = &definition.name;
    let call = Call { noun: "command", name, definition, caller: scope, home: &home, at: definition.span, keys: None };
    let list = definition.body.as_map().and_then(|body| body.get("steps"));
    if let (Some(bindings), Some(list)) = (call.bind(&[]), list) {
        entered(&home, bindings).expand(list, steps);
    }
}
