//! What an operator says about machines. A default is what `navvy run` uses on a laptop.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use navvy_job::resource::{Size, machine_class};
use navvy_protocol::guest::SeedFile;
use navvy_vm_image::{Images, Table};

/// Settings of machines on this host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The images of this host.
    pub images: Images,
    /// Which image a config's name stands for.
    pub table: Table,
    /// Which processor the machines get.
    pub accelerator: Accelerator,
    /// From the decision to make a machine until its supervisor answers.
    pub start_limit: Duration,
    /// From a machine that is there until its supervisor answers.
    pub answer_limit: Duration,
    /// Whether machines start from a snapshot of one that had booted.
    pub snapshots: Snapshots,
    /// The network of machines, where this process may make one.
    pub network: Subnet,
    /// Devices of this host that every machine gets, as `-device` of QEMU takes them after `vfio-pci,host=`.
    pub devices: Vec<String>,
    /// QEMU by another name or at another place than the search path says.
    pub program: Option<PathBuf>,
    /// What a machine gets at most, whatever its class. `None`: what its class says.
    pub most: Option<Size>,
    /// Most tasks of one process that have machines at once.
    pub at_once: Option<usize>,
}

/// Which processor machines get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Accelerator {
    /// This host's own, where a trial shows that it works; else an emulated one.
    #[default]
    Auto,
    /// This host's own, or none.
    Kvm,
    /// An emulated one.
    Tcg,
}

/// Whether machines start from a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Snapshots {
    /// Where there is one: [`crate::Machines::warm`] makes it.
    #[default]
    Use,
    /// And one is made before the first machine of its kind.
    Make,
    /// Every machine boots.
    Off,
}

/// The network of machines: one bridge, whose ports do not see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// The network's address; the bridge has the first one in it.
    pub network: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
}

impl Default for Subnet {
    fn default() -> Self {
        Self { network: Ipv4Addr::new(10, 209, 0, 0), prefix: 16 }
    }
}

/// Why a text is no network of machines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSubnet {
    /// It is none at all.
    #[error("`{0}` is no network of machines; write it like 10.209.0.0/16, with 8 to 28 bits of prefix")]
    Form(String),
    /// Machines would get addresses of others.
    #[error("`{0}` is not the first address of a private network (10/8, 172.16/12, 192.168/16)")]
    Place(String),
}

impl FromStr for Subnet {
    type Err = NoSubnet;

    fn from_str(text: &str) -> Result<Self, NoSubnet> {
        let form = || NoSubnet::Form(text.to_owned());
        let (network, prefix) = text.split_once('/').ok_or_else(form)?;
        let network: Ipv4Addr = network.parse().map_err(|_| form())?;
        let prefix: u8 = prefix.parse().map_err(|_| form())?;
        let is_its_first = |prefix: u8| network.to_bits() & (u32::MAX >> prefix) == 0;
        match prefix {
            8..=28 if network.is_private() && is_its_first(prefix) => Ok(Self { network, prefix }),
            8..=28 => Err(NoSubnet::Place(text.to_owned())),
            _ => Err(form()),
        }
    }
}

impl Settings {
    /// What machines of a class get here; `None`: there is no such class.
    pub fn size_of(&self, class: &str) -> Option<Size> {
        let size = machine_class(class)?;
        Some(self.most.map_or(size, |most| size.clamp_to(most)))
    }

    /// The defaults, with these images.
    pub fn new(images: Images) -> Self {
        Self {
            images,
            table: Table::default(),
            accelerator: Accelerator::default(),
            start_limit: Duration::from_secs(300),
            answer_limit: Duration::from_secs(180),
            snapshots: Snapshots::default(),
            network: Subnet::default(),
            devices: Vec::new(),
            program: None,
            most: None,
            at_once: None,
        }
    }
}

/// What one machine gets beyond what its task asks for.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Disks beside its root, which the caller has made and keeps others away from.
    pub disks: Vec<Disk>,
    /// Files that are written into it before its first step, as uid 0.
    pub files: Vec<SeedFile>,
    /// Variables of its own services.
    pub variables: Vec<(String, String)>,
    /// Public keys that may log in as the image's user; with any, an ssh server is started.
    pub authorized_keys: Vec<String>,
}

/// A disk beside the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// A qcow2 file of this host.
    pub path: PathBuf,
    /// What the file stands on, another qcow2 file. What the file itself says of that is not believed.
    pub backing: Option<PathBuf>,
    /// By which the guest finds it: letters and digits, at most 20.
    pub serial: String,
    /// Where the guest mounts it.
    pub mount: String,
}
