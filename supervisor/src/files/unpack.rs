//! A tar from the agent, unpacked below a directory and nowhere else.
//!
//! Every name is walked component by component from the root's descriptor, and a link is never gone through; so
//! neither `..`, nor an absolute name, nor a link that the archive (or the job) has put there leads outside. What is in
//! the way of a file or link is removed first, never written through. Ids of the archive are ignored, set-id bits
//! dropped, devices and sockets passed over. Modes and times of directories come last, when nothing is put into
//! them any more.

use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;

use navvy_protocol::supervisor::{Failure, FailureKind, Reply};
use tar::{Archive, Entry, EntryType};

use super::data::Receiver;
use super::directory;
use crate::failure;
use crate::sys::{self, at};

const CHUNK: usize = 128 << 10;
/// Without set-id and sticky bits.
const MODES: u32 = 0o777;
/// What we need ourselves until the end.
const OWN: u32 = 0o700;

pub fn receive(root: &str, mut receiver: Receiver<'_>) -> Result<Reply, Failure> {
    // Modes are the archive's.
    sys::set_umask(0);
    let result = open_root(root).and_then(|directory| Unpacker::new(root, directory).run(&mut receiver));
    // So that the agent can finish writing and see our answer. If it went away, no answer is needed.
    let _ = receiver.skip();
    result
}

fn open_root(root: &str) -> Result<OwnedFd, Failure> {
    let open = || File::options().read(true).open(root);
    open().map(OwnedFd::from).map_err(|error| failure::of(&error, format_args!("open {root:?}")))
}

type Name = Vec<u8>;

struct Unpacker<'a> {
    shown: &'a str,
    root: OwnedFd,
    /// The directory of the entry before: archives go through one directory after another.
    last: Option<(Vec<Name>, OwnedFd)>,
    /// What directories shall look like in the end.
    directories: Vec<(Vec<Name>, u32, i64)>,
    buffer: Vec<u8>,
    entries: u64,
    bytes: u64,
}

impl<'a> Unpacker<'a> {
    fn new(shown: &'a str, root: OwnedFd) -> Self {
        let buffer = vec![0; CHUNK];
        Self { shown, root, last: None, directories: Vec::new(), buffer, entries: 0, bytes: 0 }
    }

