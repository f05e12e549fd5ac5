//! One task from claim to verdict.
//!
//! ```text
//! Claimed ─▶ Preparing ─▶ Running ─▶ Finishing ─▶ Reporting ─▶ Releasing ─▶ Done
//!            environment  steps      what was     verdict      environment
//!            made         in turn    left running told         destroyed
//!                                    is ended                  beside what comes next
//! ```
//!
//! This module owns the state. Steps run on threads of their own ([`running`]); one select loop per step gathers what
//! happens and a pure type ([`decide`]) says what to do about it. Release ([`removal`]) always comes, from any half-made
//! state, and cannot be cancelled.

mod attempt;
mod continuation;
mod course;
mod daemon_hint;
mod decide;
mod going_on;
mod hold;
mod journalling;
mod last_words;
mod left;
mod lingering;
mod note;
mod prepare;
mod removal;
mod resume;
mod running;
mod services;
mod step_sink;
mod steps;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use navvy_checkout::CheckoutSource;
use navvy_environment::HostPaths;
use navvy_environment::cgroup::Parent;
use navvy_environment::egress::Egress;
use navvy_environment::request::PullPolicy;
use navvy_job::claim::{Claim, Secrets};
use navvy_job::event::{Event, HeldTask, TaskRef};
use navvy_job::outcome::{Cancel, CancelReason, SkipReason, Verdict};
use navvy_job::state::{IllegalMove, TaskState};
use navvy_journal::Journal;
use navvy_journal::owner::Owner;
use navvy_output::DiskFloor;
use navvy_protocol::supervisor::Continuation;
use navvy_results::Timings;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use going_on::{Inherited, go_on};
pub use hold::{BreakPoint, HoldPolicy, PERSON, is_step};
pub use left::{Leaving, Left, LeftError, LeftLogs, ends_in};
pub use note::{Note, NoteError, SourceNote};
pub use removal::Removal;
pub use resume::{Resumed, resume};
pub use step_sink::Feed;

use crate::environment::machine::Machine;
use crate::environment::{Environment, Provider, Providers};

use crate::artifacts::guard;
use crate::bus::Bus;
use crate::run_store::RunStore;
use crate::spool::Spool;
use crate::step::bounded::{Bounds, Stop};
use crate::step::cx::{Ground, StepCx};
use crate::step::handing::{Handing, RemoteDocker};
use crate::step::kinds::test_results;
use crate::step::voice::Voice;
use course::Course;
use prepare::{Ready, Unready};
use steps::Ended;

/// What a task occupies while its steps run, as its caller counts it: dropped as soon as they are over.
pub type Occupancy = Box<dyn std::any::Any + Send + Sync>;

/// Asks for a task's turn, once its environment is ready. `None`: its steps must not run.
pub type Asking = Box<dyn FnOnce() -> BoxFuture<'static, Option<Occupancy>> + Send + Sync>;

/// When a task's steps may run. Its environment is made in any case.
pub enum Turn {
    Now(Occupancy),
    /// Once there is room.
    Later(oneshot::Receiver<Occupancy>),
    /// Once somebody else allows it: a task whose steps have begun is never handed out again.
    Ask(Asking),
    Over,
}

/// What a task needs around it.
#[derive(Clone)]
pub struct Context {
    /// What environments can be made with.
    pub providers: Providers,
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
    /// What logs leave free on their disk.
    pub floor: DiskFloor,
    /// Below which the task's own cgroup is made.
    pub cgroup: Option<Parent>,
    /// A supervisor that this process has not called for so long ends its environment.
    pub idle_limit: Duration,
    /// File name shown with the place of a failing step.
    pub config_name: String,
    pub stop: Stop,
    pub hold: Arc<HoldPolicy>,
    /// Where caches, workspaces and test results are; the job never sees it.
    pub store: RunStore,
    /// What becomes of artifacts and test results that hold a secret.
    pub secrets_in_artifacts: guard::SecretPolicy,
    /// What of the caller's machine is handed to jobs that ask.
    pub handing: Handing,
    /// What `setup_remote_docker` gives jobs in containers, or why nothing.
    pub remote_docker: Arc<Result<RemoteDocker, String>>,
    /// How every job reaches the outside.
    pub egress: Arc<Egress>,
    /// What earlier runs' tests took, as this run's jobs get it.
    pub timings: Timings,
    /// Rung by whoever writes a log; full, it holds steps up.
    pub spool: Spool,
    /// Should this process be killed, another may go on with the task.
    pub leaving: Option<Leaving>,
}

