//! A task's surroundings, and what was told of it.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use navvy_checkout::CheckoutSource;
use navvy_environment::HostPaths;
use navvy_environment::request::PullPolicy;
use navvy_job::claim::{self, Claim, Limits, ReportTo, RunFacts, Secrets, TrustScope};
use navvy_job::compiled::{Container, Executor, Job, Step};
use navvy_job::event::{Event, JobRef, TaskRef};
use navvy_job::outcome::{Cancel, CancelReason};
use navvy_job::resource::Size;
use navvy_journal::owner::Owner;
use navvy_output::mask::Masks;
use navvy_output::{DiskFloor, StepLog};
use navvy_storage::StorageSettings;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::artifacts::guard;
use crate::bus::{self, Events};
use crate::environment::Providers;
use crate::environment::fake::World;
use crate::run_store::RunStore;
use crate::step::handing::Handing;
use crate::task::{self, Context, Feed, HoldPolicy, Removal, Resumed, TaskResult, Turn};

/// The job's time.
pub const LIMIT: Duration = Duration::from_secs(300);
/// Between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(10);
/// A test that hangs does so for this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A task on its way.
pub type Running = JoinHandle<TaskResult>;

/// One task and all that is around it. The clock stands still: it goes on where a test says so.
pub struct Bench {
    pub world: World,
    pub claim: Claim,
    pub secrets: Secrets,
    pub context: Context,
    /// All that was told so far, but output, logs and reports.
    pub told: Vec<String>,
    events: Events,
    /// By the machine's clock.
    begun: std::time::Instant,
    stop: watch::Sender<Option<Cancel>>,
    /// Where all of it lies.
    _directory: tempfile::TempDir,
    /// Dropped, the clock goes on.
    _clock: mpsc::Sender<()>,
}

impl Bench {
    /// In a test with `start_paused` only.
    pub fn new(steps: impl Into<Vec<Step>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (bus, events) = bus::channel(Masks::default());
        let (stop, stopped) = watch::channel(None);
        let world = World::default();
        let context = context(directory.path().to_owned(), &world, bus, stopped);
        let claim = claim(steps.into());
        let secrets = Secrets::default();
        Self {
            world,
            claim,
            secrets,
            context,
            told: Vec::new(),
            begun: std::time::Instant::now(),
            events,
            stop,
            _directory: directory,
            _clock: stand_still(),
        }
    }

    pub fn start(&self) -> Running {
        self.start_with(Turn::Now(Box::new(())))
    }

    pub fn start_with(&self, turn: Turn) -> Running {
        let (claim, context, secrets) = (self.claim.clone(), self.context.clone(), self.secrets.clone());
        let reference = self.reference();
        tokio::spawn(async move { removed(task::run(claim, secrets, reference, context, vec![], turn).await).await })
    }

    /// From claim to removal.
    pub async fn run(&mut self) -> TaskResult {
        let running = self.start();
        self.end(running).await
    }

    pub async fn end(&mut self, running: Running) -> TaskResult {
        let result = running.await.unwrap();
        self.listen();
        result
    }

    /// Goes on with a task that is held.
    pub fn resume(&self, resumed: Resumed) -> Running {
        let context = self.context.clone();
        tokio::spawn(async move { removed(task::resume(resumed, context).await).await })
    }

    pub fn cancel(&self, reason: CancelReason, at_once: bool) {
        self.stop
            .send_modify(|stop| *stop = Some(stop.map_or(Cancel { reason, at_once }, |before| before.urged(at_once))));
    }

    /// Waits until this was told.
    pub async fn until_told(&mut self, line: &str) {
        while !self.has_told(line) {
            self.check_patience(line);
            tokio::task::yield_now().await;
        }
    }

    /// Waits until this is in a step's log.
    pub async fn until_logged(&self, step: usize, text: &str) {
        while self.log(step, 1) != text {
            self.check_patience(text);
            tokio::task::yield_now().await;
        }
    }

    /// Waits until this was told; meanwhile the clock goes on.
    pub async fn pass_until_told(&mut self, line: &str) {
        while !self.has_told(line) {
            self.check_patience(line);
            tokio::time::advance(Duration::from_millis(100)).await;
        }
    }

    fn check_patience(&self, awaited: &str) {
        let (told, asked) = (&self.told, self.world.asked());
        assert!(self.begun.elapsed() < PATIENCE, "{awaited:?} never came; told: {told:#?}; asked: {asked:#?}");
    }

    pub fn has_told(&mut self, line: &str) -> bool {
        self.listen();
        self.told.iter().any(|told| told == line)
    }

    fn listen(&mut self) {
        while let Ok(Some(stamped)) = self.events.next(Duration::ZERO) {
            self.told.extend(describe(stamped.event));
        }
    }

    /// What was asked from the first time of this line on. Whether a step that has just ended is ended once more with the job
    /// depends on how soon that is heard of; that is left out.
    pub fn asked_from(&self, line: &str) -> Vec<String> {
        let asked = self.world.asked().into_iter().skip_while(|asked| asked != line);
        asked.filter(|asked| !(asked.starts_with("stop ") && asked.ends_with(" within 1s"))).collect()
    }

