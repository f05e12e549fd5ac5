//! A task that is held: its environment stays as it was at a step, for a person to look at, to mend, and to go on from.
//!
//! ```text
//! step fails, or a break point ─▶ Finishing ─▶ note to the supervisor, marks on the host ─▶ Kept ─▶ Reporting
//!                                                  │ in memory only: it holds the secrets
//! navvy retry ── recall ───────────────────────────┘─▶ resume
//! ```

use std::time::{Duration, Instant};

use navvy_job::chain::chain;
use navvy_job::claim::{Claim, Secrets, SshKey};
use navvy_job::compiled::{Run, Step, StepKind, Variables};
use navvy_job::event::{Event, HeldAt, Kept, TaskRef};
use navvy_job::outcome::Verdict;
use navvy_journal::HeldStep;
use navvy_output::mask::Place;
use navvy_protocol::supervisor::Probe;
use serde::{Deserialize, Serialize};

use super::handed::{Handed, Handing};
use super::prepare::{Ready, frame};
use super::{Context, Stop, Task, TaskState};
use crate::environment::docker::run_dir;
use crate::environment::docker::{DockerEnvironment, Inheritance};
use crate::step::Frame;
use crate::supervisor::Client;
use crate::terminal::{self, Stage};

/// How long an environment is held if nobody says otherwise.
pub const USUAL_TIME: Duration = Duration::from_secs(4 * 3600);

/// How the ids of persons' execs begin.
pub const PERSON: &str = "person-";

/// The version of [`Note`].
const VERSION: u32 = 1;

/// What makes a task be held.
#[derive(Clone, Default)]
pub struct HoldPolicy {
    /// The environment of a failed job stays this long.
    pub on_fail: Option<Duration>,
    pub break_before: Vec<BreakPoint>,
    /// A person's terminal: they are asked in at once when a step fails, and at break points.
    pub stage: Option<Stage>,
    /// What is needed to compile the config again.
    pub source: SourceNote,
    /// Whatever the run masks, other jobs' secrets included.
    pub masked: Variables,
}

/// A step before which a job is held: `STEP` or `JOB:STEP`, the step by number or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakPoint {
    job: Option<String>,
    step: String,
}

impl BreakPoint {
    /// Names may hold colons themselves: a text that is a step's name as a whole counts, too.
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((job, step)) if !job.is_empty() && !step.is_empty() => {
                Self { job: Some(job.to_owned()), step: step.to_owned() }
            }
            _ => Self { job: None, step: text.to_owned() },
        }
    }

    /// As it was written.
    pub fn text(&self) -> String {
        self.job.as_ref().map_or_else(|| self.step.clone(), |job| format!("{job}:{}", self.step))
    }

    /// Is it meant for this step, the `number`th from 1?
    pub fn is_before(&self, job: &str, number: usize, name: &str) -> bool {
        let whole = self.job.as_ref().is_some_and(|prefix| name == format!("{prefix}:{}", self.step));
        let job_fits = self.job.as_ref().is_none_or(|wanted| wanted == job);
        whole || (job_fits && is_step(&self.step, number, name))
    }
}

/// Does a person's word mean this step?
pub fn is_step(word: &str, number: usize, name: &str) -> bool {
    word.parse() == Ok(number) || word == name
}

/// Where the config came from, so that it can be read again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceNote {
    pub file: std::path::PathBuf,
    /// Where the working tree is.
    pub project: std::path::PathBuf,
    pub parameters: Vec<String>,
    pub branch: Option<String>,
    pub tag: Option<String>,
    pub allow_missing_orbs: bool,
    pub checkout_git: bool,
    pub images: Vec<String>,
    pub machine_as: Option<String>,
    /// As `--store` named it.
    #[serde(default)]
    pub store: Option<String>,
    #[serde(default)]
    pub secrets_in_artifacts: crate::artifacts::guard::Secrets,
    #[serde(default)]
    pub handing: Handing,
}

/// Everything that is needed to go on. Holds secrets: it lives in the memory of the supervisor and of an agent, and
/// nowhere else.
#[derive(Serialize, Deserialize)]
pub struct Note {
    version: u32,
    pub claim: Claim,
    secrets: Variables,
    #[serde(default)]
    ssh_keys: Vec<KeyNote>,
    /// Whatever the run masked, other jobs' secrets included.
    pub masked: Variables,
    pub reference: TaskRef,
    /// The step to go on from, from 1.
    pub step: usize,
    /// It has not run yet: the task was held before it.
    pub before: bool,
    /// No attempt had a higher number.
    pub attempts: u32,
    /// Execs that go on while it is held: background steps, daemons.
    pub lingering: Vec<String>,
    pub working_directory: String,
    pub account: Probe,
    pub inheritance: Inheritance,
    pub no_tty: bool,
    #[serde(default)]
    pub handed: Vec<Handed>,
    /// Seconds for which it is held each time.
    pub time_s: u64,
    pub source: SourceNote,
}

