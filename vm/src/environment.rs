//! A task's machine, alive: the way in, its end.
//!
//! ```text
//! prepare ─▶ MachineEnvironment ── died() ─▶ Died::{Exited, EngineLost}
//!               │ end: its process is ended; nothing runs any more
//!               │ destroy: all that is there is removed
//!               ▼
//!            nothing
//! ```

use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::egress::Given;
use navvy_environment::request::{Died, Inheritance, Prepare, ServiceOutput};
use navvy_environment::supervisor::{Client, Connect};
use navvy_job::id::TaskId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::machine::Machine;
use crate::machines::{Machines, remove_files};
use crate::provider::{Contact, Instance};
use crate::record::Record;
use crate::state::State;
use crate::taking::Ticket;
use crate::visitors;

/// A task's machine, alive. Destroy it; dropping it leaves it running.
pub struct MachineEnvironment {
    parts: Parts,
    /// Calls its supervisor, and lets visitors in; aborted when this is dropped.
    _tasks: JoinSet<()>,
}

pub(crate) struct Parts {
    pub machines: Machines,
    pub task: TaskId,
    pub host: HostPaths,
    /// Locked as long as this lives. `None`: the machine went while it was taken over.
    pub record: Option<Record>,
    pub link: Arc<dyn Connect>,
    pub user: Option<String>,
    pub egress: Given,
    pub idle_limit: Duration,
    pub has_steps: bool,
    pub died: watch::Receiver<Option<Died>>,
    /// What only its maker has: its console, its exit status.
    pub instance: Option<Instance>,
    /// By which it was taken from a pool, by this very process.
    pub ticket: Option<Ticket>,
}

impl MachineEnvironment {
    pub(crate) fn new(
        machines: Machines,
        request: &Prepare,
        host: &HostPaths,
        mut machine: Machine,
        contact: Contact,
    ) -> Self {
        let died = machine.instance.died();
        let ticket = machine.ticket.take();
        Self::of(Parts {
            machines,
            task: request.task.clone(),
            host: host.clone(),
            has_steps: machine.record.known().planned.has_steps,
            record: Some(machine.record),
            link: contact.link,
            user: contact.user,
            egress: request.egress.variables(),
            idle_limit: request.idle_limit,
            died,
            instance: Some(machine.instance),
            ticket,
        })
    }

    pub(crate) fn of(parts: Parts) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(stay_present(Arc::clone(&parts.link), parts.idle_limit));
        if parts.has_steps {
            match visitors::listen(&parts.task, &parts.host) {
                Ok(listener) => drop(tasks.spawn(visitors::let_in(listener, Arc::clone(&parts.link)))),
                Err(error) => tracing::warn!(task = %parts.task, %error, "Nobody can enter the machine while it runs."),
            }
        }
        Self { parts, _tasks: tasks }
    }

    /// The way to the supervisor.
    pub fn link(&self) -> Arc<dyn Connect> {
        Arc::clone(&self.parts.link)
    }

    /// As whom steps run: the image's user. `None` is uid 0.
    pub fn step_user(&self) -> Option<&str> {
        self.parts.user.as_deref()
    }

    /// What the next agent needs to take it over.
    pub fn inheritance(&self) -> Inheritance {
        Inheritance {
            image_env: Vec::new(),
            step_user: self.parts.user.clone(),
            egress: self.parts.egress.clone(),
            uploaded: false,
            idle_limit: Some(self.parts.idle_limit),
        }
    }

    /// The machine's names: of its host, as a container's name stands for a container.
    pub fn names(&self) -> Vec<String> {
        self.parts.record.iter().map(|record| record.machine().host_name()).collect()
    }

    /// Ends when the machine does. May be asked for again and again.
    pub fn died(&self) -> impl Future<Output = Died> + Send + use<> {
        let mut died = self.parts.died.clone();
        async move {
            match died.wait_for(Option::is_some).await.map(|seen| (*seen).clone()) {
                Ok(Some(died)) => died,
                // The environment was dropped: nothing more will be known.
                _ => std::future::pending().await,
            }
        }
    }

    /// The last lines of its console; empty where another process has made the machine.
    pub fn console(&self) -> String {
        self.parts.instance.as_ref().map(Instance::console).unwrap_or_default()
    }

    /// The ssh host key that was made for it and given in its seed, as a line of `known_hosts` has it behind the host's name: whoever logs
    /// in pins it. `None` where another process has made the machine.
    pub fn host_key(&self) -> Option<&str> {
        self.parts.instance.as_ref().and_then(Instance::host_key)
    }

    /// Its console from here on, as a service's output; where another process has made the machine, there is none. Whoever listens too
    /// slowly loses some of it.
    pub fn take_console(&mut self) -> Option<ServiceOutput> {
        self.parts.instance.as_ref().and_then(Instance::listen)
    }

    /// Ends all that runs in it, within `limit`, and removes nothing.
    pub async fn end(&self, limit: Duration) {
        if let Some(record) = &self.parts.record {
            if record.state().may_become(State::Stopping) {
                let _ended_all_the_same = record.enter(State::Stopping).await;
            }
            self.parts.machines.of(record).stop(record, limit).await;
        }
    }

    /// Removes everything within `limit`. Returns what is left, by name.
    pub async fn destroy(self, limit: Duration) -> Vec<String> {
        let Self { parts, _tasks } = self;
        drop(_tasks);
        let mut left = Vec::new();
        if let Some(record) = &parts.record {
            left = parts.machines.destroy(record, &parts.host, limit).await;
        }
        if left.is_empty() && parts.has_steps {
            left = remove_files(&parts.task, &parts.host).await;
        }
        if let Some(ticket) = parts.ticket.filter(|_| left.is_empty()) {
            ticket.give_back().await;
        }
        left
    }
}

/// Calls the supervisor again and again, so that it knows that an agent is there.
async fn stay_present(link: Arc<dyn Connect>, idle_limit: Duration) {
    let client = Client::new(link);
    if idle_limit.is_zero() {
        return;
    }
    // With a call or two that fail there is still time for another.
    let every = idle_limit / 5;
    loop {
        tokio::time::sleep(every).await;
        let client = client.clone();
        // A supervisor that does not answer is found out by the next real request.
        let _not_there = tokio::task::spawn_blocking(move || client.ask_for_life()).await;
    }
}
