//! The store of a run: known from the start, opened once, when the first step needs it.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use navvy_job::chain::chain;
use navvy_job::claim::TrustScope;
use navvy_storage::{Bucket, Location, PieceKind, PutAside, StorageSettings, Store, Swept};

use crate::settings::store::StoreError;

/// As the real service keeps them. A run removes its own at its end, and is never this long.
const LAYERS_KEPT_FOR: Duration = Duration::from_secs(15 * 24 * 3600);

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
    pub fn new(settings: Result<StorageSettings, StoreError>) -> Self {
        let settings = settings.map_err(|error| chain(&error));
        Self(Arc::new(Inner { settings, bucket: OnceLock::new(), workspaces: Mutex::default() }))
    }

    /// Its name, if somebody may have put something there: a directory that is not made yet is empty.
    pub fn in_use(&self) -> Option<String> {
        let settings = self.0.settings.as_ref().ok()?;
        let in_use = if let Location::Directory(path) = &settings.location { path.is_dir() } else { true };
        in_use.then(|| settings.location.to_string())
    }

    /// Removes what nobody committed within this time; with less than [`navvy_storage::SWEEP_AFTER`], also under writers that still may.
    ///
    /// # Errors
    /// Why nothing could be swept, for a person.
    pub async fn sweep(&self, older_than: Duration) -> Result<Swept, String> {
        self.bucket()?.sweep(older_than).await.map_err(|error| chain(&error))
    }

    /// Removes the workspace layers of runs that did not come to it.
    ///
    /// # Errors
    /// What went wrong, for a person.
    pub async fn remove_old_layers(&self) -> Result<Swept, String> {
        self.bucket()?.remove_old_layers(LAYERS_KEPT_FOR).await.map_err(|error| chain(&error))
    }

    /// The scopes in which a project has caches.
    ///
    /// # Errors
    /// What went wrong, for a person; so it is with [`Self::put_aside`].
    pub async fn scopes(&self, project: &str) -> Result<Vec<TrustScope>, String> {
        self.bucket()?.scopes(project).await.map_err(|error| chain(&error))
    }

    /// A project's entries that were put aside, and are not swept yet.
    pub async fn put_aside(&self, project: &str) -> Result<Vec<PutAside>, String> {
        self.bucket()?.put_aside(project).await.map_err(|error| chain(&error))
    }

    fn bucket(&self) -> Result<&Arc<Bucket>, String> {
        let settings = self.0.settings.as_ref().map_err(Clone::clone)?;
        let open = || settings.open().map(Arc::new).map_err(|error| chain(&error));
        self.0.bucket.get_or_init(open).as_ref().map_err(Clone::clone)
    }

    /// One project's store, as this scope sees it.
    ///
    /// # Errors
    /// Why there is none, for a person.
    pub fn open(&self, project: &str, scope: &TrustScope) -> Result<Store, String> {
        let bucket = self.bucket()?;
        let shape = self.0.settings.as_ref().map_err(Clone::clone)?.shape;
        Ok(Store::direct(Arc::clone(bucket), project, scope.clone(), shape))
    }

    /// There will be layers of this workspace.
    pub fn uses_workspace(&self, project: &str, scope: &TrustScope, id: &str) {
        let mut workspaces = self.0.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        workspaces.insert((project.to_owned(), scope.clone(), id.to_owned()));
    }

    /// Removes the layers of all workspaces that were used: when the run is over nobody attaches them any more. One that cannot
    /// be removed keeps no other.
    pub async fn remove_workspaces(&self) -> Result<(), String> {
        let workspaces = std::mem::take(&mut *self.0.workspaces.lock().unwrap_or_else(PoisonError::into_inner));
        let mut troubles = Vec::new();
        for (project, scope, id) in workspaces {
            let store = self.open(&project, &scope)?;
            match store.pieces(PieceKind::Layer, &id, None).await {
                Ok(layers) => {
                    for layer in layers {
                        troubles.extend(store.remove(&layer).await.err());
                    }
                }
                Err(error) => troubles.push(error),
            }
        }
        match troubles.first() {
            None => Ok(()),
            Some(first) => Err(format!("{} of its layers: {}", troubles.len(), chain(first))),
        }
    }
}

#[cfg(test)]
mod tests {
    use navvy_storage::SettingsError;

    use super::*;

    #[test]
    fn a_store_is_made_when_it_is_needed_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("store");
        let store = RunStore::new(Ok(StorageSettings::directory(&place)));
        assert!(!place.exists());
        assert!(store.open("p", &TrustScope::Local).is_ok() && place.is_dir());
        let none = RunStore::new(Err(StoreError::Settings(SettingsError::NoHome)));
        assert!(none.open("p", &TrustScope::Local).unwrap_err().contains("--store"));
    }
}
