//! Who made an object on this host: written on everything Navvy makes, so that a reaper can tell the living from the
//! dead and never touches what belongs to another machine.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

/// One process of one boot of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub machine: String,
    pub boot: String,
    /// Inode of the pid namespace: the same number is another process elsewhere.
    pub pid_namespace: u64,
    pub pid: u32,
    /// Clock ticks after boot; tells a process from a later one with its number.
    pub start_time: u64,
}

impl Owner {
    /// This very process.
    pub fn this_process() -> io::Result<Self> {
        let pid = std::process::id();
        Ok(Self {
            machine: machine_id(),
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
            pid_namespace: pid_namespace()?,
            pid,
            start_time: look_at(pid)?.start_time,
        })
    }

    /// As a label: five fields with slashes between them.
    pub fn to_label(&self) -> String {
        format!("{}/{}/{}/{}/{}", self.machine, self.boot, self.pid_namespace, self.pid, self.start_time)
    }

    pub fn from_label(label: &str) -> Option<Self> {
        let mut fields = label.split('/');
        let owner = Self {
            machine: fields.next()?.to_owned(),
            boot: fields.next()?.to_owned(),
            pid_namespace: fields.next()?.parse().ok()?,
            pid: fields.next()?.parse().ok()?,
            start_time: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(owner)
    }

    /// Is it certain, seen from `here`, that this owner is no more? What cannot be seen from here counts as alive.
    pub fn is_dead(&self, here: &Self) -> bool {
        if self.machine != here.machine {
            return false;
        }
        if self.boot != here.boot {
            return true;
        }
        self.pid_namespace == here.pid_namespace
            && match look_at(self.pid) {
                Ok(found) => found.is_zombie || found.start_time != self.start_time,
                Err(e) => e.kind() == io::ErrorKind::NotFound,
            }
    }
}

/// Containers often have none; their host name then tells them apart as well as anything.
fn machine_id() -> String {
    fs::read_to_string("/etc/machine-id")
        .ok()
        .map(|text| text.trim().to_owned())
        .filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()))
        .or_else(|| fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().replace('/', "-")))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn pid_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

struct Look {
    start_time: u64,
    /// Dead, and not yet collected by its parent: in a container often never.
    is_zombie: bool,
}

/// Fields 3 and 22 of `/proc/PID/stat`, counted behind the command's name, which may hold spaces and brackets.
fn look_at(pid: u32) -> io::Result<Look> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<_> = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    match (fields.first(), fields.get(19).and_then(|field| field.parse().ok())) {
        (Some(state), Some(start_time)) => Ok(Look { start_time, is_zombie: matches!(*state, "Z" | "X") }),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "stat of a process has no start time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_round_trip() {
        let owner = Owner::this_process().unwrap();
        assert_eq!(Owner::from_label(&owner.to_label()), Some(owner));
        assert_eq!(Owner::from_label("a/b/1/2"), None);
        assert_eq!(Owner::from_label("a/b/1/2/3/4"), None);
    }

    #[test]
    fn the_living_and_the_unknown_are_spared() {
        let here = Owner::this_process().unwrap();
        assert!(!here.is_dead(&here));
        assert!(!Owner { machine: "elsewhere".into(), start_time: 0, ..here.clone() }.is_dead(&here));
        assert!(!Owner { pid_namespace: 1, start_time: 0, ..here.clone() }.is_dead(&here));
        assert!(Owner { start_time: 0, ..here.clone() }.is_dead(&here));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let zombie = loop {
            let look = look_at(child.id()).unwrap();
            if look.is_zombie {
                break Owner { pid: child.id(), start_time: look.start_time, ..here.clone() };
            }
            std::thread::yield_now();
        };
        assert!(zombie.is_dead(&here));
        child.wait().unwrap();
        assert!(Owner { boot: "earlier".into(), ..here.clone() }.is_dead(&here));
    }
}
