//! Where a task's steps run. One of several kinds, and the same to whoever runs the task.
//!
//! ```text
//! Providers: what this process has
//!    │ of: by the job's executor, or by the journal of a task that another process has made
//!    ▼
//! Provider ── prepare ─▶ Environment ── died ─▶ Died            link: the way to its supervisor
//!    │  └──── adopt ────▶    │
//!    │                       ├─ hold: it outlives this process, and the next one adopts it
//!    └─ remove (by id alone) └─ end ─▶ destroy
//! ```
//!
//! Everything but these moves goes through the supervisor, which is the same in each kind.

#[cfg(test)]
pub mod fake;
pub mod inside;
pub mod machine;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use machine::Machine;
use navvy_docker::endpoint::Endpoint;
use navvy_docker::{DockerEnvironment, Engine};
use navvy_environment::HostPaths;
pub use navvy_environment::hold::Adopted;
use navvy_environment::request::{Died, Inheritance, OnEvent, Prepare, ServiceOutput};
use navvy_environment::supervisor::Connect;
use navvy_environment::survey::{Gathered, Reaped, Seen, Survey, finish, gather_files, remove_all};
use navvy_job::compiled::Executor;
use navvy_job::id::TaskId;
use navvy_job::outcome::Blame;
use navvy_journal::owner::Owner;
use navvy_journal::standing::Condition;
use navvy_journal::{HeldStep, Journal, Known};
use navvy_vm::Machines;
use navvy_vm::settings::Extras;

/// What this process can make environments with. Cheap to clone.
#[derive(Clone, Default)]
pub struct Providers {
    /// For jobs in containers.
    pub docker: Option<Engine>,
    /// For jobs in virtual machines, and for the Docker engines of others.
    pub machines: Option<Machines>,
    /// Why no new job gets a machine of them all the same. What there is of machines is still looked after.
    pub refused: Option<Arc<str>>,
    /// In place of both.
    #[cfg(test)]
    pub fake: Option<fake::World>,
}

impl Providers {
    /// What there is of the two.
    pub fn new(docker: Option<Engine>, machines: Option<Machines>) -> Self {
        Self {
            docker,
            machines,
            refused: None,
            #[cfg(test)]
            fake: None,
        }
    }

    /// No new job gets a machine, and this says why.
    #[must_use]
    pub fn without_machine_jobs(self, why: Option<String>) -> Self {
        Self { refused: why.map(Arc::from), ..self }
    }

    /// What carries out jobs of this executor.
    pub fn of(&self, executor: &Executor) -> Provider {
        #[cfg(test)]
        if let Some(world) = &self.fake {
            return Provider::Fake(world.clone());
        }
        match executor {
            Executor::Docker { .. } => self.docker.clone().map_or(Provider::lacking("docker"), Provider::Docker),
            Executor::Machine { .. } => match (&self.refused, &self.machines) {
                (Some(why), _) => Provider::Lacking(Lack { executor: "machine", why: Some(Arc::clone(why)) }),
                (None, Some(machines)) => Provider::Vm(machines.clone()),
                (None, None) => Provider::lacking("machine"),
            },
            Executor::Macos { .. } => Provider::lacking("macos"),
        }
    }

    /// What made the environment of a task, as its journal says.
    pub fn of_known(&self, known: &Known) -> Provider {
        #[cfg(test)]
        if let Some(world) = &self.fake {
            return Provider::Fake(world.clone());
        }
        match (&self.machines, &self.docker) {
            (Some(machines), _) if is_of_machines(known) => Provider::Vm(machines.clone()),
            (None, _) if is_of_machines(known) => Provider::lacking("machine"),
            (_, Some(engine)) => Provider::Docker(engine.clone()),
            (_, None) => Provider::lacking("docker"),
        }
    }
}

