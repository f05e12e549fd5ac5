//! The loop without an engine: what needs none is carried out, and what needs one has an end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use navvy_job::claim::{RunFacts, TrustScope};
use navvy_job::event::{Event, JobEnd};
use navvy_job::outcome::{Cancel, CancelReason, RunEnd};
use navvy_job::resource::Size;
use navvy_job::selection::{Wanted, choose};
use navvy_output::mask::Masks;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::bus;
use crate::environment::fake::World;
use crate::run_directory::RunDirectory;
use crate::settings::overcommit::Overcommit;
use crate::task::tests::bench::context;

const JOB: &str = "
version: 2.1
jobs: {a: {docker: [{image: i}], parallelism: 2, steps: [{run: x}]}, n: {type: no-op}}
workflows:
  w:
    jobs:";

fn plan(jobs: &str, approvals: Approvals) -> Plan {
    let text = format!("{JOB}{jobs}");
    let source = navvy_config::Source { name: "config.yml", text: &text };
    let outcome = navvy_config::compile(&source, &navvy_config::Inputs::default());
    let pipeline = outcome.pipeline.as_ref().unwrap_or_else(|| panic!("{}", outcome.render(&source)));
    Plan {
        workflows: choose(pipeline, &Wanted::default()).unwrap(),
        replacements: Replacements::default(),
        approvals,
        assume_passed: BTreeSet::new(),
        node_cap: None,
        max_parallel: 0,
        machine: Size::new(2, 4),
        overcommit: Overcommit::default(),
        job_limit: Duration::from_secs(60),
        scope: TrustScope::Local,
        given: Given::default(),
        contexts: Contexts::default(),
        builtins: Arc::new(|_| (RunFacts::default(), vec![])),
        ssh_keys: vec![],
        continuation_key: None,
    }
}

/// The ends of jobs as they were told, and that of the run.
async fn run(plan: Plan, stop: Option<Cancel>) -> (Vec<String>, RunEnd) {
    let state = tempfile::tempdir().unwrap();
    let (bus, events) = bus::channel(Masks::default());
    let directory = RunDirectory::create(state.path(), 1).unwrap();
    let (_stop, stop) = watch::channel(stop);
    let context = context(state.path().to_owned(), &World::default(), bus.clone(), stop.clone());
    let (finished, _) = PipelineRun::new(plan, context, bus, directory, stop).run(&mut |_| Err(String::new())).await;
    let mut told = Vec::new();
    while let Ok(Some(stamped)) = events.next(Duration::ZERO) {
        if let Event::JobEnded { job, end } = stamped.event {
            told.push(format!("{}: {}", job.job, words(end)));
        }
    }
    assert_eq!(finished.jobs.len(), told.len(), "each job is told of once");
    (told, finished.end)
}

fn words(end: JobEnd) -> String {
    match end {
        JobEnd::Ran { infra: Some(text), .. } | JobEnd::Passed { how: text } | JobEnd::NotRun { why: text } => text,
        end => format!("{end:?}"),
    }
}

#[tokio::test]
async fn a_job_whose_tasks_cannot_start_ends_once_and_its_successors_go_on() {
    let jobs = "
      - a: {name: unit}
      - n: {name: deploy, requires: [unit]}
      - n: {name: mail, requires: [unit: failed]}";
    let (told, end) = run(plan(jobs, Approvals::default()), None).await;
    assert_eq!(
        told,
        ["unit: the claim does not say which project it belongs to", "deploy: unit ended failed", "mail: a no-op"]
    );
    assert_eq!(end, RunEnd::Infra);
}

#[tokio::test]
async fn answers_go_to_the_oldest_approval_and_end_with_whoever_answers() {
    let (sender, answers) = mpsc::unbounded_channel();
    sender.send(false).unwrap();
    sender.send(true).unwrap();
    drop(sender);
    let jobs = "
      - one: {type: approval}
      - two: {type: approval}
      - three: {type: approval}
      - n: {name: deploy, requires: [two]}";
    let approvals = Approvals { answers: Some(answers), ..Approvals::default() };
    let (told, end) = run(plan(jobs, approvals), None).await;
    assert_eq!(
        told,
        [
            "one: Unapproved { approval: \"one\" }",
            "two: approved by you",
            "deploy: a no-op",
            "three: Unapproved { approval: \"three\" }",
        ]
    );
    assert_eq!(end, RunEnd::Incomplete);
}

#[tokio::test]
async fn a_run_that_is_stopped_before_it_begins_starts_nothing() {
    let (told, end) = run(plan("\n      - a", Approvals::default()), Some(Cancel::gently(CancelReason::User))).await;
    assert_eq!((told, end), (vec!["a: the run was canceled".to_owned()], RunEnd::Canceled));
}
