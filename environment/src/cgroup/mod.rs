//! The task's parent cgroup: what holds primary and services together down to the size of their class.
//!
//! ```text
//! v1   /sys/fs/cgroup/{memory,cpu,pids,…}/navvy/task-ID/CONTAINER
//! v2   /sys/fs/cgroup/navvy/task-ID/CONTAINER
//!      /sys/fs/cgroup/navvy.slice/navvy-task_ID.slice/CONTAINER    where systemd makes the engine's cgroups: [`navvy_cgroup::slice`]
//! ```
//!
//! `navvy` itself stays, as the network does; `task-ID` goes with its task. Where somebody else has made a cgroup for the whole task
//! ([`Parent`]), that stands in place of `navvy`; the task's journal says which.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_cgroup::slice::{Slice, UNITS};
use navvy_cgroup::{Hierarchy, Limit, Limits, MOUNTINFO, children, mounted};
use navvy_job::id::TaskId;
use navvy_job::resource::Size;

mod parent;

pub use parent::{Parent, ParentError};

const ROOT: &str = "navvy";
/// The engine's driver that has systemd make each cgroup.
const SYSTEMD: &str = "systemd";
/// A task's is at most so deep below a hierarchy's root: `nomad.slice/reserve.slice/ALLOC.TASK.scope/task-ID`.
const DEPTH: usize = 4;
/// A machine has some thousand cgroups; no job that makes more of them holds up a search.
const MOST_LOOKED_AT: usize = 20_000;
/// What a task's limits need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Why a task has no cgroup of its own. A sentence for the report.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// What is made here would not hold on the engine's machine.
    #[error("the engine is on another machine")]
    Remote,
    /// The process's user may not write to the hierarchies.
    #[error("making cgroups takes root")]
    NotRoot,
    /// Driver and version: systemd makes the cgroups of its driver itself, and of version 1 it does not hold swap.
    #[error("the engine's cgroup driver is {0}, with cgroups of version {1}")]
    Driver(String, String),
    /// The controller's name, or `unified` for version 2.
    #[error("no {0} controller is mounted here")]
    NoController(&'static str),
    /// Where the hierarchies are is not known.
    #[error("failed to read {path}: {source}", path = MOUNTINFO)]
    Mounts {
        /// What the kernel answered.
        source: io::Error,
    },
    /// A limit was not taken.
    #[error("failed to write {path}: {source}", path = path.display())]
    Write {
        /// The file of the limit.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// What the decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The engine runs on this machine, and puts containers into its hierarchies.
    pub engine_is_local: bool,
    /// The effective user of this process.
    pub uid: u32,
    /// As the engine says.
    pub driver: &'a str,
    /// `1` or `2`.
    pub version: &'a str,
}

/// One value for one file.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    directory: PathBuf,
    file: &'static str,
    value: String,
    /// The kernel may be built without it.
    optional: bool,
}

impl Setting {
    fn of(directory: PathBuf, Limit { file, value, is_optional, .. }: Limit) -> Self {
        Self { directory, file, value, optional: is_optional }
    }
}

/// Could a task get a cgroup of its own here?
pub fn check(facts: Facts<'_>) -> Result<(), CgroupError> {
    if !facts.engine_is_local {
        return Err(CgroupError::Remote);
    }
    if facts.uid != 0 {
        return Err(CgroupError::NotRoot);
    }
    match (facts.driver, facts.version) {
        ("cgroupfs", _) | (SYSTEMD, "2") => Ok(()),
        (driver, version) => Err(CgroupError::Driver(driver.to_owned(), version.to_owned())),
    }
}

/// Are a task's containers put below the cgroup that somebody else has made for the whole task ([`Parent`])? systemd puts them below a
/// slice, and such a cgroup is none of its.
pub fn goes_below_given(facts: Facts<'_>) -> bool {
    facts.driver != SYSTEMD
}

/// Where a task's cgroup is, below each hierarchy's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    parent: PathBuf,
    /// The parent is not ours.
    is_given: bool,
    name: String,
    /// Where it is instead if systemd makes the engine's cgroups. When a journal is opened nobody has asked the engine yet.
    slice: Slice,
    /// Why nobody could say where it is.
    why_unknown: Option<String>,
}

impl Place {
    /// Below the cgroup that was given, else below our own.
    pub fn of(task: &TaskId, given: Option<&Parent>) -> Self {
        let parent = given.map_or_else(|| PathBuf::from(ROOT), |given| given.below().to_owned());
        Self { parent, is_given: given.is_some(), name: task.cgroup_name(), slice: Slice::of(task), why_unknown: None }
    }

