//! One machine on its way from nothing to a supervisor that answers.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::cgroup::{self, CgroupError, Facts, Place};
use navvy_environment::request::{Died, Purpose, ServiceOutput};
use navvy_environment::{HostPaths, run_dir};
use navvy_job::id::TaskId;
use navvy_protocol::guest::{Network, Seed};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::console::Console;
use super::end::{self, Ending};
use super::line::{self, Board, Extra, Line, Net, Ram};
use super::network::{self, Lease};
use super::process::{self, Started};
use super::qmp::Qmp;
use super::seed::{self, SEEDED_LIMIT, Seeding};
use super::shape::{OVERHEAD, Shape, guest_size};
use super::snapshot::{self, Kind, Making, Snapshot};
use super::{Qemu, link, overlay, socket};
use crate::error::Fault;
use crate::images;
use crate::provider::{Contact, Look, Order};
use crate::record::{Fact, Record};
use crate::settings::Snapshots;
use crate::ssh_key::SshKey;

/// Threads that a QEMU has: one for each processor, and up to 64 for its disks.
const THREADS: u32 = 128;
/// From a started process to its sockets: it makes them before anything else.
const SOCKET_LIMIT: Duration = Duration::from_secs(20);
const SOCKET_LOOK: Duration = Duration::from_millis(2);
/// A clone answers within a fraction of a second; one that does not, is given up for a boot.
pub(super) const CLONE_LIMIT: Duration = Duration::from_secs(5);
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// One machine.
pub(crate) struct Instance {
    pub(super) qemu: Arc<Qemu>,
    pub(super) order: Order,
    pub(super) record: Record,
    pub(super) host: HostPaths,
    pub(super) report: Vec<String>,
    prepared: Option<Prepared>,
    /// What its disk was made over; `None`: a guest may have written to it, or there is none.
    disk_over: Option<PathBuf>,
    /// What the guest is told of its network.
    pub(super) network: Option<Network>,
    pub(super) running: Option<Running>,
    /// What the running process goes on from, until it has been seeded.
    pub(super) snapshot: Option<Snapshot>,
    /// It was a pool's, and has said its first word to that.
    pub(super) is_taken: bool,
    pub(super) console: Console,
    /// What its ssh server shows, as a line of `known_hosts` has it behind the host's name.
    pub host_key: Option<String>,
    /// Readers of its console and its stderr; they end with the process.
    pub(super) tasks: JoinSet<()>,
}

/// Everything that exists before the process.
struct Prepared {
    shape: Shape,
    cgroups: Vec<PathBuf>,
    net: Net,
    run_as: Option<u32>,
}

/// The process, and the conversations with it.
pub(super) struct Running {
    pub(super) started: Started,
    pub(super) qmp: Qmp,
    pub(super) seeding: Option<Seeding>,
}

impl Instance {
    pub fn new(qemu: Arc<Qemu>, order: Order, record: Record, host: &HostPaths) -> Self {
        Self {
            qemu,
            order,
            record,
            host: host.clone(),
            report: Vec::new(),
            prepared: None,
            disk_over: None,
            network: None,
            running: None,
            snapshot: None,
            is_taken: false,
            console: Console::default(),
            host_key: None,
            tasks: JoinSet::new(),
        }
    }

    pub async fn provision(&mut self) -> Result<(), Fault> {
        images::verify(&self.order.image).await?;
        self.report.push(format!("Image: {} ({})", self.order.image.manifest.name, &self.order.image.digest[..12]));
        let size = guest_size(self.order.size, self.order.cgroup_parent.as_ref());
        let shape = Shape::of(&self.qemu, &self.order.image, size, &self.host).await?;
        self.report.extend(shape.report(self.order.size));
        let cgroups = self.cgroup(shape.memory).await?;
        let backing = match self.snapshot_of(&shape) {
            Some(snapshot) => snapshot.disk(),
            None => self.order.image.root(),
        };
        let disk = self.overlay(&backing);
        let ((net, network, run_as), ()) = tokio::try_join!(self.network(), disk)?;
        (self.network, self.disk_over) = (Some(network), Some(backing));
        self.prepared = Some(Prepared { shape, cgroups, net, run_as });
        Ok(())
    }

