//! What happens during a run, as values. `--json` prints one a line; the terminal views draw them.
//!
//! Documented for users in `docs/events.md`; fields are only ever added.

#[cfg(any(test, feature = "examples"))]
pub mod examples;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::TaskId;
use crate::outcome::{JobStatus, SkipReason, StepOutcome, Verdict};
use crate::resource::Size;
use crate::state::TaskState;

/// An event with the moment it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// Milliseconds since the run started (monotonic).
    pub at_ms: u64,
    /// RFC 3339, UTC.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// An event as it comes from another program, which may be newer than this one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Received {
    /// One that this version knows.
    Known(Box<Stamped>),
    /// One that it does not know, or that says what it does not know: to be passed over.
    Unknown {
        /// Its name.
        event: String,
    },
}

/// Names a job of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobRef {
    /// Its workflow's name.
    pub workflow: String,
    /// Its own name, which is unique in the workflow.
    pub job: String,
}

/// Names one task for people: its job and, where there are several, its node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskRef {
    /// The task's id.
    pub task: TaskId,
    /// Its job.
    #[serde(flatten)]
    pub job: JobRef,
    /// Which of the job's nodes, from 0.
    pub node_index: u32,
    /// How many nodes the job has.
    pub node_total: u32,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run has begun; nothing has started yet.
    RunStarted {
        /// Directory with one sub-directory a task.
        logs: PathBuf,
        /// The config's file.
        config: PathBuf,
        /// Every job that takes part, in the order of the file.
        jobs: Vec<JobRef>,
    },
    /// A setup job continued the pipeline: these jobs take part from now on, too.
    PipelineContinued {
        /// The config that the pipeline continues with.
        config: PathBuf,
        /// In the order of the file.
        jobs: Vec<JobRef>,
    },
    /// A job that is ready has to wait for room on the machine.
    JobWaiting {
        /// The job.
        #[serde(flatten)]
        job: JobRef,
        /// In words.
        why: String,
    },
    /// An approval asks for a person's word.
    ApprovalAsked {
        /// The approval.
        #[serde(flatten)]
        job: JobRef,
        /// Jobs that wait behind it.
        holds: Vec<String>,
    },
    /// A task was given to be carried out.
    TaskStarted {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// Its primary image, as far as its executor has images.
        image: Option<String>,
        /// As the config has it, or the default.
        resource_class: String,
        /// What it gets after clamping to the machine.
        size: Size,
        /// Steps of the job, in order.
        steps: Vec<String>,
    },
    /// A task has moved on.
    TaskState {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// Where it is now.
        state: TaskState,
    },
    /// One line of "Spin up environment".
    Report {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// The line, without its end.
        line: String,
    },
    /// Progress of something long, such as an image pull: shown live, never logged.
    Progress {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// What is being done.
        what: String,
        /// How much is done, in the unit of `total`.
        done: u64,
        /// How much there is to do; `None` where that is not known.
        total: Option<u64>,
    },
    /// A service container was started, and its output is being kept.
    ServiceStarted {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// Which of the task's services, from 0.
        service: usize,
        /// The config's name, else the image.
        name: String,
        /// File with exactly the container's output.
        log: PathBuf,
    },
    /// An attempt at a step has begun.
    StepStarted {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// From 1.
        step: usize,
        /// From 1.
        attempt: u32,
        /// The step's name.
        name: String,
        /// The step's key: `run`, `checkout`, …
        kind: String,
        /// The next step does not wait for its end.
        background: bool,
        /// `#!SHELL` and the command, as shown above a step's output.
        header: Option<String>,
        /// File with exactly the step's bytes.
        log: PathBuf,
    },
    /// Output, masked.
    Output {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// 0 for what does not belong to a step (service containers).
        step: usize,
        /// `stdout`, `stderr`, `service:NAME`.
        stream: String,
        /// The bytes, which may end within a character.
        #[serde(serialize_with = "lossy", deserialize_with = "from_text")]
        bytes: Vec<u8>,
    },
    /// An attempt at a step has ended.
    StepEnded {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// From 1.
        step: usize,
        /// From 1.
        attempt: u32,
        /// The step's name.
        name: String,
        /// How it ended.
        outcome: StepOutcome,
        /// The attempt's time.
        duration_ms: u64,
        /// Texts below the step's output: `Exited with code exit status 1`, `CircleCI received exit code 1`, …
        trailers: Vec<String>,
        /// Bytes in the log when the step ended.
        bytes: u64,
        /// Digest of the log when the step ended, hexadecimal.
        sha256: String,
        /// `config.yml:12`, where the step was written.
        origin: Option<String>,
        /// A further attempt follows.
        will_rerun: bool,
    },
    /// A step was not run.
    StepSkipped {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// From 1.
        step: usize,
        /// The step's name.
        name: String,
        /// Why it was not.
        #[serde(serialize_with = "broadly")]
        why: SkipReason,
    },
    /// Something that a person should know.
    Warning {
        /// The task, where it is about one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskRef>,
        /// The warning.
        message: String,
    },
    /// Ctrl-C, or another signal that asks the run to stop, was heard.
    StopAsked {
        /// Not the first one: what still runs is killed.
        at_once: bool,
        /// Every job has its verdict already: nothing is left to be stopped.
        jobs_over: bool,
    },
    /// Its environment stays for a person: `navvy shell`, `navvy retry`, `navvy rm`.
    #[serde(rename = "task_kept")]
    TaskHeld {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// The step it is held at, from 1.
        step: usize,
        /// That step's name.
        name: String,
        /// Held before that step ran, not because it failed.
        before: bool,
        /// RFC 3339, UTC.
        until: String,
    },
    /// Length and digest of each of the task's logs, also of services and of steps that continued in the background.
    TaskLogs {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// One for each log, steps first.
        logs: Vec<LogEnd>,
    },
    /// A task has ended: its verdict, logs and workspace layers are final, and none of its processes runs any more. Its
    /// environment may still exist.
    TaskEnded {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// How it ended.
        #[serde(flatten)]
        verdict: Verdict,
        /// The time that counts for the job's limit: neither waiting nor removal is part of it.
        duration_ms: u64,
        /// What was known by then of objects that cannot be removed: since the removal comes later, nothing.
        leftovers: Vec<String>,
    },
    /// Its environment is gone, or as good as it could be removed.
    TaskRemoved {
        /// The task.
        #[serde(flatten)]
        task: TaskRef,
        /// Time that the removal took.
        duration_ms: u64,
        /// Objects that could not be removed.
        leftovers: Vec<String>,
    },
    /// Every job has its verdict: the run waits for nothing but these removals. Comes again while it does.
    RemovalAwaited {
        /// Those whose environments are still there.
        tasks: Vec<TaskRef>,
    },
    /// A job has ended, or will never run.
    JobEnded {
        /// The job.
        #[serde(flatten)]
        job: JobRef,
        /// How it ended.
        end: JobEnd,
    },
    /// Everything is over.
    RunEnded(Box<Summary>),
}

