//! Who may do what with an image: those who start from it share it, whoever changes it is alone.
//!
//! A lock is a `flock` on `IMAGES/.locks/NAME`, so it is gone with its holder. The file stays: whoever removed it would have
//! two holders of one lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use navvy_plain_file::claim::{claim, share};

use crate::error::{At as _, ImageError};

/// Held until it is dropped.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "it is kept open, which is all")] File);

fn open(images: &Path, name: &str) -> Result<File, ImageError> {
    let locks = images.join(".locks");
    std::fs::create_dir_all(&locks).at("make", &locks)?;
    let path = locks.join(name);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o644);
    options.custom_flags(libc_flags());
    options.open(&path).at("open", &path)
}

/// Never through a link.
fn libc_flags() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

/// Shared with others who start from the image; `None` in a store that this user may only read, where nobody of theirs changes it.
///
/// # Errors
/// It is being changed.
pub fn shared(images: &Path, name: &str) -> Result<Option<Held>, ImageError> {
    let file = match open(images, name) {
        Ok(file) => file,
        Err(ImageError::Io { source, .. }) if is_read_only(&source) => return read_only(images, name),
        Err(error) => return Err(error),
    };
    taken(share(&file), file, images, name, "it is being made anew or removed").map(Some)
}

/// A shared lock needs no right to write, where the file is there.
fn read_only(images: &Path, name: &str) -> Result<Option<Held>, ImageError> {
    let Ok(file) = File::open(images.join(".locks").join(name)) else { return Ok(None) };
    taken(share(&file), file, images, name, "it is being made anew or removed").map(Some)
}

/// Alone.
///
/// # Errors
/// Somebody else has it.
pub fn alone(images: &Path, name: &str) -> Result<Held, ImageError> {
    let file = open(images, name)?;
    taken(claim(&file), file, images, name, "another process makes it, or starts a machine from it")
}

fn taken(
    locked: Result<(), TryLockError>,
    file: File,
    images: &Path,
    name: &str,
    by: &'static str,
) -> Result<Held, ImageError> {
    match locked {
        Ok(()) => Ok(Held(file)),
        Err(TryLockError::WouldBlock) => Err(ImageError::Busy { name: name.to_owned(), by }),
        Err(TryLockError::Error(error)) => Err(error).at("lock", &images.join(".locks").join(name)),
    }
}

fn is_read_only(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem)
}

/// Waits until it has it alone: for what takes a moment.
///
/// # Errors
/// It cannot be locked.
pub fn wait(images: &Path, name: &str) -> Result<Held, ImageError> {
    let file = open(images, name)?;
    file.lock().at("lock", &images.join(".locks").join(name))?;
    Ok(Held(file))
}
