//! What the parts of a job group require of each other.

use std::collections::{BTreeMap, BTreeSet};

use navvy_job::outcome::JobStatus;

use super::fields::At;
use super::requires::Edge;
use crate::diagnostic::Diagnostic;
use crate::resolve::{Context, GroupRole, InGroup, PlainWorkflowJob};

/// One use of a group, by the indices of its parts.
#[derive(Default)]
struct Parts {
    entry: Option<usize>,
    members: Vec<usize>,
    exit: Option<usize>,
    unlock: Option<usize>,
}

/// Adds to the edges of requirements that were written those that hold groups together.
pub(super) fn connect(jobs: &[PlainWorkflowJob], edges: &mut [Vec<Edge>]) {
    for parts in uses(jobs).into_values() {
        let edge = |to: usize, statuses: &[JobStatus]| Edge {
            to,
            statuses: statuses.iter().copied().collect(),
            span: jobs[to].span,
        };
        let required: BTreeSet<usize> =
            parts.members.iter().flat_map(|&m| edges[m].iter().map(|edge| edge.to)).collect();
        let last: Vec<usize> = parts.members.iter().copied().filter(|member| !required.contains(member)).collect();
        for &member in &parts.members {
            if edges[member].is_empty() {
                edges[member].extend(parts.entry.map(|entry| edge(entry, &[JobStatus::Success])));
            }
        }
        if let Some(exit) = parts.exit {
            edges[exit].extend(last.iter().map(|&member| edge(member, &[JobStatus::Success])));
        }
        if let Some(unlock) = parts.unlock {
            let all = parts.members.iter().copied().chain(parts.exit);
            edges[unlock].extend(all.map(|part| edge(part, &JobStatus::TERMINAL)));
        }
    }
}

fn uses(jobs: &[PlainWorkflowJob]) -> BTreeMap<usize, Parts> {
    let mut uses: BTreeMap<usize, Parts> = BTreeMap::new();
    for (index, job) in jobs.iter().enumerate() {
        let Some(group) = &job.group else { continue };
        let parts = uses.entry(group.id).or_default();
        match group.role {
            GroupRole::Entry => parts.entry = Some(index),
            GroupRole::Member => parts.members.push(index),
            GroupRole::Exit => parts.exit = Some(index),
            GroupRole::Unlock => parts.unlock = Some(index),
        }
    }
    uses
}

/// Where one use of a group has a name, every use of it in the workflow needs one. Equal names are reported elsewhere.
pub(super) fn refuse_nameless(context: &Context<'_>, jobs: &[PlainWorkflowJob]) {
    let exit = |job: &PlainWorkflowJob| job.group.as_ref().is_some_and(|group| group.role == GroupRole::Exit);
    let is_named = |job: &PlainWorkflowJob| job.group.as_ref().is_some_and(|group: &InGroup| group.is_named);
    let (named, nameless): (Vec<_>, Vec<_>) = jobs.iter().filter(|job| exit(job)).partition(|job| is_named(job));
    let named: BTreeSet<&str> = named.iter().map(|job| &*job.definition).collect();
    for job in nameless.iter().filter(|job| named.contains(&*job.definition)) {
        let message =
            format!("this use of job group `{}` has no name, but another one in the workflow has", job.definition);
        let told = Diagnostic::error("missing-name", job.span, message).help("give it one with `name:`");
        At { context, trail: &job.trail }.report(told);
    }
}
