//! The claim: the agent's only way to get work, under `navvy run` too.
//!
//! One serialised, versioned value. Secrets never stand in it: they travel apart ([`crate::claim::Secrets`] has no
//! `Serialize`, so that they cannot slip in).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::compiled::{Job, Variables};
use crate::id::TaskId;
use crate::resource::Size;

/// The version this code writes. A reader refuses a higher one. Claims of version 1 had no [`RunFacts`].
pub const VERSION: u32 = 2;

/// One task, ready to be carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Form of the claim, at most [`VERSION`].
    pub version: u32,
    /// Id of the task, by which its directories, containers and marks are named.
    pub task: TaskId,
    /// Name of the job in its workflow.
    pub job_name: String,
    /// What to run. All nodes and attempts of the job share it.
    pub job: Job,
    /// Which of the job's nodes the task runs, from 0; below `node_total`.
    pub node_index: u32,
    /// Number of nodes that the job runs on; at least 1.
    pub node_total: u32,
    /// Which attempt at this node the task is, from 1.
    pub attempt: u32,
    /// Time, CPU, memory and processes that it gets.
    pub limits: Limits,
    /// Whose caches the task may read and write.
    pub trust: TrustScope,
    /// Which run of which project it belongs to.
    pub run: RunFacts,
    /// `CI`, `CIRCLE_*` and their like, as the job's steps see them. They derive from the facts; no decision reads them back.
    pub builtin_variables: Variables,
    /// Receiver of its output and verdict.
    pub report_to: ReportTo,
    /// It belongs to a setup pipeline: its job may say with which config the pipeline goes on. The key for that is the
    /// secret [`CONTINUATION_KEY`].
    #[serde(default)]
    pub may_continue: bool,
    /// The jobs that this one comes after, directly or not: their workspace layers are what it sees. Each stands behind those
    /// that it comes after itself.
    #[serde(default)]
    pub upstream: Vec<Upstream>,
}

/// The run that a claim belongs to, as its maker knows it. These facts decide whose store is opened and what `checkout`
/// clones. `CIRCLE_*` variables derive from them, never the other way round: a job may set a variable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    /// The project's id: the store keeps each project apart.
    pub project: String,
    /// The pipeline's id.
    pub pipeline: String,
    /// Id of the workspace: jobs of one workflow, and its reruns, share it.
    pub workspace: String,
    /// `CIRCLE_BUILD_NUM`: counts the builds of the project.
    pub build_number: u64,
    /// A build of a tag has none.
    #[serde(default)]
    pub branch: Option<String>,
    /// A build of a branch has none.
    #[serde(default)]
    pub tag: Option<String>,
    /// The commit.
    #[serde(default)]
    pub revision: Option<String>,
    /// URL of the repository.
    #[serde(default)]
    pub repository: Option<String>,
}

/// A job that another one comes after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// Name in the workflow.
    pub job: String,
    /// Which of the list, from 0, it comes after itself, directly or not.
    pub after: Vec<usize>,
}

/// The variable that holds the key.
pub const CONTINUATION_KEY: &str = "CIRCLE_CONTINUATION_KEY";

/// What a task may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The whole task, from claim to the end of its steps.
    #[serde(with = "crate::compiled::millis")]
    pub job: Duration,
    /// CPU and memory.
    pub size: Size,
    /// Between SIGTERM and SIGKILL.
    #[serde(with = "crate::compiled::millis")]
    pub grace: Duration,
    /// Most processes and threads that the task may have at a time.
    pub pids: u32,
}

impl Limits {
    /// Processes of one task: high enough for any build, low enough for a fork bomb.
    pub const PIDS: u32 = 8192;
    /// Between SIGTERM and SIGKILL.
    pub const GRACE: Duration = Duration::from_secs(10);

    /// This size for this time, and what every task gets.
    pub fn new(size: Size, job: Duration) -> Self {
        Self { job, size, grace: Self::GRACE, pids: Self::PIDS }
    }
}

