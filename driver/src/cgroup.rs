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

use navvy_cgroup::{Hierarchy, Limit, Limits, MOUNTINFO, mounted};

/// Controllers of version 1 that a task has a directory in.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "cpuset", "freezer", "memory", "pids"];
/// Where tasks live if neither Nomad nor the settings say it.
const OWN_PARENT: &str = "/navvy-tasks";
/// Where Nomad looks.
const ROOT: &str = "/sys/fs/cgroup";

/// Where cgroups are mounted, as Nomad sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounts {
    /// Every hierarchy there is: those of version 1, and in a hybrid the one of version 2, which then holds no controllers.
    V1(Vec<Hierarchy>),
    /// One for all.
    V2(Hierarchy),
    /// None that Nomad would use.
    None,
}

/// What a task may use, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// CPU, memory, processes.
    pub limits: Limits,
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
pub enum CgroupError {
    /// Where limits would be set is not known.
    #[error("the task's limits could not be set: {path}: {source}", path = MOUNTINFO)]
    Mounts {
        /// What the kernel answered.
        source: io::Error,
    },
    /// A limit that nothing would hold.
    #[error("the task's limits could not be set: no {0} controller is mounted on this machine")]
    NoController(&'static str),
    /// The kernel refuses.
    #[error("the task's limits could not be set: {path}: {source}", path = path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl Mounts {
    /// Of this machine, by Nomad's own rule: what is mounted at `/sys/fs/cgroup` decides.
    ///
    /// # Errors
    /// Nobody can say what is mounted.
    pub fn here() -> io::Result<Self> {
        mounted().map(Self::of)
    }

    fn of(hierarchies: Vec<Hierarchy>) -> Self {
        match hierarchies.iter().find(|h| h.unified && h.path == Path::new(ROOT)) {
            Some(unified) => Self::V2(unified.clone()),
            None if hierarchies.iter().any(|h| !h.unified) => Self::V1(hierarchies),
            None => Self::None,
        }
    }

    /// All of them.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        match self {
            Self::V1(list) => list,
            Self::V2(unified) => std::slice::from_ref(unified),
            Self::None => &[],
        }
    }

    /// The one that a controller's files are in.
    pub fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        match self {
            Self::V1(list) => list.iter().find(|h| h.has(controller)),
            Self::V2(unified) => Some(unified),
            Self::None => None,
        }
    }

    /// A task's cgroup below each hierarchy's root. `prepared` is the path of the cpuset that Nomad has made.
    pub fn name(&self, prepared: &str, parent: Option<&str>, task: &str) -> Option<String> {
        let root = self.hierarchy("cpuset").and_then(|hierarchy| hierarchy.path.to_str());
        let below = root.and_then(|root| prepared.strip_prefix(root)).filter(|_| Path::new(prepared).is_dir());
        match (self, parent, below) {
            (Self::None, ..) => None,
            (_, Some(parent), _) => Some(format!("{parent}/{task}")),
            (Self::V2(_), None, Some(scope)) => Some(scope.to_owned()),
            // `/nomad/share` or `/nomad/reserve/…`: the other controllers have the task right below `/nomad`.
            (Self::V1(_), None, Some(below)) => {
                let reserved = || below.rsplit_once("/reserve/").map(|(nomad, _)| nomad);
                let nomad = below.strip_suffix("/share").or_else(reserved)?;
                Some(format!("{nomad}/{task}"))
            }
            (_, None, None) => Some(format!("{OWN_PARENT}/{task}")),
        }
    }

    /// Makes it where it is not there, and sets the limits.
    ///
    /// # Errors
    /// A limit could not be set. Nothing that was made here is left.
    pub fn make(&self, name: Option<String>, share: &Share) -> Result<Made, CgroupError> {
        let Some(name) = name else { return Ok(Made::default()) };
        let mut made = Made { name: Some(name.clone()), directories: Vec::new() };
        let set = match self {
            Self::V1(_) => self.make_v1(&name, share, &mut made.directories),
            Self::V2(unified) => make_v2(unified, &name, share, &mut made.directories),
            Self::None => Ok(()),
        };
        if let Err(error) = set {
            navvy_cgroup::remove(&made.directories);
            return Err(error);
        }
        Ok(made)
    }

    fn make_v1(&self, name: &str, share: &Share, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
        // Several controllers may share one hierarchy: the second finds the directory there.
        for hierarchy in CONTROLLERS.iter().filter_map(|controller| self.hierarchy(controller)) {
            make_directory(&hierarchy.directory(name), made)?;
        }
        for limit in share.limits.v1() {
            let hierarchy = self.hierarchy(limit.controller).ok_or(CgroupError::NoController(limit.controller))?;
            set(&hierarchy.directory(name), &limit)?;
        }
        match self.hierarchy("cpuset") {
            Some(cpuset) => set_cpuset(&cpuset.path, &cpuset.directory(name), &share.cores),
            None => Ok(()),
        }
    }

    /// Where the engine has made the cgroup too, on its way to a container's, in hierarchies that neither Nomad nor the driver uses.
    pub fn beside(&self, name: &str) -> Vec<PathBuf> {
        let Self::V1(list) = self else { return Vec::new() };
        let foreign = list.iter().filter(|h| !CONTROLLERS.iter().any(|controller| h.has(controller)));
        foreign.map(|h| h.directory(name)).filter(|path| path.is_dir()).collect()
    }
}

