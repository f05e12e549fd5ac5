//! Machines of a cloud: asked for by their ids, found again by id and tag, ended by the record alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::request::{Died, Machine as Wanted};
use navvy_environment::supervisor::Connect;
use navvy_job::resource::Size;
use tokio::sync::watch;
use tokio::time::Instant;

use super::choice::{self, Row, Type};
use super::seeding;
use super::watch::Gone;
use super::way::{Forwarding, Way};
use super::{identity, keys, refuse, told_plainly};
use crate::cloud::user_data::user_data;
use crate::cloud::{self, Launch, Stage};
use crate::ec2::Ec2;
use crate::error::Fault;
use crate::gce::Gce;
use crate::machine_id::MachineId;
use crate::provider::{Contact, Look, Order};
use crate::qemu;
use crate::qemu::console::last_lines;
use crate::record::{Entry, Fact, Known, Record};
use crate::settings::Settings;
use crate::ssh::Target;
use crate::ssh_key::{NoKey, SshKey};

/// Between two questions how a machine stands.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// A cloud may not know yet what it has just said that it made.
const UNSEEN: Duration = Duration::from_secs(60);
/// How often a machine that may have been made is looked for, and one that was ended whether it ends, a second apart.
const TRIES: usize = 4;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// A machine that failed is ended soon, with its console or without.
const CONSOLE_LIMIT: Duration = Duration::from_secs(10);

/// A cloud's own verbs.
pub(crate) enum Api {
    Ec2(Box<Ec2>),
    Gce(Box<Gce>),
}

/// What an operator says of the machines of a cloud.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// Its images.
    pub images: Vec<Row>,
    /// Its sizes.
    pub types: Vec<Type>,
    /// As whom machines are entered.
    pub user: String,
    /// Cheaper ones, which the cloud may take away.
    pub is_spot: bool,
    /// Their root disks in GiB; 0: as their images have them.
    pub disk_gib: u32,
    /// One that no record knows is ended when it is so old.
    pub unknown_after: Duration,
    /// Region or zone.
    pub place: String,
    /// Of the ssh servers.
    pub port: u16,
    /// The table's name in settings.
    pub key: &'static str,
}

/// A cloud, with what is said of its machines.
pub(crate) struct Cloud {
    pub api: Api,
    pub terms: Terms,
    pub settings: Arc<Settings>,
}

/// What a task's machine is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub image: Row,
    pub size: Type,
    /// It has all that the class gives.
    pub has_all: bool,
}

impl Api {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ec2(_) => "ec2",
            Self::Gce(_) => "gce",
        }
    }

    async fn launch(&self, launch: &Launch) -> Result<cloud::Instance, cloud::Fault> {
        match self {
            Self::Ec2(api) => api.launch(launch).await,
            Self::Gce(api) => api.launch(launch).await,
        }
    }

    async fn find(&self, id: &MachineId) -> Result<Option<cloud::Instance>, cloud::Fault> {
        match self {
            Self::Ec2(api) => api.find(id).await,
            Self::Gce(api) => api.find(id).await,
        }
    }

    pub async fn list(&self, owner: &str) -> Result<Vec<cloud::Instance>, cloud::Fault> {
        match self {
            Self::Ec2(api) => api.list(owner).await,
            Self::Gce(api) => api.list(owner).await,
        }
    }

    async fn console(&self, name: &str) -> Result<String, cloud::Fault> {
        match self {
            Self::Ec2(api) => api.console(name).await,
            Self::Gce(api) => api.console(name).await,
        }
    }

    pub async fn terminate(&self, name: &str) -> Result<(), cloud::Fault> {
        match self {
            Self::Ec2(api) => api.terminate(name).await,
            Self::Gce(api) => api.terminate(name).await,
        }
    }
}

