//! What a job is made of, value by value, with the line that gave it.

use navvy_job::compiled::{Executor, Job};
use navvy_job::pipeline::{WorkflowJob, WorkflowJobKind};

use super::ExplainedValue;
use crate::compile::Parts;
use crate::compile::plain_job;
use crate::diagnostic::Span;
use crate::process::{Comments, source_of, written_variable};
use crate::resolve::{PlainExecutor, PlainJob, PlainKind, PlainWorkflowJob, Trail};
use crate::syntax::{Entry, Node};

pub(super) fn values(comments: &Comments<'_>, plain: &PlainWorkflowJob, job: &WorkflowJob) -> Vec<ExplainedValue> {
    let mut told =
        vec![ExplainedValue { name: "invoked".to_owned(), value: what(plain), from: comments.place(plain.span) }];
    if let (PlainKind::Build(plain), WorkflowJobKind::Build { job }) = (&plain.kind, &job.kind) {
        told.extend(Values { comments, plain, job, parts: plain_job(comments.context, plain) }.all());
    }
    let written = [("context", &plain.context), ("serial-group", &plain.serial_group)];
    for (key, node) in written.into_iter().filter_map(|(key, node)| Some((key, node.as_ref()?))) {
        let value =
            if key == "context" { job.contexts.join(", ") } else { job.serial_group.clone().unwrap_or_default() };
        told.push(ExplainedValue { name: key.to_owned(), value, from: comments.place(node.span) });
    }
    told
}

/// What the workflow's line stands for.
fn what(plain: &PlainWorkflowJob) -> String {
    let job = format!("job `{}`", plain.definition);
    match &plain.kind {
        PlainKind::Approval => "an approval: a person lets it pass".to_owned(),
        PlainKind::NoOp => format!("{job}, which does nothing"),
        PlainKind::OfType { name, .. } => format!("{job} of type `{name}`, which is not carried out"),
        PlainKind::Missing { orb, .. } => format!("{job}, not available here: orb `{orb}`"),
        PlainKind::Build(_) | PlainKind::Broken => job,
    }
}

struct Values<'v> {
    comments: &'v Comments<'v>,
    plain: &'v PlainJob,
    job: &'v Job,
    parts: Parts,
}

