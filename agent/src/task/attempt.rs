//! One attempt at a `run` step: the select loop that gathers what happens to it.

use std::path::PathBuf;
use std::time::Duration;

use navvy_environment::request::Died;
use navvy_environment::supervisor::FollowEnd;
use navvy_job::chain::chain;
use navvy_job::compiled::Run;
use navvy_job::outcome::{Cancel, StepOutcome};
use navvy_output::{LogDigest, StepLog};
use navvy_protocol::supervisor::{Exit, Failure, FailureKind};
use tokio::time::{Instant, sleep_until};

use super::Task;
use super::decide::{Action, Happening, StepEnd, StepWatch};
use super::left::LeftLog;
use super::lingering::BackgroundStep;
use super::prepare::Ready;
use super::running::{LeftOff, Running, Seen};
use crate::step::Frame;
use crate::step::bounded::{GivenUp, Lost, Stop, in_words, lost_with};
use crate::step::own::{StepError, StepFault, log_trouble};
use crate::step::trace;
use crate::step::voice::StepRef;
use crate::task::daemon_hint::DaemonHint;
use crate::task::step_sink::{StepSignal, Watch};

/// The supervisor has this long, beyond the grace, to say that a step it was asked to end has ended.
const ENDING_LIMIT: Duration = Duration::from_secs(10);

/// From the loss of an environment to the end of what it had sent.
const LAST_BYTES_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks whether what a supervisor has of a step's output has come.
const COMES_SOON: Duration = Duration::from_millis(100);

/// What came of an attempt.
pub struct Attempted {
    pub end: StepEnd,
    pub digest: LogDigest,
    pub log: PathBuf,
    pub halted: bool,
    /// It found no Docker daemon, and failed.
    pub lacks_daemon: bool,
}

impl Task {
    /// Starts the step's process and stays with it until it ended (or, in the background, until it started).
    pub(super) async fn attempt(&mut self, ready: &mut Ready, at: &StepRef, run: &Run) -> Attempted {
        let log = StepLog::path_for(&self.context.directory, at.number, at.attempt);
        let id = format!("{}-{}", at.number, at.attempt);
        let prepared = match ready.frame.prepare(run, id) {
            Ok(mut prepared) => {
                let builtin = &ready.frame.layers.builtin;
                trace::of_step(&mut prepared.exec.env, builtin, at.number as u64, u64::from(at.attempt));
                prepared
            }
            Err(error) => {
                self.voice.step_started(at, run.background, None, log.clone());
                return Attempted::not_started(log, error.to_string());
            }
        };
        self.voice.step_started(at, run.background, Some(prepared.header), log.clone());
        let watch = self.watch(at.number);
        let daemon = watch.daemon.clone();
        let started = match self.take_midst(at) {
            Some(Err(why)) => return Attempted::in_midst(log, &why),
            Some(Ok(LeftLog { log, offset, held })) => {
                // A wish to stop that came before is to be heard by this attempt.
                self.context.stop.mark_changed();
                let log = log.above(self.context.floor);
                Running::go_on(&ready.client, prepared.exec, LeftOff { offset, held }, log, watch)
            }
            None => match StepLog::create(&self.context.directory, at.number, at.attempt) {
                Ok(log) => Running::start(&ready.client, prepared.exec, log.above(self.context.floor), watch),
                Err(error) => return Attempted::not_started(log, log_trouble(&error)),
            },
        };
        match started {
            Ok(running) if run.background => self.settle_background(ready, at, running).await,
            Ok(running) => {
                let attempted = self.stay_with(ready, run, running).await;
                let lacks_daemon = !attempted.end.outcome.is_success() && daemon.is_some_and(|hint| hint.is_found());
                Attempted { lacks_daemon, ..attempted }
            }
            Err(error) => Attempted::not_started(log, format!("could not start a thread for the step: {error}")),
        }
    }

    pub(super) fn watch(&self, step: usize) -> Watch {
        Watch {
            bus: self.context.bus.clone(),
            spool: self.context.spool.clone(),
            task: self.reference.clone(),
            step,
            feed: self.context.feed,
            daemon: self.lacks_docker.then(DaemonHint::default),
            notes: self.context.leaving.is_some(),
        }
    }

    /// A background step only has to start.
    async fn settle_background(&mut self, ready: &mut Ready, at: &StepRef, mut running: Running) -> Attempted {
        let log = running.log.clone();
        match running.signals.recv().await {
            Some(StepSignal::Over { end: FollowEnd::Refused(failure), .. }) => {
                Attempted::not_started(log, refusal(&failure, &ready.frame))
            }
            Some(StepSignal::Over { end, .. }) => Attempted::lost(log, &end),
            _ => {
                let step = BackgroundStep { at: at.clone(), started: Instant::now() };
                ready.lingering.keep_background(running, step, self.voice.clone());
                let end = StepEnd { outcome: StepOutcome::Success, exited: None, lost: None };
                Attempted { end, digest: LogDigest::default(), log, halted: false, lacks_daemon: false }
            }
        }
    }

