//! From a claim to an environment in which steps can run.

use std::time::Duration;

use navvy_environment::request::{Died, Inheritance, Machine, Prepare, PrepareEvent, Purpose, Wanted};
use navvy_environment::supervisor::{Client, ClientError};
use navvy_job::chain::chain;
use navvy_job::claim::{Claim, Secrets};
use navvy_job::compiled::{Container, Executor};
use navvy_job::event::Event;
use navvy_job::outcome::{Blame, StepOutcome, Verdict};
use navvy_job::resource::DEFAULT_MACHINE_CLASS;
use navvy_output::mask::MaskedIn;
use navvy_output::{LogDigest, StepLog};
use navvy_protocol::supervisor::{FailureKind, Probe};
use tokio::time::Instant;

use crate::environment::Environment;

use super::lingering::Lingering;
use super::{Task, continuation};
use crate::step::bounded::{GivenUp, Lost, in_words, lost_with};
use crate::step::handing::HandedOut;
use crate::step::variables::Layers;
use crate::step::voice::{StepEnded, StepRef, Voice};
use crate::step::{Frame, absolute};

/// Name of the first pseudo-step, as the original shows it.
const SPIN_UP: &str = "Spin up environment";
/// Steps run in the first, else in the second.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// When an environment ends that is no step's yet.
const BEFORE_STEPS: &str = "while it was made ready";

/// An environment with everything that steps need.
pub struct Ready {
    pub environment: Environment,
    pub client: Client,
    pub frame: Frame,
    pub lingering: Lingering,
    pub handed: HandedOut,
}

/// Why no step can run, and what there is of the environment if that is known.
pub struct Unready {
    pub verdict: Verdict,
    pub environment: Option<Box<Environment>>,
}

impl Task {
    /// Makes the environment; an error has the verdict of the task.
    pub(super) async fn prepare(&mut self) -> Result<Ready, Unready> {
        let started = Instant::now();
        let report = SpinUpLog::open(self);
        let made = self.make(&report).await;
        let (outcome, result) = match made {
            Ok(ready) => (StepOutcome::Success, Ok(ready)),
            Err(PrepareFault { verdict, reason, environment }) => {
                let canceled = matches!(verdict, Verdict::Canceled { .. });
                report.keep(&reason);
                let outcome = if canceled { StepOutcome::Canceled } else { StepOutcome::Error { reason } };
                (outcome, Err(Unready { verdict, environment }))
            }
        };
        self.spin_up_ended(started, outcome, report.digest());
        if result.is_err() {
            self.result.failed_log = Some(StepLog::path_for(&self.context.directory, 0, 1));
        }
        result
    }

