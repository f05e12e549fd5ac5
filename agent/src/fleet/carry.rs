//! One task from its claim to `Finish`.
//!
//! ```text
//! Claimed ─▶ directory, masks, bus ─▶ task::run ──────────▶ removal ─▶ record closed ─▶ flushed ─▶ Finish ─▶ lease let go
//!               │     lease kept: ────┤  ▲ may steps begin?                 all durable,
//!               │                     └──┘ asked of the processor           or nothing more becomes so
//!               └─ delivery: beside all of it
//! ```
//!
//! The lease goes last. Whoever loses it says nothing more, ends what runs, and leaves the spool where it is.

mod going_on;
mod spare;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use navvy_checkout::CheckoutSource;
use navvy_environment::HostPaths;
use navvy_environment::egress::Egress;
use navvy_environment::request::PullPolicy;
use navvy_granted::Remote;
use navvy_job::claim::{Claim, Limits};
use navvy_job::compiled::{Executor, StepKind};
use navvy_job::event::{Event, JobRef, LogEnd, TaskRef};
use navvy_job::figures;
use navvy_job::outcome::{Cancel, Verdict};
use navvy_job::resource::Size;
use navvy_job::state::TaskState;
use navvy_job::walk::TaskEnd;
use navvy_journal::owner::Owner;
use navvy_output::DiskFloor;
use navvy_output::mask::Masks;
use navvy_protocol::processor::trace::TraceParent;
use navvy_protocol::processor::v1::claimed_task::Checkout;
use navvy_protocol::processor::v1::{self, FinishRequest};
use navvy_results::Timings;
use navvy_storage::{Retries, Transport};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::claiming::{Claimed, Work, trace_in, trace_of};
use super::connection::{Bearer, Processor, Session, unary};
use super::delivery::{Delivered, Delivery, Ending, Left, Logs, Parts, name_of};
use super::lease::{Keeper, Keeping, LeaseClock, MayBegin, StopSender, ask_to_stop};
use super::left::{Caller, Found};
use super::persist::{Loss, persist};
use super::pooled::ProcessorPool;
use super::record::{self, Followers, LogNews, Recorded};
use super::room::Share;
use super::tree::SubmittedTree;
use crate::artifacts::guard;
use crate::bus::{self, Bus};
use crate::environment::Providers;
use crate::pipeline::{Ended, secrets_of_proxies};
use crate::run_directory::RunDirectory;
use crate::run_store::RunStore;
use crate::scheduled::{Onlooker, Scheduled};
use crate::spool::Spool;
use crate::step::bounded::Stop;
use crate::step::handing::{Handing, RemoteDocker};
use crate::task::{self, Context, Feed, HoldPolicy, Leaving, Occupancy, TaskResult, Turn};

/// What this machine brings to every task.
#[derive(Clone)]
pub struct Machine {
    pub providers: Providers,
    pub paths: Arc<HostPaths>,
    pub owner: Owner,
    /// What logs leave free on their disk.
    pub floor: DiskFloor,
    pub idle_limit: Duration,
    pub pull: PullPolicy,
    pub egress: Arc<Egress>,
    /// What `setup_remote_docker` gives jobs in containers, or why nothing.
    pub remote_docker: Arc<Result<RemoteDocker, String>>,
    /// What a task gets at most.
    pub room: Size,
    /// What a virtual machine gets at most, if the operator says so.
    pub most_of_machines: Option<Size>,
    /// The way to the store.
    pub transport: Transport,
    /// Steps get two pipes in place of a terminal.
    pub no_tty: bool,
    /// In place of the processor's grants.
    pub store: Option<RunStore>,
    /// Bytes of output that wait for their delivery.
    pub spool: u64,
    /// What a scheduler's task driver has said of the agent's one task.
    pub scheduled: Scheduled,
    /// The program's own messages must not tell these, as long as what is returned lives.
    pub hide: fn(&Masks) -> Box<dyn std::any::Any + Send + Sync>,
}

