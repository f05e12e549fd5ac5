//! `[vm]`: what the operator of this host says about virtual machines.

use std::path::PathBuf;
use std::time::Duration;

use navvy_job::figures::{read_duration, read_size};
use navvy_job::resource::Size;
use navvy_storage::Proxies;
use navvy_vm::cloud::call::Pace;
use navvy_vm::ec2::Clients;
use navvy_vm::far::{Clouds, Ec2Table, GceTable, SshTable};
use navvy_vm::settings::{Accelerator, NoSubnet, Settings as Machines, Snapshots, Subnet};
use navvy_vm::{Fault, layers};
use navvy_vm_image::Images;
use serde::{Deserialize, Deserializer};

use super::Settings;

/// The table as it is written. What it does not say is as `navvy_vm` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct VmTable {
    /// `false`: no job gets a machine of this host, whatever there is for it.
    pub jobs: Option<bool>,
    /// Who makes machines: `qemu` on this host, `ssh`, `ec2` or `gce` elsewhere; `lent`: a fleet's processor.
    pub provider: Option<ProviderOf>,
    /// Hosts that are already there.
    pub ssh: Option<SshTable>,
    /// Machines of Amazon EC2.
    pub ec2: Option<Ec2Table>,
    /// Machines of Google Compute Engine.
    pub gce: Option<GceTable>,
    /// `auto`, `kvm` or `tcg`: which processor machines get.
    pub accelerator: Option<Processor>,
    /// `use`, `make` or `off`: whether machines start from a snapshot.
    pub snapshots: Option<SnapshotsOf>,
    /// Processors of a machine at most, whatever its class.
    pub cpus: Option<u32>,
    /// Memory of a machine at most.
    #[serde(deserialize_with = "size")]
    pub memory: Option<u64>,
    /// Most jobs of one process that have machines at once.
    #[serde(deserialize_with = "count")]
    pub jobs_at_once: Option<usize>,
    /// The network of machines, as in `10.209.0.0/16`.
    pub network: Option<Network>,
    /// From the decision to make a machine until its supervisor answers.
    #[serde(deserialize_with = "duration")]
    pub start_limit: Option<Duration>,
    /// From a machine that is there until its supervisor answers.
    #[serde(deserialize_with = "duration")]
    pub answer_limit: Option<Duration>,
    /// Devices of this host that every machine gets.
    pub devices: Vec<String>,
    /// QEMU's program, where the search path does not find it.
    pub qemu: Option<PathBuf>,
    /// The socket of the pool that machines are taken from, where it is not the user's own.
    #[serde(deserialize_with = "pool")]
    pub pool: Option<PathBuf>,
    /// A volume of Docker's layers is removed when no job has used it for so long.
    #[serde(deserialize_with = "duration")]
    pub layers_unused: Option<Duration>,
    /// And when it is so old.
    #[serde(deserialize_with = "duration")]
    pub layers_age: Option<Duration>,
    /// And when it takes more than this of this host's disk.
    #[serde(deserialize_with = "size")]
    pub layers_size: Option<u64>,
}

/// Who makes machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderOf {
    #[default]
    Qemu,
    Ssh,
    Ec2,
    Gce,
    Lent,
}

impl ProviderOf {
    const ALL: [Self; 5] = [Self::Qemu, Self::Ssh, Self::Ec2, Self::Gce, Self::Lent];

    fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Ssh => "ssh",
            Self::Ec2 => "ec2",
            Self::Gce => "gce",
            Self::Lent => "lent",
        }
    }
}

/// Which processor machines get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Processor {
    Auto,
    Kvm,
    Tcg,
}

/// Whether machines start from a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotsOf {
    Use,
    Make,
    Off,
}

/// `10.209.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(Subnet);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: NoSubnet| error.to_string())
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    read_duration(&text).map(Some).map_err(serde::de::Error::custom)
}

fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    match usize::deserialize(deserializer)? {
        0 => Err(serde::de::Error::custom("`jobs-at-once` is 1 or more; `jobs = false` refuses machines to all jobs")),
        count => Ok(Some(count)),
    }
}

