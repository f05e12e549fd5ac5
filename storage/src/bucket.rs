//! A store that we have the credentials of, or a directory of our own: objects by path, nothing more.

use std::fmt;
use std::fs::{DirEntry, Metadata};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer};
use object_store::{
    Error, GetOptions, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    PutResult, UploadPart,
};
use tokio::sync::OnceCell;

use super::error::{Result, StorageError};
use super::expiry::Place;
use super::urls::Urls;
use super::{layout, private};

/// What S3, GCS and Azure take for an object's whole path.
const CLOUD_PATH: usize = 1024;
/// What Linux takes, less what `LocalFileSystem` appends while it writes, and the NUL.
const FILE_PATH: usize = 4096 - 32;
/// A shorter text than this would cut ordinary keys.
const LEAST_TEXT: usize = 256;

/// Bytes of the largest index object, mark or story of quarantine. Only the paths of a cache can make one large.
const MOST_SMALL: u64 = 16 << 20;

/// A URL of our own, used at once.
const SIGNED_FOR: Duration = Duration::from_secs(300);

/// One store and the path in it that is ours.
pub struct Bucket {
    /// The store's name for people: the URL it was opened with, without credentials.
    name: String,
    /// What stands before every path: empty, or ends in `/`.
    root: String,
    store: Arc<dyn ObjectStore>,
    kind: Kind,
    text_limit: usize,
    keeps_conditions: OnceCell<bool>,
    /// Whether an entry of a newer version was reported.
    told_newer: AtomicBool,
}

enum Kind {
    Directory(PathBuf),
    Cloud(Cloud),
    /// Only what every store can do.
    Plain,
}

/// What a cloud can do beside.
pub struct Cloud {
    pub pages: Arc<dyn PaginatedListStore>,
    pub multipart: Arc<dyn MultipartStore>,
    pub signer: Arc<dyn Signer>,
    /// Whether a signature of it can be for one part of an upload.
    pub signs_parts: bool,
    /// Where open uploads can be listed, in a cloud that keeps them until they are ended.
    pub uploads: Option<Urls>,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Path from our root.
    pub path: String,
    /// Time of its last change, by the store's clock.
    pub modified: Timestamp,
    pub size: u64,
}