    async fn make(&mut self, report: &SpinUpLog) -> Result<Ready, PrepareFault> {
        let request = self.request()?;
        let warnings = std::sync::Mutex::new(Vec::new());
        let (bus, reference) = (self.context.bus.clone(), self.reference.clone());
        let tell = |event: PrepareEvent| match event {
            PrepareEvent::Report(line) => report.line(line),
            PrepareEvent::Progress { what, done, total } => {
                bus.send(Event::Progress { task: reference.clone(), what, done, total });
            }
            PrepareEvent::Warning(message) => {
                warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(message);
            }
        };
        let (provider, paths) = (self.provider.clone(), self.context.paths.clone());
        let mut stop = self.context.stop.clone();
        let limit = self.claim.limits.job;
        let prepared = tokio::select! {
            prepared = provider.prepare(request, &paths, &tell) => prepared.map_err(|error| {
                let reason = chain(&error);
                let verdict = match error.blame() {
                    Blame::Job => Verdict::Failed { step: 0, name: SPIN_UP.to_owned() },
                    Blame::Usage | Blame::Config | Blame::Engine | Blame::Infra => Verdict::Infra { fault: reason.clone() },
                };
                PrepareFault { verdict, reason, environment: None }
            }),
            _ = stop.wait_for(Option::is_some) => Err(PrepareFault::canceled(self.canceled())),
            () = tokio::time::sleep(limit) => Err(PrepareFault::job_limit(limit)),
        };
        for message in warnings.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            self.warn(message);
        }
        let mut environment = prepared?;
        self.follow_services(&mut environment);
        self.furnish(environment).await
    }

    fn request(&self) -> Result<Prepare, PrepareFault> {
        let wanted = match &self.claim.job.executor {
            Executor::Docker { containers } => Wanted::Containers(containers.clone()),
            Executor::Machine { image, docker_layer_caching } => Wanted::Machine(Machine {
                image: image.clone(),
                purpose: Purpose::Steps,
                class: Some(self.claim.job.resource_class.clone().unwrap_or_else(|| DEFAULT_MACHINE_CLASS.to_owned())),
                layers: docker_layer_caching.then(|| self.claim.run.project.clone()),
            }),
            Executor::Macos { .. } => {
                return Err(PrepareFault::infra("the macos executor cannot be carried out here".to_owned()));
            }
        };
        Ok(Prepare {
            task: self.claim.task.clone(),
            wanted,
            size: self.claim.limits.size,
            pids: self.claim.limits.pids,
            pull: self.context.pull,
            secrets: self.secrets.clone(),
            cgroup_parent: self.context.cgroup.clone(),
            owner: self.context.owner.clone(),
            is_adoptable: self.context.leaving.is_some(),
            journal: self.journal.clone(),
            idle_limit: self.context.idle_limit,
            disk_floor: self.context.floor.0,
            egress: self.context.egress.clone(),
            notes: self.notes.clone(),
        })
    }

    /// Asks who the user is, makes the working directory and `$BASH_ENV`. One trip to a blocking thread for all.
    async fn furnish(&mut self, environment: Environment) -> Result<Ready, PrepareFault> {
        let client = Client::new(environment.link());
        let user = environment.step_user().map(str::to_owned);
        let bash_env = bash_env(&self.claim);
        let (asker, asked_user, file) = (client.clone(), user.clone(), bash_env.clone());
        let (wanted, inheritance) = (self.claim.job.working_directory.clone(), environment.inheritance());
        let layers = layers(&self.claim, &self.secrets, &inheritance);
        let key = self.continuation_key();
        let furnishing = self.bounds(&environment).bounded(move || {
            let (account, directory) = furnish(&asker, asked_user, &wanted, &layers, &file)?;
            let offered = key.map(|key| continuation::offer(&asker, &key)).transpose()?;
            Ok((account, directory, offered))
        });
        let furnished = match furnishing.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(self.fault_of_client(&environment, &error).await),
            Err(why) => Err(self.fault_of_giving_up(why)),
        };
        let (account, directory, offered) = match furnished {
            Ok(found) => found,
            Err(fault) => return Err(PrepareFault { environment: Some(Box::new(environment)), ..fault }),
        };
        self.claim.builtin_variables.extend(offered);
        let frame = frame(&self.claim, &self.secrets, inheritance, account, directory, self.context.no_tty);
        Ok(Ready { environment, client, frame, lingering: Lingering::default(), handed: HandedOut::default() })
    }

    async fn fault_of_client(&self, environment: &Environment, error: &ClientError) -> PrepareFault {
        let died = match error.is_connection() {
            true => self.bounds(environment).end_behind_loss().await,
            false => None,
        };
        match died {
            Some(died) => self.fault_of_giving_up(GivenUp::Died(died)),
            None => PrepareFault::of_client(error),
        }
    }

    fn fault_of_giving_up(&self, why: GivenUp) -> PrepareFault {
        match why {
            // A main program that the config names is the job's own, and so is its end.
            GivenUp::Died(died @ Died::Exited { .. })
                if names_main_program(&self.claim) && lost_with(&died) == Lost::Container =>
            {
                let verdict = Verdict::Failed { step: 0, name: SPIN_UP.to_owned() };
                PrepareFault { verdict, reason: in_words(&died, BEFORE_STEPS), environment: None }
            }
            why => PrepareFault::of_giving_up(why, self.canceled()),
        }
    }

    fn spin_up_ended(&self, started: Instant, outcome: StepOutcome, digest: LogDigest) {
        let trailers = match &outcome {
            StepOutcome::Error { reason } => vec![reason.clone()],
            _ => vec![],
        };
        let duration = started.elapsed();
        let ended = StepEnded { outcome, duration, trailers, digest, will_rerun: false };
        self.voice.step_ended(&spin_up(), ended);
    }
}

/// The first pseudo-step.
fn spin_up() -> StepRef {
    StepRef { number: 0, attempt: 1, name: SPIN_UP.to_owned(), kind: "environment".to_owned(), origin: None }
}

/// `$BASH_ENV`, inside the environment.
fn bash_env(claim: &Claim) -> String {
    format!("/tmp/.bash_env-{}-{}", claim.task, claim.node_index)
}

/// What all steps of a task share, once it is known who they run as, and where.
pub fn frame(
    claim: &Claim,
    secrets: &Secrets,
    inherited: Inheritance,
    account: Probe,
    working_directory: String,
    no_tty: bool,
) -> Frame {
    let layers = layers(claim, secrets, &inherited);
    let home = home(&layers, &account);
    let has_bash = account.programs.first().is_some_and(Option::is_some);
    // A note of an older agent knows of bash alone.
    let has_none = account.programs.len() == SHELLS.len() && account.programs.iter().all(Option::is_none);
    let shell_less = containers(claim).first().filter(|_| has_none).map(|primary| primary.image.clone());
    let (shell, user) = (claim.job.shell.clone(), inherited.step_user);
    Frame { layers, shell, has_bash, shell_less, working_directory, user, account, home, no_tty }
}

