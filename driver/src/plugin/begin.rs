//! How a task comes into this plugin, and how one goes that never came.
//!
//! ```text
//! StartTask ──▶ new: directory, cgroup, agent ───────────────┐
//!          └──▶ begun before, by a plugin that ended within ─┤
//!               its own StartTask: Nomad asks again          ├─▶ the plugin's tasks
//! RecoverTask ─▶ the directory that the handle names ────────┘
//! DestroyTask ─▶ of a task that could not be recovered: what is left of it goes
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use navvy_job::resource::Size;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tonic::Status;

use super::Plugin;
use crate::agent;
use crate::directory::{Directory, Record};
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
    let others = unrecovered(plugin, &settings.state_dir);
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
fn unrecovered(plugin: &Plugin, state_dir: &Path) -> Vec<Size> {
    let known = |record: &Record| plugin.task(&record.id).is_some();
    let lives =
        |record: &Record| record.agent.as_ref().is_some_and(|agent| matches!(Process::find(agent), Ok(Some(_))));
    let records = Directory::all(state_dir).into_iter().filter_map(|directory| directory.record().ok());
    records
        .filter(|record| record.ended.is_none() && !known(record) && lives(record))
        .map(|record| record.size)
        .collect()
}

/// A plugin may end while it starts a task. Nomad then asks the next one with the same words. An agent that runs is gone on with, as
/// is a claim that was written; what is less than that is removed, and the task starts anew from its token, which is still there.
async fn begun_before(plugin: &Plugin, directory: &Directory, id: &str) -> Result<Option<Arc<Task>>, Status> {
    if !directory.path().exists() {
        return Ok(None);
    }
    match directory.record() {
        Ok(record) if record.id == id && (has_begun(directory, &record)?) => {
            info!("Task {} was begun by a plugin before this one, and is gone on with.", record.task);
            enter(plugin, directory.clone(), record).map(Some)
        }
        record => {
            let cgroups = record.map(|record| record.cgroup_directories).unwrap_or_default();
            navvy_cgroup::remove(&cgroups);
            directory.remove().map_err(|error| {
                Status::internal(format!(
                    "what an earlier start has left in {} stays: {error}",
                    directory.path().display()
                ))
            })?;
            Ok(None)
        }
    }
}

fn has_begun(directory: &Directory, record: &Record) -> Result<bool, Status> {
    let unseen = |error: std::io::Error| Status::internal(format!("the task's agent cannot be looked for: {error}"));
    Ok(record.agent.is_some() || directory.has_claim() || Process::of_directory(directory).map_err(unseen)?.is_some())
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
pub async fn destroy_unknown(plugin: &Plugin, id: &str) {
    let Ok((settings, _)) = plugin.config() else { return };
    let directory = Directory::of(&settings.state_dir, id);
    if !directory.path().exists() {
        return;
    }
    if let Some(record) = directory.record().ok().filter(|record| record.id == id) {
        let task = Task::new(directory, record, plugin.events.clone());
        match task.recover() {
            Ok(()) => task.stop(Signal::KILL, Duration::ZERO).await,
            Err(error) => warning!("The agent of task {} cannot be looked at: {error}", task.record().task),
        }
        return task.destroy().await;
    }
    match Process::of_directory(&directory) {
        Ok(Some(process)) => {
            if let Err(error) = process.handle().signal(Signal::KILL) {
                warning!("The agent in {} cannot be ended: {error}", directory.path().display());
            }
        }
        Ok(None) => {}
        Err(error) => warning!("An agent in {} cannot be looked for: {error}", directory.path().display()),
    }
    if let Ok(program) = agent::find(&settings, &plugin.variables) {
        remove_left(&program, &agent::environment(&settings, &plugin.variables), &directory, id).await;
    }
    if let Err(error) = directory.remove() {
        warning!("{} could not be removed: {error}", directory.path().display());
    }
}

/// The words that `nomad alloc status` shows. Nothing is tried again: what is wrong stays so.
fn refused(error: &StartError) -> Status {
    not_started(navvy_job::chain::chain(error))
}
