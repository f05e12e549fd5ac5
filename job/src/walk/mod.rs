//! A run of workflows, decided: what starts, whom to ask, how each job ends, and when everything is over. Pure.
//!
//! ```text
//!  task started, ended ──▶ ┌──────── Walk ────────┐ ──▶ Start, GiveUp
//!  approval answered   ──▶ │ graphs    open tasks │ ──▶ Ask, Tell
//!  pipeline continued  ──▶ │ asked     ends       │ ──▶ Continue, ContinuedBefore
//!  stop                ──▶ └──────────────────────┘ ──▶ Finish
//! ```
//!
//! The caller carries out effects in their order and reports the results. The caller owns what a walk does not know: room for
//! tasks, their order of starting, time. A happening that is reported twice counts once, so that a caller who lost the
//! answer may ask again.

mod gather;
#[cfg(test)]
mod properties;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

pub use gather::{Gathered, TaskEnd, gather};
pub use terms::{Effect, Finish, Happening, JobKey, Part, TaskKey, Terms, Work};

use crate::event::{JobEnd, JobRef, JobSummary};
use crate::outcome::{CancelReason, JobStatus, RunEnd, Verdict};
use crate::workflow::{Graph, Progress};

/// A run on its way.
#[derive(Debug)]
pub struct Walk {
    terms: Terms,
    parts: Vec<Part>,
    /// Jobs whose tasks have not all ended.
    open: BTreeMap<JobKey, Tasks>,
    /// Tasks that may start and have not, in the order in which they were asked for.
    waiting: Vec<TaskKey>,
    /// Approvals that a person was asked for, the oldest first.
    asked: VecDeque<JobKey>,
    continuation: Continuation,
    stopped: Option<CancelReason>,
    ends: BTreeMap<JobKey, JobSummary>,
    end: RunEnd,
    is_over: bool,
    /// Effects of the happening at hand.
    effects: Vec<Effect>,
}

/// The tasks of one job.
#[derive(Debug)]
struct Tasks {
    expected: u32,
    /// Nodes, in the order in which they ended.
    ended: Vec<(u32, TaskEnd)>,
}

/// Whether and with what the pipeline goes on.
#[derive(Debug, Default)]
struct Continuation {
    /// The caller carries one out at this moment.
    is_under_way: bool,
    /// A continuation was carried out: a second one is refused.
    is_done: bool,
    /// Tasks that continued the pipeline, too, and were not heard yet.
    waiting: VecDeque<TaskKey>,
}

impl Walk {
    /// A walk that has not begun.
    pub fn new(terms: Terms, parts: Vec<Part>) -> Self {
        Self {
            terms,
            parts,
            open: BTreeMap::new(),
            waiting: Vec::new(),
            asked: VecDeque::new(),
            continuation: Continuation::default(),
            stopped: None,
            ends: BTreeMap::new(),
            end: RunEnd::Passed,
            is_over: false,
            effects: Vec::new(),
        }
    }

    /// What is to be done first.
    pub fn begin(&mut self) -> Vec<Effect> {
        self.go_on()
    }

    /// What is to be done now that something has happened. After [`Effect::Finish`], nothing is.
    pub fn handle(&mut self, happening: Happening) -> Vec<Effect> {
        if self.is_over {
            return Vec::new();
        }
        match happening {
            Happening::TaskStarted { task } => self.waiting.retain(|waiting| *waiting != task),
            Happening::TaskEnded { task, end } => self.task_ended(task, *end),
            Happening::Answered { job, approved } => self.answered(job, approved),
            Happening::AnswersOver => self.answers_over(),
            Happening::Continued { parts } => self.join(parts),
            Happening::NotContinued => self.continuation.is_under_way = false,
            Happening::Stop { reason } => self.stop(reason),
        }
        self.go_on()
    }

    /// How people know the job.
    ///
    /// # Panics
    /// When the key is not one of this walk's.
    pub fn reference(&self, job: JobKey) -> JobRef {
        self.parts[job.workflow].reference(job.job)
    }

    /// Every job that takes part, in the order of the file.
    pub fn references(&self) -> Vec<JobRef> {
        self.parts.iter().flat_map(Part::references).collect()
    }

    /// The approval that a person was asked for first and has not answered.
    pub fn oldest_asked(&self) -> Option<JobKey> {
        self.asked.front().copied()
    }

