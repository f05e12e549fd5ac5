//! The index: which bodies are visible, as what. Behind one trait, because an agent without credentials asks a grantor.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use navvy_job::claim::TrustScope;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::bucket::{Bucket, Object};
use super::error::{Result, StorageError};
use super::grants::Known;
use super::key;
use super::layout::{self, Namespace};
use super::record::{Body, BodyId, Entry, Listed, PieceKind, Producer, Quarantined, Record, Slot, VERSION, json};
use super::seen::{self, Seen};

/// After this a reservation is not committed any more. A sweep spares everything younger than [`super::SWEEP_AFTER`], twice
/// this long: a body is never removed under a writer that may still commit it.
pub const RESERVED_FOR: Duration = Duration::from_secs(12 * 3600);
/// Index objects are small: what bounds this is a store's patience, not memory.
const PARALLEL_READS: usize = 16;
/// A store may answer "conflict" while two writers are at it, and neither has won.
const COMMIT_ATTEMPTS: u32 = 5;

/// The right to upload one body for one place.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// The body that may be uploaded.
    pub id: BodyId,
    /// Where its entry will be found.
    pub place: Slot,
    pub(super) since: Instant,
    /// How old it was by then: it may have been made by another process.
    pub(super) before: Duration,
}

/// What a writer says of its body.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct About {
    /// Who made it.
    pub producer: Producer,
    /// What the writer wants back from the entry, by names of its own.
    pub details: BTreeMap<String, String>,
}

/// How a commit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// This entry is ours.
    Won(Entry),
    /// Another writer was first: this is its entry. Our body is removed.
    Lost(Entry),
    /// A newer version was first, and its entry cannot be read here. Our body is removed.
    Newer {
        /// Version of its index object.
        version: u32,
    },
}

/// A cache that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Which of the keys it was found by, from 0.
    pub nth: usize,
    /// What was found.
    pub entry: Entry,
}

/// The verbs that are about names, not bytes.
#[async_trait]
pub trait Ledger: Send + Sync + fmt::Debug {
    /// The newest cache whose key begins with the first of `keys` that has any. Within one key, the own scope's come before
    /// its parent's.
    async fn look_up(&self, keys: &[String]) -> Result<Option<Hit>>;
    /// The entry at exactly this place of the own scope.
    async fn find(&self, place: &Slot) -> Result<Option<Entry>>;
    /// All caches whose key begins with `prefix`, those of the scope's parents too, newest first.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>>;
    /// The whole entry of a cache from [`Self::list`]; `None` if it has gone, or is not to be believed.
    async fn read(&self, listed: &Listed) -> Result<Option<Entry>>;
    /// What `producers` (`None`: all) left in `group`: in the order of `producers`, then by node, then by step. A layer of a
    /// workspace that `producers` left and that cannot be read is an error; every other such entry is passed over.
    async fn pieces(&self, kind: PieceKind, group: &str, producers: Option<&[String]>) -> Result<Vec<Entry>>;
    /// Gives the right to upload a body for this slot. The body is invisible until [`Self::commit`].
    async fn reserve(&self, place: Slot) -> Result<Reservation>;
    /// Makes an uploaded body visible, if its place is free.
    async fn commit(&self, reservation: &Reservation, body: &Body, about: About) -> Result<Commit>;
    /// Removes what was uploaded for a reservation.
    async fn abandon(&self, reservation: &Reservation) -> Result<()>;
    /// Removes an entry and its body.
    async fn remove(&self, entry: &Entry) -> Result<()>;
    /// Puts an entry aside, so that it is not found any more; its body stays for a while, so that it can be examined.
    async fn quarantine(&self, entry: &Entry, why: &str) -> Result<()>;
}

/// What stands in `v1/reserved/ID`: where the body would become visible.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reserved {
    pub index: String,
}

/// The index of a bucket that we may read and write ourselves.
#[derive(Debug)]
pub struct Index {
    bucket: Arc<Bucket>,
    project: String,
    scope: TrustScope,
    /// The own first, then those it reads through to.
    namespaces: Vec<Namespace>,
}

