//! What the stage leaves behind: a tree without templates, commands, executors, conditions or matrices.

use std::collections::BTreeMap;
use std::sync::Arc;

use navvy_job::pipeline::Schedule;

use super::check::Unused;
use super::reach::Standing;
use super::record::Condition;
use super::trail::Trail;
use crate::diagnostic::Span;
use crate::syntax::{Entry, Node};

pub(crate) struct PlainPipeline {
    pub setup: bool,
    pub workflows: Vec<PlainWorkflow>,
    /// Checked and then forgotten.
    pub unused: Unused,
}

pub(crate) struct PlainWorkflow {
    pub name: Arc<str>,
    pub span: Span,
    /// Why it does not run at all, if so.
    pub left: Option<String>,
    /// How much a mistake in it matters: little where its own condition leaves it out.
    pub standing: Standing,
    /// There are mistakes in it that are warnings alone: its jobs are not whole.
    pub flawed: bool,
    pub schedules: Vec<Schedule>,
    pub max_auto_reruns: Option<Node>,
    pub triggers: Option<Node>,
    /// Only when a record is kept.
    pub condition: Option<Condition>,
    pub jobs: Vec<PlainWorkflowJob>,
}

pub(crate) struct PlainWorkflowJob {
    pub name: Arc<str>,
    /// Name by which others may require all jobs of one matrix; `None`: they use the definition's.
    pub alias: Option<Arc<str>>,
    pub definition: Arc<str>,
    pub kind: PlainKind,
    /// Empty without a matrix.
    pub matrix: BTreeMap<String, String>,
    pub requires: Option<Node>,
    pub filters: PlainFilters,
    pub context: Option<Node>,
    pub serial_group: Option<Node>,
    /// The use of a job group that it is made for.
    pub group: Option<InGroup>,
    pub span: Span,
    pub trail: Trail,
}

/// What a job is to the use of a job group.
#[derive(Clone)]
pub(crate) struct InGroup {
    /// Id of the group's use: no two uses in a workflow have the same.
    pub id: usize,
    /// The group's name in the workflow.
    pub name: Arc<str>,
    /// Was it given a name there?
    pub is_named: bool,
    pub role: GroupRole,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupRole {
    /// Ends at once, and then the members begin.
    Entry,
    Member,
    /// Ends at once when all members at the end have passed; who requires the group requires this.
    Exit,
    /// Comes after all, however they ended.
    Unlock,
}

pub(crate) enum PlainKind {
    Build(PlainJob),
    Approval,
    NoOp,
    /// A job of an orb that is not here.
    Missing {
        orb: Arc<str>,
        element: String,
    },
    /// A job of a type that is known and not carried out.
    OfType {
        name: Arc<str>,
        entries: Vec<Entry>,
    },
    /// Wrong, and reported as such.
    Broken,
}

#[derive(Clone)]
pub(crate) enum PlainFilters {
    None,
    /// `branches` and `tags`.
    Map(Node),
    /// An expression, as written, and what came out.
    Decided {
        text: String,
        holds: bool,
        /// What it looked at, when a record is kept.
        values: Vec<(String, String)>,
    },
    /// Reported as such.
    Wrong,
}

pub(crate) struct PlainJob {
    pub span: Span,
    /// All but `steps`, `executor`, `parameters`.
    pub entries: Vec<Entry>,
    pub executor: PlainExecutor,
    pub steps: Vec<PlainStep>,
    pub trail: Trail,
}

pub(crate) enum PlainExecutor {
    /// The job names none.
    None,
    Entries {
        entries: Vec<Entry>,
        /// Leads into the executor.
        trail: Trail,
    },
    /// An executor of an orb that is not here.
    Missing { name: Arc<str> },
    /// Wrong, and reported as such.
    Broken,
}

#[derive(Debug, Clone)]
pub(crate) struct PlainStep {
    pub action: Action,
    /// Span of the step's key.
    pub span: Span,
    /// What stands below the key; null for the short form.
    pub body: Node,
    pub trail: Trail,
}

#[derive(Debug, Clone)]
pub(crate) enum Action {
    BuiltIn(BuiltIn),
    /// A command of an orb that is not here.
    Missing {
        orb: String,
        command: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuiltIn {
    Run,
    Deploy,
    Checkout,
    SetupRemoteDocker,
    SaveCache,
    RestoreCache,
    PersistToWorkspace,
    AttachWorkspace,
    StoreArtifacts,
    StoreTestResults,
    AddSshKeys,
    InstallSigningBundle,
}

/// Built-in steps by their key; each may also be written with hyphens.
pub(crate) const BUILT_INS: [(&str, BuiltIn); 12] = [
    ("run", BuiltIn::Run),
    ("deploy", BuiltIn::Deploy),
    ("checkout", BuiltIn::Checkout),
    ("setup_remote_docker", BuiltIn::SetupRemoteDocker),
    ("save_cache", BuiltIn::SaveCache),
    ("restore_cache", BuiltIn::RestoreCache),
    ("persist_to_workspace", BuiltIn::PersistToWorkspace),
    ("attach_workspace", BuiltIn::AttachWorkspace),
    ("store_artifacts", BuiltIn::StoreArtifacts),
    ("store_test_results", BuiltIn::StoreTestResults),
    ("add_ssh_keys", BuiltIn::AddSshKeys),
    ("install_signing_bundle", BuiltIn::InstallSigningBundle),
];

impl BuiltIn {
    pub fn named(name: &str) -> Option<Self> {
        let same = |a: u8, b: u8| a == b || (a == b'_' && b == b'-');
        let is = |key: &str| key.len() == name.len() && key.bytes().zip(name.bytes()).all(|(a, b)| same(a, b));
        BUILT_INS.iter().find(|(key, _)| is(key)).map(|(_, built_in)| *built_in)
    }

    pub fn key(self) -> &'static str {
        BUILT_INS.iter().find(|(_, built_in)| *built_in == self).map_or("", |(key, _)| key)
    }
}
