//! An image made of what somebody gives: a disk (qcow2, raw), or a tar archive of an image's directory.
//!
//! ```text
//! FILE ─▶ copied into the store ─▶ its head names no other file? ─▶ qemu-img writes a disk of ours ─▶ kernel, initrd ─▶ put
//! FILE.tar ─▶ four plain files, no other ─▶ manifest, digests, disk's head ─▶ put
//! ```
//!
//! The copy is looked at, and not the file: nobody can change it in between.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use navvy_plain_file as plain_file;

use crate::build::{describe, disk_size, finish, remembered};
use crate::error::{At as _, ImageError};
use crate::making::Making;
use crate::manifest::{self, Init, Manifest};
use crate::qcow2::{self, Form};
use crate::store::Images;
use crate::tools::{self, Stop};
use crate::verify;

/// Most seconds that a disk is copied.
const LIMIT: u32 = 3600;
/// No kernel and no initial file system is larger.
const LARGEST_PART: u64 = 1 << 30;
/// No disk is larger.
const LARGEST_DISK: u64 = 1 << 40;

/// What to import.
#[derive(Debug, Clone)]
pub struct Import {
    /// The disk or archive.
    pub file: PathBuf,
    /// How the image is called; an archive's manifest says so, too.
    pub name: Option<String>,
    /// An image of this machine whose kernel, initial file system, user and arguments it gets.
    pub like: Option<String>,
    /// An uncompressed kernel of its own.
    pub kernel: Option<PathBuf>,
    /// An initial file system of its own.
    pub initrd: Option<PathBuf>,
    /// What starts the supervisor in it.
    pub init: Option<Init>,
    /// The file system with the root, as in `/dev/vda1`.
    pub root_device: Option<String>,
    /// As whom steps run.
    pub user: Option<String>,
}

/// Imports an image and returns its name.
///
/// # Errors
/// The file cannot become one; there is an image of that name; something that it needs is not here.
pub fn import(images: &Images, wanted: &Import, stop: &Stop) -> Result<String, ImageError> {
    let file = plain_file::given(&wanted.file).at("open", &wanted.file)?;
    if is_archive(&file).at("read", &wanted.file)? {
        of_archive(images, wanted, file)
    } else {
        of_disk(images, wanted, file, stop)
    }
}

fn refuse(wanted: &Import, why: impl Into<String>) -> ImageError {
    ImageError::Import { file: wanted.file.clone(), why: why.into() }
}

