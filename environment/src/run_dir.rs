//! The directory of a task's sockets on this machine. Unix socket paths end at 108 bytes, so it is short whatever the
//! home directory is called; everyone may write to `/tmp`, so nothing that is already there is trusted.
//!
//! ```text
//! …/navvy/             0700  ours alone
//!   TASK.owner               link: whose task it is
//!   TASK/              0700  a small file system of its own (nosuid, nodev, noexec), where the rights allow
//!     sockets/         0711  mounted into the primary container: uid 0 in there can put anything here
//! ```
//!
//! The container gets a directory *below* the mount point: an engine that does not see the mount finds no such
//! directory, says so at once, and is reached the other way.

use std::ffi::CStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use navvy_journal::standing::Mark;
use navvy_plain_file as plain_file;
use navvy_protocol::place::CONTROL_SOCKET;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// With the socket's name. The kernel takes 107; the rest is room for odd mounts.
const PATH_LIMIT: usize = 100;

/// Ending of the file beside a run directory that a `navvy shell` in the environment holds locked.
const VISITED: &str = "visited";

/// Ending of the file beside a run directory that names the task's owner.
const MARK: &str = ".owner";

/// What the container gets of the run directory.
const SHARED: &str = "sockets";
/// Two sockets and some room; a job that fills it harms no other.
const MOUNT_OPTIONS: &CStr = c"size=1m,nr_inodes=64,mode=0700";
/// Only Navvy mounts there; more than one mount is left by a try that was cut off.
const MOUNTS_AT_MOST: usize = 4;

/// Why a task has no run directory.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The directory, or a link beside it, could not be made.
    #[error("failed to make the directory for a task's sockets, {path}", path = path.display())]
    Make {
        /// What was to be made.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// What lies there is another user's, open to others, or no directory: it is not used.
    #[error("{path} is not a directory of this user's own; remove it, or set XDG_RUNTIME_DIR", path = path.display())]
    Foreign {
        /// Where it lies.
        path: PathBuf,
    },
    /// It is not known what lies there.
    #[error("what stands in {path} could not be read", path = path.display())]
    Look {
        /// The directory of all tasks.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The kernel would cut the socket's path off.
    #[error("path of a task's socket would be {length} bytes, over {PATH_LIMIT}: {path}", path = path.display())]
    TooLong {
        /// The run directory.
        path: PathBuf,
        /// Bytes of the path with the socket's name.
        length: usize,
    },
}

/// Where the run directory of a task goes: `$XDG_RUNTIME_DIR/navvy/TASK`, `/run/navvy/TASK` for root, else
/// `/tmp/navvy-UID/TASK`.
pub fn place(runtime: Option<&Path>, uid: u32, task: &TaskId) -> PathBuf {
    let by_session = runtime.map(|runtime| runtime.join("navvy").join(task.as_str()));
    let short = |path: &PathBuf| socket_length(path) <= PATH_LIMIT;
    match by_session.filter(|path| path.is_absolute() && short(path)) {
        Some(path) => path,
        None if uid == 0 => Path::new("/run/navvy").join(task.as_str()),
        None => PathBuf::from(format!("/tmp/navvy-{uid}")).join(task.as_str()),
    }
}

fn socket_length(directory: &Path) -> usize {
    shared(directory).as_os_str().len() + 1 + CONTROL_SOCKET.len()
}

/// What the container gets of the run directory.
pub fn shared(path: &Path) -> PathBuf {
    path.join(SHARED)
}

/// How a run directory is kept apart from the rest of this machine's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A file system of its own, small and with nothing in it that could be executed or be a device.
    Apart,
    /// A directory like any other, behind a parent that only this user enters.
    Plain {
        /// Why it has no file system of its own.
        why: String,
    },
}

