//! `persist_to_workspace` and `attach_workspace` (spec `steps.md` §5).
//!
//! ```text
//! persist  root, patterns ─▶ pack ─▶ put ─▶ commit as the layer of (workspace, job, node, step)
//! attach   layers of all jobs upstream ─▶ manifests ─▶ conflicts, what each later one has, too ─▶ extract, in order
//! ```

use navvy_archive::contents;
use navvy_archive::entry::Kind as EntryKind;
use navvy_archive::error::ReadError;
use navvy_archive::manifest::Record;
use navvy_job::chain::chain;
use navvy_job::claim::Upstream;
use navvy_job::figures;
use navvy_protocol::supervisor::{FailureKind, Packed, Trees};
use navvy_storage::{About, Body, Commit, Entry, Piece, PieceKind, Place as StorePlace, Store};

use super::Task;
use super::attempt::{Attempted, Place};
use super::bounded::GivenUp;
use super::caches::{porter, size_of, storage, tell_warnings};
use super::manifest;
use super::own::{Told, Trouble};
use super::prepare::Ready;
use super::trees::{Unpacking, Upload, of_client};
use crate::step::layers::{ENTRIES_CAP, Kind, Maker, Stack};

/// Bytes of one layer's manifest, which a job has written: a hundred for each entry that all of them may have.
const MANIFEST_CAP: u64 = 100 * ENTRIES_CAP;

/// Uploaded, and not visible yet.
struct PackedLayer {
    packed: Packed,
    body: Body,
}

impl Task {
    pub(super) async fn persist_to_workspace(
        &mut self,
        ready: &Ready,
        place: Place<'_>,
        root: &str,
        paths: &[String],
    ) -> Attempted {
        let (mut told, mut upload) = match self.begin_stored(place) {
            Ok((told, store)) => (told, Upload::new(store)),
            Err(attempted) => return *attempted,
        };
        let root = ready.frame.place(root);
        let persisting = self.persist(ready, place, &root, paths, &mut told, &mut upload);
        let end = match self.while_sensible(&ready.environment, persisting).await {
            Ok(Ok(layer)) => self.commit_layer(ready, &mut told, &mut upload, layer).await,
            Ok(Err(trouble)) => Ok(Err(trouble)),
            Err(why) => Err(why),
        };
        upload.give_up().await;
        self.own_ended(place, &told, end)
    }

    async fn persist(
        &self,
        ready: &Ready,
        place: Place<'_>,
        root: &str,
        patterns: &[String],
        told: &mut Told,
        upload: &mut Upload,
    ) -> Result<PackedLayer, Trouble> {
        let piece = self.piece(place);
        let (run, trust) = (&self.claim.run, &self.claim.trust);
        self.context.store.uses_workspace(&run.project, trust, &run.workspace);
        // A retry of this step: what its earlier attempt left is not what counts.
        if let Some(entry) = upload.store.find(&piece).await.map_err(storage)? {
            upload.store.remove(&entry).await.map_err(storage)?;
            told.line("Replacing the layer of an earlier attempt");
        }
        told.line("Creating workspace layer...");
        told.line("Uploading workspace layer...");
        let trees = Trees::Below { root: root.to_owned(), patterns: patterns.to_vec() };
        let reserve = async |store: &Store| store.reserve(piece).await;
        let lookout = self.lookout(place, "workspace file", "");
        let stored = porter(ready).store(trees, upload, lookout.as_ref(), reserve).await;
        let (packed, body) = stored.map_err(|trouble| no_root(root, trouble))?;
        self.tell_found(lookout, &format!("workspace layer of step {}", place.number), told).await;
        for missing in &packed.missing {
            if let Some(pattern) = patterns.get(*missing as usize) {
                told.line(&format!("Warning: {pattern} did not match any files in {root}"));
            }
        }
        tell_warnings(told, &packed);
        self.tell_unreadable(place.number, "the workspace", &packed);
        match body {
            Some(body) => Ok(PackedLayer { packed, body }),
            None => {
                let why = packed.first_unreadable.map(|first| format!("; {first}")).unwrap_or_default();
                Err(Trouble::from(format!("The specified paths did not match any files in {root}{why}")))
            }
        }
    }

    async fn commit_layer(
        &self,
        ready: &Ready,
        told: &mut Told,
        upload: &mut Upload,
        layer: PackedLayer,
    ) -> Result<Result<(), Trouble>, GivenUp> {
        let about = About { producer: self.producer(), ..About::default() };
        match self.commit(&ready.environment, upload, &layer.body, about).await? {
            Ok(Commit::Won(_)) => told.line(&format!("Persisted to the workspace: {}", size_of(&layer.packed))),
            Ok(Commit::Lost(_) | Commit::Newer { .. }) => {
                return Ok(Err(Trouble::from("another process persisted this step's layer meanwhile".to_owned())));
            }
            Err(trouble) => return Ok(Err(trouble)),
        }
        Ok(Ok(()))
    }

    fn piece(&self, place: Place<'_>) -> StorePlace {
        StorePlace::Piece(Piece {
            of: PieceKind::Layer,
            group: self.claim.run.workspace.clone(),
            producer: self.claim.job_name.clone(),
            node: self.claim.node_index,
            step: place.number as u32,
        })
    }

    pub(super) async fn attach_workspace(&mut self, ready: &Ready, place: Place<'_>, at: &str) -> Attempted {
        let (mut told, store) = match self.begin_stored(place) {
            Ok(begun) => begun,
            Err(attempted) => return *attempted,
        };
        let at = ready.frame.place(at);
        let attaching = self.attach(ready, &at, &mut told, &store);
        let end = self.while_sensible(&ready.environment, attaching).await;
        self.own_ended(place, &told, end)
    }

