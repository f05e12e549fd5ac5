//! Compiles every config of a directory and compares it with what is known of it.
//!
//! `cargo run -p navvy-config --example facts -- CORPUS [NAME]`: `CORPUS` holds `dev/NAME.yml` and `facts/NAME.yml.json`.
//! Prints what does not compile and which facts do not agree, then the sums. With `NAME`, that file alone and all
//! its diagnostics.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::io::{Write as _, stdout};
use std::path::Path;

use navvy_config::{Inputs, Outcome, Severity, Source, Value as Given, compile, render};
use navvy_job::compiled::{Executor, Job, StepKind};
use navvy_job::pipeline::{Pipeline, Workflow, WorkflowJob, WorkflowJobKind};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Default)]
struct Sums {
    files: usize,
    compiled: usize,
    facts: usize,
    agree: usize,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let corpus = arguments.next().ok_or("usage: facts CORPUS [NAME]")?;
    let wanted = arguments.next();
    let mut names: Vec<String> = fs::read_dir(Path::new(&corpus).join("dev"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    names.retain(|name| wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str())));
    let mut sums = Sums::default();
    for name in &names {
        check(&corpus, name, wanted.is_some(), &mut sums)?;
    }
    let Sums { files, compiled, facts, agree } = sums;
    writeln!(stdout(), "{compiled} of {files} files compile; {agree} of {facts} facts agree")?;
    Ok(())
}

fn check(corpus: &str, name: &str, verbose: bool, sums: &mut Sums) -> Result<()> {
    let text = fs::read_to_string(Path::new(corpus).join("dev").join(name))?;
    let facts = fs::read_to_string(Path::new(corpus).join("facts").join(format!("{name}.json")))?;
    let facts: Value = serde_json::from_str(&facts)?;
    let source = Source { name, text: &text };
    let Outcome { pipeline, diagnostics, .. } = compile(&source, &inputs());
    sums.files += 1;
    let shown: Vec<_> = diagnostics.into_iter().filter(|d| verbose || d.severity == Severity::Error).collect();
    if !shown.is_empty() {
        writeln!(stdout(), "{}", render(&source, &shown))?;
    }
    let Some(pipeline) = pipeline else { return Ok(()) };
    sums.compiled += 1;
    for (path, expected, found) in compare(&facts, &pipeline) {
        sums.facts += 1;
        if expected == found {
            sums.agree += 1;
        } else {
            writeln!(stdout(), "{name} {path}\n  fact  {expected}\n  found {found}")?;
        }
    }
    Ok(())
}

/// The pipeline that the facts assume.
fn inputs() -> Inputs {
    let given = |name: &str, value: &str| (name.to_owned(), Given::Text(value.to_owned()));
    let values = BTreeMap::from([
        given("trigger_source", "webhook"),
        given("project.type", "github"),
        ("git.branch.is_default".to_owned(), Given::Bool(true)),
    ]);
    Inputs { values, allow_missing_orbs: true, ..Inputs::default() }
}

type Fact = (String, Value, Value);

fn compare(facts: &Value, pipeline: &Pipeline) -> Vec<Fact> {
    let mut out = vec![("setup".to_owned(), facts["setup"].clone(), json!(pipeline.setup))];
    let run: BTreeSet<&str> =
        pipeline.workflows.iter().filter(|w| w.selected.is_selected()).map(|w| w.name.as_str()).collect();
    push(&mut out, "workflow_names_run", &facts["workflow_names_run"], json!(run), true);
    for (name, fact) in facts["workflows"].as_object().into_iter().flatten() {
        match pipeline.workflows.iter().find(|workflow| workflow.name == *name) {
            Some(workflow) => compare_workflow(name, fact, workflow, &mut out),
            None => out.push((name.clone(), json!("there"), json!("missing"))),
        }
    }
    out
}

fn compare_workflow(path: &str, fact: &Value, workflow: &Workflow, out: &mut Vec<Fact>) {
    push(out, &format!("{path}.runs"), &fact["runs"], json!(workflow.selected.is_selected()), false);
    let jobs: Vec<&Value> = fact["jobs"].as_array().into_iter().flatten().collect();
    out.push((format!("{path}.count"), json!(jobs.len()), json!(workflow.jobs.len())));
    for fact in jobs {
        let Some(name) = fact["name"]["value"].as_str() else { continue };
        let path = format!("{path}/{name}");
        match workflow.jobs.iter().find(|job| job.name == name) {
            Some(job) => compare_job(&path, fact, job, workflow, out),
            None => out.push((path, json!("there"), json!(workflow.jobs.iter().map(|j| &j.name).collect::<Vec<_>>()))),
        }
    }
}

fn compare_job(path: &str, fact: &Value, job: &WorkflowJob, workflow: &Workflow, out: &mut Vec<Fact>) {
    let mut say =
        |key: &str, found: Value, unordered| push(out, &format!("{path}.{key}"), &fact[key], found, unordered);
    say("kept", json!(job.selected.is_selected()), false);
    let kind = match &job.kind {
        WorkflowJobKind::Approval => "approval",
        WorkflowJobKind::NoOp => "no-op",
        WorkflowJobKind::Build { .. } | WorkflowJobKind::Unavailable { .. } => "job",
    };
    if let Some(expected) = requires(&fact["requires"], workflow) {
        let found: BTreeSet<&str> = job.requires.iter().map(|requirement| requirement.job.as_str()).collect();
        out.push((format!("{path}.requires"), json!(expected), json!(found)));
    }
    out.push((format!("{path}.type"), fact["type"].clone(), json!(kind)));
    if let WorkflowJobKind::Build { job } = &job.kind {
        compare_build(path, fact, job, out);
    }
}

/// The fact tells all requirements, the compiled job only those that are not left out.
fn requires(fact: &Value, workflow: &Workflow) -> Option<BTreeSet<String>> {
    let name = |item: &Value| match item.as_object() {
        Some(map) => map.keys().next().cloned().unwrap_or_default(),
        None => item.as_str().unwrap_or_default().to_owned(),
    };
    let left = |name: &String| workflow.jobs.iter().any(|job| job.name == *name && !job.selected.is_selected());
    Some(fact["value"].as_array()?.iter().map(name).filter(|name| !left(name)).collect())
}

fn compare_build(path: &str, fact: &Value, job: &Job, out: &mut Vec<Fact>) {
    let mut say = |key: &str, found: Value| push(out, &format!("{path}.{key}"), &fact[key], found, false);
    say("executor", json!(job.executor.kind()));
    say("image", json!(image(&job.executor)));
    say("services", json!(services(&job.executor)));
    say("parallelism", json!(job.parallelism));
    say("resource_class", json!(job.resource_class.as_deref().unwrap_or("(default)")));
    let steps: Vec<String> = job.steps.iter().map(|step| step_key(&step.kind)).collect();
    say("steps", json!(steps));
    say("run_names", run_names(job, &fact["run_names"]["value"]));
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

fn step_key(kind: &StepKind) -> String {
    match kind {
        StepKind::OrbCommand { orb, command } => format!("orb:{orb}/{command}"),
        kind => kind.key().to_owned(),
    }
}

/// Adds a fact unless it is undecided.
fn push(out: &mut Vec<Fact>, path: &str, fact: &Value, found: Value, unordered: bool) {
    let expected = if fact.get("value").is_some() { &fact["value"] } else { fact };
    if expected.is_null() {
        return;
    }
    let mut expected = expected.clone();
    if let (Some(items), true) = (expected.as_array_mut(), unordered) {
        items.sort_by_key(ToString::to_string);
        items.dedup();
    }
    out.push((path.to_owned(), expected, found));
}
