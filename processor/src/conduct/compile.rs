//! From what was submitted to workflows: the same text and facts always give the same.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use navvy_checkout::variables::{pipeline_numbers, pipeline_values};
use navvy_checkout::{Commit, GitFacts, Remote};
use navvy_config::{File, Inputs, NoOrb, OrbReference, OrbSource, OrbText, Severity, Source};
use navvy_job::selection::{self, Chosen, SelectionError, Wanted};
use navvy_protocol::api::Submit;
use navvy_protocol::supervisor::Continuation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The file that a pipeline is continued with, as diagnostics call it.
pub const CONTINUATION: &str = "continuation.yml";

/// Why a config cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It has mistakes.
    #[error("the config has mistakes; nothing was run")]
    Diagnostics {
        /// As a terminal shows them.
        rendered: String,
    },
    /// What was asked for is not in it, or nothing is left of it.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// A URL of a repository that is none.
    #[error("{0:?} is no URL of a repository")]
    Repository(String),
    /// A continuation may not continue again.
    #[error("the continuation is a setup config itself, which is not allowed")]
    Setup,
    /// The same parameter twice, with two values.
    #[error("conflicting pipeline parameters: {0} was given at submission and by the continuation")]
    Conflict(String),
    /// A parameter that is a list or a map.
    #[error("pipeline parameter {0} of the continuation is not a text, number or boolean")]
    NotScalar(String),
}

/// What runs. It is stored as it is: another version's compiler may understand the config in another way, or not at all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compiled {
    /// Those that take part.
    pub workflows: Vec<Chosen>,
    /// `setup: true`.
    pub setup: bool,
    /// What is worth a word, as a terminal shows it.
    pub warnings: Option<String>,
}

/// What is known of the pipeline beside its config.
#[derive(Debug, Clone)]
pub struct Facts {
    /// A UUID.
    pub id: String,
    /// Counted in the project.
    pub number: u64,
    /// Of the repository.
    pub git: GitFacts,
}

/// The config's file, for people.
pub fn config_name(submit: &Submit) -> &str {
    if submit.config_name.is_empty() { "config.yml" } else { &submit.config_name }
}

/// The facts of what was submitted.
///
/// # Errors
/// The repository's URL is none.
pub fn facts(submit: &Submit, slug: &str, id: &str, number: u64) -> Result<Facts, CompileError> {
    let vcs = &submit.vcs;
    let origin = match vcs.origin_repository_url.as_deref().filter(|url| !url.is_empty()) {
        Some(url) => Some(Remote::parse(url).ok_or_else(|| CompileError::Repository(url.to_owned()))?),
        None => None,
    };
    let subject = vcs.subject.clone();
    let git = GitFacts {
        top: PathBuf::from("/").join(slug),
        is_repo: true,
        head: vcs.revision.clone(),
        branch: vcs.branch.clone().filter(|_| vcs.tag.is_none()),
        tag: vcs.tag.clone(),
        origin,
        default_branch: vcs.default_branch.clone(),
        commit: subject.map(|subject| Commit {
            subject,
            body: vcs.body.clone().unwrap_or_default(),
            author_name: vcs.author_name.clone().unwrap_or_default(),
            author_email: vcs.author_email.clone().unwrap_or_default(),
        }),
        ..GitFacts::default()
    };
    Ok(Facts { id: id.to_owned(), number, git })
}

/// Compiles what was submitted, and chooses what runs of it.
///
/// # Errors
/// The config has mistakes, or nothing of it runs.
pub fn compile(submit: &Submit, facts: &Facts) -> Result<Compiled, CompileError> {
    let name = config_name(submit);
    let parameters = submit.parameters.clone().into_iter().collect();
    let (setup, pipeline, warnings) = text_to_pipeline(name, &submit.config, submit, facts, parameters)?;
    let wanted = Wanted { workflow: submit.workflow.clone(), ..Wanted::default() };
    let workflows = match selection::choose(&pipeline, &wanted) {
        // A workflow of the continuation may be meant.
        Err(SelectionError::NoWorkflow { .. }) if setup => selection::choose(&pipeline, &Wanted::default())?,
        chosen => chosen?,
    };
    Ok(Compiled { workflows, setup, warnings })
}

