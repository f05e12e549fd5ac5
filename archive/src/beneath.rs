//! Directories and files below a root, reached without going through any link.
//!
//! The kernel resolves a whole path at once where it has `openat2` and a sandbox lets it through; elsewhere we go name
//! by name.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A directory that paths are given below. The directory itself may be reached through links: its opener chose the path.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    /// `openat2` is missing or forbidden.
    by_names: AtomicBool,
}

const HOW: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Tries while another process changes the tree at the same moment.
const TRIES: usize = 16;

impl Root {
    /// Opens the directory at `path`, through links if `path` has any. Nothing below it is reached through one.
    pub fn open(path: &Path) -> io::Result<Self> {
        let directory =
            rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self::from(directory))
    }

    #[cfg(test)]
    pub(crate) fn without_openat2(self) -> Self {
        self.by_names.store(true, Relaxed);
        self
    }

    /// Opens a directory only as the start of further paths: it cannot be read.
    pub fn enter(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open_directory(path, OFlags::PATH)
    }

    /// Opens a directory whose names, attributes and times can be read.
    pub fn read(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open_directory(path, OFlags::RDONLY)
    }

    /// Opens something that is not a directory, for reading. The caller asks whether it is a file or a pipe: opening never
    /// waits.
    pub fn open_file(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        if path.is_empty() || path.ends_with(b"/") {
            return Err(Errno::ISDIR);
        }
        let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        self.resolve(path, how)
    }

    fn open_directory(&self, path: &[u8], access: OFlags) -> Result<OwnedFd, Errno> {
        if path.is_empty() {
            return rustix::fs::openat(&self.directory, c".", access | HOW, Mode::empty());
        }
        self.resolve(path, access | HOW)
    }

    fn resolve(&self, path: &[u8], how: OFlags) -> Result<OwnedFd, Errno> {
        if !self.by_names.load(Relaxed) {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            match rustix::fs::openat2(&self.directory, path, how, Mode::empty(), resolve) {
                // EPERM is what some sandboxes say to calls that they do not know.
                Err(Errno::NOSYS | Errno::PERM) => self.by_names.store(true, Relaxed),
                // The path is too long for one call; each of its names is short enough.
                Err(Errno::NAMETOOLONG) => {}
                opened => return opened,
            }
        }
        self.go(path, how)
    }

    fn go(&self, path: &[u8], how: OFlags) -> Result<OwnedFd, Errno> {
        let mut names = path.split(|byte| *byte == b'/').peekable();
        let mut directory = None;
        while let Some(name) = names.next() {
            if name == b".." {
                return Err(Errno::XDEV);
            }
            let how = if names.peek().is_some() { OFlags::PATH | HOW } else { how };
            let from = directory.as_ref().map_or(self.directory.as_fd(), OwnedFd::as_fd);
            directory = Some(rustix::fs::openat(from, name, how, Mode::empty())?);
        }
        directory.ok_or(Errno::NOENT)
    }

    /// The same, where everything on the way that is not a directory is made one.
    pub fn make(&self, path: &[u8], mode: Mode) -> Result<OwnedFd, Errno> {
        match self.enter(path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.make_names(path, mode),
            entered => entered,
        }
    }

    fn make_names(&self, path: &[u8], mode: Mode) -> Result<OwnedFd, Errno> {
        let mut directory = self.enter(b"")?;
        for name in path.split(|byte| *byte == b'/') {
            directory = make_one(directory.as_fd(), name, mode)?;
        }
        Ok(directory)
    }
}

impl From<OwnedFd> for Root {
    fn from(directory: OwnedFd) -> Self {
        Self { directory, by_names: AtomicBool::new(false) }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The directory of this name, made if it is missing; a link or file there is removed first.
pub fn make_one(parent: BorrowedFd<'_>, name: &[u8], mode: Mode) -> Result<OwnedFd, Errno> {
    let mut last = Errno::NOTDIR;
    for _ in 0..TRIES {
        match rustix::fs::openat(parent, name, OFlags::PATH | HOW, Mode::empty()) {
            Err(Errno::NOENT) => last = made(rustix::fs::mkdirat(parent, name, mode))?,
            // Another thread may have made it in the meantime: then this fails, as it must.
            Err(Errno::NOTDIR | Errno::LOOP) => last = made(rustix::fs::unlinkat(parent, name, AtFlags::empty()))?,
            opened => return opened,
        }
    }
    Err(last)
}

/// A change that another process has just made is not an error.
fn made(result: Result<(), Errno>) -> Result<Errno, Errno> {
    match result {
        Ok(()) => Ok(Errno::NOTDIR),
        Err(error @ (Errno::EXIST | Errno::NOENT | Errno::ISDIR)) => Ok(error),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn both(directory: &Path) -> [Root; 2] {
        [Root::open(directory).unwrap(), Root::open(directory).unwrap().without_openat2()]
    }

    #[test]
    fn no_link_is_gone_through_with_and_without_openat2() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("d")).unwrap();
        for number in 0..2 {
            let inside = tempfile::tempdir().unwrap();
            symlink(outside.path(), inside.path().join("out")).unwrap();
            symlink("real", inside.path().join("in")).unwrap();
            std::fs::create_dir_all(inside.path().join("real/d")).unwrap();
            let root = &both(inside.path())[number];
            assert!(root.enter(b"real/d").is_ok());
            assert!(root.read(b"real/d").is_ok());
            assert!(root.enter(b"").is_ok());
            for path in [&b"out"[..], b"out/d", b"in", b"in/d", b"../", b"real/../..", b"/etc", b"missing"] {
                assert!(root.enter(path).is_err(), "{}", String::from_utf8_lossy(path));
            }
        }
    }

    #[test]
    fn files_are_reached_the_same_way_and_no_pipe_is_waited_for() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        for number in 0..2 {
            let inside = tempfile::tempdir().unwrap();
            std::fs::create_dir(inside.path().join("real")).unwrap();
            std::fs::write(inside.path().join("real/file"), "x").unwrap();
            symlink(outside.path().join("secret"), inside.path().join("real/out")).unwrap();
            symlink("file", inside.path().join("real/in")).unwrap();
            symlink(outside.path(), inside.path().join("dir")).unwrap();
            rustix::fs::mkfifoat(CWD, inside.path().join("pipe"), Mode::RWXU).unwrap();
            let root = &both(inside.path())[number];
            assert!(root.open_file(b"real/file").is_ok());
            assert!(root.open_file(b"pipe").is_ok());
            let name = outside.path().file_name().unwrap().to_str().unwrap();
            let up = format!("../{name}/secret");
            for path in [&b"real/out"[..], b"real/in", b"dir/secret", up.as_bytes(), b"/etc/passwd", b"real/", b""] {
                assert!(root.open_file(path).is_err(), "{}", String::from_utf8_lossy(path));
            }
        }
    }

    #[test]
    fn what_is_in_the_way_of_a_directory_is_replaced_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        for number in 0..2 {
            let inside = tempfile::tempdir().unwrap();
            symlink(outside.path(), inside.path().join("link")).unwrap();
            std::fs::write(inside.path().join("file"), "x").unwrap();
            let root = &both(inside.path())[number];
            root.make(b"link/deep", Mode::RWXU).unwrap();
            root.make(b"file", Mode::RWXU).unwrap();
            root.make(b"file/a/b", Mode::RWXU).unwrap();
            assert!(inside.path().join("link/deep").is_dir() && inside.path().join("file/a/b").is_dir());
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        }
    }
}
