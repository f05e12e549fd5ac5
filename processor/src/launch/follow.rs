//! What stands in Nomad, always: blocking queries, each of which goes on behind the answer before it.
//!
//! ```text
//! GET …?index=N ──▶ an answer ──▶ Seen in a watch ──▶ N = its index, and again after a moment
//!              └──▶ none, or one that is not understood ──▶ said in Standing ──▶ a longer and longer pause, the same N
//! ```
//!
//! What is watched is a whole list, so nothing is missed by a connection that breaks.

use std::collections::{BTreeMap, BTreeSet};
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

/// What is known of Nomad itself. Before its first answer that is nothing, which is not told as well-being.
#[derive(Debug, Default)]
pub struct Standing(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    troubles: BTreeMap<&'static str, (String, Instant)>,
    /// A call has come to something.
    is_known: bool,
    /// Lists that are to be followed, and of which no call has come to anything yet.
    awaited: BTreeSet<&'static str>,
    cluster: Option<Cluster>,
}

impl Standing {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It works, or it does not: then for people, once.
    pub fn note<T>(&self, what: &'static str, outcome: &Result<T, NomadError>) {
        let mut inner = self.inner();
        inner.is_known = true;
        inner.awaited.remove(what);
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

    /// These are followed from now on, and no others are.
    pub fn awaits(&self, lists: &[&'static str]) {
        self.inner().awaited = lists.iter().copied().collect();
    }

    /// What does not work now, or is not known to work yet.
    pub fn troubles(&self) -> Vec<String> {
        let mut inner = self.inner();
        inner.troubles.retain(|_, (_, at)| at.elapsed() < TOLD_FOR);
        let unknown = (!inner.is_known).then(|| "Nomad has not answered yet".to_owned());
        let awaited = inner.awaited.iter().map(|what| format!("Nomad has not told its {what} yet"));
        let troubles = inner.troubles.values().map(|(trouble, _)| trouble.clone());
        unknown.into_iter().chain(awaited).chain(troubles).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nomad_has_not_answered_yet_is_no_well_being() {
        let standing = Standing::default();
        assert_eq!(standing.troubles(), ["Nomad has not answered yet"]);
        standing.note("leader", &Ok(()));
        assert_eq!(standing.troubles(), [""; 0]);
        standing.awaits(&["jobs", "clients"]);
        standing.note("jobs", &Ok(()));
        assert_eq!(standing.troubles(), ["Nomad has not told its clients yet"]);
        let away = NomadError::Away { call: "GET /v1/nodes".to_owned(), why: "refused".to_owned() };
        standing.note::<()>("clients", &Err(away));
        assert_eq!(standing.troubles(), ["GET /v1/nodes: Nomad does not answer: refused"]);
        standing.note("clients", &Ok(()));
        assert_eq!(standing.troubles(), [""; 0]);
        // Another processor follows them now.
        standing.awaits(&["jobs"]);
        standing.awaits(&[]);
        assert_eq!(standing.troubles(), [""; 0]);
    }
}