/// An SSH key as a note holds it.
#[derive(Clone, Serialize, Deserialize)]
struct KeyNote {
    host: Option<String>,
    text: String,
    md5: String,
    sha256: String,
}

impl KeyNote {
    fn of(SshKey { host, text, md5, sha256 }: SshKey) -> Self {
        Self { host, text, md5, sha256 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    #[error("the environment's note is not understood")]
    Parse { source: serde_json::Error },
    #[error("the environment was held by a newer navvy (note version {found}); use that one")]
    Version { found: u32 },
}

impl Note {
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        let note: Self = serde_json::from_slice(bytes).map_err(|source| NoteError::Parse { source })?;
        if note.version > VERSION {
            return Err(NoteError::Version { found: note.version });
        }
        Ok(note)
    }

    /// The same, with another count of attempts, for the supervisor.
    pub fn with_attempts(&self, attempts: u32) -> serde_json::Result<Vec<u8>> {
        let mut value = serde_json::to_value(self)?;
        value["attempts"] = attempts.into();
        serde_json::to_vec(&value)
    }

    pub fn secrets(&self) -> Secrets {
        let keys =
            self.ssh_keys.iter().cloned().map(|KeyNote { host, text, md5, sha256 }| SshKey { host, text, md5, sha256 });
        Secrets::new(self.secrets.clone()).with_ssh_keys(keys.collect())
    }

    pub fn time(&self) -> Duration {
        Duration::from_secs(self.time_s)
    }

    /// What all its steps share.
    pub fn frame(&self) -> Frame {
        let (account, directory) = (self.account.clone(), self.working_directory.clone());
        frame(&self.claim, &self.secrets(), self.inheritance.clone(), account, directory, self.no_tty)
    }

    /// The step at which it is held.
    pub fn held_at(&self) -> Option<&Step> {
        self.claim.job.steps.get(self.step - 1)
    }

    /// What a `run` step there would be given; nothing for any other kind.
    pub fn run(&self) -> Option<&Run> {
        match &self.held_at()?.kind {
            StepKind::Run(run) => Some(run),
            _ => None,
        }
    }
}

impl Task {
    /// Is the task to be held before this step?
    pub(super) fn is_break(&self, number: usize, step: &Step) -> bool {
        // What a person has just gone on from does not hold again.
        let goes_on_here = self.resumed_at == Some(number);
        let points = &self.context.hold.break_before;
        !goes_on_here && points.iter().any(|point| point.is_before(&self.claim.job_name, number, &step.name))
    }

    /// A run that is being stopped holds nothing, but for what was held before: that takes a second signal.
    pub(super) fn may_be_held(&self) -> bool {
        match self.stop_asked() {
            Stop::No => true,
            Stop::Gracefully => self.resumed_at.is_some(),
            Stop::AtOnce => false,
        }
    }

    /// Lends the terminal to a person in the step's place, until they leave. Their time is not the job's.
    pub(super) async fn ask_in(&mut self, ready: &Ready, step: &Step, why: &str) {
        let Some(stage) = self.context.hold.stage.clone() else { return };
        let came = Instant::now();
        let Ok(taken) = tokio::task::spawn_blocking(move || stage.take()).await else { return };
        let run = if let StepKind::Run(run) = &step.kind { Some(run) } else { None };
        let id = format!("{PERSON}{}", uuid::Uuid::new_v4());
        let exec = ready.frame.person(run, &[], terminal::wanted(true, true), id.clone());
        let place = || Place::of_job(&self.reference.job.job, "step name");
        let why = self.context.bus.masks().text(place, why).into_owned();
        terminal::announce(&format!(
            "{}: {why}. This is its environment; leave with `exit` or Ctrl-D.",
            self.claim.job_name
        ));
        let (client, mut stop) = (ready.client.clone(), self.context.stop.clone());
        let session = terminal::connect(client.clone(), exec);
        tokio::pin!(session);
        let early = tokio::select! {
            ended = &mut session => Some(ended),
            _ = stop.wait_for(|stop| *stop != Stop::No) => None,
        };
        let ended = match early {
            Some(ended) => ended,
            None => {
                tokio::task::spawn_blocking(move || client.stop(&id, Duration::ZERO)).await.ok();
                session.await
            }
        };
        drop(taken);
        if let Err(error) = ended {
            self.warn(format!("no shell could be opened: {}", chain(&error)));
        }
        self.started += came.elapsed();
    }

