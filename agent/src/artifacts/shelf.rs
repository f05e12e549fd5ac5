//! Artifacts in the store.
//!
//! ```text
//! group RUN                     producer [workflow, job]   node, step    the files of one step, as [`StoredFile`]s
//! group "runs with artifacts"   producer RUN                             says that there is such a run
//! ```

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::{Timestamp, ToSpan as _};
use navvy_job::chain::chain;
use navvy_storage::artifacts::{Name, StoredFile, producer};
use navvy_storage::{About, Body, Commit, Entry, Piece, PieceKind, Producer, Result, Slot, StorageError, Store};

const RUNS: &str = "runs with artifacts";
/// In an entry's details.
const WORKFLOW: &str = "workflow";
const LOGS: &str = "logs";
/// As the real service keeps them.
const KEPT_DAYS: i64 = 30;
const PARALLEL_READS: usize = 4;

/// Who stores, and where.
#[derive(Debug, Clone, Default)]
pub struct Whose {
    /// The pipeline's id.
    pub run: String,
    /// Name of its log directory.
    pub logs: String,
    pub workflow: String,
    pub producer: Producer,
    pub node: u32,
    pub step: u32,
}

impl Whose {
    pub fn place(&self) -> Slot {
        Slot::Piece(Piece {
            of: PieceKind::Artifacts,
            group: self.run.clone(),
            producer: producer(&self.workflow, &self.producer.job),
            node: self.node,
            step: self.step,
        })
    }

    pub fn about(&self) -> About {
        let details = [(WORKFLOW, &self.workflow), (LOGS, &self.logs)];
        let details = details.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        About { producer: self.producer.clone(), details }
    }

    fn run_place(&self) -> Slot {
        run_place(&self.run)
    }
}

fn run_place(run: &str) -> Slot {
    let (group, producer) = (RUNS.to_owned(), run.to_owned());
    Slot::Piece(Piece { of: PieceKind::Artifacts, group, producer, node: 0, step: 0 })
}

/// A run that left artifacts.
#[derive(Debug, Clone)]
pub struct Run {
    /// The pipeline's id.
    pub id: String,
    /// Name of its log directory.
    pub logs: String,
    /// When its first were stored, by the store's clock.
    pub at: Timestamp,
    entry: Entry,
}

/// A file that a job left.
#[derive(Debug, Clone)]
pub struct Artifact {
    pub workflow: String,
    pub job: String,
    pub node: u32,
    pub step: u32,
    pub body: Body,
    pub file: StoredFile,
}

/// One project's artifacts in its store.
#[derive(Debug, Clone)]
pub struct Shelf {
    store: Store,
}

impl Shelf {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Says that there are artifacts of a run, so that they are found; with the first of them the oldest runs' go.
    ///
    /// # Errors
    /// The store's; so it is with all of them.
    pub async fn announce(&self, whose: &Whose) -> Result<()> {
        if self.store.find(&whose.run_place()).await?.is_some() {
            return Ok(());
        }
        let reservation = self.store.reserve(whose.run_place()).await?;
        let nothing = futures_util::stream::once(async { io::Result::Ok(Bytes::from_static(b"{}")) });
        let body = match self.store.put(&reservation, nothing).await {
            Ok(body) => body,
            Err(error) => {
                if let Err(left) = self.store.abandon(&reservation).await {
                    tracing::warn!(error = %chain(&left), "A run's announcement that failed is left to a sweep.");
                }
                return Err(error);
            }
        };
        match self.store.commit(&reservation, &body, whose.about()).await? {
            Commit::Won(entry) => self.forget_before(entry.created).await,
            Commit::Lost(_) | Commit::Newer { .. } => Ok(()),
        }
    }

    /// `now`: by the store's clock.
    async fn forget_before(&self, now: Timestamp) -> Result<()> {
        let oldest = now.checked_sub((KEPT_DAYS * 24).hours()).unwrap_or(Timestamp::MIN);
        for run in self.runs().await?.into_iter().filter(|run| run.at < oldest) {
            for entry in self.entries(&run.id).await? {
                self.store.remove(&entry).await?;
            }
            self.store.remove(&run.entry).await?;
        }
        Ok(())
    }

    /// Newest first.
    pub async fn runs(&self) -> Result<Vec<Run>> {
        let entries = self.store.pieces(PieceKind::Artifacts, RUNS, None).await?;
        let run = |entry: Entry| {
            let Slot::Piece(piece) = &entry.record.place else { return None };
            // An entry that does not name them can still be asked for by its id.
            let logs = entry.record.details.get(LOGS).cloned().unwrap_or_else(|| piece.producer.clone());
            Some(Run { id: piece.producer.clone(), logs, at: entry.created, entry })
        };
        let mut runs: Vec<Run> = entries.into_iter().filter_map(run).collect();
        runs.sort_by(|a, b| (b.at, &b.logs).cmp(&(a.at, &a.logs)));
        Ok(runs)
    }

    async fn entries(&self, run: &str) -> Result<Vec<Entry>> {
        self.store.pieces(PieceKind::Artifacts, run, None).await
    }

    /// What one set holds. A set whose list is damaged hides no other one: it is reported, and skipped.
    async fn files(&self, entry: &Entry) -> Result<Vec<StoredFile>> {
        match self.store.files(entry).await {
            Err(error) if error.is_damage() || matches!(error, StorageError::Foreign { .. }) => {
                let job = &*entry.record.producer.job;
                tracing::warn!(job, error = %chain(&error), "Artifacts of a job are damaged, and are not listed.");
                Ok(Vec::new())
            }
            read => read,
        }
    }

    /// All files of a run, by workflow, job, node and name. Of two with one name, the later step's.
    pub async fn artifacts(&self, run: &Run) -> Result<Vec<Artifact>> {
        let entries = self.entries(&run.id).await?;
        let reads: Vec<_> = entries.iter().map(|entry| self.files(entry)).collect();
        let read: Vec<Vec<StoredFile>> =
            futures_util::stream::iter(reads).buffered(PARALLEL_READS).try_collect().await?;
        let mut all: BTreeMap<(String, String, u32, Name), Artifact> = BTreeMap::new();
        // Pieces of one job come by node, then by step.
        for (entry, files) in entries.iter().zip(read) {
            let Slot::Piece(piece) = &entry.record.place else { continue };
            let workflow = entry.record.details.get(WORKFLOW).cloned().unwrap_or_default();
            let job = entry.record.producer.job.clone();
            for file in files {
                let key = (workflow.clone(), job.clone(), piece.node, file.name.clone());
                let (workflow, job, body) = (workflow.clone(), job.clone(), entry.body().clone());
                all.insert(key, Artifact { workflow, job, node: piece.node, step: piece.step, body, file });
            }
        }
        Ok(all.into_values().collect())
    }
}
