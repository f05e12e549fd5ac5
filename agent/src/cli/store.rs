//! The store that a command is about: which one, and the part of it that belongs to a project.

use navvy_checkout::variables::{directory_id, project_id};
use navvy_job::chain::chain;
use navvy_job::claim::TrustScope;
use navvy_storage::{SettingsError, Store};

use super::CliError;
use super::args::store::StoreArgs;
use super::source::{ConfigFile, project_facts};
use crate::run_store::RunStore;
use crate::settings::Settings;
use crate::settings::store::{StoreError, store};

/// Which store; it is opened when it is needed. If there is no place for one, opening it is the error.
pub fn chosen(settings: &Settings, flag: Option<&str>) -> Result<RunStore, CliError> {
    match store(settings, flag) {
        Err(error) if !matches!(error, StoreError::Settings(SettingsError::NoHome)) => {
            Err(CliError::usage(chain(&error)))
        }
        gathered => Ok(RunStore::new(gathered)),
    }
}

/// What `navvy run` keeps of the config's project, as one scope sees it.
pub fn of_project(settings: &Settings, arguments: &StoreArgs) -> Result<Store, CliError> {
    let file = ConfigFile::find(arguments.config.as_deref(), settings.here()?)?;
    let chosen = chosen(settings, arguments.store.as_deref())?;
    let scope = scope_here(&arguments.scope, &file)?;
    Ok(chosen.open(&project_id(&project_facts(settings, &file)?), &scope)?)
}

/// The scope of runs of this config: what is local belongs to the directory where its project begins.
pub fn scope_here(scope: &TrustScope, file: &ConfigFile) -> Result<TrustScope, CliError> {
    let directory = std::fs::canonicalize(file.project()).map_err(|error| CliError::infra(&error))?;
    Ok(scope.clone().in_directory(&directory_id(&directory)))
}
