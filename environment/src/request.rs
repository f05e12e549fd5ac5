//! What is asked of an environment of any kind, and what it reports.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use navvy_job::claim::Secrets;
use navvy_job::compiled::Container;
use navvy_job::id::TaskId;
use navvy_job::resource::Size;
use navvy_journal::Journal;
use navvy_journal::owner::Owner;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::cgroup::Parent;
use crate::egress::{Egress, Given};

/// What to make. Images are the ones to use: substitutions have been applied.
#[derive(Debug, Clone)]
pub struct Prepare {
    /// The task the environment is for.
    pub task: TaskId,
    /// What the config asks for.
    pub wanted: Wanted,
    /// What the resource class gives to all containers together.
    pub size: Size,
    /// Processes and threads that a container may have.
    pub pids: u32,
    /// Whether images are pulled.
    pub pull: PullPolicy,
    /// Variables that a config's `auth` may name: contexts' and the command line's.
    pub secrets: Secrets,
    /// Given from outside, with the limits of the whole task set; Navvy neither makes nor removes it. The task's own is below.
    pub cgroup_parent: Option<Parent>,
    /// The process that looks after the task; written into marks and labels.
    pub owner: Owner,
    /// Another agent may go on with the task, should its owner be killed.
    pub is_adoptable: bool,
    /// Begun by the caller: nothing is made before it is on disk.
    pub journal: Option<Journal>,
    /// A supervisor that has not been called for this long ends its environment: whoever made it is dead.
    pub idle_limit: Duration,
    /// Free bytes of the engine's disk below which jobs that fill it are ended. 0: none.
    pub disk_floor: u64,
    /// How it reaches the outside.
    pub egress: Arc<Egress>,
    /// Further lines for the report: a class that was clamped, an image that was substituted.
    pub notes: Vec<String>,
}

/// What a job runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Containers, the primary first.
    Containers(Vec<Container>),
    /// A virtual machine.
    Machine(Machine),
}

impl Wanted {
    /// The containers, the primary first; none of a machine.
    pub fn containers(&self) -> &[Container] {
        match self {
            Self::Containers(containers) => containers,
            Self::Machine(_) => &[],
        }
    }
}

/// A virtual machine, as a config asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The config's name of the image; `None`: the one that is used where none is named.
    pub image: Option<String>,
    /// What it is made for.
    pub purpose: Purpose,
    /// The name of its resource class. `None`: its size is nobody's class, and no pool has it.
    pub class: Option<String>,
    /// The volume of Docker's layers that it gets: a name that only tasks of one project ask for.
    pub layers: Option<String>,
}

/// What a machine is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The task's steps run in it.
    Steps,
    /// Its Docker engine serves a task whose steps run elsewhere.
    RemoteDocker,
}

/// How long a supervisor waits for a call, if nothing else is said. An agent that lives calls it far more often, however long
/// its task waits.
pub const IDLE_LIMIT: Duration = Duration::from_secs(600);

/// What is reported while an environment is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareEvent {
    /// A line of "Spin up environment".
    Report(String),
    /// Something long goes on; drawn live, never logged.
    Progress {
        /// What is being done, as in `pulling cimg/base`.
        what: String,
        /// Bytes done so far.
        done: u64,
        /// Bytes in all, if that is known.
        total: Option<u64>,
    },
    /// Something a person should know, in a sentence; the environment is made all the same.
    Warning(String),
}

/// Where events go.
pub type OnEvent<'a> = &'a (dyn Fn(PrepareEvent) + Send + Sync);

/// Whether to ask a registry for an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Only for an image that is not here.
    #[default]
    Missing,
    /// Even for an image that is here.
    Always,
    /// A missing image is an error.
    Never,
}

/// An unexpected end of the primary container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Died {
    /// Its main process has ended.
    Exited {
        /// The main process's exit code.
        code: i64,
        /// The kernel killed its main process for want of memory.
        out_of_memory: bool,
        /// The end of what its main process wrote.
        last_words: String,
    },
    /// The engine's disk was nearly full, and this job had written most of all.
    DiskFloor {
        /// What was full, and what to do, in a sentence.
        message: String,
    },
    /// A virtual machine has ended.
    MachineEnded {
        /// How, in a sentence.
        message: String,
        /// Something in the machine ended it, and no fault of this host.
        from_inside: bool,
    },
    /// The engine is gone; what became of the container cannot be known.
    EngineLost {
        /// How the engine was lost, in a sentence.
        message: String,
    },
}

/// What an agent that takes an environment over must know of it, beside the task's id and the containers' names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inheritance {
    /// Variables of the primary's image, which steps get, too.
    pub image_env: Vec<(String, String)>,
    /// As whom steps run: `None` is uid 0.
    pub step_user: Option<String>,
    /// Proxies and authorities that it was given.
    #[serde(default)]
    pub egress: Given,
    /// Its engine sees none of this machine's files.
    #[serde(default)]
    pub uploaded: bool,
    /// Its supervisor ends it when it is not called for so long. `None`: for [`IDLE_LIMIT`].
    #[serde(default)]
    pub idle_limit: Option<Duration>,
}

/// A service container and what it writes: stdout and stderr as they come.
#[derive(Debug)]
pub struct ServiceOutput {
    /// The config's name, else the image.
    pub name: String,
    /// The image, as the engine knows it.
    pub image: String,
    /// The container's name.
    pub container: String,
    /// Ends when the service does. Dropping it lets the service go on unheard.
    pub rx: mpsc::Receiver<Bytes>,
    /// Comes after the last output; an error means that the container was removed first.
    pub end: oneshot::Receiver<ServiceEnd>,
}

/// How a service's output ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEnd {
    /// `None` when it has none, or the engine could not tell.
    pub exit_code: Option<i64>,
    /// Bytes that the reader was too slow for.
    pub lost: u64,
    /// Why this may be the end of the output alone, and not of the service.
    pub trouble: Option<String>,
}
