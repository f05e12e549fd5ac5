//! What names mean at one place of the config.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::context::Context;
use super::executor::ExecutorUse;
use super::expression::{Fault, instead_of_name};
use super::library::{Found, Library, Part};
use super::matrix::Combination;
use super::pipeline;
use super::plain::PlainStep;
use super::trail::Trail;
use super::value::Value;
use crate::diagnostic::{Diagnostic, Span};
use crate::neighbour::nearest;
use crate::syntax::Node;

/// The place of a template: the node that holds it, and its text. Where exactly it stands is looked for on an error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'s> {
    pub span: Span,
    /// Empty: the whole node.
    pub raw: &'s str,
    /// Bytes of `raw`, of a name in an expression.
    pub name: Option<(usize, usize)>,
}

impl<'s> Site<'s> {
    /// The site of a template, or of a whole node whose text it is.
    pub fn new(span: Span, raw: &'s str) -> Self {
        Self { span, raw, name: None }
    }

    /// The site of a part of the expression `text`, which stands in `raw`.
    pub fn part(self, text: &str, at: &Range<usize>) -> Self {
        let start = self.raw.find(text).unwrap_or(0);
        Self { name: Some((start + at.start, start + at.end)), ..self }
    }
}

/// Lexical: a command sees its own parameters, never those of its caller. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Scope<'a> {
    pub context: &'a Context<'a>,
    pub library: &'a Library,
    /// Parameters of the enclosing job, command or executor.
    pub parameters: Option<Rc<Bindings<'a>>>,
    /// Matrix values of the enclosing invocation.
    pub matrix: Option<Rc<Combination>>,
    pub trail: Trail,
}

pub(crate) type Bindings<'a> = BTreeMap<Arc<str>, Bound<'a>>;

/// The value of a parameter.
#[derive(Clone)]
pub(crate) enum Bound<'a> {
    Plain(Node),
    /// Already written out in the scope of the caller, which alone knows what its names mean.
    Steps {
        written: Node,
        steps: Rc<Vec<PlainStep>>,
    },
    Executor(Rc<ExecutorUse<'a>>),
}

impl<'a> Scope<'a> {
    /// The outermost scope of a library: no parameters, no way that led here.
    pub fn outermost(context: &'a Context<'a>, library: &'a Library) -> Self {
        Self { context, library, parameters: None, matrix: None, trail: Trail::default() }
    }

    pub fn with_trail(&self, trail: Trail) -> Self {
        Self { trail, ..self.clone() }
    }

    pub fn with_matrix(&self, matrix: Rc<Combination>) -> Self {
        Self { matrix: Some(matrix), ..self.clone() }
    }

    pub fn report(&self, diagnostic: Diagnostic) {
        self.context.report(diagnostic.trail(self.trail.frames()));
    }

    pub fn exact(&self, at: Site<'_>) -> Span {
        match at.name {
            Some((start, end)) => self.context.narrow_to(at.span, at.raw, start..end),
            None => self.context.narrow(at.span, at.raw),
        }
    }

    /// What `name` stands for, as a node. Problems are reported at the site.
    pub fn lookup(&self, name: &str, at: Site<'_>) -> Result<Node, Fault> {
        let found = self.look_up(name, at);
        if let Ok(node) = &found {
            self.context.record(|record| record.see(name, node));
        }
        found
    }

    fn look_up(&self, name: &str, at: Site<'_>) -> Result<Node, Fault> {
        match self.bound(name) {
            Some(Bound::Plain(node) | Bound::Steps { written: node, .. }) => Ok(node.clone()),
            Some(Bound::Executor(used)) => Ok(Node::text(used.span, used.name.clone())),
            None => self.lookup_elsewhere(name, at),
        }
    }

    /// The same, as a value of a condition.
    pub fn value(&self, name: &str, at: Site<'_>) -> Result<Value, Fault> {
        match self.bound(name) {
            Some(Bound::Executor(used)) => {
                let definition = used.definition().map(|definition| definition.body.clone());
                Ok(Value::Executor { name: used.name.clone(), definition })
            }
            _ => self.lookup(name, at).map(|node| Value::of(&node)),
        }
    }

