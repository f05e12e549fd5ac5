//! Who has the machines: one of several kinds, and the same to whoever asks for one.
//!
//! ```text
//! Provider ─▶ Instance: one machine.   provision ─▶ launch ─▶ look … look ─▶ connect ─▶ (ready)      destroy, from anywhere
//! ```
//!
//! Each operation is idempotent by the machine's id: who does it a second time finds what the first time made, by the machine's
//! record. What a provider has that no record tells of, `find_own` finds.

use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::cgroup::Parent;
use navvy_environment::egress::Egress;
use navvy_environment::request::{Died, Purpose, ServiceOutput};
use navvy_environment::supervisor::Connect;
use navvy_job::id::TaskId;
use navvy_job::resource::Size;
use navvy_journal::owner::Owner;
use navvy_vm_image::Image;
use tokio::sync::watch;

use crate::error::Fault;
use crate::machine_id::MachineId;
use crate::qemu;
use crate::record::{Known, Record};
use crate::settings::Extras;

/// What is wanted of one machine. In memory only: it holds secrets.
#[derive(Clone)]
pub struct Order {
    /// The machine.
    pub machine: MachineId,
    /// The task that it is for, if it is for one yet.
    pub task: Option<TaskId>,
    /// The process that looks after it.
    pub owner: Owner,
    /// What it boots from; held, so that nobody replaces it meanwhile.
    pub image: Image,
    /// What it is made for.
    pub purpose: Purpose,
    /// What its class gives.
    pub size: Size,
    /// Given from outside, with the limits of the whole task set.
    pub cgroup_parent: Option<Parent>,
    /// Bytes that must be free where its disk goes.
    pub disk_floor: u64,
    /// Its supervisor ends it when no agent has called for so long.
    pub idle_limit: Duration,
    /// How it reaches the outside.
    pub egress: Arc<Egress>,
    /// What it gets beyond that.
    pub extras: Extras,
}

/// Who makes machines.
#[derive(Clone)]
pub(crate) enum Provider {
    /// QEMU on this host.
    Qemu(Arc<qemu::Qemu>),
}

/// One machine at its provider's.
pub(crate) enum Instance {
    /// A process of this host.
    Qemu(Box<qemu::Instance>),
}

/// How a machine stands, seen from its provider.
#[derive(Debug)]
pub(crate) enum Look {
    /// It is not there (yet, or any more): it may be launched.
    Absent,
    /// It is there.
    Up,
    /// It was there, and has ended.
    Ended(Fault),
}

/// A machine whose supervisor answers.
pub(crate) struct Contact {
    /// The way to it.
    pub link: Arc<dyn Connect>,
    /// As whom steps run.
    pub user: Option<String>,
}

impl Provider {
    /// Its name, for records and people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Qemu(_) => "qemu",
        }
    }

    /// A machine that is to be made.
    pub fn order(&self, order: Order, record: Record, host: &HostPaths) -> Instance {
        match self {
            Self::Qemu(qemu) => Instance::Qemu(Box::new(qemu::Instance::new(Arc::clone(qemu), order, record, host))),
        }
    }

    /// A machine that a pool has given to this process, made the task's but for its seed.
    pub async fn take(&self, order: Order, record: Record, host: &HostPaths) -> Result<Instance, Fault> {
        match self {
            Self::Qemu(qemu) => {
                let taken = qemu::Instance::taken(Arc::clone(qemu), order, record, host).await?;
                Ok(Instance::Qemu(Box::new(taken)))
            }
        }
    }

    /// Keeps a pool's machine that another process has made company, as long as what comes back lives.
    pub async fn attend(&self, directory: &std::path::Path) -> Option<tokio::net::UnixStream> {
        match self {
            Self::Qemu(_) => qemu::attend(directory).await,
        }
    }

    /// Ends a machine that another process looks after. Returns what is left.
    pub async fn end_of_another(&self, directory: &std::path::Path, known: &Known, limit: Duration) -> Vec<String> {
        match self {
            Self::Qemu(_) => qemu::end_of_another(directory, known, limit).await,
        }
    }

    /// The way to the supervisor of a machine that another process has made.
    pub async fn link(&self, record: &std::path::Path, known: &Known) -> std::io::Result<Arc<dyn Connect>> {
        match self {
            Self::Qemu(_) => qemu::link_of(record, known).await,
        }
    }

    /// Learns of the end of a machine that another process has made. Within a Tokio runtime only.
    pub fn watch(&self, known: &Known) -> watch::Receiver<Option<Died>> {
        match self {
            Self::Qemu(_) => qemu::watch(known),
        }
    }

    /// Ends the machine within `limit`, and removes nothing.
    pub async fn stop(&self, record: &Record, limit: Duration) {
        match self {
            Self::Qemu(_) => qemu::stop(record, limit).await,
        }
    }

    /// Removes whatever the machine has at its provider's, from any half-made state; not its record. Returns what is left.
    pub async fn destroy(&self, record: &Record, host: &HostPaths, limit: Duration) -> Vec<String> {
        match self {
            Self::Qemu(_) => qemu::destroy(record, host, limit).await,
        }
    }
}

