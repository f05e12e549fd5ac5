//! What is going on in a run just now, and what of it stays on the screen for good.

use std::path::PathBuf;

use navvy_job::event::{Event, JobEnd, JobRef, Stamped, TaskRef};
use navvy_job::figures;
use navvy_job::outcome::StepOutcome;
use navvy_job::state::TaskState;

use super::labels::Labels;
use super::sanitize::{clean, first_line};
use super::style::Palette;
use super::tail::Tail;
use super::{describe, summary, text};

/// Lines of a failed step that stay.
const FAILURE_LINES: usize = 20;
/// Columns of each of them. The log has them whole.
const FAILURE_COLUMNS: usize = 400;

/// State of a run, as far as it is drawn.
#[derive(Debug)]
pub struct Board {
    palette: Palette,
    pub labels: Labels,
    /// In the order in which they started.
    pub tasks: Vec<Task>,
    pub approvals: Vec<Approval>,
    pub waiting: Vec<Waiting>,
    pub removals: Vec<Removal>,
    pub jobs: usize,
    pub ended: usize,
}

/// A task that runs.
#[derive(Debug)]
pub struct Task {
    pub task: TaskRef,
    pub started_ms: u64,
    pub state: TaskState,
    /// How many steps it has.
    pub total: usize,
    /// Those that run, in the order in which they started.
    pub steps: Vec<Step>,
    /// Something long that is not a step.
    pub progress: Option<Progress>,
}

/// A step that runs.
#[derive(Debug)]
pub struct Step {
    pub number: usize,
    pub attempt: u32,
    pub name: String,
    pub started_ms: u64,
    pub background: bool,
    log: PathBuf,
    pub tail: Tail,
}

/// How far something long is.
#[derive(Debug)]
pub struct Progress {
    pub what: String,
    pub done: u64,
    pub total: Option<u64>,
}

/// A job that asks for a person's word.
#[derive(Debug)]
pub struct Approval {
    pub job: JobRef,
    pub holds: Vec<String>,
}

/// A job whose turn has not come.
#[derive(Debug)]
pub struct Waiting {
    pub job: JobRef,
    pub why: String,
}

/// An environment that is being removed.
#[derive(Debug)]
pub struct Removal {
    pub task: TaskRef,
    pub since_ms: u64,
}

impl Task {
    /// The step that a person waits for: the latest, but a background step only if there is no other.
    pub fn current(&self) -> Option<&Step> {
        self.steps.iter().rev().find(|step| !step.background)
    }
}

impl Board {
    pub fn new(palette: Palette) -> Self {
        Self {
            palette,
            labels: Labels::default(),
            tasks: Vec::new(),
            approvals: Vec::new(),
            waiting: Vec::new(),
            removals: Vec::new(),
            jobs: 0,
            ended: 0,
        }
    }

    /// Takes note of an event; returns the lines that stay for good.
    pub fn apply(&mut self, stamped: &Stamped) -> Vec<String> {
        self.labels.learn(&stamped.event);
        match &stamped.event {
            Event::Output { task, step, bytes, .. } => self.output(task, *step, bytes),
            Event::StepEnded { .. } => return self.step_ended(&stamped.event),
            Event::JobEnded { job, end } => return self.job_ended(job, end),
            Event::Warning { task, message } => return vec![self.warning(task.as_ref(), message)],
            Event::TaskHeld { task, step, until, .. } => return vec![self.kept(task, *step, until)],
            Event::StopAsked { at_once, jobs_over } => {
                return vec![self.palette.caution(describe::stop(*at_once, *jobs_over))];
            }
            Event::RunStarted { jobs, .. } => self.jobs = jobs.len(),
            Event::PipelineContinued { config, jobs } => {
                self.jobs += jobs.len();
                return vec![clean(&describe::continued(config, jobs.len()))];
            }
            Event::JobWaiting { job, why } => self.job_waiting(job, why),
            Event::ApprovalAsked { job, holds } => self.approval_asked(job, holds),
            Event::TaskStarted { task, steps, .. } => self.task_started(stamped.at_ms, task, steps.len()),
            Event::TaskState { task, state } => self.task_state(stamped.at_ms, task, *state),
            Event::Progress { task, what, done, total } => self.progressed(task, what, *done, *total),
            Event::StepStarted { .. } => self.step_started(stamped.at_ms, &stamped.event),
            Event::TaskEnded { task, .. } => self.tasks.retain(|t| t.task.task != task.task),
            Event::TaskRemoved { task, leftovers, .. } => return self.removed(task, leftovers),
            // They are drawn.
            Event::RemovalAwaited { .. } => {}
            Event::ServiceStarted { .. } | Event::TaskLogs { .. } => {}
            Event::Report { .. } | Event::StepSkipped { .. } | Event::RunEnded(_) => {}
        }
        Vec::new()
    }

