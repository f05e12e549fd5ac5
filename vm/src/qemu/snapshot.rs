//! A machine that has booted, kept: others of its kind go on from there.
//!
//! ```text
//! make   lock ─▶ boot with its memory in a file ─▶ Ready ─▶ Warm, Warmed ─▶ stop ─▶ devices' state ─▶ renamed into its place
//! clone  memory mapped for itself alone, disk over the snapshot's ─▶ devices' state loaded ─▶ runs ─▶ Seed
//!
//! STATE/machine-snapshots/KEY/{ram, state, disk.qcow2, made, bad}     KEY: digest of all that must be the same
//! ```
//!
//! Nothing in it belongs to a task: the guest was given no seed. What a clone must not share with its siblings comes by the seed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_journal::owner::Owner;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::qmp::Qmp;
use crate::error::Fault;

/// Changes whenever the command line gets other devices: what was kept before does not fit them.
const LAYOUT: u32 = 2;
const RAM: &str = "ram";
const STATE: &str = "state";
const DISK: &str = "disk.qcow2";
const MADE: &str = "made";
const BAD: &str = "bad";
/// Writing some hundred kilobytes of devices' state, and reading them.
const MIGRATION_LIMIT: Duration = Duration::from_secs(30);

/// Everything that must be the same in a snapshot and its clones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// The image's name: for people, and for who removes what is of no use any more.
    pub image: String,
    /// Its digest.
    pub digest: String,
    /// QEMU's version.
    pub version: String,
    /// The accelerator and the processor's model.
    pub processor: String,
    /// In MiB.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// What carries the network: it decides what the network device can do.
    pub network: String,
}

impl Kind {
    fn key(&self) -> String {
        let text = format!("{LAYOUT} {}", serde_json::to_string(self).unwrap_or_default());
        Sha256::digest(text).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A snapshot in its place.
#[derive(Debug, Clone)]
pub struct Snapshot {
    directory: PathBuf,
}

/// Where snapshots of a state directory are.
pub fn all(state: &Path) -> PathBuf {
    state.join("machine-snapshots")
}

/// The snapshot of this kind, if there is a good one.
pub fn find(state: &Path, kind: &Kind) -> Option<Snapshot> {
    let directory = all(state).join(kind.key());
    (directory.join(MADE).exists() && !directory.join(BAD).exists()).then_some(Snapshot { directory })
}

impl Snapshot {
    /// The file with the memory.
    pub fn ram(&self) -> PathBuf {
        self.directory.join(RAM)
    }

    /// The disk as it was.
    pub fn disk(&self) -> PathBuf {
        self.directory.join(DISK)
    }

    /// Its key, for records and reports.
    pub fn key(&self) -> String {
        self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Nobody starts from it any more.
    pub fn mark_bad(&self) {
        // What cannot be marked is tried again, and fails again.
        let _tried_again = fs::write(self.directory.join(BAD), "");
    }

    /// Loads the devices' state into a process that waits for it.
    pub async fn load(&self, qmp: &mut Qmp) -> Result<(), Fault> {
        let doing = "go on from a snapshot";
        ignore_shared(qmp, doing).await?;
        let state = File::open(self.directory.join(STATE)).map_err(Fault::host("open a snapshot"))?;
        qmp.give(doing, STATE, &state).await?;
        qmp.ask(doing, "migrate-incoming", json!({ "uri": format!("fd:{STATE}") })).await?;
        qmp.migrated(doing, MIGRATION_LIMIT).await
    }
}

async fn ignore_shared(qmp: &mut Qmp, doing: &'static str) -> Result<(), Fault> {
    let capability = json!({ "capability": "x-ignore-shared", "state": true });
    qmp.ask(doing, "migrate-set-capabilities", json!({ "capabilities": [capability] })).await.map(drop)
}

/// A snapshot that is being made, by one process at a time.
pub struct Making {
    place: PathBuf,
    unfinished: PathBuf,
    /// Held until it is made, or given up.
    _alone: File,
}

impl Making {
    /// Waits for whoever makes it now. `None`: that one has made it.
    pub async fn begin(state: &Path, kind: &Kind) -> Result<Option<Self>, Fault> {
        let (all, key, kind, state) = (all(state), kind.key(), kind.clone(), state.to_owned());
        let work = move || {
            DirBuilder::new().recursive(true).mode(0o700).create(&all)?;
            let lock = File::options().create(true).append(true).mode(0o600).open(all.join(format!("{key}.lock")))?;
            lock.lock()?;
            if find(&state, &kind).is_some() {
                return Ok(None);
            }
            let unfinished = all.join(Owner::this_process()?.unfinished(&key));
            remove(&unfinished)?;
            DirBuilder::new().mode(0o700).create(&unfinished)?;
            let made = serde_json::to_vec(&kind)?;
            fs::write(unfinished.join(MADE), made)?;
            Ok(Some(Self { place: all.join(&key), unfinished, _alone: lock }))
        };
        let begun = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)));
        begun.map_err(Fault::host("make a snapshot's directory"))
    }