fn make_v2(unified: &Hierarchy, name: &str, share: &Share, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let directory = unified.directory(name);
    make_directory(&directory, made)?;
    let mut parent = unified.path.clone();
    for part in Path::new(name.trim_start_matches('/')).components() {
        // One at a time: where one is missing, the others are still had. The limit's own file says what is.
        for controller in ["+cpu", "+memory", "+pids", "+cpuset"] {
            let _told_by_the_limit = fs::write(parent.join("cgroup.subtree_control"), controller);
        }
        parent.push(part);
    }
    share.limits.v2().iter().try_for_each(|limit| set(&directory, limit))?;
    match share.cores.is_empty() {
        true => Ok(()),
        false => write(&directory.join("cpuset.cpus"), &share.cores),
    }
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
    // From the root down: each has to have what those below are to have.
    let above: Vec<&Path> = parent.ancestors().take_while(|ancestor| *ancestor != root).collect();
    for ancestor in above.into_iter().rev() {
        if fs::read_to_string(ancestor.join("cpuset.cpus")).is_ok_and(|text| text.trim().is_empty()) {
            write(&ancestor.join("cpuset.mems"), &nodes)?;
            write(&ancestor.join("cpuset.cpus"), &shared)?;
        }
    }
    write(&directory.join("cpuset.mems"), &nodes)?;
    write(&directory.join("cpuset.cpus"), if cores.is_empty() { &shared } else { cores })
}

