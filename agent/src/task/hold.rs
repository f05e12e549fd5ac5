//! A task that is held: its environment stays as it was at a step, for a person to look at, to mend, and to go on from.
//!
//! ```text
//! step fails, or a break point ─▶ Finishing ─▶ note to the supervisor, marks on the host ─▶ Held ─▶ Reporting
//!                                                  │ in memory only: it holds the secrets
//! navvy retry ── recall ───────────────────────────┘─▶ resume
//! ```

use std::time::Duration;

use navvy_environment::run_dir;
use navvy_environment::supervisor::Client;
use navvy_job::chain::chain;
use navvy_job::compiled::{Step, StepKind, Variables};
use navvy_job::event::{Event, HeldAt, HeldTask, TaskRef};
use navvy_job::outcome::Verdict;
use navvy_journal::HeldStep;
use navvy_output::mask::MaskedIn;
use tokio::time::Instant;

use crate::environment::Environment;
use crate::environment::machine::Machine;

use super::note::{KeyNote, Note, SourceNote, VERSION};
use super::prepare::Ready;
use super::{Context, Task, TaskState};
use crate::terminal::{self, Stage};

/// How long an environment is held by default.
pub const USUAL_TIME: Duration = Duration::from_secs(4 * 3600);

/// How the ids of persons' execs begin.
pub const PERSON: &str = "person-";

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
    /// Everything that the run masks, other jobs' secrets included.
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
            None => true,
            Some(cancel) => !cancel.at_once && self.resumed_at.is_some(),
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
        let place = || MaskedIn::of_job(&self.reference.job.job, "step name");
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
            _ = stop.wait_for(Option::is_some) => None,
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
    pub(super) fn is_held_on_failure(&self) -> bool {
        let looked_into = match self.result.verdict {
            Verdict::Failed { .. } => true,
            // What a person has mended is not thrown away for having taken too long.
            Verdict::TimedOut { .. } => self.resumed_at.is_some(),
            _ => false,
        };
        looked_into && self.context.hold.on_fail.is_some()
    }

    /// Leaves the environment to a person. Returns it when that cannot be: then it is to be removed, in any state.
    pub(super) async fn hold(&mut self, ready: Ready, mut at: HeldAt) -> Option<Box<Environment>> {
        // It is written into the journal.
        let place = || MaskedIn::of_job(&self.reference.job.job, "step name");
        at.name = self.context.bus.masks().text(place, &at.name).into_owned();
        let Ready { mut environment, client, frame, lingering, handed } = ready;
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
            self.end_lingering(lingering).await;
            return Some(Box::new(environment));
        }
        // Leaving it takes a moment, in which a person may have asked for the end of it.
        if !self.may_be_held() || self.advance(TaskState::Held).await.is_err() {
            self.end_lingering(lingering).await;
            return Some(Box::new(environment));
        }
        let until = until.round(jiff::Unit::Second).unwrap_or(until).to_string();
        let TaskRef { node_index, node_total, .. } = self.reference;
        let held = HeldTask { task: self.claim.task.clone(), node_index, node_total, at, until };
        self.context.bus.send(Event::TaskHeld {
            task: self.reference.clone(),
            step: held.at.step,
            name: held.at.name.clone(),
            before: held.at.before,
            until: held.until.clone(),
        });
        self.result.held = Some(held);
        environment.leave_layers();
        if self.machines.iter().any(Machine::keeps_layers) {
            let of = "the job's Docker layers are not kept, since its remote Docker's machine is held";
            self.warn(format!("{of}: the next job finds those that an earlier one has saved"));
        }
        // Its output is no longer followed; what runs goes on inside.
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
        environment: &Environment,
        at: &HeldAt,
        until: jiff::Timestamp,
    ) -> Result<(), String> {
        let bytes = serde_json::to_vec(note).map_err(|error| error.to_string())?;
        let (keeper, time) = (client.clone(), note.time());
        let held = tokio::task::spawn_blocking(move || keeper.keep(time, &bytes)).await;
        held.map_err(|error| error.to_string())?.map_err(|error| chain(&error))?;
        // What is beside the environment waits as long as it does.
        for machine in &self.machines {
            let (keeper, time) = (Client::new(machine.environment().link()), note.time());
            let held = tokio::task::spawn_blocking(move || keeper.keep(time, b"")).await;
            held.map_err(|error| error.to_string())?.map_err(|error| chain(&error))?;
        }
        let Context { owner, paths, .. } = &self.context;
        let task = &self.claim.task;
        if let Some(secret) = environment.link().secret() {
            run_dir::keep_secret(paths.runtime.as_deref(), task, secret).map_err(|error| chain(&error))?;
        }
        let journal = self.journal.as_ref().ok_or("its journal could not be written")?;
        let unix = u64::try_from(until.as_second()).unwrap_or(0);
        let step = HeldStep { number: at.step, name: at.name.clone() };
        let held = self.provider.hold(journal, task, unix, Some(step), owner, paths).await;
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
