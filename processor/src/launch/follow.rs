//! What stands in Nomad, always: blocking queries, each of which goes on behind the answer before it.
//!
//! ```text
//! GET …?index=N ──▶ an answer ──▶ Seen in a watch ──▶ N = its index, and again after a moment
//!              └──▶ none, or one that is not understood ──▶ said in Standing ──▶ a longer and longer pause, the same N
//! ```
//!
//! What is watched is a whole list, so nothing is missed by a connection that breaks.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use super::figures::Cluster;
use super::nomad::{Answer, Nomad, NomadError};

/// Changes that come within this are one: a list of all jobs is not read for each of them.
const GATHER: Duration = Duration::from_millis(200);
/// Pauses after failures: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// A call that failed, and that is not wanted again, is told for so long. Those that are made all the time fail more often.
const TOLD_FOR: Duration = Duration::from_secs(120);

/// What is known of Nomad itself.
#[derive(Debug, Default)]
pub struct Standing(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    troubles: BTreeMap<&'static str, (String, Instant)>,
    cluster: Option<Cluster>,
}

impl Standing {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It works, or it does not: then for people, once.
    pub fn note<T>(&self, what: &'static str, outcome: &Result<T, NomadError>) {
        let mut inner = self.inner();
        let Err(error) = outcome else {
            if inner.troubles.remove(what).is_some() {
                tracing::info!("Nomad can be asked for its {what} again.");
            }
            return;
        };
        let trouble = navvy_job::chain::chain(error);
        if inner.troubles.insert(what, (trouble.clone(), Instant::now())).is_none() {
            tracing::warn!("Nomad cannot be asked for its {what}: {trouble}. It is tried again.");
        }
    }

    /// What does not work now.
    pub fn troubles(&self) -> Vec<String> {
        let mut inner = self.inner();
        inner.troubles.retain(|_, (_, at)| at.elapsed() < TOLD_FOR);
        inner.troubles.values().map(|(trouble, _)| trouble.clone()).collect()
    }

    /// Figures of the cluster, by the processor that launches.
    pub fn set_cluster(&self, cluster: Option<Cluster>) {
        self.inner().cluster = cluster;
    }

    /// The last ones.
    pub fn cluster(&self) -> Option<Cluster> {
        self.inner().cluster.clone()
    }
}

/// Keeps a watch up to date, as long as it is polled. Until the first answer there is `None` in it.
pub async fn follow<T: DeserializeOwned>(
    nomad: &Nomad,
    standing: &Standing,
    (what, path): (&'static str, &str),
    seen: watch::Sender<Option<Answer<T>>>,
) {
    let (mut index, mut pause) = (0, PAUSES.0);
    loop {
        let answered = nomad.next(path, index).await;
        standing.note(what, &answered);
        match answered {
            Ok(answer) => {
                // An index that falls is another state of Nomad's than the one before.
                let is_new = answer.index != index;
                index = if answer.index < index { 0 } else { answer.index };
                if is_new || seen.borrow().is_none() {
                    seen.send_replace(Some(answer));
                }
                pause = PAUSES.0;
                tokio::time::sleep(GATHER).await;
            }
            Err(_) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}
