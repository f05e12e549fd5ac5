//! Who has the machines: one of several kinds, and the same to whoever asks for one.
//!
//! ```text
//! Provider ─▶ Instance: one machine.   provision ─▶ launch ─▶ look … look ─▶ connect ─▶ (ready)      destroy, from anywhere
//! ```
//!
//! Each operation is idempotent by the machine's id: who does it a second time finds what the first time made, by the machine's
//! record. What a provider has that no record tells of, `find_own` finds.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::cgroup::Parent;
use navvy_environment::egress::Egress;
use navvy_environment::request::{Died, IDLE_LIMIT, Machine as Wanted, Purpose, ServiceOutput};
use navvy_environment::supervisor::Connect;
use navvy_job::id::TaskId;
use navvy_job::resource::Size;
use navvy_journal::owner::Owner;
use navvy_vm_image::Image;
use tokio::sync::watch;

use crate::error::Fault;
use crate::far::{self, cloud, hosts, lent};
use crate::machine_id::MachineId;
use crate::record::{Known, Record};
use crate::settings::{Extras, Settings};
pub(crate) use crate::start::Source;
use crate::{images, qemu};

/// What is wanted of one machine. In memory only: it holds secrets.
#[derive(Clone)]
pub struct Order<I = Image> {
    /// The machine.
    pub machine: MachineId,
    /// The task that it is for, if it is for one yet.
    pub task: Option<TaskId>,
    /// The process that looks after it.
    pub owner: Owner,
    /// What it boots from; an image of this host is held, so that nobody replaces it meanwhile.
    pub image: I,
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

impl<I> Order<I> {
    /// A machine that nobody has asked for yet: it is limited by its own cgroup, and reaches what every machine may.
    pub fn nobodys(machine: MachineId, owner: Owner, image: I, size: Size) -> Self {
        Self {
            machine,
            task: None,
            owner,
            image,
            purpose: Purpose::RemoteDocker,
            size,
            cgroup_parent: None,
            disk_floor: 0,
            idle_limit: IDLE_LIMIT,
            egress: Arc::new(Egress::default()),
            extras: Extras::default(),
        }
    }

    /// The same of another image.
    fn with<J>(self, of: impl FnOnce(I) -> J) -> Order<J> {
        let Self { machine, task, owner, image, purpose, size, cgroup_parent, disk_floor, idle_limit, egress, extras } =
            self;
        let image = of(image);
        Order { machine, task, owner, image, purpose, size, cgroup_parent, disk_floor, idle_limit, egress, extras }
    }
}

/// Who makes machines.
#[derive(Clone)]
pub(crate) enum Provider {
    /// QEMU on this host.
    Qemu(Arc<qemu::Qemu>),
    /// Hosts that are already there.
    Ssh(Arc<hosts::Hosts>),
    /// A cloud: EC2, Compute Engine.
    Cloud(Arc<cloud::Cloud>),
    /// A fleet's processor, which lends what its pool has.
    Lent,
    /// One that these settings do not have, by its name.
    Lacking(Arc<str>),
}

/// One machine at its provider's.
pub(crate) enum Instance {
    /// A process of this host.
    Qemu(Box<qemu::Instance>),
    /// A host that is there.
    Host(Box<hosts::Instance>),
    /// A cloud's.
    Cloud(Box<cloud::Instance>),
    /// A processor's.
    Lent(Box<lent::Instance>),
    /// None: its provider has nothing of the kind.
    Lacking(Arc<str>),
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
    pub fn name(&self) -> &str {
        match self {
            Self::Qemu(_) => qemu::NAME,
            Self::Ssh(_) => hosts::NAME,
            Self::Cloud(cloud) => cloud.name(),
            Self::Lent => lent::NAME,
            Self::Lacking(name) => name,
        }
    }

    /// What a task's machine starts from. Nothing is asked for it.
    ///
    /// # Errors
    /// The provider has no such thing, or it lacks what the task needs.
    pub fn choose(&self, settings: &Settings, wanted: &Wanted, size: Size) -> Result<Source, Fault> {
        match self {
            Self::Qemu(_) => images::resolve(settings, wanted).map(Source::from),
            Self::Ssh(hosts) => Ok(Source::Hosts(Arc::clone(hosts), hosts.choose(wanted)?)),
            Self::Cloud(cloud) => Ok(Source::Cloud(Arc::clone(cloud), Box::new(cloud.choose(wanted, size)?))),
            Self::Lent => lent::Chosen::of(wanted).map(Source::Lent),
            Self::Lacking(name) => Err(lacking(name)),
        }
    }

