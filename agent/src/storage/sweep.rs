//! Removes what nobody committed: uploads and bodies of writers that were killed, and what was put aside.
//!
//! Every upload begins with a mark that says where its body would become visible, and ends with the mark's removal. So a sweep
//! reads marks, not the store: what it costs grows with what was left behind.
//!
//! ```text
//! mark older than the bound ─┬─ its place shows this body: committed; staged files beside it and the mark go
//!                            └─ it does not: parts, body, staged files, mark go, in this order
//! ```

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};

use super::bucket::{Bucket, Object};
use super::error::{Result, StorageError};
use super::layout;
use super::ledger::{Index, Ledger as _, Reserved};
use super::record::BodyId;
use super::seen::{Content, Seen, content};

const PARALLEL: usize = 8;

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Bodies, whole or not.
    pub bodies: u64,
    /// Uploads in parts that were still open.
    pub uploads: u64,
    /// Entries that had been put aside.
    pub quarantined: u64,
    /// Files that were being written.
    pub staged: u64,
}

impl Swept {
    fn add(self, other: Self) -> Self {
        Self {
            bodies: self.bodies + other.bodies,
            uploads: self.uploads + other.uploads,
            quarantined: self.quarantined + other.quarantined,
            staged: self.staged + other.staged,
        }
    }
}

impl Bucket {
    /// Removes what was left behind more than `older_than` ago, by the store's clock. With less than
    /// [`super::SWEEP_AFTER`], bodies may go that their writers would still commit.
    ///
    /// # Errors
    /// The store's. What was swept until then stays swept.
    pub async fn sweep(&self, older_than: Duration) -> Result<Swept> {
        let bound = self.now().await?;
        let older_than = SignedDuration::try_from(older_than).unwrap_or(SignedDuration::MAX);
        let bound = bound.checked_sub(older_than).unwrap_or(Timestamp::MIN);
        let aside = self.sweep_each(layout::QUARANTINE, bound, Self::sweep_quarantined).await?;
        let left = self.sweep_each(layout::RESERVED, bound, Self::sweep_reserved).await?;
        // Of bodies and entries their marks tell.
        let staged = [layout::ROOT, layout::RESERVED, layout::QUARANTINE].map(|path| self.sweep_staged(path, bound));
        staged.into_iter().try_fold(aside.add(left), |swept, staged| Ok(swept.add(staged?)))
    }

    /// Removes the workspace layers that are older than this by the store's clock: those of runs that did not come to it.
    /// How many there were.
    ///
    /// # Errors
    /// The store's. What was removed until then stays removed.
    pub async fn remove_old_layers(self: &Arc<Self>, older_than: Duration) -> Result<u64> {
        let objects = self.list(&format!("{}/", layout::LAYERS)).await?;
        if objects.is_empty() {
            return Ok(0);
        }
        let older_than = SignedDuration::try_from(older_than).unwrap_or(SignedDuration::MAX);
        let bound = self.now().await?.checked_sub(older_than).unwrap_or(Timestamp::MIN);
        let mut removed = 0;
        for object in objects.into_iter().filter(|object| object.modified <= bound) {
            let entry = match self.see(&object.path, Some(object.modified)).await? {
                Seen::Entry(entry) => entry,
                // What a newer version has written is its own affair.
                Seen::Newer(_) | Seen::Nothing => continue,
                Seen::Unreadable(why) => {
                    self.put_object_aside(&object.path, &why).await;
                    continue;
                }
            };
            let Ok(scope) = entry.record.scope.parse() else { continue };
            let index = Index::new(Arc::clone(self), &entry.record.project, scope);
            index.remove(&entry).await?;
            removed += 1;
        }
        Ok(removed)
    }

    async fn sweep_each<'a, F>(
        &'a self,
        beneath: &str,
        bound: Timestamp,
        one: impl Fn(&'a Self, BodyId, Timestamp) -> F,
    ) -> Result<Swept>
    where
        F: Future<Output = Result<Swept>>,
    {
        let old = |object: &Object| {
            (object.modified <= bound).then(|| BodyId::read(object.path.rsplit('/').next()?)).flatten()
        };
        let objects = self.list(&format!("{beneath}/")).await?;
        let each: Vec<F> = objects.iter().filter_map(old).map(|id| one(self, id, bound)).collect();
        let each = futures_util::stream::iter(each);
        each.buffer_unordered(PARALLEL).try_fold(Swept::default(), |sum, one| async move { Ok(sum.add(one)) }).await
    }