/// Makes the run directory and, closed to everyone else, its parent.
pub fn make(path: &Path) -> Result<Kept, RunDirError> {
    let length = socket_length(path);
    if length > PATH_LIMIT {
        return Err(RunDirError::TooLong { path: path.to_owned(), length });
    }
    if let Some(parent) = path.parent() {
        make_own(parent)?;
    }
    let failed = |source| RunDirError::Make { path: path.to_owned(), source };
    DirBuilder::new().mode(0o700).create(path).map_err(failed)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let kept = match rustix::mount::mount("navvy", path, "tmpfs", flags, MOUNT_OPTIONS) {
        Ok(()) => Kept::Apart,
        Err(Errno::PERM | Errno::ACCESS) => Kept::Plain { why: "mounting takes root's rights".to_owned() },
        Err(error) => Kept::Plain { why: format!("mounting failed: {}", io::Error::from(error)) },
    };
    let shared = shared(path);
    // Steps of any user pass through it to the in-job socket; on this machine the parents keep others out.
    DirBuilder::new().mode(0o711).create(&shared).map_err(failed)?;
    // The umask took some of the mode away.
    fs::set_permissions(&shared, Permissions::from_mode(0o711)).map_err(failed)?;
    Ok(kept)
}

/// Writes down, before anything else of a task is made, whose it is. A link holds the text: made at once or not at
/// all, without a byte of disk. One that is there already is replaced, just as much at once.
pub fn mark(path: &Path, mark: &Mark) -> Result<(), RunDirError> {
    if let Some(parent) = path.parent() {
        make_own(parent)?;
    }
    let place = mark_path(path);
    let failed = |source| RunDirError::Make { path: place.clone(), source };
    match symlink(mark.to_text(), &place) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other.map_err(failed),
    }
    if fs::read_link(&place).is_ok_and(|text| text.as_os_str() == mark.to_text().as_str()) {
        return Ok(());
    }
    let this = Owner::this_process().map_err(failed)?;
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let new = place.with_file_name(this.unfinished(&name));
    // What is left by this name was this very process's.
    remove_file(&new).and_then(|()| symlink(mark.to_text(), &new)).map_err(failed)?;
    fs::rename(&new, &place).map_err(failed)
}

/// Takes the mark away, after everything else.
pub fn unmark(path: &Path) -> io::Result<()> {
    remove_file(&path.with_extension(VISITED))?;
    remove_file(&secret_path(path))?;
    remove_file(&mark_path(path))
}

/// Says that a person is in the task's environment, as long as the file is open.
pub fn visit(runtime: Option<&Path>, task: &TaskId) -> io::Result<File> {
    let path = place(runtime, uid(), task).with_extension(VISITED);
    let file = File::options().create(true).append(true).mode(0o600).open(path)?;
    file.lock_shared()?;
    Ok(file)
}

