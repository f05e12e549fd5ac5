//! Docker's layers of a project, kept from job to job: a disk of its own that a machine mounts at `/var/lib/docker`.
//!
//! ```text
//! STATE/layers/PROJECT/       a digest of the project's name: nothing of one project is ever in another's directory
//!   SLOT/lock                 held by the job that has the slot; two jobs never have one
//!   SLOT/disk.qcow2           what the last job saved, or nothing yet
//!   SLOT/work.qcow2           this job's copy on write of it, or a new disk
//!   SLOT/about.json           when it was made, and last used
//!
//! take: the first slot that nobody has, else a new one ─▶ work.qcow2 ─▶ attached to one machine
//!    └─ keep: its engine has stopped cleanly ─▶ the copy gets a body of its own ─▶ renamed to disk.qcow2: last saved wins
//!    └─ dropped: work.qcow2 is removed; what was saved before stays
//! ```
//!
//! A job that is killed leaves its copy behind; whoever takes the slot next removes it, and so does [`prune`].

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use navvy_environment::command::{self, CommandError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes that a new disk has for the guest. It takes of this host what is written to it.
const SIZE: &str = "100G";
/// Slots of a project: jobs side by side that keep layers. What comes beyond gets a disk that is not kept.
const SLOTS: u32 = 16;
/// A copy of what a job has saved takes as long as its disk is large.
const QEMU_IMG_LIMIT: Duration = Duration::from_secs(600);
/// By which the guest finds the disk.
pub const SERIAL: &str = "navvylayers";
/// Where it mounts it.
pub const MOUNT: &str = "/var/lib/docker";

/// How long volumes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// Without a job that uses them.
    pub unused: Duration,
    /// Since they were made: what has gathered in them goes, too.
    pub age: Duration,
    /// While they take no more than this of the disk, in bytes.
    pub size: u64,
}

impl Default for Keeping {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self { unused: Duration::from_secs(3 * DAY), age: Duration::from_secs(14 * DAY), size: 15 << 30 }
    }
}

/// Why there is no volume, or why one was not kept.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// A file of this host.
    #[error("failed to {doing} {path}", path = path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `qemu-img` failed.
    #[error("failed to {doing} the volume of Docker's layers: {source}")]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: CommandError,
    },
    /// Every slot is in use.
    #[error("all {SLOTS} volumes of Docker's layers of this project are in use")]
    Full,
}

/// What stands beside a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    /// Seconds since 1970.
    made: u64,
    /// The same.
    used: u64,
}

/// A volume that one job has, for as long as this lives.
#[derive(Debug)]
pub struct Volume {
    slot: PathBuf,
    about: About,
    is_new: bool,
    /// Its lock.
    _alone: File,
}

/// A volume, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The directory of its project.
    pub project: String,
    /// Number of its slot.
    pub slot: u32,
    /// Bytes that it takes of this host's disk.
    pub size: u64,
    /// When it was made, in seconds since 1970. 0: it is not known.
    pub made: u64,
    /// When a job last began to use it.
    pub used: u64,
    /// A job has it.
    pub in_use: bool,
}

/// Where volumes are.
pub fn directory(state: &Path) -> PathBuf {
    state.join("layers")
}

