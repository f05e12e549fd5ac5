//! A host that is already there: one task's at a time, and reset by a command of the operator's, before and after.
//!
//! ```text
//! lock STATE/hosts/NAME for a moment ─▶ does a record name this host? ─▶ ours names it ─▶ unlock ─▶ reset ─▶ connect, seed ─▶ steps
//!                                          │ one that is being removed and that nobody holds: its reset is made up for, here
//! destroy: reset ─▶ the record goes, and with it the host is free                a reset that fails: the record stays
//! ```
//!
//! Who takes it resets it first: what became of it before Navvy had it, nobody knows.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_environment::command::{self, CommandError};
use navvy_job::outcome::Blame;
use serde::{Deserialize, Deserializer};

/// Of the lock that a reset holds. No host's name has such an end.
const RESETTING: &str = "~reset";
/// Beyond the reset's own limit, and that of one before it.
const MARGIN: Duration = Duration::from_secs(15);
/// How `timeout` exits when its command took too long.
const TIMED_OUT: i32 = 124;

/// A host, as an operator describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Host {
    /// Its name for people, and for its lock.
    pub name: String,
    /// Address or name in the network.
    pub address: String,
    /// Port of its ssh server.
    #[serde(default = "port")]
    pub port: u16,
    /// As whom it is entered. Only uid 0 can give a supervisor its seed.
    #[serde(default = "user")]
    pub user: String,
    /// Its host key: a line as in `/etc/ssh/ssh_host_ed25519_key.pub`.
    pub host_key: String,
    /// File with the key by which it is entered.
    pub key_file: PathBuf,
    /// Program and arguments that make it as new, and end with 0 once it is.
    pub reset: Vec<String>,
    /// How long that takes at most.
    #[serde(default = "reset_limit", deserialize_with = "duration")]
    pub reset_limit: Duration,
    /// Configs' names of images that it stands for; `*` in one stands for any text.
    #[serde(default = "any_image")]
    pub images: Vec<String>,
    /// As whom steps run.
    #[serde(default = "crate::far::choice::step_user")]
    pub step_user: String,
    /// The version of its Docker engine, if it has one.
    #[serde(default)]
    pub docker: Option<String>,
}

fn port() -> u16 {
    22
}

fn user() -> String {
    "root".to_owned()
}

fn reset_limit() -> Duration {
    Duration::from_secs(300)
}

fn any_image() -> Vec<String> {
    vec!["*".to_owned()]
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    navvy_job::figures::read_duration(&text).map_err(serde::de::Error::custom)
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
    /// Other tasks have all that would do.
    #[error("no host is free, and none became so within {} s: {whose}; add hosts to [[vm.ssh.hosts]], or run fewer jobs at once", waited.as_secs())]
    AllTaken {
        /// The hosts, and who has each.
        whose: String,
        /// How long it was waited for one.
        waited: Duration,
    },
    /// It is in use, and the settings name it no more.
    #[error(
        "host {name} is not in [[vm.ssh.hosts]] any more: nothing says how it is reset; put it back until its task is removed"
    )]
    Unknown {
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
    #[error("the reset of host {name} failed; it is not used before one has succeeded")]
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
            Self::Name { .. } | Self::NoReset { .. } | Self::Unknown { .. } => Blame::Usage,
            _ => Blame::Infra,
        }
    }
}

/// Nobody else decides whose the host is as long as this lives: the kernel lets go of the lock with the process.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

impl Host {
    /// Can it be used at all, by what is said of it?
    ///
    /// # Errors
    /// A name that leads elsewhere, or no reset.
    pub fn check(&self) -> Result<(), HostError> {
        let name = self.name.clone();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if name.is_empty() || name.starts_with('.') || name.len() > 64 || !name.chars().all(is_plain) {
            return Err(HostError::Name { name });
        }
        if self.reset.is_empty() { Err(HostError::NoReset { name }) } else { Ok(()) }
    }

    /// To decide whose it is. `None`: somebody else does so just now.
    ///
    /// # Errors
    /// The lock cannot be made.
    pub fn turn(&self, state: &Path) -> Result<Option<Turn>, HostError> {
        let file = self.lock_file(state, "")?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Turn { _lock: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => {
                Err(HostError::Lock { name: self.name.clone(), path: state.join("hosts").join(&self.name), source })
            }
        }
    }

