//! Docker's layers of a project, kept from job to job: a disk of its own that a machine mounts at `/var/lib/docker`.
//!
//! ```text
//! STATE/layers/PROJECT/       a digest of the project's name: nothing of one project is ever in another's directory
//!   SLOT/lock                 held by the job that has the slot; two jobs never have one
//!   SLOT/disk.qcow2           what the last job saved, or nothing yet
//!   SLOT/work.qcow2           this job's copy on write of it, or a new disk
//!   SLOT/task                 the job's task: as long as it has a machine, the slot is nobody else's, whoever holds the lock
//!   SLOT/about.json           when it was made, and last used
//!
//! take: the first slot that nobody has, else a new one ─▶ work.qcow2 ─▶ attached to one machine
//!    ├─ leave: its machine outlives this process ─▶ of_task: the next one's, as if it had taken it
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
use navvy_job::chain::chain;
use navvy_job::id::TaskId;
use navvy_plain_file::claim::claim;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::record::{self, RecordError};
use crate::settings::Disk;

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
    /// Its machine goes on with it.
    is_left: bool,
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
    pub async fn take(state: &Path, project: &str, task: &TaskId) -> Result<Self, LayersError> {
        let parent = directory(state).join(project_name(project));
        let (state, task) = (state.to_owned(), task.clone());
        let taken = tokio::task::spawn_blocking(move || take_slot(&state, &parent, &task, now()));
        let volume = taken.await.unwrap_or_else(|e| Err(file("take", Path::new("a slot"))(io::Error::other(e))))?;
        make(&volume.path(), volume.backing().as_deref()).await?;
        Ok(volume)
    }

    /// The volume of a task's machine that another process has left. `None`: there is none, or another process has it.
    ///
    /// # Errors
    /// There may be one, and it cannot be looked at; it stays its machine's.
    pub async fn of_task(state: &Path, task: &TaskId) -> Result<Option<Self>, LayersError> {
        let (state, task) = (state.to_owned(), task.clone());
        let found = tokio::task::spawn_blocking(move || slot_of(&state, &task)).await;
        found.unwrap_or_else(|e| Err(file("find", Path::new("a slot"))(io::Error::other(e))))
    }

    /// Its machine outlives this process, and goes on with it.
    pub fn leave(mut self) {
        self.is_left = true;
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
        if self.is_left {
            return;
        }
        // What was kept has another name by now.
        for path in [self.slot.join(WORK), self.slot.join(TASK)] {
            if let Err(error) = remove(&path) {
                tracing::warn!(%error, "{} could not be removed.", path.display());
            }
        }
    }
}

/// Makes anew what a job writes to, where a machine that has come to nothing may have written to it. What such a machine still has open is
/// another file from here on.
///
/// # Errors
/// It cannot be removed or made.
pub(crate) async fn renew(disk: &Disk) -> Result<(), LayersError> {
    remove(&disk.path).map_err(file("remove", &disk.path))?;
    make(&disk.path, disk.backing.as_deref()).await
}

async fn make(work: &Path, backing: Option<&Path>) -> Result<(), LayersError> {
    let made = match backing {
        None => qemu_img(&["create", "-q", "-f", "qcow2", &text(work), SIZE]).await,
        Some(disk) => qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &text(disk), &text(work)]).await,
    };
    made.map_err(|source| LayersError::Disk { doing: "make", source })
}

const DISK: &str = "disk.qcow2";
const WORK: &str = "work.qcow2";
const ABOUT: &str = "about.json";
const LOCK: &str = "lock";
const TASK: &str = "task";

