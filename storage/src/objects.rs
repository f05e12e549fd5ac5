//! What a process with credentials does with a store beside the verbs of steps: objects of its own, and URLs for those
//! without credentials.
//!
//! ```text
//!                        ┌─ the cloud's own signature             S3, GCS
//! Objects ── url(path) ──┤
//!    │                   └─ UrlSigner: this process serves it     a directory (see `served`)
//!    └── Grants (`grants`): the verbs of one project and scope, for agents
//! ```
//!
//! A URL is for one object and one verb, and where this process serves it, a PUT for one length: as good as a password, so no
//! message and no `Debug` ever shows one. A cloud's signature cannot bind a length: who enters the object somewhere asks for
//! its size first.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use navvy_job::claim::TrustScope;
use object_store::multipart::PartId;
use object_store::signer::{Method, SignedUrlOptions};

use super::bucket::{Bucket, Cloud};
use super::error::{Result, StorageError};
use super::grants::Grants;
use super::layout;
use super::parts;
use super::record::BodyId;
use super::transfer::Aborts;

/// A URL is asked for right before each attempt, so it need not live long. The clocks of two machines may differ a little.
pub const URL_LIVES_FOR: Duration = Duration::from_secs(300);
/// Bytes of the largest object that is put by one request: what S3 takes.
pub const MOST_PUT: u64 = 5 << 30;
/// Parts of an upload, at most.
pub const MOST_PARTS: u32 = 10_000;
/// Bytes of one name in an [`ObjectPath`].
const MOST_NAME: usize = 200;
/// Names in an [`ObjectPath`] behind its first two.
const MOST_NAMES: usize = 8;

/// What a URL is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Reading the object or a range of it.
    Get,
    /// Writing the whole object.
    Put {
        /// Its length.
        length: u64,
    },
    /// Writing one part of an upload.
    Part {
        /// The upload's id.
        upload: String,
        /// The part's number, from 0.
        part: u32,
        /// Its length.
        length: u64,
    },
}

/// Signs URLs under which this process serves a store that cannot sign any itself.
pub trait UrlSigner: Send + Sync + fmt::Debug {
    /// A URL for this one object and this one verb, good for [`URL_LIVES_FOR`].
    fn sign(&self, path: &ObjectPath, verb: &Verb) -> String;
}

/// Where an object of the store is that a URL may be for: a body, a piece of a log, a working tree. No index object, no mark.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectPath(String);

impl ObjectPath {
    /// `None` for everything that is not `v1/body/ID`, `v1/log/NAME…` or `v1/tree/NAME…`, where a name consists of
    /// `A`–`Z`, `a`–`z`, `0`–`9`, `-`, `_` and `.`, which it does not begin with.
    pub fn read(text: &str) -> Option<Self> {
        let mut names = text.split('/');
        if names.next() != Some(layout::ROOT) {
            return None;
        }
        let kind = names.next()?;
        let names: Vec<&str> = names.collect();
        let good = match kind {
            "body" => names.len() == 1 && BodyId::read(names[0]).is_some(),
            "log" | "tree" => (1..=MOST_NAMES).contains(&names.len()) && names.iter().all(|name| is_name(name)),
            _ => false,
        };
        good.then(|| Self(text.to_owned()))
    }

    /// A body.
    pub fn body(id: BodyId) -> Self {
        Self(layout::body(id))
    }

    /// The body that it is, if it is one.
    pub fn as_body(&self) -> Option<BodyId> {
        BodyId::read(self.0.strip_prefix(layout::BODIES)?.strip_prefix('/')?)
    }

    /// From the store's root.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MOST_NAME).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where it is.
    pub path: ObjectPath,
    /// Bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

/// A store's objects, and URLs for them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects {
    pub(super) bucket: Arc<Bucket>,
    signer: Arc<dyn UrlSigner>,
    pub(super) joining: parts::Joining,
    pub(super) aborts: Aborts,
}

impl Objects {
    /// `signer` is asked where the store itself cannot sign.
    pub fn new(bucket: Arc<Bucket>, signer: Arc<dyn UrlSigner>) -> Self {
        Self { bucket, signer, joining: parts::Joining::default(), aborts: Aborts::default() }
    }

    /// The store's name, for people.
    pub fn name(&self) -> &str {
        self.bucket.name()
    }

