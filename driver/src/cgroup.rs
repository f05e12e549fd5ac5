//! The cgroup of a whole Nomad task: agent, containers, everything that is started for it.
//!
//! ```text
//! v1   /sys/fs/cgroup/{cpu,cpuacct,cpuset,freezer,memory,pids}/nomad/ALLOC.TASK       Nomad makes some of them, the driver the others
//! v2   /sys/fs/cgroup/nomad.slice/share.slice/ALLOC.TASK.scope                        Nomad makes it
//!        └─ the agent, and below it the environment's own
//! ```
//!
//! Nomad says where through the path of the cpuset it prepared. With `cgroup_parent` tasks live elsewhere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use navvy_job::resource::Size;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The scheduler's usual period; quotas are counted in it.
const CPU_PERIOD_US: u64 = 100_000;
/// What has just been killed lets go of its cgroup a moment later.
const REMOVE_LIMIT: Duration = Duration::from_secs(3);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);
/// Controllers of version 1 that a task has a directory in.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "cpuset", "freezer", "memory", "pids"];
/// Where tasks live if neither Nomad nor the settings say it.
const OWN_PARENT: &str = "/navvy-tasks";

/// Where cgroups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounts {
    /// A hierarchy per controller, or several controllers in one.
    V1(Vec<(Vec<String>, PathBuf)>),
    /// One for all.
    V2(PathBuf),
    /// None that Nomad would use.
    None,
}

/// What a task may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Together.
    pub size: Size,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Ids of cores that are the task's own; empty: those that all share.
    pub cores: String,
}

/// A task's cgroup that was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// Below each hierarchy's root; `None`: this machine gives tasks none.
    pub name: Option<String>,
    /// Directories that were made here.
    pub directories: Vec<PathBuf>,
}

/// Why a task has no cgroup with its limits.
#[derive(Debug, thiserror::Error)]
#[error("the task's limits could not be set: {path}: {source}", path = path.display())]
pub struct CgroupError {
    path: PathBuf,
    source: io::Error,
}

