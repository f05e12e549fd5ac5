//! Removes what was never committed: uploads and bodies of writers that were killed, and what was put aside.
//!
//! Every upload begins with a mark that says where its body would become visible, and ends with the mark's removal. So a sweep
//! reads marks, not the store: what it costs grows with what was left behind.
//!
//! ```text
//! mark older than the bound ─┬─ its place shows this body: committed; staged files beside it and the mark go
//!                            └─ it does not: parts, body, staged files, mark go, in this order
//! ```
//!
//! What cannot be removed is reported by name, and keeps nothing else from being swept: its mark stays for a later sweep.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use navvy_job::chain::chain;

use super::bucket::{Bucket, Object};
use super::error::{Result, StorageError};
use super::layout;
use super::ledger::{Index, Ledger as _, Reserved};
use super::objects::ObjectPath;
use super::parts;
use super::record::BodyId;
use super::seen::{Content, Seen, content};

const PARALLEL: usize = 8;
/// One entry takes no longer: a few that a store does not answer for must not take the time of all others.
const ONE: Duration = Duration::from_secs(10);

/// What a sweep removed, and what it could not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Bodies, whole or not.
    pub bodies: u64,
    /// Uploads in parts that were still open.
    pub uploads: u64,
    /// Entries that had been put aside.
    pub quarantined: u64,
    /// Files that were being written.
    pub staged: u64,
    /// Workspace layers of dead runs.
    pub layers: u64,
    /// What stays until a later sweep.
    pub failed: Vec<Unswept>,
}

/// Something that could not be looked at or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unswept {
    /// Path of an object or file, beneath the store.
    pub path: String,
    /// What the store says.
    pub why: String,
}

impl Swept {
    /// Both sweeps together.
    pub fn and(mut self, other: Self) -> Self {
        self.failed.extend(other.failed);
        Self {
            bodies: self.bodies + other.bodies,
            uploads: self.uploads + other.uploads,
            quarantined: self.quarantined + other.quarantined,
            staged: self.staged + other.staged,
            layers: self.layers + other.layers,
            failed: self.failed,
        }
    }

    fn failed(path: &str, why: String) -> Self {
        Self { failed: vec![Unswept { path: path.to_owned(), why }], ..Self::default() }
    }

    /// What came of one entry.
    fn of(path: &str, swept: Result<Self>) -> Self {
        swept.unwrap_or_else(|error| Self::failed(path, chain(&error)))
    }
}

/// Carries one entry's sweep out, or says why not.
async fn one(path: &str, sweep: impl Future<Output = Result<Swept>>) -> Swept {
    match tokio::time::timeout(ONE, sweep).await {
        Ok(swept) => Swept::of(path, swept),
        Err(_) => Swept::failed(path, format!("the store did not answer within {} seconds", ONE.as_secs())),
    }
}

impl Bucket {
    /// Removes what was left behind more than `older_than` ago, by the store's clock. With less than
    /// [`super::SWEEP_AFTER`], bodies may go that their writers would still commit.
    ///
    /// # Errors
    /// The store does not say its time: then nothing is old enough. Every other failure is part of [`Swept`].
    pub async fn sweep(&self, older_than: Duration) -> Result<Swept> {
        let bound = self.bound(older_than).await?;
        let mut swept = self.sweep_each(layout::QUARANTINE, bound, Self::sweep_quarantined).await;
        swept = swept.and(self.sweep_each(layout::RESERVED, bound, Self::sweep_reserved).await);
        // Bodies and entries are found by their marks.
        for path in [layout::ROOT, layout::RESERVED, layout::QUARANTINE] {
            swept = swept.and(self.sweep_staged(path, bound).await);
        }
        // A processor's objects have no marks.
        for path in [layout::LOGS, layout::TREES, layout::AUDIT] {
            swept = swept.and(self.sweep_staged_below(path, bound).await);
        }
        Ok(swept)
    }

    /// Removes the workspace layers that are older than this by the store's clock: those of runs that ended before removing
    /// them.
    ///
    /// # Errors
    /// The store does not list them, or does not say its time.
    pub async fn remove_old_layers(self: &Arc<Self>, older_than: Duration) -> Result<Swept> {
        let mut objects = self.list(&format!("{}/", layout::LAYERS)).await?;
        if objects.is_empty() {
            return Ok(Swept::default());
        }
        let bound = self.bound(older_than).await?;
        objects.retain(|object| object.modified <= bound);
        let each = objects.iter().map(|object| one(&object.path, self.remove_layer(object)));
        Ok(futures_util::stream::iter(each).buffer_unordered(PARALLEL).fold(Swept::default(), added).await)
    }