impl Machine {
    /// What a task of this executor that wants so much gets.
    fn given(&self, executor: &Executor, wanted: Size) -> Size {
        match executor {
            Executor::Machine { .. } => {
                let room = Some(self.room).filter(|_| !self.has_machines_elsewhere());
                most_of([self.most_of_machines, room], wanted)
            }
            _ => wanted.clamp_to(self.room),
        }
    }

    /// What a task takes of this host's room.
    pub fn takes(&self, claim: &Claim) -> Share {
        let runs_in_one = matches!(claim.job.executor, Executor::Machine { .. });
        let own = match &self.providers.machines {
            Some(machines) if runs_in_one => machines.takes(claim.limits.size),
            _ => claim.limits.size,
        };
        let beside = self.remote_docker.as_ref().as_ref().ok().filter(|_| !runs_in_one && asks_for_docker(claim));
        let size = beside.map_or(own, |beside| own.plus(beside.takes));
        Share { size, has_machine: runs_in_one || beside.is_some() }
    }

    /// Are the virtual machines of its tasks not of this host?
    pub fn has_machines_elsewhere(&self) -> bool {
        self.providers.machines.as_ref().is_some_and(|machines| !machines.are_here())
    }
}

/// How a task was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried {
    /// The processor has its end. Not complete: it names what is missing.
    Reported { missing: Vec<String> },
    /// The lease was lost: the task was ended, and its spool is kept.
    Lost { why: String },
    /// The processor did not take its end.
    Unreported { why: String },
}

/// Carries out a task. `stop` is the machine's own wish that it ends; `occupancy` is what it takes of the machine, until its
/// steps are over.
pub async fn carry(
    processor: &Processor,
    machine: &Machine,
    claimed: Claimed,
    stop: Stop,
    occupancy: Occupancy,
) -> Carried {
    let session = match claimed.session(processor) {
        Ok(session) => session,
        Err(error) => return Carried::Unreported { why: error.to_string() },
    };
    let lease = LeaseClock::new(claimed.lease(), claimed.asked);
    let span = span_of(&claimed.name(), trace_of(&claimed.task));
    let (keeping, carrying) = hold(session, machine, lease, TaskState::Claimed, stop, span);
    keeping.beside(carrying.carry_out(claimed, occupancy)).await
}

/// Goes on with a task whose agent was killed, in its place: with its token, for as long as its lease holds.
pub async fn go_on(
    processor: &Processor,
    machine: &Machine,
    found: Found,
    stop: Stop,
    occupancy: Occupancy,
) -> Carried {
    let bearer = match Bearer::new(&found.caller.token) {
        Ok(bearer) => bearer,
        Err(error) => return Carried::Unreported { why: error.to_string() },
    };
    let session = Session { processor: processor.clone(), bearer };
    let lease = LeaseClock::new(Duration::from_millis(found.caller.lease_ms.into()), Instant::now());
    let state = if found.left.progress.step > 0 { TaskState::Running } else { TaskState::Preparing };
    let span = span_of(found.task.as_str(), trace_in(&found.left.note.claim));
    let (keeping, carrying) = hold(session, machine, lease, state, stop, span);
    keeping.beside(carrying.go_on(found, occupancy)).await
}

/// What a task's lines in the log are told with.
fn span_of(task: &str, trace: Option<TraceParent>) -> Span {
    let trace = trace.map(|trace| trace.trace_id()).unwrap_or_default();
    // At the highest level: it is there whatever is logged.
    tracing::error_span!("task", task, trace_id = trace)
}

/// Keeps the lease from now on.
fn hold(
    session: Session,
    machine: &Machine,
    clock: LeaseClock,
    state: TaskState,
    stop: Stop,
    span: Span,
) -> (Kept, Carrying) {
    let (state, state_seen) = watch::channel(state);
    let (questions, asked) = mpsc::channel(1);
    let (stop_task, spool) = (watch::Sender::new(None), Spool::new(machine.spool));
    let (readers, loss) = (watch::Sender::new(0), watch::Sender::new(false));
    let (renewed, good_until) = watch::channel(clock.good_until());
    let lost = loss.subscribe();
    let keeping = Keeping {
        session: session.clone(),
        clock,
        stop: stop_task.clone(),
        state: state_seen,
        spool: spool.clone(),
        readers: readers.clone(),
        loss,
        questions: asked,
        renewed,
    };
    let keeper = Ending(tokio::spawn(Keeper::new(keeping).keep().instrument(span.clone())));
    let forwarding = Ending(tokio::spawn(forward(stop, stop_task.clone())));
    let machine = machine.clone();
    let kept = Kept { span, keeper, lost: lost.clone(), _forwarding: forwarding };
    (kept, Carrying { session, machine, spool, lost, state, readers, questions, stop: stop_task, good_until })
}