impl Providers {
    /// Removes everything that carries the task's id, whatever has made it, within `limit`. Returns what is left, by name.
    pub async fn remove(&self, task: &TaskId, host: &HostPaths, limit: Duration) -> Vec<String> {
        #[cfg(test)]
        if let Some(world) = &self.fake {
            return world.remove("remove");
        }
        let mut left = Vec::new();
        if let Some(machines) = &self.machines {
            left.extend(machines.remove_machines(task, host, limit).await);
        }
        left.extend(match (&self.docker, &self.machines) {
            (Some(engine), _) => engine.remove_task(task, host, limit).await,
            (None, Some(machines)) if left.is_empty() => machines.remove_task(task, host, limit).await,
            _ => Vec::new(),
        });
        left
    }

    /// Removes these tasks with everything that carries their id, journals last.
    pub async fn remove_seen(&self, tasks: Vec<Seen>, host: &HostPaths, limit: Duration) -> Reaped {
        remove_all(tasks, host, |task| async move { self.remove(&task, host, limit).await }).await
    }

    /// Everything that is to be seen on this machine of anybody's tasks.
    pub async fn survey(&self, here: &Owner, host: &HostPaths) -> Survey {
        let machines = |gathered: &mut BTreeMap<TaskId, Gathered>| navvy_vm::survey::gather(gathered, here, host);
        match &self.docker {
            Some(engine) => engine.survey_with(here, host, machines).await,
            None => {
                let mut gathered = BTreeMap::new();
                let mut troubles = machines(&mut gathered);
                troubles.extend(gather_files(&mut gathered, host));
                finish(gathered, here, host, troubles)
            }
        }
    }

    /// Removes what dead owners have left on this machine. Returns what is still there.
    pub async fn reap(&self, here: &Owner, host: &HostPaths, limit: Duration) -> Vec<String> {
        let mut left = Vec::new();
        // Machines first: a task's journal goes with its last object, and says of a machine that it is dead.
        if let Some(machines) = &self.machines {
            left.extend(machines.reap(here, host, limit).await.left);
        }
        if let Some(engine) = &self.docker {
            left.extend(engine.reap(here, host, limit).await.left);
        }
        left
    }

    /// Removes what this very process made and does not look after any more: it had a bug. What it left for a person stays.
    pub async fn remove_own(&self, here: &Owner, host: &HostPaths, limit: Duration) -> Reaped {
        let survey = self.survey(here, host).await;
        let own = |seen: &Seen| matches!(&seen.condition, Condition::Running(owner) if owner == here);
        let mut removed = self.remove_seen(survey.tasks.into_iter().filter(own).collect(), host, limit).await;
        removed.left.splice(0..0, survey.troubles);
        removed
    }
}

/// In the journal of a task whose steps run in a machine, in place of an engine's address. Behind it stands what made the machine.
const MACHINES: &str = "machine:";

/// Do the steps of this task run in a virtual machine?
pub fn is_of_machines(known: &Known) -> bool {
    known.opening.engine.starts_with(MACHINES)
}

/// What makes environments. Cheap to clone.
#[derive(Clone)]
pub enum Provider {
    /// Containers of this engine.
    Docker(Engine),
    /// Virtual machines.
    Vm(Machines),
    /// Nothing: this process has nothing that carries out jobs of this executor.
    Lacking(Lack),
    /// Nothing but notes of what was asked.
    #[cfg(test)]
    Fake(fake::World),
}

/// What this process does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// As the config calls it.
    executor: &'static str,
    /// Where there is more to say than that.
    why: Option<Arc<str>>,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} executor cannot be carried out by this process", self.executor)?;
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

/// Why there is no environment.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Docker(#[from] navvy_docker::PrepareError),
    #[error(transparent)]
    Vm(#[from] navvy_vm::PrepareError),
    #[error("{0}")]
    Lacking(Lack),
    #[cfg(test)]
    #[error("{message}")]
    Fake { blame: Blame, message: String },
}

impl PrepareError {
    /// Who can do something about it.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Docker(error) => error.blame(),
            Self::Vm(error) => error.blame(),
            Self::Lacking(_) => Blame::Infra,
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
    #[error(transparent)]
    Vm(#[from] navvy_vm::HoldError),
    #[error("{0}")]
    Lacking(Lack),
    #[cfg(test)]
    #[error("{0}")]
    Fake(String),
}

impl HoldError {
    /// Another process holds the task's journal.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Docker(navvy_docker::hold::HoldError::Written(error)) => error.is_busy(),
            Self::Vm(navvy_vm::HoldError::Written(error)) => error.is_busy(),
            _ => false,
        }
    }
}