/// How a job of the run ended, in more detail than `requires` knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum JobEnd {
    /// Its tasks have run, as far as they came.
    Ran {
        /// What `requires` sees.
        status: JobStatus,
        /// Duration of its longest task.
        duration_ms: u64,
        /// The step that failed, or the limit that was exceeded.
        failed_step: Option<String>,
        /// The fault, where the job is not to blame.
        infra: Option<String>,
    },
    /// Its executor is not here: neither passed nor failed.
    NotAvailable {
        /// What it would need.
        needs: String,
    },
    /// It waits for an approval that was not given.
    #[serde(rename = "held")]
    Unapproved {
        /// The approval's name.
        approval: String,
    },
    /// Its requirements were not met.
    NotRun {
        /// Reason, in words.
        why: String,
    },
    /// Its environment is held before a step, as `--break-before` asked.
    #[serde(rename = "paused")]
    Held {
        /// The step's name.
        before: String,
    },
    /// An approval given, a no-op, or `--assume passed:NAME`.
    Passed {
        /// Why it counts as passed, in words.
        how: String,
    },
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Exit code of the command.
    pub exit_code: u8,
    /// Duration of the whole run.
    pub duration_ms: u64,
    /// Every job, in the order of the file.
    pub jobs: Vec<JobSummary>,
    /// The run's directory.
    pub logs: PathBuf,
    /// What would differ on the real service, one sentence each.
    pub fidelity: Vec<String>,
    /// Warnings that a reader of the report alone must not miss.
    pub warnings: Vec<String>,
    /// Objects that could not be removed.
    pub leftovers: Vec<String>,
    /// Contexts, and the jobs that got them.
    pub contexts_given: Vec<ContextGiven>,
    /// Files of the user's own settings whose variables every job got.
    pub env_files_given: Vec<PathBuf>,
    /// What was masked where; only with `--secrets-report`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<Masked>>,
}

