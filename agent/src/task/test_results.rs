//! The step `store_test_results`, and what earlier runs of it are good for.

use navvy_job::compiled::StepKind;
use navvy_job::outcome::StepOutcome;

use super::Task;
use super::attempt::{Attempted, Place};
use super::bounded::GivenUp;
use super::decide::Lost;
use super::prepare::Ready;
use crate::chain::chain;
use crate::output::{StepLog, mask};
use crate::results::Case;
use crate::results::collect::{Collected, Reports};
use crate::results::junit::Limits;
use crate::results::keep::{self, Whose};
use crate::step::absolute;

/// Where the in-job CLI looks, below `$CIRCLE_INTERNAL_TASK_DATA`.
const TIMINGS: &str = "circle-test-results";

impl Task {
    /// Reads, shows and stores. Only the loss of the environment, a stop or the job's limit make it fail.
    pub(super) async fn store_test_results(&mut self, ready: &mut Ready, place: Place<'_>, path: &str) -> Attempted {
        self.own_step_started(place);
        let log_path = StepLog::path_for(&self.context.directory, place.number, place.attempt);
        let mut log = match StepLog::create(&self.context.directory, place.number, place.attempt) {
            Ok(log) => log,
            Err(error) => {
                return Attempted::not_started(log_path, format!("the step's log could not be made: {error}"));
            }
        };
        let path = absolute(&ready.frame.directory(Some(path)), &ready.frame.account.home);
        let reports = Reports { path, user: ready.frame.user.clone() };
        let client = ready.client.clone();
        let collecting = self.bounded(&ready.environment, move || reports.collect(&client, Limits::default()));
        let collected = match collecting.await {
            Ok(Ok(collected)) => collected,
            Ok(Err(error)) => {
                let outcome = StepOutcome::Error { reason: chain(&error) };
                return Attempted::failed(log_path, log.digest(), outcome, Some(Lost::Supervisor));
            }
            Err(why) => return Attempted::given_up(log_path, log.digest(), why),
        };
        let Collected { cases, lines, warnings, files } = collected;
        for line in lines {
            self.own_line(place.number, &mut log, &line);
        }
        warnings.into_iter().for_each(|warning| self.warn(warning));
        if files > 0
            && let Err(why) = self.keep_results(ready, place, &mut log, cases).await
        {
            return Attempted::given_up(log_path, log.digest(), why);
        }
        Attempted::failed(log_path, log.digest(), StepOutcome::Success, None)
    }

    /// What cannot be stored is told and no failure of the job's.
    async fn keep_results(
        &mut self,
        ready: &Ready,
        place: Place<'_>,
        log: &mut StepLog,
        cases: Vec<Case>,
    ) -> Result<(), GivenUp> {
        let Some(keeper) = self.context.results.keeper().cloned() else { return Ok(()) };
        let document = match self.without_secrets(place, &cases) {
            Ok(document) => document,
            Err(names) => {
                let line = format!(
                    "The results are not stored: they hold the value of {names}. Whatever a test is called or says must \
                     be free of it"
                );
                self.own_line(place.number, log, &line);
                self.warn(format!("test results of step {}: {line}", place.number));
                return Ok(());
            }
        };
        let whose = self.whose(place);
        let storing = async move {
            keeper.put(&whose, document).await?;
            // One node is enough to tidy up.
            if whose.node == 0 { keeper.forget_old(&whose.job).await } else { Ok(()) }
        };
        if let Err(error) = self.bounded_future(ready, storing).await? {
            let line = format!("The results could not be stored: {}", chain(&error));
            self.own_line(place.number, log, &line);
            self.warn(format!("test results of step {}: {line}", place.number));
        }
        Ok(())
    }

    /// What is to be stored, or the names of the secrets that it holds.
    fn without_secrets(&self, place: Place<'_>, cases: &[Case]) -> Result<Vec<u8>, String> {
        let document = keep::document(cases);
        let what = format!("test results of step {}", place.number);
        let place = mask::Place::of_job(&self.reference.job.job, what.clone());
        let masks = self.context.bus.masks();
        if let std::borrow::Cow::Borrowed(_) = masks.whole(|| place.clone(), &document) {
            return Ok(document);
        }
        let job = place.job.as_deref();
        let mut names: Vec<String> = masks
            .report()
            .into_iter()
            .filter(|line| line.place == what && line.job.as_deref() == job)
            .map(|line| line.secret)
            .collect();
        names.dedup();
        Err(names.join(", "))
    }

    fn whose(&self, place: Place<'_>) -> Whose {
        Whose {
            job: self.claim.job_name.clone(),
            run: self.builtin("CIRCLE_PIPELINE_ID").unwrap_or_default(),
            branch: self.builtin("CIRCLE_BRANCH"),
            task: self.claim.task.to_string(),
            build_num: self.builtin("CIRCLE_BUILD_NUM").and_then(|number| number.parse().ok()),
            node: self.claim.node_index,
            step: u32::try_from(place.number).unwrap_or(u32::MAX),
            attempt: place.attempt,
        }
    }

    fn builtin(&self, name: &str) -> Option<String> {
        self.claim.builtin_variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// Puts what earlier runs took where `circleci tests split --split-by=timings` looks for it.
    pub(super) async fn bring_timings(&mut self, ready: &Ready) {
        let steps = &self.claim.job.steps;
        let stores = steps.iter().any(|step| matches!(step.kind, StepKind::StoreTestResults { .. }));
        // Nothing is shared out among one.
        if self.claim.node_total < 2 || !stores {
            return;
        }
        let run = self.builtin("CIRCLE_PIPELINE_ID").unwrap_or_default();
        let (job, branch) = (self.claim.job_name.clone(), self.builtin("CIRCLE_BRANCH"));
        let results = self.context.results.clone();
        let asking = async move { results.timings(&job, branch.as_deref(), &run).await };
        // A task that is asked to stop, or whose environment is gone, hears of it right behind this.
        let told = match self.bounded_future(ready, asking).await {
            Ok(Ok(Some(bytes))) => self.write_timings(ready, bytes).await,
            Ok(Ok(None)) | Err(_) => Ok(()),
            Ok(Err(why)) => Err(why),
        };
        if let Err(why) = told {
            self.warn(format!("job {}: no timings of earlier runs: {why}", self.claim.job_name));
        }
    }

    async fn write_timings(&mut self, ready: &Ready, bytes: bytes::Bytes) -> Result<(), String> {
        let data = self.builtin("CIRCLE_INTERNAL_TASK_DATA").unwrap_or_else(|| "/tmp".to_owned());
        let (directory, user, client) = (format!("{data}/{TIMINGS}"), ready.frame.user.clone(), ready.client.clone());
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
