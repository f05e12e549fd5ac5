//! The end of a task: what still runs is ended, its verdict is reported, and its environment is removed beside whatever comes
//! next.
//!
//! ```text
//! steps are over ─▶ environment ended, logs sealed ─▶ Reporting: verdict sent ─▶ TaskResult, dependents start
//!                                                                            └▶ Removal ─▶ Releasing ─▶ Done
//! ```
//!
//! A container with a hundred thousand files takes an engine a minute to remove. Nothing needs to wait for that but the end of
//! the run. Should this process die in between, the task's owner is dead, and the next start removes what it left.

use std::time::Duration;

use futures_util::future::join_all;
use navvy_job::event::{Event, LogEnd, TaskRef};
use navvy_job::figures::millis;
use navvy_job::state::TaskState;
use tokio::time::Instant;

use crate::environment::Environment;

use super::left::ends_in;
use super::{Task, TaskResult, Turn};

/// What still runs is ended within this. What has not ended by then, because the engine hangs, say, is ended by its removal.
const END_LIMIT: Duration = Duration::from_secs(5);
/// The environment is destroyed within this, or what is left is named.
const RELEASE_LIMIT: Duration = Duration::from_secs(20);

/// What is left to do for a task whose verdict is reported.
pub struct Removal {
    task: Task,
    /// `None`: it is not known how far it was made.
    environment: Option<Box<Environment>>,
}

impl Task {
    /// Ends what still runs, and tells the verdict. A held task alone needs no removal.
    pub(super) async fn report(mut self, environment: Option<Box<Environment>>) -> (TaskResult, Option<Removal>) {
        self.result.duration = self.started.elapsed();
        self.voice.release();
        // A machine's memory is its own until it is gone.
        if !self.provider.is_of_machines() && self.machines.is_empty() {
            self.turn = Turn::Over;
        }
        if let Some(environment) = &environment {
            environment.end(END_LIMIT).await;
        }
        if self.result.held.is_none() {
            join_all(self.machines.iter().map(|machine| machine.end(END_LIMIT))).await;
        }
        // Of machines elsewhere there are so many: whoever comes next has one when this task's is gone.
        if !self.has_machine_elsewhere() {
            self.turn = Turn::Over;
        }
        self.services_are_over().await;
        let logs = self.log_ends().await;
        // A verdict is reported in any case, also after a bug of ours.
        self.advance(TaskState::Reporting).await.ok();
        self.result.warnings = self.voice.warnings();
        self.result.repeated = self.voice.take_repeated();
        self.context.bus.send(Event::TaskLogs { task: self.reference.clone(), logs });
        self.context.bus.send(Event::TaskEnded {
            task: self.reference.clone(),
            verdict: self.result.verdict.clone(),
            duration_ms: millis(self.result.duration),
            leftovers: Vec::new(),
        });
        let result = self.result.clone();
        if result.held.is_some() {
            // It goes on with its journal; the journal's lock goes with us.
            self.enter(TaskState::Done).ok();
            return (result, None);
        }
        (result, Some(Removal { task: self, environment }))
    }

    /// What cannot be listed was written all the same: whoever delivers the logs goes by what they have heard of.
    async fn log_ends(&self) -> Vec<LogEnd> {
        let directory = &self.context.directory;
        ends_in(directory).await.unwrap_or_else(|error| {
            let place = directory.display();
            self.warn(format!(
                "nobody can say whether the task's logs are whole, since {place} cannot be read: {error}"
            ));
            Vec::new()
        })
    }

    fn has_machine_elsewhere(&self) -> bool {
        let are_elsewhere = self.context.providers.machines.as_ref().is_some_and(|machines| !machines.are_here());
        are_elsewhere && (self.provider.is_of_machines() || !self.machines.is_empty())
    }

    /// Removes the machines beside its environment, those that were begun and never came to be, too. Returns what is left.
    async fn remove_machines(&mut self) -> Vec<String> {
        let made = std::mem::take(&mut self.machines);
        let mut left: Vec<String> =
            join_all(made.into_iter().map(|machine| machine.destroy(RELEASE_LIMIT))).await.concat();
        if self.may_have_machines
            && let Some(machines) = &self.context.providers.machines
        {
            let half_made = machines.remove_machines(&self.claim.task, &self.context.paths, RELEASE_LIMIT).await;
            left.extend(half_made.into_iter().filter(|it| !left.contains(it)).collect::<Vec<_>>());
        }
        left
    }
}

impl Removal {
    pub fn reference(&self) -> &TaskRef {
        &self.task.reference
    }

    /// Destroys the environment, and tells what is left of it. Nothing stops this.
    pub async fn carry_out(self) -> Vec<String> {
        let Self { mut task, environment } = self;
        let begun = Instant::now();
        // What was made is removed in any case.
        task.advance(TaskState::Releasing).await.ok();
        let mut leftovers = task.remove_machines().await;
        leftovers.extend(match environment {
            Some(environment) => environment.destroy(RELEASE_LIMIT).await,
            None => task.provider.remove(&task.claim.task, &task.context.paths, RELEASE_LIMIT).await,
        });
        task.context.bus.send(Event::TaskRemoved {
            task: task.reference.clone(),
            duration_ms: millis(begun.elapsed()),
            leftovers: leftovers.clone(),
        });
        task.end_journal(leftovers.is_empty()).await;
        task.enter(TaskState::Done).ok();
        leftovers
    }
}
