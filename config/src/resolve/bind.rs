//! Arguments to the parameters of a definition.

use std::rc::Rc;
use std::sync::Arc;

use super::library::Definition;
use super::parameter::{Kind, Parameter};
use super::record::{self, Given, Whence};
use super::scope::{Bindings, Bound, Scope};
use crate::diagnostic::{Diagnostic, Span};
use crate::keys::Keys;
use crate::neighbour::nearest;
use crate::syntax::{Entry, Node};

/// Who is called, where from, and with what.
pub(crate) struct Call<'c, 'a> {
    /// "command".
    pub noun: &'static str,
    /// As the caller calls it.
    pub name: &'c str,
    pub definition: &'a Definition,
    /// The scope of the call: what the arguments mean.
    pub caller: &'c Scope<'a>,
    /// The scope of the definition: what the defaults mean.
    pub home: &'c Scope<'a>,
    pub at: Span,
    /// Keys that may stand beside the arguments, for typos.
    pub keys: Option<&'static Keys>,
}

impl<'a> Call<'_, 'a> {
    /// `None` when an argument is missing or wrong, which has been reported.
    pub fn bind(&self, arguments: &[Entry]) -> Option<Bindings<'a>> {
        // Each is looked for among the others.
        let comparisons = arguments.len().saturating_mul(self.definition.parameters.len());
        if !self.caller.context.spend(comparisons / 8, self.at) {
            return None;
        }
        let undeclared = self.refuse_undeclared(arguments);
        let mut bindings = Bindings::new();
        let mut complete = !undeclared;
        for parameter in &self.definition.parameters {
            let argument = arguments.iter().find(|entry| entry.key == parameter.name);
            match self.argument(parameter, argument) {
                Some(bound) => {
                    self.record(parameter, argument, &bound);
                    bindings.insert(parameter.name.clone(), bound);
                }
                None => complete = false,
            }
        }
        complete.then_some(bindings)
    }

    fn callee(&self) -> String {
        format!("{} `{}`", self.noun, self.name)
    }

    fn record(&self, parameter: &Parameter, argument: Option<&Entry>, bound: &Bound<'a>) {
        self.home.context.record(|record| {
            let whence = match (argument, &parameter.default) {
                (Some(entry), _) if self.is_of_matrix(entry) => Whence::Matrix(entry.value.span),
                (Some(entry), _) => Whence::Argument(entry.key_span),
                (None, default) => Whence::Default(default.as_ref().map_or(parameter.span, |node| node.span)),
            };
            let (name, value) = (parameter.name.clone(), record::shown(bound));
            record.give(&self.home.trail, Given { name, value, whence });
        });
    }

    /// Values of a matrix become arguments that stand where the value stands.
    fn is_of_matrix(&self, entry: &Entry) -> bool {
        self.caller.matrix.as_ref().is_some_and(|matrix| matrix.contains_key(&entry.key))
            && entry.key_span == entry.value.span
    }

    fn refuse_undeclared(&self, arguments: &[Entry]) -> bool {
        let declared = &self.definition.parameters;
        let mut any = false;
        for entry in arguments.iter().filter(|entry| !declared.iter().any(|p| p.name == entry.key)) {
            any = true;
            let message = format!("unexpected argument: {} has no parameter `{}`", self.callee(), entry.key);
            let keys: Vec<&str> = self.keys.into_iter().flat_map(Keys::names).collect();
            let neighbour = nearest(&entry.key, declared.iter().map(|parameter| &*parameter.name).chain(keys));
            let diagnostic = Diagnostic::error("unexpected-argument", entry.key_span, message);
            let defined = self.definition.span;
            self.caller
                .report(diagnostic.meant(neighbour).related(defined, format!("{} is defined here", self.callee())));
        }
        any
    }

    fn argument(&self, parameter: &Parameter, argument: Option<&Entry>) -> Option<Bound<'a>> {
        match (argument, &parameter.default) {
            (Some(entry), _) => bound(parameter, &entry.value, self.caller),
            (None, Some(default)) => bound(parameter, default, self.home),
            (None, None) => {
                let message = format!("parameter `{}` is required for {}", parameter.name, self.callee());
                let diagnostic = Diagnostic::error("missing-argument", self.at, message);
                let diagnostic = diagnostic.related(parameter.span, "the parameter is declared here");
                self.caller.report(diagnostic.help("it has no default, so every use must give it"));
                None
            }
        }
    }
}

/// The value `written` in `scope`, checked against the parameter's type.
fn bound<'a>(parameter: &Parameter, written: &Node, scope: &Scope<'a>) -> Option<Bound<'a>> {
    match parameter.kind {
        Kind::Steps => steps(parameter, written, scope),
        Kind::Executor => {
            let used = scope.executor_use(written)?;
            used.exists().then(|| Bound::Executor(Rc::new(used)))
        }
        _ => plain(parameter, written, scope),
    }
}

fn plain<'a>(parameter: &Parameter, written: &Node, scope: &Scope<'a>) -> Option<Bound<'a>> {
    let value = scope.substitute(written);
    if value.is_broken() {
        return None;
    }
    // A pipeline value that is not known ahead of a run is null, and fits every type.
    if value.is_null() && !written.is_null() {
        return Some(Bound::Plain(value));
    }
    match parameter.check(&value) {
        Ok(fitting) => {
            parameter.told_otherwise(&value).into_iter().for_each(|told| scope.report(told));
            Some(Bound::Plain(fitting))
        }
        Err(message) => {
            mismatch(parameter, &value, message, scope);
            None
        }
    }
}

fn steps<'a>(parameter: &Parameter, written: &Node, scope: &Scope<'a>) -> Option<Bound<'a>> {
    if let Some(bound @ Bound::Steps { .. }) = scope.bound_whole(written) {
        return Some(bound.clone());
    }
    if let Err(message) = parameter.check(written) {
        mismatch(parameter, written, message, scope);
        return None;
    }
    let mut steps = Vec::new();
    scope.expand(written, &mut steps);
    Some(Bound::Steps { written: written.clone(), steps: Rc::new(steps) })
}

fn mismatch(parameter: &Parameter, value: &Node, message: String, scope: &Scope<'_>) {
    let diagnostic = Diagnostic::error("type-mismatch", value.span, message);
    let diagnostic = diagnostic.related(parameter.span, "the parameter is declared here");
    scope.report(Diagnostic { help: parameter.advice(value), ..diagnostic });
}

/// The bindings as a scope wants them.
pub(crate) fn entered<'a>(home: &Scope<'a>, bindings: Bindings<'a>) -> Scope<'a> {
    Scope { parameters: Some(Rc::new(bindings)), matrix: None, ..home.clone() }
}

/// An argument that stands for itself, as the values of a matrix do.
pub(crate) fn value_entry(name: &Arc<str>, value: &Node) -> Entry {
    Entry { key: name.clone(), key_span: value.span, value: value.clone() }
}
