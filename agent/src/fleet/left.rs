//! Tasks whose agent was killed and which run on: found by their marks, taken over by whoever locks their journal.
//!
//! ```text
//! mark `adoptable`, its owner dead ─▶ journal locked (one process alone) ─▶ link, Recall, List ─▶ Found ─▶ carry::go_on
//!                                         │ another process has it             │ nobody answers, or it is not understood
//!                                         └▶ left alone                        └▶ what is left is removed
//! ```
//!
//! Paths are taken from the journal, which is this user's; what the supervisor kept was within the job's reach.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::run_dir::{self, RunDirError};
use navvy_environment::supervisor::{Client, Connect};
use navvy_environment::survey::now;
use navvy_job::chain::chain;
use navvy_job::compiled::{StepKind, Variables};
use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use navvy_journal::standing::Mark;
use navvy_journal::{self as journal, Journal, JournalError};
use navvy_protocol::supervisor::ExecStatus;
use serde::{Deserialize, Serialize};

use super::carry::{Machine, Place};
use crate::environment::Provider;
use crate::task::{Left, LeftLogs, ends_in};

/// What a task that nobody can go on with has left is removed within this.
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);
/// Until the first word of the processor the task is spared for so long.
const FIRST: u64 = 60;

/// What a fleet's agent adds to what a task leaves. Holds the task's token: it is in the memory of the supervisor and of
/// agents, and nowhere else.
#[derive(Serialize, Deserialize)]
pub struct Caller {
    /// The processor's address.
    pub url: String,
    pub token: String,
    pub lease_ms: u32,
    /// Everything that is masked.
    pub masked: Variables,
    /// The working tree that was submitted, if one was.
    pub tree: Option<String>,
    pub config_name: String,
    /// The processor keeps machines ready.
    #[serde(default)]
    pub has_pool: bool,
}

/// A task that is this process's now.
pub struct Found {
    pub task: TaskId,
    pub left: Left,
    pub caller: Caller,
    pub execs: Vec<ExecStatus>,
    pub journal: Journal,
    pub containers: Vec<String>,
    pub link: Arc<dyn Connect>,
    pub place: Place,
}

/// Why a task was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// Another process has it.
    #[error("another process goes on with it")]
    Busy,
    /// It stays as it is, for an agent of that processor.
    #[error("it is a task of the processor at {url}, and not of this agent's")]
    Elsewhere { url: String },
    /// It stays as it is: nothing of it could be removed either.
    #[error("{why}")]
    Unread { why: String },
    /// It was removed, as far as `left` does not say otherwise.
    #[error("{why}")]
    Gone { why: String, left: Vec<String> },
}

/// Tasks of this user and this state directory whose agent is dead, and which may run on.
///
/// # Errors
/// Nobody can say whether there are some.
pub fn left_tasks(paths: &HostPaths, here: &Owner) -> Result<Vec<TaskId>, RunDirError> {
    let marked = run_dir::marked(paths.runtime.as_deref(), run_dir::uid())?;
    let is_left = |mark: &Option<Mark>| match mark {
        Some(Mark::Adoptable(_, owner)) => owner.machine == here.machine && owner.is_dead(here),
        _ => false,
    };
    let has_journal = |task: &TaskId| journal::path(&paths.state, task).exists();
    let left = marked.into_iter().filter(|(task, mark)| is_left(mark) && has_journal(task));
    Ok(left.map(|(task, _)| task).collect())
}

