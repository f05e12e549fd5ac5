//! The step `store_test_results`, and what earlier runs of it are good for.

use std::borrow::Cow;

use navvy_job::chain::chain;
use navvy_job::compiled::StepKind;
use navvy_output::mask;

use super::Task;
use super::attempt::{Attempted, Place};
use super::bounded::GivenUp;
use super::own::Told;
use super::prepare::Ready;
use super::trees;
use crate::artifacts::guard::{self, Secrets};
use crate::checkout::variables::INTERNAL_TASK_DATA;
use crate::results::Case;
use crate::results::collect::Reports;
use crate::results::junit::Limits;
use crate::results::keep::{self, Keeper, Whose};

/// Where the in-job CLI looks, below `$CIRCLE_INTERNAL_TASK_DATA`.
const TIMINGS: &str = "circle-test-results";

impl Task {
    /// Reads, shows and stores. Only the loss of the environment, a stop or the job's limit make it fail.
    pub(super) async fn store_test_results(&mut self, ready: &mut Ready, place: Place<'_>, path: &str) -> Attempted {
        let mut told = match self.begin_own(place) {
            Ok(told) => told,
            Err(attempted) => return *attempted,
        };
        let reports = Reports { path: ready.frame.place(path), user: ready.frame.user.clone() };
        let client = ready.client.clone();
        let collected = self.bounded(&ready.environment, move || reports.collect(&client, Limits::default())).await;
        let end = match collected {
            Ok(Ok(collected)) => {
                collected.lines.iter().for_each(|line| told.line(line));
                collected.warnings.into_iter().for_each(|warning| self.warn(warning));
                collected.ignored.into_iter().for_each(|warning| self.voice.warn_in_report(warning));
                match collected.files {
                    0 => Ok(Ok(())),
                    _ => self.keep_results(ready, place, &mut told, &collected.cases).await.map(Ok),
                }
            }
            Ok(Err(error)) => Ok(Err(trees::of_client(&error))),
            Err(why) => Err(why),
        };
        self.own_ended(place, &told, end)
    }

    /// What cannot be stored is told and no failure of the job's.
    async fn keep_results(
        &self,
        ready: &Ready,
        place: Place<'_>,
        told: &mut Told,
        cases: &[Case],
    ) -> Result<(), GivenUp> {
        let trouble = match self.without_secrets(place, cases) {
            Ok(document) => {
                let mut putting = Box::pin(put(self.keeper(), self.whose(place), document));
                match self.while_sensible(&ready.environment, &mut putting).await {
                    Ok(put) => put.err().map(|why| format!("The results could not be stored: {why}")),
                    Err(why) => {
                        // Small, and half of it would be left to a sweep.
                        tokio::time::timeout(trees::GIVE_UP_LIMIT, putting).await.ok();
                        return Err(why);
                    }
                }
            }
            Err(names) => Some(format!(
                "The results are not stored: they hold the value of {names}. Whatever a test is called or says must be \
                 free of it"
            )),
        };
        if let Some(trouble) = trouble {
            told.line(&trouble);
            self.warn(format!("test results of step {}: {trouble}", place.number));
        }
        Ok(())
    }

    fn keeper(&self) -> Result<Keeper, String> {
        self.store().map(Keeper::new)
    }

    /// What is to be stored, or the names of the secrets that it holds.
    fn without_secrets(&self, place: Place<'_>, cases: &[Case]) -> Result<Vec<u8>, String> {
        let rule = self.context.secrets_in_artifacts;
        if rule == Secrets::Allow {
            return Ok(keep::document(cases));
        }
        let what = format!("test results of step {}", place.number);
        let job = self.reference.job.job.as_str();
        let masks = self.context.bus.masks();
        let of_step = || mask::Place::of_job(job, what.clone());
        // First each text as it stands: what is escaped in it would be escaped once more in the document.
        let texts = keep::masked(cases, |text| masks.text(of_step, text));
        let document = keep::document(texts.as_deref().unwrap_or(cases));
        let masked = match (masks.whole(of_step, &document), texts) {
            (Cow::Borrowed(_), None) => return Ok(document),
            (masked, _) => masked.into_owned(),
        };
        let names = guard::names_at(masks, job, &what);
        // A value that is part of the document's own syntax cannot be masked.
        if rule == Secrets::Mask && serde_json::from_slice::<serde_json::Value>(&masked).is_ok() {
            self.warn(format!("{what} held the value of {names}: stored masked"));
            return Ok(masked);
        }
        Err(names)
    }

    fn whose(&self, place: Place<'_>) -> Whose {
        Whose {
            job: self.claim.job_name.clone(),
            run: self.claim.run.pipeline.clone(),
            branch: self.claim.run.branch.clone(),
            task: self.claim.task.to_string(),
            build_num: Some(self.claim.run.build_number),
            node: self.claim.node_index,
            step: u32::try_from(place.number).unwrap_or(u32::MAX),
            attempt: place.attempt,
        }
    }

    /// Puts what earlier runs took where `circleci tests split --split-by=timings` looks for it.
    pub(super) async fn bring_timings(&self, ready: &Ready) {
        let stores = |step: &navvy_job::compiled::Step| matches!(step.kind, StepKind::StoreTestResults { .. });
        // Nothing is shared out among one.
        if self.claim.node_total < 2 || !self.claim.job.steps.iter().any(stores) {
            return;
        }
        let run = &self.claim.run;
        let asking = self.context.timings.of(self.keeper(), &self.claim.job_name, run.branch.as_deref(), &run.pipeline);
        // A task that is asked to stop, or whose environment is gone, hears of it right behind this.
        let told = match self.while_sensible(&ready.environment, asking).await {
            Ok(Ok(Some(bytes))) => self.write_timings(ready, bytes).await,
            Ok(Ok(None)) | Err(_) => Ok(()),
            Ok(Err(why)) => Err(why),
        };
        if let Err(why) = told {
            self.warn(format!("job {}: no timings of earlier runs: {why}", self.claim.job_name));
        }
    }

    async fn write_timings(&self, ready: &Ready, bytes: bytes::Bytes) -> Result<(), String> {
        let directory = format!("{INTERNAL_TASK_DATA}/{TIMINGS}");
        let (user, client) = (ready.frame.user.clone(), ready.client.clone());
        let writing = self.bounded(&ready.environment, move || {
            client.make_directory(&directory, user.clone())?;
            client.write(&format!("{directory}/results.json"), user, 0o644, &bytes)
        });
        match writing.await {
            Ok(Err(error)) => Err(chain(&error)),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

async fn put(keeper: Result<Keeper, String>, whose: Whose, document: Vec<u8>) -> Result<(), String> {
    let keeper = keeper?;
    keeper.put(&whose, document).await.map_err(|error| chain(&error))?;
    // One node is enough to tidy up.
    match whose.node {
        0 => keeper.forget_old(&whose.job).await.map_err(|error| chain(&error)),
        _ => Ok(()),
    }
}
