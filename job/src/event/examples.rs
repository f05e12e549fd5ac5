//! Events for tests of code that handles every kind.

use std::collections::BTreeMap;

use super::{ContextGiven, Event, JobEnd, JobRef, JobSummary, LogEnd, LogOf, Summary, TaskRef};
use crate::id::TaskId;
use crate::outcome::{JobStatus, SkipReason, StepOutcome, Verdict};
use crate::resource::Size;
use crate::state::TaskState;

/// A job of the workflow `main`.
pub fn job(name: &str) -> JobRef {
    JobRef { workflow: "main".to_owned(), job: name.to_owned() }
}

/// One node of a job; its task's id follows from the job's name.
pub fn node(name: &str, node_index: u32, node_total: u32) -> TaskRef {
    let seed = name.bytes().fold(u64::from(node_index), |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(b)));
    TaskRef { task: TaskId::from_random(seed.to_be_bytes()), job: job(name), node_index, node_total }
}

/// One of each event, as `docs/events.md` shows it.
pub fn examples() -> Vec<Event> {
    let task = node("unit", 0, 2);
    [before_steps(&task), steps(&task), ends(&task)].concat()
}

fn before_steps(task: &TaskRef) -> Vec<Event> {
    let size = Size::new(2, 4);
    vec![
        Event::RunStarted {
            logs: "/home/ann/.local/state/navvy/runs/1".into(),
            config: ".circleci/config.yml".into(),
            jobs: vec![job("unit"), job("deploy")],
        },
        Event::PipelineContinued {
            config: "/home/ann/.local/state/navvy/runs/1/continuation.yml".into(),
            jobs: vec![job("package")],
        },
        Event::JobWaiting { job: job("deploy"), why: "no free processors or memory".to_owned() },
        Event::ApprovalAsked { job: job("hold"), holds: vec!["deploy".to_owned()] },
        Event::TaskStarted {
            task: task.clone(),
            image: Some("cimg/base:2025.01".to_owned()),
            resource_class: "medium".to_owned(),
            size,
            steps: vec!["Checkout code".to_owned(), "Unit tests".to_owned()],
        },
        Event::TaskState { task: task.clone(), state: TaskState::Preparing },
        Event::Report { task: task.clone(), line: "Image: cimg/base:2025.01, 3 days old".to_owned() },
        Event::Progress {
            task: task.clone(),
            what: "pulling cimg/base:2025.01".to_owned(),
            done: 12_897_485,
            total: Some(83_886_080),
        },
        Event::ServiceStarted {
            task: task.clone(),
            service: 0,
            name: "postgres".to_owned(),
            log: "/home/ann/.local/state/navvy/runs/1/unit/service-0.log".into(),
        },
    ]
}

fn steps(task: &TaskRef) -> Vec<Event> {
    vec![
        Event::StepStarted {
            task: task.clone(),
            step: 2,
            attempt: 1,
            name: "Unit tests".to_owned(),
            kind: "run".to_owned(),
            background: false,
            header: Some("#!/bin/bash -eo pipefail\nmake test".to_owned()),
            log: "/home/ann/.local/state/navvy/runs/1/unit/2.log".into(),
        },
        Event::Output { task: task.clone(), step: 2, stream: "stdout".to_owned(), bytes: b"ok 1\n".to_vec() },
        Event::StepEnded {
            task: task.clone(),
            step: 2,
            attempt: 1,
            name: "Unit tests".to_owned(),
            outcome: StepOutcome::ExitCode { code: 1 },
            duration_ms: 1234,
            trailers: vec!["Exited with code exit status 1".to_owned()],
            bytes: 5,
            sha256: "0e52bb1b".to_owned(),
            origin: Some(".circleci/config.yml:12".to_owned()),
            will_rerun: false,
        },
        Event::StepSkipped { task: task.clone(), step: 3, name: "Upload".to_owned(), why: SkipReason::JobFailed },
    ]
}

fn ends(task: &TaskRef) -> Vec<Event> {
    let ran = JobEnd::Ran {
        status: JobStatus::Failed,
        duration_ms: 2500,
        failed_step: Some("Unit tests".to_owned()),
        infra: None,
    };
    vec![
        Event::Warning { task: None, message: "context aws is not here".to_owned() },
        Event::StopAsked { at_once: false, jobs_over: false },
        Event::TaskHeld {
            task: task.clone(),
            step: 2,
            name: "Unit tests".to_owned(),
            before: false,
            until: "2026-01-02T07:04:05Z".to_owned(),
        },
        Event::TaskLogs {
            task: task.clone(),
            logs: vec![
                LogEnd {
                    of: LogOf::Step { step: 2, attempt: 1 },
                    log: "/home/ann/.local/state/navvy/runs/1/unit/002-1.log".into(),
                    bytes: 5,
                    sha256: Some("0e52bb1b".to_owned()),
                },
                LogEnd {
                    of: LogOf::Service { service: 0 },
                    log: "/home/ann/.local/state/navvy/runs/1/unit/service-0.log".into(),
                    bytes: 7,
                    sha256: None,
                },
            ],
        },
        Event::TaskEnded {
            task: task.clone(),
            verdict: Verdict::Failed { step: 2, name: "Unit tests".to_owned() },
            duration_ms: 2500,
            leftovers: Vec::new(),
        },
        Event::JobEnded { job: job("unit"), end: ran.clone() },
        Event::TaskRemoved {
            task: task.clone(),
            duration_ms: 24_000,
            leftovers: vec!["container navvy-000000000036d984-primary (device or resource busy)".to_owned()],
        },
        Event::RemovalAwaited { tasks: vec![task.clone()] },
        Event::RunEnded(Box::new(summary(ran))),
    ]
}

fn summary(end: JobEnd) -> Summary {
    let unit = JobSummary {
        job: job("unit"),
        end,
        skipped_steps: 0,
        skipped: BTreeMap::new(),
        warnings: 1,
        log: None,
        other_logs: vec![],
        held: vec![],
    };
    Summary {
        exit_code: 1,
        duration_ms: 3600,
        jobs: vec![unit],
        logs: "/home/ann/.local/state/navvy/runs/1".into(),
        fidelity: vec!["unit: class large has 4 CPUs and 8 GiB there, here 2 CPUs and 4 GiB".to_owned()],
        warnings: vec!["context aws is not here".to_owned()],
        leftovers: Vec::new(),
        contexts_given: vec![ContextGiven { context: "aws".to_owned(), jobs: vec!["unit".to_owned()] }],
        env_files_given: vec!["/home/ann/my.env".into()],
        secrets: None,
    }
}
