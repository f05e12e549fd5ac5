//! A job's steps, one after another.

use std::collections::BTreeSet;
use std::time::Duration;

use navvy_checkout::CheckoutSource;
use navvy_job::compiled::{Run, Step, StepKind, When};
use navvy_job::event::HeldAt;
use navvy_job::outcome::{SkipReason, StepOutcome, Verdict};
use navvy_job::state::TaskState;
use navvy_output::StepLog;
use navvy_protocol::in_job::Lack;
use tokio::time::{Instant, sleep, sleep_until};

use crate::environment::Environment;

use super::Task;
use super::attempt::Attempted;
use super::decide::StepEnd;
use super::lingering::Lingering;
use super::prepare::Ready;
use crate::step::bounded::{GivenUp, Lost};
use crate::step::kinds::{self, Done};
use crate::step::own::{StepError, StepFault, StepOutput};
use crate::step::texts;
use crate::step::voice::{StepEnded, StepRef};

/// Said where a step fails for want of what was skipped before.
const NO_DAEMON: &str = "No Docker daemon was found: setup_remote_docker is not available here and was skipped. \
                         `navvy run --remote-docker host` hands the job the engine that runs it, and with it all that \
                         root can do there.";

/// How the job stands between two steps.
#[derive(Default)]
pub(super) struct Standing {
    pub(super) failed: bool,
    pub(super) halted: bool,
    /// What the job asked for and only the service has; already reported.
    pub(super) lacks: BTreeSet<Lack>,
    /// No further step is run, not even one with `when: always`.
    pub(super) over: bool,
    /// Nothing more is run now: a person goes on from here.
    pub(super) held: Option<HeldAt>,
}

/// How the steps ended.
pub(super) enum Ended {
    /// For good: the environment is to be destroyed.
    Over(Box<Environment>),
    /// The environment stays as it is.
    Held(Box<Ready>, HeldAt),
}

impl Task {
    /// Runs the steps from the `first` on (from 1) and gathers what they left running.
    pub(super) async fn run_steps(&mut self, mut ready: Ready, first: usize) -> Ended {
        if self.advance(TaskState::Running).await.is_err() {
            return Ended::Over(Box::new(ready.environment));
        }
        let steps = std::mem::take(&mut self.claim.job.steps);
        let mut standing = self.standing_before();
        // A task that is continued has passed these steps before.
        let asks_for_docker = |step: &Step| matches!(step.kind, StepKind::SetupRemoteDocker { .. });
        self.lacks_docker = self.why_no_docker().is_some() && steps[..first - 1].iter().any(asks_for_docker);
        for (index, step) in steps.iter().enumerate().skip(first - 1) {
            let number = index + 1;
            if self.stop_asked().is_some() && !standing.over && !self.is_in_midst_of(number) {
                standing.over = true;
                self.fix(self.canceled());
                if self.resumed_at.is_some() {
                    standing.held.get_or_insert(HeldAt { step: number, name: step.name.clone(), before: true });
                }
            }
            match why_skipped(step, &standing) {
                Some(why) => self.step_skipped(number, step, why),
                None if self.is_break(number, step) && self.context.hold.stage.is_none() => {
                    self.hold_before(&mut standing, number, step);
                }
                None => self.run_attended(&mut ready, number, step, &mut standing).await,
            }
        }
        self.claim.job.steps = steps;
        if self.stop_asked().is_some() {
            self.fix(self.canceled());
        }
        self.take_continuation(&ready.environment, &ready.client).await;
        let finishing = self.advance(TaskState::Finishing).await;
        if let Some(at) = standing.held.filter(|_| finishing.is_ok() && self.may_be_held()) {
            return Ended::Held(Box::new(ready), at);
        }
        self.end_lingering(ready.lingering).await;
        Ended::Over(Box::new(ready.environment))
    }

