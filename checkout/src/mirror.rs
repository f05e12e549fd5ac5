//! A git directory of our own making, beside a repository's, for git to work with on this machine.
//!
//! ```text
//! .git ──► config  ──► the few settings that we know ─┐
//!      ──► HEAD, refs, index, exclude, … as they are ─┼─► navvy-git-UID/xyz ◄── GIT_DIR
//!      ──► objects ◄── alternates ────────────────────┘
//! ```
//!
//! git does what a repository's settings say, and a repository may be a stranger's. With this in its place there is
//! nothing to switch off: a filter, hook, helper, include or lazy fetch of the repository is not in there.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::config::Settings;
use super::git::{GitError, Place, Running};
use super::git_dir::{LARGE, TEXT};
use super::repository::Repository;
use super::{CheckoutError, Elsewhere, refs};

const PREFIX: &str = "git-";
const EXCLUDES: &str = "excludes";

/// What git is given in place of a repository's git directory. It is gone when this is dropped.
pub(super) struct Mirror {
    directory: TempDir,
    /// Held as long as it is in use: a mirror that no process holds is left over.
    _lock: File,
    top: PathBuf,
    index: u64,
    /// Programs of the user's own settings, switched off.
    off: Vec<(String, String)>,
    /// The repository's settings.
    pub(super) local: Settings,
    /// The user's.
    pub(super) user: Settings,
}

/// The index, and when it was written: that tells git which entries may have changed within the same second.
pub(super) type Index = Option<(Vec<u8>, i64)>;

impl Mirror {
    pub(super) fn of(repository: &Repository) -> Result<Self, CheckoutError> {
        let index = repository.index()?;
        Self::with(repository, Settings::local(repository)?, &index)
    }

    /// The mirror of the repository whose working tree begins here.
    pub(super) fn at(top: &Path, elsewhere: Elsewhere) -> Result<Self, CheckoutError> {
        let repository = Repository::at(top, elsewhere)?;
        Self::of(&repository.ok_or_else(|| CheckoutError::NotADirectory { path: top.join(".git") })?)
    }

    /// With what has been read of it already.
    pub(super) fn with(repository: &Repository, local: Settings, index: &Index) -> Result<Self, CheckoutError> {
        // Looked through before git sees them.
        let objects = repository.object_dirs()?;
        objects.iter().try_for_each(super::git_dir::GitDir::check_objects)?;
        let (directory, lock) = make().map_err(CheckoutError::read(parent_path()))?;
        let mut mirror = Self {
            directory,
            _lock: lock,
            top: repository.top.clone(),
            index: index.as_ref().map_or(0, |(bytes, _)| bytes.len() as u64),
            off: Vec::new(),
            local,
            user: Settings::default(),
        };
        mirror.fill(repository, index, &objects)?;
        mirror.user = Settings::effective(mirror.place())?;
        mirror.off = mirror.user.programs_off();
        Ok(mirror)
    }

    fn fill(
        &self,
        repository: &Repository,
        index: &Index,
        objects: &[super::git_dir::GitDir],
    ) -> Result<(), CheckoutError> {
        for directory in ["info", "objects/info", "objects/pack", "refs"] {
            let path = self.directory.path().join(directory);
            fs::create_dir_all(&path).map_err(CheckoutError::read(path))?;
        }
        let excludes = repository.excludes(&self.local)?;
        // git takes a relative name from where it stands.
        let path = self.directory.path().join(EXCLUDES);
        let path = excludes.as_ref().map(|_| path.as_os_str().as_bytes());
        self.write("config", &self.local.for_git(repository.has_reftable(), path))?;
        if let Some(excludes) = excludes {
            self.write(EXCLUDES, &excludes)?;
        }
        self.write("HEAD", &repository.head_line()?)?;
        if let Some((bytes, mtime)) = index {
            self.index_file(bytes, *mtime)?;
        }
        for name in ["shallow", "info/exclude"] {
            if let Some(bytes) = repository.common_dir.read(name, TEXT)? {
                self.write(name, &bytes)?;
            }
        }
        if let Some(bytes) = repository.git_dir.read("info/sparse-checkout", TEXT)? {
            self.write("info/sparse-checkout", &bytes)?;
        }
        for name in repository.shared_indexes()? {
            if let Some(bytes) = repository.git_dir.read(&name, LARGE)? {
                self.write(OsStr::from_bytes(&name), &bytes)?;
            }
        }
        self.refs(repository)?;
        self.write("objects/info/alternates", &alternates(objects))
    }

