//! The store of a run: known from the start, opened once, when the first step needs it.
//!
//! ```text
//! RunStore ─┬─ own: settings ─▶ a bucket with credentials      `navvy run`; the run removes its workspaces itself
//!           └─ granted: a grantor, and the way to its URLs     a fleet; project, scope and workspaces are the grantor's affair
//! ```

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use navvy_job::claim::TrustScope;
use navvy_storage::{
    Bucket, Grantor, Location, PieceKind, PutAside, Retries, Shape, StorageError, StorageSettings, Store, Swept,
    Transport,
};

use crate::settings::store::StoreError;

/// As the real service keeps them. A run removes its own at its end, and is never this long.
const LAYERS_KEPT_FOR: Duration = Duration::from_secs(15 * 24 * 3600);

/// Why a run's store does not do what it is asked. Shared: every use of a store that cannot be opened gets the same error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunStoreError {
    /// Nothing names a store.
    #[error(transparent)]
    Settings(Arc<StoreError>),
    /// It could not be opened, or did not answer.
    #[error(transparent)]
    Storage(Arc<StorageError>),
    /// It is the grantor's, and so is its upkeep.
    #[error("the store is the processor's: what is to be done with all of it is done there")]
    Granted,
    #[error("{count} of its layers")]
    Layers {
        count: usize,
        /// The first one's.
        #[source]
        source: Arc<StorageError>,
    },
}

impl From<StorageError> for RunStoreError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

/// Handed to tasks, never to their jobs. Cheap to clone.
#[derive(Clone)]
pub struct RunStore(Arc<Inner>);

enum Inner {
    Own(Box<Own>),
    Granted {
        /// A task has one store.
        store: Store,
    },
}

struct Own {
    /// The error is for the first step that needs a store.
    settings: Result<StorageSettings, Arc<StoreError>>,
    bucket: OnceLock<Result<Arc<Bucket>, Arc<StorageError>>>,
    /// Project, scope and id of what this run has persisted to.
    workspaces: Mutex<HashSet<(String, TrustScope, String)>>,
}

impl fmt::Debug for RunStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RunStore");
        match &*self.0 {
            Inner::Own(own) => shown.field("settings", &own.settings),
            Inner::Granted { store } => shown.field("granted", &store.name()),
        };
        shown.finish_non_exhaustive()
    }
}

impl RunStore {
    pub fn new(settings: Result<StorageSettings, StoreError>) -> Self {
        Self(Arc::new(Inner::Own(Box::new(Own {
            settings: settings.map_err(Arc::new),
            bucket: OnceLock::new(),
            workspaces: Mutex::default(),
        }))))
    }

    /// The second home: a grantor that speaks for one task. `transport` goes where its URLs lead.
    pub fn granted(grantor: Arc<dyn Grantor>, transport: Transport, retries: Retries) -> Self {
        let store = Store::granted(grantor, transport, retries, Shape::default());
        Self(Arc::new(Inner::Granted { store }))
    }

    fn own(&self) -> Result<&Own, RunStoreError> {
        match &*self.0 {
            Inner::Own(own) => Ok(own),
            Inner::Granted { .. } => Err(RunStoreError::Granted),
        }
    }

    /// Its name, if there may be something in it: a directory that is not made yet is empty.
    pub fn in_use(&self) -> Option<String> {
        let own = match &*self.0 {
            Inner::Own(own) => own,
            Inner::Granted { store } => return Some(store.name().to_owned()),
        };
        let settings = own.settings.as_ref().ok()?;
        let in_use = if let Location::Directory(path) = &settings.location { path.is_dir() } else { true };
        in_use.then(|| settings.location.to_string())
    }

    /// Removes what was not committed within this time; with less than [`navvy_storage::SWEEP_AFTER`], also under writers that still may.
    ///
    /// # Errors
    /// The store is not known, cannot be opened or does not answer.
    pub async fn sweep(&self, older_than: Duration) -> Result<Swept, RunStoreError> {
        Ok(self.bucket()?.sweep(older_than).await?)
    }