    async fn remove_layer(self: &Arc<Self>, object: &Object) -> Result<Swept> {
        let entry = match self.see(&object.path, Some(object.modified)).await? {
            Seen::Entry(entry) => entry,
            // What a newer version has written is its own affair.
            Seen::Newer(_) | Seen::Nothing => return Ok(Swept::default()),
            Seen::Unreadable(why) => {
                self.put_object_aside(&object.path, &why).await;
                return Ok(Swept::default());
            }
        };
        let Ok(scope) = entry.record.scope.parse() else { return Ok(Swept::default()) };
        Index::new(Arc::clone(self), &entry.record.project, scope).remove(&entry).await?;
        Ok(Swept { layers: 1, ..Swept::default() })
    }

    /// What is older than this is left over.
    async fn bound(&self, older_than: Duration) -> Result<Timestamp> {
        let older_than = SignedDuration::try_from(older_than).unwrap_or(SignedDuration::MAX);
        Ok(self.now().await?.checked_sub(older_than).unwrap_or(Timestamp::MIN))
    }

    async fn sweep_each<'a, F>(
        &'a self,
        beneath: &str,
        bound: Timestamp,
        sweep: impl Fn(&'a Self, BodyId, Timestamp) -> F,
    ) -> Swept
    where
        F: Future<Output = Result<Swept>>,
    {
        let objects = match self.list(&format!("{beneath}/")).await {
            Ok(objects) => objects,
            Err(error) => return Swept::failed(beneath, chain(&error)),
        };
        let old = objects.iter().filter(|object| object.modified <= bound);
        let old = old.filter_map(|object| Some((object, BodyId::read(object.path.rsplit('/').next()?)?)));
        let each: Vec<_> = old.map(|(object, id)| one(&object.path, sweep(self, id, bound))).collect();
        futures_util::stream::iter(each).buffer_unordered(PARALLEL).fold(Swept::default(), added).await
    }

    async fn sweep_quarantined(&self, id: BodyId, _: Timestamp) -> Result<Swept> {
        self.remove(&layout::body(id)).await?;
        self.remove(&layout::quarantine(id)).await?;
        Ok(Swept { quarantined: 1, ..Swept::default() })
    }

    async fn sweep_reserved(&self, id: BodyId, bound: Timestamp) -> Result<Swept> {
        let mark = layout::reserved(id);
        let Some((bytes, _)) = self.read(&mark).await? else { return Ok(Swept::default()) };
        let index = match serde_json::from_slice::<Reserved>(&bytes) {
            Ok(reserved) => reserved.index,
            // A newer version may have written it, and what it is of may be in use.
            Err(error) => return Ok(Swept::failed(&mark, format!("is not understood: {error}"))),
        };
        if self.shows(&index, id).await? {
            // Its writer may have died between the file's two names.
            let staged = self.sweep_staged(&index, bound).await;
            return self.remove_mark(&mark, staged).await;
        }
        let uploads = self.abort_uploads(&layout::body(id)).await?;
        let bodies = u64::from(self.exists(&layout::body(id)).await?);
        self.remove(&layout::body(id)).await?;
        let mut swept = self.sweep_staged(&layout::body(id), bound).await;
        swept = swept.and(self.sweep_staged(&index, bound).await);
        self.remove_mark(&mark, Swept { bodies, uploads, ..Swept::default() }.and(swept)).await
    }

    /// The mark goes last, and only once everything that it names has gone: no other object names it.
    async fn remove_mark(&self, mark: &str, swept: Swept) -> Result<Swept> {
        if swept.failed.is_empty() {
            self.remove(mark).await?;
        }
        Ok(swept)
    }

    /// Whether the index object there points to this body. A newer version's might; a damaged one points to no body, so that
    /// this mark alone still names it.
    async fn shows(&self, index: &str, id: BodyId) -> Result<bool> {
        let Some((bytes, _)) = self.read(index).await? else { return Ok(false) };
        Ok(match content(&bytes) {
            Content::Record(record) => record.body.id == id,
            Content::Newer(_) => true,
            Content::Unreadable(_) => false,
        })
    }

    /// Files named `PATH#N` (or `PATH/…#N`): what a directory's writer writes to before it renames. No listing shows them.
    pub(super) async fn sweep_staged(&self, path: &str, bound: Timestamp) -> Swept {
        let Some(root) = self.as_directory().map(FilePath::to_owned) else { return Swept::default() };
        // What a mark says is a path beneath our root, or nothing.
        if !FilePath::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            return Swept::default();
        }
        let beneath = path.to_owned();
        let removal = tokio::task::spawn_blocking(move || remove_staged(&root, &beneath, bound)).await;
        removal.unwrap_or_else(|error| Swept::failed(path, error.to_string()))
    }

    /// Such files in this directory and all those below.
    async fn sweep_staged_below(&self, path: &'static str, bound: Timestamp) -> Swept {
        let Some(root) = self.as_directory().map(FilePath::to_owned) else { return Swept::default() };
        let removal = tokio::task::spawn_blocking(move || remove_staged_below(&root, path, bound)).await;
        removal.unwrap_or_else(|error| Swept::failed(path, error.to_string()))
    }
}