/// What variables all steps of a task have.
fn layers(claim: &Claim, secrets: &Secrets, inherited: &Inheritance) -> Layers {
    let mut builtin = claim.builtin_variables.clone();
    for name in ["BASH_ENV", "CIRCLE_SHELL_ENV"] {
        builtin.push((name.to_owned(), bash_env(claim)));
    }
    let container = containers(claim).first().map(|primary| primary.environment.clone()).unwrap_or_default();
    Layers {
        egress: inherited.egress.clone(),
        image: inherited.image_env.clone(),
        container,
        secrets: secrets.variables().clone(),
        builtin,
        job: claim.job.environment.clone(),
    }
}

fn containers(claim: &Claim) -> &[Container] {
    match &claim.job.executor {
        Executor::Docker { containers } => containers,
        _ => &[],
    }
}

/// Whether the primary's main process is a program that the config names.
fn names_main_program(claim: &Claim) -> bool {
    containers(claim).first().is_some_and(|primary| primary.entrypoint.is_some() || primary.command.is_some())
}

/// One home for all: an image may say another one than its file of users.
fn home(layers: &Layers, account: &Probe) -> String {
    layers.home().unwrap_or_else(|| account.home.clone())
}

/// Why there is no environment.
struct PrepareFault {
    verdict: Verdict,
    reason: String,
    /// If it was made.
    environment: Option<Box<Environment>>,
}

impl PrepareFault {
    fn canceled(verdict: Verdict) -> Self {
        Self { verdict, reason: "canceled".to_owned(), environment: None }
    }

    fn infra(fault: String) -> Self {
        Self { reason: fault.clone(), verdict: Verdict::Infra { fault }, environment: None }
    }

    /// `canceled`: the verdict of a task that was asked to stop.
    fn of_giving_up(why: GivenUp, canceled: Verdict) -> Self {
        match why {
            GivenUp::Stopped => Self::canceled(canceled),
            GivenUp::JobLimit(limit) => Self::job_limit(limit),
            GivenUp::Died(died) => Self::infra(in_words(&died, BEFORE_STEPS)),
            GivenUp::Panicked => Self::infra("a thread of the agent ended unexpectedly".to_owned()),
        }
    }

    fn job_limit(limit: Duration) -> Self {
        let reason = "the job's time limit was reached".to_owned();
        Self { verdict: Verdict::TimedOut { limit }, reason, environment: None }
    }

    fn of_client(error: &ClientError) -> Self {
        match error.failure() {
            Some(failure) => {
                let advice = match failure.kind {
                    FailureKind::NoSuchUser => ". Name a user that the image has with `user:`, or its number.",
                    _ => "",
                };
                let verdict = Verdict::Failed { step: 0, name: SPIN_UP.to_owned() };
                Self { verdict, reason: format!("{failure}{advice}"), environment: None }
            }
            None => Self::infra(chain(error)),
        }
    }
}

/// Returns the user's entry and the job's working directory, which then exists.
fn furnish(
    client: &Client,
    user: Option<String>,
    working_directory: &str,
    layers: &Layers,
    bash_env: &str,
) -> Result<(Probe, String), ClientError> {
    let account = client.probe(user.clone(), &SHELLS)?;
    let directory = absolute(working_directory, &home(layers, &account));
    client.make_directory(&directory, user.clone())?;
    if let Err(error) = client.write(bash_env, user.clone(), 0o600, b"") {
        // An image without /tmp is no reason to give up.
        if error.failure().is_none() {
            return Err(error);
        }
        client.make_directory("/tmp", user.clone())?;
        client.write(bash_env, user, 0o600, b"")?;
    }
    Ok((account, directory))
}

/// The report, on its way to the view and to the first log.
struct SpinUpLog {
    log: std::sync::Mutex<Option<StepLog>>,
    voice: Voice,
}

impl SpinUpLog {
    fn open(task: &Task) -> Self {
        let directory = &task.context.directory;
        let log = StepLog::create(directory, 0, 1);
        task.voice.step_started(&spin_up(), false, None, StepLog::path_for(directory, 0, 1));
        if let Err(error) = &log {
            tracing::warn!(%error, "The log of the environment's report could not be made.");
        }
        Self { log: std::sync::Mutex::new(log.ok()), voice: task.voice.clone() }
    }

    fn line(&self, line: String) {
        let line = self.masked(&line);
        self.keep(&line);
        self.voice.bus.send(Event::Report { task: self.voice.task.clone(), line });
    }

    fn masked(&self, line: &str) -> String {
        let place = || MaskedIn::of_job(&self.voice.task.job.job, "report of the environment");
        self.voice.bus.masks().text(place, line).into_owned()
    }

    /// Into the log alone: views learn of an error from the step's end.
    fn keep(&self, line: &str) {
        let line = self.masked(line);
        if let Some(log) = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).as_mut() {
            match log.append_now(format!("{line}\n").as_bytes()) {
                Ok(()) => self.voice.spool.appended(line.len() + 1),
                Err(error) => tracing::warn!(%error, "A line of the environment's report could not be written."),
            }
        }
    }

    fn digest(&self) -> LogDigest {
        let log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        log.as_ref().map(StepLog::digest).unwrap_or_default()
    }
}
