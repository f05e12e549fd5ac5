//! One look at all launches, and what follows from it: one move for each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use navvy_job::chain::chain;
use navvy_job::outcome::{CancelReason, Verdict};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answers::{Allocation, Dispatched, Evaluation, Job, JobStatus, Node, Taken};
use super::decide::{Judged, Listed, Move, Stands, decide, judge};
use super::definition::{self, definition, holds, id_prefix, parent_id};
use super::figures::Cluster;
use super::nomad::{NomadError, encoded};
use super::room::{Used, Wanted, why};
use super::rows::Launch;
use super::{Launcher, Lists};
use crate::claims::ClaimError;
use crate::state::StateError;

/// Calls that are made at a time.
const AT_ONCE: usize = 8;
/// Jobs of which nothing is written down, and that are removed in one pass.
const MOST_STRAYS: usize = 20;
/// An agent that has reported gets so long to leave.
const LEAVING: Duration = Duration::from_secs(60);
/// A canceled task's agent that does not report gets so long: grace of its steps, uploads.
const CANCELING: Duration = Duration::from_secs(180);
/// Between two looks at what is used of each client.
const USED_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at a job that is not as it should be, if nothing of it changes.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Pauses of dispatching after it failed: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Short for what this module returns.
type Result<T, E = ClaimError> = std::result::Result<T, E>;

/// What is remembered from pass to pass. Nothing hangs on it: whoever leads next begins with an empty one.
#[derive(Default)]
pub(super) struct Mind {
    /// At which index each class's job was found to be right, and as what.
    registered: HashMap<String, (u64, Value)>,
    /// Since when something has been so: by job and what.
    since: HashMap<(String, &'static str), (i64, Instant)>,
    /// When a job was looked at, and what its summary's index was.
    looked: HashMap<String, (u64, Instant)>,
    used: Used,
    used_at: Option<Instant>,
    /// No dispatch before this, and the pause after the next failure.
    dispatching: Option<(Instant, Duration)>,
}

impl Mind {
    /// How long has it been so? `mark`: it begins anew when this changes.
    fn since(&mut self, job: &str, what: &'static str, mark: i64) -> Duration {
        let entry = self.since.entry((job.to_owned(), what)).or_insert_with(|| (mark, Instant::now()));
        if entry.0 != mark {
            *entry = (mark, Instant::now());
        }
        entry.1.elapsed()
    }

    fn may_look(&mut self, job: &Job) -> bool {
        let index = job.job_summary.modify_index;
        let seen = self.looked.get(&job.id);
        let may = seen.is_none_or(|(at, when)| *at != index || when.elapsed() >= LOOK_AGAIN);
        if may {
            self.looked.insert(job.id.clone(), (index, Instant::now()));
        }
        may
    }

    fn may_dispatch(&self) -> bool {
        self.dispatching.is_none_or(|(after, _)| Instant::now() >= after)
    }

    fn dispatched(&mut self, failed: bool) {
        self.dispatching = failed.then(|| {
            let pause = self.dispatching.map_or(PAUSES.0, |(_, pause)| (pause * 2).min(PAUSES.1));
            (Instant::now() + pause, pause)
        });
    }

    fn forget_others(&mut self, jobs: &Listing<'_>) {
        self.since.retain(|(job, _), _| jobs.by_id.contains_key(job.as_str()));
        self.looked.retain(|job, _| jobs.by_id.contains_key(job.as_str()));
    }
}

/// Nomad's jobs, by what they are looked for.
struct Listing<'a> {
    index: u64,
    by_id: HashMap<&'a str, &'a Job>,
    /// Those of this database: task and attempt.
    ours: BTreeMap<(&'a str, &'a str), &'a Job>,
}

impl<'a> Listing<'a> {
    fn of(index: u64, jobs: &'a [Job], fleet: &str) -> Self {
        let meta = |job: &'a Job, key: &str| job.meta.get(key).map(String::as_str);
        let ours = jobs.iter().filter(|job| !job.parent.is_empty() && meta(job, "fleet") == Some(fleet));
        let ours = ours.filter_map(|job| Some(((meta(job, "task")?, meta(job, "attempt")?), job))).collect();
        Self { index, by_id: jobs.iter().map(|job| (job.id.as_str(), job)).collect(), ours }
    }

    fn listed(&self, launch: &Launch) -> Listed<'a> {
        let job = match &launch.job {
            Some(id) => self.by_id.get(id.as_str()).copied(),
            None => self.ours.get(&(launch.task.as_str(), launch.attempt.to_string().as_str())).copied(),
        };
        Listed { index: self.index, job, has_parent: self.by_id.contains_key(launch.parent.as_str()) }
    }
}