impl Cloud {
    pub fn name(&self) -> &'static str {
        self.api.name()
    }

    pub fn choose(&self, wanted: &Wanted, size: Size) -> Result<Chosen, Fault> {
        let key = format!("{}.images", self.terms.key);
        let found =
            choice::row(&self.terms.images, |row| std::slice::from_ref(&row.name), wanted.image.as_deref(), &key);
        let image = found.map_err(Fault::Unsupported)?.first().map(|row| (*row).clone());
        let size = choice::of_size(&self.terms.types, size);
        let (Some(image), Some((size, has_all))) = (image, size) else {
            let key = format!("{}.types", self.terms.key);
            return Err(Fault::Setting {
                key,
                why: "it has no entry: name a type with its cpus and memory".to_owned(),
            });
        };
        choice::check_docker(image.docker.as_deref(), &format!("image {}", image.image), wanted)?;
        Ok(Chosen { image, size: size.clone(), has_all })
    }

    /// Ends all that was made for a record, or may have been.
    async fn end(&self, known: &Known) -> Result<(), Fault> {
        let Some((_, place)) = known.requested() else { return Ok(()) };
        if place != self.terms.place {
            return Err(Fault::Setting {
                key: self.terms.key.to_owned(),
                why: format!(
                    "the machine was made in {place}, and the settings name {}; put them back until it is removed",
                    self.terms.place
                ),
            });
        }
        let id = &known.planned.machine;
        let mut names = known.instances();
        // The answer may have been lost: then its id is all that is known. And one that is there twice is ended twice.
        for nth in 0..TRIES {
            if let Some(found) = self.api.find(id).await? {
                names.insert(found.name);
            }
            if !names.is_empty() {
                break;
            }
            if nth + 1 < TRIES {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
        }
        for name in &names {
            self.api.terminate(name).await?;
        }
        if names.is_empty() { Ok(()) } else { self.see_it_end(id).await }
    }

    /// A cloud that says yes is asked once more.
    async fn see_it_end(&self, id: &MachineId) -> Result<(), Fault> {
        let mut name = String::new();
        for _ in 0..TRIES {
            match self.api.find(id).await? {
                Some(cloud::Instance { stage: Stage::Coming | Stage::Running, name: of, .. }) => name = of,
                _ => return Ok(()),
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        Err(Fault::Provider {
            provider: self.name().to_owned(),
            doing: format!("end {name}"),
            message: "it said that it did, and the machine still runs".to_owned(),
        })
    }

    /// Has its tags say whose a pool's machine is now, where that is one call. It is the task's whatever they say.
    async fn tag_task(&self, name: &str, task: &str) {
        // Labels of Compute Engine are set as a whole, by what they were: they name the pool until the machine ends.
        let Api::Ec2(api) = &self.api else { return };
        if let Err(fault) = api.tag_task(name, task).await {
            tracing::debug!(instance = name, %fault, "A machine's tags do not name its task.");
        }
    }

    /// What became of a machine that does not answer. `None`: the cloud has it yet, or does not say.
    pub async fn gone(&self, id: &MachineId) -> Option<String> {
        let name = self.name();
        match self.api.find(id).await {
            Ok(None) => Some(format!("{name} has no such machine any more")),
            Ok(Some(cloud::Instance { stage: Stage::Going | Stage::Gone, name: of, .. })) => {
                Some(format!("{name} ends or has ended {of}: it was taken back, or shut down"))
            }
            _ => None,
        }
    }
}

/// A machine of a cloud on its way.
pub(crate) struct Instance {
    cloud: Arc<Cloud>,
    order: Order<Chosen>,
    record: Record,
    host: HostPaths,
    report: Vec<String>,
    keys: Option<Keys>,
    address: Option<String>,
    looked: Option<Instant>,
    launched: Option<Instant>,
    link: Option<Arc<dyn Connect>>,
    host_key: Option<String>,
    /// How it is entered, of one that its pool has heard to wait.
    waits: Option<Way>,
}

struct Keys {
    host: SshKey,
    login: SshKey,
}

impl Instance {
    pub fn new(cloud: Arc<Cloud>, order: Order<Chosen>, record: Record, host: &HostPaths) -> Self {
        Self {
            cloud,
            order,
            record,
            host: host.clone(),
            report: Vec::new(),
            keys: None,
            address: None,
            looked: None,
            launched: None,
            link: None,
            host_key: None,
            waits: None,
        }
    }

    /// One that a pool has given to this process. The cloud is told whose it is now; that nobody waits for.
    pub fn of_pool(cloud: Arc<Cloud>, order: Order<Chosen>, record: Record, host: &HostPaths) -> Result<Self, Fault> {
        refuse(&order, cloud.name())?;
        let known = record.known();
        let way = known.way().cloned().ok_or_else(no_address)?;
        let mut instance = Self::new(cloud, order, record, host);
        instance.tell();
        instance.report.extend(known.instances().iter().map(|name| format!("Instance: {name}")));
        instance.host_key = Some(way.host_key.clone());
        instance.waits = Some(way);
        if let (Some(task), Some(name)) = (instance.order.task.clone(), known.instances().pop_last()) {
            let cloud = Arc::clone(&instance.cloud);
            tokio::spawn(async move { cloud.tag_task(&name, task.as_str()).await });
        }
        Ok(instance)
    }

    fn tell(&mut self) {
        let name = self.cloud.name();
        let Chosen { image, size, has_all } = &self.order.image;
        self.report.push(format!("Image: {} of {name}, {}", image.image, self.cloud.terms.place));
        self.report.push(format!("Machine: {} ({} vCPU, {} MiB)", size.name, size.cpus, size.memory >> 20));
        if !has_all {
            let (cpus, memory) = (self.order.size.millicpus.div_ceil(1000), self.order.size.memory >> 20);
            self.report
                .push(format!("The class has {cpus} vCPU and {memory} MiB: no type in the settings has as much"));
        }
        self.report.extend(told_plainly(&self.order, name));
    }

    /// Makes its keys; the cloud hears of nothing yet.
    pub async fn provision(&mut self) -> Result<(), Fault> {
        refuse(&self.order, self.cloud.name())?;
        self.tell();
        let none = |error: NoKey| Fault::Host {
            doing: "make a machine's keys".to_owned(),
            source: std::io::Error::other(error),
        };
        let made = Keys { host: SshKey::generate().map_err(none)?, login: SshKey::generate().map_err(none)? };
        keys::write(self.record.directory(), keys::LOGIN, made.login.to_openssh().reveal())
            .map_err(Fault::host("keep the machine's key"))?;
        self.record.note(Fact::HostKey { fingerprint: made.host.fingerprint() }).await?;
        self.host_key = Some(made.host.public_line().to_owned());
        self.keys = Some(made);
        Ok(())
    }

    fn keys(&self) -> Result<&Keys, Fault> {
        self.keys.as_ref().ok_or_else(|| Fault::Unsupported("a machine was launched before it was prepared".to_owned()))
    }

    /// Asks the cloud for it: however often, there is one.
    pub async fn launch(&mut self) -> Result<(), Fault> {
        let state = self.host.state.clone();
        let owner = tokio::task::spawn_blocking(move || identity::of(&state)).await;
        let owner = owner.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let owner = owner.map_err(Fault::host("find this host's name for its machines"))?;
        let (terms, keys) = (&self.cloud.terms, self.keys()?);
        let launch = Launch {
            id: self.order.machine.clone(),
            owner,
            task: self.order.task.as_ref().map(|task| task.as_str().to_owned()),
            is_pools: self.record.known().is_pooled(),
            image: self.order.image.image.image.clone(),
            size: self.order.image.size.name.clone(),
            user_data: user_data(&keys.host, keys.login.public_line(), &terms.user),
            is_spot: terms.is_spot,
            disk_gib: terms.disk_gib,
        };
        let token = launch.id.as_str().to_owned();
        self.record.note(Fact::Requested { token, place: terms.place.clone() }).await?;
        let made = self.cloud.api.launch(&launch).await?;
        self.record.note(Fact::Instance { id: made.name.clone(), address: made.address.clone() }).await?;
        let kind = if terms.is_spot { ", spot" } else { "" };
        self.report.push(format!("Instance: {}{kind}", made.name));
        self.launched = Some(Instant::now());
        Ok(())
    }

    pub async fn look(&mut self) -> Result<Look, Fault> {
        let Some(launched) = self.launched else { return Ok(Look::Absent) };
        if let Some(looked) = self.looked {
            tokio::time::sleep_until(looked + BETWEEN_LOOKS).await;
        }
        self.looked = Some(Instant::now());
        let id = &self.order.machine;
        match self.cloud.api.find(id).await? {
            Some(cloud::Instance { stage: Stage::Running, address: Some(address), name, .. }) => {
                self.record.note(Fact::Instance { id: name, address: Some(address.clone()) }).await?;
                self.address = Some(address);
                Ok(Look::Up)
            }
            Some(cloud::Instance { stage: Stage::Going | Stage::Gone, name, .. }) => Ok(Look::Ended(Fault::Provider {
                provider: self.cloud.name().to_owned(),
                doing: format!("start {name}"),
                message: "it was taken back, or has ended by itself".to_owned(),
            })),
            Some(_) => Ok(Look::Absent),
            None if launched.elapsed() < UNSEEN => Ok(Look::Absent),
            None => Ok(Look::Ended(cloud::Fault::NoMachine { cloud: self.cloud.name(), id: id.clone() }.into())),
        }
    }

    fn way(&self) -> Result<(Way, Target), Fault> {
        let way = match &self.waits {
            Some(way) => way.clone(),
            None => self.first_way()?,
        };
        let target = way.target().map_err(Fault::host("read the machine's key"))?;
        Ok((way, target))
    }

    /// By the keys that were made for it, to where the cloud says that it is.
    fn first_way(&self) -> Result<Way, Fault> {
        let host_key = self.keys()?.host.public_line().to_owned();
        let address = self.address.clone().ok_or_else(no_address)?;
        let key_file = self.record.directory().join(keys::LOGIN);
        let (port, user) = (self.cloud.terms.port, self.cloud.terms.user.clone());
        Ok(Way { address, port, user, host_key, key_file, forwarding: Forwarding::Sockets })
    }

    fn limit(&self) -> Duration {
        self.cloud.settings.answer_limit.mul_f32(0.9)
    }

    /// Enters it by its keys and hears that it waits for a seed: for a pool.
    pub async fn wait(&mut self) -> Result<(), Fault> {
        let (mut way, target) = self.way()?;
        way.forwarding = seeding::wait(&target, &self.host, self.limit()).await?;
        let size = &self.order.image.size;
        let waits = Fact::Waits { cpus: size.cpus, memory_mib: size.memory >> 20 };
        Ok(self.record.write([Fact::Way(way), waits].map(Entry::Fact).into()).await?)
    }

    /// Enters it by its keys and makes it the task's.
    pub async fn connect(&mut self) -> Result<Contact, Fault> {
        let (way, target) = self.way()?;
        let image = &self.order.image.image;
        let seed = qemu::seed::of(&self.order, None, None, image.docker.is_some())?;
        let limit = (self.limit(), self.waits.is_some());
        let link = super::begin(&self.record, (way, target), seed, &self.host, limit).await?;
        self.link = Some(Arc::clone(&link));
        Ok(Contact { link, user: Some(image.user.clone()) })
    }

    pub fn died(&mut self) -> watch::Receiver<Option<Died>> {
        watch_of(&self.cloud, self.order.machine.clone(), self.link.clone())
    }

    pub fn host_key(&self) -> Option<&str> {
        self.host_key.as_deref()
    }

    /// The last lines of its console, for whoever looks for a reason. Empty: the cloud has none yet, or does not say.
    pub async fn console(&self) -> String {
        let Some(name) = self.record.known().instances().into_iter().next() else { return String::new() };
        match tokio::time::timeout(CONSOLE_LIMIT, self.cloud.api.console(&name)).await {
            Ok(Ok(text)) => last_lines(&text),
            Ok(Err(fault)) => {
                tracing::debug!("The console of {name} is not to be had: {fault}.");
                String::new()
            }
            Err(_) => String::new(),
        }
    }

    pub fn take_report(&mut self) -> Vec<String> {
        std::mem::take(&mut self.report)
    }
}

fn no_address() -> Fault {
    Fault::Unsupported("a machine without an address was to be entered".to_owned())
}

/// Learns of the end of a machine. Within a Tokio runtime only.
pub(crate) fn watch_of(
    cloud: &Arc<Cloud>,
    id: MachineId,
    link: Option<Arc<dyn Connect>>,
) -> watch::Receiver<Option<Died>> {
    let (cloud, name) = (Arc::clone(cloud), format!("machine {} of {}", id.host_name(), cloud.name()));
    super::watch::of(link, name, OfCloud { cloud, id })
}

struct OfCloud {
    cloud: Arc<Cloud>,
    id: MachineId,
}

impl Gone for OfCloud {
    async fn ask(&self) -> Option<String> {
        self.cloud.gone(&self.id).await
    }
}

/// Ends the machine. Destroying it asks again.
pub(crate) async fn stop(cloud: &Cloud, record: &Record, limit: Duration) {
    end_of_another(cloud, &record.known(), limit).await;
}

/// Ends a machine that another process looks after. Returns what is left.
pub(crate) async fn end_of_another(cloud: &Cloud, known: &Known, limit: Duration) -> Vec<String> {
    let mut left = Vec::new();
    for name in known.instances() {
        match tokio::time::timeout(limit, cloud.api.terminate(&name)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => left.push(format!("machine {name} of {} ({fault})", cloud.name())),
            Err(_) => left.push(format!("machine {name} of {} (no answer within {limit:?})", cloud.name())),
        }
    }
    left
}

/// Removes whatever the record's machine has at the cloud. Returns what is left.
pub(crate) async fn destroy(cloud: &Cloud, record: &Record, limit: Duration) -> Vec<String> {
    let known = record.known();
    let named = |why: String| {
        let names: BTreeSet<String> = known.instances();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let of = if names.is_empty() { known.planned.machine.host_name() } else { names.join(", ") };
        vec![format!("machine {of} of {} ({why})", cloud.name())]
    };
    match tokio::time::timeout(limit, cloud.end(&known)).await {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(fault)) => named(navvy_job::chain::chain(&fault)),
        Err(_) => named(format!("no answer within {limit:?}")),
    }
}
