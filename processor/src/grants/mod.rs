//! Storage granted: the verbs of the store for tasks, and URLs for their bytes.
//!
//! ```text
//! agent ──Storage (gRPC)──▶ service ──▶ auth::task: project, scope, workspace of the task's record, never of a message
//!   │                          ├──▶ bodies: which bodies this task reserved, which ones it was shown (two tables)
//!   │                          └──▶ navvy_storage::Grants: the index, and URLs
//!   └──PUT, GET by URL──▶ the cloud itself
//!                    └──▶ serve: a directory, by URLs that `sign` has signed
//! ```

mod bodies;
mod serve;
mod service;
mod sign;
pub(crate) mod trees;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use navvy_job::chain::chain;
use navvy_protocol::processor::{MAX_MESSAGE, v1};
use navvy_storage::{Bucket, Objects, SWEEP_AFTER, Swept};

pub use bodies::forget_ended;
pub use service::{Granting, tree_path};

use crate::audit::grants::GrantLog;
use crate::keep::{Keep, Keeper};
use crate::state::State;
use sign::UrlKey;

const CLEANED_EVERY: Duration = Duration::from_secs(3600);

/// Storage granted, put together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Grants {
    state: State,
    objects: Objects,
    key: Arc<UrlKey>,
    log: GrantLog,
}

impl Grants {
    /// `public_url`: where [`Self::router`] is reached by agents.
    pub fn new(state: State, bucket: Arc<Bucket>, public_url: &str) -> Self {
        let key = Arc::new(UrlKey::random(public_url));
        Self { state, objects: Objects::new(bucket, key.clone()), key, log: GrantLog::none() }
    }

    /// Each grant is noted there.
    #[must_use]
    pub fn noting(self, log: GrantLog) -> Self {
        Self { log, ..self }
    }

    /// The store's objects, for the processor's own.
    pub fn objects(&self) -> Objects {
        self.objects.clone()
    }

    /// The service `Storage`, for agents.
    pub fn service(&self) -> v1::storage_server::StorageServer<Granting> {
        let service = Granting::new(self.state.clone(), self.objects.clone(), self.log.clone());
        let server = v1::storage_server::StorageServer::new(service);
        server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }

    /// Removes, now and then, what nobody needs any more: rows of tasks that have ended, what was reserved and never committed,
    /// and what is older than it is to be kept. Several processors may be at it.
    pub async fn keep_clean(self, keep: Keep) {
        let mut due = tokio::time::interval(CLEANED_EVERY);
        let mut keeper = Keeper::new(self.state.clone(), self.objects.clone(), keep);
        loop {
            due.tick().await;
            if let Err(error) = bodies::forget_ended(&self.state).await {
                tracing::warn!("What is kept of tasks that have ended was not removed: {}.", chain(&error));
            }
            match self.objects.bucket().sweep(SWEEP_AFTER).await {
                Ok(swept) if swept == Swept::default() => {}
                Ok(swept) => tracing::info!(?swept, "The store was swept."),
                Err(error) => tracing::warn!("The store was not swept: {}.", chain(&error)),
            }
            keeper.tell_round().await;
        }
    }

    /// `/store/…`: what the URLs lead to that the store itself cannot sign.
    pub fn router(&self) -> axum::Router {
        serve::router(self.objects.clone(), self.key.clone())
    }
}