    fn lock_file(&self, state: &Path, suffix: &str) -> Result<File, HostError> {
        self.check()?;
        let directory = state.join("hosts");
        let path = directory.join(format!("{}{suffix}", self.name));
        let failed = |source| HostError::Lock { name: self.name.clone(), path: path.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        options.map_err(failed)
    }

    /// Makes it as new. A command that a killed agent has left behind ends first: two of them side by side would undo each other's
    /// work.
    ///
    /// # Errors
    /// The command failed, or has not ended in time.
    pub async fn reset(&self, state: &Path, search_path: &str) -> Result<(), HostError> {
        let name = self.name.clone();
        let Some(program) = self.reset.first() else { return Err(HostError::NoReset { name }) };
        drop(self.lock_file(state, RESETTING)?);
        let lock = state.join("hosts").join(format!("{name}{RESETTING}")).display().to_string();
        let limit = self.reset_limit.as_secs_f64().to_string();
        // flock outlives us with its lock; timeout ends all that the command has started and waits for. What the command leaves
        // running, the host's own processes say, has neither.
        let mut arguments = vec!["--close", &lock, "timeout", "--kill-after=5", &limit];
        arguments.extend(self.reset.iter().map(String::as_str));
        let done = command::run("flock", &arguments, b"", search_path, self.reset_limit * 2 + MARGIN).await;
        done.map(drop)
            .map_err(|source| HostError::Reset { name, source: in_its_name(source, program, self.reset_limit) })
    }
}

/// What the operator's own command came to.
fn in_its_name(error: CommandError, command: &str, limit: Duration) -> CommandError {
    let program = command.to_owned();
    match error {
        CommandError::Failed { status, .. } if status.code() == Some(TIMED_OUT) => {
            CommandError::TimedOut { program, limit }
        }
        CommandError::Failed { status, stderr, .. } => CommandError::Failed { program, status, stderr },
        CommandError::TimedOut { limit, .. } => CommandError::TimedOut { program, limit },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(reset: &[&str]) -> Host {
        serde_json::from_value(serde_json::json!({
            "name": "mac-1", "address": "127.0.0.1", "host-key": "ssh-ed25519 AAAA", "key-file": "/k", "reset": reset,
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn one_at_a_time_decides_whose_a_host_is() {
        let state = tempfile::tempdir().unwrap();
        let host = host(&["true"]);
        let turn = host.turn(state.path()).unwrap();
        assert!(turn.is_some() && host.turn(state.path()).unwrap().is_none());
        drop(turn);
        // A program that another test starts just now may have it for a moment.
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while host.turn(state.path()).unwrap().is_none() {
            assert!(std::time::Instant::now() < deadline, "the turn was not given back");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_reset_that_fails_says_why_and_a_host_without_one_is_none() {
        let state = tempfile::tempdir().unwrap();
        let reset = async |host: &Host| host.reset(state.path(), "/usr/bin:/bin").await;
        let failed = reset(&host(&["sh", "-c", "echo no power >&2; exit 3"])).await.unwrap_err();
        let told = navvy_job::chain::chain(&failed);
        assert!(told.contains("sh ended with") && told.contains("no power"), "{told}");
        assert!(matches!(host(&[]).check().unwrap_err(), HostError::NoReset { .. }));
        let named = Host { name: "../x".to_owned(), ..host(&["true"]) };
        assert!(matches!(named.check().unwrap_err(), HostError::Name { .. }));
        let late = Host { reset_limit: Duration::from_millis(50), ..host(&["sleep", "60"]) };
        let told = navvy_job::chain::chain(&reset(&late).await.unwrap_err());
        assert!(told.contains("sleep did not end within 50ms"), "{told}");
        reset(&host(&["true"])).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_killed_agent_has_left_of_a_reset_ends_before_the_next_begins() {
        let state = tempfile::tempdir().unwrap();
        let (log, go) = (state.path().join("log"), state.path().join("go"));
        let say = format!(
            "echo begun >> {0}; while [ ! -e {1} ]; do sleep 0.01; done; echo ended >> {0}",
            log.display(),
            go.display()
        );
        let host = host(&["sh", "-c", &say]);
        drop(host.lock_file(state.path(), RESETTING).unwrap());
        // As its agent has started it, and was killed.
        let lock = state.path().join("hosts/mac-1~reset");
        let mut left = std::process::Command::new("flock").arg("--close").arg(lock).args(&host.reset).spawn().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while std::fs::read_to_string(&log).unwrap_or_default() != "begun\n" {
            assert!(std::time::Instant::now() < deadline, "it has not begun");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let again = tokio::spawn({
            let (host, state) = (host.clone(), state.path().to_owned());
            async move { host.reset(&state, "/usr/bin:/bin").await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "begun\n");
        std::fs::write(&go, "").unwrap();
        again.await.unwrap().unwrap();
        left.wait().unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "begun\nended\nbegun\nended\n");
    }
}
