//! Whether a machine has an image's disk open, whoever started it.

use std::path::Path;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use crate::error::{At as _, ImageError};
use crate::manifest;

/// QEMU locks bytes of each disk that it has open, overlays' backing files among them, as long as it lives: also when the agent that
/// started it is dead. So the disk itself is asked, and no record is believed. The caller has the image alone: no machine is being started
/// whose lock this one, of a moment, could refuse.
///
/// # Errors
/// The disk is there and cannot be asked.
pub fn by_a_machine(image: &Path) -> Result<bool, ImageError> {
    let disk = image.join(manifest::ROOT);
    let file = match std::fs::File::options().read(true).write(true).open(&disk) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).at("open", &disk),
    };
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(true),
        Err(error) => Err(error).at("ask for locks of", &disk),
    }
}
