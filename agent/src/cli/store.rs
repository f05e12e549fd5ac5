//! The store of the project at hand.

use std::sync::Arc;

use navvy_job::claim::TrustScope;

use crate::chain::chain;
use crate::results::Results;
use crate::results::keep::Keeper;
use crate::settings::Settings;
use crate::storage::{StorageSettings, Store};

/// As the settings say. The error is for people.
pub fn open(settings: &Settings, project: &str, scope: TrustScope) -> Result<Store, String> {
    let storage = StorageSettings::gather(settings, None).map_err(|error| chain(&error))?;
    let bucket = storage.open().map_err(|error| chain(&error))?;
    Ok(Store::direct(Arc::new(bucket), project, scope, storage.shape))
}

/// Test results of this project. Jobs run without a store as well.
pub fn results(settings: &Settings, project: &str, scope: TrustScope) -> Results {
    match open(settings, project, scope) {
        Ok(store) => Results::new(Some(Keeper::new(store))),
        Err(why) => {
            tracing::warn!("Test results are not stored: {why}.");
            Results::default()
        }
    }
}
