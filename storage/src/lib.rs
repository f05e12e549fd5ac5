//! The store: caches, workspace layers and artifacts, by verbs.
//!
//! ```text
//!              look_up ─▶ Hit ─▶ get                                  a body is invisible until its entry is committed,
//! reserve ─▶ put ─▶ commit ─▶ Won(entry)                              an entry never changes, and points to one body
//!     │       │        └────▶ Lost(theirs)   our body is removed
//!     └───────┴─▶ abandon, or a sweep some day
//!
//! Store ─┬─ Ledger (names)  ─┬─ Index: a bucket with credentials
//!        │                   └─ granted: a grantor has them and is asked
//!        └─ Bodies (bytes)  ─┬─ Bucket
//!                            └─ granted: presigned URLs
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `ledger`, `seen`, `record` | names: the index's entries, how they are written once, and what is believed of one that is read |
//! | `transfer` | bytes: uploads in parts, reads in ranges, digests |
//! | `bucket`, `private` | a directory or a cloud; a directory is its user's alone |
//! | `granted`, `urls` | the same without credentials |
//! | `grants`, `objects` | the grantor's side: URLs for those without credentials |
//! | `streams` | objects from streams of unknown length |
//! | `served`, `parts` | a store that cannot sign, served by the grantor itself |
//! | `layout`, `key` | what lies where (pure) |
//! | [`template`] | a cache's key, as a config writes it (pure) |
//! | [`artifacts`] | many small files in one body |
//! | `expiry` | hides what is older than a rule |
//! | `sweep`, `survey` | removes what was never committed; lists what was put aside |
//! | `settings`, `open` | which store, and the way to it |
//! | `http`, `patience` | one request: whose certificates count, what "stalled" means, when to try again |
//!
//! Steps see this crate alone and never a path. What lies where: `docs/storage.md`.

#![warn(missing_docs)]

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use navvy_job::claim::TrustScope;

pub mod artifacts;
mod bucket;
mod error;
mod expiry;
mod granted;
mod grants;
mod http;
mod key;
mod layout;
mod ledger;
mod objects;
mod open;
mod parts;
mod patience;
mod private;
mod record;
mod seen;
mod served;
mod settings;
mod streams;
#[cfg(any(test, feature = "suite"))]
#[doc(hidden)]
pub mod suite;
mod survey;
mod sweep;
pub mod template;
mod transfer;
mod urls;

#[cfg(test)]
mod tests;

pub use bucket::Bucket;
pub use error::{Result, StorageError};
pub use expiry::{Expired, Kept, Place};
pub use granted::{Granted, GrantedReader, Grantor};
pub use grants::{Grants, Known};
pub use http::{Identity, Pace, Proxies, Transport, TransportError, client, client_as};
#[doc(hidden)]
pub use layout::{Namespace, index as index_path};
pub use ledger::{About, Commit, Hit, Index, Ledger, RESERVED_FOR, Reservation};
pub use objects::{MOST_PARTS, MOST_PUT, ObjectPath, Objects, Stored, URL_LIVES_FOR, UrlSigner, Verb};
pub use patience::{Patience, Retries};
pub use record::{Body, BodyId, Entry, Listed, Piece, PieceKind, Producer, Record, Slot};
#[doc(hidden)]
pub use seen::{Content, belongs, content};
pub use served::{MOST_HELD, Sent};
pub use settings::{Location, Origin, Scheme, SettingsError, Sources, StorageSettings, StoreTable};
pub use survey::PutAside;
pub use sweep::{Swept, Unswept};
pub use transfer::{Aborts, Bodies, Shape};

/// What a sweep spares: see [`RESERVED_FOR`].
pub const SWEEP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// One project's store, as one trust scope sees it.
#[derive(Debug, Clone)]
pub struct Store {
    ledger: Arc<dyn Ledger>,
    bodies: Arc<dyn Bodies>,
    shape: Shape,
    aborts: Aborts,
}

impl Store {
    /// The local home: a bucket that we have the credentials of.
    pub fn direct(bucket: Arc<Bucket>, project: &str, scope: TrustScope, shape: Shape) -> Self {
        let ledger = Arc::new(Index::new(bucket.clone(), project, scope));
        Self::new(ledger, bucket, shape)
    }

