//! `save_cache` and `restore_cache` (docs/caches.md). A cache that cannot be saved or restored never fails the job.
//!
//! ```text
//! save     key ─▶ is it there? ─▶ pack ─▶ put ─▶ commit ─▶ stored, or another job was first
//! restore  keys ─▶ look_up ─▶ get ─▶ extract
//!                     ▲         └─ damaged: quarantined, as if it had not been there
//!                     └───────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use navvy_environment::supervisor::ClientError;
use navvy_job::figures;
use navvy_protocol::supervisor::{FailureKind, Packed, Trees};
use navvy_storage::template::{self as key, KeyError, Template, Values};
use navvy_storage::{About, Body, Commit, Entry, Slot, Store};

use crate::step::cx::StepCx;
use crate::step::own::{StepError, StepFault, StepOutput};
use crate::step::trees::{self, Porter, Unpacking, Upload, size_of, tell_warnings};
use crate::step::{Frame, cached};

/// Damaged entries that one step puts aside before it gives up.
const DAMAGED_CAP: usize = 5;
/// Far above any machine's.
const CPUINFO_CAP: usize = 8 << 20;

/// Uploaded, and not visible yet.
struct PackedCache {
    key: String,
    kept: Vec<String>,
    packed: Packed,
    body: Body,
    about: About,
}

pub async fn save_cache(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    key: &str,
    paths: &[String],
) -> Result<(), StepError> {
    let mut upload = Upload::new(cx.open_store()?);
    let paths = places(cx.frame, paths);
    let saved = save_and_commit(cx, output, key, &paths, &mut upload).await;
    upload.give_up().await;
    saved
}

async fn save_and_commit(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    key: &str,
    paths: &[String],
    upload: &mut Upload,
) -> Result<(), StepError> {
    match cx.bounds.while_sensible(save(cx, output, key, paths, upload)).await?? {
        Some(packed) => commit_cache(cx, output, upload, packed).await,
        None => Ok(()),
    }
}

/// All but the commit. `None`: there is nothing to commit.
async fn save(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    template: &str,
    paths: &[String],
    upload: &mut Upload,
) -> Result<Option<PackedCache>, StepFault> {
    let (keys, values) = keys(cx, &[template]).await?;
    let key = keys.into_iter().next().unwrap_or_default();
    let there = Slot::Cache { key: key.clone() };
    if let Some(entry) = upload.store.find(&there).await? {
        tell_exists(output, &key, &entry);
        return Ok(None);
    }
    output.line("Creating cache archive...");
    output.line("Uploading cache archive...");
    let archived = Trees::Places { paths: paths.to_vec() };
    let reserve = async |store: &Store| store.reserve(there).await;
    let lookout = trees::lookout(cx, output.number, "cached file", "/");
    let started = std::time::Instant::now();
    let (packed, body) = Porter::of(cx).store(archived, upload, lookout.as_ref(), reserve).await?;
    let took = started.elapsed();
    trees::tell_found(cx, lookout, &format!("cache {key}"), output).await;
    tell_packed(output, &packed, paths);
    cx.tell_unreadable(output.number, "the cache", &packed);
    let Some(body) = body else {
        output.line("Skipping cache generation, none of its paths exist");
        return Ok(None);
    };
    let kept = kept(paths, &packed);
    let mut details = details(template, &kept, &packed, &values);
    details.insert(cached::MILLIS.to_owned(), took.as_millis().to_string());
    let about = About { producer: cx.producer(), details };
    Ok(Some(PackedCache { key, kept, packed, body, about }))
}

async fn commit_cache(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    upload: &mut Upload,
    cache: PackedCache,
) -> Result<(), StepError> {
    let PackedCache { key, kept, packed, body, about } = cache;
    match trees::commit(cx, upload, &body, about).await? {
        Commit::Won(_) => {
            output.line(&format!("Stored Cache to {key}"));
            kept.iter().for_each(|path| output.line(&format!("  * {path}")));
            output.line(&size_of(&packed));
        }
        Commit::Lost(entry) => tell_exists(output, &key, &entry),
        Commit::Newer { .. } => {
            output.line(&format!("Skipping cache generation, cache already exists for key: {key}"));
            output.line("A newer version of Navvy saved it; this one cannot read it.");
        }
    }
    Ok(())
}

