//! A child that does one thing as another user and reports through a pipe.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use navvy_protocol::supervisor::{Failure, FailureKind, Reply};

use crate::control::connection::Connection;
use crate::failure;
use crate::sys::{self, Pid};
use crate::users::User;

/// Far above the longest list of checksums that a request can ask for.
const REPLY_CAP: u64 = 4 << 20;

/// A child whose caller went away ends by itself within this, or is killed: it may have a large tree to take back.
const TAKING_BACK: Duration = Duration::from_secs(10);

pub struct Child<'a> {
    /// `None`: stays uid 0.
    pub user: Option<&'a User>,
    /// Ended when this one's caller hangs up.
    pub connection: Option<&'a Connection>,
    /// Killed when it takes longer.
    pub limit: Option<Duration>,
}

impl<'a> Child<'a> {
    pub fn streaming(user: &'a User, connection: &'a Connection) -> Self {
        Self { user: Some(user), connection: Some(connection), limit: None }
    }

    /// Forks, waits, and gives what the child said.
    pub fn run(self, work: impl FnOnce() -> Result<Reply, Failure>) -> Result<Reply, Failure> {
        let (reader, writer) = io::pipe().map_err(|error| failure::no_process(&error))?;
        let writer = File::from(OwnedFd::from(writer));
        let mut kept = vec![writer.as_raw_fd()];
        kept.extend(self.connection.map(|connection| connection.as_fd().as_raw_fd()));
        let pid = sys::fork_child(|| {
            sys::close_all_but(&mut kept);
            report(&writer, self.become_user().and_then(|()| work()))
        })
        .map_err(|error| failure::no_process(&error))?;
        drop(writer);
        self.wait(pid, File::from(OwnedFd::from(reader)))
    }

    fn become_user(&self) -> Result<(), Failure> {
        let Some(user) = self.user else { return Ok(()) };
        sys::become_user(user.uid, user.gid, &user.groups)
            .map_err(|error| failure::of(&error, format_args!("become user {}", user.shown())))
    }

    fn wait(&self, pid: Pid, result: File) -> Result<Reply, Failure> {
        let mut deadline = self.limit.map(|limit| Instant::now() + limit);
        let mut gone = false;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let mut entries = [
                sys::poll_entry(Some(result.as_fd()), libc::POLLIN, true),
                // No event asked for: poll tells a hang-up all the same.
                sys::poll_entry(self.connection.map(Connection::as_fd), 0, !gone),
            ];
            sys::poll(&mut entries, left);
            if entries[0].revents != 0 {
                return parse(result);
            }
            // The child sees it, too, and takes back what is half done: it gets a moment for that.
            if !gone && entries[1].revents & (libc::POLLHUP | libc::POLLERR) != 0 {
                gone = true;
                deadline = Some(Instant::now() + TAKING_BACK);
                continue;
            }
            if left.is_some_and(|left| left.is_zero()) {
                // It holds the pipe, so its number is still its own.
                let _ = sys::kill(pid, libc::SIGKILL);
                let why = if gone { "the caller went away" } else { "the file system did not answer in time" };
                return Err(Failure::new(FailureKind::Other, why));
            }
        }
    }
}

/// In the child: the last thing it does.
fn report(mut writer: &File, result: Result<Reply, Failure>) -> u8 {
    let reply = result.unwrap_or_else(Reply::Failed);
    let written = serde_json::to_vec(&reply).map_err(io::Error::from).and_then(|bytes| writer.write_all(&bytes));
    u8::from(written.is_err())
}

fn parse(result: File) -> Result<Reply, Failure> {
    let mut bytes = Vec::new();
    let read = result.take(REPLY_CAP).read_to_end(&mut bytes);
    match serde_json::from_slice(&bytes) {
        Ok(Reply::Failed(failure)) => Err(failure),
        Ok(reply) if read.is_ok() => Ok(reply),
        _ => Err(Failure::new(FailureKind::Other, "the process that worked on the files was killed")),
    }
}
