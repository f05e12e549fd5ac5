//! What Nomad answers, as far as it is looked at. What is looked at has to be there.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Go writes `null` for a map or a list that nothing was ever put into. A whole answer is never `null`.
fn or_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Nothing of it is placed.
    Pending,
    /// Something is.
    Running,
    /// Nothing of it will be running any more.
    Dead,
}

/// A job of a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Job {
    /// Of a dispatched one: `PARENT/dispatch-PREFIX-TIME-RANDOM`.
    #[serde(rename = "ID")]
    pub id: String,
    /// The parameterized job that it was dispatched from; empty: none.
    #[serde(rename = "ParentID")]
    pub parent: String,
    /// Others are dispatched from it.
    pub parameterized_job: bool,
    /// Somebody stopped it.
    pub stop: bool,
    /// How far it is.
    pub status: JobStatus,
    /// What it was dispatched with, and its parent's.
    #[serde(default, deserialize_with = "or_empty")]
    pub meta: BTreeMap<String, String>,
    /// What became of its allocations.
    pub job_summary: Summary,
    /// The index at which its definition last changed.
    pub job_modify_index: u64,
}

/// Allocations of a job.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Summary {
    /// By group.
    #[serde(deserialize_with = "or_empty")]
    pub summary: BTreeMap<String, Counts>,
    /// When it changed.
    pub modify_index: u64,
}

/// How many stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Counts {
    /// Not placed.
    pub queued: i64,
    /// Placed.
    pub starting: i64,
    /// Running.
    pub running: i64,
    /// Ended as they should.
    pub complete: i64,
    /// Ended otherwise.
    pub failed: i64,
    /// Their clients are gone.
    pub lost: i64,
    /// Their clients are not heard of.
    #[serde(default)]
    pub unknown: i64,
}

impl Job {
    /// Of all its groups together.
    pub fn counts(&self) -> Counts {
        self.job_summary.summary.values().fold(Counts::default(), |sum, one| Counts {
            queued: sum.queued.saturating_add(one.queued),
            starting: sum.starting.saturating_add(one.starting),
            running: sum.running.saturating_add(one.running),
            complete: sum.complete.saturating_add(one.complete),
            failed: sum.failed.saturating_add(one.failed),
            lost: sum.lost.saturating_add(one.lost),
            unknown: sum.unknown.saturating_add(one.unknown),
        })
    }
}

/// Where an allocation stands, by its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientStatus {
    /// Not yet started.
    Pending,
    /// Running.
    Running,
    /// It ended as it should.
    Complete,
    /// It did not.
    Failed,
    /// The client is gone.
    Lost,
    /// The client is not heard of.
    Unknown,
}

impl ClientStatus {
    /// Did its client say that nothing of it is left?
    pub fn is_over(self) -> bool {
        matches!(self, Self::Complete | Self::Failed)
    }

    /// Is nothing heard of it?
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Lost | Self::Unknown)
    }
}

/// A placed job.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Allocation {
    /// Where.
    #[serde(rename = "NodeID")]
    pub node: String,
    /// The client's name.
    #[serde(default)]
    pub node_name: String,
    /// The job.
    #[serde(rename = "JobID")]
    pub job: String,
    /// `run`, `stop`, `evict`.
    pub desired_status: String,
    /// Why.
    #[serde(default)]
    pub desired_description: String,
    /// How far it is.
    pub client_status: ClientStatus,
    /// The client's words.
    #[serde(default)]
    pub client_description: String,
    /// What is asked of it.
    #[serde(default)]
    pub desired_transition: Transition,
    /// By name.
    #[serde(default, deserialize_with = "or_empty")]
    pub task_states: BTreeMap<String, TaskState>,
    /// What it uses; only where that was asked for.
    #[serde(default)]
    pub allocated_resources: Option<Allocated>,
    /// Later ones were made later.
    pub create_index: u64,
}

