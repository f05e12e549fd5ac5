//! How long things are kept, and their end.
//!
//! ```text
//! each hour, a bounded number of each kind, on from where the last round ended
//!   caches, layers, artifacts older than their rule ─▶ hidden (storage::expiry) ─▶ a day later: bodies go
//!     layers and artifacts of pipelines that run, or that a running one is a rerun of, stay
//!   working trees of pipelines that are over and older than workspaces, and those that no pipeline names ─▶ go
//! ```
//!
//! Several processors may be at it: whatever one has removed is not there for the other.

use std::collections::BTreeSet;
use std::time::Duration;

use navvy_job::chain::chain;
use navvy_storage::{Entry, Kept, Objects, Place};
use sqlx::Row as _;

use crate::grants::trees;
use crate::state::{State, StateError};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long what is kept. `None`: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Caches, from when they were saved.
    pub caches: Option<Duration>,
    /// Layers of workspaces, and working trees that were sent.
    pub workspaces: Option<Duration>,
    /// Artifacts.
    pub artifacts: Option<Duration>,
    /// Logs.
    pub logs: Option<Duration>,
}

impl Default for Keep {
    /// As the real service keeps them.
    fn default() -> Self {
        Self { caches: Some(15 * DAY), workspaces: Some(15 * DAY), artifacts: Some(30 * DAY), logs: Some(90 * DAY) }
    }
}

/// Why a round was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The database.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store.
    #[error(transparent)]
    Storage(#[from] navvy_storage::StorageError),
    /// Either, on the way through working trees.
    #[error(transparent)]
    Trees(#[from] trees::TreesError),
}

/// What a round removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Caches, layers and sets of artifacts.
    pub entries: u64,
    /// Of those, old ones that are still needed.
    pub spared: u64,
    /// Working trees.
    pub trees: u64,
    /// Uploads of trees that were begun and never ended.
    pub uploads: u64,
    /// What could not be removed now.
    pub failed: u64,
}

/// Goes by the rules, round by round.
#[derive(Debug)]
pub struct Keeper {
    state: State,
    objects: Objects,
    keep: Keep,
    places: [Place; 3],
}

impl Keeper {
    /// Of this store.
    pub fn new(state: State, objects: Objects, keep: Keep) -> Self {
        Self { state, objects, keep, places: Default::default() }
    }

    /// One round.
    ///
    /// # Errors
    /// The database or the store does not answer.
    pub async fn round(&mut self) -> Result<Removed, KeepError> {
        let mut removed = Removed::default();
        let needed = self.needed().await?;
        let is_needed = |entry: &Entry| entry.record.producer.pipeline.as_ref().is_some_and(|id| needed.contains(id));
        let Keep { caches, workspaces, artifacts, .. } = self.keep;
        let rules = [(Kept::Caches, caches), (Kept::Layers, workspaces), (Kept::Artifacts, artifacts)];
        for ((what, keep), place) in rules.into_iter().zip(&mut self.places) {
            let Some(keep) = keep else { continue };
            let spares = |entry: &Entry| what != Kept::Caches && is_needed(entry);
            let expired = self.objects.bucket().expire(what, keep, place, &spares).await?;
            for unswept in &expired.failed {
                tracing::warn!("{} is kept for longer than it is to be: {}.", unswept.path, unswept.why);
            }
            removed.entries += expired.hidden;
            removed.spared += expired.spared;
            removed.failed += expired.failed.len() as u64;
        }
        let trees = trees::sweep(&self.state, &self.objects, workspaces).await?;
        (removed.trees, removed.uploads) = (trees.trees, trees.uploads);
        Ok(removed)
    }

