//! Tasks launched through Nomad: a parameterized batch job for each resource class, a dispatched job for each task.
//!
//! ```text
//!           ┌── opened: row and token's hash ──▶ dispatched: the job's id ──▶ its agent claims ──▶ the task ends ──▶ purged, forgotten
//! queued ───┤        │ crash: the same token derives again, and Nomad knows the dispatch by its idempotency token
//!           └── noted: why it waits
//!
//! Nomad ──blocking queries──▶ lists of jobs and clients ─┐
//! database ── launches with their tasks ─────────────────┴─▶ decide, one move for each launch ─▶ calls, rows
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`nomad`], [`answers`] | calls, and what is understood of their answers |
//! | [`definition`] | the job of a class; names |
//! | `follow` | lists that are always new |
//! | [`rows`] | launches in the database |
//! | [`leading`] | one processor of several launches |
//! | [`decide`], [`room`] | what is to be done; why a task waits. Pure |
//! | [`pass`], [`carry`] | one look at everything, and what follows from it; the calls for that |
//! | [`figures`] | what operators are told |

mod answers;
mod carry;
mod decide;
mod definition;
pub mod figures;
mod follow;
mod leading;
mod nomad;
mod pass;
mod room;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use navvy_job::chain::chain;
use navvy_storage::{Proxies, TransportError};
use tokio::sync::watch;

use crate::claims::Claims;
use crate::settings::NomadSettings;
use answers::{Allocation, Job, Node};
use follow::{Standing, follow};
use leading::Lead;
use nomad::{Answer, Nomad, NomadError, encoded};
use pass::Mind;
use rows::Rows;

/// Between two looks if nobody says that something changed: another processor may have queued a task.
const LOOK: Duration = Duration::from_secs(2);
/// What comes within this is looked at together.
const GATHER: Duration = Duration::from_millis(50);
/// Between two tries to be the one who launches.
const LEAD_AGAIN: Duration = Duration::from_secs(5);
/// An agent's report does not wait longer for Nomad to say why it was stopped.
const ASKED: Duration = Duration::from_secs(3);

/// One and a half heartbeats.
const SILENT: Duration = Duration::from_secs(15);

/// Lists that are followed.
const JOBS: (&str, &str) = ("jobs", "/v1/jobs?prefix=navvy-&meta=true");
const NODES: (&str, &str) = ("clients", "/v1/nodes?resources=true");

/// Launches tasks.
pub struct Launcher {
    nomad: Nomad,
    settings: NomadSettings,
    claims: Claims,
    rows: Rows,
    /// Where agents find this processor.
    processor: String,
    standing: Standing,
    /// A call of this pass had no answer: the next ones are left to the next pass.
    away: AtomicBool,
    /// An agent that misses this much of its heartbeats, and whose client Nomad lost, is lost.
    silent: Duration,
}

/// What Nomad's lists say, once they have been read.
struct Lists {
    jobs: watch::Receiver<Option<Answer<Vec<Job>>>>,
    nodes: watch::Receiver<Option<Answer<Vec<Node>>>>,
}

impl Launcher {
    /// Calls nobody yet. `processor`: the URL under which agents find it.
    ///
    /// # Errors
    /// A certificate, a key or a proxy that cannot be read.
    pub fn new(
        settings: NomadSettings,
        proxies: &Proxies,
        claims: Claims,
        processor: String,
    ) -> Result<Arc<Self>, TransportError> {
        let nomad = Nomad::new(&settings, proxies)?;
        let rows = Rows::new(claims.conductor().state().clone(), claims.secrets().clone());
        let (standing, away, silent) = (Standing::default(), AtomicBool::new(false), SILENT);
        Ok(Arc::new(Self { nomad, settings, claims, rows, processor, standing, away, silent }))
    }

    /// How a call went.
    fn note<T>(&self, what: &'static str, outcome: &Result<T, NomadError>) {
        if matches!(outcome, Err(NomadError::Away { .. })) {
            self.away.store(true, Ordering::Relaxed);
        }
        self.standing.note(what, outcome);
    }

    /// How Nomad stands.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Launches, or waits for its turn to, as long as it is polled.
    pub async fn run(&self) {
        loop {
            match Lead::take(self.claims.conductor().state()).await {
                Ok(Some(lead)) => self.lead(lead).await,
                Ok(None) => {
                    // Whoever does not launch still says whether it could.
                    let leader = self.nomad.get::<String>("/v1/status/leader").await;
                    self.note("leader", &leader);
                }
                Err(error) => tracing::warn!("Who launches tasks cannot be settled: {}.", chain(&error)),
            }
            tokio::time::sleep(LEAD_AGAIN).await;
        }
    }

    /// Until another processor may have the lock.
    async fn lead(&self, lead: Lead) {
        tracing::info!("This processor launches tasks through Nomad at {}.", self.settings.address);
        self.standing.awaits(&[JOBS.0, NODES.0]);
        let (jobs_sender, jobs) = watch::channel(None);
        let (nodes_sender, nodes) = watch::channel(None);
        let following = async {
            tokio::join!(
                follow::<Vec<Job>>(&self.nomad, &self.standing, JOBS, jobs_sender),
                follow::<Vec<Node>>(&self.nomad, &self.standing, NODES, nodes_sender),
            );
        };
        tokio::select! {
            () = following => {}
            () = self.passes(lead, Lists { jobs, nodes }) => {}
        }
        self.standing.awaits(&[]);
        self.standing.set_cluster(None);
        tracing::warn!("This processor lost the lock by which it launches tasks; it tries to get it again.");
    }

    async fn passes(&self, mut lead: Lead, mut lists: Lists) {
        let mut mind = Mind::default();
        let queued = self.claims.conductor().signals.queued.clone();
        while lead.holds().await {
            let told = queued.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if let Err(error) = self.pass(&mut lists, &mut mind).await {
                tracing::warn!("Launches could not be looked at: {}.", chain(&error));
            }
            tokio::select! {
                () = told => {}
                Ok(()) = lists.jobs.changed() => {}
                Ok(()) = lists.nodes.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Was this agent stopped because its client is drained? Any processor may be asked, whoever launches.
    pub async fn was_drained(&self, task: &str, fence: u64) -> bool {
        let seen = match self.rows.of(task, fence).await {
            Ok(Some(launch)) => launch,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(task, "Why a task was stopped cannot be read: {}.", chain(&error));
                return false;
            }
        };
        let Some(job) = &seen.job else { return seen.drained };
        let path = format!("/v1/job/{}/allocations", encoded(job));
        match tokio::time::timeout(ASKED, self.nomad.get::<Vec<Allocation>>(&path)).await {
            Ok(Ok(allocations)) => match allocations.iter().max_by_key(|one| one.create_index) {
                // It was stopped by something else, or by nobody.
                Some(newest) => newest.desired_transition.migrate == Some(true),
                None => seen.drained,
            },
            Ok(Err(_)) | Err(_) => seen.drained,
        }
    }
}
