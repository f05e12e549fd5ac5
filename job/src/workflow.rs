//! Which jobs of a workflow may start, given what ended. Pure: the caller brings the facts.
//!
//! ```text
//! Waiting ──requirements met──▶ Ready ──start()──▶ Active ──end(status)──▶ Ended
//!    │                            └────withhold()──▶ Withheld
//!    └────can never be met────▶ Ended(NotRun)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::outcome::JobStatus;
use crate::pipeline::{Requirement, Workflow};

/// Where one job of the graph stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Some requirement is still open.
    Waiting,
    /// May start now.
    Ready,
    /// Started, and not over.
    Active,
    /// Cannot go on here and now (held for approval, executor not here): what requires it keeps waiting.
    Withheld,
    /// Over, with this status.
    Ended(JobStatus),
}

/// A workflow on its way.
#[derive(Debug, Clone)]
pub struct Graph {
    names: Vec<String>,
    requires: BTreeMap<String, Vec<Requirement>>,
    progress: BTreeMap<String, Progress>,
}

impl Graph {
    /// Takes the selected jobs of `workflow`, or those of them named in `only`.
    ///
    /// Requirements on jobs that do not take part are dropped, as the language does with jobs left out by filters.
    pub fn new(workflow: &Workflow, only: Option<&BTreeSet<String>>) -> Self {
        let takes_part = |name: &str| only.is_none_or(|names| names.contains(name));
        let jobs: Vec<_> =
            workflow.jobs.iter().filter(|job| job.selected.is_selected() && takes_part(&job.name)).collect();
        let names: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
        let present: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let requires = jobs
            .iter()
            .map(|job| {
                let kept = job.requires.iter().filter(|r| present.contains(r.job.as_str())).cloned().collect();
                (job.name.clone(), kept)
            })
            .collect();
        let progress = names.iter().map(|name| (name.clone(), Progress::Waiting)).collect();
        let mut graph = Self { names, requires, progress };
        graph.settle();
        graph
    }

    /// Jobs that may start now, in the order of the file.
    pub fn ready(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).filter(|name| self.progress[*name] == Progress::Ready).collect()
    }

    /// Where a job stands; `None` for one that does not take part.
    pub fn progress(&self, name: &str) -> Option<Progress> {
        self.progress.get(name).copied()
    }

    /// Names in the order of the file.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// A ready job was started.
    ///
    /// # Panics
    /// When it was not ready: the caller starts only what [`Graph::ready`] names.
    pub fn start(&mut self, name: &str) {
        assert_eq!(self.progress.get(name), Some(&Progress::Ready), "started {name:?}, which was not ready");
        self.progress.insert(name.to_owned(), Progress::Active);
    }

    /// A job ended (or, never started, was given up). Returns the jobs that thereby can never run any more.
    pub fn end(&mut self, name: &str, status: JobStatus) -> Vec<String> {
        self.progress.insert(name.to_owned(), Progress::Ended(status));
        self.settle()
    }

    /// A job cannot go on here: it neither passed nor failed, and what requires it is not run.
    pub fn withhold(&mut self, name: &str) {
        self.progress.insert(name.to_owned(), Progress::Withheld);
    }

    /// Nothing is ready or active: what still waits can never go on by itself.
    pub fn is_settled(&self) -> bool {
        !self.progress.values().any(|p| matches!(p, Progress::Ready | Progress::Active))
    }

    /// Jobs that wait, directly or through others, for `name`.
    pub fn behind(&self, name: &str) -> Vec<String> {
        let mut found = BTreeSet::from([name.to_owned()]);
        loop {
            let before = found.len();
            for (job, requires) in &self.requires {
                if requires.iter().any(|r| found.contains(&r.job)) {
                    found.insert(job.clone());
                }
            }
            if found.len() == before {
                break;
            }
        }
        self.names.iter().filter(|n| *n != name && found.contains(*n)).cloned().collect()
    }

    /// Moves waiting jobs on until nothing changes; returns those that became impossible.
    fn settle(&mut self) -> Vec<String> {
        let mut impossible = Vec::new();
        loop {
            let next = self.names.iter().find_map(|name| {
                (self.progress[name] == Progress::Waiting)
                    .then(|| self.judge(name))
                    .flatten()
                    .map(|p| (name.clone(), p))
            });
            let Some((name, progress)) = next else { return impossible };
            if progress == Progress::Ended(JobStatus::NotRun) {
                impossible.push(name.clone());
            }
            self.progress.insert(name, progress);
        }
    }

    /// What a waiting job becomes, if anything.
    fn judge(&self, name: &str) -> Option<Progress> {
        let mut all_met = true;
        for requirement in &self.requires[name] {
            match self.progress[&requirement.job] {
                Progress::Ended(status) if requirement.statuses.contains(&status) => {}
                Progress::Ended(_) => return Some(Progress::Ended(JobStatus::NotRun)),
                _ => all_met = false,
            }
        }
        all_met.then_some(Progress::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made::{OK, job, workflow};
    use crate::pipeline::WorkflowJob;

    fn graph(jobs: Vec<WorkflowJob>) -> Graph {
        Graph::new(&workflow("w", jobs), None)
    }

    #[test]
    fn a_diamond_joins_when_both_sides_passed() {
        let mut g = graph(vec![
            job("a", &[]),
            job("b", &[("a", OK)]),
            job("c", &[("a", OK)]),
            job("d", &[("b", OK), ("c", OK)]),
        ]);
        assert_eq!(g.ready(), ["a"]);
        g.start("a");
        assert!(g.end("a", JobStatus::Success).is_empty());
        assert_eq!(g.ready(), ["b", "c"]);
        g.start("b");
        g.start("c");
        g.end("b", JobStatus::Success);
        assert!(g.ready().is_empty());
        g.end("c", JobStatus::Success);
        assert_eq!(g.ready(), ["d"]);
    }

    #[test]
    fn what_can_never_be_met_is_not_run_and_so_is_what_waits_behind_it() {
        let mut g = graph(vec![job("a", &[]), job("b", &[("a", OK)]), job("c", &[("b", OK)])]);
        g.start("a");
        assert_eq!(g.end("a", JobStatus::Failed), ["b", "c"]);
        assert!(g.is_settled());
    }

    #[test]
    fn a_job_may_wait_for_failure() {
        let mut g = graph(vec![job("a", &[]), job("mail", &[("a", &[JobStatus::Failed, JobStatus::NotRun])])]);
        g.start("a");
        g.end("a", JobStatus::Failed);
        assert_eq!(g.ready(), ["mail"]);
    }

    #[test]
    fn what_waits_for_a_withheld_job_waits_on() {
        let mut g = graph(vec![
            job("hold", &[]),
            job("deploy", &[("hold", OK)]),
            job("always", &[("hold", &JobStatus::TERMINAL)]),
        ]);
        g.withhold("hold");
        assert!(g.is_settled());
        assert_eq!(g.progress("deploy"), Some(Progress::Waiting));
        assert_eq!(g.progress("always"), Some(Progress::Waiting));
    }

    #[test]
    fn behind_names_everything_downstream() {
        let g = graph(vec![job("a", &[]), job("b", &[("a", OK)]), job("c", &[("b", OK)]), job("d", &[])]);
        assert_eq!(g.behind("a"), ["b", "c"]);
    }
}