/// What came of a task.
#[derive(Debug, Clone)]
pub struct TaskResult {
    pub verdict: Verdict,
    /// Until nothing of the job was left to run. Neither waiting nor removal counts.
    pub duration: Duration,
    /// Steps recognised and not carried out, by why.
    pub skipped: BTreeMap<SkipReason, usize>,
    pub warnings: usize,
    /// Those that the run's report repeats.
    pub repeated: Vec<String>,
    /// The first failed step's log.
    pub failed_log: Option<PathBuf>,
    /// What would differ on the real service.
    pub fidelity: Vec<String>,
    /// Its environment stays.
    pub held: Option<HeldTask>,
    /// What its job continued the pipeline with.
    pub continuation: Option<Continuation>,
    /// It was asked to stop before its steps were over, even if its verdict was known by then.
    pub cut_short: bool,
}

/// A task on its way.
pub(crate) struct Task {
    claim: Claim,
    secrets: Secrets,
    context: Context,
    /// What makes its environment.
    provider: Provider,
    reference: TaskRef,
    course: Course,
    started: Instant,
    result: TaskResult,
    /// Further lines for the environment's report.
    notes: Vec<String>,
    voice: Voice,
    /// `None` for a claim that was refused.
    journal: Option<Journal>,
    /// Over when the steps are.
    turn: Turn,
    /// No attempt at a step had a higher number.
    attempts: u32,
    /// Attempts that there were before a person went on.
    attempts_before: u32,
    /// The step from which a person went on.
    resumed_at: Option<usize>,
    services: Vec<services::Followed>,
    /// Machines beside its environment.
    machines: Vec<Machine>,
    /// A machine beside its environment was begun: there may be one.
    may_have_machines: bool,
    /// `setup_remote_docker` was skipped.
    lacks_docker: bool,
    /// The journal could not be written once.
    is_journal_broken: bool,
    /// The step in whose midst the agent before was killed.
    midst: Option<going_on::Midst>,
    /// What of [`left`] does not change.
    left_head: Option<Arc<str>>,
}

/// Carries out a claim, up to its verdict. Never fails: everything that goes wrong is a verdict. The caller carries out the
/// removal, beside the work that comes next.
///
/// A future of its own: those of its callers would be nested deeper than the compiler looks.
pub fn run(
    claim: Claim,
    secrets: Secrets,
    reference: TaskRef,
    context: Context,
    notes: Vec<String>,
    turn: Turn,
) -> BoxFuture<'static, (TaskResult, Option<Removal>)> {
    async move {
        let mut task = Task::new(claim, secrets, reference, context, notes, turn);
        let environment = task.carry_out().await;
        task.report(environment).await
    }
    .boxed()
}

impl TaskResult {
    /// Of a task that has not run.
    pub fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            duration: Duration::ZERO,
            skipped: BTreeMap::new(),
            warnings: 0,
            repeated: Vec::new(),
            failed_log: None,
            fidelity: Vec::new(),
            held: None,
            continuation: None,
            cut_short: false,
        }
    }
}

impl Task {
    fn new(
        claim: Claim,
        secrets: Secrets,
        reference: TaskRef,
        context: Context,
        notes: Vec<String>,
        turn: Turn,
    ) -> Self {
        let voice = Voice::new(context.bus.clone(), reference.clone()).spooled(context.spool.clone());
        Self {
            course: Course::new(voice.clone()),
            started: Instant::now(),
            result: TaskResult::new(Verdict::Passed),
            voice,
            journal: None,
            is_journal_broken: false,
            midst: None,
            left_head: None,
            lacks_docker: false,
            services: Vec::new(),
            machines: Vec::new(),
            may_have_machines: false,
            attempts: 0,
            attempts_before: 0,
            resumed_at: None,
            provider: context.providers.of(&claim.job.executor),
            claim,
            secrets,
            context,
            reference,
            notes,
            turn,
        }
    }

    /// Up to the end of its steps. Returns the environment that is to be removed; without one, all that the task has.
    async fn carry_out(&mut self) -> Option<Box<Environment>> {
        if let Err(error) = self.claim.validate() {
            self.result.verdict = Verdict::Infra { fault: error.to_string() };
            return None;
        }
        // On its way to the disk while the engine is asked; nothing is made before it is there.
        self.journal =
            Some(Journal::begin(&self.context.paths.state, self.opening(), vec![self.moved(TaskState::Preparing)]));
        if self.enter(TaskState::Preparing).is_err() {
            return None;
        }
        match self.prepare().await {
            Ok(ready) => {
                test_results::bring_timings(&self.step_cx(&ready)).await;
                self.left_head = self.begin_leaving(&ready);
                self.leave_progress(&ready.client, 0, 0, &Default::default()).await;
                match self.take_turn().await {
                    true => self.go_through(ready, 1).await,
                    false => Some(Box::new(ready.environment)),
                }
            }
            Err(Unready { verdict, environment }) => {
                self.result.verdict = verdict;
                environment
            }
        }
    }

