//! The engine's disk: no job fills it, for its neighbours and for the host.
//!
//! ```text
//! every task: look (statvfs) ─▶ above the floor ─▶ look again, the sooner the nearer it is
//!                               below ─▶ who has written most, of all tasks here? ─▶ this one ─▶ it is ended, by name
//!                                                                                    another ─▶ its own watch ends it
//!                                                                                    a held one ─▶ nobody may watch it:
//!                                                                                    if it stays so, it is removed here
//! ```
//!
//! Only where the engine's root directory is one of this machine. What a job takes at one stroke (`fallocate`) is gone
//! before anyone looks; it comes back as the job ends.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::InspectContainerOptionsBuilder;
use navvy_environment::plan::LABEL_TASK;
use navvy_job::figures;
use navvy_job::id::TaskId;
use navvy_journal::standing::NameSays;
use tokio::sync::Mutex;

use super::engine::{Engine, EngineInfo};
use super::survey::Listed;

/// Bytes a second. No disk that jobs write to is faster, so the time to the next look follows from it.
const FASTEST: u64 = 4 << 30;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A free inode for so many bytes of the floor, as file systems have them.
const BYTES_AN_INODE: u64 = 16 << 10;
/// A task that has written less than this has not filled the disk.
const LEAST: Used = Used { bytes: 16 << 20, entries: 1_000 };
/// For asking the engine what its containers have written.
const COUNT_LIMIT: Duration = Duration::from_secs(30);
/// A task that is being ended gets this long to give its space back before the next is looked for.
const GIVING_BACK: Duration = Duration::from_secs(10);
/// Time limit for removing a held environment that no process looks after.
const REMOVAL_LIMIT: Duration = Duration::from_secs(60);
/// So many entries of a task tell enough.
const MOST_ENTRIES: u64 = 2_000_000;

/// What is free of a disk, for users without privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    pub bytes: u64,
    /// `None`: the file system makes inodes as it needs them.
    pub inodes: Option<u64>,
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    Bytes,
    Inodes,
}

/// What a task has written to the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Used {
    bytes: u64,
    /// Files and directories; 0 where they may not be counted.
    entries: u64,
}

/// The disk that an engine keeps containers and volumes on.
#[derive(Debug, Clone)]
pub(super) struct EngineDisk {
    root: PathBuf,
    /// Bytes; below it the task that has written most is ended. 0: none.
    floor: u64,
}

/// The task that was found to have written most, and when. One search serves all tasks of this process.
#[derive(Debug, Default)]
pub(super) struct Culprit(Mutex<Option<(Instant, Option<Found>)>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    task: TaskId,
    used: Used,
    /// It is held: perhaps no process looks after it.
    held: bool,
}

/// What is known of one task's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    used: Used,
    held: bool,
}

impl EngineDisk {
    /// Where this machine can see it; else why not.
    pub fn of(info: &EngineInfo, is_local: bool, floor: u64) -> Result<Self, String> {
        let here = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        match &info.root_directory {
            _ if floor == 0 => Err("--disk-floor 0".to_owned()),
            Some(root) if is_local && here.trim() == info.kernel && root.is_dir() => {
                Ok(Self { root: root.clone(), floor })
            }
            _ => Err("the engine's directory is not one of this machine".to_owned()),
        }
    }

    pub fn look(&self) -> io::Result<Free> {
        let found = rustix::fs::statvfs(&self.root)?;
        let inodes = (found.f_files > 0).then_some(found.f_favail);
        Ok(Free { bytes: found.f_bavail.saturating_mul(found.f_frsize), inodes })
    }

    pub fn lack(&self, free: Free) -> Option<Lack> {
        if free.bytes < self.floor {
            return Some(Lack::Bytes);
        }
        free.inodes.is_some_and(|inodes| inodes < self.inodes()).then_some(Lack::Inodes)
    }

    fn inodes(&self) -> u64 {
        self.floor.div_ceil(BYTES_AN_INODE)
    }

    /// Until the floor may be reached.
    fn pause(&self, free: Free) -> Duration {
        let bytes = free.bytes.saturating_sub(self.floor);
        let inodes = free.inodes.map_or(u64::MAX, |inodes| inodes.saturating_sub(self.inodes()));
        let spare = bytes.min(inodes.saturating_mul(BYTES_AN_INODE));
        Duration::from_millis(spare.saturating_mul(1000) / FASTEST).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }

    /// For the report.
    pub fn described(&self) -> String {
        let (root, floor, inodes) = (self.root.display(), figures::bytes(self.floor), self.inodes());
        let free = self.look().map_or_else(|e| e.to_string(), |free| format!("{} free", figures::bytes(free.bytes)));
        format!(
            "Disk: {root} ({free}) is watched; below {floor} or {inodes} inodes the job that has written most is ended"
        )
    }

    /// Why nothing is begun, or was ended, with what to do.
    pub fn trouble(&self, lack: Lack, free: Free) -> String {
        let what = match lack {
            Lack::Bytes => format!("{} left, below {}", figures::bytes(free.bytes), figures::bytes(self.floor)),
            Lack::Inodes => format!("{} inodes left, below {}", free.inodes.unwrap_or_default(), self.inodes()),
        };
        format!(
            "disk floor: the engine's disk ({root}) has {what}. Free some space there (docker system df tells what takes \
             it), or lower the floor with --disk-floor",
            root = self.root.display()
        )
    }
}

impl Engine {
    /// Watches until this task is to be ended for what it has written. Why.
    pub(super) async fn ended_for_the_disk(&self, disk: &EngineDisk, task: &TaskId) -> String {
        let mut pause = SHORTEST_PAUSE;
        let mut suspect = Suspect::default();
        loop {
            tokio::time::sleep(pause).await;
            let Ok(free) = disk.look() else {
                pause = LONGEST_PAUSE;
                continue;
            };
            pause = disk.pause(free);
            let Some(lack) = disk.lack(free) else {
                suspect.clear();
                continue;
            };
            pause = LONGEST_PAUSE;
            match self.culprit(disk, lack).await {
                Some(found) if found.task == *task => {
                    return format!(
                        "this job has written {}, more than any other, and was ended; {}",
                        found.used.told(lack),
                        disk.trouble(lack, free)
                    );
                }
                Some(found) if found.held && suspect.stays(&found.task, Instant::now()) => {
                    self.remove_held(&found, &disk.trouble(lack, free), lack).await;
                    suspect.clear();
                }
                _ => {}
            }
        }
    }

    /// The same as what [`Engine::watch_primary`] waits for; with no disk to watch it waits for ever.
    pub(super) async fn condemned(
        self,
        disk: Option<EngineDisk>,
        task: TaskId,
        names: Vec<String>,
    ) -> (String, Vec<String>) {
        match disk {
            Some(disk) => (self.ended_for_the_disk(&disk, &task).await, names),
            None => std::future::pending().await,
        }
    }

    /// Removes what a held task, which no process looks after, has on the engine. Its journal stays until its time is up.
    async fn remove_held(&self, found: &Found, trouble: &str, lack: Lack) {
        let mut known = self.shared.culprit.0.lock().await;
        // Another task's watch may have been quicker.
        if known.as_ref().and_then(|(_, known)| known.as_ref()) != Some(found) {
            return;
        }
        let (task, used) = (&found.task, found.used.told(lack));
        let left = self.remove_labelled(task, tokio::time::Instant::now() + REMOVAL_LIMIT).await;
        *known = None;
        let left = if left.is_empty() { String::new() } else { format!("; not removed: {}", left.join(", ")) };
        tracing::warn!(
            "Task {task} was held, had written {used}, more than any other, and no process ended it: its environment was \
             removed{left}. {trouble}."
        );
    }

    /// The task of this machine that has written most, if that is much.
    async fn culprit(&self, disk: &EngineDisk, lack: Lack) -> Option<Found> {
        let mut known = self.shared.culprit.0.lock().await;
        if let Some((at, found)) = &*known
            && at.elapsed() < GIVING_BACK
        {
            return found.clone();
        }
        // Another task may have been ended while this one waited for its turn.
        disk.look().ok().and_then(|free| disk.lack(free))?;
        let counted = tokio::time::timeout(COUNT_LIMIT, self.written_by_tasks()).await;
        let found = worst(counted.unwrap_or_default(), lack);
        *known = Some((Instant::now(), found.clone()));
        found
    }