/// How far the job's author is trusted: decides which caches the job may write and read. The maker of the claim sets it;
/// the job can neither see nor change it.
///
/// ```text
/// Fork(name) ─▶ Trusted     Local, Directory(name) ─▶ Trusted     a scope writes its own, and reads through to its parent's
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustScope {
    /// This machine's own user, by `navvy run`, while the directory is not known yet.
    Local,
    /// This machine's own user in one directory, by its name: another directory may be a stranger's, even if it claims the
    /// same project.
    Directory(String),
    /// The project's own branches: they write what every other scope reads.
    Trusted,
    /// Another person's copy of the project, by its name: a fork never reads what another fork wrote.
    Fork(String),
}

impl TrustScope {
    /// Whose caches it reads when it has none itself.
    pub fn parent(&self) -> Option<Self> {
        match self {
            Self::Local | Self::Directory(_) | Self::Fork(_) => Some(Self::Trusted),
            Self::Trusted => None,
        }
    }

    /// What is local is so in this directory.
    #[must_use]
    pub fn in_directory(self, name: &str) -> Self {
        match self {
            Self::Local => Self::Directory(name.to_owned()),
            other => other,
        }
    }

    /// As people write it: which directory is left out.
    pub fn word(&self) -> String {
        match self {
            Self::Directory(_) => Self::Local.to_string(),
            other => other.to_string(),
        }
    }

    /// Itself, its parent, and so on.
    pub fn chain(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self.clone()), Self::parent)
    }
}

impl fmt::Display for TrustScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Directory(name) => write!(f, "local:{name}"),
            Self::Trusted => f.write_str("trusted"),
            Self::Fork(name) => write!(f, "fork:{name}"),
        }
    }
}

/// A scope that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a trust scope; use local, trusted or fork:NAME")]
pub struct InvalidScope(pub String);

impl FromStr for TrustScope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        match text {
            "local" => Ok(Self::Local),
            "trusted" => Ok(Self::Trusted),
            _ => match text.split_once(':') {
                Some(("fork", name)) if !name.is_empty() => Ok(Self::Fork(name.to_owned())),
                Some(("local", name)) if !name.is_empty() => Ok(Self::Directory(name.to_owned())),
                _ => Err(InvalidScope(text.to_owned())),
            },
        }
    }
}

/// Where output and verdict go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case")]
pub enum ReportTo {
    /// The process that made the claim.
    Local,
    /// A processor: it schedules the tasks of a fleet.
    Processor {
        /// Its address.
        address: String,
    },
}

/// Why a claim was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClaim {
    /// The claim is of a newer form than this agent can read.
    #[error("claim has version {found}, this agent understands {VERSION} at most; update the agent")]
    Version {
        /// Version in the claim.
        found: u32,
    },
    /// The claim's node does not exist.
    #[error("claim asks for node {index} of {total}")]
    Node {
        /// Node that the claim asks for, from 0.
        index: u32,
        /// Number of nodes that it gives the job.
        total: u32,
    },
    /// A fact that decides whose store is opened is empty.
    #[error("the claim does not say which {what} it belongs to")]
    Fact {
        /// Name of the fact.
        what: &'static str,
    },
}

impl Claim {
    /// Checks what the types cannot.
    pub fn validate(&self) -> Result<(), InvalidClaim> {
        if self.version > VERSION {
            return Err(InvalidClaim::Version { found: self.version });
        }
        if self.node_index >= self.node_total {
            return Err(InvalidClaim::Node { index: self.node_index, total: self.node_total });
        }
        let RunFacts { project, pipeline, workspace, .. } = &self.run;
        let named = [("project", project), ("pipeline", pipeline), ("workspace", workspace)];
        match named.into_iter().find(|(_, id)| id.is_empty()) {
            Some((what, _)) => Err(InvalidClaim::Fact { what }),
            None => Ok(()),
        }
    }
}

/// What only the task may know.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    variables: Variables,
    ssh_keys: Vec<SshKey>,
}

/// A private key for `add_ssh_keys`.
#[derive(Clone, PartialEq, Eq)]
pub struct SshKey {
    /// It is for this host; without one, for all.
    pub host: Option<String>,
    /// The key's file as it is.
    pub text: String,
    /// MD5 fingerprint of the public key: `aa:bb:…`, sixteen bytes.
    pub md5: String,
    /// SHA-256 fingerprint of the public key: `SHA256:…`, base64 without padding.
    pub sha256: String,
}

