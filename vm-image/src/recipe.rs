//! The recipe, which travels in this program: its files, and the digest of what a build is asked for.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::build::Variant;
use crate::error::{At as _, ImageError};
use crate::manifest::hex;

/// Its files by name; the first is the program.
const FILES: [(&str, &str); 4] = [
    ("build", include_str!("../recipe/build")),
    ("customize", include_str!("../recipe/customize")),
    ("debian.sh", include_str!("../recipe/debian.sh")),
    ("fixed-times", include_str!("../recipe/fixed-times")),
];

/// Programs that it calls, and the packages of Debian that have them.
pub const NEEDS: [(&str, &str); 11] = [
    ("mmdebstrap", "mmdebstrap"),
    ("apt-get", "apt"),
    ("mke2fs", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("dumpe2fs", "e2fsprogs"),
    ("qemu-img", "qemu-utils"),
    ("lz4", "lz4"),
    ("bash", "bash"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("timeout", "coreutils"),
];

/// Writes it below a directory.
pub fn lay_down(directory: &Path) -> Result<(), ImageError> {
    std::fs::create_dir(directory).at("make", directory)?;
    for (name, text) in FILES {
        let path = directory.join(name);
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o755).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).at("write", &path)?;
    }
    Ok(())
}

/// What a build is asked for.
pub fn inputs(variant: Variant, architecture: &str) -> String {
    let mut hash = Sha256::new();
    for part in FILES.iter().flat_map(|(name, text)| [*name, text]).chain([variant.word(), architecture]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}
