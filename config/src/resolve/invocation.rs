//! One item of a workflow's `jobs`: which job, how often, with what.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::bind::value_entry;
use super::group;
use super::job::JobUse;
use super::library::{Definition, Found, Group, Library, Part};
use super::matrix::{self, Combination, Matrix};
use super::plain::{PlainKind, PlainWorkflowJob};
use super::rules;
use super::scope::Scope;
use crate::diagnostic::{Diagnostic, Span};
use crate::keys::{self, Known as _, tables};
use crate::syntax::{Content, Entry, Map, Node};

const INDENT: &str = "what belongs to the job must be indented further than its name";

/// What the name of an invocation stands for.
enum Target<'a> {
    Approval,
    Job(&'a Library, &'a Definition),
    Group(&'a Group),
    /// Something from an orb that is not here.
    Missing {
        orb: Arc<str>,
        element: String,
    },
    Nothing,
}

/// An item taken apart.
struct Invocation<'i, 'a> {
    scope: &'i Scope<'a>,
    name: Arc<str>,
    span: Span,
    keys: Option<&'i Map>,
    target: Target<'a>,
}

/// Adds the jobs that `item` stands for.
pub(crate) fn expand(scope: &Scope<'_>, item: &Node, out: &mut Vec<PlainWorkflowJob>) {
    let Some((name, span, body)) = named(scope, item) else { return };
    let keys = body.and_then(Node::as_map);
    if let Some(body) = body
        && keys.is_none()
        && !body.is_null()
    {
        let message = format!("what follows job `{name}` must be a map, but this is {}", body.describe());
        return scope.report(Diagnostic::error("wrong-shape", body.span, message));
    }
    if let Some(keys) = keys {
        let new = ["name", "matrix", "pre-steps", "post-steps"];
        keys::check_version(scope.context, keys, &new, "of a workflow's job");
    }
    match target(scope, &name, span, keys) {
        Target::Group(group) => group::expand(scope, group, span, keys, out),
        target => Invocation { scope, name, span, keys, target }.expand(out),
    }
}

/// Name, place and what follows of an item of a list of jobs.
pub(super) fn named<'n>(scope: &Scope<'_>, item: &'n Node) -> Option<(Arc<str>, Span, Option<&'n Node>)> {
    match &item.content {
        Content::Map(map) => {
            let Some(entry) = map.entries.first() else {
                let message = "a job of a workflow is a name or a map with one key, the job's name";
                scope.report(Diagnostic::error("wrong-shape", item.span, message).help(INDENT));
                return None;
            };
            if let Some(further) = map.entries.get(1) {
                warn_of_further_keys(scope, map, further);
            }
            Some((entry.key.clone(), entry.key_span, Some(&entry.value)))
        }
        _ => match scope.substitute(item).as_text() {
            Some(name) => Some((name.clone(), item.span, None)),
            None => {
                let message = format!("a job of a workflow must have a name, but this is {}", item.describe());
                scope.report(Diagnostic::error("wrong-shape", item.span, message));
                None
            }
        },
    }
}

/// Only the first key counts: any other is ignored, also a filter that would keep the job from running.
fn warn_of_further_keys(scope: &Scope<'_>, map: &Map, further: &Entry) {
    let ignored: Vec<String> = map.entries.iter().skip(1).map(|entry| format!("`{}`", entry.key)).collect();
    let message = format!("a job of a workflow has one key, its name: beside it {} means nothing", ignored.join(", "));
    let diagnostic = Diagnostic::warning("job-not-single-key", further.key_span, message).label("ignored");
    scope.report(diagnostic.help(INDENT));
}

fn target<'a>(scope: &Scope<'a>, name: &str, span: Span, keys: Option<&Map>) -> Target<'a> {
    if let Some(group) = scope.library.job_groups.get(name) {
        return Target::Group(group);
    }
    if let Some(entry) = keys.and_then(|keys| keys.entry("type")) {
        if entry.value.as_text().is_some_and(|text| &**text == "approval") {
            keys.into_iter().for_each(|map| keys::check(scope.context, map, &tables::INVOCATION, "an approval"));
            return Target::Approval;
        }
        let message = "the only `type` that an invocation can have is `approval`";
        scope.report(Diagnostic::error("unknown-job-type", entry.value.span, message));
        return Target::Nothing;
    }
    if let Some(overriding) = overriding(scope, keys) {
        return overriding;
    }
    match scope.find(Part::Jobs, name) {
        Found::Here(library, definition) => Target::Job(library, definition),
        Found::Missing { orb, element } => Target::Missing { orb: orb.into(), element },
        Found::Broken(..) => Target::Nothing,
        Found::Nothing => {
            scope.nothing_named(Part::Jobs, name, span);
            Target::Nothing
        }
    }
}

/// The orb's job of `override-with`, if there is one; else the local definition counts.
fn overriding<'a>(scope: &Scope<'a>, keys: Option<&Map>) -> Option<Target<'a>> {
    let name = rules::text(scope, keys, "override-with")?;
    match scope.find(Part::Jobs, &name) {
        Found::Here(library, definition) => Some(Target::Job(library, definition)),
        Found::Missing { .. } | Found::Broken(..) | Found::Nothing => None,
    }
}

