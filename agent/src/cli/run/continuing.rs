//! From what a setup job continued its pipeline with to the workflows that then run.
//!
//! ```text
//! Continuation{configuration, parameters} ─▶ continuation.yml ─▶ compile ─▶ choose ─▶ Continued
//!                                            (run directory)       └──────────┴─▶ why not; said again at the end
//! ```

use std::io::{self, Write as _};
use std::path::PathBuf;

use navvy_checkout::GitError;
use navvy_checkout::variables::{pipeline_numbers, pipeline_values};
use navvy_config::{Inputs, Source};
use navvy_job::chain::chain;
use navvy_job::outcome::Blame;
use navvy_job::pipeline::Pipeline;
use navvy_job::selection::{self, Chosen, SelectionError, Wanted};
use navvy_output::mask::{MaskedIn, Masks};
use navvy_protocol::supervisor::Continuation;
use serde_json::Value;

use super::{Session, names, plan};
use crate::cli::CliError;
use crate::cli::handed::{Users, add_user};
use crate::cli::source::count;
use crate::pipeline::{Continued, Replacements};
use crate::run_directory::RunDirectory;
use crate::task::SourceNote;

/// Its name in diagnostics and in the run directory.
const FILE: &str = "continuation.yml";

/// Why a pipeline cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContinuationError {
    #[error("only what was named was asked for")]
    NotAsked,
    /// They are listed in full at the end.
    #[error("{path} has {count}", path = path.display())]
    Diagnostics { path: PathBuf, count: String },
    #[error("the continuation is a setup config itself, which is not allowed")]
    Setup,
    #[error("{}", .0.render())]
    Names(CliError),
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error("its jobs need Docker, which nothing needed before")]
    NoEngine,
    #[error("conflicting pipeline parameters: {0} is given by -p and by the continuation")]
    Conflict(String),
    #[error("pipeline parameter {0} of the continuation is not a text, number or boolean")]
    NotScalar(String),
    #[error("{path} could not be written", path = path.display())]
    Save { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Git(#[from] GitError),
}

impl ContinuationError {
    /// `None`: it was never to go on.
    fn blame(&self) -> Option<Blame> {
        match self {
            Self::NotAsked => None,
            Self::Save { .. } | Self::Git(_) => Some(Blame::Infra),
            Self::Diagnostics { .. }
            | Self::Setup
            | Self::Names(_)
            | Self::Selection(_)
            | Self::NoEngine
            | Self::Conflict(_)
            | Self::NotScalar(_) => Some(Blame::Config),
        }
    }
}

/// Carries continuations out, and keeps what is to be said of them after the views have gone.
pub(super) struct Continuing<'a> {
    pub session: &'a Session<'a>,
    pub directory: &'a RunDirectory,
    pub masks: &'a Masks,
    /// What was asked for and is not in the setup config itself. `None`: nothing beyond that config is.
    pub wanted: Option<Wanted>,
    pub replacements: Replacements,
    pub has_engine: bool,
    /// Jobs by the contexts that they ask for.
    pub users: Users,
    /// Diagnostics, rendered.
    pub told: Vec<String>,
    /// Whose fault it is that the pipeline could not go on.
    pub failed: Option<Blame>,
}

