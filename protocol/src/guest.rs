//! What a virtual machine and its host say to each other before the first step, and on which ports.
//!
//! ```text
//! port navvy.seed   guest ─▶ Ready            the supervisor runs, nothing of it belongs to a task yet
//!                   host  ─▶ Warm ─▶ Warmed   only before a snapshot: what will be needed was used once
//!                   host  ─▶ Seed ─▶ Seeded   from here on the machine is this task's, and no other's
//! port navvy.mux    [`crate::mux`], once the guest is seeded; whoever opens it again begins with a new greeting
//! ```
//!
//! On the seed's port every message is one line: JSON, ended by a line feed, at most [`LINE_CAP`] bytes. A message that is not
//! understood is answered with [`Said::Failed`]; nothing is seeded twice. The host takes everything that comes out of a guest
//! for hostile.
//!
//! On the port [`Said::Ready`] is said once, to the first host that opens it; on [`SEED_SOCKET`] to each caller. An empty line is
//! answered with it at any time, for a host that comes later: of a clone of a snapshot, say, whose guest has said it long ago.
//! A seed that is refused before anything of it was applied may be followed by another one; after one that failed half way
//! the machine is of no use.

use serde::{Deserialize, Serialize};

/// The version of these messages that this code speaks; [`Said::Ready`] names the guest's.
pub const VERSION: u32 = 1;
/// Name of the virtio-serial port on which the guest is seeded.
pub const SEED_PORT: &str = "navvy.seed";
/// Name of the virtio-serial port that carries [`crate::mux`].
pub const MUX_PORT: &str = "navvy.mux";
/// Where a guest of a far machine takes its seed instead: a unix socket of uid 0.
pub const SEED_SOCKET: &str = "/run/navvy/seed.sock";
/// With this begins the last line on the console of a guest whose supervisor had a fault of its own: the machine ends with it.
pub const OWN_FAULT: &str = "navvy-supervisor: a fault of its own; the machine ends";
/// Bytes of the longest line, its line feed included.
pub const LINE_CAP: usize = 1 << 20;

/// What the host says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Told {
    /// Use once what steps will need, so that a snapshot has it warm. Answered by [`Said::Warmed`].
    Warm,
    /// Become this machine. Answered by [`Said::Seeded`].
    Seed(Box<Seed>),
}

/// What the guest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub enum Said {
    /// First word of a guest that has booted.
    Ready {
        /// [`VERSION`] of the guest.
        version: u32,
    },
    /// What steps will need was used once.
    Warmed,
    /// The guest is what the seed says, and serves.
    Seeded {
        /// The guest's clock right after, in nanoseconds since 1970.
        time_ns: u64,
    },
    /// What was told could not be done.
    Failed {
        /// Why, in a sentence.
        message: String,
    },
}

/// Everything by which a machine differs from its siblings. Holds secrets: its `Debug` tells none.
#[derive(Clone, Serialize, Deserialize)]
pub struct Seed {
    /// The host's clock, in nanoseconds since 1970.
    pub time_ns: u64,
    /// At least 32 bytes for the kernel's random numbers, in hex.
    pub entropy: String,
    /// The task's secret, for callers of the control socket inside.
    pub secret: String,
    /// 32 hexadecimal digits, for `/etc/machine-id`.
    pub machine_id: String,
    /// The machine's host name.
    pub host_name: String,
    /// The supervisor ends the machine when no agent has called for so many seconds. 0: never.
    pub idle_limit_s: u64,
    /// The network, where the machine has one.
    #[serde(default)]
    pub network: Option<Network>,
    /// The ssh host key that the host has made and pinned: a private key in OpenSSH's format. None: no ssh server is started.
    #[serde(default)]
    pub host_key: Option<String>,
    /// Lines of `authorized_keys` for the image's user.
    #[serde(default)]
    pub authorized_keys: Vec<String>,
    /// The Docker engine is wanted, where the image has one.
    #[serde(default)]
    pub docker: bool,
    /// Disks beside the root, to be mounted before anything else starts.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Files to write, as uid 0 (authorities that the machine is to trust, say).
    #[serde(default)]
    pub files: Vec<SeedFile>,
    /// Variables for the machine's own services (proxies of the Docker engine).
    #[serde(default)]
    pub variables: Vec<(String, String)>,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seed").field("host_name", &self.host_name).finish_non_exhaustive()
    }
}

/// A machine's network: one link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its link address, as in `52:54:00:12:34:56`: a snapshot brings another one.
    pub link_address: String,
    /// Its address with the length of its prefix, as in `10.53.0.7/16`.
    pub address: String,
    /// The gateway's address, if anything but the link can be reached.
    pub gateway: Option<String>,
    /// Name servers.
    pub name_servers: Vec<String>,
}

/// A disk beside the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The disk's serial number, by which the guest finds it.
    pub serial: String,
    /// Where it is mounted; an empty disk is given a file system first.
    pub path: String,
}

/// A file of the seed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedFile {
    /// Absolute path; missing parents are made.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Its text.
    pub text: String,
}

impl std::fmt::Debug for SeedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SeedFile").field("path", &self.path).finish_non_exhaustive()
    }
}
