//! The `jobs` of the text: one for every job of a workflow, equal ones once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::comments::Comments;
use super::yaml::{Entry, Item, Yaml};
use crate::compile::plain_job;
use crate::diagnostic::Span;
use crate::resolve::{
    Action, PlainExecutor, PlainJob, PlainKind, PlainPipeline, PlainStep, PlainWorkflow, Reach, Trail,
};
use crate::syntax::{Content, Node};

/// What comes first in a job, in this order; all else follows as written, `steps` last.
const FIRST: [&str; 8] =
    ["type", "docker", "machine", "macos", "executor", "resource_class", "shell", "working_directory"];
/// Filters of times before workflows; what is left of them stands in the workflow.
const DROPPED: &str = "branches";

/// Jobs with their keys in the text.
pub(super) struct Jobs {
    entries: Vec<Entry>,
    /// The keys of every workflow's jobs; `None` for one that needs no definition.
    keys: BTreeMap<(usize, usize), String>,
    renamed: bool,
}

impl Jobs {
    pub fn of(comments: &Comments<'_>, plain: &PlainPipeline) -> Self {
        let mut jobs = Self { entries: Vec::new(), keys: BTreeMap::new(), renamed: false };
        let mut places: HashMap<String, usize> = HashMap::new();
        for (at, workflow) in plain.workflows.iter().enumerate().filter(|(_, workflow)| is_written(workflow)) {
            let names = crate::compile::names(comments.context, &workflow.jobs);
            for (index, (job, name)) in workflow.jobs.iter().zip(names.unique()).enumerate() {
                if let Some(body) = body(comments, &job.kind) {
                    let told = comments.say(|| {
                        let place = comments.place(job.span);
                        format!(
                            "job `{}`, workflow `{}`, {place}{}",
                            job.definition,
                            workflow.name,
                            matrix(&job.matrix)
                        )
                    });
                    let key = jobs.add(&mut places, Entry::new(name, body).with(told));
                    jobs.keys.insert((at, index), key);
                }
            }
        }
        jobs
    }

    /// The key that stands for a job of a workflow.
    pub fn key(&self, workflow: usize, job: usize) -> Option<&str> {
        self.keys.get(&(workflow, job)).map(String::as_str)
    }

    /// Does a job stand under another name than its own?
    pub fn has_renamed(&self) -> bool {
        self.renamed
    }

    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Adds a job unless an equal one stands there; its key.
    fn add(&mut self, places: &mut HashMap<String, usize>, entry: Entry) -> String {
        let wanted = entry.key.clone();
        let mut key = wanted.clone();
        let mut number = 1;
        while let Some(&at) = places.get(&key) {
            if self.entries[at].value == entry.value {
                return key;
            }
            number += 1;
            key = format!("{wanted}-{number}");
            self.renamed = true;
        }
        places.insert(key.clone(), self.entries.len());
        self.entries.push(Entry { key: key.clone(), ..entry });
        key
    }
}

/// Names of the orbs that are not here and that something written comes from.
pub(super) fn missing_orbs(plain: &PlainPipeline) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for job in plain.workflows.iter().filter(|workflow| is_written(workflow)).flat_map(|workflow| &workflow.jobs) {
        match &job.kind {
            PlainKind::Missing { orb, .. } => drop(found.insert(&**orb)),
            PlainKind::Build(job) => {
                if let PlainExecutor::Missing { name } = &job.executor {
                    found.extend(alias(name));
                }
                found.extend(job.steps.iter().filter_map(|step| match &step.action {
                    Action::Missing { orb, .. } => Some(orb.as_str()),
                    Action::BuiltIn(_) => None,
                }));
            }
            _ => {}
        }
    }
    found
}

fn alias(name: &str) -> Option<&str> {
    name.split_once('/').map(|(alias, _)| alias)
}

/// A workflow whose condition does not hold is not written; another one with triggers is, as it waits for them.
pub(super) fn is_written(workflow: &PlainWorkflow) -> bool {
    workflow.standing.reach == Reach::Full
}

fn matrix(values: &BTreeMap<String, String>) -> String {
    let values: Vec<String> = values.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    if values.is_empty() { String::new() } else { format!(", matrix {}", values.join(", ")) }
}

/// `None` for what needs no definition.
fn body(comments: &Comments<'_>, kind: &PlainKind) -> Option<Yaml> {
    match kind {
        PlainKind::Build(job) => Some(build(comments, job)),
        PlainKind::NoOp => Some(Yaml::Map(vec![Entry::new("type", Yaml::text("no-op"))])),
        PlainKind::OfType { name, entries } => {
            let own = entries.iter().map(|entry| Entry::new(&*entry.key, Yaml::of(&entry.value, &|_| Vec::new())));
            Some(Yaml::Map(std::iter::once(Entry::new("type", Yaml::text(&**name))).chain(own).collect()))
        }
        PlainKind::Approval | PlainKind::Missing { .. } | PlainKind::Broken => None,
    }
}

