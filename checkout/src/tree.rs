//! Files of a tree, each reached beneath its top and through no link.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use navvy_archive::beneath::Root;
use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags};

use super::report::Reason;

/// A tree, open at its top. Names are relative to it.
pub(super) struct Tree {
    path: PathBuf,
    root: Root,
    /// The directory that was asked for last: names come sorted.
    last: Option<(Vec<u8>, Arc<OwnedFd>)>,
}

/// What something was when it was looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    kind: FileType,
    pub(super) mtime: i64,
}

impl Tree {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), root: Root::open(path)?, last: None })
    }

    /// How errors call it, and where git works.
    pub(super) fn path(&self, name: &[u8]) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(name))
    }

    pub(super) fn look(&mut self, name: &[u8]) -> io::Result<Seen> {
        let (directory, name) = self.place(name)?;
        let stat = rustix::fs::statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Seen { kind: FileType::from_raw_mode(stat.st_mode), mtime: stat.st_mtime })
    }

    /// Opened without waiting for anybody; what it is must be looked at.
    pub(super) fn file(&mut self, name: &[u8]) -> io::Result<File> {
        let (directory, name) = self.place(name)?;
        let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&*directory, name, how, Mode::empty())?.into())
    }

    /// Where a link points to.
    pub(super) fn link(&mut self, name: &[u8]) -> io::Result<Vec<u8>> {
        let (directory, name) = self.place(name)?;
        Ok(rustix::fs::readlinkat(&*directory, name, Vec::new())?.into_bytes())
    }

    /// Names in a directory, sorted, and what of them is special.
    pub(super) fn list(&self, name: &[u8]) -> io::Result<Vec<(Vec<u8>, Option<Reason>)>> {
        let directory = self.root.read(name)?;
        listed(Dir::read_from(&directory)?)
    }

    /// The directory that something is in, and its name there.
    fn place<'a>(&mut self, name: &'a [u8]) -> io::Result<(Arc<OwnedFd>, &'a [u8])> {
        let at = name.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = at.map_or((&b""[..], name), |at| (&name[..at], &name[at + 1..]));
        if name.is_empty() || name == b"." || name == b".." {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if let Some((known, directory)) = &self.last
            && known == parent
        {
            return Ok((Arc::clone(directory), name));
        }
        let directory = Arc::new(self.root.enter(parent)?);
        self.last = Some((parent.to_vec(), Arc::clone(&directory)));
        Ok((directory, name))
    }
}

impl Seen {
    pub(super) fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub(super) fn is_link(&self) -> bool {
        self.kind == FileType::Symlink
    }

    pub(super) fn special(&self) -> Option<Reason> {
        special(self.kind)
    }
}

fn special(kind: FileType) -> Option<Reason> {
    match kind {
        FileType::Socket => Some(Reason::Socket),
        FileType::Fifo => Some(Reason::Fifo),
        FileType::BlockDevice | FileType::CharacterDevice => Some(Reason::Device),
        _ => None,
    }
}

/// A list that breaks off is none: what comes after the error would be missing from the copy, and nobody would be told.
fn listed(entries: impl Iterator<Item = rustix::io::Result<DirEntry>>) -> io::Result<Vec<(Vec<u8>, Option<Reason>)>> {
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), special(entry.file_type())));
        }
    }
    names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_list_that_breaks_off_is_an_error() {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("b"), "").unwrap();
        std::fs::write(top.path().join("a"), "").unwrap();
        let entries = || Dir::read_from(File::open(top.path()).unwrap()).unwrap();
        let names: Vec<Vec<u8>> = listed(entries()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [b"a".to_vec(), b"b".to_vec()]);
        let broken_off = listed(entries().chain(std::iter::once(Err(Errno::IO))));
        assert_eq!(broken_off.unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
    }
}