impl Mounts {
    /// Of this machine, by Nomad's own rule: what is mounted at `/sys/fs/cgroup` decides.
    pub fn here() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mounts: Vec<(&str, PathBuf, &str)> = text.lines().filter_map(mount).collect();
        let kind = mounts.iter().find(|(_, path, _)| path == Path::new("/sys/fs/cgroup")).map(|(kind, ..)| *kind);
        match kind {
            Some("cgroup2") => Self::V2(PathBuf::from("/sys/fs/cgroup")),
            Some("tmpfs") => Self::V1(mounts.into_iter().filter_map(hierarchy).collect()),
            _ => Self::None,
        }
    }

    /// The hierarchy of a controller.
    pub fn hierarchy(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V1(list) => {
                list.iter().find(|(names, _)| names.iter().any(|n| n == controller)).map(|(_, path)| &**path)
            }
            Self::V2(path) => Some(path),
            Self::None => None,
        }
    }

    /// A task's cgroup below each hierarchy's root. `prepared` is the path of the cpuset that Nomad has made.
    pub fn name(&self, prepared: &str, parent: Option<&str>, task: &str) -> Option<String> {
        let root = self.hierarchy("cpuset").and_then(|path| path.to_str());
        let below = root.and_then(|root| prepared.strip_prefix(root)).filter(|_| Path::new(prepared).is_dir());
        match (self, parent, below) {
            (Self::None, ..) => None,
            (_, Some(parent), _) => Some(format!("{parent}/{task}")),
            (Self::V2(_), None, Some(scope)) => Some(scope.to_owned()),
            // `/nomad/share` or `/nomad/reserve/…`: the other controllers have the task right below `/nomad`.
            (Self::V1(_), None, Some(below)) => {
                let (nomad, _) = below.split_once("/share").or_else(|| below.split_once("/reserve"))?;
                Some(format!("{nomad}/{task}"))
            }
            (_, None, None) => Some(format!("{OWN_PARENT}/{task}")),
        }
    }

    /// Makes it where it is not there, and sets the limits.
    ///
    /// # Errors
    /// A limit could not be set. Nothing that was made here is left.
    pub fn make(&self, name: Option<String>, limits: &Limits) -> Result<Made, CgroupError> {
        let Some(name) = name else { return Ok(Made::default()) };
        let mut made = Made { name: Some(name.clone()), directories: Vec::new() };
        let set = match self {
            Self::V1(_) => self.make_v1(&name, limits, &mut made.directories),
            Self::V2(root) => make_v2(root, &name, limits, &mut made.directories),
            Self::None => Ok(()),
        };
        if let Err(error) = set {
            remove(&made.directories);
            return Err(error);
        }
        Ok(made)
    }

    fn make_v1(&self, name: &str, limits: &Limits, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
        let mut seen = Vec::new();
        for controller in CONTROLLERS {
            let Some(root) = self.hierarchy(controller) else { continue };
            let directory = below(root, name);
            if !seen.contains(&directory) {
                make_directory(&directory, made)?;
                seen.push(directory);
            }
        }
        for (controller, file, value, is_optional) in settings_v1(limits) {
            let Some(root) = self.hierarchy(controller) else { continue };
            write(&below(root, name).join(file), &value, is_optional)?;
        }
        match self.hierarchy("cpuset") {
            Some(root) => set_cpuset(root, &below(root, name), &limits.cores),
            None => Ok(()),
        }
    }

    /// Everything of this name, in every hierarchy.
    #[cfg(test)]
    pub fn everywhere(&self, name: &str) -> Vec<PathBuf> {
        let roots: Vec<PathBuf> = match self {
            Self::V1(list) => list.iter().map(|(_, root)| root.clone()).collect(),
            Self::V2(root) => vec![root.clone()],
            Self::None => Vec::new(),
        };
        roots.iter().map(|root| below(root, name)).filter(|path| path.is_dir()).collect()
    }

    /// Where the engine has made the cgroup too, on its way to a container's, in hierarchies that neither Nomad nor the driver uses.
    pub fn beside(&self, name: &str) -> Vec<PathBuf> {
        let Self::V1(list) = self else { return Vec::new() };
        let foreign = list.iter().filter(|(names, _)| !names.iter().any(|name| CONTROLLERS.contains(&name.as_str())));
        foreign.map(|(_, root)| below(root, name)).filter(|path| path.is_dir()).collect()
    }

    /// Did the kernel kill a process of this cgroup for want of memory?
    pub fn was_out_of_memory(&self, name: &str) -> bool {
        let Some(root) = self.hierarchy("memory") else { return false };
        let file = if matches!(self, Self::V2(_)) { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(below(root, name).join(file)).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
    }
}

/// The directory of a cgroup in a hierarchy.
pub fn below(root: &Path, name: &str) -> PathBuf {
    root.join(name.trim_start_matches('/'))
}

fn settings_v1(limits: &Limits) -> Vec<(&'static str, &'static str, String, bool)> {
    let memory = limits.size.memory.to_string();
    let mut settings = vec![
        ("memory", "memory.limit_in_bytes", memory.clone(), false),
        ("memory", "memory.memsw.limit_in_bytes", memory, true),
        ("cpu", "cpu.cfs_period_us", CPU_PERIOD_US.to_string(), false),
        ("cpu", "cpu.cfs_quota_us", quota(limits.size).to_string(), false),
    ];
    if let Some(pids) = limits.pids {
        settings.push(("pids", "pids.max", pids.to_string(), false));
    }
    settings
}

fn settings_v2(limits: &Limits) -> Vec<(&'static str, String, bool)> {
    let mut settings = vec![
        ("memory.max", limits.size.memory.to_string(), false),
        ("memory.swap.max", "0".to_owned(), true),
        ("cpu.max", format!("{} {CPU_PERIOD_US}", quota(limits.size)), false),
    ];
    if let Some(pids) = limits.pids {
        settings.push(("pids.max", pids.to_string(), false));
    }
    settings
}

fn make_v2(root: &Path, name: &str, limits: &Limits, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let directory = below(root, name);
    make_directory(&directory, made)?;
    let mut parent = root.to_owned();
    for part in Path::new(name.trim_start_matches('/')).components() {
        // One at a time: where one is missing, the others are still had. The limit's own file says what is.
        for controller in ["+cpu", "+memory", "+pids", "+cpuset"] {
            write(&parent.join("cgroup.subtree_control"), controller, true)?;
        }
        parent.push(part);
    }
    for (file, value, is_optional) in settings_v2(limits) {
        write(&directory.join(file), &value, is_optional)?;
    }
    Ok(())
}

