//! Reruns from the failed jobs: what has failed runs again, wherever its name stands elsewhere.

use navvy_job::outcome::Verdict;
use navvy_protocol::supervisor::Continuation;

use super::tests::{claims, ending, pipeline_state, submit};
use super::{Claims, Ending, Room};
use crate::conduct::RerunOf;
use crate::conduct::walk::Standing;
use crate::state::tests::databases;

/// Takes tasks until there is none; those of the jobs named here fail. The names of all, `workflow/job`.
async fn run(claims: &Claims, failing: &[&str], continuation: Option<&str>) -> Vec<String> {
    let mut ran = Vec::new();
    while let Some(taken) = claims.take("*", Room::ANY, "one").await.unwrap() {
        let name = format!("{}/{}", taken.workflow, taken.claim.job_name);
        let verdict = match failing.contains(&name.as_str()) {
            true => Verdict::Failed { step: 1, name: "x".to_owned() },
            false => Verdict::Passed,
        };
        let configuration = continuation.filter(|_| taken.claim.may_continue);
        let continuation = configuration
            .map(|text| Continuation { configuration: text.to_owned(), parameters: serde_json::Map::new() });
        let ended = Ending { continuation, ..ending(verdict) };
        claims.finish(taken.claim.task.as_str(), 1, ended).await.unwrap();
        ran.push(name);
    }
    ran.sort();
    ran
}

async fn rerun(claims: &Claims, pipeline: &str, config: &str) -> String {
    let assumed = claims.conductor().look(pipeline, Standing::passed).await.unwrap();
    let rerun = RerunOf { assumed, workspace_of: Some(pipeline.to_owned()) };
    claims.conductor().submit("gh/acme/shop", submit(config), rerun, "me").await.unwrap().id
}

const TWO_WORKFLOWS: &str = "
version: 2.1
jobs:
  test: {docker: [{image: i}], steps: [{run: x}]}
  lint: {docker: [{image: i}], steps: [{run: x}]}
workflows:
  old: {jobs: [test, lint]}
  new: {jobs: [test]}
";

#[tokio::test]
async fn a_job_that_failed_runs_again_although_another_of_its_name_passed() {
    for state in databases().await {
        let claims = claims(&state);
        let first =
            claims.conductor().submit("gh/acme/shop", submit(TWO_WORKFLOWS), RerunOf::default(), "me").await.unwrap();
        assert_eq!(run(&claims, &["new/test"], None).await, ["new/test", "old/lint", "old/test"]);
        assert_eq!(pipeline_state(&state, &first.id).await, "failed");
        let second = rerun(&claims, &first.id, TWO_WORKFLOWS).await;
        let ran = run(&claims, &[], None).await;
        assert!(ran.contains(&"new/test".to_owned()) && !ran.contains(&"old/lint".to_owned()), "{ran:?}");
        assert_eq!(pipeline_state(&state, &second).await, "success");
    }
}

const SETUP: &str = "
version: 2.1
setup: true
jobs: {make: {docker: [{image: i}], steps: [{run: x}]}}
workflows: {setup: {jobs: [make]}}
";

const CONTINUED: &str = "
version: 2.1
jobs:
  unit: {docker: [{image: i}], steps: [{run: x}]}
  ship: {docker: [{image: i}], steps: [{run: x}]}
workflows: {main: {jobs: [unit, {ship: {requires: [unit]}}]}}
";

#[tokio::test]
async fn a_setup_pipeline_is_continued_again_and_only_what_failed_of_that_runs() {
    for state in databases().await {
        let claims = claims(&state);
        let first = claims.conductor().submit("gh/acme/shop", submit(SETUP), RerunOf::default(), "me").await.unwrap();
        assert_eq!(run(&claims, &["main/ship"], Some(CONTINUED)).await, ["main/ship", "main/unit", "setup/make"]);
        assert_eq!(pipeline_state(&state, &first.id).await, "failed");
        let second = rerun(&claims, &first.id, SETUP).await;
        assert_eq!(run(&claims, &[], Some(CONTINUED)).await, ["main/ship", "setup/make"]);
        assert_eq!(pipeline_state(&state, &second).await, "success");
    }
}
