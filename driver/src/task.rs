//! One Nomad task from its start to its end.
//!
//! ```text
//!           start ─▶ agent runs ─┬─ it leaves exit.json ─────────────────────────────▶ Ended ─▶ WaitTask
//!                      ▲         ├─ it could not begin: exits without ───────────────▶ Ended, with its last words
//!                      │         └─ killed by a stranger ─┬─ at most 5 times ─┐
//!                      └──────────────────────────────────┼───────────────────┘
//! stop: TERM, TERM again, KILL ───────────────────────────┴─▶ what it left is removed ─▶ Ended
//! ```
//!
//! Each change is in the task's record before it is acted on, so that a plugin that comes after this one goes on from there.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use navvy_cgroup::MOUNTINFO;
use navvy_job::chain::chain;
use navvy_job::resource::Size;
use navvy_journal::owner::Owner;
use rustix::process::Signal;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::cgroup::Mounts;
use crate::directory::{Directory, Ended, Record, is_no_record};
use crate::events::Events;
use crate::exec;
use crate::log::{debug, info, warning};
use crate::pipes;
use crate::process::{Handle, Process};

/// An agent that is killed again and again will be so next time.
const MOST_RESTARTS: u32 = 5;
/// Before an agent is started again.
const BEFORE_RESTART: Duration = Duration::from_secs(1);
/// Between two looks at a record that cannot be read.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
/// Removing what a killed agent has left takes no longer.
const REMOVAL_LIMIT: Duration = Duration::from_secs(60);
/// Before the time is up, an agent is asked to end without grace.
const LAST_CALL: Duration = Duration::from_secs(3);
/// Nobody waits longer for a task that is to end.
const LONGEST_STOP: Duration = Duration::from_secs(24 * 3600);
/// Among a task's events.
const OUT_OF_MEMORY: &str = "The task had no memory left: the kernel killed one of its processes.";
/// What was killed is gone within this.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A task that has begun.
pub struct Task {
    /// Its files.
    pub directory: Directory,
    record: Mutex<Record>,
    /// The way to its agent, while one runs.
    agent: Mutex<Option<Handle>>,
    ended: watch::Sender<Option<Ended>>,
    events: Events,
    /// Nomad's, kept open as long as the task.
    pipes: Mutex<Vec<File>>,
}

impl Task {
    /// Of a record. Nothing runs yet.
    pub fn new(directory: Directory, record: Record, events: Events) -> Arc<Self> {
        let ended = watch::Sender::new(record.ended.clone());
        Arc::new(Self {
            directory,
            record: Mutex::new(record),
            agent: Mutex::new(None),
            ended,
            events,
            pipes: Mutex::default(),
        })
    }

    /// What is known of it now.
    pub fn record(&self) -> Record {
        self.locked().clone()
    }

    /// What it may use while it has not ended.
    pub fn size(&self) -> Option<Size> {
        self.ended.borrow().is_none().then(|| self.locked().size)
    }

