//! What a task and its helpers say beside output. Every event about a step is made here.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use navvy_job::event::{Event, TaskRef};
use navvy_job::figures::millis;
use navvy_job::outcome::{SkipReason, StepOutcome};
use navvy_output::LogDigest;

use crate::bus::Bus;
use crate::spool::Spool;

/// Which attempt at which step, and what people call it.
#[derive(Debug, Clone)]
pub struct StepRef {
    /// From 1; 0 is the environment.
    pub number: usize,
    /// From 1.
    pub attempt: u32,
    pub name: String,
    /// Its key in the config.
    pub kind: String,
    /// Where it stands in the config.
    pub origin: Option<String>,
}

/// How a step ended, as its event says it.
pub struct StepEnded {
    pub outcome: StepOutcome,
    pub duration: Duration,
    pub trailers: Vec<String>,
    /// Of its output.
    pub digest: LogDigest,
    pub will_rerun: bool,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Voice {
    pub bus: Bus,
    pub task: TaskRef,
    /// Rung by whoever writes a log.
    pub spool: Spool,
    warnings: Arc<AtomicUsize>,
    repeated: Arc<Mutex<Vec<String>>>,
    /// The environment is being destroyed: what ends now ends by our hand.
    releasing: Arc<AtomicBool>,
}

impl Voice {
    pub fn new(bus: Bus, task: TaskRef) -> Self {
        let (warnings, repeated, releasing) = Default::default();
        Self { bus, task, spool: Spool::default(), warnings, repeated, releasing }
    }

    /// The same, whose output is delivered.
    #[must_use]
    pub fn spooled(self, spool: Spool) -> Self {
        Self { spool, ..self }
    }

    pub fn warn(&self, message: String) {
        self.warnings.fetch_add(1, Ordering::Relaxed);
        self.bus.send(Event::Warning { task: Some(self.task.clone()), message });
    }

    /// One that people who read nothing but the run's report must not miss.
    pub fn warn_in_report(&self, message: String) {
        let line = format!("{}: {message}", self.task.job.job);
        self.repeated.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        self.warn(message);
    }

    /// How many warnings there were.
    pub fn warnings(&self) -> usize {
        self.warnings.load(Ordering::Relaxed)
    }

    /// Those that the run's report repeats.
    pub fn take_repeated(&self) -> Vec<String> {
        std::mem::take(&mut self.repeated.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same, for another process.
    pub fn repeated(&self) -> Vec<String> {
        self.repeated.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What another process has said of the task counts.
    pub fn take_up(&self, warnings: usize, repeated: Vec<String>) {
        self.warnings.store(warnings, Ordering::Relaxed);
        *self.repeated.lock().unwrap_or_else(PoisonError::into_inner) = repeated;
    }

    /// From now on what ends is ended by us.
    pub fn release(&self) {
        self.releasing.store(true, Ordering::Relaxed);
    }

    pub fn is_releasing(&self) -> bool {
        self.releasing.load(Ordering::Relaxed)
    }

    /// `log`: where its output goes.
    pub fn step_started(&self, at: &StepRef, background: bool, header: Option<String>, log: PathBuf) {
        self.bus.send(Event::StepStarted {
            task: self.task.clone(),
            step: at.number,
            attempt: at.attempt,
            name: at.name.clone(),
            kind: at.kind.clone(),
            background,
            header,
            log,
        });
    }

    pub fn step_ended(&self, at: &StepRef, ended: StepEnded) {
        let StepEnded { outcome, duration, trailers, digest, will_rerun } = ended;
        self.bus.send(Event::StepEnded {
            task: self.task.clone(),
            step: at.number,
            attempt: at.attempt,
            name: at.name.clone(),
            outcome,
            duration_ms: millis(duration),
            trailers,
            bytes: digest.bytes,
            sha256: digest.sha256,
            origin: at.origin.clone(),
            will_rerun,
        });
    }

    pub fn step_skipped(&self, step: usize, name: &str, why: SkipReason) {
        self.bus.send(Event::StepSkipped { task: self.task.clone(), step, name: name.to_owned(), why });
    }
}