    /// The second home: a grantor that has them, and its URLs.
    pub fn granted(grantor: Arc<dyn Grantor>, transport: Transport, retries: Retries, shape: Shape) -> Self {
        let bodies = Arc::new(Granted::new(grantor.clone(), transport, retries));
        Self::new(grantor, bodies, shape)
    }

    /// Joins its two halves; `shape` says how bodies are cut into parts.
    pub fn new(ledger: Arc<dyn Ledger>, bodies: Arc<dyn Bodies>, shape: Shape) -> Self {
        Self { ledger, bodies, shape, aborts: Aborts::default() }
    }

    /// The store's name, for people.
    pub fn name(&self) -> &str {
        self.bodies.name()
    }

    /// The newest cache whose key begins with the first of `keys` that has any.
    ///
    /// # Errors
    /// The store's, after all retries; so it is with every verb here.
    pub async fn look_up(&self, keys: &[String]) -> Result<Option<Hit>> {
        self.ledger.look_up(keys).await
    }

    /// The entry at exactly this place of the own scope.
    pub async fn find(&self, place: &Slot) -> Result<Option<Entry>> {
        self.ledger.find(place).await
    }

    /// All caches whose key begins with `prefix`, newest first; the parents' too.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.ledger.list(prefix).await
    }

    /// The whole entry of a cache from [`Store::list`]; `None` if it has gone, or is not to be believed.
    pub async fn read(&self, listed: &Listed) -> Result<Option<Entry>> {
        self.ledger.read(listed).await
    }

    /// The workspace layers of these producers, in their order, then by node, then by step.
    pub async fn layers(&self, workspace: &str, producers: &[String]) -> Result<Vec<Entry>> {
        self.ledger.pieces(PieceKind::Layer, workspace, Some(producers)).await
    }

    /// What `producers` (`None`: all) left in `group`.
    pub async fn pieces(&self, kind: PieceKind, group: &str, producers: Option<&[String]>) -> Result<Vec<Entry>> {
        self.ledger.pieces(kind, group, producers).await
    }

    /// An id for a body that will be visible at `place`. It can be committed for [`RESERVED_FOR`].
    pub async fn reserve(&self, place: Slot) -> Result<Reservation> {
        let (ledger, theirs) = (self.ledger.clone(), self.ledger.clone());
        let undo = async move |reservation| drop(theirs.abandon(&reservation).await);
        self.aborts.finish(async move { ledger.reserve(place).await }, undo).await
    }

    /// Uploads a stream of unknown length: [`Shape::parallel`] parts at once, memory as [`Shape`] says. When it fails, or is
    /// dropped, its parts are removed; [`Store::settle`] waits for that.
    pub async fn put<S>(&self, reservation: &Reservation, stream: S) -> Result<Body>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        transfer::put(&self.bodies, &self.aborts, reservation.id, self.shape, stream).await
    }

    /// Makes a body visible, unless another writer was first.
    pub async fn commit(&self, reservation: &Reservation, body: &Body, about: About) -> Result<Commit> {
        self.ledger.commit(reservation, body, about).await
    }

    /// Gives a reservation up, and removes what was uploaded.
    pub async fn abandon(&self, reservation: &Reservation) -> Result<()> {
        self.ledger.abandon(reservation).await
    }

    /// The whole of a body, in order, [`Shape::parallel`] ranges fetched at once. Its last item is an error if it was not
    /// what was stored.
    pub fn get(&self, body: &Body) -> BoxStream<'static, Result<Bytes>> {
        transfer::get(self.bodies.clone(), body, 0..body.size, self.shape)
    }

    /// A part of a body, in order.
    pub fn get_part(&self, body: &Body, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
        transfer::get(self.bodies.clone(), body, range, self.shape)
    }

    /// A small part of a body, by one request.
    pub async fn get_range(&self, body: &Body, range: Range<u64>) -> Result<Bytes> {
        transfer::exactly(&*self.bodies, body.id, range).await
    }

    /// Removes an entry and its body.
    pub async fn remove(&self, entry: &Entry) -> Result<()> {
        self.ledger.remove(entry).await
    }

    /// Puts aside an entry whose body is damaged: from now on it is a miss, and its place is free.
    pub async fn quarantine(&self, entry: &Entry, why: &str) -> Result<()> {
        self.ledger.quarantine(entry, why).await
    }

    /// Waits until uploads and reservations that were dropped have been taken back; 5 s at most.
    pub async fn settle(&self) {
        self.aborts.settle().await;
    }
}