    async fn attach(&self, ready: &Ready, at: &str, told: &mut Told, store: &Store) -> Result<(), Trouble> {
        let upstream = &self.claim.upstream;
        let producers: Vec<String> = upstream.iter().map(|job| job.job.clone()).collect();
        let layers = match producers.is_empty() {
            true => Vec::new(),
            false => store.layers(&self.claim.run.workspace, &producers).await.map_err(storage)?,
        };
        let makers = layers.iter().map(|layer| maker(upstream, layer)).collect::<Option<Vec<_>>>();
        let makers = makers.ok_or_else(|| "the store gave a layer of no job upstream".to_owned())?;
        if layers.is_empty() {
            told.line("There is no workspace yet: no job upstream has persisted anything");
            return make_directory(ready, at).await;
        }
        told.line("Downloading workspace layers");
        for (layer, maker) in layers.iter().zip(&makers) {
            told.line(&format!("  {}: {}", shown(maker, layer), figures::bytes(layer.body().size)));
        }
        let passed_over = self.stacked(told, store, &layers, &makers).await?;
        told.line("Applying workspace layers");
        for ((layer, maker), passed_over) in layers.iter().zip(&makers).zip(passed_over) {
            told.line(&format!("  {}", shown(maker, layer)));
            let trees = Trees::Below { root: at.to_owned(), patterns: Vec::new() };
            porter(ready).fetch(store, layer.body(), trees, passed_over).await.map_err(
                |unpacking| match unpacking {
                    Unpacking::Damaged(why) => not_applied(maker, &why).into(),
                    Unpacking::Failed(trouble) => Trouble { reason: not_applied(maker, &trouble.reason), ..trouble },
                },
            )?;
        }
        Ok(())
    }

    /// What is passed over of each layer, since a later one has it.
    async fn stacked(
        &self,
        told: &mut Told,
        store: &Store,
        layers: &[Entry],
        makers: &[Maker],
    ) -> Result<Vec<Vec<u8>>, Trouble> {
        let mut passed_over = vec![Vec::new(); layers.len()];
        if layers.len() == 1 {
            return Ok(passed_over);
        }
        let mut stack = Stack::new(makers);
        for (number, layer) in layers.iter().enumerate().rev() {
            let added = add(&mut stack, number, store, layer).await;
            passed_over[number] = added.map_err(|why| not_applied(&makers[number], &why))?;
        }
        let Some(first) = stack.conflicts.first() else { return Ok(passed_over) };
        told.line("Concurrent upstream jobs persisted the same file(s) into the workspace:");
        for conflict in &stack.conflicts {
            let [one, other] = &conflict.makers;
            told.line(&format!("  - {} ({one}, {other})", String::from_utf8_lossy(&conflict.path)));
        }
        if stack.more_conflicts > 0 {
            told.line(&format!("  and {} more", stack.more_conflicts));
        }
        let why = "concurrent upstream jobs persisted the same file(s); have one of them require the other, or let them \
                   persist different paths";
        Err(Trouble::from(not_applied(&makers[first.layer], why)))
    }
}

fn not_applied(maker: &Maker, why: &str) -> String {
    format!("Error applying workspace layer for job {}: {why}", maker.job)
}

fn maker(upstream: &[Upstream], layer: &Entry) -> Option<Maker> {
    let StorePlace::Piece(piece) = &layer.record.place else { return None };
    let index = upstream.iter().position(|job| job.job == piece.producer)?;
    Some(Maker { job: piece.producer.clone(), index, after: upstream[index].after.clone(), node: piece.node })
}

fn shown(maker: &Maker, layer: &Entry) -> String {
    match &layer.record.place {
        StorePlace::Piece(Piece { node, step, .. }) => format!("{} node {node} step {step}", maker.job),
        StorePlace::Cache { .. } => maker.job.clone(),
    }
}

fn no_root(root: &str, trouble: Trouble) -> Trouble {
    match trouble.kind {
        Some(FailureKind::NoSuchFile) => {
            let reason = format!("Error locating workspace root directory: stat {root}: no such file or directory");
            Trouble { reason, ..trouble }
        }
        _ => trouble,
    }
}

async fn make_directory(ready: &Ready, at: &str) -> Result<(), Trouble> {
    let (client, user, at) = (ready.client.clone(), ready.frame.user.clone(), at.to_owned());
    match tokio::task::spawn_blocking(move || client.make_directory(&at, user)).await {
        Ok(made) => made.map_err(|error| of_client(&error)),
        Err(_) => Err(Trouble::from("a thread of the agent ended unexpectedly".to_owned())),
    }
}

/// Reads a layer's manifest out of its end, and puts its entries under those that came after it.
async fn add(stack: &mut Stack<'_>, number: usize, store: &Store, layer: &Entry) -> Result<Vec<u8>, String> {
    let (footer, manifest) = manifest::read(store, layer.body(), MANIFEST_CAP).await?;
    let mut left = ENTRIES_CAP.saturating_sub(stack.entries());
    let mut adding = stack.add(number);
    let mut each = |record: Record| {
        let Record::Entry(entry) = record else { return Ok(()) };
        left = left.checked_sub(1).ok_or(ReadError::Quota { limit: ENTRIES_CAP, of: "entries" })?;
        adding.entry(
            &entry.path,
            match &entry.kind {
                EntryKind::Directory => Kind::Directory,
                EntryKind::HardLink { target } => Kind::HardLink(target),
                _ => Kind::Other,
            },
        );
        Ok(())
    };
    contents::each_record(&footer, &manifest, &mut each).map_err(|error| chain(&error))?;
    Ok(adding.finish())
}