/// Makes the task this process's, as far as this machine goes. Whether it is so for the processor, the lease says.
///
/// # Errors
/// Why not.
pub async fn take_over(machine: &Machine, url: &str, task: &TaskId) -> Result<Found, NotTaken> {
    let path = journal::path(&machine.paths.state, task);
    let (journal, reading) = match Journal::take(&path).await {
        Ok(resumed) => resumed,
        Err(JournalError::Busy { .. }) => return Err(NotTaken::Busy),
        Err(error) => return Err(NotTaken::Unread { why: chain(&error) }),
    };
    let known = reading.known();
    let logs = known
        .as_ref()
        .map(|known| known.opening.logs.clone())
        .filter(|logs| logs.starts_with(machine.paths.state.join("runs")));
    let provider = known.map(|known| machine.providers.of_known(&known));
    let found = match provider.zip(logs) {
        Some((provider, logs)) => recall(machine, provider, task, logs).await,
        None => Err("its journal does not say where its logs are".to_owned()),
    };
    let taken = match found {
        Ok(recalled) if recalled.caller.url != url => return Err(NotTaken::Elsewhere { url: recalled.caller.url }),
        Ok(recalled) => {
            let Machine { owner, paths, .. } = machine;
            match recalled.provider.take_over(&journal, task, now() + FIRST, owner, paths).await {
                Ok(containers) => Ok((recalled, containers)),
                Err(error) => Err(chain(&error)),
            }
        }
        Err(why) => Err(why),
    };
    match taken {
        Ok((Recalled { left, caller, execs, link, place, .. }, containers)) => {
            Ok(Found { task: task.clone(), left, caller, execs, journal, containers, link, place })
        }
        Err(why) => {
            let left = remove(machine, task, &journal).await;
            Err(NotTaken::Gone { why, left })
        }
    }
}

/// Removes a task that nobody goes on with. Its logs stay. Returns what is left of it.
pub async fn remove(machine: &Machine, task: &TaskId, journal: &Journal) -> Vec<String> {
    let left = machine.providers.remove(task, &machine.paths, REMOVAL_LIMIT).await;
    if left.is_empty()
        && let Err(error) = journal.remove().await
    {
        tracing::warn!("{}.", chain(&error));
    }
    left
}

struct Recalled {
    provider: Provider,
    left: Left,
    caller: Caller,
    execs: Vec<ExecStatus>,
    link: Arc<dyn Connect>,
    place: Place,
}

async fn recall(machine: &Machine, provider: Provider, task: &TaskId, logs: PathBuf) -> Result<Recalled, String> {
    let gone = |error: std::io::Error| format!("its environment does not answer: {error}");
    let link = provider.link_of_left(task, &machine.paths).await.map_err(gone)?;
    let client = Client::new(Arc::clone(&link));
    let asked = tokio::task::spawn_blocking(move || {
        Ok::<_, navvy_environment::supervisor::ClientError>((client.recall()?, client.list()?))
    });
    let (note, execs) = asked.await.map_err(|error| error.to_string())?.map_err(|error| chain(&error))?;
    let left = Left::parse(&note).map_err(|error| chain(&error))?;
    let caller = serde_json::from_value(left.caller.clone()).map_err(|_| "what its agent left is not a fleet's")?;
    if left.note.claim.task != *task {
        return Err(format!("what its agent left is of task {}", left.note.claim.task));
    }
    let run = logs.parent().map(std::path::Path::to_owned).unwrap_or_default();
    Ok(Recalled { provider, left, caller, execs, link, place: Place { run, logs } })
}

impl Found {
    /// Cuts its logs to what was acknowledged. Nothing is delivered meanwhile.
    ///
    /// # Errors
    /// They cannot be listed, or a bug ended it: how far the logs are good is not known then.
    pub async fn take_up_logs(&self) -> Result<LeftLogs, String> {
        let (logs, execs, progress) = (self.place.logs.clone(), self.execs.clone(), self.left.progress.clone());
        let step = progress.step.checked_sub(1).and_then(|index| self.left.note.claim.job.steps.get(index));
        let is_exec = match step.map(|step| &step.kind) {
            Some(StepKind::Run(_)) => true,
            Some(StepKind::Checkout(_)) => self.caller.tree.is_none(),
            _ => false,
        };
        let ends = ends_in(&logs).await.map_err(|error| format!("{} cannot be read: {error}", logs.display()))?;
        let cut = tokio::task::spawn_blocking(move || LeftLogs::take_up(&logs, ends, &execs, &progress, is_exec));
        cut.await.map_err(|error| error.to_string())
    }
}
