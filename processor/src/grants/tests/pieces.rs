//! What a pipeline left is its own tasks' to write: nobody puts something into another one's artifacts or results.

use bytes::Bytes;
use navvy_storage::{Ledger as _, Piece, PieceKind, Slot};

use super::*;

async fn pipeline(state: &State, id: &str, number: i64) {
    let insert = "INSERT INTO pipelines (id, project, number, created_ms, submit, compiled, scope, assumed, workspace_of, state, \
                  happenings, events) VALUES ($1, 'p', $2, 0, '{}', '', 'trusted', '', '', '', 0, 0)";
    sqlx::query(insert).bind(id).bind(number).execute(state.pool()).await.unwrap();
}

fn piece(of: PieceKind, group: &str, producer: &str) -> Slot {
    Slot::Piece(Piece { of, group: group.to_owned(), producer: producer.to_owned(), node: 0, step: 1 })
}

#[tokio::test]
async fn a_task_leaves_things_in_its_own_pipeline_s_name_alone() {
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::new(Arc::new(Bucket::directory(directory.path()).unwrap())).await;
    let (task, victim) = (usual(&bench).await, usual(&bench).await);
    let (own, other) = (format!("pipeline of {}", task.id), format!("pipeline of {}", victim.id));
    pipeline(&bench.state, &own, 1).await;
    pipeline(&bench.state, &other, 2).await;
    let remote = bench.remote(&task.token);
    for (of, group, producer) in [
        (PieceKind::Artifacts, &*other, "4:main:unit"),
        (PieceKind::Artifacts, "runs with artifacts", &*other),
        (PieceKind::TestResults, "tests of unit", &*format!("{other}/1")),
        (PieceKind::TestResults, &*other, &*format!("{own}/1")),
    ] {
        let refused = remote.reserve(piece(of, group, producer)).await.unwrap_err().to_string();
        assert!(refused.contains("another pipeline"), "{group}, {producer}: {refused}");
    }
    for (of, group, producer) in [
        (PieceKind::Artifacts, &*own, "4:main:unit"),
        (PieceKind::Artifacts, "runs with artifacts", &*own),
        (PieceKind::TestResults, "tests of unit", &*format!("{own}/1")),
        (PieceKind::TestResults, "jobs with tests", "unit"),
    ] {
        let place = piece(of, group, producer);
        let store = bench.store(&task.token, Shape { part: 10, parallel: 2 });
        let reservation = store.reserve(place.clone()).await.unwrap();
        let bytes = futures_util::stream::iter([Ok(Bytes::from_static(b"x"))]);
        let body = store.put(&reservation, bytes).await.unwrap();
        store.commit(&reservation, &body, navvy_storage::About::default()).await.unwrap();
        assert!(store.find(&place).await.unwrap().is_some(), "{group}, {producer}");
    }
}
