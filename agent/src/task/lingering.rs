//! What steps leave running: background steps, daemons. They live until the job ends, and their output with them.

use std::time::{Duration, Instant};

use navvy_job::outcome::StepOutcome;
use tokio::time::timeout;

use super::Stop;
use super::running::{Running, Seen};
use crate::bus::Bus;
use crate::event::{Event, TaskRef};
use crate::step::texts;

/// Between SIGTERM and SIGKILL at the end of a job: whoever is left has nothing more to do.
const GRACE: Duration = Duration::from_secs(1);
/// All of them together are waited for this long.
const LIMIT: Duration = Duration::from_secs(5);

/// A background step's place in the job.
pub struct BackgroundStep {
    pub step: usize,
    pub attempt: u32,
    pub name: String,
    pub origin: Option<String>,
    pub started: Instant,
}

/// Execs that outlive their step.
#[derive(Default)]
pub struct Lingering {
    execs: Vec<(Running, Option<BackgroundStep>)>,
    /// Execs that an earlier agent has left in a held environment: they end with it.
    inherited: Vec<String>,
}

impl Lingering {
    /// A foreground step ended and left processes behind.
    pub fn keep(&mut self, running: Running) {
        self.execs.push((running, None));
    }

    /// A background step was started.
    pub fn keep_background(&mut self, running: Running, step: BackgroundStep) {
        self.execs.push((running, Some(step)));
    }

    /// With what an earlier agent has left.
    pub fn inherit(ids: Vec<String>) -> Self {
        Self { inherited: ids, ..Self::default() }
    }

    /// Their execs.
    pub fn ids(&self) -> Vec<String> {
        let own = self.execs.iter().map(|(running, _)| running.id.clone());
        self.inherited.iter().cloned().chain(own).collect()
    }

    /// Ends all of them and waits, bounded, for their last output.
    pub async fn finish(self, bus: &Bus, task: &TaskRef, stop: Stop) {
        let grace = if stop == Stop::AtOnce { Duration::ZERO } else { GRACE };
        let endings: Vec<_> = self
            .execs
            .into_iter()
            .map(|(running, background)| {
                let (bus, task) = (bus.clone(), task.clone());
                tokio::spawn(async move { finish_one(running, background, grace, &bus, &task).await })
            })
            .collect();
        for ending in endings {
            ending.await.ok();
        }
    }
}

async fn finish_one(
    mut running: Running,
    background: Option<BackgroundStep>,
    grace: Duration,
    bus: &Bus,
    task: &TaskRef,
) {
    let mut seen = Seen::default();
    while let Ok(signal) = running.signals.try_recv() {
        seen.note(signal);
    }
    let early = seen.exited.as_ref().map(texts::outcome);
    let waited = timeout(LIMIT, async {
        if !seen.is_over() {
            running.stop(grace).await.ok();
            running.over(&mut seen).await;
        }
    })
    .await;
    if waited.is_err() {
        running.abandon();
    }
    match (background, &seen.trouble) {
        (Some(step), _) => bus.send(background_ended(step, early, &seen, task)),
        (None, Some(trouble)) => {
            let message =
                format!("the output of what step {} left running is not kept to its end: {trouble}", running.id);
            bus.send(Event::Warning { task: Some(task.clone()), message });
        }
        (None, None) => {}
    }
}

fn background_ended(step: BackgroundStep, early: Option<StepOutcome>, seen: &Seen, task: &TaskRef) -> Event {
    let early = early.or(seen.trouble.clone().map(|reason| StepOutcome::Error { reason }));
    let trailers = match &early {
        Some(outcome) => texts::trailers(seen.exited.as_ref(), outcome),
        // Ended with the job, as background steps do: nothing to tell.
        None => vec![],
    };
    let digest = seen.digest.clone().unwrap_or_default();
    Event::StepEnded {
        task: task.clone(),
        step: step.step,
        attempt: step.attempt,
        name: step.name,
        trailers,
        outcome: early.unwrap_or(StepOutcome::Canceled),
        duration_ms: u64::try_from(step.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        bytes: digest.bytes,
        sha256: digest.sha256,
        origin: step.origin,
        will_rerun: false,
    }
}
