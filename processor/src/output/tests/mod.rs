//! Stories over an index, a store in memory, and the hub.

mod commits;
mod finishes;
mod hubs;
mod interleavings;
mod memory;
mod readers;
mod sweeps;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use navvy_protocol::processor::v1;
use sha2::{Digest as _, Sha256};

use self::memory::Memory;
use super::*;
use crate::auth::TaskAccess;
use crate::state::tests::{Database, add_task, databases};

pub(super) const TASK: &str = "0123456789abcdef";

pub(super) fn access(task: &str) -> TaskAccess {
    TaskAccess {
        task: task.into(),
        fence: 1,
        pipeline: "a-pipeline".into(),
        project: "p".into(),
        scope: "local".parse().unwrap(),
        workspace: "w".into(),
    }
}

/// A segment's object, and the digest of its bytes.
pub(super) fn packed(bytes: &[u8]) -> (Vec<u8>, String) {
    let mut object = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    zstd_safe::compress(&mut object, bytes, 3).unwrap();
    (object, segment::hex(&Sha256::digest(bytes)))
}

/// A processor's output, and an agent beside it.
pub(super) struct Bench {
    pub database: Database,
    pub store: Arc<Memory>,
    pub output: Output,
}

/// A processor over these, whose readers are told of everything: what they would see an hour later is seen by no test.
fn output(database: &Database, store: &Arc<Memory>) -> Output {
    let output = Output::new((**database).clone(), Arc::clone(store) as Arc<dyn SegmentStore>);
    Output { look_again: Duration::from_secs(3600), ..output }
}

/// One for each database that there is here, with a task that an agent has.
pub(super) async fn benches() -> Vec<Bench> {
    let mut benches = Vec::new();
    for database in databases().await {
        add_task(&database, TASK, "claimed", 1).await;
        let store = Arc::new(Memory::default());
        let output = output(&database, &store);
        benches.push(Bench { database, store, output });
    }
    benches
}

impl Bench {
    /// The processor is killed and starts again.
    pub fn restart(&mut self) {
        self.output = output(&self.database, &self.store);
    }

    pub fn live(&self, log: &str, offset: u64, bytes: &[u8]) -> Result<(), OutputError> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.output.hub().push(TASK, &v1::Chunk { log: log.into(), offset, bytes, stream: 0 })
    }

    /// Asks where to put a segment, and puts it there.
    pub async fn put(&self, log: &str, offset: u64, bytes: &[u8]) -> v1::Segment {
        let (object, _) = packed(bytes);
        let mut segment = v1::Segment {
            log: log.into(),
            offset,
            length: bytes.len() as u32,
            stored: object.len() as u32,
            sha256: Sha256::digest(bytes).to_vec(),
            object: String::new(),
        };
        let grant = self.output.grant(&access(TASK), &segment).await.unwrap();
        self.store.put(&grant.url, object);
        segment.object = grant.object;
        segment
    }

    pub async fn commit(&self, segments: &[v1::Segment]) -> Result<u64, OutputError> {
        let states = self.output.commit(&access(TASK), segments).await?;
        Ok(states.last().map_or(0, |state| state.durable))
    }

    pub async fn put_and_commit(&self, log: &str, offset: u64, bytes: &[u8]) -> u64 {
        let segment = self.put(log, offset, bytes).await;
        self.commit(&[segment]).await.unwrap()
    }

    /// The task's row says so from now on.
    pub async fn end_task(&self) {
        let update = sqlx::query("UPDATE tasks SET state = 'ended' WHERE id = $1").bind(TASK);
        update.execute(self.database.pool()).await.unwrap();
        self.output.hub().index_changed(TASK);
    }

    /// What the agent says at the end.
    pub async fn end_log(&self, log: &str, whole: &[u8]) {
        let ends = [(log.to_owned(), (whole.len() as u64, segment::hex(&Sha256::digest(whole))))];
        let holder = crate::state::Holder { task: TASK, fence: 1 };
        self.database.end_logs(holder, &ends.into()).await.unwrap();
        self.output.hub().index_changed(TASK);
    }

    pub async fn read(&self, log: &str, offset: u64, follow: bool) -> Result<Vec<u8>, OutputError> {
        gather(self.output.read(TASK, log, offset, follow).await?).await
    }
}

pub(super) async fn gather(stream: LogStream) -> Result<Vec<u8>, OutputError> {
    stream
        .try_fold(Vec::new(), async |mut all, piece| {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}

/// Bytes that differ from place to place.
pub(super) fn honest(range: std::ops::Range<u64>) -> Vec<u8> {
    range.map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