    fn job_waiting(&mut self, job: &JobRef, why: &str) {
        self.waiting.retain(|waiting| waiting.job != *job);
        self.waiting.push(Waiting { job: job.clone(), why: clean(why) });
    }

    fn approval_asked(&mut self, job: &JobRef, holds: &[String]) {
        self.no_longer_waits(job);
        self.approvals.push(Approval { job: job.clone(), holds: holds.iter().map(|name| clean(name)).collect() });
    }

    fn task_started(&mut self, now_ms: u64, task: &TaskRef, total: usize) {
        self.no_longer_waits(&task.job);
        self.tasks.push(Task {
            task: task.clone(),
            started_ms: now_ms,
            state: TaskState::Claimed,
            total,
            steps: Vec::new(),
            progress: None,
        });
    }

    fn task_state(&mut self, now_ms: u64, task: &TaskRef, state: TaskState) {
        if state == TaskState::Releasing {
            self.tasks.retain(|known| known.task.task != task.task);
            self.removals.push(Removal { task: task.clone(), since_ms: now_ms });
        }
        if let Some(task) = self.task_mut(task) {
            task.state = state;
            task.progress = None;
        }
    }

    /// What could not be removed stays.
    fn removed(&mut self, task: &TaskRef, leftovers: &[String]) -> Vec<String> {
        self.removals.retain(|removal| removal.task.task != task.task);
        let who = self.labels.task(task);
        let line = |left: &String| self.palette.caution(&format!("! {who}: left behind: {}", clean(left)));
        leftovers.iter().map(line).collect()
    }

    fn progressed(&mut self, task: &TaskRef, what: &str, done: u64, total: Option<u64>) {
        if let Some(task) = self.task_mut(task) {
            task.progress = Some(Progress { what: clean(what), done, total });
        }
    }

    fn step_started(&mut self, now_ms: u64, event: &Event) {
        let Event::StepStarted { task, step, attempt, name, background, log, .. } = event else { return };
        let Some(task) = self.task_mut(task) else { return };
        task.progress = None;
        task.steps.push(Step {
            number: *step,
            attempt: *attempt,
            name: first_line(name),
            started_ms: now_ms,
            background: *background,
            log: log.clone(),
            tail: Tail::default(),
        });
    }

    fn output(&mut self, task: &TaskRef, step: usize, bytes: &[u8]) {
        let steps = self.task_mut(task).map(|task| &mut task.steps);
        if let Some(step) = steps.and_then(|steps| steps.iter_mut().rev().find(|s| s.number == step)) {
            step.tail.push(bytes);
        }
    }

    fn step_ended(&mut self, event: &Event) -> Vec<String> {
        let Event::StepEnded { task: of, step, outcome, .. } = event else { return Vec::new() };
        let Some(task) = self.task_mut(of) else { return Vec::new() };
        let Some(at) = task.steps.iter().position(|s| s.number == *step) else { return Vec::new() };
        let ended = task.steps.remove(at);
        let total = task.total;
        match outcome {
            StepOutcome::Success | StepOutcome::Canceled => Vec::new(),
            _ => self.failure(event, &ended, total),
        }
    }

