//! Workflows made by hand, for this crate's tests.

use std::collections::BTreeMap;

use crate::compiled::Origin;
use crate::outcome::JobStatus;
use crate::pipeline::{Requirement, Selection, Workflow, WorkflowJob, WorkflowJobKind};

/// What a requirement without `statuses` accepts.
pub const OK: &[JobStatus] = &[JobStatus::Success];

/// A no-op that requires others to have ended in one of these statuses.
pub fn job(name: &str, requires: &[(&str, &[JobStatus])]) -> WorkflowJob {
    let requirement = |(job, statuses): &(&str, &[JobStatus])| Requirement {
        job: (*job).into(),
        statuses: statuses.iter().copied().collect(),
    };
    WorkflowJob {
        name: name.into(),
        definition: name.into(),
        kind: WorkflowJobKind::NoOp,
        matrix: BTreeMap::new(),
        alias: None,
        requires: requires.iter().map(requirement).collect(),
        selected: Selection::Selected,
        contexts: vec![],
        serial_group: None,
        origin: Origin::default(),
    }
}

/// A no-op that comes after others that passed.
pub fn job_after(name: &str, requires: &[&str]) -> WorkflowJob {
    let requires: Vec<_> = requires.iter().map(|job| (*job, OK)).collect();
    job(name, &requires)
}

/// A workflow that takes part.
pub fn workflow(name: &str, jobs: Vec<WorkflowJob>) -> Workflow {
    Workflow {
        name: name.into(),
        selected: Selection::Selected,
        jobs,
        schedules: Vec::new(),
        max_auto_reruns: 0,
        flawed: false,
        origin: Origin::default(),
    }
}