    /// Pipelines whose layers and artifacts stay: those that run, and those whose workspaces they see.
    async fn needed(&self) -> Result<BTreeSet<String>, StateError> {
        let select = "SELECT id FROM pipelines WHERE workspace_of IN
                      (SELECT workspace_of FROM pipelines WHERE state IN ('running', 'on_hold'))";
        let rows = sqlx::query(select).fetch_all(self.state.pool()).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// A round, told to the operator.
    pub async fn tell_round(&mut self) {
        match self.round().await {
            Ok(removed) if removed == Removed::default() => {}
            Ok(removed) => tracing::info!(?removed, "What is kept no longer was removed."),
            Err(error) => tracing::warn!("What is kept no longer was not removed: {}.", chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use navvy_job::outcome::Verdict;
    use navvy_storage::{About, Bucket, Piece, PieceKind, Producer, Shape, Slot, Store};

    use super::*;
    use crate::claims::Room;
    use crate::claims::tests::{claims, ending, submit};
    use crate::conduct::RerunOf;
    use crate::grants::{Grants, tree_path};
    use crate::state::tests::databases;

    const CONFIG: &str = "
version: 2.1
jobs:
  unit: {docker: [{image: i}], steps: [{run: make}]}
workflows:
  main: {jobs: [unit]}
";

    async fn put(store: &Store, place: Slot, pipeline: &str) {
        let reservation = store.reserve(place).await.unwrap();
        let bytes = futures_util::stream::iter([Ok(Bytes::from_static(b"x"))]);
        let body = store.put(&reservation, bytes).await.unwrap();
        let producer = Producer { pipeline: Some(pipeline.to_owned()), ..Producer::default() };
        store.commit(&reservation, &body, About { producer, ..About::default() }).await.unwrap();
    }

    fn piece(of: PieceKind, group: &str) -> Slot {
        Slot::Piece(Piece { of, group: group.to_owned(), producer: "job".to_owned(), node: 0, step: 0 })
    }

    #[tokio::test]
    async fn what_a_pipeline_that_runs_needs_stays_however_old_it_is() {
        for database in databases().await {
            let directory = tempfile::tempdir().unwrap();
            let bucket = Arc::new(Bucket::directory(directory.path()).unwrap());
            let objects = Grants::new((*database).clone(), bucket.clone(), "http://here").objects();
            let tree = tree_path("0123.tar.zst").unwrap();
            objects.put(&tree, Bytes::from_static(b"tree")).await.unwrap();
            let claims = claims(&database);
            let with_tree = navvy_protocol::api::Submit { tree: Some("0123.tar.zst".to_owned()), ..submit(CONFIG) };
            let pipeline =
                claims.conductor().submit("gh/acme/shop", with_tree, RerunOf::default(), "me").await.unwrap().id;
            let store = Store::direct(bucket, "project", navvy_job::claim::TrustScope::Trusted, Shape::default());
            let places = [
                Slot::Cache { key: "deps".to_owned() },
                piece(PieceKind::Layer, "w"),
                piece(PieceKind::Artifacts, &pipeline),
                piece(PieceKind::TestResults, "tests of unit"),
            ];
            for place in &places {
                put(&store, place.clone(), &pipeline).await;
            }
            let there = async || {
                let mut there = Vec::new();
                for place in &places {
                    there.push(store.find(place).await.unwrap().is_some());
                }
                there.push(objects.size(&tree).await.unwrap().is_some());
                there
            };
            let round = async |keep| Keeper::new((*database).clone(), objects.clone(), keep).round().await.unwrap();
            assert_eq!(round(Keep::default()).await, Removed::default());
            let never = Keep { caches: None, workspaces: None, artifacts: None, logs: None };
            assert_eq!(round(never).await, Removed::default());
            assert_eq!(there().await, [true; 5]);

            let old = Some(Duration::ZERO);
            let all_old = Keep { caches: old, workspaces: old, artifacts: old, logs: old };
            let removed = round(all_old).await;
            assert_eq!((removed.entries, removed.spared, removed.trees), (1, 2, 0), "only the cache goes");
            assert_eq!(there().await, [false, true, true, true, true]);

            let taken = claims.take("*", Room::ANY, "one").await.unwrap().unwrap();
            claims.finish(taken.claim.task.as_str(), 1, ending(Verdict::Passed)).await.unwrap();
            let removed = round(all_old).await;
            assert_eq!((removed.entries, removed.spared, removed.trees), (2, 0, 1));
            // Results have a rule of their own: so many runs of each job.
            assert_eq!(there().await, [false, false, false, true, false]);
            assert_eq!(round(all_old).await, Removed::default());
        }
    }
}
