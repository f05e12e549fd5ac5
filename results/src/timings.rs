//! What the jobs of one run learn of earlier runs: the same for all nodes of a job, whenever they ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use navvy_job::chain::chain;
use tokio::sync::OnceCell;

use super::keep::Keeper;

/// A job starts without timings rather than later than this.
const PATIENCE: Duration = Duration::from_secs(15);

/// Timings of earlier runs, by job. Cheap to clone; clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Timings(Arc<Mutex<HashMap<String, Arc<OnceCell<TimingsSent>>>>>);

/// Once said, it stays: nodes that got different answers would leave tests out.
type TimingsSent = Result<Option<Bytes>, String>;

impl Timings {
    /// `results.json` for a job of the run `run`. An error is for people: then no node has any.
    pub async fn of(
        &self,
        keeper: Result<Keeper, impl std::error::Error>,
        job: &str,
        branch: Option<&str>,
        run: &str,
    ) -> Result<Option<Bytes>, String> {
        let cell = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(job.to_owned()).or_default())
        };
        let ask = async || {
            let keeper = keeper.map_err(|error| chain(&error))?;
            match tokio::time::timeout(PATIENCE, keeper.timings(job, branch, run)).await {
                Ok(Ok(bytes)) => Ok(bytes.map(Bytes::from)),
                Ok(Err(error)) => Err(chain(&error)),
                Err(_) => Err(format!("the store did not answer within {PATIENCE:?}")),
            }
        };
        cell.get_or_init(ask).await.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Case;
    use super::super::keep::{Whose, document};
    use super::*;
    use navvy_storage::{Bucket, StorageError, StorageSettings, Store};

    #[tokio::test]
    async fn all_nodes_of_a_job_are_told_the_same() {
        let room = tempfile::tempdir().unwrap();
        let bucket = Arc::new(Bucket::directory(room.path()).unwrap());
        let shape = StorageSettings::directory(room.path()).shape;
        let keeper = Keeper::new(Store::direct(bucket, "shop", "local".parse().unwrap(), shape));
        let timings = Timings::default();
        let ask =
            async |timings: &Timings| timings.of(Ok::<_, StorageError>(keeper.clone()), "test", None, "one").await;
        assert_eq!(ask(&timings).await, Ok(None));
        let case = Case { name: "a".into(), micros: Some(5), ..Case::default() };
        let whose = Whose { job: "test".into(), run: "another".into(), attempt: 1, ..Whose::default() };
        keeper.put(&whose, document(&[case])).await.unwrap();
        assert_eq!(ask(&timings.clone()).await, Ok(None), "a node that starts later");
        assert!(ask(&Timings::default()).await.unwrap().is_some());
        let none = Timings::default();
        let closed = || StorageError::NoRoom("deep".into());
        let why = none.of(Err(closed()), "test", None, "one").await;
        assert_eq!(why, Err(closed().to_string()));
        assert_eq!(ask(&none).await, why);
    }
}
