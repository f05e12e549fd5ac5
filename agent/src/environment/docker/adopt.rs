//! An environment that outlived its agent, taken up by another.

use std::fs;
use std::io;
use std::sync::Arc;

use navvy_job::id::TaskId;
use rustix::net::sockopt::socket_peercred;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Engine;
use super::disk::EngineDisk;
use super::environment::DockerEnvironment;
use super::link::{DialLink, SocketPlace};
use super::run_dir;
use crate::environment::HostPaths;
use crate::environment::egress::Given;
use crate::supervisor::Connect;

/// What whoever takes an environment up must know of it, beside the task's id and the containers' names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inheritance {
    pub image_env: Vec<(String, String)>,
    pub step_user: Option<String>,
    /// Proxies and authorities that it was given.
    #[serde(default)]
    pub egress: Given,
    /// Its engine sees none of this machine's files.
    #[serde(default)]
    pub uploaded: bool,
}

impl DockerEnvironment {
    /// For whoever takes it up again.
    pub fn inheritance(&self) -> Inheritance {
        Inheritance {
            image_env: self.image_env.clone(),
            step_user: self.step_user.clone(),
            egress: self.egress.clone(),
            uploaded: self.engine.needs_upload(),
        }
    }

    /// A live environment around the way to a supervisor that was found already. `containers`: their names now, the
    /// primary first; `floor`: of the engine's disk. Within a Tokio runtime only.
    pub async fn adopt(
        engine: &Engine,
        task: &TaskId,
        host: &HostPaths,
        containers: Vec<String>,
        link: Arc<dyn Connect>,
        inherited: Inheritance,
        floor: u64,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let (_, words) = watch::channel(String::new());
        let is_local = engine.endpoint().looks_local() && !inherited.uploaded;
        let disk = engine.info().await.ok().and_then(|info| EngineDisk::of(info, is_local, floor).ok());
        let full = engine.clone().condemned(disk, task.clone(), containers.clone());
        let (died, away) = engine.watch_primary(&mut tasks, containers[0].clone(), words, full);
        Self {
            engine: engine.clone(),
            task: task.clone(),
            host: host.clone(),
            names: containers,
            link,
            image_env: inherited.image_env,
            step_user: inherited.step_user,
            egress: inherited.egress,
            services: Vec::new(),
            died,
            away,
            _tasks: tasks,
        }
    }
}

/// The way to the supervisor of a task that another process has made, where this machine shares its socket.
pub fn shared_link(task: &TaskId, host: &HostPaths) -> io::Result<Arc<dyn Connect>> {
    let directory = run_dir::shared(&run_dir::place(host.runtime.as_deref(), run_dir::uid(), task));
    let link = SocketPlace::open(&directory)?.take_hold()?;
    // Steps have run in there since: uid 0 inside could have put a socket of its own in the place of the supervisor's.
    let peer = socket_peercred(link.connect()?)?;
    if !is_init(peer.pid) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what listens at its socket is not its supervisor"));
    }
    Ok(Arc::new(link))
}

/// Is this the first process of a pid namespace, seen from ours? Nothing that a step starts is.
fn is_init(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| {
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        numbers.len() > 1 && numbers.last() == Some(&"1")
    })
}

impl Engine {
    /// The same through the engine, with the task's secret. Within a Tokio runtime only.
    pub async fn dialled_link(&self, primary: &str, secret: String) -> io::Result<Arc<dyn Connect>> {
        Ok(Arc::new(DialLink::open(self, primary, secret).await?))
    }
}
