//! From a grant to the index.
//!
//! ```text
//! grant: form, name ─▶ URL, a line of the audit log        (else nothing is kept: what is never committed is swept)
//! commit: form ─▶ known already? ─ no ─▶ HEAD: is it as long as was said? ─▶ index, whole or not at all ─▶ readers are told
//! ```

use std::fmt;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use navvy_protocol::processor::{FormError, v1};

use super::store::within;
use super::{LogName, Output, OutputError, segment};
use crate::audit::grants::{By, Verb};
use crate::auth::TaskAccess;
use crate::figures;
use crate::state::{Holder, LogState, Segment};

/// Segments of one call, at most.
pub const MOST_SEGMENTS: usize = 1024;
/// Objects that are asked for at one time, by one call.
const PARALLEL: usize = 8;

/// What an agent says of a segment, as the index has it.
fn read(of: &TaskAccess, said: &v1::Segment, unique: &str) -> Result<Segment, OutputError> {
    let of = segment::Of { pipeline: &of.pipeline, task: &of.task };
    let segment::Sealed { log, start, length, stored, sha256, object } = segment::read(of, said, unique)?;
    Ok(Segment { log: log.to_string(), start, length, stored, sha256, object })
}

/// Where to put a segment.
pub struct Grant {
    /// The object's name, for CommitSegments.
    pub object: String,
    /// PUT it there.
    pub url: String,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("object", &self.object).finish_non_exhaustive()
    }
}

impl Output {
    /// Where a sealed segment may be put.
    ///
    /// # Errors
    /// It is not of the form that `agents.proto` says, the store signs no URL, or it cannot be noted.
    pub async fn grant(&self, of: &TaskAccess, said: &v1::Segment) -> Result<Grant, OutputError> {
        let object = uuid::Uuid::new_v4().simple().to_string();
        let segment = read(of, said, &object)?;
        let url = within("sign a URL", self.store.put_url(&segment.object, segment.stored)).await?;
        self.grants.note(By::Task(of), Verb::Put, &segment.object).await.map_err(OutputError::NotNoted)?;
        figures::GRANTS.count();
        Ok(Grant { object, url })
    }

    /// Enters segments that lie in the store into the index: all, or none. How far the logs that they belong to are durable
    /// now.
    ///
    /// # Errors
    /// One is not of the form that `agents.proto` says, does not lie in the store, or contradicts the index.
    pub async fn commit(&self, of: &TaskAccess, said: &[v1::Segment]) -> Result<Vec<LogState>, OutputError> {
        if said.len() > MOST_SEGMENTS {
            let text = format!("one call commits at most {MOST_SEGMENTS} segments, and not {}", said.len());
            return Err(FormError(text).into());
        }
        let read = said.iter().map(|said| read(of, said, &said.object));
        let segments = read.collect::<Result<Vec<_>, _>>()?;
        let checks: Vec<_> = segments.iter().map(|segment| self.check_stored(of, segment).boxed()).collect();
        let () = futures_util::stream::iter(checks).buffer_unordered(PARALLEL).try_collect().await?;
        let holder = Holder { task: &of.task, fence: of.fence };
        let states = self.state.commit_segments(holder, &segments).await?;
        figures::SEGMENTS.add(segments.len() as u64);
        figures::SEGMENT_BYTES.add(segments.iter().map(|segment| segment.end() - segment.start).sum());
        for state in &states {
            self.hub.durable(&of.task, LogName::read(&state.log)?, state.durable);
        }
        Ok(states)
    }

    /// A segment that is in the index already may have been put twice: the object that the index names is the one that counts.
    async fn check_stored(&self, of: &TaskAccess, segment: &Segment) -> Result<(), OutputError> {
        if self.state.has_segment(&of.task, segment).await? {
            return Ok(());
        }
        let found = within("look for an object", self.store.size(&segment.object)).await?;
        if found == Some(segment.stored) {
            return Ok(());
        }
        let (log, start, end) = (segment.log.clone(), segment.start, segment.end());
        Err(OutputError::NotStored { log, start, end, stored: segment.stored, found })
    }

    /// How far each log of a task is durable, and how it ends.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn marks(&self, task: &str) -> Result<Vec<LogState>, OutputError> {
        Ok(self.state.logs(task).await?)
    }
}