    /// From the first step that is to run to the last, and to the environment's being held if it is to be.
    async fn go_through(&mut self, ready: Ready, first: usize) -> Option<Box<Environment>> {
        match self.run_steps(ready, first).await {
            Ended::Over(environment) => Some(environment),
            Ended::Held(ready, at) => self.hold(*ready, at).await,
        }
    }

    /// Waits until its steps may run. `false`: they must not. The time does not count: neither as the job's nor towards its
    /// limit.
    async fn take_turn(&mut self) -> bool {
        let waits_from = Instant::now();
        let may_run = match std::mem::replace(&mut self.turn, Turn::Over) {
            Turn::Later(turn) => {
                self.wait_for_room(turn).await;
                true
            }
            Turn::Ask(ask) => self.ask_for_turn(ask).await,
            known => {
                self.turn = known;
                true
            }
        };
        self.started += waits_from.elapsed();
        may_run
    }

    async fn wait_for_room(&mut self, mut turn: oneshot::Receiver<Occupancy>) {
        self.turn = match turn.try_recv() {
            Ok(occupancy) => Turn::Now(occupancy),
            Err(_) => {
                let what = "ready, waits for room on this machine".to_owned();
                self.context.bus.send(Event::Progress { task: self.reference.clone(), what, done: 0, total: None });
                let mut stop = self.context.stop.clone();
                tokio::select! {
                    occupancy = turn => occupancy.map_or(Turn::Over, Turn::Now),
                    // The loop over the steps sees that there are none to run.
                    _ = stop.wait_for(Option::is_some) => Turn::Over,
                }
            }
        };
    }

    /// Only a yes lets steps run. Without one, and without a wish to stop, the fault is ours.
    async fn ask_for_turn(&mut self, ask: Asking) -> bool {
        let mut stop = self.context.stop.clone();
        let occupancy = tokio::select! {
            biased;
            Ok(_) = stop.wait_for(Option::is_some) => None,
            occupancy = ask() => occupancy,
        };
        match occupancy {
            Some(occupancy) => {
                self.turn = Turn::Now(occupancy);
                true
            }
            None => {
                let refused = || Verdict::Infra { fault: "nobody allowed the steps to begin".to_owned() };
                self.result.verdict = self.stop_asked().map_or_else(refused, |_| self.canceled());
                self.result.cut_short = self.stop_asked().is_some();
                false
            }
        }
    }

    /// Writes the move down, then makes it: what a state does comes after its record is on disk. See [`Self::enter`].
    async fn advance(&mut self, next: TaskState) -> Result<(), IllegalMove> {
        if self.course.state().moved_to(next).is_ok()
            && let Some(journal) = &self.journal
            && let Err(error) = journal.record(self.moved(next)).await
        {
            self.journal_failed(&error);
        }
        self.enter(next)
    }

    /// # Errors
    /// An illegal move: it is not made, and what belongs to it must not be done. The verdict says so already.
    fn enter(&mut self, next: TaskState) -> Result<(), IllegalMove> {
        self.course.enter(next, &mut self.result.verdict)
    }

    fn warn(&self, message: String) {
        self.voice.warn(message);
    }

    fn stop_asked(&self) -> Option<Cancel> {
        *self.context.stop.borrow()
    }

    /// The verdict of a task that was asked to stop.
    fn canceled(&self) -> Verdict {
        Verdict::Canceled { reason: self.stop_asked().map_or(CancelReason::User, |cancel| cancel.reason) }
    }

    /// What a step of the agent's own sees.
    fn step_cx<'a>(&'a self, ready: &'a Ready) -> StepCx<'a> {
        let context = &self.context;
        StepCx {
            claim: &self.claim,
            secrets: &self.secrets,
            voice: &self.voice,
            directory: &context.directory,
            checkout: &context.checkout,
            store: &context.store,
            secrets_in_artifacts: context.secrets_in_artifacts,
            timings: &context.timings,
            handing: &context.handing,
            engine: self.provider.engine(),
            ground: Ground {
                providers: &context.providers,
                is_machine: self.provider.is_of_machines(),
                remote: &context.remote_docker,
                paths: &context.paths,
                owner: &context.owner,
                egress: &context.egress,
                cgroup: context.cgroup.as_ref(),
                idle_limit: context.idle_limit,
                disk_floor: context.floor.0,
                is_adoptable: context.leaving.is_some(),
            },
            bounds: self.bounds(&ready.environment),
            client: &ready.client,
            frame: &ready.frame,
            handed: &ready.handed,
        }
    }

    /// What this task's work is waited for no longer than.
    fn bounds<'a>(&'a self, environment: &'a Environment) -> Bounds<'a> {
        let (stop, deadline, limit) = (&self.context.stop, self.deadline(), self.claim.limits.job);
        Bounds { environment, stop, deadline, limit }
    }

    /// When the job's time is over.
    fn deadline(&self) -> Instant {
        self.started + self.claim.limits.job
    }
}