    /// As [`Self::text`] has written it. What is no place of this task is below our own root.
    pub fn read(task: &TaskId, text: &str) -> Self {
        let parent = text.strip_suffix(&format!("/{}", task.cgroup_name())).filter(|parent| *parent != ROOT);
        let given = parent.and_then(|parent| Parent::read(&format!("/{parent}")).ok());
        Self::of(task, given.as_ref())
    }

    /// Everywhere that a task of this id has a cgroup. For where no journal says it. If nobody can say where that is, there is one place,
    /// whose removal fails and says why.
    pub fn find(task: &TaskId) -> Vec<Self> {
        Self::find_in(task, mounted())
    }

    fn find_in(task: &TaskId, hierarchies: io::Result<Vec<Hierarchy>>) -> Vec<Self> {
        let hierarchies = match hierarchies {
            Ok(hierarchies) => hierarchies,
            // No place at all would read as nothing left.
            Err(error) => return vec![Self { why_unknown: Some(error.to_string()), ..Self::of(task, None) }],
        };
        let found = of_tasks(&hierarchies).into_iter().filter(|(_, found)| found == task);
        let mut places: Vec<Self> = Vec::new();
        for (below, task) in found {
            let place = Self::read(&task, &below.display().to_string());
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// For a journal: without a slash in front.
    pub fn text(&self) -> String {
        self.below().display().to_string()
    }

    fn below(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// Where it exists.
    fn directories(&self, hierarchies: &[Hierarchy]) -> Vec<PathBuf> {
        let below = hierarchies.iter().flat_map(|h| [h.path.join(self.below()), h.path.join(self.slice.below())]);
        below.filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_dir())).collect()
    }
}

fn hierarchies() -> Result<Vec<Hierarchy>, CgroupError> {
    mounted().map_err(|source| CgroupError::Mounts { source })
}

/// Makes the task's cgroup and returns its name as the engine wants it. On failure nothing is left.
///
/// # Errors
/// A task gets none here, or a limit is not taken.
pub fn make(place: &Place, size: Size, pids: u32, facts: Facts<'_>) -> Result<String, CgroupError> {
    check(facts)?;
    if facts.driver == SYSTEMD {
        return make_slice(place, size, pids, Path::new(UNITS));
    }
    let hierarchies = hierarchies()?;
    let made = match facts.version {
        "2" => make_v2(place, size, pids, &hierarchies),
        _ => make_v1(place, size, pids, &hierarchies),
    };
    if made.is_err() {
        // Never entered by any process: there is nothing to wait for.
        for directory in place.directories(&hierarchies) {
            let _reported_by_make = fs::remove_dir(directory);
        }
    }
    made.map(|()| format!("/{}", place.text()))
}

/// The engine wants the unit's name alone.
fn make_slice(place: &Place, size: Size, pids: u32, units: &Path) -> Result<String, CgroupError> {
    let written = place.slice.write(units, &Limits { size, pids: Some(pids) });
    let unit = place.slice.unit();
    written.map(|()| unit.clone()).map_err(|source| CgroupError::Write { path: units.join(unit), source })
}

fn make_v1(place: &Place, size: Size, pids: u32, hierarchies: &[Hierarchy]) -> Result<(), CgroupError> {
    for setting in settings_v1(place, size, pids, hierarchies)? {
        apply(&setting)?;
    }
    Ok(())
}

fn make_v2(place: &Place, size: Size, pids: u32, hierarchies: &[Hierarchy]) -> Result<(), CgroupError> {
    let unified = hierarchies.iter().find(|h| h.unified).ok_or(CgroupError::NoController("unified"))?;
    for directory in givers_v2(place, &unified.path) {
        let value = CONTROLLERS.map(|name| format!("+{name}")).join(" ");
        apply(&Setting { directory, file: "cgroup.subtree_control", value, optional: false })?;
    }
    for setting in settings_v2(&unified.path.join(place.below()), size, pids) {
        apply(&setting)?;
    }
    Ok(())
}

/// What must give controllers to those below. Above a cgroup that was given that is its maker's.
fn givers_v2(place: &Place, root: &Path) -> Vec<PathBuf> {
    let parent = root.join(&place.parent);
    if place.is_given { vec![parent] } else { vec![root.to_owned(), parent] }
}

fn settings_v1(place: &Place, size: Size, pids: u32, hierarchies: &[Hierarchy]) -> Result<Vec<Setting>, CgroupError> {
    let setting = |limit: Limit| {
        let found = hierarchies.iter().find(|h| h.has(limit.controller));
        let found = found.ok_or(CgroupError::NoController(limit.controller))?;
        Ok(Setting::of(found.path.join(place.below()), limit))
    };
    Limits { size, pids: Some(pids) }.v1().into_iter().map(setting).collect()
}

fn settings_v2(directory: &Path, size: Size, pids: u32) -> Vec<Setting> {
    let limits = Limits { size, pids: Some(pids) }.v2();
    limits.into_iter().map(|limit| Setting::of(directory.to_owned(), limit)).collect()
}

fn apply(setting: &Setting) -> Result<(), CgroupError> {
    let path = setting.directory.join(setting.file);
    let made = fs::create_dir_all(&setting.directory);
    if made.is_ok() && setting.optional && !path.exists() {
        return Ok(());
    }
    made.and_then(|()| fs::write(&path, &setting.value)).map_err(|source| CgroupError::Write { path, source })
}

/// Are limits set by hierarchies of version 1 here? Where some of both versions are mounted, each controller is in one of them.
///
/// # Errors
/// Where the hierarchies are is not known.
pub fn has_limits_of_v1() -> Result<bool, CgroupError> {
    Ok(hierarchies()?.iter().any(|hierarchy| !hierarchy.unified && hierarchy.has("memory")))
}

/// The files into which a process writes its number to enter a task's cgroup, wherever that was made.
///
/// # Errors
/// Where the hierarchies are is not known.
pub fn entrances(place: &Place) -> Result<Vec<PathBuf>, CgroupError> {
    let directories = place.directories(&hierarchies()?).into_iter();
    Ok(directories.map(|directory| directory.join("cgroup.procs")).collect())
}

/// Has the engine put a container below the task's cgroup, and does that hold it? The engine may see other hierarchies than this process
/// does, and systemd may pass over what it does not understand.
///
/// # Errors
/// Where the hierarchies are is not known.
pub fn is_used(place: &Place, size: Size) -> Result<bool, CgroupError> {
    let mut directories = place.directories(&hierarchies()?).into_iter();
    Ok(directories.any(|directory| children(&directory).next().is_some() && holds(place, &directory, size)))
}

/// Limits of a slice are systemd's to set; others were set here.
fn holds(place: &Place, directory: &Path, size: Size) -> bool {
    let limit = || fs::read_to_string(directory.join("memory.max")).unwrap_or_default();
    !directory.ends_with(place.slice.below()) || limit().trim() == size.memory.to_string()
}

/// Kills what sits in the task's cgroup, and removes it from every hierarchy. Its containers are gone, or shall go: what an
/// engine leaves there that died while it started one is nobody's any more. Blocks for three seconds at most; missing is
/// fine.
///
/// # Errors
/// It is still there, or nobody can say where it is.
pub fn remove(place: &Place) -> Result<(), (PathBuf, io::Error)> {
    remove_from(place, mounted(), Path::new(UNITS))
}

fn remove_from(
    place: &Place,
    hierarchies: io::Result<Vec<Hierarchy>>,
    units: &Path,
) -> Result<(), (PathBuf, io::Error)> {
    let hierarchies = match &place.why_unknown {
        Some(why) => Err(io::Error::other(why.clone())),
        None => hierarchies,
    };
    let hierarchies = hierarchies.map_err(|error| (PathBuf::from(MOUNTINFO), error))?;
    navvy_cgroup::remove(&place.directories(&hierarchies)).into_iter().next().map_or(Ok(()), Err)?;
    place.slice.remove(units)
}

/// Tasks whose cgroup has been here for `age` and holds no process. Whether a task still needs one, the engine knows.
///
/// # Errors
/// Nobody can say where the hierarchies are.
pub fn idle(age: Duration) -> io::Result<Vec<TaskId>> {
    let hierarchies = mounted()?;
    let is_idle = |below: &Path| {
        let mut there = hierarchies.iter().map(|h| h.path.join(below)).filter(|directory| directory.is_dir());
        there.all(|directory| is_old(&directory, age) && is_empty(&directory))
    };
    let idle = of_tasks(&hierarchies).into_iter().filter(|(below, _)| is_idle(below));
    let mut tasks: Vec<_> = idle.map(|(_, task)| task).collect();
    tasks.sort();
    tasks.dedup();
    Ok(tasks)
}

fn is_old(directory: &Path, age: Duration) -> bool {
    let modified = directory.metadata().and_then(|found| found.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|since| since >= age))
}