fn pool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(deserializer)?;
    pool_socket(&text).map(Some).map_err(|why| serde::de::Error::custom(format!("pool = {text:?}: {why}")))
}

/// The socket of a pool, as somebody names it.
///
/// # Errors
/// It depends on where a program is started.
pub fn pool_socket(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.is_absolute() {
        true => Ok(path),
        false => {
            Err("this is no absolute path; a pool's socket is such as /var/lib/navvy/vm-pool/pool.sock".to_owned())
        }
    }
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    read_size(&text).map(Some).map_err(serde::de::Error::custom)
}

/// Where this user's images are. Who has no home directory has the machine's.
pub fn images(settings: &Settings) -> Images {
    let is_root = rustix::process::geteuid().is_root();
    Images::of(&settings.variables, is_root).unwrap_or_else(|_| Images::at("/var/lib/navvy/images"))
}

/// Ways to a cloud as this process's environment says, and one without a proxy to this machine's own metadata service.
fn clouds(settings: &Settings) -> Result<Clouds<'_>, Fault> {
    let client = |proxies: &Proxies| {
        let made = navvy_storage::client(None, proxies);
        made.map_err(|error| Fault::Setting { key: "HTTPS_PROXY".to_owned(), why: navvy_job::chain::chain(&error) })
    };
    let clients = Clients { cloud: client(&Proxies::of(&settings.variables))?, direct: client(&Proxies::default())? };
    Ok(Clouds { variables: &settings.variables, home: settings.home.as_deref(), clients, pace: Pace::default() })
}

impl VmTable {
    /// Why no job of this host gets a machine, where its user says so.
    pub fn refusal(&self) -> Option<String> {
        (self.jobs == Some(false)).then(|| "your settings refuse it: `jobs = false` in [vm]".to_owned())
    }

    /// Are machines lent to this host by a fleet's processor?
    pub fn are_lent(&self) -> bool {
        self.provider == Some(ProviderOf::Lent)
    }

    /// What machines are made with.
    pub fn machines(&self, settings: &Settings) -> Machines {
        let mut made = Machines::new(images(settings));
        if let Some(processor) = self.accelerator {
            made.accelerator = match processor {
                Processor::Auto => Accelerator::Auto,
                Processor::Kvm => Accelerator::Kvm,
                Processor::Tcg => Accelerator::Tcg,
            };
        }
        if let Some(snapshots) = self.snapshots {
            made.snapshots = match snapshots {
                SnapshotsOf::Use => Snapshots::Use,
                SnapshotsOf::Make => Snapshots::Make,
                SnapshotsOf::Off => Snapshots::Off,
            };
        }
        if let Some(Network(network)) = self.network {
            made.network = network;
        }
        made.start_limit = self.start_limit.unwrap_or(made.start_limit);
        made.answer_limit = self.answer_limit.unwrap_or(made.answer_limit);
        made.devices.clone_from(&self.devices);
        made.program.clone_from(&self.qemu);
        made.most = self.most();
        made.at_once = self.jobs_at_once;
        made
    }

    /// Does what it says go together?
    ///
    /// # Errors
    /// Which key does not, and what to do.
    pub fn check(&self) -> Result<(), String> {
        let provider = self.provider.unwrap_or_default();
        if provider == ProviderOf::Qemu {
            return Ok(());
        }
        let name = provider.name();
        if !self.has(provider) {
            return Err(format!(
                "provider = \"{name}\" needs a table [vm.{name}], which says where machines come from"
            ));
        }
        let of_this_host = [
            ("accelerator", self.accelerator.is_some()),
            ("snapshots", self.snapshots.is_some()),
            ("network", self.network.is_some()),
            ("devices", !self.devices.is_empty()),
            ("qemu", self.qemu.is_some()),
        ];
        match of_this_host.iter().find(|(_, is_said)| *is_said) {
            Some((key, _)) => Err(format!(
                "`{key}` is for machines of this host, and provider = \"{name}\" has none here: remove the one or the other"
            )),
            None => Ok(()),
        }
    }

