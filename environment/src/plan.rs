//! The container plan: from compiled job, image configs and machine to plain data that says what every container of
//! a task is made of. Pure; the code that carries the plan out has nothing left to decide.

mod odd;
mod ports;

use std::collections::BTreeMap;
use std::path::PathBuf;

use navvy_job::compiled::Container;
use navvy_job::id::TaskId;
use navvy_job::resource::Size;
use navvy_protocol::place::{BIN_DIR, RUN_DIR, SUPERVISOR};
use serde::Serialize;

pub use self::odd::OddImage;
use self::ports::Clashes;
use crate::egress::{CA_DIR, Given};

/// Labels on every container. Its owner tells a reaper whether anyone still looks after it.
pub const LABEL_TASK: &str = "dev.navvy.task";
/// The owner, as [`Owner::to_label`](navvy_journal::owner::Owner::to_label) writes it.
pub const LABEL_OWNER: &str = "dev.navvy.owner";
/// Label of what another agent may go on with, should the owner be killed: who cannot see whether one does spares it as long as
/// it runs. With nobody inside it ends by itself.
pub const LABEL_ADOPTABLE: &str = "dev.navvy.adoptable";
/// `primary` or `service`.
pub const LABEL_ROLE: &str = "dev.navvy.role";
/// An image that carries it with the value `true` wants its own entrypoint as main process, even in a primary.
const LABEL_PRESERVE_ENTRYPOINT: &str = "com.circleci.preserve-entrypoint";
/// Docker's own default for `/dev/shm`; nothing gets less.
const SHM_FLOOR: u64 = 64 << 20;
/// Raw frames are for taking another job's address on the bridge. All else of docker's default is what builds need:
/// packages own, chmod and mark files (`CHOWN`, `FOWNER`, `FSETID`, `DAC_OVERRIDE`, `SETFCAP`), sudo and su change users
/// (`SETUID`, `SETGID`, `SETPCAP`, `AUDIT_WRITE`, `KILL`), chroot builds make devices and enter them (`MKNOD`,
/// `SYS_CHROOT`), servers listen (`NET_BIND_SERVICE`).
const DROPPED: [&str; 1] = ["NET_RAW"];
/// Everybody may ping without a raw socket, as engines from 20.10 on say themselves.
const PING: (&str, &str) = ("net.ipv4.ping_group_range", "0 2147483647");
/// What the engine takes of the machine, outside of any limit, for a container beside the primary: its shim and what
/// it keeps itself. Measured: 276 MiB for 60.
const ENGINES_SHARE: u64 = 5 << 20;
/// Characters of a wrong name in an error.
const SHOWN: usize = 60;

/// What an image brings, as its config says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Program and arguments; empty if the image sets none.
    pub entrypoint: Vec<String>,
    /// Arguments of the entrypoint, or the whole command where that is empty.
    pub command: Vec<String>,
    /// Empty means root.
    pub user: String,
    /// Empty means `/`.
    pub working_directory: String,
    /// All labels of the image.
    pub labels: BTreeMap<String, String>,
    /// `5432/tcp`.
    pub exposed_ports: Vec<String>,
    /// Paths in the container that get a nameless volume.
    pub volumes: Vec<String>,
    /// As images write it: `amd64`.
    pub architecture: String,
}

/// How the supervisor and its sockets come into the primary container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Directories of this machine that the engine can mount.
    Mounts {
        /// Holds the supervisor; mounted read-only.
        bin: PathBuf,
        /// Holds the sockets; mounted to be written to.
        run: PathBuf,
    },
    /// Put into the container's own file system before it starts.
    Upload,
}

