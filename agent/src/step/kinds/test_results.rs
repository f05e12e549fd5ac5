//! The step `store_test_results`, and what earlier runs of it are good for.

use std::borrow::Cow;

use navvy_checkout::variables::INTERNAL_TASK_DATA;
use navvy_job::chain::chain;
use navvy_job::compiled::{Step, StepKind};
use navvy_output::mask;
use navvy_results::Case;
use navvy_results::collect::Reports;
use navvy_results::junit::Limits;
use navvy_results::keep::{self, Keeper, Whose};

use crate::artifacts::guard::{self, SecretPolicy};
use crate::run_store::RunStoreError;
use crate::step::bounded::GivenUp;
use crate::step::cx::StepCx;
use crate::step::own::{StepError, StepFault, StepOutput};
use crate::step::trees;

/// Where the in-job CLI looks, below `$CIRCLE_INTERNAL_TASK_DATA`.
const TIMINGS: &str = "circle-test-results";

/// Reads, shows and stores. Only the loss of the environment, a stop or the job's limit make it fail.
pub async fn store_test_results(cx: &StepCx<'_>, output: &mut StepOutput, path: &str) -> Result<(), StepError> {
    let reports = Reports { path: cx.frame.place(path), user: cx.frame.user.clone() };
    let client = cx.client.clone();
    let collected = cx.bounds.bounded(move || reports.collect(&client, Limits::default())).await?;
    let collected = collected.map_err(|error| StepFault::of_client("", &error))?;
    collected.lines.iter().for_each(|line| output.line(line));
    collected.warnings.into_iter().for_each(|warning| cx.voice.warn(warning));
    collected.ignored.into_iter().for_each(|warning| cx.voice.warn_in_report(warning));
    match collected.files {
        0 => Ok(()),
        _ => Ok(keep_results(cx, output, &collected.cases).await?),
    }
}

/// What cannot be stored is reported, and does not fail the job.
async fn keep_results(cx: &StepCx<'_>, output: &mut StepOutput, cases: &[Case]) -> Result<(), GivenUp> {
    let trouble = match without_secrets(cx, output.number, cases) {
        Ok(document) => {
            let put = trees::to_its_end(cx, put(keeper(cx), whose(cx, output), document)).await?;
            put.err().map(|why| format!("The results could not be stored: {why}"))
        }
        Err(names) => Some(format!(
            "The results are not stored: they hold the value of {names}. Whatever a test is called or says must be \
             free of it"
        )),
    };
    if let Some(trouble) = trouble {
        output.line(&trouble);
        cx.voice.warn(format!("test results of step {}: {trouble}", output.number));
    }
    Ok(())
}

fn keeper(cx: &StepCx<'_>) -> Result<Keeper, RunStoreError> {
    cx.open_store().map(Keeper::new)
}

/// What is to be stored, or the names of the secrets that it holds.
fn without_secrets(cx: &StepCx<'_>, step: usize, cases: &[Case]) -> Result<Vec<u8>, String> {
    let rule = cx.secrets_in_artifacts;
    if rule == SecretPolicy::Allow {
        return Ok(keep::document(cases));
    }
    let what = format!("test results of step {step}");
    let masks = cx.voice.bus.masks();
    let of_step = || mask::MaskedIn::of_job(cx.job(), what.clone());
    // First each text as it stands: what is escaped in it would be escaped once more in the document.
    let texts = keep::masked(cases, |text| masks.text(of_step, text));
    let document = keep::document(texts.as_deref().unwrap_or(cases));
    let masked = match (masks.whole(of_step, &document), texts) {
        (Cow::Borrowed(_), None) => return Ok(document),
        (masked, _) => masked.into_owned(),
    };
    let names = guard::names_at(masks, cx.job(), &what);
    // A value that is part of the document's own syntax cannot be masked.
    if rule == SecretPolicy::Mask && serde_json::from_slice::<serde_json::Value>(&masked).is_ok() {
        cx.voice.warn(format!("{what} held the value of {names}: stored masked"));
        return Ok(masked);
    }
    Err(names)
}

fn whose(cx: &StepCx<'_>, output: &StepOutput) -> Whose {
    let claim = cx.claim;
    Whose {
        job: claim.job_name.clone(),
        run: claim.run.pipeline.clone(),
        branch: claim.run.branch.clone(),
        task: claim.task.to_string(),
        build_num: Some(claim.run.build_number),
        node: claim.node_index,
        step: u32::try_from(output.number).unwrap_or(u32::MAX),
        attempt: output.attempt,
    }
}

/// Puts what earlier runs took where `circleci tests split --split-by=timings` looks for it.
pub async fn bring_timings(cx: &StepCx<'_>) {
    let stores = |step: &Step| matches!(step.kind, StepKind::StoreTestResults { .. });
    let (claim, run) = (cx.claim, &cx.claim.run);
    // Nothing is shared out among one.
    if claim.node_total < 2 || !claim.job.steps.iter().any(stores) {
        return;
    }
    let asking = cx.timings.of(keeper(cx), &claim.job_name, run.branch.as_deref(), &run.pipeline);
    // A task that is asked to stop, or whose environment is gone, hears of it right behind this.
    let brought = match cx.bounds.while_sensible(asking).await {
        Ok(Ok(Some(bytes))) => write_timings(cx, bytes).await,
        Ok(Ok(None)) | Err(_) => Ok(()),
        Ok(Err(why)) => Err(why),
    };
    if let Err(why) = brought {
        cx.voice.warn(format!("job {}: no timings of earlier runs: {why}", claim.job_name));
    }
}

async fn write_timings(cx: &StepCx<'_>, bytes: bytes::Bytes) -> Result<(), String> {
    let directory = format!("{INTERNAL_TASK_DATA}/{TIMINGS}");
    let (user, client) = (cx.frame.user.clone(), cx.client.clone());
    let writing = cx.bounds.bounded(move || {
        client.make_directory(&directory, user.clone())?;
        client.write(&format!("{directory}/results.json"), user, 0o644, &bytes)
    });
    match writing.await {
        Ok(Err(error)) => Err(chain(&error)),
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

async fn put(keeper: Result<Keeper, RunStoreError>, whose: Whose, document: Vec<u8>) -> Result<(), String> {
    let keeper = keeper.map_err(|error| chain(&error))?;
    keeper.put(&whose, document).await.map_err(|error| chain(&error))?;
    // One node is enough to tidy up.
    match whose.node {
        0 => keeper.forget_old(&whose.job).await.map_err(|error| chain(&error)),
        _ => Ok(()),
    }
}