/// What became of a write that was to be the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    Created,
    Existed,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Bucket {
    /// A directory of this machine; it is made where it is missing.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn directory(directory: &FilePath) -> Result<Self> {
        let name = format!("file://{}", directory.display());
        let failed = |source: object_store::Error| StorageError::Store { store: name.clone(), verb: "open it", source };
        private::make(directory)
            .map_err(|source| failed(Error::Generic { store: "directory", source: Box::new(source) }))?;
        let store = LocalFileSystem::new_with_prefix(directory).map_err(failed)?.with_automatic_cleanup(true);
        // After a power cut an entry is whole, or not there, and so is the body that it points to.
        let store = store.with_fsync(true);
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let taken = directory.as_os_str().len() + 1;
        Self::build(name, String::new(), Arc::new(store), Kind::Directory(directory), FILE_PATH.saturating_sub(taken))
    }

    /// A cloud's bucket, beneath `root`.
    pub(super) fn cloud(name: String, root: &str, store: Arc<dyn ObjectStore>, cloud: Cloud) -> Result<Self> {
        Self::rooted(name, root, store, Kind::Cloud(cloud))
    }

    /// Any other store, beneath `root`.
    pub fn plain(name: String, root: &str, store: Arc<dyn ObjectStore>) -> Result<Self> {
        Self::rooted(name, root, store, Kind::Plain)
    }

    fn rooted(name: String, root: &str, store: Arc<dyn ObjectStore>, kind: Kind) -> Result<Self> {
        let root = root.trim_matches('/');
        let root = if root.is_empty() { String::new() } else { format!("{root}/") };
        let room = CLOUD_PATH.saturating_sub(root.len());
        Self::build(name, root, store, kind, room)
    }

    fn build(name: String, root: String, store: Arc<dyn ObjectStore>, kind: Kind, room: usize) -> Result<Self> {
        let text_limit = room.saturating_sub(layout::AROUND_KEY);
        if text_limit < LEAST_TEXT {
            return Err(StorageError::NoRoom(name));
        }
        Ok(Self {
            name,
            root,
            store,
            kind,
            text_limit,
            keeps_conditions: OnceCell::new(),
            told_newer: AtomicBool::new(false),
        })
    }

    /// The store's name for people: its URL or directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes that a key's text may have in its path.
    pub(super) fn text_limit(&self) -> usize {
        self.text_limit
    }

    /// The cloud, if it signs all that an upload needs.
    pub(super) fn signing_cloud(&self) -> Option<&Cloud> {
        self.as_cloud().filter(|cloud| cloud.signs_parts)
    }

    pub(super) fn multipart(&self) -> Option<&dyn MultipartStore> {
        self.as_cloud().map(|cloud| cloud.multipart.as_ref())
    }

    /// Where our objects lie, if they are files.
    pub(super) fn as_directory(&self) -> Option<&FilePath> {
        match &self.kind {
            Kind::Directory(path) => Some(path),
            _ => None,
        }
    }

    fn as_cloud(&self) -> Option<&Cloud> {
        match &self.kind {
            Kind::Cloud(cloud) => Some(cloud),
            _ => None,
        }
    }

    /// `path` as the store knows it.
    pub(super) fn full(&self, path: &str) -> Path {
        // Never fails: every path is of our own making, and a root with an odd segment is refused by its first use.
        Path::parse(format!("{}{path}", self.root)).unwrap_or_else(|_| Path::from(format!("{}{path}", self.root)))
    }

    /// Puts this store's name and what was wanted to what went wrong.
    pub(super) fn failed(&self, verb: &'static str) -> impl FnOnce(Error) -> StorageError + use<> {
        let store = self.name.clone();
        move |source| StorageError::of(store, verb, source)
    }

    /// Reads a small object, and the time when the store took it. `None`: it does not exist. Of an object larger than any of
    /// ours, only the beginning is read: nothing that this version writes ends there.
    pub(super) async fn read(&self, path: &str) -> Result<Option<(Bytes, Timestamp)>> {
        let failed = self.failed("read an object");
        let read = async {
            let got = self.store.get(&self.full(path)).await?;
            let modified = timestamp(&got.meta);
            if got.meta.size > MOST_SMALL {
                let beginning = GetOptions::new().with_range(Some(0..MOST_SMALL));
                return Ok((self.store.get_opts(&self.full(path), beginning).await?.bytes().await?, modified));
            }
            Ok((got.bytes().await?, modified))
        };
        absent_is_none(read.await).map_err(failed)
    }

    /// Reads a whole object of at most `most` bytes. `None`: it does not exist.
    pub(super) async fn whole(&self, path: &str, most: u64) -> Result<Option<Bytes>> {
        let failed = self.failed("read an object");
        let got = match absent_is_none(self.store.get(&self.full(path)).await) {
            Ok(None) => return Ok(None),
            Ok(Some(got)) if got.meta.size > most => {
                return Err(StorageError::TooLong { path: path.to_owned(), most });
            }
            Ok(Some(got)) => got.bytes().await,
            Err(error) => Err(error),
        };
        got.map(Some).map_err(failed)
    }

    /// Reads a range of an object. `None`: the object does not exist.
    pub(super) async fn range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let options = GetOptions::new().with_range(Some(range));
        let read = async { self.store.get_opts(&self.full(path), options).await?.bytes().await };
        absent_is_none(read.await).map_err(self.failed("read a range"))
    }

    /// Writes an object, over another if need be.
    pub(super) async fn write(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.store.put(&self.full(path), bytes.into()).await.map_err(self.failed("write an object"))?;
        self.keep_from_others(path);
        Ok(())
    }

    /// Writes an object unless one of that name exists.
    ///
    /// # Errors
    /// [`StorageError::IgnoresConditions`] if this store cannot do that, which is asked once.
    pub(super) async fn create(&self, path: &str, bytes: Bytes) -> Result<Create> {
        if *self.keeps_conditions.get_or_try_init(|| self.try_conditions()).await? {
            return self.put_new(path, bytes).await;
        }
        Err(StorageError::IgnoresConditions { store: self.name.clone() })
    }

    /// Writes the same object twice; it stays. If both writes succeed, the store ignores conditions.
    async fn try_conditions(&self) -> Result<bool> {
        for _ in 0..2 {
            if self.put_new(layout::IF_ABSENT, Bytes::from_static(b"if-absent")).await? == Create::Existed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<Create> {
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&self.full(path), bytes.into(), options).await {
            Ok(_) => {
                self.keep_from_others(path);
                Ok(Create::Created)
            }
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Create::Existed),
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                Err(StorageError::IgnoresConditions { store: self.name.clone() })
            }
            Err(error) => Err(self.failed("write an object that is new")(error)),
        }
    }

    pub(super) async fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.size(path).await?.is_some())
    }

    /// Removes an object; one that is not there is removed.
    pub(super) async fn remove(&self, path: &str) -> Result<()> {
        absent_is_none(self.store.delete(&self.full(path)).await).map_err(self.failed("remove an object"))?;
        Ok(())
    }

    /// Moves an object. `false`: it does not exist.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<bool> {
        let renamed = self.store.rename(&self.full(from), &self.full(to)).await;
        Ok(absent_is_none(renamed).map_err(self.failed("move an object"))?.is_some())
    }

    /// The size of an object. `None`: it does not exist.
    pub(super) async fn size(&self, path: &str) -> Result<Option<u64>> {
        let there = absent_is_none(self.store.head(&self.full(path)).await);
        Ok(there.map_err(self.failed("ask for an object"))?.map(|meta| meta.size))
    }

    /// Is this the first call? Only the first entry of a newer version is reported.
    pub(super) fn is_first_newer(&self) -> bool {
        !self.told_newer.swap(true, Ordering::Relaxed)
    }

    /// Begins an upload in parts.
    pub(super) async fn upload(&self, path: &str) -> Result<Box<dyn MultipartUpload>> {
        let file = self.as_directory().map(|root| (root.to_owned(), path.to_owned()));
        let (store, path) = (self.store.clone(), self.full(path));
        let upload = store.put_multipart(&path).await.map_err(self.failed("begin an upload"))?;
        Ok(Box::new(Upload { upload, store, path, file }))
    }

    pub(super) async fn put(&self, path: &str, payload: PutPayload) -> Result<()> {
        self.store.put(&self.full(path), payload).await.map_err(self.failed("upload"))?;
        self.keep_from_others(path);
        Ok(())
    }

    /// In a directory, closes the file that was just written to all but its owner.
    fn keep_from_others(&self, path: &str) {
        if let Some(root) = self.as_directory() {
            private::close(root, path);
        }
    }

    /// Every object whose path begins with `prefix`, which need not end at a segment's end.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let listed = match &self.kind {
            Kind::Cloud(cloud) => self.list_pages(cloud, prefix).await,
            Kind::Directory(root) => list_files(root.clone(), prefix.to_owned()).await,
            Kind::Plain => self.list_segments(prefix).await,
        };
        listed.map_err(self.failed("list objects"))
    }

    /// A cloud lists by any prefix.
    async fn list_pages(&self, cloud: &Cloud, prefix: &str) -> Result<Vec<Object>, Error> {
        let prefix = format!("{}{prefix}", self.root);
        let mut objects = Vec::new();
        let mut token = None;
        loop {
            let options = PaginatedListOptions { page_token: token.take(), ..PaginatedListOptions::default() };
            let page = cloud.pages.list_paginated(Some(&prefix), options).await?;
            objects.extend(page.result.objects.iter().filter_map(|meta| self.object(meta)));
            token = page.page_token;
            if token.is_none() {
                return Ok(objects);
            }
        }
    }

    /// About `most` objects whose path begins with `prefix`, which ends at a segment's end, and where the next ones begin.
    pub(super) async fn list_some(&self, prefix: &str, from: Place, most: usize) -> Result<(Vec<Object>, Place)> {
        if let Kind::Cloud(cloud) = &self.kind {
            return self.list_some_pages(cloud, prefix, from, most).await.map_err(self.failed("list objects"));
        }
        let mut objects = self.list(prefix).await?;
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        if let Place(Some(after)) = from {
            objects.retain(|object| object.path > after);
        }
        let more = objects.len() > most;
        objects.truncate(most);
        let next = objects.last().filter(|_| more).map(|object| object.path.clone());
        Ok((objects, Place(next)))
    }

    async fn list_some_pages(
        &self,
        cloud: &Cloud,
        prefix: &str,
        from: Place,
        most: usize,
    ) -> Result<(Vec<Object>, Place), Error> {
        let prefix = format!("{}{prefix}", self.root);
        let (mut objects, mut token) = (Vec::new(), from.0);
        loop {
            let max_keys = Some((most - objects.len()).min(1000));
            let options = PaginatedListOptions { page_token: token.take(), max_keys, ..Default::default() };
            let page = cloud.pages.list_paginated(Some(&prefix), options).await?;
            objects.extend(page.result.objects.iter().filter_map(|meta| self.object(meta)));
            token = page.page_token;
            if token.is_none() || objects.len() >= most {
                return Ok((objects, Place(token)));
            }
        }
    }

    /// Others list whole segments only.
    async fn list_segments(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        let whole = prefix.rsplit_once('/').map_or("", |(whole, _)| whole);
        let metas: Vec<ObjectMeta> = self.store.list(Some(&self.full(whole))).try_collect().await?;
        let objects = metas.iter().filter_map(|meta| self.object(meta));
        Ok(objects.filter(|object| object.path.starts_with(prefix)).collect())
    }

    /// The store's list of open uploads to `path`, as it answers. `None`: this kind of store has none to list. Some servers
    /// answer for a whole path only, so no other prefix is asked for.
    pub(super) async fn ask_for_uploads(&self, path: &str) -> Result<Option<Bytes>> {
        let Some(Cloud { signer, uploads: Some(urls), .. }) = self.as_cloud() else { return Ok(None) };
        let key = self.full(path);
        let options = SignedUrlOptions::new().with_query([("uploads", ""), ("prefix", key.as_ref())]);
        let url = || async {
            let signed = signer.signed_url_opts(Method::GET, &Path::ROOT, SIGNED_FOR, &options).await;
            Ok(signed.map_err(self.failed("sign a request"))?.to_string())
        };
        let failed = self.failed("list open uploads");
        urls.get_whole(url).await.map(Some).map_err(|error| failed(error.into_store()))
    }

    fn object(&self, meta: &ObjectMeta) -> Option<Object> {
        let path = meta.location.as_ref().strip_prefix(&self.root)?.to_owned();
        Some(Object { path, modified: timestamp(meta), size: meta.size })
    }

    /// What time it is for the store: its stamp on an object that is written for this. From a listing, as every other time:
    /// a read's is coarser.
    pub(super) async fn now(&self) -> Result<Timestamp> {
        self.write(layout::CLOCK, Bytes::from_static(b"clock")).await?;
        let clock = self.list(layout::CLOCK).await?;
        clock.first().map(|object| object.modified).ok_or_else(|| StorageError::Foreign {
            store: self.name.clone(),
            path: layout::CLOCK.to_owned(),
            why: "just written, and not there".to_owned(),
        })
    }
}