/// A context that jobs were given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextGiven {
    /// Its name.
    pub context: String,
    /// The jobs that got it.
    pub jobs: Vec<String>,
}

/// How a job ended, for the run's report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSummary {
    /// The job.
    #[serde(flatten)]
    pub job: JobRef,
    /// How it ended.
    #[serde(flatten)]
    pub end: JobEnd,
    /// Steps recognised and not carried out.
    pub skipped_steps: usize,
    /// The same, by why.
    pub skipped: BTreeMap<SkipReason, usize>,
    /// Number of its warnings.
    pub warnings: usize,
    /// The failed step's log.
    pub log: Option<PathBuf>,
    /// Those of other nodes that failed.
    pub other_logs: Vec<PathBuf>,
    /// Tasks of the job whose environments are held.
    #[serde(rename = "kept")]
    pub held: Vec<HeldTask>,
}

/// Where a task is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAt {
    /// From 1.
    pub step: usize,
    /// The step's name.
    pub name: String,
    /// Held before it ran, not because it failed.
    pub before: bool,
}

/// A task that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldTask {
    /// The task's id.
    pub task: TaskId,
    /// Which of the job's nodes, from 0.
    pub node_index: u32,
    /// How many nodes the job has.
    pub node_total: u32,
    /// Where.
    #[serde(flatten)]
    pub at: HeldAt,
    /// RFC 3339, UTC.
    pub until: String,
}

/// Whose log it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LogOf {
    /// The log of one attempt at a step.
    Step {
        /// From 1; 0 is "Spin up environment".
        step: usize,
        /// From 1.
        attempt: u32,
    },
    /// The log of a service container.
    Service {
        /// Which of the task's, from 0.
        service: usize,
    },
}

/// A log whose writer is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// Whose it is.
    #[serde(flatten)]
    pub of: LogOf,
    /// The file.
    pub log: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Hexadecimal, as the log was sealed; `None` when it was not.
    pub sha256: Option<String>,
}

impl LogOf {
    /// Reads the name of a log's file: `003-1.log`, `service-0.log`; `None` for any other.
    pub fn of_name(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".log")?;
        if let Some(service) = stem.strip_prefix("service-") {
            return Some(Self::Service { service: service.parse().ok()? });
        }
        let (step, attempt) = stem.split_once('-')?;
        Some(Self::Step { step: step.parse().ok()?, attempt: attempt.parse().ok()? })
    }
}

/// A line of `--secrets-report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masked {
    /// The variable's name; several, with commas, where they have the same value.
    pub secret: String,
    /// How the value was written.
    pub form: Form,
    /// The job it was in; `None` is the run itself.
    pub job: Option<String>,
    /// In words: `output of step 2`, `service db`, `step name`, `warning`.
    pub place: String,
    /// How often.
    pub count: u64,
}