    /// Is this verdict one that a person may want to look into?
    pub(super) fn is_kept_on_failure(&self) -> bool {
        let looked_into = match self.result.verdict {
            Verdict::Failed { .. } => true,
            // What a person has mended is not thrown away for having taken too long.
            Verdict::TimedOut { .. } => self.resumed_at.is_some(),
            _ => false,
        };
        looked_into && self.context.hold.on_fail.is_some()
    }

    /// Leaves the environment to a person. Returns it when that cannot be: then it is to be removed, in whatever state.
    pub(super) async fn keep(&mut self, ready: Ready, mut at: HeldAt) -> Option<Box<DockerEnvironment>> {
        // It is written into the journal.
        let place = || Place::of_job(&self.reference.job.job, "step name");
        at.name = self.context.bus.masks().text(place, &at.name).into_owned();
        let Ready { environment, client, frame, lingering, handed } = ready;
        let time = self.context.hold.on_fail.unwrap_or(USUAL_TIME);
        let note = Note {
            version: VERSION,
            claim: self.claim.clone(),
            secrets: self.secrets.variables().clone(),
            ssh_keys: self.secrets.ssh_keys().iter().cloned().map(KeyNote::of).collect(),
            masked: self.context.hold.masked.clone(),
            reference: self.reference.clone(),
            step: at.step,
            before: at.before,
            attempts: self.attempts,
            lingering: lingering.ids(),
            working_directory: frame.working_directory,
            account: frame.account,
            inheritance: environment.inheritance(),
            no_tty: frame.no_tty,
            handed: handed.notes(),
            time_s: time.as_secs(),
            source: self.context.hold.source.clone(),
        };
        let until = jiff::Timestamp::now() + time;
        if let Err(reason) = self.leave(&client, &note, &environment, &at, until).await {
            self.warn(format!("the environment could not be held: {reason}"));
            lingering.finish(&self.context.bus, &self.reference, self.stop_asked()).await;
            return Some(Box::new(environment));
        }
        // Leaving it takes a moment, in which a person may have asked for the end of it.
        if !self.may_be_held() {
            lingering.finish(&self.context.bus, &self.reference, self.stop_asked()).await;
            return Some(Box::new(environment));
        }
        self.advance(TaskState::Kept).await;
        let until = until.round(jiff::Unit::Second).unwrap_or(until).to_string();
        let TaskRef { node_index, node_total, .. } = self.reference;
        let kept = Kept { task: self.claim.task.clone(), node_index, node_total, at, until };
        self.context.bus.send(Event::TaskKept {
            task: self.reference.clone(),
            step: kept.at.step,
            name: kept.at.name.clone(),
            before: kept.at.before,
            until: kept.until.clone(),
        });
        self.result.kept = Some(kept);
        // Nobody follows any more; what runs goes on inside.
        drop(lingering);
        drop(environment);
        self.services_are_over().await;
        None
    }

    /// The environment itself first: should this agent die in between, a reaper finds a dead owner and no more.
    async fn leave(
        &self,
        client: &Client,
        note: &Note,
        environment: &DockerEnvironment,
        at: &HeldAt,
        until: jiff::Timestamp,
    ) -> Result<(), String> {
        let bytes = serde_json::to_vec(note).map_err(|error| error.to_string())?;
        let (keeper, time) = (client.clone(), note.time());
        let kept = tokio::task::spawn_blocking(move || keeper.keep(time, &bytes)).await;
        kept.map_err(|error| error.to_string())?.map_err(|error| chain(&error))?;
        let Context { engine, owner, paths, .. } = &self.context;
        let task = &self.claim.task;
        if let Some(secret) = environment.link().secret() {
            run_dir::keep_secret(paths.runtime.as_deref(), task, secret).map_err(|error| chain(&error))?;
        }
        let journal = self.journal.as_ref().ok_or("its journal could not be written")?;
        let unix = u64::try_from(until.as_second()).unwrap_or(0);
        let step = HeldStep { number: at.step, name: at.name.clone() };
        let held = engine.keep_task(journal, task, unix, Some(step), owner, paths).await;
        held.map_err(|error| chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn break_points_name_steps_by_number_or_name_in_all_jobs_or_one() {
        let point = |text| BreakPoint::parse(text);
        assert!(point("Test").is_before("build", 3, "Test") && point("3").is_before("build", 3, "Test"));
        assert!(point("build:Test").is_before("build", 3, "Test") && point("build:3").is_before("build", 3, "Test"));
        assert!(!point("deploy:Test").is_before("build", 3, "Test") && !point("2").is_before("build", 3, "Test"));
        assert!(point("npm: test").is_before("build", 3, "npm: test"));
    }
}
