//! From the ends of a job's tasks to the job's own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{HeldTask, JobEnd, JobRef, JobSummary};
use crate::figures;
use crate::outcome::{CancelReason, JobStatus, RunEnd, SkipReason, Verdict};

/// Why a job was kept from its end whose machine is given back.
const DRAINED: &str = "node drained: its machine takes no further work, so the job may be run again";

/// How one task of a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEnd {
    /// Its verdict.
    pub verdict: Verdict,
    /// Until nothing of the job was left to run. Neither waiting nor removal counts.
    #[serde(with = "crate::compiled::millis")]
    pub duration: Duration,
    /// Steps recognised and not carried out, by why.
    #[serde(default)]
    pub skipped: BTreeMap<SkipReason, usize>,
    /// Number of warnings.
    #[serde(default)]
    pub warnings: usize,
    /// The first failed step's log.
    #[serde(default)]
    pub failed_log: Option<PathBuf>,
    /// Its environment stays.
    #[serde(default)]
    pub held: Option<HeldTask>,
    /// It was asked to stop before its steps were over; its verdict may say otherwise.
    #[serde(default)]
    pub cut_short: bool,
    /// Its job continued the pipeline.
    #[serde(default)]
    pub continues: bool,
}

impl TaskEnd {
    /// The end of a task that has not run.
    pub fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            duration: Duration::ZERO,
            skipped: BTreeMap::new(),
            warnings: 0,
            failed_log: None,
            held: None,
            cut_short: false,
            continues: false,
        }
    }

    fn was_canceled(&self) -> bool {
        self.cut_short || matches!(self.verdict, Verdict::Canceled { .. })
    }
}

/// How a job ended whose tasks have all ended.
#[derive(Debug, Clone)]
pub struct Gathered {
    /// What `requires` sees.
    pub status: JobStatus,
    /// One of its tasks is held before a step: the job has not ended.
    pub is_held: bool,
    /// What this end means for the run.
    pub run_end: RunEnd,
    /// The job's part of the run's report.
    pub summary: JobSummary,
}

/// The end of a job, given those of all its tasks in the order in which they ended. The worst verdict counts.
pub fn gather(job: JobRef, ends: &[TaskEnd]) -> Gathered {
    let worst = ends.iter().max_by_key(|end| severity(&end.verdict));
    let verdict = worst.map_or(Verdict::Passed, |end| end.verdict.clone());
    let held_before = (verdict == Verdict::Passed).then(|| held_before(ends)).flatten();
    let canceled = if ends.iter().any(TaskEnd::was_canceled) { RunEnd::Canceled } else { RunEnd::Passed };
    let log = worst.and_then(|end| end.failed_log.clone());
    let other_logs = ends.iter().filter_map(|end| end.failed_log.clone()).filter(|other| Some(other) != log.as_ref());
    Gathered {
        status: verdict.status(),
        is_held: held_before.is_some(),
        run_end: run_end(&verdict, held_before.is_some()).max(canceled),
        summary: JobSummary {
            job,
            skipped_steps: skipped(ends).values().sum(),
            skipped: skipped(ends),
            warnings: ends.iter().map(|end| end.warnings).sum(),
            other_logs: other_logs.collect(),
            log,
            held: ends.iter().filter_map(|end| end.held.clone()).collect(),
            end: match held_before {
                Some(before) => JobEnd::Held { before },
                None => ran(&verdict, ends),
            },
        },
    }
}

fn ran(verdict: &Verdict, ends: &[TaskEnd]) -> JobEnd {
    let duration = ends.iter().map(|end| end.duration).max().unwrap_or_default();
    let infra = match verdict {
        Verdict::Infra { fault } => Some(fault.clone()),
        // Nobody wanted this job canceled.
        Verdict::Canceled { reason: CancelReason::Drain } => Some(DRAINED.to_owned()),
        _ => None,
    };
    JobEnd::Ran {
        status: verdict.status(),
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        failed_step: failed_step(verdict),
        infra,
    }
}

fn run_end(verdict: &Verdict, is_held: bool) -> RunEnd {
    match verdict {
        Verdict::Passed if is_held => RunEnd::Incomplete,
        Verdict::Passed => RunEnd::Passed,
        Verdict::Infra { .. } => RunEnd::Infra,
        Verdict::Failed { .. } | Verdict::TimedOut { .. } => RunEnd::JobFailed,
        Verdict::Canceled { .. } => RunEnd::Canceled,
    }
}