/// A cpuset takes no process before it has cores and memory nodes. Without cores of its own, a task has those that Nomad's tasks
/// share now.
fn set_cpuset(root: &Path, directory: &Path, cores: &str) -> Result<(), CgroupError> {
    let parent = directory.parent().unwrap_or(root);
    let share = parent.join("share");
    let of = |file: &str| {
        let read = |from: &Path| fs::read_to_string(from.join(file)).ok().filter(|text| !text.trim().is_empty());
        read(&share).or_else(|| read(parent)).or_else(|| read(root)).unwrap_or_default()
    };
    let (shared, nodes) = (of("cpuset.cpus"), of("cpuset.mems"));
    if parent != root && fs::read_to_string(parent.join("cpuset.cpus")).is_ok_and(|text| text.trim().is_empty()) {
        write(&parent.join("cpuset.mems"), &nodes, false)?;
        write(&parent.join("cpuset.cpus"), &shared, false)?;
    }
    write(&directory.join("cpuset.mems"), &nodes, false)?;
    write(&directory.join("cpuset.cpus"), if cores.is_empty() { &shared } else { cores }, false)
}

fn quota(size: Size) -> u64 {
    // The kernel takes no quota below a millisecond.
    (size.millicpus.saturating_mul(CPU_PERIOD_US) / 1000).max(1000)
}

/// What is made on the way is noted, the topmost last.
fn make_directory(directory: &Path, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let fault = |source| CgroupError { path: directory.to_owned(), source };
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        // Parents stay: they are every task's.
        fs::create_dir_all(parent).map_err(fault)?;
    }
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fault(error)),
        _ => made.push(directory.to_owned()),
    }
    Ok(())
}