impl Index {
    /// The index of `bucket` as this scope of this project sees it.
    pub fn new(bucket: Arc<Bucket>, project: &str, scope: TrustScope) -> Self {
        let namespaces = scope.chain().map(|scope| Namespace::new(project, &scope)).collect();
        Self { bucket, project: project.to_owned(), scope, namespaces }
    }

    /// What is at the place of an entry that somebody tells of, if it is that entry. Its scope must be one that is read here.
    pub(super) async fn known(&self, told: &Entry) -> Result<Option<Known>> {
        let Ok(scope) = told.record.scope.parse::<TrustScope>() else { return Ok(None) };
        let nth = self.scope.chain().position(|read| read == scope);
        let place = &told.record.place;
        // A piece is found in the own scope alone.
        let Some(nth) = nth.filter(|nth| *nth == 0 || matches!(place, Slot::Cache { .. })) else { return Ok(None) };
        let path = layout::index(&self.namespaces[nth], place, self.bucket.text_limit());
        let entry = self.entry(&path, None).await?.filter(|entry| entry.record.body == told.record.body);
        Ok(entry.map(|entry| Known { entry, own: nth == 0 }))
    }

    fn own(&self) -> &Namespace {
        &self.namespaces[0]
    }

    fn path(&self, place: &Slot) -> String {
        layout::index(self.own(), place, self.bucket.text_limit())
    }