/// What is asked of an allocation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Transition {
    /// To leave its client, which is drained.
    #[serde(default)]
    pub migrate: Option<bool>,
}

/// A Nomad task.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskState {
    /// It did not end as it should.
    #[serde(default)]
    pub failed: bool,
    /// What happened, in order.
    #[serde(default, deserialize_with = "or_empty")]
    pub events: Vec<TaskEvent>,
}

/// Something that happened to it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskEvent {
    /// `Driver Failure`, `Terminated`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// In words.
    #[serde(default)]
    pub display_message: String,
    /// It is the end.
    #[serde(default)]
    pub fails_task: bool,
}

/// What an allocation uses.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Allocated {
    /// By Nomad task.
    #[serde(default, deserialize_with = "or_empty")]
    pub tasks: BTreeMap<String, AllocatedTask>,
    /// By all of them together.
    #[serde(default)]
    pub shared: Shared,
}

/// What a Nomad task uses.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AllocatedTask {
    /// Of processors.
    pub cpu: CpuShares,
    /// Of memory.
    pub memory: Memory,
}

/// What an allocation uses as a whole.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shared {
    /// Of disk.
    #[serde(default, rename = "DiskMB")]
    pub disk_mb: i64,
}

/// MHz; on our clients thousandths of a CPU.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CpuShares {
    /// So many.
    pub cpu_shares: i64,
}

/// Memory.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Memory {
    /// Mebibytes.
    #[serde(rename = "MemoryMB")]
    pub memory_mb: i64,
}

/// Disk.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Disk {
    /// Mebibytes.
    #[serde(rename = "DiskMB")]
    pub disk_mb: i64,
}

/// What a client has, or keeps to itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Resources {
    /// Of processors.
    pub cpu: CpuShares,
    /// Of memory.
    pub memory: Memory,
    /// Of disk.
    pub disk: Disk,
}

/// A client.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub datacenter: String,
    /// `linux-64bit`
    #[serde(default)]
    pub node_class: String,
    /// `initializing`, `ready`, `down`, `disconnected`.
    pub status: String,
    /// It is being drained.
    pub drain: bool,
    /// `eligible`, `ineligible`.
    pub scheduling_eligibility: String,
    /// By name.
    #[serde(deserialize_with = "or_empty")]
    pub drivers: BTreeMap<String, Driver>,
    /// What it has.
    pub node_resources: Resources,
    /// What is kept of that.
    pub reserved_resources: Option<Resources>,
}

/// A task driver of a client.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Driver {
    /// It is there.
    pub detected: bool,
    /// It works.
    pub healthy: bool,
    /// Its words.
    #[serde(default)]
    pub health_description: String,
}

/// A try at placing a job.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Evaluation {
    /// In words.
    #[serde(default)]
    pub status_description: String,
    /// Later ones came later.
    pub modify_index: u64,
    /// What could not be placed, by group.
    #[serde(default, rename = "FailedTGAllocs", deserialize_with = "or_empty")]
    pub failed: BTreeMap<String, Misplaced>,
}

/// Why something could not be placed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Misplaced {
    /// Clients that were looked at.
    pub nodes_evaluated: i64,
    /// Clients that were ruled out, by the rule.
    #[serde(default, deserialize_with = "or_empty")]
    pub constraint_filtered: BTreeMap<String, i64>,
    /// Clients that had not enough, by what.
    #[serde(default, deserialize_with = "or_empty")]
    pub dimension_exhausted: BTreeMap<String, i64>,
    /// Quotas that are used up.
    #[serde(default, deserialize_with = "or_empty")]
    pub quota_exhausted: Vec<String>,
}

/// What a dispatch became.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Dispatched {
    /// The job's id.
    #[serde(rename = "DispatchedJobID")]
    pub job: String,
    /// From this index on it is in lists.
    pub job_create_index: u64,
}

/// That something was taken.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Taken {
    /// The index of Nomad's state with it.
    pub index: u64,
}