    /// Makes the machine's disk.
    fn overlay(&self, backing: &Path) -> impl Future<Output = Result<(), Fault>> + Send + use<> {
        let (disk, backing) = (self.record.directory().join(line::DISK), backing.to_owned());
        let (floor, search_path) = (self.order.disk_floor, self.host.search_path.clone());
        async move { overlay::make(&disk, &backing, floor, &search_path).await }
    }

    /// Makes it anew, unless it is as it was made, over this.
    async fn fresh_disk(&mut self, backing: &Path) -> Result<(), Fault> {
        match self.disk_over.take() {
            Some(made) if made == backing => Ok(()),
            _ => self.overlay(backing).await,
        }
    }

    /// The cgroup of a machine in which steps run is its task's; another one has its own.
    pub(super) async fn cgroup(&mut self, memory: u64) -> Result<Vec<PathBuf>, Fault> {
        let id = match (&self.order.task, self.order.purpose) {
            (Some(task), Purpose::Steps) => task.clone(),
            _ => end::as_task(&self.order.machine)?,
        };
        let place = Place::of(&id, self.order.cgroup_parent.as_ref());
        self.record.note(Fact::Cgroup { place: place.text() }).await?;
        let mut size = self.order.size;
        size.memory = memory.saturating_add(OVERHEAD);
        let work = move || -> Result<Vec<PathBuf>, CgroupError> {
            let version = if cgroup::has_limits_of_v1()? { "1" } else { "2" };
            let facts = Facts { engine_is_local: true, uid: run_dir::uid(), driver: "cgroupfs", version };
            cgroup::make(&place, size, THREADS, facts)?;
            cgroup::entrances(&place)
        };
        let made = tokio::task::spawn_blocking(work).await;
        match made.map_err(|e| Fault::Unsupported(e.to_string()))? {
            Ok(entrances) => Ok(entrances),
            Err(why) => {
                self.report.push(format!("The machine's process has no cgroup of its own: {why}"));
                Ok(Vec::new())
            }
        }
    }

    async fn network(&mut self) -> Result<(Net, Network, Option<u32>), Fault> {
        if run_dir::uid() != 0 {
            return Ok((Net::Restricted, self.closed_network()?, None));
        }
        let subnet = self.qemu.settings.network;
        let allowed = self.order.egress.allowed();
        let (lease, servers) = network::lease(&self.record, subnet, allowed, &self.host.search_path).await?;
        let told = self.told(&lease, &servers);
        Ok((Net::Tap(lease.interface.clone()), told, Some(lease.uid())))
    }

    pub(super) fn closed_network(&mut self) -> Result<Network, Fault> {
        self.report.push(
            "Network: none: only root can give a machine a network that keeps it from this host and from other machines"
                .to_owned(),
        );
        Ok(Network {
            link_address: Lease::random_link_address().map_err(Fault::host("choose a link address"))?,
            address: "10.0.2.15/24".to_owned(),
            gateway: None,
            name_servers: Vec::new(),
        })
    }

    /// What the guest is told of its lease; and the report.
    pub(super) fn told(&mut self, lease: &Lease, servers: &[IpAddr]) -> Network {
        self.report.push(format!(
            "Network: {} on {}; this host, other machines, private and metadata addresses closed",
            lease.address,
            network::BRIDGE
        ));
        lease.network(self.qemu.settings.network, servers)
    }

    fn prepared(&self) -> Result<&Prepared, Fault> {
        self.prepared
            .as_ref()
            .ok_or_else(|| Fault::Unsupported("a machine was launched before it was prepared".to_owned()))
    }

    fn told_network(&self) -> Result<&Network, Fault> {
        let missing = || Fault::Unsupported("a machine was launched before it had a network".to_owned());
        self.network.as_ref().ok_or_else(missing)
    }

