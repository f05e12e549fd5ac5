//! Plain workflows to compiled ones.

use navvy_job::pipeline::{Selection, Workflow, WorkflowJob, WorkflowJobKind};

use super::caps::{self, start};
use super::fields::At;
use super::job::{Compiled, job};
use super::names::Names;
use super::{filter, filter_shape, group, requires, run};
use crate::diagnostic::Diagnostic;
use crate::resolve::{Context, PlainKind, PlainWorkflow, PlainWorkflowJob, Trail};
use crate::syntax::Node;

/// What a wrong job would take. Seen only in a workflow that its own condition leaves out; all others have an error.
const FLAWED: &str = "its mistakes mended";
const LONGEST_CONTEXT: usize = 200;
const LONGEST_SERIAL_GROUP: usize = 512;

pub(super) fn workflow(context: &Context<'_>, plain: &PlainWorkflow) -> Workflow {
    let (workflow, flawed) = context.flawed(plain.standing.clone(), || compiled(context, plain));
    let flawed = flawed || plain.flawed;
    let selected = match workflow.selected {
        Selection::Left { reason } if flawed => {
            Selection::Left { reason: format!("{reason}; there are mistakes in it") }
        }
        selected => selected,
    };
    Workflow { selected, flawed, ..workflow }
}

fn compiled(context: &Context<'_>, plain: &PlainWorkflow) -> Workflow {
    let trail = Trail::default().enter("workflow", &plain.name, plain.span, plain.span);
    let place = At { context, trail: &trail };
    caps::check_name(place, "a workflow", &plain.name, plain.span);
    let names = Names::new(context, &plain.jobs);
    let mut edges: Vec<_> = (0..plain.jobs.len()).map(|index| edges(context, &plain.jobs, index, &names)).collect();
    group::connect(&plain.jobs, &mut edges);
    let mut jobs: Vec<_> =
        plain.jobs.iter().zip(&names.unique).map(|(plain, name)| workflow_job(context, plain, name)).collect();
    if let Some(order) = requires::order(context, &edges, &names) {
        requires::settle(&mut jobs, &edges, &order);
    }
    check_schedules(place, plain);
    group::refuse_nameless(context, &plain.jobs);
    let max_auto_reruns = plain.max_auto_reruns.as_ref().and_then(|node| run::reruns(place, node));
    Workflow {
        selected: selection(plain.left.clone(), &jobs),
        name: String::from(&*plain.name),
        schedules: plain.schedules.clone(),
        jobs,
        max_auto_reruns: max_auto_reruns.unwrap_or(0),
        flawed: false,
        origin: place.origin(plain.span),
    }
}

/// The shape of what says on which branches a schedule counts.
fn check_schedules(place: At<'_>, plain: &PlainWorkflow) {
    let triggers = plain.triggers.as_ref().and_then(Node::as_list).unwrap_or_default();
    let filters = |item: &Node| item.as_map()?.get("schedule")?.as_map()?.get("filters").cloned();
    for filters in triggers.iter().filter_map(filters) {
        filters.as_map().into_iter().for_each(|map| _ = filter_shape::is_right(place, map));
    }
}

fn selection(left: Option<String>, jobs: &[WorkflowJob]) -> Selection {
    let empty = || jobs.iter().all(|job| !job.selected.is_selected());
    match left {
        Some(reason) => Selection::Left { reason },
        None if empty() => Selection::Left { reason: "all of its jobs are left out".to_owned() },
        None => Selection::Selected,
    }
}

/// What the job at `index` requires.
pub(super) fn edges(
    context: &Context<'_>,
    jobs: &[PlainWorkflowJob],
    index: usize,
    names: &Names,
) -> Vec<requires::Edge> {
    let plain = &jobs[index];
    let place = At { context, trail: &plain.trail };
    plain.requires.as_ref().map(|node| requires::edges(place, node, names.seen_by(index, plain))).unwrap_or_default()
}

fn workflow_job(context: &Context<'_>, plain: &PlainWorkflowJob, name: &str) -> WorkflowJob {
    let place = At { context, trail: &plain.trail };
    caps::check_name(place, "a job", name, plain.span);
    WorkflowJob {
        name: name.to_owned(),
        definition: String::from(&*plain.definition),
        kind: kind(context, plain),
        matrix: plain.matrix.clone(),
        alias: plain.alias.as_deref().map(String::from),
        requires: Vec::new(),
        selected: filter::selection(place, &plain.filters),
        contexts: contexts(place, plain),
        serial_group: serial_group(place, plain),
        origin: place.origin(plain.span),
    }
}

fn kind(context: &Context<'_>, plain: &PlainWorkflowJob) -> WorkflowJobKind {
    let unavailable = |what: &str| WorkflowJobKind::Unavailable { what: what.to_owned() };
    match &plain.kind {
        PlainKind::Approval => WorkflowJobKind::Approval,
        PlainKind::NoOp => WorkflowJobKind::NoOp,
        PlainKind::Missing { orb, .. } => unavailable(&format!("orb `{orb}`")),
        PlainKind::OfType { name, .. } => unavailable(&format!("a job of type `{name}`")),
        PlainKind::Build(plain) => match job(context, plain) {
            Compiled::Job(job) => WorkflowJobKind::Build { job },
            Compiled::Unavailable(what) => unavailable(&what),
            Compiled::Broken => unavailable(FLAWED),
        },
        PlainKind::Broken => unavailable(FLAWED),
    }
}

fn contexts(place: At<'_>, plain: &PlainWorkflowJob) -> Vec<String> {
    let Some(node) = &plain.context else { return Vec::new() };
    let names = place.texts(node, "context");
    let fits = |name: &str| name.chars().count() <= LONGEST_CONTEXT && !name.is_empty() && name.trim() == name;
    for name in names.iter().filter(|name| !fits(name) || name.contains(['\n', '\r'])) {
        let message = format!("`{}` cannot name a context", start(name));
        let help = "up to 200 characters in one line, without blanks around them";
        place.report(Diagnostic::error("invalid-context", node.span, message).help(help));
    }
    names
}

fn serial_group(place: At<'_>, plain: &PlainWorkflowJob) -> Option<String> {
    let node = plain.serial_group.as_ref().filter(|node| !node.is_null())?;
    let key = place.text(node, "serial-group")?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    if key.is_empty() || key.len() > LONGEST_SERIAL_GROUP || !key.chars().all(allowed) {
        let message = format!("`{}` cannot name a serial group", start(&key));
        let help = "up to 512 letters, digits, `.`, `-`, `_` and `/`";
        place.report(Diagnostic::error("invalid-serial-group", node.span, message).help(help));
    }
    Some(key)
}
