//! Executors: by name, with arguments, from a parameter, from an orb.

use std::rc::Rc;
use std::sync::Arc;

use super::bind::{Call, entered};
use super::library::{Definition, Found, Part};
use super::plain::PlainExecutor;
use super::scope::{Bound, Scope};
use super::substitute::is_reference;
use super::template;
use crate::diagnostic::{Diagnostic, Span};
use crate::keys::{self, tables};
use crate::syntax::{Content, Entry, Map, Node};

/// An executor with its arguments, and the scope that knows what both mean.
pub(crate) struct ExecutorUse<'a> {
    pub name: Arc<str>,
    pub span: Span,
    arguments: Vec<Entry>,
    scope: Scope<'a>,
}

impl<'a> ExecutorUse<'a> {
    /// Is there an executor of that name, here or in an orb that is not? If not, that is reported.
    pub fn exists(&self) -> bool {
        match self.scope.find(Part::Executors, &self.name) {
            Found::Here(_, definition) => self.scope.context.mark_used(definition.span),
            Found::Missing { .. } => {}
            Found::Broken(..) => return false,
            Found::Nothing => {
                self.scope.nothing_named(Part::Executors, &self.name, self.span);
                return false;
            }
        }
        true
    }

    /// The executor as it was written; `None` if none has that name, or it is not here.
    pub fn definition(&self) -> Option<&'a Definition> {
        match self.scope.find(Part::Executors, &self.name) {
            Found::Here(_, definition) => Some(definition),
            _ => None,
        }
    }

    /// Its keys with all parameters replaced.
    pub fn resolve(&self) -> PlainExecutor {
        let scope = &self.scope;
        match scope.find(Part::Executors, &self.name) {
            Found::Missing { orb, element } => PlainExecutor::Missing { name: format!("{orb}/{element}").into() },
            Found::Broken(..) => PlainExecutor::Broken,
            Found::Nothing => {
                scope.nothing_named(Part::Executors, &self.name, self.span);
                PlainExecutor::Broken
            }
            Found::Here(library, definition) => {
                scope.context.mark_used(definition.span);
                let trail = scope.trail.enter("executor", &definition.name, definition.span, self.span);
                let home = Scope { trail: trail.clone(), ..Scope::outermost(scope.context, library) };
                match self.enter(definition, &home) {
                    Some(entries) => PlainExecutor::Entries { entries, trail },
                    None => PlainExecutor::Broken,
                }
            }
        }
    }

    fn enter(&self, definition: &'a Definition, home: &Scope<'a>) -> Option<Vec<Entry>> {
        let name = &self.name;
        let call = Call { noun: "executor", name, definition, caller: &self.scope, home, at: self.span, keys: None };
        let inside = entered(home, call.bind(&self.arguments)?);
        let body = definition.body.as_map()?;
        keys::check(home.context, body, &tables::EXECUTOR, "an executor");
        let wanted = |entry: &&Entry| {
            tables::EXECUTOR.names().any(|name| name == &*entry.key)
                && !matches!(&*entry.key, "parameters" | "description")
        };
        Some(body.entries.iter().filter(wanted).map(|entry| inside.substitute_entry(entry)).collect())
    }
}

impl<'a> Scope<'a> {
    /// What the value of `executor:` asks for.
    pub fn executor_use(&self, node: &Node) -> Option<ExecutorUse<'a>> {
        if let Some(Bound::Executor(used)) = self.bound_whole(node) {
            return Some(used.again());
        }
        match &node.content {
            Content::Map(map) => self.long_form(map, node.span),
            _ => self.short_form(node),
        }
    }

    /// The parameter whose value `node` is, when it is nothing but `<< parameters.x >>`.
    pub fn bound_whole(&self, node: &Node) -> Option<&Bound<'a>> {
        let content = template::whole(&node.as_scalar()?.text)?;
        if is_reference(content) { self.bound(content) } else { None }
    }

    fn short_form(&self, node: &Node) -> Option<ExecutorUse<'a>> {
        let value = self.substitute(node);
        // The value of a parameter may be the long form.
        if let Some(map) = value.as_map() {
            return self.long_form(map, node.span);
        }
        let Some(name) = value.as_text() else {
            if !value.is_broken() {
                let message = format!("an executor is a name or a map with `name`, but this is {}", value.describe());
                self.report(Diagnostic::error("wrong-shape", value.span, message));
            }
            return None;
        };
        Some(ExecutorUse { name: name.clone(), span: node.span, arguments: Vec::new(), scope: self.clone() })
    }

    fn long_form(&self, map: &Map, span: Span) -> Option<ExecutorUse<'a>> {
        let Some(name) = map.entry("name") else {
            self.report(Diagnostic::error("missing-key", span, "missing executor name").help("add `name:`"));
            return None;
        };
        let base = self.executor_use(&name.value)?;
        let own = map.entries.iter().filter(|entry| &*entry.key != "name").cloned();
        if base.arguments.is_empty() {
            return Some(ExecutorUse { arguments: own.collect(), scope: self.reaching(&base), ..base });
        }
        Some(base)
    }

    /// The scope that knows both the arguments here and a name that came in through a parameter.
    fn reaching(&self, base: &ExecutorUse<'a>) -> Self {
        Scope { library: base.scope.library, ..self.clone() }
    }
}

impl ExecutorUse<'_> {
    fn again(self: &Rc<Self>) -> Self {
        Self { name: self.name.clone(), span: self.span, arguments: self.arguments.clone(), scope: self.scope.clone() }
    }
}