/// Is a person in there? Where that is not to be found out, one may be.
pub fn is_visited(runtime: Option<&Path>, task: &TaskId) -> bool {
    match plain_file::open(&place(runtime, uid(), task).with_extension(VISITED)) {
        Ok(file) => file.try_lock().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Keeps the secret by which the supervisor of a held task is reached through the engine. It opens that one environment,
/// and goes with it. As a mark it takes no byte of disk, and its directory is closed to others.
pub fn keep_secret(runtime: Option<&Path>, task: &TaskId, secret: &str) -> Result<(), RunDirError> {
    let path = secret_path(&place(runtime, uid(), task));
    match symlink(secret, &path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(RunDirError::Make { path, source }),
        _ => Ok(()),
    }
}

/// The secret that was kept, where there is one.
pub fn kept_secret(runtime: Option<&Path>, task: &TaskId) -> Option<String> {
    let secret = fs::read_link(secret_path(&place(runtime, uid(), task))).ok()?;
    secret.into_os_string().into_string().ok()
}

/// Notes that the firewall has rules for the task. A link, as a mark is: it takes no byte of disk.
pub fn note_allowed(path: &Path) -> io::Result<()> {
    match symlink("rules", allowed_path(path)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Has the firewall rules for the task?
pub fn was_allowed(path: &Path) -> bool {
    allowed_path(path).symlink_metadata().is_ok()
}

/// The rules are gone.
pub fn forget_allowed(path: &Path) -> io::Result<()> {
    remove_file(&allowed_path(path))
}

fn allowed_path(path: &Path) -> PathBuf {
    path.with_extension("allowed")
}

fn secret_path(path: &Path) -> PathBuf {
    path.with_extension("secret")
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Where all run directories and marks are.
pub fn parent(runtime: Option<&Path>, uid: u32) -> PathBuf {
    // Where a task of any name would go.
    let any = place(runtime, uid, &TaskId::from_random([0; 8]));
    any.parent().map(Path::to_owned).unwrap_or_default()
}

/// Every task that has a mark, with what it says; `None` is a mark of some other version, or one that cannot be read.
///
/// # Errors
/// The directory of the marks is not this user's own, or cannot be listed. Where it is missing there are none.
pub fn marked(runtime: Option<&Path>, uid: u32) -> Result<Vec<(TaskId, Option<Mark>)>, RunDirError> {
    let path = parent(runtime, uid);
    let unread = |source| RunDirError::Look { path: path.clone(), source };
    let found = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.map_err(unread)?,
    };
    // In a directory that all may write to, a stranger may have been there first.
    if !found.is_dir() || found.uid() != uid {
        return Err(RunDirError::Foreign { path });
    }
    let mut marked = Vec::new();
    for entry in fs::read_dir(&path).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name();
        let Some(task) = name.to_str().and_then(|name| name.strip_suffix(MARK)?.parse().ok()) else { continue };
        match fs::read_link(entry.path()) {
            Ok(text) => marked.push((task, text.to_str().and_then(Mark::from_text))),
            // It was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => marked.push((task, None)),
        }
    }
    Ok(marked)
}

fn mark_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(MARK);
    name.into()
}

fn make_own(path: &Path) -> Result<(), RunDirError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(RunDirError::Make { path: path.to_owned(), source });
        }
        _ => {}
    }
    let found = fs::symlink_metadata(path).map_err(|source| RunDirError::Make { path: path.to_owned(), source })?;
    if !found.is_dir() || found.uid() != uid() {
        return Err(RunDirError::Foreign { path: path.to_owned() });
    }
    if found.mode() & 0o077 == 0 {
        return Ok(());
    }
    // Ours, but open to others: what they may have put there has no task's name, which nobody can guess.
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(|source| RunDirError::Make { path: path.to_owned(), source })
}

/// This process's effective user, as the file system sees it.
pub fn uid() -> u32 {
    // A process's own directory in /proc belongs to its effective user.
    fs::metadata("/proc/self").map_or(u32::MAX, |metadata| metadata.uid())
}