/// The directory's name of a project: no path, and no other project's.
fn project_name(project: &str) -> String {
    Sha256::digest(project.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

impl Volume {
    /// Takes a volume of this project that no other job has; the one that was used last, so that few are kept warm.
    ///
    /// # Errors
    /// All are in use, or none can be made.
    pub async fn take(state: &Path, project: &str) -> Result<Self, LayersError> {
        let parent = directory(state).join(project_name(project));
        let taken = tokio::task::spawn_blocking(move || take_slot(&parent, now()));
        let volume = taken.await.unwrap_or_else(|e| Err(file("take", Path::new("a slot"))(io::Error::other(e))))?;
        let (disk, work) = (volume.slot.join(DISK), volume.slot.join(WORK));
        let made = match volume.is_new {
            true => qemu_img(&["create", "-q", "-f", "qcow2", &text(&work), SIZE]).await,
            false => qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &text(&disk), &text(&work)]).await,
        };
        made.map_err(|source| LayersError::Disk { doing: "make", source })?;
        Ok(volume)
    }

    /// Its file, which one machine may write to.
    pub fn path(&self) -> PathBuf {
        self.slot.join(WORK)
    }

    /// What that file stands on: what an earlier job has saved.
    pub fn backing(&self) -> Option<PathBuf> {
        (!self.is_new).then(|| self.slot.join(DISK))
    }

    /// No job has saved anything in it yet.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Keeps what the job has written, in place of what was there before. To be called once the machine is gone, and only if its engine
    /// had stopped before.
    ///
    /// # Errors
    /// It could not be kept; what was there before is there still.
    pub async fn keep(self) -> Result<(), LayersError> {
        let (disk, work) = (self.slot.join(DISK), self.slot.join(WORK));
        if !self.is_new {
            // What it stands on is what it replaces: it needs all of that itself.
            let rebased = qemu_img(&["rebase", "-q", "-f", "qcow2", "-b", "", &text(&work)]).await;
            rebased.map_err(|source| LayersError::Disk { doing: "save", source })?;
        }
        let (slot, about) = (self.slot.clone(), self.about);
        let kept = tokio::task::spawn_blocking(move || {
            File::open(&work).and_then(|file| file.sync_all()).map_err(file("sync", &work))?;
            fs::rename(&work, &disk).map_err(file("rename", &work))?;
            write_about(&slot, about)
        });
        kept.await.unwrap_or_else(|e| Err(file("save", &self.slot)(io::Error::other(e))))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // What was kept has another name by now.
        let work = self.slot.join(WORK);
        if let Err(error) = remove(&work) {
            tracing::warn!(%error, "{} could not be removed.", work.display());
        }
    }
}

const DISK: &str = "disk.qcow2";
const WORK: &str = "work.qcow2";
const ABOUT: &str = "about.json";
const LOCK: &str = "lock";

fn take_slot(parent: &Path, now: u64) -> Result<Volume, LayersError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(file("make", parent))?;
    let mut slots: Vec<(u32, About)> =
        (0..SLOTS).map(|slot| (slot, read_about(&parent.join(slot.to_string())))).collect();
    slots.sort_by_key(|(slot, about)| (std::cmp::Reverse(about.used), *slot));
    for (slot, about) in slots {
        let slot = parent.join(slot.to_string());
        if let Some(alone) = lock(&slot)? {
            let (disk, work) = (slot.join(DISK), slot.join(WORK));
            // Of a job that was killed.
            remove(&work).map_err(file("remove", &work))?;
            let is_new = !disk.exists();
            let about = About { made: if is_new || about.made == 0 { now } else { about.made }, used: now };
            write_about(&slot, about)?;
            return Ok(Volume { slot, about, is_new, _alone: alone });
        }
    }
    Err(LayersError::Full)
}