    fn has(&self, provider: ProviderOf) -> bool {
        match provider {
            ProviderOf::Qemu | ProviderOf::Lent => true,
            ProviderOf::Ssh => self.ssh.is_some(),
            ProviderOf::Ec2 => self.ec2.is_some(),
            ProviderOf::Gce => self.gce.is_some(),
        }
    }

    /// What makes machines, and beside it what may have made those that are there. Nothing is looked at or asked yet.
    ///
    /// # Errors
    /// A setting that cannot be.
    pub fn made(&self, settings: &Settings, common: &Machines) -> Result<navvy_vm::Machines, Fault> {
        let chosen = self.provider.unwrap_or_default();
        let mut made = self.of(chosen, settings, common)?;
        for other in ProviderOf::ALL {
            if other != chosen && self.has(other) {
                made = made.beside(self.of(other, settings, common)?);
            }
        }
        Ok(made)
    }

    fn of(&self, provider: ProviderOf, settings: &Settings, common: &Machines) -> Result<navvy_vm::Machines, Fault> {
        let common = common.clone();
        let lacking = || Fault::Lacking(provider.name().to_owned());
        match provider {
            ProviderOf::Qemu => Ok(navvy_vm::Machines::qemu(common)),
            ProviderOf::Lent => Ok(navvy_vm::Machines::lent(common)),
            ProviderOf::Ssh => navvy_vm::Machines::ssh(common, self.ssh.as_ref().ok_or_else(lacking)?),
            ProviderOf::Ec2 => {
                navvy_vm::Machines::ec2(common, self.ec2.as_ref().ok_or_else(lacking)?, clouds(settings)?)
            }
            ProviderOf::Gce => {
                navvy_vm::Machines::gce(common, self.gce.as_ref().ok_or_else(lacking)?, clouds(settings)?)
            }
        }
    }

    /// What a machine gets at most. `None`: as much as its class says.
    pub fn most(&self) -> Option<Size> {
        let most = Size {
            millicpus: self.cpus.map_or(u64::MAX, |cpus| u64::from(cpus.max(1)) * 1000),
            memory: self.memory.unwrap_or(u64::MAX),
        };
        (self.cpus.is_some() || self.memory.is_some()).then_some(most)
    }