    fn line(&self, ram: Ram, backing: Vec<PathBuf>) -> Result<Line, Fault> {
        let prepared = self.prepared()?;
        let image = &self.order.image;
        Ok(Line {
            program: prepared.shape.found.program.clone(),
            machine: self.order.machine.host_name(),
            uuid: self.order.machine.to_uuid(),
            board: Board::of(&image.manifest.architecture),
            accelerator: prepared.shape.processor,
            cpus: prepared.shape.cpus,
            memory_mib: prepared.shape.memory >> 20,
            ram,
            kernel: image.kernel(),
            initrd: image.initrd(),
            init: image.manifest.init,
            arguments: image.manifest.arguments.clone(),
            backing,
            disks: self.order.extras.disks.iter().map(Extra::from).collect(),
            net: prepared.net.clone(),
            link_address: self.told_network()?.link_address.clone(),
            run_as: prepared.run_as,
            devices: self.qemu.settings.devices.clone(),
        })
    }

    /// What a snapshot must have to be one of this machine's kind; `None`: machines like this one have none.
    fn kind(&self, shape: &Shape) -> Option<Kind> {
        let has_more = !self.order.extras.disks.is_empty() || !self.qemu.settings.devices.is_empty();
        (!has_more).then(|| shape.kind(&self.order.image))
    }

    /// What the machine may go on from.
    fn snapshot_of(&self, shape: &Shape) -> Option<Snapshot> {
        let is_wanted = self.qemu.settings.snapshots != Snapshots::Off;
        let kind = self.kind(shape).filter(|_| is_wanted)?;
        snapshot::find(&self.host.state, &kind)
    }

    pub async fn launch(&mut self) -> Result<(), Fault> {
        let found = self.snapshot_of(&self.prepared()?.shape);
        if let Some(snapshot) = found {
            match self.launch_clone(&snapshot).await {
                Ok(()) => self.snapshot = Some(snapshot),
                Err(fault) => self.give_up(&snapshot, &fault).await?,
            }
        }
        if self.running.is_some() { Ok(()) } else { self.launch_cold().await }
    }

    pub(super) async fn launch_cold(&mut self) -> Result<(), Fault> {
        let root = self.order.image.root();
        self.fresh_disk(&root).await?;
        let line = self.line(Ram::Own, vec![root])?;
        self.start(&line, None).await?;
        self.running()?.qmp.go_on().await
    }

    async fn launch_clone(&mut self, snapshot: &Snapshot) -> Result<(), Fault> {
        self.fresh_disk(&snapshot.disk()).await?;
        let line = self.line(Ram::Clone(snapshot.ram()), vec![self.order.image.root(), snapshot.disk()])?;
        self.start(&line, Some(snapshot.key())).await?;
        let running = self.running()?;
        snapshot.load(&mut running.qmp).await?;
        running.qmp.go_on().await
    }

    /// A snapshot that nothing comes of: the machine boots instead.
    pub(super) async fn give_up(&mut self, snapshot: &Snapshot, fault: &Fault) -> Result<(), Fault> {
        snapshot.mark_bad();
        tracing::warn!(machine = %self.order.machine, snapshot = snapshot.key(), %fault, "a machine boots since its snapshot failed");
        self.report.push(format!("The snapshot could not be used ({fault}): the machine boots instead"));
        self.running = None;
        self.snapshot = None;
        let known = self.record.known();
        let left = process::kill(self.record.directory(), known.process(), KILL_LIMIT).await;
        match left.first() {
            None => Ok(()),
            Some(left) => Err(Fault::Monitor { doing: "end a clone", message: left.clone() }),
        }
    }

