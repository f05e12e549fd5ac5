//! What all steps together may take of the machine: a cgroup leaves some memory and some processes to the supervisor, which
//! else could neither answer nor stop a job that takes all there is. A job that is root can leave it: to its own harm.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::say;
use crate::{failure, sys};

const GROUPS: &str = "/sys/fs/cgroup";
const OURS: &str = "navvy-steps";
/// As in a container.
const PROCESSES: u64 = 8192;
/// Of the kernel's own limit, so many in a hundred are the steps'.
const SHARE: u64 = 75;
/// Bytes that steps never get: the supervisor, its keepers and the kernel need about half of it.
const LEAST_LEFT: u64 = 48 << 20;

/// Makes the cgroup; where a process writes itself to be one of it. Without it steps run without bounds.
pub fn make() -> Option<PathBuf> {
    match base().and_then(|base| make_below(&base)) {
        Ok(list) => Some(list),
        Err(error) => {
            say(&format!("steps have no bounds in this machine: {}", failure::text(&error)));
            None
        }
    }
}

/// The cgroup below which ours are. systemd has delegated one to us: since none may have both processes and groups with
/// bounds, we go into one of our own there.
fn base() -> io::Result<PathBuf> {
    let groups = Path::new(GROUPS);
    if sys::pid() == 1 {
        return Ok(groups.to_owned());
    }
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let base =
        groups.join(unified(&own).ok_or_else(|| io::Error::other("the supervisor is in no cgroup of version 2"))?);
    let supervisor = base.join("supervisor");
    fs::create_dir_all(&supervisor)?;
    fs::write(supervisor.join("cgroup.procs"), "0")?;
    Ok(base)
}

/// Never the root's: there all of systemd's are.
fn unified(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::/")).filter(|path| !path.is_empty())
}

fn make_below(groups: &Path) -> io::Result<PathBuf> {
    fs::write(groups.join("cgroup.subtree_control"), "+memory +pids +cpu")?;
    let group = groups.join(OURS);
    fs::create_dir_all(&group)?;
    fs::write(group.join("pids.max"), processes()?.to_string())?;
    fs::write(group.join("memory.max"), memory()?.to_string())?;
    Ok(group.join("cgroup.procs"))
}

fn processes() -> io::Result<u64> {
    let all: u64 = number(&fs::read_to_string("/proc/sys/kernel/threads-max")?)?;
    Ok(PROCESSES.min(all / 100 * SHARE))
}

fn memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let all = number(line.unwrap_or_default())?.saturating_mul(1024);
    Ok(all.saturating_sub(LEAST_LEFT.max(all / 32)))
}

fn number(text: &str) -> io::Result<u64> {
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the kernel tells no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_that_systemd_has_made() {
        assert_eq!(unified("1:name=x:/y\n0::/system.slice/a.service\n"), Some("system.slice/a.service"));
        assert_eq!(unified("0::/\n"), None);
        assert_eq!(unified("4:memory:/docker/ab\n"), None);
    }

    #[test]
    fn something_is_left_for_us() {
        let groups = tempfile::tempdir().unwrap();
        let list = make_below(groups.path()).unwrap();
        assert_eq!(list, groups.path().join("navvy-steps/cgroup.procs"));
        let written = |name: &str| number(&fs::read_to_string(groups.path().join(OURS).join(name)).unwrap()).unwrap();
        assert!((1..=PROCESSES).contains(&written("pids.max")));
        let total = memory().unwrap() + LEAST_LEFT;
        assert!(written("memory.max") < total);
        assert!(make_below(&groups.path().join("nowhere")).is_err());
    }
}
