//! What an image is: written when it is built, believed only as far as its digests match.

use std::collections::BTreeMap;
use std::path::Path;

use navvy_plain_file as plain_file;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::ImageError;

/// File of an image that says what the others are.
pub const FILE: &str = "manifest.json";
/// The root disk's usual name.
pub const ROOT: &str = "root.qcow2";
/// The kernel's.
pub const KERNEL: &str = "vmlinux";
/// The initial file system's.
pub const INITRD: &str = "initrd.cpio";
/// Bytes of the longest manifest: one of 20,000 packages is shorter.
const LONGEST: u64 = 1 << 20;

/// What stands in an image's [`FILE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Form of this file: [`Self::VERSION`] of the program that wrote it.
    pub version: u32,
    /// Name of the image, which is its directory's name, too.
    pub name: String,
    /// Digest of everything that went in: the recipe, its variant, the packages with their versions, the supervisor.
    pub recipe: String,
    /// Digest of what a build is asked for: the recipe's text, its variant, its architecture. Empty: it was not built.
    #[serde(default)]
    pub inputs: String,
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

    /// Its files.
    pub fn files(&self) -> [&File; 3] {
        [&self.root, &self.kernel, &self.initrd]
    }

    /// What is wrong with it, if anything: nothing of it leads out of the image's directory, and nothing of it makes two arguments of one.
    fn wrong(&self, name: &str) -> Option<String> {
        if self.version != Self::VERSION {
            return Some(format!("its manifest has the form {}, this navvy reads {}", self.version, Self::VERSION));
        }
        if self.name != name {
            return Some(format!("its manifest is of the image {}", crate::name::shown(&self.name)));
        }
        if !matches!(self.architecture.as_str(), "x86_64" | "aarch64") {
            return Some(format!("its architecture is {}", crate::name::shown(&self.architecture)));
        }
        if !self.arguments.chars().all(|c| c.is_ascii_graphic() || c == ' ') || self.arguments.len() > 1024 {
            return Some("its kernel's arguments are no line of plain text".into());
        }
        if !crate::name::is_name(&self.user) {
            return Some(format!("its user is {}", crate::name::shown(&self.user)));
        }
        self.files().iter().find_map(|file| file.wrong())
    }
}

/// An image's manifest, and the digest of its text.
///
/// # Errors
/// It is not there, or says what no manifest says.
pub fn read(directory: &Path, name: &str) -> Result<(Manifest, String), ImageError> {
    let damaged = |why: String| ImageError::Damaged { name: name.to_owned(), why };
    let path = directory.join(FILE);
    let text = plain_file::text_without_link(&path, LONGEST)
        .map_err(|error| damaged(format!("failed to read {}: {error}", path.display())))?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|error| damaged(format!("{}: {error}", path.display())))?;
    match manifest.wrong(name) {
        Some(why) => Err(damaged(why)),
        None => Ok((manifest, hex(&Sha256::digest(text.as_bytes())))),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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

impl File {
    fn wrong(&self) -> Option<String> {
        let is_digest = self.sha256.len() == 64 && self.sha256.bytes().all(|b| b.is_ascii_hexdigit());
        match (crate::name::is_name(&self.name), is_digest) {
            (false, _) => Some(format!("{} is no name of one of its files", crate::name::shown(&self.name))),
            (_, false) => Some(format!("the digest of its file {} is none", self.name)),
            (true, true) => None,
        }
    }
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
