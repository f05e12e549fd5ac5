//! A git directory that may be a stranger's: everything of it is reached beneath it, through no link, as regular files
//! of a bounded length, and without waiting for a writer.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use navvy_archive::beneath::Root;
use navvy_plain_file as plain_file;
use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

use super::{CheckoutError, Elsewhere};

/// Bytes of a file that git writes one line into.
pub(super) const LINE: u64 = 8 << 10;
/// Bytes of lists, states and settings.
pub(super) const TEXT: u64 = 16 << 20;
/// Bytes of files that grow with the repository: its index, its packed refs.
pub(super) const LARGE: u64 = 128 << 20;

/// An open git directory, or its `objects`.
#[derive(Debug, Clone)]
pub(super) struct GitDir {
    path: PathBuf,
    root: Arc<Root>,
    elsewhere: Elsewhere,
}

/// What a name in a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Other(&'static str),
}

impl GitDir {
    /// The directory itself may be reached through links: who asks for it has looked.
    pub(super) fn open(path: &Path, elsewhere: Elsewhere) -> Result<Self, CheckoutError> {
        let root = Root::open(path).map_err(CheckoutError::read(path))?;
        Ok(Self { path: path.to_owned(), root: Arc::new(root), elsewhere })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The content of a file; `None` if there is none.
    pub(super) fn read(&self, name: impl AsRef<[u8]>, most: u64) -> Result<Option<Vec<u8>>, CheckoutError> {
        let name = name.as_ref();
        let Some((file, _)) = self.file(name)? else { return Ok(None) };
        match plain_file::rest(file, most) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(source) => Err(CheckoutError::Read { path: self.join(name), source }),
        }
    }

    /// Like [`Self::read`], of a long file its end.
    pub(super) fn tail(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, CheckoutError> {
        let Some((mut file, meta)) = self.file(name.as_bytes())? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = io::Seek::seek(&mut file, io::SeekFrom::Start(meta.len().saturating_sub(most)))
            .and_then(|_| io::Read::read_to_end(&mut io::Read::take(file, most), &mut bytes));
        read.map_err(CheckoutError::read(self.join(name.as_bytes())))?;
        Ok(Some(bytes))
    }

    /// An open regular file; `None` if there is none.
    pub(super) fn file(&self, name: &[u8]) -> Result<Option<(File, Metadata)>, CheckoutError> {
        let opened = match self.elsewhere {
            Elsewhere::Refused => self.root.open_file(name).map(File::from).map_err(io::Error::from),
            Elsewhere::Followed => plain_file::open(&self.join(name)),
        };
        match opened.and_then(|file| file.metadata().map(|meta| (file, meta))) {
            Ok((file, meta)) if meta.is_file() => Ok(Some((file, meta))),
            Ok((_, meta)) => {
                let what = plain_file::name_of(meta.file_type()).to_owned();
                Err(CheckoutError::NotPlain { path: self.join(name), what })
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.refused(name, error)),
        }
    }

    /// Names in a directory, sorted; none if there is no such directory.
    pub(super) fn list(&self, name: &str) -> Result<Vec<(OsString, Kind)>, CheckoutError> {
        let opened = match self.elsewhere {
            Elsewhere::Refused => self.root.read(name.as_bytes()),
            Elsewhere::Followed => Root::open(&self.join(name.as_bytes()))
                .and_then(|root| Ok(root.read(b"")?))
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        };
        let failed = |error: Errno| self.refused(name.as_bytes(), error.into());
        let directory = match opened {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                let kind = self.kind(&directory, entry.file_name(), entry.file_type());
                names.push((name, kind));
            }
        }
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(names)
    }

    fn kind(&self, directory: impl std::os::fd::AsFd, name: &std::ffi::CStr, told: FileType) -> Kind {
        use rustix::fs::{AtFlags, statat};
        let follows = self.elsewhere == Elsewhere::Followed && told == FileType::Symlink;
        let flags = if follows { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let told = match told {
            // Some file systems do not say.
            FileType::Unknown | FileType::Symlink if told == FileType::Unknown || follows => {
                statat(directory, name, flags).map_or(told, |stat| FileType::from_raw_mode(stat.st_mode))
            }
            known => known,
        };
        match told {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Other("a symbolic link"),
            FileType::Fifo => Kind::Other("a named pipe"),
            FileType::Socket => Kind::Other("a socket"),
            _ => Kind::Other("a device"),
        }
    }

    /// Names of the regular files in a directory.
    pub(super) fn files(&self, name: &str) -> Result<Vec<Vec<u8>>, CheckoutError> {
        let names = self.list(name)?.into_iter().filter(|(_, kind)| *kind == Kind::File);
        Ok(names.map(|(name, _)| name.into_vec()).collect())
    }

    pub(super) fn has_directory(&self, name: &str) -> bool {
        match self.elsewhere {
            Elsewhere::Refused => self.root.enter(name.as_bytes()).is_ok(),
            Elsewhere::Followed => self.join(name.as_bytes()).is_dir(),
        }
    }

    /// One of its directories, as one of its own.
    pub(super) fn directory(&self, name: &str) -> Result<Self, CheckoutError> {
        let path = self.join(name.as_bytes());
        if self.elsewhere == Elsewhere::Followed {
            return Self::open(&path, self.elsewhere);
        }
        let opened = self.root.read(name.as_bytes()).map_err(|error| self.refused(name.as_bytes(), error.into()))?;
        Ok(Self { path, root: Arc::new(Root::from(opened)), elsewhere: self.elsewhere })
    }

    /// That there is nothing in a directory of objects which git would follow elsewhere, or wait for.
    pub(super) fn check_objects(&self) -> Result<(), CheckoutError> {
        if self.elsewhere == Elsewhere::Followed {
            return Ok(());
        }
        self.check_below(String::new(), 3)
    }

    fn check_below(&self, name: String, depth: usize) -> Result<(), CheckoutError> {
        for (entry, kind) in self.list(&name)? {
            let entry = if name.is_empty() {
                entry.to_string_lossy().into_owned()
            } else {
                format!("{name}/{}", entry.to_string_lossy())
            };
            match kind {
                Kind::File => {}
                Kind::Directory if depth > 0 => self.check_below(entry, depth - 1)?,
                Kind::Directory => {}
                Kind::Other(what) => {
                    return Err(CheckoutError::NotPlain { path: self.join(entry.as_bytes()), what: what.to_owned() });
                }
            }
        }
        Ok(())
    }

    pub(super) fn join(&self, name: &[u8]) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(name))
    }

    fn refused(&self, name: &[u8], source: io::Error) -> CheckoutError {
        let path = self.join(name);
        let is_link = || std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink());
        match source.raw_os_error() {
            Some(libc::ENOTDIR) if is_link() => CheckoutError::NotPlain { path, what: "a symbolic link".to_owned() },
            Some(libc::ELOOP | libc::EXDEV) => CheckoutError::NotPlain { path, what: "a symbolic link".to_owned() },
            // A socket cannot even be opened.
            Some(libc::ENXIO) => CheckoutError::NotPlain { path, what: "a socket".to_owned() },
            _ => CheckoutError::Read { path, source },
        }
    }
}

/// Gone, or something else is in its place.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