    async fn stay_with(&mut self, ready: &mut Ready, run: &Run, mut running: Running) -> Attempted {
        let mut watch = StepWatch::new(self.claim.limits.grace);
        let mut digest = LogDigest::default();
        let mut give_up = None;
        let mut stopping = None;
        loop {
            let Some(happening) = self.next(ready, run, &mut running, &watch, give_up, &mut digest).await else {
                continue;
            };
            if matches!(happening, Happening::Silence(_)) && !self.is_silent(ready, run, &running).await {
                continue;
            }
            let happening = second_look(ready, happening).await;
            match watch.handle(happening) {
                Action::Wait => {}
                Action::Terminate { grace } => {
                    give_up = Some(Instant::now() + grace + ENDING_LIMIT);
                    stopping = Some(running.stop(grace));
                }
                Action::Finish(end) => {
                    if end.exited.is_none() && end.lost.is_none() {
                        // Its output is no longer read: it must not run on unheard beside the next step.
                        give_up.get_or_insert_with(|| Instant::now() + self.claim.limits.grace + ENDING_LIMIT);
                        stopping.get_or_insert_with(|| running.stop(self.claim.limits.grace));
                    }
                    // Its own process has ended; what it had started must be gone before another step runs.
                    if let Some(stopping) = stopping {
                        let limit = give_up.unwrap_or_else(Instant::now);
                        tokio::time::timeout_at(limit, stopping).await.ok();
                    }
                    if end.lost.is_some() {
                        digest = last_digest(&mut running, digest).await;
                    }
                    return finished(ready, running, *end, digest);
                }
            }
        }
    }

    /// Whether a step from which nothing has come for so long has said nothing. This process may have stood still: then more of it is on
    /// its way, or has just come. What happens while that is asked goes before its silence.
    async fn is_silent(&self, ready: &Ready, run: &Run, running: &Running) -> bool {
        let mut stop = self.context.stop.clone();
        let more = tokio::select! {
            biased;
            more = running.has_more() => more,
            _ = ready.environment.died() => return false,
            Ok(_) = stop.wait_for(Option::is_some) => return false,
            () = sleep_until(self.deadline()) => return false,
        };
        if more {
            tokio::time::sleep(COMES_SOON).await;
        }
        !more && running.signals.is_empty() && running.activity.last().elapsed() >= run.no_output_timeout
    }

    /// Waits for the next thing to happen; `None` when it needs no decision.
    async fn next(
        &mut self,
        ready: &mut Ready,
        run: &Run,
        running: &mut Running,
        watch: &StepWatch,
        give_up: Option<Instant>,
        digest: &mut LogDigest,
    ) -> Option<Happening> {
        let deadline = self.deadline();
        let quiet_until = running.activity.last().checked_add(run.no_output_timeout).unwrap_or(deadline);
        let ending = watch.is_ending();
        tokio::select! {
            biased;
            signal = running.signals.recv() => hear(signal, digest, &ready.frame),
            died = ready.environment.died() => Some(container_ended(&died)),
            stop = next_stop(&mut self.context.stop) => Some(Happening::Stop(stop)),
            () = sleep_until(deadline), if !ending => Some(Happening::JobLimit(self.claim.limits.job)),
            () = sleep_until(quiet_until), if !ending => {
                // It may have written something meanwhile: then the caller comes back with the new moment.
                let quiet = running.activity.last().elapsed() >= run.no_output_timeout;
                quiet.then_some(Happening::Silence(run.no_output_timeout))
            }
            () = sleep_until(give_up.unwrap_or(deadline)), if give_up.is_some() => {
                Some(Happening::StopFailed { reason: "the step could not be ended".to_owned() })
            }
        }
    }
}

impl Attempted {
    pub fn not_started(log: PathBuf, reason: String) -> Self {
        Self::without_process(log, LogDigest::default(), StepOutcome::Error { reason }, None)
    }

    /// Its agent was killed, and nobody knows how it went on.
    pub fn in_midst(log: PathBuf, why: &str) -> Self {
        let reason = format!("the agent that ran this step was killed {why}");
        Self::without_process(log, LogDigest::default(), StepOutcome::Error { reason }, Some(Lost::Supervisor))
    }

    /// Work of the agent's own, without a process.
    fn without_process(log: PathBuf, digest: LogDigest, outcome: StepOutcome, lost: Option<Lost>) -> Self {
        Self { end: StepEnd { outcome, exited: None, lost }, digest, log, halted: false, lacks_daemon: false }
    }

    /// The end of a step that the agent carried out itself.
    pub fn own(log: PathBuf, digest: LogDigest, end: Result<(), StepError>) -> Self {
        let (outcome, lost) = match end {
            Ok(()) => (StepOutcome::Success, None),
            Err(StepError::Fault(StepFault { reason, lost, .. })) => (StepOutcome::Error { reason }, lost),
            Err(StepError::GivenUp(GivenUp::Stopped)) => (StepOutcome::Canceled, None),
            Err(StepError::GivenUp(GivenUp::JobLimit(limit))) => (StepOutcome::JobLimit { limit }, None),
            Err(StepError::GivenUp(GivenUp::Died(died))) => {
                (StepOutcome::Error { reason: in_words(&died, "while the step ran") }, Some(lost_with(&died)))
            }
            Err(StepError::GivenUp(GivenUp::Panicked)) => {
                (StepOutcome::Error { reason: StepFault::thread_ended().reason }, None)
            }
        };
        Self::without_process(log, digest, outcome, lost)
    }

