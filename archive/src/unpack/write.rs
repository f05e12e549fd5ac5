//! What the file system is asked to do, beneath the roots and nowhere else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::read::{Directory, Link, Op, Piece};
use super::stage::{Published, Spot, Stages};
use crate::beneath::{Root, make_one};
use crate::entry::{Digest, Time, split};
use crate::error::ReadError;
use crate::format;
use crate::pack::USER_ATTRIBUTES;
use crate::sparse::Map;
use crate::tape::{Body, Head};

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
/// Mode of directories above entries that the archive itself does not have.
pub const IMPLIED_MODE: Mode = Mode::from_raw_mode(0o755);
/// Mode of directories until they are complete.
pub const OWN_MODE: Mode = Mode::RWXU;
const PERMISSIONS: u32 = 0o777;
/// Bytes written at once. For more, the kernel takes pages of up to 2 MiB; in a virtual machine whose host takes back such
/// pages while they are free, each of them is first fetched again: 4 MiB at once took 2.5 times as long.
const WRITE: usize = 256 << 10;

/// What all workers use.
pub struct Shared<'a> {
    pub roots: &'a [Root],
    /// Names of our files that are not yet whole begin with this.
    prefix: String,
    counter: AtomicU64,
    bytes: AtomicU64,
    attributes_lost: AtomicU64,
    /// Directories that we had to make writable, with their modes before.
    loosened: Mutex<Vec<(Spot, Mode)>>,
    uid: u32,
    gid: u32,
}

impl<'a> Shared<'a> {
    pub fn new(roots: &'a [Root]) -> Self {
        Self {
            roots,
            prefix: format!(".navvy-{}-", std::process::id()),
            counter: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            attributes_lost: AtomicU64::new(0),
            loosened: Mutex::new(Vec::new()),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    pub fn counts(&self) -> (u64, u64) {
        (self.bytes.load(Relaxed), self.attributes_lost.load(Relaxed))
    }

    /// Set-id bits only for files that were and will be ours.
    fn mode(&self, head: &Head) -> Mode {
        let mut mode = head.mode;
        if head.uid != self.uid || matches!(head.body, Body::Directory) {
            mode &= !SET_UID;
        }
        if head.gid != self.gid {
            mode &= !SET_GID;
        }
        Mode::from_raw_mode(mode)
    }

    pub fn temporary(&self) -> String {
        format!("{}{}", self.prefix, self.counter.fetch_add(1, Relaxed))
    }

    /// Makes the file under a name of ours beside its place; in its place where it is not visible yet and nothing can be in
    /// the way.
    fn create(&self, directory: &OwnedFd, at: &Spot, head: &Head) -> Result<Made, Errno> {
        let mode = self.mode(head);
        if at.stage.is_some() {
            match create_one(directory, split(&at.path).1, mode) {
                // A file system to which two names are one.
                Err(Errno::EXIST) => {}
                created => return created.map(|file| Made { file, temporary: None }),
            }
        }
        for _ in 0..100 {
            let name = self.temporary();
            match self.writable(at, || create_one(directory, name.as_bytes(), mode)) {
                Err(Errno::EXIST) => {}
                created => return created.map(|file| Made { file, temporary: Some(name) }),
            }
        }
        Err(Errno::EXIST)
    }

    /// Once more where a directory of the user's own forbids it.
    fn writable<T>(&self, at: &Spot, act: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        match act() {
            Err(Errno::ACCESS) if self.loosen(at) => act(),
            other => other,
        }
    }

    fn loosen(&self, at: &Spot) -> bool {
        let (parent, _) = split(&at.path);
        let Ok(directory) = self.roots[at.root].read(parent) else { return false };
        let Ok(stat) = rustix::fs::fstat(&directory) else { return false };
        let before = Mode::from_raw_mode(stat.st_mode);
        if stat.st_uid != self.uid || rustix::fs::fchmod(&directory, before | OWN_MODE).is_err() {
            return false;
        }
        let place = Spot { path: parent.to_vec(), ..at.clone() };
        let mut loosened = self.loosened.lock().unwrap_or_else(PoisonError::into_inner);
        loosened.push((place, before));
        true
    }

    /// Mode, times and attributes of an open file that is whole.
    fn complete(&self, file: impl AsFd, head: &Head) -> Result<(), Errno> {
        for (name, value) in &head.xattrs {
            let set = name.starts_with(USER_ATTRIBUTES)
                && rustix::fs::fsetxattr(&file, &name[..], value, XattrFlags::empty()).is_ok();
            self.attributes_lost.fetch_add(u64::from(!set), Relaxed);
        }
        let mode = self.mode(head);
        // Most have it already: looking costs less than a change that changes nothing.
        if Mode::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != mode {
            rustix::fs::fchmod(&file, mode)?;
        }
        rustix::fs::futimens(&file, &times(head.mtime))
    }

    /// Into its place. What is there goes, but for a directory that is not empty.
    fn rename(&self, directory: &OwnedFd, from: &str, name: &[u8]) -> Result<(), Errno> {
        match rustix::fs::renameat(directory, from, directory, name) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?;
                rustix::fs::renameat(directory, from, directory, name)
            }
            renamed => renamed,
        }
    }