impl<'a> Invocation<'_, 'a> {
    fn expand(&self, out: &mut Vec<PlainWorkflowJob>) {
        let context = self.scope.context;
        let Some(node) = self.key("matrix") else {
            if context.job(self.name.len(), self.span) {
                out.push(self.one(self.scope, &Combination::new(), None));
            }
            return;
        };
        let Some(matrix) = matrix::expand(self.scope, node) else { return };
        self.warn_of_shadowed(&matrix);
        for combination in matrix.combinations {
            let values: usize = combination.values().map(|value| value.as_text().map_or(0, |text| text.len())).sum();
            if !context.job(self.name.len() + values, self.span) {
                return;
            }
            let combination = Rc::new(combination);
            let scope = self.scope.with_matrix(combination.clone());
            out.push(self.one(&scope, &combination, matrix.alias.as_ref()));
        }
    }

    fn one(&self, scope: &Scope<'a>, combination: &Combination, alias: Option<&Arc<str>>) -> PlainWorkflowJob {
        let text = |(name, value): (&Arc<str>, &Node)| (String::from(&**name), matrix::text(value));
        let matrix: BTreeMap<String, String> = combination.iter().map(text).collect();
        PlainWorkflowJob {
            name: rules::text(scope, self.keys, "name").unwrap_or_else(|| generated(&self.name, &matrix)),
            alias: alias.cloned(),
            definition: self.name.clone(),
            kind: self.kind(scope, combination),
            matrix,
            requires: rules::requires(scope, self.keys),
            filters: rules::filters(scope, self.keys),
            context: self.key("context").map(|node| scope.substitute(node)),
            serial_group: rules::serial_group(scope, self.keys),
            group: None,
            span: self.span,
            trail: scope.trail.clone(),
        }
    }

    fn kind(&self, scope: &Scope<'a>, combination: &Combination) -> PlainKind {
        match &self.target {
            Target::Approval => PlainKind::Approval,
            Target::Missing { orb, element } => PlainKind::Missing { orb: orb.clone(), element: element.clone() },
            // A group has been expanded by itself.
            Target::Group(_) | Target::Nothing => PlainKind::Broken,
            Target::Job(library, definition) => {
                let arguments = self.arguments(combination);
                let before = self.key("pre-steps");
                let after = self.key("post-steps");
                let mistakes = scope.context.mistakes();
                let job_use = JobUse { library, definition, caller: scope, at: self.span, arguments, before, after };
                let kind = job_use.resolve();
                if mistakes == scope.context.mistakes() {
                    self.check_steps(definition, &kind);
                }
                kind
            }
        }
    }

    /// A job must have a step also when all conditions are decided, as CircleCI wants it.
    fn check_steps(&self, definition: &Definition, kind: &PlainKind) {
        let context = self.scope.context;
        let is_written = definition.steps().is_some_and(|steps| !steps.is_broken());
        let is_left = !matches!(kind, PlainKind::Build(job) if job.steps.is_empty());
        if is_left || !is_written || context.is_full() || context.is_hopeless() {
            return;
        }
        let name = &definition.name;
        let message = format!("no step of job `{name}` is left when its conditions are decided");
        let help = "put a step beside the conditions, or a condition on the workflow";
        let told = Diagnostic::error("no-steps", self.span, message).help(help);
        self.scope.report(told.related(definition.span, format!("job `{name}` is defined here")));
    }

    /// Values of the matrix win over an argument of the same name.
    fn warn_of_shadowed(&self, matrix: &Matrix) {
        let Some(combination) = matrix.combinations.first() else { return };
        let entries = self.keys.map_or(&[][..], |keys| &keys.entries[..]);
        for entry in entries.iter().filter(|entry| self.is_argument(&entry.key) && combination.contains_key(&entry.key))
        {
            let message = format!("this argument counts for nothing: the values of `{}` in the matrix win", entry.key);
            self.scope.report(Diagnostic::warning("shadowed-argument", entry.key_span, message));
        }
    }

    /// The job's own parameters come first, also when they are called like a key of the invocation.
    fn is_argument(&self, key: &str) -> bool {
        let declares = match &self.target {
            Target::Job(_, definition) => definition.parameters.iter().any(|parameter| &*parameter.name == key),
            _ => false,
        };
        declares || !tables::INVOCATION.knows(key)
    }

    fn arguments(&self, combination: &Combination) -> Vec<Entry> {
        let entries = self.keys.map_or(&[][..], |keys| &keys.entries[..]);
        let own = entries.iter().filter(|entry| self.is_argument(&entry.key) && !combination.contains_key(&entry.key));
        own.cloned().chain(combination.iter().map(|(name, value)| value_entry(name, value))).collect()
    }

    fn key(&self, key: &str) -> Option<&Node> {
        keys::given(self.scope.context, self.keys?, key)
    }
}

/// Job and values, joined in the order of the parameters' names.
fn generated(job: &str, matrix: &BTreeMap<String, String>) -> Arc<str> {
    let parts: Vec<&str> = std::iter::once(job).chain(matrix.values().map(String::as_str)).collect();
    parts.join("-").into()
}