/// An upload whose end is asked for after it was lost.
#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// The directory that is the store, and the path in it.
    file: Option<(PathBuf, String)>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    /// A store that ended the upload, but whose answer was lost, knows no such upload when it is asked again. A body's path is
    /// used once: what is there is what was uploaded.
    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let completed = self.upload.complete().await;
        if let Some((root, path)) = &self.file {
            private::close(root, path);
        }
        match completed {
            Err(error @ Error::NotFound { .. }) => match self.store.head(&self.path).await {
                Ok(meta) => Ok(PutResult { e_tag: meta.e_tag, version: meta.version, extensions: Default::default() }),
                Err(_) => Err(error),
            },
            ended => ended,
        }
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.upload.abort().await
    }
}

/// [`Bucket::list`] for a directory, by names alone where they decide: the library would look at every file beneath the last
/// whole segment.
async fn list_files(root: PathBuf, prefix: String) -> Result<Vec<Object>, Error> {
    let walk = tokio::task::spawn_blocking(move || {
        let (whole, part) = prefix.rsplit_once('/').unwrap_or(("", &prefix));
        let mut objects = Vec::new();
        walk(&root.join(whole), whole, part, &DirEntry::metadata, &mut objects)?;
        Ok(objects)
    });
    walk.await?.map_err(|source: std::io::Error| Error::Generic { store: "directory", source: Box::new(source) })
}