/// Compiles what a job of a setup pipeline continued it with.
///
/// # Errors
/// The config has mistakes, or is a setup config again.
pub fn compile_continuation(
    submit: &Submit,
    facts: &Facts,
    continuation: &Continuation,
) -> Result<Compiled, CompileError> {
    let text = &continuation.configuration;
    let parameters = joined_parameters(submit, continuation)?;
    let (setup, pipeline, warnings) = text_to_pipeline(CONTINUATION, text, submit, facts, parameters)?;
    if setup {
        return Err(CompileError::Setup);
    }
    let known = submit.workflow.clone().filter(|name| pipeline.workflows.iter().any(|it| it.name == *name));
    let workflows = match selection::choose(&pipeline, &Wanted { workflow: known, ..Wanted::default() }) {
        // A continuation without jobs is how a setup job says that there is nothing to do.
        Err(SelectionError::Nothing { .. }) => Vec::new(),
        chosen => chosen?,
    };
    Ok(Compiled { workflows, setup, warnings })
}

fn text_to_pipeline(
    name: &str,
    text: &str,
    submit: &Submit,
    facts: &Facts,
    parameters: Vec<(String, String)>,
) -> Result<(bool, navvy_job::pipeline::Pipeline, Option<String>), CompileError> {
    let mut values = pipeline_values(&facts.git);
    values.extend(pipeline_numbers(&facts.id, facts.number));
    let inputs = Inputs {
        branch: facts.git.branch.clone(),
        tag: facts.git.tag.clone(),
        parameters,
        values,
        orbs: Some(Arc::new(SentOrbs(submit.orbs.clone()))),
        allow_missing_orbs: submit.allow_missing_orbs,
        tolerate_unreached: true,
    };
    let source = Source { name, text };
    let outcome = navvy_config::compile(&source, &inputs);
    let rendered = (!outcome.diagnostics.is_empty()).then(|| outcome.render(&source));
    match outcome.pipeline {
        Some(pipeline) => {
            let warned = outcome.diagnostics.iter().any(|it| it.severity == Severity::Warning);
            Ok((pipeline.setup, pipeline, rendered.filter(|_| warned)))
        }
        None => Err(CompileError::Diagnostics { rendered: rendered.unwrap_or_default() }),
    }
}

/// Those given at submission that the continuation declares, and its own.
fn joined_parameters(submit: &Submit, continuation: &Continuation) -> Result<Vec<(String, String)>, CompileError> {
    let declared = navvy_config::declared_parameters(&continuation.configuration);
    let mut parameters = Vec::new();
    for (name, value) in submit.parameters.iter().filter(|(name, _)| declared.contains(name)) {
        if continuation.parameters.contains_key(name) {
            return Err(CompileError::Conflict(name.clone()));
        }
        parameters.push((name.clone(), value.clone()));
    }
    for (name, value) in &continuation.parameters {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => return Err(CompileError::NotScalar(name.clone())),
        };
        parameters.push((name.clone(), text));
    }
    Ok(parameters)
}

/// The orbs that came with the config: the processor has none of its own.
#[derive(Debug)]
struct SentOrbs(BTreeMap<String, String>);

impl OrbSource for SentOrbs {
    fn find(&self, reference: &OrbReference) -> Result<OrbText, NoOrb> {
        let name = reference.to_string();
        match self.0.get(&name) {
            Some(text) => {
                let file = File { name: format!("orb {name}"), text: text.as_str().into() };
                Ok(OrbText { resolved: reference.clone(), file })
            }
            None => Err(NoOrb::Missing {
                help: "it was not sent with the config: put it into .circleci/orbs before submitting (`navvy orb add`)"
                    .to_owned(),
            }),
        }
    }
}