pub async fn restore_cache(cx: &StepCx<'_>, output: &mut StepOutput, keys: &[String]) -> Result<(), StepError> {
    let store = cx.open_store()?;
    Ok(cx.bounds.while_sensible(restore(cx, output, keys, &store)).await??)
}

async fn restore(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    templates: &[String],
    store: &Store,
) -> Result<(), StepFault> {
    let templates: Vec<&str> = templates.iter().map(String::as_str).collect();
    let (keys, _) = keys(cx, &templates).await?;
    let mut missed = 0;
    for _ in 0..DAMAGED_CAP {
        let hit = store.look_up(&keys).await?;
        let until = hit.as_ref().map_or(keys.len(), |hit| hit.nth);
        for key in keys.iter().take(until).skip(missed) {
            output.line(&format!("No cache is found for key: {key}"));
        }
        missed = missed.max(until);
        let Some(hit) = hit else { return Ok(()) };
        match unpack(cx, output, store, &hit.entry).await {
            Ok(()) => return Ok(()),
            Err(Unpacking::Failed(fault)) => return Err(fault),
            Err(Unpacking::Damaged(why)) => put_aside(output, store, &hit.entry, &why).await?,
        }
    }
    Err(StepFault::from(format!("{DAMAGED_CAP} caches in a row were damaged; the store {} needs a look", store.name())))
}

