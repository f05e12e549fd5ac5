//! A pipe that nobody reads.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::program::Program;

/// More than a run writes before its story fills the pipe, and as much as anybody may have.
const SIZE: libc::c_int = 1 << 20;

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
        let ends = ends.expect("a named pipe can be opened");
        widen(&ends).expect("a pipe can have a mebibyte");
        Self { path: path.to_owned(), ends }
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

/// To [`SIZE`].
#[expect(unsafe_code, reason = "the standard library knows no sizes of pipes")]
fn widen(pipe: &File) -> io::Result<()> {
    // SAFETY: fcntl on an open descriptor with an integer argument.
    match unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, SIZE) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Does this process's main thread wait to write to its standard error?
pub fn waits_for_stderr(pid: u32) -> bool {
    // The number of the call, and its first argument.
    let call = fs::read_to_string(format!("/proc/{pid}/task/{pid}/syscall")).unwrap_or_default();
    call.split_whitespace().nth(1) == Some("0x2")
}