impl Provider {
    /// What a guest gets of its class. `has_room`: what runs it takes nothing of that.
    pub fn guest_size(&self, size: Size, has_room: bool) -> Size {
        match self {
            Self::Qemu(_) => qemu::guest_size(size, has_room),
        }
    }

    /// Is there already what a machine of this image and size would go on from? Makes nothing.
    pub async fn has_snapshot(&self, image: &Image, size: Size, host: &HostPaths) -> Result<bool, Fault> {
        match self {
            Self::Qemu(qemu) => qemu.has_snapshot(image, size, host).await,
        }
    }

    /// Removes what no machine of this provider's starts from any more.
    pub fn sweep(&self, images: &navvy_vm_image::Images, here: &Owner, host: &HostPaths) {
        match self {
            Self::Qemu(_) => qemu::snapshot::sweep(&host.state, images, here),
        }
    }
}

impl Instance {
    /// Makes everything that it needs before it can be started.
    pub async fn provision(&mut self) -> Result<(), Fault> {
        match self {
            Self::Qemu(instance) => instance.provision().await,
        }
    }

    /// Keeps one that has booted, for others to go on from. `false`: there was one.
    pub async fn make_snapshot(&mut self) -> Result<bool, Fault> {
        match self {
            Self::Qemu(instance) => instance.make_snapshot().await,
        }
    }

    /// Starts it.
    pub async fn launch(&mut self) -> Result<(), Fault> {
        match self {
            Self::Qemu(instance) => instance.launch().await,
        }
    }

    /// How it stands.
    pub async fn look(&mut self) -> Result<Look, Fault> {
        match self {
            Self::Qemu(instance) => instance.look().await,
        }
    }

    /// Makes it the task's own. `None`: its supervisor does not answer yet.
    pub async fn connect(&mut self) -> Result<Option<Contact>, Fault> {
        match self {
            Self::Qemu(instance) => instance.connect().await.map(Some),
        }
    }

    /// Waits until it waits for its seed: for a pool.
    pub async fn wait(&mut self) -> Result<(), Fault> {
        match self {
            Self::Qemu(instance) => instance.wait().await,
        }
    }

    /// Learns of its end. Within a Tokio runtime only.
    pub fn died(&mut self) -> watch::Receiver<Option<Died>> {
        match self {
            Self::Qemu(instance) => instance.died(),
        }
    }

    /// The last lines of its console.
    pub fn console(&self) -> String {
        match self {
            Self::Qemu(instance) => instance.console(),
        }
    }

    /// The ssh host key that was made for it.
    pub fn host_key(&self) -> Option<&str> {
        match self {
            Self::Qemu(instance) => instance.host_key.as_deref(),
        }
    }

    /// Its console from here on.
    pub fn listen(&self) -> Option<ServiceOutput> {
        match self {
            Self::Qemu(instance) => Some(instance.listen()),
        }
    }

    /// What the report of the environment says of it. The second call returns none.
    pub fn take_report(&mut self) -> Vec<String> {
        match self {
            Self::Qemu(instance) => instance.take_report(),
        }
    }
}