    /// What was told of one kind of thing, by how it begins.
    pub fn told_of(&self, beginning: &str) -> Vec<&str> {
        self.told.iter().filter_map(|line| line.strip_prefix(beginning)).collect()
    }

    /// What is in a step's log.
    pub fn log(&self, step: usize, attempt: u32) -> String {
        let path = StepLog::path_for(&self.context.directory, step, attempt);
        std::fs::read_to_string(&path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
    }

    pub fn journal(&self) -> PathBuf {
        navvy_journal::path(&self.context.paths.state, &self.claim.task)
    }

    fn reference(&self) -> TaskRef {
        let job = JobRef { workflow: "w".to_owned(), job: self.claim.job_name.clone() };
        TaskRef { task: self.claim.task.clone(), job, node_index: self.claim.node_index, node_total: 1 }
    }
}

async fn removed((result, removal): (TaskResult, Option<Removal>)) -> TaskResult {
    if let Some(removal) = removal {
        removal.carry_out().await;
    }
    result
}

/// A clock that was paused jumps to the next timer when all wait, which a task does that waits for threads. While a blocking
/// thread is at work it does not: then time passes by `tokio::time::advance` alone.
fn stand_still() -> mpsc::Sender<()> {
    let (clock, dropped) = mpsc::channel();
    tokio::task::spawn_blocking(move || dropped.recv_timeout(PATIENCE));
    clock
}

pub fn claim(steps: Vec<Step>) -> Claim {
    let primary = Container { image: "image".to_owned(), ..Container::default() };
    let job = Job {
        executor: Executor::Docker { containers: vec![primary] },
        environment: vec![],
        shell: None,
        working_directory: "~/project".to_owned(),
        parallelism: 1,
        resource_class: None,
        steps,
    };
    Claim {
        version: claim::VERSION,
        task: "0123456789abcdef".parse().unwrap(),
        job_name: "build".to_owned(),
        job,
        node_index: 0,
        node_total: 1,
        attempt: 1,
        limits: Limits { job: LIMIT, size: Size::new(1000, 1 << 30), grace: GRACE, pids: 100 },
        trust: TrustScope::Local,
        run: RunFacts {
            project: "project".to_owned(),
            pipeline: "pipeline".to_owned(),
            workspace: "workspace".to_owned(),
            build_number: 1,
            ..RunFacts::default()
        },
        builtin_variables: vec![],
        report_to: ReportTo::Local,
        may_continue: false,
        upstream: vec![],
    }
}

pub fn context(directory: PathBuf, world: &World, bus: bus::Bus, stop: watch::Receiver<Option<Cancel>>) -> Context {
    let logs = directory.join("logs");
    std::fs::create_dir(&logs).unwrap();
    let paths = HostPaths {
        state: directory.join("state"),
        runtime: Some(directory.join("runtime")),
        docker_config: None,
        search_path: String::new(),
        supervisor: None,
    };
    Context {
        providers: Providers { fake: Some(world.clone()), ..Providers::default() },
        bus,
        feed: Feed::All,
        directory: logs,
        paths: Arc::new(paths),
        owner: Owner::this_process().unwrap(),
        checkout: CheckoutSource::Unavailable("there is no tree".to_owned()),
        pull: PullPolicy::Never,
        no_tty: false,
        floor: DiskFloor(0),
        cgroup: None,
        idle_limit: navvy_environment::request::IDLE_LIMIT,
        config_name: "config.yml".to_owned(),
        stop,
        hold: Arc::new(HoldPolicy::default()),
        store: RunStore::new(Ok(StorageSettings::directory(&directory.join("store")))),
        secrets_in_artifacts: guard::SecretPolicy::default(),
        handing: Handing::default(),
        remote_docker: Arc::new(Err("this test has no machines".to_owned())),
        egress: Arc::default(),
        timings: navvy_results::Timings::default(),
        spool: crate::spool::Spool::default(),
        leaving: None,
    }
}

/// An event as a line; nothing for what tests look at elsewhere.
fn describe(event: Event) -> Option<String> {
    Some(match event {
        Event::TaskState { state, .. } => format!("state {state:?}"),
        Event::Progress { what, .. } => format!("progress {what}"),
        Event::ServiceStarted { name, .. } => format!("service {name}"),
        Event::StepStarted { step, attempt, name, .. } => format!("start {step}-{attempt} {name}"),
        Event::StepEnded { step, attempt, outcome, will_rerun, .. } => {
            format!("end {step}-{attempt} {outcome:?}{}", if will_rerun { ", again" } else { "" })
        }
        Event::StepSkipped { step, why, .. } => format!("skip {step} {why:?}"),
        Event::Warning { message, .. } => format!("warning {message}"),
        Event::TaskHeld { step, before, .. } => format!("held {}{step}", if before { "before " } else { "at " }),
        Event::TaskEnded { verdict, .. } => format!("verdict {verdict:?}"),
        Event::TaskRemoved { leftovers, .. } => format!("removed {leftovers:?}"),
        _ => return None,
    })
}
