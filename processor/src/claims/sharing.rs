//! Several processors on one database: what one of them hands out or writes down, the other never does again.

use std::collections::BTreeSet;
use std::time::Duration;

use navvy_job::outcome::{CancelReason, Verdict};
use tokio::task::JoinSet;

use super::taking::LOCK_SERIAL;
use super::tests::{claims, ending, events, pipeline_state, submit, tell_start};
use super::*;
use crate::conduct::RerunOf;
use crate::state::tests::databases;
use crate::state::{Dialect, State};

/// A deadlock between a lock of the process and one of the database is seen by nobody: the test ends it.
const STUCK: Duration = Duration::from_secs(60);

const MANY: &str = "
version: 2.1
jobs:
  one: {docker: [{image: i}], parallelism: 100, steps: [{run: make}]}
  two: {docker: [{image: i}], parallelism: 100, steps: [{run: make}]}
workflows:
  main: {jobs: [one, two]}
";

const STAIRS: &str = "
version: 2.1
jobs:
  low: {docker: [{image: i}], parallelism: 6, steps: [{run: make}]}
  high: {docker: [{image: i}], parallelism: 6, steps: [{run: make}]}
  top: {docker: [{image: i}], steps: [{run: make}]}
workflows:
  main:
    jobs:
      - low
      - hold: {type: approval, requires: [low]}
      - high: {requires: [hold]}
      - top: {requires: [high]}
";

const SERIAL: &str = "
version: 2.1
jobs:
  ship: {docker: [{image: i}], steps: [{run: ship}]}
workflows:
  main: {jobs: [{ship: {serial-group: at-once}}]}
";

async fn count(state: &State, select: &'static str) -> i64 {
    sqlx::query(select).fetch_one(state.pool()).await.unwrap().try_get(0).unwrap()
}

/// All that there is to take, by four agents of each processor at once.
async fn take_all(both: &[Claims; 2]) -> Vec<(String, u64)> {
    let mut agents = JoinSet::new();
    for agent in 0..8 {
        let claims = both[agent % 2].clone();
        agents.spawn(async move {
            let mut taken = Vec::new();
            while let Some(one) = claims.take("*", Room::ANY, &format!("agent-{agent}")).await.unwrap() {
                tell_start(&claims, &one).await;
                taken.push((one.claim.task.to_string(), 1));
            }
            taken
        });
    }
    agents.join_all().await.concat()
}

