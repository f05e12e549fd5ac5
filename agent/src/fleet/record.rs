//! The thread at the end of a task's bus: events go to disk, from where they are delivered, and to those who follow the task.
//!
//! ```text
//! bus ─▶ events.jsonl ─▶ Recorded: how many whole lines there are
//!    ├─▶ where the task stands
//!    └─▶ which logs begin, pause and end
//! ```
//!
//! A disk that takes nothing for a while loses no event: they wait in memory, up to a limit.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use navvy_job::event::{Event, LogEnd, Stamped};
use navvy_job::state::TaskState;
use navvy_ui::json::add_line;
use tokio::sync::{mpsc, watch};

use crate::bus::Events;
use crate::scheduled::Onlooker;

/// Lines that the disk does not take are tried again so often.
const TICK: Duration = Duration::from_millis(200);
/// Bytes of lines that wait for the disk.
const MOST_WAITING: usize = 4 << 20;

/// A task's events are never longer.
const MOST_RECORDED: u64 = 1 << 30;

/// What is in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Whole lines.
    pub lines: u64,
    /// Nothing more comes.
    pub closed: bool,
    /// Why not all events are in it.
    pub trouble: Option<String>,
    /// All logs that there are, with their ends: once nothing is written to them any more.
    pub logs: Vec<LogEnd>,
}

/// What a task's events say of its logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogNews {
    /// Something will be written there.
    Begins(String),
    /// Its step has ended. What the step left running may still write.
    Pauses(String),
    /// All that there are, with their ends.
    Over(Vec<LogEnd>),
}

/// Who learns of events.
pub struct Followers {
    pub recorded: watch::Sender<Recorded>,
    pub state: watch::Sender<TaskState>,
    pub logs: mpsc::UnboundedSender<LogNews>,
    pub onlooker: Option<Onlooker>,
}

/// Starts the thread. It ends when the task is done, or every sender of events is gone.
///
/// # Errors
/// The file cannot be made, or the system gives no thread.
pub fn start(events: Events, path: &Path, followers: Followers) -> io::Result<JoinHandle<()>> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let record = Record {
        file,
        at: 0,
        waiting: Vec::new(),
        lines: 0,
        whole: Recorded::default(),
        followers,
        told: BTreeSet::new(),
    };
    std::thread::Builder::new().name("record".to_owned()).spawn(move || record.run(&events))
}

/// The same for a task that another agent of it has recorded before: what it had told is not told again.
///
/// # Errors
/// The file is not there or cannot be read, or the system gives no thread.
pub fn resume(events: Events, path: &Path, followers: Followers) -> io::Result<JoinHandle<()>> {
    let text = navvy_plain_file::read(path, MOST_RECORDED)?;
    // A line that the other agent did not live to finish never counted.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let file = File::options().write(true).open(path)?;
    file.set_len(whole as u64)?;
    let mut told = BTreeSet::new();
    let mut lines = 0;
    for line in text[..whole].split_inclusive(|byte| *byte == b'\n') {
        lines += 1;
        told.extend(serde_json::from_slice::<serde_json::Value>(line).ok().as_ref().and_then(key));
    }
    let known = Recorded { lines, ..Recorded::default() };
    followers.recorded.send_replace(known.clone());
    let record = Record { file, at: whole as u64, waiting: Vec::new(), lines: 0, whole: known, followers, told };
    std::thread::Builder::new().name("record".to_owned()).spawn(move || record.run(&events))
}

/// What is told once of a task, whoever tells it. `None`: it may be told again and again.
fn key(event: &serde_json::Value) -> Option<String> {
    let said = |field: &str| event.get(field).map(ToString::to_string).unwrap_or_default();
    let kind = event.get("event")?.as_str()?;
    Some(match kind {
        "task_started" | "task_logs" | "task_ended" | "task_removed" => kind.to_owned(),
        "task_state" => format!("{kind} {}", said("state")),
        "step_started" | "step_ended" => format!("{kind} {}-{}", said("step"), said("attempt")),
        "step_skipped" => format!("{kind} {}", said("step")),
        "service_started" => format!("{kind} {}", said("service")),
        "warning" => format!("{kind} {}", said("message")),
        _ => return None,
    })
}

struct Record {
    file: File,
    /// Bytes of whole lines in the file.
    at: u64,
    waiting: Vec<u8>,
    /// Lines that wait.
    lines: u64,
    whole: Recorded,
    followers: Followers,
    /// What another agent of the task has told.
    told: BTreeSet<String>,
}

impl Record {
    fn run(mut self, events: &Events) {
        loop {
            match events.next(TICK) {
                Ok(Some(stamped)) => {
                    self.take(&stamped);
                    // Nothing comes behind that, even if a thread that is lost could still send something.
                    if matches!(stamped.event, Event::TaskState { state: TaskState::Done, .. }) {
                        break;
                    }
                }
                Ok(None) => self.tick(),
                Err(_) => break,
            }
        }
        self.write();
        if self.lines > 0 {
            self.give_up("the disk is full");
        }
        self.whole.closed = true;
        self.tell();
    }

    fn is_told(&self, stamped: &Stamped) -> bool {
        let known = || serde_json::to_value(stamped).ok().as_ref().and_then(key);
        !self.told.is_empty() && known().is_some_and(|key| self.told.contains(&key))
    }

