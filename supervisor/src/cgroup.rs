//! The environment's memory, as its cgroup counts it: version 2 and version 1, with and without a cgroup namespace. Of a
//! machine of its own, as `/proc` counts it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use navvy_protocol::supervisor::{OutOfMemory, Process, Sample};

use crate::{proc, sys};

/// Below this share of the limit, the largest processes are not looked for.
const WATCHED_PERCENT: u64 = 70;
/// Least time between two looks at the processes, for all callers together.
const PAUSE_NS: u64 = 400_000_000;
/// Version 1 shows "no limit" as a number near this.
const NO_LIMIT: u64 = 1 << 60;

/// The counters' files, held open: a look costs one system call each.
#[derive(Debug, Default)]
pub struct Memory {
    events: Option<File>,
    usage: Option<File>,
    peak: Option<File>,
    limit: Option<File>,
    /// `/proc/meminfo`, which has both usage and limit of a machine.
    machine: Option<File>,
    processor: Option<Processor>,
    largest: Mutex<Vec<Process>>,
    looked_at: AtomicU64,
}

#[derive(Debug)]
enum Processor {
    /// `cpu.stat`: `usage_usec N`.
    Stat(File),
    /// `cpuacct.usage`: nanoseconds.
    Usage(File),
    /// `/proc/stat`: a hundred a second, by kind.
    Ticks(File),
}

impl Memory {
    pub fn find() -> Self {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let find = |controller: &str| directory(&groups, &mounts, controller);
        if let Some(directory) = find("memory") {
            let processor = find("cpuacct").and_then(|cpu| File::open(cpu.join("cpuacct.usage")).ok());
            return Self::open(&directory, V1).with(processor.map(Processor::Usage));
        }
        let Some(directory) = find("") else { return Self::default() };
        let processor = File::open(directory.join("cpu.stat")).ok();
        Self::open(&directory, V2).with(processor.map(Processor::Stat))
    }

    /// Everything that the kernel has, and what all processes together use of it.
    pub fn of_machine() -> Self {
        let open = |path| File::open(path).ok();
        Self {
            events: open("/proc/vmstat"),
            machine: open("/proc/meminfo"),
            processor: open("/proc/stat").map(Processor::Ticks),
            ..Self::default()
        }
    }

    fn open(directory: &Path, [events, usage, peak, limit]: [&str; 4]) -> Self {
        let open = |name| File::open(directory.join(name)).ok();
        Self { events: open(events), usage: open(usage), peak: open(peak), limit: open(limit), ..Self::default() }
    }

    fn with(self, processor: Option<Processor>) -> Self {
        Self { processor, ..self }
    }

    /// Processes killed for want of memory so far.
    pub fn kills(&self) -> Option<u64> {
        keyed(self.events.as_ref()?, "oom_kill")
    }

    fn limit(&self) -> Option<u64> {
        match &self.machine {
            Some(machine) => kibibytes(machine, "MemTotal:"),
            None => number(self.limit.as_ref()?).filter(|limit| *limit < NO_LIMIT),
        }
    }

    /// What would not be there for a further process.
    fn usage(&self) -> Option<u64> {
        match &self.machine {
            Some(machine) => kibibytes(machine, "MemTotal:")?.checked_sub(kibibytes(machine, "MemAvailable:")?),
            None => number(self.usage.as_ref()?),
        }
    }

    /// Remembers the largest processes while memory is nearly used up. Cheap; called twice a second while a step runs.
    pub fn watch(&self) {
        let (Some(limit), Some(usage)) = (self.limit(), self.usage()) else { return };
        let (now, before) = (sys::monotonic(), self.looked_at.load(Ordering::Relaxed));
        if usage < limit / 100 * WATCHED_PERCENT || now < before + PAUSE_NS {
            return;
        }
        self.looked_at.store(now, Ordering::Relaxed);
        // Without a list, those that were seen last are the best that is known.
        let Ok(entries) = proc::of_the_job() else { return };
        let largest = proc::largest(entries, 5);
        let mut known = crate::lock(&self.largest);
        // A look just after a kill would put what is left in the place of what was eaten.
        if total(&largest) >= total(&known) {
            *known = largest;
        }
    }

    /// What to tell of a step that began when `before` processes had been killed.
    pub fn killed_since(&self, before: Option<u64>) -> Option<OutOfMemory> {
        let kills = self.kills()?.checked_sub(before?).filter(|kills| *kills > 0)?;
        Some(OutOfMemory {
            kills,
            limit: self.limit(),
            peak: self.peak.as_ref().and_then(number),
            largest: crate::lock(&self.largest).clone(),
        })
    }

    pub fn sample(&self) -> Sample {
        Sample {
            memory: self.usage(),
            memory_limit: self.limit(),
            cpu_ns: self.processor.as_ref().and_then(Processor::nanoseconds),
            oom_kills: self.kills(),
            // A picture for people: the next one may have them again.
            processes: proc::largest(proc::all().unwrap_or_default(), 10),
        }
    }
}