/// A lease that is kept as long as this lives.
struct Kept {
    /// Of the task's lines in the log.
    span: Span,
    keeper: Ending<String>,
    lost: Loss,
    _forwarding: Ending<()>,
}

impl Kept {
    async fn beside(mut self, carrying: impl Future<Output = Carried>) -> Carried {
        let carried = carrying.instrument(self.span.clone()).await;
        if *self.lost.borrow() && !matches!(carried, Carried::Reported { .. }) {
            let ended = || "the task that keeps it ended unexpectedly".to_owned();
            return Carried::Lost { why: (&mut self.keeper.0).await.unwrap_or_else(|_| ended()) };
        }
        carried
    }
}

/// The machine's wish to stop is the task's.
async fn forward(mut machine: Stop, task: StopSender) {
    loop {
        let asked = *machine.borrow_and_update();
        if let Some(cancel) = asked {
            ask_to_stop(&task, cancel);
        }
        if machine.changed().await.is_err() {
            return;
        }
    }
}

/// A task that holds its lease.
struct Carrying {
    session: Session,
    machine: Machine,
    spool: Spool,
    lost: Loss,
    state: watch::Sender<TaskState>,
    readers: watch::Sender<u32>,
    questions: mpsc::Sender<MayBegin>,
    stop: StopSender,
    /// Until when the lease is good.
    good_until: watch::Receiver<Instant>,
}

/// Where a task's files are.
#[derive(Debug, Clone)]
pub struct Place {
    pub run: PathBuf,
    pub logs: PathBuf,
}

impl Carrying {
    async fn carry_out(self, claimed: Claimed, occupancy: Occupancy) -> Carried {
        let (token, lease_ms) = (claimed.task.token.clone(), claimed.task.lease_ms);
        let work = match claimed.read() {
            Ok(work) => work,
            Err(fault) => return self.refuse(fault).await,
        };
        let place = match self.place(&work.claim) {
            Ok(place) => place,
            Err(fault) => return self.refuse(fault).await,
        };
        let mut masked = work.masked.clone();
        masked.extend(secrets_of_proxies(self.machine.egress.variables().all()));
        let tree = if let Some(Checkout::Tree(name)) = &work.checkout { Some(name.clone()) } else { None };
        let (url, config_name) = (self.session.processor.url().to_owned(), work.config_name.clone());
        let has_pool = work.has_pool;
        let caller = Caller { url, token, lease_ms, masked: masked.clone(), tree, config_name, has_pool };
        let masks = Masks::new(&masked);
        let _hidden = (self.machine.hide)(&masks);
        let (bus, events) = bus::channel(masks.clone());
        let (recorded, seen) = watch::channel(Recorded::default());
        let (logs, news) = mpsc::unbounded_channel();
        let onlooker = self.machine.scheduled.onlooker.clone();
        let followers = Followers { recorded, state: self.state.clone(), logs, onlooker };
        if let Err(error) = record::start(events, &record::path_in(&place.run), followers) {
            return self.refuse(format!("the task's events have no place on disk: {error}")).await;
        }
        let delivery = self.deliver(&place, seen.clone(), news, Left::default());
        let ended = self.run(work, &place, bus, occupancy, &caller).await;
        self.end(ended, delivery, &seen, &place).await
    }

    async fn end(
        &self,
        ended: TaskResult,
        delivery: Delivery,
        seen: &watch::Receiver<Recorded>,
        place: &Place,
    ) -> Carried {
        let mut delivered = delivery.flush(self.stop.subscribe()).await;
        delivered.trouble.extend(seen.borrow().trouble.clone());
        self.finish(ended, delivered, place).await
    }

