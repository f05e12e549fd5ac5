//! The cgroup hierarchies of this machine, of version 1, 2, or both: where they are, which files hold a limit, whom the kernel killed
//! for want of memory, and how a cgroup is removed with all that is in it.
//!
//! ```text
//! v1   /sys/fs/cgroup/{memory,cpu,pids,…}/NAME     a hierarchy for each controller
//! v2   /sys/fs/cgroup/NAME                         one for all
//! ```
//!
//! Whose a cgroup is and when it goes, the callers know: the environment its tasks', the task driver those of whole Nomad tasks.

#![warn(missing_docs)]

pub mod slice;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use navvy_job::resource::Size;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The kernel's list of what is mounted, as this process sees it.
pub const MOUNTINFO: &str = "/proc/self/mountinfo";
/// The scheduler's usual period; quotas are counted in it.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel takes no quota below a millisecond.
const SMALLEST_QUOTA_US: u64 = 1000;
/// What has just ended lets go of its cgroups a moment later; one removal waits so long for that.
const REMOVE_LIMIT: Duration = Duration::from_secs(3);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);
/// Of a task's cgroup: the task's own, the containers', and those that a job makes for itself.
const OOM_DEPTH: usize = 4;

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its root.
    pub path: PathBuf,
    /// Empty for version 2.
    pub controllers: Vec<String>,
    /// Of version 2.
    pub unified: bool,
}

impl Hierarchy {
    /// Does it hold this controller, by its name of version 1?
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|known| known == controller)
    }

    /// The directory of a cgroup, whose name may begin with a slash.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.path.join(name.trim_start_matches('/'))
    }
}

/// Those of this machine.
///
/// # Errors
/// [`MOUNTINFO`] cannot be read: nobody knows whether there are any.
pub fn mounted() -> io::Result<Vec<Hierarchy>> {
    listed_in(Path::new(MOUNTINFO))
}

fn listed_in(mountinfo: &Path) -> io::Result<Vec<Hierarchy>> {
    // One path that is no text, anywhere on the machine, does not hide the others.
    fs::read(mountinfo).map(|text| parse_mounts(&String::from_utf8_lossy(&text)))
}

/// From [`MOUNTINFO`]: the fifth field is the path; behind the lone dash come type, source and options.
pub fn parse_mounts(text: &str) -> Vec<Hierarchy> {
    text.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Hierarchy> {
    let (left, right) = line.split_once(" - ")?;
    let path = PathBuf::from(left.split(' ').nth(4)?);
    let mut right = right.split(' ');
    let kind = right.next()?;
    let options = right.nth(1)?;
    match kind {
        "cgroup" => {
            Some(Hierarchy { path, controllers: options.split(',').map(str::to_owned).collect(), unified: false })
        }
        "cgroup2" => Some(Hierarchy { path, controllers: Vec::new(), unified: true }),
        _ => None,
    }
}

/// What a cgroup may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// CPU and memory.
    pub size: Size,
    /// Processes and threads; `None`: as many as there may be.
    pub pids: Option<u32>,
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The hierarchy of version 1 that has the file.
    pub controller: &'static str,
    /// The file's name.
    pub file: &'static str,
    /// What is written into it.
    pub value: String,
    /// The kernel may be built without it.
    pub is_optional: bool,
}

impl Limits {
    /// The files of version 1, in the order in which they are written.
    pub fn v1(&self) -> Vec<Limit> {
        let memory = self.size.memory.to_string();
        let mut limits = vec![
            limit("memory", "memory.limit_in_bytes", memory.clone()),
            Limit { is_optional: true, ..limit("memory", "memory.memsw.limit_in_bytes", memory) },
            limit("cpu", "cpu.cfs_period_us", CPU_PERIOD_US.to_string()),
            limit("cpu", "cpu.cfs_quota_us", self.quota().to_string()),
        ];
        limits.extend(self.pids());
        limits
    }

    /// The files of version 2.
    pub fn v2(&self) -> Vec<Limit> {
        let mut limits = vec![
            limit("memory", "memory.max", self.size.memory.to_string()),
            Limit { is_optional: true, ..limit("memory", "memory.swap.max", "0".to_owned()) },
            limit("cpu", "cpu.max", format!("{} {CPU_PERIOD_US}", self.quota())),
        ];
        limits.extend(self.pids());
        limits
    }

    fn pids(&self) -> Option<Limit> {
        self.pids.map(|pids| limit("pids", "pids.max", pids.to_string()))
    }

    fn quota(&self) -> u64 {
        (self.size.millicpus.saturating_mul(CPU_PERIOD_US) / 1000).max(SMALLEST_QUOTA_US)
    }
}

fn limit(controller: &'static str, file: &'static str, value: String) -> Limit {
    Limit { controller, file, value, is_optional: false }
}

/// How many processes of a cgroup and of those below it the kernel has killed for want of memory. Those of cgroups that are gone do not
/// count (version 1).
pub fn oom_kills(name: &str, hierarchies: &[Hierarchy]) -> u64 {
    let counts = hierarchies.iter().filter(|h| h.unified || h.has("memory")).map(|h| match h.unified {
        // Counts those below, too.
        true => count_in(&h.directory(name).join("memory.events")),
        false => count_below(&h.directory(name), "memory.oom_control", OOM_DEPTH),
    });
    counts.sum()
}

