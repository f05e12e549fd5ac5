//! A run that is over.

use std::fs;
use std::path::PathBuf;

use crate::event::Event;

/// What came of a run.
#[must_use]
#[derive(Debug)]
pub struct Finished {
    /// 128 + the signal's number for a process that a signal ended.
    pub exit_code: i32,
    pub events: Vec<Event>,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// The agent's largest resident set, in KiB.
    pub peak_kib: u64,
    /// The same of the programs that it ran on this host, together.
    pub programs_peak_kib: u64,
}

/// An attempt at a step that is over.
#[derive(Debug, Clone)]
pub struct Step {
    pub outcome: String,
    pub trailers: Vec<String>,
    pub attempt: u64,
    pub duration_ms: u64,
    pub bytes: u64,
    pub sha256: String,
    pub event: Event,
}

impl Finished {
    /// Everything that helps to see why a story went another way. What tells of a failure is first: whoever shows a part
    /// of this shows its beginning.
    pub fn account(&self) -> String {
        let failures = self.events.iter().filter(|event| event.tells_failure()).map(Event::summary);
        let events: Vec<String> =
            self.events.iter().filter(|event| !event.is("progress")).map(Event::summary).collect();
        let shown = events.len().saturating_sub(60);
        format!(
            "exit code {}\n--- stderr\n{}\n--- failures\n{}\n--- events{}\n{}",
            self.exit_code,
            self.stderr,
            failures.collect::<Vec<_>>().join("\n"),
            if shown > 0 { " (the last 60)" } else { "" },
            events[shown..].join("\n")
        )
    }

    #[track_caller]
    pub fn exits_with(&self, code: i32) -> &Self {
        assert_eq!(self.exit_code, code, "the exit code is another one; {}", self.account());
        self
    }

    #[track_caller]
    pub fn passes(&self) -> &Self {
        self.exits_with(0)
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error holds all of these.
    #[track_caller]
    pub fn complains(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not said; {}", self.account());
        }
        self
    }

    /// No job was even begun.
    #[track_caller]
    pub fn ran_nothing(&self) -> &Self {
        assert!(!self.events.iter().any(|event| event.is("task_started")), "something ran; {}", self.account());
        self
    }

    /// Ids of the tasks of the run.
    pub fn tasks(&self) -> Vec<String> {
        let started = self.events.iter().filter(|event| event.is("task_started"));
        started.filter_map(|event| event.task().map(str::to_owned)).collect()
    }

    /// The first event that fits.
    #[track_caller]
    pub fn event(&self, what: &str, fits: impl Fn(&Event) -> bool) -> &Event {
        let found = self.events.iter().find(|event| fits(event));
        found.unwrap_or_else(|| panic!("no event: {what}; {}", self.account()))
    }

