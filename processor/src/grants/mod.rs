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

#[cfg(test)]
mod tests;

use std::sync::Arc;

use navvy_protocol::processor::{MAX_MESSAGE, v1};
use navvy_storage::{Bucket, Objects};

pub use bodies::forget_ended;
pub use service::{Granting, tree_path};

use crate::state::State;
use sign::UrlKey;

/// Storage granted, put together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Grants {
    state: State,
    objects: Objects,
    key: Arc<UrlKey>,
}

impl Grants {
    /// `public_url`: where [`Self::router`] is reached by agents.
    pub fn new(state: State, bucket: Arc<Bucket>, public_url: &str) -> Self {
        let key = Arc::new(UrlKey::random(public_url));
        Self { state, objects: Objects::new(bucket, key.clone()), key }
    }

    /// The store's objects, for the processor's own.
    pub fn objects(&self) -> Objects {
        self.objects.clone()
    }

    /// The service `Storage`, for agents.
    pub fn service(&self) -> v1::storage_server::StorageServer<Granting> {
        let service = Granting::new(self.state.clone(), self.objects.clone());
        let server = v1::storage_server::StorageServer::new(service);
        server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }

    /// `/store/…`: what the URLs lead to that the store itself cannot sign.
    pub fn router(&self) -> axum::Router {
        serve::router(self.objects.clone(), self.key.clone())
    }
}
