//! The grantor's side: the verbs of one project's store in one scope, for somebody who has nothing but URLs. What that
//! somebody may ask for at all is decided by whoever stands before it; here it is made sure that no word of theirs leads out
//! of this project and scope.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use navvy_job::claim::TrustScope;

use super::error::Result;
use super::granted::Grantor;
use super::ledger::{About, Commit, Hit, Index, Ledger, Reservation};
use super::objects::{ObjectPath, Objects, Verb};
use super::record::{Body, BodyId, Entry, Listed, PieceKind, Slot};

/// One project's store as one scope sees it, and URLs for its bodies.
#[derive(Debug, Clone)]
pub struct Grants {
    index: Arc<Index>,
    objects: Objects,
}

impl Grants {
    pub(super) fn new(objects: Objects, project: &str, scope: TrustScope) -> Self {
        Self { index: Arc::new(Index::new(objects.bucket().clone(), project, scope)), objects }
    }

    /// The entry that the store has where `told` says that it is, if it is the same: of this project, and of this scope or one
    /// that it reads through to. Whoever tells of an entry is not believed.
    ///
    /// # Errors
    /// The store's.
    pub async fn known(&self, told: &Entry) -> Result<Option<Known>> {
        self.index.known(told).await
    }

    /// The size of a body. `None`: it was not uploaded.
    ///
    /// # Errors
    /// The store's.
    pub async fn size(&self, id: BodyId) -> Result<Option<u64>> {
        self.objects.size(&ObjectPath::body(id)).await
    }
}

/// An entry as the store has it.
#[derive(Debug, Clone)]
pub struct Known {
    /// The entry.
    pub entry: Entry,
    /// It is the own scope's: the others' are read and not changed.
    pub own: bool,
}

impl Reservation {
    /// A reservation that was made `age` ago, maybe by another process.
    pub fn of_age(id: BodyId, place: Slot, age: Duration) -> Self {
        Self { id, place, since: tokio::time::Instant::now(), before: age }
    }
}

#[async_trait]
impl Grantor for Grants {
    async fn put_url(&self, id: BodyId, length: u64) -> Result<String> {
        self.objects.url(&ObjectPath::body(id), &Verb::Put { length }).await
    }

    async fn get_url(&self, id: BodyId) -> Result<String> {
        self.objects.url(&ObjectPath::body(id), &Verb::Get).await
    }

    async fn begin(&self, id: BodyId) -> Result<String> {
        self.objects.begin(&ObjectPath::body(id)).await
    }

    async fn part_url(&self, id: BodyId, upload: &str, part: u32, length: u64) -> Result<String> {
        let verb = Verb::Part { upload: upload.to_owned(), part, length };
        self.objects.url(&ObjectPath::body(id), &verb).await
    }

    async fn complete(&self, id: BodyId, upload: &str, tags: Vec<String>) -> Result<()> {
        self.objects.complete(&ObjectPath::body(id), upload, tags).await
    }

    async fn abort(&self, id: BodyId, upload: &str) -> Result<()> {
        self.objects.abort(&ObjectPath::body(id), upload).await
    }

    fn store_name(&self) -> &str {
        self.objects.name()
    }
}

/// Names are the index's affair: every verb is handed on.
#[async_trait]
impl Ledger for Grants {
    async fn look_up(&self, keys: &[String]) -> Result<Option<Hit>> {
        self.index.look_up(keys).await
    }

    async fn find(&self, place: &Slot) -> Result<Option<Entry>> {
        self.index.find(place).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.index.list(prefix).await
    }

    async fn read(&self, listed: &Listed) -> Result<Option<Entry>> {
        self.index.read(listed).await
    }

    async fn pieces(&self, kind: PieceKind, group: &str, producers: Option<&[String]>) -> Result<Vec<Entry>> {
        self.index.pieces(kind, group, producers).await
    }

    async fn reserve(&self, place: Slot) -> Result<Reservation> {
        self.index.reserve(place).await
    }

    async fn commit(&self, reservation: &Reservation, body: &Body, about: About) -> Result<Commit> {
        self.index.commit(reservation, body, about).await
    }

    async fn abandon(&self, reservation: &Reservation) -> Result<()> {
        self.index.abandon(reservation).await
    }

    async fn remove(&self, entry: &Entry) -> Result<()> {
        self.index.remove(entry).await
    }

    async fn quarantine(&self, entry: &Entry, why: &str) -> Result<()> {
        self.index.quarantine(entry, why).await
    }
}