impl Launcher {
    pub(super) async fn pass(&self, lists: &mut Lists, mind: &mut Mind) -> Result<()> {
        let Some(jobs) = lists.jobs.borrow_and_update().clone() else { return Ok(()) };
        let nodes = lists.nodes.borrow_and_update().clone().map(|nodes| nodes.value);
        let fleet = self.rows.fleet().await?;
        let listing = Listing::of(jobs.index, &jobs.value, &fleet);
        mind.forget_others(&listing);
        self.away.store(false, Ordering::Relaxed);
        for waiting in self.rows.waiting(&self.settings.classes).await? {
            self.rows.open(&waiting, &parent_id("docker", &waiting.class)).await?;
        }
        let launches = self.rows.all().await?;
        self.mark_drained(&launches, nodes.as_deref()).await?;
        let (mut dispatches, mut waits) = (Vec::new(), Vec::new());
        for launch in &launches {
            match decide(launch, listing.listed(launch)) {
                Move::Dispatch => dispatches.push(launch),
                Move::Explain => waits.push(launch),
                other => {
                    // One that cannot be ended holds up no other.
                    if let Err(error) = self.make(launch, other, &listing, mind).await {
                        tracing::warn!(task = launch.task, "A launch cannot be gone on with: {}.", chain(&error));
                    }
                }
            }
        }
        self.dispatch_all(&dispatches, &listing, &fleet, mind).await?;
        self.refresh_used(nodes.as_deref(), mind).await;
        if let Some(nodes) = &nodes {
            self.explain(&waits, nodes, mind).await?;
        }
        self.remove_strays(&launches, &listing).await;
        self.standing.set_cluster(Some(Cluster::of(&jobs.value, nodes.as_deref().unwrap_or_default(), &mind.used)));
        Ok(())
    }