    /// What is made at once, like a link: in its place, or beside it and renamed.
    fn put(
        &self,
        directory: &OwnedFd,
        at: &Spot,
        name: &[u8],
        make: impl Fn(&[u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        match self.writable(at, || make(name)) {
            Err(Errno::EXIST) => {
                let temporary = self.temporary();
                make(temporary.as_bytes())?;
                self.rename(directory, &temporary, name).inspect_err(|_| {
                    let _ = rustix::fs::unlinkat(directory, temporary.as_str(), AtFlags::empty());
                })
            }
            made => made,
        }
    }

    /// Makes hard links, then sets modes and times of directories, the deepest first, since a parent may become closed:
    /// directories that are not visible yet before they get to their places, others when they are complete.
    pub fn finish(&self, links: &[Link], directories: &[Directory], stages: &Stages<'_>) -> Result<(), ReadError> {
        for link in links {
            self.link(link).map_err(|error| ReadError::place(&link.path, "make the hard link", error))?;
        }
        let directories = || directories.iter().rev();
        for Directory { at, head } in directories().filter(|directory| directory.at.stage.is_some()) {
            self.complete_directory(at.root, &at.path, head)?;
        }
        let published = stages
            .publish()
            .map_err(|(place, error)| ReadError::place(&place, "bring the directory into its place", error))?;
        let is_to_do = |at: &Spot| at.stage.is_none_or(|stage| published[stage] == Published::Merged);
        let loosened = self.loosened.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, mode) in loosened.iter().rev().filter(|(at, _)| is_to_do(at)) {
            let directory = self.roots[at.root].read(&stages.placed(at));
            let _ = directory.and_then(|directory| rustix::fs::fchmod(directory, *mode));
        }
        for Directory { at, head } in directories().filter(|directory| is_to_do(&directory.at)) {
            self.complete_directory(at.root, &stages.placed(at), head)?;
        }
        Ok(())
    }

    fn complete_directory(&self, root: usize, path: &[u8], head: &Head) -> Result<(), ReadError> {
        let directory = self.roots[root].read(path);
        match directory.and_then(|directory| self.complete(directory, head)) {
            // A directory that existed before and belongs to another user stays as it is.
            Ok(()) | Err(Errno::PERM | Errno::ACCESS) => Ok(()),
            Err(error) => Err(ReadError::place(&head.path, "set mode and time", error)),
        }
    }

    fn link(&self, link: &Link) -> Result<(), Errno> {
        let (from, from_name) = split(&link.target.path);
        let (parent, name) = split(&link.at.path);
        let from = self.roots[link.target.root].enter(from)?;
        let directory = self.roots[link.at.root].make(parent, IMPLIED_MODE)?;
        self.put(&directory, &link.at, name, |name| {
            rustix::fs::linkat(&from, from_name, &directory, name, AtFlags::empty())
        })
    }
}

fn write_at(file: &File, bytes: &[u8], mut offset: u64) -> io::Result<()> {
    for piece in bytes.chunks(WRITE) {
        file.write_all_at(piece, offset)?;
        offset += piece.len() as u64;
    }
    Ok(())
}

/// A file that is not yet whole.
struct Made {
    file: File,
    /// `None`: it stands in its place.
    temporary: Option<String>,
}

/// Set-id bits come with the file's last byte.
fn create_one(directory: &OwnedFd, name: &[u8], mode: Mode) -> Result<File, Errno> {
    let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, how, mode & Mode::from_raw_mode(PERMISSIONS)).map(File::from)
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() },
    }
}

