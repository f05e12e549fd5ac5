//! Workflows: do they run, and which jobs are in them.

use super::expression;
use super::invocation;
use super::library::Part;
use super::plain::{PlainWorkflow, PlainWorkflowJob};
use super::reach::Standing;
use super::record;
use super::rules;
use super::schedule;
use super::scope::{Scope, Site};
use super::template;
use crate::diagnostic::{Diagnostic, Span};
use crate::keys::{self, Rules, tables};
use crate::syntax::{Entry, Literal, Map, Node};

/// All workflows of the config.
pub(crate) fn workflows(scope: &Scope<'_>, root: &Map, span: Span) -> Vec<PlainWorkflow> {
    let Some(entry) = root.entry("workflows").filter(|entry| !entry.value.is_null()) else {
        return implicit(scope, root, span).into_iter().collect();
    };
    let Some(map) = entry.value.as_map() else {
        let message = format!("`workflows` must be a map, but this is {}", entry.value.describe());
        scope.report(Diagnostic::error("wrong-shape", entry.value.span, message));
        return Vec::new();
    };
    check_version(scope, map, entry.key_span);
    warn_of_branches(scope);
    let workflows = map.entries.iter().filter(|entry| !(&*entry.key == "version" && entry.value.as_map().is_none()));
    workflows.filter_map(|entry| workflow(scope, entry)).collect()
}

/// Warns of `branches` in jobs, a rule from times before workflows: a config with workflows ignores it.
fn warn_of_branches(scope: &Scope<'_>) {
    let bodies = scope.library.jobs.values().filter_map(|definition| definition.body.as_map());
    for entry in bodies.filter_map(|body| body.entry("branches")) {
        let message = "`branches` of a job counts for nothing in a config with workflows";
        let help = "write `filters` where a workflow uses the job, below the job's name";
        scope.report(Diagnostic::warning("ignored-branches", entry.key_span, message).help(help));
    }
}

/// Old configs say twice that they are of version 2; new ones may write there what they like.
fn check_version(scope: &Scope<'_>, map: &Map, span: Span) {
    if scope.context.templates {
        return;
    }
    let help = "or make the whole config `version: 2.1`";
    let message = "`workflows` of a version 2 config needs `version: 2`";
    match map.get("version") {
        None => scope.report(Diagnostic::error("missing-version", span, message).help(help)),
        Some(node) if matches!(node.as_text().map(|text| &**text), Some("2" | "2.0")) => {}
        Some(node) => scope.report(Diagnostic::warning("unknown-version", node.span, message).help(help)),
    }
}

fn workflow(scope: &Scope<'_>, entry: &Entry) -> Option<PlainWorkflow> {
    let trail = scope.trail.enter("workflow", &entry.key, entry.key_span, entry.key_span);
    let scope = &scope.with_trail(trail);
    let Some(map) = entry.value.as_map() else {
        let message = format!("workflow `{}` must be a map, but this is {}", entry.key, entry.value.describe());
        scope.report(Diagnostic::error("wrong-shape", entry.key_span, message));
        return None;
    };
    keys::check_version(scope.context, map, &["when", "unless"], "in a workflow");
    let condition = left_by_condition(scope, map);
    let standing = match condition {
        Some(_) => Standing::left(&entry.key, entry.key_span),
        None => Standing::FULL,
    };
    let (workflow, flawed) = scope.context.flawed(standing.clone(), || inside(scope, entry, map));
    let scheduled = map.get("triggers").filter(|node| !node.is_null());
    let left = match (scheduled, condition) {
        (Some(_), Some(condition)) => Some(format!("it runs only on schedule, and {condition}")),
        (Some(_), None) => Some("it runs only on schedule".to_owned()),
        (None, condition) => condition,
    };
    Some(PlainWorkflow { left, standing, flawed, ..workflow })
}

/// All of a workflow but whether it runs.
fn inside(scope: &Scope<'_>, entry: &Entry, map: &Map) -> PlainWorkflow {
    keys::check_rules(scope.context, map, &tables::WORKFLOW, &Rules::OF_WORKFLOW, "a workflow");
    if let Some(entry) = map.entry("triggers").filter(|entry| entry.value.is_null()) {
        rules::warn_of_nothing(scope, entry, "every push starts the workflow");
    }
    if let Some(entry) = map.entry("serial-group") {
        let message = "`serial-group` belongs to a job of a workflow, not to the workflow";
        scope.report(Diagnostic::error("misplaced-key", entry.key_span, message));
    }
    PlainWorkflow {
        name: entry.key.clone(),
        span: entry.key_span,
        left: None,
        standing: Standing::FULL,
        flawed: false,
        schedules: schedule::schedules(scope, map),
        triggers: map.get("triggers").filter(|node| !node.is_null()).map(|node| scope.substitute(node)),
        condition: record::condition(scope, map),
        max_auto_reruns: map.get("max_auto_reruns").map(|node| scope.substitute(node)),
        jobs: jobs(scope, entry, map),
    }
}

