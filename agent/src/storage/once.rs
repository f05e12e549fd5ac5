//! The store of a run: known from the start, opened once, when the first step needs it.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use navvy_job::claim::TrustScope;

use super::bucket::Bucket;
use super::settings::StorageSettings;
use super::{PieceKind, SettingsError, Store};
use crate::chain::chain;

/// Handed to tasks, never to their jobs. Cheap to clone.
#[derive(Clone)]
pub struct RunStore(Arc<Inner>);

struct Inner {
    /// An error: what to tell whoever needs a store.
    settings: Result<StorageSettings, String>,
    bucket: OnceLock<Result<Arc<Bucket>, String>>,
    /// Project, scope and id of what this run has persisted to.
    workspaces: Mutex<HashSet<(String, TrustScope, String)>>,
}

impl fmt::Debug for RunStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunStore").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl RunStore {
    pub fn new(settings: Result<StorageSettings, SettingsError>) -> Self {
        let settings = settings.map_err(|error| chain(&error));
        Self(Arc::new(Inner { settings, bucket: OnceLock::new(), workspaces: Mutex::default() }))
    }

    /// One project's store, as this scope sees it.
    ///
    /// # Errors
    /// Why there is none, for a person.
    pub fn open(&self, project: &str, scope: &TrustScope) -> Result<Store, String> {
        let settings = self.0.settings.as_ref().map_err(Clone::clone)?;
        let opened = self.0.bucket.get_or_init(|| settings.open().map(Arc::new).map_err(|error| chain(&error)));
        let bucket = opened.as_ref().map_err(Clone::clone)?;
        Ok(Store::direct(Arc::clone(bucket), project, scope.clone(), settings.shape))
    }

    /// There will be layers of this workspace.
    pub fn uses_workspace(&self, project: &str, scope: &TrustScope, id: &str) {
        let mut workspaces = self.0.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        workspaces.insert((project.to_owned(), scope.clone(), id.to_owned()));
    }

    /// Removes the layers of all workspaces that were used: when the run is over nobody attaches them any more.
    pub async fn remove_workspaces(&self) -> Result<(), String> {
        let workspaces = std::mem::take(&mut *self.0.workspaces.lock().unwrap_or_else(PoisonError::into_inner));
        for (project, scope, id) in workspaces {
            let store = self.open(&project, &scope)?;
            let layers = store.pieces(PieceKind::Layer, &id, None).await.map_err(|error| chain(&error))?;
            for layer in layers {
                store.remove(&layer).await.map_err(|error| chain(&error))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_made_when_it_is_needed_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("store");
        let store = RunStore::new(Ok(StorageSettings::directory(&place)));
        assert!(!place.exists());
        assert!(store.open("p", &TrustScope::Local).is_ok() && place.is_dir());
        let none = RunStore::new(Err(SettingsError::NoHome));
        assert!(none.open("p", &TrustScope::Local).unwrap_err().contains("--store"));
    }
}