/// A file that several workers write.
pub struct OpenFile {
    file: File,
    directory: OwnedFd,
    /// `None`: it has its place.
    temporary: Mutex<Option<String>>,
    at: Spot,
    head: Head,
    /// And how long its text is, which stands before the data.
    map: Option<(Map, u64)>,
    /// Pieces not yet written, and one for as long as more may come.
    pending: AtomicUsize,
}

impl OpenFile {
    pub fn make(shared: &Shared<'_>, at: Spot, head: Head, map: Option<(Map, usize)>) -> Result<Arc<Self>, ReadError> {
        let open = || {
            let directory = shared.roots[at.root].make(split(&at.path).0, IMPLIED_MODE)?;
            let made = shared.create(&directory, &at, &head)?;
            Ok((directory, made))
        };
        let (directory, Made { file, temporary }) =
            open().map_err(|error: Errno| ReadError::place(&head.path, "make the file", error))?;
        let temporary = Mutex::new(temporary);
        let map = map.map(|(map, length)| (map, length as u64));
        let opened = Self { file, directory, temporary, at, head, map, pending: AtomicUsize::new(1) };
        if let Some((map, _)) = &opened.map {
            opened
                .file
                .set_len(map.size)
                .map_err(|error| ReadError::place(&opened.head.path, "set its size", error))?;
        }
        Ok(Arc::new(opened))
    }

    pub fn begin_piece(&self) {
        self.pending.fetch_add(1, AcqRel);
    }

    fn write(&self, from: u64, bytes: &[u8]) -> io::Result<()> {
        let Some((map, head)) = &self.map else { return write_at(&self.file, bytes, from) };
        let in_map = head.saturating_sub(from).min(bytes.len() as u64);
        let data = &bytes[in_map as usize..];
        for (at, piece) in map.cut(from + in_map - head, data.len() as u64) {
            write_at(&self.file, &data[at..at + piece.length as usize], piece.offset)?;
        }
        Ok(())
    }

    /// The one that ends the last piece brings the file into its place.
    fn end_pieces(&self, shared: &Shared<'_>, count: usize) -> Result<(), Errno> {
        if self.pending.fetch_sub(count, AcqRel) != count {
            return Ok(());
        }
        shared.complete(&self.file, &self.head)?;
        let mut temporary = self.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = &*temporary {
            shared.rename(&self.directory, name, split(&self.at.path).1)?;
            *temporary = None;
        }
        Ok(())
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let temporary = self.temporary.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = temporary {
            let _ = rustix::fs::unlinkat(&self.directory, name.as_str(), AtFlags::empty());
        }
    }
}

/// What one worker does.
pub struct Writer<'a> {
    shared: &'a Shared<'a>,
    /// The directory of the entry before: archives go through one after another.
    directory: Option<(usize, Vec<u8>, OwnedFd)>,
}

impl<'a> Writer<'a> {
    pub fn new(shared: &'a Shared<'a>) -> Self {
        Self { shared, directory: None }
    }

