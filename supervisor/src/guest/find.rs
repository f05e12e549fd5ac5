//! Where the machine's ports are: the kernel names them, with or without udev.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PORTS: &str = "/sys/class/virtio-ports";
/// Between two looks: the kernel finds its devices by itself, and tells nobody who does not listen for it.
const PAUSE: Duration = Duration::from_millis(5);

/// Opens the port of this name, as soon as it is there; `None` when it is not within the limit. Nobody else can open it
/// while we hold it.
pub fn open(name: &str, instead: Option<&Path>, limit: Duration) -> io::Result<Option<File>> {
    let deadline = Instant::now() + limit;
    loop {
        let found = instead.map(Path::to_owned).or_else(|| device(Path::new(PORTS), name));
        match found.map(|path| open_now(&path)) {
            Some(Ok(file)) => return Ok(Some(file)),
            // The node comes a moment after the name.
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ if Instant::now() >= deadline => return Ok(None),
            _ => std::thread::sleep(PAUSE),
        }
    }
}

fn open_now(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).write(true).custom_flags(flags).open(path)?;
    // It has one reader at a time; that another user cannot even try is as good.
    let _ = file.set_permissions(PermissionsExt::from_mode(0o600));
    Ok(file)
}

fn device(ports: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(ports).ok()?.flatten().find_map(|port| {
        let said = fs::read_to_string(port.path().join("name")).ok()?;
        (said.trim_end() == name).then(|| Path::new("/dev").join(port.file_name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_by_the_name_that_they_have() {
        let ports = tempfile::tempdir().unwrap();
        for (port, name) in [("vport1p1", None), ("vport1p2", Some("navvy.seed\n")), ("vport1p3", Some("navvy.mux\n"))]
        {
            fs::create_dir(ports.path().join(port)).unwrap();
            name.into_iter().for_each(|name| fs::write(ports.path().join(port).join("name"), name).unwrap());
        }
        assert_eq!(device(ports.path(), "navvy.mux").unwrap(), Path::new("/dev/vport1p3"));
        assert_eq!(device(ports.path(), "navvy.m"), None);
        assert!(open("navvy.nowhere", None, Duration::ZERO).unwrap().is_none());
    }
}