    /// How it ended, once it has.
    pub async fn wait(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
            Ok(Some(ended)) => ended,
            // The sender lives as long as this.
            _ => std::future::pending().await,
        }
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    /// Starts the first agent, and looks after it from then on.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let process = Process::start(&self.directory, &self.record())?;
        self.attend(Some(process), 0)
    }

    /// Goes on with what a plugin before this one has begun.
    ///
    /// # Errors
    /// The process cannot be looked at.
    pub fn recover(self: &Arc<Self>) -> io::Result<()> {
        let record = self.record();
        if record.ended.is_some() {
            return Ok(());
        }
        // Also where no agent runs any more: then nobody but this plugin tells of the end.
        let plugin = Owner::this_process()?;
        self.change(|record| record.plugin = plugin)?;
        if record.boot != boot()? {
            let task = self.clone();
            tokio::spawn(async move {
                task.remove_left().await;
                task.finish(killed(0, "the machine was restarted while the task ran"));
            });
            return Ok(());
        }
        // One that was started right before a plugin's end is in no record.
        let noted = record.agent.as_ref().map(Process::find).transpose()?.flatten();
        let process = if noted.is_some() { noted } else { Process::of_directory(&self.directory)? };
        // What was told before is not told again.
        self.attend(process, self.directory.progress_length())
    }

    fn attend(self: &Arc<Self>, process: Option<Process>, told: u64) -> io::Result<()> {
        *self.pipes.lock().unwrap_or_else(PoisonError::into_inner) = pipes::open_all(&self.record().pipes);
        let process = process.map(|process| self.noted(process)).transpose()?;
        let (task, telling) = (self.clone(), self.clone());
        tokio::spawn(async move { telling.tell_progress(told).await });
        tokio::spawn(async move { task.supervise(process).await });
        Ok(())
    }

    /// A process that cannot be written down does not go on: no plugin after this one would know it.
    fn noted(&self, process: Process) -> io::Result<Process> {
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = Some(process.handle());
        let plugin = Owner::this_process();
        let written = plugin.and_then(|plugin| {
            self.change(|record| (record.agent, record.plugin) = (Some(process.owner.clone()), plugin))
        });
        debug!("The agent of task {} is process {}.", self.locked().task, process.owner.pid);
        match written {
            Ok(()) => Ok(process),
            Err(error) => {
                *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = None;
                process.abandon();
                Err(error)
            }
        }
    }

    /// Another plugin may have taken the task over: Nomad starts a second one where it does not reach the first.
    fn is_another_plugins(&self) -> io::Result<bool> {
        let ours = Owner::this_process()?;
        match self.directory.record() {
            Ok(record) => Ok(record.plugin != ours),
            // What is no record names nobody else, and will not do so later.
            Err(error) if is_no_record(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The same, once it can be told: a guess would put a second agent beside another plugin's, or keep the end from Nomad.
    async fn was_taken_over(&self) -> bool {
        let mut is_told = false;
        loop {
            match self.is_another_plugins() {
                Ok(is_so) => return is_so,
                Err(error) if !is_told => {
                    is_told = true;
                    warning!(
                        "Whether another plugin looks after task {} is asked again and again, since it cannot be told: {error}",
                        self.locked().task
                    );
                }
                Err(_) => {}
            }
            sleep(BETWEEN_LOOKS).await;
        }
    }

    async fn supervise(&self, mut process: Option<Process>) {
        loop {
            let status = match &mut process {
                Some(process) => process.ended().await,
                None => None,
            };
            *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = None;
            if self.was_taken_over().await {
                warning!("Task {} is looked after by another plugin by now.", self.locked().task);
                return;
            }
            match self.after(status) {
                After::Ended { ended, is_clean } => {
                    if !is_clean {
                        self.remove_left().await;
                    }
                    return self.finish(ended);
                }
                After::Again => match self.again().await {
                    Ok(started) => process = started,
                    Err(error) => {
                        self.remove_left().await;
                        return self.finish(killed(
                            0,
                            &format!("the agent was killed, and could not be started again: {error}"),
                        ));
                    }
                },
            }
        }
    }

    /// What the end of an agent means. `None`: how it ended is not known here.
    fn after(&self, status: Option<ExitStatus>) -> After {
        let record = self.record();
        match self.directory.exit() {
            Ok(Some(exit)) => {
                let error = if exit.code == 0 { String::new() } else { exit.message };
                let oom_killed = exit.oom_killed || self.was_out_of_memory(&record);
                let ended = Ended { code: exit.code.into(), signal: 0, oom_killed, error, at_ms: now_ms() };
                return After::Ended { ended, is_clean: true };
            }
            Ok(None) => {}
            Err(error) => {
                let error = format!("how the agent ended cannot be read: {}", chain(&error));
                return After::Ended { ended: killed(0, &error), is_clean: false };
            }
        }
        let signal = status.and_then(|status| status.signal());
        if let Some(code) = status.and_then(|status| status.code()) {
            let words = self.directory.last_words();
            let words = if words.is_empty() { "it said nothing".to_owned() } else { words };
            let error = format!("the agent {} ended without having said how: {words}", record.agent_path.display());
            return After::Ended { ended: Ended { code, ..killed(0, &error) }, is_clean: false };
        }
        let oom_killed = self.was_out_of_memory(&record);
        if !record.is_stopping && record.restarts < MOST_RESTARTS {
            return After::Again;
        }
        let why = match (record.is_stopping, signal) {
            (true, _) => "the agent was asked to end, and was killed before it had said how".to_owned(),
            (false, _) => {
                format!("the agent was killed, and started again {MOST_RESTARTS} times; each time it was killed again")
            }
        };
        let ended = Ended { oom_killed, ..killed(signal.unwrap_or(9), &why) };
        After::Ended { ended, is_clean: false }
    }

    fn was_out_of_memory(&self, record: &Record) -> bool {
        let Some(name) = record.cgroup.as_deref() else { return false };
        match Mounts::here() {
            Ok(mounts) => navvy_cgroup::oom_kills(name, mounts.hierarchies()) > 0,
            Err(error) => {
                warning!(
                    "Whether task {} had no memory left is not known: {MOUNTINFO} could not be read: {error}",
                    record.task
                );
                false
            }
        }
    }

    /// `None`: its end is wanted by now.
    async fn again(&self) -> io::Result<Option<Process>> {
        sleep(BEFORE_RESTART).await;
        if self.locked().is_stopping {
            return Ok(None);
        }
        self.change(|record| record.restarts += 1)?;
        let record = self.record();
        info!(
            "The agent of task {} was killed; it is started again and goes on ({} of {MOST_RESTARTS}).",
            record.task, record.restarts
        );
        self.events.tell(&record, "The agent was killed; another one goes on with the task.".to_owned());
        Process::start(&self.directory, &record).and_then(|process| self.noted(process)).map(Some)
    }

    fn finish(&self, ended: Ended) {
        if let Err(error) = self.change(|record| record.ended = Some(ended.clone())) {
            warning!("The end of task {} could not be written down: {error}", self.locked().task);
        }
        if ended.oom_killed {
            // `nomad alloc status` shows nothing of the flag.
            self.events.tell(&self.record(), OUT_OF_MEMORY.to_owned());
        }
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.ended.send_replace(Some(ended));
    }

    /// Asks it to end, and sees to it that it does within the time.
    pub async fn stop(&self, signal: Signal, within: Duration) {
        if self.ended().is_some() {
            return;
        }
        if let Err(error) = self.change(|record| record.is_stopping = true) {
            warning!("That task {} is to end could not be written down: {error}", self.locked().task);
        }
        let within = within.min(LONGEST_STOP);
        let end = Instant::now() + within;
        let last_call = Instant::now() + within.saturating_sub(LAST_CALL.min(within / 2));
        for (signal, until) in
            [(signal, last_call), (Signal::TERM, end), (Signal::KILL, end + KILL_LIMIT + REMOVAL_LIMIT)]
        {
            if let Err(error) = self.signal(signal) {
                info!("Task {} takes no signal now: {error}", self.locked().task);
            }
            if timeout_at(until, self.wait()).await.is_ok() {
                return;
            }
        }
        warning!("Task {} has not ended although its agent was killed.", self.locked().task);
    }

    /// Sends a signal to its agent.
    ///
    /// # Errors
    /// None runs now, or the kernel refuses.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        agent.ok_or_else(|| io::Error::other("no agent runs: it has ended, or is being started again"))?.signal(signal)
    }

    /// Removes all that is this task's on this machine. It has ended.
    pub async fn destroy(&self) {
        let record = self.record();
        let removal = move || {
            let engines = record.cgroup.as_deref().map(|name| Mounts::here().map(|mounts| mounts.beside(name)));
            let (engines, unread) = match engines.transpose() {
                Ok(engines) => (engines.unwrap_or_default(), None),
                Err(error) => (Vec::new(), Some((PathBuf::from(MOUNTINFO), error))),
            };
            let mut left = navvy_cgroup::remove(&[record.cgroup_directories, engines].concat());
            left.extend(unread);
            left
        };
        let left = tokio::task::spawn_blocking(removal).await;
        let left = left.unwrap_or_else(|bug| {
            warning!("Cgroups of task {} may be left: {bug}", self.locked().task);
            Vec::new()
        });
        for (path, error) in left {
            warning!("A cgroup of task {} may be left: {}: {error}", self.locked().task, path.display());
        }
        if let Err(error) = self.directory.remove() {
            warning!("{} could not be removed: {error}", self.directory.path().display());
        }
    }

    /// Containers and files of an agent that was killed.
    async fn remove_left(&self) {
        let record = self.record();
        remove_left(&record.agent_path, &record.environment, &self.directory, &record.task).await;
    }

    /// Tells where the task has come to, the newest alone and seldom: Nomad keeps ten events of a task.
    async fn tell_progress(&self, mut from: u64) {
        const LOOK: Duration = Duration::from_millis(500);
        const BETWEEN: Duration = Duration::from_secs(10);
        let mut newest = None;
        let mut next = Instant::now();
        loop {
            let is_over = tokio::time::timeout(LOOK, self.wait()).await.is_ok();
            if self.directory.progress_length() > from {
                let (lines, place) = self.directory.progress(from);
                from = place;
                newest = lines.into_iter().last().or(newest);
            }
            if (is_over || Instant::now() >= next)
                && let Some(progress) = newest.take()
            {
                self.events.tell(&self.record(), progress.message);
                next = Instant::now() + BETWEEN;
            }
            if is_over {
                return;
            }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the record, in memory and on disk.
    fn change(&self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let mut record = self.locked();
        change(&mut record);
        self.directory.put_record(&record)
    }
}

/// Removes containers and files of an agent that was killed: an agent does it, which knows them.
pub async fn remove_left(program: &Path, environment: &[(String, String)], directory: &Directory, task: &str) {
    let mut command = Command::new(program);
    command.args(["agent", "--scheduled"]).arg(directory.path()).arg("--remove");
    command.env_clear().envs(environment.iter().map(|(name, value)| (name, value))).current_dir("/");
    match exec::output(command, REMOVAL_LIMIT).await {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(1024)]).into_owned();
            warning!("Something of task {task} is left on this machine: {}", words.trim());
        }
        Err(error) => warning!("What task {task} has left could not be removed: {error}"),
    }
}

enum After {
    Ended {
        ended: Ended,
        /// The agent has left nothing.
        is_clean: bool,
    },
    Again,
}

fn killed(signal: i32, why: &str) -> Ended {
    Ended {
        code: if signal == 0 { 1 } else { 128 + signal },
        signal,
        oom_killed: false,
        error: why.to_owned(),
        at_ms: now_ms(),
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}

/// The id of this machine's boot.
pub fn boot() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
