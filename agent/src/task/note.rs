//! What is needed to continue a held task. It crosses from one agent to the next, which may be of another version.

use std::time::Duration;

use navvy_environment::request::Inheritance;
use navvy_job::claim::{self, Claim, InvalidClaim, RunFacts, Secrets, SshKey};
use navvy_job::compiled::{Run, Step, StepKind, Variables};
use navvy_job::event::TaskRef;
use navvy_protocol::supervisor::Probe;
use serde::{Deserialize, Serialize};

use super::prepare::frame;
use crate::step::Frame;
use crate::step::handing::{Handed, Handing};

/// The version of [`Note`].
pub(super) const VERSION: u32 = 1;

/// Where the config came from, so that it can be read again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceNote {
    pub file: std::path::PathBuf,
    /// Where the working tree is.
    pub project: std::path::PathBuf,
    pub parameters: Vec<String>,
    pub branch: Option<String>,
    pub tag: Option<String>,
    pub allow_missing_orbs: bool,
    pub checkout_git: bool,
    pub images: Vec<String>,
    pub machine_as: Option<String>,
    /// As `--store` named it.
    #[serde(default)]
    pub store: Option<String>,
    #[serde(default)]
    pub secrets_in_artifacts: crate::artifacts::guard::SecretPolicy,
    #[serde(default)]
    pub handing: Handing,
}

/// Everything that is needed to go on. Holds secrets: it lives in the memory of the supervisor and of an agent, and
/// nowhere else.
#[derive(Serialize, Deserialize)]
pub struct Note {
    pub(super) version: u32,
    pub claim: Claim,
    pub(super) secrets: Variables,
    #[serde(default)]
    pub(super) ssh_keys: Vec<KeyNote>,
    /// Everything that the run masked, other jobs' secrets included.
    pub masked: Variables,
    pub reference: TaskRef,
    /// The step to go on from, from 1.
    pub step: usize,
    /// It has not run yet: the task was held before it.
    pub before: bool,
    /// No attempt had a higher number.
    pub attempts: u32,
    /// Execs that go on while it is held: background steps, daemons.
    pub lingering: Vec<String>,
    pub working_directory: String,
    pub account: Probe,
    pub inheritance: Inheritance,
    pub no_tty: bool,
    #[serde(default)]
    pub handed: Vec<Handed>,
    /// Seconds for which it is held each time.
    pub time_s: u64,
    pub source: SourceNote,
}

/// An SSH key as a note holds it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct KeyNote {
    host: Option<String>,
    text: String,
    md5: String,
    sha256: String,
}