/// The rendered keys, and what was looked up for them.
async fn keys(cx: &StepCx<'_>, templates: &[&str]) -> Result<(Vec<String>, Values), StepFault> {
    let wrong = |error: KeyError| StepFault::from(error.to_string());
    let parsed = templates.iter().map(|text| Template::parse(text)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    let mut values = values(cx);
    let files: BTreeSet<String> = parsed.iter().flat_map(Template::files).map(str::to_owned).collect();
    let wants_arch = parsed.iter().any(Template::asks_for_arch);
    if wants_arch || !files.is_empty() {
        let (frame, client) = (cx.frame.clone(), cx.client.clone());
        let looked_up = tokio::task::spawn_blocking(move || look_up(&client, &frame, files, wants_arch)).await;
        let looked_up = looked_up.map_err(|_| StepFault::thread_ended())?;
        (values.checksums, values.arch) = looked_up.map_err(|error| StepFault::of_client("", &error))?;
    }
    let keys = parsed.iter().map(|template| template.render(&values)).collect::<Result<Vec<_>, _>>();
    Ok((keys.map_err(wrong)?, values))
}

/// What needs no look into the environment.
fn values(cx: &StepCx<'_>) -> Values {
    let run = &cx.claim.run;
    let variables = cx.secrets.variables().iter().chain(&cx.claim.builtin_variables);
    Values {
        branch: run.branch.clone().unwrap_or_default(),
        build_num: run.build_number.to_string(),
        revision: run.revision.clone().unwrap_or_default(),
        // Only the real service has one.
        checkout_key: String::new(),
        environment: variables.cloned().collect(),
        epoch: Timestamp::now().as_second(),
        arch: String::new(),
        checksums: BTreeMap::new(),
    }
}

/// What the entry says of the cache. No value of a variable stands here: the key alone has it.
fn details(template: &str, paths: &[String], packed: &Packed, values: &Values) -> BTreeMap<String, String> {
    let hex = |digest: &[u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let sums = values.checksums.iter().filter_map(|(file, sum)| Some((file, hex(sum.as_ref().ok()?))));
    let pieces = Template::parse(template).and_then(|template| template.pieces(values)).unwrap_or_default();
    let lengths: Vec<usize> = pieces.iter().map(String::len).collect();
    let texts = [
        (cached::PATHS, serde_json::json!(paths).to_string()),
        ("entries", packed.entries.to_string()),
        (cached::FILES, packed.files.to_string()),
        (cached::BYTES, packed.bytes.to_string()),
        (cached::TEMPLATE, template.to_owned()),
        (cached::PARTS, serde_json::json!(lengths).to_string()),
        (cached::REVISION, values.revision.clone()),
        (cached::CHECKSUMS, serde_json::json!(sums.collect::<BTreeMap<_, _>>()).to_string()),
    ];
    texts.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}

/// Absolute, each once, in the order of the config.
fn places(frame: &Frame, paths: &[String]) -> Vec<String> {
    let mut known = BTreeSet::new();
    paths.iter().map(|path| frame.place(path)).filter(|path| known.insert(path.clone())).collect()
}

/// Those of which something is in the archive.
fn kept(paths: &[String], packed: &Packed) -> Vec<String> {
    let without = || packed.missing.iter().chain(&packed.blocked);
    let is_there = |nth: usize| !without().any(|without| *without as usize == nth);
    paths.iter().enumerate().filter(|(nth, _)| is_there(*nth)).map(|(_, path)| path.clone()).collect()
}

fn tell_packed(output: &mut StepOutput, packed: &Packed, paths: &[String]) {
    for missing in &packed.missing {
        if let Some(path) = paths.get(*missing as usize) {
            output.line(&format!("Warning: could not archive {path} - Not found"));
        }
    }
    tell_warnings(output, packed);
}

fn tell_exists(output: &mut StepOutput, key: &str, entry: &Entry) {
    output.line(&format!("Skipping cache generation, cache already exists for key: {key}"));
    output.line(&format!("Found one created at {}", entry.created.strftime("%Y-%m-%d %H:%M:%S +0000 UTC")));
}

/// Brings a cache back to the absolute places that it came from.
async fn unpack(cx: &StepCx<'_>, output: &mut StepOutput, store: &Store, entry: &Entry) -> Result<(), Unpacking> {
    let key = entry.key().unwrap_or_default();
    let Some(paths) = cached::paths(entry) else {
        return Err(Unpacking::Damaged("its entry does not say which paths it holds".to_owned()));
    };
    let number = entry.record.producer.build_num.map(|number| format!(" from build {number}")).unwrap_or_default();
    output.line(&format!("Found a cache{number} at {key}"));
    output.line(&format!("Size: {}", figures::bytes(entry.body().size)));
    output.line("Cached paths:");
    paths.iter().for_each(|path| output.line(&format!("  * {path}")));
    output.line("");
    output.line("Downloading cache archive...");
    output.line("Validating cache...");
    output.line("Unarchiving cache...");
    let done = Porter::of(cx).fetch(store, entry.body(), Trees::Places { paths }, Vec::new()).await?;
    let entries = if done.entries == 1 { "entry" } else { "entries" };
    output.line(&format!("Restored {} {entries}, {}", done.entries, figures::bytes(done.bytes)));
    if done.skipped > 0 {
        output.line(&format!(
            "Warning: {} entries of the archive belong to none of its paths, and were passed over",
            done.skipped
        ));
    }
    Ok(())
}

/// From now on it is a miss for everybody.
async fn put_aside(output: &mut StepOutput, store: &Store, entry: &Entry, why: &str) -> Result<(), StepFault> {
    let key = entry.key().unwrap_or_default();
    output.line(&format!("Warning: the cache at {key} is damaged and was put aside: {why}"));
    store.quarantine(entry, why).await.map_err(StepFault::from)
}

type LookedUp = (BTreeMap<String, Result<[u8; 32], String>>, String);

/// Checksums of files, as the job's user sees them, and the machine's name.
fn look_up(
    client: &navvy_environment::supervisor::Client,
    frame: &Frame,
    files: BTreeSet<String>,
    wants_arch: bool,
) -> Result<LookedUp, ClientError> {
    let mut sums = BTreeMap::new();
    for file in files {
        let path = frame.place(&file);
        let sum = match client.checksum(&path, frame.user.clone()) {
            Ok(hex) => {
                cached::digest(&hex).ok_or_else(|| format!("read {path}: the supervisor sent an invalid checksum"))
            }
            Err(ClientError::Failed(failure)) => Err(match failure.kind {
                FailureKind::NoSuchFile => format!("open {path}: no such file or directory"),
                FailureKind::NotPermitted => format!("open {path}: permission denied"),
                _ => failure.message,
            }),
            Err(error) => return Err(error),
        };
        sums.insert(file, sum);
    }
    let arch = match wants_arch {
        true => {
            let cpuinfo = client.read("/proc/cpuinfo", frame.user.clone(), CPUINFO_CAP)?;
            key::arch(&frame.account.architecture, &String::from_utf8_lossy(&cpuinfo))
        }
        false => String::new(),
    };
    Ok((sums, arch))
}