/// Removes it with everything in it, following no link of the job's making. Missing is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    unmount(path)?;
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What is mounted there goes with all that the job put into it. What is still in use goes with its last user.
fn unmount(path: &Path) -> io::Result<()> {
    for _ in 0..MOUNTS_AT_MOST {
        let mut done = rustix::mount::unmount(path, UnmountFlags::NOFOLLOW);
        if done == Err(Errno::BUSY) {
            done = rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
        }
        match done {
            Ok(()) => {}
            // Nothing (more) is mounted there; without the rights to unmount, this user cannot have mounted anything either.
            Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> TaskId {
        "0123456789abcdef".parse().unwrap()
    }

    #[test]
    fn paths_stay_short_whatever_the_session_says() {
        let long = PathBuf::from(format!("/{}", "x".repeat(90)));
        assert_eq!(place(Some(Path::new("/run/user/7")), 7, &task()), Path::new("/run/user/7/navvy/0123456789abcdef"));
        assert_eq!(place(Some(&long), 7, &task()), Path::new("/tmp/navvy-7/0123456789abcdef"));
        assert_eq!(place(None, 0, &task()), Path::new("/run/navvy/0123456789abcdef"));
    }

    #[test]
    fn a_parent_is_closed_and_a_link_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let run = scratch.path().join("navvy/t");
        make(&run).unwrap();
        assert_eq!(fs::metadata(&run).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(shared(&run)).unwrap().mode() & 0o777, 0o711);
        assert_eq!(fs::metadata(run.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(run.parent().unwrap(), Permissions::from_mode(0o777)).unwrap();
        make(&scratch.path().join("navvy/u")).unwrap();
        assert_eq!(fs::metadata(run.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        std::os::unix::fs::symlink(scratch.path(), scratch.path().join("link")).unwrap();
        assert!(matches!(make(&scratch.path().join("link/t")), Err(RunDirError::Foreign { .. })));
    }

    #[test]
    fn marks_name_the_owner_until_they_are_taken_away() {
        let scratch = tempfile::tempdir().unwrap();
        let runtime = Some(scratch.path());
        let (owner, path) = (Owner::this_process().unwrap(), place(runtime, uid(), &task()));
        for says in [Mark::Running(owner.clone()), Mark::Running(owner.clone()), Mark::Kept(9, owner)] {
            mark(&path, &says).unwrap();
            assert_eq!(marked(runtime, uid()).unwrap(), [(task(), Some(says))]);
        }
        assert_eq!(fs::read_dir(parent(runtime, uid())).unwrap().count(), 1);
        fs::remove_file(mark_path(&path)).unwrap();
        symlink("of/a/later/version", mark_path(&path)).unwrap();
        assert_eq!(marked(runtime, uid()).unwrap(), [(task(), None)]);
        unmark(&path).unwrap();
        unmark(&path).unwrap();
        assert_eq!(marked(runtime, uid()).unwrap(), []);
    }

    #[test]
    fn marks_of_a_stranger_are_not_believed_and_no_directory_has_none() {
        let scratch = tempfile::tempdir().unwrap();
        let runtime = Some(scratch.path());
        assert_eq!(marked(runtime, uid()).unwrap(), []);
        mark(&place(runtime, uid(), &task()), &Mark::Kept(9, Owner::this_process().unwrap())).unwrap();
        // Seen by another user, this one is the stranger.
        let foreign = parent(runtime, uid());
        assert!(matches!(marked(runtime, uid() + 1), Err(RunDirError::Foreign { path }) if path == foreign));
        fs::rename(&foreign, scratch.path().join("elsewhere")).unwrap();
        symlink("elsewhere", &foreign).unwrap();
        assert!(matches!(marked(runtime, uid()), Err(RunDirError::Foreign { .. })));
    }

    #[test]
    fn removing_what_is_not_there_is_fine() {
        remove(Path::new("/nonexistent/navvy")).unwrap();
    }

    #[test]
    fn whatever_a_job_put_there_goes_and_nothing_that_it_points_to() {
        let scratch = tempfile::tempdir().unwrap();
        let victim = scratch.path().join("victim");
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("precious"), "").unwrap();
        let run = scratch.path().join("navvy/t");
        make(&run).unwrap();
        let hostile = shared(&run);
        symlink(&victim, hostile.join("link")).unwrap();
        symlink("/", hostile.join("control.sock")).unwrap();
        fs::create_dir_all(hostile.join("a/b/c")).unwrap();
        symlink(&victim, hostile.join("a/b/c/link")).unwrap();
        let fifo = std::process::Command::new("mkfifo").arg(hostile.join("secret")).status().unwrap();
        assert!(fifo.success());
        // In use, as by an agent that still holds the socket open.
        let held = fs::File::open(&hostile).unwrap();
        remove(&run).unwrap();
        drop(held);
        assert!(!run.exists());
        assert!(victim.join("precious").exists());
    }

    #[test]
    fn with_the_rights_it_is_small_and_nothing_in_it_can_be_executed() {
        let scratch = tempfile::tempdir().unwrap();
        let run = scratch.path().join("navvy/t");
        if make(&run).unwrap() != Kept::Apart {
            // Without the rights there is only the other kind, which the test above looks at.
            return remove(&run).unwrap();
        }
        let state = rustix::fs::statvfs(&run).unwrap();
        let flags = rustix::fs::StatVfsMountFlags::NOSUID
            | rustix::fs::StatVfsMountFlags::NODEV
            | rustix::fs::StatVfsMountFlags::NOEXEC;
        assert!(state.f_flag.contains(flags));
        assert!(state.f_blocks * state.f_frsize <= 1 << 20);
        assert!(state.f_files <= 64);
        let full = fs::write(shared(&run).join("large"), vec![0; 2 << 20]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        remove(&run).unwrap();
        assert!(!run.exists());
    }
}
