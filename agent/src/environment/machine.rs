//! A virtual machine of a task, with the volume of Docker's layers that it may have.
//!
//! ```text
//! volume taken ─▶ machine prepared with it ─▶ … ─▶ engine stopped, its disk clean ─▶ machine ended, destroyed ─▶ volume kept
//!                                                   ├─ it did not stop: what was saved before stays
//!                                                   └─ its task is held: the volume waits with it for whoever goes on with the task
//! ```

use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::request::{Died, OnEvent, Prepare, PrepareEvent, ServiceOutput, Wanted};
use navvy_environment::supervisor::Client;
use navvy_job::chain::chain;
use navvy_job::id::TaskId;
use navvy_vm::layers::{self, LayersError, Volume};
use navvy_vm::settings::{Disk, Extras};
use navvy_vm::{MachineEnvironment, Machines, PrepareError};

use super::inside;

/// An engine ends its containers within ten seconds, and itself behind that.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Ends the engine for good, and leaves nothing of its disk unwritten. Where our supervisor is the first process, what it cannot find any
/// more it does not start again.
const STOP_ENGINE: &str = r#"set -e
if [ "$(cat /proc/1/comm)" = systemd ]; then
  systemctl stop docker.socket docker.service
else
  program=$(command -v dockerd) && mv "$program" "$program.stopped"
  if pid=$(cat /run/docker.pid 2>/dev/null); then
    kill -TERM "$pid" || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
  fi
fi
sync
"#;

/// The end of a machine, as what carries it tells of it.
pub fn ended(died: Died) -> Died {
    let of = |message: String, from_inside| Died::MachineEnded { message, from_inside };
    let with = |message: &str, words: &str| match words.trim() {
        "" => message.to_owned(),
        words => format!("{message}; its console ends with: {words}"),
    };
    match died {
        Died::Exited { out_of_memory: true, last_words, .. } => {
            of(with("the kernel of this host killed it for want of memory", &last_words), true)
        }
        Died::Exited { last_words, .. } => of(with("it was shut down, or its kernel gave up", &last_words), true),
        Died::EngineLost { message } => of(message, false),
        other => other,
    }
}

/// A live machine. Destroy it; dropping it leaves it running.
pub struct Machine {
    environment: MachineEnvironment,
    volume: Option<Volume>,
    /// Its engine has stopped, and nothing more is written to the volume.
    is_clean: std::sync::atomic::AtomicBool,
}

impl Machine {
    /// Makes a machine whose supervisor answers, or leaves nothing behind. A volume that cannot be had costs a warning.
    ///
    /// # Errors
    /// Why there is none, and whose fault that is.
    pub async fn prepare(
        machines: &Machines,
        request: Prepare,
        mut extras: Extras,
        host: &HostPaths,
        events: OnEvent<'_>,
    ) -> Result<Self, PrepareError> {
        let volume = match &request.wanted {
            Wanted::Machine(navvy_environment::request::Machine { layers: Some(project), .. })
                if machines.are_here() =>
            {
                take(project, &request.task, host, events).await
            }
            Wanted::Machine(navvy_environment::request::Machine { layers: Some(_), .. }) => {
                events(PrepareEvent::Report(
                    "Docker layer caching: none, for volumes of layers are this host's, and the machine is elsewhere"
                        .to_owned(),
                ));
                None
            }
            _ => None,
        };
        if let Some(volume) = &volume {
            let (serial, mount) = (layers::SERIAL.to_owned(), layers::MOUNT.to_owned());
            extras.disks.push(Disk { path: volume.path(), backing: volume.backing(), serial, mount });
        }
        let environment = machines.prepare_with(request, extras, host, events).await?;
        Ok(Self { environment, volume, is_clean: false.into() })
    }

    /// The machine of a task's steps that another process has made, with the volume that it goes on with.
    pub async fn adopted(environment: MachineEnvironment, task: &TaskId, host: &HostPaths) -> Self {
        let volume = Volume::of_task(&host.state, task).await.unwrap_or_else(|error| {
            tracing::warn!("The job's Docker layers are not kept: {}.", chain(&error));
            None
        });
        Self { environment, volume, is_clean: false.into() }
    }

    /// It outlives this process, and its volume stays its own.
    pub fn leave_layers(&mut self) {
        if let Some(volume) = self.volume.take() {
            volume.leave();
        }
    }

    /// Its console, as a service's output; the second call returns none.
    pub fn take_console(&mut self) -> Option<ServiceOutput> {
        self.environment.take_console()
    }

    /// Would what its engine keeps be kept for the next job?
    pub fn keeps_layers(&self) -> bool {
        self.volume.is_some()
    }

    /// The machine itself.
    pub fn environment(&self) -> &MachineEnvironment {
        &self.environment
    }

    /// Ends all that runs in it, and removes nothing. `limit` is for the machine; an engine whose layers are to be kept has its own.
    pub async fn end(&self, limit: Duration) {
        if self.volume.is_some() {
            match self.stop_engine().await {
                Ok(()) => self.is_clean.store(true, std::sync::atomic::Ordering::Release),
                Err(why) => tracing::warn!("The job's Docker layers are not kept: its engine did not stop: {why}."),
            }
        }
        self.environment.end(limit).await;
    }

    async fn stop_engine(&self) -> Result<(), String> {
        let client = Client::new(self.environment.link());
        let argv = ["/bin/sh", "-c", STOP_ENGINE];
        let stopping = tokio::task::spawn_blocking(move || inside::run(&client, "navvy-stop-engine", &argv).map(drop));
        let stopped = tokio::time::timeout(STOP_LIMIT, stopping).await;
        stopped.map_err(|_| format!("it took more than {STOP_LIMIT:?}"))?.map_err(|error| error.to_string())?
    }

    /// Removes everything within `limit`, and keeps the volume if it is to be kept. Returns what is left, by name.
    pub async fn destroy(self, limit: Duration) -> Vec<String> {
        let Self { environment, volume, is_clean } = self;
        let left = environment.destroy(limit).await;
        match volume {
            Some(volume) if left.is_empty() && is_clean.into_inner() => {
                if let Err(error) = volume.keep().await {
                    tracing::warn!("The job's Docker layers are not kept: {}.", chain(&error));
                }
            }
            // What is written to it by a machine that is still there is nobody's.
            _ => {}
        }
        left
    }
}

async fn take(project: &str, task: &TaskId, host: &HostPaths, events: OnEvent<'_>) -> Option<Volume> {
    match Volume::take(&host.state, project, task).await {
        Ok(volume) => {
            let what = if volume.is_new() { "a new volume" } else { "the volume that an earlier job has saved" };
            events(PrepareEvent::Report(format!("Docker layer caching: {what}")));
            Some(volume)
        }
        Err(error @ LayersError::Full) => {
            events(PrepareEvent::Report(format!("Docker layer caching: none, {error}")));
            None
        }
        Err(error) => {
            events(PrepareEvent::Warning(format!("there is no Docker layer caching: {}", chain(&error))));
            None
        }
    }
}
