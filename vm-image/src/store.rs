//! The images of this machine: a directory each.
//!
//! ```text
//! made in IMAGES/.making-… ─▶ renamed to IMAGES/NAME ─▶ looked up, verified, used ─▶ renamed to IMAGES/.making-…, removed
//! ```
//!
//! Nothing half-made has an image's name, and nothing half-removed keeps it: whoever looks sees a whole image or none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{At as _, ImageError};
use crate::lock::{self, Held};
use crate::making::Making;
use crate::manifest::{self, Manifest};
use crate::name::is_name;
use crate::{in_use, verify};

/// Where images are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    directory: PathBuf,
}

/// An image that is here. Its files are as its manifest says once [`Image::verify`] has said so.
#[derive(Debug, Clone)]
pub struct Image {
    /// Where its files are.
    pub directory: PathBuf,
    /// What it is.
    pub manifest: Manifest,
    /// SHA-256 of its manifest, in hex: two images are the same if and only if it is.
    pub digest: String,
    /// As long as a copy of this lives, the image is neither replaced nor removed.
    _held: Option<Arc<Held>>,
}

/// What stands in the store under a name.
#[derive(Debug)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// The image, or why there is none.
    pub image: Result<Image, ImageError>,
}

impl Images {
    /// Those of this directory, which need not be there.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Those that the environment names: `$NAVVY_IMAGES`, else `$XDG_DATA_HOME/navvy/images`, else `/var/lib/navvy/images` for
    /// uid 0 and `~/.local/share/navvy/images` for everybody else.
    ///
    /// # Errors
    /// There is no such place.
    pub fn of(variables: &BTreeMap<String, String>, is_root: bool) -> Result<Self, ImageError> {
        let set = |name: &str| variables.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let data = || set("XDG_DATA_HOME").map(|data| data.join("navvy/images"));
        let system = || is_root.then(|| PathBuf::from("/var/lib/navvy/images"));
        let home = || set("HOME").map(|home| home.join(".local/share/navvy/images"));
        set("NAVVY_IMAGES").or_else(data).or_else(system).or_else(home).map(Self::at).ok_or(ImageError::NoPlace)
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is in the store, by name. Its files are not read.
    ///
    /// # Errors
    /// The store is there and cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, ImageError> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).at("read", &self.directory),
        };
        let mut listed = Vec::new();
        for entry in entries {
            let name = entry.at("read", &self.directory)?.file_name().to_string_lossy().into_owned();
            if is_name(&name) {
                let image = self.get(&name);
                listed.push(Listed { name, image });
            }
        }
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    /// The image of this name, held: hold it (or a copy) until the machine's process has opened its files.
    ///
    /// # Errors
    /// There is none, or what is there is none.
    pub fn get(&self, name: &str) -> Result<Image, ImageError> {
        self.check_there(name)?;
        let held = lock::shared(&self.directory, name)?.map(Arc::new);
        // Once more: until it was held it could be removed.
        self.check_there(name)?;
        let directory = self.directory.join(name);
        let (manifest, digest) = manifest::read(&directory, name)?;
        Ok(Image { directory, manifest, digest, _held: held })
    }

    /// Whether something has this name.
    pub fn has(&self, name: &str) -> bool {
        is_name(name) && self.directory.join(name).symlink_metadata().is_ok()
    }

    fn check_there(&self, name: &str) -> Result<(), ImageError> {
        if !is_name(name) {
            return Err(ImageError::Name(name.to_owned()));
        }
        let directory = self.directory.join(name);
        match directory.symlink_metadata() {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(ImageError::Damaged { name: name.to_owned(), why: "it is no directory".into() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(ImageError::Missing { name: name.to_owned(), place: self.directory.clone() })
            }
            Err(error) => Err(error).at("look at", &directory),
        }
    }

    /// An empty directory in the store, for what is being made.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn making(&self) -> Result<Making, ImageError> {
        Making::new(&self.directory)
    }

