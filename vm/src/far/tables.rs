//! `[vm.ssh]`, `[vm.ec2]`, `[vm.gce]`: what an operator says, as it is written; and what comes of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use navvy_job::figures::{read_duration, read_size};
use serde::{Deserialize, Deserializer};

use super::choice::{Row, Type};
use super::cloud::{Api, Cloud, Terms};
use super::hosts::Hosts;
use crate::cloud::call::Pace;
use crate::ec2::{self, Clients, Ec2};
use crate::error::Fault;
use crate::gce::{self, Gce};
use crate::settings::Settings;
use crate::ssh::Host;

/// One that no record knows is ended when it is so old, if nothing else is said.
const UNKNOWN_AFTER: Duration = Duration::from_secs(3600);
const GIB: u64 = 1 << 30;

/// `[vm.ssh]`: hosts that are already there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SshTable {
    /// The hosts, in the order in which they are taken.
    pub hosts: Vec<Host>,
}

/// `[vm.ec2]`: machines of Amazon EC2.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ec2Table {
    /// Such as `eu-central-1`.
    pub region: String,
    /// Where the API is. Default: the region's own.
    pub endpoint: Option<String>,
    /// The subnet of the machines. Default: the account's.
    pub subnet: Option<String>,
    /// Security groups of the machines.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// The machines get a public address. Without: they are reached from within the network.
    #[serde(default)]
    pub public_address: bool,
    /// The image's name of its root disk.
    #[serde(default = "root_device")]
    pub root_device: String,
    /// Key of the disks' encryption. Default: the account's.
    pub disk_key: Option<String>,
    /// Which image a config's name stands for.
    pub images: Vec<Row>,
    /// Sizes that a class may have.
    pub types: Vec<Type>,
    /// As whom machines are entered: whose keys cloud-init writes, and who may give a seed.
    #[serde(default = "root")]
    pub user: String,
    /// Port of their ssh servers.
    #[serde(default = "port")]
    pub port: u16,
    /// Cheaper ones, which the cloud may take away at any moment.
    #[serde(default)]
    pub spot: bool,
    /// Their root disks. Default: as their images have them.
    #[serde(default, deserialize_with = "size")]
    pub disk: u64,
    /// One that no record knows is ended when it is so old.
    #[serde(default = "unknown_after", deserialize_with = "duration")]
    pub unknown_after: Duration,
}

/// `[vm.gce]`: machines of Google Compute Engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GceTable {
    /// Id of the project.
    pub project: String,
    /// Such as `europe-west3-a`.
    pub zone: String,
    /// Where the API is. Default: Google's own.
    pub endpoint: Option<String>,
    /// The machines' network: `global/networks/ci`. Default: the project's.
    pub network: Option<String>,
    /// Their subnetwork: `regions/europe-west3/subnetworks/ci`.
    pub subnetwork: Option<String>,
    /// Network tags, for the firewall's rules.
    #[serde(default)]
    pub network_tags: Vec<String>,
    /// The machines get a public address. Without: they are reached from within the network.
    #[serde(default)]
    pub public_address: bool,
    /// Key of the disks' encryption. Default: Google's own, which encrypts every disk.
    pub disk_key: Option<String>,
    /// Which image a config's name stands for.
    pub images: Vec<Row>,
    /// Sizes that a class may have.
    pub types: Vec<Type>,
    /// As whom machines are entered: whose keys cloud-init writes, and who may give a seed.
    #[serde(default = "root")]
    pub user: String,
    /// Port of their ssh servers.
    #[serde(default = "port")]
    pub port: u16,
    /// Cheaper ones, which the cloud may take away at any moment.
    #[serde(default)]
    pub spot: bool,
    /// Their root disks. Default: as their images have them.
    #[serde(default, deserialize_with = "size")]
    pub disk: u64,
    /// One that no record knows is ended when it is so old.
    #[serde(default = "unknown_after", deserialize_with = "duration")]
    pub unknown_after: Duration,
}

fn root_device() -> String {
    "/dev/xvda".to_owned()
}

fn root() -> String {
    "root".to_owned()
}

fn port() -> u16 {
    22
}

fn unknown_after() -> Duration {
    UNKNOWN_AFTER
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    read_duration(&text).map_err(serde::de::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    read_size(&text).map_err(serde::de::Error::custom)
}

/// What of a process a cloud's calls need: credentials by its environment, and ways out.
#[derive(Debug, Clone)]
pub struct Clouds<'a> {
    /// Variables of the process.
    pub variables: &'a BTreeMap<String, String>,
    /// The user's home directory.
    pub home: Option<&'a Path>,
    /// To the cloud, and to this machine's own metadata service.
    pub clients: Clients,
    /// How calls are tried.
    pub pace: Pace,
}