    pub fn carry_out(&mut self, op: Op, plain: &[u8], digests: &mut Vec<(usize, Digest)>) -> Result<(), ReadError> {
        match op {
            Op::Directory { at, path } => {
                let name = split(&at.path).1;
                // Those above it that no entry describes would keep a mode that is ours alone.
                let made = self.parent(&at).and_then(|parent| make_one(parent.as_fd(), name, OWN_MODE));
                drop(made.map_err(|error| ReadError::place(&path, "make the directory", error))?);
            }
            Op::Symlink { at, head } => {
                self.symlink(&at, &head).map_err(|error| ReadError::place(&head.path, "make the link", error))?;
            }
            Op::File { at, head, bytes, number } => {
                let bytes = &plain[bytes];
                digests.push((number, format::digest(bytes)));
                self.file(&at, &head, bytes)?;
            }
            Op::Piece(piece) => self.piece(piece, plain, digests)?,
        }
        Ok(())
    }

    fn file(&mut self, at: &Spot, head: &Head, bytes: &[u8]) -> Result<(), ReadError> {
        let shared = self.shared;
        let fail = |what| move |error: io::Error| ReadError::place(&head.path, what, error);
        let directory = self.parent(at).map_err(|error| fail("make its directory")(error.into()))?;
        let Made { file, temporary } =
            shared.create(directory, at, head).map_err(|error| fail("make the file")(error.into()))?;
        let written = write_at(&file, bytes, 0).map_err(fail("write the file")).and_then(|()| {
            shared.complete(&file, head).map_err(|error| fail("set mode and time")(error.into()))?;
            let Some(temporary) = &temporary else { return Ok(()) };
            shared
                .rename(directory, temporary, split(&at.path).1)
                .map_err(|error| fail("replace what is in its place")(error.into()))
        });
        if let (Err(_), Some(temporary)) = (&written, &temporary) {
            let _ = rustix::fs::unlinkat(directory, temporary.as_str(), AtFlags::empty());
        }
        shared.bytes.fetch_add(bytes.len() as u64, Relaxed);
        written
    }

    fn symlink(&mut self, at: &Spot, head: &Head) -> Result<(), Errno> {
        let Body::Symlink { target } = &head.body else { return Ok(()) };
        let shared = self.shared;
        let (_, name) = split(&at.path);
        let directory = self.parent(at)?;
        shared.put(directory, at, name, |name| {
            rustix::fs::symlinkat(&target[..], directory, name)?;
            rustix::fs::utimensat(directory, name, &times(head.mtime), AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    fn piece(&mut self, piece: Piece, plain: &[u8], digests: &mut Vec<(usize, Digest)>) -> Result<(), ReadError> {
        let Piece { file, from, bytes, before, after, ends } = piece;
        let bytes = &plain[bytes];
        // `None`: that worker has failed, and says why.
        let Some(mut state) = before.map_or_else(|| Some(Sha256::new()), |before| before.wait().cloned()) else {
            return Ok(());
        };
        state.update(bytes);
        if let Some(number) = ends {
            digests.push((number, state.clone().finalize().into()));
        }
        after.keep(state);
        let Some(file) = file else { return Ok(()) };
        file.write(from, bytes).map_err(|error| ReadError::place(&file.head.path, "write the file", error))?;
        self.shared.bytes.fetch_add(bytes.len() as u64, Relaxed);
        // The last piece ends the file.
        file.end_pieces(self.shared, 1 + usize::from(ends.is_some()))
            .map_err(|error| ReadError::place(&file.head.path, "bring the file into its place", error))
    }

    /// The open directory of an entry, made where it is missing.
    fn parent(&mut self, at: &Spot) -> Result<&OwnedFd, Errno> {
        let (parent, _) = split(&at.path);
        let known = self.directory.take().filter(|(root, known, _)| *root == at.root && known == parent);
        let directory = match known {
            Some(known) => known,
            None => (at.root, parent.to_vec(), self.shared.roots[at.root].make(parent, IMPLIED_MODE)?),
        };
        Ok(&self.directory.insert(directory).2)
    }
}
