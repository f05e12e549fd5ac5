//! A pipeline from submission to its end, with an agent that is only words.

use std::collections::HashMap;

use navvy_job::executor::ExecutorKinds;
use navvy_job::outcome::{CancelReason, Verdict};
use navvy_job::resource::Size;
use navvy_job::walk::TaskEnd;
use navvy_protocol::api::Submit;
use sqlx::Row as _;

use super::*;
use crate::conduct::RerunOf;
use crate::state::State;
use crate::state::tests::databases;

pub(crate) const TWO_JOBS: &str = "
version: 2.1
jobs:
  unit: {docker: [{image: i}], parallelism: 2, steps: [{run: make}]}
  deploy: {docker: [{image: i}], resource_class: large, steps: [{run: ship}]}
workflows:
  main:
    jobs:
      - unit
      - hold: {type: approval, requires: [unit]}
      - deploy: {requires: [hold]}
";

pub(crate) fn submit(config: &str) -> Submit {
    let vcs = navvy_protocol::api::Vcs { branch: Some("main".to_owned()), ..Default::default() };
    Submit { config: config.to_owned(), vcs, ..Submit::default() }
}

pub(crate) fn secrets() -> SecretSource {
    SecretSource::new(vec![("first".to_owned(), [7; 32])]).unwrap()
}

pub(crate) fn claims(state: &State) -> Claims {
    Claims::new(Conductor::new(state.clone(), "http://here"), secrets(), Hub::new(1 << 20))
}

pub(crate) fn ending(verdict: Verdict) -> Ending {
    Ending {
        end: TaskEnd::new(verdict),
        continuation: None,
        fidelity: vec![],
        warnings: vec![],
        output: "complete".to_owned(),
    }
}

/// The first event that an agent tells of its task.
pub(crate) async fn tell_start(claims: &Claims, taken: &Taken) {
    let (task, job) = (taken.claim.task.as_str(), &taken.claim.job_name);
    let event = serde_json::json!({"at_ms": 0, "time": "t", "event": "task_started", "task": task,
                                   "workflow": taken.workflow, "job": job});
    assert_eq!(claims.record(task, 1, 0, &[event.to_string().into_bytes()]).await.unwrap(), 1);
}

async fn pass(claims: &Claims, taken: &Taken) -> Finished {
    claims.finish(taken.claim.task.as_str(), 1, ending(Verdict::Passed)).await.unwrap()
}

pub(crate) async fn events(state: &State, pipeline: &str) -> Vec<String> {
    let select = "SELECT number, body FROM events WHERE pipeline = $1 ORDER BY number";
    let rows = sqlx::query(select).bind(pipeline).fetch_all(state.pool()).await.unwrap();
    let numbers: Vec<i64> = rows.iter().map(|row| row.try_get(0).unwrap()).collect();
    assert_eq!(numbers, (1..=rows.len() as i64).collect::<Vec<_>>());
    let word =
        |body: String| serde_json::from_str::<serde_json::Value>(&body).unwrap()["event"].as_str().unwrap().to_owned();
    rows.iter().map(|row| word(row.try_get(1).unwrap())).collect()
}

pub(crate) async fn pipeline_state(state: &State, pipeline: &str) -> String {
    let row = sqlx::query("SELECT state FROM pipelines WHERE id = $1").bind(pipeline);
    row.fetch_one(state.pool()).await.unwrap().try_get(0).unwrap()
}