    fn take(&mut self, stamped: &Stamped) {
        if self.is_told(stamped) {
            return;
        }
        if let Some(onlooker) = &self.followers.onlooker {
            onlooker.see(stamped);
        }
        // Those who follow may have gone.
        match &stamped.event {
            Event::Output { .. } | Event::Progress { .. } => return,
            Event::TaskState { state, .. } => drop(self.followers.state.send_replace(*state)),
            Event::StepStarted { log, .. } | Event::ServiceStarted { log, .. } => self.log(log, LogNews::Begins),
            Event::StepEnded { step, attempt, .. } => {
                self.followers.logs.send(LogNews::Pauses(format!("{step:03}-{attempt}"))).ok();
            }
            Event::TaskLogs { logs, .. } => {
                self.whole.logs.clone_from(logs);
                self.followers.logs.send(LogNews::Over(logs.clone())).ok();
            }
            _ => {}
        }
        if self.whole.trouble.is_some() {
            return;
        }
        let length = self.waiting.len();
        match add_line(&mut self.waiting, stamped) {
            Ok(()) => self.lines += 1,
            Err(error) => {
                self.waiting.truncate(length);
                self.give_up(&error.to_string());
            }
        }
        self.write();
    }

    fn tick(&mut self) {
        self.write();
        if let Some(onlooker) = &self.followers.onlooker {
            onlooker.tick();
        }
    }

    fn log(&self, log: &Path, news: impl FnOnce(String) -> LogNews) {
        if let Some(name) = log.file_stem() {
            self.followers.logs.send(news(name.to_string_lossy().into_owned())).ok();
        }
    }

    /// All that waits, or nothing of it: the file ends with a whole line, whatever the disk does.
    fn write(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        match self.file.write_all_at(&self.waiting, self.at) {
            Ok(()) => {
                self.at += self.waiting.len() as u64;
                self.whole.lines += self.lines;
                self.waiting.clear();
                self.lines = 0;
                self.tell();
            }
            Err(error) if self.waiting.len() > MOST_WAITING => self.give_up(&error.to_string()),
            Err(error) => tracing::debug!(%error, "Events wait for room on the disk."),
        }
    }

    fn give_up(&mut self, why: &str) {
        let trouble =
            format!("{} events of the task could not be written to disk, and none behind them is: {why}", self.lines);
        tracing::error!("{trouble}.");
        self.whole.trouble = Some(trouble);
        self.waiting.clear();
        self.lines = 0;
        self.tell();
    }

    fn tell(&self) {
        self.followers.recorded.send_replace(self.whole.clone());
    }
}

/// Where a task's events are.
pub fn path_in(run: &Path) -> PathBuf {
    run.join("events.jsonl")
}

#[cfg(test)]
mod tests {
    use navvy_job::event::{JobRef, TaskRef};

    use navvy_output::mask::Masks;

    use super::*;
    use crate::bus;

    #[test]
    fn events_are_on_disk_before_they_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let (bus, events) = bus::channel(Masks::default());
        let (recorded, mut seen) = watch::channel(Recorded::default());
        let (logs, _news) = mpsc::unbounded_channel();
        let (state, onlooker) = (watch::Sender::new(TaskState::Claimed), None);
        let followers = Followers { recorded, state, logs, onlooker };
        let path = path_in(directory.path());
        let thread = start(events, &path, followers).unwrap();
        for message in ["one", "two\nlines"] {
            bus.send(Event::Warning { task: None, message: message.to_owned() });
        }
        drop(bus);
        thread.join().unwrap();
        assert_eq!(*seen.borrow_and_update(), Recorded { lines: 2, closed: true, ..Recorded::default() });
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 2);
    }

    #[test]
    fn another_agent_tells_nothing_again_and_no_line_is_half() {
        let directory = tempfile::tempdir().unwrap();
        let path = path_in(directory.path());
        let job = JobRef { workflow: "w".to_owned(), job: "build".to_owned() };
        let task = TaskRef { task: "0123456789abcdef".parse().unwrap(), job, node_index: 0, node_total: 1 };
        let state = |state| Event::TaskState { task: task.clone(), state };
        let warning = |message: &str| Event::Warning { task: None, message: message.to_owned() };
        let told = |resumed: bool, events: Vec<Event>| {
            let (bus, received) = bus::channel(Masks::default());
            let (recorded, mut seen) = watch::channel(Recorded::default());
            let (logs, _news) = mpsc::unbounded_channel();
            let (state, onlooker) = (watch::Sender::new(TaskState::Claimed), None);
            let followers = Followers { recorded, state, logs, onlooker };
            let started = if resumed { resume(received, &path, followers) } else { start(received, &path, followers) };
            events.into_iter().for_each(|event| bus.send(event));
            drop(bus);
            started.unwrap().join().unwrap();
            seen.borrow_and_update().lines
        };
        assert_eq!(told(false, vec![state(TaskState::Preparing), warning("one")]), 2);
        let half = std::fs::read(&path).unwrap().len() as u64;
        File::options().write(true).open(&path).unwrap().write_all_at(b"{\"half", half).unwrap();
        let again = vec![state(TaskState::Preparing), warning("one"), warning("two"), state(TaskState::Running)];
        assert_eq!(told(true, again), 4);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[2]["message"], &lines[3]["state"]), (4, &"two".into(), &"running".into()));
    }
}