/// What the plan depends on beside job and images.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The task, after which containers are named.
    pub task: TaskId,
    /// Its owner, as written into labels.
    pub owner: String,
    /// Another agent may go on with it, should the owner be killed.
    pub is_adoptable: bool,
    /// How the supervisor comes into the primary.
    pub entry: Entry,
    /// Name of the network that the primary joins.
    pub network: String,
    /// Limits that hold for all containers of the task together.
    pub cgroup_parent: Option<String>,
    /// What the resource class gives to the task.
    pub size: Size,
    /// Processes and threads that a container may have.
    pub pids: u32,
    /// A supervisor that no agent has called for this long ends its job.
    pub idle_limit_s: u64,
    /// The engine's containers have all user ids of its machine, which the range of those who may ping needs.
    pub has_all_ids: bool,
    /// What containers are given where nothing else sets it, and everybody may see: proxies, authorities.
    pub egress: Given,
    /// A directory of this machine with the bundle of authorities, which every container gets.
    pub authorities: Option<PathBuf>,
}

/// What [`plan`] decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The primary first.
    pub containers: Vec<ContainerPlan>,
    /// Lines for the report.
    pub notes: Vec<String>,
    /// The primary's main process has a child whose end fails the job.
    pub has_entrypoint: bool,
    /// As whom steps run: `None` is uid 0.
    pub step_user: Option<String>,
}

/// What one container is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerPlan {
    /// The container's name, which says its task and role.
    pub name: String,
    /// Whether steps run in it.
    pub role: Role,
    /// The image, as the engine knows it.
    pub image: String,
    /// `None` leaves it to the image.
    pub entrypoint: Option<Vec<String>>,
    /// `None` leaves it to the image (or to nothing, if `entrypoint` is set).
    pub command: Option<Vec<String>>,
    /// Beside the image's own.
    pub env: Vec<String>,
    /// `None` leaves it to the image.
    pub user: Option<String>,
    /// `None` leaves it to the image.
    pub working_directory: Option<String>,
    /// Further lines of `/etc/hosts`, as `NAME:ADDRESS`.
    pub hosts: Vec<String>,
    /// Directories of this machine in it.
    pub mounts: Vec<Mount>,
    /// Where the image wants nameless volumes: made by us, with the labels of the container, so that they can be found
    /// after an engine that died between a container and its volumes.
    pub volumes: Vec<String>,
    /// Its network namespace.
    pub network: Network,
    /// What it may use.
    pub limits: ContainerLimits,
    /// The task's cgroup, where it has one; `None` leaves the parent to the engine.
    pub cgroup_parent: Option<String>,
    /// Size of `/dev/shm`, in bytes.
    pub shm_size: u64,
    /// Path to mount options.
    pub tmpfs: BTreeMap<String, String>,
    /// No program in it can gain rights, as by setuid: where steps run as root, they need no such program.
    pub no_new_privileges: bool,
    /// Capabilities that the container lacks, of those that docker gives by default.
    pub dropped_capabilities: Vec<String>,
    /// Kernel settings of the network namespace, set by the container that owns it.
    pub sysctls: BTreeMap<String, String>,
    /// Labels of the container and its volumes.
    pub labels: BTreeMap<String, String>,
}

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Steps run here.
    Primary,
    /// Runs its own main process beside the steps.
    Service,
}

/// A directory of this machine in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// The directory here.
    pub source: PathBuf,
    /// Its path in the container.
    pub target: String,
    /// The container cannot write to it.
    pub read_only: bool,
}

/// Where a container's network namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A namespace of its own, joined to the network of this name.
    Named(String),
    /// The network namespace of that container.
    Of(String),
}