fn take_slot(state: &Path, parent: &Path, task: &TaskId, now: u64) -> Result<Volume, LayersError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(file("make", parent))?;
    let mut slots: Vec<(u32, About)> =
        (0..SLOTS).map(|slot| (slot, read_about(&parent.join(slot.to_string())))).collect();
    slots.sort_by_key(|(slot, about)| (std::cmp::Reverse(about.used), *slot));
    for (slot, about) in slots {
        let slot = parent.join(slot.to_string());
        if let Some(alone) = lock(&slot)?.filter(|_| !is_left(state, &slot)) {
            let (disk, work) = (slot.join(DISK), slot.join(WORK));
            // Of a job that was killed.
            remove(&work).map_err(file("remove", &work))?;
            let is_new = !is_there(&disk)?;
            let about = About { made: if is_new || about.made == 0 { now } else { about.made }, used: now };
            write_about(&slot, about)?;
            let of = slot.join(TASK);
            fs::write(&of, task.as_str()).map_err(file("write", &of))?;
            forget_others(parent, &slot, task)?;
            return Ok(Volume { slot, about, is_new, is_left: false, _alone: alone });
        }
    }
    Err(LayersError::Full)
}

/// A task that is handed out again may have another slot from before, of an agent that was killed: it is nobody's from here on.
fn forget_others(parent: &Path, taken: &Path, task: &TaskId) -> Result<(), LayersError> {
    for slot in (0..SLOTS).map(|slot| parent.join(slot.to_string())).filter(|slot| slot != taken) {
        if !is_of(&slot, task) {
            continue;
        }
        if let Some(_alone) = lock(&slot)? {
            for path in [slot.join(WORK), slot.join(TASK)] {
                remove(&path).map_err(file("remove", &path))?;
            }
        }
    }
    Ok(())
}

