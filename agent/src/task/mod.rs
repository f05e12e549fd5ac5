//! One task from claim to verdict.
//!
//! ```text
//! Claimed ─▶ Preparing ─▶ Running ─▶ Finishing ─▶ Releasing ─▶ Reporting ─▶ Done
//!            environment  steps      what was     environment  result
//!            made         in turn    left running destroyed    told
//! ```
//!
//! This module owns the state. Steps run on threads of their own ([`running`]); one select loop per step gathers what
//! happens and a pure type ([`decide`]) says what to do about it. Release always comes, from any half-made state, and
//! cannot be cancelled.

mod attempt;
mod bounded;
mod builtin;
mod decide;
mod lingering;
mod prepare;
mod running;
mod services;
mod steps;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use navvy_job::claim::{Claim, Secrets};
use navvy_job::outcome::{CancelReason, Verdict};
use navvy_job::state::{TaskState, Tracked};
use tokio::sync::watch;

use crate::bus::Bus;
use crate::checkout::WorkingTree;
use crate::environment::HostPaths;
use crate::environment::docker::{DockerEnvironment, Engine, PullPolicy};
use crate::environment::owner::Owner;
use crate::event::{Event, TaskRef};
use crate::output::Feed;

/// The environment is destroyed within this, or what is left is named.
const RELEASE_LIMIT: Duration = Duration::from_secs(20);

/// How far a task has been asked to stop. Later values are stronger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    #[default]
    No,
    /// End what runs, with grace.
    Gracefully,
    /// Now.
    AtOnce,
}

/// Where `checkout` takes the files from.
#[derive(Clone)]
pub enum CheckoutSource {
    /// A private copy of the working tree as it is now.
    WorkingTree(Arc<WorkingTree>),
    /// `git clone`, as the real service does.
    Git,
    /// There is none; the text says why.
    Unavailable(String),
}

/// Whatever the caller wants back as soon as the steps are over: dropped then.
pub type Place = Box<dyn std::any::Any + Send>;

/// What a task needs around it.
#[derive(Clone)]
pub struct Context {
    pub engine: Engine,
    pub bus: Bus,
    pub feed: Feed,
    /// The task's own log directory. Exists.
    pub directory: PathBuf,
    pub paths: Arc<HostPaths>,
    /// This process: every object on the host is labelled with it.
    pub owner: Owner,
    pub checkout: CheckoutSource,
    pub pull: PullPolicy,
    pub no_tty: bool,
    /// File name shown with the place of a failing step.
    pub config_name: String,
    pub stop: watch::Receiver<Stop>,
}

/// What came of a task.
#[derive(Debug, Clone)]
pub struct TaskResult {
    pub verdict: Verdict,
    pub duration: Duration,
    /// Objects that could not be removed.
    pub leftovers: Vec<String>,
    /// Steps recognised and not carried out.
    pub skipped_steps: usize,
    pub warnings: usize,
    /// The first failed step's log.
    pub failed_log: Option<PathBuf>,
    /// What would differ on the real service.
    pub fidelity: Vec<String>,
}

/// A task on its way.
pub(crate) struct Task {
    claim: Claim,
    secrets: Secrets,
    context: Context,
    reference: TaskRef,
    state: Tracked<TaskState>,
    started: Instant,
    result: TaskResult,
    /// Further lines for the environment's report.
    notes: Vec<String>,
    voice: Voice,
    /// Given back when the steps are over.
    place: Option<Place>,
}

/// What a task and its helpers say beside output. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Voice {
    bus: Bus,
    task: TaskRef,
    warnings: Arc<AtomicUsize>,
    /// The environment is being destroyed: what ends now ends by our hand.
    releasing: Arc<AtomicBool>,
}

impl Voice {
    fn new(bus: Bus, task: TaskRef) -> Self {
        Self { bus, task, warnings: Arc::default(), releasing: Arc::default() }
    }

    fn warn(&self, message: String) {
        self.warnings.fetch_add(1, Ordering::Relaxed);
        self.bus.send(Event::Warning { task: Some(self.task.clone()), message });
    }

    fn is_releasing(&self) -> bool {
        self.releasing.load(Ordering::Relaxed)
    }
}

/// Carries out a claim. Never fails: whatever goes wrong is a verdict.
pub async fn run(
    claim: Claim,
    secrets: Secrets,
    reference: TaskRef,
    context: Context,
    notes: Vec<String>,
    place: Place,
) -> TaskResult {
    let result = TaskResult {
        verdict: Verdict::Passed,
        duration: Duration::ZERO,
        leftovers: Vec::new(),
        skipped_steps: 0,
        warnings: 0,
        failed_log: None,
        fidelity: Vec::new(),
    };
    let started = Instant::now();
    let state = Tracked::new(TaskState::Claimed);
    let voice = Voice::new(context.bus.clone(), reference.clone());
    let mut task =
        Task { claim, secrets, context, reference, state, started, result, notes, voice, place: Some(place) };
    task.carry_out().await;
    task.report()
}

impl Task {
    async fn carry_out(&mut self) {
        if let Err(error) = self.claim.validate() {
            self.result.verdict = Verdict::Infra { fault: error.to_string() };
            return self.release(None).await;
        }
        self.advance(TaskState::Preparing);
        match self.prepare().await {
            Ok(ready) => {
                let environment = self.run_steps(ready).await;
                self.release(Some(environment)).await;
            }
            Err(verdict) => {
                self.result.verdict = verdict;
                self.release(None).await;
            }
        }
    }

    /// Destroys the environment. From here on nothing stops the task.
    async fn release(&mut self, environment: Option<DockerEnvironment>) {
        self.advance(TaskState::Releasing);
        self.voice.releasing.store(true, Ordering::Relaxed);
        self.place = None;
        self.result.leftovers = match environment {
            Some(environment) => environment.destroy(RELEASE_LIMIT).await,
            None => self.context.engine.remove_task(&self.claim.task, &self.context.paths, RELEASE_LIMIT).await,
        };
    }

    fn report(mut self) -> TaskResult {
        self.advance(TaskState::Reporting);
        self.result.duration = self.started.elapsed();
        self.result.warnings = self.voice.warnings.load(Ordering::Relaxed);
        self.context.bus.send(Event::TaskEnded {
            task: self.reference.clone(),
            verdict: self.result.verdict.clone(),
            duration_ms: u64::try_from(self.result.duration.as_millis()).unwrap_or(u64::MAX),
            leftovers: self.result.leftovers.clone(),
        });
        self.advance(TaskState::Done);
        self.result
    }

    fn advance(&mut self, next: TaskState) {
        if let Err(error) = self.state.advance(next) {
            tracing::error!(task = %self.claim.task, %error, "A task's state machine was asked for an illegal move.");
        }
        self.context.bus.send(Event::TaskState { task: self.reference.clone(), state: next });
    }

    fn warn(&self, message: String) {
        self.voice.warn(message);
    }

    fn stop_asked(&self) -> Stop {
        *self.context.stop.borrow()
    }

    fn canceled() -> Verdict {
        Verdict::Canceled { reason: CancelReason::User }
    }

    /// When the job's time is over.
    fn deadline(&self) -> Instant {
        self.started + self.claim.limits.job
    }
}