    /// Ends what steps left running.
    pub(super) async fn end_lingering(&self, lingering: Lingering) {
        let at_once = self.stop_asked().is_some_and(|cancel| cancel.at_once);
        lingering.finish(&self.context.bus, &self.reference, at_once).await;
    }

    fn hold_before(&mut self, standing: &mut Standing, number: usize, step: &Step) {
        standing.held = Some(HeldAt { step: number, name: step.name.clone(), before: true });
        self.step_skipped(number, step, SkipReason::Held);
    }

    /// A person may be asked in before a step that was named, and after one that failed.
    async fn run_attended(&mut self, ready: &mut Ready, number: usize, step: &Step, standing: &mut Standing) {
        crate::bug::here("task");
        if self.is_break(number, step) {
            self.ask_in(ready, step, &format!("held before step {number}, {}", step.name)).await;
        }
        let failed_before = standing.failed;
        self.run_step(ready, number, step, standing).await;
        if standing.failed && !failed_before && !standing.over {
            self.ask_in(ready, step, &format!("step {number} failed, {}", step.name)).await;
        }
    }

    async fn run_step(&mut self, ready: &mut Ready, number: usize, step: &Step, standing: &mut Standing) {
        match &step.kind {
            StepKind::Run(run) if run.deploy && self.claim.node_index > 0 => {
                // The deprecated `deploy` runs on the first node alone.
                self.step_skipped(number, step, SkipReason::FirstNodeOnly);
            }
            StepKind::Run(run) => self.run_attempts(ready, number, step, run, standing).await,
            StepKind::SetupRemoteDocker { .. } if self.why_no_docker().is_some() => {
                self.lacks_docker = true;
                let why = self.why_no_docker().unwrap_or_default();
                let warning = format!("step `{}` is not available here and was skipped: {why}", step.kind.key());
                self.skip(number, step, SkipReason::NotAvailable, warning);
            }
            StepKind::OrbCommand { orb, command } => {
                let warning = format!("step `{orb}/{command}` was skipped: orb `{orb}` is not here");
                self.skip(number, step, SkipReason::OrbMissing, warning);
            }
            StepKind::InstallSigningBundle => self.not_available(number, step),
            kind => self.run_own(ready, number, step, kind, standing).await,
        }
    }

    /// A step that the agent carries out itself: every one of them starts and ends here, and has one attempt.
    async fn run_own(
        &mut self,
        ready: &mut Ready,
        number: usize,
        step: &Step,
        kind: &StepKind,
        standing: &mut Standing,
    ) {
        let at = self.step_ref(number, self.attempts_before + 1, step);
        let started = Instant::now();
        if !self.is_in_midst_of(number) {
            self.leave_progress(&ready.client, at.number, at.attempt, standing).await;
        }
        let attempted = match (kind, &self.context.checkout) {
            (StepKind::Checkout(checkout), CheckoutSource::Git) => {
                let clone = kinds::checkout::clone(checkout, &self.claim.run);
                self.attempt(ready, &at, &clone).await
            }
            _ => self.carry_out_own(ready, &at, kind).await,
        };
        self.step_ended(&at, &attempted, started, false);
        let is_cache = matches!(kind, StepKind::SaveCache { .. } | StepKind::RestoreCache { .. });
        match &attempted.end {
            // A job does without a cache: that the step failed is shown and warned of, and changes nothing else.
            StepEnd { outcome: StepOutcome::Error { reason }, lost: None, .. } if is_cache => {
                self.warn(format!("step {number} ({}) failed and the job goes on: {reason}", at.name));
            }
            _ => self.judge(&at, attempted, standing),
        }
    }

