//! What all commands share that speak to a processor: the way there, the project, and errors.

use std::path::Path;

use navvy_checkout::GitFacts;
use navvy_checkout::variables::pipeline_values;
use navvy_config::Value;
use navvy_job::chain::chain;
use navvy_storage::Proxies;

use super::args::remote::ProcessorArgs;
use super::args::store::ThereArgs;
use super::source::{nearest_config, tell};
use super::{CliError, host};
use crate::remote::login::{Access, CA_FILE, LoginError, PROCESSOR, Sources, TOKEN_FILE};
use crate::remote::relay::Commands;
use crate::remote::{Client, RemoteError};
use crate::settings::Settings;

/// A processor, and how commands name it.
pub struct Processor {
    pub client: Client,
    /// `--remote`, or `--processor URL`.
    word: String,
}

impl Processor {
    /// The one that words, environment and `navvy login` name.
    pub fn named(settings: &Settings, arguments: &ProcessorArgs) -> Result<Self, CliError> {
        let variable = |name| settings.get(name).filter(|value| !value.is_empty());
        let word = match &arguments.processor {
            Some(url) => format!("--processor {}", shell_words::quote(url)),
            None => "--remote".to_owned(),
        };
        let sources = Sources {
            processor: arguments.processor.as_deref().or(variable(PROCESSOR)),
            token_file: arguments.token_file.as_deref().or(variable(TOKEN_FILE).map(Path::new)),
            ca: arguments.ca.as_deref().or(variable(CA_FILE).map(Path::new)),
            plaintext: arguments.plaintext,
            login: settings.login.as_deref(),
        };
        let access = Access::gather(&sources).map_err(|error| no_way(&error))?;
        Ok(Self { client: client(settings, access)?, word })
    }

    /// The one that has what its jobs left. `store`: one of this machine's that was named beside it.
    pub fn of_what_is_left(settings: &Settings, there: &ThereArgs, store: Option<&str>) -> Result<Self, CliError> {
        if store.is_some() {
            return Err(CliError::usage("--store: a processor has a store of its own"));
        }
        Self::named(settings, &there.elsewhere.processor)
    }

    /// How a pipeline's logs are found again.
    pub fn commands(&self, pipeline: &str) -> Commands {
        Commands { logs: format!("navvy logs {}", self.word), pipeline: pipeline.to_owned() }
    }

    /// Carries out calls.
    pub fn ask<T>(&self, calls: impl Future<Output = Result<T, RemoteError>>) -> Result<T, CliError> {
        host::block_on(async { calls.await.map_err(failed) })
    }
}

/// Opens no connection yet.
pub fn client(settings: &Settings, access: Access) -> Result<Client, CliError> {
    Client::new(access, &Proxies::of(&settings.variables)).map_err(failed)
}

/// Nobody knows where to go, or as whom.
pub fn no_way(error: &LoginError) -> CliError {
    let told = CliError::usage(chain(error));
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// What came of a call. A config's diagnostics are printed.
pub fn failed(error: RemoteError) -> CliError {
    if let RemoteError::Refused { problem, .. } = &error
        && let Some(diagnostics) = &problem.diagnostics
    {
        tell(&format!("{}\n", diagnostics.trim_end()));
    }
    let told = CliError::new(error.blame(), chain(&error));
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// The project that is named, else that of the repository that the user stands in.
pub fn project(settings: &Settings, named: Option<&str>) -> Result<String, CliError> {
    if let Some(slug) = named {
        let parts: Vec<&str> = slug.split('/').collect();
        return match parts.as_slice() {
            [_, _, ..] if parts.iter().all(|part| !part.is_empty()) => Ok(slug.to_owned()),
            _ => Err(CliError::usage(format!("--project {slug}: expected gh/OWNER/NAME"))),
        };
    }
    let here = settings.here()?;
    let project = nearest_config(here);
    let project = project.map_err(|error| error.hint("Or name the project: `--project gh/OWNER/NAME`."))?;
    let facts = GitFacts::of(project.as_deref().unwrap_or(here), settings.elsewhere)?;
    Ok(slug(&facts))
}

/// The project's name at a processor: `gh/acme/shop`.
pub fn slug(facts: &GitFacts) -> String {
    match pipeline_values(facts).remove("project.slug") {
        Some(Value::Text(slug)) => slug,
        _ => format!("gh/{}/{}", facts.repo_owner(), facts.repo_name()),
    }
}