    /// The store itself.
    pub fn bucket(&self) -> &Arc<Bucket> {
        &self.bucket
    }

    /// The verbs of one project's store, as one scope sees it, for those without credentials.
    pub fn grants(&self, project: &str, scope: TrustScope) -> Grants {
        Grants::new(self.clone(), project, scope)
    }

    /// A URL for one object and one verb.
    ///
    /// # Errors
    /// More is to be put than one request may carry, or the store does not sign.
    pub async fn url(&self, path: &ObjectPath, verb: &Verb) -> Result<String> {
        if let Verb::Put { length } | Verb::Part { length, .. } = verb
            && *length > MOST_PUT
        {
            return Err(StorageError::TooLong { path: path.to_string(), most: MOST_PUT });
        }
        if matches!(verb, Verb::Part { part, .. } if *part >= MOST_PARTS) {
            return Err(StorageError::NoUpload { path: path.to_string() });
        }
        match self.bucket.signing_cloud() {
            Some(cloud) => self.presigned(cloud, path, verb).await,
            None => Ok(self.signer.sign(path, verb)),
        }
    }

    async fn presigned(&self, cloud: &Cloud, path: &ObjectPath, verb: &Verb) -> Result<String> {
        let (method, options) = match verb {
            Verb::Get => (Method::GET, SignedUrlOptions::new()),
            Verb::Put { .. } => (Method::PUT, SignedUrlOptions::new()),
            Verb::Part { upload, part, .. } => {
                // The clouds count from 1.
                let number = (part + 1).to_string();
                let query = [("partNumber", number.as_str()), ("uploadId", upload)];
                (Method::PUT, SignedUrlOptions::new().with_query(query))
            }
        };
        let full = self.bucket.full(path.as_str());
        let signed = cloud.signer.signed_url_opts(method, &full, URL_LIVES_FOR, &options).await;
        Ok(signed.map_err(self.bucket.failed("sign a request"))?.to_string())
    }

    /// Begins an upload in parts. Its id.
    ///
    /// # Errors
    /// The store's; so it is with everything below.
    pub async fn begin(&self, path: &ObjectPath) -> Result<String> {
        let failed = self.bucket.failed("begin an upload");
        if let Some(directory) = self.bucket.as_directory() {
            return parts::begin(directory.to_owned(), path.clone()).await.map_err(failed);
        }
        let cloud = self.bucket.multipart().ok_or_else(|| self.takes_no_parts())?;
        cloud.create_multipart(&self.bucket.full(path.as_str())).await.map_err(failed)
    }

    /// Ends an upload. `tags`: what the store said of each part, in their order. May be repeated.
    ///
    /// # Errors
    /// Also [`StorageError::NoUpload`], and parts that are missing.
    pub async fn complete(&self, path: &ObjectPath, upload: &str, tags: Vec<String>) -> Result<()> {
        let completed = match self.bucket.as_directory() {
            Some(directory) => {
                let mark = self.mark(path).await?;
                let busy = || StorageError::Busy { path: path.to_string() };
                let joining = self.joining.begin(upload).ok_or_else(busy)?;
                let joined = parts::complete(directory.to_owned(), path.clone(), joining, tags).await;
                if joined.is_ok() {
                    self.mark_again(path, mark).await?;
                }
                joined
            }
            None => {
                let cloud = self.bucket.multipart().ok_or_else(|| self.takes_no_parts())?;
                let ids = tags.into_iter().map(|content_id| PartId { content_id }).collect();
                cloud.complete_multipart(&self.bucket.full(path.as_str()), &upload.to_owned(), ids).await.map(drop)
            }
        };
        match completed {
            // It was completed already, and the answer was lost.
            Err(object_store::Error::NotFound { .. }) if self.bucket.exists(path.as_str()).await? => {}
            Err(object_store::Error::NotFound { .. }) => return Err(StorageError::NoUpload { path: path.to_string() }),
            ended => ended.map_err(self.bucket.failed("end an upload"))?,
        }
        // To begin one is tried again when its answer is lost, and then there are two.
        self.bucket.abort_uploads(path.as_str()).await.map(drop)
    }

