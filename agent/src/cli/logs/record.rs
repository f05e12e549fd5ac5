//! A run as its directory tells of it: `events.jsonl` for names and ends, the files for what there is.
//!
//! The record of a run that died may end in the middle of a line, or be missing: names are then missing, too, and the logs
//! are still there.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use navvy_job::event::LogOf;
use navvy_job::id::TaskId;
use navvy_job::outcome::{StepOutcome, Verdict};
use navvy_output::logs_in;
use navvy_output::reader::Prefix;
use navvy_plain_file as plain_file;
use navvy_ui::describe;
use navvy_ui::sanitize::first_line;
use serde_json::Value;

/// A run and its tasks, in the order in which they started.
#[derive(Debug, Default)]
pub struct RunRecord {
    pub directory: PathBuf,
    pub tasks: Vec<TaskRecord>,
    /// Its last event came.
    pub exit_code: Option<u64>,
}

#[derive(Debug)]
pub struct TaskRecord {
    pub id: TaskId,
    pub workflow: String,
    /// Empty when no event tells it.
    pub job: String,
    /// From 0, and how many.
    pub node: (u64, u64),
    pub verdict: Option<String>,
    /// Steps first, in order; services last.
    pub logs: Vec<LogRecord>,
}

#[derive(Debug)]
pub struct LogRecord {
    pub of: LogOf,
    /// Empty when no event tells it.
    pub name: String,
    /// How the attempt ended, in words.
    pub state: Option<String>,
    pub path: PathBuf,
    /// What its end said of it.
    pub prefix: Option<Prefix>,
}