    /// Boots a guest of nobody's, has it use once what steps will need, and keeps it. `false`: somebody else has done that.
    pub async fn make_snapshot(&mut self) -> Result<bool, Fault> {
        let kind = self.kind(&self.prepared()?.shape).ok_or_else(|| {
            Fault::Unsupported("machines with devices of this host are not started from a snapshot".to_owned())
        })?;
        let Some(making) = Making::begin(&self.host.state, &kind).await? else { return Ok(false) };
        let root = self.order.image.root();
        let disk = self.record.directory().join(line::DISK);
        self.fresh_disk(&root).await?;
        let line = self.line(Ram::Template(making.ram()), vec![root])?;
        self.start(&line, None).await?;
        let deadline = Instant::now() + self.qemu.settings.answer_limit;
        let console = self.console.clone();
        let running = self.running()?;
        running.qmp.go_on().await?;
        let Some(mut seeding) = running.seeding.take() else { return Ok(false) };
        let warm = async {
            seeding.ready(deadline).await?;
            seeding.warm().await
        };
        if let Err(fault) = warm.await {
            return Err(end::or_ended(&mut running.started, &console, "being warmed", fault).await);
        }
        making.keep(&mut running.qmp, &disk).await?;
        Ok(true)
    }

    /// Starts the process and opens all that it is talked to by; the guest does not run yet.
    async fn start(&mut self, line: &Line, snapshot: Option<String>) -> Result<(), Fault> {
        self.record
            .note(Fact::Launch {
                program: line.program.clone(),
                accelerator: line.accelerator.name().to_owned(),
                image: self.order.image.digest.clone(),
                snapshot,
            })
            .await?;
        let directory = self.record.directory().to_owned();
        let cgroups = self.prepared()?.cgroups.clone();
        let mut started =
            process::start(&line.program, &line.arguments(), &directory, &cgroups, &self.host.search_path)?;
        self.record.note(Fact::Process { process: started.process.clone() }).await?;
        wait_for_monitor(&mut started, &directory).await?;
        match self.open(started).await {
            Ok(()) => Ok(()),
            Err((mut started, fault)) => Err(end::or_ended(&mut started, &self.console, "started", fault).await),
        }
    }

    /// Opens all that a process is talked to by.
    pub(super) async fn open(&mut self, started: Started) -> Result<(), (Started, Fault)> {
        let directory = self.record.directory().to_owned();
        let opened = async {
            let qmp = Qmp::open(&directory, line::QMP).await?;
            let refused = || Fault::host("open a socket of the machine");
            let early = socket::connect(&directory, line::EARLY).await.map_err(refused())?;
            let console = socket::connect(&directory, line::CONSOLE).await.map_err(refused())?;
            let seed = socket::connect(&directory, line::SEED).await.map_err(refused())?;
            Ok((qmp, [early, console], seed))
        };
        let (qmp, consoles, seed) = match opened.await {
            Ok(opened) => opened,
            Err(fault) => return Err((started, fault)),
        };
        for console in consoles {
            self.tasks.spawn(self.console.read(console));
        }
        self.running = Some(Running { started, qmp, seeding: Some(Seeding::over(seed)) });
        Ok(())
    }

    pub(super) fn running(&mut self) -> Result<&mut Running, Fault> {
        self.running.as_mut().ok_or_else(|| Fault::Unsupported("a machine has no process".to_owned()))
    }

    pub async fn look(&mut self) -> Result<Look, Fault> {
        let console = self.console.clone();
        let Some(running) = &mut self.running else { return Ok(Look::Absent) };
        match running.started.try_wait().map_err(Fault::host("look at QEMU's process"))? {
            None => Ok(Look::Up),
            Some(status) => Ok(Look::Ended(end::fault(&running.started.words, status, &console, "booting").await)),
        }
    }

    pub async fn connect(&mut self) -> Result<Contact, Fault> {
        let deadline = Instant::now() + self.qemu.settings.answer_limit;
        let key =
            SshKey::generate().map_err(std::io::Error::other).map_err(Fault::host("make the machine's host key"))?;
        self.record.note(Fact::HostKey { fingerprint: key.fingerprint() }).await?;
        self.host_key = Some(key.public_line().to_owned());
        let network = self.told_network()?.clone();
        let has_docker = self.order.image.manifest.docker.is_some();
        let seed = seed::of(&self.order, Some(network), &key, has_docker)?;
        if self.is_taken {
            self.seed_taken(seed).await?;
        } else if let Some(snapshot) = self.snapshot.take() {
            match self.seed_clone(seed.clone()).await {
                Ok(()) => self.report.push(format!("Started from snapshot {}", snapshot.key())),
                Err(fault) => {
                    self.give_up(&snapshot, &fault).await?;
                    self.launch_cold().await?;
                    self.seed_cold(seed, deadline).await?;
                }
            }
        } else {
            self.seed_cold(seed, deadline).await?;
        }
        let link = link::open(self.record.directory().to_owned()).await;
        let link =
            link.map_err(|e| Fault::Hostile { doing: "opening the way to its supervisor", message: e.to_string() })?;
        Ok(Contact { link, user: Some(self.order.image.manifest.user.clone()) })
    }