    fn run(mut self, receiver: &mut Receiver<'_>) -> Result<Reply, Failure> {
        let broken = |error: io::Error| Failure::new(FailureKind::Invalid, format!("the archive is broken: {error}"));
        let mut archive = Archive::new(receiver);
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let name = entry.path_bytes().into_owned();
            self.unpack(&mut entry, &name).map_err(|error| self.explain(&error, &name))?;
        }
        self.finish_directories();
        Ok(Reply::Unpacked { entries: self.entries, bytes: self.bytes })
    }

    fn explain(&self, error: &io::Error, name: &[u8]) -> Failure {
        failure::of(error, format_args!("unpack {:?} below {:?}", String::from_utf8_lossy(name), self.shown))
    }

    fn unpack(&mut self, entry: &mut Entry<'_, impl Read>, path: &[u8]) -> io::Result<()> {
        let kind = entry.header().entry_type();
        let mode = entry.header().mode().unwrap_or(0o644) & MODES;
        let time = entry.header().mtime().unwrap_or(0) as i64;
        let mut parents = components(path)?;
        let is_directory = kind == EntryType::Directory || (kind.is_file() && path.ends_with(b"/"));
        let Some(name) = parents.pop() else {
            // The root itself: it is here, and its mode is not the archive's.
            return Ok(());
        };
        match kind {
            _ if is_directory => self.directory(parents, name, mode, time)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &parents, &name, mode, time)?;
            }
            EntryType::Symlink => self.symlink(&target(entry)?, &parents, &name, time)?,
            EntryType::Link => self.link(&target(entry)?, &parents, &name)?,
            _ => return Ok(()),
        }
        self.entries += 1;
        Ok(())
    }

    fn directory(&mut self, parents: Vec<Name>, name: Name, mode: u32, time: i64) -> io::Result<()> {
        let text = c_name(&name)?;
        let parent = self.parent(&parents)?;
        match at::make_directory(parent, &text, mode | OWN) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if enter(parent, &text).is_err() {
                    at::remove(parent, &text)?;
                    at::make_directory(parent, &text, mode | OWN)?;
                }
            }
            other => other?,
        }
        let mut path = parents;
        path.push(name);
        self.directories.push((path, mode, time));
        Ok(())
    }

    fn file(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        parents: &[Name],
        name: &[u8],
        mode: u32,
        time: i64,
    ) -> io::Result<()> {
        let name = c_name(name)?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let parent = self.parent(parents)?;
        let mut file = File::from(make(parent, &name, || at::open(parent, &name, flags, mode))?);
        loop {
            let count = entry.read(&mut self.buffer)?;
            if count == 0 {
                break;
            }
            file.write_all(&self.buffer[..count])?;
            self.bytes += count as u64;
        }
        at::set_time(&file, c"", time)
    }

    fn symlink(&mut self, target: &[u8], parents: &[Name], name: &[u8], time: i64) -> io::Result<()> {
        let (target, name) = (c_name(target)?, c_name(name)?);
        let parent = self.parent(parents)?;
        make(parent, &name, || at::symlink(&target, parent, &name))?;
        at::set_time(parent, &name, time)
    }

    fn link(&mut self, target: &[u8], parents: &[Name], name: &[u8]) -> io::Result<()> {
        let mut from = components(target)?;
        let Some(from_name) = from.pop() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let directory = walk(self.root.try_clone()?, &from, Missing::Fails)?;
        let (from_name, name) = (c_name(&from_name)?, c_name(name)?);
        let parent = self.parent(parents)?;
        make(parent, &name, || at::link(&directory, &from_name, parent, &name))
    }

    /// The open directory of an entry, made where it is missing.
    fn parent(&mut self, parents: &[Name]) -> io::Result<&OwnedFd> {
        let (known, start) = match self.last.take() {
            Some((known, directory)) if parents.starts_with(&known) => (known.len(), directory),
            _ => (0, self.root.try_clone()?),
        };
        let directory = walk(start, &parents[known..], Missing::IsMade)?;
        let (_, directory) = self.last.insert((parents.to_vec(), directory));
        Ok(directory)
    }

    /// From the deepest to the root, since a parent may become read-only. What is not ours to change stays.
    fn finish_directories(&mut self) {
        for (path, mode, time) in std::mem::take(&mut self.directories).into_iter().rev() {
            let _ = self.finish_directory(&path, mode, time);
        }
    }

    fn finish_directory(&self, path: &[Name], mode: u32, time: i64) -> io::Result<()> {
        let directory = walk(self.root.try_clone()?, path, Missing::Fails)?;
        let readable = at::open(&directory, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        at::set_time(&readable, c"", time)?;
        File::from(readable).set_permissions(Permissions::from_mode(mode))
    }
}

/// Without `.` and empty ones; `..` is refused.
fn components(path: &[u8]) -> io::Result<Vec<Name>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let components: Vec<Name> = parts.map(<[u8]>::to_vec).collect();
    if components.iter().any(|part| part == b"..") {
        return Err(invalid("the name leads out of it"));
    }
    Ok(components)
}

fn target(entry: &Entry<'_, impl Read>) -> io::Result<Vec<u8>> {
    entry.link_name_bytes().map(|name| name.into_owned()).ok_or_else(|| invalid("a link without a target"))
}

fn c_name(name: &[u8]) -> io::Result<CString> {
    CString::new(name).map_err(|_| invalid("the name holds a NUL byte"))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Fails,
    IsMade,
}

fn walk(mut directory: OwnedFd, path: &[Name], missing: Missing) -> io::Result<OwnedFd> {
    for name in path {
        let name = c_name(name)?;
        directory = match enter(&directory, &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && missing == Missing::IsMade => {
                at::make_directory(&directory, &name, directory::MODE)?;
                enter(&directory, &name)?
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => {
                return Err(invalid("a link or a file is in the way"));
            }
            other => other?,
        };
    }
    Ok(directory)
}

fn enter(directory: &OwnedFd, name: &CString) -> io::Result<OwnedFd> {
    at::open(directory, name, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)
}

/// Makes something new; what had the name before goes.
fn make<T>(parent: &OwnedFd, name: &CString, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            at::remove(parent, name)?;
            make()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below() {
        assert_eq!(components(b"./a//b/").unwrap(), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(components(b"/etc/passwd").unwrap(), [b"etc".to_vec(), b"passwd".to_vec()]);
        assert!(components(b"a/../../b").is_err());
        assert!(components(b"..").is_err());
        assert!(components(b"./").unwrap().is_empty());
    }
}
