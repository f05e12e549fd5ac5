//! A machine that is ready before somebody wants it: its pool brings it so far, and its taker goes on from there.
//!
//! ```text
//! pool    launched ─▶ first word (a clone is asked, one that boots is warmed) ─▶ Waits is written ─▶ sockets let go
//! taker   record locked ─▶ process, image, size as wanted ─▶ cgroup, network of the task ─▶ sockets ─▶ disks ─▶ asked ─▶ seed
//! ```

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::cgroup::{self, Place};
use navvy_job::resource::Size;
use navvy_journal::owner::Owner;
use navvy_protocol::guest::Seed;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::instance::{CLONE_LIMIT, Instance};
use super::network::{self, Lease};
use super::process::{self, Started};
use super::seed::SEEDED_LIMIT;
use super::shape::{has_room, size_here, size_report};
use super::{Qemu, end, line, overlay, socket};
use crate::error::Fault;
use crate::provider::Order;
use crate::record::{Fact, Known, Record};

/// A guest that was ready answers at once; on a busy host an emulated one takes its time.
const ANSWER: Duration = Duration::from_secs(10);
/// From its seed to a guest that is the task's.
const SEEDED: Duration = Duration::from_secs(30);

impl Instance {
    /// Waits until the guest waits for its seed, and writes down what its taker will want to know.
    pub async fn wait(&mut self) -> Result<(), Fault> {
        match self.snapshot.take() {
            Some(snapshot) => {
                if let Err(fault) = self.ask_clone().await {
                    self.give_up(&snapshot, &fault).await?;
                    self.launch_cold().await?;
                    self.boot_and_warm().await?;
                }
            }
            None => self.boot_and_warm().await?,
        }
        let (cpus, memory) = size_here(self.order.size);
        self.record.note(Fact::Waits { cpus, memory_mib: memory >> 20 }).await?;
        Ok(())
    }

    /// A clone was ready before it was kept: it is asked whether it is there.
    async fn ask_clone(&mut self) -> Result<(), Fault> {
        let console = self.console.clone();
        let running = self.running()?;
        let Some(seeding) = &mut running.seeding else { return Err(seeded_already()) };
        match seeding.ask(CLONE_LIMIT).await {
            Ok(()) => Ok(()),
            Err(fault) => Err(end::or_ended(&mut running.started, &console, "going on from a snapshot", fault).await),
        }
    }

    async fn boot_and_warm(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + self.qemu.settings.answer_limit;
        let console = self.console.clone();
        let running = self.running()?;
        let Some(seeding) = &mut running.seeding else { return Err(seeded_already()) };
        let conversation = async {
            seeding.ready(deadline).await?;
            seeding.warm().await
        };
        let warmed = tokio::select! {
            warmed = conversation => warmed,
            status = running.started.wait() => {
                let status = status.map_err(Fault::host("wait for QEMU's process"))?;
                return Err(end::fault(&running.started.words, status, &console, "booting").await);
            }
        };
        match warmed {
            Ok(()) => Ok(()),
            Err(fault) => Err(end::or_ended(&mut running.started, &console, "booting", fault).await),
        }
    }

    /// A machine that a pool has given to this process, which holds its record: made the task's, but for its seed.
    pub async fn taken(qemu: Arc<Qemu>, order: Order, record: Record, host: &HostPaths) -> Result<Self, Fault> {
        let known = record.known();
        let mut instance = Self::new(qemu, order, record, host);
        instance.is_taken = true;
        let process = instance.check(&known)?;
        overlay::check_space(instance.record.directory(), instance.order.disk_floor)?;
        let (cpus, memory) = size_here(instance.order.size);
        instance.report.extend(size_report(cpus, memory, instance.order.size));
        instance.enter_cgroup(memory, &process).await?;
        instance.enter_network(&known).await?;
        if let Err((mut started, fault)) = instance.open(Started::of_another(process)).await {
            return Err(end::or_ended(&mut started, &instance.console, "waiting for its taker", fault).await);
        }
        instance.plug_disks().await?;
        Ok(instance)
    }

    /// Its process, if the machine is as it is wanted.
    fn check(&mut self, known: &Known) -> Result<Owner, Fault> {
        let here = Owner::this_process().map_err(Fault::host("look at this process"))?;
        let process = known.process().filter(|process| !process.is_dead(&here)).cloned();
        let ended = || Fault::Ended { doing: "waiting for its taker", message: "its process is gone".to_owned() };
        let process = process.ok_or_else(ended)?;
        let launched = known.last(|fact| match fact {
            Fact::Launch { image, accelerator, snapshot, .. } => Some((image, accelerator, snapshot)),
            _ => None,
        });
        let digest = &self.order.image.digest;
        let Some((_, accelerator, snapshot)) = launched.filter(|(image, ..)| *image == digest) else {
            return Err(Fault::Unsupported(format!(
                "its image is another {} than the one that is here now",
                self.order.image.manifest.name
            )));
        };
        self.report.push(format!("Image: {} ({})", self.order.image.manifest.name, &digest[..12]));
        let processor = if accelerator == "kvm" { "KVM" } else { "an emulated processor" };
        let from = snapshot.as_ref().map_or_else(String::new, |key| format!(", from snapshot {key}"));
        self.report.push(format!("QEMU with {processor}{from}"));
        let (cpus, memory) = size_here(self.order.size);
        match known
            .last(|fact| if let Fact::Waits { cpus, memory_mib } = fact { Some((*cpus, *memory_mib)) } else { None })
        {
            Some(has) if has == (cpus, memory >> 20) => Ok(process),
            Some((has, mib)) => Err(Fault::Unsupported(format!(
                "it has {has} vCPU and {mib} MiB, and {cpus} vCPU and {} MiB are wanted",
                memory >> 20
            ))),
            None => Err(Fault::Unsupported("its record does not say that it is ready".to_owned())),
        }
    }

