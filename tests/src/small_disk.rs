//! A file system that fills up soon.

use std::path::{Path, PathBuf};

use crate::program::Program;
use crate::sys;

/// A mounted tmpfs. Unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    #[track_caller]
    pub fn mounted_at(path: &Path, mebibytes: u32) -> Self {
        Self::mounted(path, &format!("size={mebibytes}m"))
    }

    /// With so many files and directories at most.
    #[track_caller]
    pub fn with_inodes_at(path: &Path, mebibytes: u32, inodes: u32) -> Self {
        Self::mounted(path, &format!("size={mebibytes}m,nr_inodes={inodes}"))
    }

    #[track_caller]
    fn mounted(path: &Path, size: &str) -> Self {
        assert!(sys::is_root(), "only root can mount: run the stories as root");
        let options = format!("{size},mode=0700");
        Program::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).args([path]).run().succeeded();
        Self { path: path.to_owned() }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a container that is just ending may still hold it.
        let _unmounted = Program::new("umount").args(["--lazy"]).args([&self.path]).run();
    }
}
