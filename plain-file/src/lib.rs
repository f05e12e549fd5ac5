//! The one way to read a whole file that may have been put there by another user.
//!
//! It is a regular file, however it is called: the writer of a pipe is not waited for, and no device is read. It is not
//! longer than the caller says, even if it claims to be shorter. A file that came with a project is also one of the project: a
//! link that leads out of it would have us read what its author cannot.
//!
//! [`claim`] is the one way to lock a file that others look at, [`directory`] the one to list a directory that may be missing.

#![warn(missing_docs)]

pub mod claim;
pub mod directory;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The content of a file of the user's own, which may be a link to one.
///
/// # Errors
/// It cannot be read, is no regular file, or is longer.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    rest(open(path)?, most)
}

/// The same as text.
///
/// # Errors
/// The same; [`io::ErrorKind::InvalidData`] if it is no UTF-8.
pub fn text(path: &Path, most: u64) -> io::Result<String> {
    utf8(read(path, most)?)
}

/// Like [`text`], of a file that came with a project and is to be no link at all.
///
/// # Errors
/// The same, and a link.
pub fn text_without_link(path: &Path, most: u64) -> io::Result<String> {
    let file =
        options().custom_flags(FLAGS | libc::O_NOFOLLOW).open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => io::Error::other("it is a symbolic link, which is not followed"),
            _ => error,
        });
    utf8(rest(regular(file?)?, most)?)
}

/// Like [`text`], for a file that a person named on the command line: a pipe that was given to this process, as in
/// `--env-file <(…)`, is theirs to wait for.
///
/// # Errors
/// The same.
pub fn given_text(path: &Path, most: u64) -> io::Result<String> {
    utf8(rest(given(path)?, most)?)
}

/// Opens a file that a person named, see [`given_text`].
///
/// # Errors
/// It cannot be opened, or is no regular file.
pub fn given(path: &Path) -> io::Result<File> {
    let handed = path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd") || path == Path::new("/dev/stdin");
    if handed { File::open(path) } else { open(path) }
}

/// Where a file of `project` lies, links followed.
///
/// # Errors
/// It is not there, or a link leads out of the project.
pub fn within(project: &Path, path: &Path) -> io::Result<PathBuf> {
    let real = path.canonicalize()?;
    if real.starts_with(project.canonicalize()?) {
        return Ok(real);
    }
    Err(io::Error::other(format!("it is a link to {}, which leads out of {}", real.display(), project.display())))
}

/// Whether `path` names this very file, and not another that was put there since it was opened.
///
/// # Errors
/// Nothing is there, or it cannot be looked at.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (ours, there) = (file.metadata()?, path.symlink_metadata()?);
    Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino()))
}

/// Opens a regular file.
///
/// # Errors
/// It cannot be opened, or is something else.
pub fn open(path: &Path) -> io::Result<File> {
    regular(options().custom_flags(FLAGS).open(path)?)
}

fn options() -> std::fs::OpenOptions {
    let mut options = File::options();
    options.read(true);
    options
}

/// A pipe that is called like a file may never get a writer.
const FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

/// The file, if it is a regular one.
///
/// # Errors
/// What it is instead.
pub fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() { Ok(file) } else { Err(io::Error::other(format!("it is {}, not a file", name_of(kind)))) }
}

/// All that is left of an open file, if that is not more than `most` bytes.
///
/// # Errors
/// It cannot be read, or there is more.
pub fn rest(file: File, most: u64) -> io::Result<Vec<u8>> {
    // What says that it is longer need not be read to be refused.
    if file.metadata()?.len() > most {
        return Err(too_long(most));
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_long(most)) } else { Ok(bytes) }
}

fn too_long(most: u64) -> io::Error {
    let shown = if most >= 1 << 20 { format!("{} MiB", most >> 20) } else { format!("{most} bytes") };
    io::Error::other(format!("it is longer than {shown}"))
}

fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// What something is that is no regular file.
pub fn name_of(kind: std::fs::FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_but_a_bounded_regular_file_is_read() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        let why = |name: &str| read(&at(name), 10).unwrap_err().to_string();
        std::fs::write(at("ten"), "0123456789").unwrap();
        std::fs::write(at("eleven"), "0123456789x").unwrap();
        symlink("/dev/zero", at("endless")).unwrap();
        symlink("ten", at("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(read(&at("ten"), 10).unwrap(), b"0123456789");
        assert_eq!(read(&at("link"), 10).unwrap(), b"0123456789");
        assert_eq!(why("eleven"), "it is longer than 10 bytes");
        assert_eq!(why("endless"), "it is a device, not a file");
        assert_eq!(why("pipe"), "it is a named pipe, not a file");
        assert_eq!(why("."), "it is a directory, not a file");
        // What the kernel makes up has no length that it could be judged by.
        assert_eq!(read(Path::new("/proc/self/maps"), 10).unwrap_err().to_string(), "it is longer than 10 bytes");
    }

    #[test]
    fn a_link_stays_within_the_project() {
        let outside = tempfile::tempdir().unwrap();
        let top = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "").unwrap();
        std::fs::write(top.path().join("file"), "").unwrap();
        symlink("file", top.path().join("in")).unwrap();
        symlink(outside.path().join("secret"), top.path().join("out")).unwrap();
        assert!(within(top.path(), &top.path().join("in")).is_ok());
        let error = within(top.path(), &top.path().join("out")).unwrap_err().to_string();
        assert!(error.contains("leads out of"), "{error}");
    }

    #[test]
    fn a_pipe_that_was_given_to_this_process_is_read() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        io::Write::write_all(&mut writer, b"A=1\n").unwrap();
        drop(writer);
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        assert_eq!(given_text(Path::new(&path), 10).unwrap(), "A=1\n");
    }
}
