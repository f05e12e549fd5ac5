//! The image's own main program, when the image or the config asks for it: our child, whose end fails the job.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use navvy_protocol::supervisor::{Exec, Terminal};

use super::settings::Settings;
use crate::exec::keeper::{Ends, Note, Notes};
use crate::exec::launch;
use crate::sys::Pid;
use crate::users;

pub struct Entrypoint {
    pub pid: Pid,
    pub notes: Notes,
}

impl Entrypoint {
    /// Its exit code, shell style, once its keeper tells.
    pub fn ended(&self) -> Option<u8> {
        match self.notes.read() {
            Some(Note::Exited { status, .. }) if libc::WIFSIGNALED(status) => Some(128 + libc::WTERMSIG(status) as u8),
            Some(Note::Exited { status, .. }) => Some(libc::WEXITSTATUS(status) as u8),
            Some(_) => None,
            None => Some(128 + libc::SIGKILL as u8),
        }
    }
}

/// Starts it in the directory that we were started in, with our environment and our output.
pub fn start(settings: &Settings, directory: Option<&Path>, oom_score: Option<i32>) -> io::Result<Option<Entrypoint>> {
    if settings.entrypoint.is_empty() {
        return Ok(None);
    }
    let exec = Exec {
        id: String::new(),
        argv: settings.entrypoint.clone(),
        env: std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect(),
        cwd: directory.unwrap_or(Path::new("/")).to_string_lossy().into_owned(),
        user: settings.user.clone(),
        terminal: Terminal::Pipes,
        input: false,
        watch_memory: false,
    };
    let user = users::look_up(exec.user.as_deref()).map_err(io::Error::other)?;
    let kept = launch::start(&exec, &user, &inherited()?, launch::Apart { oom_score, group: None })
        .map_err(io::Error::other)?;
    Ok(Some(Entrypoint { pid: kept.step, notes: kept.notes }))
}

fn inherited() -> io::Result<Ends> {
    let copy = |fd: std::os::fd::BorrowedFd<'_>| -> io::Result<OwnedFd> { fd.try_clone_to_owned() };
    Ok(Ends {
        stdin: std::fs::File::open("/dev/null")?.into(),
        stdout: copy(io::stdout().as_fd())?,
        stderr: copy(io::stderr().as_fd())?,
    })
}
