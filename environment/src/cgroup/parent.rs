//! A cgroup that somebody else has made for a whole task (a scheduler's task driver), with the limits of the whole task: the agent
//! moves into it, and the task's own cgroup is made below it.
//!
//! ```text
//! v1   /sys/fs/cgroup/{memory,cpu,…}/nomad/ALLOC.TASK        the agent
//!                                        └ task-ID/CONTAINER    what `make` makes
//! v2   /sys/fs/cgroup/nomad.slice/…/ALLOC.TASK.scope         no process: it gives controllers to those below
//!                                        ├ agent                 the agent
//!                                        └ task-ID/CONTAINER
//! ```
//!
//! Whoever has made it removes it.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use navvy_cgroup::{Hierarchy, MOUNTINFO, mounted};

use super::CONTROLLERS;

/// Version 2 lets a cgroup with children have controllers or processes, not both.
const LEAF: &str = "agent";

/// A path below each hierarchy's root, which leads to no other place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent(PathBuf);

/// Why a cgroup that was given cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ParentError {
    /// It is no path below a root.
    #[error("`{path}` is no cgroup: it has to be an absolute path such as /nomad/NAME, without `..`")]
    Path {
        /// As it was given.
        path: String,
    },
    /// No hierarchy has it.
    #[error("the cgroup {path} does not exist in any mounted hierarchy; whoever starts the agent has to make it first")]
    Missing {
        /// As it was given.
        path: String,
    },
    /// Where the hierarchies are is not known.
    #[error("failed to read {mounts}: {source}", mounts = MOUNTINFO)]
    Mounts {
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel does not take a process in, or does not give controllers to those below.
    #[error("failed to write {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl Parent {
    /// Reads a path such as `/nomad/ALLOC.TASK`.
    ///
    /// # Errors
    /// It leads elsewhere, or nowhere.
    pub fn read(path: &str) -> Result<Self, ParentError> {
        let wrong = || ParentError::Path { path: path.to_owned() };
        let below = path.strip_prefix('/').ok_or_else(wrong)?;
        let is_plain = |part| matches!(part, Component::Normal(_));
        let as_written = !below.is_empty() && !below.ends_with('/') && !below.contains("//") && !path.contains('\0');
        match as_written && Path::new(below).components().all(is_plain) {
            true => Ok(Self(PathBuf::from(below))),
            false => Err(wrong()),
        }
    }

    /// As the engine wants it.
    pub fn text(&self) -> String {
        format!("/{}", self.0.display())
    }

    pub(super) fn below(&self) -> &Path {
        &self.0
    }

    fn directories(&self, hierarchies: &[Hierarchy]) -> Vec<(PathBuf, bool)> {
        let all = hierarchies.iter().map(|h| (h.path.join(&self.0), h.unified));
        all.filter(|(path, _)| path.symlink_metadata().is_ok_and(|found| found.is_dir())).collect()
    }

    /// Bytes of memory that all in it may have together, by its own limit and by those above it; without one, as many as there are numbers.
    /// `None`: there is no such limit to be read.
    pub fn memory_limit(&self) -> Option<u64> {
        self.memory_limit_in(&mounted().ok()?)
    }

    fn memory_limit_in(&self, hierarchies: &[Hierarchy]) -> Option<u64> {
        let v1 = hierarchies.iter().find(|hierarchy| !hierarchy.unified && hierarchy.has("memory"));
        let unified = || hierarchies.iter().find(|hierarchy| hierarchy.unified);
        let (hierarchy, file) = match v1 {
            Some(v1) => (v1, "memory.limit_in_bytes"),
            None => (unified()?, "memory.max"),
        };
        // The root itself has none.
        let all = self.0.ancestors().take_while(|below| !below.as_os_str().is_empty());
        let limits = all.map(|below| read_limit(&hierarchy.path.join(below).join(file)));
        limits.collect::<Option<Vec<u64>>>()?.into_iter().min()
    }

    /// Moves this process into it in every hierarchy that has it, and lets those below it have the controllers that a task's
    /// limits need.
    ///
    /// # Errors
    /// No hierarchy has it, nobody can say where the hierarchies are, or the kernel refuses.
    pub fn enter(&self) -> Result<(), ParentError> {
        let directories = self.directories(&mounted().map_err(|source| ParentError::Mounts { source })?);
        if directories.is_empty() {
            return Err(ParentError::Missing { path: self.text() });
        }
        for (directory, unified) in directories {
            let home = if unified { directory.join(LEAF) } else { directory.clone() };
            if unified && !home.is_dir() {
                write_to(&home, fs::create_dir(&home))?;
            }
            // 0 is whoever writes it, with all of its threads.
            let members = home.join("cgroup.procs");
            write_to(&members, fs::write(&members, "0"))?;
            if unified {
                give_controllers(&directory)?;
            }
        }
        Ok(())
    }

    /// How many processes of it and of those below it the kernel has killed for want of memory. Those of cgroups that are gone
    /// do not count (version 1).
    ///
    /// # Errors
    /// Nobody can say where the hierarchies are.
    pub fn oom_kills(&self) -> io::Result<u64> {
        mounted().map(|hierarchies| navvy_cgroup::oom_kills(&self.text(), &hierarchies))
    }

    /// Removes the leaf that [`Self::enter`] has made, with what a killed agent has left in it. Missing is fine.
    ///
    /// # Errors
    /// The kernel refuses, or nobody can say where it is.
    pub fn remove_leaf(&self) -> Result<(), (PathBuf, io::Error)> {
        let hierarchies = mounted().map_err(|error| (PathBuf::from(MOUNTINFO), error))?;
        let leaves = self.directories(&hierarchies).into_iter().filter(|(_, unified)| *unified);
        let leaves: Vec<PathBuf> = leaves.map(|(directory, _)| directory.join(LEAF)).collect();
        navvy_cgroup::remove(&leaves).into_iter().next().map_or(Ok(()), Err)
    }
}