#[tokio::test]
async fn a_pipeline_goes_from_submission_to_its_end_over_restarts() {
    for state in databases().await {
        let claims_now = claims(&state);
        let submitted =
            claims_now.conductor().submit("gh/acme/shop", submit(TWO_JOBS), RerunOf::default(), "me").await.unwrap();
        assert_eq!(submitted.number, 1);
        let first = claims_now.take("medium", Room::ANY, "one").await.unwrap().unwrap();
        tell_start(&claims_now, &first).await;
        // Another processor, which knows nothing but the database.
        let claims_now = claims(&state);
        let second = claims_now.take("*", Room::ANY, "two").await.unwrap().unwrap();
        tell_start(&claims_now, &second).await;
        assert_ne!(first.claim.task, second.claim.task);
        assert!(claims_now.take("*", Room::ANY, "three").await.unwrap().is_none(), "the approval holds the rest");
        first.claim.validate().unwrap();
        assert_eq!(pass(&claims_now, &first).await, Finished::Now);
        assert_eq!(pass(&claims_now, &first).await, Finished::Before);
        let claims_now = claims(&state);
        pass(&claims_now, &second).await;
        assert_eq!(pipeline_state(&state, &submitted.id).await, "on_hold");
        let error = claims_now.conductor().approve(&submitted.id, "unit", true, "me").await.unwrap_err().to_string();
        assert!(error.contains("waiting are: main/hold"), "{error}");
        claims_now.conductor().approve(&submitted.id, "hold", true, "me").await.unwrap();
        assert!(claims_now.take("medium", Room::ANY, "four").await.unwrap().is_none(), "its class is another");
        let deploy = claims_now.take("large", Room::ANY, "four").await.unwrap().unwrap();
        tell_start(&claims_now, &deploy).await;
        assert_eq!(deploy.claim.upstream.len(), 2);
        pass(&claims_now, &deploy).await;
        assert_eq!(pipeline_state(&state, &submitted.id).await, "success");
        let told = events(&state, &submitted.id).await;
        let expected = [
            "run_started",
            "task_started",
            "task_started",
            "job_ended",
            "approval_asked",
            "job_ended",
            "task_started",
            "job_ended",
            "run_ended",
        ];
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn a_canceled_pipeline_starts_nothing_and_its_tasks_hear_of_it() {
    for state in databases().await {
        let claims = claims(&state);
        let submitted =
            claims.conductor().submit("gh/acme/shop", submit(TWO_JOBS), RerunOf::default(), "me").await.unwrap();
        let first = claims.take("*", Room::ANY, "one").await.unwrap().unwrap();
        claims.conductor().cancel(&submitted.id, CancelReason::User, false, "me").await.unwrap();
        assert!(claims.take("*", Room::ANY, "two").await.unwrap().is_none());
        let heard = claims.beat(first.claim.task.as_str(), 1, "running").await.unwrap();
        assert_eq!(heard.cancel.unwrap().reason, CancelReason::User);
        let verdict = Verdict::Canceled { reason: CancelReason::User };
        claims.finish(first.claim.task.as_str(), 1, ending(verdict)).await.unwrap();
        assert_eq!(pipeline_state(&state, &submitted.id).await, "canceled");
        assert!(claims.conductor().cancel(&submitted.id, CancelReason::User, false, "me").await.is_err());
    }
}

#[tokio::test]
async fn a_config_with_mistakes_leaves_nothing() {
    for state in databases().await {
        let claims = claims(&state);
        let error = claims
            .conductor()
            .submit("gh/acme/shop", submit("version: 2.1\njobs: 7\n"), RerunOf::default(), "me")
            .await;
        assert!(error.is_err());
        let submitted =
            claims.conductor().submit("gh/acme/shop", submit(TWO_JOBS), RerunOf::default(), "me").await.unwrap();
        assert_eq!(submitted.number, 1, "the refused one used up no number");
        assert!(claims.conductor().submit("../x", submit(TWO_JOBS), RerunOf::default(), "me").await.is_err());
    }
}

const SERIAL: &str = "
version: 2.1
jobs:
  ship: {docker: [{image: i}], parallelism: 2, steps: [{run: ship}]}
workflows:
  main: {jobs: [{ship: {serial-group: live}}]}
";

#[tokio::test]
async fn jobs_of_a_serial_group_run_one_at_a_time() {
    for state in databases().await {
        let claims = claims(&state);
        for _ in 0..2 {
            claims.conductor().submit("gh/acme/shop", submit(SERIAL), RerunOf::default(), "me").await.unwrap();
        }
        let take = async || claims.take("*", Room::ANY, "one").await.unwrap();
        let (first, second) = (take().await.unwrap(), take().await.unwrap());
        assert_eq!(first.claim.run.pipeline, second.claim.run.pipeline, "nodes of one job are one");
        assert!(take().await.is_none());
        pass(&claims, &first).await;
        assert!(take().await.is_none());
        pass(&claims, &second).await;
        assert!(take().await.is_some());
    }
}

#[tokio::test]
async fn a_launch_token_takes_its_task_once() {
    for state in databases().await {
        let claims = claims(&state);
        claims.conductor().submit("gh/acme/shop", submit(TWO_JOBS), RerunOf::default(), "me").await.unwrap();
        let row = sqlx::query("SELECT id FROM tasks ORDER BY node").fetch_all(state.pool()).await.unwrap();
        let [one, two]: [String; 2] = [row[0].try_get(0).unwrap(), row[1].try_get(0).unwrap()];
        let token = claims.launch_token(&one).await.unwrap();
        let launched = async |task, agent| claims.take_launched(task, &token, agent).await.unwrap();
        assert!(matches!(launched(&two, "a").await, Launched::Refused), "it is for another task");
        assert!(matches!(launched(&one, "a").await, Launched::Taken(_)));
        assert!(matches!(launched(&one, "b").await, Launched::Refused), "it was used");
    }
}

#[tokio::test]
async fn a_launched_agent_waits_for_its_turn_in_a_serial_group_and_keeps_its_token() {
    for state in databases().await {
        let claims = claims(&state);
        for _ in 0..2 {
            claims.conductor().submit("gh/acme/shop", submit(SERIAL), RerunOf::default(), "me").await.unwrap();
        }
        let rows = sqlx::query("SELECT id FROM tasks ORDER BY queued_ms, id").fetch_all(state.pool()).await.unwrap();
        let [first, second]: [String; 2] = [rows[0].try_get(0).unwrap(), rows[2].try_get(0).unwrap()];
        let token = claims.launch_token(&second).await.unwrap();
        let launched = async || claims.take_launched(&second, &token, "a").await.unwrap();
        assert!(matches!(launched().await, Launched::Waits), "the older job comes first");
        let taken = claims.take("*", Room::ANY, "one").await.unwrap().unwrap();
        let node = claims.take("*", Room::ANY, "one").await.unwrap().unwrap();
        assert_eq!(taken.claim.run.pipeline, node.claim.run.pipeline);
        assert!([&taken, &node].iter().any(|it| it.claim.task.as_str() == first));
        assert!(matches!(launched().await, Launched::Waits), "another job of the group runs");
        pass(&claims, &taken).await;
        pass(&claims, &node).await;
        assert!(matches!(launched().await, Launched::Taken(_)), "its token is still good");
        assert!(matches!(launched().await, Launched::Refused));
    }
}

const BOTH_HOLD: &str = "
version: 2.1
jobs:
  unit: {docker: [{image: i}], steps: [{run: make}]}
workflows:
  stage: {jobs: [{hold: {type: approval}}, {unit: {requires: [hold]}}]}
  live: {jobs: [{hold: {type: approval}}, {unit: {requires: [hold]}}]}
";

#[tokio::test]
async fn an_approval_that_two_workflows_have_is_named_with_its_workflow() {
    for state in databases().await {
        let claims = claims(&state);
        let submitted =
            claims.conductor().submit("gh/acme/shop", submit(BOTH_HOLD), RerunOf::default(), "me").await.unwrap();
        let approve = async |name| claims.conductor().approve(&submitted.id, name, true, "me").await;
        let said = approve("hold").await.unwrap_err().to_string();
        assert!(said.contains("stage/hold, live/hold") || said.contains("live/hold, stage/hold"), "{said}");
        assert!(claims.take("*", Room::ANY, "one").await.unwrap().is_none(), "nothing was approved");
        approve("live/hold").await.unwrap();
        assert_eq!(claims.take("*", Room::ANY, "one").await.unwrap().unwrap().workflow, "live");
        // One of them is left.
        approve("hold").await.unwrap();
        assert_eq!(claims.take("*", Room::ANY, "one").await.unwrap().unwrap().workflow, "stage");
    }
}

async fn task_state(state: &State, task: &str) -> String {
    let row = sqlx::query("SELECT state FROM tasks WHERE id = $1").bind(task);
    row.fetch_one(state.pool()).await.unwrap().try_get(0).unwrap()
}

#[tokio::test]
async fn a_silent_agent_loses_its_task_which_is_begun_again_only_if_it_never_began() {
    for state in databases().await {
        let claims = claims(&state);
        let submitted =
            claims.conductor().submit("gh/acme/shop", submit(TWO_JOBS), RerunOf::default(), "me").await.unwrap();
        let first = claims.take("*", Room::ANY, "one").await.unwrap().unwrap();
        let second = claims.take("*", Room::ANY, "two").await.unwrap().unwrap();
        let (first, second) = (first.claim.task.to_string(), second.claim.task.to_string());
        claims.beat(&first, 1, "preparing").await.unwrap();
        claims.beat(&second, 1, "running").await.unwrap();
        let mut seen = HashMap::new();
        claims.look_at_leases(&mut seen).await.unwrap();
        claims.beat(&second, 1, "running").await.unwrap();
        claims.lose_the_silent(&seen, Duration::ZERO).await.unwrap();
        assert_eq!(task_state(&state, &first).await, "queued");
        assert_eq!(task_state(&state, &second).await, "claimed", "it was heard of meanwhile");
        claims.look_at_leases(&mut seen).await.unwrap();
        claims.lose_the_silent(&seen, Duration::ZERO).await.unwrap();
        assert_eq!(task_state(&state, &second).await, "ended");
        assert!(claims.beat(&first, 1, "running").await.is_err(), "it is not its task any more");
        let error = claims.finish(&second, 1, ending(Verdict::Passed)).await;
        assert_eq!(error.unwrap(), Finished::Before, "what the processor decided stays");
        let row =
            sqlx::query("SELECT ended FROM tasks WHERE id = $1").bind(&second).fetch_one(state.pool()).await.unwrap();
        let ended: String = row.try_get(0).unwrap();
        assert!(ended.contains("agent two was lost at") && ended.contains("infra"), "{ended}");
        assert_eq!(pipeline_state(&state, &submitted.id).await, "running");
    }
}

const BOTH_EXECUTORS: &str = "
version: 2.1
jobs:
  boxed: {docker: [{image: i}], steps: [{run: make}]}
  whole: {machine: true, steps: [{run: make}]}
  small: {machine: true, resource_class: arm.medium, steps: [{run: make}]}
workflows:
  main: {jobs: [boxed, whole, small]}
";

fn having(words: &[&str]) -> Room {
    Room { executors: ExecutorKinds::told(words.iter().copied()), ..Room::ANY }
}

#[tokio::test]
async fn a_task_is_given_to_an_agent_alone_that_can_carry_it_out() {
    for state in databases().await {
        let claims = claims(&state);
        claims.conductor().submit("gh/acme/shop", submit(BOTH_EXECUTORS), RerunOf::default(), "me").await.unwrap();
        let mut taken = Vec::new();
        // An older agent says nothing; words that nobody knows are no executors.
        for words in [&["wasm"][..], &[], &[], &["docker", "machine"], &["machine"], &["machine-arm64"]] {
            let of_any_class = claims.take("*", having(words), "an agent").await.unwrap();
            taken.push(of_any_class.map(|taken| taken.claim.job_name));
        }
        let expected = [None, Some("boxed"), None, Some("whole"), None, Some("small")];
        assert_eq!(taken, expected.map(|job| job.map(str::to_owned)));
    }
}

#[tokio::test]
async fn a_machine_elsewhere_needs_no_room_here_and_where_there_is_none_now_none_is_handed_out() {
    for state in databases().await {
        let claims = claims(&state);
        claims.conductor().submit("gh/acme/shop", submit(BOTH_EXECUTORS), RerunOf::default(), "me").await.unwrap();
        let small = |words: &[&str], machines| Room { size: Size::new(1, 1), machines, ..having(words) };
        let take = async |room: Room| claims.take("*", room, "an agent").await.unwrap().map(|it| it.claim.job_name);
        let both = ["docker", "machine"];
        assert_eq!(take(small(&both, MachineRoom::Shared)).await, None, "each is larger");
        assert_eq!(take(Room { machines: MachineRoom::NoneNow, ..having(&["machine"]) }).await, None);
        assert_eq!(take(small(&["docker"], MachineRoom::Elsewhere)).await, None, "it has no machines");
        assert_eq!(take(small(&both, MachineRoom::Elsewhere)).await.as_deref(), Some("whole"));
        assert_eq!(take(small(&both, MachineRoom::Elsewhere)).await, None, "containers have room here or nowhere");
        assert_eq!(take(Room { machines: MachineRoom::NoneNow, ..having(&both) }).await.as_deref(), Some("boxed"));
    }
}

/// Why a job waits, as people are told.
async fn why(claims: &Claims, pipeline: &str, job: &str) -> Option<String> {
    let detail = crate::web::pipelines::detail(claims.conductor(), pipeline).await;
    let detail = detail.unwrap_or_else(|refusal| panic!("{refusal:?}"));
    let job = detail.workflows[0].jobs.iter().find(|it| it.name == job).unwrap();
    assert_eq!(job.status, "queued");
    job.why.clone()
}

#[tokio::test]
async fn a_task_that_no_agent_can_carry_out_waits_and_says_for_what() {
    for state in databases().await {
        let claims = claims(&state);
        let submitted =
            claims.conductor().submit("gh/acme/shop", submit(BOTH_EXECUTORS), RerunOf::default(), "me").await.unwrap();
        let why = |job: &'static str| why(&claims, &submitted.id, job);
        let for_machine = "no agent offers the executor machine for class medium";
        assert_eq!(why("boxed").await.unwrap(), "no agent offers the executor docker for class medium");
        assert_eq!(why("whole").await.unwrap(), for_machine);
        claims.offered("one", "*", ExecutorKinds::told([])).await.unwrap();
        claims.offered("two", "large", ExecutorKinds::told(["machine"])).await.unwrap();
        assert_eq!((why("boxed").await, why("whole").await.as_deref()), (None, Some(for_machine)));
        claims.offered("two", "medium", ExecutorKinds::told(["machine"])).await.unwrap();
        assert_eq!(why("whole").await, None);
        assert!(why("small").await.unwrap().contains("machine-arm64 for class arm.medium"));
        // What it offers no longer, nobody waits for; a runner that is busy asks for nothing, and is there all the same.
        claims.offered("two", "medium", ExecutorKinds::told(["docker"])).await.unwrap();
        assert_eq!(why("whole").await.as_deref(), Some(for_machine));
        claims.take("*", having(&["docker"]), "one").await.unwrap().unwrap();
        claims.offered("one", "*", ExecutorKinds::told(["machine"])).await.unwrap();
        sqlx::query("UPDATE offers SET seen_ms = 0").execute(state.pool()).await.unwrap();
        assert_eq!(why("whole").await, None);
        // A scheduler starts agents of this class: no runner is waited for.
        let launching = Claims::new(
            Conductor::new(state.clone(), "http://here").with_launched(Some(crate::settings::Classes::NotOwn)),
            secrets(),
            Hub::new(1 << 20),
        );
        assert_eq!(self::why(&launching, &submitted.id, "small").await, None);
    }
}
