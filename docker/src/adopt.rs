//! An environment that outlived its agent, taken up by another.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::request::{IDLE_LIMIT, Inheritance};
use navvy_environment::supervisor::Connect;
use navvy_job::chain::chain;
use navvy_job::id::TaskId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Engine;
use super::dial;
use super::disk::EngineDisk;
use super::environment::DockerEnvironment;
use super::prepare::stay_present;

/// How often an engine is asked what it is before its disk goes unwatched.
const INFO_ATTEMPTS: u32 = 4;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(300);

impl DockerEnvironment {
    /// What the next agent needs to take it over.
    pub fn inheritance(&self) -> Inheritance {
        Inheritance {
            image_env: self.image_env.clone(),
            step_user: self.step_user.clone(),
            egress: self.egress.clone(),
            uploaded: self.engine.needs_upload(),
            idle_limit: Some(self.idle_limit),
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
        let disk = engine.disk_of_adopted(task, is_local, floor).await;
        let full = engine.clone().condemned(disk, task.clone(), containers.clone());
        let idle_limit = inherited.idle_limit.unwrap_or(IDLE_LIMIT);
        tasks.spawn(stay_present(Arc::clone(&link), idle_limit));
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
            idle_limit,
            services: Vec::new(),
            died,
            away,
            _tasks: tasks,
        }
    }
}

impl Engine {
    /// `None`: its disk is not watched, which is said.
    async fn disk_of_adopted(&self, task: &TaskId, is_local: bool, floor: u64) -> Option<EngineDisk> {
        for _ in 1..INFO_ATTEMPTS {
            if self.info().await.is_ok() {
                break;
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
        match self.info().await {
            // Of an engine elsewhere, and without a floor, there is nothing to watch.
            Ok(info) => EngineDisk::of(info, is_local, floor).ok(),
            Err(error) => {
                tracing::warn!(%task, "The engine's disk is not watched while this task goes on: {}.", chain(&error));
                None
            }
        }
    }

    /// The same through the engine, with the task's secret. Within a Tokio runtime only.
    pub async fn dialled_link(&self, primary: &str, secret: String) -> io::Result<Arc<dyn Connect>> {
        Ok(Arc::new(dial::open(self, primary, secret).await?))
    }
}
