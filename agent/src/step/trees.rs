//! File trees between an environment and the store, as archives: piece by piece, with no file of our own between, whatever
//! their size.
//!
//! ```text
//! environment ──Pack──▶ blocking thread ──2 pieces──▶ Store::put ─▶ body, invisible until its entry is committed
//! environment ◀─Extract── blocking thread ◀──2 slices── Store::get
//! ```
//!
//! A caller that stops waiting drops the channel; the thread notices, hangs up, and the supervisor ends what worked there.

use std::io;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use navvy_environment::supervisor::{Client, Fed};
use navvy_job::chain::chain;
use navvy_job::figures;
use navvy_protocol::supervisor::{ArchiveLimits, Extracted, FailureKind, Packed, Trees};
use navvy_storage::{About, Body, Commit, Reservation, StorageError, Store};
use tokio::sync::mpsc;

use super::bounded::GivenUp;
use super::cx::StepCx;
use super::own::{StepError, StepFault, StepOutput};
use super::pieces::Lookout;
use crate::artifacts::guard::Guard;

/// Pieces on their way between two threads: enough that neither waits for the other's turn.
const ON_THE_WAY: usize = 2;
/// The store brings parts of several MiB. They are handed on in slices: while one is sent, no more than the next is kept.
const SLICE: usize = 256 << 10;

/// What an archive may hold at most: far above any build's, far below what only a bomb claims.
const LIMITS: ArchiveLimits = ArchiveLimits { bytes: 256 << 30, entries: 20_000_000 };

/// Who packs and unpacks, as whom.
#[derive(Clone)]
pub struct Porter {
    pub client: Client,
    pub user: Option<String>,
}

/// A body on its way into the store. What is not committed must be given up.
pub struct Upload {
    pub store: Store,
    pub reservation: Option<Reservation>,
}

impl Upload {
    pub fn new(store: Store) -> Self {
        Self { store, reservation: None }
    }

    /// Removes what was not committed; what cannot be removed now is a sweep's.
    pub async fn give_up(&mut self) {
        let reservation = self.reservation.take();
        let removal = async {
            self.store.settle().await;
            match &reservation {
                Some(reservation) => self.store.abandon(reservation).await,
                None => Ok(()),
            }
        };
        take_back(removal).await;
    }
}

/// Carries out what takes an upload back, for as long as a stopped job waits.
pub async fn take_back(removal: impl Future<Output = Result<(), StorageError>>) {
    match tokio::time::timeout(GIVE_UP_LIMIT, removal).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = %chain(&error), "An upload that was given up is left to a sweep."),
        Err(_) => tracing::warn!("An upload that was given up is left to a sweep: the store did not answer."),
    }
}

/// For what is stored as it is. `None`: there is nothing to look for.
pub fn lookout(cx: &StepCx<'_>, step: usize, noun: &'static str, prefix: &'static str) -> Option<Lookout> {
    let masks = cx.voice.bus.masks().clone();
    let guard = Guard::that_tells(masks, cx.secrets_in_artifacts, noun, cx.job(), step)?;
    Some(Lookout::new(guard, prefix))
}

/// Tells of the secrets that were stored.
pub async fn tell_found(cx: &StepCx<'_>, lookout: Option<Lookout>, what: &str, output: &mut StepOutput) {
    let Some(lookout) = lookout else { return };
    let findings = lookout.findings().await;
    findings.unseen_lines().for_each(|line| output.line(&line));
    let Some(first) = findings.named.first() else { return };
    for finding in &findings.named {
        output.line(&format!("Warning: {}", finding.words()));
    }
    if findings.more > 0 {
        output.line(&format!("Warning: and so do {} more files", findings.more));
    }
    cx.voice.warn(format!("{what}: {}{}", first.words(), findings.others()));
}

/// What was left out, or changed while it was packed.
pub fn tell_warnings(output: &mut StepOutput, packed: &Packed) {
    packed.warnings.iter().for_each(|warning| output.line(&format!("Warning: {warning}")));
    if packed.more_warnings > 0 {
        output.line(&format!("Warning: {} more like these", packed.more_warnings));
    }
}

/// How much was packed, for people.
pub fn size_of(packed: &Packed) -> String {
    let files = if packed.files == 1 { "file" } else { "files" };
    format!("{} {files}, {} as {}", packed.files, figures::bytes(packed.bytes), figures::bytes(packed.archive))
}

/// Makes an upload visible. Nothing may stop this half-way: what then becomes of the entry would not be known. So from here
/// on nothing is given up; what an error leaves is a sweep's.
pub async fn commit(cx: &StepCx<'_>, upload: &mut Upload, body: &Body, about: About) -> Result<Commit, StepError> {
    let reservation = upload.reservation.take();
    let reservation = reservation.ok_or_else(|| "there is no reservation to commit".to_owned())?;
    let committed = to_its_end(cx, upload.store.commit(&reservation, body, about)).await?;
    Ok(committed.map_err(StepFault::from)?)
}