/// What is wrong with a key of the settings.
fn wrong(key: impl Into<String>, why: impl Into<String>) -> Fault {
    Fault::Setting { key: key.into(), why: why.into() }
}

fn check_all(key: &str, images: &[Row], types: &[Type], disk: u64) -> Result<u32, Fault> {
    if images.is_empty() {
        return Err(wrong(
            format!("{key}.images"),
            "it has no entry: name an image, as in `name = \"default\"`, `image = \"…\"`",
        ));
    }
    if types.is_empty() {
        return Err(wrong(format!("{key}.types"), "it has no entry: name a type with its cpus and memory"));
    }
    if !disk.is_multiple_of(GIB) {
        return Err(wrong(format!("{key}.disk"), "a cloud's disks are of whole GiB, as in \"30G\""));
    }
    u32::try_from(disk / GIB).map_err(|_| wrong(format!("{key}.disk"), "no disk is so large"))
}

impl SshTable {
    pub(crate) fn hosts(&self, settings: &Arc<Settings>) -> Result<Hosts, Fault> {
        if self.hosts.is_empty() {
            return Err(wrong(
                "vm.ssh.hosts",
                "it has no entry: name a host with address, host-key, key-file and reset",
            ));
        }
        for (nth, host) in self.hosts.iter().enumerate() {
            host.check().map_err(|error| wrong("vm.ssh.hosts", error.to_string()))?;
            if self.hosts[..nth].iter().any(|other| other.name == host.name) {
                return Err(wrong("vm.ssh.hosts", format!("two hosts have the name {:?}", host.name)));
            }
            if let Err(error) = russh::keys::PublicKey::from_openssh(&host.host_key) {
                let why = format!(
                    "host-key of host {} is no line as in /etc/ssh/ssh_host_ed25519_key.pub there ({error})",
                    host.name
                );
                return Err(wrong("vm.ssh.hosts", why));
            }
        }
        Ok(Hosts { hosts: self.hosts.clone(), settings: Arc::clone(settings) })
    }
}

impl Ec2Table {
    pub(crate) fn cloud(&self, settings: &Arc<Settings>, clouds: Clouds<'_>) -> Result<Cloud, Fault> {
        let key = "vm.ec2";
        let disk_gib = check_all(key, &self.images, &self.types, self.disk)?;
        let api = ec2::Settings {
            region: self.region.clone(),
            endpoint: self.endpoint.clone(),
            subnet: self.subnet.clone(),
            security_groups: self.security_groups.clone(),
            public_address: self.public_address,
            root_device: self.root_device.clone(),
            disk_key: self.disk_key.clone(),
        };
        let terms = Terms {
            images: self.images.clone(),
            types: self.types.clone(),
            user: self.user.clone(),
            is_spot: self.spot,
            disk_gib,
            unknown_after: self.unknown_after,
            place: self.region.clone(),
            port: self.port,
            key,
        };
        let sources = ec2::Sources::new(clouds.variables, clouds.home);
        let api = Api::Ec2(Box::new(Ec2::new(api, sources, clouds.clients, clouds.pace)?));
        Ok(Cloud { api, terms, settings: Arc::clone(settings) })
    }
}

impl GceTable {
    pub(crate) fn cloud(&self, settings: &Arc<Settings>, clouds: Clouds<'_>) -> Result<Cloud, Fault> {
        let key = "vm.gce";
        let disk_gib = check_all(key, &self.images, &self.types, self.disk)?;
        let api = gce::Settings {
            project: self.project.clone(),
            zone: self.zone.clone(),
            endpoint: self.endpoint.clone(),
            network: self.network.clone(),
            subnetwork: self.subnetwork.clone(),
            network_tags: self.network_tags.clone(),
            public_address: self.public_address,
            disk_key: self.disk_key.clone(),
        };
        let terms = Terms {
            images: self.images.clone(),
            types: self.types.clone(),
            user: self.user.clone(),
            is_spot: self.spot,
            disk_gib,
            unknown_after: self.unknown_after,
            place: format!("{}/{}", self.project, self.zone),
            port: self.port,
            key,
        };
        let sources = gce::Sources::new(clouds.variables);
        let api = Api::Gce(Box::new(Gce::new(api, sources, clouds.clients, clouds.pace)?));
        Ok(Cloud { api, terms, settings: Arc::clone(settings) })
    }
}