/// The task that has taken a slot last, if its end was not seen.
fn task_of(slot: &Path) -> io::Result<Option<TaskId>> {
    match navvy_plain_file::text(&slot.join(TASK), 64) {
        Ok(text) => Ok(text.parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Does the machine of a task that nobody looks after now have it? What cannot be read may be its record.
fn is_left(state: &Path, slot: &Path) -> bool {
    let task = match task_of(slot) {
        Ok(Some(task)) => task,
        Ok(None) => return false,
        Err(_) => return true,
    };
    let Ok(machines) = record::all(state) else { return true };
    machines.iter().any(|machine| match record::load(&record::directory(state, machine)) {
        Ok(known) => known.planned.task.as_ref() == Some(&task),
        Err(RecordError::Empty { .. }) => false,
        Err(RecordError::Read { source, .. }) => source.kind() != io::ErrorKind::NotFound,
        Err(_) => true,
    })
}

fn is_of(slot: &Path, task: &TaskId) -> bool {
    matches!(task_of(slot), Ok(Some(of)) if of == *task)
}

/// One that cannot be looked at is not one that is not there: what was saved is not replaced by a disk that counts as new.
fn is_there(path: &Path) -> Result<bool, LayersError> {
    path.try_exists().map_err(file("look at", path))
}

fn slot_of(state: &Path, task: &TaskId) -> Result<Option<Volume>, LayersError> {
    let mut its = slots(state)?.into_iter().filter(|(_, _, slot)| is_of(slot, task));
    let Some((_, _, slot)) = its.next() else { return Ok(None) };
    if its.next().is_some() {
        // Which of them its machine has is not known: none is saved.
        return Ok(None);
    }
    let Some(alone) = lock_by(&slot, claim)? else { return Ok(None) };
    // It may have been another's until now.
    if !is_of(&slot, task) || !is_there(&slot.join(WORK))? {
        return Ok(None);
    }
    let (about, is_new) = (read_about(&slot), !is_there(&slot.join(DISK))?);
    Ok(Some(Volume { slot, about, is_new, is_left: false, _alone: alone }))
}

/// `None`: a job has it.
fn lock(slot: &Path) -> Result<Option<File>, LayersError> {
    // Where it is no task's, nobody holds the lock for longer than a moment.
    lock_by(slot, if slot.join(TASK).exists() { File::try_lock } else { claim })
}

fn lock_by(slot: &Path, take: fn(&File) -> Result<(), TryLockError>) -> Result<Option<File>, LayersError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(slot).map_err(file("make", slot))?;
    let path = slot.join(LOCK);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let opened = opened.map_err(file("open", &path))?;
    match take(&opened) {
        // It may be one that was removed while it was waited for.
        Ok(()) => Ok(navvy_plain_file::is_at(&opened, &path).is_ok_and(|is_at| is_at).then_some(opened)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(file("lock", &path)(source)),
    }
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
///
/// # Errors
/// There may be some, and they cannot be listed.
pub fn list(state: &Path) -> Result<Vec<Seen>, LayersError> {
    let mut seen = Vec::new();
    for (project, slot, path) in slots(state)? {
        let Some(size) = bytes_of(&path.join(DISK))? else { continue };
        let in_use = lock(&path).ok().flatten().is_none() || is_left(state, &path);
        let about = read_about(&path);
        seen.push(Seen { project, slot, size, made: about.made, used: about.used, in_use });
    }
    seen.sort_by(|one, other| (&one.project, one.slot).cmp(&(&other.project, other.slot)));
    Ok(seen)
}

/// Bytes that a disk takes of this host's. `None`: there is no such disk.
fn bytes_of(disk: &Path) -> Result<Option<u64>, LayersError> {
    match disk.metadata() {
        Ok(metadata) => Ok(Some(metadata.blocks() * 512)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("look at", disk)(error)),
    }
}

/// What is in a directory; nothing where there is none.
fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>, LayersError> {
    navvy_plain_file::directory::entries(directory).map_err(file("list", directory))
}

/// Directories of slots. What is called otherwise is none of ours.
fn slots(state: &Path) -> Result<Vec<(String, u32, PathBuf)>, LayersError> {
    let mut found = Vec::new();
    for project in entries(&directory(state))? {
        let name = project.file_name().to_string_lossy().into_owned();
        if name.len() != 32 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        for slot in entries(&project.path())? {
            let is_directory = slot.file_type().map_err(file("look at", &slot.path()))?.is_dir();
            let number = slot.file_name().to_str().and_then(|name| name.parse().ok()).filter(|number| *number < SLOTS);
            found.extend(number.filter(|_| is_directory).map(|number| (name.clone(), number, slot.path())));
        }
    }
    Ok(found)
}

/// Removes volumes that have not been used for long, that are old, or that are large, and what killed jobs have left. Those that a job
/// has stay. Returns what was removed, and what could not be.
pub fn prune(state: &Path, keeping: Keeping) -> (Vec<Seen>, Vec<String>) {
    prune_at(state, keeping, now())
}

fn prune_at(state: &Path, keeping: Keeping, now: u64) -> (Vec<Seen>, Vec<String>) {
    let (mut removed, mut left) = (Vec::new(), Vec::new());
    let found = slots(state).unwrap_or_else(|error| {
        left.push(format!("volumes of Docker's layers, if there are any ({})", chain(&error)));
        Vec::new()
    });
    for (project, slot, path) in found {
        // Held until it is gone: whoever takes the slot meanwhile finds a new one.
        let alone = match lock(&path) {
            Ok(Some(alone)) if !is_left(state, &path) => alone,
            Ok(_) => continue,
            Err(error) => {
                left.push(format!("{error}"));
                continue;
            }
        };
        let (disk, about) = (path.join(DISK), read_about(&path));
        let size = match bytes_of(&disk) {
            Ok(size) => size.unwrap_or(0),
            Err(error) => {
                left.push(format!("volume {} ({})", path.display(), chain(&error)));
                continue;
            }
        };
        let is_over = |since: u64, limit: Duration| now.saturating_sub(since) > limit.as_secs();
        let is_doomed = is_over(about.used, keeping.unused) || is_over(about.made, keeping.age) || size > keeping.size;
        let gone = match is_doomed {
            true => fs::remove_dir_all(&path),
            false => remove(&path.join(WORK)).and_then(|()| remove(&path.join(TASK))),
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
mod tests;