    async fn written_by_tasks(&self) -> HashMap<TaskId, Written> {
        let mut tasks: HashMap<TaskId, Written> = HashMap::new();
        for listed in self.labelled_containers(LABEL_TASK).await.unwrap_or_default() {
            let Some(task) = task_of(&listed) else { continue };
            let options = InspectContainerOptionsBuilder::new().size(true).build();
            if let Ok(found) = self.docker().inspect_container(&listed.name, Some(options)).await {
                // A walk through many files: not on the runtime's own thread.
                let used = tokio::task::spawn_blocking(move || written(&found)).await.unwrap_or_default();
                let held = matches!(NameSays::parse(&task, &listed.name), Some((NameSays::KeptUntil(_), _)));
                let known = tasks.entry(task).or_insert(Written { used: Used::default(), held });
                known.used.add(used);
                known.held &= held;
            }
        }
        tasks
    }
}

fn task_of(listed: &Listed) -> Option<TaskId> {
    listed.labels.get(LABEL_TASK)?.parse().ok()
}

/// What a container's own layer and its volumes hold. The engine counts the layer's bytes; the rest is counted where
/// its files may be read.
fn written(found: &ContainerInspectResponse) -> Used {
    let layer = found.graph_driver.as_ref().and_then(|driver| driver.data.get("UpperDir")).map(PathBuf::from);
    let mut used = Used::default();
    layer.iter().for_each(|layer| count(layer, &mut used));
    used.bytes = used.bytes.max(found.size_rw.and_then(|size| u64::try_from(size).ok()).unwrap_or_default());
    let volumes = found.mounts.iter().flatten().filter(|mount| mount.typ.as_deref() == Some("volume"));
    volumes.filter_map(|volume| volume.source.as_deref()).for_each(|volume| count(Path::new(volume), &mut used));
    used
}

/// Adds what lies below a directory. No link is followed.
fn count(top: &Path, used: &mut Used) {
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            used.add(Used { bytes: metadata.blocks().saturating_mul(512), entries: 1 });
            if metadata.is_dir() {
                directories.push(entry.path());
            }
            if used.entries >= MOST_ENTRIES {
                return;
            }
        }
    }
}

impl Used {
    fn add(&mut self, more: Self) {
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.entries = self.entries.saturating_add(more.entries);
    }

    fn of(self, lack: Lack) -> u64 {
        match lack {
            Lack::Bytes => self.bytes,
            Lack::Inodes => self.entries,
        }
    }

    fn told(self, lack: Lack) -> String {
        match lack {
            Lack::Bytes => figures::bytes(self.bytes),
            Lack::Inodes => format!("{} files", self.entries),
        }
    }
}

fn worst(tasks: HashMap<TaskId, Written>, lack: Lack) -> Option<Found> {
    let much = tasks.into_iter().filter(|(_, written)| written.used.of(lack) >= LEAST.of(lack));
    let worst = much.max_by_key(|(task, written)| (written.used.of(lack), task.clone()));
    worst.map(|(task, Written { used, held })| Found { task, used, held })
}

/// A held task that has written most, and since when it was not ended.
#[derive(Debug, Default)]
struct Suspect(Option<(TaskId, Instant)>);

impl Suspect {
    fn clear(&mut self) {
        self.0 = None;
    }

