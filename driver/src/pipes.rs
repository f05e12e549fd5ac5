//! Nomad's own pipes for a task's stdout and stderr. Its collector reads one until the last writer has closed it, and is not started
//! again before the next task: so both the agent and this process keep them open, each for when the other ends.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// One of them, if somebody reads it now: an opening that waits would hold up everything.
pub fn open(path: &Path) -> Option<File> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok().map(File::from)
}

/// All that are read now.
pub fn open_all(paths: &[PathBuf]) -> Vec<File> {
    paths.iter().filter_map(|path| open(path)).collect()
}