impl Processor {
    fn nanoseconds(&self) -> Option<u64> {
        match self {
            Self::Stat(file) => keyed(file, "usage_usec").map(|micro| micro * 1000),
            Self::Usage(file) => number(file),
            Self::Ticks(file) => busy_ticks(&text(file)?).map(|ticks| ticks * 10_000_000),
        }
    }
}

fn total(processes: &[Process]) -> u64 {
    processes.iter().map(|process| process.rss).sum()
}

const V1: [&str; 4] =
    ["memory.oom_control", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes"];
const V2: [&str; 4] = ["memory.events", "memory.current", "memory.peak", "memory.max"];

/// Of a machine's processors together: waiting is no use of them, and what guests used is in what users did.
fn busy_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().map(str::parse::<u64>);
    let mut sum = 0_u64;
    for kind in 0..8 {
        let ticks = fields.next()?.ok()?;
        // 3 and 4: idle, and idle while a disk was waited for.
        if kind != 3 && kind != 4 {
            sum = sum.checked_add(ticks)?;
        }
    }
    Some(sum)
}

fn kibibytes(file: &File, key: &str) -> Option<u64> {
    let text = text(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn text(file: &File) -> Option<String> {
    // The counters of a machine's memory are by far the longest.
    let mut bytes = [0; 16 << 10];
    let count = file.read_at(&mut bytes, 0).ok()?;
    String::from_utf8(bytes[..count].to_vec()).ok()
}

fn number(file: &File) -> Option<u64> {
    text(file)?.trim().parse().ok()
}

fn keyed(file: &File, key: &str) -> Option<u64> {
    let text = text(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// Where the files of our group are. The name of a controller, or nothing for version 2's single tree.
fn directory(groups: &str, mounts: &str, controller: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        controllers.split(',').any(|name| name == controller).then(|| fields.next())?
    })?;
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let kind = filesystem.next()?;
        let options = filesystem.nth(1)?;
        let ours = if controller.is_empty() {
            kind == "cgroup2"
        } else {
            kind == "cgroup" && options.split(',').any(|option| option == controller)
        };
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        ours.then(|| below_mount(root, point, group))
    })
}

/// A container often sees its own group as the mount's root while `/proc/self/cgroup` has the host's path.
fn below_mount(root: &str, point: &str, group: &str) -> PathBuf {
    let relative = group.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
    let full = Path::new(point).join(relative.trim_start_matches('/'));
    if full.is_dir() { full } else { PathBuf::from(point) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_as_engines_show_them() {
        let v1 = "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/\n";
        let v1_mounts = "30 20 0:26 /docker/ab /nowhere/memory ro,nosuid - cgroup cgroup rw,memory\n\
            31 20 0:27 / /nowhere/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(directory(v1, v1_mounts, "memory").unwrap(), Path::new("/nowhere/memory"));
        assert_eq!(directory(v1, v1_mounts, "").unwrap(), Path::new("/nowhere/unified"));
        assert_eq!(directory(v1, v1_mounts, "cpuacct"), None);
        assert_eq!(directory("0::/\n", "", ""), None);
        assert_eq!(directory("0::/\n", "garbage\n - \n", ""), None);
    }

    #[test]
    fn counters_of_version_2() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n");
        write("memory.current", "900\n");
        write("memory.max", "1000\n");
        write("memory.peak", "1000\n");
        let memory = Memory::open(directory.path(), V2);
        memory.watch();
        let report = memory.killed_since(Some(1)).unwrap();
        assert_eq!((report.kills, report.limit, report.peak), (1, Some(1000), Some(1000)));
        assert!(!report.largest.is_empty());
        assert!(memory.killed_since(Some(2)).is_none());
        assert!(memory.killed_since(None).is_none());
        write("memory.max", "max\n");
        assert_eq!(memory.sample().memory_limit, None);
    }

    #[test]
    fn counters_of_a_machine() {
        let stat = "cpu  100 20 3 5000 600 7 8 9 50 60\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(busy_ticks(stat), Some(100 + 20 + 3 + 7 + 8 + 9));
        assert_eq!(busy_ticks("cpu  1 2"), None);
        assert_eq!(busy_ticks("garbage"), None);
        let memory = Memory::of_machine();
        let sample = memory.sample();
        let (used, limit) = (sample.memory.unwrap(), sample.memory_limit.unwrap());
        assert!(0 < used && used < limit, "{used} of {limit}");
        assert!(sample.cpu_ns.unwrap() > 0);
        assert!(memory.kills().is_some());
        let report = memory.killed_since(memory.kills());
        assert!(report.is_none());
    }

    #[test]
    fn counters_of_version_1() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
            .unwrap();
        std::fs::write(directory.path().join("memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        let memory = Memory::open(directory.path(), V1);
        assert_eq!(memory.kills(), Some(4));
        assert_eq!(memory.limit(), None);
    }
}