    /// How long volumes of layers are kept.
    pub fn layers(&self) -> layers::Keeping {
        let usual = layers::Keeping::default();
        layers::Keeping {
            unused: self.layers_unused.unwrap_or(usual.unused),
            age: self.layers_age.unwrap_or(usual.age),
            size: self.layers_size.unwrap_or(usual.size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<VmTable, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn what_is_said_counts_and_what_is_not_is_as_usual() {
        let table = read(
            "accelerator = 'tcg'\nsnapshots = 'off'\ncpus = 1\nmemory = '512M'\nnetwork = '10.77.0.0/24'\nstart-limit = '90s'\n\
             layers-unused = '24h'",
        )
        .unwrap();
        let settings = Settings::for_tests(&[("HOME", "/home/u"), ("NAVVY_IMAGES", "/i")]);
        let (machines, usual) = (table.machines(&settings), VmTable::default().machines(&settings));
        assert_eq!((machines.accelerator, machines.snapshots), (Accelerator::Tcg, Snapshots::Off));
        assert_eq!((machines.network.network.to_string(), machines.network.prefix), ("10.77.0.0".to_owned(), 24));
        assert_eq!((machines.start_limit, machines.answer_limit), (Duration::from_secs(90), usual.answer_limit));
        assert_eq!(
            (machines.images.directory().display().to_string().as_str(), usual.accelerator),
            ("/i", Accelerator::Auto)
        );
        assert_eq!(table.most(), Some(Size { millicpus: 1000, memory: 512 << 20 }));
        assert_eq!(VmTable::default().most(), None);
        assert_eq!(
            (table.layers().unused, table.layers().age),
            (Duration::from_secs(86400), layers::Keeping::default().age)
        );
    }

    #[test]
    fn machines_are_refused_by_a_word_alone() {
        assert!(read("jobs = false").unwrap().refusal().is_some_and(|why| why.contains("jobs = false")));
        assert_eq!(read("jobs = true").unwrap().refusal(), None);
        assert_eq!(VmTable::default().refusal(), None);
    }

    #[test]
    fn what_is_no_setting_is_refused_with_what_to_write() {
        for (text, words) in [
            ("jobs = 'off'", "expected a boolean"),
            ("accelerator = 'xen'", "unknown variant `xen`"),
            ("snapshot = 'off'", "unknown field `snapshot`"),
            ("memory = 512", "expected a string"),
            ("memory = 'much'", "`much` is not a size"),
            ("jobs-at-once = 0", "`jobs = false` refuses machines to all jobs"),
            ("start-limit = '5'", "`5` is not a duration"),
            ("network = '10.0.0.0'", "write it like 10.209.0.0/16"),
            ("network = '10.0.0.0/30'", "write it like 10.209.0.0/16"),
            ("network = '10.0.0.7/16'", "not the first address"),
            ("network = '8.8.0.0/16'", "private network"),
            ("pool = 'pool.sock'", "pool = \"pool.sock\": this is no absolute path"),
            ("provider = 'azure'", "unknown variant `azure`, expected one of `qemu`, `ssh`, `ec2`, `gce`"),
            ("[ec2]\nregion = 'eu'\nimages = []\ntypes = []\nzone = 'x'", "unknown field `zone`"),
            ("[ec2]\nimages = []\ntypes = []", "missing field `region`"),
            ("[[ssh.hosts]]\nname = 'a'", "missing field `address`"),
            (
                "[ec2]\nregion = 'eu'\nimages = []\ntypes = [{name = 'a', cpus = 2, memory = 'much'}]",
                "`much` is not a size",
            ),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(words), "{text}: {told}");
        }
    }

    const EC2: &str = "provider = 'ec2'\n[ec2]\nregion = 'eu-central-1'\nimages = [{name = '*', image = 'ami-1'}]\n\
                       types = [{name = 't3a.medium', cpus = 2, memory = '4G'}]\n";

    #[test]
    fn machines_elsewhere_are_chosen_by_settings_alone() {
        let settings = Settings::for_tests(&[("HOME", "/home/u")]);
        let made = |text: &str| {
            let table = read(text).unwrap();
            table.check()?;
            let common = table.machines(&settings);
            table.made(&settings, &common).map_err(|fault| fault.to_string())
        };
        let usual = made("").unwrap();
        assert_eq!((usual.name(), usual.are_here()), ("qemu", true));
        let lent = made("provider = 'lent'").unwrap();
        assert_eq!((lent.name(), lent.are_here()), ("lent", false));
        assert_eq!(lent.offer(None).unwrap().name, "default");
        let ec2 = made(EC2).unwrap();
        assert_eq!((ec2.name(), ec2.are_here()), ("ec2", false));
        let offer = ec2.offer(Some("ubuntu-2204:current")).unwrap();
        assert_eq!((offer.name.as_str(), offer.user.as_str(), offer.docker), ("ami-1", "circleci", None));
        for (text, words) in [
            ("provider = 'ec2'".to_owned(), "needs a table [vm.ec2]"),
            ("provider = 'lent'\nqemu = '/q'".to_owned(), "`qemu` is for machines of this host"),
            (format!("devices = ['0000:01:00.0']\n{EC2}"), "`devices` is for machines of this host"),
            (format!("snapshots = 'make'\n{EC2}"), "`snapshots` is for machines of this host"),
            ("provider = 'ssh'\n[ssh]".to_owned(), "`vm.ssh.hosts`: it has no entry"),
            (EC2.replace("{name = 't3a.medium', cpus = 2, memory = '4G'}", ""), "`vm.ec2.types`: it has no entry"),
            (
                "provider = 'ssh'\n[[ssh.hosts]]\nname = 'a'\naddress = 'a'\nhost-key = 'x'\nkey-file = '/k'\nreset = ['true']"
                    .to_owned(),
                "host-key of host a is no line",
            ),
        ] {
            let told = made(&text).map(|_| ()).unwrap_err();
            assert!(told.contains(words), "{text}: {told}");
        }
    }
}