    async fn carry_out_own(&mut self, ready: &mut Ready, at: &StepRef, kind: &StepKind) -> Attempted {
        let log = StepLog::path_for(&self.context.directory, at.number, at.attempt);
        self.voice.step_started(at, false, None, log.clone());
        if self.take_own_midst(at.number) {
            return Attempted::in_midst(log, "in the midst of this step of its own, which is not begun a second time");
        }
        let mut output = match StepOutput::create(&self.voice, &self.context.directory, at) {
            Ok(output) => output,
            Err(error) => return Attempted::not_started(log, format!("the step's log could not be made: {error}")),
        };
        self.may_have_machines |= matches!(kind, StepKind::SetupRemoteDocker { .. }) && !self.context.handing.docker;
        let cx = self.step_cx(ready);
        let mut carried_out = kinds::carry_out(&cx, &mut output, kind).await;
        if let Err(StepError::Fault(StepFault { lost: Some(Lost::Supervisor), .. })) = &carried_out
            && let Some(died) = cx.bounds.end_behind_loss().await
        {
            carried_out = Err(GivenUp::Died(died).into());
        }
        let end = carried_out.map(|Done { handed, machine, fidelity }| {
            self.result.fidelity.extend(fidelity);
            self.machines.extend(machine);
            if let Some((handed, opened)) = handed {
                ready.handed.add(&mut ready.frame, handed, opened);
            }
        });
        Attempted::own(log, output.digest(), end)
    }

    /// An attempt at a step, counted.
    fn step_ref(&mut self, number: usize, attempt: u32, step: &Step) -> StepRef {
        self.attempts = self.attempts.max(attempt);
        let (name, kind) = (step.name.clone(), step.kind.key().to_owned());
        StepRef { number, attempt, name, kind, origin: self.origin(step) }
    }

    async fn run_attempts(
        &mut self,
        ready: &mut Ready,
        number: usize,
        step: &Step,
        run: &Run,
        standing: &mut Standing,
    ) {
        // Attempts that a person asked for come after those there were.
        let attempts = self.attempts_before + 1 + run.max_auto_reruns;
        for attempt in self.first_attempt(number)..=attempts {
            let at = self.step_ref(number, attempt, step);
            let started = Instant::now();
            if !self.is_in_midst_of(number) {
                self.leave_progress(&ready.client, number, attempt, standing).await;
            }
            let mut attempted = self.attempt(ready, &at, run).await;
            let background_runs = run.background && attempted.end.outcome.is_success();
            let again = attempt < attempts && may_rerun(&attempted) && self.stop_asked().is_none();
            if !background_runs {
                self.step_ended(&at, &attempted, started, again);
            }
            if !again {
                self.judge(&at, attempted, standing);
                return;
            }
            if let Some(outcome) = self.pause(run.auto_rerun_delay).await {
                attempted.end.outcome = outcome;
                self.judge(&at, attempted, standing);
                return;
            }
        }
    }

    /// Waits between two attempts. `Some`: the next one is not begun, and this is the step's outcome.
    async fn pause(&self, delay: Duration) -> Option<StepOutcome> {
        let mut stop = self.context.stop.clone();
        tokio::select! {
            biased;
            Ok(_) = stop.wait_for(Option::is_some) => Some(StepOutcome::Canceled),
            () = sleep_until(self.deadline()) => Some(StepOutcome::JobLimit { limit: self.claim.limits.job }),
            () = sleep(delay) => None,
        }
    }

