//! `save_cache` and `restore_cache` (spec `steps.md` §4). A cache that cannot be saved or restored never fails the job.
//!
//! ```text
//! save     key ─▶ is it there? ─▶ pack ─▶ put ─▶ commit ─▶ stored, or somebody was first
//! restore  keys ─▶ look_up ─▶ get ─▶ extract
//!                     ▲         └─ damaged: quarantined, as if it had not been there
//!                     └───────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use navvy_job::chain::chain;
use navvy_job::figures;
use navvy_protocol::supervisor::{FailureKind, Packed, Trees};
use navvy_storage::{About, Body, Commit, Entry, Place as StorePlace, Producer, StorageError, Store};

use super::Task;
use super::attempt::{Attempted, Place};
use super::bounded::GivenUp;
use super::own::{Told, Trouble};
use super::prepare::Ready;
use super::trees::{Porter, Unpacking, Upload, of_client};
use crate::step::key::{self, KeyError, Template, Values};
use crate::step::{Frame, cached};
use crate::supervisor::ClientError;

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

impl Task {
    pub(super) async fn save_cache(
        &mut self,
        ready: &Ready,
        place: Place<'_>,
        key: &str,
        paths: &[String],
    ) -> Attempted {
        let (mut told, mut upload) = match self.begin_stored(place) {
            Ok((told, store)) => (told, Upload::new(store)),
            Err(attempted) => return *attempted,
        };
        let paths = places(&ready.frame, paths);
        let saving = self.save(ready, place, key, &paths, &mut told, &mut upload);
        let end = match self.while_sensible(&ready.environment, saving).await {
            Ok(Ok(Some(packed))) => self.commit_cache(ready, &mut told, &mut upload, packed).await,
            Ok(Ok(None)) => Ok(Ok(())),
            Ok(Err(trouble)) => Ok(Err(trouble)),
            Err(why) => Err(why),
        };
        upload.give_up().await;
        self.own_ended(place, &told, end)
    }

    /// All but the commit. `None`: there is nothing to commit.
    async fn save(
        &self,
        ready: &Ready,
        place: Place<'_>,
        template: &str,
        paths: &[String],
        told: &mut Told,
        upload: &mut Upload,
    ) -> Result<Option<PackedCache>, Trouble> {
        let (keys, values) = self.keys(ready, &[template]).await?;
        let key = keys.into_iter().next().unwrap_or_default();
        let there = StorePlace::Cache { key: key.clone() };
        if let Some(entry) = upload.store.find(&there).await.map_err(storage)? {
            tell_exists(told, &key, &entry);
            return Ok(None);
        }
        told.line("Creating cache archive...");
        told.line("Uploading cache archive...");
        let trees = Trees::Places { paths: paths.to_vec() };
        let reserve = async |store: &Store| store.reserve(there).await;
        let lookout = self.lookout(place, "cached file", "/");
        let started = std::time::Instant::now();
        let (packed, body) = porter(ready).store(trees, upload, lookout.as_ref(), reserve).await?;
        let took = started.elapsed();
        self.tell_found(lookout, &format!("cache {key}"), told).await;
        tell_packed(told, &packed, paths);
        self.tell_unreadable(place.number, "the cache", &packed);
        let Some(body) = body else {
            told.line("Skipping cache generation, nothing of its paths is there");
            return Ok(None);
        };
        let kept = kept(paths, &packed);
        let mut details = details(template, &kept, &packed, &values);
        details.insert(cached::MILLIS.to_owned(), took.as_millis().to_string());
        let about = About { producer: self.producer(), details };
        Ok(Some(PackedCache { key, kept, packed, body, about }))
    }

    async fn commit_cache(
        &self,
        ready: &Ready,
        told: &mut Told,
        upload: &mut Upload,
        cache: PackedCache,
    ) -> Result<Result<(), Trouble>, GivenUp> {
        let PackedCache { key, kept, packed, body, about } = cache;
        match self.commit(&ready.environment, upload, &body, about).await? {
            Ok(Commit::Won(_)) => {
                told.line(&format!("Stored Cache to {key}"));
                kept.iter().for_each(|path| told.line(&format!("  * {path}")));
                told.line(&size_of(&packed));
            }
            Ok(Commit::Lost(entry)) => tell_exists(told, &key, &entry),
            Ok(Commit::Newer { .. }) => {
                told.line(&format!("Skipping cache generation, cache already exists for key: {key}"));
                told.line("A newer version of Navvy saved it; this one cannot read it.");
            }
            Err(trouble) => return Ok(Err(trouble)),
        }
        Ok(Ok(()))
    }

