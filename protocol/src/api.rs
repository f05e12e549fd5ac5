//! What people and their programs say to a processor: JSON over HTTP. Names and words are those of the published v2 API.
//!
//! | method and path | body → answer |
//! |---|---|
//! | `POST /api/v2/project/{slug}/pipeline` | [`Submit`] → [`Submitted`] |
//! | `GET /api/v2/pipeline?project=SLUG` | [`Page`] of [`Pipeline`] |
//! | `GET /api/v2/pipeline/{id}` | [`PipelineDetail`] |
//! | `POST /api/v2/pipeline/{id}/cancel` | [`CancelPipeline`] → [`Message`] |
//! | `POST /api/v2/pipeline/{id}/rerun` | [`Rerun`] → [`Submitted`] |
//! | `POST /api/v2/pipeline/{id}/approve/{job}` | [`Approve`] → [`Message`] |
//! | `GET /api/v2/pipeline/{id}/events?after=N&follow=BOOL` | one [`NumberedEvent`] a line |
//! | `GET /api/v2/task/{id}/log/{log}?offset=N&follow=BOOL` | the log's bytes |
//! | `GET /api/v2/task/{id}/logs` | [`Page`] of [`Log`] |
//! | `GET /api/v2/pipeline/{id}/artifacts`, `GET /api/v2/project/{slug}/{number}/artifacts` | [`Page`] of [`Artifact`] |
//! | `GET /api/v2/task/{id}/artifact/{artifact}?offset=N` | the artifact's bytes |
//! | `GET /api/v2/pipeline/{id}/tests`, `GET /api/v2/project/{slug}/{number}/tests` | [`Page`] of [`Test`] |
//! | `PUT /api/v2/context/{name}/environment-variable/{variable}` | [`Value`] → [`Message`] |
//! | `GET /api/v2/context` | [`Page`] of [`Named`] |
//! | `GET /api/v2/context/{name}/environment-variable` | [`Page`] of [`Named`] |
//! | `DELETE /api/v2/context/{name}/environment-variable/{variable}` | [`Message`] |
//! | `GET /api/v2/project/{slug}/envvar` | [`Page`] of [`Named`] |
//! | `PUT /api/v2/project/{slug}/envvar/{variable}` | [`Value`] → [`Message`] |
//! | `DELETE /api/v2/project/{slug}/envvar/{variable}` | [`Message`] |
//! | `PUT /api/v2/project/{slug}/deploy-key` | [`DeployKey`] → [`Message`] |
//! | `POST /api/v2/tree` | the archive's bytes → [`Tree`] |
//!
//! Slugs stand percent-encoded in a path: `gh%2Facme%2Fshop`. Every request carries `authorization: Bearer TOKEN`. An error is
//! [`Problem`] with the status that HTTP has for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// The port that a processor listens on for people.
pub const PORT: u16 = 8080;

/// What went wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Problem {
    /// What went wrong, in a sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// A config's diagnostics, as a terminal shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<String>,
}

/// That something was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Message {
    /// In a sentence.
    pub message: String,
}

/// Some of many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Page<T> {
    /// In the order that the call says.
    pub items: Vec<T>,
    /// For the query's `page-token`: there are more.
    #[serde(default)]
    pub next_page_token: Option<String>,
}

/// A config to be run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// The config's text.
    pub config: String,
    /// Its file's name, for diagnostics.
    #[serde(default)]
    pub config_name: String,
    /// Pipeline parameters as text; converted by their declared type.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Only this workflow.
    #[serde(default)]
    pub workflow: Option<String>,
    /// What is built.
    #[serde(default)]
    pub vcs: Vcs,
    /// Contexts that every job is given beside its own.
    #[serde(default)]
    pub contexts: Vec<String>,
    /// The working tree, sent before by `POST /api/v2/tree`.
    #[serde(default)]
    pub tree: Option<String>,
    /// Sources of the orbs that the config names, by their reference.
    #[serde(default)]
    pub orbs: BTreeMap<String, String>,
    /// Leave out what comes from orbs that are not there.
    #[serde(default)]
    pub allow_missing_orbs: bool,
    /// The W3C trace context of whoever submits: `traceparent`.
    #[serde(default)]
    pub traceparent: Option<String>,
}

/// What of a repository is built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Vcs {
    /// URL of the repository, without credentials.
    #[serde(default)]
    pub origin_repository_url: Option<String>,
    /// None for a tag, and on a detached head.
    #[serde(default)]
    pub branch: Option<String>,
    /// A build of a branch has none.
    #[serde(default)]
    pub tag: Option<String>,
    /// The commit.
    #[serde(default)]
    pub revision: Option<String>,
    /// The branch whose builds count as the project's own.
    #[serde(default)]
    pub default_branch: Option<String>,
    /// First line of the commit's message.
    #[serde(default)]
    pub subject: Option<String>,
    /// The rest of the commit's message.
    #[serde(default)]
    pub body: Option<String>,
    /// As the commit has it.
    #[serde(default)]
    pub author_name: Option<String>,
    /// As the commit has it.
    #[serde(default)]
    pub author_email: Option<String>,
}

/// A pipeline that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Submitted {
    /// A UUID.
    pub id: String,
    /// Counted in its project from 1.
    pub number: u64,
    /// `created`.
    pub state: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// Warnings about the config, as a terminal shows them.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A pipeline in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Pipeline {
    /// A UUID.
    pub id: String,
    /// Counted in its project from 1.
    pub number: u64,
    /// `gh/acme/shop`.
    pub project_slug: String,
    /// `running`, `on_hold`, `success`, `failed`, `canceled`, `incomplete`, `error`.
    pub state: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// What is built.
    pub vcs: Vcs,
}

