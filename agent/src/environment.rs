//! Where a task's steps run. One of several kinds, and the same to whoever runs the task.
//!
//! ```text
//! Provider ── prepare ─▶ Environment ── died ─▶ Died            link: the way to its supervisor
//!    │  └──── adopt ────▶    │
//!    │                       ├─ hold: it outlives this process, and the next one adopts it
//!    └─ remove (by id alone) └─ end ─▶ destroy
//! ```
//!
//! Everything but these moves goes through the supervisor, which is the same in each kind.

#[cfg(test)]
pub mod fake;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use navvy_docker::endpoint::Endpoint;
use navvy_docker::{DockerEnvironment, Engine};
use navvy_environment::HostPaths;
use navvy_environment::request::{Died, Inheritance, OnEvent, Prepare, ServiceOutput};
use navvy_environment::supervisor::Connect;
use navvy_job::id::TaskId;
use navvy_job::outcome::Blame;
use navvy_journal::owner::Owner;
use navvy_journal::{HeldStep, Journal};

/// What makes environments. Cheap to clone.
#[derive(Clone)]
pub enum Provider {
    /// Containers of this engine.
    Docker(Engine),
    /// Nothing but notes of what was asked.
    #[cfg(test)]
    Fake(fake::World),
}

/// Why there is no environment.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Docker(#[from] navvy_docker::PrepareError),
    #[cfg(test)]
    #[error("{message}")]
    Fake { blame: Blame, message: String },
}

impl PrepareError {
    /// Who can do something about it.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Docker(error) => error.blame(),
            #[cfg(test)]
            Self::Fake { blame, .. } => *blame,
        }
    }
}

/// Why an environment could not be left to a person.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    #[error(transparent)]
    Docker(#[from] navvy_docker::hold::HoldError),
    #[cfg(test)]
    #[error("{0}")]
    Fake(String),
}

/// A live environment. Destroy it; dropping it leaves everything running.
#[cfg_attr(test, expect(clippy::large_enum_variant, reason = "the fake is small, and in tests alone"))]
pub enum Environment {
    Docker(DockerEnvironment),
    #[cfg(test)]
    Fake(fake::FakeEnvironment),
}

impl Provider {
    /// Makes an environment whose supervisor answers, or leaves nothing behind.
    ///
    /// # Errors
    /// Why there is none, and whose fault that is.
    pub async fn prepare(
        &self,
        request: Prepare,
        host: &HostPaths,
        events: OnEvent<'_>,
    ) -> Result<Environment, PrepareError> {
        match self {
            Self::Docker(engine) => Ok(Environment::Docker(engine.prepare(request, host, events).await?)),
            #[cfg(test)]
            Self::Fake(world) => world.prepare(request, events).await.map(Environment::Fake),
        }
    }

    /// A live environment around the way to a supervisor that was found already. `containers`: their names now, the
    /// primary first; `floor`: free bytes below which jobs that fill the disk are ended. Within a Tokio runtime only.
    pub async fn adopt(
        &self,
        task: &TaskId,
        host: &HostPaths,
        containers: Vec<String>,
        link: Arc<dyn Connect>,
        inherited: Inheritance,
        floor: u64,
    ) -> Environment {
        match self {
            Self::Docker(engine) => Environment::Docker(
                DockerEnvironment::adopt(engine, task, host, containers, link, inherited, floor).await,
            ),
            #[cfg(test)]
            Self::Fake(world) => Environment::Fake(world.adopt()),
        }
    }

    /// Leaves a task to itself until `until` (seconds since 1970): from here on nobody removes it before then.
    ///
    /// # Errors
    /// It is still this process's, which removes it.
    pub async fn hold(
        &self,
        journal: &Journal,
        task: &TaskId,
        until: u64,
        step: Option<HeldStep>,
        owner: &Owner,
        host: &HostPaths,
    ) -> Result<(), HoldError> {
        match self {
            Self::Docker(engine) => Ok(engine.keep_task(journal, task, until, step, owner, host).await?),
            #[cfg(test)]
            Self::Fake(world) => world.hold(journal, until, step).await,
        }
    }