    async fn seed_cold(&mut self, seed: Seed, deadline: Instant) -> Result<(), Fault> {
        let console = self.console.clone();
        let running = self.running()?;
        let Some(mut seeding) = running.seeding.take() else {
            return Err(Fault::Unsupported("a machine is not seeded twice".to_owned()));
        };
        let conversation = async {
            seeding.ready(deadline).await?;
            seeding.seed(seed, SEEDED_LIMIT).await
        };
        let seeded = tokio::select! {
            seeded = conversation => seeded,
            status = running.started.wait() => {
                let status = status.map_err(Fault::host("wait for QEMU's process"))?;
                Err(end::fault(&running.started.words, status, &console, "booting").await)
            }
        };
        match seeded {
            Ok(_) => Ok(()),
            Err(fault) => Err(end::or_ended(&mut running.started, &console, "booting", fault).await),
        }
    }

    /// A clone was ready before it was kept: it waits for its seed.
    async fn seed_clone(&mut self, seed: Seed) -> Result<(), Fault> {
        let console = self.console.clone();
        let running = self.running()?;
        let Some(mut seeding) = running.seeding.take() else {
            return Err(Fault::Unsupported("a machine is not seeded twice".to_owned()));
        };
        match seeding.seed(seed, CLONE_LIMIT).await {
            Ok(_) => Ok(()),
            Err(fault) => Err(end::or_ended(&mut running.started, &console, "going on from a snapshot", fault).await),
        }
    }

    pub fn died(&mut self) -> watch::Receiver<Option<Died>> {
        let (sender, died) = watch::channel(None);
        let Some(running) = self.running.take() else { return died };
        let ending = Ending {
            console: self.console.clone(),
            cgroup: self.record.known().cgroup(),
            directory: self.record.directory().to_owned(),
        };
        let Running { started, qmp, .. } = running;
        self.tasks.spawn(end::follow(started, qmp, ending, sender));
        died
    }

    pub fn console(&self) -> String {
        self.console.last_lines()
    }

    /// The console from here on, as a service's output.
    pub fn listen(&self) -> ServiceOutput {
        self.console.listen("console", &self.order.image.manifest.name, self.order.machine.host_name())
    }

    pub fn take_report(&mut self) -> Vec<String> {
        std::mem::take(&mut self.report)
    }
}

/// Until the process has made its monitor's socket, or has ended.
async fn wait_for_monitor(started: &mut Started, directory: &Path) -> Result<(), Fault> {
    let deadline = Instant::now() + SOCKET_LIMIT;
    loop {
        if directory.join(line::QMP).exists() {
            return Ok(());
        }
        if let Some(status) = started.try_wait().map_err(Fault::host("look at QEMU's process"))? {
            end::drain(&started.words).await;
            let how = status.map_or_else(|| "its process has ended".to_owned(), |status| status.to_string());
            let message = format!("{how}: {}", started.words.text());
            return Err(Fault::Ended { doing: "started", message });
        }
        if Instant::now() >= deadline {
            let message = format!("it has made no socket within {SOCKET_LIMIT:?}: {}", started.words.text());
            return Err(Fault::Monitor { doing: "start", message });
        }
        tokio::time::sleep(SOCKET_LOOK).await;
    }
}

/// A cgroup's name is made of a task's id.
pub(super) fn task_of(machine: &str) -> Option<TaskId> {
    machine.parse().ok()
}
