//! A job with its parameters given: keys replaced, executor found, steps written out.

use std::sync::Arc;

use super::bind::{Call, entered};
use super::library::{Definition, Library};
use super::plain::{PlainExecutor, PlainJob, PlainKind, PlainStep};
use super::scope::Scope;
use super::trail::Trail;
use crate::diagnostic::{Diagnostic, Span};
use crate::keys::tables::{self, JOB_TYPES};
use crate::keys::{self, Known as _, Rules};
use crate::neighbour::nearest;
use crate::syntax::{Entry, Map, Node};

/// One use of a job.
pub(crate) struct JobUse<'u, 'a> {
    pub library: &'a Library,
    pub definition: &'a Definition,
    /// The scope of the invocation.
    pub caller: &'u Scope<'a>,
    pub at: Span,
    pub arguments: Vec<Entry>,
    pub before: Option<&'u Node>,
    pub after: Option<&'u Node>,
}

impl<'a> JobUse<'_, 'a> {
    pub fn resolve(&self) -> PlainKind {
        let Some(body) = self.definition.body.as_map() else { return PlainKind::Broken };
        self.caller.context.mark_used(self.definition.span);
        keys::check_rules(self.caller.context, body, &tables::JOB, &Rules::OF_JOB, "a job");
        keys::check_version(self.caller.context, body, &["parameters", "executor"], "in a job");
        let home = self.home();
        let call = Call {
            noun: "job",
            name: &self.definition.name,
            definition: self.definition,
            caller: self.caller,
            home: &home,
            at: self.at,
            keys: Some(&tables::INVOCATION),
        };
        let Some(bindings) = call.bind(&self.arguments) else { return PlainKind::Broken };
        let inside = entered(&home, bindings);
        match job_type(&inside, body).as_deref() {
            Some("build") => PlainKind::Build(self.build(body, &inside)),
            Some("approval") => PlainKind::Approval,
            Some("no-op") => PlainKind::NoOp,
            Some(other) => {
                required_key(&inside, body, self.definition, other);
                PlainKind::OfType { name: other.into(), entries: plain_entries(body, &inside) }
            }
            None => PlainKind::Broken,
        }
    }

    /// The job is where a trail starts: the same problem is reported once, however many workflows use the job.
    fn home(&self) -> Scope<'a> {
        let trail = Trail::default().enter("job", &self.definition.name, self.definition.span, self.at);
        Scope::outermost(self.caller.context, self.library).with_trail(trail)
    }

    fn build(&self, body: &Map, inside: &Scope<'a>) -> PlainJob {
        let mut steps = Vec::new();
        self.wrapped(self.before, &mut steps);
        match self.definition.steps() {
            Some(list) => inside.expand(list, &mut steps),
            None => {
                let message = format!("job `{}` has no `steps`", self.definition.name);
                inside.context.report(Diagnostic::error("missing-key", self.definition.span, message));
            }
        }
        self.wrapped(self.after, &mut steps);
        let executor = match keys::given(inside.context, body, "executor") {
            Some(node) => inside.executor_use(node).map_or(PlainExecutor::Broken, |used| used.resolve()),
            None => PlainExecutor::None,
        };
        let trail = inside.trail.clone();
        PlainJob { span: self.definition.span, entries: plain_entries(body, inside), executor, steps, trail }
    }

    /// Steps of the invocation, which mean what they mean there.
    fn wrapped(&self, list: Option<&Node>, steps: &mut Vec<PlainStep>) {
        if let Some(list) = list {
            let trail = Trail::default().enter("job", &self.definition.name, self.definition.span, self.at);
            self.caller.with_trail(trail).expand(list, steps);
        }
    }
}

/// What a job that is not built cannot be without.
fn required_key(scope: &Scope<'_>, body: &Map, definition: &Definition, kind: &str) {
    let key = if kind == "release" { "plan_name" } else { "key" };
    if body.get(key).is_none_or(|node| scope.substitute(node).as_text().is_none_or(|text| text.is_empty())) {
        let message = format!("a job of type `{kind}` needs `{key}`, a text");
        scope.report(Diagnostic::error("missing-key", definition.span, message));
    }
}

fn plain_entries(body: &Map, inside: &Scope<'_>) -> Vec<Entry> {
    let other = |entry: &&Entry| {
        let key = &*entry.key;
        tables::JOB.knows(key) && !matches!(key, "steps" | "executor" | "parameters" | "description" | "type")
    };
    body.entries.iter().filter(other).map(|entry| inside.substitute_entry(entry)).collect()
}

fn job_type(scope: &Scope<'_>, body: &Map) -> Option<Arc<str>> {
    let Some(node) = body.get("type") else { return Some("build".into()) };
    let value = scope.substitute(node);
    let Some(text) = value.as_text() else {
        if !value.is_broken() {
            let message = format!("the `type` of a job must be a word, but this is {}", value.describe());
            scope.report(Diagnostic::error("wrong-shape", node.span, message));
        }
        return None;
    };
    if JOB_TYPES.contains(&&**text) {
        return Some(text.clone());
    }
    let message = format!("there is no job type `{text}`");
    scope.report(Diagnostic::error("unknown-job-type", node.span, message).meant(nearest(text, JOB_TYPES)));
    None
}