/// Each task's end is told to one of the two, all at once.
async fn pass_all(both: &[Claims; 2], tasks: Vec<(String, u64)>) {
    let mut agents = JoinSet::new();
    for (nth, (task, fence)) in tasks.into_iter().enumerate() {
        let claims = both[nth % 2].clone();
        agents.spawn(async move {
            assert_eq!(claims.finish(&task, fence, ending(Verdict::Passed)).await.unwrap(), Finished::Now);
        });
    }
    agents.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processors_hand_out_each_task_of_one_queue_once() {
    for database in databases().await {
        let both = [claims(&database), claims(&database.again().await)];
        both[0].conductor().submit("gh/acme/shop", submit(MANY), RerunOf::default(), "me").await.unwrap();
        let taken = take_all(&both).await;
        let distinct: BTreeSet<&String> = taken.iter().map(|(task, _)| task).collect();
        assert_eq!((taken.len(), distinct.len()), (200, 200), "no task twice, and none is left");
        let handed = count(&database, "SELECT COUNT(*) FROM tasks WHERE state = 'claimed' AND handed = 1").await;
        let tokens = count(&database, "SELECT COUNT(*) FROM tokens WHERE kind = 'task'").await;
        assert_eq!((handed, tokens), (200, 200));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processors_conduct_one_pipeline_by_turns() {
    for database in databases().await {
        let both = [claims(&database), claims(&database.again().await)];
        let submitted =
            both[0].conductor().submit("gh/acme/shop", submit(STAIRS), RerunOf::default(), "me").await.unwrap();
        for (turn, tasks) in [6, 6, 1].into_iter().enumerate() {
            let taken = take_all(&both).await;
            assert_eq!(taken.len(), tasks);
            pass_all(&both, taken).await;
            if turn == 0 {
                both[1].conductor().approve(&submitted.id, "hold", true, "me").await.unwrap();
            }
        }
        assert_eq!(pipeline_state(&database, &submitted.id).await, "success");
        let happened = count(&database, "SELECT COUNT(*) FROM happenings").await;
        assert_eq!(happened, count(&database, "SELECT happenings FROM pipelines").await);
        assert_eq!(happened, 14, "13 ends and an answer");
        let told = events(&database, &submitted.id).await;
        let of_kind = |kind: &str| told.iter().filter(|it| *it == kind).count();
        assert_eq!((of_kind("task_started"), of_kind("job_ended"), of_kind("run_ended")), (13, 4, 1));
        // Whoever of them is asked says the same.
        for claims in &both {
            let ends = claims.conductor().look(&submitted.id, |standing| standing.ends.len()).await.unwrap();
            assert_eq!(ends, 4);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_is_canceled_while_its_tasks_end() {
    for database in databases().await {
        let both = [claims(&database), claims(&database.again().await)];
        for _ in 0..8 {
            let submitted =
                both[0].conductor().submit("gh/acme/shop", submit(STAIRS), RerunOf::default(), "me").await.unwrap();
            let taken = take_all(&both).await;
            let cancels = async {
                let [one, two] = &both;
                let cancel = |claims: &Claims| {
                    let (conductor, id) = (claims.conductor().clone(), submitted.id.clone());
                    async move { conductor.cancel(&id, CancelReason::User, false, "me").await }
                };
                // Whoever comes second may find it over.
                tokio::join!(cancel(one), cancel(one), cancel(two))
            };
            let all = async { tokio::join!(pass_all(&both, taken), cancels) };
            let (_, (first, second, third)) = tokio::time::timeout(STUCK, all).await.expect("nobody waits for ever");
            assert!([first, second, third].iter().any(Result::is_ok));
            let state = pipeline_state(&database, &submitted.id).await;
            assert_eq!(state, "canceled");
        }
    }
}

/// Somebody waits for a lock of a serial group.
async fn somebody_waits(state: &State) -> bool {
    count(state, "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").await > 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processors_that_take_at_once_run_one_job_of_a_serial_group() {
    for database in databases().await.into_iter().filter(|database| database.dialect() == Dialect::Postgres) {
        let claims = claims(&database);
        for _ in 0..2 {
            claims.conductor().submit("gh/acme/shop", submit(SERIAL), RerunOf::default(), "me").await.unwrap();
        }
        // Another processor takes the younger one, before it can know of the older one.
        let select = "SELECT id FROM tasks ORDER BY queued_ms DESC, id DESC LIMIT 1";
        let younger: String = sqlx::query(select).fetch_one(database.pool()).await.unwrap().try_get(0).unwrap();
        let mut other = database.pool().begin().await.unwrap();
        let update = "UPDATE tasks SET state = 'claimed', handed = 1, agent = 'other' WHERE id = $1";
        sqlx::query(update).bind(&younger).execute(&mut *other).await.unwrap();
        sqlx::query(LOCK_SERIAL).bind(&younger).fetch_one(&mut *other).await.unwrap();
        let here = claims.clone();
        let taking = tokio::spawn(async move { here.take("*", Room::ANY, "here").await.unwrap().is_some() });
        while !taking.is_finished() && !somebody_waits(&database).await {}
        other.commit().await.unwrap();
        assert!(!taking.await.unwrap(), "the other one has a job of the group");
        claims.finish(&younger, 1, ending(Verdict::Passed)).await.unwrap();
        assert!(claims.take("*", Room::ANY, "here").await.unwrap().is_some());
    }
}