    fn place(&self, claim: &Claim) -> Result<Place, String> {
        let random = u32::from_be_bytes(uuid::Uuid::new_v4().as_bytes()[..4].try_into().unwrap_or_default());
        let failed = |error: crate::run_directory::RunDirectoryError| navvy_job::chain::chain(&error);
        let run = RunDirectory::create(&self.machine.paths.state, random).map_err(failed)?;
        let logs = run.task(&claim.task).map_err(failed)?;
        Ok(Place { run: run.path().to_owned(), logs })
    }

    fn deliver(
        &self,
        place: &Place,
        recorded: watch::Receiver<Recorded>,
        news: mpsc::UnboundedReceiver<LogNews>,
        left: Left,
    ) -> Delivery {
        Delivery::start(Parts {
            session: self.session.clone(),
            loss: self.lost.clone(),
            transport: self.machine.transport.clone(),
            spool: self.spool.clone(),
            keep: self.machine.spool / 2,
            logs: Logs::new(place.logs.clone()),
            events: record::path_in(&place.run),
            recorded,
            news,
            readers: self.readers.clone(),
            left,
        })
    }

    /// From its first event to the end of its environment.
    async fn run(&self, work: Work, place: &Place, bus: Bus, occupancy: Occupancy, caller: &Caller) -> TaskResult {
        let telling = Ending(tokio::spawn(tell_stop(self.stop.subscribe(), bus.clone(), self.spool.clone())));
        let Work { mut claim, secrets, checkout, workflow, resource_class, notes, config_name, .. } = work;
        self.machine.scheduled.hold_down(&mut claim.limits);
        let given = self.machine.given(&claim.job.executor, claim.limits.size);
        let clamped = clamp(&mut claim.limits, given);
        let job = JobRef { workflow, job: claim.job_name.clone() };
        let reference =
            TaskRef { task: claim.task.clone(), job, node_index: claim.node_index, node_total: claim.node_total };
        announce(&bus, &claim, &reference, resource_class);
        let tree = if let Some(Checkout::Tree(name)) = checkout { Some(name) } else { None };
        let (store, checkout) = self.store_and_tree(tree);
        let (is_left, sparing) = self.spare(claim.task.clone());
        let mut context = self.context(place, bus, checkout, store, config_name);
        context.providers = self.providers(caller.has_pool);
        context.leaving = serde_json::to_string(caller).ok().map(|caller| Leaving { caller: caller.into(), is_left });
        let turn = Turn::Ask(self.asking(occupancy));
        let (mut result, removal) = task::run(claim, secrets, reference, context, notes, turn).await;
        result.fidelity.extend(clamped);
        sparing.end().await;
        if let Some(removal) = removal {
            removal.carry_out().await;
        }
        drop(telling);
        result
    }

    fn context(
        &self,
        place: &Place,
        bus: Bus,
        checkout: CheckoutSource,
        store: RunStore,
        config_name: String,
    ) -> Context {
        let machine = &self.machine;
        let onlooker = machine.scheduled.onlooker.as_ref();
        Context {
            providers: machine.providers.clone(),
            bus,
            // Whoever looks on gets what is on disk, but for the pipe of a driver.
            feed: if onlooker.is_some_and(Onlooker::wants_output) { Feed::All } else { Feed::Nothing },
            cgroup: machine.scheduled.cgroup.clone(),
            directory: place.logs.clone(),
            paths: Arc::clone(&machine.paths),
            owner: machine.owner.clone(),
            checkout,
            pull: machine.pull,
            no_tty: machine.no_tty,
            floor: machine.floor,
            idle_limit: machine.idle_limit,
            config_name,
            stop: self.stop.subscribe(),
            hold: Arc::new(HoldPolicy::default()),
            store,
            secrets_in_artifacts: guard::SecretPolicy::default(),
            handing: Handing::default(),
            egress: Arc::clone(&machine.egress),
            remote_docker: Arc::clone(&machine.remote_docker),
            timings: Timings::default(),
            spool: self.spool.clone(),
            leaving: None,
        }
    }

