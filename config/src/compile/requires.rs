//! `requires`: which jobs, ended how; cycles; and who is left out because all that it requires is.

use std::collections::BTreeSet;

use navvy_job::outcome::JobStatus;
use navvy_job::pipeline::{Requirement, Selection, WorkflowJob};

use super::fields::At;
use super::names::{Names, View};
use crate::diagnostic::{Diagnostic, Span};
use crate::neighbour::nearest;
use crate::resolve::Context;
use crate::syntax::{Content, Entry, Node};

/// One requirement of a job, as an edge of the graph.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    /// Index of the required job.
    pub to: usize,
    pub statuses: BTreeSet<JobStatus>,
    pub span: Span,
}

/// The edges that a `requires` list stands for.
pub(super) fn edges(place: At<'_>, node: &Node, names: View<'_>) -> Vec<Edge> {
    let mut edges = Vec::new();
    match &node.content {
        Content::List(items) => items.iter().for_each(|item| edges.extend(item_edges(place, item, names))),
        Content::Scalar(_) if node.is_null() => {}
        Content::Scalar(_) | Content::Map(_) => edges.extend(item_edges(place, node, names)),
        Content::Broken => {}
    }
    edges
}

fn item_edges(place: At<'_>, item: &Node, names: View<'_>) -> Vec<Edge> {
    match &item.content {
        Content::Map(map) if map.entries.is_empty() => {
            place.wrong_shape(item, "requires", "names of jobs");
            Vec::new()
        }
        Content::Map(map) => map.entries.iter().flat_map(|entry| with_status(place, entry, names)).collect(),
        Content::List(_) => edges(place, item, names),
        _ => {
            let Some(name) = place.text(item, "requires") else { return Vec::new() };
            to(place, &name, item.span, &BTreeSet::from([JobStatus::Success]), names)
        }
    }
}

fn with_status(place: At<'_>, entry: &Entry, names: View<'_>) -> Vec<Edge> {
    let words = place.texts(&entry.value, "requires");
    let statuses: BTreeSet<_> = words.iter().flat_map(|word| status(place, word, entry.value.span)).collect();
    let statuses = if statuses.is_empty() { BTreeSet::from([JobStatus::Success]) } else { statuses };
    to(place, &entry.key, entry.key_span, &statuses, names)
}

fn status(place: At<'_>, word: &str, span: Span) -> Vec<JobStatus> {
    if word == "terminal" {
        return JobStatus::TERMINAL.to_vec();
    }
    if let Some(status) = JobStatus::TERMINAL.into_iter().find(|status| status.as_str() == word) {
        return vec![status];
    }
    let known = JobStatus::TERMINAL.map(JobStatus::as_str);
    let neighbour = nearest(word, known.into_iter().chain(["terminal"]));
    let message = format!("a job cannot end with status `{word}`");
    let help = format!("known are {} and terminal", known.join(", "));
    let diagnostic = Diagnostic::error("unknown-status", span, message);
    place.report(if neighbour.is_some() { diagnostic.meant(neighbour) } else { diagnostic.help(help) });
    Vec::new()
}

fn to(place: At<'_>, name: &str, span: Span, statuses: &BTreeSet<JobStatus>, names: View<'_>) -> Vec<Edge> {
    let Some(indices) = names.find(name) else {
        if place.context.is_hopeless() {
            return Vec::new();
        }
        place.report(unknown(name, span, names));
        return Vec::new();
    };
    if !place.context.requirements(indices.len(), name, span) {
        return Vec::new();
    }
    indices.iter().map(|&to| Edge { to, statuses: statuses.clone(), span }).collect()
}