    /// Takes the right to make or change this image.
    ///
    /// # Errors
    /// Somebody else has it.
    pub fn alone(&self, name: &str) -> Result<Alone<'_>, ImageError> {
        if !is_name(name) {
            return Err(ImageError::Name(name.to_owned()));
        }
        let held = lock::alone(&self.directory, name)?;
        Ok(Alone { images: self, name: name.to_owned(), _held: held })
    }

    /// Removes an image that no machine uses.
    ///
    /// # Errors
    /// There is none; a machine uses it; it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), ImageError> {
        self.alone(name)?.remove()
    }
}

/// The right to make or change an image.
#[derive(Debug)]
pub struct Alone<'a> {
    images: &'a Images,
    name: String,
    _held: Held,
}

impl Alone<'_> {
    /// Puts what has been made in the image's place. A machine that runs goes on with the files that it has open.
    ///
    /// # Errors
    /// It cannot be put there; what was there before is there still.
    pub fn put(&self, made: Making) -> Result<(), ImageError> {
        let place = self.images.directory.join(&self.name);
        let from = made.path().to_owned();
        sync(&from)?;
        let before = self.set_aside()?;
        let put = std::fs::rename(&from, &place).at("rename", &from);
        match (&put, before) {
            (Ok(()), _) => _ = made.keep(),
            (Err(_), Some(before)) => std::fs::rename(before.path().join(&self.name), &place).at("put back", &place)?,
            (Err(_), None) => {}
        }
        put?;
        verify::forget(&self.images.directory, &self.name);
        Ok(())
    }

    /// Moves what is there out of the way; it goes when the directory is dropped.
    fn set_aside(&self) -> Result<Option<Making>, ImageError> {
        let place = self.images.directory.join(&self.name);
        if place.symlink_metadata().is_err() {
            return Ok(None);
        }
        let aside = self.images.making()?;
        std::fs::rename(&place, aside.path().join(&self.name)).at("move", &place)?;
        Ok(Some(aside))
    }

    fn remove(&self) -> Result<(), ImageError> {
        self.images.check_there(&self.name)?;
        if in_use::by_a_machine(&self.images.directory.join(&self.name))? {
            return Err(ImageError::Busy { name: self.name.clone(), by: "a machine runs from it" });
        }
        let aside = self.set_aside()?;
        verify::forget(&self.images.directory, &self.name);
        aside.map_or(Ok(()), |aside| aside.close().at("remove", &self.images.directory.join(&self.name)))
    }
}

impl Image {
    /// The root disk: a qcow2 file for overlays to stand on.
    pub fn root(&self) -> PathBuf {
        self.directory.join(&self.manifest.root.name)
    }

    /// The uncompressed kernel.
    pub fn kernel(&self) -> PathBuf {
        self.directory.join(&self.manifest.kernel.name)
    }

    /// The initial file system.
    pub fn initrd(&self) -> PathBuf {
        self.directory.join(&self.manifest.initrd.name)
    }

    /// Whether its files are as its manifest says. They are read when they have changed since the last time, and not else.
    ///
    /// # Errors
    /// One of them is not.
    pub fn verify(&self) -> Result<(), ImageError> {
        verify::verify(self, verify::Memory::Believed)
    }

    /// The same, by reading all of them.
    ///
    /// # Errors
    /// One of them is not.
    pub fn verify_thoroughly(&self) -> Result<(), ImageError> {
        verify::verify(self, verify::Memory::Ignored)
    }
}

/// On disk, before it gets its name: whoever finds an image after a crash of this machine finds all of it.
fn sync(directory: &Path) -> Result<(), ImageError> {
    for entry in std::fs::read_dir(directory).at("read", directory)? {
        let path = entry.at("read", directory)?.path();
        std::fs::File::open(&path).and_then(|file| file.sync_all()).at("sync", &path)?;
    }
    std::fs::File::open(directory).and_then(|file| file.sync_all()).at("sync", directory)
}

#[cfg(test)]
mod tests;
