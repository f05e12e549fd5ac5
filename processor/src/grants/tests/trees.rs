//! Working trees that were sent, and how long they stay.

use std::fs::File;
use std::time::{Duration, SystemTime};

use super::*;
use crate::grants::trees::sweep;
use crate::state::now_ms;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Trees {
    bench: Bench,
    directory: tempfile::TempDir,
}

impl Trees {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bench = Bench::new(Arc::new(Bucket::directory(directory.path()).unwrap())).await;
        Self { bench, directory }
    }

    /// Sent so long ago.
    async fn sent(&self, name: &str, age: Duration) {
        let path = crate::grants::tree_path(name).unwrap();
        self.bench.grants.objects().put(&path, bytes::Bytes::from_static(b"a tree")).await.unwrap();
        self.grow_old(name, age);
    }

    fn grow_old(&self, name: &str, age: Duration) {
        let file = File::options().write(true).open(self.directory.path().join("v1/tree").join(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    async fn pipeline(&self, id: i64, tree: &str, state: &str, age: Duration) {
        let insert = "INSERT INTO pipelines (id, project, number, created_ms, submit, compiled, scope, assumed, workspace_of, \
                      state, tree, happenings, events) VALUES ($1, 'p', $2, $3, '', '', '', '', '', $4, $5, 0, 0)";
        let created = now_ms() - i64::try_from(age.as_millis()).unwrap();
        let query = sqlx::query(insert).bind(format!("p{id}")).bind(id).bind(created).bind(state).bind(tree);
        query.execute(self.bench.state.pool()).await.unwrap();
    }

    async fn swept(&self, keep: Option<Duration>) -> (u64, Vec<String>) {
        let removed = sweep(&self.bench.state, &self.bench.grants.objects(), keep).await.unwrap().trees;
        let names = std::fs::read_dir(self.directory.path().join("v1/tree")).unwrap().flatten();
        let mut names: Vec<String> = names.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        (removed, names)
    }
}

#[tokio::test]
async fn a_tree_stays_while_a_pipeline_may_check_it_out_and_goes_when_none_does() {
    let trees = Trees::new().await;
    for name in ["named", "unnamed", "old", "old-and-rerun", "old-and-running"] {
        trees.sent(name, 100 * DAY).await;
    }
    trees.sent("just-sent", DAY / 2).await;
    trees.pipeline(1, "named", "failed", 89 * DAY).await;
    trees.pipeline(2, "old", "success", 91 * DAY).await;
    trees.pipeline(3, "old-and-rerun", "failed", 91 * DAY).await;
    trees.pipeline(4, "old-and-rerun", "success", DAY).await;
    trees.pipeline(5, "old-and-running", "on_hold", 91 * DAY).await;
    let (removed, left) = trees.swept(None).await;
    assert_eq!((removed, left.len()), (1, 5), "unnamed");
    let (removed, left) = trees.swept(Some(90 * DAY)).await;
    assert_eq!(left, ["just-sent", "named", "old-and-rerun", "old-and-running"]);
    assert_eq!(removed, 1);
}
