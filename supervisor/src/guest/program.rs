//! Programs of the machine that the supervisor itself needs. Started as steps are, below a keeper, so that the main thread
//! reaps in peace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use navvy_protocol::supervisor::{Exec, Terminal};

use crate::exec::keeper::{Ends, Kept, Note};
use crate::exec::launch::{self, DEFAULT_PATH};
use crate::{failure, kernel, sys, users};

/// Of what a program said last, for an error.
const LAST_WORDS: u64 = 600;

/// Starts a program as uid 0; what it says goes to `output`. `input`: in place of nothing.
pub fn start(argv: &[&str], variables: &[(String, String)], input: Option<OwnedFd>, output: &File) -> io::Result<Kept> {
    let mut env = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned()), ("LANG".to_owned(), "C.UTF-8".to_owned())];
    env.extend(variables.iter().cloned());
    let exec = Exec {
        id: String::new(),
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env,
        cwd: "/".to_owned(),
        user: None,
        terminal: Terminal::Pipes,
        input: false,
        watch_memory: false,
    };
    let user = users::look_up(None).map_err(io::Error::other)?;
    let ends = Ends {
        stdin: input.map_or_else(|| File::open("/dev/null").map(OwnedFd::from), Ok)?,
        stdout: output.try_clone()?.into(),
        stderr: OwnedFd::from(output.try_clone()?),
    };
    launch::start(&exec, &user, &ends, launch::Apart::default()).map_err(io::Error::other)
}

/// Its exit code (shell style), once it has ended; `None` while it runs. Waits at most so long.
pub fn ended(kept: &Kept, limit: Option<Duration>) -> Option<u8> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let mut entries = [sys::poll_entry(Some(kept.notes.0.as_fd()), libc::POLLIN, true)];
        sys::poll(&mut entries, left);
        if entries[0].revents != 0 {
            match kept.notes.read() {
                Some(Note::Exited { status, .. }) if libc::WIFSIGNALED(status) => {
                    return Some(128 + libc::WTERMSIG(status) as u8);
                }
                Some(Note::Exited { status, .. }) => return Some(libc::WEXITSTATUS(status) as u8),
                Some(_) => {}
                None => return Some(128 + libc::SIGKILL as u8),
            }
        } else if left.is_some_and(|left| left.is_zero()) {
            return None;
        }
    }
}

/// Runs a program to its end, which has to be a good one.
pub fn run(argv: &[&str], limit: Duration) -> io::Result<()> {
    let output = File::from(kernel::memory_file(c"navvy-program")?);
    let kept = start(argv, &[], None, &output)?;
    let what = argv.join(" ");
    match ended(&kept, Some(limit)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::other(format!("`{what}` ended with exit code {code}: {}", last_words(&output)))),
        None => {
            // It is below its keeper, so its number is still its own.
            let _ = sys::kill(kept.step, libc::SIGKILL);
            Err(io::Error::other(format!("`{what}` did not end within {} s", limit.as_secs())))
        }
    }
}

fn last_words(output: &File) -> String {
    let length = output.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = vec![0; length.min(LAST_WORDS) as usize];
    match output.read_exact_at(&mut bytes, length.saturating_sub(LAST_WORDS)) {
        Ok(()) => String::from_utf8_lossy(&bytes).trim().replace('\n', "; "),
        Err(error) => failure::text(&error),
    }
}
