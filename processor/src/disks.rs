//! Room on the disks of what is embedded: a processor that cannot write is not ready, although it still reads.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// With less, a segment of a log or a page of the database may have no place.
const LEAST_BYTES: u64 = 32 << 20;
/// Each object of an embedded store is a file, and has directories.
const LEAST_FILES: u64 = 64;

/// Directories that are written to.
#[derive(Debug, Clone, Default)]
pub struct Disks(Vec<PathBuf>);

impl Disks {
    /// Those beneath these directories, each disk once.
    pub fn of(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut seen = BTreeSet::new();
        let is_new = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|metadata| seen.insert(metadata.dev()));
        Self(directories.into_iter().filter(is_new).collect())
    }

    /// What is wrong, a line each.
    pub fn troubles(&self) -> Vec<String> {
        self.0.iter().filter_map(|path| trouble(path)).collect()
    }
}

fn trouble(path: &Path) -> Option<String> {
    let at = path.display();
    let disk = match rustix::fs::statvfs(path) {
        Ok(disk) => disk,
        Err(error) => return Some(format!("disk: {at} cannot be looked at: {error}")),
    };
    let bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    // Some file systems have no table of files, and say 0 of 0.
    let files = if disk.f_files == 0 { LEAST_FILES } else { disk.f_favail };
    let full = |free: u64, what: &str, least: u64| {
        format!(
            "disk: {free} {what} are free at {at}, and {least} are needed: make room; what waits then goes on by itself"
        )
    };
    match () {
        () if bytes < LEAST_BYTES => Some(full(bytes, "bytes", LEAST_BYTES)),
        () if files < LEAST_FILES => Some(full(files, "files", LEAST_FILES)),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_room_is_no_trouble_and_one_that_is_gone_is() {
        let directory = tempfile::tempdir().unwrap();
        let beneath = directory.path().join("beneath");
        std::fs::create_dir(&beneath).unwrap();
        let disks = Disks::of([directory.path().to_owned(), beneath, "/no/such/directory".into()]);
        assert_eq!(disks.0, [directory.path()]);
        assert_eq!(disks.troubles(), [""; 0]);
        drop(directory);
        assert!(disks.troubles()[0].contains("cannot be looked at"), "{:?}", disks.troubles());
    }

    /// What the kernel keeps for itself has no room at all.
    #[test]
    fn a_disk_without_room_is_told() {
        let told = Disks::of(["/proc".into()]).troubles();
        assert!(told[0].contains("disk: 0 bytes are free at /proc"), "{told:?}");
    }
}