    /// The binding that `parameters.…` names.
    pub fn bound(&self, name: &str) -> Option<&Bound<'a>> {
        self.parameters.as_ref()?.get(name.strip_prefix("parameters.")?)
    }

    fn lookup_elsewhere(&self, name: &str, at: Site<'_>) -> Result<Node, Fault> {
        if self.context.is_hopeless() {
            return Err(Fault::Reported);
        }
        if let Some(parameter) = name.strip_prefix("parameters.") {
            return self.undeclared(
                name,
                parameter,
                self.parameters.iter().flat_map(|parameters| parameters.keys()),
                at,
            );
        }
        if let Some(parameter) = name.strip_prefix("pipeline.parameters.") {
            return self.pipeline_parameter(name, parameter, at);
        }
        if let Some(parameter) = name.strip_prefix("matrix.") {
            return match self.matrix.as_ref().and_then(|matrix| matrix.get(parameter)) {
                Some(node) => Ok(node.clone()),
                None => self.undeclared(name, parameter, self.matrix.iter().flat_map(|matrix| matrix.keys()), at),
            };
        }
        let value =
            name.strip_prefix("pipeline.").and_then(|value| pipeline::value(self.context.inputs, value, at.span));
        value.ok_or_else(|| self.unknown(name, at))
    }

    /// Is there a pipeline parameter of this name? The name may have any form.
    pub fn is_pipeline_parameter(&self, content: &str) -> bool {
        let parameters = self.context.parameters.get().filter(|_| self.library.is_root);
        let named = content.strip_prefix("pipeline.parameters.").zip(parameters);
        named.is_some_and(|(name, parameters)| parameters.contains_key(name))
    }

    fn pipeline_parameter(&self, name: &str, parameter: &str, at: Site<'_>) -> Result<Node, Fault> {
        let parameters = self.context.parameters.get().filter(|_| self.library.is_root);
        let Some(parameters) = parameters else {
            let message = format!("`{name}` is not in scope here");
            let help = "pipeline parameters cannot stand in orbs or in other pipeline parameters";
            self.report(Diagnostic::error("undeclared-parameter", self.exact(at), message).help(help));
            return Err(Fault::Reported);
        };
        match parameters.get(parameter) {
            Some(node) => Ok(node.clone()),
            None => self.undeclared(name, parameter, parameters.keys(), at),
        }
    }

    fn undeclared<'n>(
        &self,
        name: &str,
        parameter: &str,
        known: impl Iterator<Item = &'n Arc<str>>,
        at: Site<'_>,
    ) -> Result<Node, Fault> {
        let message = format!("argument referenced without declared parameter: `{name}`");
        let of_pipeline = format!("pipeline.parameters.{parameter}");
        let neighbour = nearest(parameter, known.map(|name| &**name));
        let neighbour = neighbour.or(self.is_pipeline_parameter(&of_pipeline).then_some(&*of_pipeline));
        self.report(Diagnostic::error("undeclared-parameter", self.exact(at), message).meant(neighbour));
        Err(Fault::Reported)
    }

    fn unknown(&self, name: &str, at: Site<'_>) -> Fault {
        let message = format!("`{name}` stands for nothing");
        let full = pipeline::NAMES.iter().map(|name| format!("pipeline.{name}")).collect::<Vec<_>>();
        let same_end = |full: &&String| full.strip_suffix(name).is_some_and(|before| before.ends_with('.'));
        let neighbour = nearest(name, full.iter().map(String::as_str)).or(full.iter().find(same_end).map(|n| &**n));
        let diagnostic = Diagnostic::error("unknown-name", self.exact(at), message);
        self.report(match neighbour {
            Some(_) => diagnostic.meant(neighbour),
            None if at.name.is_some() => diagnostic.help(instead_of_name(name)),
            None => {
                diagnostic.help("names start with `parameters.`, `pipeline.` or `matrix.`; plain text needs `\\<<`")
            }
        });
        Fault::Reported
    }

    /// What `name` stands for here. An entry of that name that stands for nothing itself is reported.
    pub fn find(&self, part: Part, name: &str) -> Found<'a> {
        let found = self.library.find(part, name);
        if let Found::Broken(library, alias) = &found {
            self.context.mark_named(alias.span);
            if let Some((target, span)) = &alias.target {
                Self::outermost(self.context, library).nothing_named(part, target, *span);
            }
        }
        found
    }

    /// Reports that nothing in scope is called `name`.
    pub fn nothing_named(&self, part: Part, name: &str, span: Span) {
        if part == Part::Commands {
            return self.unknown_step(name, span);
        }
        let noun = part.noun();
        let neighbour = self.library.neighbour(part, name);
        let message = match name.split_once('/') {
            Some((orb, _)) if !self.library.orbs.contains_key(orb) => format!("there is no orb named `{orb}`"),
            _ => format!("there is no {noun} named `{name}`"),
        };
        let code = if part == Part::Jobs { "unknown-job" } else { "unknown-executor" };
        self.report(Diagnostic::error(code, span, message).meant(neighbour.as_deref()));
    }
}
