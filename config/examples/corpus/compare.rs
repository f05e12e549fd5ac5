//! A compiled pipeline against the facts of its file: every kind of fact there is.

use std::collections::{BTreeMap, BTreeSet};

use navvy_job::compiled::{Executor, Job, StepKind};
use navvy_job::outcome::JobStatus;
use navvy_job::pipeline::{Pipeline, Requirement, Selection, Workflow, WorkflowJob, WorkflowJobKind};
use serde_json::{Map, Value, json};

/// What should be and what is; `null` should be anything.
pub struct Fact {
    pub path: String,
    pub expected: Value,
    pub found: Value,
}

/// All facts of a file.
pub fn compare(facts: &Value, pipeline: &Pipeline) -> Vec<Fact> {
    let mut out = Facts::default();
    let of = |wanted: fn(&Workflow) -> bool| -> BTreeSet<&str> {
        pipeline.workflows.iter().filter(|workflow| wanted(workflow)).map(|workflow| &*workflow.name).collect()
    };
    out.add("setup", &facts["setup"], json!(pipeline.setup));
    out.add_set(
        "workflow_names_run",
        &facts["workflow_names_run"],
        json!(of(|workflow| workflow.selected.is_selected())),
    );
    let expected = facts["workflows"].as_object().cloned().unwrap_or_default();
    out.add("workflows", &json!(expected.keys().collect::<BTreeSet<_>>()), json!(of(|_| true)));
    if let Some(implicit) = facts.get("implicit_workflow") {
        out.add("implicit_workflow", implicit, json!(is_implicit(pipeline)));
    }
    for workflow in &pipeline.workflows {
        if let Some(fact) = expected.get(&workflow.name) {
            out.workflow(fact, workflow, pipeline);
        }
    }
    out.0
}

fn is_implicit(pipeline: &Pipeline) -> bool {
    matches!(&pipeline.workflows[..], [only] if only.name == "workflow" && only.jobs.iter().all(|job| job.definition == "build"))
}

#[derive(Default)]
struct Facts(Vec<Fact>);

impl Facts {
    fn add(&mut self, path: &str, fact: &Value, found: Value) {
        self.0.push(Fact { path: path.to_owned(), expected: value(fact).clone(), found });
    }

    /// The order means nothing.
    fn add_set(&mut self, path: &str, fact: &Value, found: Value) {
        let mut fact = value(fact).clone();
        if let Some(items) = fact.as_array_mut() {
            items.sort_by_key(ToString::to_string);
            items.dedup();
        }
        self.add(path, &fact, found);
    }

    fn workflow(&mut self, fact: &Value, workflow: &Workflow, pipeline: &Pipeline) {
        let name = &workflow.name;
        let facts: Vec<&Value> = fact["jobs"].as_array().into_iter().flatten().collect();
        self.add(&format!("{name}.condition_holds"), &fact["condition_holds"], json!(condition_holds(workflow)));
        self.add(&format!("{name}.runs"), &fact["runs"], json!(workflow.selected.is_selected()));
        self.add(&format!("{name}.scheduled"), &fact["scheduled"], json!(is_scheduled(workflow)));
        self.add(&format!("{name}.jobs"), &json!(facts.len()), json!(workflow.jobs.len()));
        let mut jobs: Vec<&WorkflowJob> = workflow.jobs.iter().collect();
        for fact in facts {
            let shown = value(&fact["name"]).as_str().or(fact["job"].as_str()).unwrap_or("");
            let path = format!("{name}/{shown}");
            // Each compiled job stands for one fact.
            match jobs.iter().position(|job| is_same(fact, job)) {
                Some(index) => self.job(&path, fact, jobs.remove(index), workflow, pipeline),
                None => self.add(&path, &json!("there"), json!(jobs.iter().map(|job| &job.name).collect::<Vec<_>>())),
            }
        }
    }

    fn job(&mut self, path: &str, fact: &Value, job: &WorkflowJob, workflow: &Workflow, pipeline: &Pipeline) {
        let kind = match &job.kind {
            WorkflowJobKind::Approval => "approval",
            WorkflowJobKind::NoOp => "no-op",
            WorkflowJobKind::Build { .. } | WorkflowJobKind::Unavailable { .. } => "job",
        };
        let mut say = |key: &str, found: Value| self.add(&format!("{path}.{key}"), &fact[key], found);
        say("name", json!(job.name));
        say("job", json!(job.definition));
        say("type", json!(kind));
        say("kept", json!(job.selected.is_selected()));
        say("kept_own_filter", json!(kept_own_filter(job)));
        self.add(&format!("{path}.matrix"), &matrix(&fact["matrix"]), json!(job.matrix));
        if fact.get("alias").is_some() {
            self.add(&format!("{path}.alias"), &fact["alias"], json!(job.alias));
        }
        if fact.get("name_shared_by_unlike_jobs").is_some() {
            let found = json!(is_shared(job, pipeline));
            self.add(&format!("{path}.name_shared_by_unlike_jobs"), &fact["name_shared_by_unlike_jobs"], found);
        }
        let found: BTreeMap<&str, Value> = job.requires.iter().map(|it| (&*it.job, json!(statuses(it)))).collect();
        self.add(&format!("{path}.requires"), &requires(&fact["requires"], workflow), json!(found));
        match &job.kind {
            WorkflowJobKind::Build { job } => self.build(path, fact, job),
            WorkflowJobKind::Unavailable { what } => self.unavailable(path, fact, what),
            WorkflowJobKind::Approval | WorkflowJobKind::NoOp => {}
        }
    }

