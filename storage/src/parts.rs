//! Uploads in parts to a directory, for those who have nothing but URLs. The directory's own writer can do without files of
//! parts, since it writes all of them itself.
//!
//! ```text
//! v1/part/body/ID/UPLOAD/            the upload is open
//! v1/part/body/ID/UPLOAD/PART#       a part, whole; PART#N while it is written
//! v1/body/ID#N                       all of them while they are joined
//! v1/body/ID                         renamed once it is whole and on the disk; then v1/part/body/ID goes
//! ```
//!
//! No listing shows a name with a `#`. An upload that is given up loses its directory in one step (it is renamed), so that a
//! part that arrives later finds no place.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::Error;

use super::objects::ObjectPath;
use super::private;

const DIRECTORY: &str = "v1/part";

/// A number for one writer alone.
fn random() -> String {
    format!("{:020}", uuid::Uuid::new_v4().as_u64_pair().1)
}

/// Where the uploads to an object are.
fn uploads(root: &FilePath, path: &ObjectPath) -> PathBuf {
    let (_, beneath) = path.as_str().split_once('/').unwrap_or_default();
    root.join(DIRECTORY).join(beneath)
}

/// Where one upload is. `None`: no upload has such an id.
fn upload_directory(root: &FilePath, path: &ObjectPath, upload: &str) -> Option<PathBuf> {
    let good = uuid::Uuid::try_parse(upload).is_ok_and(|id| id.as_simple().to_string() == upload);
    good.then(|| uploads(root, path).join(upload))
}

/// Where an object is written before it is whole: a sweep takes it for a file in the making.
pub(super) fn staged(root: &FilePath, path: &ObjectPath) -> PathBuf {
    root.join(format!("{path}#{}", random()))
}

/// Where a part belongs once it is whole, and where it is written before. `None`: no such upload is open.
pub(super) fn part(root: &FilePath, path: &ObjectPath, upload: &str, part: u32) -> Option<(PathBuf, PathBuf)> {
    let directory = upload_directory(root, path, upload).filter(|directory| directory.is_dir())?;
    Some((directory.join(format!("{part}#")), directory.join(format!("{part}#{}", random()))))
}

/// What the store says of a part.
pub(super) fn tag(length: u64) -> String {
    format!("\"{length}\"")
}

/// Works on files where that holds up no other task. It is carried to its end, whatever becomes of the caller.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await?
}

pub(super) async fn begin(root: PathBuf, path: ObjectPath) -> Result<String, Error> {
    blocking(move || {
        let upload = uuid::Uuid::new_v4().as_simple().to_string();
        let directory = uploads(&root, &path).join(&upload);
        fs::create_dir_all(&directory).map_err(of_files)?;
        private::close_directory(&root, &directory);
        Ok(upload)
    })
    .await
}

/// The uploads that are being joined. A large one takes longer than a caller waits: who asks again must not begin it again.
#[derive(Debug, Clone, Default)]
pub(super) struct Joining(Arc<Mutex<HashSet<String>>>);

impl Joining {
    fn set(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: it is being joined already.
    pub(super) fn begin(&self, upload: &str) -> Option<Joined> {
        let is_new = self.set().insert(upload.to_owned());
        is_new.then(|| Joined { joining: self.clone(), upload: upload.to_owned() })
    }
}

/// Ends with the work on it.
pub(super) struct Joined {
    joining: Joining,
    upload: String,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.joining.set().remove(&self.upload);
    }
}

/// Joins the parts, and ends the upload. Whoever asks again, since no answer came, finds the object.
pub(super) async fn complete(root: PathBuf, path: ObjectPath, joined: Joined, tags: Vec<String>) -> Result<(), Error> {
    blocking(move || {
        let upload = joined.upload.clone();
        let open = upload_directory(&root, &path, &upload).filter(|directory| directory.is_dir());
        let directory = open.ok_or_else(|| no_upload(&path))?;
        let staged = staged(&root, &path);
        make_parent(&staged).map_err(of_files)?;
        let ended = join(&directory, &tags, &staged).and_then(|()| finish(&root, &path, &staged));
        if ended.is_err() {
            fs::remove_file(&staged).ok();
            if !directory.is_dir() {
                // It was given up meanwhile.
                return Err(no_upload(&path));
            }
        }
        ended?;
        let removed = remove(&root, &directory).map_err(of_files);
        drop(joined);
        removed
    })
    .await
}

fn join(directory: &FilePath, tags: &[String], staged: &FilePath) -> Result<(), Error> {
    let mut whole = File::create_new(staged).map_err(of_files)?;
    for (number, said) in tags.iter().enumerate() {
        let missing = || generic(format!("part {number} was not put, or not as its tag says"));
        let mut file = match File::open(directory.join(format!("{number}#"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            file => file.map_err(of_files)?,
        };
        if tag(file.metadata().map_err(of_files)?.len()) != *said {
            return Err(missing());
        }
        io::copy(&mut file, &mut whole).map_err(of_files)?;
    }
    whole.sync_all().map_err(of_files)
}

pub(super) fn make_parent(file: &FilePath) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Gives a file that is whole and synced its name, so that it keeps it.
pub(super) fn finish(root: &FilePath, path: &ObjectPath, staged: &FilePath) -> Result<(), Error> {
    let file = root.join(path.as_str());
    fs::rename(staged, &file).map_err(of_files)?;
    private::close(root, path.as_str());
    let directory = file.parent().unwrap_or(root);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(of_files)
}

pub(super) async fn abort(root: PathBuf, path: ObjectPath, upload: String) -> Result<(), Error> {
    blocking(move || {
        let directory = upload_directory(&root, &path, &upload).ok_or_else(|| no_upload(&path))?;
        remove(&root, &directory).map(drop).map_err(of_files)
    })
    .await
}

/// Ends all uploads to `path`. How many there were.
pub(super) async fn abort_all(root: PathBuf, path: ObjectPath) -> Result<u64, Error> {
    blocking(move || {
        let all = uploads(&root, &path);
        let open = fs::read_dir(&all).map_or(0, Iterator::count);
        remove(&root, &all).map_err(of_files)?;
        Ok(open as u64)
    })
    .await
}

/// Removes a directory of uploads: renamed first, so that nobody writes into it any more. What a process that dies in between
/// has renamed, the next removal finds.
fn remove(root: &FilePath, directory: &FilePath) -> io::Result<()> {
    let away = root.join(DIRECTORY).join("#");
    if directory.exists() {
        fs::create_dir_all(&away)?;
        unless_gone(fs::rename(directory, away.join(random())))?;
    }
    let gone = match fs::read_dir(&away) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        gone => gone?,
    };
    for directory in gone {
        unless_gone(fs::remove_dir_all(directory?.path()))?;
    }
    Ok(())
}

/// Another removal may be at the same directory.
fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

pub(super) fn no_upload(path: &ObjectPath) -> Error {
    Error::NotFound { path: path.to_string(), source: "the upload is unknown: it has ended".into() }
}

fn generic(why: String) -> Error {
    Error::Generic { store: "directory", source: why.into() }
}

pub(super) fn of_files(error: io::Error) -> Error {
    Error::Generic { store: "directory", source: Box::new(error) }
}
