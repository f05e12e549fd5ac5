//! A host that is already there: taken by one task at a time, and reset by a command of the operator's, before and after.
//!
//! ```text
//! lock STATE/hosts/NAME (held by the taker's process) ─▶ reset ─▶ connect, seed ─▶ steps ─▶ reset ─▶ unlock
//! ```
//!
//! Who takes it resets it first: a taker that was killed could not.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_environment::command::{self, CommandError};
use navvy_job::outcome::Blame;
use serde::Deserialize;

/// A host, as an operator describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name for people, and for its lock.
    pub name: String,
    /// Address or name in the network.
    pub address: String,
    /// Port of its ssh server.
    #[serde(default = "port")]
    pub port: u16,
    /// As whom it is entered.
    #[serde(default = "user")]
    pub user: String,
    /// Its host key: a line as in `/etc/ssh/ssh_host_ed25519_key.pub`.
    pub host_key: String,
    /// File with the key by which it is entered.
    pub key_file: PathBuf,
    /// Program and arguments that make it as new, and end with 0 once it is.
    pub reset: Vec<String>,
    /// How long that takes at most.
    #[serde(default = "reset_seconds")]
    pub reset_seconds: u64,
}

fn port() -> u16 {
    22
}

fn user() -> String {
    "root".to_owned()
}

fn reset_seconds() -> u64 {
    300
}

/// Why a host cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its name would lead out of the directory of locks.
    #[error(
        "a host's name is of letters, digits, dots and dashes, and does not begin with a dot; this one is {name:?}"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Somebody has it.
    #[error("host {name} is in use by another task")]
    Taken {
        /// The host.
        name: String,
    },
    /// Its lock cannot be made.
    #[error("the lock of host {name}, {path}, cannot be made", path = path.display())]
    Lock {
        /// The host.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It has no command.
    #[error("host {name} has no reset command; without one a task would find what the one before has left")]
    NoReset {
        /// The host.
        name: String,
    },
    /// The command failed; the host is not used.
    #[error("the reset of host {name} failed")]
    Reset {
        /// The host.
        name: String,
        /// How.
        source: CommandError,
    },
}

impl HostError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Name { .. } | Self::NoReset { .. } => Blame::Usage,
            _ => Blame::Infra,
        }
    }
}

/// A host in one task's hands, as long as this lives: the kernel lets go of the lock with the process.
#[derive(Debug)]
pub struct Taken {
    host: Host,
    _lock: File,
    search_path: String,
}

impl Host {
    /// Takes the host and makes it as new.
    ///
    /// # Errors
    /// Somebody has it, or its reset fails.
    pub async fn take(&self, state: &Path, search_path: &str) -> Result<Taken, HostError> {
        let lock = self.lock(state)?;
        let taken = Taken { host: self.clone(), _lock: lock, search_path: search_path.to_owned() };
        taken.reset().await?;
        Ok(taken)
    }

    fn lock(&self, state: &Path) -> Result<File, HostError> {
        let name = self.name.clone();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if name.is_empty() || name.starts_with('.') || name.len() > 64 || !name.chars().all(is_plain) {
            return Err(HostError::Name { name });
        }
        let directory = state.join("hosts");
        let path = directory.join(&name);
        let failed = |source| HostError::Lock { name: name.clone(), path: path.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = options.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(HostError::Taken { name }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

impl Taken {
    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    async fn reset(&self) -> Result<(), HostError> {
        let name = self.host.name.clone();
        let Some((program, arguments)) = self.host.reset.split_first() else { return Err(HostError::NoReset { name }) };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let limit = Duration::from_secs(self.host.reset_seconds);
        let done = command::run(program, &arguments, b"", &self.search_path, limit).await;
        done.map(drop).map_err(|source| HostError::Reset { name, source })
    }

    /// Makes the host as new once more, and lets go of it, whether that worked or not: the next taker resets it, too.
    ///
    /// # Errors
    /// The reset failed.
    pub async fn give_back(self) -> Result<(), HostError> {
        self.reset().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(reset: &[&str]) -> Host {
        serde_json::from_value(serde_json::json!({
            "name": "mac-1", "address": "127.0.0.1", "host_key": "ssh-ed25519 AAAA", "key_file": "/k", "reset": reset,
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn a_host_is_one_tasks_and_is_reset_before_and_after() {
        let state = tempfile::tempdir().unwrap();
        let log = state.path().join("resets");
        let say = format!("echo reset >> {}", log.display());
        let host = host(&["sh", "-c", &say]);
        let resets = || std::fs::read_to_string(&log).unwrap().lines().count();
        let taken = host.take(state.path(), "/usr/bin:/bin").await.unwrap();
        assert_eq!(resets(), 1);
        assert!(matches!(host.take(state.path(), "/bin").await.unwrap_err(), HostError::Taken { .. }));
        taken.give_back().await.unwrap();
        assert_eq!(resets(), 2);
        drop(host.take(state.path(), "/usr/bin:/bin").await.unwrap());
    }

    #[tokio::test]
    async fn a_host_that_cannot_be_reset_is_not_used() {
        let state = tempfile::tempdir().unwrap();
        let failed =
            host(&["sh", "-c", "echo no power >&2; exit 3"]).take(state.path(), "/usr/bin:/bin").await.unwrap_err();
        assert!(navvy_job::chain::chain(&failed).contains("no power"), "{failed:?}");
        assert!(matches!(host(&[]).take(state.path(), "/bin").await.unwrap_err(), HostError::NoReset { .. }));
        let named = Host { name: "../x".to_owned(), ..host(&["true"]) };
        assert!(matches!(named.take(state.path(), "/bin").await.unwrap_err(), HostError::Name { .. }));
    }
}
