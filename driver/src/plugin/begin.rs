//! How a task comes into this plugin, and how one goes that never came.
//!
//! ```text
//! StartTask ──▶ new: directory, cgroup, agent ───────────────┐
//!          └──▶ begun before, by a plugin that ended within ─┤
//!               its own StartTask: Nomad asks again          ├─▶ the plugin's tasks
//! RecoverTask ─▶ the directory that the handle names ────────┘
//! DestroyTask ─▶ of a task that could not be recovered: what is left of it goes
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use navvy_job::resource::Size;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tonic::Status;

use super::Plugin;
use crate::agent;
use crate::directory::{Directory, Record, is_no_record};
use crate::log::{info, warning};
use crate::process::Process;
use crate::proto::hashicorp::nomad::plugins::drivers::proto as nomad;
use crate::start::{StartError, Wanted};
use crate::task::{Task, remove_left};

/// The form of a handle's state.
const HANDLE_VERSION: i32 = 1;

/// What Nomad keeps for us. It is written once, so it says only where the rest is.
#[derive(Serialize, Deserialize)]
struct State {
    directory: PathBuf,
}

/// By which Nomad finds the task again.
pub fn handle(config: nomad::TaskConfig, task: &Task) -> Result<nomad::TaskHandle, Status> {
    let state = State { directory: task.directory.path().to_owned() };
    Ok(nomad::TaskHandle {
        version: HANDLE_VERSION,
        config: Some(config),
        state: nomad::TaskState::Running.into(),
        driver_state: serde_json::to_vec(&state).map_err(|error| Status::internal(error.to_string()))?,
    })
}

/// Starts a task, or goes on with one that a plugin before this one has just started.
pub async fn start(plugin: &Plugin, config: &nomad::TaskConfig) -> Result<Arc<Task>, Status> {
    let (settings, node) = plugin.config()?;
    if plugin.task(&config.id).is_some() {
        return Err(Status::already_exists(format!("the task {} has been started before", config.id)));
    }
    if let Some(task) = begun_before(plugin, &Directory::of(&settings.state_dir, &config.id), &config.id).await? {
        return Ok(task);
    }
    let wanted = Wanted::of(config, &settings, node).map_err(|error| refused(&error))?;
    let known = plugin.fingerprint.now();
    // A state that was seen some time ago may be over by now.
    let health = if known.is_healthy { known } else { plugin.fingerprint.look(&settings, &plugin.variables).await };
    let room = match health.room {
        Some(room) if health.is_healthy => room,
        _ => return Err(Status::failed_precondition(format!("this client takes no tasks: {}", health.text))),
    };
    let others = unrecovered(plugin, &settings.state_dir).map_err(|error| {
        not_started(format!(
            "nobody knows what the tasks in {} have of this client: {error}",
            settings.state_dir.display()
        ))
    })?;
    // Before anything is made of it: a task that is refused keeps its token.
    plugin.fits(wanted.size, room, &others).map_err(not_started)?;
    let (directory, record) = wanted.prepare(&settings, &plugin.variables).map_err(|error| refused(&error))?;
    let name = record.task.clone();
    let task = Task::new(directory, record, plugin.events.clone());
    let started = match plugin.enter(&config.id, &task, wanted.size, room, &others) {
        Ok(()) => task.start().map_err(|error| {
            plugin.tasks().remove(&config.id);
            format!("the agent could not be started: {error}")
        }),
        Err(why) => Err(why),
    };
    if let Err(why) = started {
        task.destroy().await;
        return Err(not_started(why));
    }
    info!("Task {name} was started, as {} of allocation {}.", config.name, config.alloc_id);
    Ok(task)
}

fn not_started(why: String) -> Status {
    warning!("A task was not started: {why}");
    Status::failed_precondition(why)
}

/// Sizes of tasks whose agents live and that Nomad has not handed to this plugin yet, or never will.
fn unrecovered(plugin: &Plugin, state_dir: &Path) -> io::Result<Vec<Size>> {
    let mut sizes = Vec::new();
    for directory in Directory::all(state_dir)? {
        let record = match directory.record() {
            Ok(record) => record,
            // Without an agent it has nothing, whatever it says.
            Err(_) if Process::of_directory(&directory)?.is_none() => continue,
            Err(error) => return Err(io::Error::other(format!("{}: {error}", directory.path().display()))),
        };
        let agent = record.agent.as_ref().filter(|_| record.ended.is_none() && plugin.task(&record.id).is_none());
        if agent.map(Process::find).transpose()?.flatten().is_some() {
            sizes.push(record.size);
        }
    }
    Ok(sizes)
}

/// A plugin may end while it starts a task. Nomad then asks the next one with the same words. An agent that runs is gone on with, as
/// is a claim that was written; what is less than that is removed, and the task starts anew from its token, which is still there.
/// What may be of a living agent, or of another task, stays.
async fn begun_before(plugin: &Plugin, directory: &Directory, id: &str) -> Result<Option<Arc<Task>>, Status> {
    if !is_there(directory)? {
        return Ok(None);
    }
    let cgroups = match directory.record() {
        Ok(record) if record.id != id => return Err(stays(directory, "it belongs to another task")),
        Ok(record) if has_begun(directory, &record)? => {
            info!("Task {} was begun by a plugin before this one, and is gone on with.", record.task);
            return enter(plugin, directory.clone(), record).map(Some);
        }
        Ok(record) => record.cgroup_directories,
        Err(error) if is_no_record(&error) && agent_of(directory)?.is_none() => Vec::new(),
        Err(error) => return Err(stays(directory, &format!("what is known of its task cannot be read ({error})"))),
    };
    navvy_cgroup::remove(&cgroups);
    remove(directory)?;
    Ok(None)
}

