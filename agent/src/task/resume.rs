//! Going on with a task that was held: the same environment, a new verdict.
//!
//! ```text
//! note, journal (locked), way in ─▶ Preparing: the supervisor lets go of its deadline ─▶ Running from a step on ─▶ …
//! ```

use std::sync::Arc;
use std::time::Duration;

use navvy_job::outcome::Verdict;
use navvy_job::state::TaskState;

use super::hold::Note;
use super::lingering::Lingering;
use super::prepare::Ready;
use super::{Context, Place, Task, TaskResult, Turn};
use crate::chain::chain;
use crate::environment::docker::DockerEnvironment;
use crate::environment::docker::hold::Adopted;
use crate::supervisor::{Client, Connect};

/// A held task that is this process's now.
pub struct Resumed {
    pub note: Note,
    pub adopted: Adopted,
    pub link: Arc<dyn Connect>,
    /// From 1.
    pub from: usize,
}

/// Goes on. Never fails: whatever goes wrong is a verdict.
pub async fn resume(resumed: Resumed, context: Context) -> TaskResult {
    let Resumed { note, adopted, link, from } = resumed;
    let secrets = note.secrets();
    let place: Place = Box::new(());
    let mut task =
        Task::new(note.claim.clone(), secrets, note.reference.clone(), context, Vec::new(), Turn::Now(place));
    task.claim.attempt += 1;
    (task.attempts, task.attempts_before) = (note.attempts, note.attempts);
    task.resumed_at = Some(from);
    task.journal = Some(adopted.journal);
    task.take_up(note, adopted.containers, link, from).await;
    task.report().await
}

impl Task {
    async fn take_up(&mut self, note: Note, containers: Vec<String>, link: Arc<dyn Connect>, from: usize) {
        self.advance(TaskState::Preparing).await;
        let client = Client::new(Arc::clone(&link));
        let holder = client.clone();
        let let_go = tokio::task::spawn_blocking(move || holder.keep(Duration::ZERO, b"")).await;
        let trouble = match let_go {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(error) => Some(error.to_string()),
        };
        if let Some(trouble) = trouble {
            let fault = format!("the held environment does not answer: {trouble}");
            self.result.verdict = Verdict::Infra { fault };
            return self.release(None).await;
        }
        let (engine, paths) = (&self.context.engine, &self.context.paths);
        let frame = note.frame();
        let environment = DockerEnvironment::adopt(engine, &self.claim.task, paths, containers, link, note.inheritance);
        let ready = Ready { environment, client, frame, lingering: Lingering::default() };
        self.go_through(ready, from).await;
    }
}
