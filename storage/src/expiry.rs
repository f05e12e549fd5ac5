//! Entries that are older than a rule of the store's keeper: they go in two steps, so that nobody is in the middle of reading one.
//!
//! ```text
//! older than the rule ─▶ mark ─▶ hidden: no reader finds it any more ─▶ a day later a sweep removes body and mark
//!                                (who has found it before reads on)
//! ```
//!
//! Several processes may be at it: each step may be repeated. A round looks at a bounded number of entries; the next one goes on
//! where it ended.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use navvy_job::chain::chain;

use super::bucket::{Bucket, Object};
use super::error::Result;
use super::ledger::Index;
use super::record::Entry;
use super::seen::Seen;
use super::sweep::Unswept;

const PARALLEL: usize = 8;
/// One entry takes no longer.
const ONE: Duration = Duration::from_secs(10);
/// Entries that one round looks at.
const ROUND: usize = 20_000;

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Caches of all projects.
    Caches,
    /// Layers of workspaces.
    Layers,
    /// Artifacts, and what says that a run has some.
    Artifacts,
}

impl Kept {
    fn beneath(self) -> &'static str {
        match self {
            Self::Caches => "v1/cache/",
            Self::Layers => "v1/piece/layer/",
            Self::Artifacts => "v1/piece/artifacts/",
        }
    }
}

/// Where the next round goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place(pub(super) Option<String>);

impl Place {
    /// Was the last round's end the end of all?
    pub fn is_start(&self) -> bool {
        self.0.is_none()
    }
}

/// What came of a round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expired {
    /// Entries that are hidden now.
    pub hidden: u64,
    /// Entries that are old enough and were spared.
    pub spared: u64,
    /// What stays until a later round.
    pub failed: Vec<Unswept>,
}

impl Expired {
    fn and(mut self, other: Self) -> Self {
        self.failed.extend(other.failed);
        Self { hidden: self.hidden + other.hidden, spared: self.spared + other.spared, failed: self.failed }
    }
}

impl Bucket {
    /// One round: hides what is older than `older_than` by the store's clock, unless `spares` says that it is needed.
    ///
    /// # Errors
    /// The store does not list its entries, or does not say its time. What is wrong with one entry is part of [`Expired`].
    pub async fn expire(
        self: &Arc<Self>,
        what: Kept,
        older_than: Duration,
        place: &mut Place,
        spares: &(dyn Fn(&Entry) -> bool + Send + Sync),
    ) -> Result<Expired> {
        let from = std::mem::take(place);
        let (mut objects, next) = self.list_some(what.beneath(), from, ROUND).await?;
        if objects.is_empty() {
            *place = next;
            return Ok(Expired::default());
        }
        let older_than = SignedDuration::try_from(older_than).unwrap_or(SignedDuration::MAX);
        let bound = self.now().await?.checked_sub(older_than).unwrap_or(Timestamp::MIN);
        objects.retain(|object| object.modified <= bound);
        let each = objects.iter().map(|object| self.expire_one(object, spares));
        let add = |sum: Expired, one| std::future::ready(sum.and(one));
        let expired = futures_util::stream::iter(each).buffer_unordered(PARALLEL).fold(Expired::default(), add).await;
        *place = next;
        Ok(expired)
    }

    async fn expire_one(self: &Arc<Self>, object: &Object, spares: &(dyn Fn(&Entry) -> bool + Send + Sync)) -> Expired {
        let why = match tokio::time::timeout(ONE, self.hide_old(object, spares)).await {
            Ok(Ok(expired)) => return expired,
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("the store did not answer within {} seconds", ONE.as_secs()),
        };
        Expired { failed: vec![Unswept { path: object.path.clone(), why }], ..Expired::default() }
    }

    async fn hide_old(
        self: &Arc<Self>,
        object: &Object,
        spares: &(dyn Fn(&Entry) -> bool + Send + Sync),
    ) -> Result<Expired> {
        let entry = match self.see(&object.path, Some(object.modified)).await? {
            Seen::Entry(entry) => entry,
            // What a newer version has written is its own affair.
            Seen::Newer(_) | Seen::Nothing => return Ok(Expired::default()),
            Seen::Unreadable(why) => {
                self.put_object_aside(&object.path, &why).await;
                return Ok(Expired::default());
            }
        };
        if spares(&entry) {
            return Ok(Expired { spared: 1, ..Expired::default() });
        }
        let Ok(scope) = entry.record.scope.parse() else { return Ok(Expired::default()) };
        Index::new(Arc::clone(self), &entry.record.project, scope).retire(&entry).await?;
        Ok(Expired { hidden: 1, ..Expired::default() })
    }
}