/// Each container gets the task's whole: a parent cgroup, where there is one, holds their sum down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ContainerLimits {
    /// Memory and swap together, in bytes.
    pub memory: u64,
    /// Processors, in billionths of one.
    pub nano_cpus: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// Why no plan can be made: what the config asks for cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is no primary.
    #[error("the job names no image")]
    NoContainer,
    /// Two services cannot share the network.
    #[error(
        "services {first:?} and {second:?} both listen on port {port}: all containers of a job share one network, so \
         the second would fail to start; give one of them another port by its command or environment"
    )]
    PortClash {
        /// The service that gets the port.
        first: String,
        /// The one that would fail to start.
        second: String,
        /// The port, `5432/tcp`.
        port: String,
    },
    /// The name that two services have.
    #[error("services {0:?} is named twice")]
    NameTwice(String),
    /// The name, cut to a readable length.
    #[error("service name {0:?} is not a host name: letters, digits, dots, dashes and underscores are allowed")]
    BadName(String),
    /// A service's container would have no main process.
    #[error("image {image} of a service has neither entrypoint nor command, and the config gives none")]
    NothingToRun {
        /// The service's image.
        image: String,
    },
    /// A service's container would be entered through a descriptor of the machine.
    #[error(
        "image {image} of a service asks for the working directory {directory:?}, which names a process's open files: \
         through it older engines let a container out into the machine"
    )]
    WorkingDirectory {
        /// The service's image.
        image: String,
        /// The working directory of the image.
        directory: String,
    },
    /// An image asks for what no container can have.
    #[error("image {image} cannot run as a container: {why}; this can only be fixed in the image")]
    OddImage {
        /// The image.
        image: String,
        /// What it asks for.
        why: OddImage,
    },
    /// The image's programs cannot be run by this machine's processor.
    #[error("image {image} is made for {found}, this machine runs {wanted}")]
    Architecture {
        /// The image.
        image: String,
        /// The image's architecture, `arm64`.
        found: String,
        /// The machine's architecture.
        wanted: String,
    },
}

/// Makes the plan. `containers` and `images` are side by side, the primary first.
pub fn plan(containers: &[Container], images: &[ImageConfig], machine: &Machine) -> Result<Plan, PlanError> {
    let mut pairs = containers.iter().zip(images);
    let (primary, primary_image) = pairs.next().ok_or(PlanError::NoContainer)?;
    let services: Vec<_> = pairs.collect();
    check_names(&services)?;
    let clashes = Clashes::of(&services);
    clashes.check()?;
    for (index, (container, image)) in containers.iter().zip(images).enumerate() {
        let role = if index == 0 { Role::Primary } else { Role::Service };
        odd::check(image, role).map_err(|why| PlanError::OddImage { image: container.image.clone(), why })?;
    }

    let hosts = services.iter().filter_map(|(container, _)| container.name.as_ref());
    let hosts = hosts.map(|name| format!("{name}:127.0.0.1")).collect();
    let entrypoint = primary_entrypoint(primary, primary_image);
    let step_user = effective_user(primary, primary_image);
    let mut planned = vec![machine.primary(primary, primary_image, step_user.as_deref(), &entrypoint, hosts)];
    for (index, (container, image)) in services.iter().enumerate() {
        planned.push(machine.service(index, container, image)?);
    }
    for (container, image) in planned.iter_mut().zip(images) {
        container.volumes = volumes(&image.volumes, container);
    }
    Ok(Plan {
        containers: planned,
        notes: clashes.note().into_iter().collect(),
        has_entrypoint: !entrypoint.is_empty(),
        step_user,
    })
}

/// What is left of a class for its containers, when what the engine needs for so many services counts, too. Half of it
/// is left in any case.
pub fn without_engines_share(size: Size, services: usize) -> Size {
    let share = ENGINES_SHARE.saturating_mul(services as u64).min(size.memory / 2);
    Size { memory: size.memory - share, ..size }
}

/// The engine enters it while descriptors of this machine may still be open (CVE-2024-21626). Primaries begin in `/`.
fn leads_into_processes(directory: &str) -> bool {
    let path = PathBuf::from(clean(&format!("/{directory}")));
    path.starts_with("/proc") || path.starts_with("/dev/fd")
}