    /// A machine that is to be made.
    pub fn order(&self, order: Order<impl Into<Source>>, record: Record, host: &HostPaths) -> Instance {
        let mut source = None;
        let order = order.with(|image| {
            source = Some(image.into());
        });
        match (self, source) {
            (Self::Qemu(qemu), Some(Source::Image(image))) => {
                let order = order.with(|()| *image);
                Instance::Qemu(Box::new(qemu::Instance::new(Arc::clone(qemu), order, record, host)))
            }
            (_, Some(Source::Hosts(hosts, candidates))) => {
                Instance::Host(Box::new(hosts::Instance::new(hosts, order.with(|()| candidates), record, host)))
            }
            (_, Some(Source::Cloud(cloud, chosen))) => {
                Instance::Cloud(Box::new(cloud::Instance::new(cloud, order.with(|()| *chosen), record, host)))
            }
            (other, _) => Instance::Lacking(other.name().into()),
        }
    }

    /// A machine that a pool has given to this process, made the task's but for its seed.
    pub async fn take(&self, order: Order<Source>, record: Record, host: &HostPaths) -> Result<Instance, Fault> {
        let mut source = None;
        let order = order.with(|image| {
            source = Some(image);
        });
        match (self, source) {
            (Self::Qemu(qemu), Some(Source::Image(image))) => {
                let order = order.with(|()| *image);
                let taken = qemu::Instance::taken(Arc::clone(qemu), order, record, host).await?;
                Ok(Instance::Qemu(Box::new(taken)))
            }
            (_, Some(Source::Hosts(hosts, candidates))) => {
                let taken = hosts::Instance::of_pool(hosts, order.with(|()| candidates), record, host)?;
                Ok(Instance::Host(Box::new(taken)))
            }
            (_, Some(Source::Cloud(cloud, chosen))) => {
                let taken = cloud::Instance::of_pool(cloud, order.with(|()| *chosen), record, host)?;
                Ok(Instance::Cloud(Box::new(taken)))
            }
            (_, Some(Source::Lent(lent::Chosen { lent: Some(entrance), .. }))) => {
                let taken = lent::Instance::new(order.with(|()| entrance), record, host)?;
                Ok(Instance::Lent(Box::new(taken)))
            }
            _ => Err(Fault::Unsupported(format!("a machine was given that is none of {}", self.name()))),
        }
    }

    /// Why a pool's machine that is ready is of no use any more. `None`: it is there, or nobody says otherwise within `limit`.
    pub async fn ended(&self, known: &Known, here: &Owner, limit: Duration) -> Option<String> {
        match self {
            Self::Qemu(_) => {
                let is_dead = known.process().is_none_or(|process| process.is_dead(here));
                is_dead.then(|| "its QEMU has ended".to_owned())
            }
            Self::Cloud(cloud) => {
                let asked = tokio::time::timeout(limit, boxed(cloud.gone(&known.planned.machine))).await;
                asked.ok().flatten()
            }
            Self::Ssh(_) => {
                let Some(way) = known.way() else { return Some("nothing says how it is entered".to_owned()) };
                let waits = boxed(far::seeding::still_waits(way, limit)).await;
                waits.err().map(|fault| navvy_job::chain::chain(&fault))
            }
            Self::Lent | Self::Lacking(_) => None,
        }
    }

    /// Keeps a pool's machine that another process has made company, as long as what comes back lives.
    pub async fn attend(&self, directory: &std::path::Path) -> Option<tokio::net::UnixStream> {
        match self {
            Self::Qemu(_) => qemu::attend(directory).await,
            Self::Ssh(_) | Self::Cloud(_) | Self::Lent | Self::Lacking(_) => None,
        }
    }

    /// Ends a machine that another process looks after. Returns what is left.
    pub async fn end_of_another(&self, directory: &std::path::Path, known: &Known, limit: Duration) -> Vec<String> {
        match self {
            Self::Qemu(_) => qemu::end_of_another(directory, known, limit).await,
            Self::Cloud(cloud) => boxed(cloud::end_of_another(cloud, known, limit)).await,
            // A host is not reset under its task's feet: whoever has it does so.
            Self::Ssh(_) | Self::Lent | Self::Lacking(_) => Vec::new(),
        }
    }

    /// The way to the supervisor of a machine that another process has made.
    pub async fn link(&self, record: &std::path::Path, known: &Known) -> std::io::Result<Arc<dyn Connect>> {
        match self {
            Self::Qemu(_) => qemu::link_of(record, known).await,
            Self::Ssh(_) | Self::Cloud(_) | Self::Lent => boxed(far::link_of(record, known)).await,
            Self::Lacking(name) => Err(std::io::Error::other(lacking(name))),
        }
    }

