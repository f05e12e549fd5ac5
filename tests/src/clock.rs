//! The clock that programs of a story read, which can be set while they run: Debian's `libfaketime`.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// What it shows is read from a file at each look. Monotonic clocks and the times of files stay as they are, as they do when
/// somebody sets a machine's clock.
#[derive(Debug)]
pub struct Clock {
    directory: TempDir,
}

impl Clock {
    /// It is right.
    #[track_caller]
    pub fn right() -> Self {
        let clock = Self { directory: tempfile::tempdir().expect("a temporary directory can be made") };
        clock.set(0);
        clock
    }

    /// From now on it is off by so many seconds.
    #[track_caller]
    pub fn set(&self, seconds: i64) {
        // In one step: a reader never sees half of it.
        let new = self.directory.path().join("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("a file can be written");
        fs::rename(new, self.file()).expect("it can be renamed");
    }

    /// What makes a program read it.
    #[track_caller]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("clock")
    }
}

#[track_caller]
fn library() -> PathBuf {
    let directories = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut libraries = directories.map(|path| path.join(Path::new("faketime/libfaketimeMT.so.1")));
    libraries.find(|path| path.exists()).expect("faketime is installed (scripts/setup)")
}
