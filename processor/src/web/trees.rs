//! Working trees: sent before the pipeline that checks them out.

use std::io;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::{StreamExt as _, TryStreamExt as _};
use navvy_protocol::api::Tree;
use navvy_storage::StorageError;

use super::people::{Admin, note};
use super::{Refusal, Web};
use crate::audit::Entry;
use crate::grants::tree_path;

/// Compressed bytes of the largest tree that is taken.
const MOST: u64 = 16 << 30;

/// `POST /api/v2/tree`: a tar, compressed with zstd. All of it is kept, or nothing.
pub async fn send(by: Admin, State(web): State<Web>, body: Body) -> Result<Json<Tree>, Refusal> {
    let tree = format!("{}.tar.zst", uuid::Uuid::new_v4().simple());
    let path =
        tree_path(&tree).ok_or_else(|| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the tree has no name"))?;
    let stream = body.into_data_stream().map_err(io::Error::other).boxed();
    match web.objects.put_stream(&path, MOST, stream).await {
        Ok(bytes) => {
            note(&web, &Entry::new("tree.send", &by.actor, "tree", &tree).with(serde_json::json!({"bytes": bytes})))
                .await?;
            Ok(Json(Tree { tree }))
        }
        Err(StorageError::TooLong { most, .. }) => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the working tree is too large: {most} bytes at most are taken, compressed"),
        )
        .hint("Ignore what no job needs (.gitignore).")),
        Err(StorageError::Source(error)) => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, format!("the working tree was cut off: {error}")))
        }
        Err(error) => {
            tracing::error!("{}.", navvy_job::chain::chain(&error));
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the store does not take the working tree")
                .hint("Try again; the processor's log says more."))
        }
    }
}