/// As many of the task's controllers as the cgroup has itself: in a hybrid, where version 1 has them, it has none.
fn give_controllers(directory: &Path) -> Result<(), ParentError> {
    let known = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    let wanted = CONTROLLERS.iter().filter(|wanted| known.split_whitespace().any(|known| known == **wanted));
    let words: Vec<String> = wanted.map(|name| format!("+{name}")).collect();
    if words.is_empty() {
        return Ok(());
    }
    let path = directory.join("cgroup.subtree_control");
    write_to(&path, fs::write(&path, words.join(" ")))
}

fn read_limit(path: &Path) -> Option<u64> {
    match fs::read_to_string(path).ok()?.trim() {
        "max" => Some(u64::MAX),
        bytes => bytes.parse().ok(),
    }
}

fn write_to(path: &Path, written: io::Result<()>) -> Result<(), ParentError> {
    written.map_err(|source| ParentError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_on_the_way_down_holds_and_one_that_cannot_be_read_is_none() {
        let root = tempfile::tempdir().unwrap();
        let made = |place: &str, text: &str| {
            let path = root.path().join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let hierarchy = |name: &str, controllers: &[&str], unified| Hierarchy {
            path: root.path().join(name),
            controllers: controllers.iter().map(|&it| it.to_owned()).collect(),
            unified,
        };
        let v1 =
            [hierarchy("cpu", &["cpu"], false), hierarchy("memory", &["memory"], false), hierarchy("u", &[], true)];
        let v2 = [hierarchy("v2", &[], true)];
        let task = Parent::read("/nomad/a.b").unwrap();
        assert_eq!(
            (task.memory_limit_in(&v1), task.memory_limit_in(&v2), task.memory_limit_in(&[])),
            (None, None, None)
        );
        made("memory/nomad/a.b/memory.limit_in_bytes", "2048\n");
        assert_eq!(task.memory_limit_in(&v1), None, "what holds above it is not known");
        made("memory/nomad/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(task.memory_limit_in(&v1), Some(2048));
        made("v2/nomad/memory.max", "1024\n");
        made("v2/nomad/a.b/memory.max", "max\n");
        assert_eq!(task.memory_limit_in(&v2), Some(1024));
        made("v2/nomad/memory.max", "much\n");
        assert_eq!(task.memory_limit_in(&v2), None);
    }

    #[test]
    fn only_a_path_below_a_root_is_a_cgroup() {
        assert_eq!(Parent::read("/nomad/a.b").unwrap().text(), "/nomad/a.b");
        for wrong in ["", "/", "nomad/a", "/nomad/../../etc", "/./a", "/a/", "//a", "/a//b", "/a\0b"] {
            assert!(matches!(Parent::read(wrong), Err(ParentError::Path { .. })), "{wrong}");
        }
    }

    #[test]
    fn those_below_get_what_there_is_to_give() {
        let directory = tempfile::tempdir().unwrap();
        let (has, gives) =
            (directory.path().join("cgroup.controllers"), directory.path().join("cgroup.subtree_control"));
        fs::write(&has, "cpuset cpu io memory hugetlb pids\n").unwrap();
        give_controllers(directory.path()).unwrap();
        assert_eq!(fs::read_to_string(&gives).unwrap(), "+cpu +memory +pids");
        fs::remove_file(&gives).unwrap();
        fs::write(&has, "\n").unwrap();
        give_controllers(directory.path()).unwrap();
        assert!(!gives.exists(), "a hybrid's hierarchy has nothing to give");
    }

    #[test]
    fn one_that_nobody_has_made_is_named() {
        let error = Parent::read("/navvy-nobody-has-made-this").unwrap().enter().unwrap_err();
        assert!(error.to_string().contains("/navvy-nobody-has-made-this does not exist"), "{error}");
    }
}
