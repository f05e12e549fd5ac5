//! What is being made: directories that go when their maker does, and that the next maker removes if theirs was killed.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::error::{At as _, ImageError};
use crate::lock;

/// How directories are called that are no image yet, or none any more.
const PREFIX: &str = ".making-";
/// Held while one is made and locked: nobody takes it for one that was left in between.
const LOCK: &str = ".making";

/// An empty directory in the store, on the same file system as the images; it goes when this is dropped.
#[derive(Debug)]
pub struct Making {
    directory: TempDir,
    /// Locked as long as its maker lives.
    _alive: File,
}

impl Making {
    /// Makes one, and removes those that dead makers left.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(images: &Path) -> Result<Self, ImageError> {
        std::fs::create_dir_all(images).at("make", images)?;
        let _one_at_a_time = lock::wait(images, LOCK)?;
        sweep(images);
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(images).at("make a directory in", images)?;
        let alive = File::open(directory.path()).at("open", directory.path())?;
        flock(&alive, FlockOperation::NonBlockingLockExclusive).at("lock", directory.path())?;
        Ok(Self { directory, _alive: alive })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// It has another name by now, and stays.
    pub(crate) fn keep(self) -> PathBuf {
        self.directory.keep()
    }

    /// Removes it.
    pub(crate) fn close(self) -> std::io::Result<()> {
        self.directory.close()
    }
}

/// Removes what makers left that were killed. What cannot be removed is left to the next one.
fn sweep(images: &Path) {
    let Ok(entries) = std::fs::read_dir(images) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let left =
            |path: &Path| File::open(path).is_ok_and(|it| flock(&it, FlockOperation::NonBlockingLockExclusive).is_ok());
        if is_ours && is_directory && left(&entry.path()) {
            _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_maker_left_goes_and_what_a_living_one_makes_stays() {
        let images = tempfile::tempdir().unwrap();
        let left = images.path().join(".making-left");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("root.qcow2"), "half").unwrap();
        let living = Making::new(images.path()).unwrap();
        assert!(!left.exists());
        let other = Making::new(images.path()).unwrap();
        assert!(living.path().is_dir() && other.path().is_dir());
        let (one, two) = (living.path().to_owned(), other.path().to_owned());
        drop((living, other));
        assert!(!one.exists() && !two.exists());
    }
}
