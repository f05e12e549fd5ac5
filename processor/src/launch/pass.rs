//! One look at all launches, and what follows from it: one move for each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use navvy_job::chain::chain;
use navvy_job::outcome::{CancelReason, Verdict};
use serde_json::Value;
use tokio::time::Instant;

use super::answers::{Allocation, Job, JobStatus, Node};
use super::decide::{Judged, Listed, Move, Stands, decide, judge};
use super::definition::{executor_word, parent_id};
use super::figures::Cluster;
use super::nomad::encoded;
use super::room::{Used, Wanted, why};
use super::rows::Launch;
use super::{Launcher, Lists};
use crate::claims::ClaimError;
use crate::state::StateError;

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
/// Readers of a pipeline hear of a job that waits at most so often.
const TELL_AGAIN: Duration = Duration::from_secs(30);
/// Pauses of dispatching after it failed: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Short for what this module returns.
pub(super) type Result<T, E = ClaimError> = std::result::Result<T, E>;

/// What is remembered from pass to pass. Nothing hangs on it: whoever leads next begins with an empty one.
#[derive(Default)]
pub(super) struct Mind {
    /// At which index each class's job was found to be right, and as what.
    pub registered: HashMap<String, (u64, Value)>,
    /// Since when something has been so: by job and what.
    since: HashMap<(String, &'static str), Since>,
    /// When a job was looked at, and what its summary's index was.
    looked: HashMap<String, (u64, Instant)>,
    /// When readers of a job's pipeline were told why it waits.
    told: HashMap<String, Instant>,
    used: Used,
    used_at: Option<Instant>,
    /// No dispatch before this, and the pause after the next failure.
    dispatching: Option<(Instant, Duration)>,
}

/// How long something has been so.
struct Since {
    mark: i64,
    lasted: Duration,
    looked: Instant,
}

impl Since {
    fn new(mark: i64, now: Instant) -> Self {
        Self { mark, lasted: Duration::ZERO, looked: now }
    }
}

impl Mind {
    /// Has it been so for that long? `mark`: it begins anew when this changes.
    fn is_so_for(&mut self, job: &str, what: &'static str, mark: i64, limit: Duration) -> bool {
        let now = Instant::now();
        let since = self.since.entry((job.to_owned(), what)).or_insert_with(|| Since::new(mark, now));
        if since.mark != mark {
            *since = Since::new(mark, now);
        }
        // Time in which nobody looked says little: a processor that stood still, or waited for its database or for Nomad, has not
        // heard what was said meanwhile.
        since.lasted += (now - since.looked).min(limit / 4);
        since.looked = now;
        since.lasted >= limit
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

    /// Of the nodes of a job one is told of, and not whenever a figure changes.
    fn may_tell(&mut self, of_job: &str) -> bool {
        self.told.retain(|_, at| at.elapsed() < TELL_AGAIN);
        let may = !self.told.contains_key(of_job);
        if may {
            self.told.insert(of_job.to_owned(), Instant::now());
        }
        may
    }

    pub fn may_dispatch(&self) -> bool {
        self.dispatching.is_none_or(|(after, _)| Instant::now() >= after)
    }

    pub fn dispatched(&mut self, failed: bool) {
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
pub(super) struct Listing<'a> {
    index: u64,
    pub by_id: HashMap<&'a str, &'a Job>,
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
            self.rows
                .open(&waiting, &parent_id(executor_word(waiting.executor, waiting.has_machine), &waiting.class))
                .await?;
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
        self.refresh_used(nodes.as_deref(), !waits.is_empty(), mind).await;
        if let Some(nodes) = &nodes {
            self.explain(&waits, nodes, mind).await?;
        }
        self.remove_strays(&launches, &listing).await?;
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
            (Move::Stop, Some(job)) => self.stop(job, false).await,
            (Move::StopLater, Some(job)) => {
                if !mind.is_so_for(&job.id, "leaving", 0, LEAVING) {
                    return Ok(());
                }
                self.stop(job, false).await
            }
            (Move::Purge, Some(job)) => self.stop(job, true).await,
            (Move::Forget, _) => Ok(self.rows.forget(launch).await?),
            (Move::Cancel(why), _) => self.cancel(launch, &why).await,
            (Move::Nothing, Some(job)) if launch.canceling && launch.stands() == Stands::Running => {
                if !mind.is_so_for(&job.id, "canceling", 0, CANCELING) || job.stop {
                    return Ok(());
                }
                self.stop(job, false).await
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_away(&self) -> bool {
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
            Judged::Unheard(why) if launch.begun => {
                match mind.is_so_for(&job.id, "silent", launch.beats, self.silent) {
                    true => self.claims.lose(&launch.task, launch.fence, launch.beats, Some(&why)).await,
                    false => Ok(()),
                }
            }
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

    /// What is used of each client, now and then; oftener while something waits for what is not.
    async fn refresh_used(&self, nodes: Option<&[Node]>, something_waits: bool, mind: &mut Mind) {
        let every = if something_waits { LOOK_AGAIN / 2 } else { USED_EVERY };
        if nodes.is_none() || self.is_away() || mind.used_at.is_some_and(|at| at.elapsed() < every) {
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
            let Some(Launch { job: Some(oldest), size, class, .. }) = launches.first() else { continue };
            if mind.looked.get(oldest).is_some_and(|(_, at)| at.elapsed() < LOOK_AGAIN) {
                continue;
            }
            mind.looked.insert(oldest.clone(), (0, Instant::now()));
            let Some(evaluations) = self.evaluations(oldest).await else { continue };
            let (node_class, datacenters) = (self.settings.node_class.as_deref(), &*self.settings.datacenters);
            let note = why(Wanted { size: *size, node_class, datacenters }, nodes, &mind.used, &evaluations);
            let others: Vec<&&Launch> = launches.iter().filter(|launch| launch.note != note).collect();
            for launch in &others {
                self.rows.noted(launch, note.as_deref()).await?;
                if let Some(note) = note.as_deref().filter(|_| mind.may_tell(&launch.of_job)) {
                    self.claims.tell_waiting(&launch.task, note).await?;
                }
            }
            if let (Some(note), false) = (note, others.is_empty()) {
                let count = match launches.len() {
                    1 => "A task".to_owned(),
                    count => format!("{count} tasks"),
                };
                tracing::info!("{count} of class {class} in the queue: {note}.");
            }
        }
        Ok(())
    }

    /// Jobs of this database of which nothing is written down here: what a processor left that crashed.
    async fn remove_strays(&self, launches: &[Launch], listing: &Listing<'_>) -> Result<()> {
        let known: HashSet<(&str, String)> =
            launches.iter().map(|launch| (launch.task.as_str(), launch.attempt.to_string())).collect();
        let strays =
            listing.ours.iter().filter(|((task, attempt), _)| !known.contains(&(*task, (*attempt).to_owned())));
        let strays: Vec<&&Job> = strays.map(|(_, job)| job).take(MOST_STRAYS).collect();
        for job in strays {
            match job.status {
                JobStatus::Dead => self.stop(job, true).await?,
                _ if job.stop => {}
                _ => self.stop(job, false).await?,
            }
        }
        Ok(())
    }
}
