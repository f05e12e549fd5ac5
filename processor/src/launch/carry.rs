//! What is asked of Nomad: a class's job, dispatches, ends.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use navvy_job::chain::chain;
use serde_json::{Value, json};

use super::Launcher;
use super::answers::{Dispatched, Evaluation, Job, Taken};
use super::definition::{self, definition, holds, id_prefix};
use super::nomad::{self, NomadError, encoded};
use super::pass::{Listing, Mind, Result};
use super::rows::Launch;

/// Calls that are made at a time.
const AT_ONCE: usize = 8;

impl Launcher {
    pub(super) async fn dispatch_all(
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
        let fails = Mutex::default();
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
        let wanted = definition(&self.settings, parent, launch.into(), launch.size);
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

    /// The parent, where it did not come about. `fails`: of these one did not, so no other of theirs is tried now.
    async fn dispatch(&self, launch: &Launch, fleet: &str, fails: &Mutex<HashSet<String>>) -> Result<Option<String>> {
        let fails = || fails.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_away() || fails().contains(&launch.parent) {
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
        // It is stopped and removed by this name later: no other job's is taken for it.
        let dispatched =
            dispatched.and_then(|dispatched| match dispatched.job.starts_with(&format!("{}/", launch.parent)) {
                true => Ok(dispatched),
                false => {
                    Err(nomad::form(&format!("POST {path}"), "it names a job that was not dispatched from this one"))
                }
            });
        self.note("dispatches", &dispatched);
        match dispatched {
            Ok(Dispatched { job, job_create_index }) => {
                self.rows.dispatched(launch, Some(&job), job_create_index).await?;
                tracing::info!(task = launch.task, "A task was dispatched as Nomad job {job}.");
                Ok(None)
            }
            Err(error) => {
                fails().insert(launch.parent.clone());
                let note = format!("no agent can be asked for: {}", chain(&error));
                if launch.note.as_ref() != Some(&note) {
                    self.rows.noted(launch, Some(&note)).await?;
                }
                Ok(Some(launch.parent.clone()))
            }
        }
    }

    pub(super) async fn evaluations(&self, job: &str) -> Option<Vec<Evaluation>> {
        if self.is_away() {
            return None;
        }
        let asked = self.nomad.get::<Vec<Evaluation>>(&format!("/v1/job/{}/evaluations", encoded(job))).await;
        self.note("evaluations", &asked);
        asked.ok()
    }

    pub(super) async fn stop(&self, job: &Job, purge: bool) -> Result<()> {
        if self.is_away() {
            return Ok(());
        }
        let path = format!("/v1/job/{}?purge={purge}", encoded(&job.id));
        let stopped = self.nomad.delete::<Value>(&path).await;
        match &stopped {
            Ok(_) => tracing::debug!("The Nomad job {} was {}.", job.id, if purge { "removed" } else { "stopped" }),
            // Somebody else was quicker.
            Err(error) if error.is_missing() => return Ok(()),
            Err(error) => tracing::debug!("A Nomad job cannot be stopped: {}.", chain(error)),
        }
        self.note("ends of jobs", &stopped);
        Ok(())
    }
}