    fn index_file(&self, bytes: &[u8], mtime: i64) -> Result<(), CheckoutError> {
        self.write("index", bytes)?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(mtime.try_into().unwrap_or(0));
        let path = self.directory.path().join("index");
        let set = File::options().write(true).open(&path).and_then(|file| file.set_modified(time));
        set.map_err(CheckoutError::read(path))
    }

    fn refs(&self, repository: &Repository) -> Result<(), CheckoutError> {
        if repository.has_reftable() {
            let path = self.directory.path().join("reftable");
            fs::create_dir_all(&path).map_err(CheckoutError::read(path))?;
            for name in repository.common_dir.files("reftable")? {
                let name = [&b"reftable/"[..], &name].concat();
                if let Some(bytes) = repository.common_dir.read(&name, LARGE)? {
                    self.write(OsStr::from_bytes(&name), &bytes)?;
                }
            }
            return Ok(());
        }
        let found = refs::read(&repository.common_dir)?;
        for (name, target) in &found.symbolic {
            let path = self.directory.path().join(OsStr::from_bytes(name));
            let made = path.parent().map_or(Ok(()), fs::create_dir_all);
            made.map_err(CheckoutError::read(&path))?;
            self.write(OsStr::from_bytes(name), &[b"ref: ", target.as_slice(), b"\n"].concat())?;
        }
        self.write("packed-refs", &found.packed())
    }

    fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<(), CheckoutError> {
        let path = self.directory.path().join(name);
        let written = File::create(&path).and_then(|mut file| file.write_all(bytes));
        written.map_err(|source| CheckoutError::Mirror { path, source })
    }

    /// Where git runs.
    pub(super) fn place(&self) -> Place<'_> {
        Place { top: &self.top, git_dir: Some(self.directory.path()), settings: &self.off, index: self.index }
    }

    /// Starts a git, whose output is read from the second once the first has ended.
    pub(super) fn start(&self, arguments: &[&str]) -> Result<(Running, File), CheckoutError> {
        let failed = |source| CheckoutError::Mirror { path: self.directory.path().to_owned(), source };
        let file = tempfile::tempfile_in(self.directory.path()).map_err(failed)?;
        let running = self.place().start_into(arguments, file.try_clone().map_err(failed)?)?;
        Ok((running, file))
    }

    pub(super) fn output(&self, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        self.place().output(arguments, None)
    }
}

/// The lines that lead git to the objects. A path that cannot stand in one is quoted.
fn alternates(objects: &[super::git_dir::GitDir]) -> Vec<u8> {
    let mut text = Vec::new();
    for directory in objects {
        text.push(b'"');
        for byte in directory.path().as_os_str().as_bytes() {
            match byte {
                b'"' | b'\\' => text.extend([b'\\', *byte]),
                b'\n' => text.extend(b"\\n"),
                other => text.push(*other),
            }
        }
        text.extend(b"\"\n");
    }
    text
}

/// The directory of all mirrors of this user.
fn parent_path() -> PathBuf {
    std::env::temp_dir().join(format!("navvy-git-{}", rustix::process::geteuid().as_raw()))
}

/// A new directory, locked. What was left by processes that were killed is removed on the way.
fn make() -> io::Result<(TempDir, File)> {
    let parent = parent_path();
    let is_ours = |path: &Path| {
        fs::symlink_metadata(path).is_ok_and(|meta| {
            meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0
        })
    };
    // That it is there already is usual; whose it is, is looked at.
    let _ = DirBuilder::new().mode(0o700).create(&parent);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    let directory = if is_ours(&parent) {
        sweep(&parent);
        builder.tempdir_in(&parent)?
    } else {
        // Another process has taken the name.
        builder.tempdir()?
    };
    let lock = File::open(directory.path())?;
    lock.try_lock_shared().or_else(|error| match error {
        TryLockError::WouldBlock => Ok(()),
        TryLockError::Error(error) => Err(error),
    })?;
    Ok((directory, lock))
}

/// Removes mirrors that no process holds. One that was made just now may not be held yet.
fn sweep(parent: &Path) {
    const YOUNG: Duration = Duration::from_secs(60);
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        let is_old = age.is_some_and(|age| age > YOUNG);
        if is_old && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_removed_once_it_is_old() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("HEAD"), "").unwrap();
            File::open(path).unwrap()
        };
        let old = SystemTime::now() - Duration::from_secs(3600);
        let (left, held, young) = (at("left"), at("held"), at("young"));
        left.set_modified(old).unwrap();
        held.set_modified(old).unwrap();
        held.lock_shared().unwrap();
        drop((left, young));
        sweep(parent.path());
        let there = ["left", "held", "young"].map(|name| parent.path().join(name).exists());
        assert_eq!(there, [false, true, true]);
    }
}