/// `None`: a job has it.
fn lock(slot: &Path) -> Result<Option<File>, LayersError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(slot).map_err(file("make", slot))?;
    let path = slot.join(LOCK);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let opened = opened.map_err(file("open", &path))?;
    match opened.try_lock() {
        // It may be one that was removed while it was waited for.
        Ok(()) => Ok(is_at(&opened, &path).then_some(opened)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(file("lock", &path)(source)),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let ids = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().map(ids).ok() == fs::symlink_metadata(path).map(ids).ok()
}

fn read_about(slot: &Path) -> About {
    let read = navvy_plain_file::text(&slot.join(ABOUT), 4 << 10).ok();
    // What cannot be read says nothing of how old it is: it is the first to go.
    read.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(About { made: 0, used: 0 })
}

fn write_about(slot: &Path, about: About) -> Result<(), LayersError> {
    let (path, beside) = (slot.join(ABOUT), slot.join("about.json.new"));
    let text = serde_json::to_string(&about).unwrap_or_default();
    fs::write(&beside, text).map_err(file("write", &beside))?;
    fs::rename(&beside, &path).map_err(file("rename", &beside))
}

/// Every volume that has saved something, of every project.
pub fn list(state: &Path) -> Vec<Seen> {
    let mut seen = Vec::new();
    for (project, slot, path) in slots(state) {
        let Ok(metadata) = path.join(DISK).metadata() else { continue };
        let in_use = lock(&path).ok().flatten().is_none();
        let about = read_about(&path);
        seen.push(Seen { project, slot, size: metadata.blocks() * 512, made: about.made, used: about.used, in_use });
    }
    seen.sort_by(|one, other| (&one.project, one.slot).cmp(&(&other.project, other.slot)));
    seen
}

/// Directories of slots. What is called otherwise is none of ours.
fn slots(state: &Path) -> Vec<(String, u32, PathBuf)> {
    let of = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for project in of(&directory(state)) {
        let name = project.file_name().to_string_lossy().into_owned();
        if name.len() != 32 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        for slot in of(&project.path()) {
            let is_directory = slot.file_type().is_ok_and(|kind| kind.is_dir());
            let number = slot.file_name().to_str().and_then(|name| name.parse().ok()).filter(|number| *number < SLOTS);
            found.extend(number.filter(|_| is_directory).map(|number| (name.clone(), number, slot.path())));
        }
    }
    found
}

/// Removes volumes that have not been used for long, that are old, or that are large, and what killed jobs have left. Those that a job
/// has stay. Returns what was removed, and what could not be.
pub fn prune(state: &Path, keeping: Keeping) -> (Vec<Seen>, Vec<String>) {
    prune_at(state, keeping, now())
}

fn prune_at(state: &Path, keeping: Keeping, now: u64) -> (Vec<Seen>, Vec<String>) {
    let (mut removed, mut left) = (Vec::new(), Vec::new());
    for (project, slot, path) in slots(state) {
        // Held until it is gone: whoever takes the slot meanwhile finds a new one.
        let alone = match lock(&path) {
            Ok(Some(alone)) => alone,
            Ok(None) => continue,
            Err(error) => {
                left.push(format!("{error}"));
                continue;
            }
        };
        let (disk, about) = (path.join(DISK), read_about(&path));
        let size = disk.metadata().map_or(0, |metadata| metadata.blocks() * 512);
        let is_over = |since: u64, limit: Duration| now.saturating_sub(since) > limit.as_secs();
        let is_doomed = is_over(about.used, keeping.unused) || is_over(about.made, keeping.age) || size > keeping.size;
        let leftover = path.join(WORK);
        let gone = match is_doomed {
            true => fs::remove_dir_all(&path),
            false => remove(&leftover),
        };
        drop(alone);
        match gone {
            Ok(()) if is_doomed && size > 0 => {
                removed.push(Seen { project, slot, size, made: about.made, used: about.used, in_use: false });
            }
            Ok(()) => {}
            Err(error) => left.push(format!("volume {} ({error})", path.display())),
        }
    }
    (removed, left)
}

async fn qemu_img(arguments: &[&str]) -> Result<(), CommandError> {
    command::run("qemu-img", arguments, b"", &command::search_path(None), QEMU_IMG_LIMIT).await.map(drop)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayersError {
    let path = path.to_owned();
    move |source| LayersError::File { doing, path, source }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What a guest would read of the disk's beginning.
    async fn content(disk: &Path) -> String {
        let raw = disk.with_extension("raw");
        qemu_img(&["convert", "-q", "-O", "raw", &text(disk), &text(&raw)]).await.unwrap();
        let mut bytes = [0; 4];
        io::Read::read_exact(&mut File::open(&raw).unwrap(), &mut bytes).unwrap();
        fs::remove_file(raw).unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// Writes to the disk's beginning, as a machine would.
    async fn write(disk: &Path, what: &str) {
        let raw = disk.with_extension("in");
        fs::write(&raw, what.repeat(1024)).unwrap();
        let arguments = ["-f", "qcow2", "-c", &format!("write -s {} 0 4096", text(&raw)), &text(disk)];
        command::run("qemu-io", &arguments, b"", &command::search_path(None), QEMU_IMG_LIMIT).await.unwrap();
        fs::remove_file(raw).unwrap();
    }

    #[tokio::test]
    async fn what_was_kept_is_there_for_the_next_job_and_what_was_not_is_gone() {
        let state = tempfile::tempdir().unwrap();
        let first = Volume::take(state.path(), "shop").await.unwrap();
        assert!(first.is_new());
        write(&first.path(), "one.").await;
        let slot = first.slot.clone();
        first.keep().await.unwrap();
        assert_eq!(names(&slot), [ABOUT, DISK, LOCK]);

        let second = Volume::take(state.path(), "shop").await.unwrap();
        assert!(!second.is_new() && second.slot == slot);
        assert_eq!(content(&second.path()).await, "one.");
        write(&second.path(), "two.").await;
        drop(second);
        assert_eq!((content(&slot.join(DISK)).await.as_str(), names(&slot).len()), ("one.", 3));

        let third = Volume::take(state.path(), "shop").await.unwrap();
        write(&third.path(), "3333").await;
        third.keep().await.unwrap();
        // It stands alone: its backing file was what it has replaced.
        let (disk, path) = (text(&slot.join(DISK)), command::search_path(None));
        let information = command::run("qemu-img", &["info", &disk], b"", &path, QEMU_IMG_LIMIT).await.unwrap();
        let information = String::from_utf8(information).unwrap();
        assert!(!information.contains("backing file"), "{information}");
        assert_eq!(content(&slot.join(DISK)).await, "3333");
    }

    #[tokio::test]
    async fn no_volume_is_had_twice_and_none_by_another_project() {
        let state = tempfile::tempdir().unwrap();
        let first = Volume::take(state.path(), "shop").await.unwrap();
        let beside = Volume::take(state.path(), "shop").await.unwrap();
        assert_ne!(first.slot, beside.slot);
        first.keep().await.unwrap();
        for other in ["Shop", "../shop", "", "shop/0"] {
            let theirs = Volume::take(state.path(), other).await.unwrap();
            assert!(theirs.is_new(), "{other}");
            assert_eq!(theirs.slot.parent().unwrap().parent().unwrap(), directory(state.path()), "{other}");
        }
        drop(beside);
        assert_eq!(list(state.path()).len(), 1);
    }

    #[tokio::test]
    async fn a_project_has_so_many_volumes_and_no_more() {
        let state = tempfile::tempdir().unwrap();
        let parent = directory(state.path()).join(project_name("shop"));
        let taken: Vec<Volume> = (0..SLOTS).map(|_| take_slot(&parent, 1).unwrap()).collect();
        assert!(matches!(take_slot(&parent, 1), Err(LayersError::Full)));
        drop(taken);
        take_slot(&parent, 1).unwrap();
    }

    #[tokio::test]
    async fn what_a_killed_job_left_is_removed_and_what_was_saved_stays() {
        let state = tempfile::tempdir().unwrap();
        let killed = Volume::take(state.path(), "shop").await.unwrap();
        let slot = killed.slot.clone();
        killed.keep().await.unwrap();
        fs::write(slot.join(WORK), "half").unwrap();
        assert_eq!(prune_at(state.path(), Keeping::default(), now()), (vec![], vec![]));
        assert_eq!(names(&slot), [ABOUT, DISK, LOCK]);
        fs::write(slot.join(WORK), "half").unwrap();
        let next = Volume::take(state.path(), "shop").await.unwrap();
        assert!(!next.is_new() && next.path().metadata().unwrap().len() > 4);
    }

    #[tokio::test]
    async fn volumes_go_when_they_are_unused_old_or_large_and_never_while_a_job_has_them() {
        let keeping = Keeping::default();
        let doomed = [
            ("unused", now() - DAY, now() - 4 * DAY, keeping, true),
            ("old", now() - 15 * DAY, now(), keeping, true),
            ("large", now(), now(), Keeping { size: 1, ..keeping }, true),
            ("young", now() - 13 * DAY, now() - 2 * DAY, keeping, false),
        ];
        for (name, made, used, keeping, is_doomed) in doomed {
            let state = tempfile::tempdir().unwrap();
            let volume = Volume::take(state.path(), name).await.unwrap();
            let slot = volume.slot.clone();
            write(&volume.path(), "data").await;
            volume.keep().await.unwrap();
            write_about(&slot, About { made, used }).unwrap();
            let held = lock(&slot).unwrap().unwrap();
            assert_eq!(prune(state.path(), keeping), (vec![], vec![]), "{name}");
            drop(held);
            let (removed, left) = prune(state.path(), keeping);
            assert_eq!((removed.len(), left.len(), slot.exists()), (usize::from(is_doomed), 0, !is_doomed), "{name}");
        }
    }

    #[test]
    fn what_is_no_volume_is_neither_listed_nor_removed() {
        let state = tempfile::tempdir().unwrap();
        let place = directory(state.path());
        for path in ["mine/0/disk.qcow2", "0123456789abcdef0123456789abcdef/99/disk.qcow2", "notes/disk.qcow2"] {
            let path = place.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let nothing = Keeping { unused: Duration::ZERO, age: Duration::ZERO, size: 0 };
        assert_eq!((list(state.path()), prune(state.path(), nothing)), (vec![], (vec![], vec![])));
        assert_eq!(names(&place).len(), 3);
    }
}