    /// Makes this process the owner of a task that runs and whose agent was killed. `journal`: the task's, locked; `until`:
    /// should this process be killed, too, another may do the same until then, in seconds since 1970. Returns its containers,
    /// the primary first.
    ///
    /// # Errors
    /// There is nothing to take over, or it could not be written down.
    pub async fn take_over(
        &self,
        journal: &Journal,
        task: &TaskId,
        until: u64,
        owner: &Owner,
        host: &HostPaths,
    ) -> Result<Vec<String>, HoldError> {
        match self {
            Self::Docker(engine) => Ok(engine.take_over(journal, task, until, owner, host).await?),
            #[cfg(test)]
            Self::Fake(world) => world.take_over(journal, owner).await,
        }
    }

    /// The way to the supervisor of a task whose agent was killed.
    ///
    /// # Errors
    /// Nobody answers there.
    pub async fn link_of_left(&self, task: &TaskId, host: &HostPaths) -> std::io::Result<Arc<dyn Connect>> {
        match self {
            Self::Docker(engine) => engine.link_of_left(task, host).await,
            #[cfg(test)]
            Self::Fake(world) => Ok(world.link()),
        }
    }

    /// Removes everything that carries the task's id, within `limit`, from any half-made state. Returns what is left, by
    /// name.
    pub async fn remove(&self, task: &TaskId, host: &HostPaths, limit: Duration) -> Vec<String> {
        match self {
            Self::Docker(engine) => engine.remove_task(task, host, limit).await,
            #[cfg(test)]
            Self::Fake(world) => world.remove("remove"),
        }
    }

    /// Its name, for the journal and for people.
    pub fn name(&self) -> String {
        match self {
            Self::Docker(engine) => engine.endpoint().to_string(),
            #[cfg(test)]
            Self::Fake(_) => "fake".to_owned(),
        }
    }

    /// The Docker engine that it is, if it is one: a job may be handed it.
    pub fn engine(&self) -> Option<&Endpoint> {
        match self {
            Self::Docker(engine) => Some(engine.endpoint()),
            #[cfg(test)]
            Self::Fake(_) => None,
        }
    }
}

impl Environment {
    /// The way to the supervisor.
    pub fn link(&self) -> Arc<dyn Connect> {
        match self {
            Self::Docker(docker) => docker.link(),
            #[cfg(test)]
            Self::Fake(fake) => fake.link(),
        }
    }

    /// As whom steps run: the config's user, else the environment's own. `None` is uid 0.
    pub fn step_user(&self) -> Option<&str> {
        match self {
            Self::Docker(docker) => docker.step_user(),
            #[cfg(test)]
            Self::Fake(_) => None,
        }
    }

    /// For whoever takes it up again.
    pub fn inheritance(&self) -> Inheritance {
        match self {
            Self::Docker(docker) => docker.inheritance(),
            #[cfg(test)]
            Self::Fake(_) => Inheritance::default(),
        }
    }

    /// Ends when the environment does by itself. May be asked for again and again.
    pub fn died(&self) -> BoxFuture<'static, Died> {
        match self {
            Self::Docker(docker) => docker.primary_died().boxed(),
            #[cfg(test)]
            Self::Fake(fake) => fake.died().boxed(),
        }
    }

    /// Waits until whatever carries the environment, if it is away, is back or given up. `Some` if the environment ended with
    /// it. Returns at once while it is there.
    pub async fn ended_with_host(&self) -> Option<Died> {
        match self {
            Self::Docker(docker) => docker.ended_with_engine().await,
            #[cfg(test)]
            Self::Fake(fake) => fake.ended_with_host(),
        }
    }

    /// The services' output; the second call returns none.
    pub fn take_services(&mut self) -> Vec<ServiceOutput> {
        match self {
            Self::Docker(docker) => docker.take_services(),
            #[cfg(test)]
            Self::Fake(fake) => fake.take_services(),
        }
    }

    /// Ends all that runs in it, within `limit`, and removes nothing.
    pub async fn end(&self, limit: Duration) {
        match self {
            Self::Docker(docker) => docker.end(limit).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.end(),
        }
    }

    /// Removes everything within `limit`. Returns what is left, by name.
    pub async fn destroy(self, limit: Duration) -> Vec<String> {
        match self {
            Self::Docker(docker) => docker.destroy(limit).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.destroy(),
        }
    }
}