/// Everything beneath `directory`, whose path from the root is `path`, if its first name begins with `part`. A file that the
/// disk does not let us look at is listed as the oldest of all: it hides no other, and reading it fails with the reason.
fn walk(
    directory: &FilePath,
    path: &str,
    part: &str,
    look: &impl Fn(&DirEntry) -> std::io::Result<Metadata>,
    objects: &mut Vec<Object>,
) -> std::io::Result<()> {
    for entry in unless_gone(std::fs::read_dir(directory))?.into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name();
        // Ours are all text; a `#` stands in the names of files that are still being written.
        let Some(name) = name.to_str().filter(|name| name.starts_with(part) && !name.contains('#')) else { continue };
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &path, "", look, objects)?;
            continue;
        }
        let (modified, size) = match unless_gone(look(&entry)) {
            Ok(None) => continue,
            Ok(Some(meta)) => {
                let modified = meta.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
                (modified.unwrap_or(Timestamp::UNIX_EPOCH), meta.len())
            }
            Err(_) => (Timestamp::UNIX_EPOCH, 0),
        };
        objects.push(Object { path, modified, size });
    }
    Ok(())
}

/// A file that another process removes while we look does not exist.
fn unless_gone<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn absent_is_none<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn timestamp(meta: &ObjectMeta) -> Timestamp {
    let nanos = i32::try_from(meta.last_modified.timestamp_subsec_nanos()).unwrap_or(0);
    Timestamp::new(meta.last_modified.timestamp(), nanos).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_looked_at_hides_no_other() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(root.path().join(name), name).unwrap();
        }
        let look = |entry: &DirEntry| match entry.file_name().to_str() {
            Some("b") => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            Some("c") => Err(std::io::ErrorKind::NotFound.into()),
            _ => entry.metadata(),
        };
        let mut objects = Vec::new();
        walk(root.path(), "v1", "", &look, &mut objects).unwrap();
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        let found: Vec<_> = objects.iter().map(|object| (object.path.as_str(), object.size)).collect();
        assert_eq!(found, [("v1/a", 1), ("v1/b", 0)]);
        assert_eq!(objects[1].modified, Timestamp::UNIX_EPOCH);
    }
}