    /// What stays of a step that failed: which, how, where it was written, its last lines, its log.
    fn failure(&self, event: &Event, step: &Step, total: usize) -> Vec<String> {
        let Event::StepEnded { task, outcome, duration_ms, origin, will_rerun, .. } = event else { return Vec::new() };
        let what = format!(
            "{}, {}{}{}: {} after {}",
            self.labels.task(task),
            describe::number(step.number, Some(total)),
            step.name,
            describe::attempt(step.attempt),
            describe::outcome(outcome),
            figures::duration(*duration_ms),
        );
        if *will_rerun {
            return vec![self.palette.caution(&format!("↻ {what}, another attempt follows"))];
        }
        let head = if step.background {
            self.palette.caution(&format!("! {what}, in the background"))
        } else {
            self.palette.bad(&format!("✗ {what}"))
        };
        let mut lines = vec![head];
        lines.extend(self.last_lines(event, step));
        let place = origin.as_deref().map_or_else(String::new, |origin| format!("{}, ", clean(origin)));
        lines.push(self.palette.faint(&format!("  ╰ {place}log: {}", clean(&step.log.display().to_string()))));
        lines
    }

    fn last_lines(&self, event: &Event, step: &Step) -> Vec<String> {
        let (mut written, more) = step.tail.last_lines(FAILURE_LINES, self.palette.on);
        if let Event::StepEnded { outcome, .. } = event {
            // The head has it already.
            written.retain(|line| *line != describe::outcome(outcome));
        }
        let bar = self.palette.bad("│");
        let mut lines = Vec::new();
        if more {
            lines.push(format!("  {}", self.palette.faint("┆ (the log has what came before)")));
        }
        lines.extend(written.iter().map(|line| format!("  {bar} {}", text::cut(line, FAILURE_COLUMNS))));
        if let Event::StepEnded { trailers, .. } = event {
            lines.extend(
                trailers
                    .iter()
                    .filter(|trailer| !is_exit_code(trailer))
                    .map(|trailer| format!("  {bar} {}", self.palette.faint(&clean(trailer)))),
            );
        }
        lines
    }

    fn job_ended(&mut self, job: &JobRef, end: &JobEnd) -> Vec<String> {
        self.ended += 1;
        self.no_longer_waits(job);
        self.approvals.retain(|approval| approval.job != *job);
        self.tasks.retain(|task| task.task.job != *job);
        let mark = summary::mark(self.palette, end);
        let label = text::pad(&self.labels.job(job), self.labels.job_columns());
        let time = match end {
            JobEnd::Ran { duration_ms, .. } => figures::duration(*duration_ms),
            _ => String::new(),
        };
        let words = summary::end_in_words(job, end);
        vec![format!("{mark} {label}  {}  {words}", text::pad_left(&time, 7))]
    }

    fn kept(&self, task: &TaskRef, step: usize, until: &str) -> String {
        self.palette.caution(&format!("? {}: {}", self.labels.task(task), describe::kept(&task.task, step, until)))
    }

    fn warning(&self, task: Option<&TaskRef>, message: &str) -> String {
        let who = task.map_or_else(String::new, |task| format!("{}: ", self.labels.task(task)));
        self.palette.caution(&format!("! {who}{}", clean(message)))
    }

    fn no_longer_waits(&mut self, job: &JobRef) {
        self.waiting.retain(|waiting| waiting.job != *job);
    }

    fn task_mut(&mut self, task: &TaskRef) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|known| known.task.task == task.task)
    }
}

/// The head has it already.
fn is_exit_code(trailer: &str) -> bool {
    trailer.starts_with("Exited with code ") || trailer.starts_with("CircleCI received exit code ")
}