/// Waits for a small write to the store, which is carried to its end where that takes no time, even of a task that is stopped.
pub async fn to_its_end<T>(cx: &StepCx<'_>, write: impl Future<Output = T>) -> Result<T, GivenUp> {
    let mut write = std::pin::pin!(write);
    let done = cx.bounds.while_sensible(&mut write).await;
    if done.is_err() {
        // What becomes of a write that is stopped half-way would not be known.
        tokio::time::timeout(GIVE_UP_LIMIT, write).await.ok();
    }
    done
}

/// A job that was stopped does not wait longer for a store.
pub const GIVE_UP_LIMIT: std::time::Duration = std::time::Duration::from_secs(8);

/// How an unpacking ended, where it did not succeed.
pub enum Unpacking {
    /// The body is not what was stored, or no archive that anybody of us has packed.
    Damaged(String),
    Failed(StepFault),
}

impl Porter {
    pub fn of(cx: &StepCx<'_>) -> Self {
        Self { client: cx.client.clone(), user: cx.frame.user.clone() }
    }

    /// Packs and uploads. `begin` makes the reservation once there is something to upload; `None`: there was nothing.
    /// `lookout` sees all of it, too.
    pub async fn store(
        &self,
        trees: Trees,
        upload: &mut Upload,
        lookout: Option<&Lookout>,
        begin: impl AsyncFnOnce(&Store) -> Result<Reservation, StorageError>,
    ) -> Result<(Packed, Option<Body>), StepFault> {
        let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(ON_THE_WAY);
        let Self { client, user } = self.clone();
        let watched = lookout.map(Lookout::pieces);
        let packing = tokio::task::spawn_blocking(move || {
            let packed = client.pack(trees, user, &mut |piece| {
                if let Some(watched) = &watched {
                    // A receiver that has stopped has reported why.
                    watched.blocking_send(Ok(piece.clone())).ok();
                }
                sender.blocking_send(Ok(piece)).is_ok()
            });
            if !matches!(packed, Ok(Some(_))) {
                // So that what was uploaded is not taken for the whole.
                sender.blocking_send(Err(io::Error::other("packing ended before its end"))).ok();
            }
            packed
        });
        let body = match receiver.recv().await {
            None => Ok(None),
            Some(first) => {
                let pieces = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
                let pieces = stream::iter([first]).chain(pieces);
                match begin(&upload.store).await {
                    Ok(reservation) => {
                        let reservation = upload.reservation.insert(reservation);
                        upload.store.put(reservation, Box::pin(pieces)).await.map(Some)
                    }
                    Err(error) => Err(error),
                }
            }
        };
        // Of two troubles the packer's is the cause, unless that is only that the receiver is gone.
        let packed = match packing.await {
            Ok(Ok(packed)) => packed,
            Ok(Err(error)) => return Err(StepFault::of_client("", &error)),
            Err(_) => return Err(StepFault::thread_ended()),
        };
        match (packed, body) {
            (Some(packed), Ok(body)) if body.as_ref().map_or(0, |body| body.size) == packed.archive => {
                Ok((packed, body))
            }
            (_, Err(error)) => Err(StepFault::from(error)),
            _ => Err(StepFault::from("the archive did not arrive whole".to_owned())),
        }
    }

    /// Downloads and unpacks. Nothing of a frame is written before its digest fits.
    pub async fn fetch(
        &self,
        store: &Store,
        body: &Body,
        trees: Trees,
        passed_over: Vec<u8>,
    ) -> Result<Extracted, Unpacking> {
        let (sender, mut receiver) = mpsc::channel::<Fed>(ON_THE_WAY);
        let Self { client, user } = self.clone();
        let unpacking = tokio::task::spawn_blocking(move || {
            let mut next = || receiver.blocking_recv().unwrap_or(Fed::Broken);
            client.extract(trees, user, LIMITS, &passed_over, &mut next)
        });
        let read = feed(store, body, sender).await;
        let unpacked = unpacking.await;
        if let Err(error) = read {
            return Err(match error.is_damage() {
                true => Unpacking::Damaged(chain(&error)),
                false => Unpacking::Failed(StepFault::from(error)),
            });
        }
        match unpacked {
            Ok(Ok(Some(extracted))) => Ok(extracted),
            Ok(Ok(None)) => Err(Unpacking::Failed("the archive did not arrive whole".to_owned().into())),
            Ok(Err(error)) => Err(match error.failure().map(|failure| failure.kind) {
                Some(FailureKind::Damaged | FailureKind::Quota) => Unpacking::Damaged(chain(&error)),
                _ => Unpacking::Failed(StepFault::of_client("", &error)),
            }),
            Err(_) => Err(Unpacking::Failed(StepFault::thread_ended())),
        }
    }
}

/// Returns errors of the store only: a receiver that hangs up reports its own.
async fn feed(store: &Store, body: &Body, sender: mpsc::Sender<Fed>) -> Result<(), StorageError> {
    let mut pieces = store.get(body);
    while let Some(piece) = pieces.next().await {
        let mut piece = piece?;
        while !piece.is_empty() {
            let slice = piece.split_to(piece.len().min(SLICE));
            if sender.send(Fed::Piece(slice)).await.is_err() {
                return Ok(());
            }
        }
    }
    sender.send(Fed::End).await.ok();
    Ok(())
}
