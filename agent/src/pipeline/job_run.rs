//! One job of a workflow while its tasks run. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use navvy_job::event::{JobEnd, JobRef, JobSummary, Kept};
use navvy_job::outcome::{JobStatus, SkipReason, Verdict};
use navvy_protocol::supervisor::Continuation;

use crate::task::TaskResult;

/// Gathers the results of a job's tasks.
#[derive(Debug, Clone)]
pub struct JobRun {
    expected: usize,
    results: Vec<TaskResult>,
}

/// What the run's summary needs of an ended job.
#[derive(Debug, Clone)]
pub struct JobOutcome {
    pub status: JobStatus,
    pub end: JobEnd,
    pub infra: bool,
    pub log: Option<PathBuf>,
    /// Of the other nodes that failed.
    pub other_logs: Vec<PathBuf>,
    pub skipped: BTreeMap<SkipReason, usize>,
    pub warnings: usize,
    /// Warnings that the report repeats.
    pub repeated: Vec<String>,
    pub fidelity: Vec<String>,
    /// Tasks whose environments stay.
    pub kept: Vec<Kept>,
    /// What its nodes continued the pipeline with.
    pub continuations: Vec<Continuation>,
    /// Held before this step by `--break-before`: the job has not ended.
    pub paused: Option<String>,
}

impl JobOutcome {
    /// For the run's summary.
    pub fn summary(&self, job: JobRef) -> JobSummary {
        let end = match &self.paused {
            Some(before) => JobEnd::Paused { before: before.clone() },
            None => self.end.clone(),
        };
        JobSummary {
            job,
            end,
            skipped_steps: self.skipped.values().sum(),
            skipped: self.skipped.clone(),
            warnings: self.warnings,
            log: self.log.clone(),
            other_logs: self.other_logs.clone(),
            kept: self.kept.clone(),
        }
    }
}

impl JobRun {
    pub fn new(expected: usize) -> Self {
        Self { expected, results: Vec::new() }
    }

    /// Takes a task's result; the job's outcome once it was the last.
    pub fn add(&mut self, result: TaskResult) -> Option<JobOutcome> {
        self.results.push(result);
        (self.results.len() == self.expected).then(|| self.outcome())
    }

    fn outcome(&self) -> JobOutcome {
        let worst = self.results.iter().max_by_key(|result| severity(&result.verdict));
        let verdict = worst.map_or(Verdict::Passed, |result| result.verdict.clone());
        let duration = self.results.iter().map(|result| result.duration).max().unwrap_or(Duration::ZERO);
        let infra = match &verdict {
            Verdict::Infra { fault } => Some(fault.clone()),
            _ => None,
        };
        let log = worst.and_then(|result| result.failed_log.clone());
        JobOutcome {
            status: verdict.status(),
            infra: infra.is_some(),
            end: JobEnd::Ran {
                status: verdict.status(),
                duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
                failed_step: failed_step(&verdict),
                infra,
            },
            other_logs: self
                .results
                .iter()
                .filter_map(|it| it.failed_log.clone())
                .filter(|it| Some(it) != log.as_ref())
                .collect(),
            log,
            // Nodes have the same steps: what one skipped, all did.
            skipped: self.skipped(),
            warnings: self.results.iter().map(|result| result.warnings).sum(),
            repeated: self.results.iter().flat_map(|result| result.repeated.clone()).collect(),
            fidelity: self.results.iter().flat_map(|result| result.fidelity.clone()).collect(),
            paused: (verdict == Verdict::Passed).then(|| self.paused()).flatten(),
            kept: self.results.iter().filter_map(|result| result.kept.clone()).collect(),
            continuations: self.results.iter().filter_map(|result| result.continuation.clone()).collect(),
        }
    }
}

impl JobRun {
    fn skipped(&self) -> BTreeMap<SkipReason, usize> {
        let mut most = BTreeMap::new();
        for (why, count) in self.results.iter().flat_map(|result| &result.skipped) {
            let known: &mut usize = most.entry(*why).or_default();
            *known = (*known).max(*count);
        }
        most
    }

    /// The step before which a node is held.
    fn paused(&self) -> Option<String> {
        let mut held = self.results.iter().filter_map(|result| result.kept.as_ref());
        held.find(|kept| kept.at.before).map(|kept| kept.at.name.clone())
    }
}

fn failed_step(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Failed { name, .. } => Some(name.clone()),
        Verdict::TimedOut { limit } => Some(format!("time limit of {}", crate::step::texts::go_duration(*limit))),
        _ => None,
    }
}

/// Which verdict of several nodes is the job's.
fn severity(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Passed => 0,
        Verdict::Canceled { .. } => 1,
        Verdict::Infra { .. } => 2,
        Verdict::TimedOut { .. } => 3,
        Verdict::Failed { .. } => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(verdict: Verdict) -> TaskResult {
        TaskResult {
            verdict,
            duration: Duration::from_secs(1),
            skipped: BTreeMap::from([(SkipReason::OrbMissing, 1)]),
            warnings: 1,
            failed_log: None,
            fidelity: vec![],
            repeated: vec![],
            kept: None,
            continuation: None,
            cut_short: false,
        }
    }

    #[test]
    fn a_job_ends_with_its_last_node_and_the_worst_verdict_counts() {
        let mut job = JobRun::new(3);
        assert!(job.add(result(Verdict::Passed)).is_none());
        assert!(job.add(result(Verdict::Failed { step: 2, name: "Test".into() })).is_none());
        let outcome = job.add(result(Verdict::Infra { fault: "x".into() })).unwrap();
        assert_eq!(outcome.status, JobStatus::Failed);
        assert!(!outcome.infra);
        assert_eq!((outcome.skipped, outcome.warnings), (BTreeMap::from([(SkipReason::OrbMissing, 1)]), 3));
    }
}
