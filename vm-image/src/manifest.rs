//! What an image is: written when it is built, believed only as far as its digests match.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// File of an image that says what the others are.
pub const FILE: &str = "manifest.json";

/// What stands in an image's [`FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Form of this file: [`Self::VERSION`] of the program that wrote it.
    pub version: u32,
    /// Name of the image, which is its directory's name, too.
    pub name: String,
    /// Digest of everything that went in: the recipe, its variant, the packages with their versions, the supervisor.
    pub recipe: String,
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// What starts the supervisor.
    pub init: Init,
    /// The Docker engine's version, where the image has one.
    pub docker: Option<String>,
    /// As whom steps run: `circleci`, say.
    pub user: String,
    /// Version of the supervisor in it.
    pub supervisor: String,
    /// The root disk: a qcow2 file that nothing ever writes to.
    pub root: File,
    /// Bytes that the root disk has for the guest.
    pub root_size: u64,
    /// An uncompressed kernel, for direct boot.
    pub kernel: File,
    /// The initial file system.
    pub initrd: File,
    /// Further arguments of the kernel's command line.
    pub arguments: String,
    /// Packages by name, with their versions.
    pub packages: BTreeMap<String, String>,
}

impl Manifest {
    /// The form that this code writes, and the only one that it reads.
    pub const VERSION: u32 = 1;
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its name in the image's directory: no path.
    pub name: String,
    /// SHA-256, in hex.
    pub sha256: String,
    /// Its length in bytes.
    pub size: u64,
}

/// What starts the supervisor in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// The supervisor itself is the first process: quickest.
    Own,
    /// systemd, with the supervisor as a service: for jobs that call `systemctl`.
    Systemd,
}
