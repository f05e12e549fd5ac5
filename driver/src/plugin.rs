//! What Nomad calls: the plugin's state, and a file for each of its services.
//!
//! ```text
//! SetConfig ─▶ settings ─▶ fingerprint (looks at the machine) ─▶ Fingerprint streams
//! StartTask, RecoverTask ─▶ tasks ─▶ WaitTask, StopTask, TaskStats, ExecTask…
//!                             └────▶ events ─▶ TaskEvents streams
//! GRPCController.Shutdown ─▶ the process ends; tasks do not
//! ```
//!
//! Nomad starts this program several times when it starts, and an older copy may own tasks while a newer one answers questions: nothing
//! here touches a task that no call has named.

mod base;
mod begin;
mod driver;
mod host;
mod signals;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use navvy_job::reservation::admit;
use navvy_job::resource::Size;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tonic::Status;

pub use base::Base;
pub use driver::Driver;
pub use host::{Broker, Controller, Health, Stdio};

use crate::config::PluginConfig;
use crate::events::Events;
use crate::fingerprint::Fingerprint;
use crate::node::Node;
use crate::task::Task;

/// What all services share.
pub struct Plugin {
    /// This process's environment.
    pub variables: BTreeMap<String, String>,
    settings: Mutex<Settings>,
    tasks: Mutex<HashMap<String, Arc<Task>>>,
    /// What Nomad shows of tasks.
    pub events: Events,
    /// What is known of the machine.
    pub fingerprint: Arc<Fingerprint>,
    /// The process is to end.
    pub over: Notify,
}

struct Settings {
    /// Or what is wrong with it.
    config: Result<PluginConfig, String>,
    node: Node,
    /// Looks at the machine.
    looking: Option<AbortHandle>,
}

impl Plugin {
    /// Before Nomad has said anything.
    pub fn new(variables: BTreeMap<String, String>) -> Arc<Self> {
        let config = Err("Nomad has not configured the plugin yet".to_owned());
        Arc::new(Self {
            variables,
            settings: Mutex::new(Settings { config, node: Node::unknown(), looking: None }),
            tasks: Mutex::default(),
            events: Events::default(),
            fingerprint: Arc::default(),
            over: Notify::new(),
        })
    }

    /// Takes a configuration, good or bad: one that was refused would keep the Nomad agent from starting.
    fn configure(&self, config: Result<PluginConfig, String>, node: Option<Node>) {
        let mut settings = self.settings();
        if let Some(looking) = settings.looking.take() {
            looking.abort();
        }
        match &config {
            Ok(config) => {
                crate::log::set_level(config.log_level);
                let (fingerprint, config, variables) =
                    (self.fingerprint.clone(), config.clone(), self.variables.clone());
                let looking = tokio::spawn(async move { fingerprint.keep(&config, &variables).await });
                settings.looking = Some(looking.abort_handle());
            }
            Err(why) => {
                let text = format!("the plugin's configuration is wrong: {why}");
                self.fingerprint.tell(crate::fingerprint::Health::unhealthy(text));
            }
        }
        settings.config = config;
        settings.node = node.unwrap_or_else(Node::unknown);
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> Result<(PluginConfig, Node), Status> {
        let settings = self.settings();
        match &settings.config {
            Ok(config) => Ok((config.clone(), settings.node)),
            Err(why) => Err(Status::failed_precondition(format!("the plugin's configuration is wrong: {why}"))),
        }
    }

    fn node(&self) -> Node {
        self.settings().node
    }

    /// A task that a call has named.
    fn task(&self, id: &str) -> Option<Arc<Task>> {
        self.tasks().get(id).cloned()
    }

    fn known(&self, id: &str) -> Result<Arc<Task>, Status> {
        self.task(id).ok_or_else(|| Status::not_found(format!("there is no task {id} here")))
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<String, Arc<Task>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a task of this size fit beside those that run? `others`: what runs and is not among this plugin's tasks.
    fn fits(&self, wanted: Size, room: Size, others: &[Size]) -> Result<(), String> {
        fits(&self.tasks(), wanted, room, others)
    }

    /// Enters a task, if it fits. Both at once: two that start at the same time see each other.
    fn enter(&self, id: &str, task: &Arc<Task>, wanted: Size, room: Size, others: &[Size]) -> Result<(), String> {
        let mut tasks = self.tasks();
        if tasks.contains_key(id) {
            return Err(format!("the task {id} has been started before"));
        }
        fits(&tasks, wanted, room, others)?;
        tasks.insert(id.to_owned(), task.clone());
        Ok(())
    }
}

fn fits(tasks: &HashMap<String, Arc<Task>>, wanted: Size, room: Size, others: &[Size]) -> Result<(), String> {
    let running = tasks.values().filter_map(|task| task.size()).chain(others.iter().copied());
    admit(wanted, room, running).map_err(|error| {
        format!(
            "{error}. Nomad places tasks by the `reserved` block of the client's configuration, which keeps less than this driver \
             does; `navvy host nomad-config` prints one that fits"
        )
    })
}
