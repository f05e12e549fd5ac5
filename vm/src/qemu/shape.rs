//! What a machine on this host is like, before anything of it is made: which QEMU and processor it gets, and how much of this host.

use navvy_environment::cgroup::Parent;
use navvy_environment::{HostPaths, run_dir};
use navvy_job::resource::Size;
use navvy_vm_image::Image;

use super::accelerator::{self, Bench};
use super::line::{Board, Processor};
use super::snapshot::{self, Kind};
use super::{Found, Qemu, end};
use crate::error::Fault;

/// Memory of a machine's cgroup beyond the guest's: QEMU's own, its translations, page tables.
pub const OVERHEAD: u64 = 512 << 20;
/// Least that a guest can be given.
const LEAST_MEMORY: u64 = 256 << 20;

/// Has a cgroup that was given, if one was, room for a guest of this size and for QEMU's own memory?
pub fn has_room(given: Option<&Parent>, size: Size) -> bool {
    let needed = size.memory.saturating_add(OVERHEAD);
    given.is_none_or(|given| given.memory_limit().is_some_and(|limit| needed <= limit))
}

/// What a guest gets of its class. Where a cgroup that was given has no room for both, QEMU's own memory is taken from the guest's.
pub fn guest_size(mut size: Size, given: Option<&Parent>) -> Size {
    if !has_room(given, size) {
        size.memory = size.memory.saturating_sub(OVERHEAD);
    }
    size
}

/// Processors and bytes of memory that a machine of this size gets here.
pub fn size_here(wanted: Size) -> (u32, u64) {
    let (host_cpus, host_memory) = (end::processors(), end::memory());
    let cpus = u32::try_from(wanted.millicpus.div_ceil(1000).clamp(1, host_cpus)).unwrap_or(1);
    let memory = wanted.memory.min(host_memory.saturating_sub(OVERHEAD)).max(LEAST_MEMORY) >> 20 << 20;
    (cpus, memory)
}

/// What the report of the environment says of that.
pub fn size_report(cpus: u32, memory: u64, wanted: Size) -> Vec<String> {
    let mut report = vec![format!("Machine: {cpus} vCPU, {} MiB", memory >> 20)];
    if memory < wanted.memory || u64::from(cpus) * 1000 < wanted.millicpus {
        report.push(format!(
            "The class has {} vCPU and {} MiB: this host gives what it has",
            wanted.millicpus.div_ceil(1000),
            wanted.memory >> 20
        ));
    }
    report
}

/// What a machine is like.
pub struct Shape {
    pub found: Found,
    pub processor: Processor,
    /// Why that is not this host's own.
    why_emulated: Option<String>,
    pub cpus: u32,
    /// In bytes; whole MiB.
    pub memory: u64,
}

impl Shape {
    /// For this image and what the guest is to get.
    pub async fn of(qemu: &Qemu, image: &Image, wanted: Size, host: &HostPaths) -> Result<Self, Fault> {
        let found = qemu.found(host).await?.clone();
        let bench = Bench {
            program: &found.program,
            version: &found.version,
            board: Board::of(&image.manifest.architecture),
            kernel: &image.kernel(),
            digest: &image.manifest.kernel.sha256,
            host,
        };
        let (processor, why_emulated) = accelerator::choose(qemu.settings.accelerator, &bench).await?;
        let (cpus, memory) = size_here(wanted);
        Ok(Self { found, processor, why_emulated, cpus, memory })
    }

    /// What the report of the environment says of it.
    pub fn report(&self, wanted: Size) -> Vec<String> {
        let version = &self.found.version;
        let mut report = vec![match &self.why_emulated {
            None => format!("QEMU {version} with KVM"),
            Some(why) => format!("QEMU {version} with an emulated processor ({why})"),
        }];
        report.extend(size_report(self.cpus, self.memory, wanted));
        report
    }

    /// What a snapshot must have for a machine like this to go on from it.
    pub fn kind(&self, image: &Image) -> Kind {
        Kind {
            image: image.manifest.name.clone(),
            digest: image.digest.clone(),
            version: self.found.version.clone(),
            processor: format!("{} {}", self.processor.name(), self.processor.model()),
            memory: self.memory >> 20,
            cpus: self.cpus,
            network: if run_dir::uid() == 0 { "tap" } else { "restricted" }.to_owned(),
        }
    }
}

impl Qemu {
    /// Is there a snapshot from which machines of this image and size go on? Makes nothing.
    pub async fn has_snapshot(&self, image: &Image, size: Size, host: &HostPaths) -> Result<bool, Fault> {
        let shape = Shape::of(self, image, size, host).await?;
        Ok(snapshot::find(&host.state, &shape.kind(image)).is_some())
    }
}