    /// Removes the workspace layers of runs that ended before removing them.
    ///
    /// # Errors
    /// As for [`Self::sweep`].
    pub async fn remove_old_layers(&self) -> Result<Swept, RunStoreError> {
        Ok(self.bucket()?.remove_old_layers(LAYERS_KEPT_FOR).await?)
    }

    /// The scopes in which a project has caches.
    ///
    /// # Errors
    /// As for [`Self::sweep`].
    pub async fn scopes(&self, project: &str) -> Result<Vec<TrustScope>, RunStoreError> {
        Ok(self.bucket()?.scopes(project).await?)
    }

    /// A project's entries that were put aside, and are not swept yet.
    ///
    /// # Errors
    /// As for [`Self::sweep`].
    pub async fn put_aside(&self, project: &str) -> Result<Vec<PutAside>, RunStoreError> {
        Ok(self.bucket()?.put_aside(project).await?)
    }

    fn settings(&self) -> Result<&StorageSettings, RunStoreError> {
        self.own()?.settings.as_ref().map_err(|error| RunStoreError::Settings(Arc::clone(error)))
    }

    fn bucket(&self) -> Result<&Arc<Bucket>, RunStoreError> {
        let settings = self.settings()?;
        let open = || settings.open().map(Arc::new).map_err(Arc::new);
        self.own()?.bucket.get_or_init(open).as_ref().map_err(|error| RunStoreError::Storage(Arc::clone(error)))
    }

    /// One project's store, as this scope sees it. A grantor knows both by itself.
    ///
    /// # Errors
    /// The store is not known, or cannot be opened.
    pub fn open(&self, project: &str, scope: &TrustScope) -> Result<Store, RunStoreError> {
        if let Inner::Granted { store } = &*self.0 {
            return Ok(store.clone());
        }
        let bucket = self.bucket()?;
        let shape = self.settings()?.shape;
        Ok(Store::direct(Arc::clone(bucket), project, scope.clone(), shape))
    }

    /// There will be layers of this workspace.
    pub fn uses_workspace(&self, project: &str, scope: &TrustScope, id: &str) {
        // Other tasks of a fleet go on with a workspace: who knows the whole pipeline removes it.
        let Ok(own) = self.own() else { return };
        let mut workspaces = own.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        workspaces.insert((project.to_owned(), scope.clone(), id.to_owned()));
    }

    /// Removes the layers of all workspaces that were used: when the run is over no job attaches them any more. One that cannot
    /// be removed keeps no other.
    ///
    /// # Errors
    /// Some layers could not be removed.
    pub async fn remove_workspaces(&self) -> Result<(), RunStoreError> {
        let Ok(own) = self.own() else { return Ok(()) };
        let workspaces = std::mem::take(&mut *own.workspaces.lock().unwrap_or_else(PoisonError::into_inner));
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
        let count = troubles.len();
        match troubles.into_iter().next() {
            None => Ok(()),
            Some(first) => Err(RunStoreError::Layers { count, source: Arc::new(first) }),
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
        assert!(none.open("p", &TrustScope::Local).unwrap_err().to_string().contains("--store"));
    }
    #[tokio::test]
    async fn a_granted_store_is_asked_for_its_verbs_and_is_nobody_s_to_keep_clean() {
        let transport = StorageSettings::directory("/".as_ref()).transport().unwrap();
        // Nobody listens there.
        let nobody = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let retries = Retries { most: 0, ..Retries::default() };
        let grantor = Arc::new(navvy_granted::Remote::new(nobody, "Bearer token".parse().unwrap(), retries));
        let store = RunStore::granted(grantor, transport, retries);
        assert!(store.in_use().is_some());
        let opened = store.open("any project", &TrustScope::Trusted).unwrap();
        let error = opened.look_up(&["k".into()]).await.unwrap_err();
        assert!(error.to_string().starts_with("failed to look up a cache"), "{error}");
        store.uses_workspace("any project", &TrustScope::Trusted, "ws");
        store.remove_workspaces().await.expect("other tasks of the fleet need them");
        let kept = store.sweep(Duration::ZERO).await.unwrap_err();
        assert!(matches!(kept, RunStoreError::Granted) && kept.to_string().contains("processor"), "{kept}");
    }
}
