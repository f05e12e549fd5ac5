//! `persist_to_workspace` and `attach_workspace` (docs/caches.md).
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
use navvy_storage::{About, Body, Commit, Entry, Piece, PieceKind, Slot, Store};

use crate::step::cx::StepCx;
use crate::step::layers::{ENTRIES_CAP, Kind, Maker, Stack};
use crate::step::manifest;
use crate::step::own::{StepError, StepFault, StepOutput};
use crate::step::trees::{self, Porter, Unpacking, Upload, size_of, tell_warnings};

/// Bytes of one layer's manifest, which a job has written: a hundred for each entry that all of them may have.
const MANIFEST_CAP: u64 = 100 * ENTRIES_CAP;

/// Uploaded, and not visible yet.
struct PackedLayer {
    packed: Packed,
    body: Body,
}

pub async fn persist_to_workspace(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    root: &str,
    paths: &[String],
) -> Result<(), StepError> {
    let mut upload = Upload::new(cx.open_store()?);
    let persisted = persist_and_commit(cx, output, &cx.frame.place(root), paths, &mut upload).await;
    upload.give_up().await;
    persisted
}

async fn persist_and_commit(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    root: &str,
    paths: &[String],
    upload: &mut Upload,
) -> Result<(), StepError> {
    let layer = cx.bounds.while_sensible(persist(cx, output, root, paths, upload)).await??;
    let about = About { producer: cx.producer(), ..About::default() };
    match trees::commit(cx, upload, &layer.body, about).await? {
        Commit::Won(_) => output.line(&format!("Persisted to the workspace: {}", size_of(&layer.packed))),
        Commit::Lost(_) | Commit::Newer { .. } => {
            return Err("another process persisted this step's layer meanwhile".to_owned().into());
        }
    }
    Ok(())
}

async fn persist(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    root: &str,
    patterns: &[String],
    upload: &mut Upload,
) -> Result<PackedLayer, StepFault> {
    let piece = piece(cx, output.number);
    let (run, trust) = (&cx.claim.run, &cx.claim.trust);
    cx.store.uses_workspace(&run.project, trust, &run.workspace);
    // A retry of this step: what its earlier attempt left is not what counts.
    if let Some(entry) = upload.store.find(&piece).await? {
        upload.store.remove(&entry).await?;
        output.line("Replacing the layer of an earlier attempt");
    }
    output.line("Creating workspace layer...");
    output.line("Uploading workspace layer...");
    let below = Trees::Below { root: root.to_owned(), patterns: patterns.to_vec() };
    let reserve = async |store: &Store| store.reserve(piece).await;
    let lookout = trees::lookout(cx, output.number, "workspace file", "");
    let stored = Porter::of(cx).store(below, upload, lookout.as_ref(), reserve).await;
    let (packed, body) = stored.map_err(|fault| no_root(root, fault))?;
    trees::tell_found(cx, lookout, &format!("workspace layer of step {}", output.number), output).await;
    for missing in &packed.missing {
        if let Some(pattern) = patterns.get(*missing as usize) {
            output.line(&format!("Warning: {pattern} did not match any files in {root}"));
        }
    }
    tell_warnings(output, &packed);
    cx.tell_unreadable(output.number, "the workspace", &packed);
    match body {
        Some(body) => Ok(PackedLayer { packed, body }),
        None => {
            let why = packed.first_unreadable.map(|first| format!("; {first}")).unwrap_or_default();
            Err(StepFault::from(format!("The specified paths did not match any files in {root}{why}")))
        }
    }
}

fn piece(cx: &StepCx<'_>, step: usize) -> Slot {
    Slot::Piece(Piece {
        of: PieceKind::Layer,
        group: cx.claim.run.workspace.clone(),
        producer: cx.claim.job_name.clone(),
        node: cx.claim.node_index,
        step: step as u32,
    })
}

pub async fn attach_workspace(cx: &StepCx<'_>, output: &mut StepOutput, at: &str) -> Result<(), StepError> {
    let store = cx.open_store()?;
    let at = cx.frame.place(at);
    Ok(cx.bounds.while_sensible(attach(cx, output, &at, &store)).await??)
}

