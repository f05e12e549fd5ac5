//! Going on with a task whose agent was killed: the same environment, the same attempt at the same step, the same verdict.
//!
//! ```text
//! Left, List, logs cut to what was acknowledged ─▶ what lingers is followed again
//!                                               └▶ the step: attached to, or started if it was not ─▶ the steps behind it ─▶ …
//! ```
//!
//! No step runs twice: the supervisor starts each attempt once, whoever asks. A step that the agent carried out itself cannot
//! be gone on with in its middle: the task ends with that fault.

use std::collections::BTreeMap;
use std::sync::Arc;

use navvy_environment::supervisor::{Client, Connect};
use navvy_job::chain::chain;
use navvy_job::compiled::{Executor, Step, StepKind};
use navvy_job::outcome::Verdict;
use navvy_job::state::TaskState;
use navvy_journal::Journal;
use navvy_protocol::supervisor::{Exec, Terminal};
use tokio::time::Instant;

use crate::environment::Environment;
use crate::step::handing::{Handed, HandedOut};
use crate::step::voice::StepRef;

use super::left::{Left, LeftLog, LeftLogs, Progress, step_of};
use super::lingering::{BackgroundStep, Lingering};
use super::prepare::Ready;
use super::running::{LeftOff, Running};
use super::steps::Standing;
use super::{Context, Removal, Task, TaskResult, Turn};

/// A task of a killed agent that is this process's now.
pub struct Inherited {
    pub left: Left,
    pub logs: LeftLogs,
    /// Locked.
    pub journal: Journal,
    /// The primary first.
    pub containers: Vec<String>,
    pub link: Arc<dyn Connect>,
}

/// What there is of the step in whose midst the agent was killed.
pub(super) struct Midst {
    pub progress: Progress,
    pub logs: BTreeMap<String, LeftLog>,
    pub broken: BTreeMap<String, String>,
}

/// Goes on with the task. Never fails: everything that goes wrong is a verdict.
pub async fn go_on(inherited: Inherited, context: Context, turn: Turn) -> (TaskResult, Option<Removal>) {
    let Inherited { left: Left { note, progress, .. }, logs, journal, containers, link } = inherited;
    let mut task = Task::new(note.claim.clone(), note.secrets(), note.reference.clone(), context, Vec::new(), turn);
    task.journal = Some(journal);
    task.started = Instant::now().checked_sub(progress.elapsed()).unwrap_or_else(Instant::now);
    task.result.verdict = progress.verdict.clone();
    task.result.skipped = progress.skipped.clone();
    task.result.fidelity = progress.fidelity.clone();
    task.result.failed_log = progress.failed_log.clone();
    task.result.cut_short = progress.cut_short;
    task.voice.take_up(progress.warnings, progress.repeated.clone());
    task.attempts = progress.attempt;
    let LeftLogs { open, broken, .. } = logs;
    task.midst = Some(Midst { progress, logs: open, broken });
    let environment = task.take_over(note, containers, link).await;
    task.report(environment).await
}

impl Task {
    async fn take_over(
        &mut self,
        note: super::Note,
        containers: Vec<String>,
        link: Arc<dyn Connect>,
    ) -> Option<Box<Environment>> {
        if self.advance(TaskState::Preparing).await.is_err() {
            return None;
        }
        let (provider, paths) = (&self.provider, &self.context.paths);
        let (client, frame) = (Client::new(Arc::clone(&link)), note.frame());
        let floor = self.context.floor.0;
        let adopted = provider.adopt(&self.claim.task, paths, containers, link, note.inheritance, floor).await;
        let environment = match adopted {
            Ok(environment) => environment,
            Err(error) => {
                self.result.verdict = Verdict::Infra { fault: chain(&error) };
                return None;
            }
        };
        let wants_layers = matches!(self.claim.job.executor, Executor::Machine { docker_layer_caching: true, .. });
        if wants_layers && !environment.keeps_layers() {
            let of = "the job's Docker layers are not kept, since the agent that made its machine was killed";
            self.warn(format!("{of}: the next job finds those that an earlier one has saved"));
        }
        let lingering = Lingering::default();
        let mut ready = Ready { environment, client, frame, lingering, handed: HandedOut::default() };
        let first = self.midst.as_ref().map_or(0, |midst| midst.progress.step);
        let asks_for_docker = |step: &Step| matches!(step.kind, StepKind::SetupRemoteDocker { .. });
        self.may_have_machines = self.claim.job.steps.iter().any(asks_for_docker);
        if self.claim.job.steps.iter().take(first.saturating_sub(1)).any(asks_for_docker) {
            // The relays ended with the agent before.
            self.hand_out_again(&mut ready, vec![Handed::RemoteDocker]).await;
        }
        self.follow_again(&mut ready);
        self.left_head = self.begin_leaving(&ready);
        match first {
            // Whether steps may begin was not known yet.
            0 => match self.take_turn().await {
                true => self.go_through(ready, 1).await,
                false => Some(Box::new(ready.environment)),
            },
            first => self.go_through(ready, first).await,
        }
    }

