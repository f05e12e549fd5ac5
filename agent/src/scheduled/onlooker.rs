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

    /// Of a task that another agent has begun: how many steps it has, and the one at hand, which is not told of again.
    pub fn goes_on(&self, steps: usize, at_hand: Option<(usize, &str)>) {
        let mut seen = self.lock();
        seen.steps = steps;
        if let Some((number, name)) = at_hand {
            seen.say(step(number, steps, name));
            seen.tell(Instant::now());
        }
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
        // Where they cannot be read, they may be next time: it is looked at again and again.
        let has_killed = self.0.cgroup.as_ref().is_some_and(|cgroup| cgroup.oom_kills().is_ok_and(|kills| kills > 0));
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
            // Counted from behind it, so that by their own times two lines are never closer.
            (self.last, self.told) = (message, Some(Instant::now()));
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
        Event::StepStarted { step: number, name, .. } => Some(step(*number, steps, name)),
        Event::TaskEnded { .. } => Some("Uploading output".to_owned()),
        _ => None,
    }
}

fn step(number: usize, steps: usize, name: &str) -> String {
    match number > steps {
        true => format!("Step {number}: {name}"),
        false => format!("Step {number} of {steps}: {name}"),
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
        Verdict::Infra { fault } => format!("The job could not be carried out: {}.", fault.trim_end_matches('.')),
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

#[cfg(test)]
mod tests {
    use navvy_job::event::{JobRef, TaskRef};

    use super::*;

    fn onlooker() -> (tempfile::TempDir, Onlooker) {
        let directory = tempfile::tempdir().unwrap();
        let onlooker = Onlooker::new(&directory.path().join("progress"), None, None).unwrap();
        (directory, onlooker)
    }

    fn told(directory: &tempfile::TempDir) -> Vec<String> {
        let text = std::fs::read_to_string(directory.path().join("progress")).unwrap();
        text.lines().map(|line| serde_json::from_str::<Progress>(line).unwrap().message).collect()
    }

    fn task() -> TaskRef {
        let job = JobRef { workflow: "w".to_owned(), job: "build".to_owned() };
        TaskRef { task: "0123456789abcdef".parse().unwrap(), job, node_index: 0, node_total: 1 }
    }

    fn see(onlooker: &Onlooker, event: Event) {
        onlooker.see(&Stamped { at_ms: 0, time: String::new(), event });
    }

    fn pulls(image: &str, done: u64) -> Event {
        Event::Progress { task: task(), what: format!("pulling {image}"), done, total: None }
    }

    #[test]
    fn what_comes_too_soon_waits_and_the_newest_of_it_is_told() {
        let (directory, onlooker) = onlooker();
        for done in 0..100 {
            see(&onlooker, pulls("a", done));
        }
        see(&onlooker, pulls("b", 0));
        see(&onlooker, pulls("c", 0));
        assert_eq!(told(&directory), ["Pulling image a"]);
        let now = Instant::now();
        onlooker.lock().tell(now + PAUSE);
        onlooker.lock().tell(now + 2 * PAUSE);
        assert_eq!(told(&directory), ["Pulling image a", "Pulling image c"]);
        see(&onlooker, pulls("d", 0));
        onlooker.end("The job passed.");
        assert_eq!(told(&directory)[2..], ["The job passed."], "what waits is out of date");
    }

    #[test]
    fn a_job_of_many_steps_fills_no_disk_and_tells_its_end() {
        let (directory, onlooker) = onlooker();
        let now = Instant::now();
        for second in 0..5000 {
            let mut seen = onlooker.lock();
            seen.say(format!("Step {second} of 5000: {}", "x".repeat(2 * MOST_MESSAGE)));
            seen.tell(now + second * PAUSE);
        }
        onlooker.end("The job passed.");
        let size = std::fs::metadata(directory.path().join("progress")).unwrap().len();
        assert!(size < MOST_BYTES + 2 * MOST_MESSAGE as u64, "{size}");
        assert_eq!(told(&directory).last().unwrap(), "The job passed.");
    }

    #[test]
    fn what_is_there_and_none_of_ours_is_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "mine").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(Onlooker::new(&link, None, None).is_err() && Onlooker::new(directory.path(), None, None).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }

    #[test]
    fn ends_are_sentences() {
        let words = |verdict| in_words(&verdict);
        let failed = |step| Verdict::Failed { step, name: "Run tests".to_owned() };
        assert_eq!(words(failed(3)), "The job failed at step 3: Run tests.");
        assert_eq!(words(failed(0)), "The job failed: Run tests.");
        assert_eq!(
            words(Verdict::Canceled { reason: CancelReason::Drain }),
            "The job was canceled: its node was drained."
        );
        assert_eq!(
            words(Verdict::TimedOut { limit: Duration::from_secs(3600) }),
            "The job was ended: its time of 1h was over."
        );
    }
}