    fn of_job<'a>(&'a self, kind: &str, job: &str) -> impl Iterator<Item = &'a Event> + use<'a> {
        let (kind, job) = (kind.to_owned(), job.to_owned());
        self.events.iter().filter(move |event| event.is(&kind) && event.job() == job)
    }

    /// `passed`, `failed`, … of a job with one task.
    #[track_caller]
    pub fn verdict(&self, job: &str) -> String {
        self.task_ended(job, "verdict")
    }

    /// `user`, `shutdown`, … of a job with one task that was canceled.
    #[track_caller]
    pub fn why_canceled(&self, job: &str) -> String {
        self.task_ended(job, "reason")
    }

    #[track_caller]
    fn task_ended(&self, job: &str, field: &str) -> String {
        let ended = self.of_job("task_ended", job).last();
        let ended = ended.unwrap_or_else(|| panic!("job {job} has no verdict; {}", self.account()));
        ended.text(field).to_owned()
    }

    /// How a job ended: `ran`, `held`, `not_run`, `not_available`, `passed`.
    #[track_caller]
    pub fn end(&self, job: &str) -> String {
        self.end_event(job).get("end").get("end").and_then(|end| end.as_str()).unwrap_or_default().to_owned()
    }

    /// Why it ended so, in the words of the event.
    #[track_caller]
    pub fn end_words(&self, job: &str) -> String {
        self.end_event(job).get("end").to_string()
    }

    #[track_caller]
    fn end_event(&self, job: &str) -> &Event {
        let ended = self.of_job("job_ended", job).last();
        ended.unwrap_or_else(|| panic!("job {job} has no end; {}", self.account()))
    }

    /// The last attempt at a step.
    #[track_caller]
    pub fn step(&self, job: &str, name: &str) -> Step {
        let mut attempts = self.attempts(job, name);
        attempts.pop().unwrap_or_else(|| panic!("step {name:?} of {job} has no end; {}", self.account()))
    }

    pub fn attempts(&self, job: &str, name: &str) -> Vec<Step> {
        let ended = self.of_job("step_ended", job).filter(|event| event.name() == name);
        let step = |event: &Event| Step {
            outcome: event.get("outcome").get("outcome").and_then(|o| o.as_str()).unwrap_or_default().to_owned(),
            trailers: event.texts("trailers"),
            attempt: event.number("attempt"),
            duration_ms: event.number("duration_ms"),
            bytes: event.number("bytes"),
            sha256: event.text("sha256").to_owned(),
            event: event.clone(),
        };
        ended.map(step).collect()
    }

    /// Why a step was not run: `job_failed`, `halted`, …
    #[track_caller]
    pub fn skipped(&self, job: &str, name: &str) -> String {
        let skipped = self.of_job("step_skipped", job).find(|event| event.name() == name);
        skipped.unwrap_or_else(|| panic!("step {name:?} was not skipped; {}", self.account())).text("why").to_owned()
    }

    /// Did a step start at all?
    pub fn started(&self, job: &str, name: &str) -> bool {
        self.of_job("step_started", job).any(|event| event.name() == name)
    }

    /// Exactly what a step wrote, all attempts one after another.
    #[track_caller]
    pub fn log(&self, job: &str, name: &str) -> Vec<u8> {
        let paths = self.log_paths(job, name);
        assert!(!paths.is_empty(), "step {name:?} of {job} never started; {}", self.account());
        let read = |path: &PathBuf| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        paths.iter().flat_map(read).collect()
    }

    pub fn log_paths(&self, job: &str, name: &str) -> Vec<PathBuf> {
        let started = self.of_job("step_started", job).filter(|event| event.name() == name);
        started.map(|event| PathBuf::from(event.text("log"))).collect()
    }

    /// The log as text.
    #[track_caller]
    pub fn text(&self, job: &str, name: &str) -> String {
        String::from_utf8_lossy(&self.log(job, name)).into_owned()
    }

    /// Logs of the job's service containers, in the order of the config.
    #[track_caller]
    pub fn service_logs(&self, job: &str) -> Vec<Vec<u8>> {
        let task = self.of_job("task_started", job).next().and_then(Event::task).expect("the job ran").to_owned();
        let logs = PathBuf::from(self.event("the run's start", |event| event.is("run_started")).text("logs"));
        let path = |index: usize| logs.join(&task).join(format!("service-{index}.log"));
        (0..)
            .map(path)
            .take_while(|path| path.exists())
            .map(|path| fs::read(path).expect("a log is readable"))
            .collect()
    }

    /// Lines of "Spin up environment".
    pub fn report(&self, job: &str) -> String {
        self.of_job("report", job).map(|event| event.text("line").to_owned() + "\n").collect()
    }

    pub fn warnings(&self) -> String {
        let warnings = self.events.iter().filter(|event| event.is("warning"));
        warnings.map(|event| event.text("message").to_owned() + "\n").collect()
    }

    /// When a job's first step began and its last task ended, in milliseconds of the run.
    #[track_caller]
    pub fn span(&self, job: &str) -> (u64, u64) {
        let start = self.of_job("step_started", job).map(Event::at_ms).min();
        let end = self.of_job("task_ended", job).map(Event::at_ms).max();
        start.zip(end).unwrap_or_else(|| panic!("job {job} did not run; {}", self.account()))
    }
}