    /// Learns of the end of a machine that another process has made. Within a Tokio runtime only.
    pub fn watch(&self, known: &Known, link: &Arc<dyn Connect>) -> watch::Receiver<Option<Died>> {
        let link = Some(Arc::clone(link));
        match self {
            Self::Qemu(_) => qemu::watch(known),
            Self::Cloud(cloud) => cloud::watch_of(cloud, known.planned.machine.clone(), link),
            Self::Ssh(_) | Self::Lent | Self::Lacking(_) => {
                far::watch::of(link, known.planned.image.clone(), far::watch::Nobody)
            }
        }
    }

    /// Ends the machine within `limit`, and removes nothing. A host that is there ends by its reset, which removes.
    pub async fn stop(&self, record: &Record, limit: Duration) {
        match self {
            Self::Qemu(_) => qemu::stop(record, limit).await,
            Self::Cloud(cloud) => boxed(cloud::stop(cloud, record, limit)).await,
            Self::Ssh(_) | Self::Lent | Self::Lacking(_) => {}
        }
    }

    /// Removes whatever the machine has at its provider's, from any half-made state; not its record. Returns what is left.
    pub async fn destroy(&self, record: &Record, host: &HostPaths, limit: Duration) -> Vec<String> {
        match self {
            Self::Qemu(_) => qemu::destroy(record, host, limit).await,
            Self::Ssh(hosts) => boxed(hosts::destroy(hosts, record, host)).await,
            Self::Cloud(cloud) => boxed(cloud::destroy(cloud, record, limit)).await,
            // The processor ends it: it is given back, or its task's lease ends.
            Self::Lent => Vec::new(),
            Self::Lacking(name) => vec![format!("machine {} ({})", record.machine().host_name(), lacking(name))],
        }
    }

    /// What a guest gets of its class, in a cgroup that was given if one was.
    pub fn guest_size(&self, size: Size, given: Option<&Parent>) -> Size {
        match self {
            Self::Qemu(_) => qemu::guest_size(size, given),
            Self::Ssh(_) | Self::Cloud(_) | Self::Lent | Self::Lacking(_) => size,
        }
    }

    /// Is there already what a machine of this image and size would go on from? Makes nothing.
    pub async fn has_snapshot(&self, image: &Image, size: Size, host: &HostPaths) -> Result<bool, Fault> {
        match self {
            Self::Qemu(qemu) => qemu.has_snapshot(image, size, host).await,
            // Each of them starts in its own way, and boots.
            Self::Ssh(_) | Self::Cloud(_) | Self::Lent | Self::Lacking(_) => Ok(true),
        }
    }

    /// Removes what no machine of this provider's starts from any more.
    pub fn sweep(&self, images: &navvy_vm_image::Images, here: &Owner, host: &HostPaths) {
        match self {
            Self::Qemu(_) => qemu::snapshot::sweep(&host.state, images, here),
            // Their images are not this host's.
            Self::Ssh(_) | Self::Cloud(_) | Self::Lent | Self::Lacking(_) => {}
        }
    }

    /// Removes what the provider has of this host's and no record knows, within `limit`. Returns what is left.
    pub async fn reap_unknown(&self, host: &HostPaths, limit: Duration) -> Vec<String> {
        let Self::Cloud(cloud) = self else { return Vec::new() };
        let reaped = tokio::time::timeout(limit, boxed(far::unknown::reap(cloud, host))).await;
        reaped.unwrap_or_else(|_| {
            vec![format!(
                "machines of {} that no record knows, if there are any (no answer within {limit:?})",
                cloud.name()
            )]
        })
    }
}

/// What is elsewhere takes its time: a future of its own, so that those of whoever waits stay small.
fn boxed<'a, T>(future: impl Future<Output = T> + Send + 'a) -> Pin<Box<dyn Future<Output = T> + Send + 'a>> {
    Box::pin(future)
}

fn is_made() -> Fault {
    Fault::Unsupported("a machine that was lent is there already".to_owned())
}

fn lacking(name: &str) -> Fault {
    Fault::Lacking(name.to_owned())
}

impl Instance {
    /// Makes everything that it needs before it can be started.
    pub async fn provision(&mut self) -> Result<(), Fault> {
        match self {
            Self::Qemu(instance) => instance.provision().await,
            Self::Host(instance) => boxed(instance.provision()).await,
            Self::Cloud(instance) => boxed(instance.provision()).await,
            Self::Lent(_) => Err(is_made()),
            Self::Lacking(name) => Err(lacking(name)),
        }
    }

