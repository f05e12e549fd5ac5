//! A real `ssh-agent` of whoever runs a bench's programs.

use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::bench::Bench;
use crate::deadline::eventually;
use crate::program::{Answer, Program};

const LIMIT: Duration = Duration::from_secs(20);

/// Ends when it is dropped.
#[derive(Debug)]
pub struct SshAgent {
    room: TempDir,
    process: Child,
}

impl SshAgent {
    #[track_caller]
    pub fn of(bench: &Bench) -> Self {
        let room =
            tempfile::Builder::new().prefix("navvy-agent-").tempdir().expect("a temporary directory can be made");
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(room.path().join("socket")).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(user) = bench.user() {
            chown(room.path(), Some(user), Some(user)).expect("root may give files away");
            command.uid(user).gid(user);
        }
        let process = command.spawn().expect("ssh-agent is here");
        let agent = Self { room, process };
        eventually("the ssh-agent listens", LIMIT, || UnixStream::connect(agent.socket()).ok());
        agent
    }

    pub fn socket(&self) -> PathBuf {
        self.room.path().join("socket")
    }

    #[track_caller]
    pub fn add(&self, key: &Path) {
        self.ask(&["-q", key.to_str().expect("a plain path")]).succeeded();
    }

    /// What `ssh-add` says to these words.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> Answer {
        Program::new("ssh-add").args(words).env("SSH_AUTH_SOCK", self.socket()).run()
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.process.kill().and_then(|()| self.process.wait().map(drop)).ok();
    }
}