impl Machine {
    fn primary(
        &self,
        container: &Container,
        image: &ImageConfig,
        step_user: Option<&str>,
        entrypoint: &[String],
        hosts: Vec<String>,
    ) -> ContainerPlan {
        let mut init = vec![SUPERVISOR.to_owned(), "init".to_owned(), "--run-dir".to_owned(), RUN_DIR.to_owned()];
        init.extend(["--idle-limit".to_owned(), self.idle_limit_s.to_string()]);
        if !entrypoint.is_empty() {
            if let Some(user) = step_user {
                init.extend(["--user".to_owned(), user.to_owned()]);
            }
            init.push("--".to_owned());
            init.extend_from_slice(entrypoint);
        }
        ContainerPlan {
            entrypoint: Some(init),
            // The config's variables are for steps, which get theirs from the agent; only a main process of the
            // user's own has no other way to them.
            env: if entrypoint.is_empty() { Vec::new() } else { self.assignments(container, image) },
            user: Some("0:0".to_owned()),
            working_directory: Some("/".to_owned()),
            hosts,
            mounts: [self.mounts(), self.authorities()].concat(),
            tmpfs: BTreeMap::from([("/mnt/ramdisk".to_owned(), self.ramdisk_options())]),
            no_new_privileges: step_user.is_none(),
            sysctls: self.sysctls(),
            ..self.common(self.task.primary_name(), Role::Primary, container, Network::Named(self.network.clone()))
        }
    }

    fn service(&self, index: usize, container: &Container, image: &ImageConfig) -> Result<ContainerPlan, PlanError> {
        if main_process(container, image).is_empty() {
            return Err(PlanError::NothingToRun { image: container.image.clone() });
        }
        if leads_into_processes(&image.working_directory) {
            let (image, directory) = (container.image.clone(), image.working_directory.clone());
            return Err(PlanError::WorkingDirectory { image, directory });
        }
        let network = Network::Of(self.task.primary_name());
        Ok(ContainerPlan {
            entrypoint: container.entrypoint.clone(),
            command: container.command.clone(),
            env: self.assignments(container, image),
            mounts: self.authorities(),
            user: container.user.clone(),
            no_new_privileges: effective_user(container, image).is_none(),
            ..self.common(self.task.service_name(index), Role::Service, container, network)
        })
    }

    /// What primary and services have in common.
    fn common(&self, name: String, role: Role, container: &Container, network: Network) -> ContainerPlan {
        ContainerPlan {
            name,
            role,
            image: container.image.clone(),
            entrypoint: None,
            command: None,
            env: Vec::new(),
            user: None,
            working_directory: None,
            hosts: Vec::new(),
            mounts: Vec::new(),
            volumes: Vec::new(),
            network,
            limits: self.limits(),
            cgroup_parent: self.cgroup_parent.clone(),
            shm_size: (self.size.memory / 2).max(SHM_FLOOR),
            tmpfs: BTreeMap::new(),
            no_new_privileges: false,
            dropped_capabilities: DROPPED.map(str::to_owned).to_vec(),
            sysctls: BTreeMap::new(),
            labels: self.labels(role),
        }
    }

    /// Settings of the primary's network namespace, which the services share.
    fn sysctls(&self) -> BTreeMap<String, String> {
        let ping = self.has_all_ids.then(|| (PING.0.to_owned(), PING.1.to_owned()));
        ping.into_iter().collect()
    }

    fn limits(&self) -> ContainerLimits {
        ContainerLimits {
            memory: self.size.memory,
            nano_cpus: self.size.millicpus.saturating_mul(1_000_000),
            pids: self.pids,
        }
    }

    /// Pages of a tmpfs are charged to the container, so its limit is the only size that means anything.
    fn ramdisk_options(&self) -> String {
        format!("rw,exec,nosuid,nodev,mode=1777,size={}", self.size.memory)
    }

    fn mounts(&self) -> Vec<Mount> {
        match &self.entry {
            Entry::Upload => Vec::new(),
            Entry::Mounts { bin, run } => vec![
                Mount { source: bin.clone(), target: BIN_DIR.to_owned(), read_only: true },
                Mount { source: run.clone(), target: RUN_DIR.to_owned(), read_only: false },
            ],
        }
    }