impl RunRecord {
    pub fn read(directory: &Path) -> io::Result<Self> {
        let mut run = Self { directory: directory.to_owned(), ..Self::default() };
        match plain_file::open(&directory.join("events.jsonl")) {
            Ok(file) => {
                for line in BufReader::new(file).split(b'\n') {
                    // What is no event (the last line of a run that died) has nothing to tell.
                    if let Ok(event) = serde_json::from_slice(&line?) {
                        run.take(&event);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        run.look_at_files()?;
        Ok(run)
    }

    fn take(&mut self, event: &Value) {
        let directory = self.directory.clone();
        let kind = text(event, "event");
        if kind == "run_ended" {
            self.exit_code = event.get("exit_code").and_then(Value::as_u64);
        }
        let Some(id) = event.get("task").and_then(Value::as_str).and_then(|id| id.parse().ok()) else { return };
        let task = self.task(&id);
        match kind {
            "task_started" => {
                task.workflow = text(event, "workflow").to_owned();
                task.job = text(event, "job").to_owned();
                task.node = (number(event, "node_index"), number(event, "node_total"));
            }
            "step_started" => task.log(step_of(event), &directory).name = text(event, "name").to_owned(),
            "service_started" => {
                let of = LogOf::Service { service: size(event, "service") };
                task.log(of, &directory).name = text(event, "name").to_owned();
            }
            "step_ended" => {
                let log = task.log(step_of(event), &directory);
                log.name = text(event, "name").to_owned();
                log.state = event.get("outcome").and_then(|it| outcome(it.clone()));
                log.prefix = prefix(event);
            }
            "task_logs" => task.logs_ended(event, &directory),
            "task_ended" => task.verdict = verdict(event.clone()),
            _ => {}
        }
    }

    fn task(&mut self, id: &TaskId) -> &mut TaskRecord {
        let known = self.tasks.iter().position(|task| task.id == *id).unwrap_or_else(|| {
            self.tasks.push(TaskRecord::new(id.clone()));
            self.tasks.len() - 1
        });
        &mut self.tasks[known]
    }

    /// Adds what no event tells of; what an event tells of stays, also without a file.
    fn look_at_files(&mut self) -> io::Result<()> {
        let directory = self.directory.clone();
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let task = self.task(&id);
            for (of, _) in logs_in(&entry.path())? {
                task.log(of, &directory);
            }
        }
        for task in &mut self.tasks {
            task.logs.sort_by(|a, b| a.of.cmp(&b.of));
        }
        Ok(())
    }
}

impl TaskRecord {
    fn new(id: TaskId) -> Self {
        Self { id, workflow: String::new(), job: String::new(), node: (0, 1), verdict: None, logs: Vec::new() }
    }

    fn log(&mut self, of: LogOf, run: &Path) -> &mut LogRecord {
        let known = self.logs.iter().position(|log| log.of == of).unwrap_or_else(|| {
            let path = run.join(self.id.as_str()).join(file_name(&of));
            self.logs.push(LogRecord { of, name: String::new(), state: None, path, prefix: None });
            self.logs.len() - 1
        });
        &mut self.logs[known]
    }

    fn logs_ended(&mut self, event: &Value, run: &Path) {
        for end in event.get("logs").and_then(Value::as_array).into_iter().flatten() {
            let of = match end.get("service") {
                Some(_) => LogOf::Service { service: size(end, "service") },
                None => step_of(end),
            };
            if let Some(prefix) = prefix(end) {
                self.log(of, run).prefix = Some(prefix);
            }
        }
    }

    /// The words by which the task can be called beside its id.
    pub fn is_called(&self, word: &str) -> bool {
        let names = [self.job.clone(), format!("{}/{}", self.workflow, self.job)];
        let node = format!("[{}/{}]", self.node.0 + 1, self.node.1);
        !self.job.is_empty() && names.iter().any(|name| name == word || format!("{name}{node}") == word)
    }

    /// For people: `build`, `build[2/4]`, or the id.
    pub fn label(&self) -> String {
        match (self.job.as_str(), self.node) {
            ("", _) => format!("task {}", self.id),
            (job, (_, 0 | 1)) => first_line(job),
            (job, (index, total)) => format!("{}[{}/{total}]", first_line(job), index + 1),
        }
    }
}

impl LogRecord {
    /// As the command line names it: `3`, `3-2`, `service:postgres`.
    pub fn word(&self) -> String {
        match self.of {
            LogOf::Step { step, attempt: 1 } => step.to_string(),
            LogOf::Step { step, attempt } => format!("{step}-{attempt}"),
            LogOf::Service { service } if self.name.is_empty() => format!("service:{service}"),
            LogOf::Service { .. } => format!("service:{}", first_line(&self.name)),
        }
    }

    /// `step 3 (Unit tests)`, `service postgres`.
    pub fn label(&self) -> String {
        let name = first_line(&self.name);
        match (&self.of, name.as_str()) {
            (LogOf::Step { .. }, "") => format!("step {}", self.word()),
            (LogOf::Step { .. }, name) => format!("step {} ({name})", self.word()),
            (LogOf::Service { service }, "") => format!("service {service}"),
            (LogOf::Service { .. }, name) => format!("service {name}"),
        }
    }
}

fn file_name(of: &LogOf) -> String {
    match of {
        LogOf::Step { step, attempt } => format!("{step:03}-{attempt}.log"),
        LogOf::Service { service } => format!("service-{service}.log"),
    }
}

fn step_of(event: &Value) -> LogOf {
    let attempt = u32::try_from(number(event, "attempt")).unwrap_or(u32::MAX);
    LogOf::Step { step: size(event, "step"), attempt }
}

/// `None` where nothing could be written, or sealed.
fn prefix(event: &Value) -> Option<Prefix> {
    let sha256 = text(event, "sha256");
    (!sha256.is_empty()).then(|| Prefix { bytes: number(event, "bytes"), sha256: sha256.to_owned() })
}

fn outcome(value: Value) -> Option<String> {
    serde_json::from_value::<StepOutcome>(value).ok().map(|outcome| describe::outcome(&outcome))
}

fn verdict(event: Value) -> Option<String> {
    serde_json::from_value::<Verdict>(event).ok().map(|verdict| describe::verdict(&verdict))
}

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(event: &Value, key: &str) -> u64 {
    event.get(key).and_then(Value::as_u64).unwrap_or_default()
}

fn size(event: &Value, key: &str) -> usize {
    usize::try_from(number(event, key)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "000000000036d984";

    fn run(events: &str) -> (tempfile::TempDir, RunRecord) {
        let directory = tempfile::tempdir().unwrap();
        let task = directory.path().join(TASK);
        fs::create_dir(&task).unwrap();
        for name in ["001-1.log", "001-2.log", "service-0.log"] {
            fs::write(task.join(name), "").unwrap();
        }
        fs::write(directory.path().join("events.jsonl"), events).unwrap();
        let run = RunRecord::read(directory.path()).unwrap();
        (directory, run)
    }

    fn words(run: &RunRecord) -> Vec<String> {
        run.tasks[0].logs.iter().map(LogRecord::label).collect()
    }

    #[test]
    fn events_give_names_and_ends_and_a_torn_last_line_does_not_matter() {
        let events = format!(
            r#"{{"event":"task_started","task":"{TASK}","workflow":"ci","job":"unit","node_index":1,"node_total":2}}
{{"event":"service_started","task":"{TASK}","service":0,"name":"postgres"}}
{{"event":"step_ended","task":"{TASK}","step":1,"attempt":2,"name":"Unit\ntests","outcome":{{"outcome":"exit_code","code":3}},"bytes":4,"sha256":"ab"}}
{{"event":"step_started","task":"{TASK}","step":2,"attempt":1,"name":"Gone"}}
{{"event":"task_ended","task":"{TASK}","verdict":"failed","step":1,"na"#
        );
        let (_directory, run) = run(&events);
        assert_eq!(words(&run), ["step 1", "step 1-2 (Unit …)", "step 2 (Gone)", "service postgres"]);
        let task = &run.tasks[0];
        assert_eq!((task.label().as_str(), &task.verdict, run.exit_code), ("unit[2/2]", &None, None));
        assert!(["unit", "ci/unit", "unit[2/2]", "ci/unit[2/2]"].iter().all(|word| task.is_called(word)));
        assert!(!task.is_called("unit[1/2]"));
        assert_eq!(task.logs[1].state.as_deref(), Some("exit code 3"));
        assert_eq!(task.logs[1].prefix, Some(Prefix { bytes: 4, sha256: "ab".to_owned() }));
    }

    #[test]
    fn without_events_the_files_tell_what_there_is() {
        let (_directory, run) = run("no event at all");
        assert_eq!(words(&run), ["step 1", "step 1-2", "service 0"]);
        assert_eq!(run.tasks[0].label(), format!("task {TASK}"));
    }

    #[test]
    fn the_end_of_a_task_tells_more_than_that_of_a_step() {
        let events = format!(
            r#"{{"event":"step_ended","task":"{TASK}","step":1,"attempt":1,"name":"a","outcome":{{"outcome":"success"}},"bytes":4,"sha256":"ab"}}
{{"event":"task_logs","task":"{TASK}","logs":[{{"step":1,"attempt":1,"bytes":9,"sha256":"cd"}},{{"service":0,"bytes":1,"sha256":null}}]}}
{{"event":"run_ended","exit_code":1}}
"#
        );
        let (_directory, run) = run(&events);
        assert_eq!(run.tasks[0].logs[0].prefix, Some(Prefix { bytes: 9, sha256: "cd".to_owned() }));
        assert_eq!((run.tasks[0].logs[2].prefix.clone(), run.exit_code), (None, Some(1)));
    }

    #[test]
    fn a_hostile_record_names_no_file_of_its_own() {
        let (directory, run) =
            run(r#"{"event":"step_started","task":"../../etc","step":1,"attempt":1,"log":"/etc/passwd"}"#);
        assert!(run.tasks.iter().flat_map(|task| &task.logs).all(|log| log.path.starts_with(directory.path())));
    }
}