    /// What a step's end means for the job. The first failure fixes the verdict.
    fn judge(&mut self, at: &StepRef, attempted: Attempted, standing: &mut Standing) {
        standing.halted |= attempted.halted;
        let end = attempted.end;
        for lack in end.exited.iter().flat_map(|exited| &exited.lacks) {
            if standing.lacks.insert(*lack) {
                self.warn(format!("job {}: {}", self.claim.job_name, lack.why()));
            }
        }
        match end.outcome {
            StepOutcome::Success => return,
            StepOutcome::Canceled => {
                standing.over = true;
                self.fix(self.canceled());
                // What a person had held before is not thrown away by a Ctrl-C.
                if self.resumed_at.is_some() {
                    standing.held = Some(HeldAt { step: at.number, name: at.name.clone(), before: false });
                }
            }
            StepOutcome::JobLimit { limit } => {
                standing.over = true;
                self.fix(Verdict::TimedOut { limit });
                if self.is_held_on_failure() {
                    standing.held = Some(HeldAt { step: at.number, name: at.name.clone(), before: false });
                }
            }
            StepOutcome::Error { reason } if end.lost == Some(Lost::Supervisor) => {
                standing.over = true;
                self.fix(Verdict::Infra { fault: reason });
            }
            _ => {
                standing.over |= end.lost.is_some();
                self.fix(Verdict::Failed { step: at.number, name: at.name.clone() });
            }
        }
        standing.failed = true;
        if attempted.lacks_daemon {
            let StepRef { number, name, .. } = at;
            self.result.fidelity.push(format!("step {number} ({name}) failed. {NO_DAEMON}"));
        }
        self.result.failed_log.get_or_insert(attempted.log);
        if self.is_held_on_failure() && end.lost.is_none() {
            standing.held = Some(HeldAt { step: at.number, name: at.name.clone(), before: false });
        }
    }

    /// The first verdict other than `Passed` stays.
    fn fix(&mut self, verdict: Verdict) {
        self.result.cut_short |= matches!(verdict, Verdict::Canceled { .. });
        if self.result.verdict == Verdict::Passed {
            self.result.verdict = verdict;
        }
    }

    fn step_ended(&self, at: &StepRef, attempted: &Attempted, started: Instant, will_rerun: bool) {
        let end = &attempted.end;
        let mut trailers = texts::trailers(end.exited.as_ref(), &end.outcome);
        trailers.extend(attempted.lacks_daemon.then(|| NO_DAEMON.to_owned()));
        let (outcome, digest) = (end.outcome.clone(), attempted.digest.clone());
        self.voice.step_ended(at, StepEnded { outcome, duration: started.elapsed(), trailers, digest, will_rerun });
    }

    fn step_skipped(&self, number: usize, step: &Step, why: SkipReason) {
        self.voice.step_skipped(number, &step.name, why);
    }

    /// Why the job's steps can have no Docker engine.
    fn why_no_docker(&self) -> Option<String> {
        let has_one = self.context.handing.docker || self.provider.is_of_machines();
        if has_one { None } else { self.context.remote_docker.as_ref().as_ref().err().cloned() }
    }

    fn not_available(&mut self, number: usize, step: &Step) {
        let warning = format!("step `{}` is not available yet and was skipped", step.kind.key());
        self.skip(number, step, SkipReason::NotAvailable, warning);
    }

    fn skip(&mut self, number: usize, step: &Step, why: SkipReason, warning: String) {
        *self.result.skipped.entry(why).or_default() += 1;
        self.warn(warning);
        self.step_skipped(number, step, why);
    }

    /// `config.yml:12`, or the place in an orb's file.
    pub(super) fn origin(&self, step: &Step) -> Option<String> {
        let file = step.origin.file.as_deref().unwrap_or(&self.context.config_name);
        (step.origin.line > 0).then(|| format!("{file}:{}", step.origin.line))
    }
}

fn why_skipped(step: &Step, standing: &Standing) -> Option<SkipReason> {
    if standing.over {
        return Some(SkipReason::Stopped);
    }
    if standing.held.is_some() {
        return Some(SkipReason::Held);
    }
    if standing.halted {
        return Some(SkipReason::Halted);
    }
    match step.when {
        When::OnFail if !standing.failed => Some(SkipReason::NothingFailed),
        when if !when.runs(standing.failed) => Some(SkipReason::JobFailed),
        _ => None,
    }
}

/// Only a failure of the step's own is worth another attempt.
fn may_rerun(attempted: &Attempted) -> bool {
    let own = matches!(
        attempted.end.outcome,
        StepOutcome::ExitCode { .. }
            | StepOutcome::Signal { .. }
            | StepOutcome::OutOfMemory { .. }
            | StepOutcome::NoOutput { .. }
    );
    own && attempted.end.lost.is_none() && !attempted.halted
}