/// Nodes have the same steps: what one skipped, all did.
fn skipped(ends: &[TaskEnd]) -> BTreeMap<SkipReason, usize> {
    let mut most = BTreeMap::new();
    for (why, count) in ends.iter().flat_map(|end| &end.skipped) {
        let known: &mut usize = most.entry(*why).or_default();
        *known = (*known).max(*count);
    }
    most
}

/// The step before which a node is held.
fn held_before(ends: &[TaskEnd]) -> Option<String> {
    let mut held = ends.iter().filter_map(|end| end.held.as_ref());
    held.find(|task| task.at.before).map(|task| task.at.name.clone())
}

fn failed_step(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Failed { name, .. } => Some(name.clone()),
        Verdict::TimedOut { limit } => Some(format!("time limit of {}", figures::go_duration(*limit))),
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
    use crate::event::HeldAt;
    use crate::id::TaskId;
    use crate::outcome::CancelReason;

    fn end(verdict: Verdict) -> TaskEnd {
        TaskEnd {
            duration: Duration::from_secs(1),
            skipped: BTreeMap::from([(SkipReason::OrbMissing, 1)]),
            warnings: 1,
            ..TaskEnd::new(verdict)
        }
    }

    fn gathered(ends: &[TaskEnd]) -> Gathered {
        gather(JobRef { workflow: "w".into(), job: "j".into() }, ends)
    }

    #[test]
    fn a_drained_machine_is_told_as_no_fault_of_the_job() {
        let job = JobRef { workflow: "w".into(), job: "j".into() };
        for (reason, is_ours) in
            [(CancelReason::Drain, true), (CancelReason::User, false), (CancelReason::Shutdown, false)]
        {
            let end = TaskEnd::new(Verdict::Canceled { reason });
            let gathered = gather(job.clone(), &[TaskEnd::new(Verdict::Passed), end]);
            assert_eq!((gathered.status, gathered.run_end), (JobStatus::Canceled, RunEnd::Canceled));
            let JobEnd::Ran { infra, .. } = gathered.summary.end else { panic!("it ran") };
            assert_eq!(infra.is_some_and(|infra| infra.starts_with("node drained")), is_ours);
        }
    }

    #[test]
    fn the_worst_verdict_of_a_job_counts() {
        let failed = Verdict::Failed { step: 2, name: "Test".into() };
        let outcome = gathered(&[end(Verdict::Passed), end(failed), end(Verdict::Infra { fault: "x".into() })]);
        assert_eq!((outcome.status, outcome.run_end), (JobStatus::Failed, RunEnd::JobFailed));
        let JobSummary { end, skipped, skipped_steps, warnings, .. } = outcome.summary;
        assert_eq!((skipped, skipped_steps, warnings), (BTreeMap::from([(SkipReason::OrbMissing, 1)]), 1, 3));
        let failed_step = Some("Test".to_owned());
        assert_eq!(end, JobEnd::Ran { status: JobStatus::Failed, duration_ms: 1000, failed_step, infra: None });
    }

    #[test]
    fn a_node_that_was_kept_from_its_end_cancels_the_run_whatever_its_verdict() {
        let cut_short = TaskEnd { cut_short: true, ..end(Verdict::Failed { step: 1, name: "Test".into() }) };
        let outcome = gathered(&[end(Verdict::Passed), cut_short]);
        assert_eq!((outcome.status, outcome.run_end), (JobStatus::Failed, RunEnd::Canceled));
        let canceled = gathered(&[end(Verdict::Passed), end(Verdict::Canceled { reason: CancelReason::User })]);
        assert_eq!((canceled.status, canceled.run_end), (JobStatus::Canceled, RunEnd::Canceled));
    }

    #[test]
    fn a_job_that_is_held_before_a_step_has_not_ended_unless_another_node_failed() {
        let task = TaskId::from_random([7; 8]);
        let at = HeldAt { step: 2, name: "Deploy".into(), before: true };
        let held = Some(HeldTask { task, node_index: 0, node_total: 2, at, until: "then".into() });
        let held = TaskEnd { held, ..end(Verdict::Passed) };
        let outcome = gathered(&[held.clone(), end(Verdict::Passed)]);
        assert!(outcome.is_held && outcome.summary.held.len() == 1);
        assert_eq!(outcome.run_end, RunEnd::Incomplete);
        assert_eq!(outcome.summary.end, JobEnd::Held { before: "Deploy".into() });
        let failed = gathered(&[held, end(Verdict::TimedOut { limit: Duration::from_secs(90) })]);
        assert!(!failed.is_held);
        let JobEnd::Ran { failed_step, .. } = failed.summary.end else { panic!("it ran") };
        assert_eq!(failed_step.as_deref(), Some("time limit of 1m30s"));
    }
}