/// A live environment. Destroy it; dropping it leaves everything running.
pub enum Environment {
    Docker(DockerEnvironment),
    Vm(Machine),
    #[cfg(test)]
    Fake(fake::FakeEnvironment),
}

impl Provider {
    fn lacking(executor: &'static str) -> Self {
        Self::Lacking(Lack { executor, why: None })
    }

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
            Self::Vm(machines) => {
                Ok(Environment::Vm(Machine::prepare(machines, request, Extras::default(), host, events).await?))
            }
            Self::Lacking(lack) => Err(PrepareError::Lacking(lack.clone())),
            #[cfg(test)]
            Self::Fake(world) => world.prepare(request, events).await.map(Environment::Fake),
        }
    }

    /// A live environment around the way to a supervisor that was found already. `containers`: their names now, the
    /// primary first; `floor`: free bytes below which jobs that fill the disk are ended. Within a Tokio runtime only.
    ///
    /// # Errors
    /// This process has nothing that could carry it.
    pub async fn adopt(
        &self,
        task: &TaskId,
        host: &HostPaths,
        containers: Vec<String>,
        link: Arc<dyn Connect>,
        inherited: Inheritance,
        floor: u64,
    ) -> Result<Environment, HoldError> {
        Ok(match self {
            Self::Docker(engine) => Environment::Docker(
                DockerEnvironment::adopt(engine, task, host, containers, link, inherited, floor).await,
            ),
            Self::Vm(machines) => {
                let machine = machines.adopt(task, host, link, inherited).await;
                Environment::Vm(Machine::adopted(machine, task, host).await)
            }
            Self::Lacking(lack) => return Err(HoldError::Lacking(lack.clone())),
            #[cfg(test)]
            Self::Fake(world) => Environment::Fake(world.adopt()),
        })
    }

    /// Makes this process the owner of a task that was held, for longer: until `until` it is held again should this process die.
    ///
    /// # Errors
    /// Another process has it, or there is nothing of it any more.
    pub async fn adopt_task(
        &self,
        task: &TaskId,
        until: u64,
        step: HeldStep,
        here: &Owner,
        host: &HostPaths,
    ) -> Result<Adopted, HoldError> {
        match self {
            Self::Docker(engine) => Ok(engine.adopt_task(task, until, step, here, host).await?),
            Self::Vm(machines) => Ok(machines.adopt_task(task, until, step, here, host).await?),
            Self::Lacking(lack) => Err(HoldError::Lacking(lack.clone())),
            #[cfg(test)]
            Self::Fake(_) => Err(HoldError::Fake("no fake is adopted by its id".to_owned())),
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
            Self::Vm(machines) => Ok(machines.keep_task(journal, task, until, step, owner, host).await?),
            Self::Lacking(lack) => Err(HoldError::Lacking(lack.clone())),
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
            Self::Vm(machines) => Ok(machines.take_over(journal, task, until, owner, host).await?),
            Self::Lacking(lack) => Err(HoldError::Lacking(lack.clone())),
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
            Self::Vm(machines) => machines.link_of_left(task, host).await,
            Self::Lacking(lack) => Err(std::io::Error::other(HoldError::Lacking(lack.clone()))),
            #[cfg(test)]
            Self::Fake(world) => Ok(world.link()),
        }
    }

    /// Removes everything that carries the task's id, within `limit`, from any half-made state. Returns what is left, by
    /// name.
    pub async fn remove(&self, task: &TaskId, host: &HostPaths, limit: Duration) -> Vec<String> {
        match self {
            Self::Docker(engine) => engine.remove_task(task, host, limit).await,
            Self::Vm(machines) => machines.remove_task(task, host, limit).await,
            // What it cannot make it has not made.
            Self::Lacking(_) => Vec::new(),
            #[cfg(test)]
            Self::Fake(world) => world.remove("remove"),
        }
    }

    /// Its name, for the journal and for people.
    pub fn name(&self) -> String {
        match self {
            Self::Docker(engine) => engine.endpoint().to_string(),
            Self::Vm(machines) => format!("{MACHINES}{}", machines.name()),
            Self::Lacking(lack) => format!("none for {}", lack.executor),
            #[cfg(test)]
            Self::Fake(_) => "fake".to_owned(),
        }
    }

    /// Do its environments take memory from their start on, whatever runs in them?
    pub fn is_of_machines(&self) -> bool {
        matches!(self, Self::Vm(_))
    }

    /// The Docker engine that it is, if it is one: a job may be handed it.
    pub fn engine(&self) -> Option<&Endpoint> {
        match self {
            Self::Docker(engine) => Some(engine.endpoint()),
            Self::Vm(_) | Self::Lacking(_) => None,
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
            Self::Vm(machine) => machine.environment().link(),
            #[cfg(test)]
            Self::Fake(fake) => fake.link(),
        }
    }

    /// As whom steps run: the config's user, else the environment's own. `None` is uid 0.
    pub fn step_user(&self) -> Option<&str> {
        match self {
            Self::Docker(docker) => docker.step_user(),
            Self::Vm(machine) => machine.environment().step_user(),
            #[cfg(test)]
            Self::Fake(_) => None,
        }
    }

    /// For whoever takes it up again.
    pub fn inheritance(&self) -> Inheritance {
        match self {
            Self::Docker(docker) => docker.inheritance(),
            Self::Vm(machine) => machine.environment().inheritance(),
            #[cfg(test)]
            Self::Fake(_) => Inheritance::default(),
        }
    }

    /// Ends when the environment does by itself. May be asked for again and again.
    pub fn died(&self) -> BoxFuture<'static, Died> {
        match self {
            Self::Docker(docker) => docker.primary_died().boxed(),
            Self::Vm(machine) => machine.environment().died().map(machine::ended).boxed(),
            #[cfg(test)]
            Self::Fake(fake) => fake.died().boxed(),
        }
    }

    /// Waits until whatever carries the environment, if it is away, is back or given up. `Some` if the environment ended with
    /// it. Returns at once while it is there.
    pub async fn ended_with_host(&self) -> Option<Died> {
        match self {
            Self::Docker(docker) => docker.ended_with_engine().await,
            // Nothing carries a machine that could be away and come back.
            Self::Vm(_) => None,
            #[cfg(test)]
            Self::Fake(fake) => fake.ended_with_host(),
        }
    }

    /// It outlives this process: what its Docker engine keeps stays with it.
    pub fn leave_layers(&mut self) {
        if let Self::Vm(machine) = self {
            machine.leave_layers();
        }
    }

    /// Would what its Docker engine keeps be kept for the next job, if this process ended it?
    pub fn keeps_layers(&self) -> bool {
        matches!(self, Self::Vm(machine) if machine.keeps_layers())
    }

    /// The services' output; the second call returns none.
    pub fn take_services(&mut self) -> Vec<ServiceOutput> {
        match self {
            Self::Docker(docker) => docker.take_services(),
            Self::Vm(machine) => machine.take_console().into_iter().collect(),
            #[cfg(test)]
            Self::Fake(fake) => fake.take_services(),
        }
    }

    /// Ends all that runs in it, within `limit`, and removes nothing.
    pub async fn end(&self, limit: Duration) {
        match self {
            Self::Docker(docker) => docker.end(limit).await,
            Self::Vm(machine) => machine.end(limit).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.end(),
        }
    }

    /// Removes everything within `limit`. Returns what is left, by name.
    pub async fn destroy(self, limit: Duration) -> Vec<String> {
        match self {
            Self::Docker(docker) => docker.destroy(limit).await,
            Self::Vm(machine) => machine.destroy(limit).await,
            #[cfg(test)]
            Self::Fake(fake) => fake.destroy(),
        }
    }
}
