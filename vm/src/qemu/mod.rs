//! Machines of this host, through QEMU.
//!
//! ```text
//! image (verified) ─▶ processor, network, cgroup, disk ─▶ process (paused) ─▶ monitor, console, seed ─▶ runs ─▶ Ready ─▶ Seed
//!                     each by a name that was written down first                                                  └▶ Seeded ─▶ link
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `line` | the command line (pure) |
//! | `process` | started so that it outlives its agent, found again, ended |
//! | `qmp`, `lines`, `socket` | its monitor, and lines over sockets with long paths |
//! | `console` | the last of what the guest said |
//! | `seed`, `random` | what makes a guest the task's own |
//! | `link` | the way to its supervisor |
//! | `snapshot` | a machine that has booted, for others to go on from |
//! | `shape` | what a machine is like, before anything of it is made |
//! | `overlay`, `network`, `accelerator` | its disk, its network, its processor |
//! | `trials` | what was found out about this host's QEMU, kept |
//! | `instance` | one machine on its way |
//! | `ready` | one that is ready before somebody wants it, and its taker |
//! | `end` | how a machine ended, and its removal |

mod accelerator;
pub(crate) mod console;
mod end;
mod instance;
mod line;
mod lines;
mod link;
mod network;
mod overlay;
mod plug;
mod process;
mod qmp;
mod random;
mod ready;
pub(crate) mod seed;
mod shape;
pub(crate) mod snapshot;
mod socket;
mod trials;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::command;
use navvy_environment::supervisor::Connect;
use tokio::sync::OnceCell;

pub(crate) use self::end::{destroy, stop, watch};
pub(crate) use self::instance::Instance;
pub(crate) use self::plug::takes_disks;
pub(crate) use self::ready::{attend, end_of_another};
pub(crate) use self::shape::{guest_size, size_here};
use crate::error::Fault;
use crate::record::Known;
use crate::settings::Settings;

/// The provider's name, in records and for people.
pub(crate) const NAME: &str = "qemu";
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// QEMU on this host. What it is, is found out once.
pub(crate) struct Qemu {
    pub settings: Arc<Settings>,
    found: OnceCell<Found>,
}

/// The program.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub program: PathBuf,
    pub version: String,
}

impl Qemu {
    pub fn new(settings: Arc<Settings>) -> Self {
        Self { settings, found: OnceCell::new() }
    }

    pub async fn found(&self, host: &HostPaths) -> Result<&Found, Fault> {
        self.found.get_or_try_init(|| find(&self.settings, host)).await
    }

    /// What is here, in words.
    pub async fn availability(&self, host: &HostPaths) -> Result<String, Fault> {
        let found = self.found(host).await?;
        if command::find("qemu-img", &host.search_path).is_none() {
            return Err(Fault::NoHypervisor("no program qemu-img on PATH; Debian's package is qemu-utils".to_owned()));
        }
        Ok(format!("QEMU {} ({})", found.version, found.program.display()))
    }
}

async fn find(settings: &Settings, host: &HostPaths) -> Result<Found, Fault> {
    let (name, package) = match std::env::consts::ARCH {
        "aarch64" => ("qemu-system-aarch64", "qemu-system-arm"),
        _ => ("qemu-system-x86_64", "qemu-system-x86"),
    };
    let missing = || Fault::NoHypervisor(format!("no program {name} on PATH; Debian's package is {package}"));
    let program = settings.program.clone().or_else(|| command::find(name, &host.search_path)).ok_or_else(missing)?;
    let version = version_of(&program, host).await?;
    Ok(Found { program, version })
}

/// What the program says, once for as long as it is the same file: it takes longer to say so than a clone takes to start.
async fn version_of(program: &Path, host: &HostPaths) -> Result<String, Fault> {
    let file = trials::identity(program).map_err(Fault::host(format!("look at {}", program.display())))?;
    let key = format!("version {file}");
    if let Some(known) = trials::known(host, &key) {
        return Ok(known);
    }
    let told =
        command::run(&program.display().to_string(), &["--version"], b"", &host.search_path, VERSION_LIMIT).await;
    let told = told.map_err(|e| Fault::NoHypervisor(e.to_string()))?;
    let told = String::from_utf8_lossy(&told).into_owned();
    let mut words = told.split_whitespace().skip_while(|word| *word != "version").skip(1);
    let version = words.next().map(str::to_owned);
    let version =
        version.ok_or_else(|| Fault::NoHypervisor(format!("{} does not say its version", program.display())))?;
    trials::keep(host, &key, &version);
    Ok(version)
}

/// The way to the supervisor of a machine that another process has made.
pub(crate) async fn link_of(directory: &Path, known: &Known) -> io::Result<Arc<dyn Connect>> {
    let here = navvy_journal::owner::Owner::this_process()?;
    if known.process().is_none_or(|process| process.is_dead(&here)) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "its process has ended"));
    }
    link::open(directory.to_owned()).await
}