async fn attach(cx: &StepCx<'_>, output: &mut StepOutput, at: &str, store: &Store) -> Result<(), StepFault> {
    let upstream = &cx.claim.upstream;
    let producers: Vec<String> = upstream.iter().map(|job| job.job.clone()).collect();
    let layers = match producers.is_empty() {
        true => Vec::new(),
        false => store.layers(&cx.claim.run.workspace, &producers).await?,
    };
    let makers = layers.iter().map(|layer| maker(upstream, layer)).collect::<Option<Vec<_>>>();
    let makers = makers.ok_or_else(|| "the store gave a layer of no job upstream".to_owned())?;
    if layers.is_empty() {
        output.line("There is no workspace yet: no job upstream has persisted anything");
        return make_directory(cx, at).await;
    }
    output.line("Downloading workspace layers");
    for (layer, maker) in layers.iter().zip(&makers) {
        output.line(&format!("  {}: {}", shown(maker, layer), figures::bytes(layer.body().size)));
    }
    let passed_over = stacked(output, store, &layers, &makers).await?;
    output.line("Applying workspace layers");
    for ((layer, maker), passed_over) in layers.iter().zip(&makers).zip(passed_over) {
        output.line(&format!("  {}", shown(maker, layer)));
        let trees = Trees::Below { root: at.to_owned(), patterns: Vec::new() };
        Porter::of(cx).fetch(store, layer.body(), trees, passed_over).await.map_err(|unpacking| match unpacking {
            Unpacking::Damaged(why) => not_applied(maker, &why).into(),
            Unpacking::Failed(fault) => StepFault { reason: not_applied(maker, &fault.reason), ..fault },
        })?;
    }
    Ok(())
}

/// What is passed over of each layer, since a later one has it.
async fn stacked(
    output: &mut StepOutput,
    store: &Store,
    layers: &[Entry],
    makers: &[Maker],
) -> Result<Vec<Vec<u8>>, StepFault> {
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
    output.line("Concurrent upstream jobs persisted the same file(s) into the workspace:");
    for conflict in &stack.conflicts {
        let [one, other] = &conflict.makers;
        output.line(&format!("  - {} ({one}, {other})", String::from_utf8_lossy(&conflict.path)));
    }
    if stack.more_conflicts > 0 {
        output.line(&format!("  and {} more", stack.more_conflicts));
    }
    let why = "concurrent upstream jobs persisted the same file(s); have one of them require the other, or let them \
               persist different paths";
    Err(StepFault::from(not_applied(&makers[first.layer], why)))
}

fn not_applied(maker: &Maker, why: &str) -> String {
    format!("Error applying workspace layer for job {}: {why}", maker.job)
}

fn maker(upstream: &[Upstream], layer: &Entry) -> Option<Maker> {
    let Slot::Piece(piece) = &layer.record.place else { return None };
    let index = upstream.iter().position(|job| job.job == piece.producer)?;
    Some(Maker { job: piece.producer.clone(), index, after: upstream[index].after.clone(), node: piece.node })
}

fn shown(maker: &Maker, layer: &Entry) -> String {
    match &layer.record.place {
        Slot::Piece(Piece { node, step, .. }) => format!("{} node {node} step {step}", maker.job),
        Slot::Cache { .. } => maker.job.clone(),
    }
}

fn no_root(root: &str, fault: StepFault) -> StepFault {
    match fault.kind {
        Some(FailureKind::NoSuchFile) => {
            let reason = format!("Error locating workspace root directory: stat {root}: no such file or directory");
            StepFault { reason, ..fault }
        }
        _ => fault,
    }
}

async fn make_directory(cx: &StepCx<'_>, at: &str) -> Result<(), StepFault> {
    let (client, user, at) = (cx.client.clone(), cx.frame.user.clone(), at.to_owned());
    match tokio::task::spawn_blocking(move || client.make_directory(&at, user)).await {
        Ok(made) => made.map_err(|error| StepFault::of_client("", &error)),
        Err(_) => Err(StepFault::thread_ended()),
    }
}

/// Reads a layer's manifest out of its end, and puts its entries under those that came after it.
async fn add(stack: &mut Stack<'_>, number: usize, store: &Store, layer: &Entry) -> Result<Vec<u8>, String> {
    let (footer, manifest) = manifest::read(store, layer.body(), MANIFEST_CAP).await.map_err(|error| chain(&error))?;
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