fn jobs(scope: &Scope<'_>, entry: &Entry, map: &Map) -> Vec<PlainWorkflowJob> {
    let mut jobs = Vec::new();
    match map.get("jobs").map(|node| (node, node.as_list())) {
        Some((_, Some(items))) if !items.is_empty() => {
            items.iter().for_each(|item| invocation::expand(scope, item, &mut jobs));
        }
        Some((node, _)) if node.is_broken() => {}
        _ => {
            let message = format!("workflow `{}` has no list of `jobs`", entry.key);
            scope.report(Diagnostic::error("missing-key", entry.key_span, message));
        }
    }
    jobs
}

/// Why the workflow's own condition leaves it out, in words, if it does.
fn left_by_condition(scope: &Scope<'_>, map: &Map) -> Option<String> {
    let given = |key| keys::given(scope.context, map, key).and_then(|_| map.entry(key));
    if let (Some(first), Some(second)) = (given("when"), given("unless")) {
        let message = "`when` and `unless` exclude each other";
        let diagnostic = Diagnostic::error("exclusive-keys", second.key_span, message);
        scope.report(diagnostic.related(first.key_span, "the other one stands here"));
        return None;
    }
    let condition = |key, wanted: bool| {
        let holds = scope.condition(&given(key)?.value)?;
        (holds != wanted).then(|| format!("its `{key}` condition {}", if wanted { "does not hold" } else { "holds" }))
    };
    condition("when", true).or_else(|| condition("unless", false))
}

impl Scope<'_> {
    /// A condition where expressions may stand bare: `when` of a workflow, `filters` of a job.
    pub fn condition(&self, node: &Node) -> Option<bool> {
        match node.as_scalar() {
            Some(scalar) if template::is_literal(&scalar.text) => match scalar.literal() {
                Literal::Text(text) => self.bare_expression(text, node.span),
                _ => self.holds(node),
            },
            _ => self.holds(node),
        }
    }

    fn bare_expression(&self, text: &str, span: Span) -> Option<bool> {
        let at = Site::new(span, text);
        match expression::parse(text) {
            Ok(expression) => self.evaluate(&expression, text, at).ok().map(|value| value.is_truthy()),
            Err(wrong) => {
                let message = format!("cannot read the expression: {}", wrong.message);
                let diagnostic = Diagnostic::error("invalid-expression", self.exact(at.part(text, &wrong.at)), message);
                self.report(Diagnostic { help: wrong.help, ..diagnostic });
                None
            }
        }
    }
}

/// Without workflows the job `build` runs.
fn implicit(scope: &Scope<'_>, root: &Map, span: Span) -> Option<PlainWorkflow> {
    const BUILD: &str = "build";
    let definition = scope.library.jobs.get(BUILD);
    let alias = scope.library.aliases(Part::Jobs).get(BUILD).map(|alias| alias.span);
    let Some(span) = definition.map(|build| build.span).or(alias) else {
        let message = "there are no `workflows`, and no job is named `build`: nothing would run";
        scope.report(Diagnostic::error(
            "no-workflow",
            root.entry("jobs").map_or(span, |entry| entry.key_span),
            message,
        ));
        return None;
    };
    let mut jobs = Vec::new();
    invocation::expand(scope, &Node::text(span, BUILD), &mut jobs);
    let branches = definition.and_then(|build| build.body.as_map()).and_then(|body| body.entry("branches"));
    if let (Some(job), Some(branches)) = (jobs.first_mut(), branches) {
        job.filters = rules::filter_map(scope, &Node::map(branches.key_span, vec![branches.clone()]));
    }
    Some(PlainWorkflow {
        name: "workflow".into(),
        span,
        left: None,
        standing: Standing::FULL,
        flawed: false,
        schedules: Vec::new(),
        max_auto_reruns: None,
        triggers: None,
        condition: None,
        jobs,
    })
}
