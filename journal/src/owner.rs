//! Who made an object on this host: written on everything Navvy makes, so that a reaper can tell the living from the
//! dead and never touches what belongs to another machine.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};

/// Start of the name of a file that is not yet in its place.
const UNFINISHED: &str = ".new~";

/// One process of one boot of one machine.
///
/// Serialised as its label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner {
    /// Id of the machine, or its host name where it has no id.
    pub machine: String,
    /// Id of the machine's boot.
    pub boot: String,
    /// Inode of the pid namespace: the same number is another process elsewhere.
    pub pid_namespace: u64,
    /// Process id in its namespace.
    pub pid: u32,
    /// Clock ticks after boot; tells a process from a later one with its number.
    pub start_time: u64,
}

impl Owner {
    /// This very process.
    pub fn this_process() -> io::Result<Self> {
        Self::of_process(std::process::id())
    }

    /// A process of this pid namespace, which the caller knows to be the one that is meant: its own child, say.
    ///
    /// # Errors
    /// There is none with this number.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Ok(Self {
            machine: machine_id(),
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
            pid_namespace: pid_namespace()?,
            pid,
            start_time: look_at(pid)?.start_time,
        })
    }

    /// The owner as a label: five fields with slashes between them.
    pub fn to_label(&self) -> String {
        format!("{}/{}/{}/{}/{}", self.machine, self.boot, self.pid_namespace, self.pid, self.start_time)
    }

    /// Reads [`Self::to_label`]; `None` for any other text.
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

    /// The owner as a part of a file's or container's name.
    pub fn to_name(&self) -> String {
        self.to_label().replace('/', "_")
    }

    /// Reads [`Self::to_name`]; `None` for any other text.
    pub fn from_name(name: &str) -> Option<Self> {
        // A host name that stands for a machine's id may hold any character.
        let mut fields: Vec<_> = name.rsplitn(5, '_').collect();
        fields.reverse();
        Self::from_label(&fields.join("/"))
    }

    /// What a file or directory is called until it is whole and renamed into its place, so that its owner is known after a
    /// SIGKILL.
    pub fn unfinished(&self, what: &str) -> String {
        format!("{UNFINISHED}{}~{what}", self.to_name())
    }

    /// Whose unfinished file has this name?
    pub fn of_unfinished(name: &str) -> Option<Self> {
        Self::from_name(name.strip_prefix(UNFINISHED)?.split_once('~')?.0)
    }

    /// Is it certain, seen from `here`, that this owner has ended? An owner that cannot be seen from here counts as alive.
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

    /// The same for an owner that may be another user's: where `/proc` hides those, not to be seen means nothing.
    pub fn is_dead_of_anyone(&self, here: &Self) -> bool {
        self.is_dead(here)
            && (self.boot != here.boot || look_at(self.pid).is_ok() || !hides_others(&mount_table(), is_root()))
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_label()
    }
}

impl TryFrom<String> for Owner {
    type Error = String;

    fn try_from(label: String) -> Result<Self, Self::Error> {
        Self::from_label(&label).ok_or_else(|| "no label of an owner".to_owned())
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

fn mount_table() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Does `/proc` show a user nothing but the user's own processes? From `/proc/self/mountinfo`.
fn hides_others(mounts: &str, is_root: bool) -> bool {
    let hiding = ["hidepid=2", "hidepid=invisible", "hidepid=4", "hidepid=ptraceable"];
    let is_proc = |line: &&str| line.split(' ').nth(4) == Some("/proc") && line.contains(" - proc ");
    let options = mounts.lines().rfind(is_proc).and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    !is_root && options.split(',').any(|option| hiding.contains(&option))
}

struct Look {
    start_time: u64,
    /// Dead, and not yet collected by its parent: in a container often never.
    is_zombie: bool,
}

/// Fields 3 and 22 of `/proc/PID/stat`, counted behind the command's name, which may hold spaces and brackets.
fn look_at(pid: u32) -> io::Result<Look> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| match error.raw_os_error() {
        // It was there when the file was opened.
        Some(libc::ESRCH) => io::ErrorKind::NotFound.into(),
        _ => error,
    })?;
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
        assert_eq!(Owner::from_label(&owner.to_label()), Some(owner.clone()));
        let named = Owner { machine: "build_host_7".into(), ..owner };
        assert_eq!(Owner::from_name(&named.to_name()), Some(named.clone()));
        assert_eq!(Owner::of_unfinished(&named.unfinished("x~y")), Some(named));
        assert_eq!(Owner::from_label("a/b/1/2"), None);
        assert_eq!(Owner::from_label("a/b/1/2/3/4"), None);
    }

    #[test]
    fn a_proc_that_hides_others_tells_nothing_of_them() {
        let table =
            |options: &str| format!("20 1 0:4 / /sys rw - sysfs sysfs rw\n22 1 0:5 / /proc rw - proc proc {options}\n");
        assert!(hides_others(&table("rw,hidepid=invisible"), false));
        assert!(hides_others(&table("rw,gid=7,hidepid=2"), false));
        assert!(!hides_others(&table("rw,hidepid=invisible"), true));
        assert!(!hides_others(&table("rw,hidepid=1"), false));
        assert!(!hides_others(&table("rw"), false));
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