fn build(comments: &Comments<'_>, job: &PlainJob) -> Yaml {
    let parts = plain_job(comments.context, job);
    let mut entries: Vec<Entry> = parts
        .map
        .entries
        .iter()
        .filter(|entry| !matches!(&*entry.key, "environment" | DROPPED))
        .map(|entry| self::entry(comments, job, entry))
        .collect();
    if let (PlainExecutor::Missing { name }, false) = (&job.executor, parts.has_stanza) {
        entries.push(Entry::new("executor", Yaml::text(&**name)));
    }
    entries.sort_by_key(|entry| FIRST.iter().position(|key| *key == entry.key).unwrap_or(FIRST.len()));
    if !parts.environment.is_empty() {
        let variable = |(name, value): &(String, String)| {
            Entry::new(name, Yaml::text(value)).with(self::variable(comments, job, name))
        };
        let variables = parts.environment.iter().map(variable).collect();
        entries.push(Entry::new("environment", Yaml::Map(variables)));
    }
    entries.push(Entry::new("steps", Yaml::List(job.steps.iter().map(|step| self::step(comments, step)).collect())));
    Yaml::Map(entries)
}

fn entry(comments: &Comments<'_>, job: &PlainJob, entry: &crate::syntax::Entry) -> Entry {
    let (trail, from) = source_of(comments, job, entry);
    let told = comments.value(&entry.value, trail);
    let value = Yaml::of(&entry.value, &|node| comments.value(node, trail));
    Entry::new(&*entry.key, value).with([from, told].concat())
}

/// Does a key of a job come from its executor? The way into what wrote it, and what to say.
pub(crate) fn source_of<'j>(
    comments: &Comments<'_>,
    job: &'j PlainJob,
    entry: &crate::syntax::Entry,
) -> (&'j Trail, Vec<String>) {
    let own = job.entries.iter().any(|other| other.key_span == entry.key_span);
    match &job.executor {
        PlainExecutor::Entries { trail, .. } if !own => {
            let name = trail.innermost().map_or("", |(_, name, ..)| name);
            (trail, comments.say(|| format!("from executor `{name}`, {}", comments.place(entry.key_span))))
        }
        _ => (&job.trail, comments.say(|| comments.place(entry.key_span))),
    }
}

/// Where a variable of the environment was written.
fn variable(comments: &Comments<'_>, job: &PlainJob, name: &str) -> Vec<String> {
    if !comments.wanted {
        return Vec::new();
    }
    let Some((trail, span, value)) = written_variable(job, name) else { return Vec::new() };
    let owner = trail.innermost().map(|(kind, name, ..)| format!("from {kind} `{name}`, ")).unwrap_or_default();
    let told = comments.value(&Node::null(value), trail);
    [vec![format!("{owner}{}", comments.place(span))], told].concat()
}

/// The way into what wrote a variable, its place and that of its value. The job wins over its executor.
pub(crate) fn written_variable<'j>(job: &'j PlainJob, name: &str) -> Option<(&'j Trail, Span, Span)> {
    let inside = |trail, entries: &[crate::syntax::Entry]| {
        let node = entries.iter().find(|entry| &*entry.key == "environment").map(|entry| &entry.value)?;
        variable_in(node, name).map(|(at, value)| (trail, at, value))
    };
    let of_executor = || match &job.executor {
        PlainExecutor::Entries { entries, trail } => inside(trail, entries),
        _ => None,
    };
    inside(&job.trail, &job.entries).or_else(of_executor)
}

fn variable_in(node: &Node, name: &str) -> Option<(Span, Span)> {
    match &node.content {
        Content::Map(map) => map.entry(name).map(|entry| (entry.key_span, entry.value.span)),
        Content::List(items) => items.iter().rev().find_map(|item| variable_in(item, name)),
        Content::Scalar(scalar) => {
            let found = scalar.text.split_once('=').is_some_and(|(written, _)| written.trim() == name);
            found.then_some((node.span, node.span))
        }
        Content::Broken => None,
    }
}

fn step(comments: &Comments<'_>, step: &PlainStep) -> Item {
    let key = match &step.action {
        Action::BuiltIn(built_in) => built_in.key().to_owned(),
        Action::Missing { orb, command } => format!("{orb}/{command}"),
    };
    Item { comments: comments.step(step.span, &step.trail), value: step_value(comments, key, step) }
}

fn step_value(comments: &Comments<'_>, key: String, step: &PlainStep) -> Yaml {
    if step.body.is_null() {
        return Yaml::text(key);
    }
    let value = |node: &Node| Yaml::of(node, &|node| comments.value(node, &step.trail));
    let body = match (step.body.as_map(), &*key) {
        (None, "run" | "deploy") => {
            let told = comments.value(&step.body, &step.trail);
            Yaml::Map(vec![Entry::new("command", value(&step.body)).with(told)])
        }
        _ => value(&step.body),
    };
    Yaml::Map(vec![Entry::new(key, body)])
}
