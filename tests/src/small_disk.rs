//! A file system that fills up soon.

use std::fs;
use std::io::Write as _;
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

impl SmallDisk {
    /// Takes all of its room.
    #[track_caller]
    pub fn fill(&self) {
        let noise = vec![0; 64 << 10];
        let mut file = fs::File::create(self.filler()).expect("a file can be made");
        while file.write_all(&noise).is_ok() {}
        // What is left of the last page.
        while file.write_all(&[0]).is_ok() {}
    }

    /// Gives back what [`Self::fill`] has taken.
    #[track_caller]
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a container that is just ending may still hold it.
        let _unmounted = Program::new("umount").args(["--lazy"]).args([&self.path]).run();
    }
}