/// A pipeline with its jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct PipelineDetail {
    /// As in a list.
    #[serde(flatten)]
    pub pipeline: Pipeline,
    /// In the order of the file.
    pub workflows: Vec<Workflow>,
}

/// A workflow of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Workflow {
    /// A UUID.
    pub id: String,
    /// As the config has it.
    pub name: String,
    /// In the order of the file.
    pub jobs: Vec<Job>,
}

/// A job of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Job {
    /// A UUID.
    pub id: String,
    /// As the workflow calls it.
    pub name: String,
    /// Counted in the project; none before it starts.
    pub job_number: Option<u64>,
    /// `blocked`, `queued`, `running`, `on_hold`, `success`, `failed`, `canceled`, `not_run`, `not_running`,
    /// `infrastructure_fail`, `timedout`.
    pub status: String,
    /// In words: why it waits, or what failed.
    #[serde(default)]
    pub why: Option<String>,
    /// Its tasks, nodes from 0.
    pub tasks: Vec<Task>,
}

/// A task of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Task {
    /// By which its containers and directories are named, too.
    pub id: String,
    /// From 0.
    pub node: u32,
    /// `queued`, `claimed`, `ended`.
    pub state: String,
    /// The agent that has or had it.
    #[serde(default)]
    pub agent: Option<String>,
    /// Is its output whole? `complete`, or `incomplete: …` with the missing ranges; none before its end.
    #[serde(default)]
    pub output: Option<String>,
}

/// A log of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Log {
    /// `NNN-A` for attempt A of step NNN, `service-K` for service container K.
    pub log: String,
    /// All bytes before this one are durable.
    pub durable: u64,
    /// Its length, once it has ended.
    pub bytes: Option<u64>,
    /// Hexadecimal, once it has ended.
    pub sha256: Option<String>,
}

/// A file that a job left for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Artifact {
    /// Its name among the artifacts of its job, with U+FFFD where it is not UTF-8. A job chose it: it is no path to be followed.
    pub path: String,
    /// The same, byte by byte, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<Vec<u8>>,
    /// Which of the job's parallel tasks left it, from 0.
    pub node_index: u32,
    /// Where its bytes are; the same token is needed.
    pub url: String,
    /// The workflow of its job.
    #[serde(default)]
    pub workflow: String,
    /// Its job.
    #[serde(default)]
    pub job: String,
    /// The job's number.
    #[serde(default)]
    pub job_number: u64,
    /// The task that left it.
    #[serde(default)]
    pub task: String,
    /// The step that left it.
    #[serde(default)]
    pub step: u32,
    /// For `GET /api/v2/task/{task}/artifact/{artifact}`.
    #[serde(default)]
    pub artifact: String,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    /// Hexadecimal.
    #[serde(default)]
    pub sha256: String,
    /// Media type, by its name.
    #[serde(default)]
    pub content_type: String,
}

/// A test that a job ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Test {
    /// As the report has it.
    pub name: String,
    /// As the report has it; empty if it has none.
    #[serde(default)]
    pub classname: String,
    /// As the report has it; empty if it has none.
    #[serde(default)]
    pub file: String,
    /// `success`, `flaky`, `skipped`, `failure`, `error`.
    pub result: String,
    /// What it said when it failed, or why it was skipped.
    #[serde(default)]
    pub message: String,
    /// Seconds; none where the report does not say.
    #[serde(default)]
    pub run_time: Option<f64>,
    /// What kind of report it comes from: `junit`.
    #[serde(default)]
    pub source: String,
    /// Where it failed: `spec/cart_spec.rb:12`, or the file alone.
    #[serde(default)]
    pub place: Option<String>,
    /// The workflow of its job.
    #[serde(default)]
    pub workflow: String,
    /// Its job.
    #[serde(default)]
    pub job: String,
    /// The job's number.
    #[serde(default)]
    pub job_number: u64,
    /// Which of the job's parallel tasks ran it, from 0.
    #[serde(default)]
    pub node_index: u32,
}

/// How a pipeline is to be canceled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CancelPipeline {
    /// Processes get no time for their clean-up.
    #[serde(default)]
    pub at_once: bool,
}

/// What is to run again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Rerun {
    /// Only the jobs that did not pass, and what comes after them.
    #[serde(default)]
    pub from_failed: bool,
}

/// The answer to an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// `false` holds what comes after it.
    pub approved: bool,
}

/// A secret's value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// As jobs see it.
    pub value: String,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Value").finish_non_exhaustive()
    }
}

/// A private key that `checkout` and `add_ssh_keys` use. One of the same fingerprint is replaced.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeployKey {
    /// The host that it is for; none: all.
    #[serde(default)]
    pub host: Option<String>,
    /// The private key's file as it is.
    pub text: String,
    /// Fingerprint of the public key: `aa:bb:…`.
    pub md5: String,
    /// The same: `SHA256:…`.
    pub sha256: String,
}

impl std::fmt::Debug for DeployKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeployKey").field("host", &self.host).field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

/// A name in a list of secrets; values are never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Named {
    /// The variable's or the context's name.
    pub name: String,
    /// RFC 3339, UTC.
    pub created_at: String,
}

/// A working tree that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Tree {
    /// For [`Submit::tree`].
    pub tree: String,
}

/// An event of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct NumberedEvent {
    /// Counted in the pipeline from 1: the cursor for `after`.
    pub number: u64,
    /// As docs/events.md describes it.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub event: serde_json::Value,
}
