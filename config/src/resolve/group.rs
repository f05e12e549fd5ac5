//! Job groups: one item of a workflow becomes its jobs, and what holds them together.
//!
//! ```text
//! requires of the use ─▶ entry ─▶ members, as they require each other ─▶ exit ◀─ jobs that require the group
//!                        (takes the serial group)                         └─▶ unlock, always, if there is one
//! ```
//!
//! Entry and exit pass at once. The exit carries the group's name in the workflow.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::Unused;
use super::invocation::{self, named};
use super::library::{Group, Part};
use super::plain::{GroupRole, InGroup, PlainFilters, PlainKind, PlainWorkflowJob};
use super::rules;
use super::scope::Scope;
use crate::diagnostic::{Diagnostic, Span};
use crate::keys::{self, Known as _, Rules, tables};
use crate::syntax::{Map, Node};

/// Keys that the use of a group can have.
const KEYS: [&str; 4] = ["name", "requires", "filters", "serial-group"];
const HELP: &str = "the use of a group takes `name`, `requires`, `filters` and `serial-group`; its jobs take the rest";

/// Adds the jobs that the use of a group at `at` stands for.
pub(super) fn expand(scope: &Scope<'_>, group: &Group, at: Span, keys: Option<&Map>, out: &mut Vec<PlainWorkflowJob>) {
    scope.context.mark_used(group.span);
    keys.into_iter().for_each(|keys| check_use(scope, group, keys));
    let name = rules::text(scope, keys, "name");
    let is_named = name.is_some();
    let name = name.unwrap_or_else(|| group.name.clone());
    let serial_group = rules::serial_group(scope, keys);
    let requires = rules::requires(scope, keys);
    let group = Use { scope, group, at, id: out.len(), name, is_named, filters: rules::filters(scope, keys) };
    let locks = serial_group.is_some();
    let opening = group.no_op(if locks { "lock" } else { "entry" }, GroupRole::Entry);
    out.push(PlainWorkflowJob { requires, serial_group, ..opening });
    group.members(out);
    out.push(PlainWorkflowJob { name: group.name.clone(), ..group.no_op("exit", GroupRole::Exit) });
    if locks {
        out.push(group.no_op("unlock", GroupRole::Unlock));
    }
}

/// The use of a group.
struct Use<'u, 'a> {
    scope: &'u Scope<'a>,
    group: &'u Group,
    at: Span,
    id: usize,
    name: Arc<str>,
    is_named: bool,
    filters: PlainFilters,
}

impl Use<'_, '_> {
    fn no_op(&self, suffix: &str, role: GroupRole) -> PlainWorkflowJob {
        PlainWorkflowJob {
            name: format!("{}-{suffix}", self.name).into(),
            alias: None,
            definition: self.group.name.clone(),
            kind: PlainKind::NoOp,
            matrix: BTreeMap::new(),
            requires: None,
            filters: self.filters.clone(),
            context: None,
            serial_group: None,
            group: Some(self.part(role)),
            span: self.at,
            trail: self.scope.trail.clone(),
        }
    }

    fn part(&self, role: GroupRole) -> InGroup {
        InGroup { id: self.id, name: self.name.clone(), is_named: self.is_named, role }
    }

    /// A member without filters of its own has those of the group.
    fn members(&self, out: &mut Vec<PlainWorkflowJob>) {
        for mut job in members(self.scope, self.group, self.at) {
            if matches!(job.filters, PlainFilters::None) {
                job.filters = self.filters.clone();
            }
            out.push(PlainWorkflowJob { group: Some(self.part(GroupRole::Member)), ..job });
        }
    }
}

fn check_use(scope: &Scope<'_>, group: &Group, keys: &Map) {
    for entry in keys.entries.iter().filter(|entry| !KEYS.contains(&&*entry.key)) {
        let (code, message) = if tables::INVOCATION.knows(&entry.key) {
            ("group-key", format!("`{}` cannot stand on the use of job group `{}`", entry.key, group.name))
        } else {
            let message = format!("unexpected argument: job group `{}` has no parameter `{}`", group.name, entry.key);
            ("unexpected-argument", message)
        };
        scope.report(Diagnostic::error(code, entry.key_span, message).help(HELP));
    }
}

/// The jobs of a group that is used at `at`.
fn members(scope: &Scope<'_>, group: &Group, at: Span) -> Vec<PlainWorkflowJob> {
    let scope = scope.with_trail(scope.trail.enter("job group", &group.name, group.span, at));
    let mut jobs = Vec::new();
    for item in items(group) {
        let member = named(&scope, item);
        // Its mistakes are reported where the group is defined.
        if !member.is_some_and(|(name, ..)| scope.library.job_groups.contains_key(&name)) {
            invocation::expand(&scope, item, &mut jobs);
        }
    }
    jobs
}

fn items(group: &Group) -> &[Node] {
    group.body.as_map().and_then(|body| body.get("jobs")).and_then(Node::as_list).unwrap_or_default()
}

/// Checks all definitions; tries those that no workflow uses.
pub(super) fn check(scope: &Scope<'_>, unused: &mut Unused) {
    for group in scope.library.job_groups.values() {
        let trail = scope.trail.enter("job group", &group.name, group.span, group.span);
        let owner = format!("job group `{}`", group.name);
        scope.context.within_definition(&owner, group.span, || check_definition(&scope.with_trail(trail), group));
        if !scope.context.is_used(group.span) {
            let standing = scope.context.standing_of(&owner, group.span);
            let jobs = scope.context.within(standing.clone(), || members(scope, group, group.span));
            let built = jobs.into_iter().filter_map(|job| match job.kind {
                PlainKind::Build(job) => Some((standing.clone(), job)),
                _ => None,
            });
            unused.jobs.extend(built);
        }
    }
}

fn check_definition(scope: &Scope<'_>, group: &Group) {
    let name = &group.name;
    if scope.library.jobs.contains_key(name) || scope.library.aliases(Part::Jobs).contains_key(name) {
        let message = format!("`{name}` is a job and a job group: one of them needs another name");
        scope.report(Diagnostic::error("duplicate-name", group.span, message));
    }
    let body = group.body.as_map();
    if let Some(parameters) = body.and_then(|body| body.entry("parameters")) {
        let message = format!("job group `{name}` cannot have `parameters`");
        let help = "parameters of the pipeline can stand in it";
        scope.report(Diagnostic::error("group-parameters", parameters.key_span, message).help(help));
    }
    let known = &["jobs", "description", "parameters"];
    body.into_iter().for_each(|body| keys::check_rules(scope.context, body, known, &Rules::OF_GROUP, "a job group"));
    if items(group).is_empty() && !group.body.is_broken() {
        let message = format!("job group `{name}` has no list of `jobs`");
        scope.report(Diagnostic::error("missing-key", group.span, message));
    }
    items(group).iter().for_each(|item| check_member(scope, item));
}

fn check_member(scope: &Scope<'_>, item: &Node) {
    let Some((name, span, body)) = named(scope, item) else { return };
    if scope.library.job_groups.contains_key(&name) {
        let message = format!("`{name}` is a job group, and a job group cannot lie inside of another");
        scope.report(Diagnostic::error("nested-group", span, message).help("name its jobs here"));
    }
    if let Some(entry) = body.and_then(Node::as_map).and_then(|keys| keys.entry("serial-group")) {
        let message = format!("`serial-group` cannot stand on `{name}`, a job of a job group");
        let help = "it can stand where a workflow uses the group, for all of its jobs";
        scope.report(Diagnostic::error("group-key", entry.key_span, message).help(help));
    }
}