    /// Whether a stop was asked for.
    pub fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    fn go_on(&mut self) -> Vec<Effect> {
        self.hear_continuation();
        if self.stopped.is_none() {
            self.start_ready();
        }
        let asks = !self.asked.is_empty() && self.stopped.is_none();
        if !self.is_over && self.open.is_empty() && !asks && !self.continuation.is_under_way {
            self.finish();
        }
        std::mem::take(&mut self.effects)
    }

    fn start_ready(&mut self) {
        // Starting one job (a no-op, say) may make others ready: go on until nothing more is.
        loop {
            let ready: Vec<JobKey> = (0..self.parts.len()).flat_map(|workflow| self.ready(workflow)).collect();
            if ready.is_empty() {
                return;
            }
            ready.into_iter().for_each(|job| self.start(job));
        }
    }

    fn ready(&self, workflow: usize) -> Vec<JobKey> {
        let part = &self.parts[workflow];
        part.graph.ready().into_iter().filter_map(|name| part.key(workflow, name)).collect()
    }

    fn start(&mut self, job: JobKey) {
        let name = self.name(job);
        self.graph(job).start(&name);
        if self.terms.assume_passed.contains(&name) {
            return self.pass(job, "assumed by --assume");
        }
        match self.parts[job.workflow].work[job.job].clone() {
            Work::Nothing => self.pass(job, "a no-op"),
            Work::Approval => self.approval(job, &name),
            Work::Unavailable { needs } => self.withhold(job, JobEnd::NotAvailable { needs }),
            Work::Tasks(tasks) => {
                let tasks = tasks.max(1);
                self.open.insert(job, Tasks { expected: tasks, ended: Vec::new() });
                self.waiting.extend((0..tasks).map(|node| TaskKey { job, node }));
                self.effects.push(Effect::Start { job, tasks });
            }
        }
    }

    fn approval(&mut self, job: JobKey, name: &str) {
        if self.terms.approve_all || self.terms.approved.contains(name) {
            return self.pass(job, "approved by --approve");
        }
        let holds = self.graph(job).behind(name);
        self.effects.push(Effect::Ask { job, holds });
        if self.terms.is_asked { self.asked.push_back(job) } else { self.hold(job) }
    }

    /// An answer counts only for an approval that was asked for and has no answer yet.
    fn answered(&mut self, job: JobKey, approved: bool) {
        let Some(position) = self.asked.iter().position(|asked| *asked == job) else { return };
        self.asked.remove(position);
        if approved { self.pass(job, "approved by you") } else { self.hold(job) }
    }

    fn answers_over(&mut self) {
        self.terms.is_asked = false;
        std::mem::take(&mut self.asked).into_iter().for_each(|job| self.hold(job));
    }

    fn hold(&mut self, job: JobKey) {
        let approval = self.name(job);
        self.withhold(job, JobEnd::Unapproved { approval });
    }

    fn task_ended(&mut self, task: TaskKey, end: TaskEnd) {
        // It may have ended before it started: it could not be made, say.
        self.waiting.retain(|waiting| *waiting != task);
        let Some(tasks) = self.open.get_mut(&task.job) else { return };
        if task.node >= tasks.expected || tasks.ended.iter().any(|(node, _)| *node == task.node) {
            return;
        }
        tasks.ended.push((task.node, end));
        if tasks.ended.len() == tasks.expected as usize
            && let Some(tasks) = self.open.remove(&task.job)
        {
            self.job_ended(task.job, tasks);
        }
    }

    fn job_ended(&mut self, job: JobKey, tasks: Tasks) {
        let (nodes, ends): (Vec<u32>, Vec<TaskEnd>) = tasks.ended.into_iter().unzip();
        let Gathered { status, is_held, run_end, summary } = gather(self.reference(job), &ends);
        self.count(run_end);
        self.tell(job, summary);
        match is_held {
            true => self.mark_withheld(job),
            false => self.end(job, status),
        }
        let continuing = nodes.iter().zip(&ends).filter(|(_, end)| end.continues);
        self.continuation.waiting.extend(continuing.map(|(node, _)| TaskKey { job, node: *node }));
    }