fn unknown(name: &str, span: Span, names: View<'_>) -> Diagnostic {
    if names.is_inside() {
        let message = format!("no job of this job group is named `{name}`");
        let diagnostic = Diagnostic::error("unknown-requirement", span, message).meant(names.neighbour(name));
        let help = "jobs of a group require each other; what the group requires stands where a workflow uses it";
        return if diagnostic.help.is_some() { diagnostic } else { diagnostic.help(help) };
    }
    if let Some(group) = names.group_of(name) {
        let message = format!("`{name}` lies in job group `{group}` and cannot be required from outside");
        let help = format!("require the whole group: `{group}`");
        return Diagnostic::error("required-member", span, message).help(help);
    }
    let message = format!("no job of this workflow is named `{name}`");
    Diagnostic::error("unknown-requirement", span, message).meant(names.neighbour(name))
}

/// Indices such that every job comes after those that it requires; a cycle is reported.
pub(super) fn order(context: &Context<'_>, edges: &[Vec<Edge>], names: &Names) -> Option<Vec<usize>> {
    let mut open: Vec<usize> = edges.iter().map(Vec::len).collect();
    let mut dependents = vec![Vec::new(); edges.len()];
    for (from, edges) in edges.iter().enumerate() {
        edges.iter().for_each(|edge| dependents[edge.to].push(from));
    }
    let mut order: Vec<usize> = (0..edges.len()).filter(|&job| open[job] == 0).collect();
    let mut next = 0;
    while let Some(&job) = order.get(next) {
        next += 1;
        for &dependent in &dependents[job] {
            open[dependent] -= 1;
            if open[dependent] == 0 {
                order.push(dependent);
            }
        }
    }
    if order.len() == edges.len() {
        return Some(order);
    }
    report_cycle(context, edges, &open, names);
    None
}

/// Every job that is still open requires one that is still open: following them ends in a cycle.
fn report_cycle(context: &Context<'_>, edges: &[Vec<Edge>], open: &[usize], names: &Names) {
    let Some(start) = open.iter().position(|open| *open > 0) else { return };
    let mut path = vec![start];
    let mut job = start;
    loop {
        let Some(edge) = edges[job].iter().find(|edge| open[edge.to] > 0) else { return };
        job = edge.to;
        if let Some(first) = path.iter().position(|&seen| seen == job) {
            let cycle: Vec<&str> = path[first..].iter().chain([&job]).map(|&job| &*names.unique[job]).collect();
            let message = format!("these jobs require each other: {}", cycle.join(" → "));
            let diagnostic = Diagnostic::error("cyclic-requires", edge.span, message);
            context.report(path[first..].iter().fold(diagnostic, |told, &job| require(told, job, edges, open, names)));
            return;
        }
        path.push(job);
    }
}

/// Most jobs of a cycle that are shown with their place.
const MOST_SHOWN: usize = 20;

/// Where a job of the cycle requires the next one.
fn require(told: Diagnostic, job: usize, edges: &[Vec<Edge>], open: &[usize], names: &Names) -> Diagnostic {
    match edges[job].iter().find(|edge| open[edge.to] > 0) {
        Some(edge) if edge.span != told.span && told.related.len() < MOST_SHOWN => {
            told.related(edge.span, format!("`{}` requires `{}` here", names.unique[job], names.unique[edge.to]))
        }
        _ => told,
    }
}

/// Leaves out the jobs all of whose requirements are left out, and drops requirements on jobs left out.
pub(super) fn settle(jobs: &mut [WorkflowJob], edges: &[Vec<Edge>], order: &[usize]) {
    for &job in order {
        let mut required = edges[job].iter().map(|edge| edge.to).peekable();
        let requires_some = required.peek().is_some();
        if requires_some && jobs[job].selected.is_selected() && required.all(|to| !jobs[to].selected.is_selected()) {
            let reason = "every job that it requires is left out".to_owned();
            jobs[job].selected = Selection::Left { reason };
        }
    }
    let selected: Vec<bool> = jobs.iter().map(|job| job.selected.is_selected()).collect();
    let names: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
    for (job, edges) in jobs.iter_mut().zip(edges) {
        let kept = edges.iter().filter(|edge| selected[edge.to]);
        job.requires = kept.map(|e| Requirement { job: names[e.to].clone(), statuses: e.statuses.clone() }).collect();
    }
}