    pub(super) async fn restore_cache(&mut self, ready: &Ready, place: Place<'_>, keys: &[String]) -> Attempted {
        let (mut told, store) = match self.begin_stored(place) {
            Ok(begun) => begun,
            Err(attempted) => return *attempted,
        };
        let restoring = self.restore(ready, keys, &mut told, &store);
        let end = self.while_sensible(&ready.environment, restoring).await;
        self.own_ended(place, &told, end)
    }

    async fn restore(&self, ready: &Ready, keys: &[String], told: &mut Told, store: &Store) -> Result<(), Trouble> {
        let templates: Vec<&str> = keys.iter().map(String::as_str).collect();
        let (keys, _) = self.keys(ready, &templates).await?;
        let mut missed = 0;
        for _ in 0..DAMAGED_CAP {
            let hit = store.look_up(&keys).await.map_err(storage)?;
            let until = hit.as_ref().map_or(keys.len(), |hit| hit.nth);
            for key in keys.iter().take(until).skip(missed) {
                told.line(&format!("No cache is found for key: {key}"));
            }
            missed = missed.max(until);
            let Some(hit) = hit else { return Ok(()) };
            match unpack(ready, told, store, &hit.entry).await {
                Ok(()) => return Ok(()),
                Err(Unpacking::Failed(trouble)) => return Err(trouble),
                Err(Unpacking::Damaged(why)) => put_aside(told, store, &hit.entry, &why).await?,
            }
        }
        Err(Trouble::from(format!(
            "{DAMAGED_CAP} caches in a row were damaged; the store {} needs a look",
            store.name()
        )))
    }