    /// Keeps one that has booted, for others to go on from. `false`: there was one.
    pub async fn make_snapshot(&mut self) -> Result<bool, Fault> {
        match self {
            Self::Qemu(instance) => instance.make_snapshot().await,
            Self::Host(_) | Self::Cloud(_) | Self::Lent(_) | Self::Lacking(_) => {
                Err(Fault::Unsupported("snapshots are of machines of this host alone".to_owned()))
            }
        }
    }

    /// Starts it.
    pub async fn launch(&mut self) -> Result<(), Fault> {
        match self {
            Self::Qemu(instance) => instance.launch().await,
            // It runs.
            Self::Host(_) => Ok(()),
            Self::Cloud(instance) => boxed(instance.launch()).await,
            Self::Lent(_) => Err(is_made()),
            Self::Lacking(name) => Err(lacking(name)),
        }
    }

    /// How it stands.
    pub async fn look(&mut self) -> Result<Look, Fault> {
        match self {
            Self::Qemu(instance) => instance.look().await,
            Self::Host(instance) => Ok(instance.look()),
            Self::Cloud(instance) => boxed(instance.look()).await,
            Self::Lent(_) => Ok(Look::Up),
            Self::Lacking(name) => Err(lacking(name)),
        }
    }

    /// Makes it the task's own. `None`: its supervisor does not answer yet.
    pub async fn connect(&mut self) -> Result<Option<Contact>, Fault> {
        match self {
            Self::Qemu(instance) => instance.connect().await.map(Some),
            Self::Host(instance) => boxed(instance.connect()).await.map(Some),
            Self::Cloud(instance) => boxed(instance.connect()).await.map(Some),
            Self::Lent(instance) => boxed(instance.connect()).await.map(Some),
            Self::Lacking(name) => Err(lacking(name)),
        }
    }

    /// Waits until it waits for its seed: for a pool.
    pub async fn wait(&mut self) -> Result<(), Fault> {
        match self {
            Self::Qemu(instance) => instance.wait().await,
            Self::Host(instance) => boxed(instance.wait()).await,
            Self::Cloud(instance) => boxed(instance.wait()).await,
            Self::Lent(_) => Err(is_made()),
            Self::Lacking(name) => Err(lacking(name)),
        }
    }

    /// Learns of its end. Within a Tokio runtime only.
    pub fn died(&mut self) -> watch::Receiver<Option<Died>> {
        match self {
            Self::Qemu(instance) => instance.died(),
            Self::Host(instance) => instance.died(),
            Self::Cloud(instance) => instance.died(),
            Self::Lent(instance) => instance.died(),
            Self::Lacking(name) => watch::channel(Some(Died::EngineLost { message: lacking(name).to_string() })).1,
        }
    }

    /// The last lines of its console, for an error: of a cloud's machine, what the cloud has of it.
    pub async fn asked_console(&self) -> String {
        match self {
            Self::Cloud(instance) => boxed(instance.console()).await,
            _ => self.console(),
        }
    }

    /// The last lines of its console; none of a machine that is elsewhere.
    pub fn console(&self) -> String {
        match self {
            Self::Qemu(instance) => instance.console(),
            Self::Host(_) | Self::Cloud(_) | Self::Lent(_) | Self::Lacking(_) => String::new(),
        }
    }

    /// The ssh host key that was made for it, or that its operator has named.
    pub fn host_key(&self) -> Option<&str> {
        match self {
            Self::Qemu(instance) => instance.host_key.as_deref(),
            Self::Host(instance) => instance.host_key(),
            Self::Cloud(instance) => instance.host_key(),
            Self::Lent(instance) => instance.host_key(),
            Self::Lacking(_) => None,
        }
    }

    /// Its console from here on.
    pub fn listen(&self) -> Option<ServiceOutput> {
        match self {
            Self::Qemu(instance) => Some(instance.listen()),
            Self::Host(_) | Self::Cloud(_) | Self::Lent(_) | Self::Lacking(_) => None,
        }
    }

    /// What the report of the environment says of it. The second call returns none.
    pub fn take_report(&mut self) -> Vec<String> {
        match self {
            Self::Qemu(instance) => instance.take_report(),
            Self::Host(instance) => instance.take_report(),
            Self::Cloud(instance) => instance.take_report(),
            Self::Lent(instance) => instance.take_report(),
            Self::Lacking(_) => Vec::new(),
        }
    }
}
