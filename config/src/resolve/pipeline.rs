//! Pipeline values and pipeline parameters.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::Context;
use super::library::Library;
use super::parameter::{PIPELINE, Parameter, declarations};
use super::scope::Scope;
use crate::diagnostic::{Diagnostic, Span};
use crate::input::{Inputs, Value};
use crate::neighbour::nearest;
use crate::syntax::{Map, Node};

const MOST_GIVEN: usize = 100;
const LONGEST_NAME: usize = 128;
const LONGEST_VALUE: usize = 512;
/// Characters that are shown of a long name.
const SHOWN: usize = 32;

/// Names of pipeline values; a value that was not given is null.
pub(crate) const NAMES: [&str; 42] = [
    "id",
    "number",
    "name",
    "definition.id",
    "project.git_url",
    "project.type",
    "project.slug",
    "integration_source",
    "git.branch",
    "git.branch.is_default",
    "git.tag",
    "git.revision",
    "git.base_revision",
    "git.repo_url",
    "git.repo_owner",
    "git.repo_name",
    "git.repo_id",
    "git.commit.url",
    "git.commit.subject",
    "git.commit.body",
    "git.commit.author_login",
    "git.commit.author_name",
    "git.commit.author_email",
    "git.commit.author_avatar_url",
    "config.repository.name",
    "config.repository.url",
    "config.file_path",
    "config.ref",
    "config.sha",
    "trigger.received_at",
    "trigger.id",
    "trigger.name",
    "trigger.type",
    "trigger_source",
    "schedule.name",
    "schedule.id",
    "event.name",
    "event.action",
    "deploy.component_name",
    "deploy.environment_name",
    "deploy.target_version",
    "deploy.current_version",
];

/// What triggers bring along has no closed list of names.
const OPEN: [&str; 4] = ["event.github.", "event.context.", "trigger_parameters.", "deploy."];

/// A pipeline value, null if it was not given. `None`: there is no such name.
pub(crate) fn value(inputs: &Inputs, name: &str, span: Span) -> Option<Node> {
    match name {
        "git.branch" => return Some(Node::text(span, inputs.branch.as_deref().unwrap_or(""))),
        "git.tag" => return Some(Node::text(span, inputs.tag.as_deref().unwrap_or(""))),
        _ => {}
    }
    match inputs.values.get(name) {
        Some(value) => Some(node(value, span)),
        None if NAMES.contains(&name) => Some(Node::null(span)),
        None => OPEN.iter().any(|prefix| name.starts_with(prefix)).then(|| Node::null(span)),
    }
}

fn node(value: &Value, span: Span) -> Node {
    match value {
        Value::Null => Node::null(span),
        Value::Bool(value) => Node::plain(span, value.to_string()),
        Value::Int(value) => Node::plain(span, value.to_string()),
        Value::Float(value) => Node::plain(span, value.to_string()),
        Value::Text(text) => Node::text(span, text.as_str()),
    }
}

/// The pipeline's parameters: defaults, and over them what was given from outside.
pub(crate) fn parameters(context: &Context<'_>, root: &Map) -> BTreeMap<Arc<str>, Node> {
    let declared = declarations(context, root, PIPELINE, true);
    let mut values = BTreeMap::new();
    for parameter in &declared {
        values.insert(parameter.name.clone(), default(context, parameter));
        let written = parameter.default.as_ref().map(|node| node.span);
        context.record(|record| record.give_pipeline(&parameter.name, written));
    }
    check_limits(context);
    for (name, text) in &context.inputs.parameters {
        match declared.iter().find(|parameter| *parameter.name == **name) {
            Some(parameter) => {
                values.insert(parameter.name.clone(), given(context, parameter, text));
                context.record(|record| record.give_pipeline(&parameter.name, None));
            }
            None => unexpected(context, name, &declared),
        }
    }
    values
}

/// What a trigger may bring along.
fn check_limits(context: &Context<'_>) {
    let refuse = |message| context.report(Diagnostic::error("parameter-limit", Span::default(), message));
    let given = &context.inputs.parameters;
    if given.len() > MOST_GIVEN {
        refuse(format!("{} pipeline parameters are given; at most {MOST_GIVEN} may be", given.len()));
    }
    for (name, value) in given {
        if name.chars().count() > LONGEST_NAME {
            refuse(format!("a pipeline parameter's name has more than {LONGEST_NAME} characters: `{}…`", start(name)));
        }
        if value.chars().count() > LONGEST_VALUE {
            let name = start(name);
            refuse(format!("the value given for pipeline parameter `{name}` has more than {LONGEST_VALUE} characters"));
        }
    }
}

fn start(name: &str) -> String {
    name.chars().take(SHOWN).collect()
}

/// Defaults may hold pipeline values, but no parameters.
fn default(context: &Context<'_>, parameter: &Parameter) -> Node {
    let Some(written) = &parameter.default else {
        let message = format!("pipeline parameter `{}` has no default", parameter.name);
        context.report(Diagnostic::error("missing-default", parameter.span, message));
        return Node::broken(parameter.span);
    };
    let library = Library::default();
    let value = Scope::outermost(context, &library).substitute(written);
    checked(context, parameter, &value, parameter.check(&value), value.span)
}

fn given(context: &Context<'_>, parameter: &Parameter, text: &str) -> Node {
    let converted = parameter.convert(text, parameter.span);
    checked(context, parameter, &Node::text(parameter.span, text), converted, parameter.span)
}

fn checked(
    context: &Context<'_>,
    parameter: &Parameter,
    value: &Node,
    checked: Result<Node, String>,
    at: Span,
) -> Node {
    if value.is_broken() || (value.is_null() && parameter.default.as_ref().is_some_and(|node| !node.is_null())) {
        // A template whose value is not known ahead of a run.
        return value.clone();
    }
    checked.unwrap_or_else(|message| {
        let diagnostic = Diagnostic::error("type-mismatch", at, message);
        let declared = if at == parameter.span { Span::default() } else { parameter.span };
        let diagnostic = diagnostic.related(declared, "the parameter is declared here");
        context.report(Diagnostic { help: parameter.advice(value), ..diagnostic });
        Node::broken(at)
    })
}

fn unexpected(context: &Context<'_>, name: &str, declared: &[Parameter]) {
    let message = format!("unexpected argument: the config declares no pipeline parameter `{name}`");
    let neighbour = nearest(name, declared.iter().map(|parameter| &*parameter.name));
    context.report(Diagnostic::error("unexpected-argument", Span::default(), message).meant(neighbour));
}
