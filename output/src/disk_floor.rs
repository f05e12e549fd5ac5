//! Logs leave some of the disk free.
//!
//! A log that has grown past [`SMALL`] looks at its disk's free space every [`EVERY_BYTES`] (or fewer, near the floor) or
//! [`EVERY`], whichever comes first, and takes no more below the floor. Small logs are written as long as anything fits: what runs after a failure
//! (`when: always`) lives on the floor's reserve.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use navvy_job::figures;

/// A log up to this size ignores the floor.
const SMALL: u64 = 256 << 10;
const EVERY_BYTES: u64 = 4 << 20;
const EVERY: Duration = Duration::from_millis(250);

/// Free bytes of the logs' disk below which no log grows. 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFloor(pub u64);

impl Default for DiskFloor {
    fn default() -> Self {
        Self(64 << 20)
    }
}

/// Why a log takes no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "disk floor: the disk of {} has {} left, and below {} no log grows; the {written} bytes of this one are whole. \
     Free some space, name another place with XDG_STATE_HOME, or lower the floor with --disk-floor",
    directory.display(), figures::bytes(*free), figures::bytes(*floor)
)]
pub struct DiskFloorReached {
    /// Where the log is.
    pub directory: PathBuf,
    /// Bytes that were free.
    pub free: u64,
    /// Bytes that must stay free.
    pub floor: u64,
    /// Length of the log.
    pub written: u64,
}

impl DiskFloorReached {
    /// The one inside an error of a log.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<DiskFloorReached> for io::Error {
    fn from(reached: DiskFloorReached) -> Self {
        Self::new(io::ErrorKind::StorageFull, reached)
    }
}

/// Looks at a log's disk now and then.
#[derive(Debug)]
pub struct DiskWatch {
    floor: DiskFloor,
    /// Bytes that may come before the next look.
    allowance: u64,
    looked: Option<Instant>,
}

impl DiskWatch {
    pub fn new(floor: DiskFloor) -> Self {
        Self { floor, allowance: 0, looked: None }
    }

    /// How many of `more` bytes a log of `written` ones takes whatever the floor: as many as keep it small.
    pub fn small(written: u64, more: usize) -> usize {
        usize::try_from(SMALL.saturating_sub(written)).map_or(more, |room| room.min(more))
    }

    /// May `more` bytes be added to the `written` ones of the log `file` at `path`, which is small no more?
    pub fn allows(&mut self, file: &File, path: &Path, written: u64, more: usize) -> io::Result<()> {
        let more = more as u64;
        if self.floor.0 == 0 {
            return Ok(());
        }
        if more <= self.allowance && self.looked.is_some_and(|at| at.elapsed() < EVERY) {
            self.allowance -= more;
            return Ok(());
        }
        let free = free_bytes(file)?;
        let Some(left) = free.checked_sub(self.floor.0.saturating_add(more)) else {
            // The next one looks again: space may come back.
            self.looked = None;
            let directory = path.parent().unwrap_or(path).to_owned();
            return Err(DiskFloorReached { directory, free, floor: self.floor.0, written }.into());
        };
        (self.allowance, self.looked) = (left.min(EVERY_BYTES), Some(Instant::now()));
        Ok(())
    }
}

/// What a user without privileges may still take of the file's disk.
fn free_bytes(file: &File) -> io::Result<u64> {
    let answer = rustix::fs::fstatvfs(file)?;
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_the_floor_small_logs_alone_are_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut watch = DiskWatch::new(DiskFloor(u64::MAX / 2));
        assert_eq!(DiskWatch::small(0, SMALL as usize + 1), SMALL as usize);
        assert_eq!(
            (DiskWatch::small(SMALL - 2, 7), DiskWatch::small(SMALL - 2, 1), DiskWatch::small(SMALL, 7)),
            (2, 1, 0)
        );
        for _ in 0..2 {
            let error = watch.allows(file.as_file(), file.path(), SMALL, 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let reached = DiskFloorReached::of(&error).unwrap();
            assert_eq!((reached.written, reached.directory.as_path()), (SMALL, file.path().parent().unwrap()));
            assert!(error.to_string().contains("--disk-floor"), "{error}");
        }
    }

    #[test]
    fn without_a_floor_nobody_looks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut watch = DiskWatch::new(DiskFloor(0));
        watch.allows(file.as_file(), file.path(), u64::MAX, usize::MAX).unwrap();
        assert!(watch.looked.is_none());
    }

    #[test]
    fn a_disk_with_room_is_looked_at_now_and_then() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut watch = DiskWatch::new(DiskFloor(1));
        watch.allows(file.as_file(), file.path(), SMALL, 1).unwrap();
        assert_eq!(watch.allowance, EVERY_BYTES);
        let first = watch.looked.unwrap();
        watch.allows(file.as_file(), file.path(), SMALL, EVERY_BYTES as usize + 1).unwrap();
        assert!(watch.looked.unwrap() > first, "many bytes are a reason to look again");
    }

    #[test]
    fn near_the_floor_it_looks_sooner() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let free = free_bytes(file.as_file()).unwrap();
        let mut watch = DiskWatch::new(DiskFloor(free / 2));
        // Other programs may write to that disk meanwhile, but hardly half of what is free.
        watch.allows(file.as_file(), file.path(), SMALL, 1).unwrap();
        assert!(watch.allowance > 0 && watch.allowance <= EVERY_BYTES);
        assert!(watch.allows(file.as_file(), file.path(), SMALL, usize::try_from(free).unwrap()).is_err());
    }
}