    /// Gives an upload up; its parts are removed. One that has ended already has ended.
    ///
    /// # Errors
    /// The store's.
    pub async fn abort(&self, path: &ObjectPath, upload: &str) -> Result<()> {
        let aborted = match self.bucket.as_directory() {
            Some(directory) => parts::abort(directory.to_owned(), path.clone(), upload.to_owned()).await,
            None => {
                let cloud = self.bucket.multipart().ok_or_else(|| self.takes_no_parts())?;
                cloud.abort_multipart(&self.bucket.full(path.as_str()), &upload.to_owned()).await
            }
        };
        match aborted {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            ended => ended.map_err(self.bucket.failed("abort an upload")),
        }
    }

    fn takes_no_parts(&self) -> StorageError {
        StorageError::TakesNoParts { store: self.name().to_owned() }
    }

    /// Writes a whole object, over another if need be.
    ///
    /// # Errors
    /// The store's; so it is with everything below.
    pub async fn put(&self, path: &ObjectPath, bytes: Bytes) -> Result<()> {
        self.bucket.put(path.as_str(), super::transfer::in_slices(bytes)).await
    }

    /// Reads a whole object of at most `most` bytes. `None`: there is none.
    ///
    /// # Errors
    /// Also [`StorageError::TooLong`]: then nothing of it was read.
    pub async fn get(&self, path: &ObjectPath, most: u64) -> Result<Option<Bytes>> {
        self.bucket.whole(path.as_str(), most).await
    }

    /// Reads a range of an object: fewer bytes where it ends before. `None`: there is no such object.
    ///
    /// # Errors
    /// Also a range that begins behind the object's end.
    pub async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Option<Bytes>> {
        if range.is_empty() {
            return Ok(self.size(path).await?.map(|_| Bytes::new()));
        }
        self.bucket.range(path.as_str(), range).await
    }

    /// The size of an object. `None`: there is none.
    ///
    /// # Errors
    /// The store's; so it is with everything below.
    pub async fn size(&self, path: &ObjectPath) -> Result<Option<u64>> {
        self.bucket.size(path.as_str()).await
    }

    /// Removes an object; one that is not there is removed.
    pub async fn remove(&self, path: &ObjectPath) -> Result<()> {
        self.bucket.remove(path.as_str()).await
    }

    /// Writes an object of the audit log, which no URL is ever for. `name` is of our own making.
    pub async fn put_audit(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.bucket.put(&format!("{}/{name}", layout::AUDIT), super::transfer::in_slices(bytes)).await
    }

    /// The objects whose path begins with `prefix`, `v1/log/…` for example.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Stored>> {
        let stored = |object: super::bucket::Object| {
            Some(Stored { path: ObjectPath::read(&object.path)?, size: object.size, modified: object.modified })
        };
        Ok(self.bucket.list(prefix).await?.into_iter().filter_map(stored).collect())
    }

    /// What time it is for the store.
    pub async fn now(&self) -> Result<Timestamp> {
        self.bucket.now().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_of_ours_or_none() {
        let id = BodyId::random();
        assert_eq!(ObjectPath::read(&format!("v1/body/{id}")).unwrap().as_body(), Some(id));
        for good in ["v1/log/t/001-1/0", "v1/tree/0123.tar.zst"] {
            assert_eq!(ObjectPath::read(good).unwrap().as_body(), None);
        }
        let long = format!("v1/log/{}", "a".repeat(201));
        let deep = format!("v1/log{}", "/a".repeat(9));
        let of_body = [id.to_string().to_uppercase(), format!("{id}#1"), format!("{id}/x"), format!("{id}/")];
        let bodies = of_body.map(|end| format!("v1/body/{end}"));
        let words = "v1 v1/ v1/body v1/body/ v1/log v1/log/ v1/log//a v1/log/a/ /v1/log/a v2/log/a v1/log/.. v1/./log/a \
                     v1/log/../body/x v1/log/.a v1/log/a#1 v1/log/a%2e v1/log/\u{e9} v1/log/a\\b v1/log/a\0 v1/cache/a \
                     v1/piece/layer/a v1/reserved/a v1/quarantine/a v1/clock v1/if-absent";
        let words = words.split(' ').chain(["", &long, &deep, "v1/log/a b"]);
        for bad in words.chain(bodies.iter().map(String::as_str)) {
            assert_eq!(ObjectPath::read(bad), None, "{bad:?}");
        }
    }
}