/// One way a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As it is.
    Plain,
    /// One line of a value that has several.
    Line,
    /// In either alphabet.
    Base64,
    /// In either case.
    Hex,
    /// With percent signs.
    Url,
    /// As a text of JSON.
    Json,
    /// In quotes, or with backslashes.
    Shell,
    /// With entities, as XML and HTML have them.
    Xml,
    /// In a quoted text where a quote, or a backtick, stands for the escape.
    Quoted,
    /// As Windows has texts: two bytes a character, in either order.
    Utf16,
}

impl Form {
    /// As a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Plain => "as it is",
            Self::Line => "one of its lines",
            Self::Base64 => "base64",
            Self::Hex => "hexadecimal",
            Self::Url => "URL-encoded",
            Self::Json => "JSON-escaped",
            Self::Shell => "shell-quoted",
            Self::Xml => "as XML or HTML",
            Self::Quoted => "with its quotes doubled",
            Self::Utf16 => "in UTF-16",
        }
    }
}

/// Readers have known these as `not_available` from the first. Which they are is counted in the run's summary.
fn broadly<S: serde::Serializer>(why: &SkipReason, serializer: S) -> Result<S::Ok, S::Error> {
    match why {
        SkipReason::OrbMissing | SkipReason::FirstNodeOnly => SkipReason::NotAvailable.serialize(serializer),
        why => why.serialize(serializer),
    }
}

/// JSON is text: bytes that are not UTF-8 are replaced. The log file has them as they were.
fn lossy<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}

/// What [`lossy`] wrote.
fn from_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    String::deserialize(deserializer).map(String::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(event: Event) -> Stamped {
        Stamped { at_ms: 1500, time: "2026-01-02T03:04:05.500Z".to_owned(), event }
    }

    #[test]
    fn every_event_is_read_back_as_it_was_sent() {
        for event in examples::examples() {
            let sent = stamped(event);
            let text = serde_json::to_string(&sent).unwrap();
            assert_eq!(serde_json::from_str::<Stamped>(&text).unwrap(), sent, "{text}");
            let received = serde_json::from_str::<Received>(&text).unwrap();
            assert_eq!(received, Received::Known(Box::new(sent)), "{text}");
        }
    }

    #[test]
    fn every_end_of_a_job_is_read_back_as_it_was_sent() {
        let ends = [
            JobEnd::NotAvailable { needs: "macos".to_owned() },
            JobEnd::Unapproved { approval: "hold".to_owned() },
            JobEnd::Held { before: "test".to_owned() },
            JobEnd::NotRun { why: "unit failed".to_owned() },
            JobEnd::Passed { how: "approved".to_owned() },
        ];
        for end in ends {
            let sent = Event::JobEnded { job: examples::job("unit"), end };
            let text = serde_json::to_string(&sent).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), sent, "{text}");
        }
    }

    #[test]
    fn a_newer_program_s_fields_are_ignored_and_its_events_told_by_name() {
        let known = r#"{"at_ms":1,"time":"t","event":"warning","message":"m","colour":"red"}"#;
        let message = Event::Warning { task: None, message: "m".to_owned() };
        let expected = Stamped { at_ms: 1, time: "t".to_owned(), event: message };
        assert_eq!(serde_json::from_str::<Received>(known).unwrap(), Received::Known(Box::new(expected)));
        for newer in [
            r#"{"at_ms":1,"time":"t","event":"job_moved","to":"mars"}"#,
            r#"{"at_ms":1,"time":"t","event":"task_state","task":"000000000036d984","workflow":"w","job":"j","node_index":0,
                "node_total":1,"state":"floating"}"#,
        ] {
            let event = serde_json::from_str::<serde_json::Value>(newer).unwrap()["event"].as_str().unwrap().to_owned();
            assert_eq!(serde_json::from_str::<Received>(newer).unwrap(), Received::Unknown { event });
        }
        assert!(serde_json::from_str::<Received>(r#"{"at_ms":1}"#).is_err());
    }

    #[test]
    fn other_names_are_no_logs() {
        for name in ["events.jsonl", "001-1.seg", "service-x.log", "1.log", "-1.log", "a-b.log"] {
            assert_eq!(LogOf::of_name(name), None, "{name}");
        }
    }
}