    /// With machines of the processor's pool, where it keeps one.
    fn providers(&self, has_pool: bool) -> Providers {
        let mut providers = self.machine.providers.clone();
        if has_pool && let Some(machines) = providers.machines.take() {
            let pool = ProcessorPool::new(self.session.clone(), &self.machine.paths.state, machines.pool());
            providers.machines = Some(machines.with_pool(Arc::new(pool)));
        }
        providers
    }

    /// Caches, workspaces and the like by the processor's grants, and the tree that was sent, if any.
    fn store_and_tree(&self, tree: Option<String>) -> (RunStore, CheckoutSource) {
        let (transport, retries) = (self.machine.transport.clone(), Retries::default());
        let grantor = Remote::new(self.session.processor.channel(), self.session.bearer.value(), retries);
        let granted = || RunStore::granted(Arc::new(grantor.clone()), transport.clone(), retries);
        let store = self.machine.store.clone().unwrap_or_else(granted);
        let source = match tree {
            Some(name) => {
                let runtime = tokio::runtime::Handle::current();
                CheckoutSource::Sent(Arc::new(SubmittedTree { name, grantor, transport, retries, runtime }))
            }
            None => CheckoutSource::Git,
        };
        (store, source)
    }

    /// A task whose steps began is never handed out again: so no step begins before the processor knows.
    fn asking(&self, occupancy: Occupancy) -> task::Asking {
        let questions = self.questions.clone();
        Box::new(move || {
            Box::pin(async move {
                let (answer, answered) = oneshot::channel();
                questions.send(answer).await.ok()?;
                answered.await.ok()?;
                Some(occupancy)
            })
        })
    }

    /// A task that cannot be carried out here.
    async fn refuse(&self, fault: String) -> Carried {
        let end = TaskEnd::new(Verdict::Infra { fault });
        self.report(FinishRequest { end: json(&end), ..FinishRequest::default() }).await
    }

    async fn finish(&self, result: TaskResult, delivered: Delivered, place: &Place) -> Carried {
        if delivered.lost {
            return Carried::Unreported { why: "the task is no longer this agent's".to_owned() };
        }
        let (logs, unsealed) = log_ends_of(&delivered.logs);
        let trouble: Vec<String> = delivered.trouble.into_iter().chain(unsealed).collect();
        for trouble in &trouble {
            tracing::warn!("Not all of the task's output is durable: {trouble}. It is in {}.", place.run.display());
        }
        let Ended { end, continuation, fidelity, repeated } = result.into();
        let request = FinishRequest {
            end: json(&end),
            logs,
            continuation: continuation.as_ref().map(json).unwrap_or_default(),
            fidelity,
            warnings: repeated.into_iter().chain(trouble.iter().cloned()).collect(),
            events: delivered.events,
        };
        let carried = self.report(request).await;
        if carried == (Carried::Reported { missing: Vec::new() }) && trouble.is_empty() {
            // All of it is durable elsewhere.
            let run = place.run.clone();
            let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(run)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%error, "The spool of a task that is over could not be removed.");
            }
        }
        carried
    }

    async fn report(&self, request: FinishRequest) -> Carried {
        let call = || {
            let (mut agents, request) = (self.session.agents(), request.clone());
            async move { unary(agents.finish(request)).await }
        };
        match persist(&self.session, &self.lost, call).await {
            Ok(answer) if answer.complete => Carried::Reported { missing: Vec::new() },
            Ok(answer) if answer.missing.is_empty() => {
                Carried::Reported { missing: vec!["it does not say what".to_owned()] }
            }
            Ok(answer) => Carried::Reported { missing: answer.missing },
            Err(halt) => Carried::Unreported { why: halt.to_string() },
        }
    }
}

/// Says that the task is to stop. From then on nothing of it waits for its delivery.
async fn tell_stop(mut stop: Stop, bus: Bus, spool: Spool) {
    while stop.changed().await.is_ok() {
        let at_once = stop.borrow_and_update().is_some_and(|cancel: Cancel| cancel.at_once);
        spool.open();
        bus.send(Event::StopAsked { at_once, jobs_over: false });
    }
}