fn count_below(directory: &Path, file: &str, depth: usize) -> u64 {
    let own = count_in(&directory.join(file));
    let below = match depth {
        0 => 0,
        _ => children(directory).map(|child| count_below(&child, file, depth - 1)).sum(),
    };
    own + below
}

/// The line `oom_kill N`.
fn count_in(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut counts = text.lines().filter_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok());
    counts.next().unwrap_or(0)
}

/// Kills what sits in these cgroups and below, and removes them. Blocks for three seconds at most; missing is fine. What could not be
/// removed, and why.
pub fn remove(directories: &[PathBuf]) -> Vec<(PathBuf, io::Error)> {
    let deadline = Instant::now() + REMOVE_LIMIT;
    let left = |directory: &PathBuf| remove_tree(directory, deadline).err().map(|error| (directory.clone(), error));
    directories.iter().filter_map(left).collect()
}

fn remove_tree(directory: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        // What is killed may have started something just before, also in a new directory.
        let below = children(directory).try_for_each(|child| remove_tree(&child, deadline));
        match below.and_then(|()| fs::remove_dir(directory)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                kill_members(directory);
                std::thread::sleep(BETWEEN_ATTEMPTS);
            }
            other => return other,
        }
    }
}

/// Kills every process of this one cgroup. A process that has left it meanwhile is not meant.
fn kill_members(directory: &Path) {
    for pid in members(directory) {
        // A descriptor names this process alone; a number may be another's a moment later.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if members(directory).contains(&pid) {
            // One that has just ended needs no killing.
            let _gone = pidfd_send_signal(&process, Signal::KILL);
        }
    }
    // Of version 1: what a paused container holds hears of its end only when it goes on.
    let freezer = directory.join("freezer.state");
    if freezer.exists() {
        let _not_frozen = fs::write(freezer, "THAWED");
    }
}

/// Processes in this cgroup, but for those of other pid namespaces, which show as 0.
fn members(directory: &Path) -> Vec<Pid> {
    let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
}

/// The cgroups right below one.
pub fn children(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).ok().into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        30 25 0:26 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory\n\
        32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn hierarchies_are_read_from_what_is_mounted() {
        let found = parse_mounts(MOUNTS);
        let paths: Vec<_> = found.iter().map(|h| (h.path.to_str().unwrap(), h.unified)).collect();
        assert_eq!(
            paths,
            [("/sys/fs/cgroup/memory", false), ("/sys/fs/cgroup/cpu,cpuacct", false), ("/sys/fs/cgroup/unified", true)]
        );
        assert!(found[1].has("cpuacct") && !found[1].has("cp") && !found[2].has("memory"));
        assert_eq!(found[0].directory("/a/b"), Path::new("/sys/fs/cgroup/memory/a/b"));
    }

    #[test]
    fn a_list_of_mounts_that_cannot_be_read_is_not_an_empty_one() {
        let place = tempfile::tempdir().unwrap();
        let list = place.path().join("mountinfo");
        fs::write(&list, [&b"35 30 0:31 / /mnt/\xff rw - tmpfs tmpfs rw\n"[..], MOUNTS.as_bytes()].concat()).unwrap();
        assert_eq!(listed_in(&list).unwrap(), parse_mounts(MOUNTS));
        assert_eq!(listed_in(place.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        fs::remove_file(&list).unwrap();
        assert_eq!(listed_in(&list).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn limits_have_their_files_in_both_versions() {
        let shown = |limits: Vec<Limit>| limits.iter().map(|l| format!("{}={}", l.file, l.value)).collect::<Vec<_>>();
        let limits = Limits { size: Size::new(2, 4), pids: Some(100) };
        assert_eq!(
            shown(limits.v1()),
            [
                "memory.limit_in_bytes=4294967296",
                "memory.memsw.limit_in_bytes=4294967296",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=200000",
                "pids.max=100",
            ]
        );
        assert_eq!(
            shown(limits.v2()),
            ["memory.max=4294967296", "memory.swap.max=0", "cpu.max=200000 100000", "pids.max=100"]
        );
        let least = Limits { size: Size { millicpus: 1, memory: 1 }, pids: None };
        assert!(shown(least.v1()).contains(&"cpu.cfs_quota_us=1000".to_owned()) && least.v2().len() == 3);
    }

    #[test]
    fn kills_are_counted_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("a");
        fs::create_dir_all(group.join("task-x/container")).unwrap();
        let control = |count: u32| format!("oom_kill_disable 0\nunder_oom 0\noom_kill {count}\n");
        fs::write(group.join("memory.oom_control"), control(1)).unwrap();
        fs::write(group.join("task-x/container/memory.oom_control"), control(2)).unwrap();
        fs::write(group.join("memory.events"), "low 0\noom 4\noom_kill 5\noom_group_kill 6\n").unwrap();
        let of = |controllers: &[&str], unified| Hierarchy {
            path: root.path().to_owned(),
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
            unified,
        };
        assert_eq!(oom_kills("/a", &[of(&["memory"], false)]), 3);
        assert_eq!(oom_kills("/a", &[of(&[], true)]), 5);
        assert_eq!(oom_kills("/a", &[of(&["cpu"], false)]), 0);
        assert_eq!(oom_kills("/none", &[of(&["memory"], false), of(&[], true)]), 0);
    }
}