    /// The process moves into the task's cgroup. What it has used before stays counted where it was, below the same limits. A cgroup that
    /// was given and has no room for the whole machine holds the agent alone: the process stays where it is, and goes by its record.
    async fn enter_cgroup(&mut self, memory: u64, process: &Owner) -> Result<(), Fault> {
        if !has_room(self.order.cgroup_parent.as_ref(), Size { memory, ..self.order.size }) {
            let of_pool = Place::of(&end::as_task(&self.order.machine)?, None);
            let entrances = cgroup::entrances(&of_pool).map_err(|why| Fault::Unsupported(why.to_string()))?;
            if !holds(&entrances, process.pid) {
                let why = "its pool's cgroup does not hold it, and the one that was given has no room for it";
                return Err(Fault::Unsupported(why.to_owned()));
            }
            let line = "The machine's process stays in its pool's cgroup, which has the limits of its class: the task's own has no room for it";
            self.report.push(line.to_owned());
            return Ok(());
        }
        for entrance in self.cgroup(memory).await? {
            let doing = Fault::host(format!("write {}", entrance.display()));
            std::fs::write(&entrance, process.pid.to_string()).map_err(doing)?;
        }
        Ok(())
    }

    /// What the task may reach beyond what every machine may.
    async fn enter_network(&mut self, known: &Known) -> Result<(), Fault> {
        let tap = known.last(|fact| match fact {
            Fact::Tap { name, address, .. } => Some((name.as_str(), address.parse::<Ipv4Addr>().ok())),
            _ => None,
        });
        let Some((name, address)) = tap else {
            self.network = Some(self.closed_network()?);
            return Ok(());
        };
        let subnet = self.qemu.settings.network;
        let lease = Lease::named(name, subnet).filter(|lease| Some(lease.address) == address);
        let lease = lease.ok_or_else(|| {
            Fault::Network(format!("its interface {name} is not of {}/{}", subnet.network, subnet.prefix))
        })?;
        let servers = network::allow(&lease, self.order.egress.allowed(), &self.host.search_path).await?;
        self.network = Some(self.told(&lease, &servers));
        Ok(())
    }

    pub(super) async fn seed_taken(&mut self, seed: Seed) -> Result<(), Fault> {
        let console = self.console.clone();
        let running = self.running()?;
        let Some(mut seeding) = running.seeding.take() else { return Err(seeded_already()) };
        // Its engine is ended for a disk, which may have to be given a file system.
        let limit = if seed.volumes.is_empty() { SEEDED } else { SEEDED_LIMIT };
        let conversation = async {
            seeding.ask(ANSWER).await?;
            seeding.seed(seed, limit).await
        };
        match conversation.await {
            Ok(_) => Ok(()),
            Err(fault) => Err(end::or_ended(&mut running.started, &console, "being taken", fault).await),
        }
    }
}

/// Is a process in a cgroup, in each hierarchy in which that is?
fn holds(entrances: &[PathBuf], pid: u32) -> bool {
    let is_in = |members: &PathBuf| {
        std::fs::read_to_string(members).is_ok_and(|text| text.lines().any(|line| line == pid.to_string()))
    };
    !entrances.is_empty() && entrances.iter().all(is_in)
}

fn seeded_already() -> Fault {
    Fault::Unsupported("a machine is not seeded twice".to_owned())
}

/// As long as this lives, the guest of a machine that waits for its seed sees a host at the other end. Without one it looks for it a
/// hundred times a second.
pub(crate) async fn attend(directory: &Path) -> Option<UnixStream> {
    socket::connect(directory, line::SEED).await.ok()
}

/// Ends a machine that another process looks after.
pub(crate) async fn end_of_another(directory: &Path, known: &Known, limit: Duration) -> Vec<String> {
    process::kill(directory, known.process(), limit).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_holds_a_process_that_each_of_its_hierarchies_names() {
        let directory = tempfile::tempdir().unwrap();
        let [memory, cpu] = ["memory", "cpu"].map(|name| directory.path().join(name));
        std::fs::write(&memory, "17\n42\n").unwrap();
        assert!(holds(std::slice::from_ref(&memory), 42) && !holds(std::slice::from_ref(&memory), 4));
        assert!(!holds(&[], 42), "there is none");
        assert!(!holds(&[memory.clone(), cpu.clone()], 42), "one cannot be read");
        std::fs::write(&cpu, "42\n").unwrap();
        assert!(holds(&[memory, cpu], 42));
    }
}
