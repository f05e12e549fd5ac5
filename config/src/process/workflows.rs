//! The `workflows` of the text.

use std::collections::BTreeSet;

use navvy_job::outcome::JobStatus;

use super::comments::Comments;
use super::jobs::{Jobs, is_written};
use super::yaml::{Entry, Item, Yaml};
use crate::compile::{names, requires};
use crate::resolve::{PlainFilters, PlainKind, PlainPipeline, PlainWorkflow, PlainWorkflowJob};
use crate::syntax::Node;

/// Lets every name through.
const ANY: &str = "/.*/";

pub(super) fn workflows(comments: &Comments<'_>, plain: &PlainPipeline, jobs: &Jobs, is_2_1: bool) -> Yaml {
    let mut entries = Vec::new();
    if !is_2_1 {
        entries.push(Entry::new("version", Yaml::number(2)));
    }
    for (at, workflow) in plain.workflows.iter().enumerate() {
        if is_written(workflow) {
            entries.push(self::workflow(comments, at, workflow, jobs));
        }
    }
    Yaml::Map(entries)
}

fn workflow(comments: &Comments<'_>, at: usize, workflow: &PlainWorkflow, jobs: &Jobs) -> Entry {
    let names = names(comments.context, &workflow.jobs);
    let mut items = Vec::new();
    for (index, (job, name)) in workflow.jobs.iter().zip(names.unique()).enumerate() {
        let requires = requires(comments.context, &workflow.jobs, index, &names);
        let missing = missing(job);
        let key = jobs.key(at, index).or(missing.as_deref()).unwrap_or(name);
        let requires = requires.iter().map(|(to, ends)| Item::new(requirement(&names.unique()[*to], ends))).collect();
        items.push(item(comments, job, name, key, requires));
    }
    let mut entries = vec![Entry::new("jobs", Yaml::List(items))];
    if let Some(triggers) = &workflow.triggers {
        entries.insert(0, Entry::new("triggers", whole(triggers)));
    }
    if let Some(reruns) = &workflow.max_auto_reruns {
        entries.push(Entry::new("max_auto_reruns", whole(reruns)));
    }
    Entry::new(&*workflow.name, Yaml::Map(entries)).with(comments.say(|| comments.place(workflow.span)))
}

/// A job of an orb that is not here, by its name there.
fn missing(job: &PlainWorkflowJob) -> Option<String> {
    match &job.kind {
        PlainKind::Missing { orb, element } => Some(format!("{orb}/{element}")),
        _ => None,
    }
}

fn item(comments: &Comments<'_>, job: &PlainWorkflowJob, name: &str, key: &str, requires: Vec<Item>) -> Item {
    let mut keys = Vec::new();
    if key != name {
        keys.push(Entry::new("name", Yaml::text(name)));
    }
    if matches!(job.kind, PlainKind::Approval) {
        keys.push(Entry::new("type", Yaml::text("approval")));
    }
    if !requires.is_empty() {
        keys.push(Entry::new("requires", Yaml::List(requires)));
    }
    keys.extend(filters(&job.filters));
    let given = |key: &str, node: &Option<Node>| {
        node.as_ref().filter(|node| !node.is_null()).map(|node| Entry::new(key, whole(node)))
    };
    keys.extend(given("context", &job.context));
    keys.extend(given("serial-group", &job.serial_group));
    let value = if keys.is_empty() { Yaml::text(key) } else { Yaml::Map(vec![Entry::new(key, Yaml::Map(keys))]) };
    Item { comments: comments.say(|| comments.place(job.span)), value }
}

fn requirement(name: &str, statuses: &BTreeSet<JobStatus>) -> Yaml {
    if statuses.len() == 1 && statuses.contains(&JobStatus::Success) {
        return Yaml::text(name);
    }
    let words = match statuses.iter().collect::<Vec<_>>()[..] {
        [one] => Yaml::text(one.as_str()),
        _ if statuses.len() == JobStatus::TERMINAL.len() => Yaml::text("terminal"),
        _ => Yaml::texts(statuses.iter().map(|status| status.as_str())),
    };
    Yaml::Map(vec![Entry::new(name, words)])
}

/// An expression is decided: it becomes a filter that lets everything or nothing through.
fn filters(filters: &PlainFilters) -> Option<Entry> {
    let block = |key: &str| Entry::new(key, Yaml::Map(vec![Entry::new("only", Yaml::text(ANY))]));
    let none = || Yaml::Map(vec![Entry::new("ignore", Yaml::text(ANY))]);
    let value = match filters {
        PlainFilters::None => return None,
        PlainFilters::Map(node) => whole(node),
        PlainFilters::Decided { holds: true, .. } => Yaml::Map(vec![block("branches"), block("tags")]),
        PlainFilters::Decided { .. } | PlainFilters::Wrong => Yaml::Map(vec![Entry::new("branches", none())]),
    };
    Some(Entry::new("filters", value))
}

fn whole(node: &Node) -> Yaml {
    Yaml::of(node, &|_| Vec::new())
}