fn write(path: &Path, value: &str, is_optional: bool) -> Result<(), CgroupError> {
    match fs::write(path, value) {
        Err(source) if !is_optional => Err(CgroupError { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}

/// The fifth field is the path; behind the lone dash come type, source and options.
fn mount(line: &str) -> Option<(&str, PathBuf, &str)> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    Some((right.next()?, PathBuf::from(left.split(' ').nth(4)?), right.nth(1)?))
}

/// A hierarchy of version 1; or that of version 2 which holds no controllers, beside them.
fn hierarchy((kind, path, options): (&str, PathBuf, &str)) -> Option<(Vec<String>, PathBuf)> {
    match kind {
        "cgroup" => Some((options.split(',').map(str::to_owned).collect(), path)),
        "cgroup2" => Some((vec!["unified".to_owned()], path)),
        _ => None,
    }
}

/// Kills what is left in the directories, and removes them with all below. Blocks for three seconds at most. What could not be
/// removed.
pub fn remove(directories: &[PathBuf]) -> Vec<String> {
    let deadline = Instant::now() + REMOVE_LIMIT;
    let removed =
        |directory: &PathBuf| remove_tree(directory, deadline).err().map(|e| format!("{}: {e}", directory.display()));
    directories.iter().filter_map(removed).collect()
}

fn remove_tree(directory: &Path, deadline: Instant) -> io::Result<()> {
    loop {
        let below = children(directory).try_for_each(|child| remove_tree(&child, deadline));
        match below.and_then(|()| fs::remove_dir(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                kill_members(directory);
                std::thread::sleep(BETWEEN_ATTEMPTS);
            }
            other => return other,
        }
    }
}

fn children(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// Kills every process of this one cgroup, by descriptors: a number may be another's a moment later.
fn kill_members(directory: &Path) {
    for pid in members(directory) {
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if members(directory).contains(&pid) {
            let _gone = pidfd_send_signal(&process, Signal::KILL);
        }
    }
}

fn members(directory: &Path) -> Vec<Pid> {
    let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
        30 25 0:26 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory\n\
        32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 30 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const V2: &str = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn what_is_mounted_decides() {
        let v1 = Mounts::parse(V1);
        assert_eq!(v1.hierarchy("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(v1.hierarchy("pids"), None);
        assert_eq!(Mounts::parse(V2), Mounts::V2(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(Mounts::parse(""), Mounts::None);
        assert_eq!(Mounts::None.name("/x", Some("/ci"), "a.b"), None);
    }

    #[test]
    fn nomads_cpuset_says_where_a_task_lives() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("cpuset");
        let share = root.join("nomad/share");
        fs::create_dir_all(&share).unwrap();
        let v1 = Mounts::V1(vec![(vec!["cpuset".to_owned()], root.clone())]);
        assert_eq!(v1.name(share.to_str().unwrap(), None, "a.b").as_deref(), Some("/nomad/a.b"));
        assert_eq!(v1.name(share.to_str().unwrap(), Some("/ci"), "a.b").as_deref(), Some("/ci/a.b"));
        assert_eq!(v1.name("/nowhere", None, "a.b").as_deref(), Some("/navvy-tasks/a.b"));
        let scope = root.join("nomad.slice/share.slice/a.b.scope");
        fs::create_dir_all(&scope).unwrap();
        let v2 = Mounts::V2(root);
        assert_eq!(
            v2.name(scope.to_str().unwrap(), None, "a.b").as_deref(),
            Some("/nomad.slice/share.slice/a.b.scope")
        );
    }

    #[test]
    fn what_the_engine_makes_elsewhere_is_known() {
        let place = tempfile::tempdir().unwrap();
        let root = |name: &str| (vec![name.to_owned()], place.path().join(name));
        let mounts = Mounts::V1(["memory", "blkio", "name=systemd", "unified"].map(root).to_vec());
        for name in ["memory", "blkio", "unified"] {
            fs::create_dir_all(place.path().join(name).join("nomad/a.b")).unwrap();
        }
        assert_eq!(
            mounts.beside("/nomad/a.b"),
            ["blkio", "unified"].map(|name| place.path().join(name).join("nomad/a.b"))
        );
        assert_eq!(Mounts::parse(V1).hierarchy("unified"), Some(Path::new("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn limits_have_their_files() {
        let limits = Limits { size: Size::new(2, 4), pids: Some(100), cores: String::new() };
        let v1: Vec<_> =
            settings_v1(&limits).into_iter().map(|(_, file, value, _)| format!("{file}={value}")).collect();
        assert!(
            v1.contains(&"memory.limit_in_bytes=4294967296".to_owned())
                && v1.contains(&"cpu.cfs_quota_us=200000".to_owned())
        );
        assert!(v1.contains(&"pids.max=100".to_owned()));
        let v2: Vec<_> = settings_v2(&limits).into_iter().map(|(file, value, _)| format!("{file}={value}")).collect();
        assert_eq!(v2, ["memory.max=4294967296", "memory.swap.max=0", "cpu.max=200000 100000", "pids.max=100"]);
    }

    #[test]
    fn what_was_made_is_removed_and_a_limit_that_cannot_be_set_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let roots: Vec<_> = CONTROLLERS.iter().map(|c| (vec![(*c).to_owned()], place.path().join(c))).collect();
        let mounts = Mounts::V1(roots);
        let limits = Limits { size: Size::new(1, 2), pids: None, cores: "0".to_owned() };
        // Here the "kernel" is a directory: every file can be written, and then stands in the way of rmdir.
        let made = mounts.make(Some("/nomad/a.b".to_owned()), &limits).unwrap();
        assert_eq!(made.directories.len(), CONTROLLERS.len());
        assert_eq!(
            fs::read_to_string(place.path().join("memory/nomad/a.b/memory.limit_in_bytes")).unwrap(),
            "2147483648"
        );
        assert_eq!(fs::read_to_string(place.path().join("cpuset/nomad/a.b/cpuset.cpus")).unwrap(), "0");
        fs::create_dir_all(place.path().join("memory/nomad/c.d/memory.limit_in_bytes")).unwrap();
        let error = mounts.make(Some("/nomad/c.d".to_owned()), &limits).unwrap_err().to_string();
        assert!(error.contains("memory.limit_in_bytes"), "{error}");
    }
}