impl SshKey {
    /// Does a config mean this key? Fingerprints of both kinds are understood, with or without their names.
    pub fn is_meant_by(&self, fingerprint: &str) -> bool {
        is_fingerprint(fingerprint, &self.md5, &self.sha256)
    }
}

/// Does a config's text mean the key with these fingerprints, which are written as those of [`SshKey`]?
pub fn is_fingerprint(text: &str, md5: &str, sha256: &str) -> bool {
    let text = text.trim();
    let plain = text.strip_prefix("MD5:").unwrap_or(text);
    md5.eq_ignore_ascii_case(plain) || sha256.trim_end_matches('=') == text.trim_end_matches('=')
}

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshKey").field("host", &self.host).field("md5", &self.md5).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Variables that a job is given beside its config: from contexts, flags and files. Later ones win. Most are secret;
    /// the caller that masks output knows which.
    pub fn new(variables: Variables) -> Self {
        Self { variables, ssh_keys: Vec::new() }
    }

    /// The same with these keys in place of those it had.
    pub fn with_ssh_keys(self, ssh_keys: Vec<SshKey>) -> Self {
        Self { ssh_keys, ..self }
    }

    /// All variables, in the order in which they were given; of two with one name the later wins.
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// Keys that `checkout` and `add_ssh_keys` may use.
    pub fn ssh_keys(&self) -> &[SshKey] {
        &self.ssh_keys
    }

    /// Value of the last variable of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.variables.iter().map(|(name, _)| name).chain(self.ssh_keys.iter().map(|key| &key.md5));
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        let directory = TrustScope::Local.in_directory("0a1b");
        assert_eq!(directory.word(), "local");
        for scope in [TrustScope::Local, directory, TrustScope::Trusted, TrustScope::Fork("alice:shop".into())] {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        for text in ["", "fork", "fork:", "local:", "Local", "alice", "trusted:a"] {
            assert_eq!(text.parse::<TrustScope>(), Err(InvalidScope(text.into())));
        }
    }

    #[test]
    fn every_scope_reads_the_trusted_ones_caches_and_no_other() {
        let chain = |scope: TrustScope| scope.chain().map(|scope| scope.to_string()).collect::<Vec<_>>();
        assert_eq!(chain(TrustScope::Fork("a".into())), ["fork:a", "trusted"]);
        assert_eq!(chain(TrustScope::Local.in_directory("a")), ["local:a", "trusted"]);
        assert_eq!(TrustScope::Trusted.in_directory("a"), TrustScope::Trusted);
        assert_eq!(chain(TrustScope::Trusted), ["trusted"]);
    }

    #[test]
    fn secrets_show_names_only() {
        let secrets = Secrets::new(vec![("TOKEN".into(), "hunter2".into())]);
        assert_eq!(format!("{secrets:?}"), r#"["TOKEN"]"#);
        assert_eq!(secrets.get("TOKEN"), Some("hunter2"));
        let key = SshKey { host: None, text: "hunter3".into(), md5: "aa:0b".into(), sha256: "SHA256:x".into() };
        let secrets = secrets.with_ssh_keys(vec![key]);
        assert_eq!(format!("{secrets:?}"), r#"["TOKEN", "aa:0b"]"#);
        assert!(!format!("{:?}", secrets.ssh_keys()).contains("hunter3"));
    }

    #[test]
    fn a_key_is_meant_by_its_fingerprints() {
        let key = SshKey { host: None, text: String::new(), md5: "aa:0b".into(), sha256: "SHA256:AbC".into() };
        for meant in ["aa:0b", "AA:0B", "MD5:aa:0b", " aa:0b", "SHA256:AbC", "SHA256:AbC="] {
            assert!(key.is_meant_by(meant), "{meant}");
        }
        for other in ["aa:0c", "SHA256:abc", "AbC", ""] {
            assert!(!key.is_meant_by(other), "{other}");
        }
    }
}
