//! Going on with a task that was held: the same environment, a new verdict.
//!
//! ```text
//! note, journal (locked), way in ─▶ Preparing: longer held, what a dead retry ran is ended ─▶ Running from a step on ─▶ …
//! ```
//!
//! Until it is over the task stays held, too: should this process die, it is as if it had not been continued, but for
//! what the steps have done.

use std::sync::Arc;
use std::time::Duration;

use navvy_environment::supervisor::{Client, Connect};
use navvy_job::chain::chain;
use navvy_job::compiled::{Step, StepKind};
use navvy_job::outcome::Verdict;
use navvy_job::state::TaskState;
use navvy_protocol::supervisor::ExecStatus;

use crate::environment::{Adopted, Environment};

use super::hold::PERSON;
use super::lingering::Lingering;
use super::note::Note;
use super::prepare::Ready;
use super::{Context, Removal, Task, TaskResult, Turn};
use crate::step::handing::{Handed, HandedOut};
use crate::step::kinds::handed::open_again;

/// For what a retry that died had left running.
const GRACE: Duration = Duration::from_secs(1);

/// A held task that is this process's now.
pub struct Resumed {
    pub note: Note,
    pub adopted: Adopted,
    pub link: Arc<dyn Connect>,
    /// From 1.
    pub from: usize,
}

/// Continues the task. Never fails: everything that goes wrong is a verdict.
pub async fn resume(resumed: Resumed, context: Context) -> (TaskResult, Option<Removal>) {
    let Resumed { note, adopted, link, from } = resumed;
    let secrets = note.secrets();
    let turn = Turn::Now(Box::new(()));
    let mut task = Task::new(note.claim.clone(), secrets, note.reference.clone(), context, Vec::new(), turn);
    task.claim.attempt += 1;
    (task.attempts, task.attempts_before) = (note.attempts, note.attempts);
    task.resumed_at = Some(from);
    task.journal = Some(adopted.journal);
    let environment = task.take_up(note, adopted.names, link, from).await;
    task.report(environment).await
}

impl Task {
    async fn take_up(
        &mut self,
        note: Note,
        containers: Vec<String>,
        link: Arc<dyn Connect>,
        from: usize,
    ) -> Option<Box<Environment>> {
        if self.advance(TaskState::Preparing).await.is_err() {
            return None;
        }
        let client = Client::new(Arc::clone(&link));
        let (holder, time, bytes) = (client.clone(), self.claim.limits.job + note.time(), self.further_note(&note));
        let lingering = note.lingering.clone();
        let taken = tokio::task::spawn_blocking(move || take_over(&holder, time, &bytes?, &lingering)).await;
        let trouble = match taken {
            Ok(Ok(())) => None,
            Ok(Err(trouble)) => Some(trouble),
            Err(error) => Some(error.to_string()),
        };
        if let Some(trouble) = trouble {
            let fault = format!("the held environment does not answer: {trouble}");
            self.result.verdict = Verdict::Infra { fault };
            return None;
        }
        let (provider, paths) = (&self.provider, &self.context.paths);
        let frame = note.frame();
        let (task, floor) = (&self.claim.task, self.context.floor.0);
        let environment = match provider.adopt(task, paths, containers, link, note.inheritance, floor).await {
            Ok(environment) => environment,
            Err(error) => {
                self.result.verdict = Verdict::Infra { fault: chain(&error) };
                return None;
            }
        };
        let lingering = Lingering::inherit(note.lingering);
        let mut ready = Ready { environment, client, frame, lingering, handed: HandedOut::default() };
        self.may_have_machines |= note.handed.contains(&Handed::RemoteDocker);
        self.hand_out_again(&mut ready, note.handed).await;
        self.go_through(ready, from).await
    }

    /// What the job had been handed before.
    pub(super) async fn hand_out_again(&self, ready: &mut Ready, all: Vec<Handed>) {
        for handed in all {
            match open_again(&self.step_cx(ready), handed.clone()).await {
                Ok(Some(opened)) => ready.handed.add(&mut ready.frame, handed, opened),
                Ok(None) => {}
                // The next step finds out, too, and says why.
                Err(_) => return,
            }
        }
    }

    /// For the process that continues after this one, should it die: no exec's name is used twice.
    fn further_note(&self, note: &Note) -> Result<Vec<u8>, String> {
        let reruns = |step: &Step| if let StepKind::Run(run) = &step.kind { run.max_auto_reruns } else { 0 };
        let most = note.claim.job.steps.iter().map(reruns).max().unwrap_or(0);
        note.with_attempts(note.attempts + 1 + most).map_err(|error| error.to_string())
    }
}

/// The environment outlives this process, too; what a retry that died was running is ended.
fn take_over(client: &Client, time: Duration, note: &[u8], lingering: &[String]) -> Result<(), String> {
    client.keep(time, note).map_err(|error| chain(&error))?;
    let execs = client.list().map_err(|error| chain(&error))?;
    let forsaken = |exec: &&ExecStatus| !exec.ended && !lingering.contains(&exec.id) && !exec.id.starts_with(PERSON);
    for exec in execs.iter().filter(forsaken) {
        client.stop(&exec.id, GRACE).map_err(|error| chain(&error))?;
    }
    Ok(())
}