    /// At most one continuation is carried out, and one is tried at a time. A stopped pipeline does not continue: however its
    /// jobs ended, the run counts as canceled.
    fn hear_continuation(&mut self) {
        while !self.continuation.is_under_way
            && let Some(task) = self.continuation.waiting.pop_front()
        {
            if self.stopped.is_some() {
                self.count(RunEnd::Canceled);
            } else if self.continuation.is_done {
                self.effects.push(Effect::ContinuedBefore { job: task.job });
            } else {
                self.continuation.is_under_way = true;
                self.effects.push(Effect::Continue { task });
            }
        }
    }

    fn join(&mut self, parts: Vec<Part>) {
        if !std::mem::take(&mut self.continuation.is_under_way) {
            return;
        }
        if self.stopped.is_some() {
            return self.count(RunEnd::Canceled);
        }
        self.continuation.is_done = true;
        self.parts.extend(parts);
    }

    /// What has not started never will; what runs ends by itself.
    fn stop(&mut self, reason: CancelReason) {
        self.stopped.get_or_insert(reason);
        for task in std::mem::take(&mut self.waiting) {
            self.effects.push(Effect::GiveUp { task });
            // Other nodes of the job may run: its end comes with theirs.
            self.task_ended(task, TaskEnd::new(Verdict::Canceled { reason }));
        }
    }

    fn pass(&mut self, job: JobKey, how: &str) {
        self.tell_end(job, JobEnd::Passed { how: how.to_owned() });
        self.end(job, JobStatus::Success);
    }

    /// The job neither passed nor failed, and what requires it is not run.
    fn withhold(&mut self, job: JobKey, end: JobEnd) {
        self.tell_end(job, end);
        self.mark_withheld(job);
    }

    fn mark_withheld(&mut self, job: JobKey) {
        self.count(RunEnd::Incomplete);
        let name = self.name(job);
        self.graph(job).withhold(&name);
    }

    /// Ends a job that was reported, and reports the jobs that thereby can never run.
    fn end(&mut self, job: JobKey, status: JobStatus) {
        let name = self.name(job);
        let impossible = self.graph(job).end(&name, status);
        let part = &self.parts[job.workflow];
        let impossible: Vec<JobKey> = impossible.iter().filter_map(|name| part.key(job.workflow, name)).collect();
        for other in impossible {
            self.tell_end(other, JobEnd::NotRun { why: format!("{name} ended {status}") });
        }
    }

    fn tell_end(&mut self, job: JobKey, end: JobEnd) {
        let summary = JobSummary {
            job: self.reference(job),
            end,
            skipped_steps: 0,
            skipped: BTreeMap::new(),
            warnings: 0,
            log: None,
            other_logs: vec![],
            held: vec![],
        };
        self.tell(job, summary);
    }

    fn tell(&mut self, job: JobKey, summary: JobSummary) {
        self.effects.push(Effect::Tell { job: summary.job.clone(), end: summary.end.clone() });
        self.ends.insert(job, summary);
    }

    fn count(&mut self, end: RunEnd) {
        self.end = self.end.max(end);
    }

    fn finish(&mut self) {
        self.is_over = true;
        for workflow in 0..self.parts.len() {
            (0..self.parts[workflow].work.len()).for_each(|job| self.tell_if_never_started(JobKey { workflow, job }));
        }
        let jobs = std::mem::take(&mut self.ends).into_values().collect();
        self.effects.push(Effect::Finish(Finish { end: self.end, jobs }));
    }

    /// Unless the job's end was reported before, reports that it did not run, and why.
    fn tell_if_never_started(&mut self, job: JobKey) {
        if self.ends.contains_key(&job) {
            return;
        }
        let why = match self.waits_for(job) {
            Some(other) => format!("waits for {other}"),
            None if self.stopped.is_some() => {
                self.count(RunEnd::Canceled);
                "the run was canceled".to_owned()
            }
            None => "it never became ready".to_owned(),
        };
        self.tell_end(job, JobEnd::NotRun { why });
    }

    /// What is withheld, and this job with it.
    fn waits_for(&self, job: JobKey) -> Option<String> {
        let (graph, name) = (&self.parts[job.workflow].graph, self.name(job));
        let mut withheld = graph.names().iter().filter(|other| graph.progress(other) == Some(Progress::Withheld));
        withheld.find(|other| graph.behind(other).contains(&name)).cloned()
    }

    fn name(&self, job: JobKey) -> String {
        self.parts[job.workflow].graph.names()[job.job].clone()
    }

    fn graph(&mut self, job: JobKey) -> &mut Graph {
        &mut self.parts[job.workflow].graph
    }
}
