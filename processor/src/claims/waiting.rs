//! Tells a pipeline's readers of jobs that no agent would take.
//!
//! What was told stands in the tasks' rows: each reason is told once, however many processors there are and however often one starts.

use std::time::Duration;

use navvy_job::chain::chain;
use navvy_job::event::JobRef;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use tokio::time::{Instant, MissedTickBehavior};

use super::offers::{Offers, millis};
use super::{Claims, Result};
use crate::state::now_ms;

const EVERY: Duration = Duration::from_secs(5);
/// A runner that has just been started has this long to ask for tasks before anybody hears that there is none.
const GRACE: Duration = Duration::from_secs(15);
/// After a processor was away, runners find it again with pauses that have grown: until then what they offer is not known.
const BEGINNING: Duration = Duration::from_secs(45);

/// Tells, as long as it is polled.
pub async fn tell_of_waiting(claims: Claims) {
    let mut due = tokio::time::interval_at(Instant::now() + BEGINNING, EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        if let Err(error) = claims.tell_who_waits(GRACE).await {
            tracing::warn!("Why tasks wait could not be told: {}.", chain(&error));
        }
    }
}

/// Tasks of one job that wait for the same.
struct Waiting {
    pipeline: String,
    job: JobRef,
    class: String,
    executor: String,
    told: Option<String>,
}

impl Waiting {
    fn of(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            pipeline: row.try_get(0)?,
            job: JobRef { workflow: row.try_get(1)?, job: row.try_get(2)? },
            class: row.try_get(3)?,
            executor: row.try_get(4)?,
            told: row.try_get(5)?,
        })
    }
}

impl Claims {
    /// Tells of each job that has waited for `grace`, and that no agent offers to take, why it waits.
    async fn tell_who_waits(&self, grace: Duration) -> Result<()> {
        let select = "SELECT DISTINCT pipeline, workflow_name, job_name, class, executor, waits FROM tasks
                      WHERE state = 'queued' AND queued_ms <= $1";
        let rows = sqlx::query(select).bind(now_ms() - millis(grace)).fetch_all(self.pool()).await?;
        let waiting: Vec<Waiting> = rows.iter().map(Waiting::of).collect::<Result<_>>()?;
        if waiting.is_empty() {
            return Ok(());
        }
        let offers = Offers::now(&self.conductor).await?;
        // A scheduler that starts agents says by itself why it has not.
        for job in waiting.iter().filter(|job| !self.conductor.is_launched(&job.class)) {
            let why = offers.why_not(&job.class, &job.executor);
            if job.told == why {
                continue;
            }
            // Those behind it are told all the same.
            if let Err(error) = self.tell_of(job, why.as_deref()).await {
                tracing::warn!(pipeline = job.pipeline, "Why a job waits could not be told: {}.", chain(&error));
            }
        }
        Ok(())
    }

    /// Writes down why a job waits now, and tells it, unless another processor was first.
    async fn tell_of(&self, waiting: &Waiting, why: Option<&str>) -> Result<()> {
        let mut tx = self.pool().begin().await?;
        // The pipeline's row comes before its tasks' rows.
        if let Some(why) = why {
            self.append_waiting(&mut tx, &waiting.pipeline, waiting.job.clone(), why).await?;
        }
        let update = "UPDATE tasks SET waits = $1 WHERE pipeline = $2 AND workflow_name = $3 AND job_name = $4
                      AND class = $5 AND executor = $6 AND state = 'queued' AND COALESCE(waits, '') <> COALESCE($1, '')";
        let query = sqlx::query(update).bind(why).bind(&waiting.pipeline).bind(&waiting.job.workflow);
        let query = query.bind(&waiting.job.job).bind(&waiting.class).bind(&waiting.executor);
        if query.execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(());
        }
        tx.commit().await?;
        if why.is_some() {
            self.conductor.signals.events.notify_waiters();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use navvy_job::executor::ExecutorKinds;
    use navvy_protocol::api::Submit;

    use super::*;
    use crate::claims::tests::{claims, events, submit};
    use crate::conduct::RerunOf;
    use crate::state::tests::databases;

    const TWO_NODES: &str = "
version: 2.1
jobs:
  small: {docker: [{image: i}], steps: [{run: make}]}
  whole: {machine: true, parallelism: 2, steps: [{run: make}]}
workflows:
  main: {jobs: [small, whole]}
";

    #[tokio::test]
    async fn readers_hear_once_that_no_agent_would_take_a_job_and_again_when_that_comes_back() {
        for state in databases().await {
            let claims = claims(&state);
            let of: Submit = submit(TWO_NODES);
            let submitted = claims.conductor().submit("gh/acme/shop", of, RerunOf::default(), "me").await.unwrap();
            let told = async |expected: usize| {
                let told = events(&state, &submitted.id).await;
                assert_eq!(told.iter().filter(|event| *event == "job_waiting").count(), expected, "{told:?}");
            };
            claims.tell_who_waits(Duration::from_secs(60)).await.unwrap();
            told(0).await;
            // One that cannot be told keeps no other from it.
            let update = "UPDATE tasks SET pipeline = 'nobodys' WHERE job_name = 'small'";
            sqlx::query(update).execute(state.pool()).await.unwrap();
            claims.tell_who_waits(Duration::ZERO).await.unwrap();
            told(1).await;
            // As another processor of the same database.
            super::super::tests::claims(&state).tell_who_waits(Duration::ZERO).await.unwrap();
            told(1).await;
            claims.offered("one", "*", ExecutorKinds::told(["machine"])).await.unwrap();
            claims.tell_who_waits(Duration::ZERO).await.unwrap();
            told(1).await;
            sqlx::query("UPDATE offers SET seen_ms = 0").execute(state.pool()).await.unwrap();
            claims.tell_who_waits(Duration::ZERO).await.unwrap();
            told(2).await;
        }
    }
}