    /// What may be keys that begin with `prefix`.
    async fn listed(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Object>> {
        let text = key::prefix(prefix, self.bucket.text_limit());
        self.bucket.list(&format!("{}/{text}", layout::caches(namespace))).await
    }

    /// What a path says of its key, if that can begin with `prefix`.
    fn said(namespace: &Namespace, object: &Object, prefix: &str) -> Option<key::Said> {
        let said = key::read(object.path.strip_prefix(&layout::caches(namespace))?.strip_prefix('/')?)?;
        (said.begins_with(prefix.as_bytes()) != Some(false)).then_some(said)
    }

    /// The newest of one namespace. Of two that the store took at the same moment, the one with the greater key.
    async fn newest(&self, namespace: &Namespace, prefix: &str) -> Result<Option<Entry>> {
        let mut objects = self.listed(namespace, prefix).await?;
        objects.sort_by_key(|object| std::cmp::Reverse(object.modified));
        // Few of ten thousand objects need be read.
        for moment in objects.chunk_by(|a, b| a.modified == b.modified) {
            let said = |object| Some((Self::said(namespace, object, prefix)?, object));
            let mut candidates: Vec<(key::Said, &Object)> = moment.iter().filter_map(said).collect();
            candidates.sort_by(|(a, _), (b, _)| b.bytes().cmp(a.bytes()));
            for (_, object) in candidates {
                // Gone since it was listed, or longer than its path and another's: the next.
                let entry = self.entry(&object.path, Some(object.modified)).await?;
                if let Some(entry) = entry.filter(|entry| entry.key().is_some_and(|key| key.starts_with(prefix))) {
                    return Ok(Some(entry));
                }
            }
        }
        Ok(None)
    }

    /// Reads an index object. One that cannot be read is damage: it is put aside, and nothing is there. A newer version's is
    /// passed over. Both are reported.
    async fn entry(&self, path: &str, listed: Option<Timestamp>) -> Result<Option<Entry>> {
        match self.settled(path, listed).await? {
            Seen::Entry(entry) => Ok(Some(*entry)),
            Seen::Newer(_) | Seen::Nothing | Seen::Unreadable(_) => Ok(None),
        }
    }

    /// What is at `path`, once what cannot be read has been put aside.
    async fn settled(&self, path: &str, listed: Option<Timestamp>) -> Result<Seen> {
        let seen = self.bucket.see(path, listed).await?;
        match &seen {
            Seen::Unreadable(why) => self.bucket.put_object_aside(path, why).await,
            Seen::Newer(version) => self.bucket.tell_newer(path, *version),
            Seen::Entry(_) | Seen::Nothing => {}
        }
        Ok(seen)
    }

    /// An entry that must not be missed: without one layer a workspace would be another one.
    async fn needed(&self, path: &str, listed: Timestamp) -> Result<Option<Entry>> {
        match self.bucket.see(path, Some(listed)).await? {
            Seen::Entry(entry) => Ok(Some(*entry)),
            Seen::Nothing => Ok(None),
            Seen::Newer(version) => Err(self.foreign(path, &seen::newer(version))),
            Seen::Unreadable(why) => Err(self.foreign(path, &why)),
        }
    }

    fn foreign(&self, path: &str, why: &str) -> StorageError {
        StorageError::Foreign { store: self.bucket.name().to_owned(), path: path.to_owned(), why: why.to_owned() }
    }

    fn record(&self, reservation: &Reservation, body: &Body, about: About) -> Record {
        Record {
            version: VERSION,
            project: self.project.clone(),
            scope: self.scope.to_string(),
            place: reservation.place.clone(),
            body: body.clone(),
            producer: about.producer,
            details: about.details,
        }
    }

    /// Writes the index object if its place is free. A write whose answer was lost, or that the store tried again by itself,
    /// may find itself: whose it is stands in it. What is there and cannot be read is put aside, and the place is free.
    async fn claim_place(&self, path: &str, record: &Record) -> Result<Seen> {
        let bytes = Bytes::from(json(record));
        let mut attempts = 0;
        loop {
            attempts += 1;
            let created = self.bucket.create(path, bytes.clone()).await;
            let created = match created {
                Err(error) if error.is_final() => return Err(error),
                other => other,
            };
            match (self.settled(path, None).await?, created) {
                (seen @ (Seen::Entry(_) | Seen::Newer(_)), _) => return Ok(seen),
                (_, Err(error)) if attempts >= COMMIT_ATTEMPTS => return Err(error),
                (Seen::Unreadable(why), _) if attempts >= COMMIT_ATTEMPTS => return Err(self.foreign(path, &why)),
                (Seen::Nothing, _) if attempts >= COMMIT_ATTEMPTS => {
                    return Err(self.foreign(path, "it comes and goes"));
                }
                _ => tokio::time::sleep(Duration::from_millis(50) * 2_u32.pow(attempts)).await,
            }
        }
    }

    /// Removes an index object if it still is this entry's.
    async fn hide(&self, entry: &Entry) -> Result<()> {
        let namespace = entry_namespace(&entry.record)
            .ok_or_else(|| self.foreign("", &format!("scope {:?}", entry.record.scope)))?;
        let path = layout::index(&namespace, &entry.record.place, self.bucket.text_limit());
        if self.entry(&path, None).await?.is_some_and(|there| there.body().id == entry.body().id) {
            self.bucket.remove(&path).await?;
        }
        Ok(())
    }

    /// Hides an entry. Its body stays until a sweep finds its mark: whoever has found the entry before reads on.
    pub(super) async fn retire(&self, entry: &Entry) -> Result<()> {
        self.mark(entry.body().id, self.path(&entry.record.place)).await?;
        self.hide(entry).await
    }

    async fn mark(&self, id: BodyId, index: String) -> Result<()> {
        self.bucket.write(&layout::reserved(id), json(&Reserved { index }).into()).await
    }

    async fn drop_body(&self, id: BodyId) -> Result<()> {
        self.bucket.remove(&layout::body(id)).await?;
        self.bucket.remove(&layout::reserved(id)).await
    }
}

#[async_trait]
impl Ledger for Index {
    async fn look_up(&self, keys: &[String]) -> Result<Option<Hit>> {
        for (nth, key) in keys.iter().enumerate() {
            for namespace in &self.namespaces {
                if let Some(entry) = self.newest(namespace, key).await? {
                    return Ok(Some(Hit { nth, entry }));
                }
            }
        }
        Ok(None)
    }

    async fn find(&self, place: &Slot) -> Result<Option<Entry>> {
        self.entry(&self.path(place), None).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut all = Vec::new();
        for namespace in &self.namespaces {
            let objects = self.listed(namespace, prefix).await?;
            let said = |object: Object| Some((Self::said(namespace, &object, prefix)?, object));
            all.extend(objects.into_iter().filter_map(said));
        }
        all.sort_by(|(a_key, a), (b_key, b)| (b.modified, b_key.bytes()).cmp(&(a.modified, a_key.bytes())));
        let listed = all.into_iter().map(|(said, object)| Listed {
            key: match said {
                key::Said::Key(bytes) => String::from_utf8(bytes).ok(),
                key::Said::Beginning(_) => None,
            },
            created: object.modified,
            path: object.path,
        });
        Ok(listed.collect())
    }

