//! The machine's root: mounted, made as large as its disk, and entered.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use navvy_protocol::place;

use super::{Fault, MODULES, cannot, say};
use crate::{guest, kernel};

/// Mounts that hold no programs and no devices of a job's.
pub const SAFE: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
/// Where it is mounted before it is the root.
const NEW: &str = "/root";
const DEVICE_LIMIT: Duration = Duration::from_secs(30);

/// Leaves the initial file system for the one on this device.
pub fn enter(device: &str) -> Result<(), Fault> {
    await_device(device).map_err(cannot(format!("find the root's disk {device}")))?;
    fs::create_dir_all(NEW).map_err(cannot("make a place for the root"))?;
    kernel::mount(device, Path::new(NEW), "ext4", libc::MS_NOATIME, "")
        .map_err(cannot(format!("mount the root's disk {device} as ext4")))?;
    if let Err(error) = guest::grow(Path::new(device), Path::new(NEW)) {
        say(&format!("the root stays smaller than its disk: {error}"));
    }
    lay_down().map_err(cannot(format!("write {}", place::SUPERVISOR)))?;
    for path in ["/dev", "/proc", "/sys"] {
        let target = below(path);
        fs::create_dir_all(&target)
            .and_then(|()| kernel::move_mount(Path::new(path), &target))
            .map_err(cannot(format!("move {path} to the root")))?;
    }
    forget_initial();
    std::env::set_current_dir(NEW)
        .and_then(|()| kernel::move_mount(Path::new("."), Path::new("/")))
        .and_then(|()| kernel::change_root(c"."))
        .and_then(|()| std::env::set_current_dir("/"))
        .map_err(cannot("change to the root"))
}

fn below(path: &str) -> PathBuf {
    Path::new(NEW).join(path.trim_start_matches('/'))
}

fn await_device(device: &str) -> io::Result<()> {
    let deadline = Instant::now() + DEVICE_LIMIT;
    loop {
        match File::open(device) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// This program comes with the initial file system, and the root gets a copy: both are of one version then.
fn lay_down() -> io::Result<()> {
    let target = below(place::SUPERVISOR);
    if let Some(directory) = target.parent() {
        fs::create_dir_all(directory)?;
    }
    let beside = target.with_extension("new");
    fs::copy("/proc/self/exe", &beside)?;
    fs::set_permissions(&beside, PermissionsExt::from_mode(0o755))?;
    fs::rename(&beside, &target)
}

/// The initial file system is in memory for as long as the machine runs.
fn forget_initial() {
    // What cannot be removed costs memory and nothing else.
    let _ = fs::remove_dir_all(MODULES);
    let _ = fs::remove_file("/init");
}