impl Continuing<'_> {
    /// What runs now; an error in one line.
    pub fn go_on(&mut self, continuation: &Continuation) -> Result<Continued, String> {
        let wanted = self.wanted.clone().ok_or(ContinuationError::NotAsked);
        let continued = wanted.and_then(|wanted| self.compile(continuation, wanted));
        continued.map_err(|error| {
            self.failed = error.blame().or(self.failed);
            chain(&error)
        })
    }

    fn compile(&mut self, continuation: &Continuation, wanted: Wanted) -> Result<Continued, ContinuationError> {
        let path = self.save(&continuation.configuration)?;
        let inputs = self.inputs(continuation)?;
        let source = Source { name: FILE, text: &continuation.configuration };
        let outcome = navvy_config::compile(&source, &inputs);
        if !outcome.diagnostics.is_empty() {
            self.told.push(outcome.render(&source));
        }
        let Some(pipeline) = outcome.pipeline else {
            return Err(ContinuationError::Diagnostics { path, count: count(&outcome.diagnostics) });
        };
        if pipeline.setup {
            return Err(ContinuationError::Setup);
        }
        let mut warnings = self.warnings(&pipeline, &wanted)?;
        let workflows = self.choose(&pipeline, &wanted)?;
        warnings.extend(plan::not_given(self.session, &workflows));
        warnings.extend(plan::not_accepted(self.session.facts, &self.session.arguments.scope, &workflows));
        for (context, jobs) in plan::context_users(&workflows) {
            jobs.iter().for_each(|job| add_user(&mut self.users, job, std::slice::from_ref(&context)));
        }
        warnings.extend(self.unheard(continuation));
        let note = plan::source_note(self.session.arguments, self.session.settings, self.session.file);
        Ok(Continued {
            builtins: plan::builtins(self.session, &workflows, self.directory),
            warnings,
            workflows,
            source: SourceNote { file: path.clone(), parameters: texts(&inputs), ..note },
            config: path,
        })
    }

    /// Names that the setup config did not have either, and what is not run for want of a branch.
    fn warnings(&self, pipeline: &Pipeline, wanted: &Wanted) -> Result<Vec<String>, ContinuationError> {
        let Session { arguments, images, facts, .. } = self.session;
        let mut still = names::unknown(arguments, images, pipeline).map_err(ContinuationError::Names)?;
        still.retain(|it| self.session.unknown.iter().any(|known| known.flag == it.flag));
        Ok(names::warnings(&still).into_iter().chain(plan::no_branch(facts, pipeline, wanted)).collect())
    }

    fn choose(&self, pipeline: &Pipeline, wanted: &Wanted) -> Result<Vec<Chosen>, ContinuationError> {
        let chosen = match selection::choose(pipeline, wanted) {
            // A continuation without jobs is how a setup job says that there is nothing to do.
            Err(SelectionError::Nothing { .. }) => Vec::new(),
            chosen => chosen?,
        };
        if plan::needs(&chosen, &self.replacements).engine && !self.has_engine {
            return Err(ContinuationError::NoEngine);
        }
        Ok(chosen)
    }

    /// For people, and for a later retry. A secret in it is not written.
    fn save(&self, text: &str) -> Result<PathBuf, ContinuationError> {
        let path = self.directory.path().join(FILE);
        let masked = self.masks.text(|| MaskedIn::of_run("the continuation"), text);
        let written = std::fs::File::options().write(true).create_new(true).open(&path);
        let written = written.and_then(|mut file| file.write_all(masked.as_bytes()));
        match written {
            Ok(()) => Ok(path),
            Err(source) => Err(ContinuationError::Save { path, source }),
        }
    }

    /// What was given on the command line and the config does not declare: so far only the setup config used it.
    fn unheard(&self, continuation: &Continuation) -> Vec<String> {
        let declared = navvy_config::declared_parameters(&continuation.configuration);
        let given = self.session.inputs.parameters.iter().map(|(name, _)| name);
        given
            .filter(|name| !declared.contains(name))
            .map(|name| format!("-p {name}: only the setup config declares it, and the continuation does not get it"))
            .collect()
    }

    /// Parameters of the command line that the config declares, and those of the continuation.
    fn inputs(&self, continuation: &Continuation) -> Result<Inputs, ContinuationError> {
        let declared = navvy_config::declared_parameters(&continuation.configuration);
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (name, value) in &self.session.inputs.parameters {
            if continuation.parameters.contains_key(name) && declared.iter().any(|known| known == name) {
                return Err(ContinuationError::Conflict(name.clone()));
            }
            if declared.iter().any(|known| known == name) {
                parameters.push((name.clone(), value.clone()));
            }
        }
        for (name, value) in &continuation.parameters {
            parameters.push((name.clone(), as_text(name, value)?));
        }
        let mut facts = self.session.facts.clone();
        facts.load_mentioned(&continuation.configuration)?;
        let mut values = pipeline_values(&facts);
        values.extend(pipeline_numbers(&self.session.identity.pipeline, plan::PIPELINE_NUMBER));
        Ok(Inputs { parameters, values, ..self.session.inputs.clone() })
    }
}

fn as_text(name: &str, value: &Value) -> Result<String, ContinuationError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        _ => Err(ContinuationError::NotScalar(name.to_owned())),
    }
}

fn texts(inputs: &Inputs) -> Vec<String> {
    inputs.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect()
}