    fn lost(log: PathBuf, end: &FollowEnd) -> Self {
        let outcome = StepOutcome::Error { reason: follow_trouble(end) };
        Self::without_process(log, LogDigest::default(), outcome, Some(Lost::Supervisor))
    }
}

/// The digest of all that came from an environment that is gone: its follower learns of that a moment later, or is given up.
async fn last_digest(running: &mut Running, known: LogDigest) -> LogDigest {
    running.abandon();
    let mut seen = Seen::default();
    tokio::time::timeout(LAST_BYTES_LIMIT, running.over(&mut seen)).await.ok();
    seen.digest.unwrap_or(known)
}

fn finished(ready: &mut Ready, running: Running, end: StepEnd, digest: LogDigest) -> Attempted {
    let log = running.log.clone();
    let halted = end.exited.as_ref().is_some_and(|exited| exited.halted);
    // Even with nothing left running the last word (`Ended`) is still to come.
    ready.lingering.keep(running);
    Attempted { end, digest, log, halted, lacks_daemon: false }
}

/// A step that ends badly while the engine is away may have been ended by it: that is no failure of the job.
async fn second_look(ready: &Ready, happening: Happening) -> Happening {
    match happening {
        Happening::Exited(exited) if exited.exit != Exit::Code(0) => match ready.environment.ended_with_host().await {
            Some(died) => container_ended(&died),
            None => Happening::Exited(exited),
        },
        other => other,
    }
}

/// Waits for a change of the wish to stop; never returns when there can be none any more.
async fn next_stop(stop: &mut Stop) -> Cancel {
    while stop.changed().await.is_ok() {
        if let Some(cancel) = *stop.borrow_and_update() {
            return cancel;
        }
    }
    std::future::pending().await
}

fn hear(signal: Option<StepSignal>, digest: &mut LogDigest, frame: &Frame) -> Option<Happening> {
    match signal {
        Some(StepSignal::Started) => None,
        Some(StepSignal::Exited { exited, digest: so_far }) => {
            *digest = so_far;
            Some(match exited.main_ended {
                Some(code) => main_program_ended(code),
                None => Happening::Exited(exited),
            })
        }
        Some(StepSignal::Over { end: FollowEnd::Refused(failure), .. }) => {
            Some(Happening::Broken { reason: refusal(&failure, frame), lost: None })
        }
        Some(StepSignal::Over { end: FollowEnd::Sink(error), digest: so_far }) => {
            *digest = so_far;
            Some(Happening::Broken { reason: log_trouble(&error), lost: None })
        }
        Some(StepSignal::Over { end, digest: so_far }) => {
            *digest = so_far;
            Some(Happening::Broken { reason: follow_trouble(&end), lost: Some(Lost::Supervisor) })
        }
        None => Some(Happening::Broken {
            reason: "the step's thread ended unexpectedly".to_owned(),
            lost: Some(Lost::Supervisor),
        }),
    }
}

/// An entrypoint that was asked for ended: the job ends with it.
fn main_program_ended(code: u8) -> Happening {
    let reason = format!("the primary container's own main program ended with code {code} while the step ran");
    Happening::Broken { reason, lost: Some(Lost::Container) }
}

fn container_ended(died: &Died) -> Happening {
    let lost = lost_with(died);
    Happening::Broken { reason: in_words(died, "while the step ran"), lost: Some(lost) }
}

fn follow_trouble(end: &FollowEnd) -> String {
    match end {
        FollowEnd::Lost(error) => format!("the supervisor inside the job's environment was lost: {}", chain(error)),
        FollowEnd::Ended | FollowEnd::Abandoned => "the step's output ended before the step did".to_owned(),
        FollowEnd::Refused(failure) => failure.to_string(),
        FollowEnd::Sink(error) => log_trouble(error),
    }
}

/// Why the supervisor did not start the step, with advice.
fn refusal(failure: &Failure, frame: &Frame) -> String {
    if let (FailureKind::NoSuchProgram, Some(image)) = (failure.kind, &frame.shell_less) {
        return format!(
            "{image} has no shell (neither /bin/bash nor /bin/sh is there), and a step's command runs in one. Let the job \
             run in an image that has a shell: another variant of this one (often tagged -debug or -alpine), or any \
             other, with {image} as a service behind it in the job's `docker:` list. A program of the image that takes \
             commands as a shell does can be named with `shell:`"
        );
    }
    let advice = match failure.kind {
        FailureKind::NoSuchProgram => "Name a shell that the image has with `shell:`, for instance `/bin/sh`.",
        FailureKind::NoSuchUser => "Name a user that the image has with `user:`, or its number.",
        FailureKind::NotPermitted if frame.user.is_some() => {
            "The job's user may not do that; see `user:` of the image."
        }
        _ => "",
    };
    format!("{}. {advice}", failure.message.trim_end_matches('.')).trim_end().to_owned()
}