    fn build(&mut self, path: &str, fact: &Value, job: &Job) {
        let mut say = |key: &str, found: Value| self.add(&format!("{path}.{key}"), &fact[key], found);
        say("executor", json!(job.executor.kind()));
        say("image", json!(image(&job.executor)));
        say("services", json!(services(&job.executor)));
        say("parallelism", json!(job.parallelism));
        say("resource_class", json!(job.resource_class.as_deref().unwrap_or("(default)")));
        say("steps", json!(steps(job)));
        say("run_names", run_names(job, value(&fact["run_names"])));
    }

    /// A job that needs a missing orb says nothing; the facts must not know more.
    fn unavailable(&mut self, path: &str, fact: &Value, what: &str) {
        for key in ["executor", "image", "services"] {
            self.add(&format!("{path}.{key}"), &fact[key], json!(format!("unavailable: {what}")));
        }
    }
}

/// A fact stands bare or as a `value`.
fn value(fact: &Value) -> &Value {
    fact.get("value").unwrap_or(fact)
}

/// By name where the fact knows it, else by definition and matrix.
fn is_same(fact: &Value, job: &WorkflowJob) -> bool {
    match value(&fact["name"]).as_str() {
        Some(name) => job.name == name,
        None => fact["job"] == job.definition && matrix(&fact["matrix"]) == json!(job.matrix),
    }
}

/// Values of a matrix as text, as they stand in names.
fn matrix(fact: &Value) -> Value {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let entries = fact.as_object().into_iter().flatten();
    Value::Object(entries.map(|(name, value)| (name.clone(), json!(text(value)))).collect::<Map<_, _>>())
}

fn reason(selection: &Selection) -> &str {
    match selection {
        Selection::Selected => "",
        Selection::Left { reason } => reason,
    }
}

fn condition_holds(workflow: &Workflow) -> bool {
    workflow.selected.is_selected() || reason(&workflow.selected) == "all of its jobs are left out"
}

fn is_scheduled(workflow: &Workflow) -> bool {
    reason(&workflow.selected).starts_with("it runs only on schedule")
}

fn kept_own_filter(job: &WorkflowJob) -> bool {
    job.selected.is_selected() || reason(&job.selected) == "every job that it requires is left out"
}

/// Are there others of its name in the file? What makes them unlike are the arguments as written, which no longer exist.
fn is_shared(job: &WorkflowJob, pipeline: &Pipeline) -> bool {
    let all = pipeline.workflows.iter().flat_map(|workflow| &workflow.jobs);
    all.filter(|other| other.name == job.name).count() > 1
}

/// The fact tells all requirements, the compiled job only those that are not left out.
fn requires(fact: &Value, workflow: &Workflow) -> Value {
    let Some(items) = value(fact).as_array() else { return Value::Null };
    let left = |name: &str| workflow.jobs.iter().any(|job| job.name == name && !job.selected.is_selected());
    let requirement = |item: &Value| match item.as_object().and_then(|map| map.iter().next()) {
        Some((name, status)) => (name.clone(), json!(words(status))),
        None => (item.as_str().unwrap_or_default().to_owned(), json!(["success"])),
    };
    let all = items.iter().map(requirement).filter(|(name, _)| !left(name));
    json!(all.collect::<BTreeMap<_, _>>())
}

fn words(status: &Value) -> BTreeSet<&str> {
    match status {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

fn statuses(requirement: &Requirement) -> BTreeSet<&'static str> {
    requirement.statuses.iter().map(|status: &JobStatus| status.as_str()).collect()
}

fn image(executor: &Executor) -> String {
    match executor {
        Executor::Docker { containers } => containers.first().map(|c| c.image.clone()).unwrap_or_default(),
        Executor::Machine { image, .. } => image.clone().unwrap_or_else(|| "(default)".to_owned()),
        Executor::Macos { xcode } => format!("xcode:{}", xcode.as_deref().unwrap_or("")),
    }
}

fn services(executor: &Executor) -> usize {
    if let Executor::Docker { containers } = executor { containers.len().saturating_sub(1) } else { 0 }
}

fn steps(job: &Job) -> Vec<String> {
    let key = |kind: &StepKind| match kind {
        StepKind::OrbCommand { orb, command } => format!("orb:{orb}/{command}"),
        kind => kind.key().to_owned(),
    };
    job.steps.iter().map(|step| key(&step.kind)).collect()
}

/// Nothing for a step whose name is its command, unless the fact tells that it was written out.
fn run_names(job: &Job, fact: &Value) -> Value {
    let runs = job.steps.iter().filter_map(|step| match &step.kind {
        StepKind::Run(run) => Some((&run.command, &step.name)),
        _ => None,
    });
    let name = |(index, (command, name)): (usize, (&String, &String))| {
        let written = command != name || fact[index].as_str() == Some(name);
        written.then(|| name.clone())
    };
    json!(runs.enumerate().map(name).collect::<Vec<_>>())
}
