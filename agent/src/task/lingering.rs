//! What steps leave running: background steps, daemons. They live until the job ends, and their output with them.

use std::time::Duration;

use navvy_job::event::{Event, TaskRef};
use navvy_job::figures;
use navvy_job::outcome::StepOutcome;
use navvy_ui::describe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::last_words;
use super::running::{Running, Seen};
use crate::bus::Bus;
use crate::step::texts;
use crate::step::voice::{StepEnded, StepRef, Voice};

/// Between SIGTERM and SIGKILL at the end of a job: a process that is left has nothing more to do.
const GRACE: Duration = Duration::from_secs(1);
/// From the wish that one ends, and from its last output on.
const LIMIT: Duration = Duration::from_secs(5);

/// A background step in its job.
pub struct BackgroundStep {
    pub at: StepRef,
    pub started: Instant,
}

/// A background step that is listened to until the job's end: should it end before, that is reported at once.
struct Background {
    exec: String,
    /// Takes the time between SIGTERM and SIGKILL once it has to end. Dropped, it is left to itself.
    end: oneshot::Sender<Duration>,
    listening: JoinHandle<()>,
}

/// Execs that outlive their step.
#[derive(Default)]
pub struct Lingering {
    left: Vec<Running>,
    background: Vec<Background>,
    /// Execs that an earlier agent has left in a held environment: they end with it.
    inherited: Vec<String>,
}

impl Lingering {
    /// A foreground step ended and left processes behind.
    pub fn keep(&mut self, running: Running) {
        self.left.push(running);
    }

    /// A background step was started.
    pub fn keep_background(&mut self, running: Running, step: BackgroundStep, voice: Voice) {
        let (end, ending) = oneshot::channel();
        let exec = running.id.clone();
        let listening = tokio::spawn(listen(running, step, ending, voice));
        self.background.push(Background { exec, end, listening });
    }

    /// With what an earlier agent has left.
    pub fn inherit(ids: Vec<String>) -> Self {
        Self { inherited: ids, ..Self::default() }
    }

    /// One more that an earlier agent has left, and that nobody follows.
    pub fn add_inherited(&mut self, id: String) {
        self.inherited.push(id);
    }

    /// Their execs.
    pub fn ids(&self) -> Vec<String> {
        let left = self.left.iter().map(|running| running.id.clone());
        let background = self.background.iter().map(|background| background.exec.clone());
        self.inherited.iter().cloned().chain(left).chain(background).collect()
    }

    /// Ends all of them and waits, bounded, for their last output.
    pub async fn finish(self, bus: &Bus, task: &TaskRef, at_once: bool) {
        let grace = if at_once { Duration::ZERO } else { GRACE };
        let left = self.left.into_iter().map(|running| {
            let (bus, task) = (bus.clone(), task.clone());
            tokio::spawn(async move { finish_left(running, grace, &bus, &task).await })
        });
        let background = self.background.into_iter().map(|Background { end, listening, .. }| {
            // It may have ended before.
            end.send(grace).ok();
            listening
        });
        let endings: Vec<_> = left.chain(background).collect();
        for ending in endings {
            ending.await.ok();
        }
    }
}

async fn finish_left(mut running: Running, grace: Duration, bus: &Bus, task: &TaskRef) {
    let mut seen = Seen::default();
    while let Ok(signal) = running.signals.try_recv() {
        seen.note(signal);
    }
    let cut = finish(&mut running, &mut seen, grace).await.err();
    if let Some(trouble) = seen.trouble.or(cut) {
        let message = format!("the output of what step {} left running is not kept to its end: {trouble}", running.id);
        bus.send(Event::Warning { task: Some(task.clone()), message });
    }
}

/// Ends what still runs of it, and waits for its last output. The error says why that was not waited for.
async fn finish(running: &mut Running, seen: &mut Seen, grace: Duration) -> Result<(), String> {
    if seen.is_over() {
        return Ok(());
    }
    let activity = running.activity.clone();
    let over = async {
        running.stop(grace).await.ok();
        running.over(seen).await;
    };
    last_words::heard(over, &activity, LIMIT).await.inspect_err(|_| running.abandon())
}

/// A background step's life from its start on.
async fn listen(mut running: Running, step: BackgroundStep, mut ending: oneshot::Receiver<Duration>, voice: Voice) {
    let (mut seen, mut early, mut is_listened_to) = (Seen::default(), None, true);
    let grace = loop {
        if early.is_none() {
            early = seen.exited.as_ref().map(|exited| (texts::outcome(exited), step.started.elapsed()));
            early.iter().for_each(|(outcome, after)| tell_early(&step, outcome, *after, &voice));
        }
        if early.is_some() && seen.is_over() {
            return tell_end(&step, early, &seen, &voice);
        }
        tokio::select! {
            biased;
            signal = running.signals.recv(), if is_listened_to => match signal {
                Some(signal) => {
                    seen.note(signal);
                    seen.trouble.iter().for_each(|trouble| tell_trouble(&step, trouble, &voice));
                }
                None => is_listened_to = false,
            },
            grace = &mut ending => match grace {
                Ok(grace) => break grace,
                Err(_) => return,
            },
        }
    };
    if let Err(trouble) = finish(&mut running, &mut seen, grace).await {
        tell_trouble(&step, &trouble, &voice);
    }
    tell_end(&step, early, &seen, &voice);
}

fn tell_trouble(step: &BackgroundStep, trouble: &str, voice: &Voice) {
    let StepRef { number, name, .. } = &step.at;
    voice.warn(format!("the output of background step {number} ({name}) is no longer kept: {trouble}"));
}

/// As with a service that ends: steps that need it fail only later, and say nothing of it. One that was done is no trouble.
fn tell_early(step: &BackgroundStep, outcome: &StepOutcome, after: Duration, voice: &Voice) {
    if outcome.is_success() {
        return;
    }
    let (after, how) = (figures::duration(figures::millis(after)), describe::outcome(outcome));
    voice.warn(format!("background step {} ({}) ended by itself after {after}: {how}", step.at.number, step.at.name));
}

/// `early`: how it ended before it had to, and after how long.
fn tell_end(step: &BackgroundStep, early: Option<(StepOutcome, Duration)>, seen: &Seen, voice: &Voice) {
    let lost = || seen.trouble.clone().map(|reason| StepOutcome::Error { reason });
    let (outcome, duration) = match early {
        Some((outcome, after)) => (Some(outcome), after),
        None => (lost(), step.started.elapsed()),
    };
    let trailers = match &outcome {
        Some(outcome) => texts::trailers(seen.exited.as_ref(), outcome),
        // Ended with the job, as background steps do: nothing to tell.
        None => vec![],
    };
    let outcome = outcome.unwrap_or(StepOutcome::Canceled);
    let digest = seen.digest.clone().unwrap_or_default();
    voice.step_ended(&step.at, StepEnded { outcome, duration, trailers, digest, will_rerun: false });
}
