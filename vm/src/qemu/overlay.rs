//! A machine's own disk: an overlay, which holds what the machine writes, over an image that nothing writes to.

use std::path::Path;
use std::time::Duration;

use navvy_environment::command::{self, CommandError};

use crate::error::Fault;

const LIMIT: Duration = Duration::from_secs(20);
/// With less a guest cannot even boot.
const LEAST: u64 = 64 << 20;

/// Makes the overlay; one that is there is replaced. `floor`: bytes that must be free where it goes.
pub async fn make(disk: &Path, backing: &Path, floor: u64, search_path: &str) -> Result<(), Fault> {
    let place = disk.parent().unwrap_or(Path::new("/"));
    check_space(place, floor)?;
    let (disk_text, backing_text) = (disk.display().to_string(), backing.display().to_string());
    let arguments = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &backing_text, &disk_text];
    match command::run("qemu-img", &arguments, b"", search_path, LIMIT).await {
        Ok(_) => Ok(()),
        Err(CommandError::Failed { stderr, .. }) if stderr.contains("No space left") => {
            Err(Fault::NoSpace { path: place.to_owned(), message: stderr })
        }
        Err(error @ CommandError::NotFound { .. }) => Err(Fault::NoHypervisor(error.to_string())),
        Err(source) => Err(Fault::Command { doing: "make the machine's disk", source }),
    }
}

/// Are so many bytes free where a machine's disk is, and as many as a guest needs to boot?
pub fn check_space(place: &Path, floor: u64) -> Result<(), Fault> {
    let least = floor.max(LEAST);
    let state = rustix::fs::statvfs(place).map_err(std::io::Error::from);
    let state = state.map_err(Fault::host(format!("look at the disk of {}", place.display())))?;
    let free = state.f_bavail.saturating_mul(state.f_frsize);
    if free < least {
        let mib = |bytes: u64| bytes >> 20;
        let message = format!("{} MiB are free, and {} MiB must be", mib(free), mib(least));
        return Err(Fault::NoSpace { path: place.to_owned(), message });
    }
    Ok(())
}
