//! A pipe that nobody reads.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::program::Program;

/// A named pipe. Until it is filled it takes what is written.
#[derive(Debug)]
pub struct StuckPipe {
    path: PathBuf,
    /// Both ends: so nobody who opens it waits, and nobody who writes is told that no reader is left.
    ends: File,
}

impl StuckPipe {
    #[track_caller]
    pub fn at(path: &Path) -> Self {
        Program::new("mkfifo").args([path]).run().succeeded();
        let ends = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
        Self { path: path.to_owned(), ends: ends.expect("a named pipe can be opened") }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on whoever writes waits for ever.
    #[track_caller]
    pub fn fill(&self) {
        // Single bytes come last: they go where no larger piece fits.
        for piece in [&[b' '; 4096][..], b" "] {
            let full = loop {
                if let Err(error) = (&self.ends).write(piece) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
        }
    }

    /// What was written, and not yet read.
    pub fn drain(&self) -> String {
        let mut bytes = Vec::new();
        // It ends with the error that nothing is there.
        (&self.ends).read_to_end(&mut bytes).ok();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Does this process's main thread wait to write to its standard error?
pub fn waits_for_stderr(pid: u32) -> bool {
    // The number of the call, and its first argument.
    let call = fs::read_to_string(format!("/proc/{pid}/task/{pid}/syscall")).unwrap_or_default();
    call.split_whitespace().nth(1) == Some("0x2")
}