    /// The file that becomes the memory.
    pub fn ram(&self) -> PathBuf {
        self.unfinished.join(RAM)
    }

    /// Keeps a guest that is warm, and puts everything in its place. Its process is of no use afterwards.
    pub async fn keep(self, qmp: &mut Qmp, disk: &Path) -> Result<Snapshot, Fault> {
        let doing = "keep a snapshot";
        qmp.ask(doing, "stop", json!({})).await?;
        ignore_shared(qmp, doing).await?;
        let state = File::create(self.unfinished.join(STATE)).map_err(Fault::host("make a snapshot"))?;
        qmp.give(doing, STATE, &state).await?;
        qmp.ask(doing, "migrate", json!({ "uri": format!("fd:{STATE}") })).await?;
        qmp.migrated(doing, MIGRATION_LIMIT).await?;
        let (unfinished, place, disk) = (self.unfinished.clone(), self.place.clone(), disk.to_owned());
        let work = move || {
            fs::rename(&disk, unfinished.join(DISK))?;
            // A bad one goes first; a machine that runs from it goes on with the files that it has open.
            remove(&place)?;
            fs::rename(&unfinished, &place).map(|()| Snapshot { directory: place })
        };
        let kept = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)));
        kept.map_err(Fault::host("put a snapshot in its place"))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // Of one that was kept nothing is there by this name.
        let _gone = remove(&self.unfinished);
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes what no machine starts from any more: bad ones, and those of images that are not here as they were.
pub fn sweep(state: &Path, images: &navvy_vm_image::Images, here: &Owner) {
    navvy_journal::sweep(&all(state), here);
    for entry in fs::read_dir(all(state)).into_iter().flatten().flatten() {
        let directory = entry.path();
        let Ok(made) = navvy_plain_file::read(&directory.join(MADE), 64 << 10) else { continue };
        let kind = serde_json::from_slice::<Kind>(&made).ok();
        let kind = kind.filter(|kind| is_of_this_layout(&directory, kind));
        let is_of_use = kind.is_some_and(|kind| images.get(&kind.image).is_ok_and(|image| image.digest == kind.digest));
        if !is_of_use || directory.join(BAD).exists() {
            let _next_time = remove(&directory);
        }
    }
}

/// One by another name was made for other devices.
fn is_of_this_layout(directory: &Path, kind: &Kind) -> bool {
    directory.file_name().is_some_and(|name| *name == *kind.key())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_other_devices_has_another_name() {
        let kind = Kind {
            image: "debian-12-minimal".to_owned(),
            digest: "0b246c5b775b".to_owned(),
            version: "7.2.22".to_owned(),
            processor: "tcg max".to_owned(),
            memory: 640,
            cpus: 1,
            network: "tap".to_owned(),
        };
        // As it stands in its directory.
        let read: Kind = serde_json::from_slice(&serde_json::to_vec(&kind).unwrap()).unwrap();
        assert!(is_of_this_layout(&all(Path::new("/s")).join(kind.key()), &read));
        let before = format!("{} {}", LAYOUT - 1, serde_json::to_string(&kind).unwrap());
        let before: String = Sha256::digest(before).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        assert!(!is_of_this_layout(&all(Path::new("/s")).join(before), &read));
    }
}
