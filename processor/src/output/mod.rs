//! What a task writes: live and durable, one truth.
//!
//! ```text
//! agent ── Live: chunks ─────────────▶ hub: a ring of newest bytes for each log, in bounded memory ──┐ at exactly its cursor
//!   │                                                                                                ▼
//!   ├── GrantSegment ──▶ a URL           store: v1/log/PIPELINE/TASK/LOG/OFFSET-UNIQUE ──┐         reader ──▶ bytes in order,
//!   ├── PUT ───────────────────────────▶   one zstd frame each                           │           ▲        once each
//!   ├── CommitSegments ─ does it lie there, as long as it was said? ──▶ index            └─ digest ──┘
//!   │                                     (state::segments: from here on it is durable)     is its own
//!   └── Finish: bytes, sha256 of each log ──▶ compared with the index and with the bytes: complete, or what is missing
//! ```
//!
//! A reader's one cursor is an offset in the log. It takes bytes from the ring where the ring has exactly those, else from the
//! segments, else it waits: for a chunk, for a commit, or a second, since another processor may have changed the index. So it
//! sees neither a gap nor a repeat, and a reader that goes on at its cursor after a restart, here or elsewhere, does not either.
//! A log ends for it where its agent said so; where the task ended and bytes are missing, it gets an error and never an end.
//!
//! | module | what it holds |
//! |---|---|
//! | `hub`, `ring` | live chunks, and who looks |
//! | [`segment`] | the agent's words, paths and frames (pure; a part of the protocol) |
//! | `commit` | grants, and what becomes durable |
//! | `read` | readers |
//! | `finish` | complete, or what is missing |
//! | `sweep` | what nobody needs goes |
//! | `store` | what is needed of the store |
//!
//! Memory: the rings of all logs together are bounded, and so are the segments that all readers and checks hold at one time.

mod commit;
mod error;
mod finish;
pub mod hub;
mod objects;
mod read;
mod ring;
pub mod store;
mod sweep;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use commit::Grant;
pub use error::OutputError;
pub use finish::Finished;
pub use hub::Hub;
pub use navvy_protocol::processor::{LogName, segment};
pub use read::LogStream;
pub use store::SegmentStore;
pub use sweep::Swept;

use navvy_protocol::processor::MOST_OFFSET;

use self::finish::Checks;
use crate::audit::grants::GrantLog;
use crate::state::State;

/// Bytes that the rings of all logs may take.
const RINGS: usize = 64 << 20;
/// KiB of segments that are held at one time, by all readers and checks: one of the largest fits in, stored and unpacked.
const SEGMENTS: usize = 48 << 10;

/// A reader that waits looks at the index again after this: another processor tells nobody here that it has changed it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The output of all tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Output {
    state: State,
    store: Arc<dyn SegmentStore>,
    hub: Hub,
    grants: GrantLog,
    /// Permits are KiB.
    segments: Arc<Semaphore>,
    checks: Arc<Checks>,
    look_again: Duration,
}

impl Output {
    /// Output whose index and store these are.
    pub fn new(state: State, store: Arc<dyn SegmentStore>) -> Self {
        let segments = Arc::new(Semaphore::new(SEGMENTS));
        let (hub, grants) = (Hub::new(RINGS), GrantLog::none());
        Self { state, store, hub, grants, segments, checks: Arc::default(), look_again: LOOK_AGAIN }
    }

    /// Each grant is noted there.
    #[must_use]
    pub fn noting(self, grants: GrantLog) -> Self {
        Self { grants, ..self }
    }

    /// Live chunks, and who looks.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}