/// Every cgroup that is called like a task's, by its path below a hierarchy's root: ours, and those below a cgroup that was given.
fn of_tasks(hierarchies: &[Hierarchy]) -> Vec<(PathBuf, TaskId)> {
    let mut found = Vec::new();
    for hierarchy in hierarchies {
        let mut left = MOST_LOOKED_AT;
        look_for_tasks(&hierarchy.path, &hierarchy.path, DEPTH, &mut left, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

/// What is below a task's is its containers', where names say nothing.
fn look_for_tasks(root: &Path, at: &Path, depth: usize, left: &mut usize, found: &mut Vec<(PathBuf, TaskId)>) {
    for child in children(at) {
        *left = left.saturating_sub(1);
        if *left == 0 {
            return;
        }
        let name = child.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name.strip_prefix("task-").and_then(|id| id.parse().ok()).or_else(|| Slice::task(name)) {
            Some(task) => found.extend(child.strip_prefix(root).ok().map(|below| (below.to_owned(), task))),
            None if depth > 1 => look_for_tasks(root, &child, depth - 1, left, found),
            None => {}
        }
    }
}

fn is_empty(directory: &Path) -> bool {
    let own = fs::read_to_string(directory.join("cgroup.procs"));
    own.is_ok_and(|processes| processes.is_empty()) && children(directory).all(|child| is_empty(&child))
}

#[cfg(test)]
mod tests {
    use navvy_cgroup::parse_mounts;

    use super::*;

    const MOUNTS: &str = "\
        30 25 0:26 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory\n\
        32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 30 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
        34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn task() -> TaskId {
        "0123456789abcdef".parse().unwrap()
    }

    fn own() -> Place {
        Place::of(&task(), None)
    }

    #[test]
    fn a_place_is_written_down_and_read_again_and_no_text_leads_elsewhere() {
        let given = Place::of(&task(), Some(&Parent::read("/nomad/a.b").unwrap()));
        assert_eq!(
            (own().text(), given.text()),
            ("navvy/task-0123456789abcdef".to_owned(), "nomad/a.b/task-0123456789abcdef".to_owned(),)
        );
        for place in [own(), given] {
            assert_eq!(Place::read(&task(), &place.text()), place);
        }
        for wrong in
            ["", "nomad/a.b", "nomad/task-another", "../task-0123456789abcdef", "a/../../task-0123456789abcdef"]
        {
            assert_eq!(Place::read(&task(), wrong), own(), "{wrong}");
        }
    }

    #[test]
    fn tasks_are_found_wherever_their_cgroups_may_be_and_not_in_each_others() {
        let root = tempfile::tempdir().unwrap();
        for below in [
            "navvy/task-aaaaaaaa",
            "nomad/x.y/task-bbbbbbbb/task-cccccccc",
            "a/b/c/task-dddddddd",
            "a/b/c/d/task-eeeeeeee",
        ] {
            fs::create_dir_all(root.path().join(below)).unwrap();
        }
        let hierarchy = || Hierarchy { path: root.path().to_owned(), controllers: Vec::new(), unified: false };
        let found: Vec<String> =
            of_tasks(&[hierarchy(), hierarchy()]).into_iter().map(|(_, task)| task.to_string()).collect();
        assert_eq!(found, ["dddddddd", "aaaaaaaa", "bbbbbbbb"]);
    }

    #[test]
    fn where_nobody_knows_the_hierarchies_nothing_reads_as_removed() {
        let (root, units) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cgroup = root.path().join(own().below());
        fs::create_dir_all(&cgroup).unwrap();
        let hierarchies =
            || Ok(vec![Hierarchy { path: root.path().to_owned(), controllers: Vec::new(), unified: true }]);
        let unread = || Err(io::Error::other("no descriptor is left"));
        let (path, error) = remove_from(&own(), unread(), units.path()).unwrap_err();
        assert_eq!((path.as_path(), error.to_string().as_str()), (Path::new(MOUNTINFO), "no descriptor is left"));

        // What was looked for while they could not be read is not removed later by a guess.
        let unknown = Place::find_in(&task(), unread());
        assert_eq!(unknown.len(), 1);
        let (path, error) = remove_from(&unknown[0], hierarchies(), units.path()).unwrap_err();
        assert_eq!((path.as_path(), error.to_string().as_str()), (Path::new(MOUNTINFO), "no descriptor is left"));
        assert!(cgroup.is_dir());

        assert_eq!(Place::find_in(&task(), hierarchies()), [own()]);
        remove_from(&own(), hierarchies(), units.path()).unwrap();
        assert!(!cgroup.exists());
        assert_eq!(Place::find_in(&task(), hierarchies()), []);
    }

    #[test]
    fn where_systemd_makes_cgroups_a_task_is_a_slice_that_is_found_and_removed_like_any_other() {
        let units = tempfile::tempdir().unwrap();
        let unit = make_slice(&own(), Size::new(1, 2), 7, units.path()).unwrap();
        assert_eq!(unit, "navvy-task_0123456789abcdef.slice");
        assert!(fs::read_to_string(units.path().join(&unit)).unwrap().contains("MemoryMax=2147483648\n"));
        let failed = make_slice(&own(), Size::new(1, 2), 7, &units.path().join("missing")).unwrap_err();
        assert!(failed.to_string().contains(&unit), "{failed}");

        let root = tempfile::tempdir().unwrap();
        let slice = root.path().join("navvy.slice").join(&unit);
        fs::create_dir_all(slice.join("docker-1.scope")).unwrap();
        let hierarchies = [Hierarchy { path: root.path().to_owned(), controllers: Vec::new(), unified: true }];
        let found: Vec<TaskId> = of_tasks(&hierarchies).into_iter().map(|(_, task)| task).collect();
        assert_eq!(found, [task()]);
        let given = Place::of(&task(), Some(&Parent::read("/nomad.slice/a.scope").unwrap()));
        for place in [own(), given] {
            assert_eq!(place.directories(&hierarchies), std::slice::from_ref(&slice));
        }
        // A slice that systemd made without our limits holds nobody.
        fs::write(slice.join("memory.max"), "max\n").unwrap();
        assert!(!holds(&own(), &slice, Size::new(1, 2)));
        fs::write(slice.join("memory.max"), "2147483648\n").unwrap();
        assert!(holds(&own(), &slice, Size::new(1, 2)) && holds(&own(), Path::new("/c"), Size::new(1, 2)));
    }

    #[test]
    fn below_a_given_cgroup_of_version_2_its_maker_has_given_the_controllers_above() {
        let given = Place::of(&task(), Some(&Parent::read("/nomad.slice/a.scope").unwrap()));
        assert_eq!(givers_v2(&given, Path::new("/c")), [Path::new("/c/nomad.slice/a.scope")]);
        assert_eq!(givers_v2(&own(), Path::new("/c")), [Path::new("/c"), Path::new("/c/navvy")]);
    }

    #[test]
    fn limits_of_version_1_go_to_three_hierarchies() {
        let settings = settings_v1(&own(), Size::new(2, 4), 100, &parse_mounts(MOUNTS)).unwrap();
        let shown: Vec<_> =
            settings.iter().map(|s| format!("{}/{}={}", s.directory.display(), s.file, s.value)).collect();
        assert_eq!(
            shown,
            [
                "/sys/fs/cgroup/memory/navvy/task-0123456789abcdef/memory.limit_in_bytes=4294967296",
                "/sys/fs/cgroup/memory/navvy/task-0123456789abcdef/memory.memsw.limit_in_bytes=4294967296",
                "/sys/fs/cgroup/cpu,cpuacct/navvy/task-0123456789abcdef/cpu.cfs_period_us=100000",
                "/sys/fs/cgroup/cpu,cpuacct/navvy/task-0123456789abcdef/cpu.cfs_quota_us=200000",
                "/sys/fs/cgroup/pids/navvy/task-0123456789abcdef/pids.max=100",
            ]
        );
    }

    #[test]
    fn limits_of_version_2_go_to_one() {
        let settings = settings_v2(Path::new("/c"), Size::new(1, 2), 7);
        let shown: Vec<_> = settings.iter().map(|s| format!("{}={}", s.file, s.value)).collect();
        assert_eq!(shown, ["memory.max=2147483648", "memory.swap.max=0", "cpu.max=100000 100000", "pids.max=7"]);
    }

    #[test]
    fn a_missing_controller_is_named() {
        let error = settings_v1(&own(), Size::new(1, 1), 1, &[]).unwrap_err();
        assert_eq!(error.to_string(), "no memory controller is mounted here");
    }

    #[test]
    fn rights_and_driver_decide() {
        let facts = Facts { engine_is_local: true, uid: 0, driver: "cgroupfs", version: "1" };
        assert!(check(facts).is_ok());
        assert!(check(Facts { uid: 1, ..facts }).is_err());
        assert!(check(Facts { engine_is_local: false, ..facts }).is_err());
        let systemd = Facts { driver: "systemd", version: "2", ..facts };
        assert!(check(systemd).is_ok() && !goes_below_given(systemd) && goes_below_given(facts));
        assert!(check(Facts { driver: "systemd", ..facts }).unwrap_err().to_string().contains("systemd"));
    }
}