    async fn read(&self, listed: &Listed) -> Result<Option<Entry>> {
        // A path may have been told by somebody else.
        let beneath = |namespace: &Namespace| {
            let beneath = listed.path.strip_prefix(&layout::caches(namespace)).and_then(|path| path.strip_prefix('/'));
            beneath.and_then(key::read).is_some()
        };
        if !self.namespaces.iter().any(beneath) {
            return Ok(None);
        }
        self.entry(&listed.path, Some(listed.created)).await
    }

    async fn pieces(&self, kind: PieceKind, group: &str, producers: Option<&[String]>) -> Result<Vec<Entry>> {
        let directories: Vec<String> = match producers {
            Some(producers) => {
                producers.iter().map(|producer| layout::producer_dir(self.own(), kind, group, producer)).collect()
            }
            None => vec![layout::group_dir(self.own(), kind, group)],
        };
        let mut objects = Vec::new();
        for directory in directories {
            let mut listed = self.bucket.list(&format!("{directory}/")).await?;
            listed.sort_by(|a, b| a.path.cmp(&b.path));
            objects.append(&mut listed);
        }
        let all_needed = kind == PieceKind::Layer && producers.is_some();
        let read = async |object: &Object| match all_needed {
            true => self.needed(&object.path, object.modified).await,
            false => self.entry(&object.path, Some(object.modified)).await,
        };
        let reads: Vec<_> = objects.iter().map(read).collect();
        let read = futures_util::stream::iter(reads).buffered(PARALLEL_READS);
        let entries: Vec<Option<Entry>> = read.try_collect().await?;
        Ok(entries.into_iter().flatten().collect())
    }

    async fn reserve(&self, place: Slot) -> Result<Reservation> {
        if matches!(&place, Slot::Cache { key } if key.is_empty()) {
            return Err(StorageError::EmptyKey);
        }
        let id = BodyId::random();
        self.mark(id, self.path(&place)).await?;
        Ok(Reservation { id, place, since: Instant::now(), before: Duration::ZERO })
    }

    async fn commit(&self, reservation: &Reservation, body: &Body, about: About) -> Result<Commit> {
        let age = reservation.since.elapsed().saturating_add(reservation.before);
        if age > RESERVED_FOR {
            return Err(StorageError::Expired { id: reservation.id, hours: age.as_secs() / 3600 });
        }
        let record = self.record(reservation, body, about);
        let ended = match self.claim_place(&self.path(&reservation.place), &record).await? {
            Seen::Entry(there) if there.body().id == body.id => {
                self.bucket.remove(&layout::reserved(body.id)).await?;
                return Ok(Commit::Won(*there));
            }
            Seen::Entry(there) => Commit::Lost(*there),
            Seen::Newer(version) => Commit::Newer { version },
            Seen::Nothing | Seen::Unreadable(_) => return Err(self.foreign("", "a place that was claimed is empty")),
        };
        self.drop_body(body.id).await?;
        Ok(ended)
    }

    async fn abandon(&self, reservation: &Reservation) -> Result<()> {
        self.bucket.abort_uploads(&layout::body(reservation.id)).await?;
        self.drop_body(reservation.id).await
    }

    async fn remove(&self, entry: &Entry) -> Result<()> {
        // A process that dies between the next three lines leaves something that a sweep understands.
        self.mark(entry.body().id, self.path(&entry.record.place)).await?;
        self.hide(entry).await?;
        self.drop_body(entry.body().id).await
    }

    async fn quarantine(&self, entry: &Entry, why: &str) -> Result<()> {
        let aside = Quarantined { why: why.to_owned(), record: Some(entry.record.clone()), index: None };
        self.bucket.write(&layout::quarantine(entry.body().id), json(&aside).into()).await?;
        self.hide(entry).await
    }
}

fn entry_namespace(record: &Record) -> Option<Namespace> {
    Some(Namespace::new(&record.project, &record.scope.parse().ok()?))
}
