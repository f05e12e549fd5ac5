//! The loop of `navvy run`: gathers what happens, asks the walk, and does what it says.

use std::collections::{BTreeMap, HashMap, VecDeque};

use navvy_job::event::{Event, JobRef, JobSummary};
use navvy_job::outcome::{Cancel, RunEnd, Verdict};
use navvy_job::walk::{Effect, Finish, Happening, TaskEnd, TaskKey, Walk};
use navvy_protocol::supervisor::Continuation;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};

use super::continuing::{Continued, Second};
use super::notes::Notes;
use super::plan::Plan;
use super::queue::Queue;
use super::removals::Removals;
use super::room::Room;
use crate::bus::Bus;
use crate::run_directory::RunDirectory;
use crate::step::bounded::Stop;
use crate::task::{self, Removal, TaskResult};

/// A task whose verdict is there.
pub(super) struct Judged {
    pub result: TaskResult,
    pub removal: Option<Removal>,
}

/// What came of every job.
#[derive(Default)]
pub struct Finished {
    pub jobs: Vec<JobSummary>,
    pub end: RunEnd,
    /// A task ended by a bug of ours: it has removed nothing.
    pub lost: bool,
    /// A job of a setup pipeline continued it, even if the continuation could not run.
    pub was_continued: bool,
    pub leftovers: Vec<String>,
    pub fidelity: Notes,
    /// Warnings of jobs, for a reader of the report alone.
    pub warnings: Vec<String>,
}

/// Says what a setup pipeline continues with, or why it does not.
pub type GoOn<'a> = dyn FnMut(&Continuation) -> Result<Continued, String> + 'a;

/// A run on its way.
pub struct PipelineRun {
    pub(super) plan: Plan,
    pub(super) context: task::Context,
    pub(super) bus: Bus,
    pub(super) directory: RunDirectory,
    stop: Stop,
    /// Decides.
    pub(super) walk: Walk,
    pub(super) queue: Queue,
    pub(super) running: JoinSet<Judged>,
    /// Which task runs as which of the runtime's.
    pub(super) keys: HashMap<Id, TaskKey>,
    removals: Removals,
    /// What tasks continued the pipeline with.
    pub(super) continuations: BTreeMap<TaskKey, Continuation>,
    /// Set once a setup pipeline has been continued.
    pub(super) second: Option<Second>,
    pub(super) build_number: u64,
    pub(super) finished: Finished,
}

impl PipelineRun {
    /// `context` is what every task gets.
    pub fn new(plan: Plan, context: task::Context, bus: Bus, directory: RunDirectory, stop: Stop) -> Self {
        let mut finished = Finished::default();
        finished.fidelity.extend(plan.workflows.iter().flat_map(|chosen| chosen.notes.clone()));
        if plan.overcommit.is_any() {
            let times = plan.overcommit;
            finished.fidelity.add(format!("processors were given out up to {times} times (--overcommit {times})"));
        }
        let room = Room::new(plan.machine, plan.overcommit, plan.max_parallel);
        let room = room.with_max_vms(plan.replacements.vms.at_once());
        Self {
            walk: Walk::new(plan.terms(), plan.workflows.iter().map(|chosen| plan.part(chosen)).collect()),
            queue: Queue::new(room),
            removals: Removals::new(bus.clone()),
            plan,
            context,
            bus,
            directory,
            stop,
            running: JoinSet::new(),
            keys: HashMap::new(),
            continuations: BTreeMap::new(),
            second: None,
            build_number: 0,
            finished,
        }
    }

    /// Every job that takes part, in the order of the file.
    pub fn job_references(&self) -> Vec<JobRef> {
        self.walk.references()
    }

    /// Runs everything to its last verdict. What is still to be removed then comes with it.
    pub async fn run(mut self, go_on: &mut GoOn<'_>) -> (Finished, Removals) {
        let mut effects = VecDeque::from(self.hear_stop());
        effects.extend(self.walk.begin());
        loop {
            // What an effect leads to at once comes after what was decided before.
            while let Some(effect) = effects.pop_front() {
                match effect {
                    Effect::Start { job, tasks } => effects.extend(self.queue_tasks(job, tasks)),
                    Effect::GiveUp { task } => self.queue.give_up(task),
                    Effect::Ask { job, holds } => {
                        self.bus.send(Event::ApprovalAsked { job: self.walk.reference(job), holds });
                    }
                    Effect::Tell { job, end } => self.bus.send(Event::JobEnded { job, end }),
                    Effect::Continue { task } => effects.extend(self.go_on(task, go_on)),
                    Effect::ContinuedBefore { job } => self.refuse_to_go_on(job),
                    Effect::Finish(finish) => return self.finish(finish),
                }
            }
            effects.extend(self.hear_stop());
            if !self.walk.is_stopped() {
                effects.extend(self.start_queued());
            }
            if effects.is_empty() {
                let happening = self.next().await;
                // The wish to stop comes before everything that came with it.
                effects.extend(self.hear_stop());
                effects.extend(happening.into_iter().flat_map(|happening| self.walk.handle(happening)));
            }
        }
    }