fn is_archive(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let mut magic = [0; 5];
    match file.read_exact_at(&mut magic, 257) {
        Ok(()) => Ok(&magic == b"ustar"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Images are not replaced by accident.
fn check_free(images: &Images, wanted: &Import, name: &str) -> Result<(), ImageError> {
    if images.has(name) {
        return Err(refuse(
            wanted,
            format!(
                "there is an image {name} already: `navvy image rm {name}` removes it, `--name` gives another name"
            ),
        ));
    }
    Ok(())
}

fn of_disk(images: &Images, wanted: &Import, file: File, stop: &Stop) -> Result<String, ImageError> {
    let name =
        wanted.name.clone().ok_or_else(|| refuse(wanted, "`--name` does not say how the image is to be called"))?;
    let alone = images.alone(&name)?;
    check_free(images, wanted, &name)?;
    let made = images.making()?;
    copy_disk(images, wanted, file, &made, stop)?;
    let manifest = with_kernel(images, wanted, &name, &made)?;
    finish(made.path(), &manifest)?;
    manifest::read(made.path(), &name)?;
    alone.put(made)?;
    drop(alone);
    remembered(images, &name)?;
    Ok(name)
}

/// A disk of ours with what is in theirs.
fn copy_disk(images: &Images, wanted: &Import, mut file: File, made: &Making, stop: &Stop) -> Result<(), ImageError> {
    let bench = images.making()?;
    let copy = bench.path().join("disk");
    let mut copied = File::options().read(true).write(true).create_new(true).open(&copy).at("make", &copy)?;
    io::copy(&mut file, &mut copied).at("copy", &wanted.file)?;
    let form = qcow2::form(&copied).at("read", &copy)?.map_err(|why| refuse(wanted, why))?;
    if form == Form::Qcow2 && disk_size(&copy)? > LARGEST_DISK {
        return Err(refuse(wanted, format!("it says that it has {} bytes", disk_size(&copy)?)));
    }
    if !tools::missing(&["qemu-img"]).is_empty() {
        return Err(ImageError::NotHere("qemu-img is missing; on Debian: apt-get install qemu-utils".into()));
    }
    let root = made.path().join(manifest::ROOT);
    let words =
        [OsStr::new("convert"), OsStr::new("-f"), OsStr::new(form.word()), OsStr::new("-O"), OsStr::new("qcow2")];
    let words: Vec<&OsStr> = words.into_iter().chain([copy.as_os_str(), root.as_os_str()]).collect();
    tools::run(Path::new("qemu-img"), &words, false, LIMIT, stop, &|_| {}).map_err(|why| refuse(wanted, why))
}

/// Kernel and initial file system: those that were named, else those of another image.
fn with_kernel(images: &Images, wanted: &Import, name: &str, made: &Making) -> Result<Manifest, ImageError> {
    let like = wanted.like.as_deref().map(|like| images.get(like)).transpose()?;
    if let Some(like) = &like {
        like.verify()?;
    }
    let none = || {
        refuse(
            wanted,
            "a machine's kernel and initial file system are not part of a disk: `--like IMAGE` takes those of an image that is here, `--kernel` and `--initrd` name others",
        )
    };
    let kernel = wanted.kernel.clone().or(like.as_ref().map(|like| like.kernel())).ok_or_else(none)?;
    let initrd = wanted.initrd.clone().or(like.as_ref().map(|like| like.initrd())).ok_or_else(none)?;
    copy_part(&kernel, &made.path().join(manifest::KERNEL))?;
    copy_part(&initrd, &made.path().join(manifest::INITRD))?;
    let theirs = like.as_ref().map(|like| &like.manifest);
    let architecture = theirs.map_or(std::env::consts::ARCH, |theirs| &theirs.architecture);
    check_kernel(wanted, &made.path().join(manifest::KERNEL), architecture)?;
    let mut arguments = theirs.map_or_else(String::new, |theirs| theirs.arguments.clone());
    if let Some(device) = &wanted.root_device {
        arguments.push_str(&format!(" navvy.root={device}"));
    }
    Ok(Manifest {
        version: Manifest::VERSION,
        name: name.to_owned(),
        recipe: "imported".into(),
        inputs: String::new(),
        architecture: architecture.to_owned(),
        init: wanted.init.or(theirs.map(|theirs| theirs.init)).unwrap_or(Init::Own),
        docker: None,
        user: wanted.user.clone().or(theirs.map(|theirs| theirs.user.clone())).unwrap_or_else(|| "circleci".into()),
        supervisor: theirs.map_or_else(|| "unknown".into(), |theirs| theirs.supervisor.clone()),
        root: describe(made.path(), manifest::ROOT)?,
        root_size: disk_size(&made.path().join(manifest::ROOT))?,
        kernel: describe(made.path(), manifest::KERNEL)?,
        initrd: describe(made.path(), manifest::INITRD)?,
        arguments: arguments.trim().to_owned(),
        packages: BTreeMap::new(),
    })
}

fn copy_part(from: &Path, to: &Path) -> Result<(), ImageError> {
    let file = plain_file::given(from).at("open", from)?;
    let mut copied = File::create_new(to).at("make", to)?;
    let bytes = io::copy(&mut file.take(LARGEST_PART + 1), &mut copied).at("copy", from)?;
    if bytes > LARGEST_PART {
        return Err(ImageError::Import {
            file: from.to_owned(),
            why: format!("it is longer than {LARGEST_PART} bytes"),
        });
    }
    Ok(())
}

/// QEMU starts an x86 kernel by its ELF header.
fn check_kernel(wanted: &Import, kernel: &Path, architecture: &str) -> Result<(), ImageError> {
    let mut magic = [0; 4];
    let read = File::open(kernel).and_then(|mut file| file.read_exact(&mut magic));
    if architecture == "x86_64" && (read.is_err() || &magic != b"\x7fELF") {
        return Err(refuse(wanted, "its kernel is not an uncompressed one (an ELF file, `vmlinux`)"));
    }
    Ok(())
}

/// An image's directory as a tar archive.
fn of_archive(images: &Images, wanted: &Import, file: File) -> Result<String, ImageError> {
    let made = images.making()?;
    unpack(wanted, file, &made)?;
    let text = std::fs::read(made.path().join(manifest::FILE)).at("read", &wanted.file)?;
    let theirs: Manifest =
        serde_json::from_slice(&text).map_err(|error| refuse(wanted, format!("its manifest: {error}")))?;
    let name = wanted.name.clone().unwrap_or_else(|| theirs.name.clone());
    let alone = images.alone(&name)?;
    check_free(images, wanted, &name)?;
    let manifest = Manifest { name: name.clone(), ..theirs };
    finish(made.path(), &manifest)?;
    let named = |error: ImageError| refuse(wanted, error.to_string());
    let (manifest, _) = manifest::read(made.path(), &name).map_err(named)?;
    for file in manifest.files() {
        verify::check_file(made.path(), &name, file).map_err(named)?;
    }
    let root = made.path().join(&manifest.root.name);
    match qcow2::form(&File::open(&root).at("open", &root)?).at("read", &root)? {
        Ok(Form::Qcow2) => {}
        Ok(Form::Raw) => return Err(refuse(wanted, "its root disk is no qcow2 disk")),
        Err(why) => return Err(refuse(wanted, format!("its root disk: {why}"))),
    }
    if disk_size(&root)? != manifest.root_size {
        return Err(refuse(wanted, "its root disk has another size than its manifest says"));
    }
    alone.put(made)?;
    drop(alone);
    remembered(images, &name)?;
    Ok(name)
}

/// Plain files of an image's names, each once, and nothing else.
fn unpack(wanted: &Import, file: File, made: &Making) -> Result<(), ImageError> {
    let broken = |error: io::Error| refuse(wanted, format!("it is no whole tar archive: {error}"));
    let mut archive = tar::Archive::new(file);
    let mut has_manifest = false;
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_known = [manifest::FILE, manifest::ROOT, manifest::KERNEL, manifest::INITRD].contains(&name.as_str());
        if !is_known || !entry.header().entry_type().is_file() || path.components().count() > 3 {
            return Err(refuse(
                wanted,
                format!("{} is no file of an image", crate::name::shown(&path.to_string_lossy())),
            ));
        }
        let to = made.path().join(&name);
        let mut copied = File::create_new(&to)
            .map_err(|error| refuse(wanted, format!("{name} is in it twice, or cannot be written: {error}")))?;
        has_manifest |= name == manifest::FILE;
        let most = if name == manifest::FILE { 1 << 20 } else { LARGEST_DISK };
        if io::copy(&mut entry.take(most + 1), &mut copied).map_err(broken)? > most {
            return Err(refuse(wanted, format!("its {name} is too long")));
        }
    }
    if has_manifest { Ok(()) } else { Err(refuse(wanted, format!("it has no {}", manifest::FILE))) }
}

#[cfg(test)]
mod tests;