impl Values<'_> {
    fn all(&self) -> Vec<ExplainedValue> {
        let mut told = vec![told("definition", self.owner(&self.plain.trail), self.comments.place(self.plain.span))];
        told.extend(self.parameters(&self.plain.trail));
        told.extend(self.executor());
        told.extend(self.images());
        let job = self.job;
        let parallelism = (job.parallelism != 1 || self.entry("parallelism").is_some()).then_some(job.parallelism);
        told.extend(self.simple("resource_class", job.resource_class.clone(), "none: the executor's default class"));
        told.extend(self.simple("parallelism", parallelism.map(|number| number.to_string()), "none: one node"));
        told.extend(self.simple("shell", job.shell.clone(), "none: the environment's default shell"));
        told.extend(self.simple("working_directory", Some(job.working_directory.clone()), "none"));
        told.extend(job.environment.iter().map(|(name, value)| self.variable(name, value)));
        told.extend(job.steps.iter().zip(&self.plain.steps).enumerate().map(|(at, (step, plain))| ExplainedValue {
            name: format!("step {}", at + 1),
            value: format!("{}: {}", step.kind.key(), step.name.lines().next().unwrap_or_default()),
            from: self.comments.step(plain.span, &plain.trail).concat(),
        }));
        told
    }

    fn owner(&self, trail: &Trail) -> String {
        trail.innermost().map(|(kind, name, ..)| format!("{kind} `{name}`")).unwrap_or_default()
    }

    fn parameters(&self, trail: &Trail) -> Vec<ExplainedValue> {
        let owner = self.owner(trail);
        let given = self.comments.record.given(trail).iter();
        given
            .map(|given| {
                told(
                    format!("parameter `{}` of {owner}", given.name),
                    given.value.clone(),
                    self.comments.whence(given.whence),
                )
            })
            .collect()
    }

    fn executor(&self) -> Vec<ExplainedValue> {
        let PlainExecutor::Entries { trail, .. } = &self.plain.executor else { return Vec::new() };
        let Some((_, name, defined, used)) = trail.innermost() else { return Vec::new() };
        let (defined, used) = (self.comments.place(defined), self.comments.place(used));
        let from = format!("defined at {defined}, named at {used}");
        let first = told("executor", name, from);
        std::iter::once(first).chain(self.parameters(trail)).collect()
    }

    fn images(&self) -> Vec<ExplainedValue> {
        match &self.job.executor {
            Executor::Docker { containers } => {
                let items = self.entry("docker").and_then(|entry| entry.value.as_list()).unwrap_or_default();
                let image = |item: &Node| item.as_map().and_then(|map| map.get("image")).cloned();
                let images = items.iter().map(image).zip(containers).enumerate();
                images
                    .map(|(at, (node, container))| {
                        let name = if at == 0 { "image".to_owned() } else { format!("service {at}") };
                        told(name, container.image.clone(), self.from("docker", node.as_ref()))
                    })
                    .collect()
            }
            Executor::Machine { image, .. } => {
                let shown = image.clone().unwrap_or_else(|| "the default image".to_owned());
                vec![told("machine", shown, self.from("machine", self.inner("machine", "image")))]
            }
            Executor::Macos { xcode } => {
                let shown = format!("xcode {}", xcode.as_deref().unwrap_or("default"));
                vec![told("macos", shown, self.from("macos", self.inner("macos", "xcode")))]
            }
        }
    }

    /// A key of the job or its executor, which may also stand in the executor's stanza.
    fn simple(&self, key: &str, value: Option<String>, without: &str) -> Option<ExplainedValue> {
        let inside = || ["machine", "macos"].into_iter().find_map(|stanza| Some((stanza, self.inner(stanza, key)?)));
        let from = match (self.entry(key), inside()) {
            (Some(entry), _) => self.from(key, Some(&entry.value)),
            (None, Some((stanza, node))) => self.from(stanza, Some(node)),
            (None, None) => "default".to_owned(),
        };
        match value {
            Some(value) => Some(told(key, value, from)),
            None if key == "resource_class" => Some(told(key, without, from)),
            None => None,
        }
    }

    fn variable(&self, name: &str, value: &str) -> ExplainedValue {
        let from = match written_variable(self.plain, name) {
            Some((trail, span, node)) => self.place_of(trail, span, &Node::null(node)),
            None => String::new(),
        };
        told(format!("environment {name}"), format!("{value:?}"), from)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.parts.map.entry(key).filter(|entry| !entry.value.is_null())
    }

    fn inner(&self, stanza: &str, key: &str) -> Option<&Node> {
        self.entry(stanza)?.value.as_map()?.get(key)
    }

    /// Who wrote the entry `key`, and what the templates of `node` named.
    fn from(&self, key: &str, node: Option<&Node>) -> String {
        let Some(entry) = self.entry(key) else { return "default".to_owned() };
        let (trail, _) = source_of(self.comments, self.plain, entry);
        let node = node.unwrap_or(&entry.value);
        self.place_of(trail, node.span, node)
    }

    fn place_of(&self, trail: &Trail, span: Span, node: &Node) -> String {
        let named = self.comments.value(node, trail).concat();
        let by = if named.is_empty() { String::new() } else { format!(", by {named}") };
        format!("{}, {}{by}", self.owner(trail), self.comments.place(span))
    }
}

fn told(name: impl Into<String>, value: impl Into<String>, from: impl Into<String>) -> ExplainedValue {
    ExplainedValue { name: name.into(), value: value.into(), from: from.into() }
}
