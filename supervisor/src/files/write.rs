//! A file from the agent: whole or not at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use navvy_protocol::supervisor::{Failure, Reply};

use super::data::Receiver;
use crate::failure;

/// Permission bits, without those that would run the file with its owner's rights.
const MODES: u32 = 0o777;

pub fn receive(path: &str, mode: u32, receiver: &mut Receiver<'_>) -> Result<Reply, Failure> {
    let result = replace(Path::new(path), mode, receiver);
    if result.is_err() {
        // The caller went away in the middle: no answer is needed.
        let _ = receiver.skip();
    }
    result.map_err(|error| failure::of(&error, format_args!("write {path:?}")))?;
    Ok(Reply::Done)
}

fn replace(path: &Path, mode: u32, receiver: &mut Receiver<'_>) -> io::Result<()> {
    let (temporary, file) = beside(path)?;
    let written = fill(file, mode, receiver).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // What cannot be removed either is a small hidden file.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn fill(mut file: File, mode: u32, receiver: &mut Receiver<'_>) -> io::Result<()> {
    io::copy(receiver, &mut file)?;
    file.set_permissions(PermissionsExt::from_mode(mode & MODES))
}

/// A new file in the same directory, so that rename is atomic.
fn beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    for number in 0..100 {
        let mut hidden = std::ffi::OsString::from(format!(".navvy-{}-{number}-", std::process::id()));
        // A name may have 255 bytes; ours keeps the beginning, so that a person who finds it knows what it was.
        hidden.push(std::ffi::OsStr::new(&*name.to_string_lossy().chars().take(50).collect::<String>()));
        let temporary = path.with_file_name(hidden);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|file| (temporary, file)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