    /// Background steps, and what other steps had left running.
    fn follow_again(&mut self, ready: &mut Ready) {
        let Some(midst) = &mut self.midst else { return };
        let current = midst.current();
        let others: Vec<String> = midst.logs.keys().filter(|id| **id != current).cloned().collect();
        let logs: Vec<_> = others.into_iter().filter_map(|id| Some((id.clone(), midst.logs.remove(&id)?))).collect();
        let broken: Vec<_> =
            midst.broken.iter().filter(|(id, _)| **id != current).map(|(id, why)| format!("{id}: {why}")).collect();
        for what in broken {
            self.warn(format!("the output of what step {what}; it is not kept any more"));
        }
        for (id, log) in logs {
            let Some((number, attempt)) = step_of(&id) else { continue };
            let Some(step) = self.claim.job.steps.get(number.wrapping_sub(1)).cloned() else { continue };
            let watch = self.watch(number);
            let LeftLog { log, offset, held } = log;
            let running = match Running::go_on(&ready.client, known(id.clone()), LeftOff { offset, held }, log, watch) {
                Ok(running) => running,
                Err(error) => {
                    self.warn(format!("the output of what step {id} left running is not kept any more: {error}"));
                    ready.lingering.add_inherited(id);
                    continue;
                }
            };
            match &step.kind {
                StepKind::Run(run) if run.background => {
                    let (name, kind) = (step.name.clone(), step.kind.key().to_owned());
                    let at = StepRef { number, attempt, name, kind, origin: self.origin(&step) };
                    let background = BackgroundStep { at, started: Instant::now() };
                    ready.lingering.keep_background(running, background, self.voice.clone());
                }
                _ => ready.lingering.keep(running),
            }
        }
    }

    /// As the task stood before the step.
    pub(super) fn standing_before(&self) -> Standing {
        let Some(Midst { progress, .. }) = &self.midst else { return Standing::default() };
        Standing {
            failed: progress.failed,
            halted: progress.halted,
            over: progress.over,
            lacks: progress.lacks.clone(),
            held: None,
        }
    }

    /// Was the agent killed in the midst of this step?
    pub(super) fn is_in_midst_of(&self, number: usize) -> bool {
        self.midst.as_ref().is_some_and(|midst| midst.progress.step == number)
    }

    /// The first attempt at a step that is to be made now.
    pub(super) fn first_attempt(&self, number: usize) -> u32 {
        match &self.midst {
            Some(midst) if midst.progress.step == number => midst.progress.attempt,
            _ => self.attempts_before + 1,
        }
    }

    /// What there is of this attempt, for whoever goes on with it. `None`: it is begun as any.
    pub(super) fn take_midst(&mut self, at: &StepRef) -> Option<Result<LeftLog, String>> {
        if self.first_attempt(at.number) != at.attempt || !self.is_in_midst_of(at.number) {
            return None;
        }
        let mut midst = self.midst.take()?;
        let id = midst.current();
        match midst.broken.remove(&id) {
            Some(why) => Some(Err(why)),
            // Without a log it was never started.
            None => Some(Ok(midst.logs.remove(&id)?)),
        }
    }

    /// A step of the agent's own in whose midst it was killed.
    pub(super) fn take_own_midst(&mut self, number: usize) -> bool {
        self.is_in_midst_of(number) && self.midst.take().is_some()
    }
}

/// An exec that runs, by its id: it could not be started like this.
fn known(id: String) -> Exec {
    let (argv, env, cwd, user) = Default::default();
    Exec { id, argv, env, cwd, user, terminal: Terminal::Pipes, input: false, watch_memory: false }
}

impl Midst {
    fn current(&self) -> String {
        format!("{}-{}", self.progress.step, self.progress.attempt)
    }
}