    /// Where directories can be mounted; else the bundle is uploaded.
    fn authorities(&self) -> Vec<Mount> {
        let directory = self.authorities.as_ref().filter(|_| self.entry != Entry::Upload);
        let mount = |source: &PathBuf| Mount { source: source.clone(), target: CA_DIR.to_owned(), read_only: true };
        directory.map(mount).into_iter().collect()
    }

    /// The config's variables, and what is given beside them.
    fn assignments(&self, container: &Container, image: &ImageConfig) -> Vec<String> {
        let is_set = |name: &str| container.environment.iter().any(|(known, _)| known == name);
        let is_in_image = |name: &str| image.env.iter().any(|text| text.split('=').next() == Some(name));
        let given = self.egress.lacking(is_set, is_in_image);
        container.environment.iter().chain(&given).map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn labels(&self, role: Role) -> BTreeMap<String, String> {
        let role = match role {
            Role::Primary => "primary",
            Role::Service => "service",
        };
        let labels = [(LABEL_TASK, self.task.as_str()), (LABEL_OWNER, self.owner.as_str()), (LABEL_ROLE, role)];
        let adoptable = self.is_adoptable.then_some((LABEL_ADOPTABLE, "1"));
        labels.into_iter().chain(adoptable).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// The image's volumes, but for places that hold something else already, each once.
fn volumes(wanted: &[String], container: &ContainerPlan) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for path in wanted {
        let path = clean(path);
        let mut taken = container.mounts.iter().map(|mount| &mount.target).chain(container.tmpfs.keys()).chain(&found);
        if path.len() > 1 && path.starts_with('/') && !taken.any(|taken| *taken == path) {
            found.push(path);
        }
    }
    found
}

/// A path without empty parts and dots, as the engine compares it; one that is not absolute is left to the engine.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match part {
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    if path.starts_with('/') { format!("/{}", parts.join("/")) } else { String::new() }
}

/// Text from an image or config, cut so that it fits into a line.
fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Docker's own rules: a new entrypoint discards the image's command, a new command is what an entrypoint gets.
fn main_process(container: &Container, image: &ImageConfig) -> Vec<String> {
    let entrypoint = container.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    let command = match (&container.entrypoint, &container.command) {
        (_, Some(command)) => command.as_slice(),
        (Some(_), None) => &[],
        (None, None) => &image.command,
    };
    [entrypoint, command].concat()
}

/// What the supervisor starts as its child; empty for most jobs.
fn primary_entrypoint(container: &Container, image: &ImageConfig) -> Vec<String> {
    let asked = container.entrypoint.is_some() || container.command.is_some();
    let preserved = image.labels.get(LABEL_PRESERVE_ENTRYPOINT).is_some_and(|value| value == "true");
    if asked || preserved { main_process(container, image) } else { Vec::new() }
}

/// The config's user, else the image's; `None` is uid 0.
fn effective_user(container: &Container, image: &ImageConfig) -> Option<String> {
    let user = container.user.as_deref().unwrap_or(&image.user);
    let name = user.split(':').next().unwrap_or_default();
    (!matches!(name, "" | "0" | "root")).then(|| user.to_owned())
}

type Pair<'a> = (&'a Container, &'a ImageConfig);

fn check_names(services: &[Pair<'_>]) -> Result<(), PlanError> {
    let names: Vec<_> = services.iter().filter_map(|(container, _)| container.name.as_deref()).collect();
    let fits = |name: &str| {
        let right = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        !name.is_empty() && name.len() <= 253 && name.bytes().all(right)
    };
    for (index, name) in names.iter().enumerate() {
        if !fits(name) {
            return Err(PlanError::BadName(cut(name, SHOWN)));
        }
        if names[..index].contains(name) {
            return Err(PlanError::NameTwice((*name).to_owned()));
        }
    }
    Ok(())
}

/// What people call a service: its name, else its image, as the config has them.
pub fn service_title(container: &Container) -> String {
    let image = container.in_place_of.as_ref().unwrap_or(&container.image);
    container.name.as_ref().unwrap_or(image).clone()
}

#[cfg(test)]
mod tests;