    fn hear_stop(&mut self) -> Vec<Effect> {
        let asked = *self.stop.borrow();
        match asked {
            Some(Cancel { reason, .. }) if !self.walk.is_stopped() => self.walk.handle(Happening::Stop { reason }),
            _ => Vec::new(),
        }
    }

    /// Waits for a task's verdict, free room, a person's answer, or the wish to stop.
    async fn next(&mut self) -> Option<Happening> {
        let asked = self.walk.oldest_asked();
        let answers = self.plan.approvals.answers.as_mut();
        tokio::select! {
            Some(done) = self.running.join_next_with_id() => self.task_ended(done),
            () = self.queue.vacated() => None,
            answer = next_answer(answers), if asked.is_some() => match (asked, answer) {
                (Some(job), Some(approved)) => Some(Happening::Answered { job, approved }),
                _ => {
                    self.plan.approvals.answers = None;
                    Some(Happening::AnswersOver)
                }
            },
            Ok(()) = self.stop.changed() => None,
        }
    }

    fn task_ended(&mut self, done: Result<(Id, Judged), JoinError>) -> Option<Happening> {
        self.queue.ended();
        let (id, judged) = match done {
            Ok((id, judged)) => (id, Some(judged)),
            Err(error) => {
                // A bug of ours, reported where it happened. The caller of the run removes what the task has left.
                tracing::error!(%error, "A task ended without a result.");
                self.finished.lost = true;
                (error.id(), None)
            }
        };
        let task = self.keys.remove(&id)?;
        let end = match judged {
            Some(Judged { result, removal }) => {
                crate::bug::here("run");
                removal.into_iter().for_each(|removal| self.removals.begin(removal));
                self.take_in(task, result)
            }
            None => lost("a bug of Navvy ended the task"),
        };
        Some(Happening::TaskEnded { task, end: Box::new(end) })
    }

    /// Keeps what the walk has no use for.
    fn take_in(&mut self, task: TaskKey, result: TaskResult) -> TaskEnd {
        let Ended { end, continuation, fidelity, repeated } = result.into();
        let job = self.walk.reference(task.job).job;
        fidelity.into_iter().for_each(|note| self.finished.fidelity.add_of(&job, note));
        self.finished.warnings.extend(repeated);
        self.continuations.extend(continuation.map(|continuation| (task, continuation)));
        end
    }

    fn finish(mut self, finish: Finish) -> (Finished, Removals) {
        self.finished.jobs = finish.jobs;
        self.finished.end = self.finished.end.max(finish.end);
        (self.finished, self.removals)
    }
}

/// What came of a task, sorted by who needs it.
pub struct Ended {
    /// For the walk.
    pub end: TaskEnd,
    /// What its job continued the pipeline with.
    pub continuation: Option<Continuation>,
    /// What would differ on the real service.
    pub fidelity: Vec<String>,
    /// Warnings that the run's report repeats.
    pub repeated: Vec<String>,
}

impl From<TaskResult> for Ended {
    fn from(result: TaskResult) -> Self {
        let TaskResult {
            verdict,
            duration,
            skipped,
            warnings,
            repeated,
            failed_log,
            fidelity,
            held,
            continuation,
            cut_short,
        } = result;
        let continues = continuation.is_some();
        let end = TaskEnd { verdict, duration, skipped, warnings, failed_log, held, cut_short, continues };
        Self { end, continuation, fidelity, repeated }
    }
}

async fn next_answer(answers: Option<&mut mpsc::UnboundedReceiver<bool>>) -> Option<bool> {
    match answers {
        Some(answers) => answers.recv().await,
        None => std::future::pending().await,
    }
}

/// The end of a task that has no result of its own.
pub(super) fn lost(fault: &str) -> TaskEnd {
    TaskEnd::new(Verdict::Infra { fault: fault.to_owned() })
}