/// The first events of a task.
fn announce(bus: &Bus, claim: &Claim, reference: &TaskRef, resource_class: String) {
    let image = claim.job.executor.primary_image().map(str::to_owned);
    let steps = claim.job.steps.iter().map(|step| step.name.clone()).collect();
    let (task, size) = (reference.clone(), claim.limits.size);
    bus.send(Event::TaskStarted { task, image, resource_class, size, steps });
    for name in bus.masks().unmasked() {
        let message = format!("the value of {name} is not masked: shorter than 4 characters, it occurs everywhere");
        bus.send(Event::Warning { task: Some(reference.clone()), message });
    }
}

/// Does one of its steps start a machine with a Docker engine?
fn asks_for_docker(claim: &Claim) -> bool {
    claim.job.steps.iter().any(|step| matches!(step.kind, StepKind::SetupRemoteDocker { .. }))
}

/// What is left of a wish by these bounds.
fn most_of(bounds: [Option<Size>; 2], wanted: Size) -> Size {
    bounds.into_iter().flatten().fold(wanted, Size::clamp_to)
}

/// A task gets no more than the machine has for it.
fn clamp(limits: &mut Limits, room: Size) -> Option<String> {
    let (wanted, given) = (limits.size, limits.size.clamp_to(room));
    limits.size = given;
    let show = |size: Size| format!("{} CPUs, {}", figures::cpus(size.millicpus), figures::bytes(size.memory));
    (wanted != given)
        .then(|| format!("the resource class ({}) was clamped to this machine: {}", show(wanted), show(given)))
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// Ends as a processor takes them. A log that was not sealed has no digest, so that nobody can say that it is whole: it is told in words,
/// and the processor misses its end.
fn log_ends_of(ends: &[LogEnd]) -> (Vec<v1::LogEnd>, Vec<String>) {
    let (mut said, mut unsealed) = (Vec::new(), Vec::new());
    for end in ends {
        let Some(log) = name_of(&end.log) else { continue };
        match end.sha256.as_deref().and_then(bytes_of_hex) {
            Some(sha256) => said.push(v1::LogEnd { log, bytes: end.bytes, sha256 }),
            None => unsealed.push(format!("log {log} was not sealed, so nobody can say whether it is whole")),
        }
    }
    (said, unsealed)
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().as_chunks::<2>().0.iter();
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sent_as_its_bytes_and_a_log_without_one_is_told_in_words() {
        let end = |sha256: Option<&str>| LogEnd {
            of: navvy_job::event::LogOf::Step { step: 3, attempt: 1 },
            log: "/state/003-1.log".into(),
            bytes: 7,
            sha256: sha256.map(str::to_owned),
        };
        let (sent, told) = log_ends_of(&[end(Some("00ff10")), end(None)]);
        assert_eq!(sent, [v1::LogEnd { log: "003-1".to_owned(), bytes: 7, sha256: vec![0, 255, 16] }]);
        assert_eq!(told, ["log 003-1 was not sealed, so nobody can say whether it is whole"]);
    }

    #[test]
    fn what_bounds_a_machine_is_the_operator_s_word_and_where_it_is_here_this_host() {
        let (wanted, host, most) = (Size::new(16, 64), Size::new(2, 4), Size::new(8, 64));
        assert_eq!(most_of([None, Some(host)], wanted), host);
        assert_eq!(most_of([Some(most), Some(host)], wanted), host);
        assert_eq!(most_of([Some(most), None], wanted), most);
        assert_eq!(most_of([None, None], wanted), wanted, "it is elsewhere");
    }

    #[test]
    fn a_class_that_is_larger_than_the_machine_is_clamped_and_told() {
        let mut limits = Limits {
            job: std::time::Duration::from_secs(1),
            size: Size::new(4, 8),
            grace: std::time::Duration::ZERO,
            pids: 1,
        };
        let told = clamp(&mut limits, Size::new(2, 16)).unwrap();
        assert_eq!(limits.size, Size::new(2, 8));
        assert!(told.contains("clamped to this machine: 2 CPUs"), "{told}");
        assert_eq!(clamp(&mut limits, Size::new(2, 16)), None);
    }
}