    /// The rendered keys, and what was looked up for them.
    async fn keys(&self, ready: &Ready, templates: &[&str]) -> Result<(Vec<String>, Values), Trouble> {
        let wrong = |error: KeyError| Trouble::from(error.to_string());
        let parsed =
            templates.iter().map(|text| Template::parse(text)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let mut values = self.values();
        let files: BTreeSet<String> = parsed.iter().flat_map(Template::files).map(str::to_owned).collect();
        let wants_arch = parsed.iter().any(Template::asks_for_arch);
        if wants_arch || !files.is_empty() {
            let (frame, client) = (ready.frame.clone(), ready.client.clone());
            let looked_up = tokio::task::spawn_blocking(move || look_up(&client, &frame, files, wants_arch)).await;
            let looked_up = looked_up.map_err(|_| "a thread of the agent ended unexpectedly".to_owned())?;
            (values.checksums, values.arch) = looked_up.map_err(|error| of_client(&error))?;
        }
        let keys = parsed.iter().map(|template| template.render(&values)).collect::<Result<Vec<_>, _>>();
        Ok((keys.map_err(wrong)?, values))
    }

    /// What needs no look into the environment.
    fn values(&self) -> Values {
        let run = &self.claim.run;
        let secrets = self.secrets.variables();
        Values {
            branch: run.branch.clone().unwrap_or_default(),
            build_num: run.build_number.to_string(),
            revision: run.revision.clone().unwrap_or_default(),
            // Only the real service has one.
            checkout_key: String::new(),
            environment: secrets.iter().chain(&self.claim.builtin_variables).cloned().collect(),
            epoch: Timestamp::now().as_second(),
            arch: String::new(),
            checksums: BTreeMap::new(),
        }
    }

    /// Whoever counts on an archive must hear what is not in it, though the step passes.
    pub(super) fn tell_unreadable(&self, step: usize, archive: &str, packed: &Packed) {
        let Some(first) = &packed.first_unreadable else { return };
        let more = match packed.unreadable.saturating_sub(1) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        self.voice.warn_in_report(format!(
            "step {step}: what the job's user cannot read is missing in {archive}: {first}{more}"
        ));
    }

    /// This project's, in the claim's scope.
    pub(super) fn store(&self) -> Result<Store, String> {
        self.context.store.open(&self.claim.run.project, &self.claim.trust)
    }

    pub(super) fn producer(&self) -> Producer {
        Producer {
            pipeline: Some(self.claim.run.pipeline.clone()),
            job: self.claim.job_name.clone(),
            task: self.claim.task.to_string(),
            build_num: Some(self.claim.run.build_number),
        }
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

pub(super) fn porter(ready: &Ready) -> Porter {
    Porter { client: ready.client.clone(), user: ready.frame.user.clone() }
}

pub(super) fn storage(error: StorageError) -> Trouble {
    Trouble::from(chain(&error))
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

fn tell_packed(told: &mut Told, packed: &Packed, paths: &[String]) {
    for missing in &packed.missing {
        if let Some(path) = paths.get(*missing as usize) {
            told.line(&format!("Warning: could not archive {path} - Not found"));
        }
    }
    tell_warnings(told, packed);
}

pub(super) fn tell_warnings(told: &mut Told, packed: &Packed) {
    packed.warnings.iter().for_each(|warning| told.line(&format!("Warning: {warning}")));
    if packed.more_warnings > 0 {
        told.line(&format!("Warning: {} more like these", packed.more_warnings));
    }
}

fn tell_exists(told: &mut Told, key: &str, entry: &Entry) {
    told.line(&format!("Skipping cache generation, cache already exists for key: {key}"));
    told.line(&format!("Found one created at {}", entry.created.strftime("%Y-%m-%d %H:%M:%S +0000 UTC")));
}

pub(super) fn size_of(packed: &Packed) -> String {
    let files = if packed.files == 1 { "file" } else { "files" };
    format!("{} {files}, {} as {}", packed.files, figures::bytes(packed.bytes), figures::bytes(packed.archive))
}

/// Brings a cache back to the absolute places that it came from.
async fn unpack(ready: &Ready, told: &mut Told, store: &Store, entry: &Entry) -> Result<(), Unpacking> {
    let key = entry.key().unwrap_or_default();
    let Some(paths) = cached::paths(entry) else {
        return Err(Unpacking::Damaged("its entry does not say which paths it holds".to_owned()));
    };
    let number = entry.record.producer.build_num.map(|number| format!(" from build {number}")).unwrap_or_default();
    told.line(&format!("Found a cache{number} at {key}"));
    told.line(&format!("Size: {}", figures::bytes(entry.body().size)));
    told.line("Cached paths:");
    paths.iter().for_each(|path| told.line(&format!("  * {path}")));
    told.line("");
    told.line("Downloading cache archive...");
    told.line("Validating cache...");
    told.line("Unarchiving cache...");
    let done = porter(ready).fetch(store, entry.body(), Trees::Places { paths }, Vec::new()).await?;
    let entries = if done.entries == 1 { "entry" } else { "entries" };
    told.line(&format!("Restored {} {entries}, {}", done.entries, figures::bytes(done.bytes)));
    if done.skipped > 0 {
        told.line(&format!(
            "Warning: {} entries of the archive belong to none of its paths, and were passed over",
            done.skipped
        ));
    }
    Ok(())
}

/// From now on it is a miss for everybody.
async fn put_aside(told: &mut Told, store: &Store, entry: &Entry, why: &str) -> Result<(), Trouble> {
    let key = entry.key().unwrap_or_default();
    told.line(&format!("Warning: the cache at {key} is damaged and was put aside: {why}"));
    store.quarantine(entry, why).await.map_err(storage)
}

type LookedUp = (BTreeMap<String, Result<[u8; 32], String>>, String);

/// Checksums of files, as the job's user sees them, and the machine's name.
fn look_up(
    client: &crate::supervisor::Client,
    frame: &Frame,
    files: BTreeSet<String>,
    wants_arch: bool,
) -> Result<LookedUp, ClientError> {
    let mut sums = BTreeMap::new();
    for file in files {
        let path = frame.place(&file);
        let sum = match client.checksum(&path, frame.user.clone()) {
            Ok(hex) => cached::digest(&hex).ok_or_else(|| format!("read {path}: its checksum is none")),
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