    /// Whether its own agent has had the time to end it.
    fn stays(&mut self, task: &TaskId, now: Instant) -> bool {
        match &self.0 {
            Some((known, since)) if known == task => now.saturating_duration_since(*since) >= GIVING_BACK,
            _ => {
                self.0 = Some((task.clone(), now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: u64 = 64 << 20;

    fn disk() -> EngineDisk {
        EngineDisk { root: "/".into(), floor: FLOOR }
    }

    fn free(bytes: u64, inodes: Option<u64>) -> Free {
        Free { bytes, inodes }
    }

    #[test]
    fn bytes_and_inodes_have_a_floor() {
        let lack = |bytes, inodes| disk().lack(free(bytes, inodes));
        assert_eq!(lack(FLOOR, Some(4_096)), None);
        assert_eq!(lack(FLOOR - 1, Some(4_096)), Some(Lack::Bytes));
        assert_eq!(lack(FLOOR, Some(4_095)), Some(Lack::Inodes));
        assert_eq!(lack(FLOOR, None), None, "a file system that makes them as it needs them");
        assert!(disk().trouble(Lack::Inodes, free(FLOOR, Some(7))).contains("7 inodes left, below 4096"));
    }

    #[test]
    fn near_the_floor_it_looks_sooner() {
        let pause = |bytes, inodes| disk().pause(free(bytes, inodes));
        assert_eq!(pause(u64::MAX, None), LONGEST_PAUSE);
        assert_eq!(pause(FLOOR + (2 << 30), None), Duration::from_millis(500));
        assert_eq!(pause(FLOOR + 1, None), SHORTEST_PAUSE);
        assert_eq!(pause(0, Some(0)), SHORTEST_PAUSE);
        assert_eq!(pause(u64::MAX, Some(4_097)), SHORTEST_PAUSE);
    }

    #[test]
    fn the_task_that_has_written_most_is_the_one_and_none_that_has_written_little() {
        let task = |digit: char| digit.to_string().repeat(16).parse::<TaskId>().unwrap();
        let tasks = |all: &[(char, u64, u64)]| {
            let written = |bytes, entries| Written { used: Used { bytes, entries }, held: false };
            all.iter().map(|&(digit, bytes, entries)| (task(digit), written(bytes, entries))).collect::<HashMap<_, _>>()
        };
        let many = tasks(&[('a', 1 << 30, 10), ('b', 2 << 30, 5), ('c', 1, 1_000_000)]);
        assert_eq!(worst(many.clone(), Lack::Bytes).unwrap().task, task('b'));
        assert_eq!(worst(many, Lack::Inodes).unwrap().task, task('c'));
        assert_eq!(worst(tasks(&[('a', 1 << 20, 999)]), Lack::Bytes), None);
        assert_eq!(worst(tasks(&[('a', 1 << 40, 999)]), Lack::Inodes), None);
        assert_eq!(worst(HashMap::new(), Lack::Bytes), None);
    }

    #[test]
    fn a_held_task_has_the_time_in_which_its_owner_would_end_it() {
        let task = |digit: char| digit.to_string().repeat(16).parse::<TaskId>().unwrap();
        let (mut suspect, begun) = (Suspect::default(), Instant::now());
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        assert!(!suspect.stays(&task('a'), at(0)) && !suspect.stays(&task('a'), at(9)));
        assert!(suspect.stays(&task('a'), at(10)));
        assert!(!suspect.stays(&task('b'), at(11)), "another one has its own time");
        assert!(!suspect.stays(&task('a'), at(22)));
        suspect.clear();
        assert!(!suspect.stays(&task('a'), at(40)), "there was enough meanwhile");
    }

    #[test]
    fn what_is_written_is_counted_and_no_link_followed() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("d")).unwrap();
        fs::write(top.path().join("d/file"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/", top.path().join("root")).unwrap();
        let mut used = Used::default();
        count(top.path(), &mut used);
        assert_eq!(used.entries, 3);
        assert!(used.bytes >= 1 << 20 && used.bytes < 2 << 20, "{used:?}");
        count(Path::new("/nowhere"), &mut used);
        assert_eq!(used.entries, 3);
    }

    #[test]
    fn a_disk_that_is_not_here_is_not_watched() {
        let here = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim().to_owned();
        let info = |kernel: &str, root: &str| EngineInfo {
            kernel: kernel.to_owned(),
            root_directory: Some(root.into()),
            ..EngineInfo::default()
        };
        assert!(EngineDisk::of(&info(&here, "/"), true, FLOOR).is_ok());
        for (info, is_local, floor) in [
            (info(&here, "/"), false, FLOOR),
            (info("6.6-linuxkit", "/"), true, FLOOR),
            (info(&here, "/no/such/directory"), true, FLOOR),
            (EngineInfo { kernel: here.clone(), ..EngineInfo::default() }, true, FLOOR),
            (info(&here, "/"), true, 0),
        ] {
            assert!(EngineDisk::of(&info, is_local, floor).is_err(), "{info:?}");
        }
    }
}
