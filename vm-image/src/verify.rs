//! Whether an image's files are what its manifest says.
//!
//! Reading them takes seconds, and a machine is to start in one. So it is written down what was read: which file (device, inode), how long,
//! when changed. A file of which any of that is different is read again. The time of change (ctime) cannot be set back by who replaces one.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use navvy_plain_file as plain_file;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{At as _, ImageError};
use crate::manifest::{File, hex};
use crate::store::Image;

/// Whether what was written down counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// It does.
    Believed,
    /// Everything is read.
    Ignored,
}

/// A file that was read, as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    sha256: String,
}

impl Seen {
    fn of(metadata: &Metadata, sha256: &str) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            sha256: sha256.to_owned(),
        }
    }
}

/// Every file of the image is one that was seen to be what its manifest says.
///
/// # Errors
/// One of them is not.
pub fn verify(image: &Image, memory: Memory) -> Result<(), ImageError> {
    let notes = notes(image);
    let before = match memory {
        Memory::Believed => notes.as_deref().map(read_notes).unwrap_or_default(),
        Memory::Ignored => BTreeMap::new(),
    };
    let mut after = BTreeMap::new();
    for file in image.manifest.files() {
        let seen = check(&image.directory, &image.manifest.name, file, before.get(&file.name))?;
        after.insert(file.name.clone(), seen);
    }
    if let Some(notes) = notes.filter(|_| after != before) {
        // Where nothing can be written down, all is read the next time.
        _ = write_notes(&notes, &after);
    }
    Ok(())
}

/// What was written down of an image that is not there any more.
pub fn forget(images: &Path, name: &str) {
    _ = std::fs::remove_file(images.join(".verified").join(name));
}

fn notes(image: &Image) -> Option<PathBuf> {
    Some(image.directory.parent()?.join(".verified").join(&image.manifest.name))
}

fn read_notes(path: &Path) -> BTreeMap<String, Seen> {
    let text = plain_file::text_without_link(path, 1 << 16).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn write_notes(path: &Path, seen: &BTreeMap<String, Seen>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    serde_json::to_writer(&mut file, seen)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// A file is what a manifest says.
pub(crate) fn check_file(directory: &Path, name: &str, file: &File) -> Result<(), ImageError> {
    check(directory, name, file, None).map(drop)
}

fn check(directory: &Path, name: &str, file: &File, before: Option<&Seen>) -> Result<Seen, ImageError> {
    let path = directory.join(&file.name);
    let damaged = |why: String| ImageError::Damaged { name: name.to_owned(), why };
    let mut options = std::fs::OpenOptions::new();
    options.read(true).custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed());
    let opened = options.open(&path).map_err(|error| damaged(format!("failed to open {}: {error}", path.display())))?;
    let metadata = opened.metadata().at("look at", &path)?;
    if !metadata.is_file() {
        return Err(damaged(format!("{} is no plain file", path.display())));
    }
    if metadata.len() != file.size {
        let (is, was) = (metadata.len(), file.size);
        return Err(damaged(format!("{} has {is} bytes, and {was} by its manifest", path.display())));
    }
    if let Some(before) = before.filter(|before| **before == Seen::of(&metadata, &file.sha256)) {
        return Ok(before.clone());
    }
    let sha256 = digest(opened).at("read", &path)?;
    if sha256 != file.sha256 {
        return Err(damaged(format!(
            "the digest of {} is {sha256}, and {} by its manifest",
            path.display(),
            file.sha256
        )));
    }
    // As it was before it was read: what is written meanwhile changes it.
    Ok(Seen::of(&metadata, &sha256))
}

/// SHA-256 of a file, in hex.
pub fn digest(mut file: std::fs::File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(read) => hash.update(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
