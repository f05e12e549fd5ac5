//! What jobs are called in front of their lines.

use std::collections::BTreeMap;

use navvy_job::event::{Event, JobRef, TaskRef};

use super::sanitize::clean;
use super::text;

/// Columns that short labels are filled up to, at most. Longer ones stick out rather than be cut.
const ALIGN_LIMIT: usize = 24;

/// Who speaks when no job does.
pub const NAVVY: &str = "navvy";

/// Names of the jobs of a run: `test`, `test[2/4]`, and with its workflow where two have one name.
#[derive(Debug, Default)]
pub struct Labels {
    /// In how many workflows a name occurs.
    names: BTreeMap<String, usize>,
    order: BTreeMap<JobRef, usize>,
    columns: usize,
    job_columns: usize,
}

impl Labels {
    /// Learns names from the first events of a run.
    pub fn learn(&mut self, event: &Event) {
        match event {
            Event::RunStarted { jobs, .. } | Event::PipelineContinued { jobs, .. } => self.learn_jobs(jobs),
            Event::TaskStarted { task, .. } => self.columns = aligned(self.columns, &self.task(task)),
            _ => {}
        }
    }

    pub fn job(&self, job: &JobRef) -> String {
        let shared = self.names.get(&job.job).is_some_and(|workflows| *workflows > 1);
        if shared { clean(&format!("{}/{}", job.workflow, job.job)) } else { clean(&job.job) }
    }

    pub fn task(&self, task: &TaskRef) -> String {
        self.node(&task.job, task.node_index, task.node_total)
    }

    /// The job, and which of its nodes where there are several.
    pub fn node(&self, job: &JobRef, index: u32, total: u32) -> String {
        match total {
            0 | 1 => self.job(job),
            total => format!("{}[{}/{total}]", self.job(job), u64::from(index) + 1),
        }
    }

    /// Which of the run's jobs it is: picks its colour.
    pub fn index(&self, job: &JobRef) -> usize {
        self.order.get(job).copied().unwrap_or(0)
    }

    /// Columns that labels are filled up to.
    pub fn columns(&self) -> usize {
        self.columns.max(text::width(NAVVY))
    }

    /// The same for jobs alone, without their nodes: known from the start of a run.
    pub fn job_columns(&self) -> usize {
        self.job_columns
    }

    fn learn_jobs(&mut self, jobs: &[JobRef]) {
        let before = self.order.len();
        for (index, job) in (before..).zip(jobs) {
            *self.names.entry(job.job.clone()).or_default() += 1;
            self.order.insert(job.clone(), index);
        }
        for job in jobs {
            self.job_columns = aligned(self.job_columns, &self.job(job));
        }
        self.columns = self.columns.max(self.job_columns);
    }
}

/// Columns in which the others and this label stand.
fn aligned(columns: usize, label: &str) -> usize {
    match text::width(label) {
        wide if wide > ALIGN_LIMIT => columns,
        width => columns.max(width),
    }
}