fn remove_staged_below(root: &FilePath, path: &str, bound: Timestamp) -> Swept {
    let entries = match std::fs::read_dir(root.join(path)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Swept::default(),
        Err(error) => return Swept::failed(path, error.to_string()),
    };
    // A link is followed nowhere.
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let below = directories.filter_map(|entry| Some(format!("{path}/{}", entry.file_name().to_str()?)));
    below.fold(remove_staged(root, path, bound), |swept, path| swept.and(remove_staged_below(root, &path, bound)))
}

/// See [`Bucket::sweep_staged`].
fn remove_staged(root: &FilePath, path: &str, bound: Timestamp) -> Swept {
    let whole = root.join(path);
    let (directory, name) = match whole.is_dir() {
        true => (whole.as_path(), None),
        false => (whole.parent().unwrap_or(root), whole.file_name().and_then(|name| name.to_str())),
    };
    let files = match staged_files(directory, name, bound) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Swept::default(),
        Err(error) => return Swept::failed(path, error.to_string()),
    };
    let removed = files.into_iter().map(|file| match std::fs::remove_file(&file) {
        Ok(()) => Swept { staged: 1, ..Swept::default() },
        // Its writer has removed it itself.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Swept::default(),
        Err(error) => Swept::failed(&file.strip_prefix(root).unwrap_or(&file).to_string_lossy(), error.to_string()),
    });
    removed.fold(Swept::default(), Swept::and)
}

fn staged_files(directory: &FilePath, name: Option<&str>, bound: Timestamp) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let file = entry.file_name();
        let Some((of, nth)) = file.to_str().and_then(|file| file.rsplit_once('#')) else { continue };
        let staged =
            !nth.is_empty() && nth.bytes().all(|byte| byte.is_ascii_digit()) && name.is_none_or(|name| name == of);
        if staged && entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|time| is_old(time, bound)) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// A sum in the shape that a stream adds it up in.
async fn added(sum: Swept, one: Swept) -> Swept {
    sum.and(one)
}

fn is_old(time: std::time::SystemTime, bound: Timestamp) -> bool {
    Timestamp::try_from(time).is_ok_and(|time| time <= bound)
}

impl Bucket {
    /// Ends every open upload to `path`: those of a directory, and of S3, which keeps them for ever and is asked. The others forget
    /// them by themselves, GCS by a rule of the bucket's (`docs/storage.md`).
    pub(super) async fn abort_uploads(&self, path: &str) -> Result<u64> {
        if let Some((root, object)) = self.as_directory().zip(ObjectPath::read(path)) {
            let aborted = parts::abort_all(root.to_owned(), object).await;
            return aborted.map_err(self.failed("abort an upload"));
        }
        let Some(multipart) = self.multipart() else { return Ok(0) };
        let location = self.full(path);
        let mut aborted = 0;
        for id in self.open_uploads(path).await? {
            match multipart.abort_multipart(&location, &id).await {
                Ok(()) => aborted += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed("abort an upload")(error)),
            }
        }
        Ok(aborted)
    }
}

/// An answer to `GET /bucket?uploads`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Uploads {
    #[serde(default)]
    upload: Vec<Upload>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
}

/// The uploads to exactly `key` in a store's answer.
pub(super) fn read_uploads(xml: &[u8], key: &str) -> Result<Vec<String>, quick_xml::DeError> {
    let uploads: Uploads = quick_xml::de::from_reader(xml)?;
    Ok(uploads.upload.into_iter().filter(|upload| upload.key == key).map(|upload| upload.upload_id).collect())
}

impl Bucket {
    /// The ids of uploads to `path` that were not ended.
    pub(super) async fn open_uploads(&self, path: &str) -> Result<Vec<String>> {
        let Some(answer) = self.ask_for_uploads(path).await? else { return Ok(Vec::new()) };
        read_uploads(&answer, self.full(path).as_ref()).map_err(|error| StorageError::Foreign {
            store: self.name().to_owned(),
            path: path.to_owned(),
            why: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_uploads_is_read() {
        let xml = br#"<?xml version="1.0"?><ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
            <Bucket>b</Bucket><Upload><Key>p/v1/body/1</Key><UploadId>A</UploadId><Initiated>now</Initiated></Upload>
            <Upload><Key>p/v1/body/12</Key><UploadId>B</UploadId></Upload>
            <Upload><Key>p/v1/body/1</Key><UploadId>C</UploadId></Upload></ListMultipartUploadsResult>"#;
        assert_eq!(read_uploads(xml, "p/v1/body/1").unwrap(), ["A", "C"]);
        assert_eq!(read_uploads(b"<ListMultipartUploadsResult/>", "x").unwrap(), [""; 0]);
    }
}