impl KeyNote {
    pub fn of(SshKey { host, text, md5, sha256 }: SshKey) -> Self {
        Self { host, text, md5, sha256 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    #[error("the environment's note is not understood")]
    Parse { source: serde_json::Error },
    #[error("the environment was held by a newer navvy (note version {found}); use that one")]
    Version { found: u32 },
    #[error("the held task cannot be continued")]
    Claim { source: InvalidClaim },
}

impl Note {
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        let parse = |source| NoteError::Parse { source };
        let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(parse)?;
        state_facts(&mut value["claim"]).map_err(parse)?;
        let note: Self = serde_json::from_value(value).map_err(parse)?;
        note.check()?;
        Ok(note)
    }

    /// # Errors
    /// It was written by a newer version, or its claim is none.
    pub(super) fn check(&self) -> Result<(), NoteError> {
        if self.version > VERSION {
            return Err(NoteError::Version { found: self.version });
        }
        self.claim.validate().map_err(|source| NoteError::Claim { source })
    }

    /// The same, with another count of attempts, for the supervisor.
    pub fn with_attempts(&self, attempts: u32) -> serde_json::Result<Vec<u8>> {
        let mut value = serde_json::to_value(self)?;
        value["attempts"] = attempts.into();
        serde_json::to_vec(&value)
    }

    pub fn secrets(&self) -> Secrets {
        let keys =
            self.ssh_keys.iter().cloned().map(|KeyNote { host, text, md5, sha256 }| SshKey { host, text, md5, sha256 });
        Secrets::new(self.secrets.clone()).with_ssh_keys(keys.collect())
    }

    pub fn time(&self) -> Duration {
        Duration::from_secs(self.time_s)
    }

    /// What all its steps share.
    pub fn frame(&self) -> Frame {
        let (account, directory) = (self.account.clone(), self.working_directory.clone());
        frame(&self.claim, &self.secrets(), self.inheritance.clone(), account, directory, self.no_tty)
    }

    /// The step at which it is held.
    pub fn held_at(&self) -> Option<&Step> {
        self.claim.job.steps.get(self.step - 1)
    }

    /// What a `run` step there would be given; nothing for any other kind.
    pub fn run(&self) -> Option<&Run> {
        match &self.held_at()?.kind {
            StepKind::Run(run) => Some(run),
            _ => None,
        }
    }
}

/// An agent whose claims had version 1 knew the facts of the run and wrote them into its built-in variables alone, where no
/// variable of the user's ever stood. Such a claim is brought to the version of today; any other stays as it is, and one that
/// should have facts and has none is then refused.
fn state_facts(claim: &mut serde_json::Value) -> serde_json::Result<()> {
    if claim["version"] != 1 {
        return Ok(());
    }
    let variables: Variables = serde_json::from_value(claim["builtin_variables"].clone())?;
    let get = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let facts = RunFacts {
        // One that is not there is empty, which no claim may have: it is refused by name.
        project: get("CIRCLE_PROJECT_ID").unwrap_or_default(),
        pipeline: get("CIRCLE_PIPELINE_ID").unwrap_or_default(),
        workspace: get("CIRCLE_WORKFLOW_WORKSPACE_ID").unwrap_or_default(),
        build_number: get("CIRCLE_BUILD_NUM").and_then(|number| number.parse().ok()).unwrap_or_default(),
        branch: get("CIRCLE_BRANCH"),
        tag: get("CIRCLE_TAG"),
        revision: get("CIRCLE_SHA1"),
        repository: get("CIRCLE_REPOSITORY_URL"),
    };
    claim["run"] = serde_json::to_value(facts)?;
    claim["version"] = claim::VERSION.into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use navvy_job::chain::chain;

    const VARIABLES: [[&str; 2]; 4] = [
        ["CIRCLE_BUILD_NUM", "12"],
        ["CIRCLE_PIPELINE_ID", "pipeline"],
        ["CIRCLE_PROJECT_ID", "project"],
        ["CIRCLE_WORKFLOW_WORKSPACE_ID", "workspace"],
    ];

    /// As an agent wrote it whose claims had version 1.
    fn old_note() -> Value {
        let task = "0123456789abcdef";
        let job = json!({
            "executor": {"kind": "docker", "containers": []}, "environment": [["CIRCLE_PROJECT_ID", "another"]],
            "shell": null, "working_directory": "~/project", "parallelism": 1, "resource_class": null, "steps": [],
        });
        let claim = json!({
            "version": 1, "task": task, "job_name": "build", "job": job, "node_index": 0, "node_total": 1, "attempt": 1,
            "limits": {"job": 1000, "size": {"millicpus": 1000, "memory": 1}, "grace": 1, "pids": 9},
            "trust": "local", "builtin_variables": VARIABLES, "report_to": {"to": "local"},
        });
        let account = json!({
            "name": null, "uid": 0, "gid": 0, "groups": [], "home": "/root", "programs": [], "architecture": "x86_64",
        });
        json!({
            "version": 1, "claim": claim, "secrets": [["CIRCLE_PROJECT_ID", "another"]], "masked": [],
            "reference": {"task": task, "workflow": "w", "job": "build", "node_index": 0, "node_total": 1},
            "step": 1, "before": false, "attempts": 1, "lingering": [], "working_directory": "/root/project",
            "account": account, "inheritance": {"image_env": [], "step_user": null}, "no_tty": false, "time_s": 60,
            "source": SourceNote::default(),
        })
    }

    fn parse(note: &Value) -> Result<Note, String> {
        Note::parse(note.to_string().as_bytes()).map_err(|error| chain(&error))
    }

    #[test]
    fn a_claim_of_an_older_agent_gets_its_facts_from_what_that_agent_wrote() {
        let Claim { version, run, .. } = parse(&old_note()).unwrap().claim;
        let of = |name: &str| name.to_owned();
        let (project, pipeline, workspace) = (of("project"), of("pipeline"), of("workspace"));
        assert_eq!(run, RunFacts { project, pipeline, workspace, build_number: 12, ..RunFacts::default() });
        assert_eq!(version, claim::VERSION);
    }

    #[test]
    fn a_claim_whose_facts_are_missing_is_refused_and_not_made_up() {
        let mut without_project = old_note();
        without_project["claim"]["builtin_variables"] = json!(VARIABLES[..2]);
        let why = parse(&without_project).err().unwrap();
        assert!(why.contains("the claim does not say which project it belongs to"), "{why}");
        let mut without_facts = old_note();
        without_facts["claim"]["version"] = 2.into();
        let why = parse(&without_facts).err().unwrap();
        assert!(why.contains("missing field `run`"), "{why}");
        let mut newer = serde_json::to_value(parse(&old_note()).unwrap()).unwrap();
        newer["claim"]["version"] = 3.into();
        let why = parse(&newer).err().unwrap();
        assert!(why.contains("claim has version 3, this agent understands 2 at most"), "{why}");
    }

    #[test]
    fn facts_are_not_read_out_of_variables_again() {
        let mut note = serde_json::to_value(parse(&old_note()).unwrap()).unwrap();
        note["claim"]["builtin_variables"] = json!([["CIRCLE_PROJECT_ID", "another"]]);
        assert_eq!(parse(&note).unwrap().claim.run.project, "project");
    }
}
