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

/// The version this code writes. A reader refuses a higher one.
pub const VERSION: u32 = 1;

/// One task, ready to be carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    pub version: u32,
    pub task: TaskId,
    /// Name in the workflow.
    pub job_name: String,
    pub job: Job,
    /// From 0, below `node_total`.
    pub node_index: u32,
    pub node_total: u32,
    /// From 1.
    pub attempt: u32,
    pub limits: Limits,
    pub trust: TrustScope,
    /// `CI`, `CIRCLE_*` and their like.
    pub builtin_variables: Variables,
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
    pub size: Size,
    /// Between SIGTERM and SIGKILL.
    #[serde(with = "crate::compiled::millis")]
    pub grace: Duration,
    pub pids: u32,
}

/// How far the job's author is trusted: decides what caches it may write, and whose it may read. Whoever made the task
/// sets it; the job neither sees nor sets it.
///
/// ```text
/// Fork(name) ─▶ Trusted        Local ─▶ Trusted        a scope writes its own, and reads through to its parent's
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustScope {
    /// This machine's own user, by `navvy run`.
    Local,
    Trusted,
    /// Somebody else's copy of the project, by its name: one fork reads nothing of another's.
    Fork(String),
}

impl TrustScope {
    /// Whose caches it reads when it has none itself.
    pub fn parent(&self) -> Option<Self> {
        match self {
            Self::Local | Self::Fork(_) => Some(Self::Trusted),
            Self::Trusted => None,
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
            Self::Trusted => f.write_str("trusted"),
            Self::Fork(name) => write!(f, "fork:{name}"),
        }
    }
}

/// A scope that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no trust scope; use local, trusted or fork:NAME")]
pub struct InvalidScope(pub String);

impl FromStr for TrustScope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        match text {
            "local" => Ok(Self::Local),
            "trusted" => Ok(Self::Trusted),
            _ => match text.strip_prefix("fork:") {
                Some(name) if !name.is_empty() => Ok(Self::Fork(name.to_owned())),
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
    Processor {
        address: String,
    },
}

/// Why a claim was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClaim {
    #[error("claim has version {found}, this agent understands {VERSION} at most; update the agent")]
    Version { found: u32 },
    #[error("claim asks for node {index} of {total}")]
    Node { index: u32, total: u32 },
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
        Ok(())
    }
}

/// Variables whose values are secret: from contexts, `-e` and `--env-file`. Later ones win.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(Variables);

impl Secrets {
    pub fn new(variables: Variables) -> Self {
        Self(variables)
    }

    pub fn variables(&self) -> &Variables {
        &self.0
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for scope in [TrustScope::Local, TrustScope::Trusted, TrustScope::Fork("alice/shop".into())] {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        for text in ["", "fork", "fork:", "Local", "alice"] {
            assert_eq!(text.parse::<TrustScope>(), Err(InvalidScope(text.into())));
        }
    }

    #[test]
    fn every_scope_reads_the_trusted_ones_caches_and_no_other() {
        let chain = |scope: TrustScope| scope.chain().map(|scope| scope.to_string()).collect::<Vec<_>>();
        assert_eq!(chain(TrustScope::Fork("a".into())), ["fork:a", "trusted"]);
        assert_eq!(chain(TrustScope::Local), ["local", "trusted"]);
        assert_eq!(chain(TrustScope::Trusted), ["trusted"]);
    }

    #[test]
    fn secrets_show_names_only() {
        let secrets = Secrets::new(vec![("TOKEN".into(), "hunter2".into())]);
        assert_eq!(format!("{secrets:?}"), r#"["TOKEN"]"#);
        assert_eq!(secrets.get("TOKEN"), Some("hunter2"));
    }
}