    async fn make(&self, launch: &Launch, made: Move, listing: &Listing<'_>, mind: &mut Mind) -> Result<()> {
        let job = listing.listed(launch).job;
        match (made, job) {
            (Move::Adopt(id, index), _) => Ok(self.rows.dispatched(launch, Some(&id), index).await?),
            (Move::Again, _) => {
                tracing::warn!(task = launch.task, "Nomad has forgotten the job of a task: it is dispatched again.");
                Ok(self.rows.dispatched(launch, None, 0).await?)
            }
            (Move::Look, Some(job)) if mind.may_look(job) => self.look(launch, job, mind).await,
            (Move::Stop, Some(job)) => Ok(self.stop(job, false).await),
            (Move::StopLater, Some(job)) => {
                if mind.since(&job.id, "leaving", 0) >= LEAVING {
                    self.stop(job, false).await;
                }
                Ok(())
            }
            (Move::Purge, Some(job)) => Ok(self.stop(job, true).await),
            (Move::Forget, _) => Ok(self.rows.forget(launch).await?),
            (Move::Cancel(why), _) => self.cancel(launch, &why).await,
            (Move::Nothing, Some(job)) if launch.canceling && launch.stands() == Stands::Running => {
                if mind.since(&job.id, "canceling", 0) >= CANCELING && !job.stop {
                    self.stop(job, false).await;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// What a job's allocations say decides.
    async fn look(&self, launch: &Launch, job: &Job, mind: &mut Mind) -> Result<()> {
        if self.is_away() {
            return Ok(());
        }
        let asked = self.nomad.get::<Vec<Allocation>>(&format!("/v1/job/{}/allocations", encoded(&job.id))).await;
        self.note("allocations", &asked);
        let Ok(allocations) = asked else { return Ok(()) };
        let evaluations = match allocations.is_empty() && job.status == JobStatus::Dead {
            true => self.evaluations(&job.id).await.unwrap_or_default(),
            false => Vec::new(),
        };
        match judge(launch, job, &allocations, &evaluations) {
            Judged::Nothing => Ok(()),
            Judged::On(client) => {
                if launch.note.is_some() {
                    self.rows.noted(launch, None).await?;
                }
                if launch.client.as_deref() != Some(client.as_str()) {
                    self.rows.placed(launch, &client).await?;
                }
                Ok(())
            }
            Judged::Relaunch => {
                if self.rows.close(launch).await? {
                    tracing::warn!(
                        task = launch.task,
                        "The client of a task's agent was lost or drained: another is launched."
                    );
                }
                Ok(())
            }
            Judged::Fault(fault) => {
                tracing::warn!(task = launch.task, "A task ends as a fault of the infrastructure: {fault}.");
                let verdict = Verdict::Infra { fault: fault.clone() };
                self.claims.end_unstarted(&launch.task, launch.handed, verdict, &fault).await.map(drop)
            }
            Judged::Cancel(why) => self.cancel(launch, &why).await,
            Judged::Gone(why) => self.claims.lose(&launch.task, launch.fence, launch.beats, Some(&why)).await,
            // Before its steps began it would be handed out again: only a lease that has run out says that nobody has it any more.
            Judged::Unheard(why) if launch.begun => match mind.since(&job.id, "silent", launch.beats) >= self.silent {
                true => self.claims.lose(&launch.task, launch.fence, launch.beats, Some(&why)).await,
                false => Ok(()),
            },
            Judged::Unheard(_) => Ok(()),
        }
    }

    async fn cancel(&self, launch: &Launch, why: &str) -> Result<()> {
        tracing::info!(task = launch.task, "A task is canceled: {why}.");
        let verdict = Verdict::Canceled { reason: CancelReason::User };
        self.claims.end_unstarted(&launch.task, launch.handed, verdict, why).await.map(drop)
    }

    async fn mark_drained(&self, launches: &[Launch], nodes: Option<&[Node]>) -> Result<(), StateError> {
        let Some(nodes) = nodes else { return Ok(()) };
        let drained: HashSet<&str> = nodes.iter().filter(|node| node.drain).map(|node| node.id.as_str()).collect();
        for launch in launches {
            // Once seen it stays: a drain that is over has stopped what it was to stop.
            let is = launch.client.as_deref().is_some_and(|client| drained.contains(client));
            if is && !launch.drained {
                self.rows.drained(launch, true).await?;
            }
        }
        Ok(())
    }

    async fn dispatch_all(
        &self,
        launches: &[&Launch],
        listing: &Listing<'_>,
        fleet: &str,
        mind: &mut Mind,
    ) -> Result<()> {
        if launches.is_empty() || !mind.may_dispatch() || self.is_away() {
            return Ok(());
        }
        let mut parents = HashMap::new();
        for launch in launches {
            parents.entry(launch.parent.as_str()).or_insert(*launch);
        }
        let mut failed = false;
        let mut ready = HashSet::new();
        for (parent, launch) in parents {
            match self.register(parent, launch, listing, mind).await {
                true => drop(ready.insert(parent)),
                false => failed = true,
            }
        }
        let fails = AtomicBool::new(false);
        let mut calls: Vec<BoxFuture<'_, Result<Option<String>>>> = Vec::new();
        for launch in launches {
            if ready.contains(launch.parent.as_str()) {
                calls.push(Box::pin(self.dispatch(launch, fleet, &fails)));
            }
        }
        let mut dispatching = stream::iter(calls).buffer_unordered(AT_ONCE);
        while let Some(outcome) = dispatching.next().await {
            if let Some(parent) = outcome? {
                // It may have been removed, or stopped.
                mind.registered.remove(&parent);
                failed = true;
            }
        }
        mind.dispatched(failed);
        Ok(())
    }

    /// Sees to it that the class's job is in Nomad as it should be.
    async fn register(&self, parent: &str, launch: &Launch, listing: &Listing<'_>, mind: &mut Mind) -> bool {
        let wanted = definition(&self.settings, parent, &launch.class, launch.size);
        let listed = listing.by_id.get(parent).filter(|job| !job.stop).map(|job| job.job_modify_index);
        let known = mind.registered.get(parent);
        if known.is_some_and(|(index, as_what)| *as_what == wanted && listed.is_none_or(|listed| listed <= *index)) {
            return true;
        }
        let registered = self.registered(parent, &wanted).await;
        self.note("job of a class", &registered);
        match registered {
            Ok(index) => {
                mind.registered.insert(parent.to_owned(), (index, wanted));
                true
            }
            Err(_) => false,
        }
    }

    async fn registered(&self, parent: &str, wanted: &Value) -> Result<u64, NomadError> {
        let path = format!("/v1/job/{}", encoded(parent));
        match self.nomad.get::<Value>(&path).await {
            Ok(found) if holds(wanted, &found) => {
                return Ok(found.get("JobModifyIndex").and_then(Value::as_u64).unwrap_or(0));
            }
            Ok(_) => tracing::info!("The Nomad job {parent} is not as it should be: it is registered again."),
            Err(error) if error.is_missing() => tracing::info!("The Nomad job {parent} is registered."),
            Err(error) => return Err(error),
        }
        let taken: Taken = self.nomad.post("/v1/jobs", &json!({ "Job": wanted })).await?;
        Ok(taken.index)
    }

    /// The parent, where it did not come about. `fails`: one did not, so no other is tried now.
    async fn dispatch(&self, launch: &Launch, fleet: &str, fails: &AtomicBool) -> Result<Option<String>> {
        if fails.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(token) = self.rows.token(launch) else {
            tracing::warn!(task = launch.task, "The key of a launch token is not here any more: another is made.");
            return self.rows.close(launch).await.map(|_| None).map_err(Into::into);
        };
        let prefix = id_prefix(&launch.task, launch.node, &launch.slug, launch.number);
        let attempt = launch.attempt.to_string();
        let meta = [launch.task.as_str(), &self.processor, fleet, &attempt];
        let body = definition::dispatch(&STANDARD.encode(token), &prefix, meta);
        let (parent, idempotent) = (encoded(&launch.parent), encoded(&format!("{}-{attempt}", launch.task)));
        let path = format!("/v1/job/{parent}/dispatch?idempotency_token={idempotent}");
        let dispatched = self.nomad.post::<Dispatched>(&path, &body).await;
        self.note("dispatches", &dispatched);
        match dispatched {
            Ok(Dispatched { job, job_create_index }) => {
                self.rows.dispatched(launch, Some(&job), job_create_index).await?;
                tracing::info!(task = launch.task, "A task was dispatched as Nomad job {job}.");
                Ok(None)
            }
            Err(_) => {
                fails.store(true, Ordering::Relaxed);
                Ok(Some(launch.parent.clone()))
            }
        }
    }

    /// What is used of each client, now and then.
    async fn refresh_used(&self, nodes: Option<&[Node]>, mind: &mut Mind) {
        if nodes.is_none() || self.is_away() || mind.used_at.is_some_and(|at| at.elapsed() < USED_EVERY) {
            return;
        }
        // Whatever namespace it is in, it takes room.
        let alive = encoded(r#"ClientStatus == "pending" or ClientStatus == "running" or ClientStatus == "unknown""#);
        let path = format!("/v1/allocations?namespace=*&resources=true&task_states=false&filter={alive}");
        let asked = self.nomad.get::<Vec<Allocation>>(&path).await;
        self.note("allocations of all clients", &asked);
        if let Ok(allocations) = asked {
            mind.used = Used::of(&allocations);
            mind.used_at = Some(Instant::now());
        }
    }

    /// Tasks of one class wait for the same reason.
    async fn explain(&self, waits: &[&Launch], nodes: &[Node], mind: &mut Mind) -> Result<()> {
        let mut classes: BTreeMap<&str, Vec<&Launch>> = BTreeMap::new();
        for launch in waits {
            classes.entry(&launch.parent).or_default().push(launch);
        }
        for launches in classes.into_values() {
            let Some(Launch { job: Some(oldest), size, .. }) = launches.first() else { continue };
            if mind.looked.get(oldest).is_some_and(|(_, at)| at.elapsed() < LOOK_AGAIN) {
                continue;
            }
            mind.looked.insert(oldest.clone(), (0, Instant::now()));
            let Some(evaluations) = self.evaluations(oldest).await else { continue };
            let (node_class, datacenters) = (self.settings.node_class.as_deref(), &*self.settings.datacenters);
            let note = why(Wanted { size: *size, node_class, datacenters }, nodes, &mind.used, &evaluations);
            for launch in launches.iter().filter(|launch| launch.note != note) {
                self.rows.noted(launch, note.as_deref()).await?;
            }
            if let Some(note) = note.filter(|note| launches.iter().any(|launch| launch.note.as_ref() != Some(note))) {
                tracing::info!("{} tasks of class {} wait: {note}.", launches.len(), launches[0].class);
            }
        }
        Ok(())
    }

    async fn evaluations(&self, job: &str) -> Option<Vec<Evaluation>> {
        if self.is_away() {
            return None;
        }
        let asked = self.nomad.get::<Vec<Evaluation>>(&format!("/v1/job/{}/evaluations", encoded(job))).await;
        self.note("evaluations", &asked);
        asked.ok()
    }

    async fn stop(&self, job: &Job, purge: bool) {
        if self.is_away() {
            return;
        }
        let path = format!("/v1/job/{}?purge={purge}", encoded(&job.id));
        let stopped = self.nomad.delete::<Value>(&path).await;
        match &stopped {
            Ok(_) => tracing::debug!("The Nomad job {} was {}.", job.id, if purge { "removed" } else { "stopped" }),
            // Somebody else was quicker.
            Err(error) if error.is_missing() => return,
            Err(error) => tracing::debug!("A Nomad job cannot be stopped: {}.", chain(error)),
        }
        self.note("ends of jobs", &stopped);
    }

    /// Jobs of this database of which nothing is written down here: what a processor left that crashed.
    async fn remove_strays(&self, launches: &[Launch], listing: &Listing<'_>) {
        let known: HashSet<(&str, String)> =
            launches.iter().map(|launch| (launch.task.as_str(), launch.attempt.to_string())).collect();
        let strays =
            listing.ours.iter().filter(|((task, attempt), _)| !known.contains(&(*task, (*attempt).to_owned())));
        let strays: Vec<&&Job> = strays.map(|(_, job)| job).take(MOST_STRAYS).collect();
        for job in strays {
            match job.status {
                JobStatus::Dead => self.stop(job, true).await,
                _ if job.stop => {}
                _ => self.stop(job, false).await,
            }
        }
    }
}