fn has_begun(directory: &Directory, record: &Record) -> Result<bool, Status> {
    let unseen = |error: io::Error| stays(directory, &format!("its claim cannot be looked for ({error})"));
    Ok(record.agent.is_some() || directory.has_claim().map_err(unseen)? || agent_of(directory)?.is_some())
}

fn is_there(directory: &Directory) -> Result<bool, Status> {
    directory.path().try_exists().map_err(|error| stays(directory, &format!("it cannot be looked at ({error})")))
}

/// An agent that nobody may have written down.
fn agent_of(directory: &Directory) -> Result<Option<Process>, Status> {
    Process::of_directory(directory)
        .map_err(|error| stays(directory, &format!("its agent cannot be looked for ({error})")))
}

fn remove(directory: &Directory) -> Result<(), Status> {
    directory.remove().map_err(|error| stays(directory, &format!("it cannot be removed ({error})")))
}

/// Nothing is removed that may be of a living agent: a person is told where to look.
fn stays(directory: &Directory, why: &str) -> Status {
    let path = directory.path().display();
    let text = format!(
        "what is in {path} stays, since {why}: when no agent of it runs (pgrep -af -- '--scheduled {path}'), remove the directory"
    );
    warning!("A task's directory is left as it is: {text}.");
    Status::internal(text)
}

fn enter(plugin: &Plugin, directory: Directory, record: Record) -> Result<Arc<Task>, Status> {
    let id = record.id.clone();
    let task = Task::new(directory, record, plugin.events.clone());
    task.recover().map_err(|error| Status::internal(format!("the task's agent cannot be looked at: {error}")))?;
    plugin.tasks().insert(id, task.clone());
    Ok(task)
}

/// Goes on with a task that a plugin before this one has started.
pub fn recover(plugin: &Plugin, handle: &nomad::TaskHandle) -> Result<(), Status> {
    let id = handle.config.as_ref().map(|config| config.id.clone()).unwrap_or_default();
    if plugin.task(&id).is_some() {
        return Ok(());
    }
    if handle.version != HANDLE_VERSION {
        let text = format!("the handle has version {}, and this driver reads {HANDLE_VERSION}", handle.version);
        return Err(Status::failed_precondition(text));
    }
    let state: State = serde_json::from_slice(&handle.driver_state)
        .map_err(|_| Status::failed_precondition("the handle is not one that this driver has written"))?;
    let directory = Directory::at(state.directory);
    let unreadable = |error: std::io::Error| {
        let path = directory.path().display();
        Status::failed_precondition(format!("what is known of the task in {path} cannot be read: {error}"))
    };
    let record = directory.record().map_err(unreadable)?;
    if record.id != id {
        return Err(Status::failed_precondition(format!("{} belongs to another task", directory.path().display())));
    }
    let task = enter(plugin, directory, record)?;
    info!("Task {} was recovered.", task.record().task);
    Ok(())
}

/// Nomad destroys what it could not recover, and takes it for gone then. One that never was here has no directory.
///
/// # Errors
/// Something of it stays, or nobody can tell.
pub async fn destroy_unknown(plugin: &Plugin, id: &str) -> Result<(), Status> {
    let (settings, _) = plugin.config()?;
    let directory = Directory::of(&settings.state_dir, id);
    if !is_there(&directory)? {
        return Ok(());
    }
    match directory.record() {
        Ok(record) if record.id == id => return destroy_recorded(plugin, directory, record).await,
        Ok(_) => return Err(stays(&directory, "it belongs to another task")),
        Err(error) => warning!("What is known of task {id} cannot be read, and it is destroyed without: {error}"),
    }
    if let Some(process) = agent_of(&directory)? {
        let killed = process.handle().signal(Signal::KILL);
        killed.map_err(|error| stays(&directory, &format!("its agent cannot be ended ({error})")))?;
    }
    match agent::find(&settings, &plugin.variables) {
        Ok(program) => {
            remove_left(&program, &agent::environment(&settings, &plugin.variables), &directory, id).await;
        }
        Err(error) => warning!("What task {id} has left could not be removed: {error}"),
    }
    remove(&directory)
}

async fn destroy_recorded(plugin: &Plugin, directory: Directory, record: Record) -> Result<(), Status> {
    let task = Task::new(directory, record, plugin.events.clone());
    task.recover().map_err(|error| stays(&task.directory, &format!("its agent cannot be looked at ({error})")))?;
    task.stop(Signal::KILL, Duration::ZERO).await;
    if task.ended().is_none() {
        return Err(stays(&task.directory, "its agent was killed and has not ended"));
    }
    task.destroy().await;
    Ok(())
}

/// The words that `nomad alloc status` shows. Nothing is tried again: what is wrong stays so.
fn refused(error: &StartError) -> Status {
    not_started(navvy_job::chain::chain(error))
}