    async fn sweep_quarantined(&self, id: BodyId, _: Timestamp) -> Result<Swept> {
        self.remove(&layout::body(id)).await?;
        self.remove(&layout::quarantine(id)).await?;
        Ok(Swept { quarantined: 1, ..Swept::default() })
    }

    async fn sweep_reserved(&self, id: BodyId, bound: Timestamp) -> Result<Swept> {
        let mark = layout::reserved(id);
        let Some((bytes, _)) = self.read(&mark).await? else { return Ok(Swept::default()) };
        let reserved: Option<Reserved> = serde_json::from_slice(&bytes).ok();
        let index = reserved.map(|reserved| reserved.index);
        if let Some(index) = &index
            && self.shows(index, id).await?
        {
            // Its writer may have died between the file's two names.
            let staged = self.sweep_staged(index, bound)?;
            self.remove(&mark).await?;
            return Ok(staged);
        }
        let uploads = self.abort_uploads(&layout::body(id)).await?;
        let bodies = u64::from(self.exists(&layout::body(id)).await?);
        self.remove(&layout::body(id)).await?;
        let mut staged = self.sweep_staged(&layout::body(id), bound)?;
        if let Some(index) = &index {
            staged = staged.add(self.sweep_staged(index, bound)?);
        }
        self.remove(&mark).await?;
        Ok(Swept { bodies, uploads, ..Swept::default() }.add(staged))
    }

    /// Whether the index object there points to this body. A newer version's might; one that is damaged shows nothing to
    /// anybody, and this mark is the last that knows of the body.
    async fn shows(&self, index: &str, id: BodyId) -> Result<bool> {
        let Some((bytes, _)) = self.read(index).await? else { return Ok(false) };
        Ok(match content(&bytes) {
            Content::Record(record) => record.body.id == id,
            Content::Newer(_) => true,
            Content::Unreadable(_) => false,
        })
    }

    /// Files named `PATH#N` (or `PATH/…#N`): what a directory's writer writes to before it renames. No listing shows them.
    fn sweep_staged(&self, path: &str, bound: Timestamp) -> Result<Swept> {
        let Some(root) = self.as_directory() else { return Ok(Swept::default()) };
        // What a mark says is a path beneath our root, or nothing.
        if !FilePath::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            return Ok(Swept::default());
        }
        let whole = root.join(path);
        let (directory, name) = match whole.is_dir() {
            true => (whole.as_path(), None),
            false => (whole.parent().unwrap_or(root), whole.file_name().and_then(|name| name.to_str())),
        };
        let removed = remove_staged(directory, name, bound).map_err(|source| {
            self.failed("remove staged files")(object_store::Error::Generic {
                store: "directory",
                source: Box::new(source),
            })
        })?;
        Ok(Swept { staged: removed, ..Swept::default() })
    }
}

fn remove_staged(directory: &FilePath, name: Option<&str>, bound: Timestamp) -> std::io::Result<u64> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name();
        let Some((of, nth)) = file.to_str().and_then(|file| file.rsplit_once('#')) else { continue };
        let staged =
            !nth.is_empty() && nth.bytes().all(|byte| byte.is_ascii_digit()) && name.is_none_or(|name| name == of);
        if staged && entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|time| is_old(time, bound)) {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_old(time: std::time::SystemTime, bound: Timestamp) -> bool {
    Timestamp::try_from(time).is_ok_and(|time| time <= bound)
}

impl Bucket {
    /// Ends every open upload to `path`. Only S3 keeps them for ever and is asked; the others forget them by themselves, GCS by
    /// a rule of the bucket's (`docs/storage.md`).
    pub(super) async fn abort_uploads(&self, path: &str) -> Result<u64> {
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
    /// The ids of uploads to `path` that nobody has ended.
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