fn make_directory(directory: &Path, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let fault = |source| CgroupError::Write { path: directory.to_owned(), source };
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

fn set(directory: &Path, limit: &Limit) -> Result<(), CgroupError> {
    let path = directory.join(limit.file);
    match limit.is_optional && !path.exists() {
        true => Ok(()),
        false => write(&path, &limit.value),
    }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(|source| CgroupError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use navvy_cgroup::parse_mounts;
    use navvy_job::resource::Size;

    use super::*;

    const V1: &str = "\
        30 25 0:26 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory\n\
        32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 30 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const V2: &str = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";

    fn v1(place: &Path, names: &[&str]) -> Mounts {
        let of = |name: &&str| Hierarchy {
            path: place.join(name),
            controllers: if *name == "unified" { Vec::new() } else { vec![(*name).to_owned()] },
            unified: *name == "unified",
        };
        Mounts::V1(names.iter().map(of).collect())
    }

    #[test]
    fn what_is_mounted_decides() {
        let v1 = Mounts::of(parse_mounts(V1));
        assert_eq!(v1.hierarchy("cpuacct").unwrap().path, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!((v1.hierarchy("pids"), v1.hierarchies().len()), (None, 4));
        assert!(matches!(Mounts::of(parse_mounts(V2)), Mounts::V2(unified) if unified.path == Path::new(ROOT)));
        assert_eq!(Mounts::of(Vec::new()), Mounts::None);
        assert_eq!(Mounts::None.name("/x", Some("/ci"), "a.b"), None);
    }

    #[test]
    fn nomads_cpuset_says_where_a_task_lives() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("cpuset");
        let share = root.join("nomad/share");
        fs::create_dir_all(&share).unwrap();
        let v1 = v1(place.path(), &["cpuset"]);
        assert_eq!(v1.name(share.to_str().unwrap(), None, "a.b").as_deref(), Some("/nomad/a.b"));
        assert_eq!(v1.name(share.to_str().unwrap(), Some("/ci"), "a.b").as_deref(), Some("/ci/a.b"));
        let reserve = root.join("shared/reserve/a.b");
        fs::create_dir_all(&reserve).unwrap();
        assert_eq!(v1.name(reserve.to_str().unwrap(), None, "a.b").as_deref(), Some("/shared/a.b"));
        assert_eq!(v1.name("/nowhere", None, "a.b").as_deref(), Some("/navvy-tasks/a.b"));
        let scope = root.join("nomad.slice/share.slice/a.b.scope");
        fs::create_dir_all(&scope).unwrap();
        let v2 = Mounts::V2(Hierarchy { path: root, controllers: Vec::new(), unified: true });
        let name = v2.name(scope.to_str().unwrap(), None, "a.b");
        assert_eq!(name.as_deref(), Some("/nomad.slice/share.slice/a.b.scope"));
    }

    #[test]
    fn what_the_engine_makes_elsewhere_is_known() {
        let place = tempfile::tempdir().unwrap();
        let mounts = v1(place.path(), &["memory", "blkio", "name=systemd", "unified"]);
        for name in ["memory", "blkio", "unified"] {
            fs::create_dir_all(place.path().join(name).join("nomad/a.b")).unwrap();
        }
        let expected = ["blkio", "unified"].map(|name| place.path().join(name).join("nomad/a.b"));
        assert_eq!(mounts.beside("/nomad/a.b"), expected);
    }

    #[test]
    fn version_2_has_everything_in_one_place() {
        let place = tempfile::tempdir().unwrap();
        let mounts = Mounts::V2(Hierarchy { path: place.path().to_owned(), controllers: Vec::new(), unified: true });
        let limits = Limits { size: Size::new(1, 2), pids: Some(7) };
        mounts.make(Some("/ci/a.b".to_owned()), &Share { limits, cores: "0,2".to_owned() }).unwrap();
        let read = |file: &str| fs::read_to_string(place.path().join("ci/a.b").join(file)).unwrap();
        assert_eq!([read("memory.max"), read("pids.max"), read("cpuset.cpus")], ["2147483648", "7", "0,2"]);
        assert_eq!(fs::read_to_string(place.path().join("ci/cgroup.subtree_control")).unwrap(), "+cpuset");
    }

    #[test]
    fn what_was_made_is_removed_and_a_limit_that_cannot_be_set_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let mounts = v1(place.path(), &CONTROLLERS);
        let limits = Limits { size: Size::new(1, 2), pids: None };
        let share = Share { limits, cores: "0".to_owned() };
        // Here the "kernel" is a directory: every file can be written, and then stands in the way of rmdir.
        let made = mounts.make(Some("/nomad/a.b".to_owned()), &share).unwrap();
        assert_eq!(made.directories.len(), CONTROLLERS.len());
        let read = |file: &str| fs::read_to_string(place.path().join(file)).unwrap();
        assert_eq!(read("memory/nomad/a.b/memory.limit_in_bytes"), "2147483648");
        assert_eq!(read("cpuset/nomad/a.b/cpuset.cpus"), "0");
        fs::create_dir_all(place.path().join("memory/nomad/c.d/memory.limit_in_bytes")).unwrap();
        let told =
            |mounts: &Mounts, share: &Share| mounts.make(Some("/nomad/c.d".to_owned()), share).unwrap_err().to_string();
        let error = told(&mounts, &share);
        assert!(error.contains("memory.limit_in_bytes"), "{error}");
        // A limit that nothing holds is none.
        let without = v1(place.path(), &["cpu", "cpuset"]);
        assert!(told(&without, &share).contains("no memory controller"));
        let pids = Share { limits: Limits { pids: Some(5), ..limits }, ..share };
        fs::remove_dir(place.path().join("memory/nomad/c.d/memory.limit_in_bytes")).unwrap();
        assert!(told(&v1(place.path(), &["cpu", "cpuset", "memory"]), &pids).contains("no pids controller"));
    }
}
