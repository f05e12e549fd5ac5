//! What a driver learns of a task while it runs: where it is, what its steps write, how it ended. Fed by the thread that writes the
//! task's events down, so everything is masked already; nothing here waits.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use navvy_environment::cgroup::Parent;
use navvy_job::event::{Event, Stamped};
use navvy_job::outcome::{CancelReason, Verdict};
use navvy_job::scheduled::Progress;
use navvy_job::state::TaskState;
use navvy_plain_file as plain_file;
use rustix::fs::OFlags;

use super::directory::one_line;
use super::pipe::Pipe;

/// Not more than one line in this time.
const PAUSE: Duration = Duration::from_secs(1);
/// A driver reads all of it. A job with more steps than fit tells no more than its end.
const MOST_BYTES: u64 = 256 << 10;
/// Of one line.
const MOST_MESSAGE: usize = 512;

/// Cheap to clone.
#[derive(Clone)]
pub struct Onlooker(Arc<Inner>);

struct Inner {
    output: Option<Pipe>,
    cgroup: Option<Parent>,
    seen: Mutex<Seen>,
}

struct Seen {
    progress: File,
    bytes: u64,
    steps: usize,
    /// Not told yet: another may take its place before its time comes.
    waiting: Option<String>,
    last: String,
    told: Option<Instant>,
    verdict: Option<Verdict>,
    oom_killed: bool,
}

impl Onlooker {
    /// `output`: where steps' output goes, if it is wanted.
    ///
    /// # Errors
    /// The progress file is none of ours.
    pub fn new(progress: &Path, output: Option<Pipe>, cgroup: Option<Parent>) -> io::Result<Self> {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
        let opened = File::options().append(true).create(true).mode(0o600).custom_flags(flags).open(progress)?;
        let file = plain_file::regular(opened)?;
        let seen = Seen {
            bytes: file.metadata()?.len(),
            progress: file,
            steps: 0,
            waiting: None,
            last: String::new(),
            told: None,
            verdict: None,
            oom_killed: false,
        };
        Ok(Self(Arc::new(Inner { output, cgroup, seen: Mutex::new(seen) })))
    }

    pub fn wants_output(&self) -> bool {
        self.0.output.is_some()
    }

    /// Of a task that another agent has begun: how many steps it has.
    pub fn goes_on(&self, steps: usize) {
        self.lock().steps = steps;
    }

    /// An event of the task.
    pub fn see(&self, stamped: &Stamped) {
        if let (Event::Output { bytes, .. }, Some(pipe)) = (&stamped.event, &self.0.output) {
            return pipe.push(bytes);
        }
        if matches!(stamped.event, Event::StepEnded { .. } | Event::TaskState { .. } | Event::TaskEnded { .. }) {
            self.count_kills();
        }
        let mut seen = self.lock();
        match &stamped.event {
            Event::TaskStarted { steps, .. } => seen.steps = steps.len(),
            Event::TaskEnded { verdict, .. } => seen.verdict = Some(verdict.clone()),
            _ => {}
        }
        if let Some(message) = message_of(&stamped.event, seen.steps) {
            seen.say(message);
        }
        seen.tell(Instant::now());
    }

    /// Time goes by.
    pub fn tick(&self) {
        self.lock().tell(Instant::now());
    }

    /// The kernel's counts go with the containers.
    fn count_kills(&self) {
        let has_killed = self.0.cgroup.as_ref().is_some_and(|cgroup| cgroup.oom_kills() > 0);
        self.lock().oom_killed |= has_killed;
    }

    pub fn oom_killed(&self) -> bool {
        self.count_kills();
        self.lock().oom_killed
    }

    /// How the task ended, if it came to that.
    pub fn verdict(&self) -> Option<Verdict> {
        self.lock().verdict.clone()
    }

    /// The last line, told in any case.
    pub fn end(&self, message: &str) {
        let mut seen = self.lock();
        seen.waiting = None;
        seen.write(message);
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn say(&mut self, message: String) {
        let is_news = *self.waiting.as_ref().unwrap_or(&self.last) != message;
        if is_news {
            self.waiting = Some(message);
        }
    }

    fn tell(&mut self, now: Instant) {
        if self.told.is_some_and(|told| now.duration_since(told) < PAUSE) || self.bytes >= MOST_BYTES {
            return;
        }
        if let Some(message) = self.waiting.take() {
            self.write(&message);
            (self.last, self.told) = (message, Some(now));
        }
    }

    fn write(&mut self, message: &str) {
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let at_ms = u64::try_from(at_ms).unwrap_or(u64::MAX);
        let progress = Progress { at_ms, message: one_line(message, MOST_MESSAGE) };
        tracing::info!("{}", progress.message);
        let Ok(mut line) = serde_json::to_vec(&progress) else { return };
        line.push(b'\n');
        // A full disk: the job does not end for want of a word about it.
        if let Err(error) = self.progress.write_all(&line) {
            tracing::debug!(%error, "A line of progress could not be written.");
        }
        self.bytes += line.len() as u64;
    }
}

fn message_of(event: &Event, steps: usize) -> Option<String> {
    match event {
        Event::Progress { what, .. } => {
            Some(what.strip_prefix("pulling ").map_or_else(|| what.clone(), |image| format!("Pulling image {image}")))
        }
        Event::TaskState { state: TaskState::Preparing, .. } => Some("Preparing the environment".to_owned()),
        // 0 is the environment's report.
        Event::StepStarted { step: 0, .. } => None,
        Event::StepStarted { step, name, .. } if *step > steps => Some(format!("Step {step}: {name}")),
        Event::StepStarted { step, name, .. } => Some(format!("Step {step} of {steps}: {name}")),
        Event::TaskEnded { .. } => Some("Uploading output".to_owned()),
        _ => None,
    }
}

/// A task's end as a sentence.
pub fn in_words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Passed => "The job passed.".to_owned(),
        Verdict::Failed { step: 0, name } => format!("The job failed: {name}."),
        Verdict::Failed { step, name } => format!("The job failed at step {step}: {name}."),
        Verdict::Canceled { reason } => format!("The job was canceled: {}.", why(*reason)),
        Verdict::TimedOut { limit } => {
            format!("The job was ended: its time of {} was over.", navvy_job::figures::limit(*limit))
        }
        Verdict::Infra { fault } => format!("The job could not be carried out: {fault}."),
    }
}

fn why(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::User => "a person asked for it",
        CancelReason::Shutdown => "its agent was told to end",
        CancelReason::LeaseLost => "the right to run it was lost",
        CancelReason::Drain => "its node was drained",
        CancelReason::Limit => "a limit of its task was reached",
    }
}
